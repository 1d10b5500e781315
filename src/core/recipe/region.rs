//! The part of the frame that counts: rectangles and polygons in frame pixels, and what of them is left out.
//!
//! Whole pixels and one frame size: a region is drawn on an image of the camera that will use it. Another size means another camera
//! or binning, on which it would lie elsewhere, so a recipe with a region takes frames of one size only.

use super::{
    FrameRules, Output, OutputKind, RecipeError,
    reader::{Placed, Section},
};
use crate::types::Bounds;

/// Most shapes in `include`, and in `exclude`.
pub const SHAPES_MAX: usize = 16;
/// Most corners of all polygons of a region together. A row of pixels meets each edge at most once, so a row has at most half as
/// many spans, and 16,384 rows of them take 16 MiB.
pub const CORNERS_MAX: usize = 256;

/// Where defects count.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    /// A pixel counts if it lies in one of these; at least one.
    pub include: Vec<Shape>,
    /// And in none of these.
    pub exclude: Vec<Shape>,
    /// The smallest rectangle around `include`.
    pub around: Bounds,
    /// The model sees `around` and not the whole frame.
    pub crop: bool,
    /// What the model sees where nothing counts, of 255; `None`: the pixels as they are.
    pub fill: Option<u8>,
    /// Share of a box's pixels that must count for the box to count, above 0; detection only.
    pub box_share_min: Option<f32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    Rectangle(Bounds),
    /// At least three corners, x and y of the pixel grid's lines: (0, 0) is the frame's outer corner.
    Polygon(Vec<(u32, u32)>),
}

impl Shape {
    fn around(&self) -> Bounds {
        match self {
            Self::Rectangle(bounds) => *bounds,
            Self::Polygon(corners) => {
                let least = |side: fn(&(u32, u32)) -> u32| corners.iter().map(side).min().expect("corners");
                let most = |side: fn(&(u32, u32)) -> u32| corners.iter().map(side).max().expect("corners");
                let (x_px, y_px) = (least(|corner| corner.0), least(|corner| corner.1));
                Bounds {
                    height_px: most(|corner| corner.1) - y_px,
                    width_px: most(|corner| corner.0) - x_px,
                    x_px,
                    y_px,
                }
            }
        }
    }
}

impl Region {
    /// Whether every pixel of `around` counts.
    #[must_use]
    pub fn is_rectangle(&self) -> bool {
        self.exclude.is_empty() && self.include.contains(&Shape::Rectangle(self.around))
    }
}

pub(super) fn region(value: &Placed<'_>, frame: &FrameRules) -> Result<Region, RecipeError> {
    let mut section = value.table()?;
    if frame.width_px.min != frame.width_px.max || frame.height_px.min != frame.height_px.max {
        return Err(value.problem(
            "lies in pixels of a frame of one size, but [frame] allows several; set min and max of width_px and height_px alike",
        ));
    }
    let frame_px = (frame.width_px.max, frame.height_px.max);
    let mut corners = 0;
    let include = shapes(&section.required("include")?, frame_px, &mut corners)?;
    let exclude = match section.optional("exclude") {
        Some(value) => shapes(&value, frame_px, &mut corners)?,
        None => Vec::new(),
    };
    let crop = section.required("crop")?.boolean()?;
    let fill = section.optional("fill").map(|value| value.level()).transpose()?;
    let box_share_min =
        section.optional("box_share_min").map(|value| value.number(f32::MIN_POSITIVE..=1.0)).transpose()?;
    section.finish()?;
    let around = include.iter().map(Shape::around).reduce(union).expect("at least one shape");
    Ok(Region { include, exclude, around, crop, fill, box_share_min })
}

/// What a region must say for this kind of output.
pub(super) fn check_output(at: &Placed<'_>, region: &Region, output: &Output) -> Result<(), RecipeError> {
    let is_score_of_view = match output.kind {
        OutputKind::Classification | OutputKind::Anomaly { .. } => true,
        OutputKind::Segmentation { .. } | OutputKind::Detection(_) => false,
    };
    if is_score_of_view && !region.crop {
        return Err(
            at.problem("needs crop = true: the score of this kind of output is one of everything the model sees")
        );
    }
    if is_score_of_view && region.fill.is_none() && !region.is_rectangle() {
        return Err(
            at.problem("is no plain rectangle and needs fill, or what it leaves out would still make the score")
        );
    }
    match (&output.kind, region.box_share_min) {
        (OutputKind::Detection(_), None) => Err(at.problem("needs box_share_min: which boxes on its border count")),
        (OutputKind::Detection(_), Some(_)) | (_, None) => Ok(()),
        (_, Some(_)) => Err(at.problem("has box_share_min, which has a meaning only for detection")),
    }
}

fn union(a: Bounds, b: Bounds) -> Bounds {
    let (x_px, y_px) = (a.x_px.min(b.x_px), a.y_px.min(b.y_px));
    let (right, bottom) = (a.right_px().max(b.right_px()), a.bottom_px().max(b.bottom_px()));
    Bounds { height_px: bottom - y_px, width_px: right - x_px, x_px, y_px }
}

fn shapes(value: &Placed<'_>, frame_px: (u32, u32), corners: &mut usize) -> Result<Vec<Shape>, RecipeError> {
    value.array(SHAPES_MAX)?.iter().map(|item| shape(item, frame_px, corners)).collect()
}

fn shape(value: &Placed<'_>, (width, height): (u32, u32), corners: &mut usize) -> Result<Shape, RecipeError> {
    let mut section = value.table()?;
    let shape = match section.optional("polygon") {
        Some(polygon) => polygon_of(&polygon, (width, height), corners)?,
        None => rectangle(&mut section, (width, height))?,
    };
    section.finish()?;
    Ok(shape)
}

fn rectangle(section: &mut Section<'_>, (width, height): (u32, u32)) -> Result<Shape, RecipeError> {
    let x_px = section.required("x")?.integer_u32(0..=width - 1)?;
    let y_px = section.required("y")?.integer_u32(0..=height - 1)?;
    let width_px = section.required("width")?.integer_u32(1..=width - x_px)?;
    let height_px = section.required("height")?.integer_u32(1..=height - y_px)?;
    Ok(Shape::Rectangle(Bounds { height_px, width_px, x_px, y_px }))
}

fn polygon_of(value: &Placed<'_>, (width, height): (u32, u32), corners: &mut usize) -> Result<Shape, RecipeError> {
    let items = value.array(CORNERS_MAX)?;
    *corners += items.len();
    if items.len() < 3 || *corners > CORNERS_MAX {
        let problem = format!("a polygon has at least 3 corners, and all of a region together {CORNERS_MAX} at most");
        return Err(value.problem(format!("has {} corners; {problem}", items.len())));
    }
    let corner = |item: &Placed<'_>| {
        let pair = item.array(2)?;
        let [x, y] = &pair[..] else { return Err(item.problem("is no corner; write [x, y]")) };
        Ok((x.integer_u32(0..=width)?, y.integer_u32(0..=height)?))
    };
    let corners: Vec<(u32, u32)> = items.iter().map(corner).collect::<Result<_, _>>()?;
    let shape = Shape::Polygon(corners);
    let Bounds { width_px, height_px, .. } = shape.around();
    if width_px == 0 || height_px == 0 {
        return Err(value.problem("is a polygon without any area"));
    }
    Ok(shape)
}

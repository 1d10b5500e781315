//! From places in what the model said to places in the frame.

use crate::{
    core::{preprocess::Placement, recipe::Input},
    types::Bounds,
};

/// From places in a map, or in the model's input, to places in the frame.
pub(super) struct Geometry {
    x: Axis,
    y: Axis,
}

/// One direction.
struct Axis {
    /// Input pixels per map pixel.
    scale: f64,
    /// Where the view begins in the input, and how long it is there, in input pixels.
    offset_px: f64,
    placed_px: f64,
    /// Where the view begins in the frame, and how long it is there, in frame pixels.
    start_px: u32,
    side_px: u32,
}

impl Geometry {
    /// For a map of `map` values a side, which shows `view` of the frame.
    pub(super) fn of_map(input: &Input, map: (usize, usize), view: Bounds) -> Self {
        let placement = Placement::of(input, view.width_px, view.height_px);
        Self {
            x: Axis {
                scale: scale(input.width_px, map.0),
                offset_px: f64::from(placement.left_px),
                placed_px: f64::from(placement.width_px),
                start_px: view.x_px,
                side_px: view.width_px,
            },
            y: Axis {
                scale: scale(input.height_px, map.1),
                offset_px: f64::from(placement.top_px),
                placed_px: f64::from(placement.height_px),
                start_px: view.y_px,
                side_px: view.height_px,
            },
        }
    }

    /// For a map of `map` values a side, which shows `window` of the frame from border to border.
    #[expect(clippy::cast_precision_loss, reason = "sides of maps")]
    pub(super) fn of_mosaic(map: (usize, usize), window: Bounds) -> Self {
        let axis = |map: usize, start_px: u32, side_px: u32| Axis {
            scale: 1.0,
            offset_px: 0.0,
            placed_px: map as f64,
            start_px,
            side_px,
        };
        Self { x: axis(map.0, window.x_px, window.width_px), y: axis(map.1, window.y_px, window.height_px) }
    }

    /// For places in the model's input.
    pub(super) fn of_input(input: &Input, view: Bounds) -> Self {
        Self::of_map(input, (input.width_px as usize, input.height_px as usize), view)
    }

    /// The part of the frame that is looked at.
    pub(super) fn view(&self) -> Bounds {
        let (x, y) = (&self.x, &self.y);
        Bounds { height_px: y.side_px, width_px: x.side_px, x_px: x.start_px, y_px: y.start_px }
    }

    /// The frame's column in which the centre of a column of the map lies; `None` in the padding.
    pub(super) fn column_of(&self, map_x: usize) -> Option<u32> {
        self.x.pixel_of(map_x)
    }

    /// The same of rows.
    pub(super) fn row_of(&self, map_y: usize) -> Option<u32> {
        self.y.pixel_of(map_y)
    }

    /// Values of the map per frame pixel.
    pub(super) fn values_per_px(&self) -> (f64, f64) {
        let per_px = |axis: &Axis| axis.placed_px / axis.scale / f64::from(axis.side_px);
        (per_px(&self.x), per_px(&self.y))
    }

    /// The column of the map, which has so many, that shows a place of the view in pixels from its start.
    pub(super) fn map_x(&self, in_view_px: f64, columns: usize) -> usize {
        self.x.in_map(in_view_px, columns)
    }

    /// The same of rows.
    pub(super) fn map_y(&self, in_view_px: f64, rows: usize) -> usize {
        self.y.in_map(in_view_px, rows)
    }

    /// Frame pixels that `map_px` values cover, at least one.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at most the frame's pixels"
    )]
    pub(super) fn area(&self, map_px: usize) -> u64 {
        let view = f64::from(self.x.side_px) * f64::from(self.y.side_px);
        let placed = self.x.placed_px * self.y.placed_px;
        let area = map_px as f64 * self.x.scale * self.y.scale * view / placed;
        // A map also covers the padding of a letterbox, which is no part of the frame.
        (area.round() as u64).clamp(1, u64::from(self.x.side_px) * u64::from(self.y.side_px))
    }

    /// Outwards to whole frame pixels, at least one a side, all of them in the view.
    pub(super) fn bounds(&self, (left, top): (f64, f64), (right, bottom): (f64, f64)) -> Bounds {
        let (x_px, x_end) = self.x.outwards(left, right);
        let (y_px, y_end) = self.y.outwards(top, bottom);
        Bounds { height_px: y_end - y_px, width_px: x_end - x_px, x_px, y_px }
    }

    /// Width and height, in frame pixels, of the part of a box that lies in the view.
    pub(super) fn size_in_view(&self, (left, top): (f64, f64), (right, bottom): (f64, f64)) -> (f64, f64) {
        (self.x.within(left, right), self.y.within(top, bottom))
    }
}

#[expect(clippy::cast_precision_loss, reason = "sides of maps")]
fn scale(input_px: u32, map_px: usize) -> f64 {
    f64::from(input_px) / map_px as f64
}

impl Axis {
    /// A place in the map as frame pixels from the start of the view.
    fn in_view(&self, place: f64) -> f64 {
        (place * self.scale - self.offset_px) * f64::from(self.side_px) / self.placed_px
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the map")]
    fn in_map(&self, in_view_px: f64, places: usize) -> usize {
        let place = (in_view_px * self.placed_px / f64::from(self.side_px) + self.offset_px) / self.scale;
        (place.max(0.0) as usize).min(places - 1)
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the view")]
    fn outwards(&self, start: f64, end: f64) -> (u32, u32) {
        let start = self.in_view(start).floor().clamp(0.0, f64::from(self.side_px - 1));
        let end = self.in_view(end).ceil().clamp(start + 1.0, f64::from(self.side_px));
        (self.start_px + start as u32, self.start_px + end as u32)
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a side of a map; checked to lie in the view"
    )]
    fn pixel_of(&self, map: usize) -> Option<u32> {
        let place = self.in_view(map as f64 + 0.5);
        (place >= 0.0 && place < f64::from(self.side_px)).then(|| self.start_px + place as u32)
    }

    fn within(&self, start: f64, end: f64) -> f64 {
        let side = f64::from(self.side_px);
        self.in_view(end).clamp(0.0, side) - self.in_view(start).clamp(0.0, side)
    }
}

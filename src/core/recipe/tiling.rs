//! How a large frame is looked at in tiles that overlap, and how what the model says of them becomes one.

use super::{
    FRAME_SIDE_PX_MAX, FrameRules, Output, OutputKind, PLACED_LABELS_MAX, RecipeError, Region, reader::Placed,
};

/// Most tiles of a frame: each is one inference.
pub const TILES_MAX: u64 = 256;
/// Shortest side of a tile.
const SIDE_PX_MIN: u32 = 16;

/// Tiles of one size, in frame pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    pub width_px: u32,
    pub height_px: u32,
    /// By which neighbours overlap at least; less than either side.
    pub overlap_px: u32,
    /// `None` where the model gives no maps.
    pub merge: Option<Merge>,
}

/// How the values of maps become one where tiles overlap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// The largest.
    Max,
    /// The mean, weighted by how far from the tile's border a value lies.
    Mean,
}

impl Tiling {
    /// Where tiles begin along a side of `side_px`, and how long each is there. Tiles follow each other by `tile_px` less the overlap;
    /// the last is moved back to end with the side. A side shorter than a tile has one tile of its own length.
    #[must_use]
    pub fn along(side_px: u32, tile_px: u32, overlap_px: u32) -> (Vec<u32>, u32) {
        if side_px <= tile_px {
            return (vec![0], side_px);
        }
        let step = tile_px - overlap_px;
        let last = side_px - tile_px;
        let starts = (0..last.div_ceil(step)).map(|at| at * step).chain([last]);
        (starts.collect(), tile_px)
    }

    /// How many tiles a view of this size takes.
    pub(super) fn count(self, (width_px, height_px): (u32, u32)) -> u64 {
        let along = |side: u32, tile: u32| {
            if side <= tile { 1 } else { u64::from((side - tile).div_ceil(tile - self.overlap_px)) + 1 }
        };
        along(width_px, self.width_px) * along(height_px, self.height_px)
    }
}

pub(super) fn tiling(value: &Placed<'_>, frame: &FrameRules, region: Option<&Region>) -> Result<Tiling, RecipeError> {
    let mut section = value.table()?;
    let width_px = section.required("width_px")?.integer_u32(SIDE_PX_MIN..=FRAME_SIDE_PX_MAX)?;
    let height_px = section.required("height_px")?.integer_u32(SIDE_PX_MIN..=FRAME_SIDE_PX_MAX)?;
    let overlap_px = section.required("overlap_px")?.integer_u32(0..=width_px.min(height_px) - 1)?;
    let merge =
        section.optional("merge").map(|value| value.word(&[("max", Merge::Max), ("mean", Merge::Mean)])).transpose()?;
    section.finish()?;
    let tiling = Tiling { width_px, height_px, overlap_px, merge };
    let view_px = region.filter(|region| region.crop).map_or(frame.largest_px(), |region| region.around.size());
    let tiles = tiling.count(view_px);
    if tiles > TILES_MAX {
        let (width, height) = view_px;
        return Err(value.problem(format!(
            "cuts {width}x{height} px into {tiles} tiles; at most {TILES_MAX} are looked at: take larger tiles or less overlap"
        )));
    }
    Ok(tiling)
}

/// What a tiling must say for this kind of output.
pub(super) fn check_output(at: &Placed<'_>, tiling: Tiling, output: &Output) -> Result<(), RecipeError> {
    let has_maps = match output.kind {
        OutputKind::Segmentation { .. } => true,
        OutputKind::Anomaly { pixel_threshold, .. } => pixel_threshold.is_some(),
        OutputKind::Classification | OutputKind::Detection(_) => false,
    };
    if output.kind == OutputKind::Classification && output.labels.len() > PLACED_LABELS_MAX {
        let labels = output.labels.len();
        return Err(at.problem(format!(
            "names a tile for each of {labels} labels; with tiles there are {PLACED_LABELS_MAX} at most"
        )));
    }
    match (has_maps, tiling.merge) {
        (true, None) => Err(at.problem("needs merge: how maps become one where tiles overlap")),
        (false, Some(_)) => Err(at.problem("has merge, which has a meaning only where maps are read")),
        _ => Ok(()),
    }
}

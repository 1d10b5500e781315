//! What the model looks at: the whole frame, the part of it around the recipe's region, or tiles of either.

use super::{
    mask::Mask,
    recipe::{Recipe, Tiling},
};
use crate::types::Bounds;

/// The views of one frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Views {
    /// In the order in which the model sees them, row by row; at least one, each within the frame.
    pub views: Vec<Bounds>,
    /// All that could be seen.
    pub window: Option<Bounds>,
    /// The window has more than one tile.
    pub is_tiled: bool,
}

impl Views {
    /// Of a frame of `frame_px`. Tiles in which no pixel counts are left out.
    #[must_use]
    pub fn of(recipe: &Recipe, frame_px: (u32, u32), mask: Option<&Mask>) -> Self {
        let cropped = recipe.region.as_ref().filter(|region| region.crop).map(|region| region.around);
        let window = cropped.unwrap_or(Bounds::whole(frame_px));
        let tiles = recipe.tiling.map_or_else(|| vec![window], |tiling| tiles(tiling, window));
        let is_tiled = tiles.len() > 1;
        let counts = |tile: &Bounds| !is_tiled || mask.is_none_or(|mask| mask.count(*tile) > 0);
        Self { views: tiles.into_iter().filter(counts).collect(), window: Some(window), is_tiled }
    }
}

fn tiles(tiling: Tiling, window: Bounds) -> Vec<Bounds> {
    let (columns, width_px) = Tiling::along(window.width_px, tiling.width_px, tiling.overlap_px);
    let (rows, height_px) = Tiling::along(window.height_px, tiling.height_px, tiling.overlap_px);
    let tile = |y: u32, x: u32| Bounds { height_px, width_px, x_px: window.x_px + x, y_px: window.y_px + y };
    rows.iter().flat_map(|y| columns.iter().map(move |x| tile(*y, *x))).collect()
}

//! Maps of several tiles as one map.

use super::{Bounds, DecideError, geometry::Geometry, maps::Map, values::larger};
use crate::core::recipe::Merge;

/// Most values of a map put together, all labels: 128 MiB.
const VALUES_MAX: usize = 32 << 20;

/// One map per label of all that the tiles cover. It has as many values per frame pixel as the maps of the tiles. A value of it is that of the tile's map in whose cell its centre
/// lies, so nothing is interpolated; where tiles overlap they are merged.
#[derive(Default)]
pub(super) struct Mosaic {
    width: usize,
    height: usize,
    labels: usize,
    /// Label by label, row by row.
    values: Vec<f32>,
    /// Of each place, for the mean.
    weights: Vec<f32>,
}

/// Where a line of the mosaic meets a tile's map.
struct Meeting {
    place: usize,
    in_map: usize,
    weight: f32,
}

impl Mosaic {
    /// Begins anew, for maps like the first tile's.
    pub(super) fn begin(
        &mut self,
        tensor: &str,
        labels: usize,
        map: (usize, usize),
        geometry: &Geometry,
        window: Bounds,
        merge: Merge,
    ) -> Result<(), DecideError> {
        let (per_x, per_y) = geometry.values_per_px();
        let side = |frame_px: u32, per_px: f64| ((f64::from(frame_px) * per_px).round() as usize).max(1);
        (self.width, self.height) = (side(window.width_px, per_x), side(window.height_px, per_y));
        self.labels = labels;
        let values = self.width.checked_mul(self.height).and_then(|places| places.checked_mul(labels));
        let Some(values) = values.filter(|values| *values <= VALUES_MAX) else {
            let (tensor, width, height) = (tensor.to_owned(), self.width, self.height);
            return Err(DecideError::Mosaic { tensor, width, height, labels, tile: map });
        };
        self.values.clear();
        self.values.resize(values, if merge == Merge::Max { f32::NEG_INFINITY } else { 0.0 });
        self.weights.clear();
        if merge == Merge::Mean {
            self.weights.resize(self.width * self.height, 0.0);
        }
        Ok(())
    }

    /// Lays the maps of one tile into place.
    pub(super) fn lay(&mut self, maps: &[Map<'_>], geometry: &Geometry, window: Bounds, overlap_px: u32, merge: Merge) {
        let view = geometry.view();
        let columns =
            meetings((window.x_px, window.width_px, self.width), (view.x_px, view.width_px), overlap_px, |place| {
                geometry.map_x(place, maps[0].width)
            });
        let rows =
            meetings((window.y_px, window.height_px, self.height), (view.y_px, view.height_px), overlap_px, |place| {
                geometry.map_y(place, maps[0].height)
            });
        let places = self.width * self.height;
        for (map, values) in maps.iter().zip(self.values.chunks_exact_mut(places)) {
            for row in &rows {
                let from = &map.values[row.in_map * map.width..][..map.width];
                let into = &mut values[row.place * self.width..][..self.width];
                for column in &columns {
                    let (value, into) = (from[column.in_map], &mut into[column.place]);
                    match merge {
                        Merge::Max => *into = larger(*into, value),
                        Merge::Mean => *into += row.weight * column.weight * value,
                    }
                }
            }
        }
        if merge == Merge::Mean {
            for row in &rows {
                let weights = &mut self.weights[row.place * self.width..][..self.width];
                columns.iter().for_each(|column| weights[column.place] += row.weight * column.weight);
            }
        }
    }

    /// The maps when every tile is laid.
    pub(super) fn finish(&mut self) -> Vec<Map<'_>> {
        let places = self.width * self.height;
        if !self.weights.is_empty() {
            for values in self.values.chunks_exact_mut(places) {
                values.iter_mut().zip(&self.weights).for_each(|(value, weight)| *value /= weight);
            }
        }
        Map::split(&self.values, self.width, self.height)
    }

    /// From places in these maps to the frame.
    pub(super) fn geometry(&self, window: Bounds) -> Geometry {
        Geometry::of_mosaic((self.width, self.height), window)
    }
}

/// The places along one side of the mosaic whose centre lies in a tile.
fn meetings(
    (start_px, side_px, places): (u32, u32, usize),
    (tile_start_px, tile_px): (u32, u32),
    overlap_px: u32,
    in_map: impl Fn(f64) -> usize,
) -> Vec<Meeting> {
    let px_per_place = f64::from(side_px) / places as f64;
    let (tile_start, tile_end) = (f64::from(tile_start_px), f64::from(tile_start_px + tile_px));
    let centre = |place: usize| f64::from(start_px) + (place as f64 + 0.5) * px_per_place;
    let meeting = |place: usize| {
        let centre = centre(place);
        (centre >= tile_start && centre < tile_end).then(|| {
            // Rises from the tile's border to one where no neighbour reaches by the overlap asked for.
            let from_border = (centre - tile_start).min(tile_end - centre);
            let weight = if overlap_px == 0 { 1.0 } else { (from_border / f64::from(overlap_px)).min(1.0) };
            // Never zero, so that a place in one tile only has a mean, too.
            Meeting { place, in_map: in_map(centre - tile_start), weight: (weight as f32).max(1.0e-6) }
        })
    };
    (0..places).filter_map(meeting).collect()
}

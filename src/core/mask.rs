//! Which pixels of a frame count, as spans of each row.
//!
//! A pixel lies in a shape if its centre does. A polygon is filled by the even-odd rule; where an edge meets a centre exactly, the
//! pixel belongs to the side on the right, so that two polygons that share an edge share no pixel. Only whole numbers are computed
//! with: the same recipe gives the same pixels on every machine.

use super::recipe::{Region, Shape};
use crate::types::Bounds;

/// The pixels of a frame of one size that count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    size_px: (u32, u32),
    /// First column, and the first column behind it; row by row, ascending, apart from each other.
    spans: Vec<(u32, u32)>,
    /// Where the spans of each row begin; one more than there are rows.
    starts: Vec<u32>,
}

impl Mask {
    /// `None` if no pixel counts.
    #[must_use]
    pub fn new(region: &Region, size_px: (u32, u32)) -> Option<Self> {
        let (width, height) = size_px;
        let mut mask = Self { size_px, spans: Vec::new(), starts: Vec::with_capacity(height as usize + 1) };
        let mut row = vec![false; width as usize];
        for y in 0..height {
            mask.starts.push(span_count(&mask.spans));
            row.fill(false);
            region.include.iter().for_each(|shape| paint(shape, y, true, &mut row));
            region.exclude.iter().for_each(|shape| paint(shape, y, false, &mut row));
            let mut x = 0;
            for run in row.chunk_by(|a, b| a == b) {
                let end = x + u32::try_from(run.len()).expect("a row of a frame");
                if run[0] {
                    mask.spans.push((x, end));
                }
                x = end;
            }
        }
        mask.starts.push(span_count(&mask.spans));
        (!mask.spans.is_empty()).then_some(mask)
    }

    /// Width and height of the frames it is for.
    #[must_use]
    pub fn size_px(&self) -> (u32, u32) {
        self.size_px
    }

    /// The spans of one row.
    #[must_use]
    pub fn row(&self, y: u32) -> &[(u32, u32)] {
        let at = |y: u32| self.starts[y as usize] as usize;
        &self.spans[at(y)..at(y + 1)]
    }

    #[must_use]
    pub fn contains(&self, x: u32, y: u32) -> bool {
        let row = self.row(y);
        let next = row.partition_point(|(_, end)| *end <= x);
        row.get(next).is_some_and(|(start, _)| *start <= x)
    }

    /// How many pixels of `bounds` count.
    #[must_use]
    pub fn count(&self, bounds: Bounds) -> u64 {
        let (left, right) = (bounds.x_px, bounds.right_px());
        let in_span = |(start, end): &(u32, u32)| u64::from((*end).min(right).saturating_sub((*start).max(left)));
        (bounds.y_px..bounds.bottom_px()).map(|y| self.row(y).iter().map(in_span).sum::<u64>()).sum()
    }
}

fn span_count(spans: &[(u32, u32)]) -> u32 {
    u32::try_from(spans.len()).expect("at most 256 spans a row, 16,384 rows")
}

/// Sets the pixels of `row`, the one at `y`, that lie in `shape`.
fn paint(shape: &Shape, y: u32, value: bool, row: &mut [bool]) {
    match shape {
        Shape::Rectangle(bounds) => {
            if (bounds.y_px..bounds.bottom_px()).contains(&y) {
                row[bounds.x_px as usize..bounds.right_px() as usize].fill(value);
            }
        }
        Shape::Polygon(corners) => {
            let next = corners.iter().cycle().skip(1);
            let mut crossings: Vec<usize> = corners.iter().zip(next).filter_map(|(a, b)| crossing(*a, *b, y)).collect();
            crossings.sort_unstable();
            for pair in crossings.chunks_exact(2) {
                row[pair[0]..pair[1]].fill(value);
            }
        }
    }
}

/// The first column whose centre lies at or behind the place where the edge from `a` to `b` meets the centres of row `y`.
fn crossing(a: (u32, u32), b: (u32, u32), y: u32) -> Option<usize> {
    let ((x0, y0), (x1, y1)) = if a.1 <= b.1 { (a, b) } else { (b, a) };
    // Rows have their centres between the lines that corners lie on, so no corner is ever met.
    if !(y0..y1).contains(&y) {
        return None;
    }
    let [x0, y0, x1, y1, y] = [x0, y0, x1, y1, y].map(i64::from);
    // x - 1/2 = x0 + (y + 1/2 - y0) (x1 - x0) / (y1 - y0) - 1/2, over 2 (y1 - y0), rounded up.
    let down = y1 - y0;
    let over = 2 * x0 * down + (2 * y + 1 - 2 * y0) * (x1 - x0) - down;
    let column = -(-over).div_euclid(2 * down);
    Some(usize::try_from(column.max(0)).expect("not negative"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn region(include: Vec<Shape>, exclude: Vec<Shape>) -> Region {
        let around = Bounds::whole((1, 1));
        Region { include, exclude, around, crop: false, fill: None, box_share_min: None }
    }

    fn rectangle(x_px: u32, y_px: u32, width_px: u32, height_px: u32) -> Shape {
        Shape::Rectangle(Bounds { height_px, width_px, x_px, y_px })
    }

    fn picture(mask: &Mask) -> Vec<String> {
        let (width, height) = mask.size_px();
        let row = |y| (0..width).map(|x| if mask.contains(x, y) { '#' } else { '.' }).collect();
        (0..height).map(row).collect()
    }

    #[test]
    fn pixels_whose_centres_lie_inside_count_and_what_is_excluded_does_not() {
        let triangle = Shape::Polygon(vec![(0, 0), (6, 0), (0, 6)]);
        let mask =
            Mask::new(&region(vec![triangle, rectangle(5, 4, 2, 2)], vec![rectangle(1, 1, 2, 1)]), (8, 6)).unwrap();
        let expected = ["#####...", "#..#....", "###.....", "##......", "#....##.", ".....##."];
        assert_eq!(picture(&mask), expected);
        assert_eq!(mask.count(Bounds::whole((8, 6))), 5 + 2 + 3 + 2 + 3 + 2);
        assert_eq!(mask.count(Bounds { height_px: 3, width_px: 3, x_px: 0, y_px: 0 }), 3 + 1 + 3);
    }

    #[test]
    fn a_polygon_that_crosses_itself_has_a_hole_where_it_lies_over_itself() {
        // Two squares in one line of corners, the inner one walked twice around.
        let corners = vec![(0, 0), (6, 0), (6, 6), (0, 6), (0, 0), (2, 2), (4, 2), (4, 4), (2, 4), (2, 2)];
        let mask = Mask::new(&region(vec![Shape::Polygon(corners)], vec![]), (6, 6)).unwrap();
        assert_eq!(picture(&mask)[2], "##..##");
    }

    #[test]
    fn a_region_of_no_pixel_is_none() {
        assert_eq!(Mask::new(&region(vec![rectangle(1, 1, 2, 2)], vec![rectangle(0, 0, 4, 4)]), (4, 4)), None);
        let sliver = Shape::Polygon(vec![(0, 0), (4, 1), (4, 0)]);
        assert!(Mask::new(&region(vec![sliver], vec![]), (4, 4)).is_some());
    }

    proptest! {
        #[test]
        fn polygons_that_share_an_edge_share_no_pixel_and_leave_none_out(
            left in 0_u32..20, right in 0_u32..20, top in 0_u32..8, bottom in 12_u32..20,
        ) {
            // A square cut in two by any line.
            let edge = [(left, top), (right, bottom)];
            let whole = [(0, top), (20, top), (20, bottom), (0, bottom)];
            let a = Shape::Polygon(vec![whole[0], edge[0], edge[1], whole[3]]);
            let b = Shape::Polygon(vec![edge[0], whole[1], whole[2], edge[1]]);
            let count = |shapes: Vec<Shape>| {
                Mask::new(&region(shapes, vec![]), (20, 20)).map_or(0, |mask| mask.count(Bounds::whole((20, 20))))
            };
            let both = count(vec![a.clone()]) + count(vec![b.clone()]);
            prop_assert_eq!(both, u64::from(20 * (bottom - top)));
            prop_assert_eq!(count(vec![a, b]), both);
        }

        #[test]
        fn any_polygon_is_counted_as_its_pixels_say(corners in prop::collection::vec((0_u32..=16, 0_u32..=12), 3..12)) {
            if let Some(mask) = Mask::new(&region(vec![Shape::Polygon(corners)], vec![]), (16, 12)) {
                let dots = picture(&mask).iter().map(|row| row.matches('#').count() as u64).sum::<u64>();
                prop_assert_eq!(mask.count(Bounds::whole((16, 12))), dots);
            }
        }
    }
}

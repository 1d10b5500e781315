//! Smooth randomness: quadratic B-spline noise over a plane and along a line.

use super::dice::Dice;

/// Makes uniform lattice values times the B-spline kernel come out with a standard deviation of about one in the plane.
const PLANE_GAIN: f32 = 3.15;

/// The same along a line.
const LINE_GAIN: f32 = 2.34;

/// A noise texture as large as the frame; rows are produced on demand.
pub struct Plane {
    cell_px: f32,
    columns: usize,
    lattice: Vec<f32>,
    taps: Vec<Tap>,
    blended: Vec<f32>,
}

#[derive(Clone, Copy)]
struct Tap {
    first: u32,
    weights: [f32; 3],
}

/// First lattice index and weights for a position counted in cells. The lattice has a margin of one cell on each side.
fn tap(position_px: f32, cell_px: f32) -> Tap {
    let position = position_px / cell_px + 1.0;
    let nearest = (position + 0.5) as u32;
    let t = position - nearest as f32;
    Tap { first: nearest - 1, weights: [0.5 * (0.5 - t) * (0.5 - t), 0.75 - t * t, 0.5 * (0.5 + t) * (0.5 + t)] }
}

impl Plane {
    pub fn new(dice: &mut Dice, width_px: usize, height_px: usize, cell_px: f32) -> Self {
        let cell_px = cell_px.max(1.0);
        let columns = (width_px as f32 / cell_px) as usize + 4;
        let rows = (height_px as f32 / cell_px) as usize + 4;
        let mut lattice = Vec::with_capacity(columns * rows + 3);
        while lattice.len() < columns * rows {
            // Four 16-bit values from one throw.
            let bits = dice.next_u64();
            for lane in 0..4 {
                let value = ((bits >> (16 * lane)) & 0xffff) as f32;
                lattice.push((value * (2.0 / 65_535.0) - 1.0) * PLANE_GAIN);
            }
        }
        let taps = (0..width_px).map(|x| tap(x as f32, cell_px)).collect();
        Self { cell_px, columns, lattice, taps, blended: vec![0.0; columns] }
    }

    pub fn cell_px(&self) -> f32 {
        self.cell_px
    }

    /// Writes row `y`: mean zero, standard deviation about one.
    pub fn row(&mut self, y: usize, out: &mut [f32]) {
        let Tap { first, weights: [a, b, c] } = tap(y as f32, self.cell_px);
        let start = first as usize * self.columns;
        let rows = &self.lattice[start..start + 3 * self.columns];
        let (above, rest) = rows.split_at(self.columns);
        let (middle, below) = rest.split_at(self.columns);
        for (((out, above), middle), below) in self.blended.iter_mut().zip(above).zip(middle).zip(below) {
            *out = a * above + b * middle + c * below;
        }
        for (out, tap) in out.iter_mut().zip(&self.taps) {
            let [left, centre, right] =
                *self.blended[tap.first as usize..].first_chunk::<3>().expect("the lattice has a margin of two cells");
            *out = tap.weights[0] * left + tap.weights[1] * centre + tap.weights[2] * right;
        }
    }
}

/// A table along a line, read between its points.
pub struct Profile {
    per_unit: f32,
    values: Vec<[f32; 2]>,
}

impl Profile {
    /// Two channels (level, slope), all zero, over `0..length` with `per_unit` points each unit.
    pub fn new(length: f32, per_unit: f32) -> Self {
        Self { per_unit, values: vec![[0.0; 2]; (length.max(1.0) * per_unit) as usize + 4] }
    }

    /// Adds smooth noise of the given wavelength: mean zero, standard deviation `level` and `slope`.
    pub fn add_noise(&mut self, dice: &mut Dice, cell: f32, level: f32, slope: f32) {
        let cells = (self.values.len() as f32 / self.per_unit / cell) as usize + 4;
        let lattice: Vec<[f32; 2]> =
            (0..cells).map(|_| [dice.range(-LINE_GAIN, LINE_GAIN), dice.range(-LINE_GAIN, LINE_GAIN)]).collect();
        for (index, value) in self.values.iter_mut().enumerate() {
            let Tap { first, weights } = tap(index as f32 / self.per_unit, cell);
            for (offset, weight) in weights.into_iter().enumerate() {
                let [a, b] = lattice[first as usize + offset];
                value[0] += weight * a * level;
                value[1] += weight * b * slope;
            }
        }
    }

    /// Adds a hump of half-width `half` at `at`: the level follows the hump, the slope its derivative.
    pub fn add_hump(&mut self, at: f32, half: f32, level: f32, slope: f32) {
        let low = ((at - half).max(0.0) * self.per_unit) as usize;
        let high = (((at + half).max(0.0) * self.per_unit) as usize + 1).min(self.values.len());
        for index in low..high.max(low) {
            let t = (index as f32 / self.per_unit - at) / half;
            let inside = (1.0 - t * t).max(0.0);
            self.values[index][0] += level * inside * inside;
            self.values[index][1] -= slope * 2.6 * t * inside;
        }
    }

    /// Adds cutting marks with one period per `pitch`: a rounded ridge, sharper at its foot, as a tool nose leaves it.
    pub fn add_feed(&mut self, dice: &mut Dice, pitch: f32, level: f32, slope: f32) {
        let mut at = dice.unit() * pitch;
        while at < self.values.len() as f32 / self.per_unit {
            let strength = dice.range(0.55, 1.25);
            self.add_hump(at, pitch * 0.56, level * strength, slope * strength);
            at += pitch * dice.range(0.94, 1.06);
        }
    }

    /// (level, slope) at `position`; positions outside are clamped.
    #[inline]
    pub fn at(&self, position: f32) -> [f32; 2] {
        let scaled = (position * self.per_unit).max(0.0);
        let index = (scaled as usize).min(self.values.len() - 2);
        let t = (scaled - index as f32).min(1.0);
        let ([a0, a1], [b0, b1]) = (self.values[index], self.values[index + 1]);
        [a0 + (b0 - a0) * t, a1 + (b1 - a1) * t]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plane_noise_is_centred_and_has_unit_spread() {
        let mut plane = Plane::new(&mut Dice::new(1, 2, "test"), 300, 200, 3.3);
        let (mut sum, mut squares, mut row) = (0.0, 0.0, vec![0.0; 300]);
        for y in 0..200 {
            plane.row(y, &mut row);
            sum += row.iter().sum::<f32>();
            squares += row.iter().map(|v| v * v).sum::<f32>();
        }
        let count = 60_000.0;
        assert!((sum / count).abs() < 0.05, "mean {}", sum / count);
        assert!((0.85..1.15).contains(&(squares / count).sqrt()), "deviation {}", (squares / count).sqrt());
    }
}

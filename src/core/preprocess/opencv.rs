//! OpenCV's `resize` with `INTER_LINEAR`: two taps per direction, no antialiasing; in 8 bits to the bit.
//!
//! Followed from the behaviour of `modules/imgproc/src/resize.cpp` of OpenCV 4 and held by vectors that `cv2` made
//! (`tests/vectors/`). Eight-bit samples take 11-bit coefficients: rows are interpolated into 19 bits, columns from
//! their upper 15 in 16-bit products. A halving of both sides is the mean of four pixels, rounded up at the half.

/// Fraction bits of a coefficient.
const COEFFICIENT_BITS: u32 = 11;
const ONE: f32 = (1 << COEFFICIENT_BITS) as f32;

pub(super) struct Linear {
    source: (usize, usize),
    target: (usize, usize),
    columns: Vec<Tap>,
    rows: Vec<Tap>,
}

/// The two neighbours of a target place and the weight of each.
#[derive(Clone, Copy)]
struct Tap {
    first: usize,
    second: usize,
    fixed: [i32; 2],
    exact: [f32; 2],
}

impl Linear {
    pub(super) fn new(source: (u32, u32), target: (u32, u32)) -> Self {
        let pair = |(width, height): (u32, u32)| (width as usize, height as usize);
        Self {
            source: pair(source),
            target: pair(target),
            columns: (0..target.0).map(|x| Tap::new(x, source.0, target.0, true)).collect(),
            rows: (0..target.1).map(|y| Tap::new(y, source.1, target.1, false)).collect(),
        }
    }

    fn halves(&self) -> bool {
        self.source.0 == 2 * self.target.0 && self.source.1 == 2 * self.target.1
    }

    pub(super) fn run_8<const C: usize>(&self, source: &[u8], out: &mut Vec<u8>) {
        let (row_len, source_len) = (C * self.target.0, C * self.source.0);
        out.resize(row_len * self.target.1, 0);
        if self.halves() {
            for (rows, target) in source.chunks_exact(2 * source_len).zip(out.chunks_exact_mut(row_len)) {
                let (upper, lower) = rows.split_at(source_len);
                for (at, sample) in target.iter_mut().enumerate() {
                    let left = at / C * 2 * C + at % C;
                    let four = [upper[left], upper[left + C], lower[left], lower[left + C]];
                    *sample = ((four.map(u32::from).iter().sum::<u32>() + 2) >> 2) as u8;
                }
            }
            return;
        }
        let mut interpolated = RowPair::new(row_len);
        for (tap, target) in self.rows.iter().zip(out.chunks_exact_mut(row_len)) {
            let (upper, lower) = interpolated.rows(tap, |row, into| {
                self.row_8::<C>(&source[row * source_len..][..source_len], into);
            });
            for ((sample, upper), lower) in target.iter_mut().zip(upper).zip(lower) {
                let upper = (tap.fixed[0] * (upper >> 4)) >> 16;
                let lower = (tap.fixed[1] * (lower >> 4)) >> 16;
                *sample = ((upper + lower + 2) >> 2).clamp(0, 255) as u8;
            }
        }
    }

    fn row_8<const C: usize>(&self, source: &[u8], target: &mut [i32]) {
        for (tap, pixel) in self.columns.iter().zip(target.chunks_exact_mut(C)) {
            for (channel, value) in pixel.iter_mut().enumerate() {
                let first = i32::from(source[C * tap.first + channel]);
                let second = i32::from(source[C * tap.second + channel]);
                *value = first * tap.fixed[0] + second * tap.fixed[1];
            }
        }
    }

    /// Deep gray is interpolated in 32-bit floats, as OpenCV interpolates `uint16`. Depending on the processor OpenCV
    /// fuses a product and a sum, which moves about one value in a hundred by one of 65535.
    pub(super) fn run_16(&self, source: &[u16], out: &mut Vec<u16>) {
        let (row_len, source_len) = (self.target.0, self.source.0);
        out.resize(row_len * self.target.1, 0);
        let mut interpolated = RowPair::new(row_len);
        for (tap, target) in self.rows.iter().zip(out.chunks_exact_mut(row_len)) {
            let (upper, lower) = interpolated.rows(tap, |row, into| {
                let row = &source[row * source_len..][..source_len];
                for (tap, value) in self.columns.iter().zip(into) {
                    *value = f32::from(row[tap.first]) * tap.exact[0] + f32::from(row[tap.second]) * tap.exact[1];
                }
            });
            for ((sample, upper), lower) in target.iter_mut().zip(upper).zip(lower) {
                let value = (upper * tap.exact[0] + lower * tap.exact[1]).round_ties_even();
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
                {
                    *sample = value as u16;
                }
            }
        }
    }
}

impl Tap {
    /// Along rows a place beyond the outermost pixel takes that pixel alone; along columns both taps fall on it, each
    /// with its own weight, which rounds differently.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the source")]
    fn new(place: u32, source: u32, target: u32, is_column: bool) -> Self {
        let scale = 1.0 / (f64::from(target) / f64::from(source));
        let exact = ((f64::from(place) + 0.5) * scale - 0.5) as f32;
        let floor = exact.floor();
        let last = i64::from(source) - 1;
        let (mut at, mut fraction) = (floor as i64, exact - floor);
        if is_column && at < 0 {
            (at, fraction) = (0, 0.0);
        }
        if is_column && at >= last {
            (at, fraction) = (last, 0.0);
        }
        let weights = [1.0 - fraction, fraction];
        let clamped = |at: i64| at.clamp(0, last) as usize;
        Self {
            first: clamped(at),
            second: clamped(at + 1),
            fixed: weights.map(|weight| (weight * ONE).round_ties_even() as i32),
            exact: weights,
        }
    }
}

/// The two interpolated source rows in use; neighbouring target rows mostly share them.
struct RowPair<T> {
    rows: [Vec<T>; 2],
    held: [Option<usize>; 2],
}

impl<T: Copy + Default> RowPair<T> {
    fn new(len: usize) -> Self {
        Self { rows: [vec![T::default(); len], vec![T::default(); len]], held: [None; 2] }
    }

    fn rows(&mut self, tap: &Tap, fill: impl Fn(usize, &mut [T])) -> (&[T], &[T]) {
        if self.held[0] != Some(tap.first) && self.held[1] == Some(tap.first) {
            self.rows.swap(0, 1);
            self.held.swap(0, 1);
        }
        for (slot, row) in [tap.first, tap.second].into_iter().enumerate() {
            if self.held[slot] != Some(row) {
                fill(row, &mut self.rows[slot]);
                self.held[slot] = Some(row);
            }
        }
        (&self.rows[0], &self.rows[1])
    }
}

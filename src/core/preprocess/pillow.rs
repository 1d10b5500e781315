//! Pillow's `Image.resize` with `reducing_gap=None`, to the bit: nearest, and the antialiased convolutions.
//!
//! Followed from the behaviour of `libImaging/Resample.c` and `Geometry.c` and held by vectors that Pillow made
//! (`tests/vectors/`). Eight-bit samples are convolved in 22-bit fixed point and rounded to 8 bits between the two
//! directions; 16-bit samples in doubles, rounded to 16.

/// Fraction bits of a coefficient: 32 less 8 for the sample and 2 for the filters' overshoot.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Nearest neighbour: source column and row of every target column and row.
pub(super) struct Nearest {
    columns: Vec<usize>,
    rows: Vec<usize>,
    source_width: usize,
}

impl Nearest {
    /// Pillow adds a step up from pixel to pixel for 8-bit images, and its rounding errors with it; for 16-bit images
    /// it multiplies.
    pub(super) fn new(source: (u32, u32), target: (u32, u32), is_deep: bool) -> Self {
        let places = |source: u32, target: u32| {
            let step = f64::from(source) / f64::from(target);
            let mut sum = step * 0.5;
            let places = (0..target).map(|position| {
                let place = if is_deep { (f64::from(position) + 0.5) * step } else { sum };
                sum += step;
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 <= place <= source")]
                let at = place as usize;
                at.min(source as usize - 1)
            });
            places.collect()
        };
        Self { columns: places(source.0, target.0), rows: places(source.1, target.1), source_width: source.0 as usize }
    }

    pub(super) fn run<T: Copy, const C: usize>(&self, source: &[T], out: &mut Vec<T>) {
        out.clear();
        for row in &self.rows {
            let row = &source[C * row * self.source_width..][..C * self.source_width];
            for column in &self.columns {
                out.extend_from_slice(&row[C * column..][..C]);
            }
        }
    }
}

#[derive(Clone, Copy)]
pub(super) enum Filter {
    Bilinear,
    /// Catmull-Rom, a = -0.5.
    Bicubic,
    /// Three lobes.
    Lanczos,
}

impl Filter {
    /// Half the filter's width in source pixels when nothing is scaled down.
    fn support(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        match self {
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Bicubic => {
                const A: f64 = -0.5;
                let x = x.abs();
                if x < 1.0 {
                    ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
                } else if x < 2.0 {
                    (((x - 5.0) * x + 8.0) * x - 4.0) * A
                } else {
                    0.0
                }
            }
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Lanczos => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        return 1.0;
    }
    let x = x * std::f64::consts::PI;
    x.sin() / x
}

/// A convolution from one size to another.
pub(super) struct Convolution {
    source: (usize, usize),
    target: (usize, usize),
    columns: Axis,
    rows: Axis,
    /// Pillow 13 begins with the direction that leaves less to do; older ones always began along the rows. Rounding
    /// between the passes makes the order visible in the last bit.
    is_vertical_first: bool,
}

/// The coefficients of one direction.
struct Axis {
    taps: Vec<Taps>,
    /// `taps.len() * stride`, zeros behind each tap's own.
    fixed: Vec<i32>,
    exact: Vec<f64>,
    stride: usize,
}

/// The source samples of one target sample.
#[derive(Clone, Copy)]
struct Taps {
    start: usize,
    len: usize,
}

impl Axis {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "places within the source, as Pillow cuts them"
    )]
    fn new(source: u32, target: u32, filter: Filter) -> Self {
        let scale = f64::from(source) / f64::from(target);
        let filter_scale = scale.max(1.0);
        let support = filter.support() * filter_scale;
        let stride = support.ceil() as usize * 2 + 1;
        let mut axis = Self { taps: Vec::new(), fixed: Vec::new(), exact: Vec::new(), stride };
        for position in 0..target {
            let center = (f64::from(position) + 0.5) * scale;
            // `as` cuts towards zero and negative values to zero, which is what Pillow's cast and clamp do.
            let start = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(source as usize);
            let first = axis.exact.len();
            let mut sum = 0.0;
            for place in start..end {
                let weight = filter.weight((place as f64 - center + 0.5) * (1.0 / filter_scale));
                axis.exact.push(weight);
                sum += weight;
            }
            if sum != 0.0 {
                axis.exact[first..].iter_mut().for_each(|weight| *weight /= sum);
            }
            axis.exact.resize(first + stride, 0.0);
            axis.taps.push(Taps { start, len: end - start });
        }
        let fixed = |weight: &f64| {
            let scaled = weight * f64::from(1 << PRECISION_BITS);
            (if scaled < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
        };
        axis.fixed = axis.exact.iter().map(fixed).collect();
        axis
    }

    fn fixed(&self) -> impl Iterator<Item = (Taps, &[i32])> {
        self.taps.iter().zip(self.fixed.chunks_exact(self.stride)).map(|(taps, row)| (*taps, &row[..taps.len]))
    }

    fn exact(&self) -> impl Iterator<Item = (Taps, &[f64])> {
        self.taps.iter().zip(self.exact.chunks_exact(self.stride)).map(|(taps, row)| (*taps, &row[..taps.len]))
    }
}

/// Drops the fraction and clamps.
fn to_byte(sum: i32) -> u8 {
    u8::try_from((sum >> PRECISION_BITS).clamp(0, 255)).expect("clamped to a byte")
}

const HALF: i32 = 1 << (PRECISION_BITS - 1);

impl Convolution {
    pub(super) fn new(source: (u32, u32), target: (u32, u32), filter: Filter) -> Self {
        let pair = |(width, height): (u32, u32)| (width as usize, height as usize);
        let shrinks_by = |source: u32, target: u32| i64::from(source) - i64::from(target);
        let (columns_less, rows_less) = (shrinks_by(source.0, target.0), shrinks_by(source.1, target.1));
        Self {
            source: pair(source),
            target: pair(target),
            columns: Axis::new(source.0, target.0, filter),
            rows: Axis::new(source.1, target.1, filter),
            is_vertical_first: rows_less > 0 && rows_less > 2 * columns_less,
        }
    }

    /// Convolves 8-bit samples of `C` channels.
    pub(super) fn run_8<const C: usize>(&self, source: &[u8], out: &mut Vec<u8>, scratch: &mut Vec<u8>) {
        let along_rows = |source: &[u8], out: &mut Vec<u8>| {
            out.resize(source.len() / self.source.0 * self.target.0, 0);
            let rows = source.chunks_exact(C * self.source.0).zip(out.chunks_exact_mut(C * self.target.0));
            rows.for_each(|(source, target)| self.row_8::<C>(source, target));
        };
        let along_columns = |source: &[u8], out: &mut Vec<u8>| self.columns_8(source, out);
        self.in_order(source, out, scratch, along_rows, along_columns);
    }

    /// Convolves 16-bit gray. Overshoot beyond `full_scale` is cut, so that a 10-bit frame stays one.
    pub(super) fn run_16(&self, source: &[u16], full_scale: u16, out: &mut Vec<u16>, scratch: &mut Vec<u16>) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to the full scale")]
        let to_word = |sum: f64| (sum + 0.5).floor().clamp(0.0, f64::from(full_scale)) as u16;
        let along_rows = |source: &[u16], out: &mut Vec<u16>| {
            out.clear();
            for row in source.chunks_exact(self.source.0) {
                out.extend(self.columns.exact().map(|(taps, weights)| {
                    let samples = &row[taps.start..];
                    to_word(samples.iter().zip(weights).map(|(sample, weight)| f64::from(*sample) * weight).sum())
                }));
            }
        };
        let along_columns = |source: &[u16], out: &mut Vec<u16>| {
            let width = source.len() / self.source.1;
            out.clear();
            let mut sums = vec![0.0; width];
            for (taps, weights) in self.rows.exact() {
                sums.fill(0.0);
                for (weight, row) in weights.iter().zip(source[taps.start * width..].chunks_exact(width)) {
                    for (sum, sample) in sums.iter_mut().zip(row) {
                        *sum += f64::from(*sample) * weight;
                    }
                }
                out.extend(sums.iter().map(|sum| to_word(*sum)));
            }
        };
        self.in_order(source, out, scratch, along_rows, along_columns);
    }

    /// Runs the passes that change a side, in Pillow's order, with whole samples in between.
    fn in_order<T: Copy>(
        &self,
        source: &[T],
        out: &mut Vec<T>,
        scratch: &mut Vec<T>,
        along_rows: impl Fn(&[T], &mut Vec<T>),
        along_columns: impl Fn(&[T], &mut Vec<T>),
    ) {
        match (self.source.0 != self.target.0, self.source.1 != self.target.1) {
            (true, true) if self.is_vertical_first => {
                along_columns(source, scratch);
                along_rows(scratch, out);
            }
            (true, true) => {
                along_rows(source, scratch);
                along_columns(scratch, out);
            }
            (true, false) => along_rows(source, out),
            (false, true) => along_columns(source, out),
            (false, false) => unreachable!("a frame of the target's size is not resampled"),
        }
    }

    fn row_8<const C: usize>(&self, source: &[u8], target: &mut [u8]) {
        for ((taps, weights), pixel) in self.columns.fixed().zip(target.chunks_exact_mut(C)) {
            let mut sums = [HALF; C];
            let samples = source[C * taps.start..C * (taps.start + taps.len)].chunks_exact(C);
            for (sample, weight) in samples.zip(weights) {
                for channel in 0..C {
                    sums[channel] += i32::from(sample[channel]) * weight;
                }
            }
            for (sample, sum) in pixel.iter_mut().zip(sums) {
                *sample = to_byte(sum);
            }
        }
    }

    fn columns_8(&self, source: &[u8], out: &mut Vec<u8>) {
        let row_len = source.len() / self.source.1;
        out.resize(row_len * self.target.1, 0);
        let mut sums = vec![0; row_len];
        for ((taps, weights), target) in self.rows.fixed().zip(out.chunks_exact_mut(row_len)) {
            sums.fill(HALF);
            for (weight, row) in weights.iter().zip(source[taps.start * row_len..].chunks_exact(row_len)) {
                for (sum, sample) in sums.iter_mut().zip(row) {
                    *sum += i32::from(*sample) * weight;
                }
            }
            for (sample, sum) in target.iter_mut().zip(&sums) {
                *sample = to_byte(*sum);
            }
        }
    }
}

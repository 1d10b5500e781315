//! Chance and angles that come out the same on every machine.
//!
//! A part is promised to have the same bytes wherever it is rendered, so nothing here may depend on a libm:
//! only `+ - * /` and `sqrt`, which IEEE 754 rounds exactly, and integers.

/// SplitMix64 (Steele, Lea, Flood 2014). Written out because its bytes are part of the promise; a library may change.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// An independent stream for each (seed, part number, purpose).
    pub fn new(seed: u64, number: u64, purpose: &str) -> Self {
        let mut dice = Self(seed);
        let mut state = dice.next_u64() ^ number;
        for byte in purpose.bytes() {
            state = Self(state ^ u64::from(byte)).next_u64();
        }
        Self(Self(state).next_u64())
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in [0, 1), with 24 bits.
    pub fn unit(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 * (1.0 / 16_777_216.0)
    }

    /// Uniform in [low, high).
    pub fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// More often near `low`: the square of a uniform value.
    pub fn mostly_low(&mut self, low: f32, high: f32) -> f32 {
        let unit = self.unit();
        low + (high - low) * unit * unit
    }

    /// One of `0..count`. The bias of the multiply is below 2^-32 for the small counts used here.
    pub fn below(&mut self, count: u32) -> u32 {
        ((u64::from((self.next_u64() >> 32) as u32) * u64::from(count)) >> 32) as u32
    }

    pub fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    pub fn sign(&mut self) -> f32 {
        if self.next_u64() >> 63 == 0 { 1.0 } else { -1.0 }
    }

    /// A direction, uniform on the circle, by rejection: no sine needed.
    pub fn direction(&mut self) -> (f32, f32) {
        loop {
            let (x, y) = (self.range(-1.0, 1.0), self.range(-1.0, 1.0));
            let square = x * x + y * y;
            if square > 0.05 && square < 1.0 {
                let length = square.sqrt();
                return (x / length, y / length);
            }
        }
    }
}

/// (sin, cos) of a small angle in radians, |angle| <= 0.6, to 1e-5.
pub fn small_sin_cos(angle: f32) -> (f32, f32) {
    let square = angle * angle;
    (
        angle * (1.0 - square * (1.0 / 6.0) * (1.0 - square * (1.0 / 20.0))),
        1.0 - square * 0.5 * (1.0 - square * (1.0 / 12.0) * (1.0 - square * (1.0 / 30.0))),
    )
}

/// The angle of (x, y) as a fraction of a turn in [-0.5, 0.5], to about 1e-3: good for a picture.
#[inline]
pub fn turn_of(x: f32, y: f32) -> f32 {
    let (ax, ay) = (x.abs(), y.abs());
    let ratio = ax.min(ay) / (ax.max(ay) + 1e-9);
    let eighth = ratio * (0.159_155 - 0.034_155 * (ratio * ratio));
    let quarter = if ay > ax { 0.25 - eighth } else { eighth };
    let half = if x < 0.0 { 0.5 - quarter } else { quarter };
    if y < 0.0 { -half } else { half }
}

/// e^-x for 0 <= x, by squaring (1 - x/1024) ten times.
pub fn exp_minus(x: f32) -> f32 {
    let mut value = (1.0 - x * (1.0 / 1024.0)).max(0.0);
    for _ in 0..10 {
        value *= value;
    }
    value
}

/// 0 below `low`, 1 above `high`, smooth between.
#[inline]
pub fn smooth_step(low: f32, high: f32, x: f32) -> f32 {
    let t = ((x - low) / (high - low)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_fixed_for_ever() {
        let mut dice = Dice(1_234_567);
        assert_eq!(dice.next_u64(), 6_457_827_717_110_365_317, "reference value of splitmix64");
        assert_eq!(dice.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn angles_are_close_enough_for_a_picture() {
        for step in 0..100_u8 {
            let angle = (f32::from(step) / 100.0 - 0.5) * 1.2;
            let (sin, cos) = small_sin_cos(angle);
            assert!((sin - angle.sin()).abs() < 1e-4 && (cos - angle.cos()).abs() < 1e-4, "{angle}");
            let full = f32::from(step) / 100.0 * std::f32::consts::TAU - 3.1;
            let turn = turn_of(full.cos(), full.sin());
            assert!((turn * std::f32::consts::TAU - full).abs() < 0.04 || (turn.abs() - 0.5).abs() < 0.01, "{full}");
        }
    }
}

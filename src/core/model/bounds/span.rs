//! A number of which the smallest and the largest value are known.

/// Both ends included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) struct Span {
    pub min: f64,
    pub max: f64,
}

/// A product in which nothing times anything is nothing.
pub(in super::super) fn times(a: f64, b: f64) -> f64 {
    if a == 0.0 || b == 0.0 { 0.0 } else { a * b }
}

impl Span {
    pub fn new(min: f64, max: f64) -> Self {
        Self { min, max }
    }

    pub fn exact(value: f64) -> Self {
        Self::new(value, value)
    }

    /// A length of which only the upper end is known.
    pub fn up_to(max: f64) -> Self {
        Self::new(0.0, max)
    }

    pub fn is_exact(self) -> bool {
        self.min == self.max
    }

    pub fn is_number(&self) -> bool {
        !self.min.is_nan() && !self.max.is_nan()
    }

    pub fn hull(self, other: Self) -> Self {
        Self::new(self.min.min(other.min), self.max.max(other.max))
    }

    /// Both ends through a function that never falls.
    pub fn map(self, function: impl Fn(f64) -> f64) -> Self {
        Self::new(function(self.min), function(self.max))
    }

    /// As a length, which is never below nothing.
    pub fn length(self) -> Self {
        self.map(|end| end.max(0.0))
    }

    pub fn plus(self, other: Self) -> Self {
        Self::new(self.min + other.min, self.max + other.max)
    }

    pub fn minus(self, other: Self) -> Self {
        Self::new(self.min - other.max, self.max - other.min)
    }

    pub fn times(self, other: Self) -> Self {
        Self::of_ends([
            times(self.min, other.min),
            times(self.min, other.max),
            times(self.max, other.min),
            times(self.max, other.max),
        ])
    }

    /// None where the divisor may be nothing.
    pub fn over(self, other: Self) -> Option<Self> {
        if other.min <= 0.0 && other.max >= 0.0 {
            return None;
        }
        let ends = [self.min / other.min, self.min / other.max, self.max / other.min, self.max / other.max];
        Some(Self::of_ends(ends))
    }

    fn of_ends(ends: [f64; 4]) -> Self {
        if ends.iter().any(|end| end.is_nan()) {
            return Self::exact(f64::NAN);
        }
        Self::new(
            ends.iter().copied().fold(f64::INFINITY, f64::min),
            ends.iter().copied().fold(-f64::INFINITY, f64::max),
        )
    }

    /// The length of a broadcast dimension: of the two, one is 1 or they are equal.
    pub fn broadcast(self, other: Self) -> Self {
        match (self == Self::exact(1.0), other == Self::exact(1.0)) {
            (true, _) => other,
            (_, true) => self,
            _ if self == other => self,
            // An exact length other than 1 wins over one that is not known.
            _ if self.is_exact() && !other.is_exact() && self.max > 1.0 => self,
            _ if other.is_exact() && !self.is_exact() && other.max > 1.0 => other,
            _ => Self::new(self.min.min(other.min), self.max.max(other.max)),
        }
    }
}

//! Points in time as evidence writes them: UTC, nanoseconds, `2026-11-23T21:43:48.123456789Z`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a UTC time such as 2026-11-23T21:43:48.123456789Z: {0:?}")]
pub struct TimeError(pub String);

/// Nanoseconds since 1970-01-01T00:00:00Z, between 1970 and 2262.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(i64);

impl Instant {
    pub const EPOCH: Self = Self(0);

    /// # Errors
    /// [`TimeError`] for times before 1970.
    pub fn from_unix_nanos(nanos: i64) -> Result<Self, TimeError> {
        if nanos >= 0 { Ok(Self(nanos)) } else { Err(TimeError(nanos.to_string())) }
    }

    #[must_use]
    pub fn unix_nanos(self) -> i64 {
        self.0
    }

    #[must_use]
    pub fn unix_millis(self) -> i64 {
        self.0 / 1_000_000
    }

    /// The UTC calendar day, `2026-11-23`.
    #[must_use]
    pub fn day(self) -> String {
        self.to_string()[..10].to_owned()
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let timestamp = jiff::Timestamp::from_nanosecond(i128::from(self.0)).map_err(|_| fmt::Error)?;
        write!(f, "{timestamp:.9}")
    }
}

impl FromStr for Instant {
    type Err = TimeError;

    /// Any RFC 3339 time, in any offset.
    fn from_str(text: &str) -> Result<Self, TimeError> {
        let wrong = || TimeError(text.chars().take(60).collect());
        let timestamp: jiff::Timestamp = text.parse().map_err(|_| wrong())?;
        Self::from_unix_nanos(i64::try_from(timestamp.as_nanosecond()).map_err(|_| wrong())?)
    }
}

impl Serialize for Instant {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Instant {
    /// Evidence writes a time in one way; another spelling of the same time is wrong evidence.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let time: Self = text.parse().map_err(serde::de::Error::custom)?;
        if time.to_string() == text { Ok(time) } else { Err(serde::de::Error::custom(TimeError(text.into_owned()))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_times_have_nine_digits_and_read_back() {
        let time = Instant::from_unix_nanos(1_795_470_228_120_000_000).unwrap();
        assert_eq!(time.to_string(), "2026-11-23T21:43:48.120000000Z");
        assert_eq!(time.to_string().parse(), Ok(time));
        assert_eq!(time.day(), "2026-11-23");
        assert!("yesterday".parse::<Instant>().is_err());
    }
}

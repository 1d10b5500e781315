//! (quality)

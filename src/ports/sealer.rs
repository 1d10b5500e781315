//! Sealing small values: what leaves the process only encrypted, and comes back only if nobody changed it.

/// What [`Sealer::seal`] adds to a value's length.
pub const SEAL_OVERHEAD_BYTES: usize = 40;

#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("a sealed value has at least {SEAL_OVERHEAD_BYTES} bytes, this one has {0}")]
    Short(usize),
    #[error("a sealed value does not open: it was changed, moved, or sealed with another key")]
    Changed,
}

/// Seals values under one key. The same sealer may be used for any number of values, from many threads at a time.
pub trait Sealer: Send + Sync + 'static {
    /// Encrypts and authenticates `plain`, and authenticates `aad`: the value's place and purpose, so that a sealed
    /// value opens only where it belongs. Two calls never give the same bytes.
    fn seal(&self, aad: &[u8], plain: &[u8]) -> Vec<u8>;

    /// Gives back what was sealed with the same `aad`.
    ///
    /// # Errors
    /// [`SealError`].
    fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError>;
}

//! The models behind digests: those of every recipe that was ever in use.

use std::sync::Arc;

use crate::types::Blake3Digest;

#[derive(Debug, thiserror::Error)]
pub enum ModelStoreError {
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
}

/// Finds models by the digests that decisions name. Reads block on the disk.
pub trait KeptModels: Send + Sync + 'static {
    /// The bytes of the model with this digest, which they have; `None` when no such bytes are there.
    ///
    /// # Errors
    /// [`ModelStoreError`].
    fn model(&self, digest: Blake3Digest) -> Result<Option<Arc<[u8]>>, ModelStoreError>;

    /// The same of a template, the image that a recipe compares frames with.
    ///
    /// # Errors
    /// [`ModelStoreError`].
    fn template(&self, digest: Blake3Digest) -> Result<Option<Arc<[u8]>>, ModelStoreError>;
}

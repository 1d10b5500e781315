//! The texts behind digests: recipes, calibrations, model cards.

use crate::types::Blake3Digest;

#[derive(Debug, thiserror::Error)]
pub enum TextError {
    #[error("{path}: {source}")]
    Io { path: String, source: std::io::Error },
}

/// Finds texts by the digests that entries name, also those of recipes no longer in use. Reads block on the disk.
pub trait RecipeTexts: Send + Sync + 'static {
    /// The bytes of the recipe file with this digest; `None` when it is not there any more.
    ///
    /// # Errors
    /// [`TextError`], as for every method here.
    fn recipe(&self, digest: Blake3Digest) -> Result<Option<Vec<u8>>, TextError>;

    /// The bytes of the calibration file with this digest.
    fn calibration(&self, digest: Blake3Digest) -> Result<Option<Vec<u8>>, TextError>;

    /// The card of the model with this digest, Markdown.
    fn model_card(&self, model: Blake3Digest) -> Result<Option<Vec<u8>>, TextError>;
}

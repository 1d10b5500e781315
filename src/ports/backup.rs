//! Where backups lie, and what seals them before they go there.

/// Why a store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{place}: {reason}")]
    Failed { place: String, reason: String },
    #[error("{place}: it has more than {max} bytes")]
    TooLong { place: String, max: u64 },
}

/// Something that lies in a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Below the store, with slashes.
    pub place: String,
    pub bytes: u64,
}

/// A folder or a bucket that keeps bytes under names. Used from several threads at a time.
pub trait BlobStore: Send + Sync {
    /// Puts `bytes` at `place`, whole or not at all, over what was there. Its bytes are durable when this returns; its
    /// name is after [`Self::settle`].
    ///
    /// # Errors
    /// [`StoreError`]; then nothing is known of the place but that it is not half written.
    fn put(&self, place: &str, bytes: &[u8]) -> Result<(), StoreError>;

    /// Makes everything that was put durable, names included.
    ///
    /// # Errors
    /// [`StoreError`].
    fn settle(&self) -> Result<(), StoreError>;

    /// The bytes at `place`, at most `max`; `None` when there is nothing.
    ///
    /// # Errors
    /// [`StoreError`].
    fn get(&self, place: &str, max: u64) -> Result<Option<Vec<u8>>, StoreError>;

    /// Everything below `folder`, in any order, also what an interrupted [`Self::put`] left under another name.
    ///
    /// # Errors
    /// [`StoreError`].
    fn list(&self, folder: &str) -> Result<Vec<Stored>, StoreError>;

    /// Removes what lies at `place`, if anything does.
    ///
    /// # Errors
    /// [`StoreError`].
    fn remove(&self, place: &str) -> Result<(), StoreError>;

    /// How many calls are best under way at a time.
    fn calls_at_once(&self) -> usize;
}

/// Seals to the backup's recipients. Whoever seals cannot open.
pub trait BlobSealer: Send + Sync {
    /// # Errors
    /// A sentence.
    fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, String>;

    /// The public keys, in any order.
    fn recipients(&self) -> Vec<String>;
}

/// Opens what was sealed to one of its identities.
pub trait BlobOpener: Send + Sync {
    /// # Errors
    /// A sentence: another recipient's, or changed.
    fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, String>;
}

//! Several keys for one purpose, while one takes the place of another: the newest seals, all of them open.

use super::xaes::XaesSealer;
use crate::ports::sealer::{SealError, Sealer};

/// The newest first; never empty.
pub(super) struct Keyring(Vec<XaesSealer>);

impl Keyring {
    pub(super) fn new(keys: impl Iterator<Item = XaesSealer>) -> Self {
        let keys: Vec<XaesSealer> = keys.collect();
        assert!(!keys.is_empty(), "a data directory has a master key");
        Self(keys)
    }
}

impl Sealer for Keyring {
    fn seal(&self, aad: &[u8], plain: &[u8]) -> Vec<u8> {
        self.0[0].seal(aad, plain)
    }

    /// A value opens under one key only, but for a chance of 2^-128 that a wrong tag fits.
    fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut tried = self.0.iter().map(|key| key.open(aad, sealed));
        let first = tried.next().expect("a keyring is not empty");
        first.or_else(|error| tried.find_map(Result::ok).ok_or(error))
    }
}

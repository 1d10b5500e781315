//! XAES-256-GCM (c2sp.org/XAES-256-GCM): AES-256-GCM whose nonce is long enough to be drawn at random for ever.

use aes_gcm::{
    Aes256Gcm, KeyInit as _,
    aead::{Aead as _, Payload},
    aes::{Aes256, Block, cipher::BlockEncrypt as _},
};
use zeroize::Zeroizing;

use crate::ports::sealer::{SEAL_OVERHEAD_BYTES, SealError, Sealer};

const NONCE_BYTES: usize = 24;

/// Writes a sealed value as nonce (24 bytes), ciphertext, tag (16 bytes).
pub(super) struct XaesSealer {
    cipher: Aes256,
    /// The CMAC subkey of steps 1 and 2, the same for every nonce.
    k1: Zeroizing<[u8; 16]>,
}

impl XaesSealer {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        let cipher = Aes256::new(key.into());
        let mut l = Block::default();
        cipher.encrypt_block(&mut l);
        let l = Zeroizing::new(u128::from_be_bytes(l.into()));
        let k1 = (*l << 1) ^ if *l >> 127 == 0 { 0 } else { 0x87 };
        Self { cipher, k1: Zeroizing::new(k1.to_be_bytes()) }
    }

    /// Steps 3 to 5: the key for the nonce's first half.
    fn derive(&self, nonce: &[u8; NONCE_BYTES]) -> Zeroizing<[u8; 32]> {
        let mut key = Zeroizing::new([0; 32]);
        for (counter, half) in [1, 2].into_iter().zip(key.chunks_exact_mut(16)) {
            let mut block = Block::default();
            block[..4].copy_from_slice(&[0, counter, b'X', 0]);
            block[4..].copy_from_slice(&nonce[..12]);
            block.iter_mut().zip(*self.k1).for_each(|(byte, mask)| *byte ^= mask);
            self.cipher.encrypt_block(&mut block);
            half.copy_from_slice(&block);
        }
        key
    }

    fn seal_with(&self, nonce: &[u8; NONCE_BYTES], aad: &[u8], plain: &[u8]) -> Vec<u8> {
        let cipher = Aes256Gcm::new((&*self.derive(nonce)).into());
        let sealed = cipher.encrypt(nonce[12..].into(), Payload { msg: plain, aad });
        let sealed = sealed.expect("a value is far below GCM's 64 GiB");
        [&nonce[..], &sealed].concat()
    }
}

impl Sealer for XaesSealer {
    fn seal(&self, aad: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).expect("the operating system gives random bytes");
        self.seal_with(&nonce, aad, plain)
    }

    fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        if sealed.len() < SEAL_OVERHEAD_BYTES {
            return Err(SealError::Short(sealed.len()));
        }
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>().expect("the length was checked");
        let cipher = Aes256Gcm::new((&*self.derive(nonce)).into());
        cipher.decrypt(nonce[12..].into(), Payload { msg: sealed, aad }).map_err(|_| SealError::Changed)
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    #[test]
    fn the_vectors_of_the_specification_hold() {
        let nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX";
        let cases = [
            (1, "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
            (3, "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
        ];
        for (byte, aad, expected) in cases {
            let sealer = XaesSealer::new(&[byte; 32]);
            let sealed = sealer.seal_with(nonce, aad.as_bytes(), b"XAES-256-GCM");
            assert_eq!(HEXLOWER.encode(&sealed[NONCE_BYTES..]), expected);
            assert_eq!(sealer.open(aad.as_bytes(), &sealed).unwrap(), b"XAES-256-GCM");
        }
    }

    #[test]
    fn a_sealed_value_opens_only_unchanged_in_its_place_and_with_its_key() {
        let sealer = XaesSealer::new(&[7; 32]);
        let sealed = sealer.seal(b"entry 1", b"serial number 4711");
        assert_eq!(sealed.len(), 18 + SEAL_OVERHEAD_BYTES);
        assert_ne!(sealed, sealer.seal(b"entry 1", b"serial number 4711"));
        assert!(matches!(sealer.open(b"entry 2", &sealed), Err(SealError::Changed)));
        assert!(matches!(XaesSealer::new(&[8; 32]).open(b"entry 1", &sealed), Err(SealError::Changed)));
        for position in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[position] ^= 1;
            assert!(matches!(sealer.open(b"entry 1", &changed), Err(SealError::Changed)), "byte {position}");
        }
        for length in 0..sealed.len() {
            assert!(sealer.open(b"entry 1", &sealed[..length]).is_err(), "{length} bytes");
        }
    }
}

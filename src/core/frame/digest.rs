//! The digest of canonical pixels, `docs/spec/pixels.md`: equal pixels, equal digest, however they were encoded.

use super::{Frame, Pixels};
use crate::types::Blake3Digest;

/// Separates these digests from every other use of BLAKE3 here.
const DOMAIN: &[u8; 20] = b"lineproof pixels v1\n";
/// Values converted to little-endian bytes at a time, 16 KiB: fills BLAKE3's widest SIMD and stays in the L1 cache.
const WORDS_PER_UPDATE: usize = 8192;

pub(super) fn pixels(frame: &Frame<'_>) -> Blake3Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(DOMAIN);
    let head = [frame.pixel_format().code(), u32::from(frame.full_scale()), frame.width_px, frame.height_px];
    for value in head {
        hasher.update(&value.to_le_bytes());
    }
    match frame.pixels {
        Pixels::Gray8(data) | Pixels::Rgb8(data) => {
            hasher.update(data);
        }
        Pixels::Gray16 { data, .. } => {
            let mut bytes = [0; 2 * WORDS_PER_UPDATE];
            for words in data.chunks(WORDS_PER_UPDATE) {
                for (word, pair) in words.iter().zip(bytes.chunks_exact_mut(2)) {
                    pair.copy_from_slice(&word.to_le_bytes());
                }
                hasher.update(&bytes[..2 * words.len()]);
            }
        }
    }
    Blake3Digest(*hasher.finalize().as_bytes())
}

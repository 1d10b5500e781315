//! The canary: a picture made of nothing, which every session of a model must answer to the bit.
//!
//! It is the same for every model of its input's shape: noise, so that every weight has a part in the answer.

use super::outputs::Outputs;
use crate::types::Blake3Digest;

/// The start of the noise; any number but 0 would do.
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

/// The canary's tensor of `shape` [N, C, H, W]: xorshift64 (Marsaglia 2003), as numbers from -1 to 1.
#[must_use]
pub fn picture(shape: [usize; 4]) -> Vec<f32> {
    let mut state = SEED;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // The upper 24 bits are a float32 without rounding.
        (state >> 40) as f32 / f32::from(1_u16 << 12) / f32::from(1_u16 << 11) - 1.0
    };
    (0..shape.iter().product()).map(|_| next()).collect()
}

/// BLAKE3 of names, shapes and the values' bits, in the order of the outputs.
#[must_use]
pub fn answer(outputs: &Outputs) -> Blake3Digest {
    let mut hasher = blake3::Hasher::new();
    for output in outputs.iter() {
        hasher.update(&(output.name.len() as u64).to_le_bytes()).update(output.name.as_bytes());
        hasher.update(&(output.shape.len() as u64).to_le_bytes());
        for dim in output.shape {
            hasher.update(&(*dim as u64).to_le_bytes());
        }
        for value in output.values {
            hasher.update(&value.to_bits().to_le_bytes());
        }
    }
    Blake3Digest(*hasher.finalize().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_is_the_same_every_time_and_fills_its_range() {
        let picture = picture([1, 3, 64, 64]);
        assert_eq!(picture.len(), 3 * 64 * 64);
        assert_eq!(picture, super::picture([1, 3, 64, 64]));
        assert!(picture.iter().all(|value| (-1.0..1.0).contains(value)));
        let mean = picture.iter().sum::<f32>() / picture.len() as f32;
        assert!(mean.abs() < 0.02 && picture.iter().any(|value| *value > 0.99), "{mean}");
    }

    #[test]
    fn one_bit_of_an_output_makes_another_answer() {
        let outputs = |name: &str, shape: [usize; 2], values: [f32; 4]| {
            let mut outputs = Outputs::default();
            outputs.push(name, shape, &values);
            answer(&outputs)
        };
        let first = outputs("logits", [2, 2], [0.0, 1.0, 2.0, 3.0]);
        assert_eq!(first, outputs("logits", [2, 2], [0.0, 1.0, 2.0, 3.0]));
        assert_ne!(first, outputs("logits", [2, 2], [-0.0, 1.0, 2.0, 3.0]));
        assert_ne!(first, outputs("logits", [1, 4], [0.0, 1.0, 2.0, 3.0]));
        assert_ne!(first, outputs("map", [2, 2], [0.0, 1.0, 2.0, 3.0]));
    }
}

//! What keeps the contracts of the ports: disks, keys, clocks and ONNX Runtime.

pub mod archive;
pub mod clock;
pub mod keys;
pub mod log;
pub mod ort;
pub mod sled_index;

#[cfg(test)]
mod tests;

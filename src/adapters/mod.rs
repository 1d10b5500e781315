//! What keeps the contracts of the ports: the disk, the clock, the keys and ONNX Runtime. None names another.

pub mod archive;
pub mod authority;
pub mod backup;
pub mod clock;
pub mod keys;
pub mod log;
pub mod model_store;
pub mod oidc;
pub mod ort;
pub mod recipe_files;
pub mod sled_index;
pub mod trial;
pub mod witness;

#[cfg(test)]
mod tests;

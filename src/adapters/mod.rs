//! (adapters)

pub mod sled_index;

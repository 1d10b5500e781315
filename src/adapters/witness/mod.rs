//! Witnessing on disks and networks: what a witness remembers, what a plant keeps, and the way between them.

mod files;
mod keep;
mod link;
mod memory;

pub use keep::CosignedFiles;
pub use link::{HttpWitness, LinkError};
pub use memory::MemoryFiles;

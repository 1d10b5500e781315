//! What services ask of the world, each trait with its contract. Adapters keep the contracts.

pub mod access;
pub mod archive;
pub mod backup;
pub mod clock;
pub mod index;
pub mod inference;
pub mod lineage;
pub mod models;
pub mod recipes;
pub mod sealer;
pub mod texts;
pub mod witness;

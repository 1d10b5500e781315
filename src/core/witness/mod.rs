//! Witnesses: others who vouch that a log never showed two histories. The formats are `docs/spec/witness.md`.
//!
//! Everything here is values in, values out; who keeps state, asks and answers stands in the layers above.

pub mod compare;
pub mod cosign;
pub mod policy;
pub mod request;
#[cfg(test)]
mod tests;

//! The lineage: what an entry says, and how its place in the log is proven.

pub mod entry;
pub mod private;

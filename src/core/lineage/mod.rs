//! The lineage: what an entry says, and how its place in the log is proven.

#[cfg(feature = "server")]
pub mod assignment;
pub mod checkpoint;
pub mod entry;
pub mod index_ranges;
#[cfg(feature = "server")]
pub mod part;
pub mod passport;
pub mod period;
pub mod private;
pub mod ranges;
pub mod receipt;
pub mod replay;
pub mod rotation;
#[cfg(test)]
mod tests;
pub mod tiles;
pub mod tree;

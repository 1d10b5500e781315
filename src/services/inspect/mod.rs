//! (inspect)
pub mod gaps;
pub mod queue;

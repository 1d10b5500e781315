//! What Lineproof does: inspect, and answer for it.

pub mod audit;
pub mod history;
pub mod inspect;
pub mod periods;
pub mod recipes;
pub mod witness;

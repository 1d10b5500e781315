//! What Lineproof does: inspect, answer for it, and destroy what must not be kept.

pub mod access;
pub mod audit;
pub mod history;
pub mod inspect;
pub mod models;
pub mod parts;
pub mod periods;
pub mod recipes;
pub mod registry;
pub mod replay;
pub mod retention;
pub mod tune;
pub mod witness;

//! What Lineproof does: inspect, and answer for it.

pub mod history;
pub mod inspect;

//! (edge)

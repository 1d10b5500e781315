//! Commands, configuration and wiring.

#[cfg(feature = "server")]
pub mod camera;
#[cfg(feature = "server")]
pub mod config;

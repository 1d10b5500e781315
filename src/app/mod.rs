//! Commands, configuration and wiring.

#[cfg(feature = "server")]
pub mod camera;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod fsck;
#[cfg(feature = "server")]
pub mod history;
#[cfg(feature = "server")]
pub mod reindex;
pub mod verify;

//! Commands, configuration and wiring.

pub mod cli;
pub mod verify;
pub mod verify_page;

#[cfg(feature = "server")]
pub mod backup;
#[cfg(feature = "server")]
pub mod camera;
#[cfg(feature = "server")]
pub mod challenge;
#[cfg(feature = "server")]
pub mod client;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod demo;
#[cfg(feature = "server")]
pub mod erase;
#[cfg(feature = "server")]
pub mod evidence;
#[cfg(feature = "server")]
pub mod fsck;
#[cfg(feature = "server")]
mod health;
#[cfg(feature = "server")]
pub mod history;
#[cfg(feature = "server")]
pub mod hold;
#[cfg(feature = "server")]
pub mod init;
#[cfg(feature = "server")]
pub mod keys;
#[cfg(feature = "server")]
pub mod logging;
#[cfg(feature = "server")]
pub mod model;
#[cfg(feature = "server")]
mod model_add;
#[cfg(feature = "server")]
mod model_sign;
#[cfg(feature = "server")]
mod model_unbake;
#[cfg(feature = "server")]
pub mod pki;
#[cfg(feature = "server")]
mod registry;
#[cfg(feature = "server")]
pub mod reindex;
#[cfg(feature = "server")]
pub mod replay;
#[cfg(feature = "server")]
pub mod retention;
#[cfg(feature = "server")]
pub mod search;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod socket;
#[cfg(feature = "server")]
mod tls;
#[cfg(feature = "server")]
mod tune;
#[cfg(feature = "server")]
pub mod witness;

//! Lineproof: visual quality inspection that can prove itself.
//!
//! The layers, innermost first. Each may use what stands above it in this list, never what stands below
//! (`tests/layering.rs` holds this):
//!
//! - [`types`]: the words: ids, digests, verdicts, scores, times.
//! - [`core`]: pure and synchronous: frames, recipes, decisions, the lineage format and its proofs.
//! - [`ports`]: traits with a written contract towards disks, clocks, keys and model runtimes.
//! - [`adapters`]: the log on disk, the image archive, sled, ONNX Runtime.
//! - [`services`]: inspect, history, audit, witness.
//! - [`edge`]: gRPC, and HTTP for witnesses. Only this layer knows prost types.
//! - [`app`]: configuration, wiring, commands.
//!
//! Without the `server` feature only what an auditor needs to verify evidence is compiled.

pub mod app;
pub mod core;
pub mod types;

#[cfg(feature = "server")]
pub mod adapters;
#[cfg(feature = "server")]
pub mod edge;
#[cfg(feature = "server")]
pub mod outgoing;
#[cfg(feature = "server")]
pub mod planted;
#[cfg(feature = "server")]
pub mod ports;
#[cfg(feature = "server")]
mod priority;
#[cfg(feature = "server")]
pub mod services;

//! gRPC, and HTTP for witnesses: authorise, convert, call, convert. Only this layer knows prost types.

pub mod access;
pub mod audit;
pub mod convert;
pub mod history;
pub mod inspection;
pub mod methods;
pub mod open_inference;
pub mod registry;
pub mod replay;
pub mod retention;
pub mod status;
pub mod witness;

/// What `proto/lineproof/v1` says, compiled.
pub mod pb {
    tonic::include_proto!("lineproof.v1");

    /// All messages and services, for reflection.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/lineproof.bin"));
}

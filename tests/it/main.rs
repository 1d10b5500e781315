//! User journeys against the real binary, over the real socket, on a real disk.

#![cfg(feature = "server")]

mod access;
mod adding;
mod backup;
mod bad_input;
mod challenge;
mod disk;
mod erase;
mod evidence;
mod faults;
mod harness;
mod inference;
mod inspection;
mod keys;
mod kinds;
mod models;
mod office;
mod oidc;
mod older;
mod onnx;
mod open_inference;
mod parts;
mod periods;
mod pki;
mod python_client;
mod registry;
mod replay;
mod retention;
mod signing;
mod skew;
mod syscalls;
mod witness;
mod zones;

//! Pure heart: values in, values out. No tokio, no files, no clock.

pub mod export;
pub mod lineage;
pub mod recipe;
pub mod witness;

#[cfg(feature = "server")]
pub mod assemble;
#[cfg(feature = "server")]
pub mod backup;
#[cfg(feature = "server")]
pub mod canary;
#[cfg(feature = "server")]
pub mod counter;
#[cfg(feature = "server")]
pub mod decide;
#[cfg(feature = "server")]
pub mod frame;
#[cfg(feature = "server")]
pub mod mask;
#[cfg(feature = "server")]
pub mod model;
#[cfg(feature = "server")]
pub mod outputs;
#[cfg(feature = "server")]
pub mod pki;
#[cfg(feature = "server")]
pub mod preprocess;
#[cfg(feature = "server")]
pub mod quality;
#[cfg(feature = "server")]
pub mod replay;
#[cfg(feature = "server")]
pub mod simulate;
#[cfg(feature = "server")]
pub mod views;

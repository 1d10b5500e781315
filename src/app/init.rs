//! `lineproof init`: a data directory with keys, a commented configuration and the demo recipe.

use std::{fs, io::Write as _, path::Path};

use anyhow::{Context as _, bail};

use super::config;
use crate::{
    adapters::keys::Keys,
    types::{CameraId, LineId, StationId},
};

/// The recipe that every data directory starts with, compiled into the binary.
const EMBEDDED: &[(&str, &[u8])] = &[
    ("models/machined-surface/1.1.0/recipe.toml", include_bytes!("../../models/machined-surface/1.1.0/recipe.toml")),
    ("models/machined-surface/1.1.0/model.onnx", include_bytes!("../../models/machined-surface/1.1.0/model.onnx")),
    (
        "models/machined-surface/1.1.0/MODEL_CARD.md",
        include_bytes!("../../models/machined-surface/1.1.0/MODEL_CARD.md"),
    ),
    ("calibration/machined-surface-1.1.0.toml", include_bytes!("../../calibration/machined-surface-1.1.0.toml")),
];

/// What a new data directory is for.
#[derive(Clone, Debug)]
pub struct InitOptions {
    pub plant: String,
    /// Name of the log in every checkpoint, such as `lineproof.example.com/plant-1`.
    pub origin: String,
    pub line: LineId,
    pub station: StationId,
    pub camera: CameraId,
}

/// Makes `data_dir`, which must not hold a data directory yet, and returns the log's verifier key line.
///
/// # Errors
/// When the folder already holds a configuration or keys, or a file cannot be written.
pub fn init(data_dir: &Path, options: &InitOptions) -> anyhow::Result<String> {
    let config_path = data_dir.join(config::FILE_NAME);
    if config_path.exists() || data_dir.join("keys").exists() {
        bail!("{} is a data directory already; nothing was changed", data_dir.display());
    }
    let folders = ["log", "wal", "private", "images", "index", "texts", "models", "calibration"];
    for folder in folders {
        let path = data_dir.join(folder);
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    }
    for (name, bytes) in EMBEDDED {
        write_durably(&data_dir.join(name), bytes)?;
    }
    let keys = Keys::create(&data_dir.join("keys"), &options.origin)?;
    let vkey = keys.verifier_key();
    write_durably(&data_dir.join("log.vkey"), format!("{vkey}\n").as_bytes())?;
    let text = config::template(&options.plant, &options.line, &options.station, &options.camera);
    // Last, so that a half-made directory is not taken for a whole one.
    write_durably(&config_path, text.as_bytes())?;
    fs::File::open(data_dir)?.sync_all()?;
    Ok(vkey)
}

fn write_durably(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let write = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = fs::File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().with_context(|| path.display().to_string())
}

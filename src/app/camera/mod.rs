//! The line PC: `lineproof camera`.

mod encode;
mod progress;
mod write;

use clap::{Args, Subcommand, ValueEnum};

use crate::core::simulate::{Simulator, SimulatorConfig, SimulatorError, Surface};

#[derive(Debug, Args)]
pub struct CameraArgs {
    #[command(subcommand)]
    command: CameraCommand,
}

#[derive(Debug, Subcommand)]
enum CameraCommand {
    /// Make parts that never existed, with the truth about each: the demo line, a load, or labelled training data.
    Simulate(SimulateArgs),
}

/// How a frame is stored or sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ImageFormat {
    Png,
    Jpeg,
    Bmp,
}

#[derive(Debug, Args)]
struct SimulateArgs {
    /// Write frames/, masks/ and labels.jsonl into this folder.
    #[arg(long, value_name = "DIR")]
    write: std::path::PathBuf,
    /// How many parts.
    #[arg(long, default_value_t = 200)]
    count: u64,
    /// The number of the first part.
    #[arg(long, default_value_t = 0)]
    first: u64,
    #[command(flatten)]
    parts: PartsArgs,
}

/// What the simulated line makes.
#[derive(Clone, Debug, Args)]
pub struct PartsArgs {
    /// The same seed gives the same parts, byte for byte.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Frame size in pixels.
    #[arg(long, default_value = "512x512", value_parser = parse_size, value_name = "WxH")]
    pub size: (u32, u32),
    /// Share of bad parts.
    #[arg(long, default_value_t = 0.2, value_name = "0..1")]
    pub defect_rate: f32,
    /// Surfaces to choose from: turned, milled, cast, plastic. Default: all.
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub surfaces: Vec<Surface>,
    /// Number of different products per surface; left out, every part is its own product.
    #[arg(long, value_name = "N")]
    pub designs: Option<u32>,
    #[arg(long, value_enum, default_value_t = ImageFormat::Png)]
    pub format: ImageFormat,
}

impl PartsArgs {
    /// # Errors
    /// [`SimulatorError`] when no part could be made like that.
    pub fn simulator(&self) -> Result<Simulator, SimulatorError> {
        Simulator::new(SimulatorConfig {
            seed: self.seed,
            width_px: self.size.0,
            height_px: self.size.1,
            defect_rate: self.defect_rate,
            surfaces: if self.surfaces.is_empty() { Surface::ALL.to_vec() } else { self.surfaces.clone() },
            designs: self.designs,
        })
    }
}

fn parse_size(text: &str) -> Result<(u32, u32), String> {
    text.split_once('x')
        .and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)))
        .ok_or_else(|| format!("{text:?} is no size; write it like 1280x1024"))
}

/// Runs the command and returns the process's exit code.
///
/// # Errors
/// What kept the command from doing its work, with what to do next.
pub fn run(args: &CameraArgs) -> anyhow::Result<u8> {
    match &args.command {
        CameraCommand::Simulate(args) => write::run(args, &args.write),
    }
}

//! The line PC: `lineproof camera` sends a folder's images or simulated parts to the service and shows the verdicts.

pub mod client;
pub mod close;
mod encode;
pub mod ledger;
pub mod progress;
mod show;
pub mod source;
pub mod summary;
mod wire;
pub mod words;
mod write;

#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use clap::{Args, Subcommand, ValueEnum};
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;

use self::{
    client::LineClient,
    ledger::Ledger,
    show::{Show, Style},
    source::{Folder, Frames, Serials, SharedLedger},
    words::{LineConfig, LineError, LineEvent, TlsPem},
};
use crate::{
    core::simulate::{Simulator, SimulatorConfig, SimulatorError, Surface},
    types::{CameraId, LineId, ProductId, RecipeRef, StationId},
};

/// The process's exit code for arguments that cannot work.
const EXIT_USAGE: u8 = 2;

/// Send the images of a folder, or simulated parts, to the service and show the verdicts.
///
/// Survives restarts of the service: frames without an answer are sent again under the same id, and the service answers
/// a frame it knows with the entry it has. Ends with 0 when every part got a verdict, 1 when some did not, 2 when the
/// arguments cannot work.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct CameraArgs {
    #[command(subcommand)]
    command: Option<CameraCommand>,
    #[command(flatten)]
    folder: FolderArgs,
}

#[derive(Debug, Subcommand)]
enum CameraCommand {
    /// Make parts that never existed, with the truth about each: the demo line, a load, or labelled training data.
    Simulate(SimulateArgs),
}

#[derive(Debug, Args)]
struct FolderArgs {
    /// The folder whose PNG, JPEG, TIFF and BMP files are sent, by name.
    #[arg(required = true, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Keep watching for new files; a file is sent when it is complete.
    #[arg(long)]
    watch: bool,
    /// A CSV file with the columns name, serial and lot. Without it the serial is the file's name without its ending.
    #[arg(long, value_name = "FILE")]
    serials: Option<PathBuf>,
    #[command(flatten)]
    line: LineArgs,
}

#[derive(Debug, Args)]
struct SimulateArgs {
    /// Do not send: write frames/, masks/ and labels.jsonl into this folder.
    #[arg(long, value_name = "DIR")]
    write: Option<PathBuf>,
    /// How many parts.
    #[arg(long, alias = "count", default_value_t = 200, value_name = "N")]
    parts: u64,
    /// The number of the first part.
    #[arg(long, default_value_t = 0, value_name = "N")]
    first: u64,
    /// Goes into each frame id, to send the same parts once more as new frames.
    #[arg(long, value_name = "NAME", conflicts_with = "write")]
    run: Option<String>,
    /// Compare the verdicts with the truth: escapes and overkill.
    #[arg(long, conflicts_with = "write")]
    compare: bool,
    #[command(flatten)]
    kind: PartsArgs,
    #[command(flatten)]
    line: LineArgs,
}

/// How a frame is stored or sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ImageFormat {
    Png,
    Jpeg,
    Bmp,
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

/// Where the service is, and which camera this is about.
#[derive(Debug, Args)]
struct ConnectArgs {
    /// Address of the service. Plain http only on this machine.
    #[arg(long, env = "LINEPROOF_SERVER", default_value = "http://127.0.0.1:7443", value_name = "URL")]
    server: String,
    /// PEM file of the authority that signed the service's certificate.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// PEM file of this line PC's certificate.
    #[arg(long, requires = "key", requires = "ca", value_name = "FILE")]
    cert: Option<PathBuf>,
    /// PEM file of this line PC's key.
    #[arg(long, requires = "cert", value_name = "FILE")]
    key: Option<PathBuf>,
    #[arg(long, env = "LINEPROOF_LINE", default_value = "line-1")]
    line: LineId,
    #[arg(long, env = "LINEPROOF_STATION", default_value = "station-1")]
    station: StationId,
    #[arg(long, env = "LINEPROOF_CAMERA", default_value = "cam-1")]
    camera: CameraId,
}

impl ConnectArgs {
    fn tls(&self) -> Result<Option<TlsPem>, LineError> {
        let identity = self.cert.as_deref().zip(self.key.as_deref());
        self.ca.as_deref().map(|ca| TlsPem::read(ca, identity)).transpose()
    }
}

/// Who this line PC is, and how it speaks with the service.
#[derive(Debug, Args)]
struct LineArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// Type of the parts.
    #[arg(long, env = "LINEPROOF_PRODUCT", default_value = "demo-part")]
    product: ProductId,
    /// `name@version`; left out, the one the service has for the product.
    #[arg(long)]
    recipe: Option<RecipeRef>,
    /// Frames sent and not yet answered.
    #[arg(long, default_value_t = 4, value_name = "N")]
    in_flight: usize,
    /// Parts per second; left out, as fast as the service answers.
    #[arg(long, value_name = "R")]
    rate: Option<f64>,
    /// How long a verdict is of use; a frame that waits longer is not judged.
    #[arg(long, value_name = "MS")]
    useful_for_ms: Option<u64>,
    /// Stop trying when the service has not answered for this long.
    #[arg(long, default_value_t = 300, value_name = "S")]
    reconnect_for_s: u64,
    /// Remember counters and verdicts in this file, so that a restart goes on where it stopped.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Number of the first frame, unless the state file knows better.
    #[arg(long, default_value_t = 1, value_name = "N")]
    first_counter: u64,
    /// At the end, say to the log how many frames there were: `lineproof close-period` for the frames of this run.
    /// Without a name, the period is called by the time; a name is good once, so put the date into it. With --state it
    /// goes on where the last period ended.
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    close_period: Option<String>,
    /// Do that every so many seconds, too, as far as all frames are answered: for a line that never ends.
    #[arg(long, value_name = "S", requires = "close_period", requires = "state", value_parser = clap::value_parser!(u64).range(1..))]
    close_every_s: Option<u64>,
    /// JSON lines instead of text.
    #[arg(long)]
    json: bool,
    /// Only the summary.
    #[arg(long, short, conflicts_with = "json")]
    quiet: bool,
}

impl LineArgs {
    fn config(&self) -> Result<LineConfig, LineError> {
        let ConnectArgs { server, line, station, camera, .. } = &self.connect;
        let (line, station, camera, product) = (line.clone(), station.clone(), camera.clone(), self.product.clone());
        Ok(LineConfig {
            tls: self.connect.tls()?,
            recipe: self.recipe.clone(),
            in_flight: self.in_flight,
            useful_for: self.useful_for_ms.map(Duration::from_millis),
            rate_per_s: self.rate,
            reconnect_for: Duration::from_secs(self.reconnect_for_s),
            ..LineConfig::new(server, line, station, camera, product)
        })
    }

    fn ledger(&self) -> anyhow::Result<SharedLedger> {
        let ledger = match &self.state {
            Some(path) => Ledger::open(path, self.first_counter)?,
            None => Ledger::in_memory(self.first_counter),
        };
        Ok(SharedLedger::new(ledger))
    }

    fn style(&self) -> Style {
        match (self.json, self.quiet) {
            (true, _) => Style::Json,
            (false, true) => Style::Quiet,
            (false, false) => Style::Text,
        }
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
/// What kept the command from finishing its work, with what to do next.
pub fn run(args: &CameraArgs) -> anyhow::Result<u8> {
    if let Some(CameraCommand::Simulate(args @ SimulateArgs { write: Some(folder), .. })) = &args.command {
        let Some(simulator) = usable(args.kind.simulator()) else { return Ok(EXIT_USAGE) };
        return write::run(&simulator, args.kind.format, args.first, args.parts, folder);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(stream(args))
}

/// Says what is wrong with the arguments.
fn usable<T, E: std::fmt::Display>(result: Result<T, E>) -> Option<T> {
    result.map_err(|error| eprintln!("error: {error}")).ok()
}

async fn stream(args: &CameraArgs) -> anyhow::Result<u8> {
    let line = match &args.command {
        Some(CameraCommand::Simulate(args)) => &args.line,
        None => &args.folder.line,
    };
    let Some(client) = usable(line.config().and_then(LineClient::connect)) else { return Ok(EXIT_USAGE) };
    let Some(ledger) = usable(line.ledger()) else { return Ok(EXIT_USAGE) };
    let stop = CancellationToken::new();
    let Some((frames, total)) = usable(source(args, ledger.clone(), stop.clone())) else { return Ok(EXIT_USAGE) };
    tokio::spawn(stop_on_signal(stop.clone()));

    let mut show = Show::new(line.style(), total);
    let (mut failed, sent) = (None, Mutex::new(close::Sent::new(ledger.open_counters())));
    let closer = line.close_period.as_ref().map(|name| close::Closer {
        connect: &line.connect,
        name,
        remembers: line.state.is_some(),
    });
    let closing = async {
        match (&closer, line.close_every_s) {
            (Some(closer), Some(seconds)) => closer.every(Duration::from_secs(seconds), &sent, &ledger).await,
            _ => std::future::pending().await,
        }
    };
    let frames = frames.map(|frame| {
        if let Ok(frame) = &frame {
            sent.lock().unwrap_or_else(PoisonError::into_inner).taken(frame.frame_counter);
        }
        frame
    });
    let running = client.run(frames, stop.clone(), |event| {
        if let Err(error) = remember(&ledger, &event) {
            // Without its memory this line PC could double a part after a restart.
            failed.get_or_insert(error);
            stop.cancel();
        }
        if let LineEvent::Answered(answered) = &event {
            let was_known = answered.attempts == 1 && answered.outcome.as_ref().is_ok_and(|it| it.is_duplicate);
            let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
            let entry = answered.outcome.as_ref().ok().map(|decision| decision.entry_index);
            sent.answered(answered.frame.frame_counter, was_known, entry);
        }
        show.event(&event);
    });
    let summary = tokio::select! {
        summary = running => summary,
        () = closing => unreachable!("closing goes on until the run ends"),
    };
    ledger.sync()?;
    show.summary(&summary);
    if let Some(error) = failed {
        return Err(error.into());
    }
    let Some(closer) = closer else { return Ok(summary.exit_code()) };
    if summary.unanswered > 0 {
        eprintln!("no period closed: {} frames wait for their answer; send them first", summary.unanswered);
        return Ok(summary.exit_code());
    }
    let sent = sent.into_inner().unwrap_or_else(PoisonError::into_inner);
    let is_complete = closer.after_run(&sent, ledger.remembered_first()).await?;
    Ok(summary.exit_code().max(u8::from(!is_complete || sent.is_incomplete())))
}

fn source(args: &CameraArgs, ledger: SharedLedger, stop: CancellationToken) -> anyhow::Result<(Frames, Option<u64>)> {
    match &args.command {
        Some(CameraCommand::Simulate(args)) => {
            let simulator = args.kind.simulator()?;
            let parts = args.first..args.first.saturating_add(args.parts);
            let frames =
                source::simulated(simulator, args.kind.format, parts, args.run.as_deref(), args.compare, ledger);
            Ok((frames, Some(args.parts)))
        }
        None => {
            let args = &args.folder;
            let folder = Folder {
                path: args.folder.clone().expect("clap requires the folder when there is no subcommand"),
                serials: args.serials.as_deref().map(Serials::read).transpose()?,
                watch: args.watch.then_some(source::WATCH_EVERY),
            };
            Ok((folder.frames(ledger, stop)?, None))
        }
    }
}

fn remember(ledger: &SharedLedger, event: &LineEvent<'_>) -> Result<(), ledger::LedgerError> {
    match event {
        LineEvent::Answered(answered) => match answered.outcome {
            Ok(decision) => ledger.decided(&answered.frame.frame_id, decision.verdict.name(), decision.entry_index),
            Err(_) => Ok(()),
        },
        _ => Ok(()),
    }
}

/// The first Ctrl-C or SIGTERM lets frames in flight finish; the second ends at once.
async fn stop_on_signal(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::warn!("signals cannot be caught; Ctrl-C will end the program at once");
        return;
    };
    for is_first in [true, false] {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if is_first {
            eprintln!("finishing the parts in flight; once more to stop at once");
            stop.cancel();
        }
    }
    std::process::exit(130);
}

//! `lineproof tune`: how a model runs best on this machine, measured, and what to write into `lineproof.toml`.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;
use serde_json::json;

use super::{cli::usage, model};
use crate::adapters::ort::{OrtRuntime, find_library};
use crate::{
    adapters::trial::ProcessTrial,
    ports::inference::{ModelSpec, ModelTrial as _, Provider, SessionOptions},
    services::{
        inspect::Measured,
        tune::{self, LayoutSpeed},
    },
};

/// A provider is proposed instead of the CPU's own if it is faster by this share.
const WORTH_A_PROVIDER: f64 = 0.05;
/// Largest difference of scores at which a provider is proposed.
const PARITY: f32 = 1e-4;

/// Runs the model's canary, noise of its input's shape, by itself: decoding and preparing come on top. Stop other work on the machine
/// first, the service too.
#[derive(Debug, Args)]
#[command(after_help = "Exit status: 0 measured, 1 the model does not run here, 2 usage.")]
pub struct TuneArgs {
    /// An ONNX file
    #[arg(value_name = "MODEL")]
    file: PathBuf,
    /// The recipe that uses it, where its inputs are open or two
    #[arg(long, value_name = "RECIPE")]
    recipe: Option<PathBuf>,
    /// Execution providers to compare, such as cpu,openvino; those that this build of ONNX Runtime does not have are named
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "cpu")]
    providers: Vec<String>,
    /// How long each way is measured, alone and busy
    #[arg(long, value_name = "S", default_value_t = 2.0)]
    seconds: f64,
    /// ONNX Runtime's library, where `ORT_DYLIB_PATH` names none and none lies beside this program
    #[arg(long, value_name = "LIBRARY")]
    onnxruntime: Option<PathBuf>,
    /// Facts for machines instead of sentences
    #[arg(long)]
    json: bool,
}

/// # Errors
/// When the file cannot be read or ONNX Runtime is not there.
pub fn run(args: &TuneArgs) -> anyhow::Result<ExitCode> {
    let providers: Result<Vec<Provider>, String> = args.providers.iter().map(|text| text.parse()).collect();
    let providers = match providers {
        Ok(mut providers) => {
            let mut seen = Vec::new();
            providers.retain(|provider| {
                !seen.contains(provider) && {
                    seen.push(provider.clone());
                    true
                }
            });
            providers
        }
        Err(reason) => return Ok(usage(&reason)),
    };
    if !(0.1..=600.0).contains(&args.seconds) {
        return Ok(usage("--seconds is 0.1 to 600"));
    }
    let library = find_library(args.onnxruntime.as_deref())?;
    let spec = match model::spec_of_file(&args.file, args.recipe.as_deref())? {
        Ok(spec) => spec,
        Err(reason) => anyhow::bail!("{}: {reason}", args.file.display()),
    };
    let trial = ProcessTrial::new(library.clone())?;
    let runtime = OrtRuntime::load_from(library)?;
    let found = measure(args, &providers, &spec, &trial, &runtime);
    if args.json {
        println!("{}", found.json(&runtime));
    } else {
        print!("{}", found.words(&runtime));
    }
    Ok(ExitCode::from(u8::from(found.speeds.is_empty())))
}

/// What was measured.
#[derive(Default)]
struct Found {
    cores: usize,
    speeds: Vec<LayoutSpeed>,
    batches: Vec<(Provider, Measured)>,
    /// From the first provider's answer.
    differences: Vec<(Provider, f32)>,
    failed: Vec<(Provider, String)>,
}

fn measure(
    args: &TuneArgs,
    providers: &[Provider],
    spec: &ModelSpec,
    trial: &ProcessTrial,
    runtime: &OrtRuntime,
) -> Found {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let time = Duration::from_secs_f64(args.seconds);
    let mut found = Found { cores, ..Found::default() };
    let say = |text: String| {
        if !args.json {
            eprintln!("{text}");
        }
    };
    for provider in providers {
        // A model is not let into this process before it has run in one of its own.
        let options = SessionOptions { provider: provider.clone(), ..SessionOptions::default() };
        if let Err(error) = trial.try_out(spec, &options) {
            found.failed.push((provider.clone(), error.to_string()));
            continue;
        }
        for layout in tune::layouts(provider, cores) {
            say(format!("measuring {} sessions of {} threads on {provider} …", layout.sessions, layout.threads));
            match tune::measure(runtime, spec, &layout, time) {
                Ok(speed) => found.speeds.push(speed),
                Err(error) => found.failed.push((provider.clone(), error.to_string())),
            }
        }
        let Some(widest) = tune::layouts(provider, cores).pop() else { continue };
        say(format!("measuring frames together on {provider} …"));
        match tune::batches(runtime, spec, &widest) {
            Ok(measured) => found.batches.push((provider.clone(), measured)),
            Err(error) => found.failed.push((provider.clone(), error.to_string())),
        }
        if let Some(first) = found.speeds.first().map(|speed| speed.layout.provider.clone())
            && first != *provider
            && let Ok(difference) = tune::difference(runtime, spec, (&first, provider))
        {
            found.differences.push((provider.clone(), difference));
        }
    }
    found
}

impl Found {
    /// The layout that is best by `key`. One on another provider than the first must be worth it and answer alike.
    fn best(&self, key: impl Fn(&LayoutSpeed) -> f64) -> Option<&LayoutSpeed> {
        let first = &self.speeds.first()?.layout.provider;
        let answers_alike = |provider: &Provider| {
            self.differences.iter().any(|(found, difference)| found == provider && *difference <= PARITY)
        };
        let worth = |speed: &&LayoutSpeed| speed.layout.provider == *first || answers_alike(&speed.layout.provider);
        let value = |speed: &LayoutSpeed| {
            if speed.layout.provider == *first { key(speed) } else { key(speed) / (1.0 + WORTH_A_PROVIDER) }
        };
        self.speeds.iter().filter(worth).max_by(|a, b| value(a).total_cmp(&value(b)))
    }

    /// Batches that give more frames than any layout, on a provider that may be proposed.
    fn best_batch(&self) -> Option<(&Provider, &Measured)> {
        let most = self.best(|speed| speed.frames_per_s)?;
        let first = &self.speeds.first()?.layout.provider;
        let may = |provider: &Provider| {
            provider == first || self.differences.iter().any(|(found, d)| found == provider && *d <= PARITY)
        };
        let batches = self.batches.iter().filter(|(provider, _)| may(provider));
        let best = batches.max_by(|(_, a), (_, b)| frames_per_s(a).total_cmp(&frames_per_s(b)))?;
        (frames_per_s(&best.1) > most.frames_per_s && best.1.frames > 1).then_some((&best.0, &best.1))
    }

    fn words(&self, runtime: &OrtRuntime) -> String {
        let mut text = format!("{} cores, ONNX Runtime {}; inference alone\n\n", self.cores, runtime.version());
        // Writing to a String does not fail.
        if !self.speeds.is_empty() {
            let _ = writeln!(
                text,
                "  {:14}  {:>18}  {:>9}  {:>15}",
                "provider", "sessions x threads", "frames/s", "one frame alone"
            );
        }
        for LayoutSpeed { layout, frames_per_s, alone } in &self.speeds {
            let (provider, layout) = (layout.provider.to_string(), format!("{} x {}", layout.sessions, layout.threads));
            let alone_ms = alone.as_secs_f64() * 1e3;
            let _ = writeln!(text, "  {provider:14}  {layout:>18}  {frames_per_s:>9.1}  {alone_ms:>12.2} ms");
        }
        for (provider, difference) in &self.differences {
            let _ = writeln!(text, "  {provider} answers within {difference:.1e} of the first");
        }
        for (provider, measured) in &self.batches {
            let per_frame = |(frames, took): &(usize, Duration)| {
                format!("{frames}: {:.2} ms", took.as_secs_f64() * 1e3 / *frames as f64)
            };
            let sizes: Vec<String> = measured.sizes.iter().map(per_frame).collect();
            let pays = match measured.frames {
                1 => "running frames together does not pay".to_owned(),
                frames => format!("{frames} together pay"),
            };
            let ended = measured.ended.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
            let _ =
                writeln!(text, "  {provider}, time per frame of so many together: {}: {pays}{ended}", sizes.join(", "));
        }
        for (provider, why) in &self.failed {
            let _ = writeln!(text, "  {provider}: {why}");
        }
        if let Some(many) = self.best(|speed| speed.frames_per_s) {
            let _ = write!(text, "\nmost frames, for many cameras:\n{}", settings(many));
        }
        if let Some((provider, measured)) = self.best_batch() {
            let _ =
                write!(text, "\nmore frames yet, run together:\n{}", shared_settings(provider, measured, self.cores));
        }
        if let Some(one) = self.best(|speed| -speed.alone.as_secs_f64()) {
            let _ = write!(text, "\nsoonest answer, for one camera that waits for each verdict:\n{}", settings(one));
        }
        text
    }

    fn json(&self, runtime: &OrtRuntime) -> serde_json::Value {
        let speed = |speed: &LayoutSpeed| {
            json!({
                "provider": speed.layout.provider,
                "sessions": speed.layout.sessions,
                "threads": speed.layout.threads,
                "frames_per_s": speed.frames_per_s,
                "alone_us": u64::try_from(speed.alone.as_micros()).unwrap_or(u64::MAX),
            })
        };
        let batch = |(provider, measured): &(Provider, Measured)| {
            let sizes: Vec<_> = measured
                .sizes
                .iter()
                .map(|(frames, took)| json!({ "frames": frames, "us": took.as_micros() as u64 }))
                .collect();
            json!({ "provider": provider, "frames": measured.frames, "sizes": sizes, "ended": measured.ended })
        };
        json!({
            "cores": self.cores,
            "onnxruntime": runtime.version(),
            "layouts": self.speeds.iter().map(speed).collect::<Vec<_>>(),
            "batches": self.batches.iter().map(batch).collect::<Vec<_>>(),
            "differences": self.differences.iter().map(|(provider, d)| json!({ "provider": provider, "largest": d })).collect::<Vec<_>>(),
            "failed": self.failed.iter().map(|(provider, why)| json!({ "provider": provider, "reason": why })).collect::<Vec<_>>(),
        })
    }
}

/// What the chosen size of batch gives.
fn frames_per_s(measured: &Measured) -> f64 {
    let chosen = measured.sizes.iter().find(|(frames, _)| *frames == measured.frames);
    chosen.map_or(0.0, |(frames, took)| *frames as f64 / took.as_secs_f64())
}

/// Lines for `lineproof.toml`: one session of all cores, and workers enough to have a batch ready while one runs.
fn shared_settings(provider: &Provider, measured: &Measured, cores: usize) -> String {
    let took = measured.sizes.iter().find(|(frames, _)| *frames == measured.frames).map_or(Duration::ZERO, |(_, t)| *t);
    let budget_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).saturating_mul(2).max(1);
    format!(
        "  [inspect]\n  workers = {}\n  threads_per_worker = {cores}\n  [inference]\n  providers = [\"{provider}\"]\n  sessions = 1\n  batch_frames_max = {}\n  batch_budget_ms = {budget_ms}\n",
        2 * measured.frames,
        measured.frames
    )
}

/// Lines for `lineproof.toml`.
fn settings(speed: &LayoutSpeed) -> String {
    let LayoutSpeed { layout, .. } = speed;
    format!(
        "  [inspect]\n  workers = {}\n  threads_per_worker = {}\n  [inference]\n  providers = [\"{}\"]\n",
        layout.sessions, layout.threads, layout.provider
    )
}

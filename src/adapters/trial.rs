//! The first load and the first run of a model, in a process of its own that may die of it.
//!
//! The parent starts this same program anew, hands over the model's bytes through a pipe, never as a path, and reads
//! one line of JSON as the answer. The child bounds itself before it reads anything (`setrlimit`: address space,
//! processor seconds, open files, no file written, no core dump), has no environment but where libraries lie, dies
//! with its parent, and is killed with all it may have started when its time is over.

use std::{
    io::{self, Read, Write},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions};
use serde::{Deserialize, Serialize};

use crate::{
    core::{
        canary,
        model::{self, MODEL_BYTES_MAX},
    },
    ports::inference::{
        InferenceError, ModelRuntime, ModelSpec, ModelTrial, Optimisation, Outputs, Provider, SessionOptions,
        TrialReport,
    },
    types::Blake3Digest,
};

/// The hidden subcommand that is the child.
pub const SUBCOMMAND: &str = "model-trial";
/// Longest order and longest answer in bytes.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// The file's bytes are in memory as they came, parsed, as tensors and packed for the kernels.
const ADDRESS_SPACE_PER_MODEL_BYTE: u64 = 4;
/// How long what an ended child has said may take to arrive.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// Files the child may have open: three pipes, the libraries while they are loaded, and a driver's devices.
const OPEN_FILES_MAX: u64 = 256;
/// ONNX Runtime would report to its maker.
const TELEMETRY_SWITCH: (&str, &str) = ("ORT_DISABLE_TELEMETRY", "1");
/// What the child keeps of the environment: where libraries lie.
const KEPT_VARIABLES: &[&str] = &["LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"];

/// What the child is to do; the model's bytes follow.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    library: PathBuf,
    model_bytes: usize,
    digest: Blake3Digest,
    input: String,
    template: Option<String>,
    shape: [usize; 4],
    outputs: Vec<String>,
    provider: Provider,
    intra_threads: usize,
    optimisation: Optimisation,
    limits: TrialLimits,
}

/// The child's one line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Answer {
    Passed(TrialReport),
    /// Why not, as a sentence.
    Failed(String),
}

/// What a child may take.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialLimits {
    /// Address space beside four times the model's file: libraries, threads and what one run needs.
    pub address_space_bytes: u64,
    /// Processor time.
    pub cpu_seconds: u64,
    /// From start to end.
    pub wall: Duration,
}

impl Default for TrialLimits {
    fn default() -> Self {
        Self { address_space_bytes: 4 << 30, cpu_seconds: 30, wall: Duration::from_secs(60) }
    }
}

/// Tries models in children of this program.
#[derive(Clone, Debug)]
pub struct ProcessTrial {
    program: PathBuf,
    library: PathBuf,
    limits: TrialLimits,
}

impl ProcessTrial {
    /// Trials by this program with the ONNX Runtime in `library`.
    ///
    /// # Errors
    /// When the system does not say which program this is.
    pub fn new(library: PathBuf) -> io::Result<Self> {
        // The link leads to this very file also after an update has put another one in its place.
        let running = PathBuf::from("/proc/self/exe");
        let program = if running.exists() { running } else { std::env::current_exe()? };
        Ok(Self::with_program(program, library, TrialLimits::default()))
    }

    /// As [`Self::new`], by another program that has the subcommand, and within other limits.
    #[must_use]
    pub fn with_program(program: PathBuf, library: PathBuf, limits: TrialLimits) -> Self {
        Self { program, library, limits }
    }

    fn start(&self) -> io::Result<Child> {
        let kept = KEPT_VARIABLES.iter().filter_map(|name| std::env::var_os(name).map(|value| (name, value)));
        Command::new(&self.program)
            .arg(SUBCOMMAND)
            .env_clear()
            .envs(kept)
            .env(TELEMETRY_SWITCH.0, TELEMETRY_SWITCH.1)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            // A group of its own, so that whatever it starts ends with it.
            .process_group(0)
            .spawn()
    }

    /// Hands over the order, waits for the child's end or ends it, and gives what it said.
    fn converse(&self, mut child: Child, order: Vec<u8>, model: Arc<[u8]>) -> io::Result<Ended> {
        let pid = Pid::from_child(&child);
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        // Neither is waited for: whatever a model may have started could hold the other end of a pipe.
        std::thread::spawn(move || {
            let Some(mut pipe) = stdin else { return };
            let length = (order.len() as u64).to_le_bytes();
            // A child that died is noticed below.
            let _ = pipe.write_all(&length).and_then(|()| pipe.write_all(&order)).and_then(|()| pipe.write_all(&model));
        });
        let (say, said) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = Vec::new();
            let _ = stdout.map(|pipe| pipe.take(MESSAGE_BYTES_MAX as u64).read_to_end(&mut line));
            let _ = say.send(line);
        });
        let (ended, waiting) = mpsc::channel::<()>();
        let wall_limit = self.limits.wall;
        let watch = std::thread::spawn(move || {
            let is_late = waiting.recv_timeout(wall_limit) == Err(mpsc::RecvTimeoutError::Timeout);
            if is_late {
                let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            }
            is_late
        });
        // It is not reaped before the watch is over, so that its number cannot be another process's until then.
        let waited = loop {
            match rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other,
            }
        };
        drop(ended);
        let is_late = watch.join().unwrap_or(true);
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        let said = said.recv_timeout(ANSWER_LIMIT).unwrap_or_default();
        waited?;
        Ok(Ended { status: child.wait()?, is_late, said })
    }
}

/// How a child ended.
struct Ended {
    status: ExitStatus,
    is_late: bool,
    said: Vec<u8>,
}

impl Ended {
    fn report(&self, limits: &TrialLimits) -> Result<TrialReport, String> {
        if self.is_late {
            return Err(format!("it was not loaded and run once within {:?}", limits.wall));
        }
        match serde_json::from_slice(&self.said) {
            Ok(Answer::Passed(report)) if self.status.success() => Ok(report),
            Ok(Answer::Failed(reason)) => Err(reason),
            _ => Err(match self.status.signal() {
                Some(signal) if signal == Signal::XCPU.as_raw() => {
                    format!("it took more than {} s of processor time to load and run once", limits.cpu_seconds)
                }
                Some(signal) => format!("ONNX Runtime died of it, with signal {signal}"),
                None => format!("its process ended without an answer: {}", self.status),
            }),
        }
    }
}

impl ModelTrial for ProcessTrial {
    fn try_out(&self, spec: &ModelSpec, options: &SessionOptions) -> Result<TrialReport, InferenceError> {
        let failed = |reason: String| InferenceError::Trial { model: spec.digest, reason };
        // What can be told from the file needs no process.
        model::check(&spec.bytes, Some(spec.shape))
            .map_err(|refusal| InferenceError::Refused { model: spec.digest, refusal })?;
        let order = Order {
            library: self.library.clone(),
            model_bytes: spec.bytes.len(),
            digest: spec.digest,
            input: spec.input.clone(),
            template: spec.template.clone(),
            shape: spec.shape,
            outputs: spec.outputs.clone(),
            provider: options.provider.clone(),
            intra_threads: options.intra_threads,
            optimisation: options.optimisation,
            limits: self.limits,
        };
        let order = serde_json::to_vec(&order).map_err(|error| failed(error.to_string()))?;
        let child = self.start().map_err(|error| failed(format!("its process could not be started: {error}")))?;
        let ended = self.converse(child, order, Arc::clone(&spec.bytes));
        let ended = ended.map_err(|error| failed(format!("its process was lost: {error}")))?;
        ended.report(&self.limits).map_err(failed)
    }
}

/// The child: bounds itself, reads its order and the model, answers. `open` gives the runtime of a library.
///
/// # Errors
/// When the order cannot be read or the answer not be written: whoever started it is gone.
pub fn run_child<R: ModelRuntime>(
    open: impl FnOnce(PathBuf) -> Result<R, InferenceError>,
    input: &mut impl Read,
    output: &mut impl Write,
) -> io::Result<()> {
    bound_process()?;
    let order: Order = serde_json::from_slice(&read_message(input)?)?;
    if order.model_bytes > MODEL_BYTES_MAX {
        return Err(io::Error::other("the model is longer than any that is let in"));
    }
    limit(Resource::Cpu, order.limits.cpu_seconds)?;
    match order.provider {
        Provider::Cpu | Provider::OpenVino { .. } => {
            let for_model = ADDRESS_SPACE_PER_MODEL_BYTE * order.model_bytes as u64;
            limit(Resource::As, order.limits.address_space_bytes.saturating_add(for_model))?;
        }
        // The driver maps all of the machine's and the card's memory, whatever the model takes of it.
        Provider::Cuda { .. } | Provider::TensorRt { .. } => {}
    }
    let mut bytes = vec![0; order.model_bytes];
    input.read_exact(&mut bytes)?;
    let answer = match try_here(open, order, bytes) {
        Ok(report) => Answer::Passed(report),
        Err(reason) => Answer::Failed(reason),
    };
    let mut line = serde_json::to_vec(&answer)?;
    if line.len() >= MESSAGE_BYTES_MAX {
        line = serde_json::to_vec(&Answer::Failed("its reason is too long to be told".into()))?;
    }
    output.write_all(&line)?;
    output.flush()
}

fn try_here<R: ModelRuntime>(
    open: impl FnOnce(PathBuf) -> Result<R, InferenceError>,
    order: Order,
    bytes: Vec<u8>,
) -> Result<TrialReport, String> {
    let options = SessionOptions {
        provider: order.provider,
        intra_threads: order.intra_threads,
        optimisation: order.optimisation,
        // Whoever started this process ends it.
        load_limit: order.limits.wall * 2,
        run_limit: order.limits.wall * 2,
        ..SessionOptions::default()
    };
    let spec = ModelSpec {
        bytes: bytes.into(),
        digest: order.digest,
        input: order.input,
        template: order.template,
        shape: order.shape,
        outputs: order.outputs,
    };
    let runtime = open(order.library).map_err(|error| error.to_string())?;
    let started = Instant::now();
    let mut session = runtime.load(&spec, &options).map_err(|error| error.to_string())?;
    let loaded = Instant::now();
    let mut outputs = Outputs::default();
    let picture = canary::picture(spec.shape);
    let second = spec.template.is_some().then_some(picture.as_slice());
    session.run_pair(&picture, second, spec.shape, &mut outputs).map_err(|error| error.to_string())?;
    let ms = |from: Instant, to: Instant| u64::try_from(to.duration_since(from).as_millis()).unwrap_or(u64::MAX);
    let (load_ms, run_ms) = (ms(started, loaded), ms(loaded, Instant::now()));
    Ok(TrialReport { load_ms, run_ms, canary: canary::answer(&outputs), peak_bytes: peak_bytes() })
}

/// What holds whatever the order says.
fn bound_process() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // If memory runs short all the same, this process goes first. Not every system lets it say so.
        let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    }
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)?;
    limit(Resource::Nofile, OPEN_FILES_MAX)
}

fn limit(resource: Resource, most: u64) -> io::Result<()> {
    // A lower limit that the system has set stays. One second between the two lets the first signal name the limit.
    let now = rustix::process::getrlimit(resource);
    let within = |most: u64| Some(now.maximum.map_or(most, |maximum| maximum.min(most)));
    let hard = if matches!(resource, Resource::Cpu) { most + 1 } else { most };
    Ok(rustix::process::setrlimit(resource, Rlimit { current: within(most), maximum: within(hard) })?)
}

fn read_message(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 8];
    input.read_exact(&mut length)?;
    let length = usize::try_from(u64::from_le_bytes(length)).ok().filter(|length| *length <= MESSAGE_BYTES_MAX);
    let mut message = vec![0; length.ok_or_else(|| io::Error::other("the order is too long"))?];
    input.read_exact(&mut message)?;
    Ok(message)
}

/// Most memory this process has held, as Linux counts it.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

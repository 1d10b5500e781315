//! Running models: one runtime per process, one session per thread and model.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

pub use crate::core::outputs::{Outputs, TensorView};
use crate::{
    core::{lineage::entry::RuntimeRecord, model::ModelRefusal},
    types::Blake3Digest,
};

/// What a session is made from, and what the model is expected to look like.
#[derive(Clone, Debug)]
pub struct ModelSpec {
    pub bytes: Arc<[u8]>,
    /// BLAKE3 of `bytes`, as the recipe pins it.
    pub digest: Blake3Digest,
    /// Name of the frame's input: float32 [N, C, H, W].
    pub input: String,
    /// Name of the second input, of the same shape, which is fed with a golden template; one input without it.
    pub template: Option<String>,
    /// One frame's input shape, N = 1.
    pub shape: [usize; 4],
    /// Names of the float32 outputs that are read.
    pub outputs: Vec<String>,
}

/// An execution provider of ONNX Runtime and the device it runs on. The text, `openvino:CPU`, is what configurations say and
/// decisions record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Provider {
    /// ONNX Runtime's own kernels: `cpu`.
    #[default]
    Cpu,
    /// `cuda:<device>`; without a device the first.
    Cuda { device: u16 },
    /// `tensorrt:<device>`, which builds an engine of each model at load; what TensorRT has no kernel for runs on CUDA.
    TensorRt { device: u16 },
    /// `openvino:<device>`: `CPU`, `GPU`, `GPU.1`, …; without a device the CPU.
    OpenVino { device: String },
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda { device } => write!(f, "cuda:{device}"),
            Self::TensorRt { device } => write!(f, "tensorrt:{device}"),
            Self::OpenVino { device } => write!(f, "openvino:{device}"),
        }
    }
}

impl FromStr for Provider {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, device) = text.split_once(':').map_or((text, None), |(name, device)| (name, Some(device)));
        let number = || match device {
            None => Ok(0),
            Some(device) => device.parse().map_err(|_| format!("{text:?}: the device is a number, as in \"{name}:0\"")),
        };
        match (name, device) {
            ("cpu", None) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda { device: number()? }),
            ("tensorrt", _) => Ok(Self::TensorRt { device: number()? }),
            ("openvino", device) => {
                let device = device.unwrap_or("CPU");
                let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '.';
                if !(1..=16).contains(&device.len()) || !device.chars().all(is_name) {
                    return Err(format!("{text:?}: the device is one of OpenVINO's, as in \"openvino:GPU.0\""));
                }
                Ok(Self::OpenVino { device: device.to_owned() })
            }
            _ => Err(format!("{text:?} is no execution provider; there are cpu, cuda, tensorrt and openvino")),
        }
    }
}

impl TryFrom<String> for Provider {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Provider> for String {
    fn from(provider: Provider) -> Self {
        provider.to_string()
    }
}

/// How sessions run. The provider, the optimisation level and the number of threads can change the last bits of a score, so they
/// stand in every decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// What runs every node of the graph. Nothing else does: a graph with a node it has no kernel for does not load.
    pub provider: Provider,
    /// Threads within one operator, the calling thread included.
    pub intra_threads: usize,
    pub optimisation: Optimisation,
    /// Idle threads burn a core to answer some microseconds earlier. Pays only with one session and cores to spare.
    pub spinning: bool,
    /// A model that takes longer to load is given up: constant folding may run for as long as a file's author likes.
    pub load_limit: Duration,
    /// An inference that takes longer is broken off between two operators.
    pub run_limit: Duration,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            provider: Provider::Cpu,
            intra_threads: 1,
            optimisation: Optimisation::All,
            spinning: false,
            load_limit: Duration::from_secs(60),
            run_limit: Duration::from_secs(30),
        }
    }
}

/// ONNX Runtime's graph optimisation levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimisation {
    None,
    Basic,
    Extended,
    All,
}

impl Optimisation {
    const ALL: [Self; 4] = [Self::None, Self::Basic, Self::Extended, Self::All];

    /// As the lineage record writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Basic => "basic",
            Self::Extended => "extended",
            Self::All => "all",
        }
    }

    /// The level that a lineage record names.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == text)
    }
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum InferenceError {
    #[error("ONNX Runtime was not found; `make onnxruntime` fetches it, or set ORT_DYLIB_PATH. Looked at: {looked_at}")]
    LibraryMissing { looked_at: String },
    #[error(
        "{path} cannot be used as ONNX Runtime: {reason}; `make onnxruntime` fetches the right one, or set ORT_DYLIB_PATH"
    )]
    Library { path: String, reason: String },
    #[error("ONNX Runtime is loaded from {loaded} already; a process uses one, restart it to use {asked}")]
    LibraryChanged { loaded: String, asked: String },
    /// Not in this build of ONNX Runtime, or without its libraries or its device.
    #[error("execution provider {provider} cannot be used here: {reason}; docs/inference.md says what it needs")]
    Provider { provider: Provider, reason: String },
    #[error("the model has digest {found}, the recipe names {expected}")]
    Digest { expected: Blake3Digest, found: Blake3Digest },
    /// By what its file says alone; ONNX Runtime has not seen it.
    #[error("model {model} is not let in: {refusal}")]
    Refused { model: Blake3Digest, refusal: ModelRefusal },
    /// In the process of its own in which a model is loaded and run for the first time.
    #[error("model {model} failed its trial: {reason}")]
    Trial { model: Blake3Digest, reason: String },
    #[error("model {model} does not load: {reason}")]
    Load { model: Blake3Digest, reason: String },
    #[error("model {model} was not loaded within {limit:?}")]
    LoadLimit { model: Blake3Digest, limit: Duration },
    /// The graph is not what the recipe says.
    #[error("model {model}: {reason}")]
    Graph { model: Blake3Digest, reason: String },
    /// It gives no answers any more.
    #[error(
        "the session of model {model} gives no verdict any more: {reason}; look at this machine, then restart the service"
    )]
    Poisoned { model: Blake3Digest, reason: String },
    #[error("an input of shape {shape:?} has {expected} values, not {found}")]
    Input { shape: [usize; 4], expected: usize, found: usize },
    #[error("model {model}: inference failed: {reason}")]
    Run { model: Blake3Digest, reason: String },
    #[error("model {model}: inference was broken off after {limit:?}")]
    RunLimit { model: Blake3Digest, limit: Duration },
}

/// Tries models where they can do no harm.
pub trait ModelTrial: Send + Sync + 'static {
    /// Loads the model and runs it once on the canary in a process of its own, whose memory and time are bounded and which
    /// ends with it. Whatever the model does there, this returns. Blocks.
    ///
    /// # Errors
    /// [`InferenceError::Refused`] and [`InferenceError::Trial`].
    fn try_out(&self, spec: &ModelSpec, options: &SessionOptions) -> Result<TrialReport, InferenceError>;
}

/// What a model took in its trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialReport {
    pub load_ms: u64,
    /// The first run, which is slower than later ones.
    pub run_ms: u64,
    /// What it answered to the canary, [`crate::core::canary::answer`]; every session here must answer the same.
    pub canary: Blake3Digest,
    /// Most memory the process held, ONNX Runtime and the model's bytes counted in; 0 where the system does not say.
    pub peak_bytes: u64,
}

/// Loads models.
pub trait ModelRuntime: Send + Sync + 'static {
    /// A new session. `spec.digest` is checked on the very bytes the session is made from, and so is what
    /// [`crate::core::model::check`] asks, before anything else reads them; input and outputs are checked against the graph. Nothing but `spec.bytes` becomes part of the model.
    ///
    /// # Errors
    /// [`InferenceError`].
    fn load(
        &self,
        spec: &ModelSpec,
        options: &SessionOptions,
    ) -> Result<Box<dyn InferenceSession + Send>, InferenceError>;
}

/// A loaded model, owned by one thread.
pub trait InferenceSession {
    /// Runs the model on `input` of `shape` [N, C, H, W] and replaces `outputs` by the outputs the spec names, in its
    /// order. After an error `outputs` is empty; the session stays usable.
    ///
    /// # Errors
    /// [`InferenceError::Input`], [`InferenceError::Run`], [`InferenceError::RunLimit`].
    fn run(&mut self, input: &[f32], shape: [usize; 4], outputs: &mut Outputs) -> Result<(), InferenceError> {
        self.run_pair(input, None, shape, outputs)
    }

    /// The same with the second input of a model that compares `input` with a `template`, both of `shape`.
    ///
    /// # Errors
    /// As [`Self::run`].
    fn run_pair(
        &mut self,
        input: &[f32],
        template: Option<&[f32]>,
        shape: [usize; 4],
        outputs: &mut Outputs,
    ) -> Result<(), InferenceError>;

    /// What ran the model, with the batch of the latest run.
    fn runtime(&self) -> RuntimeRecord;
}

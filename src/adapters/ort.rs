//! ONNX Runtime behind [`ModelRuntime`]: the only file that knows it.

use std::{
    borrow::Cow,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use ort::{
    environment::Environment,
    ep,
    session::{
        RunOptions, Session, SessionInputValue,
        builder::{GraphOptimizationLevel, SessionBuilder},
    },
    value::{Outlet, TensorElementType, TensorRef, ValueType},
};

use crate::{
    core::{lineage::entry::RuntimeRecord, model},
    ports::inference::{
        InferenceError, InferenceSession, ModelRuntime, ModelSpec, Optimisation, Outputs, Provider, SessionOptions,
    },
    types::Blake3Digest,
};

/// Names the library; wins over configuration and search.
const LIBRARY_VARIABLE: &str = "ORT_DYLIB_PATH";
/// Must say 1 before the library is loaded. The 1.32 wheel for Linux writes a database of events below the user's cache
/// folder and sends it to its maker, also when the binding asks for no telemetry, because that is heard too late.
pub const TELEMETRY_SWITCH: &str = "ORT_DISABLE_TELEMETRY";
/// Where `make onnxruntime` puts the library, below the repository.
const CACHE_FOLDER: &str = ".cache/onnxruntime";
/// Folders above the executable that may hold [`CACHE_FOLDER`]: `target/debug/deps/<test>` lies three below.
const ANCESTORS_MAX: usize = 4;
/// What ONNX Runtime calls the provider of its own kernels.
const CPU_PROVIDER: &str = "CPUExecutionProvider";
/// Where models would find weights outside their file: nowhere, because only the file's bytes are digested.
const NO_FOLDER: &str = "/dev/null/external-weights-are-not-loaded";
/// How often limits are looked at; a limit is overrun by at most this.
const WATCH_EVERY: Duration = Duration::from_millis(100);

/// ONNX Runtime, loaded once per process and never unloaded: unloading crashed older releases at exit.
#[derive(Clone)]
pub struct OrtRuntime {
    environment: Environment,
    library: PathBuf,
    version: String,
    watchdog: Arc<Watchdog>,
}

static LOADED: Mutex<Option<OrtRuntime>> = Mutex::new(None);

impl OrtRuntime {
    /// Loads the library that `ORT_DYLIB_PATH` names, else the configured one, else the one beside the executable,
    /// else the one that `make onnxruntime` fetched. A second call gives the same runtime.
    ///
    /// # Errors
    /// [`InferenceError::LibraryMissing`], [`InferenceError::Library`], [`InferenceError::LibraryChanged`].
    pub fn load(configured: Option<&Path>) -> Result<Self, InferenceError> {
        Self::load_from(find_library(configured)?)
    }

    /// Loads exactly this library.
    ///
    /// # Errors
    /// [`InferenceError::Library`], [`InferenceError::LibraryChanged`].
    pub fn load_from(library: PathBuf) -> Result<Self, InferenceError> {
        let mut loaded = lock(&LOADED);
        if let Some(runtime) = &*loaded {
            if runtime.library == library {
                return Ok(runtime.clone());
            }
            return Err(InferenceError::LibraryChanged {
                loaded: runtime.library.display().to_string(),
                asked: library.display().to_string(),
            });
        }
        let runtime = Self::start(library)?;
        tracing::info!(version = runtime.version, library = %runtime.library.display(), "ONNX Runtime loaded");
        Ok(loaded.insert(runtime).clone())
    }

    fn start(library: PathBuf) -> Result<Self, InferenceError> {
        let refused = |reason: String| InferenceError::Library { path: library.display().to_string(), reason };
        if std::env::var_os(TELEMETRY_SWITCH).is_none_or(|value| value != "1") {
            return Err(refused(format!("it would report to its maker; start this process with {TELEMETRY_SWITCH}=1")));
        }
        let environment = ort::init_from(&library)
            .map_err(|error| refused(error.to_string()))?
            .with_name("lineproof")
            .with_telemetry(false)
            .build()
            .map_err(|error| refused(error.to_string()))?;
        // The binding asks for everything; what is below a warning is not for operators.
        environment.set_log_level(ort::logging::LogLevel::Warning);
        let version = library_version(&library).map_err(|error| refused(error.to_string()))?;
        Ok(Self { environment, version, watchdog: Watchdog::start(), library })
    }

    /// The library in use.
    #[must_use]
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// ONNX Runtime's version.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Makes a session of bytes that were checked.
    fn session(&self, spec: &ModelSpec, options: &SessionOptions) -> Result<Session, InferenceError> {
        let failed =
            |error: &dyn std::fmt::Display| InferenceError::Load { model: spec.digest, reason: error.to_string() };
        let builder = self.builder(options).map_err(|error| failed(&error))?;
        let mut builder = self.with_provider(builder, options).map_err(|error| InferenceError::Provider {
            provider: options.provider.clone(),
            reason: error.to_string().trim_end_matches([' ', '.']).to_owned(),
        })?;
        let canceler = builder.canceler();
        let watched = self.watchdog.watch(move || drop(canceler.cancel()));
        watched.begin(options.load_limit);
        let session = builder.commit_from_memory(&spec.bytes);
        if watched.end() {
            return Err(InferenceError::LoadLimit { model: spec.digest, limit: options.load_limit });
        }
        session.map_err(|error| failed(&error))
    }

    fn builder(&self, options: &SessionOptions) -> ort::Result<SessionBuilder> {
        let level = match options.optimisation {
            Optimisation::None => GraphOptimizationLevel::Disable,
            Optimisation::Basic => GraphOptimizationLevel::Level1,
            Optimisation::Extended => GraphOptimizationLevel::Level2,
            Optimisation::All => GraphOptimizationLevel::All,
        };
        Ok(Session::builder(&self.environment)?
            .with_no_environment_execution_providers()?
            .with_log_level(ort::logging::LogLevel::Warning)?
            .with_intra_threads(options.intra_threads.max(1))?
            .with_inter_threads(1)?
            .with_parallel_execution(false)?
            .with_optimization_level(level)?
            .with_intra_op_spinning(options.spinning)?
            .with_inter_op_spinning(false)?
            .with_config_entry("session.load_model_format", "ONNX")?
            .with_config_entry("session.model_external_initializers_file_folder_path", NO_FOLDER)?)
    }

    /// Binds a session to one provider, by name and not by choice: what the record calls it is then what ran. Any other than the CPU's
    /// must take every node, else the session does not load. Reduced precision is switched off where it would be the default.
    fn with_provider(&self, builder: SessionBuilder, options: &SessionOptions) -> ort::Result<SessionBuilder> {
        let cuda = |device: u16| {
            let cuda = ep::CUDA::default().with_device_id(i32::from(device)).with_tf32(false);
            // The algorithm that is fastest in a trial may be another one next time.
            cuda.with_conv_algorithm_search(ep::cuda::ConvAlgorithmSearch::Default).build().error_on_failure()
        };
        let providers = match &options.provider {
            Provider::Cpu => {
                let devices =
                    self.environment.devices().filter(|device| device.ep().is_ok_and(|ep| ep == CPU_PROVIDER));
                return Ok(builder.with_devices(devices, None)?);
            }
            Provider::Cuda { device } => vec![cuda(*device)],
            Provider::TensorRt { device } => {
                let tensorrt = ep::TensorRT::default().with_device_id(i32::from(*device)).with_fp16(false);
                vec![tensorrt.build().error_on_failure(), cuda(*device)]
            }
            Provider::OpenVino { device } => {
                let openvino = ep::OpenVINO::default().with_device_type(device).with_precision("FP32");
                let openvino = openvino.with_num_threads(options.intra_threads.max(1)).with_num_streams(1);
                vec![openvino.build().error_on_failure()]
            }
        };
        Ok(builder.with_execution_providers(providers)?.with_config_entry("session.disable_cpu_ep_fallback", "1")?)
    }
}

impl ModelRuntime for OrtRuntime {
    fn load(
        &self,
        spec: &ModelSpec,
        options: &SessionOptions,
    ) -> Result<Box<dyn InferenceSession + Send>, InferenceError> {
        let found = Blake3Digest::of(&spec.bytes);
        if found != spec.digest {
            return Err(InferenceError::Digest { expected: spec.digest, found });
        }
        model::check(&spec.bytes, Some(spec.shape))
            .map_err(|refusal| InferenceError::Refused { model: spec.digest, refusal })?;
        self.open(spec, options)
    }
}

impl OrtRuntime {
    /// A session of a model that was let in.
    fn open(
        &self,
        spec: &ModelSpec,
        options: &SessionOptions,
    ) -> Result<Box<dyn InferenceSession + Send>, InferenceError> {
        // The binding panics on graphs with types it does not know; a model must not end the process.
        let session =
            std::panic::catch_unwind(AssertUnwindSafe(|| self.session(spec, options))).unwrap_or_else(|_| {
                Err(InferenceError::Load { model: spec.digest, reason: "the binding failed on its graph".into() })
            })?;
        check_graph(spec, &session)?;
        let run_options = RunOptions::new()
            .map_err(|error| InferenceError::Load { model: spec.digest, reason: error.to_string() })?;
        let run_options = Arc::new(run_options);
        let stop = Arc::clone(&run_options);
        Ok(Box::new(OrtSession {
            session,
            run_options,
            watched: self.watchdog.watch(move || drop(stop.terminate())),
            model: spec.digest,
            inputs: inputs(spec),
            outputs: spec.outputs.clone(),
            run_limit: options.run_limit,
            record: RuntimeRecord {
                batch: 1,
                cpu: cpu_features(),
                optimisation: options.optimisation.as_str().to_owned(),
                provider: options.provider.to_string(),
                threads: u32::try_from(options.intra_threads.max(1)).unwrap_or(u32::MAX),
                version: self.version.clone(),
            },
        }))
    }
}

/// ONNX Runtime, loaded with its first session.
#[derive(Clone, Debug)]
pub struct OrtOnDemand {
    configured: Option<PathBuf>,
}

impl OrtOnDemand {
    /// `configured` as for [`OrtRuntime::load`].
    #[must_use]
    pub fn new(configured: Option<PathBuf>) -> Self {
        Self { configured }
    }
}

impl ModelRuntime for OrtOnDemand {
    fn load(
        &self,
        spec: &ModelSpec,
        options: &SessionOptions,
    ) -> Result<Box<dyn InferenceSession + Send>, InferenceError> {
        OrtRuntime::load(self.configured.as_deref())?.load(spec, options)
    }
}

struct OrtSession {
    session: Session,
    run_options: Arc<RunOptions>,
    watched: Arc<Watched>,
    model: Blake3Digest,
    inputs: Vec<String>,
    outputs: Vec<String>,
    run_limit: Duration,
    record: RuntimeRecord,
}

impl InferenceSession for OrtSession {
    fn run_pair(
        &mut self,
        input: &[f32],
        template: Option<&[f32]>,
        shape: [usize; 4],
        outputs: &mut Outputs,
    ) -> Result<(), InferenceError> {
        outputs.clear();
        let expected = shape.iter().try_fold(1_usize, |product, dim| product.checked_mul(*dim)).unwrap_or(usize::MAX);
        for values in [Some(input), template].into_iter().flatten() {
            if values.len() != expected {
                return Err(InferenceError::Input { shape, expected, found: values.len() });
            }
        }
        self.record.batch = u32::try_from(shape[0]).unwrap_or(u32::MAX);

        self.watched.begin(self.run_limit);
        // The tensors borrow the values; nothing is copied on the way in. A missing input is the library's error.
        let values = [Some(input), template].into_iter().flatten();
        let named = self.inputs.iter().zip(values).map(|(name, values)| {
            let tensor = TensorRef::from_array_view((shape, values))?;
            Ok((Cow::from(name.as_str()), SessionInputValue::from(tensor)))
        });
        let result = named
            .collect::<ort::Result<Vec<_>>>()
            .and_then(|named| self.session.run_with_options(named, &self.run_options));
        if self.watched.end() {
            drop(result);
            let cleared = self.run_options.unterminate();
            debug_assert!(cleared.is_ok(), "clearing a flag of valid options cannot fail");
            return Err(InferenceError::RunLimit { model: self.model, limit: self.run_limit });
        }
        let failed = |reason: String| InferenceError::Run { model: self.model, reason };
        let values = result.map_err(|error| failed(error.to_string()))?;
        for name in &self.outputs {
            let read = values.get(name).ok_or_else(|| "is missing".to_owned());
            let read = read.and_then(|value| value.try_extract_tensor::<f32>().map_err(|error| error.to_string()));
            match read {
                Ok((shape, data)) => {
                    outputs.push(name, shape.iter().map(|dim| usize::try_from(*dim).unwrap_or(0)), data)
                }
                Err(reason) => {
                    outputs.clear();
                    return Err(failed(format!("output {name} {reason}")));
                }
            }
        }
        Ok(())
    }

    fn runtime(&self) -> RuntimeRecord {
        self.record.clone()
    }
}

/// The inputs that are fed, in this order.
fn inputs(spec: &ModelSpec) -> Vec<String> {
    std::iter::once(spec.input.clone()).chain(spec.template.clone()).collect()
}

/// Holds the loaded graph against what the recipe says of it.
fn check_graph(spec: &ModelSpec, session: &Session) -> Result<(), InferenceError> {
    let wrong = |reason: String| InferenceError::Graph { model: spec.digest, reason };
    let names =
        |outlets: &[Outlet]| outlets.iter().map(|outlet| outlet.name().to_owned()).collect::<Vec<_>>().join(", ");
    let (fed, taken) = (inputs(spec), session.inputs().len());
    if fed.len() != taken {
        let fed = if fed.len() == 1 { "one image tensor is" } else { "frame and template are" };
        return Err(wrong(format!("{fed} fed, the graph takes {taken}: {}", names(session.inputs()))));
    }
    for name in &fed {
        let Some(input) = session.inputs().iter().find(|input| input.name() == name) else {
            let (whose, inputs) = (if taken == 1 { "its input is" } else { "its inputs are" }, names(session.inputs()));
            return Err(wrong(format!("the graph has no input {name:?}; {whose} {inputs:?}")));
        };
        let dims = float_dims(input).map_err(|kind| wrong(format!("input {name} is {kind}, not float32")))?;
        // A dimension of -1 is open.
        let fits = dims.len() == spec.shape.len()
            && dims.iter().zip(spec.shape).all(|(graph, recipe)| *graph == -1 || usize::try_from(*graph) == Ok(recipe));
        if !fits {
            return Err(wrong(format!("input {name} has shape {dims:?} in the graph, {:?} in the recipe", spec.shape)));
        }
    }
    for name in &spec.outputs {
        let output = session.outputs().iter().find(|output| output.name() == name).ok_or_else(|| {
            wrong(format!("the graph has no output {name:?}; its outputs are {}", names(session.outputs())))
        })?;
        float_dims(output).map_err(|kind| wrong(format!("output {name} is {kind}, not float32")))?;
    }
    Ok(())
}

/// The dimensions of a float32 tensor, or what it is instead.
fn float_dims(outlet: &Outlet) -> Result<&[i64], String> {
    match outlet.dtype() {
        ValueType::Tensor { ty: TensorElementType::Float32, shape, .. } => Ok(shape),
        ValueType::Tensor { ty, .. } => Err(ty.to_string()),
        other => Err(other.to_string()),
    }
}

/// Where the library lies that [`OrtRuntime::load`] would load.
///
/// # Errors
/// [`InferenceError::LibraryMissing`], [`InferenceError::Library`].
pub fn find_library(configured: Option<&Path>) -> Result<PathBuf, InferenceError> {
    let named = std::env::var_os(LIBRARY_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    locate_named(named.as_deref().or(configured))
}

fn locate_named(named: Option<&Path>) -> Result<PathBuf, InferenceError> {
    if let Some(path) = named {
        let refused = |error: std::io::Error| InferenceError::Library {
            path: path.display().to_string(),
            reason: error.to_string(),
        };
        return path.canonicalize().map_err(refused);
    }
    // The working directory is not searched: whoever can write there would choose the code that runs.
    let executable = std::env::current_exe().and_then(|path| path.canonicalize()).unwrap_or_default();
    let beside = executable.parent().into_iter().map(Path::to_owned);
    let fetched = executable.ancestors().skip(1).take(ANCESTORS_MAX).map(|folder| folder.join(CACHE_FOLDER));
    let folders: Vec<PathBuf> = beside.chain(fetched).collect();
    folders.iter().find_map(|folder| library_in(folder)).ok_or_else(|| InferenceError::LibraryMissing {
        looked_at: folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", "),
    })
}

/// The library in `folder`, the last by name if there are several versions.
fn library_in(folder: &Path) -> Option<PathBuf> {
    let is_library = |name: &str| {
        name == "libonnxruntime.so" || name.starts_with("libonnxruntime.so.") || name == "libonnxruntime.dylib"
    };
    let entries = std::fs::read_dir(folder).ok()?;
    entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.is_file() && path.file_name().and_then(|name| name.to_str()).is_some_and(is_library))
        .max()
}

/// Asks the library for its version, which the binding does not pass on.
fn library_version(library: &Path) -> Result<String, libloading::Error> {
    type GetApiBase = unsafe extern "system" fn() -> *const ort::sys::OrtApiBase;
    // SAFETY: the binding has loaded this library already, so no initialiser runs here, and has called this function
    // with this signature, which is the library's first entry point since version 1.0. It returns a static.
    unsafe {
        let library = libloading::Library::new(library)?;
        let base = library.get::<GetApiBase>(b"OrtGetApiBase")?();
        let version = std::ffi::CStr::from_ptr(((*base).GetVersionString)());
        Ok(version.to_string_lossy().into_owned())
    }
}

/// The CPU features that choose among ONNX Runtime's kernels, sorted.
fn cpu_features() -> String {
    let mut found: Vec<&str> = Vec::new();
    macro_rules! note {
        ($detected:ident: $($feature:tt),+) => { $(if std::arch::$detected!($feature) { found.push($feature); })+ };
    }
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! all {
            ($($feature:tt),+) => { true $(&& std::arch::is_x86_feature_detected!($feature))+ };
        }
        let v2 = all!("cmpxchg16b", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3");
        let v3 = v2 && all!("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe");
        let v4 = v3 && all!("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl");
        found.push(match (v2, v3, v4) {
            (.., true) => "x86-64-v4",
            (_, true, _) => "x86-64-v3",
            (true, ..) => "x86-64-v2",
            _ => "x86-64",
        });
        note!(is_x86_feature_detected: "avx512bf16", "avx512fp16", "avx512vnni", "avxvnni");
    }
    #[cfg(target_arch = "aarch64")]
    note!(is_aarch64_feature_detected: "bf16", "dotprod", "fp16", "i8mm", "neon", "sve");
    found.join(",")
}

/// Breaks off what runs past its limit.
struct Watchdog {
    watched: Mutex<Vec<Weak<Watched>>>,
    added: Condvar,
}

/// One thing that may run too long.
struct Watched {
    state: Mutex<State>,
    stop: Box<dyn Fn() + Send + Sync>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Idle,
    Until(Instant),
    Stopped,
}

impl Watchdog {
    fn start() -> Arc<Self> {
        let watchdog = Arc::new(Self { watched: Mutex::default(), added: Condvar::new() });
        let shared = Arc::clone(&watchdog);
        std::thread::Builder::new()
            .name("model-limits".into())
            .spawn(move || shared.run())
            .expect("the operating system starts a thread");
        watchdog
    }

    fn watch(&self, stop: impl Fn() + Send + Sync + 'static) -> Arc<Watched> {
        let watched = Arc::new(Watched { state: Mutex::new(State::Idle), stop: Box::new(stop) });
        lock(&self.watched).push(Arc::downgrade(&watched));
        self.added.notify_one();
        watched
    }

    fn run(&self) {
        let mut watched = lock(&self.watched);
        loop {
            let now = Instant::now();
            watched.retain(|one| match one.upgrade() {
                Some(one) => {
                    one.stop_if_late(now);
                    true
                }
                None => false,
            });
            watched = if watched.is_empty() {
                self.added.wait(watched).unwrap_or_else(PoisonError::into_inner)
            } else {
                self.added.wait_timeout(watched, WATCH_EVERY).unwrap_or_else(PoisonError::into_inner).0
            };
        }
    }
}

impl Watched {
    fn begin(&self, limit: Duration) {
        *lock(&self.state) = State::Until(Instant::now() + limit);
    }

    /// Whether it was stopped.
    fn end(&self) -> bool {
        std::mem::replace(&mut *lock(&self.state), State::Idle) == State::Stopped
    }

    fn stop_if_late(&self, now: Instant) {
        // The lock is held over the call, so that it cannot hit the next run.
        let mut state = lock(&self.state);
        if matches!(*state, State::Until(limit) if limit <= now) {
            *state = State::Stopped;
            (self.stop)();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;

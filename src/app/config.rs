//! `lineproof.toml`: what the operator decides. Unknown keys are refused; errors name the line and the key.

pub mod access;
pub mod oidc;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    adapters::log,
    core::{export::keys::VerifierKey, lineage::part::VIEWS_MAX, model_signature::SIGNERS_MAX},
    ports::{archive::RetentionClass, inference::Provider},
    services::inspect::BATCH_FRAMES_MAX,
    types::{CameraId, LineId, ProductId, RecipeRef, Role, StationId, Verdict, ViewName},
};

/// The file's name in a data directory.
pub const FILE_NAME: &str = "lineproof.toml";
/// Longest configuration file in bytes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Retention classes of one plant.
const RETENTION_CLASSES_MAX: usize = 64;
/// Witnesses of one plant; a signed note takes 64 signatures, and every verifier at least 16.
const WITNESSES_MAX: usize = 15;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{path}: {reason}; `lineproof init {dir}` makes a data directory with a commented {FILE_NAME}", dir = path.parent().unwrap_or(Path::new(".")).display(), path = path.display())]
    Read { path: PathBuf, reason: std::io::Error },
    #[error(transparent)]
    Format(log::OpenError),
    #[error("{path} has {bytes} bytes; a configuration has at most {CONFIG_BYTES_MAX}", path = path.display())]
    TooLong { path: PathBuf, bytes: u64 },
    /// The reason shows the line and points at the key.
    #[error("{path}: {reason}", path = path.display())]
    Parse { path: PathBuf, reason: Box<toml::de::Error> },
    #[error("{path}: {key}: {reason}", path = path.display())]
    Value { path: PathBuf, key: String, reason: String },
}

/// The whole configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub plant: Plant,
    #[serde(default)]
    pub listen: Listen,
    #[serde(default)]
    pub office: Office,
    #[serde(default)]
    pub access: Access,
    #[serde(default)]
    pub inspect: Inspect,
    #[serde(default)]
    pub inference: Inference,
    #[serde(default)]
    pub open_inference: OpenInference,
    #[serde(default)]
    pub archive: Archive,
    #[serde(default)]
    pub log: Log,
    #[serde(default)]
    pub models: Models,
    #[serde(default)]
    pub retention: Retention,
    #[serde(default)]
    pub replay: Replay,
    #[serde(default)]
    pub witnesses: Witnesses,
    #[serde(default, rename = "witness")]
    pub witness: Vec<Witness>,
    #[serde(default)]
    pub backup: Backup,
    #[serde(default, rename = "station")]
    pub stations: Vec<Station>,
    #[serde(default, rename = "product")]
    pub products: Vec<Product>,
    #[serde(default, rename = "part")]
    pub parts: Vec<PartConfig>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plant {
    /// Shown in reports.
    pub name: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    pub address: SocketAddr,
    pub connections_max: usize,
    pub connections_per_address_max: usize,
    pub tls: Option<Tls>,
}

impl Listen {
    #[must_use]
    pub fn connections(&self) -> Connections {
        let Self { connections_max, connections_per_address_max, .. } = *self;
        Connections { connections_max, connections_per_address_max }
    }
}

impl Default for Listen {
    fn default() -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 7443));
        Self { address, connections_max: 1024, connections_per_address_max: 256, tls: None }
    }
}

/// Where the office asks: history and audit, never images. Another port than the line's, and perhaps another network.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Office {
    /// Unset: only commands on this machine, through the operator's socket.
    pub address: Option<SocketAddr>,
    pub connections_max: usize,
    pub connections_per_address_max: usize,
    pub tls: Option<Tls>,
}

impl Default for Office {
    fn default() -> Self {
        Self { address: None, connections_max: 256, connections_per_address_max: 64, tls: None }
    }
}

impl Office {
    #[must_use]
    pub fn connections(&self) -> Connections {
        let Self { connections_max, connections_per_address_max, .. } = *self;
        Connections { connections_max, connections_per_address_max }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// PEM files, relative to the data directory.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Set: clients must show a certificate of this authority.
    pub client_ca: Option<PathBuf>,
    /// Revocation lists of that authority: whose certificates stand there are let in no more.
    pub crl: Option<PathBuf>,
}

/// How many connections a listener takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// In all.
    pub connections_max: usize,
    /// From one network address.
    pub connections_per_address_max: usize,
}

/// What somebody may do beyond what their certificate says, and what an auditor may see; docs/access.md.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Access {
    /// The plant's identity provider, whose access tokens name people at the office; docs/oidc.md.
    pub oidc: Option<oidc::OidcConfig>,
    #[serde(rename = "grant")]
    pub grants: Vec<GrantConfig>,
}

/// One grant.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantConfig {
    /// A name as the log has it: `spiffe://plant.example/person/eva`.
    pub name: String,
    #[serde(default)]
    pub roles: Vec<Role>,
    /// `LINE/STATION`: whose frames a service may send.
    #[serde(default)]
    pub stations: Vec<String>,
    /// What an auditor may see: the products of these customers, and these products.
    #[serde(default)]
    pub customers: Vec<String>,
    #[serde(default)]
    pub products: Vec<ProductId>,
    /// Days in UTC, `2026-01-31`; `to` is the last one.
    pub from: Option<String>,
    pub to: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Inspect {
    /// Worker threads, each with its own session of every recipe; 0: one per core.
    pub workers: usize,
    /// Threads one session uses within an operator.
    pub threads_per_worker: usize,
    /// Frames that may wait per line; more are refused with a retry hint.
    pub queue_frames_per_line: usize,
    /// Frames of one stream that may be under way.
    pub stream_frames_max: usize,
    /// Longest frame in bytes, and with it the longest message.
    pub frame_bytes_max: usize,
    /// How long an answer is of use when the client does not say.
    pub useful_for_ms: u64,
}

impl Default for Inspect {
    fn default() -> Self {
        Self {
            workers: 0,
            threads_per_worker: 1,
            queue_frames_per_line: 64,
            stream_frames_max: 32,
            frame_bytes_max: 32 << 20,
            useful_for_ms: 10_000,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Archive {
    /// Keep the image of every NOT_OK part.
    pub not_ok: bool,
    /// Keep the image of every NOT_DECIDABLE part.
    pub not_decidable: bool,
    /// Share of OK parts whose image is kept, 0 to 1, chosen by the image's digest.
    pub ok_share: f64,
}

impl Default for Archive {
    fn default() -> Self {
        Self { not_ok: true, not_decidable: true, ok_share: 0.1 }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Where the anchor lies; another volume than the data is best. Relative to the data directory.
    pub anchor: PathBuf,
    /// No verdicts while the disk has fewer bytes free.
    pub disk_reserve_bytes: u64,
}

impl Default for Log {
    fn default() -> Self {
        Self { anchor: PathBuf::from("anchor"), disk_reserve_bytes: 256 << 20 }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Models {
    /// Folders of recipes and calibrations, relative to the data directory.
    pub recipes: PathBuf,
    pub calibrations: PathBuf,
    /// ONNX Runtime's library; unset: `ORT_DYLIB_PATH`, then beside the executable, then `.cache/onnxruntime`.
    pub onnxruntime: Option<PathBuf>,
    /// Public keys in PEM, of which one must have signed a recipe folder; none: no signature is asked for.
    pub signers: Vec<PathBuf>,
}

impl Default for Models {
    fn default() -> Self {
        let (recipes, calibrations) = (PathBuf::from("models"), PathBuf::from("calibration"));
        Self { recipes, calibrations, onnxruntime: None, signers: Vec::new() }
    }
}

/// What runs models.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Inference {
    /// Execution providers of ONNX Runtime: `cpu`, `cuda:0`, `tensorrt:0`, `openvino:CPU`. The first runs every model.
    pub providers: Vec<Provider>,
    /// Whether the next one takes the place of one that does not run a model.
    pub fall_back: bool,
    /// Sessions of each recipe that the workers share; 0: every worker has its own.
    pub sessions: usize,
    /// Frames that a shared session runs together at most, where that pays on this machine.
    pub batch_frames_max: usize,
    /// Longest time one batch may take: how long a frame waits for others at most.
    pub batch_budget_ms: u64,
}

impl Default for Inference {
    fn default() -> Self {
        Self { providers: vec![Provider::Cpu], fall_back: false, sessions: 0, batch_frames_max: 8, batch_budget_ms: 50 }
    }
}

/// Where frames come from that clients of the Open Inference Protocol send, if they do not say it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OpenInference {
    /// Whether the protocol is served at all.
    pub served: bool,
    pub line: Option<LineId>,
    pub station: Option<StationId>,
    pub camera: Option<CameraId>,
    pub product: Option<ProductId>,
}

impl Default for OpenInference {
    fn default() -> Self {
        Self { served: true, line: None, station: None, camera: None, product: None }
    }
}

/// Recorded frames that the service decides again by itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Replay {
    /// Decisions of the last day, drawn from those whose images were kept; 0: only `lineproof replay` does.
    pub nightly_sample: u32,
    /// When, `HH:MM` in UTC.
    pub at: String,
}

impl Default for Replay {
    fn default() -> Self {
        Self { nightly_sample: 0, at: "02:00".into() }
    }
}

impl Replay {
    /// Minutes into the UTC day; a parsed configuration has a time.
    #[must_use]
    pub fn at_minute(&self) -> u32 {
        minute_of_day(&self.at).unwrap_or_default()
    }
}

/// `02:30` is 150.
fn minute_of_day(text: &str) -> Option<u32> {
    let (hour, minute) = text.split_once(':')?;
    let number = |digits: &str, end: u32| {
        let digits = Some(digits).filter(|digits| digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit()))?;
        digits.parse::<u32>().ok().filter(|number| *number < end)
    };
    Some(number(hour, 24)? * 60 + number(minute, 60)?)
}

/// How long what is kept beside the log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// How often the service deletes what is over; 0: only `lineproof retention run` does.
    pub every_h: u32,
    /// The first class that takes a decision is its class.
    #[serde(rename = "class")]
    pub classes: Vec<RetentionClassConfig>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { every_h: 24, classes: Vec::new() }
    }
}

/// A retention class. Periods are full days after the day of the decision; without one it is kept for ever.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetentionClassConfig {
    /// Names the folder of its images and stands in entries.
    #[serde(deserialize_with = "retention_class")]
    pub name: RetentionClass,
    #[serde(default)]
    pub verdicts: Vec<Verdict>,
    #[serde(default)]
    pub products: Vec<ProductId>,
    pub images_days: Option<u32>,
    pub private_days: Option<u32>,
    /// Rule or legal basis, for the log.
    #[serde(default)]
    pub basis: String,
}

fn retention_class<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<RetentionClass, D::Error> {
    RetentionClass::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// What evidence needs of the witnesses together.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Witnesses {
    /// A c2sp.org/tlog-policy file; unset: every configured witness must cosign. Relative to the data directory.
    pub policy: Option<PathBuf>,
    /// How long one witness may take for one answer.
    pub timeout_ms: u64,
}

impl Default for Witnesses {
    fn default() -> Self {
        Self { policy: None, timeout_ms: 5000 }
    }
}

/// Somebody who vouches for this log.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// The operator's name for it, in logs and commands.
    pub name: String,
    /// Its key, as `lineproof witness init` prints it.
    #[serde(deserialize_with = "witness_key")]
    pub vkey: VerifierKey,
    /// Its submission prefix; unset: it is reached by files.
    pub url: Option<String>,
    pub tls: Option<WitnessTls>,
}

/// How the witness is known, and how the plant shows itself. PEM files, relative to the data directory.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WitnessTls {
    /// The authority that signed the witness's certificate.
    pub ca: PathBuf,
    /// This plant's certificate and key, for witnesses that ask for one.
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

fn witness_key<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<VerifierKey, D::Error> {
    let text = String::deserialize(deserializer)?;
    let key = VerifierKey::parse(text.trim()).map_err(serde::de::Error::custom)?;
    if key.is_log() { Err(serde::de::Error::custom("this is a log's key, not a witness's")) } else { Ok(key) }
}

/// Where `lineproof backup` puts backups, and whom they are encrypted to; docs/backup.md.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Backup {
    /// A folder, relative to the data directory, which it must not lie in; or `s3://BUCKET/PREFIX`.
    pub to: Option<String>,
    /// age public keys.
    pub recipients: Vec<String>,
    /// Backups to keep; unset: all.
    pub keep: Option<u32>,
}

/// A station that may send frames.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Station {
    pub line: LineId,
    pub station: StationId,
    pub cameras: Vec<CameraId>,
}

/// A product and the recipe that inspects it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Product {
    pub product: ProductId,
    /// Whom it is made for: auditors are granted a customer's products.
    pub customer: Option<String>,
    pub recipe: RecipeRef,
}

/// A product that several cameras see, whose views are joined to one verdict on the part.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartConfig {
    pub product: ProductId,
    /// How long after its first view a part's last one may be decided.
    pub wait_ms: u64,
    #[serde(rename = "view")]
    pub views: Vec<ViewConfig>,
}

/// One of the views of a part.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ViewConfig {
    pub name: ViewName,
    pub line: LineId,
    pub station: StationId,
    pub camera: CameraId,
}

impl Config {
    /// Reads `<data_dir>/lineproof.toml` and resolves its paths against the data directory.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(data_dir: &Path) -> Result<Self, ConfigError> {
        // First, and before keys and index are touched: a newer release may have other keys and other files.
        log::check_format(data_dir).map_err(ConfigError::Format)?;
        let path = data_dir.join(FILE_NAME);
        let read = |reason| ConfigError::Read { path: path.clone(), reason };
        let bytes = std::fs::metadata(&path).map_err(read)?.len();
        if bytes > CONFIG_BYTES_MAX {
            return Err(ConfigError::TooLong { path, bytes });
        }
        let text = std::fs::read_to_string(&path).map_err(read)?;
        let mut config = Self::parse(&path, &text)?;
        config.resolve_paths(data_dir);
        Ok(config)
    }

    /// Parses and checks; `path` is only named in errors.
    ///
    /// # Errors
    /// [`ConfigError::Parse`] and [`ConfigError::Value`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|error| ConfigError::Parse { path: path.to_owned(), reason: Box::new(error) })?;
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let require = |holds: bool, key: &str, reason: &str| {
            if holds {
                return Ok(());
            }
            Err(ConfigError::Value { path: path.to_owned(), key: key.to_owned(), reason: reason.to_owned() })
        };
        let knows_clients = |tls: &Option<Tls>| tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        require(
            self.listen.address.ip().is_loopback() || knows_clients(&self.listen.tls),
            "listen.address",
            "only loopback addresses may be used without [listen.tls] and its client_ca: nobody would know whose frames come; docs/access.md",
        )?;
        let office = &self.office;
        let has_names = knows_clients(&office.tls) || office.tls.is_some() && self.access.oidc.is_some();
        require(
            office.address.is_none_or(|address| address.ip().is_loopback()) || has_names,
            "office.address",
            "only loopback addresses may be used without [office.tls] and its client_ca, or [access.oidc]: nobody would know who asks; docs/access.md",
        )?;
        for (key, tls) in [("listen.tls.crl", &self.listen.tls), ("office.tls.crl", &office.tls)] {
            let is_whole = tls.as_ref().is_none_or(|tls| tls.crl.is_none() || tls.client_ca.is_some());
            require(is_whole, key, "a revocation list belongs to a client_ca")?;
        }
        for (key, connections) in [("listen", self.listen.connections()), ("office", office.connections())] {
            let Connections { connections_max, connections_per_address_max } = connections;
            require((1..=65_536).contains(&connections_max), &format!("{key}.connections_max"), "1 to 65536")?;
            let key = format!("{key}.connections_per_address_max");
            require((1..=connections_max).contains(&connections_per_address_max), &key, "1 to connections_max")?;
        }
        if let Some(oidc) = &self.access.oidc {
            oidc.check().or_else(|(key, reason)| require(false, &format!("access.oidc.{key}"), &reason))?;
        }
        access::grants(self).map(drop).or_else(|reason| require(false, "access.grant", &reason))?;
        require(
            office.address.is_none_or(|address| address.port() == 0 || address != self.listen.address),
            "office.address",
            "line and office never share a port",
        )?;
        let inspect = &self.inspect;
        require(inspect.workers <= 256, "inspect.workers", "at most 256")?;
        require((1..=256).contains(&inspect.threads_per_worker), "inspect.threads_per_worker", "1 to 256")?;
        require((1..=65_536).contains(&inspect.queue_frames_per_line), "inspect.queue_frames_per_line", "1 to 65536")?;
        require((1..=4096).contains(&inspect.stream_frames_max), "inspect.stream_frames_max", "1 to 4096")?;
        require((1024..=1 << 30).contains(&inspect.frame_bytes_max), "inspect.frame_bytes_max", "1024 bytes to 1 GiB")?;
        require((1..=3_600_000).contains(&inspect.useful_for_ms), "inspect.useful_for_ms", "1 ms to one hour")?;
        let inference = &self.inference;
        let providers = inference.providers.len();
        require((1..=4).contains(&providers), "inference.providers", "one to four, such as [\"cpu\"]")?;
        require(
            providers == 1 || inference.fall_back,
            "inference.providers",
            "more than one says what to fall back to, which needs fall_back = true",
        )?;
        require(inference.sessions <= 64, "inference.sessions", "at most 64, or 0 for one per worker")?;
        let frames = inference.batch_frames_max;
        require((1..=BATCH_FRAMES_MAX).contains(&frames), "inference.batch_frames_max", "1 to 64 frames")?;
        require((1..=10_000).contains(&inference.batch_budget_ms), "inference.batch_budget_ms", "1 ms to 10 s")?;
        require(self.models.signers.len() <= SIGNERS_MAX, "models.signers", "at most 16 keys")?;
        let open = &self.open_inference;
        let named = [open.line.is_some(), open.station.is_some(), open.camera.is_some()];
        require(named == [named[0]; 3], "open_inference", "line, station and camera go together")?;
        require((0.0..=1.0).contains(&self.archive.ok_share), "archive.ok_share", "a share between 0 and 1")?;
        require((1..=60_000).contains(&self.witnesses.timeout_ms), "witnesses.timeout_ms", "1 ms to one minute")?;
        require(self.witness.len() <= WITNESSES_MAX, "witness", "at most 15 witnesses")?;
        for (at, witness) in self.witness.iter().enumerate() {
            let is_new = |other: &Witness| other.name != witness.name && other.vkey.key() != witness.vkey.key();
            require(self.witness[..at].iter().all(is_new), "witness", "each witness has its own name and key")?;
            let pair = witness.tls.as_ref().is_none_or(|tls| tls.certificate.is_some() == tls.key.is_some());
            require(pair, "witness.tls", "certificate and key go together")?;
        }
        require(self.replay.nightly_sample <= 100_000, "replay.nightly_sample", "at most 100000 decisions")?;
        require(minute_of_day(&self.replay.at).is_some(), "replay.at", "a time of day in UTC, such as 02:30")?;
        let classes = &self.retention.classes;
        require(self.retention.every_h <= 8784, "retention.every_h", "at most 8784 hours, a year")?;
        require(classes.len() <= RETENTION_CLASSES_MAX, "retention.class", "at most 64 classes")?;
        for (at, class) in classes.iter().enumerate() {
            let is_new = classes[..at].iter().all(|other| other.name != class.name);
            require(is_new, "retention.class.name", "a class is named once")?;
            let days = [class.images_days, class.private_days].into_iter().flatten();
            require(days.into_iter().all(|days| days <= 36_525), "retention.class", "a period has at most 36525 days")?;
            let is_text = class.basis.len() <= 256 && !class.basis.chars().any(char::is_control);
            require(is_text, "retention.class.basis", "at most 256 bytes without line breaks")?;
        }
        let mut products = std::collections::HashSet::new();
        for product in &self.products {
            require(products.insert(&product.product), "product", "a product is named once")?;
        }
        let mut joined = std::collections::HashSet::new();
        for part in &self.parts {
            require(joined.insert(&part.product), "part.product", "a product's views are listed once")?;
            require((1..=3_600_000).contains(&part.wait_ms), "part.wait_ms", "1 ms to one hour")?;
            require((2..=VIEWS_MAX).contains(&part.views.len()), "part.view", "two to eight views")?;
            for (at, view) in part.views.iter().enumerate() {
                let is_known = |station: &Station| {
                    station.line == view.line
                        && station.station == view.station
                        && station.cameras.contains(&view.camera)
                };
                require(self.stations.iter().any(is_known), "part.view", "every view is a camera of a [[station]]")?;
                let is_other = |other: &ViewConfig| {
                    other.name != view.name
                        && (&other.line, &other.station, &other.camera) != (&view.line, &view.station, &view.camera)
                };
                require(part.views[..at].iter().all(is_other), "part.view", "each view has its own name and camera")?;
            }
        }
        let cameras: usize = self.stations.iter().map(|station| station.cameras.len()).sum();
        require(cameras <= 4096, "station.cameras", "at most 4096 cameras in all")?;
        for station in &self.stations {
            require(!station.cameras.is_empty(), "station.cameras", "a station has at least one camera")?;
        }
        require(self.backup.keep != Some(0), "backup.keep", "at least one backup is kept")?;
        require(!self.plant.name.trim().is_empty(), "plant.name", "a plant has a name; it stands on every report")
    }

    fn resolve_paths(&mut self, data_dir: &Path) {
        if let Some(oidc) = &mut self.access.oidc {
            oidc.resolve(data_dir);
        }
        let resolve = |path: &mut PathBuf| *path = data_dir.join(&*path);
        resolve(&mut self.log.anchor);
        resolve(&mut self.models.recipes);
        resolve(&mut self.models.calibrations);
        self.models.signers.iter_mut().for_each(resolve);
        if let Some(path) = &mut self.models.onnxruntime {
            resolve(path);
        }
        if let Some(path) = &mut self.witnesses.policy {
            resolve(path);
        }
        for tls in self.witness.iter_mut().filter_map(|witness| witness.tls.as_mut()) {
            resolve(&mut tls.ca);
            [&mut tls.certificate, &mut tls.key].into_iter().flatten().for_each(resolve);
        }
        for tls in [&mut self.listen.tls, &mut self.office.tls].into_iter().flatten() {
            resolve(&mut tls.certificate);
            resolve(&mut tls.key);
            [&mut tls.client_ca, &mut tls.crl].into_iter().flatten().for_each(resolve);
        }
    }
}

/// The commented file that `lineproof init` writes.
#[must_use]
pub fn template(plant: &str, line: &LineId, station: &StationId, camera: &CameraId) -> String {
    let plant = toml::Value::String(plant.to_owned());
    format!(
        r#"# Lineproof's configuration. Paths are relative to this file's folder. Unknown keys are refused.
# Changes take effect when the service starts again; [[product]] also with `lineproof model reload`.

[plant]
name = {plant}                       # stands on every report

# The line's side (OT): frames in, verdicts out. Without TLS only loopback addresses are allowed.
[listen]
address = "127.0.0.1:7443"
# [listen.tls]
# certificate = "tls/server.pem"
# key = "tls/server.key"
# client_ca = "tls/clients.pem"         # set: clients must show a certificate of this authority, docs/access.md
# crl = "tls/clients.crl"               # its revocation lists; all four are read again when they change

# The office's side (IT): history and audit, never an image. Left out: only commands on this machine.
[office]
address = "127.0.0.1:7444"
# [office.tls]                          # as above, with certificates of its own

# What somebody may do beyond what their certificate says, and what an auditor may see; docs/access.md.
# [access.oidc]                         # the plant's identity provider: people come with its access tokens, docs/oidc.md
# issuer = "https://id.plant.example/realms/plant"
# audience = "lineproof"
# roles = {{ "Quality" = "qa" }}          # its names of roles, and ours
# [[access.grant]]
# name = "spiffe://plant.example/person/audrey"   # or oidc:ISSUER#SUBJECT
# roles = ["auditor"]                   # qa, steward, approver, auditor, reviewer, admin; line for services
# customers = ["oem-a"]                 # sees the products that are made for them
# products = []                         # and these
# from = "2026-01-01"                   # decided on these days, UTC
# to = "2026-12-31"
# stations = []                         # LINE/STATION: whose frames a service may send

[inspect]
workers = 0                             # threads that decode and infer; 0: one per core
threads_per_worker = 1                  # threads within one inference; one camera alone wants workers = 1 and all cores here
queue_frames_per_line = 64              # more waiting frames of one line are refused with a retry hint
stream_frames_max = 32                  # frames of one stream under way
frame_bytes_max = 33554432              # longest frame in bytes
useful_for_ms = 10000                   # a frame still waiting after this is not inferred, if the client sets no deadline

# For clients of the Open Inference Protocol that do not say where a frame comes from; docs/open-inference.md.
# [open_inference]
# served = true                         # false: not at all
# line = "line-1"                       # left out: the only camera there is
# station = "station-1"
# camera = "cam-1"
# product = "demo-part"                 # left out: the only product of the model

[archive]                               # which images are kept, sealed
not_ok = true
not_decidable = true
ok_share = 0.1                          # chosen by the image's digest

# How long what is kept beside the log; docs/retention.md. Without a class nothing is ever deleted. Entries never are.
# [retention]
# every_h = 24                          # how often the service looks; 0: only `lineproof retention run`
# [[retention.class]]                   # a decision is of the first class that takes it
# name = "not_ok"                       # the folder of its images
# verdicts = ["NOT_OK"]                 # left out: any
# products = ["demo-part"]              # left out: any
# images_days = 3650                    # left out: for ever
# private_days = 3650                   # serial number, lot, who sent the frame; left out: for ever
# basis = "product liability, 10 years" # stands in the log

# What runs models; docs/inference.md. `lineproof tune` measures what suits this machine.
# [inference]
# providers = ["cpu"]                   # cpu, cuda:0, tensorrt:0, openvino:CPU; the first runs every model
# fall_back = false                     # true: the next one may take its place, which every record then says
# sessions = 0                          # of each recipe, shared by the workers; 0: every worker has its own
# batch_frames_max = 8                  # a shared session runs waiting frames together, where that pays here
# batch_budget_ms = 50                  # longest time one batch may take

# Decisions of the last day that the service decides again every night, to show that the same comes out; docs/replay.md.
# [replay]
# nightly_sample = 20                   # 0: only `lineproof replay` does
# at = "02:00"                          # UTC

[log]
anchor = "anchor"                       # the last checkpoint signed here; best on another volume
disk_reserve_bytes = 268435456          # no verdicts while the disk has less free

[models]
recipes = "models"                      # <name>/<version>/recipe.toml
calibrations = "calibration"
# signers = ["signers/steward.pub"]     # only recipe folders that one of these keys signed are loaded; docs/models.md
# onnxruntime = "lib/libonnxruntime.so" # unset: ORT_DYLIB_PATH, beside the executable, or .cache/onnxruntime

# Others who vouch that this log has one history; docs/witness.md.
# [witnesses]
# policy = "witness.policy"             # c2sp.org/tlog-policy; unset: every witness below must cosign
# timeout_ms = 5000
# [[witness]]
# name = "oem"
# vkey = "oem.example/witness+…"
# url = "https://witness.oem.example:7444"   # unset: by files, `lineproof witness request` and `import`
# tls = {{ ca = "tls/oem-ca.pem", certificate = "tls/plant.pem", key = "tls/plant.key" }}

# Where `lineproof backup` puts what it copies; docs/backup.md.
# [backup]
# to = "/mnt/backup/plant"
# recipients = ["age1…"]                # `lineproof backup --new-key FILE` makes one
# keep = 14                             # older backups are removed; unset: none is

# Only these stations may send frames.
[[station]]
line = "{line}"
station = "{station}"
cameras = ["{camera}"]

# Which recipe inspects a product when the frame names none.
[[product]]
product = "demo-part"
# customer = "oem-a"                    # whom it is made for: [[access.grant]] names customers
recipe = "machined-surface@1.1.0"

# A product that several cameras see: the worst view is the part's verdict, a missing one makes it NOT_DECIDABLE; docs/parts.md.
# [[part]]
# product = "housing"
# wait_ms = 5000                        # from a part's first view to its last
# [[part.view]]
# name = "top"
# line = "{line}"
# station = "{station}"
# camera = "{camera}"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("lineproof.toml"), text).map_err(|error| error.to_string())
    }

    fn example() -> String {
        template("Werk \"Nord\"", &"l".parse().unwrap(), &"s".parse().unwrap(), &"c".parse().unwrap())
    }

    #[test]
    fn the_template_is_a_valid_configuration_with_the_defaults() {
        let config = parse(&example()).unwrap();
        assert_eq!(config.plant.name, "Werk \"Nord\"");
        assert_eq!(format!("{:?}", config.inspect), format!("{:?}", Inspect::default()));
        assert_eq!(format!("{:?}", config.archive), format!("{:?}", Archive::default()));
        assert_eq!(format!("{:?}", config.log), format!("{:?}", Log::default()));
    }

    #[test]
    fn an_error_names_the_line_and_the_key() {
        let error = parse(&example().replace("workers = 0", "wrokers = 0")).unwrap_err();
        assert!(error.contains("line 36") && error.contains("wrokers"), "{error}");
        let error = parse(&example().replace("ok_share = 0.1", "ok_share = 7.0")).unwrap_err();
        assert!(error.contains("archive.ok_share"), "{error}");
        let error = parse(&example().replace("line = \"l\"", "line = \"a/b\"")).unwrap_err();
        assert!(error.contains("line = \"a/b\""), "{error}");
    }

    #[test]
    fn witnesses_have_keys_of_witnesses_and_their_own_names() {
        let cosigner = crate::core::witness::cosign::Cosigner::new("oem.example/w", &[1; 32]).unwrap();
        let vkey = cosigner.verifier_key().line();
        let one = format!("\n[[witness]]\nname = \"oem\"\nvkey = \"{vkey}\"\n");
        let config = parse(&(example() + &one)).unwrap();
        assert_eq!(config.witness[0].vkey.line(), vkey);
        let error = parse(&(example() + &one + &one)).unwrap_err();
        assert!(error.contains("its own name and key"), "{error}");
        let error = parse(&(example() + &one.replace("oem.example/w", "oen.example/w"))).unwrap_err();
        assert!(error.contains("vkey") && error.contains("eight hex digits"), "{error}");
        let half = one + "tls = { ca = \"ca.pem\", certificate = \"c.pem\" }\n";
        assert!(parse(&(example() + &half)).unwrap_err().contains("go together"));
    }

    #[test]
    fn without_tls_only_loopback_is_allowed() {
        let error = parse(&example().replace("127.0.0.1:7443", "0.0.0.0:7443")).unwrap_err();
        assert!(error.contains("listen.address") && error.contains("[listen.tls]"), "{error}");
    }
}

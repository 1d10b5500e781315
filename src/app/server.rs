//! The service: its parts built, wired, run and stopped in order.
//!
//! Built inside out: keys, archive, index, log, recipes, workers, gRPC. Stopped outside in: no new frames, answers for
//! the admitted ones, gaps written, log flushed and checkpointed, index closed.

mod accept;
mod listeners;
mod shelf;
mod starter;

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};

use anyhow::{Context as _, bail};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

pub use self::listeners::{Listeners, bind};
pub(super) use self::shelf::signers;
use self::{
    accept::Connection,
    listeners::Side,
    shelf::{ConfiguredProducts, Shelf},
    starter::Starter,
};
use super::{
    config::{self, Config},
    erase::counted,
    keys, replay, retention, socket,
    witness::plant,
};
use crate::adapters::ort::{OrtOnDemand, OrtRuntime};
use crate::{
    adapters::{
        archive::PackArchive,
        clock::SystemClock,
        keys::Keys,
        log::{LogConfig, LogHandle, LogState, LogStore, RecoveryReport},
        model_store::{self, ModelStore},
        recipe_files::TextStore,
        sled_index::{Found, SledIndex},
        trial::ProcessTrial,
    },
    core::{access::Grants, model_signature::short},
    edge::open_inference::OriginDefaults,
    ports::{
        access::TokenVerifier,
        archive::ImageArchive,
        clock::Clock,
        index::{DecisionIndex, FrameIndex, IndexError},
        inference::{ModelRuntime, SessionOptions},
        lineage::{LogReader, LogWriter},
        texts::RecipeTexts,
    },
    services::{
        access::AccessJournal,
        audit::AuditService,
        history::{HistoryService, Indexer, IndexerHandle},
        inspect::{Inspect, InspectConfig, InspectPorts, OnDecided, Sharing, gaps::Source, record::ArchiveRule},
        models::Providers,
        parts::{PartRule, Parts, PartsPorts},
        periods::PeriodService,
        registry::{RegistryService, Running},
        replay::ReplayService,
        retention::{RetentionService, rules::ClassRule},
        witness::{Witnessed, collect::Collector},
    },
    types::EntryIndex,
};

/// How long open calls may take to end after SIGTERM before they are cut.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// Everything below the edge, running.
pub struct Server {
    config: Config,
    data_dir: PathBuf,
    inspect: Option<Inspecting>,
    history: Arc<HistoryService>,
    audit: Arc<AuditService>,
    retention: Arc<RetentionService>,
    replay: Arc<ReplayService>,
    registry: Arc<RegistryService>,
    grants: Arc<Grants>,
    journal: Arc<AccessJournal>,
    tokens: Option<Arc<dyn TokenVerifier>>,
    /// Gathers cosignatures, where the plant has witnesses that are reached over the network.
    collector: Option<Collector>,
    log: LogHandle,
    /// Dropped after the log has published its last checkpoint.
    indexer: IndexerHandle,
    /// Fires when the log stops after a failed write.
    log_stopped: CancellationToken,
}

/// The part of it that takes frames.
struct Inspecting {
    inspect: Inspect,
    periods: Arc<PeriodService>,
    parts: Parts,
}

/// What a process wants of a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Inspect frames and answer questions.
    Inspect,
    /// Answer questions only: no model is loaded.
    Office,
}

impl Server {
    /// Opens the data directory, recovers the log, loads and warms the models.
    ///
    /// # Errors
    /// What keeps the service from starting. Damage in the log does not: it is then read-only.
    pub fn open(config: Config, data_dir: &Path, role: Role) -> anyhow::Result<Self> {
        let keys = keys::open(data_dir)?;
        let clock = Arc::new(SystemClock::new());
        let packs = Arc::new(PackArchive::open(data_dir.join("images"), keys.image_sealer())?);
        let archive: Arc<dyn ImageArchive> = packs.clone();
        let index = open_index(&data_dir.join("index"), &keys)?;
        let log_stopped = CancellationToken::new();
        let log_config = LogConfig {
            data_dir: data_dir.to_owned(),
            anchor: config.log.anchor.clone(),
            disk_reserve_bytes: config.log.disk_reserve_bytes,
            on_stop: Some(Arc::new({
                let token = log_stopped.clone();
                move |reason: &str| {
                    tracing::error!(reason, "the log has stopped");
                    token.cancel();
                }
            })),
        };
        let signer = Arc::new(keys.log_signer());
        let (log, reader, recovery) =
            LogStore::open(log_config, signer.clone(), keys.private_sealer(), archive.clone(), index.clone())?;
        report_recovery(&recovery);
        let reader: Arc<dyn LogReader> = Arc::new(reader);
        let writer: Arc<dyn LogWriter> = Arc::new(log.clone());

        let indexer = Indexer::new(reader.clone(), index.clone());
        let caught_up = indexer.catch_up(|progress| {
            if progress.total > 100_000 {
                tracing::info!(done = progress.done, total = progress.total, "indexing the log");
            }
        });
        if let Err(error) = caught_up {
            // A damaged log is served for reading; what of it is not indexed is not found by searches.
            tracing::error!(%error, "the log is not fully indexed");
        }
        // A clock that was set back while the service was down is seen, too (G15).
        if let Some(last) = index.last_time() {
            clock.not_before(last);
        }
        let clock: Arc<dyn Clock> = clock;

        let history = Arc::new(HistoryService::new(reader.clone(), index.clone()));
        let retention = Arc::new(RetentionService {
            reader: reader.clone(),
            writer: writer.clone(),
            eraser: Arc::new(log.clone()),
            index: index.clone(),
            clock: clock.clone(),
            book: history.book(),
            images: packs,
            rules: retention_rules(&config),
            turn: Mutex::default(),
        });
        if recovery.read_only.is_none()
            && let Err(error) = retention.go_on()
        {
            // A full disk is no reason not to start; the next start, or the next erasure, goes on.
            tracing::error!(%error, "an erasure that was interrupted is still not finished");
            if role == Role::Office {
                eprintln!("lineproof: an erasure that was interrupted is still not finished: {error}");
            }
        }

        let texts = TextStore::new(data_dir.join("texts"));
        let models = ModelStore::new(data_dir.join(model_store::FOLDER));
        let (inspect, running) = match role {
            Role::Office => (None, None),
            Role::Inspect => {
                report_signers(&config)?;
                let runtime = OrtRuntime::load(config.models.onnxruntime.as_deref())?;
                let trial = ProcessTrial::new(runtime.library().to_owned()).context("models cannot be tried")?;
                if recovery.read_only.is_none() {
                    let starter = Starter { writer: &writer, clock: &clock };
                    starter.record_start(&recovery, &keys.verifier_key())?;
                    starter.record_configuration(data_dir)?;
                    starter.record_restore(data_dir)?;
                    starter.record_rotation(data_dir, &keys)?;
                }
                let ports = InspectPorts {
                    log: writer.clone(),
                    reader: reader.clone(),
                    archive: archive.clone(),
                    clock: clock.clone(),
                    runtime: Arc::new(runtime) as Arc<dyn ModelRuntime>,
                };
                let counters = last_counters(&config, index.as_ref())?;
                let parts_ports = PartsPorts { reader: reader.clone(), writer: writer.clone(), clock: clock.clone() };
                let parts = Parts::start(part_rules(&config), parts_ports);
                let mut inspect_config = inspect_config(&config);
                if !config.parts.is_empty() {
                    let parts = parts.handle();
                    inspect_config.on_decided = Some(OnDecided(Arc::new(move |frame| parts.decided(frame))));
                }
                let inspect = Inspect::start(inspect_config, ports, counters);
                let periods = PeriodService {
                    inspect: inspect.handle(),
                    reader: reader.clone(),
                    writer: writer.clone(),
                    index: index.clone(),
                    clock: clock.clone(),
                    closing: Mutex::new(()),
                };
                let running =
                    Running { inspect: inspect.handle(), trial: Arc::new(trial), providers: providers(&config) };
                (Some(Inspecting { inspect, periods: Arc::new(periods), parts }), Some(running))
            }
        };
        let registry = RegistryService {
            shelf: Arc::new(Shelf::new(&config, texts.clone(), models.clone())),
            plan: Arc::new(ConfiguredProducts::new(data_dir)),
            writer: writer.clone(),
            clock: clock.clone(),
            running,
            turn: Mutex::default(),
            owed: AtomicBool::default(),
        };
        registry.start()?;
        let log_keys = plant::log_keys(data_dir)?;
        let kept = plant::kept(&config, data_dir, log_keys.clone())?;
        let witnessed = kept.map(|kept| Witnessed::new(Arc::new(kept)));
        let collector = match (&witnessed, role) {
            (Some(witnessed), Role::Inspect) => plant::collector(&config, log_keys, reader.clone(), witnessed.clone())?,
            _ => None,
        };
        let (texts, book): (Arc<dyn RecipeTexts>, _) = (Arc::new(texts), history.book());
        let replay = Arc::new(ReplayService {
            reader: reader.clone(),
            writer: writer.clone(),
            archive,
            texts: texts.clone(),
            models: Arc::new(models),
            // Loaded when the first session is made: commands that need no model need no runtime.
            runtime: Arc::new(OrtOnDemand::new(config.models.onnxruntime.clone())),
            clock: clock.clone(),
            turn: Mutex::default(),
        });
        let journal = Arc::new(AccessJournal::new(writer.clone(), clock.clone()));
        let grants = Arc::new(config::access::grants(&config).map_err(anyhow::Error::msg)?);
        let oidc = config.access.oidc.as_ref().filter(|_| role == Role::Inspect);
        let oidc = oidc.map(|oidc| oidc.build().context("[access.oidc]")).transpose()?;
        let tokens = oidc.map(|oidc| Arc::new(oidc) as Arc<dyn TokenVerifier>);
        let audit = AuditService { reader, writer, index, texts, signer, clock, book, witnessed };
        let audit = Arc::new(audit);
        let (data_dir, indexer) = (data_dir.to_owned(), indexer.spawn());
        let registry = Arc::new(registry);
        Ok(Self {
            config,
            data_dir,
            inspect,
            history,
            audit,
            retention,
            replay,
            registry,
            grants,
            journal,
            tokens,
            collector,
            log,
            indexer,
            log_stopped,
        })
    }

    /// Who inspects, in one line for the operator.
    #[must_use]
    pub fn layout(&self) -> String {
        let inspect = inspect_config(&self.config);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = inspect.session_options.intra_threads;
        let sessions = match &inspect.sharing {
            None => "each with its own session of every recipe".to_owned(),
            Some(sharing) => {
                format!("sharing {} of every recipe", counted(sharing.sessions as u64, "session", "sessions"))
            }
        };
        format!(
            "{} on {}, {sessions}, {} a session, on {}; `lineproof tune` measures others",
            counted(inspect.workers as u64, "worker", "workers"),
            counted(cores as u64, "core", "cores"),
            counted(threads as u64, "thread", "threads"),
            self.config.inference.providers[0],
        )
    }

    /// The operator's socket, listening: made before anybody is told that the service is there.
    #[must_use]
    pub fn listen_socket(&self) -> Option<UnixListener> {
        let listener = socket::listen(&self.data_dir);
        let warn = |error: &std::io::Error| {
            tracing::warn!(%error, "no operator's socket: commands on this data directory work while it is stopped");
        };
        listener.inspect_err(warn).ok()
    }

    /// Serves the listeners until `stopper` fires, then drains and closes everything.
    ///
    /// # Errors
    /// When the line's listener fails, or the log stopped after a failed write.
    ///
    /// # Panics
    /// If the data directory was opened for the office: then nothing takes frames.
    pub async fn serve(self, listeners: Listeners, stopper: CancellationToken) -> anyhow::Result<()> {
        let Listeners { line, office, socket } = listeners;
        let inspecting = self.inspect.as_ref().expect("a service that inspects");
        let (serving, following) = self.serve_line(line, inspecting, &stopper, self.stop(&stopper)).await?;
        let mut sides = Vec::new();
        if let Some(office) = office {
            sides.push(self.serve_office(office, stopper.clone()).await?);
        }
        if let Some(socket) = socket {
            sides.push(self.serve_socket(socket, stopper.clone()).await);
        }
        let served = self.run(serving, sides, stopper).await;
        following.abort();
        served
    }

    /// Serves connections that are made in this process by commands on the data directory.
    ///
    /// # Errors
    /// As [`Self::serve`].
    pub async fn serve_in_process(
        self,
        connection: tokio::io::DuplexStream,
        stopper: CancellationToken,
    ) -> anyhow::Result<()> {
        let incoming = tokio_stream::once(Ok::<_, std::io::Error>(Connection::pipe(connection)));
        let incoming = tokio_stream::StreamExt::chain(incoming, tokio_stream::pending());
        let serving = self.serve_operator(incoming, &stopper, self.stop(&stopper)).await;
        self.run(serving, Vec::new(), stopper).await
    }

    /// Ends when the service is asked to stop or its log has stopped; then everything else is, too.
    fn stop(&self, stopper: &CancellationToken) -> impl Future<Output = ()> + Send + use<> {
        let (stopper, log_stopped) = (stopper.clone(), self.log_stopped.clone());
        async move {
            tokio::select! {
                () = stopper.cancelled() => {}
                () = log_stopped.cancelled() => stopper.cancel(),
            }
        }
    }

    async fn run(
        mut self,
        serving: impl Future<Output = Result<(), tonic::transport::Error>>,
        sides: Vec<Side>,
        stopper: CancellationToken,
    ) -> anyhow::Result<()> {
        // Ends by itself once the log has published its last checkpoint and that is cosigned.
        let last_checkpoint = CancellationToken::new();
        let collecting = self.collector.take().map(|collector| collector.spawn(last_checkpoint.clone()));
        let retention_rules = &self.config.retention;
        let retains = self.inspect.is_some() && retention_rules.every_h > 0 && !retention_rules.classes.is_empty();
        let retaining = retains.then(|| {
            let every_h = retention_rules.every_h;
            tokio::spawn(retention::keep_running(self.retention.clone(), every_h, stopper.clone()))
        });
        let journaling = tokio::spawn(self.journal.clone().run(stopper.clone()));
        let settling = self.inspect.is_some().then(|| tokio::spawn(settle(self.registry.clone(), stopper.clone())));
        let replays = self.inspect.is_some() && self.config.replay.nightly_sample > 0;
        let replaying = replays.then(|| {
            tokio::spawn(replay::keep_running(self.replay.clone(), self.config.replay.clone(), stopper.clone()))
        });
        let served = async {
            let served = serving.await;
            // The others drain, too: a command that is being answered gets the rest.
            stopper.cancel();
            for Side { name, task } in sides {
                task.await.context(name)?;
            }
            socket::remove(&self.data_dir);
            served.context("the gRPC server failed")
        };
        let drained_late = async {
            stopper.cancelled().await;
            tokio::time::sleep(DRAIN_MAX).await;
        };
        tokio::select! {
            served = served => served?,
            () = drained_late => tracing::warn!(seconds = DRAIN_MAX.as_secs(), "open calls were cut after the drain time"),
        }
        stopper.cancel();
        journaling.await.context("noting refusals")?;
        if let Some(retaining) = retaining {
            stopper.cancel();
            retaining.await.context("retention")?;
        }
        if let Some(settling) = settling {
            stopper.cancel();
            settling.await.context("recording what serves")?;
        }
        if let Some(replaying) = replaying {
            stopper.cancel();
            replaying.await.context("replays")?;
        }
        tokio::task::spawn_blocking(move || self.close()).await.context("closing the service")??;
        last_checkpoint.cancel();
        if let Some(collecting) = collecting {
            collecting.await.context("gathering cosignatures")?;
        }
        Ok(())
    }

    fn close(self) -> anyhow::Result<()> {
        if let Some(Inspecting { inspect, parts, .. }) = self.inspect {
            inspect.shutdown();
            parts.shutdown();
        }
        self.replay.wait();
        self.log.shutdown();
        let state = self.log.state();
        drop(self.indexer);
        match state {
            LogState::Stopped(reason) => bail!(
                "the log stopped after a failed write: {reason}; look at the disk, then start again: the start verifies the log"
            ),
            _ => Ok(()),
        }
    }
}

/// Has the log say what serves, if a full disk kept it from that at the start.
async fn settle(registry: Arc<RegistryService>, stopper: CancellationToken) {
    loop {
        let registry = registry.clone();
        // It appends, which waits for the disk.
        let is_owed = tokio::task::spawn_blocking(move || registry.settle()).await.unwrap_or(false);
        if !is_owed {
            return;
        }
        tokio::select! {
            () = stopper.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

/// `lineproof serve`.
///
/// # Errors
/// What kept the service from starting, or ended it.
pub fn serve(data_dir: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::load(data_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let (line, office) = (config.listen.address, config.office.address);
        let ways = [&config.listen.tls, &config.office.tls].map(|tls| match tls {
            Some(_) => "TLS",
            None => "plain text, loopback only",
        });
        let bind_all = async || {
            let line = bind(line, "listen.address").await?;
            let office = match office {
                Some(address) => Some(bind(address, "office.address").await?),
                None => None,
            };
            anyhow::Ok((line, office))
        };
        // Known early, opened late: a port in use is said before models load, and nobody connects before they are warm.
        drop(bind_all().await?);
        let server = Server::open(config, data_dir, Role::Inspect)?;
        let (line, office) = bind_all().await?;
        let stopper = stop_on_signals()?;
        let socket = server.listen_socket();
        println!("{}", server.layout());
        match &office {
            Some(office) => println!("office: history and audit on {} ({})", office.local_addr()?, ways[1]),
            None => {
                println!("office: only commands on this machine; [office] in lineproof.toml serves history and audit")
            }
        }
        println!("listening on {} ({})", line.local_addr()?, ways[0]);
        server.serve(Listeners { line, office, socket }, stopper).await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A token that fires at SIGTERM or Ctrl-C.
pub(super) fn stop_on_signals() -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};

    let stopper = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = stopper.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: no new frames, answers for the admitted ones");
        token.cancel();
    });
    Ok(stopper)
}

/// Opens only the log, for commands that read it while no service runs.
///
/// # Errors
/// As [`LogStore::open`].
pub fn open_log(config: &Config, data_dir: &Path, keys: &Keys) -> anyhow::Result<(LogHandle, impl LogReader)> {
    let archive = Arc::new(PackArchive::open(data_dir.join("images"), keys.image_sealer())?);
    let log_config = LogConfig {
        data_dir: data_dir.to_owned(),
        anchor: config.log.anchor.clone(),
        disk_reserve_bytes: config.log.disk_reserve_bytes,
        on_stop: None,
    };
    let signer = Arc::new(keys.log_signer());
    let (log, reader, recovery) =
        LogStore::open(log_config, signer, keys.private_sealer(), archive, Arc::new(NothingAppended))?;
    report_recovery(&recovery);
    Ok((log, reader))
}

/// The frame index of a log that nothing is appended to: nobody will ask.
struct NothingAppended;

impl FrameIndex for NothingAppended {
    fn indexed_to(&self) -> EntryIndex {
        EntryIndex(u64::MAX)
    }

    fn find_frame(&self, _key: [u8; 16]) -> Result<Option<EntryIndex>, IndexError> {
        Ok(None)
    }
}

fn open_index(path: &Path, keys: &Keys) -> anyhow::Result<Arc<SledIndex>> {
    let (index, found) = SledIndex::open(path, keys.index_key())?;
    match found {
        Found::Whole | Found::New => {}
        Found::OtherKey => tracing::info!("the index is built anew, under another master key than before"),
        Found::Replaced { reason, aside } => {
            tracing::warn!(reason, aside = %aside.display(), "the index could not be used; it is rebuilt from the log");
        }
    }
    Ok(Arc::new(index))
}

/// Says who vouches for models, or that nobody does.
fn report_signers(config: &Config) -> anyhow::Result<()> {
    match signers(config).map_err(anyhow::Error::msg)? {
        None => tracing::warn!(
            "models are loaded whoever put them there; name the keys that may sign them in lineproof.toml, [models] signers"
        ),
        Some(keys) => {
            let keys: Vec<String> = keys.iter().map(|key| short(key.fingerprint())).collect();
            tracing::info!(keys = keys.join(", "), "models are loaded only if one of these keys signed them");
        }
    }
    Ok(())
}

fn report_recovery(recovery: &RecoveryReport) {
    if let Some(reason) = &recovery.read_only {
        tracing::error!(%reason, "the log is damaged: it is read-only, no verdicts are given; `lineproof fsck` says more");
    } else if recovery.recovered > 0 || recovery.torn_bytes > 0 {
        let (entries, torn_bytes) = (recovery.recovered, recovery.torn_bytes);
        tracing::warn!(entries, torn_bytes, "recovered from the write-ahead log after an unclean end");
    }
}

fn inspect_config(config: &Config) -> InspectConfig {
    let workers = match config.inspect.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    let archive_rule = ArchiveRule {
        not_ok: config.archive.not_ok,
        not_decidable: config.archive.not_decidable,
        ok_share: config.archive.ok_share,
        classes: retention_rules(config),
    };
    let session_options =
        SessionOptions { intra_threads: config.inspect.threads_per_worker, ..SessionOptions::default() };
    let inference = &config.inference;
    let sharing = (inference.sessions > 0).then_some(Sharing {
        sessions: inference.sessions,
        frames_max: inference.batch_frames_max,
        budget: Duration::from_millis(inference.batch_budget_ms),
    });
    InspectConfig {
        workers,
        session_options,
        sharing,
        queue_frames_per_line: config.inspect.queue_frames_per_line,
        archive_rule,
        sources: sources(config),
        on_decided: None,
    }
}

fn part_rules(config: &Config) -> Vec<PartRule> {
    let view = |view: &super::config::ViewConfig| {
        let source = Source { line: view.line.clone(), station: view.station.clone(), camera: view.camera.clone() };
        (view.name.clone(), source)
    };
    let rule = |part: &super::config::PartConfig| PartRule {
        product: part.product.clone(),
        wait: Duration::from_millis(part.wait_ms),
        views: part.views.iter().map(view).collect(),
    };
    config.parts.iter().map(rule).collect()
}

fn providers(config: &Config) -> Providers {
    let (first, rest) = config.inference.providers.split_first().expect("a checked configuration has a provider");
    Providers { first: first.clone(), fall_back: rest.to_vec() }
}

fn retention_rules(config: &Config) -> Vec<ClassRule> {
    let rule = |class: &super::config::RetentionClassConfig| ClassRule {
        class: class.name.clone(),
        verdicts: class.verdicts.clone(),
        products: class.products.clone(),
        images_days: class.images_days,
        private_days: class.private_days,
        basis: class.basis.clone(),
    };
    config.retention.classes.iter().map(rule).collect()
}

fn sources(config: &Config) -> HashSet<Source> {
    let of_station = |station: &super::config::Station| {
        let (line, name) = (station.line.clone(), station.station.clone());
        let source = move |camera| Source { line: line.clone(), station: name.clone(), camera };
        station.cameras.clone().into_iter().map(source)
    };
    config.stations.iter().flat_map(of_station).collect()
}

/// Where frames come from that do not say it: what the configuration says, else what is there once only.
fn origin_defaults(config: &Config) -> OriginDefaults {
    let open = &config.open_inference;
    let configured = open.line.clone().zip(open.station.clone()).zip(open.camera.clone());
    let configured = configured.map(|((line, station), camera)| Source { line, station, camera });
    let all = sources(config);
    let only = all.iter().next().filter(|_| all.len() == 1).cloned();
    OriginDefaults { source: configured.or(only), product: open.product.clone() }
}

fn last_counters(config: &Config, index: &dyn DecisionIndex) -> anyhow::Result<HashMap<Source, u64>> {
    let mut counters = HashMap::new();
    for source in sources(config) {
        if let Some(counter) = index.last_counter(&source.line, &source.camera)? {
            counters.insert(source, counter);
        }
    }
    Ok(counters)
}

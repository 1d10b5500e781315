//! The plant's side: what it keeps of its witnesses, how it asks them, and the way by files.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};

use super::{ImportArgs, RequestArgs, read_text, write_whole};
use crate::{
    adapters::witness::{CosignedFiles, HttpWitness},
    app::{
        config::{self, Config},
        tls,
        verify::{Directory, read_policy},
    },
    core::{
        export::{
            CHECKPOINT,
            keys::{Keys, VerifierKey},
            verify::LogFiles as _,
        },
        lineage::{
            checkpoint::CHECKPOINT_BYTES_MAX,
            tiles::{Tile, TileHashes},
            tree::{self, HashReader, consistency_proof},
        },
        witness::{
            compare::{TileProblem, read_tile},
            cosign::Cosigned,
            policy::Policy,
            request::AddCheckpoint,
        },
    },
    ports::{
        lineage::LogReader,
        witness::{CosignedStore as _, WitnessLink},
    },
    services::witness::{
        Witnessed,
        collect::{Asked, Collector},
    },
};

/// The witnesses a plant knows, and what it needs of them.
fn policy(config: &Config) -> anyhow::Result<(Policy, Vec<VerifierKey>)> {
    let mut known: Vec<VerifierKey> = config.witness.iter().map(|witness| witness.vkey.clone()).collect();
    let policy = match &config.witnesses.policy {
        None => Policy::all_of(known.clone()),
        Some(path) => read_policy(path)?,
    };
    let others: Vec<VerifierKey> = policy.witnesses().iter().filter(|key| !known.contains(key)).cloned().collect();
    known.extend(others);
    Ok((policy, known))
}

/// Where a plant with witnesses keeps what they say; `None` for one without.
///
/// # Errors
/// When the policy cannot be read.
pub fn kept(config: &Config, data_dir: &Path, log: Vec<VerifierKey>) -> anyhow::Result<Option<CosignedFiles>> {
    if config.witness.is_empty() && config.witnesses.policy.is_none() {
        return Ok(None);
    }
    let (policy, known) = policy(config)?;
    Ok(Some(CosignedFiles::new(data_dir, log, known, policy)))
}

/// Whether a checkpoint in evidence satisfies the plant's policy; `None` for a plant without witnesses.
///
/// # Errors
/// When the policy or the log's key cannot be read.
pub fn is_witnessed(data_dir: &Path, note: &str) -> anyhow::Result<Option<bool>> {
    let config = Config::load(data_dir)?;
    if config.witness.is_empty() && config.witnesses.policy.is_none() {
        return Ok(None);
    }
    let (policy, known) = policy(&config)?;
    let log = log_keys(data_dir)?;
    let cosigned = Cosigned::open(note, &log, &known)?;
    Ok(Some(policy.evaluate(cosigned.signers(), &cosigned.cosignatures()).is_satisfied()))
}

/// Asks the witnesses that have a URL; `None` when none has.
///
/// # Errors
/// With the witness whose URL or TLS files are wrong.
pub fn collector(
    config: &Config,
    log: Vec<VerifierKey>,
    reader: Arc<dyn LogReader>,
    witnessed: Arc<Witnessed>,
) -> anyhow::Result<Option<Collector>> {
    let timeout = Duration::from_millis(config.witnesses.timeout_ms);
    let mut asked = Vec::new();
    for witness in &config.witness {
        let Some(url) = &witness.url else { continue };
        let tls = witness.tls.as_ref().map(tls::client).transpose();
        let link = tls.and_then(|tls| Ok(HttpWitness::new(url, tls, timeout)?));
        let link: Arc<dyn WitnessLink> = Arc::new(link.with_context(|| format!("witness {:?}", witness.name))?);
        asked.push(Asked { name: witness.name.clone(), key: witness.vkey.clone(), link });
    }
    if asked.is_empty() {
        return Ok(None);
    }
    let (_, known) = policy(config)?;
    Ok(Some(Collector::new(reader, log, asked, known, witnessed)))
}

/// The data directory as its files show it; the service may run or not.
struct Plant {
    config: Config,
    log: Vec<VerifierKey>,
    log_dir: PathBuf,
    kept: CosignedFiles,
    known: Vec<VerifierKey>,
}

impl Plant {
    fn open(data_dir: &Path) -> anyhow::Result<Self> {
        let config = Config::load(data_dir)?;
        let log = log_keys(data_dir)?;
        let Some(kept) = kept(&config, data_dir, log.clone())? else {
            bail!(
                "{} names no witness; add [[witness]] with the name and vkey the witness handed out (docs/witness.md)",
                data_dir.join(config::FILE_NAME).display()
            );
        };
        let (_, known) = policy(&config)?;
        Ok(Self { config, log, log_dir: data_dir.join("log"), kept, known })
    }

    /// The witness a request is for.
    fn witness(&self, name: Option<&str>) -> anyhow::Result<&config::Witness> {
        let witnesses = &self.config.witness;
        let mut by_files = witnesses.iter().filter(|witness| witness.url.is_none());
        match name {
            Some(name) => witnesses
                .iter()
                .find(|witness| witness.name == name)
                .with_context(|| format!("lineproof.toml has no [[witness]] called {name:?}")),
            None => match (by_files.next(), by_files.next()) {
                (Some(witness), None) => Ok(witness),
                (None, _) => bail!("every [[witness]] in lineproof.toml has a url; say which one with --witness"),
                (Some(_), Some(_)) => {
                    bail!("several [[witness]] in lineproof.toml have no url; say which one with --witness")
                }
            },
        }
    }

    fn checkpoint(&self) -> anyhow::Result<Cosigned> {
        let bytes = Directory(&self.log_dir).read(CHECKPOINT, CHECKPOINT_BYTES_MAX as u64)?;
        let bytes = bytes.with_context(|| format!("{} has no checkpoint yet", self.log_dir.display()))?;
        let note = String::from_utf8(bytes).context("log/checkpoint is not UTF-8")?;
        Ok(Cosigned::open(&note, &self.log, &self.known)?)
    }

    /// The hashes of the log with `size` entries, from its tiles.
    fn hashes(&self, size: u64) -> impl HashReader<Error = TileProblem> {
        let directory = Directory(&self.log_dir);
        TileHashes::new(size, move |tile: Tile| read_tile(&directory, tile).map_err(TileProblem))
    }
}

/// Every key the log has or had: what witnesses cosigned may be signed by an earlier one.
pub(in crate::app) fn log_keys(data_dir: &Path) -> anyhow::Result<Vec<VerifierKey>> {
    let path = data_dir.join("log.vkey");
    let keys: Keys = read_text(&path)?.parse().with_context(|| path.display().to_string())?;
    Ok(keys.logs())
}

/// `lineproof witness request`.
pub(super) fn request(args: &RequestArgs) -> anyhow::Result<()> {
    let plant = Plant::open(&args.data.data)?;
    let witness = plant.witness(args.witness.as_deref())?;
    let latest = plant.checkpoint()?;
    // What others cosigned already travels along: together with this witness it may be enough.
    let last = plant.kept.last_of(&witness.vkey)?.map_or(0, |last| last.facts().size);
    let old = args.old.unwrap_or(last);
    let is_news = |newest: &Cosigned| newest.facts().size >= old.max(1) && !newest.is_cosigned_by(&witness.vkey);
    let checkpoint = plant.kept.newest()?.filter(is_news).unwrap_or(latest);
    let size = checkpoint.facts().size;
    if old > size {
        bail!("the witness has seen {old} entries and this log has {size}: the log was rolled back, or --old is wrong");
    }
    let proof = if 0 < old && old < size { consistency_proof(old, size, &plant.hashes(size))? } else { Vec::new() };
    let request = AddCheckpoint { old, proof, note: checkpoint.note() };
    write_whole(&args.file, &request.to_text())?;
    println!("wrote {}: {size} entries, for {} which cosigned {old} last", args.file.display(), witness.name);
    println!("carry it there; `lineproof witness sign` makes the file to import here");
    Ok(())
}

/// `lineproof witness import`.
pub(super) fn import(args: &ImportArgs) -> anyhow::Result<()> {
    let plant = Plant::open(&args.data.data)?;
    let name = || args.file.display().to_string();
    let note = read_text(&args.file)?;
    let cosigned = Cosigned::open(&note, &plant.log, &plant.known).with_context(name)?;
    let cosignatures = cosigned.cosignatures();
    if cosignatures.is_empty() {
        bail!(
            "{}: no witness of lineproof.toml or its policy has cosigned this checkpoint; nothing was changed",
            name()
        );
    }
    let (size, latest) = (cosigned.facts().size, plant.checkpoint()?.facts().size);
    let is_ours = size <= latest && tree::root(size, &plant.hashes(latest))? == cosigned.facts().root;
    if !is_ours {
        bail!(
            "{}: signed by this log's key, but not a checkpoint of this log, which has {latest} entries: it was rolled back, \
             or another copy of it ran. Keep the file; nothing was changed",
            name()
        );
    }
    for cosignature in &cosignatures {
        plant.kept.keep_of(&cosignature.witness, &cosigned)?;
        println!("{} cosigned {size} entries at {}", cosignature.witness.key_id(), cosignature.time_text());
    }
    match plant.kept.keep(&cosigned)? {
        true => println!("the policy is satisfied: passports and exports of these entries carry the cosignatures"),
        false => println!("the policy needs more cosignatures; these are kept"),
    }
    Ok(())
}

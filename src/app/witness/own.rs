//! The witness itself: its folder, its process, and signing by hand.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::{InitArgs, SignArgs, read_text, write_whole};
use crate::{
    adapters::{clock::SystemClock, keys::WitnessKey, witness::MemoryFiles},
    app::{
        config::Tls,
        server::{bind, stop_on_signals},
        tls,
    },
    core::{
        export::keys::VerifierKey,
        witness::request::{AddCheckpoint, Refusal},
    },
    edge,
    services::witness::{Witness, WitnessError},
};

const CONFIG: &str = "witness.toml";
const KEYS: &str = "keys";
const STATE: &str = "state";
const VKEY: &str = "witness.vkey";
/// Longest configuration in bytes, and longest file with a log's key.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// `witness.toml`. Unknown keys are refused.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    listen: Listen,
    #[serde(default, rename = "log")]
    logs: Vec<Log>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Listen {
    address: SocketAddr,
    tls: Option<Tls>,
}

impl Default for Listen {
    fn default() -> Self {
        Self { address: SocketAddr::from(([127, 0, 0, 1], 7444)), tls: None }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    vkey: String,
}

impl Config {
    fn load(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(CONFIG);
        let read = || -> anyhow::Result<Self> {
            let bytes = fs::metadata(&path)?.len();
            if bytes > CONFIG_BYTES_MAX {
                bail!("it has {bytes} bytes; at most {CONFIG_BYTES_MAX} are read");
            }
            Ok(toml::from_str(&fs::read_to_string(&path)?)?)
        };
        let mut config = read().with_context(|| {
            format!("{}; `lineproof witness init {} --name …` makes a witness", path.display(), dir.display())
        })?;
        if !config.listen.address.ip().is_loopback() && config.listen.tls.is_none() {
            bail!(
                "{}: listen.address: only loopback addresses may be used without [listen.tls]; set certificate and key, or use 127.0.0.1",
                path.display()
            );
        }
        if let Some(tls) = &mut config.listen.tls {
            let files = [Some(&mut tls.certificate), Some(&mut tls.key), tls.client_ca.as_mut()];
            files.into_iter().flatten().for_each(|file| *file = dir.join(&*file));
        }
        Ok(config)
    }

    fn log_keys(&self) -> anyhow::Result<Vec<VerifierKey>> {
        self.logs.iter().map(|log| log_key(&log.vkey).with_context(|| format!("{CONFIG}: {}", log.vkey))).collect()
    }
}

fn log_key(text: &str) -> anyhow::Result<VerifierKey> {
    let key = VerifierKey::parse(text.trim()).map_err(anyhow::Error::msg)?;
    if !key.is_log() {
        bail!("this is a witness's key; a witness vouches for logs");
    }
    Ok(key)
}

/// `lineproof witness init`.
pub(super) fn init(args: &InitArgs) -> anyhow::Result<()> {
    let dir = &args.dir;
    if dir.join(CONFIG).exists() || dir.join(KEYS).exists() {
        bail!("{} is a witness already; nothing was changed", dir.display());
    }
    // A log that changes its key hands out several.
    let read = |path: &PathBuf| -> anyhow::Result<Vec<VerifierKey>> {
        let name = || path.display().to_string();
        let text = fs::read_to_string(path).with_context(name)?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(|line| log_key(line).with_context(name)).collect()
    };
    let logs: Vec<Vec<VerifierKey>> = args.log.iter().map(read).collect::<anyhow::Result<_>>()?;
    let logs = logs.concat();
    fs::create_dir_all(dir.join(STATE)).with_context(|| dir.display().to_string())?;
    let cosigner = WitnessKey::create(&dir.join(KEYS), &args.name)?;
    let vkey = cosigner.verifier_key();
    write_whole(&dir.join(VKEY), &format!("{}\n", vkey.line()))?;
    // Last, so that a half-made folder is not taken for a whole one.
    write_whole(&dir.join(CONFIG), &template(&logs))?;
    fs::File::open(dir)?.sync_all()?;
    println!("made {}", dir.display());
    println!("verifier key, for the plants and auditors (also in {}):", dir.join(VKEY).display());
    println!("  {}", vkey.line());
    println!("  fingerprint {}", vkey.fingerprint());
    println!(
        "never bring {} back from a backup or snapshot: a witness that forgets could vouch for two histories",
        dir.join(STATE).display()
    );
    let first = if logs.is_empty() { "name the logs" } else { "look at the address" };
    println!("next: {first} in {}, then `lineproof witness serve {}`", dir.join(CONFIG).display(), dir.display());
    Ok(())
}

fn template(logs: &[VerifierKey]) -> String {
    let mut text = String::from(
        r#"# A witness of transparency logs, c2sp.org/tlog-witness. Paths are relative to this file's folder.
# Changes take effect when the witness starts again.

[listen]
address = "127.0.0.1:7444"
# Without TLS only loopback addresses are allowed.
# [listen.tls]
# certificate = "tls/witness.pem"
# key = "tls/witness.key"
# client_ca = "tls/plants.pem"          # set: plants must show a certificate of this authority

# The logs this witness vouches for, each by the key the plant handed out. Another [[log]] with the same name and a new
# key lets a plant change its key.
"#,
    );
    if logs.is_empty() {
        text += "# [[log]]\n# vkey = \"plant.example/line-log+c74f20a3+ARpc2Q…\"\n";
    }
    for log in logs {
        text += &format!("[[log]]\nvkey = {}\n", toml::Value::String(log.line()));
    }
    text
}

fn open(dir: &Path, config: &Config) -> anyhow::Result<Witness> {
    let cosigner = WitnessKey::open(&dir.join(KEYS))?;
    let memory = Arc::new(MemoryFiles::open(&dir.join(STATE))?);
    Ok(Witness::new(cosigner, config.log_keys()?, memory, Arc::new(SystemClock::new())))
}

/// `lineproof witness serve`.
pub(super) fn serve(dir: &Path) -> anyhow::Result<()> {
    let config = Config::load(dir)?;
    let witness = Arc::new(open(dir, &config)?);
    if config.logs.is_empty() {
        tracing::warn!("no [[log]] is configured; every request will be answered 404");
    }
    let acceptor = config.listen.tls.as_ref().map(tls::acceptor).transpose()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = bind(config.listen.address, "listen.address").await?;
        let stopper = stop_on_signals()?;
        let how = match &config.listen.tls {
            None => "plain text, loopback only; set [listen.tls] to serve a network",
            Some(Tls { client_ca: None, .. }) => "TLS",
            Some(_) => "TLS, with certificates of plants",
        };
        println!("listening on {} ({how}) as {}", listener.local_addr()?, witness.verifier_key().key_id());
        edge::witness::serve(listener, acceptor, witness.clone(), stopper).await;
        anyhow::Ok(())
    })?;
    match witness.stopped() {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// `lineproof witness sign`.
pub(super) fn sign(args: &SignArgs) -> anyhow::Result<()> {
    let dir = &args.dir;
    let witness = open(dir, &Config::load(dir)?)?;
    let name = || args.file.display().to_string();
    let request = AddCheckpoint::parse(&read_text(&args.file)?).with_context(name)?;
    let origin = request.origin().with_context(name)?;
    let cosigned = match witness.add_checkpoint(&request) {
        Err(WitnessError::Refused(Refusal::OtherSize { known })) => bail!(
            "{}: this witness cosigned {known} entries of {origin} last, and the request starts at {}; \
             ask the plant for `lineproof witness request --old {known}`. A log that has fewer than {known} entries now was rolled back",
            name(),
            request.old
        ),
        Err(WitnessError::Refused(refusal @ Refusal::Inconsistent(_))) => bail!(
            "{}: NOT COSIGNED. {refusal}. Keep this file and {}: both are signed by the log's key and cannot both be true",
            name(),
            dir.join(STATE).join(crate::services::witness::place(&origin)).display()
        ),
        other => other.with_context(name)?,
    };
    // What others cosigned goes along, unchecked: the plant checks it.
    let note = cosigned.note_with_others(&request.note);
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("{}.cosigned", args.file.display())));
    write_whole(&out, &note)?;
    println!("cosigned {} entries of {origin} as {}", cosigned.facts().size, witness.verifier_key().key_id());
    println!("wrote {}; the plant takes it in with `lineproof witness import`", out.display());
    Ok(())
}

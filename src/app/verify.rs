//! `lineproof verify FILE --key VKEYFILE`: the auditor's command. It needs no network, no server and no trust.

mod against;

use std::{
    fs::File,
    io::{self, IsTerminal as _, Read as _, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use serde::Serialize;

use crate::core::{
    export::{
        CHECKPOINT, FILE_BYTES_MAX, Lang,
        challenge::Answer,
        keys::{KEYS_MAX, Keys},
        verify::{
            Asked, Findings, LogFiles, Problem, take_handover, verify_challenge, verify_checkpoint, verify_export,
            verify_log, verify_passport, verify_receipt, verify_request,
        },
        words,
    },
    lineage::{
        checkpoint::{CHECKPOINT_BYTES_MAX, VKEY_BYTES_MAX},
        entry::ENTRY_BYTES_MAX,
        passport::PASSPORT_BYTES_MAX,
        receipt::RECEIPT_BYTES_MAX,
    },
    witness::{
        compare::Comparison,
        policy::{POLICY_BYTES_MAX, Policy, PolicyError},
        request::REQUEST_BYTES_MAX,
    },
};

/// Bytes of a key file: as many keys as are read, each with a line of notes.
const KEY_FILE_BYTES_MAX: u64 = (KEYS_MAX * VKEY_BYTES_MAX * 4) as u64;

/// The tag of a COSE_Sign1, and its array of four.
const RECEIPT_START: [u8; 2] = [0xd2, 0x84];

/// Check a passport, a receipt, an export, an answer to a challenge, a data directory or a checkpoint, offline.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Exit status: 0 all is proven, 1 something is wrong, 2 the command was used wrongly.")]
pub struct VerifyArgs {
    /// A passport (.tlog-proof), an export (.zip), an answer to a challenge, a data directory, a signed checkpoint, or a
    /// receipt (.receipt.cbor) with its entry (.entry.json) beside it.
    pub file: PathBuf,
    /// File with the log's public key, from the plant by another way than FILE; several keys, one per line, are fine.
    #[arg(long, value_name = "VKEYFILE", required_unless_present = "policy")]
    pub key: Option<PathBuf>,
    /// c2sp.org/tlog-policy file: which witnesses must have cosigned. Its logs are trusted where no --key is given.
    #[arg(long, value_name = "POLICY")]
    pub policy: Option<PathBuf>,
    /// From a key of --key to the one after it: the proof that the plant gives when the log's key has changed. Several are
    /// taken one after the other.
    #[arg(long, value_name = "HANDOVER")]
    pub handover: Vec<PathBuf>,
    /// What another auditor holds of the same log; two histories of it are told apart and shown.
    #[arg(long, value_name = "OTHER")]
    pub against: Option<PathBuf>,
    /// The nonce you gave, when FILE is the answer to a challenge.
    #[arg(long, value_name = "HEX")]
    pub nonce: Option<String>,
    /// How many entries you asked for, when FILE is the answer to a challenge.
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Demand that the picked decisions were decided again, when FILE is the answer to a challenge.
    #[arg(long)]
    pub replays: bool,
    /// Facts for machines instead of sentences.
    #[arg(long)]
    pub json: bool,
    /// Language of the sentences, en or de; otherwise from the environment.
    #[arg(long)]
    pub lang: Option<Lang>,
}

/// Checks, says what was checked on standard output, and returns 0 or 1; 2 when there was nothing to check.
#[must_use]
pub fn run(args: &VerifyArgs) -> ExitCode {
    match check(args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("lineproof verify: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Checks FILE, says what was checked on standard output, and whether all of it holds.
///
/// # Errors
/// When there was nothing to check: a file that cannot be read, no key.
pub fn check(args: &VerifyArgs) -> anyhow::Result<bool> {
    let lang = args.lang.unwrap_or_else(lang_of_environment);
    let mut keys = keys_of(args)?;
    let handed = take_handovers(&args.handover, &mut keys)?;
    let subject = Subject::open(&args.file)?;
    let other = args.against.as_deref().map(Subject::open).transpose()?;
    let asked = Asked { nonce: args.nonce.as_deref(), count: args.count, replays: args.replays };
    if asked != Asked::default() && !matches!(subject, Subject::Challenge(_)) {
        bail!("--nonce, --count and --replays go with the answer to a challenge; {} is none", args.file.display());
    }
    let mut findings = match handed {
        Findings { problem: None, steps } => {
            let found = subject.verify(&keys, &asked, args.json);
            Findings { steps: steps.into_iter().chain(found.steps).collect(), ..found }
        }
        broken => broken,
    };
    let compared = other.as_ref().map(|other| against::compare(&subject, other, &keys)).transpose();
    let compared = compared.unwrap_or_else(|problem| {
        findings.problem.get_or_insert(problem);
        None
    });
    let mut out = io::stdout().lock();
    if args.json {
        print_json(&mut out, &findings, subject.kind(), compared.as_ref(), lang)?;
    } else {
        let compared = compared.as_ref().zip(args.against.as_deref());
        print_words(&mut out, &findings, compared, &args.file, lang)?;
    }
    match compared.map(|compared| compared.shows) {
        Some(shows @ (Comparison::OtherLog | Comparison::Unlinked { .. })) if findings.is_good() => {
            bail!("{}", words::comparison(&shows, lang))
        }
        Some(Comparison::Fork { .. }) => Ok(false),
        _ => Ok(findings.is_good()),
    }
}

/// Checks `file` with the keys in `key` and says the same as the command, each line behind `indent`; whether all is
/// proven.
///
/// # Errors
/// When file or key cannot be read.
pub fn check_and_print(file: &Path, key: &Path, indent: &str) -> anyhow::Result<bool> {
    let findings = Subject::open(file)?.verify(&read_keys(key)?, &Asked::default(), true);
    let mut text = Vec::new();
    print_words(&mut text, &findings, None, file, lang_of_environment())?;
    let mut out = io::stdout().lock();
    for line in String::from_utf8_lossy(&text).lines() {
        writeln!(out, "{indent}{line}")?;
    }
    Ok(findings.is_good())
}

/// POSIX order: LC_ALL, LC_MESSAGES, LANG. What is no language of ours is English.
fn lang_of_environment() -> Lang {
    let set = ["LC_ALL", "LC_MESSAGES", "LANG"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    set.and_then(|locale| locale.parse().ok()).unwrap_or_default()
}

/// The keys that were given, and the policy to hold them to.
fn keys_of(args: &VerifyArgs) -> anyhow::Result<Keys> {
    let keys = args.key.as_deref().map(read_keys).transpose()?;
    let Some(path) = &args.policy else { return keys.context("no key was given") };
    let policy = read_policy(path)?;
    if keys.is_none() && policy.logs().is_empty() {
        return Err(PolicyError::NoLog).with_context(|| path.display().to_string());
    }
    Ok(keys.unwrap_or_else(|| Keys::new(Vec::new())).with_policy(policy))
}

/// Trusts the keys that handovers lead to; the first that does not hold ends it.
fn take_handovers(paths: &[PathBuf], keys: &mut Keys) -> anyhow::Result<Findings> {
    let mut findings = Findings { steps: Vec::new(), problem: None };
    for path in paths {
        let bytes = read_bounded(path, FILE_BYTES_MAX)?;
        let text = std::str::from_utf8(&bytes).ok().filter(|text| text.len() <= PASSPORT_BYTES_MAX);
        let not_one = || Problem::NotRecognised { reason: format!("{} is no handover", path.display()) };
        match text.ok_or_else(not_one).and_then(|text| take_handover(text, keys)) {
            Ok((step, _)) => findings.steps.push(step),
            Err(problem) => return Ok(Findings { problem: Some(problem), ..findings }),
        }
    }
    Ok(findings)
}

/// # Errors
/// When the file cannot be read or is no policy.
pub(super) fn read_policy(path: &Path) -> anyhow::Result<Policy> {
    let bytes = read_bounded(path, POLICY_BYTES_MAX as u64)?;
    Policy::parse(&bytes).with_context(|| path.display().to_string())
}

fn read_keys(path: &Path) -> anyhow::Result<Keys> {
    let text = read_bounded(path, KEY_FILE_BYTES_MAX)?;
    let text = String::from_utf8(text).with_context(|| format!("{}: a key file is text", path.display()))?;
    text.parse().with_context(|| path.display().to_string())
}

/// What is checked.
enum Subject {
    Passport(Vec<u8>),
    /// The answer to a challenge.
    Challenge(Vec<u8>),
    Export(Vec<u8>),
    Log(PathBuf),
    /// A signed note.
    Checkpoint(Vec<u8>),
    /// A COSE receipt, and the entry it is of.
    Receipt {
        receipt: Vec<u8>,
        entry: Vec<u8>,
    },
    /// A checkpoint with the proof from an earlier size, as `lineproof witness request` writes it.
    Request(Vec<u8>),
    Other {
        reason: String,
    },
}

impl Subject {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let metadata = std::fs::metadata(path).with_context(|| path.display().to_string())?;
        if metadata.is_dir() {
            let inner = path.join("log");
            let log = if inner.is_dir() { inner } else { path.to_owned() };
            if !log.join(CHECKPOINT).is_file() {
                bail!("{} is no data directory: it has no log/checkpoint", path.display());
            }
            return Ok(Self::Log(log));
        }
        let bytes = read_bounded(path, FILE_BYTES_MAX)?;
        Ok(if bytes.starts_with(b"PK\x03\x04") {
            Self::Export(bytes)
        } else if bytes.starts_with(b"c2sp.org/tlog-proof") {
            Self::Passport(bytes)
        } else if bytes.starts_with(&RECEIPT_START) && bytes.len() <= RECEIPT_BYTES_MAX {
            let beside = entry_beside(path);
            let entry = read_bounded(&beside, ENTRY_BYTES_MAX as u64)
                .with_context(|| format!("a receipt is checked with its entry, expected in {}", beside.display()))?;
            Self::Receipt { receipt: bytes, entry }
        } else if Answer::is_one(&bytes) {
            Self::Challenge(bytes)
        } else if bytes.starts_with(b"old ") && bytes.len() <= REQUEST_BYTES_MAX {
            Self::Request(bytes)
        } else if bytes.len() <= CHECKPOINT_BYTES_MAX && String::from_utf8_lossy(&bytes).contains("\n\n— ") {
            Self::Checkpoint(bytes)
        } else {
            Self::Other { reason: unrecognised(path, bytes.len()) }
        })
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Passport(_) => "passport",
            Self::Receipt { .. } => "receipt",
            Self::Challenge(_) => "challenge",
            Self::Export(_) => "export",
            Self::Log(_) => "log",
            Self::Checkpoint(_) => "checkpoint",
            Self::Request(_) => "request",
            Self::Other { .. } => "unknown",
        }
    }

    fn verify(&self, keys: &Keys, asked: &Asked<'_>, quiet: bool) -> Findings {
        let failed = |problem| Findings { steps: Vec::new(), problem: Some(problem) };
        match self {
            Self::Passport(bytes) if bytes.len() > PASSPORT_BYTES_MAX => {
                failed(Problem::TooLarge { what: "the passport", max: PASSPORT_BYTES_MAX as u64 })
            }
            Self::Passport(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => verify_passport(text, keys),
                Err(_) => failed(Problem::NotRecognised { reason: "it begins like a passport but is no UTF-8".into() }),
            },
            Self::Receipt { receipt, entry } => verify_receipt(receipt, entry, keys),
            Self::Challenge(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => verify_challenge(text, asked, keys),
                Err(_) => failed(Problem::NotRecognised { reason: "it begins like an answer but is no UTF-8".into() }),
            },
            Self::Export(bytes) => verify_export(bytes, keys),
            Self::Log(path) => verify_log(&Directory(path), keys, &mut progress(quiet)),
            Self::Checkpoint(bytes) => verify_checkpoint(bytes, keys),
            Self::Request(bytes) => verify_request(bytes, keys),
            Self::Other { reason } => failed(Problem::NotRecognised { reason: reason.clone() }),
        }
    }
}

/// Why a file is nothing that can be checked, as far as its name tells.
fn unrecognised(path: &Path, bytes: usize) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if let Some(stem) = name.strip_suffix(".entry.json") {
        return format!(
            "it is an entry, which its receipt proves; verify {stem}.receipt.cbor with the entry beside it"
        );
    }
    match bytes {
        0 => "it is empty; fetch it again".into(),
        _ if name.ends_with(".receipt.cbor") => {
            format!("it is named like a receipt, but its {bytes} bytes are none; fetch it again")
        }
        _ => format!("its {bytes} bytes begin neither like a ZIP file nor like a tlog-proof"),
    }
}

/// Where the entry of a receipt lies: beside `part.receipt.cbor` in `part.entry.json`.
#[must_use]
pub fn entry_beside(receipt: &Path) -> PathBuf {
    let name = receipt.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(".cbor").unwrap_or(&name);
    receipt.with_file_name(format!("{}.entry.json", stem.strip_suffix(".receipt").unwrap_or(stem)))
}

/// A percentage on a terminal, nothing elsewhere.
fn progress(quiet: bool) -> impl FnMut(u64, u64) {
    let show = !quiet && io::stderr().is_terminal();
    move |done, total| {
        if show {
            eprint!("\r{:3} %", done * 100 / total.max(1));
            if done == total {
                eprint!("\r     \r");
            }
        }
    }
}

/// A log below a directory.
pub(super) struct Directory<'a>(pub &'a Path);

impl LogFiles for Directory<'_> {
    fn read(&self, path: &str, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
        match File::open(self.0.join(path)) {
            Ok(file) => read_file(file, bytes_max).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn read_bounded(path: &Path, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    let file = File::open(path).with_context(|| path.display().to_string())?;
    read_file(file, bytes_max).with_context(|| path.display().to_string())
}

fn read_file(file: File, bytes_max: u64) -> io::Result<Vec<u8>> {
    let expected = file.metadata()?.len().min(bytes_max);
    let mut bytes = Vec::with_capacity(usize::try_from(expected).unwrap_or_default() + 1);
    file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("it has more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

fn print_words(
    out: &mut impl Write,
    findings: &Findings,
    compared: Option<(&against::Compared, &Path)>,
    file: &Path,
    lang: Lang,
) -> io::Result<()> {
    for step in &findings.steps {
        writeln!(out, "  ok  {}", words::step(step, lang))?;
    }
    if let Some(problem) = &findings.problem {
        writeln!(out, "  {}  {}", lang.pick("NO", "NEIN"), words::wrong(problem, lang))?;
        writeln!(out, "      {}", words::meaning(problem, lang))?;
    }
    if let Some((compared, other)) = compared {
        compared.print(out, other, lang)?;
    }
    let shown = file.display();
    // What is genuine by itself is still half of a fork.
    if findings.is_good() && !compared.is_some_and(|(compared, _)| compared.is_fork()) {
        writeln!(out, "{}", lang.pick(format!("{shown} is genuine."), format!("{shown} ist echt.")))?;
        return findings.steps.iter().try_for_each(|step| match words::warning(step, lang) {
            Some(warning) => writeln!(out, "{warning}"),
            None => Ok(()),
        });
    }
    writeln!(out, "{}", lang.pick(format!("{shown} is REFUSED."), format!("{shown} wird ABGELEHNT.")))?;
    match compared {
        Some((compared, other)) => compared.print_evidence(out, [file, other]),
        None => Ok(()),
    }
}

#[derive(Serialize)]
struct Facts {
    kind: &'static str,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<ProblemFacts>,
    steps: Vec<StepFacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comparison: Option<against::ComparisonFacts>,
}

#[derive(Serialize)]
struct StepFacts {
    text: String,
    #[serde(flatten)]
    facts: serde_json::Value,
}

#[derive(Serialize)]
struct ProblemFacts {
    code: &'static str,
    meaning: &'static str,
    text: String,
}

fn print_json(
    out: &mut impl Write,
    findings: &Findings,
    kind: &'static str,
    compared: Option<&against::Compared>,
    lang: Lang,
) -> anyhow::Result<()> {
    let step = |step| -> anyhow::Result<StepFacts> {
        Ok(StepFacts { text: words::step(step, lang), facts: serde_json::to_value(step)? })
    };
    let facts = Facts {
        kind,
        ok: findings.is_good() && compared.is_none_or(against::Compared::is_good),
        problem: findings.problem.as_ref().map(|problem| ProblemFacts {
            code: problem.code(),
            meaning: words::meaning(problem, lang),
            text: words::wrong(problem, lang),
        }),
        steps: findings.steps.iter().map(step).collect::<anyhow::Result<_>>()?,
        comparison: compared.map(|compared| compared.facts(lang)),
    };
    serde_json::to_writer_pretty(&mut *out, &facts)?;
    writeln!(out)?;
    Ok(())
}

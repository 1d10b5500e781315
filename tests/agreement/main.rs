//! Two verifiers that share no line, ours and `clients/verify-py`, judge thousands of changed exports, passports and
//! logs. Both must accept the same and refuse the same.
//!
//! `LINEPROOF_SEED` and `LINEPROOF_MUTANTS` choose others and more; `LINEPROOF_KEEP` names a folder that gets one case of
//! every way and every verdict, for the test of the page in a browser. Python comes from `LINEPROOF_PYTHON`, which
//! `scripts/verify-py-env.sh` prints.

mod answers;
mod dice;
mod forge;
mod mutate;
mod periods;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use dice::Dice;
use lineproof::core::export::{
    keys::Keys,
    verify::{Asked, Findings, LogFiles, Problem, Step, verify_challenge, verify_export, verify_log, verify_passport},
};
use mutate::Golden;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const SEED: u64 = 20_261_125;
const MUTANTS: usize = 12_000;

/// What a verifier said.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    /// The step or the code, and why.
    Refused(String, String),
    /// The key file is none.
    Unusable,
}

impl Verdict {
    fn name(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Refused(..) => "refused",
            Self::Unusable => "unusable",
        }
    }
}

/// The Python verifier in one process.
struct Python {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Python {
    fn start() -> Self {
        let given = std::env::var("LINEPROOF_PYTHON").ok().filter(|path| !path.is_empty());
        let python = given.unwrap_or_else(|| {
            let script = Command::new(format!("{ROOT}/scripts/verify-py-env.sh")).output().expect("the script starts");
            assert!(
                script.status.success(),
                "no Python with `cryptography`:\n{}",
                String::from_utf8_lossy(&script.stderr)
            );
            String::from_utf8(script.stdout).expect("a path").trim().to_owned()
        });
        let mut child = Command::new(&python)
            .args([&format!("{ROOT}/clients/verify-py/lineproof_verify.py"), "--batch"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{python}: {error}"));
        let (input, output) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        Self { child, input, output: BufReader::new(output) }
    }

    fn judge(&mut self, evidence: &Path, keys: &Path) -> Verdict {
        writeln!(self.input, "{}\t{}", evidence.display(), keys.display()).expect("the verifier reads on");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the verifier answers");
        let mut parts = line.trim_end().splitn(3, '\t');
        match parts.next() {
            Some("accepted") => Verdict::Accepted,
            Some("refused") => {
                let mut part = || parts.next().unwrap_or_default().to_owned();
                Verdict::Refused(part(), part())
            }
            Some("unusable") => Verdict::Unusable,
            _ => panic!("the Python verifier broke on {}: {line:?}", evidence.display()),
        }
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What our verifier says, and whether only the part of step 8 was wrong that needs this very release.
fn ours(findings: Result<Findings, ()>) -> (Verdict, bool) {
    let Ok(findings) = findings else { return (Verdict::Unusable, false) };
    let Some(problem) = findings.problem else { return (Verdict::Accepted, false) };
    let only_here = matches!(problem, Problem::Derived { .. } | Problem::Recipe { .. });
    (Verdict::Refused(problem.code().into(), format!("{problem:?}").chars().take(300).collect()), only_here)
}

fn judge_bytes(evidence: &[u8], keys: &str) -> Result<Findings, ()> {
    let keys: Keys = keys.parse().map_err(|_| ())?;
    let no =
        |reason: &str| Findings { steps: Vec::new(), problem: Some(Problem::NotRecognised { reason: reason.into() }) };
    Ok(if evidence.starts_with(b"PK\x03\x04") {
        verify_export(evidence, &keys)
    } else if evidence.starts_with(b"lineproof challenge") {
        std::str::from_utf8(evidence)
            .map_or_else(|_| no("no UTF-8"), |text| verify_challenge(text, &Asked::default(), &keys))
    } else if evidence.starts_with(b"c2sp.org/tlog-proof") {
        std::str::from_utf8(evidence).map_or_else(|_| no("no UTF-8"), |text| verify_passport(text, &keys))
    } else {
        no("neither ZIP nor passport")
    })
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

fn table(title: &str, counts: &BTreeMap<String, usize>) {
    println!("{title}");
    for (name, count) in counts {
        println!("  {count:6}  {name}");
    }
}

#[test]
fn both_verifiers_agree_on_thousands_of_changed_exports_and_passports() {
    let (seed, mutants) = (number("LINEPROOF_SEED", SEED), number("LINEPROOF_MUTANTS", MUTANTS as u64) as usize);
    println!("LINEPROOF_SEED={seed} LINEPROOF_MUTANTS={mutants}");
    let vectors = |name: &str| fs::read(format!("{ROOT}/docs/spec/vectors/{name}")).expect("the vector is there");
    let golden = Golden {
        export: vectors("export.zip"),
        passport: vectors("export.tlog-proof"),
        keys: String::from_utf8(vectors("export.vkey")).expect("a key file is text"),
    };
    let folder = tempfile::tempdir().expect("a folder");
    let (evidence, keys) = (folder.path().join("evidence"), folder.path().join("keys"));
    let keep = std::env::var("LINEPROOF_KEEP").ok().map(PathBuf::from);
    if let Some(folder) = keep.as_ref().filter(|folder| folder.join("of-agreement").exists()) {
        fs::remove_dir_all(folder).expect("the cases of an earlier run can be removed");
    }
    let mut python = Python::start();
    let mut dice = Dice(seed);
    let (mut by_step, mut by_code, mut by_way) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut with_periods = 0;
    let (mut accepted, mut refused, mut only_ours, mut wrong) = (0, 0, 0, Vec::new());
    for at in 0..mutants {
        let case = mutate::case(&mut dice, &golden);
        fs::write(&evidence, &case.evidence).expect("the folder takes files");
        fs::write(&keys, &case.keys).expect("the folder takes files");
        let theirs = python.judge(&evidence, &keys);
        let findings = judge_bytes(&case.evidence, &case.keys);
        let closes = |step: &Step| matches!(step, Step::Periods { totals, .. } if totals.periods > 0);
        let has_periods = findings.as_ref().is_ok_and(|findings| findings.steps.iter().any(closes));
        let (ours, only_here) = ours(findings);
        *by_way.entry(format!("{}: {}", case.what, theirs.name())).or_default() += 1;
        if let Some(folder) = &keep {
            keep_case(folder, &case, &theirs);
        }
        if let Verdict::Refused(step, _) = &theirs {
            let kind = match &case.evidence[..] {
                zip if zip.starts_with(b"PK") => "export",
                text if text.starts_with(b"lineproof") => "answer",
                _ => "passport",
            };
            *by_step.entry(format!("{kind}, step {step}")).or_default() += 1;
        }
        if let Verdict::Refused(code, _) = &ours {
            *by_code.entry(code.clone()).or_default() += 1;
        }
        match (&ours, &theirs) {
            (Verdict::Accepted, Verdict::Accepted) => {
                accepted += 1;
                with_periods += usize::from(has_periods);
            }
            (Verdict::Refused(..), Verdict::Refused(..)) | (Verdict::Unusable, Verdict::Unusable) => refused += 1,
            (Verdict::Refused(..), Verdict::Accepted) if only_here => only_ours += 1,
            _ => {
                let kept = format!("{ROOT}/target/tmp/disagreement-{seed}-{at}");
                fs::create_dir_all(format!("{ROOT}/target/tmp")).expect("the build folder takes folders");
                fs::write(&kept, &case.evidence).expect("the build folder takes files");
                fs::write(format!("{kept}.vkey"), &case.keys).expect("the build folder takes files");
                wrong.push(format!("{at}, {}: lineproof {ours:?}, Python {theirs:?}\n    {kept}", case.what));
            }
        }
    }
    table("what was changed, and what Python said", &by_way);
    table("where Python refused", &by_step);
    table("why lineproof refused", &by_code);
    println!("{accepted} accepted by both, {refused} refused by both, {only_ours} where only this release can see it");
    assert!(mutants > 0 && accepted > 0 && refused > 0, "nothing was compared");
    assert!(
        wrong.is_empty(),
        "{} of {mutants} disagreements:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(40)].join("\n")
    );
    // Periods that add up, periods that do not, and periods in which something is missing.
    let seen = |code: &str| by_code.get(code).copied().unwrap_or_default();
    assert!(mutants < 1000 || seen("period") * 100 > mutants && seen("incomplete") * 100 > mutants, "{by_code:?}");
    assert!(
        mutants < 1000 || with_periods * 50 > mutants,
        "only {with_periods} exports with closed periods were accepted"
    );
    // A change that a digest already catches says little: many must get past signatures and digests.
    let deep: usize =
        by_step.iter().filter(|(step, _)| ["5", "6", "7", "8"].iter().any(|n| step.ends_with(n))).map(|(_, n)| n).sum();
    assert!(mutants < 1000 || deep * 5 > mutants, "only {deep} of {mutants} reach the checks of what entries say");
}

/// Keeps the first case of each way and verdict: `<way> <verdict>.bin`, its `.vkey`, and in `.said` what Python said.
fn keep_case(folder: &Path, case: &mutate::Case, theirs: &Verdict) {
    let said = match theirs {
        Verdict::Refused(step, _) => format!("refused {step}"),
        other => other.name().to_owned(),
    };
    let name: String =
        format!("{} {said}", case.what).chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    let path = folder.join(&name);
    if path.with_extension("bin").exists() {
        return;
    }
    fs::create_dir_all(folder).expect("the folder can be made");
    fs::write(folder.join("of-agreement"), "").expect("the folder takes files");
    fs::write(path.with_extension("bin"), &case.evidence).expect("the folder takes files");
    fs::write(path.with_extension("vkey"), &case.keys).expect("the folder takes files");
    fs::write(path.with_extension("said"), said).expect("the folder takes files");
}

/// A log as files.
struct Folder(PathBuf);

impl LogFiles for Folder {
    fn read(&self, path: &str, bytes_max: u64) -> std::io::Result<Option<Vec<u8>>> {
        match fs::read(self.0.join(path)) {
            Ok(bytes) if bytes.len() as u64 > bytes_max => Err(std::io::Error::other("too long")),
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[test]
fn both_verifiers_agree_on_changed_logs() {
    let (seed, mutants) = (number("LINEPROOF_SEED", SEED), number("LINEPROOF_MUTANTS", MUTANTS as u64) as usize / 30);
    println!("LINEPROOF_SEED={seed}, {mutants} logs");
    let folder = tempfile::tempdir().expect("a folder");
    let keys = folder.path().join("keys");
    let line = format!("{}\n", forge::vkey_line(forge::ORIGIN, 1, &forge::log_key()));
    fs::write(&keys, &line).expect("the folder takes files");
    let trusted: Keys = line.parse().expect("our own line");
    let mut python = Python::start();
    let mut dice = Dice(seed);
    let (mut by_way, mut by_code, mut wrong) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for at in 0..mutants {
        let (what, files) = mutate::log_case(&mut dice);
        let data = folder.path().join("data");
        let log = data.join("log");
        for (path, bytes) in &files {
            let path = log.join(path);
            fs::create_dir_all(path.parent().expect("below the log")).expect("the folder takes folders");
            fs::write(path, bytes).expect("the folder takes files");
        }
        let theirs = python.judge(&data, &keys);
        // Without a checkpoint there is no log: our command says that before it verifies.
        let findings = if log.join("checkpoint").is_file() {
            Ok(verify_log(&Folder(log), &trusted, &mut |_, _| {}))
        } else {
            Err(())
        };
        let (ours, _) = ours(findings);
        *by_way.entry(format!("{what}: {}", theirs.name())).or_default() += 1;
        if let Verdict::Refused(code, _) = &ours {
            *by_code.entry(code.clone()).or_default() += 1;
        }
        if ours.name() != theirs.name() {
            wrong.push(format!("{at}, {what}: lineproof {ours:?}, Python {theirs:?}"));
        }
        fs::remove_dir_all(&data).expect("the folder is ours");
    }
    table("what was changed in a log, and what Python said", &by_way);
    table("why lineproof refused a log", &by_code);
    assert!(mutants < 300 || ["period", "incomplete"].iter().all(|code| by_code.contains_key(*code)), "{by_code:?}");
    assert!(by_way.keys().any(|way| way.ends_with("accepted")) && by_way.keys().any(|way| way.ends_with("refused")));
    assert!(wrong.is_empty(), "{} of {mutants} disagreements:\n{}", wrong.len(), wrong.join("\n"));
}

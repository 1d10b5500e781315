//! The auditor's journey over a real log on a real disk: passports, exports and the whole log, genuine and tampered.

use std::{
    collections::HashMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, mpsc},
};

use lineproof::{
    adapters::{
        archive::PackArchive,
        clock::SystemClock,
        keys::Keys as PlantKeys,
        log::{LogConfig, LogHandle, LogStore, LogStoreReader},
        sled_index::SledIndex,
    },
    app::verify::check_and_print,
    core::{
        export::{keys::Keys, manifest::Selection, verify, writer::ExportError},
        lineage::{
            entry::{Access, AccessEvent, ClockState, Entry, Gap, GapKind, GapReason},
            private::{Opening, PrivateField},
        },
    },
    ports::{
        lineage::{Append, LogReader as _, LogWriter as _, PrivateRecord},
        texts::{RecipeTexts, TextError},
    },
    services::{
        audit::{Asker, AuditError, AuditService},
        history::Indexer,
        retention::RetentionBook,
    },
    types::{Blake3Digest, EntryIndex, Verdict},
};
use tempfile::TempDir;

const ORIGIN: &str = "plant.example/line-log";

/// Texts in memory.
#[derive(Default)]
struct Texts(HashMap<Blake3Digest, Vec<u8>>);

impl RecipeTexts for Texts {
    fn recipe(&self, digest: Blake3Digest) -> Result<Option<Vec<u8>>, TextError> {
        Ok(self.0.get(&digest).cloned())
    }

    fn calibration(&self, digest: Blake3Digest) -> Result<Option<Vec<u8>>, TextError> {
        Ok(self.0.get(&digest).cloned())
    }

    fn model_card(&self, model: Blake3Digest) -> Result<Option<Vec<u8>>, TextError> {
        Ok(self.0.get(&model).cloned())
    }
}

/// A plant with a log, an index and keys in one folder.
struct Plant {
    dir: TempDir,
    writer: LogHandle,
    reader: Arc<LogStoreReader>,
    index: Arc<SledIndex>,
    audit: AuditService,
    keys: Keys,
}

impl Plant {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let plant_keys = PlantKeys::create(&data.join("keys"), ORIGIN).unwrap();
        fs::write(dir.path().join("log.vkey"), plant_keys.verifier_key()).unwrap();
        let signer = Arc::new(plant_keys.log_signer());
        let archive = Arc::new(PackArchive::open(data.join("images"), plant_keys.image_sealer()).unwrap());
        let (index, _) = SledIndex::open(&data.join("index"), plant_keys.index_key()).unwrap();
        let index = Arc::new(index);
        let config = LogConfig { disk_reserve_bytes: 0, ..LogConfig::new(&data) };
        let sealer = plant_keys.private_sealer();
        let (writer, reader, _) = LogStore::open(config, signer.clone(), sealer, archive, index.clone()).unwrap();
        let reader = Arc::new(reader);
        let audit = AuditService {
            witnessed: None,
            reader: reader.clone(),
            writer: Arc::new(writer.clone()),
            index: index.clone(),
            texts: Arc::new(Texts::default()),
            signer,
            clock: Arc::new(SystemClock::new()),
            book: Arc::new(RetentionBook::new(reader.clone(), index.clone())),
        };
        let keys = plant_keys.verifier_key().parse().unwrap();
        Self { dir, writer, reader, index, audit, keys }
    }

    fn append(&self, entry: &Entry, openings: Vec<Opening>) -> EntryIndex {
        let (done, outcome) = mpsc::channel();
        let private = PrivateRecord { openings, image_at: None };
        let append = Append { entry: entry.encode().unwrap(), private, frame: None };
        self.writer.submit(append, Box::new(move |result| done.send(result).unwrap()));
        match outcome.recv().unwrap().unwrap() {
            lineproof::ports::lineage::Appended::Written(receipt) => receipt.index,
            other => panic!("{other:?}"),
        }
    }

    /// `parts` decisions, every tenth rejected, and one gap.
    fn inspect(&self, parts: u64) {
        for part in 0..parts {
            let (entry, openings) = decision(part);
            self.append(&entry, openings);
            if part == 5 {
                self.append(&gap(), Vec::new());
            }
        }
        self.writer.checkpoint_now().unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn is_genuine(&self, file: &Path) -> bool {
        check_and_print(file, &self.path("log.vkey"), "").unwrap()
    }
}

fn opening(field: PrivateField, value: &str) -> Opening {
    Opening { field, salt: Blake3Digest::of(value.as_bytes()).0[..16].try_into().unwrap(), value: value.into() }
}

/// A decision as the golden entry vector writes it, with this part's own values.
fn decision(part: u64) -> (Entry, Vec<Opening>) {
    let serial = opening(PrivateField::Serial, &format!("FL-{part:06}"));
    let lot = opening(PrivateField::Lot, &format!("L-{}", part / 100));
    let digest = |text: &str| Blake3Digest::of(text.as_bytes());
    let (score, verdict, reasons) = if part % 10 == 3 {
        ("0x3f400000 0.75", "NOT_OK", r#""reasons":["reject:scratch"],"#)
    } else {
        ("0x3dcccccd 0.1", "OK", "")
    };
    let text = format!(
        concat!(
            r#"{{"camera":"cam-1","clock":"free","frame":{{"counter":{counter},"id":"f{part}"}},"#,
            r#""image":{{"archive":"none:not_sampled","bytes":9,"encoded":"{image}","format":"png","height":64,"#,
            r#""pfnc":"0x01080001","pixels":"{image}","width":64}},"kind":"decision","line":"line-1","#,
            r#""model":{{"digest":"{model}","version":"1.0.0"}},"private":{{"lot":"{lot}","serial":"{serial}"}},"#,
            r#""product":"flange","quality":{{"focus":"0x3dcccccd 0.1","mean":"0x3f000000 0.5","#,
            r#""saturated":"0x00000000 0"}},{reasons}"recipe":{{"digest":"{recipe}","name":"flange@1.0.0"}},"#,
            r#""runtime":{{"batch":1,"cpu":"avx2","optimisation":"all","provider":"cpu","threads":1,"#,
            r#""version":"1.32.0"}},"scores":{{"comparator":">=","decision":"{score}","labels":[{{"label":"scratch","#,
            r#""reject":"0x3f19999a 0.6","review":"0x3e99999a 0.3","score":"{score}"}}]}},"#,
            r#""software":"lineproof 0.1.0","station":"station-1","time":"2026-11-23T06:00:{second:02}.{part:09}Z","#,
            r#""v":1,"verdict":"{verdict}"}}"#
        ),
        counter = if part > 5 { part + 2 } else { part },
        image = digest(&part.to_string()),
        lot = lot.commitment(),
        model = digest("model"),
        part = part,
        reasons = reasons,
        recipe = digest("recipe"),
        score = score,
        second = part % 60,
        serial = serial.commitment(),
        verdict = verdict,
    );
    (Entry::parse(text.as_bytes()).unwrap(), vec![lot, serial])
}

fn gap() -> Entry {
    Entry::Gap(Gap {
        camera: "cam-1".parse().unwrap(),
        clock: ClockState::Free,
        count: 2,
        first: Some(6),
        frame: None,
        kind: GapKind::Kind,
        last: Some(7),
        line: "line-1".parse().unwrap(),
        reason: GapReason::CounterJump,
        station: "station-1".parse().unwrap(),
        time: "2026-11-23T06:00:05.5Z".parse().unwrap(),
        v: 1,
    })
}

#[test]
fn an_export_is_found_with_and_without_the_index_and_is_the_same() {
    let plant = Plant::new();
    plant.inspect(300);
    let some = Selection { verdicts: vec![Verdict::NotOk], ..Selection::default() };
    let (mut without, mut with) = (Vec::new(), Vec::new());
    // Each export notes itself in the log, so both are made under the checkpoint of this moment.
    let report = plant.audit.export(&some, &Asker::local(), &mut without, &mut |_| {}).unwrap();
    let findings = verify::verify_export(&without, &plant.keys);
    assert!(findings.is_good(), "{:?}", findings.problem);
    assert_eq!((report.counts.decisions, report.counts.not_ok, report.counts.gaps), (30, 30, 1));
    Indexer::new(plant.reader.clone(), plant.index.clone()).catch_up(|_| {}).unwrap();
    assert!(lineproof::ports::index::FrameIndex::indexed_to(&*plant.index).0 >= 300);
    let again = plant.audit.export(&some, &Asker::local(), &mut with, &mut |_| {}).unwrap();
    assert_eq!(again.counts, report.counts);
    if again.checkpoint == report.checkpoint {
        assert!(with == without);
    }
}

#[test]
fn every_access_is_in_the_log_before_it_is_given() {
    let plant = Plant::new();
    plant.inspect(20);
    let who = opening(PrivateField::Client, "auditor@oem.example");
    let asker = Asker { who: Some(who.clone()), ..Asker::local() };
    let before = plant.reader.size();
    plant.audit.passports_by_serial(&"FL-000003".parse().unwrap(), &asker).unwrap();
    let everything = Selection::default();
    let mut sink = Vec::new();
    plant.audit.export(&everything, &asker, &mut sink, &mut |_| {}).unwrap();
    let entries: Vec<Access> = (before..plant.reader.size())
        .filter_map(|index| match Entry::parse(&plant.reader.entry(EntryIndex(index)).unwrap()).unwrap() {
            Entry::Access(access) => Some(access),
            _ => None,
        })
        .collect();
    assert_eq!(
        entries.iter().map(|access| access.event).collect::<Vec<_>>(),
        [AccessEvent::Passport, AccessEvent::Export]
    );
    assert!(entries.iter().all(|access| access.private.client == Some(who.commitment())));
    // The plant can open who it was, the export does not say it.
    assert!(!String::from_utf8_lossy(&sink).contains("auditor@oem.example"));
}

#[test]
fn the_packages_of_gos_checksum_database_accept_a_passport_and_a_log_as_files() {
    let plant = Plant::new();
    plant.inspect(300);
    let [log, older, file] = [plant.path("data/log"), plant.path("older"), plant.path("p.tlog-proof")];
    fs::copy(log.join("checkpoint"), &older).unwrap();
    plant.inspect(400);
    let passport = plant.audit.passport_by_index(EntryIndex(413), &Asker::local()).unwrap();
    fs::write(&file, &passport.text).unwrap();
    plant.writer.checkpoint_now().unwrap();
    let Some(go) = go_check(&plant) else {
        // Past the test harness, which keeps what tests print.
        writeln!(std::io::stderr(), "skipped: no Go (Debian: golang-go, golang-golang-x-mod-dev)").unwrap();
        return;
    };
    let said = |arguments: &[&Path]| {
        let output = Command::new(&go).arg(plant.path("log.vkey")).args(arguments).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let genuine = |(is_genuine, text): (bool, String)| assert!(is_genuine && text.starts_with("genuine"), "{text}");
    genuine(said(&[&file]));
    genuine(said(&[&log, &older]));
    let forged = |(is_genuine, text): (bool, String)| assert!(!is_genuine && text.contains("REFUSED"), "{text}");
    fs::write(&file, passport.text.replace("index 413", "index 412")).unwrap();
    forged(said(&[&file]));
    let bundle = log.join("tile/entries/000");
    fs::write(&bundle, String::from_utf8_lossy(&fs::read(&bundle).unwrap()).replacen("\"OK\"", "\"KO\"", 1)).unwrap();
    forged(said(&[&log, &older]));
}

/// `tests/go/check.go`, built with Debian's packages and no network; `None` where there is no Go.
fn go_check(plant: &Plant) -> Option<PathBuf> {
    let sources = Path::new("/usr/share/gocode");
    if !sources.join("src/golang.org/x/mod/sumdb").is_dir() {
        return None;
    }
    let built = plant.path("go-check");
    let status = Command::new("go")
        .args(["build", "-o"])
        .args([&built, Path::new("tests/go/check.go")])
        .env("GO111MODULE", "off")
        .env("GOPATH", sources)
        .env("GOPROXY", "off")
        .env("GOFLAGS", "")
        .env("GOCACHE", plant.path("go-cache"))
        .status()
        .ok()?;
    assert!(status.success(), "tests/go/check.go does not build");
    Some(built)
}

#[test]
fn a_passport_names_its_part_and_a_forged_one_is_refused() {
    let plant = Plant::new();
    plant.inspect(20);
    let passports = plant.audit.passports_by_serial(&"FL-000013".parse().unwrap(), &Asker::local()).unwrap();
    let [passport] = passports.as_slice() else { panic!("{passports:?}") };
    let file = plant.path("part.tlog-proof");
    fs::write(&file, &passport.text).unwrap();
    assert!(plant.is_genuine(&file));
    let index_line = format!("index {}", passport.index);
    fs::write(&file, passport.text.replace(&index_line, "index 1")).unwrap();
    assert!(!plant.is_genuine(&file));
    let unknown = plant.audit.passports_by_serial(&"FL-999999".parse().unwrap(), &Asker::local());
    assert!(matches!(unknown, Err(AuditError::NoPart { .. })));
}

#[test]
fn the_whole_log_verifies_and_one_changed_byte_in_any_file_is_found() {
    let plant = Plant::new();
    plant.inspect(300);
    plant.writer.shutdown();
    let data = plant.path("data");
    assert!(plant.is_genuine(&data));
    assert!(plant.is_genuine(&data.join("log")));
    let mut files = Vec::new();
    list(&data.join("log"), &mut files);
    let size = plant.reader.checkpoint().unwrap().size;
    let mut changed = 0;
    for file in files {
        // A partial tile of an earlier checkpoint is no part of this one.
        let current = |width: &str| width.parse::<u64>().is_ok_and(|width| width == size % 256 || width == size / 256);
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if file.parent().is_some_and(|parent| parent.to_string_lossy().ends_with(".p")) && !current(&name) {
            continue;
        }
        let bytes = fs::read(&file).unwrap();
        let mut bad = bytes.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        fs::write(&file, &bad).unwrap();
        assert!(!plant.is_genuine(&data), "{}", file.display());
        fs::write(&file, &bytes).unwrap();
        changed += 1;
    }
    assert!(changed >= 6, "{changed}");
    assert!(plant.is_genuine(&data));
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { list(&path, files) } else { files.push(path) }
    }
}

#[test]
fn an_empty_selection_says_so() {
    let plant = Plant::new();
    plant.inspect(3);
    let none = Selection { product: Some("gear".parse().unwrap()), ..Selection::default() };
    let error = plant.audit.export(&none, &Asker::local(), std::io::sink(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, AuditError::Export(ExportError::Nothing)), "{error}");
}

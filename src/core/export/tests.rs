//! What an auditor may rely on, told with a small plant's exports.

use std::io::Write as _;

use ed25519_dalek::{Signer as _, SigningKey};
use rayon::prelude::*;

use super::{
    CHECKPOINT, DECISIONS_CSV, DECISIONS_JSONL, ENTRIES, Lang, MANIFEST, PAGE, PRIVATE, README, REPORT,
    keys::{Keys, VerifierKey},
    manifest::{self, Selection, Statement, SubjectDigest},
    sample::{ORIGIN, Plant},
    verify::{Findings, Step, verify_export, verify_passport},
    words,
    zip::{Archive, ZipWriter},
};
use crate::{
    core::lineage::{
        entry::Entry,
        passport::Passport,
        private::{Opening, PrivateField},
    },
    types::{EntryIndex, Verdict},
};

fn small() -> (Plant, Vec<u8>, Keys) {
    let plant = Plant::new(12);
    let (bytes, _) = plant.export(&Selection::default()).unwrap();
    let keys = plant.vkey().into();
    (plant, bytes, keys)
}

fn code(findings: &Findings) -> &'static str {
    findings.problem.as_ref().map_or("good", super::verify::Problem::code)
}

fn files(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    use std::io::Read as _;
    let archive = Archive::open(bytes).unwrap();
    let read = |name: &str| {
        let mut out = Vec::new();
        archive.reader(name).unwrap().read_to_end(&mut out).unwrap();
        (name.to_owned(), out)
    };
    archive.names().map(read).collect()
}

/// Packs files as a writer would; the manifest stays as it is.
fn pack(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut zip = ZipWriter::new(&mut out);
    let (manifest, others) = files.split_last().unwrap();
    for (name, bytes) in others {
        zip.add::<std::io::Error>(name, |member| member.write_all(bytes)).unwrap();
    }
    zip.finish(&manifest.0, &manifest.1).unwrap();
    out
}

/// What a dishonest holder of the key would do: change files, then sign a manifest that fits them.
fn resign(plant: &Plant, bytes: &[u8], change: impl Fn(&mut Vec<(String, Vec<u8>)>, &mut Statement)) -> Vec<u8> {
    let mut files = files(bytes);
    let key = plant.vkey();
    let (_, envelope) = files.pop().unwrap();
    let mut statement = manifest::open(&envelope, &key.key_id(), key.key()).unwrap();
    change(&mut files, &mut statement);
    statement.subject.clear();
    let mut out = Vec::new();
    let mut zip = ZipWriter::new(&mut out);
    for (name, bytes) in &files {
        let written = zip.add::<std::io::Error>(name, |member| member.write_all(bytes)).unwrap();
        let digest = SubjectDigest { sha256: written.sha256.hex() };
        statement.subject.push(manifest::Subject { digest, name: name.clone() });
    }
    statement.predicate.container = zip.digest();
    let payload = statement.payload();
    let signature = plant.key.sign(&manifest::pae(&payload)).to_bytes();
    zip.finish(MANIFEST, &manifest::envelope(&payload, &key.key_id(), signature)).unwrap();
    out
}

fn edit(files: &mut [(String, Vec<u8>)], name: &str, from: &str, to: &str) {
    let (_, bytes) = files.iter_mut().find(|(found, _)| found == name).unwrap();
    let text = String::from_utf8(std::mem::take(bytes)).unwrap();
    assert!(text.contains(from), "{name} holds no {from:?}");
    *bytes = text.replacen(from, to, 1).into_bytes();
}

#[test]
fn an_export_is_genuine_and_says_so_step_by_step() {
    let plant = Plant::new(300);
    let (bytes, report) = plant.export(&Selection::default()).unwrap();
    let findings = verify_export(&bytes, &plant.vkey().into());
    assert!(findings.is_good(), "{:?}", findings.problem);
    assert_eq!(findings.steps.len(), 12);
    assert!(findings.steps.contains(&Step::Thresholds { decisions: 300 }));
    assert!(findings.steps.contains(&Step::Derived { files: 5 }));
    assert_eq!(report.counts.decisions, 300);
}

#[test]
fn a_selection_of_parts_is_proven_in_the_whole_log() {
    let plant = Plant::new(300);
    let (bytes, report) = plant.export(&rejects()).unwrap();
    assert!(report.counts.ok == 0 && report.counts.not_ok > 5 && report.counts.gaps == 3);
    let findings = verify_export(&bytes, &plant.vkey().into());
    assert!(findings.is_good(), "{:?}", findings.problem);
    let one = Selection { part: Some("FL-480007".parse().unwrap()), ..Selection::default() };
    let (bytes, report) = plant.export(&one).unwrap();
    assert_eq!(report.counts.decisions, 1);
    assert!(verify_export(&bytes, &plant.vkey().into()).is_good());
}

#[test]
fn no_flipped_byte_of_an_export_passes() {
    let (_, bytes, keys) = small();
    // Compressed data is covered by one SHA-256, where a sample tells as much as all; everything else byte by byte.
    let manifest = bytes.windows(MANIFEST.len()).position(|window| window == MANIFEST.as_bytes()).unwrap();
    let header = |at: usize| bytes[at.saturating_sub(100)..at].windows(2).any(|window| window == b"PK");
    let passed: Vec<usize> = (0..bytes.len())
        .into_par_iter()
        .filter(|at| at % 13 == 0 || header(*at) || *at >= manifest)
        .filter(|at| {
            let mut bad = bytes.clone();
            bad[*at] ^= 1 << (at % 8);
            verify_export(&bad, &keys).is_good()
        })
        .collect();
    assert!(passed.is_empty(), "{passed:?}");
}

#[test]
fn a_cut_or_longer_file_is_refused() {
    let (_, bytes, keys) = small();
    for cut in (0..bytes.len()).step_by(97) {
        assert_eq!(code(&verify_export(&bytes[..cut], &keys)), "zip_layout", "{cut}");
    }
    assert_eq!(code(&verify_export(&[&bytes[..], b"\0"].concat(), &keys)), "zip_layout");
    assert_eq!(code(&verify_export(b"", &keys)), "zip_layout");
}

#[test]
fn missing_extra_reordered_and_changed_files_are_refused() {
    let (_, bytes, keys) = small();
    let original = files(&bytes);
    assert_eq!(pack(&original), bytes);
    let check = |change: &dyn Fn(&mut Vec<(String, Vec<u8>)>)| {
        let mut files = original.clone();
        change(&mut files);
        code(&verify_export(&pack(&files), &keys))
    };
    assert_eq!(check(&|files| drop(files.remove(0))), "missing_file");
    assert_eq!(check(&|files| files.insert(1, ("extra.txt".into(), b"x".to_vec()))), "extra_file");
    assert_eq!(check(&|files| files.swap(0, 1)), "file_order");
    let recipe = format!("recipes/{}.toml", "00".repeat(32));
    assert_eq!(
        check(&|files| {
            let at = files.iter().position(|(name, _)| name.starts_with("recipes/")).unwrap();
            files.insert(at, (recipe.clone(), b"x".to_vec()));
        }),
        "unlisted_file"
    );
    for name in [README, CHECKPOINT, DECISIONS_CSV, DECISIONS_JSONL, ENTRIES, PRIVATE, REPORT] {
        let found = check(&|files| files.iter_mut().find(|(found, _)| found == name).unwrap().1.push(b'\n'));
        assert_eq!(found, if name == CHECKPOINT { "checkpoint" } else { "file_changed" }, "{name}");
    }
}

#[test]
fn another_key_is_refused_and_one_of_several_keys_is_enough() {
    let (plant, bytes, _) = small();
    let stranger = VerifierKey::log(ORIGIN, SigningKey::from_bytes(&[1; 32]).verifying_key());
    assert_eq!(code(&verify_export(&bytes, &stranger.clone().into())), "checkpoint");
    let several: Keys = format!("{}\n{}\n", stranger.line(), plant.vkey().line()).parse().unwrap();
    assert!(verify_export(&bytes, &several).is_good());
}

#[test]
fn the_keys_holder_cannot_sign_an_export_that_disagrees_with_the_log() {
    let (plant, bytes, keys) = small();
    let check = |change: &dyn Fn(&mut Vec<(String, Vec<u8>)>, &mut Statement)| {
        code(&verify_export(&resign(&plant, &bytes, change), &keys))
    };
    assert_eq!(check(&|_, _| {}), "good");
    assert_eq!(check(&|files, _| edit(files, ENTRIES, "\"width\":512", "\"width\":513")), "root");
    assert_eq!(check(&|files, _| edit(files, ENTRIES, "\"OK\"", "\"NOT_OK\"")), "root");
    assert_eq!(check(&|files, _| edit(files, PRIVATE, "FL-480003", "FL-480004")), "opening");
    assert_eq!(check(&|files, _| edit(files, DECISIONS_CSV, "FL-480003", "FL-480004")), "derived");
    assert_eq!(check(&|files, _| edit(files, DECISIONS_JSONL, "FL-480003", "FL-480004")), "derived");
    assert_eq!(check(&|files, _| edit(files, REPORT, "12 images", "13 images")), "derived");
    assert_eq!(check(&|files, _| edit(files, super::LOG_VKEY, "plant-7", "plant-8")), "key_copy");
    assert_eq!(check(&|files, _| edit(files, super::ENTRIES_INDEX, "7\n", "07\n")), "file_form");
    assert_eq!(check(&|_, statement| statement.predicate.counts.ok += 1), "counts");
    assert_eq!(check(&|_, statement| statement.predicate.checkpoint.size += 1), "checkpoint_differs");
    assert_eq!(
        check(&|_, statement| statement.predicate.selection.product = Some("gear".parse().unwrap())),
        "unselected"
    );
    assert_eq!(check(&|files, _| files.retain(|(name, _)| !name.starts_with("recipes/"))), "text_missing");
    assert_eq!(
        check(&|files, _| {
            let recipe = files.iter_mut().find(|(name, _)| name.starts_with("recipes/")).unwrap();
            recipe.1.push(b'\n');
        }),
        "text_digest"
    );
}

#[test]
fn tables_of_another_release_are_said_not_to_be_compared() {
    let (plant, bytes, keys) = small();
    let other = resign(&plant, &bytes, |files, statement| {
        statement.predicate.software = "lineproof 0.0.9, rendering 0".into();
        edit(files, REPORT, "Lineproof", "Lineprouf");
    });
    let findings = verify_export(&other, &keys);
    assert!(findings.is_good(), "{:?}", findings.problem);
    assert!(matches!(findings.steps.last(), Some(Step::NotDerived { .. })));
}

#[test]
fn what_was_lost_is_said_to_be_absent() {
    let mut plant = Plant::new(12);
    plant.with_texts = false;
    let (bytes, _) = plant.export(&Selection::default()).unwrap();
    let findings = verify_export(&bytes, &plant.vkey().into());
    assert!(findings.is_good(), "{:?}", findings.problem);
    assert!(findings.steps.contains(&Step::Texts { recipes: 0, calibrations: 0, absent: 2 }));
}

#[test]
fn a_report_shows_names_and_serials_without_running_them() {
    let mut plant = Plant::new(2);
    let evil = "<script>alert(1)</script>";
    let opening = Opening { field: PrivateField::Serial, salt: [9; 16], value: evil.into() };
    let Entry::Decision(mut decision) = Entry::parse(plant.last_decision()).unwrap() else { unreachable!() };
    decision.private.serial = Some(opening.commitment());
    decision.private.lot = None;
    decision.verdict = Verdict::NotDecidable;
    decision.reasons = vec!["<img src=x>".into()];
    plant.push_bytes(Entry::Decision(decision).encode().unwrap(), vec![opening]);
    let (bytes, _) = plant.export(&Selection::default()).unwrap();
    assert!(verify_export(&bytes, &plant.vkey().into()).is_good());
    let (_, report) = files(&bytes).into_iter().find(|(name, _)| name == REPORT).unwrap();
    let report = String::from_utf8(report).unwrap();
    assert!(!report.contains("<script") && !report.contains("<img"));
    assert!(report.contains("&lt;script&gt;"));
}

fn passport(plant: &Plant, index: u64) -> Passport {
    use super::writer::Source as _;
    let mut openings = plant.openings(index).unwrap();
    openings.retain(|opening| opening.field != PrivateField::Client);
    Passport {
        index: EntryIndex(index),
        entry: plant.entries[index as usize].clone(),
        openings,
        proof: plant.inclusion(index).unwrap(),
        checkpoint: plant.note(),
    }
}

#[test]
fn no_flipped_byte_of_a_passport_passes() {
    let plant = Plant::new(12);
    let keys: Keys = plant.vkey().into();
    let text = passport(&plant, 9).to_text();
    let findings = verify_passport(&text, &keys);
    assert!(findings.is_good(), "{:?}", findings.problem);
    for at in 0..text.len() {
        for bit in 0..8 {
            let mut bad = text.clone().into_bytes();
            bad[at] ^= 1 << bit;
            if let Ok(bad) = String::from_utf8(bad) {
                assert!(!verify_passport(&bad, &keys).is_good(), "byte {at} bit {bit}");
            }
        }
    }
}

fn rejects() -> Selection {
    Selection { verdicts: vec![Verdict::NotOk, Verdict::NotDecidable], ..Selection::default() }
}

/// A plant whose line announces three frames that never came, and counts more parts than frames.
fn lossy() -> Plant {
    let mut plant = Plant::new(12);
    let Ok(Entry::PeriodClose(previous)) = Entry::parse(plant.entries.last().unwrap()) else { unreachable!() };
    let close = plant.close(1013, 1015, Some(6), Some(&previous));
    plant.push_bytes(Entry::PeriodClose(Box::new(close)).encode().unwrap(), Vec::new());
    plant
}

/// The same plant, whose log then says that these frames were decided.
fn lying() -> Vec<u8> {
    let mut plant = Plant::new(12);
    let Ok(Entry::PeriodClose(previous)) = Entry::parse(plant.entries.last().unwrap()) else { unreachable!() };
    let mut close = plant.close(1013, 1015, None, Some(&previous));
    close.announced.unseen = None;
    (close.decided, close.missing_frames, close.missing) = (3, 0, Vec::new());
    // An honest writer refuses it, so it stands where this export cannot recount it and is moved there by hand.
    let honest = close.clone();
    plant.push_bytes(Entry::PeriodClose(Box::new(honest)).encode().unwrap(), Vec::new());
    let (bytes, _) = plant.export(&rejects()).unwrap();
    resign(&plant, &bytes, |_, statement| statement.predicate.selection = Selection::default())
}

#[test]
fn an_export_of_everything_counts_every_period_again_and_a_selection_says_that_it_cannot() {
    let plant = Plant::new(300);
    let periods = |selection: &Selection| {
        let (bytes, _) = plant.export(selection).unwrap();
        let findings = verify_export(&bytes, &plant.vkey().into());
        assert!(findings.is_good(), "{:?}", findings.problem);
        let found = findings.steps.into_iter().find_map(|step| match step {
            Step::Periods { totals, recounted, outside } => Some((totals, recounted, outside)),
            _ => None,
        });
        found.unwrap()
    };
    let (totals, recounted, outside) = periods(&Selection::default());
    assert_eq!((totals.periods, recounted, outside, totals.missing), (2, 2, 0, 0));
    assert_eq!((totals.frames, totals.decided, totals.gaps), (309, 300, 9));
    let (totals, recounted, outside) = periods(&rejects());
    assert_eq!((totals.periods, recounted, outside), (2, 0, 0));
}

#[test]
fn frames_that_the_line_announced_and_nobody_saw_refuse_the_export() {
    let plant = lossy();
    let (bytes, _) = plant.export(&Selection::default()).unwrap();
    let findings = verify_export(&bytes, &plant.vkey().into());
    assert_eq!(code(&findings), "incomplete");
    assert!(findings.steps.contains(&Step::Derived { files: 5 }), "all else is genuine and is said to be");
    let (_, report) = files(&bytes).into_iter().find(|(name, _)| name == REPORT).unwrap();
    assert!(String::from_utf8(report).unwrap().contains("NOT COMPLETE"));
}

#[test]
fn an_export_of_an_earlier_rendering_still_verifies() {
    let read = |name: &str| std::fs::read(format!("{}/docs/spec/vectors/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let keys: Keys = String::from_utf8(read("export.vkey")).unwrap().parse().unwrap();
    let findings = verify_export(&read("export-rendering-2.zip"), &keys);
    assert!(findings.is_good(), "{:?}", findings.problem);
    assert!(findings.steps.iter().any(|step| matches!(step, Step::NotDerived { .. })));
}

/// Everything a verifier prints about a good export and a tampered one.
fn told(findings: &Findings, lang: Lang) -> String {
    let mut out: String = findings.steps.iter().map(|step| format!("ok  {}\n", words::step(step, lang))).collect();
    if let Some(problem) = &findings.problem {
        out.push_str(&format!("NO  {}\n    {}\n", words::wrong(problem, lang), words::meaning(problem, lang)));
    }
    out
}

#[test]
fn a_verifier_speaks_plainly_in_english_and_german() {
    let (plant, bytes, keys) = small();
    let passport_text = passport(&plant, 9).to_text();
    let mut swapped = files(&bytes);
    edit(&mut swapped, DECISIONS_CSV, "NOT_OK", "OK");
    let swapped = pack(&swapped);
    let opening = resign(&plant, &bytes, |files, _| edit(files, PRIVATE, "FL-480003", "FL-480004"));
    let verdict = resign(&plant, &bytes, |files, _| edit(files, ENTRIES, "\"NOT_OK\"", "\"OK\""));
    let contradiction = {
        let mut plant = Plant::new(3);
        let lie = plant.last_decision().to_vec();
        plant.push_bytes(String::from_utf8(lie).unwrap().replace("\"OK\"", "\"NOT_OK\"").into_bytes(), Vec::new());
        plant.export(&Selection::default()).unwrap().0
    };
    let stranger: Keys = VerifierKey::log(ORIGIN, SigningKey::from_bytes(&[1; 32]).verifying_key()).into();
    let forged_entry = {
        let mut passport = passport(&plant, 9);
        passport.entry = String::from_utf8(passport.entry).unwrap().replace("\"NOT_OK\"", "\"OK\"").into_bytes();
        passport.to_text()
    };
    let cases = [
        ("export", verify_export(&bytes, &keys)),
        ("export with a changed table", verify_export(&swapped, &keys)),
        ("export with another serial", verify_export(&opening, &keys)),
        ("export with another verdict", verify_export(&verdict, &keys)),
        ("export of a log that contradicts itself", verify_export(&contradiction, &keys)),
        ("export under another key", verify_export(&bytes, &stranger)),
        ("export of a selection", verify_export(&plant.export(&rejects()).unwrap().0, &keys)),
        ("export of a line that lost frames", verify_export(&lossy().export(&Selection::default()).unwrap().0, &keys)),
        ("export whose close lies", verify_export(&lying(), &keys)),
        ("passport", verify_passport(&passport_text, &keys)),
        ("passport with another verdict", verify_passport(&forged_entry, &keys)),
    ];
    for (lang, name) in [(Lang::En, "english"), (Lang::De, "german")] {
        let text: String = cases.iter().map(|(case, found)| format!("== {case}\n{}\n", told(found, lang))).collect();
        insta::assert_snapshot!(name, without_sizes(&text));
    }
}

/// How many bytes an export has depends on the page in it, which is not what is told here.
fn without_sizes(text: &str) -> String {
    let of_bytes = |line: &str| line.contains(" bytes") || line.contains(" Bytes");
    let lines = text.lines().map(|line| match of_bytes(line) {
        true => line.replace(|character: char| character.is_ascii_digit(), "#"),
        false => line.to_owned(),
    });
    lines.map(|line| line + "\n").collect()
}

/// The golden export is read by today's verifier and by `clients/verify-py`. When the format or a text
/// changes on purpose, the rendering counts up and `LINEPROOF_BLESS=1 cargo test golden` writes it again.
#[test]
fn the_golden_export_still_verifies_and_is_still_written_the_same() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/spec/vectors");
    let plant = Plant::new(12);
    let (bytes, _) = plant.export(&rejects()).unwrap();
    let (zip, vkey, text) =
        (format!("{folder}/export.zip"), format!("{folder}/export.vkey"), format!("{folder}/export.tlog-proof"));
    if std::env::var_os("LINEPROOF_BLESS").is_some() {
        std::fs::write(&zip, &bytes).unwrap();
        std::fs::write(&vkey, format!("{}\n", plant.vkey().line())).unwrap();
        std::fs::write(&text, passport(&plant, 9).to_text()).unwrap();
    }
    let golden = std::fs::read(&zip).unwrap();
    let keys: Keys = std::fs::read_to_string(&vkey).unwrap().parse().unwrap();
    let findings = verify_export(&golden, &keys);
    assert!(findings.is_good(), "{:?}", findings.problem);
    assert!(verify_passport(&std::fs::read_to_string(&text).unwrap(), &keys).is_good());
    // An auditor with another build compares what was rendered: other bytes under the same name would be refused.
    assert!(
        findings.steps.iter().any(|step| matches!(step, Step::Derived { .. })),
        "the rendering was counted up: write the golden export again"
    );
    // The page is not compared by anybody, and may change without a new rendering; the manifest names its digest.
    let (golden, written) = (Archive::open(&golden).unwrap(), Archive::open(&bytes).unwrap());
    assert!(golden.names().eq(written.names()));
    for name in golden.names().filter(|name| ![PAGE, MANIFEST].contains(name)) {
        let read = |archive: &Archive<'_>| std::io::read_to_string(archive.reader(name).unwrap()).unwrap();
        assert!(read(&golden) == read(&written), "{name} is not as in the golden export: count the rendering up");
    }
    let page = std::io::read_to_string(written.reader(PAGE).unwrap()).unwrap();
    assert!(page == super::VERIFY_PAGE);
}

#[test]
fn the_verification_page_is_one_file_that_may_reach_nothing() {
    let page = super::VERIFY_PAGE;
    assert!(page.contains("content=\"default-src 'none'; script-src 'sha256-"));
    for reach in [" src=", " href=", "fetch(", "XMLHttpRequest", "WebSocket", "import(", "@import", "url("] {
        assert!(!page.contains(reach), "{reach}");
    }
}

#[test]
fn the_same_selection_gives_the_same_bytes() {
    let plant = Plant::new(300);
    let (first, report) = plant.export(&Selection::default()).unwrap();
    let (second, _) = plant.export(&Selection::default()).unwrap();
    assert!(first == second);
    assert_eq!(report.bytes, first.len() as u64);
    assert_eq!((report.counts.decisions, report.counts.gaps, report.counts.gap_frames), (300, 3, 9));
    assert_eq!(report.counts.openings, 600);
    if let Ok(path) = std::env::var("LINEPROOF_SAMPLE_EXPORT") {
        std::fs::write(path, first).unwrap();
    }
}

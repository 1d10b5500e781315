//! The operator's journey when a part or a person must be forgotten: erased here, proven as before, also when killed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use lineproof::edge::pb::{self, retention_service_client::RetentionServiceClient};

use crate::{
    evidence::{all_entries, entries, entries_told},
    faults::copy_folder,
    harness::{Plant, block_on, lineproof, part, request, simulated_png, skipped, text},
    syscalls::{has_strace, injected},
};

/// A plant that inspected `parts`, part 3 twice, and was stopped.
fn inspected(parts: u64) -> Plant {
    let plant = Plant::new();
    let service = plant.serve();
    block_on(async {
        let mut client = service.inspection().await;
        for number in 1..=parts {
            client.inspect(part(number)).await.unwrap();
        }
        client.inspect(part_3_again()).await.unwrap();
    });
    assert_eq!(service.stop().code, Some(0));
    plant
}

fn part_3_again() -> pb::InspectRequest {
    pb::InspectRequest { serial: "SN-00003".into(), ..part(500) }
}

pub fn run(plant: &Plant, arguments: &[&str]) -> String {
    let output = plant.run(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", text(&output));
    String::from_utf8(output.stdout).unwrap()
}

pub fn fails(plant: &Plant, arguments: &[&str]) -> String {
    let output = plant.run(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", text(&output));
    text(&output)
}

const ERASE_3: [&str; 6] = ["erase", "--part", "SN-00003", "--rule", "GDPR Art. 17, request of 2026-11-25", "--yes"];

/// The sealed private record behind an entry in the write-ahead log: what must not be found any more.
fn sealed(data: &Path, frame: &str) -> Vec<u8> {
    let wal = fs::read(data.join("wal/00000000000000000000.wal")).unwrap();
    let id = format!("\"id\":\"{frame}\"");
    let entry = all_entries(data).into_iter().find(|entry| entry.contains(&id)).unwrap();
    let at = wal.windows(entry.len()).position(|part| part == entry.as_bytes()).unwrap();
    // A frame has 60 bytes of header with the payload's length at 8, then two bytes and the entry.
    let payload = at - 2;
    let length = u32::from_be_bytes(wal[payload - 52..payload - 48].try_into().unwrap());
    wal[at + entry.len()..payload + length as usize].to_vec()
}

fn holds(data: &Path, secret: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for item in fs::read_dir(data).unwrap() {
        let path = item.unwrap().path();
        if path.is_dir() {
            found.extend(holds(&path, secret));
        } else if fs::read(&path).is_ok_and(|bytes| bytes.windows(secret.len()).any(|part| part == secret)) {
            found.push(path);
        }
    }
    found
}

/// Neither the sealed record nor a part of it is in any file.
fn assert_gone(data: &Path, records: &[Vec<u8>]) {
    for record in records {
        for piece in record.chunks_exact(24) {
            assert!(holds(data, piece).is_empty(), "{:?}", holds(data, piece));
        }
    }
}

fn report_of(zip: &Path) -> String {
    let mut archive = zip::ZipArchive::new(fs::File::open(zip).unwrap()).unwrap();
    std::io::read_to_string(archive.by_name("report.html").unwrap()).unwrap()
}

#[test]
fn an_erased_part_is_found_by_nobody_and_every_old_proof_still_verifies() {
    let plant = inspected(8);
    run(&plant, &["passport", "SN-00003", "--out", "old.tlog-proof"]);
    run(&plant, &["export", "--out", "old.zip"]);
    let secrets = [sealed(&plant.data(), "f3"), sealed(&plant.data(), "f500")];
    assert!(!holds(&plant.data(), &secrets[0]).is_empty(), "the record is where it is looked for");
    let before = all_entries(&plant.data());

    // It has to be wanted.
    let output = plant.run(&ERASE_3[..5]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    let dry = run(&plant, &[&ERASE_3[..5], &["--dry-run", "--json"]].concat());
    let dry: serde_json::Value = serde_json::from_str(&dry).unwrap();
    assert_eq!((dry["count"].as_u64(), dry["decisions"].as_u64()), (Some(2), Some(2)), "{dry}");
    assert_eq!(dry["recorded"].as_array().map(Vec::len), Some(0));
    assert!(
        run(&plant, &["history", "--part", "SN-00003", "--json"]).lines().count() == 2,
        "a dry run changes nothing"
    );
    let wrong = fails(&plant, &["erase", "--part", "SN-00003", "--rule", "SN-00003 asked", "--yes"]);
    assert!(wrong.contains("must not have the value in it"), "{wrong}");

    // On the running service.
    let service = plant.serve();
    let said = run(&plant, &ERASE_3);
    assert!(said.contains("erased, with its salt, from 2 entries, 2 of them decisions"), "{said}");
    assert_gone(&plant.data(), &secrets);
    assert_eq!(run(&plant, &["history", "--part", "SN-00003", "--json"]), "");
    let again = fails(&plant, &ERASE_3);
    assert!(again.contains("no entry holds this serial"), "{again}");
    let unknown = fails(&plant, &["passport", "SN-00003"]);
    assert!(unknown.contains("parts that were erased are not found by their serial number"), "{unknown}");
    // The service goes on, and knows the frames it knew.
    block_on(async {
        let mut client = service.inspection().await;
        assert!(client.inspect(part(3)).await.unwrap().into_inner().duplicate);
        assert!(!client.inspect(part(9)).await.unwrap().into_inner().duplicate);
        // Whoever reaches the service only over the network erases nothing.
        let mut stranger = RetentionServiceClient::new(service.channel().await);
        let status = stranger.list_holds(pb::ListHoldsRequest {}).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unimplemented, "{status}");
    });
    assert_eq!(service.stop().code, Some(0));

    // Everybody is told, by which rule.
    let shown = run(&plant, &["show", "line-1/cam-1/f3"]);
    assert!(shown.contains("serial    erased on 20") && shown.contains("GDPR Art. 17"), "{shown}");
    assert!(shown.contains("lot       LOT-7"), "only the serial number was erased: {shown}");
    let table = run(&plant, &["history", "--limit", "20"]);
    assert_eq!(table.matches(" erased ").count(), 2, "{table}");
    let index = shown.lines().next().unwrap().split_whitespace().nth(1).unwrap().to_owned();
    let passport = run(&plant, &["passport", &format!("#{index}"), "--out", "new.tlog-proof"]);
    assert!(passport.contains("it does not open the serial: erased on 20"), "{passport}");
    run(&plant, &["export", "--out", "new.zip"]);
    let report = report_of(&plant.folder().join("new.zip"));
    for words in
        ["Erased values", "Gelöschte Angaben", "GDPR Art. 17, request of 2026-11-25", "serial number erased, entry"]
    {
        assert!(report.contains(words), "{words}");
    }
    assert!(!report.contains("SN-00003"));
    // An export without such a decision says nothing of it.
    run(&plant, &["export", "--part", "SN-00004", "--out", "other.zip"]);
    assert!(!report_of(&plant.folder().join("other.zip")).contains("Erased values"));

    let after = all_entries(&plant.data());
    assert_eq!(after[..before.len()], before, "entries are never changed");
    let noted = entries(&plant.data(), "retention");
    assert_eq!(noted.len(), 1);
    assert!(
        noted[0].contains(r#""destroyed":{"serial":2}"#) && noted[0].contains(r#""event":"erased""#),
        "{}",
        noted[0]
    );
    let checked: serde_json::Value = serde_json::from_str(&run(&plant, &["fsck", "--json"])).unwrap();
    assert_eq!((checked["erased"].as_u64(), checked["unopened"].as_u64()), (Some(2), Some(2)), "{checked}");
    for evidence in ["old.tlog-proof", "old.zip", "new.tlog-proof", "new.zip", "other.zip", "data"] {
        run(&plant, &["verify", evidence, "--key", "data/log.vkey"]);
    }
    // Not findable in an index made anew either.
    run(&plant, &["reindex"]);
    assert_eq!(run(&plant, &["history", "--part", "SN-00003", "--json"]), "");
    assert_eq!(run(&plant, &["history", "--part", "SN-00004", "--json"]).lines().count(), 1);
    assert_gone(&plant.data(), &secrets);
}

#[test]
fn a_legal_hold_forbids_an_erasure_until_it_is_released() {
    let plant = inspected(6);
    let add = ["hold", "add", "--rule", "court order 7 O 12/26", "--part", "SN-00003"];
    let hold = run(&plant, &add).split([' ', ':']).nth(1).unwrap().to_owned();
    let refused = fails(&plant, &ERASE_3);
    assert!(refused.contains("court order 7 O 12/26") && refused.contains("nothing was erased"), "{refused}");
    assert_eq!(run(&plant, &["history", "--part", "SN-00003", "--json"]).lines().count(), 2);
    // Another part is not concerned.
    run(&plant, &["erase", "--part", "SN-00004", "--rule", "Art. 17", "--yes"]);
    let listed = run(&plant, &["hold", "list", "--json"]);
    assert!(listed.contains("\"part\":\"SN-00003\"") && listed.lines().count() == 1, "{listed}");

    let by_product = ["hold", "add", "--rule", "recall", "--product", "demo-part", "--to", "2262-01-01"];
    let second = run(&plant, &by_product).split([' ', ':']).nth(1).unwrap().to_owned();
    run(&plant, &["hold", "release", &hold, "--rule", "case closed"]);
    fails(&plant, &["hold", "release", &hold, "--rule", "case closed"]);
    assert!(fails(&plant, &ERASE_3).contains("recall"));
    run(&plant, &["hold", "release", &second, "--rule", "recall over"]);
    assert_eq!(run(&plant, &["hold", "list", "--json"]), "");
    let everything = fails(&plant, &["hold", "add", "--rule", "x"]);
    assert!(everything.contains("at least one"), "{everything}");

    // The hold itself names the part: it is forgotten there, too.
    let said = run(&plant, &ERASE_3);
    assert!(said.contains("from 3 entries, 2 of them decisions"), "{said}");
    let events: Vec<String> = entries(&plant.data(), "retention")
        .iter()
        .map(|entry| serde_json::from_str::<serde_json::Value>(entry).unwrap()["event"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(events, ["held", "erased", "held", "released", "released", "erased"]);
    run(&plant, &["fsck"]);
}

#[test]
fn a_hold_keeps_the_value_that_says_what_it_keeps() {
    let plant = inspected(3);
    // It concerns none of the decisions, because they are of another product.
    let add = ["hold", "add", "--rule", "case 9 O 4/26", "--lot", "LOT-7", "--product", "other-part"];
    let hold = run(&plant, &add).split([' ', ':']).nth(1).unwrap().to_owned();
    let erase = ["erase", "--lot", "LOT-7", "--rule", "contract ended", "--yes"];
    let refused = fails(&plant, &erase);
    assert!(refused.contains("case 9 O 4/26") && refused.contains("nothing was erased"), "{refused}");
    assert!(refused.contains(&format!("`lineproof hold release {hold}`")), "{refused}");
    let listed = run(&plant, &["hold", "list", "--json"]);
    assert!(listed.contains("\"lot\":\"LOT-7\""), "{listed}");
    assert_eq!(run(&plant, &["history", "--lot", "LOT-7", "--json"]).lines().count(), 4);
    run(&plant, &["hold", "release", &hold, "--rule", "case closed"]);
    let said = run(&plant, &erase);
    assert!(said.contains("from 5 entries, 4 of them decisions"), "{said}");
    run(&plant, &["fsck"]);
}

#[test]
fn a_hold_that_could_hold_nothing_is_refused() {
    let plant = inspected(1);
    for (from, to) in [("2026-04-01", "2026-03-01"), ("2026-03-01", "2026-03-01")] {
        let refused = fails(&plant, &["hold", "add", "--rule", "case 1", "--from", from, "--to", to]);
        assert!(refused.contains("holds nothing: --from must be before --to"), "{refused}");
    }
    assert_eq!(run(&plant, &["hold", "list", "--json"]), "");
}

#[test]
fn fsck_finds_an_erased_value_that_an_older_copy_brings_back() {
    let plant = Plant::new();
    let service = plant.serve();
    block_on(async {
        let mut client = service.inspection().await;
        let image = simulated_png(1);
        // More than a bundle: its private values lie in a file of their own, and still in the write-ahead log.
        for number in 1..=260 {
            client.inspect(request(number, image.clone())).await.unwrap();
        }
    });
    assert_eq!(service.stop().code, Some(0));
    let file = plant.data().join("private/000");
    let old = fs::read(&file).unwrap();
    run(&plant, &ERASE_3);
    assert_ne!(fs::read(&file).unwrap(), old);
    let clean = run(&plant, &["fsck"]);
    assert!(clean.contains("1 private value is gone"), "{clean}");
    fs::write(&file, old).unwrap();
    let said = fails(&plant, &["fsck"]);
    assert!(said.contains("is filed, though entry") && said.contains("an older copy was brought back"), "{said}");
}

#[test]
fn fsck_says_that_an_interrupted_erasure_cannot_be_read_and_what_to_do() {
    let plant = inspected(1);
    let erasing = plant.data().join("erasing");
    for (content, why) in [
        ("lineproof-erasing 1\nmany\n", "no erasure that this release can finish"),
        ("lineproof-erasing 1\n3\n{}\n", "it intends what is no entry of an erasure"),
    ] {
        fs::write(&erasing, content).unwrap();
        let said = fails(&plant, &["fsck"]);
        assert!(said.contains(why) && said.contains("Move the file away"), "{said}");
        assert!(!said.contains("the next start finishes it"), "{said}");
    }
    fs::remove_file(&erasing).unwrap();
    run(&plant, &["fsck"]);
}

#[test]
fn a_lot_and_a_person_are_erased_wherever_they_stand() {
    let plant = inspected(5);
    let said = run(&plant, &["erase", "--lot", "LOT-7", "--rule", "contract ended", "--yes"]);
    assert!(said.contains("from 6 entries"), "{said}");
    assert_eq!(run(&plant, &["history", "--lot", "LOT-7", "--json"]), "");
    assert_eq!(run(&plant, &["history", "--part", "SN-00003", "--json"]).lines().count(), 2);
    let nobody = fails(&plant, &["erase", "--person", "certificate blake3:00", "--rule", "Art. 17", "--yes"]);
    assert!(nobody.contains("no entry holds this client"), "{nobody}");
    run(&plant, &["fsck"]);
}

/// What one killed erasure left, after the next start.
#[derive(Debug, PartialEq)]
enum Left {
    Untouched,
    Erased,
}

#[test]
fn an_erasure_killed_at_any_system_call_is_finished_by_the_next_start_or_never_began() {
    if !has_strace() {
        return skipped("no strace that can inject");
    }
    let plant = inspected(6);
    let secrets = [sealed(&plant.data(), "f3"), sealed(&plant.data(), "f500")];
    let base = plant.folder().join("base");
    copy_folder(&plant.data(), &base);
    let kinds = entries_told(&base);
    let (mut untouched, mut erased) = (0, 0);
    for syscall in ["fsync", "fdatasync", "rename", "pwrite64", "unlink", "unlinkat", "write"] {
        for number in 1.. {
            fs::remove_dir_all(plant.data()).unwrap();
            copy_folder(&base, &plant.data());
            private_keys(&plant.data());
            let report = plant.folder().join("strace");
            let output = killed(&plant, &ERASE_3, syscall, number, &report);
            if output.status.success() {
                assert_eq!(injected(&report), 0, "killed, and it ended well");
                break;
            }
            match left(&plant, &secrets, kinds) {
                Left::Untouched => untouched += 1,
                Left::Erased => erased += 1,
            }
        }
    }
    assert!(untouched > 0 && erased > 5, "{untouched} killed before, {erased} after it was intended");
}

/// Runs a command on a plant's data directory that is killed at one of its system calls.
pub fn killed(plant: &Plant, arguments: &[&str], syscall: &str, number: u32, report: &Path) -> Output {
    let mut command = Command::new("strace");
    command.args(["-f", "-q", "-o"]).arg(report);
    command.args(["-e", &format!("trace={syscall}"), "-e", &format!("inject={syscall}:signal=KILL:when={number}")]);
    command.arg(lineproof().get_program()).args(arguments).env("LINEPROOF_DATA", plant.data());
    command.output().expect("strace runs")
}

/// Starts again without faults and says what became of the erasure: all or nothing, and nothing else is lost.
fn left(plant: &Plant, secrets: &[Vec<u8>], entries_before: usize) -> Left {
    let found = run(plant, &["history", "--part", "SN-00003", "--json"]).lines().count();
    assert_eq!(run(plant, &["history", "--limit", "50", "--json"]).lines().count(), 7, "a decision is lost");
    assert_eq!(run(plant, &["history", "--lot", "LOT-7", "--json"]).lines().count(), 7, "another value is lost");
    assert!(!plant.data().join("erasing").exists());
    run(plant, &["fsck"]);
    let noted = entries(&plant.data(), "retention").len();
    match found {
        2 => {
            assert_eq!((noted, entries_told(&plant.data())), (0, entries_before));
            Left::Untouched
        }
        0 => {
            assert_eq!((noted, entries_told(&plant.data())), (1, entries_before + 1));
            assert_gone(&plant.data(), secrets);
            Left::Erased
        }
        other => panic!("{other} of 2 decisions are still found"),
    }
}

/// Copied keys get the mode they had.
pub fn private_keys(data: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    for (name, mode) in [("keys", 0o700), ("keys/log.skey", 0o600), ("keys/master.key", 0o600)] {
        fs::set_permissions(data.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
}

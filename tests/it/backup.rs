//! The operator's journey: backups under load, killed, damaged, pruned; restored, and refused where it would be a lie.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use lineproof::edge::pb;
use tonic::Code;

use crate::{
    evidence::all_entries,
    harness::{Plant, Service, block_on, lineproof, part, request, simulated_png, skipped, text},
};

/// Longest wait for something that takes a second or two on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A plant with what its operator keeps elsewhere: a store, a backup key, a copy of `keys/`, the log's public key.
struct Kept {
    plant: Plant,
    recipient: String,
}

impl Kept {
    fn new() -> Self {
        let plant = Plant::new();
        let output = plant.run(&["backup", "--new-key", "backup.key"]);
        assert!(output.status.success(), "{}", text(&output));
        let said = text(&output);
        let recipient = said.split_whitespace().find(|word| word.starts_with("age1")).expect("a public key").to_owned();
        let keys = plant.folder().join("kept-keys");
        fs::create_dir(&keys).unwrap();
        fs::set_permissions(&keys, fs::Permissions::from_mode(0o700)).unwrap();
        for name in ["log.skey", "master.key"] {
            fs::copy(plant.data().join("keys").join(name), keys.join(name)).unwrap();
        }
        fs::copy(plant.vkey(), plant.folder().join("kept.vkey")).unwrap();
        Self { plant, recipient }
    }

    fn store(&self) -> PathBuf {
        self.plant.folder().join("store")
    }

    fn command(&self, more: &[&str]) -> Command {
        let mut command = lineproof();
        command.args(["backup", "--recipient", &self.recipient, "--to"]).arg(self.store()).args(more);
        command.current_dir(self.plant.folder()).env("LINEPROOF_DATA", self.plant.data());
        command
    }

    fn backup(&self, more: &[&str]) -> String {
        let output = self.command(more).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        text(&output)
    }

    /// Restores to a folder of this name beside the data directory.
    fn restore(&self, name: &str, more: &[&str]) -> Output {
        let mut command = lineproof();
        command.arg("restore").arg(self.store()).args(["--key", "kept.vkey", "--data", name]).args(more);
        for (option, kept) in [("--identity", "backup.key"), ("--keys", "kept-keys")] {
            if !more.contains(&option) {
                command.args([option, kept]);
            }
        }
        command.current_dir(self.plant.folder()).output().unwrap()
    }

    fn refuses(&self, more: &[&str], reason: &str) {
        let output = self.restore("refused", more);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(text(&output).contains(reason), "{reason:?} is not in {}", text(&output));
        for left in ["refused", "refused.restoring"] {
            assert!(!self.plant.folder().join(left).exists(), "{left} was left by a refused restore");
        }
    }

    fn restored(&self, name: &str, more: &[&str]) -> PathBuf {
        let output = self.restore(name, more);
        assert!(output.status.success(), "{}", text(&output));
        self.plant.folder().join(name)
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = files(&self.store().join("backups"))
            .iter()
            .filter_map(|path| path.file_name()?.to_str()?.strip_suffix(".manifest").map(str::to_owned))
            .collect();
        names.sort();
        names
    }

    fn blobs(&self) -> Vec<PathBuf> {
        files(&self.store().join("blobs"))
    }

    /// The blobs that some backup names.
    fn named(&self) -> BTreeSet<String> {
        let lists = self.names().into_iter().map(|name| self.store().join(format!("backups/{name}.list")));
        let read = |path: PathBuf| fs::read_to_string(path).expect("every manifest has its list");
        let ids = |list: String| list.lines().map(|line| line[..32].to_owned()).collect::<Vec<_>>();
        lists.map(read).flat_map(ids).collect()
    }
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(folder).into_iter().flatten().map(|item| item.unwrap().path()) {
            if item.is_dir() { folders.push(item) } else { found.push(item) }
        }
    }
    found.sort();
    found
}

fn serve(data: &Path) -> Service {
    let served = Service::spawn(lineproof().arg("serve").arg("--data").arg(data));
    served.unwrap_or_else(|ended| panic!("the service ended with {:?}: {}", ended.code, ended.log))
}

fn inspect(service: &Service, parts: std::ops::RangeInclusive<u64>) {
    block_on(async {
        let mut client = service.inspection().await;
        for number in parts {
            client.inspect(part(number)).await.unwrap();
        }
    });
}

fn run(data: &Path, arguments: &[&str]) -> Output {
    lineproof().args(arguments).env("LINEPROOF_DATA", data).output().unwrap()
}

fn passes_fsck_and_verify(data: &Path, key: &Path) {
    let output = run(data, &["fsck"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let output = lineproof().arg("verify").arg(data).arg("--key").arg(key).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

/// Waits until the published checkpoint covers this many decisions.
fn wait_for_decisions(data: &Path, count: usize) {
    let begun = Instant::now();
    let decided = || all_entries(data).iter().filter(|entry| entry.contains("\"kind\":\"decision\"")).count();
    while !data.join("log/checkpoint").exists() || decided() < count {
        assert!(begun.elapsed() < PATIENCE, "the checkpoint does not cover {count} decisions");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A line PC that sends until it is told to stop; counts what was acknowledged.
fn camera(
    address: String,
    camera: &str,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
) -> std::thread::JoinHandle<()> {
    let camera = camera.to_owned();
    let image = simulated_png(3);
    std::thread::spawn(move || {
        block_on(async {
            let endpoint = tonic::transport::Channel::from_shared(format!("http://{address}")).unwrap();
            let channel = endpoint.connect().await.unwrap();
            let mut client = pb::inspection_service_client::InspectionServiceClient::new(channel);
            for number in 1.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let mut frame = request(number, image.clone());
                frame.camera = camera.clone();
                frame.serial = format!("{camera}-{number:05}");
                client.inspect(frame).await.unwrap();
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    })
}

#[test]
fn backups_under_load_restore_whole_and_old_passports_still_verify() {
    let kept = Kept::new();
    let (plant, folder) = (&kept.plant, kept.plant.folder());
    plant.edit_config("cameras = [\"cam-1\"]", "cameras = [\"cam-1\", \"cam-2\"]");
    plant.edit_config("ok_share = 0.1", "ok_share = 1.0");
    let service = plant.serve();
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let cameras: Vec<_> = ["cam-1", "cam-2"]
        .map(|name| camera(service.address.clone(), name, stop.clone(), answered.clone()))
        .into_iter()
        .collect();
    wait_for_decisions(&plant.data(), 300);

    let before = answered.load(Ordering::Relaxed);
    kept.backup(&["--new-store"]);
    assert!(answered.load(Ordering::Relaxed) > before, "no verdict was given while the backup ran");
    let output = plant.run(&["passport", "cam-2-00003", "--out", "old.tlog-proof"]);
    assert!(output.status.success(), "{}", text(&output));
    let first: BTreeSet<PathBuf> = kept.blobs().into_iter().collect();
    // By now the first bundle is older than two seconds, and the next backup sees it for the last time as new.
    std::thread::sleep(Duration::from_secs(3));
    kept.backup(&[]);
    kept.backup(&["--keep", "2"]);
    assert_eq!(kept.names().len(), 2);
    let later: BTreeSet<PathBuf> = kept.blobs().into_iter().collect();
    assert!(first.intersection(&later).count() >= 5, "models and texts were copied again");
    stop.store(true, Ordering::Relaxed);
    cameras.into_iter().for_each(|camera| camera.join().unwrap());
    assert_eq!(service.stop().code, Some(0));

    let entries = all_entries(&plant.data());
    let drill = kept.restore("unused", &["--drill", "--scratch", "."]);
    assert!(drill.status.success() && text(&drill).contains("drill: "), "{}", text(&drill));
    assert!(
        !files(folder).iter().any(|path| path.to_string_lossy().contains("lineproof-drill")),
        "the drill left files"
    );
    let data = kept.restored("restored", &["--unwitnessed"]);
    passes_fsck_and_verify(&data, &folder.join("kept.vkey"));
    let restored = all_entries(&data);
    assert!(restored.len() > 256 && entries.starts_with(&restored), "the restored entries are not the log's");
    let output =
        lineproof().args(["verify", "old.tlog-proof", "--key", "kept.vkey"]).current_dir(folder).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));

    // It starts without a hand, knows its frames, and goes on.
    let service = serve(&data);
    block_on(async {
        let mut again = request(3, simulated_png(3));
        again.serial = "cam-1-00003".into();
        let mut client = service.inspection().await;
        assert!(client.inspect(again).await.unwrap().into_inner().duplicate, "a decided frame is known");
        assert!(!client.inspect(part(1_000_000)).await.unwrap().into_inner().duplicate);
    });
    assert_eq!(service.stop().code, Some(0));
    passes_fsck_and_verify(&data, &folder.join("kept.vkey"));
    assert_eq!(serve(&data).stop().code, Some(0));
    let now = all_entries(&data);
    assert!(now.starts_with(&restored));
    let said: Vec<&String> = now.iter().filter(|entry| entry.contains("\"kind\":\"restore\"")).collect();
    assert!(said.len() == 1 && said[0].contains(&format!("\"size\":{}", restored.len())), "{said:?}");
    let output = run(&data, &["passport", "cam-2-00003", "--out", &folder.join("new.tlog-proof").to_string_lossy()]);
    assert!(output.status.success(), "{}", text(&output));
    let mut against = lineproof();
    against.args(["verify", "new.tlog-proof", "--key", "kept.vkey", "--against"]).arg(&data).current_dir(folder);
    let output = against.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[test]
fn a_backup_killed_half_way_leaves_the_earlier_one_whole_and_the_next_cleans_up() {
    let kept = Kept::new();
    let service = kept.plant.serve();
    inspect(&service, 1..=5);
    kept.backup(&["--new-store"]);
    let extra = kept.plant.data().join("extra");
    fs::create_dir(&extra).unwrap();
    let mut killed = 0;
    for round in 0..20_u8 {
        let (names, blobs) = (kept.names(), kept.blobs().len());
        for number in 0..8_u8 {
            fs::write(extra.join(number.to_string()), vec![round ^ number; 3 << 20]).unwrap();
        }
        let mut child = kept.command(&[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let begun = Instant::now();
        while kept.blobs().len() <= blobs + usize::from(round % 4) && child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < PATIENCE);
        }
        let _ = child.kill();
        child.wait().unwrap();
        killed += u32::from(kept.names() == names);
        if killed == 3 {
            break;
        }
    }
    assert_eq!(killed, 3, "no backup was killed before its end");
    assert!(kept.blobs().len() > kept.named().len(), "a killed backup leaves what nobody names");
    let output = kept.restore("unused", &["--drill", "--scratch", "."]);
    assert!(output.status.success(), "{}", text(&output));
    let said = kept.backup(&[]);
    assert!(said.contains("that no backup needs"), "{said}");
    assert_eq!(kept.blobs().len(), kept.named().len());
    assert!(!files(&kept.store()).iter().any(|path| path.extension().is_some_and(|it| it == "tmp")));
    assert_eq!(service.stop().code, Some(0));
    // A killed restore leaves no data directory, and nothing that the next one minds. A stranger's folder is no such thing.
    let part = kept.plant.folder().join("restored.restoring");
    fs::create_dir(&part).unwrap();
    let output = kept.restore("restored", &["--unwitnessed"]);
    assert!(!output.status.success() && text(&output).contains("no restore left it"), "{}", text(&output));
    fs::remove_dir(&part).unwrap();
    let mut restore = lineproof();
    restore.arg("restore").arg(kept.store()).args(["--key", "kept.vkey", "--data", "restored", "--unwitnessed"]);
    restore.args(["--identity", "backup.key", "--keys", "kept-keys"]).current_dir(kept.plant.folder());
    let mut child = restore.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while !part.join("extra").exists() && child.try_wait().unwrap().is_none() {
        assert!(begun.elapsed() < PATIENCE);
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(part.exists() && !kept.plant.folder().join("restored").exists(), "the restore was not killed half-way");
    let data = kept.restored("restored", &["--unwitnessed"]);
    assert!(!data.join("restoring").exists() && !part.exists());
    assert_eq!(fs::read(data.join("extra/7")).unwrap(), fs::read(extra.join("7")).unwrap());
    passes_fsck_and_verify(&data, &kept.plant.vkey());
}

#[test]
fn a_damaged_cut_exchanged_or_missing_blob_is_named_and_nothing_is_restored() {
    let kept = Kept::new();
    let service = kept.plant.serve();
    inspect(&service, 1..=3);
    assert_eq!(service.stop().code, Some(0));
    kept.backup(&["--new-store"]);
    let blobs = kept.blobs();
    let place = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let (one, other) = (&blobs[0], &blobs[1]);
    let whole = fs::read(one).unwrap();
    let mut changed = whole.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(one, &changed).unwrap();
    kept.refuses(&["--unwitnessed"], &place(one));
    fs::write(one, &whole[..whole.len() - 1]).unwrap();
    kept.refuses(&["--unwitnessed"], &place(one));
    fs::remove_file(one).unwrap();
    kept.refuses(&["--unwitnessed"], "is missing from the store");
    // Another whole blob of the same backup in its place, padded so that the length does not give it away.
    let mut exchanged = fs::read(other).unwrap();
    exchanged.resize(whole.len(), 0);
    fs::write(one, exchanged).unwrap();
    kept.refuses(&["--unwitnessed"], &place(one));
    fs::write(one, &whole).unwrap();

    let name = kept.names().remove(0);
    for (suffix, reason) in [("manifest", "signature"), ("list", "list")] {
        let path = kept.store().join(format!("backups/{name}.{suffix}"));
        let text = fs::read_to_string(&path).unwrap();
        let from = text.lines().nth(3).unwrap().chars().find(char::is_ascii_digit).unwrap();
        let to = if from == '1' { "2" } else { "1" };
        let at = text.find(text.lines().nth(3).unwrap()).unwrap();
        let at = at + text[at..].find(from).unwrap();
        fs::write(&path, format!("{}{to}{}", &text[..at], &text[at + 1..])).unwrap();
        kept.refuses(&["--unwitnessed"], reason);
        fs::write(&path, text).unwrap();
    }
    // Keys of another plant, and a key that opens nothing here.
    let other = Kept::new();
    let foreign = other.plant.folder().join("kept-keys");
    kept.refuses(&["--unwitnessed", "--keys", &foreign.to_string_lossy()], "holds the keys of");
    let foreign = other.plant.folder().join("backup.key");
    kept.refuses(&["--unwitnessed", "--identity", &foreign.to_string_lossy()], "does not open");
    fs::create_dir(kept.plant.folder().join("full")).unwrap();
    fs::write(kept.plant.folder().join("full/file"), "somebody's").unwrap();
    let output = kept.restore("full", &["--unwitnessed"]);
    assert!(!output.status.success() && text(&output).contains("is not empty"), "{}", text(&output));
    fs::create_dir(kept.plant.folder().join("empty")).unwrap();
    let mut restore = lineproof();
    restore.args(["restore", "../store", "--data", ".", "--unwitnessed", "--key", "../kept.vkey"]);
    restore.args(["--identity", "../backup.key", "--keys", "../kept-keys"]);
    let output = restore.current_dir(kept.plant.folder().join("empty")).output().unwrap();
    assert!(!output.status.success() && text(&output).contains("from the folder above"), "{}", text(&output));
    kept.restored("restored", &["--unwitnessed"]);
}

#[test]
fn a_store_of_another_log_or_none_is_refused() {
    let kept = Kept::new();
    let service = kept.plant.serve();
    assert_eq!(service.stop().code, Some(0));
    let output = kept.command(&[]).output().unwrap();
    assert!(!output.status.success() && text(&output).contains("--new-store"), "{}", text(&output));
    for output in [kept.command(&["--list"]).output().unwrap(), kept.restore("refused", &["--unwitnessed"])] {
        let said = text(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("there is no backup store in") && !said.contains("--new-store"), "{said}");
    }
    fs::create_dir_all(kept.store()).unwrap();
    fs::write(kept.store().join("lineproof-backup"), "lineproof-backup 1\nother.example/log\n").unwrap();
    let output = kept.command(&[]).output().unwrap();
    assert!(!output.status.success() && text(&output).contains("other.example/log"), "{}", text(&output));
    fs::write(kept.store().join("lineproof-backup"), "lineproof-backup 2\nother.example/log\n").unwrap();
    let output = kept.command(&[]).output().unwrap();
    assert!(!output.status.success() && text(&output).contains("newer release"), "{}", text(&output));
    kept.refuses(&["--unwitnessed"], "newer release");
}

#[test]
fn a_store_is_found_from_where_its_name_is_typed_and_never_begun_in_the_data_directory_or_for_nothing() {
    let kept = Kept::new();
    let (plant, folder) = (&kept.plant, kept.plant.folder());
    let service = plant.serve();
    assert_eq!(service.stop().code, Some(0));
    let backup = |recipient: &str, to: &[&str]| {
        let mut command = plant_command(plant);
        command.args(["backup", "--new-store", "--recipient", recipient]).args(to);
        let output = command.output().unwrap();
        (output.status.code(), text(&output))
    };
    std::os::unix::fs::symlink(plant.data(), folder.join("link")).unwrap();
    for inside in ["data/store", "link/store", "data/not/there/../../store", "elsewhere/../data/store"] {
        let (code, said) = backup(&kept.recipient, &["--to", inside]);
        assert!(code == Some(1) && said.contains("lies in the data directory"), "{inside}: {said}");
        assert!(!plant.data().join("store").exists() && !plant.data().join("not").exists(), "{inside} was begun");
    }
    let (code, said) = backup("age1x", &["--to", "elsewhere"]);
    assert!(code == Some(1) && said.contains("no age recipient"), "{said}");
    assert!(!folder.join("elsewhere").exists(), "a store was begun for no backup");
    let (code, said) = backup(&kept.recipient, &["--to", "elsewhere"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(folder.join("elsewhere/lineproof-backup").exists(), "{said}");

    // A path in the configuration is relative to the data directory.
    plant.edit_config("# [backup]\n# to = \"/mnt/backup/plant\"", "[backup]\nto = \"store\"");
    let (code, said) = backup(&kept.recipient, &[]);
    assert!(code == Some(1) && said.contains("lies in the data directory"), "{said}");
    plant.edit_config("to = \"store\"", "to = \"../configured\"");
    let (code, said) = backup(&kept.recipient, &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(folder.join("configured/lineproof-backup").exists(), "{said}");
}

#[test]
fn after_a_change_of_recipients_the_new_key_opens_the_newest_backup_and_a_removed_one_nothing_of_it() {
    let mut kept = Kept::new();
    let service = kept.plant.serve();
    inspect(&service, 1..=3);
    assert_eq!(service.stop().code, Some(0));
    // Younger files are copied anew each time, whoever they are sealed to.
    std::thread::sleep(Duration::from_secs(3));
    kept.backup(&["--new-store"]);
    let first: BTreeSet<PathBuf> = kept.blobs().into_iter().collect();
    let output = kept.plant.run(&["backup", "--new-key", "second.key"]);
    assert!(output.status.success(), "{}", text(&output));
    let said = text(&output);
    let second = said.split_whitespace().find(|word| word.starts_with("age1")).expect("a public key").to_owned();
    let again = kept.plant.run(&["backup", "--new-key", "second.key"]);
    assert!(again.status.code() == Some(1) && text(&again).contains("exists already"), "{}", text(&again));

    let drill =
        |kept: &Kept, identity: &str| kept.restore("unused", &["--drill", "--scratch", ".", "--identity", identity]);
    kept.backup(&["--recipient", &second]);
    let both: BTreeSet<PathBuf> = kept.blobs().into_iter().collect();
    assert!(first.is_subset(&both), "the older backup lost its blobs");
    for identity in ["backup.key", "second.key"] {
        let output = drill(&kept, identity);
        assert!(output.status.success(), "{identity}: {}", text(&output));
    }
    // The same two in another order are the same recipients.
    let one = std::mem::replace(&mut kept.recipient, second);
    kept.backup(&["--recipient", &one, "--keep", "1"]);
    let reordered: BTreeSet<PathBuf> = kept.blobs().into_iter().collect();
    assert!(both.difference(&first).filter(|blob| reordered.contains(*blob)).count() >= 5, "all was copied again");

    kept.backup(&["--keep", "1"]);
    let output = drill(&kept, "second.key");
    assert!(output.status.success(), "{}", text(&output));
    let output = drill(&kept, "backup.key");
    assert!(output.status.code() == Some(1) && text(&output).contains("does not open"), "{}", text(&output));
    assert!(kept.blobs().iter().all(|blob| !both.contains(blob)), "a blob is left that the removed key opens");
}

#[test]
fn a_blob_that_the_store_cut_is_written_again_by_the_next_backup() {
    let kept = Kept::new();
    let service = kept.plant.serve();
    inspect(&service, 1..=3);
    assert_eq!(service.stop().code, Some(0));
    std::thread::sleep(Duration::from_secs(3));
    kept.backup(&["--new-store"]);
    let cut = |path: &PathBuf| {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    };
    let drill = || {
        let output = kept.restore("unused", &["--drill", "--scratch", "."]);
        assert!(output.status.success(), "{}", text(&output));
    };
    kept.blobs().iter().for_each(cut);
    kept.refuses(&["--unwitnessed"], "bytes, it should have");
    kept.backup(&["--keep", "1"]);
    drill();
    // Blobs that no backup names, as an interrupted one leaves: no list says how long they were.
    fs::remove_dir_all(kept.store().join("backups")).unwrap();
    let left: BTreeSet<PathBuf> = kept.blobs().into_iter().collect();
    left.iter().step_by(2).for_each(cut);
    kept.backup(&[]);
    drill();
    let whole = left.iter().skip(1).step_by(2).filter(|blob| blob.exists()).count();
    assert!(whole > 0 && left.iter().step_by(2).all(|blob| !blob.exists()), "{whole} whole blobs were used again");
}

#[test]
fn while_values_are_being_erased_no_backup_is_made() {
    let kept = Kept::new();
    let service = kept.plant.serve();
    inspect(&service, 1..=3);
    assert_eq!(service.stop().code, Some(0));
    kept.backup(&["--new-store"]);
    let names = kept.names();
    let erasing = kept.plant.data().join("erasing");
    fs::write(&erasing, "left by a service that was killed").unwrap();
    let output = kept.command(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("values are being erased"), "{}", text(&output));
    assert_eq!(kept.names(), names);
    fs::remove_file(&erasing).unwrap();
    kept.backup(&[]);
    assert_eq!(kept.names().len(), 2);
}

#[test]
fn a_restore_that_would_fall_behind_what_was_witnessed_is_refused_and_read_only_restores_it_for_reading() {
    let kept = Kept::new();
    let (plant, folder) = (&kept.plant, kept.plant.folder());
    // A witness that is reached by files.
    let mut init = lineproof();
    init.args(["witness", "init", "witness", "--name", "oem.example/witness", "--log", "kept.vkey"]);
    let output = init.current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let witness = fs::read_to_string(folder.join("witness/witness.vkey")).unwrap();
    let config = plant.data().join("lineproof.toml");
    let table = format!("\n[[witness]]\nname = \"oem\"\nvkey = \"{}\"\n", witness.trim());
    fs::write(&config, fs::read_to_string(&config).unwrap() + &table).unwrap();
    let cosign = |file: &str| {
        for arguments in [
            &["witness", "request", file][..],
            &["witness", "sign", file, "--dir", "witness"],
            &["witness", "import", &format!("{file}.cosigned")],
        ] {
            let output = plant.run(arguments);
            assert!(output.status.success(), "{}", text(&output));
        }
    };
    let service = plant.serve();
    inspect(&service, 1..=5);
    wait_for_decisions(&plant.data(), 5);
    cosign("first");
    inspect(&service, 6..=8);
    wait_for_decisions(&plant.data(), 8);
    kept.backup(&["--new-store"]);
    inspect(&service, 9..=12);
    wait_for_decisions(&plant.data(), 12);
    cosign("second");
    let output = plant.run(&["passport", "SN-00010", "--out", "part.tlog-proof"]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(service.stop().code, Some(0));

    kept.refuses(&[], "nothing says how far this log was witnessed");
    kept.refuses(&["--witnessed", "second.cosigned"], "second history");
    kept.refuses(&["--witnessed", "part.tlog-proof"], "second history");
    // What the backup covers is proven, and the log goes on.
    let output = kept.restore("good", &["--witnessed", "first.cosigned"]);
    assert!(output.status.success() && text(&output).contains("consistency proof"), "{}", text(&output));
    passes_fsck_and_verify(&folder.join("good"), &folder.join("kept.vkey"));

    // What is behind can be read, never appended to.
    let data = kept.restored("behind", &["--witnessed", "second.cosigned", "--read-only"]);
    let before = all_entries(&data);
    let service = serve(&data);
    block_on(async {
        let status = service.inspection().await.inspect(part(20)).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        assert!(status.message().contains("rolled back"), "{}", status.message());
    });
    let output = run(&data, &["show", "line-1/cam-1/f4"]);
    assert!(output.status.success() && text(&output).contains("SN-00004"), "{}", text(&output));
    service.stop();
    assert_eq!(all_entries(&data), before);
    let output = kept.restore("unused", &["--unwitnessed", "--read-only"]);
    assert!(!output.status.success() && text(&output).contains("without --read-only"), "{}", text(&output));

    // An older backup is behind the newer one in the same store.
    kept.backup(&[]);
    let older = kept.names().remove(0);
    kept.refuses(&["--unwitnessed", "--backup", &older], "second history");
    kept.restored("newest", &["--witnessed", "second.cosigned"]);

    // The copy that was restored first goes on by itself: two histories, and neither is restored over the other.
    let service = serve(&folder.join("good"));
    inspect(&service, 30..=39);
    assert_eq!(service.stop().code, Some(0));
    let service = plant.serve();
    inspect(&service, 40..=59);
    assert_eq!(service.stop().code, Some(0));
    kept.backup(&[]);
    kept.refuses(&["--witnessed", "good/log/checkpoint"], "another history");
}

#[test]
fn an_anchor_that_outlived_the_data_decides_whether_a_restore_goes_on() {
    let kept = Kept::new();
    let (plant, folder) = (&kept.plant, kept.plant.folder());
    let anchor = folder.join("volume/anchor");
    fs::create_dir(folder.join("volume")).unwrap();
    plant.edit_config("anchor = \"anchor\"", "anchor = \"../volume/anchor\"");
    let service = plant.serve();
    inspect(&service, 1..=3);
    assert_eq!(service.stop().code, Some(0));
    kept.backup(&["--new-store"]);
    let then = fs::read(&anchor).unwrap();
    let data = kept.restored("same", &["--unwitnessed"]);
    assert_eq!(fs::read(&anchor).unwrap(), then);
    assert!(!data.join("anchor").exists());
    passes_fsck_and_verify(&data, &folder.join("kept.vkey"));

    let service = plant.serve();
    inspect(&service, 4..=6);
    assert_eq!(service.stop().code, Some(0));
    let now = fs::read(&anchor).unwrap();
    kept.refuses(&["--unwitnessed"], "second history");
    // A drill has nothing to do with the volume of the plant that runs.
    let output = kept.restore("unused", &["--drill", "--scratch", "."]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(fs::read(&anchor).unwrap(), now);
    kept.backup(&[]);
    let data = kept.restored("newer", &["--unwitnessed"]);
    let service = serve(&data);
    inspect(&service, 7..=7);
    assert_eq!(service.stop().code, Some(0));
}

#[test]
fn a_blob_opens_with_the_age_tool() {
    let kept = Kept::new();
    let service = kept.plant.serve();
    inspect(&service, 1..=3);
    assert_eq!(service.stop().code, Some(0));
    kept.backup(&["--new-store"]);
    let name = kept.names().remove(0);
    let manifest = fs::read_to_string(kept.store().join(format!("backups/{name}.manifest"))).unwrap();
    let id = manifest.lines().find_map(|line| line.strip_prefix("table ")).expect("a table");
    let blob = kept.blobs().into_iter().find(|path| path.to_string_lossy().contains(id)).expect("its blob");
    let mut age = Command::new("age");
    age.args(["-d", "-i"]).arg(kept.plant.folder().join("backup.key")).arg(blob);
    let output = match age.output() {
        Ok(output) => output,
        Err(error) => return skipped(&format!("age is not installed: {error}")),
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let table: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let paths: Vec<&str> =
        table["files"].as_array().unwrap().iter().map(|file| file["path"].as_str().unwrap()).collect();
    assert!(paths.contains(&"lineproof.toml"), "{paths:?}");
    assert!(!paths.iter().any(|path| path.starts_with("keys")), "{paths:?}");
    let tail = table["tail"].as_array().unwrap().len();
    assert_eq!(tail, all_entries(&kept.plant.data()).len());
}

/// An S3 server that is not ours: moto, from PyPI.
struct S3 {
    child: std::process::Child,
    port: u16,
}

impl S3 {
    fn start() -> Result<Self, String> {
        let program = std::env::var_os("LINEPROOF_S3_SERVER").filter(|path| !path.is_empty());
        let program = program.unwrap_or_else(|| "moto_server".into());
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(&program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| format!("no S3 server, {}: {error}", program.display()))?;
        let s3 = Self { child, port };
        let begun = Instant::now();
        while s3.ask("GET", "/moto-api/").is_none() {
            if begun.elapsed() > PATIENCE {
                return Err(format!("{} does not listen", program.display()));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(s3)
    }

    fn ask(&self, method: &str, path: &str) -> Option<String> {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let head = format!("{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{}\r\nContent-Length: 0\r\n\r\n", self.port);
        stream.write_all(head.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        answer.contains(" 200 ").then_some(answer)
    }

    fn run(&self, mut command: Command) -> Output {
        command.env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", self.port));
        command.envs([
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", "eu-central-1"),
        ]);
        command.output().unwrap()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn backups_go_to_s3_and_come_back() {
    const STORE: &str = "s3://backups/plant north/1";
    let s3 = match S3::start() {
        Ok(s3) => s3,
        Err(why) => return skipped(&why),
    };
    let kept = Kept::new();
    let (plant, folder) = (&kept.plant, kept.plant.folder());
    let backup = |more: &[&str]| {
        let mut command = plant_command(plant);
        command.args(["backup", "--recipient", &kept.recipient, "--to", STORE]).args(more);
        let output = s3.run(command);
        (output.status.code(), text(&output))
    };
    let service = plant.serve();
    inspect(&service, 1..=5);
    // More than S3 lists on one page.
    fs::create_dir(plant.data().join("extra")).unwrap();
    for number in 0..1100 {
        fs::write(plant.data().join(format!("extra/{number}")), format!("{number}")).unwrap();
    }
    std::thread::sleep(Duration::from_secs(3));
    let (code, said) = backup(&["--new-store"]);
    assert!(code == Some(1) && said.contains("NoSuchBucket"), "{said}");
    s3.ask("PUT", "/backups").expect("a bucket is made");
    let (code, said) = backup(&[]);
    assert!(code == Some(1) && said.contains("--new-store"), "{said}");
    let (code, said) = backup(&["--new-store"]);
    assert_eq!(code, Some(0), "{said}");
    inspect(&service, 6..=8);
    wait_for_decisions(&plant.data(), 8);
    let (code, said) = backup(&["--keep", "1"]);
    assert_eq!(code, Some(0), "{said}");
    let new: u64 = said.split("new of them ").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    assert!(new < 20, "the second backup copied what was there already: {said}");
    assert!(said.contains("removed 1 older backups"), "{said}");
    assert_eq!(service.stop().code, Some(0));

    let restore = |store: &str, name: &str| {
        let mut command = lineproof();
        command.args(["restore", store, "--key", "kept.vkey", "--identity", "backup.key", "--keys", "kept-keys"]);
        command.args(["--data", name, "--unwitnessed"]).current_dir(folder);
        let output = s3.run(command);
        (output.status.code(), text(&output))
    };
    let (code, said) = restore("s3://backups/elsewhere", "none");
    assert!(code == Some(1) && said.contains("no backup store"), "{said}");
    let (code, said) = restore(STORE, "restored");
    assert_eq!(code, Some(0), "{said}");
    let data = folder.join("restored");
    passes_fsck_and_verify(&data, &folder.join("kept.vkey"));
    assert_eq!(fs::read(data.join("extra/1099")).unwrap(), b"1099");
    assert!(all_entries(&plant.data()).starts_with(&all_entries(&data)));

    for (endpoint, reason) in [("http://127.0.0.1:1", "5 tries"), ("http://192.0.2.1", "use https")] {
        let mut command = plant_command(plant);
        command.args(["backup", "--recipient", &kept.recipient, "--to", STORE]).env("AWS_ENDPOINT_URL", endpoint);
        command.env("AWS_ACCESS_KEY_ID", "test").env("AWS_SECRET_ACCESS_KEY", "test");
        let output = command.output().unwrap();
        assert!(output.status.code() == Some(1) && text(&output).contains(reason), "{}", text(&output));
    }
}

fn plant_command(plant: &Plant) -> Command {
    let mut command = lineproof();
    command.current_dir(plant.folder()).env("LINEPROOF_DATA", plant.data());
    command
}

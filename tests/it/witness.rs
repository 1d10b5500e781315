//! The OEM's journey: witnesses vouch for a plant's log, over the network and by files, and two histories are exposed.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Output,
    time::{Duration, Instant},
};

use lineproof::{
    core::{
        export::keys::{Keys, VerifierKey},
        lineage::{
            checkpoint::{Checkpoint, LogSigner},
            tree::{HashReader, consistency_proof, leaf_hash, root_of},
        },
        witness::{
            policy::Policy,
            request::{AddCheckpoint, REQUEST_BYTES_MAX},
        },
    },
    edge::pb,
    types::Sha256Digest,
};
use tempfile::TempDir;

use crate::harness::{Plant, Service, block_on, lineproof, part, text};

/// Longest wait for something that takes a second or two on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// What an entry's cosignature may take from its answer on (docs/witness.md), on a machine that is not busy.
const WITNESSED_MAX: Duration = Duration::from_secs(2);

/// A witness's folder and port.
struct Host {
    folder: TempDir,
    port: u16,
}

impl Host {
    fn new(name: &str, logs: &[&Path]) -> Self {
        let host = Self { folder: TempDir::new().unwrap(), port: free_port() };
        let mut command = lineproof();
        command.args(["witness", "init"]).arg(host.dir()).args(["--name", name]);
        for log in logs {
            command.arg("--log").arg(log);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        host.edit("127.0.0.1:7444", &format!("127.0.0.1:{}", host.port));
        host
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("witness")
    }

    fn edit(&self, from: &str, to: &str) {
        let path = self.dir().join("witness.toml");
        let config = fs::read_to_string(&path).unwrap();
        assert!(config.contains(from), "{config}");
        fs::write(path, config.replace(from, to)).unwrap();
    }

    fn serve(&self) -> Service {
        let served = Service::spawn(lineproof().args(["witness", "serve"]).arg(self.dir()));
        served.unwrap_or_else(|ended| panic!("the witness ended: {}", ended.log))
    }

    fn vkey(&self) -> String {
        fs::read_to_string(self.dir().join("witness.vkey")).unwrap().trim().to_owned()
    }

    fn table(&self, name: &str, more: &str) -> String {
        format!("[[witness]]\nname = \"{name}\"\nvkey = \"{}\"\n{more}\n", self.vkey())
    }

    fn url(&self) -> String {
        format!("url = \"http://127.0.0.1:{}\"\n", self.port)
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Appends tables to the plant's configuration.
fn configure(plant: &Plant, tables: &str) {
    let path = plant.data().join("lineproof.toml");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(path, format!("{config}\n{tables}")).unwrap();
}

/// Writes a policy that asks for `quorum` of these witnesses.
fn policy(plant: &Plant, name: &str, hosts: &[&Host], quorum: usize) -> PathBuf {
    let log = fs::read_to_string(plant.vkey()).unwrap();
    let mut policy = format!("log {log}");
    for (number, host) in hosts.iter().enumerate() {
        policy += &format!("witness w{number} {}\n", host.vkey());
    }
    let names: Vec<String> = (0..hosts.len()).map(|number| format!("w{number}")).collect();
    policy += &format!("group enough {quorum} {}\nquorum enough\n", names.join(" "));
    let path = plant.folder().join(name);
    fs::write(&path, policy).unwrap();
    path
}

fn verify(file: &Path, more: &[&str]) -> Output {
    lineproof().arg("verify").arg(file).args(more).args(["--lang", "en"]).output().unwrap()
}

/// The number of entries a checkpoint file covers; 0 when there is none.
fn size_of(path: &Path) -> u64 {
    let note = fs::read_to_string(path).unwrap_or_default();
    note.lines().nth(1).and_then(|line| line.parse().ok()).unwrap_or_default()
}

fn witnessed(plant: &Plant) -> u64 {
    size_of(&plant.data().join("log/checkpoint.witnessed"))
}

/// Waits for what a file or a process will do; asks often and fails late.
fn wait_for(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(5));
    }
    began.elapsed()
}

async fn inspect(service: &Service, number: u64) -> u64 {
    service.inspection().await.inspect(part(number)).await.unwrap().into_inner().entry_index
}

#[test]
fn every_entry_is_witnessed_soon_and_its_evidence_satisfies_the_policy() {
    let plant = Plant::new();
    let [one, two] = ["oem.example/w", "site2.example/w"].map(|name| Host::new(name, &[&plant.vkey()]));
    let [_one, _two] = [&one, &two].map(Host::serve);
    configure(&plant, &(one.table("oem", &one.url()) + &two.table("site2", &two.url())));
    let both = policy(&plant, "both.policy", &[&one, &two], 2);
    let service = plant.serve();
    let mut slowest = Duration::ZERO;
    block_on(async {
        inspect(&service, 1).await;
        wait_for("the first cosignature", || witnessed(&plant) > 0);
        for number in 2..=8 {
            let index = inspect(&service, number).await;
            let took = wait_for("a cosignature", || witnessed(&plant) > index);
            eprintln!("witnessed after {} ms", took.as_millis());
            slowest = slowest.max(took);
        }
        // The audit interface gives the same checkpoint as the file.
        let latest = service.audit().await.get_checkpoint(pb::GetCheckpointRequest {}).await.unwrap().into_inner();
        assert_eq!(latest.witnessed, fs::read_to_string(plant.data().join("log/checkpoint.witnessed")).unwrap());
    });
    // Elsewhere in the tests machines are as busy as they like; this is a promise.
    assert!(slowest < WITNESSED_MAX * 3, "witnessed after {slowest:?}");
    let ended = service.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(ended.log.contains("the log is witnessed"), "{}", ended.log);
    let latest = size_of(&plant.data().join("log/checkpoint"));
    assert_eq!(witnessed(&plant), latest, "the last checkpoint of a stopping service is witnessed");

    let output = plant.run(&["passport", "SN-00003", "--out", "part.tlog-proof"]);
    assert!(output.status.success() && text(&output).contains("is cosigned as"), "{}", text(&output));
    let output = plant.run(&["export", "--line", "line-1", "--out", "report.zip"]);
    assert!(output.status.success() && text(&output).contains("is cosigned as"), "{}", text(&output));
    for name in ["part.tlog-proof", "report.zip", "data", "data/log/checkpoint.witnessed"] {
        let file = plant.folder().join(name);
        let output = verify(&file, &["--policy", both.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{name}: {}", text(&output));
        let said = text(&output);
        for expected in
            ["oem.example/w+", "site2.example/w+", "cosigned this checkpoint at 20", "\"enough\" is reached"]
        {
            assert!(said.contains(expected), "{name}: {expected}: {said}");
        }
        let output = verify(&file, &["--key", plant.vkey().to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{name}: {}", text(&output));
        if name != "data" {
            assert!(text(&output).contains("Not checked: 2 signatures"), "{name}: {}", text(&output));
        }
    }
    // A witness that was never asked is missed, in both languages.
    let third = Host::new("third.example/w", &[]);
    let all = policy(&plant, "all.policy", &[&one, &two, &third], 3);
    for name in ["part.tlog-proof", "report.zip", "data"] {
        let output = verify(&plant.folder().join(name), &["--policy", all.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(1), "{name}: {}", text(&output));
        assert!(text(&output).contains("no cosignature by: w2"), "{name}: {}", text(&output));
    }
}

#[test]
fn verdicts_go_on_without_the_witness_and_its_return_covers_what_was_missed() {
    let plant = Plant::new();
    let host = Host::new("oem.example/w", &[&plant.vkey()]);
    configure(&plant, &host.table("oem", &host.url()));
    let policy = policy(&plant, "oem.policy", &[&host], 1);
    let witness = host.serve();
    plant.listen_at(&format!("127.0.0.1:{}", free_port()));
    let service = plant.serve();
    let passport = |out: &str, serial: &str| {
        let output = plant.run(&["passport", serial, "--out", out]);
        assert!(output.status.success(), "{}", text(&output));
        let verdict = verify(&plant.folder().join(out), &["--policy", policy.to_str().unwrap()]);
        (text(&output), verdict.status.code())
    };
    block_on(async {
        let index = inspect(&service, 1).await;
        wait_for("a cosignature", || witnessed(&plant) > index);
        witness.kill();
        let index = inspect(&service, 2).await;
        wait_for("a checkpoint", || size_of(&plant.data().join("log/checkpoint")) > index);
        // What was witnessed stays so; what came after says that it is not.
        assert_eq!(passport("one.tlog-proof", "SN-00001").1, Some(0));
        let (said, code) = passport("two.tlog-proof", "SN-00002");
        assert!(said.contains("NOT WITNESSED YET") && code == Some(1), "{said}");
        // A log is checked as far as it is witnessed, and says how much is not.
        let output = verify(&plant.data(), &["--policy", policy.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        assert!(text(&output).contains("after this checkpoint; they were not checked"), "{}", text(&output));
        let _witness = host.serve();
        wait_for("the witness's return", || witnessed(&plant) > index);
        let (said, code) = passport("two.tlog-proof", "SN-00002");
        assert!(said.contains("is cosigned as") && code == Some(0), "{said}");
    });
    let ended = service.stop();
    assert!(ended.log.contains("the witness was not reached"), "{}", ended.log);
}

#[test]
fn a_log_for_each_programme_shows_its_witness_only_its_own_parts() {
    let plants = [Plant::new(), Plant::new()];
    let hosts = plants.each_ref().map(|plant| Host::new("oem.example/w", &[&plant.vkey()]));
    let _serving = hosts.each_ref().map(Host::serve);
    for (plant, host) in plants.iter().zip(&hosts) {
        configure(plant, &host.table("oem", &host.url()));
    }
    let services = plants.each_ref().map(Plant::serve);
    let counts = [7, 2];
    block_on(async {
        for (service, count) in services.iter().zip(counts) {
            for number in 1..=count {
                inspect(service, number).await;
            }
        }
    });
    for service in services {
        assert_eq!(service.stop().code, Some(0));
    }
    let [many, few] = plants.each_ref().map(witnessed);
    assert_eq!(many - few, counts[0] - counts[1], "beside their parts, both logs have as many entries");
}

#[test]
fn a_witness_behind_mutual_tls_lets_in_only_plants_with_a_certificate() {
    let plant = Plant::new();
    let host = Host::new("oem.example/w", &[&plant.vkey()]);
    let tls = host.dir().join("tls");
    fs::create_dir(&tls).unwrap();
    let oem = Authority::new("OEM");
    oem.issue(&tls, "witness", "127.0.0.1");
    fs::write(tls.join("ca.pem"), &oem.pem).unwrap();
    host.edit(
        "# [listen.tls]",
        "[listen.tls]\ncertificate = \"tls/witness.pem\"\nkey = \"tls/witness.key\"\nclient_ca = \"tls/ca.pem\"",
    );
    let _witness = host.serve();
    oem.issue(plant.folder(), "plant", "plant.example");
    fs::write(plant.folder().join("ca.pem"), &oem.pem).unwrap();
    let table =
        |tls: &str| host.table("oem", &format!("url = \"https://127.0.0.1:{}\"\ntls = {{ {tls} }}\n", host.port));
    let config = fs::read_to_string(plant.data().join("lineproof.toml")).unwrap();

    // Without a certificate the witness does not talk; with a stranger's authority the plant does not.
    Authority::new("stranger").issue(plant.folder(), "stranger", "127.0.0.1");
    for wrong in
        ["ca = \"../ca.pem\"", "ca = \"../stranger.pem\", certificate = \"../plant.pem\", key = \"../plant.key\""]
    {
        configure(&plant, &table(wrong));
        let service = plant.serve();
        block_on(inspect(&service, 1));
        let ended = service.stop();
        assert_eq!((ended.code, witnessed(&plant)), (Some(0), 0), "{wrong}: {}", ended.log);
        assert!(ended.log.contains("the witness was not reached"), "{wrong}: {}", ended.log);
        fs::write(plant.data().join("lineproof.toml"), &config).unwrap();
    }
    configure(&plant, &table("ca = \"../ca.pem\", certificate = \"../plant.pem\", key = \"../plant.key\""));
    let service = plant.serve();
    block_on(async {
        let index = inspect(&service, 2).await;
        wait_for("a cosignature over TLS", || witnessed(&plant) > index);
    });
    // Plain text finds nobody.
    assert_eq!(ask(host.port, "GET / HTTP/1.1", b"").map(|(status, _)| status), None);
}

#[test]
fn a_rolled_back_log_is_refused_by_its_witness() {
    let plant = Plant::new();
    let host = Host::new("oem.example/w", &[&plant.vkey()]);
    configure(&plant, &host.table("oem", &host.url()));
    let _witness = host.serve();
    let service = plant.serve();
    block_on(inspect(&service, 1));
    assert_eq!(service.stop().code, Some(0));
    let backup = plant.folder().join("backup");
    copy(&plant.data(), &backup);
    let service = plant.serve();
    block_on(async {
        let index = inspect(&service, 2).await;
        wait_for("a cosignature", || witnessed(&plant) > index);
        for number in 3..=6 {
            inspect(&service, number).await;
        }
    });
    assert_eq!(service.stop().code, Some(0));
    let before = fs::read_to_string(plant.data().join("log/checkpoint.witnessed")).unwrap();

    // The whole directory, anchor included, goes back: the plant itself cannot see it, its witness can.
    fs::rename(plant.data(), plant.folder().join("newest")).unwrap();
    fs::rename(&backup, plant.data()).unwrap();
    let service = plant.serve();
    block_on(inspect(&service, 7));
    let ended = service.stop();
    assert!(ended.log.contains("the witness refuses this log") && ended.log.contains("rolled back"), "{}", ended.log);
    // And two auditors prove it between them.
    let lie = plant.data().join("log/checkpoint");
    let output = verify(
        &plant.folder().join("newest"),
        &["--key", plant.vkey().to_str().unwrap(), "--against", lie.to_str().unwrap()],
    );
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("FORK"), "{}", text(&output));
    assert!(text(&output).contains(&fs::read_to_string(&lie).unwrap()), "{}", text(&output));
    assert!(text(&output).contains("is REFUSED") && !text(&output).contains("is genuine"), "{}", text(&output));
    assert!(verify(&plant.folder().join("newest"), &["--key", plant.vkey().to_str().unwrap()]).status.success());
    let witnessed_then = plant.folder().join("then");
    fs::write(&witnessed_then, before).unwrap();
    let same = verify(
        &plant.folder().join("newest"),
        &["--key", plant.vkey().to_str().unwrap(), "--against", witnessed_then.to_str().unwrap()],
    );
    assert_eq!(same.status.code(), Some(0), "{}", text(&same));
}

#[test]
fn a_server_that_shows_two_auditors_two_histories_is_caught_by_them_and_by_the_witness() {
    let plant = Plant::new();
    let host = Host::new("oem.example/w", &[&plant.vkey()]);
    let _witness = host.serve();
    configure(&plant, &host.table("oem", &host.url()));
    let policy = policy(&plant, "oem.policy", &[&host], 1);
    let service = plant.serve();
    block_on(inspect(&service, 1));
    assert_eq!(service.stop().code, Some(0));
    // A second copy with the same keys: one for each customer.
    let lie = Plant::new();
    fs::remove_dir_all(lie.data()).unwrap();
    copy(&plant.data(), &lie.data());
    let evidence = |plant: &Plant, first: u64| {
        let service = plant.serve();
        block_on(async {
            for number in first..first + 3 {
                inspect(&service, number).await;
            }
        });
        let ended = service.stop();
        let serial = format!("SN-{first:05}");
        let output = plant.run(&["passport", &serial, "--out", "part.tlog-proof"]);
        assert!(output.status.success(), "{}", text(&output));
        (plant.folder().join("part.tlog-proof"), ended.log)
    };
    let (shown_to_one, _) = evidence(&plant, 2);
    let (shown_to_other, log) = evidence(&lie, 2);
    // Each is genuine by itself, as long as nobody asks for a witness.
    let key = plant.vkey();
    let key = ["--key", key.to_str().unwrap()];
    for file in [&shown_to_one, &shown_to_other] {
        assert_eq!(verify(file, &key).status.code(), Some(0));
    }
    // The witness saw the first and refuses the second; an auditor with a policy refuses it, too.
    assert!(log.contains("the witness refuses this log"), "{log}");
    let with_policy = ["--policy", policy.to_str().unwrap()];
    assert_eq!(verify(&shown_to_one, &with_policy).status.code(), Some(0));
    assert_eq!(verify(&shown_to_other, &with_policy).status.code(), Some(1));
    // The two compare: the same size, two roots.
    let against = [key[0], key[1], "--against", shown_to_other.to_str().unwrap()];
    let output = verify(&shown_to_one, &against);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("FORK"), "{}", text(&output));
    let json: serde_json::Value =
        serde_json::from_slice(&verify(&shown_to_one, &[&against[..], &["--json"]].concat()).stdout).unwrap();
    assert_eq!((json["ok"].as_bool(), json["comparison"]["result"].as_str()), (Some(false), Some("fork")), "{json}");
    let keys: Keys = fs::read_to_string(plant.vkey()).unwrap().parse().unwrap();
    for note in json["comparison"]["notes"].as_array().unwrap() {
        keys.open_checkpoint(note.as_str().unwrap().as_bytes()).unwrap();
    }
    // Honest auditors of one log find nothing.
    let data = plant.data();
    let same = verify(&shown_to_one, &[key[0], key[1], "--against", data.to_str().unwrap()]);
    assert_eq!(same.status.code(), Some(0), "{}", text(&same));
}

#[test]
fn a_plant_without_a_network_is_witnessed_by_files() {
    let plant = Plant::new();
    let [online, stick] = ["site2.example/w", "oem.example/w"].map(|name| Host::new(name, &[&plant.vkey()]));
    let _online = online.serve();
    let both = policy(&plant, "both.policy", &[&online, &stick], 2);
    fs::copy(&both, plant.data().join("witness.policy")).unwrap();
    let tables = online.table("site2", &online.url()) + &stick.table("oem", "");
    configure(&plant, &format!("[witnesses]\npolicy = \"witness.policy\"\n{tables}"));
    let service = plant.serve();
    let (request, answer) = (plant.folder().join("to-oem.txt"), plant.folder().join("to-oem.txt.cosigned"));
    let run = |arguments: &[&str]| {
        let output = plant.run(arguments);
        (output.status.code(), text(&output))
    };
    let sign = || {
        let output =
            lineproof().args(["witness", "sign"]).arg(&request).arg("--dir").arg(stick.dir()).output().unwrap();
        (output.status.code(), text(&output))
    };
    for number in [1, 2] {
        let index = block_on(inspect(&service, number));
        // The service runs on, and its other witness has cosigned what is carried.
        wait_for("the other witness", || size_of(&plant.data().join("log/checkpoint.cosigned")) > index);
        assert!(witnessed(&plant) <= index);
        let (code, said) = run(&["witness", "request", "to-oem.txt"]);
        assert_eq!(code, Some(0), "{said}");
        let (code, said) = sign();
        assert_eq!(code, Some(0), "{said}");
        let (code, said) = run(&["witness", "import", "to-oem.txt.cosigned"]);
        assert!(code == Some(0) && said.contains("the policy is satisfied"), "{said}");
        assert!(witnessed(&plant) > index);
    }
    assert_eq!(service.stop().code, Some(0));
    let output = plant.run(&["passport", "SN-00002", "--out", "part.tlog-proof"]);
    assert!(text(&output).contains("is cosigned as"), "{}", text(&output));
    let output = verify(&plant.folder().join("part.tlog-proof"), &["--policy", both.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));

    // A request that starts elsewhere is told where the witness stands; a stranger's cosignature is not taken in.
    let (code, said) = run(&["witness", "request", "to-oem.txt", "--old", "1"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = sign();
    assert!(code == Some(1) && said.contains("witness request --old"), "{said}");
    let stranger = Host::new("stranger.example/w", &[&plant.vkey()]);
    let (code, said) = run(&["witness", "request", "to-oem.txt", "--old", "0"]);
    assert_eq!(code, Some(0), "{said}");
    let output = lineproof().args(["witness", "sign"]).arg(&request).arg("--dir").arg(stranger.dir()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let lines = fs::read_to_string(&answer).unwrap();
    assert!(lines.contains("stranger.example/w "));
    fs::write(
        &answer,
        lines.replace("oem.example/w ", "gone.example/w ").replace("site2.example/w ", "away.example/w "),
    )
    .unwrap();
    let (code, said) = run(&["witness", "import", "to-oem.txt.cosigned"]);
    assert!(code == Some(1) && said.contains("nothing was changed"), "{said}");
}

#[test]
fn the_witness_answers_every_request_as_the_specification_says() {
    let plant = Log::new("a");
    let stranger = LogSigner::new("stranger.example/log", &[9; 32]).unwrap();
    let folder = TempDir::new().unwrap();
    let host = Host::new("oem.example/w", &[&plant.write_key(folder.path())]);
    let witness = host.serve();
    let add = |body: &str| ask(host.port, "POST /add-checkpoint HTTP/1.1", body.as_bytes()).expect("an answer");
    let place = Sha256Digest::of(b"plant.example/log").hex();
    let get = || ask(host.port, &format!("GET /{place}/checkpoint HTTP/1.1"), b"").expect("an answer");
    assert_eq!(get().0, 404);
    let seven = plant.request(0, 7);
    let (status, lines) = add(&seven.to_text());
    assert!(status == 200 && lines.starts_with("— oem.example/w ") && lines.ends_with('\n'), "{lines}");
    let policy = format!("witness oem {}\nquorum oem\n", host.vkey());
    let keys = Keys::from(plant.key()).with_policy(Policy::parse(policy.as_bytes()).unwrap());
    let cosigned = format!("{}{lines}", seven.note);
    assert!(keys.open_checkpoint(cosigned.as_bytes()).unwrap().quorum.unwrap().is_satisfied());
    assert_eq!(get(), (200, cosigned));

    assert_eq!(add(&seven.to_text()), (409, "7\n".into()));
    assert_eq!(add(&plant.request(7, 7).to_text()).0, 200);
    assert_eq!(add(&plant.request(7, 12).to_text()).0, 200);
    assert_eq!(add(&Log::new("b").request(12, 15).to_text()).0, 422);
    assert_eq!(add(&Log::new("b").request(12, 12).to_text()).0, 422);
    assert_eq!(add(&AddCheckpoint { old: 13, ..plant.request(12, 12) }.to_text()).0, 400);
    let note = stranger.sign(&Checkpoint::new("stranger.example/log", 7, plant.root(7)));
    assert_eq!(add(&AddCheckpoint { note, ..seven.clone() }.to_text()).0, 404);
    let forger = LogSigner::new("plant.example/log", &[9; 32]).unwrap();
    let note = forger.sign(&Checkpoint::new("plant.example/log", 15, plant.root(15)));
    assert_eq!(add(&AddCheckpoint { note, ..plant.request(12, 15) }.to_text()).0, 403);
    for malformed in ["", "old 12\n", "old x\n\nx", "old 12\n\nno note\n"] {
        assert_eq!(add(malformed).0, 400, "{malformed:?}");
    }
    assert_eq!(add(&"x".repeat(REQUEST_BYTES_MAX + 1)).0, 413);
    assert_eq!(ask(host.port, "GET /add-checkpoint HTTP/1.1", b"").unwrap().0, 405);
    assert_eq!(ask(host.port, "GET /../witness.toml HTTP/1.1", b"").unwrap().0, 404);
    assert_eq!(size_line(&get().1), 12, "what was refused was not remembered");
    let ended = witness.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(ended.log.contains("NOT COSIGNED"), "{}", ended.log);
}

#[test]
fn a_witness_killed_at_any_moment_never_signs_two_histories() {
    let (left, right) = (Log::new("left"), Log::new("right"));
    let folder = TempDir::new().unwrap();
    let host = Host::new("oem.example/w", &[&left.write_key(folder.path())]);
    // Everything that was ever answered, by which history asked.
    let mut given: Vec<(bool, u64)> = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut kills = 0;
    while kills < 25 && Instant::now() < deadline {
        let witness = host.serve();
        let (port, heard) = (host.port, std::sync::Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for (is_left, log) in [(true, &left), (false, &right)] {
                let heard = &heard;
                scope.spawn(move || {
                    let mut old = 0;
                    // Until the kill, which ends the connection.
                    while let Some((status, body)) = {
                        let size = (old + 1 + old % 3).min(Log::SIZE);
                        ask(port, "POST /add-checkpoint HTTP/1.1", log.request(old, size).to_text().as_bytes()).inspect(
                            |(status, _)| {
                                if *status == 200 {
                                    heard.lock().unwrap().push((is_left, size));
                                    old = size;
                                }
                            },
                        )
                    } {
                        match status {
                            200 => {}
                            409 => old = body.trim().parse().unwrap(),
                            // Whoever lost asks on, from where the witness stands.
                            422 => {}
                            _ => panic!("{status}: {body}"),
                        }
                    }
                });
            }
            // Some kills come before the first answer, some after many.
            std::thread::sleep(Duration::from_millis(3 * (kills % 13)));
            witness.kill();
        });
        kills += 1;
        given.extend(heard.into_inner().unwrap());
        // What the disk holds is never behind what was answered in this life or an earlier one.
        let place = Sha256Digest::of(b"plant.example/log").hex();
        let kept = fs::read_to_string(host.dir().join("state").join(place)).unwrap_or_default();
        let largest = given.iter().map(|(_, size)| *size).max().unwrap_or_default();
        assert!(size_line(&kept) >= largest, "the disk knows {}, given was {largest}", size_line(&kept));
    }
    assert!(kills >= 5 && !given.is_empty(), "{kills} kills, {} cosignatures", given.len());
    let of_left = given.iter().filter(|(is_left, _)| *is_left).count();
    assert!(of_left == 0 || of_left == given.len(), "both histories were cosigned: {given:?}");
    eprintln!("{kills} kills, {} cosignatures, all of one history", given.len());
}

/// A log of 4000 entries in memory, all of it at hand.
struct Log {
    signer: LogSigner,
    leaves: Vec<Sha256Digest>,
}

impl HashReader for Log {
    type Error = std::convert::Infallible;

    fn hash(&self, level: u32, index: u64) -> Result<Sha256Digest, Self::Error> {
        let start = usize::try_from(index << level).unwrap();
        Ok(root_of(self.leaves[start..start + (1 << level)].iter().copied()))
    }
}

impl Log {
    const SIZE: u64 = 4000;

    fn new(history: &str) -> Self {
        let leaves = (0..Self::SIZE).map(|index| leaf_hash(format!("{history} {index}").as_bytes())).collect();
        Self { signer: LogSigner::new("plant.example/log", &[7; 32]).unwrap(), leaves }
    }

    fn key(&self) -> VerifierKey {
        VerifierKey::parse(&self.signer.verifier_key().to_string()).unwrap()
    }

    fn write_key(&self, folder: &Path) -> PathBuf {
        let path = folder.join("log.vkey");
        fs::write(&path, format!("{}\n", self.signer.verifier_key())).unwrap();
        path
    }

    fn root(&self, size: u64) -> Sha256Digest {
        root_of(self.leaves[..usize::try_from(size).unwrap()].iter().copied())
    }

    fn request(&self, old: u64, size: u64) -> AddCheckpoint {
        let note = self.signer.sign(&Checkpoint::new("plant.example/log", size, self.root(size)));
        let proof = if 0 < old && old < size { consistency_proof(old, size, self).unwrap() } else { Vec::new() };
        AddCheckpoint { old, proof, note }
    }
}

/// One HTTP request, written by hand; `None` when there is no whole answer.
fn ask(port: u16, line: &str, body: &[u8]) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let head =
        format!("{line}\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).ok()?;
    // A request that is refused early is not read to its end.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    (length == Some(body.len())).then(|| (status, body.to_owned()))
}

fn size_line(note: &str) -> u64 {
    note.lines().nth(1).and_then(|line| line.parse().ok()).unwrap_or_default()
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

/// A certificate authority for one test.
struct Authority {
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: rcgen::Issuer::new(params, key), pem }
    }

    /// Writes `<file>.pem` and `<file>.key` for one host.
    fn issue(&self, folder: &Path, file: &str, host: &str) {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(folder.join(format!("{file}.pem")), certificate.pem()).unwrap();
        fs::write(folder.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }
}

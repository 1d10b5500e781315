//! `clients/python`, installed as its user installs it, against the service.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, Output, Stdio},
};

use crate::{
    evidence::{entries, verify},
    harness::{Plant, simulated_png, skipped, text},
};

const JOURNEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/python_client.py");
const STREAM_FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/python/examples/stream_folder.py");
const OPEN_INFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/python/examples/open_inference.py");

/// A Python that has the package, where there is one.
fn python() -> Option<OsString> {
    let python = std::env::var_os("LINEPROOF_PYCLIENT").filter(|path| !path.is_empty());
    if python.is_none() {
        skipped("no Python with clients/python; scripts/pyclient-env.sh installs it");
    }
    python
}

/// Writes part-1.png … part-4.png into the plant's folder.
fn write_parts(plant: &Plant) {
    for number in 1..=4 {
        fs::write(plant.folder().join(format!("part-{number}.png")), simulated_png(number)).unwrap();
    }
}

#[test]
fn the_python_client_gets_verdicts_and_typed_refusals() {
    let Some(python) = python() else { return };
    let plant = Plant::new();
    write_parts(&plant);
    let service = plant.serve();
    let url = format!("http://{}", service.address);
    let output = Command::new(python).arg(JOURNEY).arg(url).arg(plant.folder()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(service.stop().code, Some(0));

    let decisions = entries(&plant.data(), "decision");
    let count = |id: &str| decisions.iter().filter(|entry| entry.contains(&format!(r#""id":"{id}""#))).count();
    for id in ["first", "raw", "stream-1", "stream-2", "stream-3", "stream-4", "patient-1", "patient-2", "left-1"] {
        assert_eq!(count(id), 1, "{id}");
    }
    for id in ["bad", "stream-wrong", "stream-long", "twice"] {
        assert_eq!(count(id), 0, "{id}");
    }
    assert!(!entries(&plant.data(), "gap").is_empty());
    assert_eq!(verify(&plant.data(), &plant.vkey()).status.code(), Some(0));
}

#[test]
fn the_python_client_shows_its_certificate_and_trusts_only_the_plants_authority() {
    let Some(python) = python() else { return };
    let plant = Plant::new();
    write_parts(&plant);
    let pem = plant.demand_tls();
    let file = |name: &str, text: &str| {
        let path = plant.folder().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let files = [file("ca.pem", &pem.authority.pem), file("pc.pem", &pem.client.0), file("pc.key", &pem.client.1)];
    let service = plant.serve();
    let url = format!("https://localhost:{}", service.address.rsplit(':').next().unwrap());
    let output = Command::new(python).arg(JOURNEY).arg(url).arg(plant.folder()).args(files).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(service.stop().code, Some(0));
    assert_eq!(entries(&plant.data(), "decision").len(), 3, "{}", text(&output));
}

#[test]
fn the_folder_example_survives_kill_9_of_the_service_and_ends_as_lineproof_camera_does() {
    const PARTS: usize = 40;
    let Some(python) = python() else { return };
    let plant = Plant::new();
    let frames = plant.folder().join("frames");
    fs::create_dir(&frames).unwrap();
    for number in 0..PARTS {
        fs::write(frames.join(format!("part-{number:03}.png")), simulated_png(number as u64)).unwrap();
    }
    let service = plant.serve();
    // After its restart the service listens where it was.
    let address = service.address.clone();
    plant.listen_at(&address);
    let stream = || {
        let mut command = Command::new(&python);
        command.arg(STREAM_FOLDER).arg(&frames).arg("--server").arg(format!("http://{address}"));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };

    let mut example = stream().spawn().unwrap();
    let mut lines = BufReader::new(example.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut said: Vec<String> = lines.by_ref().take(5).collect();
    service.kill();
    let service = plant.serve();
    said.extend(lines);
    let ended = example.wait_with_output().unwrap();
    assert!(ended.status.success(), "{said:#?} {}", text(&ended));
    assert!(text(&ended).contains("connection lost"), "{}", text(&ended));
    let counters = said[..PARTS].iter().map(|line| line.split_whitespace().next().unwrap().parse::<usize>().unwrap());
    assert!(counters.eq(1..=PARTS), "{said:#?}");

    // The same folder once more: every frame is known. A file that is no image makes it end with 1.
    let again = stream().output().unwrap();
    assert!(again.status.success() && text(&again).contains(&format!("{PARTS} already decided")), "{}", text(&again));
    fs::write(frames.join("part-zzz.png"), b"no image").unwrap();
    let refused: Output = stream().output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
    assert!(text(&refused).contains("1 refused: INVALID_ARGUMENT bad_frame"), "{}", text(&refused));

    // The folder's first image by the other protocol: the same bytes under the same id are the same frame.
    let other = Command::new(&python)
        .arg(OPEN_INFERENCE)
        .arg(frames.join("part-000.png"))
        .args(["--serial", "part-000", "--server", &address])
        .output()
        .unwrap();
    assert!(other.status.success(), "{}", text(&other));
    assert_eq!(service.stop().code, Some(0));
    assert_eq!(entries(&plant.data(), "decision").len(), PARTS);
    assert_eq!(verify(&plant.data(), &plant.vkey()).status.code(), Some(0));
}

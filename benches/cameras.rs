//! Many cameras, large frames, long runs: whether every camera gets the same service, and whether memory stays what it is.
//!
//! `cargo bench --bench cameras -- --seconds 20 --minutes 10`; `scripts/bench-model.py` writes the model.
//!
//! Sixteen cameras on sixteen lines each send a frame when the last is answered; the slowest camera's median answer is compared with
//! the fastest's. Then one camera streams raw frames of 24 megapixels, as fast as they are answered, for some minutes, and the
//! service's resident memory is looked at every second: after the first minute, is it growing?

#[path = "../tests/it/harness.rs"]
#[allow(dead_code)]
mod harness;
mod measure;

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use harness::Service;
use lineproof::{
    core::simulate::{Simulator, SimulatorConfig},
    edge::pb::{self, inspect_stream_response::Outcome},
    types::Blake3Digest,
};
use measure::{ms, percentile, verdict};
use serde_json::json;
use tokio_stream::StreamExt as _;

// As the service's binary does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MODEL: &str = ".cache/bench-model.onnx";
const CAMERAS: usize = 16;
/// The slowest camera's median may be this many times the fastest's.
const UNFAIRNESS_MAX: f64 = 1.2;
/// 24 megapixels.
const LARGE_PX: (u32, u32) = (6000, 4000);
/// Large frames under way: one is decided while the next comes in.
const LARGE_UNDER_WAY: usize = 2;
/// Memory may be this much larger at the end than after the first part of the run.
const GROWTH_MAX: f64 = 1.02;
const RECIPE: &str = "bench-classifier@1.0.0";
const MONO8: u32 = 0x0108_0001;

fn main() {
    let seconds = measure::argument("--seconds", 20);
    let minutes = measure::argument("--minutes", 10);
    let Ok(model) = fs::read(MODEL) else {
        println!("{MODEL} is missing: scripts/bench.sh makes it; nothing was measured");
        return;
    };
    let folder = measure::folder();
    let data = folder.path().join("data");
    make_plant(&data, &model);
    let started = Service::spawn(harness::lineproof().arg("serve").arg("--data").arg(&data));
    let service = started.unwrap_or_else(|ended| panic!("the service ended: {}", ended.log));
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    client.block_on(equal_service(&service, Duration::from_secs(seconds)));
    client.block_on(large_frames(&service, Duration::from_secs(minutes * 60)));
    let ended = service.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.log);
}

/// A data directory with the model, and a line for every camera.
fn make_plant(data: &Path, model: &[u8]) {
    let init = harness::lineproof().arg("init").arg(data).output().expect("the binary runs");
    assert!(init.status.success(), "{}", harness::text(&init));
    fs::remove_dir_all(data.join("models")).expect("the embedded recipe goes");
    let recipes = data.join("models/bench-classifier/1.0.0");
    fs::create_dir_all(&recipes).expect("a folder");
    fs::write(recipes.join("model.onnx"), model).expect("the model");
    fs::write(recipes.join("recipe.toml"), recipe_text(Blake3Digest::of(model))).expect("the recipe");
    let path = data.join("lineproof.toml");
    let text = fs::read_to_string(&path).expect("the configuration");
    // Ten minutes of large frames would fill the disk.
    let text = text.replace("ok_share = 0.1", "ok_share = 0.0");
    let mut text = text
        .replace("127.0.0.1:7443", "127.0.0.1:0")
        .replace("127.0.0.1:7444", "127.0.0.1:0")
        .replace("machined-surface@1.1.0", RECIPE);
    for line in 2..=CAMERAS {
        let _ = write!(text, "\n[[station]]\nline = \"line-{line}\"\nstation = \"station-1\"\ncameras = [\"cam-1\"]\n");
    }
    fs::write(&path, text).expect("the configuration");
}

fn recipe_text(model: Blake3Digest) -> String {
    format!(
        r#"format = 1
name = "bench-classifier"
version = "1.0.0"
title = "Speed only: random weights"

[model]
file = "model.onnx"
digest = "{model}"

[frame]
formats = ["Mono8"]
width_px = {{ min = 64, max = 6000 }}
height_px = {{ min = 64, max = 4000 }}
encoded_bytes_max = 33554432

[quality]
mean_min = 0.0

[input]
tensor = "input"
colour = "rgb"
width_px = 224
height_px = 224
resize = "pillow-bilinear"
fit = "stretch"
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]

[output]
kind = "classification"
tensor = "logits"
activation = "softmax"
labels = ["good", "scratch", "dent", "pit", "stain"]

[policy]
comparator = ">="
review = 2.0
reject = 2.0

[policy.class."good"]
role = "ok"
"#
    )
}

/// A raw frame; other bytes for every number.
fn request(line: usize, number: u64, pixels: &[u8], (width_px, height_px): (u32, u32)) -> pb::InspectRequest {
    let mut bytes = pixels.to_vec();
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    let data = Bytes::from(bytes);
    pb::InspectRequest {
        line: format!("line-{line}"),
        station: "station-1".into(),
        camera: "cam-1".into(),
        frame_id: format!("f{number}"),
        frame_counter: number,
        product: "demo-part".into(),
        serial: format!("SN-{line}-{number}"),
        image_blake3: blake3::hash(&data).as_bytes().to_vec(),
        image: Some(pb::Image { data, raw: Some(pb::RawLayout { pfnc: MONO8, width_px, height_px, stride_bytes: 0 }) }),
        ..pb::InspectRequest::default()
    }
}

fn pixels((width_px, height_px): (u32, u32)) -> Vec<u8> {
    let config = SimulatorConfig { seed: 7, width_px, height_px, ..SimulatorConfig::default() };
    Simulator::new(config).expect("a good configuration").part(1).frame
}

async fn equal_service(service: &Service, time: Duration) {
    let size = (1280, 1024);
    let frame = std::sync::Arc::new(pixels(size));
    let mut cameras = Vec::new();
    for line in 1..=CAMERAS {
        // A connection each, as line PCs have.
        let (frame, mut client) = (frame.clone(), service.inspection().await);
        cameras.push(tokio::spawn(async move {
            let (mut times, started) = (Vec::new(), Instant::now());
            for number in 1.. {
                if started.elapsed() >= time {
                    break;
                }
                let asked = request(line, number, &frame, size);
                let sent = Instant::now();
                client.inspect(asked).await.expect("a verdict");
                times.push(sent.elapsed());
            }
            times
        }));
    }
    let mut times: Vec<Vec<Duration>> = Vec::new();
    for camera in cameras {
        times.push(camera.await.expect("a camera"));
    }
    let frames: usize = times.iter().map(Vec::len).sum();
    let medians: Vec<f64> = times.iter().map(|times| ms(percentile(times, 0.5))).collect();
    let (fastest, slowest) = measure::spread(&medians);
    let ratio = slowest / fastest;
    println!(
        "\n{CAMERAS} cameras on as many lines, one frame each under way, {frames} frames in {} s: median answers {fastest:.1} to {slowest:.1} ms; slowest {ratio:.2} of the fastest, at most {UNFAIRNESS_MAX}: {}",
        time.as_secs(),
        verdict(ratio <= UNFAIRNESS_MAX)
    );
    measure::result("cameras", json!({ "frames": frames, "medians_ms": medians, "ratio": ratio }));
}

async fn large_frames(service: &Service, time: Duration) {
    let frame = pixels(LARGE_PX);
    let mut client = service.inspection().await;
    let (sender, receiver) = tokio::sync::mpsc::channel(LARGE_UNDER_WAY);
    // Behind the counters of the first part.
    let first = 1_000_000;
    for number in 0..LARGE_UNDER_WAY as u64 {
        sender.send(request(1, first + number, &frame, LARGE_PX)).await.expect("the stream is open");
    }
    let answers = client.inspect_stream(tokio_stream::wrappers::ReceiverStream::new(receiver)).await.expect("a stream");
    let mut answers = answers.into_inner();
    let started = Instant::now();
    let (mut decided, mut memory) = (0_u64, Vec::new());
    let mut next = first + LARGE_UNDER_WAY as u64;
    while started.elapsed() < time {
        let answer = answers.next().await.expect("an answer").expect("an answer");
        assert!(matches!(answer.outcome, Some(Outcome::Decided(_))), "{answer:?}");
        decided += 1;
        sender.send(request(1, next, &frame, LARGE_PX)).await.expect("the stream is open");
        next += 1;
        if memory.last().is_none_or(|(at, _): &(Duration, u64)| started.elapsed() - *at >= Duration::from_secs(1)) {
            memory.push((started.elapsed(), resident_bytes(service.child.id())));
        }
    }
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    // The first tenth fills buffers; of the rest, the first quarter is held against the last.
    let settled = &memory[memory.len() / 10..];
    let quarter = (settled.len() / 4).max(1);
    let most = |part: &[(Duration, u64)]| part.iter().map(|(_, bytes)| *bytes).max().unwrap_or_default();
    let (before, after) = (most(&settled[..quarter]), most(&settled[settled.len() - quarter..]));
    let growth = after as f64 / before as f64;
    println!(
        "\nraw frames of 24 megapixels, {decided} in {} s, {:.1} MB/s: resident memory at most {:.0} MB; most of the last quarter {growth:.3} of the first's after a tenth of warming up, at most {GROWTH_MAX}: {}",
        time.as_secs(),
        megabytes(decided * u64::from(LARGE_PX.0) * u64::from(LARGE_PX.1)) / time.as_secs_f64(),
        megabytes(most(&memory)),
        verdict(growth <= GROWTH_MAX)
    );
    measure::result("large_frames", json!({ "frames": decided, "peak_bytes": most(&memory), "growth": growth }));
}

/// What the process holds in memory now.
fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or_default() * 1024
}

//! The service against the bare loop: throughput at saturation, and what one client waits longer.
//!
//! `cargo bench --bench end_to_end -- --rounds 5 --frames 240 --singles 200`; `scripts/bench-model.py` writes the model.
//!
//! The floor is decode, preprocess and ONNX Runtime session called in a loop in one process: no network, no digest, no
//! quality, no record. The service is the real binary over loopback gRPC with its data on a real disk. Both use the
//! same code for the three steps, the same threads, and take turns within one run. The client that loads the service
//! runs on the same cores, which the ratio of wall times charges to the service; the ratio of CPU times does not.

#[path = "../tests/it/harness.rs"]
#[allow(dead_code)]
mod harness;
mod measure;

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use harness::Service;
use lineproof::{
    adapters::{ort::OrtRuntime, recipe_files},
    core::{
        frame::{self, Scratch},
        preprocess::Preprocessor,
        simulate::{Simulator, SimulatorConfig},
    },
    edge::pb::{self, inspect_stream_response::Outcome, inspection_service_client::InspectionServiceClient},
    ports::{
        inference::{InferenceSession, ModelRuntime as _, Outputs, SessionOptions},
        recipes::LoadedRecipe,
    },
    types::Blake3Digest,
};
use measure::{Stretch, SyncedFile, Used, median, ms, percentile, spread, verdict};
use serde_json::json;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;

// As the service's binary does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MODEL: &str = ".cache/bench-model.onnx";
const CAMERAS: usize = 4;
/// Frames each camera has under way: enough that no worker ever waits for one.
const UNDER_WAY: usize = 4;
const PARTS: u64 = 24;
/// Bytes of a decision as the log writes it, for the bare fdatasync.
const RECORD_BYTES: usize = 2048;
const ADDED_MAX_MS: f64 = 2.0;
const RATIO_MIN: f64 = 0.90;

/// Every part OK, so that the archive rule keeps 10 % of the images.
const ALL_OK: &str = "bench-classifier@1.0.0";
/// Every part NOT_OK, so that it keeps each.
const ALL_BAD: &str = "bench-classifier@2.0.0";

fn main() {
    let rounds = measure::argument("--rounds", 5);
    let frames = measure::argument("--frames", 240) as usize;
    let singles = measure::argument("--singles", 200) as usize;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let Ok(model) = fs::read(MODEL) else {
        println!("{MODEL} is missing: scripts/bench.sh makes it; nothing was measured");
        return;
    };
    let folder = measure::folder();
    let data = folder.path().join("data");
    make_plant(&data, &model);
    let jpegs = jpegs();
    let bytes = jpegs.iter().map(Vec::len).sum::<usize>() / jpegs.len();
    println!("{threads} threads; JPEG 1280x1024 grey, {bytes} bytes on average; ResNet-18, 224x224");

    let runtime = OrtRuntime::load(None).expect("ONNX Runtime");
    let recipes = data.join("models");
    let name = recipe_files::list(&recipes).expect("recipes").remove(0);
    let recipe = recipe_files::load(&recipes, &data.join("calibration"), None, &name).expect("a good recipe");
    let mut floor: Vec<Loop> = (0..threads).map(|_| Loop::new(&runtime, &recipe)).collect();

    let started = Service::spawn(harness::lineproof().arg("serve").arg("--data").arg(&data));
    let service = started.unwrap_or_else(|ended| panic!("the service ended: {}", ended.log));
    // One thread: the client is to cost as little as it can.
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut line = client.block_on(Line::connect(&service));

    saturate("saturation, 10 % archived", ALL_OK, rounds, frames, &jpegs, &mut floor, &service, &client, &mut line);
    saturate("saturation, all archived", ALL_BAD, rounds, frames, &jpegs, &mut floor, &service, &client, &mut line);
    let mut synced = SyncedFile::create(&data.join("bare-append"));
    one_client(singles, &jpegs, &mut floor[0], &client, &mut line, &mut synced);

    let before_the_log_ends = service.stop();
    assert_eq!(before_the_log_ends.code, Some(0), "{}", before_the_log_ends.log);
    let entries = line.number;
    let log: u64 = ["log", "private", "index"].iter().map(|part| measure::disk_bytes(&data.join(part))).sum();
    println!("{entries} decisions took {} bytes each in log, private and index (few; see `million`)", log / entries);
}

/// A data directory with the model under two recipes, and cameras for the load.
fn make_plant(data: &Path, model: &[u8]) {
    let init = harness::lineproof().arg("init").arg(data).output().expect("the binary runs");
    assert!(init.status.success(), "{}", harness::text(&init));
    fs::remove_dir_all(data.join("models")).expect("the embedded recipe goes");
    for (version, review, reject) in [("1.0.0", "2.0", "2.0"), ("2.0.0", "0.0", "0.0")] {
        let folder = data.join("models/bench-classifier").join(version);
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("model.onnx"), model).expect("the model");
        let recipe = recipe_text(version, review, reject, Blake3Digest::of(model));
        fs::write(folder.join("recipe.toml"), recipe).expect("the recipe");
    }
    let path = data.join("lineproof.toml");
    let text = fs::read_to_string(&path).expect("the configuration");
    let cameras: Vec<String> = (1..=CAMERAS).map(|camera| format!("\"cam-{camera}\"")).collect();
    let text = text
        .replace("127.0.0.1:7443", "127.0.0.1:0")
        .replace("127.0.0.1:7444", "127.0.0.1:0")
        .replace("cameras = [\"cam-1\"]", &format!("cameras = [{}]", cameras.join(", ")))
        .replace("machined-surface@1.1.0", ALL_OK);
    fs::write(&path, text).expect("the configuration");
}

fn recipe_text(version: &str, review: &str, reject: &str, model: Blake3Digest) -> String {
    format!(
        r#"format = 1
name = "bench-classifier"
version = "{version}"
title = "Speed only: random weights"

[model]
file = "model.onnx"
digest = "{model}"

[frame]
formats = ["jpeg"]
width_px = {{ min = 1280, max = 1280 }}
height_px = {{ min = 1024, max = 1024 }}
encoded_bytes_max = 4194304

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
review = {review}
reject = {reject}

[policy.class."good"]
role = "ok"
"#
    )
}

/// Simulated parts as a camera with a JPEG encoder sends them.
fn jpegs() -> Vec<Vec<u8>> {
    let config = SimulatorConfig { seed: 7, width_px: 1280, height_px: 1024, ..SimulatorConfig::default() };
    let simulator = Simulator::new(config).expect("a good configuration");
    (0..PARTS)
        .map(|number| {
            let part = simulator.part(number);
            let mut bytes = Vec::new();
            image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 90)
                .encode(&part.frame, part.width_px, part.height_px, image::ExtendedColorType::L8)
                .expect("an image encodes");
            bytes
        })
        .collect()
}

/// Other bytes, same pixels: the number as a comment after the start marker. So no image is stored only once.
fn numbered(jpeg: &[u8], number: u64) -> Bytes {
    let mut bytes = Vec::with_capacity(jpeg.len() + 12);
    bytes.extend_from_slice(&jpeg[..2]);
    bytes.extend_from_slice(&[0xff, 0xfe, 0, 10]);
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(&jpeg[2..]);
    bytes.into()
}

/// The floor: the steps no service can do without, on one thread.
struct Loop<'a> {
    recipe: &'a LoadedRecipe,
    scratch: Scratch,
    preprocessor: Preprocessor,
    session: Box<dyn InferenceSession + Send>,
    outputs: Outputs,
}

impl<'a> Loop<'a> {
    fn new(runtime: &OrtRuntime, recipe: &'a LoadedRecipe) -> Self {
        Self {
            recipe,
            scratch: Scratch::default(),
            preprocessor: Preprocessor::new(&recipe.recipe),
            session: runtime.load(&recipe.model_spec(), &SessionOptions::default()).expect("the model loads"),
            outputs: Outputs::default(),
        }
    }

    fn frame(&mut self, jpeg: &[u8]) {
        let frame = frame::decode(jpeg, None, &self.recipe.recipe.frame, &mut self.scratch).expect("a good frame");
        let shape = self.preprocessor.shape();
        let tensor = self.preprocessor.prepare(&frame).expect("a tensor");
        self.session.run(tensor, shape, &mut self.outputs).expect("an inference");
        std::hint::black_box(&self.outputs);
    }
}

/// All threads of the floor share `frames` frames.
fn run_floor(floor: &mut [Loop], jpegs: &[Vec<u8>], frames: usize) -> Used {
    let stretch = Stretch::start(&[std::process::id()]);
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for worker in floor {
            let next = &next;
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= frames {
                        return;
                    }
                    worker.frame(&jpegs[number % jpegs.len()]);
                }
            });
        }
    });
    stretch.end()
}

/// The line PCs: all cameras over one connection.
struct Line {
    client: InspectionServiceClient<Channel>,
    pid: u32,
    /// Frames sent so far.
    number: u64,
}

impl Line {
    async fn connect(service: &Service) -> Self {
        Self { client: service.inspection().await, pid: service.child.id(), number: 0 }
    }

    fn request(&mut self, jpegs: &[Vec<u8>], recipe: &str) -> pb::InspectRequest {
        self.number += 1;
        let image = numbered(&jpegs[self.number as usize % jpegs.len()], self.number);
        pb::InspectRequest {
            line: "line-1".into(),
            station: "station-1".into(),
            camera: format!("cam-{}", 1 + self.number as usize % CAMERAS),
            frame_id: format!("f{}", self.number),
            frame_counter: self.number / CAMERAS as u64,
            product: "demo-part".into(),
            serial: format!("SN-{:08}", self.number),
            lot: "LOT-7".into(),
            recipe: recipe.into(),
            image_blake3: blake3::hash(&image).as_bytes().to_vec(),
            image: Some(pb::Image { data: image, raw: None }),
            ..pb::InspectRequest::default()
        }
    }

    /// Sends prepared frames over one stream per camera, each with a few under way, and waits for every verdict.
    async fn saturate(&mut self, requests: Vec<pb::InspectRequest>) -> Used {
        let mut cameras: Vec<Vec<pb::InspectRequest>> = vec![Vec::new(); CAMERAS];
        for (at, request) in requests.into_iter().enumerate() {
            cameras[at % CAMERAS].push(request);
        }
        let stretch = Stretch::start(&[self.pid, std::process::id()]);
        let streams = cameras.into_iter().map(|frames| tokio::spawn(stream(self.client.clone(), frames)));
        for stream in streams.collect::<Vec<_>>() {
            stream.await.expect("a camera's stream");
        }
        stretch.end()
    }
}

async fn stream(mut client: InspectionServiceClient<Channel>, frames: Vec<pb::InspectRequest>) {
    let expected = frames.len();
    let mut frames = frames.into_iter();
    let (sender, receiver) = tokio::sync::mpsc::channel(UNDER_WAY);
    for frame in frames.by_ref().take(UNDER_WAY) {
        sender.send(frame).await.expect("the stream is open");
    }
    let answers = client.inspect_stream(tokio_stream::wrappers::ReceiverStream::new(receiver)).await.expect("a stream");
    let mut answers = answers.into_inner();
    for _ in 0..expected {
        let answer = answers.next().await.expect("an answer").expect("an answer");
        assert!(matches!(answer.outcome, Some(Outcome::Decided(_))), "{answer:?}");
        if let Some(frame) = frames.next() {
            sender.send(frame).await.expect("the stream is open");
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "the two sides of one comparison")]
fn saturate(
    name: &str,
    recipe: &str,
    rounds: u64,
    frames: usize,
    jpegs: &[Vec<u8>],
    floor: &mut [Loop],
    service: &Service,
    client: &tokio::runtime::Runtime,
    line: &mut Line,
) {
    let serve = |line: &mut Line, frames: usize| {
        let requests = (0..frames).map(|_| line.request(jpegs, recipe)).collect();
        client.block_on(line.saturate(requests))
    };
    run_floor(floor, jpegs, jpegs.len());
    serve(line, jpegs.len());
    println!("\n{name}: {frames} frames a turn, {CAMERAS} streams with {UNDER_WAY} frames under way each");
    println!(
        "{:>5} {:>9} {:>9} {:>7} {:>12} {:>12} {:>12} {:>9} {:>14}",
        "round", "floor/s", "service/s", "ratio", "floor CPU", "server CPU", "client CPU", "CPU ratio", "others (f, s)"
    );
    let (mut walls, mut cpus, mut floors, mut services) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut server_cpus, mut client_cpus, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        let bare = run_floor(floor, jpegs, frames);
        let served = serve(line, frames);
        let per_second = |used: &Used| frames as f64 / used.wall.as_secs_f64();
        let per_frame = |cpu: Duration| ms(cpu) / frames as f64;
        let (wall, cpu) = (per_second(&served) / per_second(&bare), per_frame(bare.cpu[0]) / per_frame(served.cpu[0]));
        println!(
            "{round:>5} {:>9.1} {:>9.1} {wall:>7.3} {:>9.2} ms {:>9.2} ms {:>9.2} ms {cpu:>9.3} {:>6.0} % {:>4.0} %",
            per_second(&bare),
            per_second(&served),
            per_frame(bare.cpu[0]),
            per_frame(served.cpu[0]),
            per_frame(served.cpu[1]),
            bare.others * 100.0,
            served.others * 100.0,
        );
        walls.push(wall);
        cpus.push(cpu);
        floors.push(per_second(&bare));
        services.push(per_second(&served));
        server_cpus.push(per_frame(served.cpu[0]));
        client_cpus.push(per_frame(served.cpu[1]));
        others.extend([bare.others, served.others]);
    }
    let (low, high) = spread(&walls);
    let is_met = median(&walls) >= RATIO_MIN;
    println!(
        "ratio of throughput {:.3} ({low:.3} to {high:.3}), target {RATIO_MIN:.2}: {}; of CPU per frame {:.3}",
        median(&walls),
        verdict(is_met),
        median(&cpus)
    );
    assert!(measure::cpu_time(service.child.id()) > Duration::ZERO, "the service runs");
    measure::result(
        "end_to_end",
        json!({
            "case": name, "rounds": rounds, "frames": frames,
            "floor_per_s": median(&floors), "service_per_s": median(&services),
            "ratio": median(&walls), "ratio_min": low, "ratio_max": high, "target": RATIO_MIN, "met": is_met,
            "cpu_ratio": median(&cpus), "server_cpu_ms": median(&server_cpus), "client_cpu_ms": median(&client_cpus),
            "others_share": median(&others),
        }),
    );
}

/// Floor, unary call, stream and bare fdatasync take turns, frame by frame.
fn one_client(
    singles: usize,
    jpegs: &[Vec<u8>],
    floor: &mut Loop,
    client: &tokio::runtime::Runtime,
    line: &mut Line,
    synced: &mut SyncedFile,
) {
    let (mut bare, mut unary, mut streamed, mut syncs) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut refused = Vec::new();
    let mut steps: [Vec<Duration>; 8] = Default::default();
    client.block_on(async {
        let (sender, receiver) = tokio::sync::mpsc::channel(1);
        let receiver = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let mut answers = line.client.inspect_stream(receiver).await.expect("a stream").into_inner();
        for turn in 0..singles + 5 {
            let started = Instant::now();
            floor.frame(&jpegs[(line.number as usize + 1) % jpegs.len()]);
            let took_bare = started.elapsed();

            let request = line.request(jpegs, ALL_OK);
            let started = Instant::now();
            let answer = line.client.inspect(request).await.expect("a verdict").into_inner();
            let took_unary = started.elapsed();

            let request = line.request(jpegs, ALL_OK);
            let started = Instant::now();
            sender.send(request).await.expect("the stream is open");
            let streamed_answer = answers.next().await.expect("an answer").expect("an answer");
            let took_streamed = started.elapsed();
            assert!(matches!(streamed_answer.outcome, Some(Outcome::Decided(_))), "{streamed_answer:?}");

            // Refused after the digest: what the call alone takes.
            let mut request = line.request(jpegs, ALL_OK);
            request.image_blake3 = vec![0; 32];
            let started = Instant::now();
            line.client.inspect(request).await.expect_err("a wrong digest is refused");
            let took_refused = started.elapsed();

            let took_sync = synced.append(RECORD_BYTES);
            // The first turns warm caches and connections.
            if turn >= 5 {
                bare.push(took_bare);
                unary.push(took_unary);
                streamed.push(took_streamed);
                syncs.push(took_sync);
                refused.push(took_refused);
                let t = answer.timings.expect("timings of a new decision");
                let us = [
                    t.queue_us,
                    t.check_us,
                    t.decode_us,
                    t.preprocess_us,
                    t.infer_us,
                    t.decide_us,
                    t.seal_us,
                    t.commit_us,
                ];
                steps.iter_mut().zip(us).for_each(|(step, us)| step.push(Duration::from_micros(us)));
            }
        }
    });
    println!("\none client, {singles} frames each, taking turns");
    println!("{:<12} {:>9} {:>9}", "", "p50 ms", "p99 ms");
    for (name, times) in
        [("loop", &bare), ("unary", &unary), ("stream", &streamed), ("refused", &refused), ("fdatasync", &syncs)]
    {
        println!("{name:<12} {:>9.2} {:>9.2}", ms(percentile(times, 0.5)), ms(percentile(times, 0.99)));
    }
    let names = ["queue", "check", "decode", "preprocess", "infer", "decide", "seal", "commit"];
    let parts: Vec<String> =
        names.iter().zip(&steps).map(|(name, times)| format!("{name} {:.2}", ms(percentile(times, 0.5)))).collect();
    println!("of a unary call, p50 ms: {}", parts.join(", "));
    let sync = ms(percentile(&syncs, 0.5));
    for (name, times) in [("unary", &unary), ("stream", &streamed)] {
        let added = ms(percentile(times, 0.5)) - ms(percentile(&bare, 0.5));
        let paired: Vec<f64> = times.iter().zip(&bare).map(|(served, bare)| ms(*served) - ms(*bare)).collect();
        let most = sync + ADDED_MAX_MS;
        println!(
            "added by {name} at p50: {added:.2} ms (median of differences {:.2}), target {most:.2}: {}",
            median(&paired),
            verdict(added <= most)
        );
        measure::result(
            "end_to_end",
            json!({
                "case": format!("one client, {name}"), "frames": singles,
                "loop_p50_ms": ms(percentile(&bare, 0.5)), "p50_ms": ms(percentile(times, 0.5)),
                "p99_ms": ms(percentile(times, 0.99)), "added_p50_ms": added, "added_paired_ms": median(&paired),
                "fdatasync_p50_ms": sync, "target_ms": most, "met": added <= most,
            }),
        );
    }
}

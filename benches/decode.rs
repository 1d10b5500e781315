//! From the bytes of a JPEG to a model's tensor on one thread, against the usual Python path with OpenCV.
//!
//! `cargo bench --bench decode -- --rounds 5 --frames 100`; `LINEPROOF_BENCH_PYTHON` names a Python that has OpenCV and numpy.
//!
//! The same files of 1280x1024 pixels, grey and in colour, decoded, resized to 224x224 by two taps (OpenCV's INTER_LINEAR, whose
//! result ours is to the bit), scaled and normalised to a tensor of three channels. The two take turns.

mod measure;

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Instant,
};

use lineproof::core::{
    frame::{self, Scratch},
    preprocess::Preprocessor,
    recipe::Recipe,
    simulate::{Simulator, SimulatorConfig},
};
use measure::{median, spread, verdict};
use serde_json::json;

// As the service's binary does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const FILES: u64 = 8;
const TIMES_FASTER_MIN: f64 = 2.0;

fn main() {
    let rounds = measure::argument("--rounds", 5);
    let frames = measure::argument("--frames", 100) as usize;
    let folder = measure::folder();
    for (name, colour) in [("grey", image::ExtendedColorType::L8), ("colour", image::ExtendedColorType::Rgb8)] {
        let path = folder.path().join(name);
        fs::create_dir(&path).expect("a folder");
        let jpegs = jpegs(colour);
        for (number, jpeg) in jpegs.iter().enumerate() {
            fs::write(path.join(format!("{number}.jpg")), jpeg).expect("a file");
        }
        let mut python = Python::start(&path);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            ours.push(run(&jpegs, frames));
            theirs.extend(python.as_mut().map(|python| python.run(frames)));
        }
        let bytes = jpegs.iter().map(Vec::len).sum::<usize>() / jpegs.len();
        print!("\n{name} JPEG 1280x1024, {bytes} bytes on average: ours {:.2} ms a frame", median(&ours));
        if theirs.is_empty() {
            println!("; no Python with OpenCV to compare with");
        } else {
            let ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(ours, theirs)| theirs / ours).collect();
            let (least, most) = spread(&ratios);
            let faster = median(&ratios);
            println!(
                ", Python with OpenCV {:.2}; {faster:.2} times as fast ({least:.2} to {most:.2}), at least {TIMES_FASTER_MIN}: {}",
                median(&theirs),
                verdict(faster >= TIMES_FASTER_MIN)
            );
        }
        measure::result("decode", json!({ "frames": name, "ours_ms": ours, "python_ms": theirs }));
    }
}

fn jpegs(colour: image::ExtendedColorType) -> Vec<Vec<u8>> {
    let config = SimulatorConfig { seed: 7, width_px: 1280, height_px: 1024, ..SimulatorConfig::default() };
    let simulator = Simulator::new(config).expect("a good configuration");
    let encode = |number| {
        let part = simulator.part(number);
        let pixels = match colour {
            image::ExtendedColorType::L8 => part.frame,
            // A tint, so that the colour planes hold something.
            _ => part.frame.iter().flat_map(|v| [*v, v.saturating_add(9), v.saturating_sub(9)]).collect(),
        };
        let mut bytes = Vec::new();
        image::codecs::jpeg::JpegEncoder::new_with_quality(&mut bytes, 90)
            .encode(&pixels, part.width_px, part.height_px, colour)
            .expect("an image encodes");
        bytes
    };
    (0..FILES).map(encode).collect()
}

/// Milliseconds a frame.
fn run(jpegs: &[Vec<u8>], frames: usize) -> f64 {
    let recipe = Recipe::parse(RECIPE).expect("a good recipe");
    let (mut scratch, mut preprocessor) = (Scratch::default(), Preprocessor::new(&recipe));
    let mut one = |number: usize| {
        let frame =
            frame::decode(&jpegs[number % jpegs.len()], None, &recipe.frame, &mut scratch).expect("a good frame");
        std::hint::black_box(preprocessor.prepare(&frame).expect("a tensor"));
    };
    (0..jpegs.len()).for_each(&mut one);
    let started = Instant::now();
    (0..frames).for_each(&mut one);
    started.elapsed().as_secs_f64() * 1e3 / frames as f64
}

/// The other side, a process that is told how many frames to run and says how long each took.
struct Python {
    child: Child,
    /// Ends when it is closed.
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Python {
    fn start(files: &std::path::Path) -> Option<Self> {
        let python = std::env::var_os("LINEPROOF_BENCH_PYTHON")?;
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/bench-decode.py");
        let child = Command::new(python).arg(script).arg(files).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("LINEPROOF_BENCH_PYTHON starts");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut python = Self { child, stdin, stdout };
        (python.line() == "ready").then_some(python)
    }

    fn run(&mut self, frames: usize) -> f64 {
        let stdin = self.stdin.as_mut().expect("it is open until the end");
        writeln!(stdin, "{frames}").expect("it listens");
        self.line().parse().expect("milliseconds")
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("it speaks");
        line.trim().to_owned()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}

const RECIPE: &str = r#"format = 1
name = "bench"
version = "1.0.0"
title = "Speed only"

[model]
file = "model.onnx"
digest = "blake3:0000000000000000000000000000000000000000000000000000000000000000"

[frame]
formats = ["jpeg"]
width_px = { min = 1280, max = 1280 }
height_px = { min = 1024, max = 1024 }
encoded_bytes_max = 4194304

[input]
tensor = "input"
colour = "rgb"
width_px = 224
height_px = 224
resize = "opencv-linear"
fit = "stretch"
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]

[output]
kind = "classification"
tensor = "logits"
activation = "softmax"
labels = ["good", "bad"]

[policy]
comparator = ">="
review = 0.5
reject = 0.9

[policy.class."good"]
role = "ok"
"#;

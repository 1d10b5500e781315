//! A client of the Open Inference Protocol, unchanged, gets verdicts with entries behind them.

use std::{fs, process::Command};

use crate::{
    evidence::{entries, verify},
    harness::{Plant, simulated_png, skipped, text},
};

#[test]
fn tritonclient_works_unchanged_and_every_frame_it_sends_has_its_entry() {
    let Some(python) = std::env::var_os("LINEPROOF_TRITON").filter(|path| !path.is_empty()) else {
        return skipped("no tritonclient; scripts/triton-client-env.sh installs it");
    };
    let plant = Plant::new();
    for number in 1..=4 {
        fs::write(plant.folder().join(format!("part-{number}.png")), simulated_png(number)).unwrap();
    }
    let pixels: Vec<u8> = (0..320_u32 * 256).map(|at| (at * 7 % 251) as u8).collect();
    fs::write(plant.folder().join("pixels.bin"), pixels).unwrap();
    let service = plant.serve();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/open_inference.py");
    let output = Command::new(python).arg(script).arg(&service.address).arg(plant.folder()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(service.stop().code, Some(0));

    // One entry for each frame that was decided: two of images, one of which came twice; four of pixels; five of the stream.
    let decisions = entries(&plant.data(), "decision");
    assert_eq!(decisions.len(), 2 + 4 + 5, "{}", text(&output));
    assert!(
        decisions
            .iter()
            .all(|entry| entry.contains(r#""line":"line-1""#) && entry.contains(r#""product":"demo-part""#))
    );
    assert!(decisions.iter().any(|entry| entry.contains(r#""id":"stream-6""#)));
    let history = plant.run(&["history", "--part", "SN-1", "--json"]);
    assert_eq!(text(&history).matches(r#""entry_index":"#).count(), 2, "{}", text(&history));
    // What was refused is a gap, where its camera is known.
    assert!(!entries(&plant.data(), "gap").is_empty());
    assert_eq!(verify(&plant.data(), &plant.vkey()).status.code(), Some(0));
}

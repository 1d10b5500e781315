//! Writes simulated parts to a folder: frames, masks and a line of truth for each.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::Path,
};

use anyhow::Context as _;
use rayon::prelude::*;
use serde::Serialize;

use super::{ImageFormat, progress::Progress};
use crate::core::simulate::{Defect, SimulatedPart, Simulator, Surface};

/// Parts rendered together: enough to keep every core busy, few enough to hold in memory.
const BATCH_PARTS: u64 = 32;

/// One line of `labels.jsonl`.
#[derive(Serialize)]
struct Label<'a> {
    serial: &'a str,
    number: u64,
    frame: String,
    mask: String,
    surface: Surface,
    width: u32,
    height: u32,
    is_bad: bool,
    defects: &'a [Defect],
}

pub fn run(simulator: &Simulator, format: ImageFormat, first: u64, count: u64, directory: &Path) -> anyhow::Result<u8> {
    for folder in ["frames", "masks"] {
        let path = directory.join(folder);
        fs::create_dir_all(&path).with_context(|| format!("cannot make the folder {}", path.display()))?;
    }
    let labels_path = directory.join("labels.jsonl");
    let labels = File::create(&labels_path).with_context(|| format!("cannot write {}", labels_path.display()))?;
    let mut labels = BufWriter::new(labels);

    let progress = Progress::new(Some(count), "parts");
    let (mut bad, mut done) = (0_u64, 0_u64);
    while done < count {
        let batch = BATCH_PARTS.min(count - done);
        let parts: Vec<SimulatedPart> = (first + done..first + done + batch)
            .into_par_iter()
            .map(|number| store(simulator, number, format, directory))
            .collect::<anyhow::Result<_>>()?;
        for part in &parts {
            bad += u64::from(part.is_bad);
            serde_json::to_writer(&mut labels, &label(part, format))?;
            labels.write_all(b"\n")?;
        }
        done += batch;
        progress.at(done);
    }
    labels.flush().with_context(|| format!("cannot write {}", labels_path.display()))?;
    progress.finish();
    println!("wrote {done} parts to {}: {bad} bad, {} good", directory.display(), done - bad);
    Ok(0)
}

fn store(simulator: &Simulator, number: u64, format: ImageFormat, directory: &Path) -> anyhow::Result<SimulatedPart> {
    let mut part = simulator.part(number);
    let Label { frame, mask, .. } = label(&part, format);
    for (name, bytes) in [
        (frame, format.encode_grey(&part.frame, part.width_px, part.height_px)),
        (mask, ImageFormat::Png.encode_grey(&part.mask, part.width_px, part.height_px)),
    ] {
        let path = directory.join(name);
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    // Only the truth is still needed.
    (part.frame, part.mask) = (Vec::new(), Vec::new());
    Ok(part)
}

fn label(part: &SimulatedPart, format: ImageFormat) -> Label<'_> {
    Label {
        serial: &part.serial,
        number: part.number,
        frame: format!("frames/{}.{}", part.serial, format.extension()),
        mask: format!("masks/{}.png", part.serial),
        surface: part.surface,
        width: part.width_px,
        height: part.height_px,
        is_bad: part.is_bad,
        defects: &part.defects,
    }
}

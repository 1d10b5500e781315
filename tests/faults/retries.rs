//! Line PCs that send a frame twice at once, leave before the answer, come back, or send something else under the name.

use std::{collections::HashMap, time::Duration};

use lineproof::edge::pb;
use tonic::Code;

use crate::{
    Tally, check,
    dice::Dice,
    harness::{self, Plant, Service, block_on, text},
};

/// Cameras of their own, so that nobody's frames are another's.
const CAMERAS: usize = 4;

/// Frames that cost a copy and a few pixels instead of a rendering.
pub struct Frames {
    base: image::GrayImage,
}

impl Frames {
    pub fn new() -> Self {
        Self { base: image::load_from_memory(&harness::simulated_png(1)).expect("a PNG").into_luma8() }
    }

    /// The same picture, with client and number in the lowest bits of its first pixels.
    pub fn request(&self, client: usize, number: u64) -> pb::InspectRequest {
        let mut image = self.base.clone();
        let mark = number | (client as u64) << 40;
        for (bit, pixel) in image.as_mut().iter_mut().take(48).enumerate() {
            *pixel = (*pixel & 0xfe) | u8::from(mark >> bit & 1 == 1);
        }
        let (width, height) = image.dimensions();
        let bytes = harness::encode(image.as_raw(), width, height, image::ImageFormat::Bmp);
        let mut request = harness::request(number, bytes);
        request.camera = camera(client);
        request.frame_id = frame(client, number);
        request
    }
}

fn camera(client: usize) -> String {
    format!("cam-{}", client + 1)
}

fn frame(client: usize, number: u64) -> String {
    format!("c{client}-{number}")
}

/// Lets a plant know so many cameras.
pub fn with_cameras(plant: &Plant, count: usize) {
    let names: Vec<String> = (0..count).map(|client| format!("{:?}", camera(client))).collect();
    plant.edit_config(r#"cameras = ["cam-1"]"#, &format!("cameras = [{}]", names.join(", ")));
}

pub fn run(wanted: u64, dice: &mut Dice, tally: &mut Tally) {
    let plant = Plant::new();
    with_cameras(&plant, CAMERAS);
    let service = match plant.try_serve() {
        Ok(service) => service,
        Err(ended) => return tally.broken.push(ended.log),
    };
    let frames = Frames::new();
    let mut acknowledged: HashMap<(usize, u64), u64> = HashMap::new();
    let mut kinds = [0_u64; 5];
    block_on(async {
        let mut client = Troublemaker { inspection: service.inspection().await, frames };
        let mut next = [1_u64; CAMERAS];
        while tally.happened < wanted {
            let camera = dice.index(CAMERAS);
            let (number, kind) = (next[camera], dice.index(kinds.len()));
            let outcome = match kind {
                0 => client.twice_at_once(camera, number).await,
                1 => client.leave_and_come_back(camera, number, Duration::from_micros(dice.below(40_000))).await,
                2 if number > 1 => client.again(camera, 1 + dice.below(number - 1), &acknowledged).await,
                3 if number > 1 => client.something_else(camera, 1 + dice.below(number - 1)).await,
                _ => client.wrong_digest(camera, number).await,
            };
            match outcome {
                Ok(Some(index)) => {
                    acknowledged.insert((camera, number), index);
                    next[camera] += 1;
                }
                Ok(None) => {}
                Err(reason) => tally.broken.push(format!("{}: {reason}", frame(camera, number))),
            }
            kinds[kind] += 1;
            tally.happened += 1;
        }
    });
    let ended = service.stop();
    if ended.code != Some(0) {
        tally.broken.push(format!("the service ended with {:?}: {}", ended.code, ended.log));
    }
    assert_whole(&plant, &acknowledged, tally);
    let [twice, left, again, other, digest] = kinds;
    tally.note =
        format!("twice at once {twice}, left {left}, again {again}, other bytes {other}, wrong digest {digest}");
}

struct Troublemaker {
    inspection: pb::inspection_service_client::InspectionServiceClient<tonic::transport::Channel>,
    frames: Frames,
}

type Trouble = Result<Option<u64>, String>;

impl Troublemaker {
    async fn twice_at_once(&mut self, camera: usize, number: u64) -> Trouble {
        let request = self.frames.request(camera, number);
        let (mut one, mut other) = (self.inspection.clone(), self.inspection.clone());
        let (one, other) = tokio::join!(one.inspect(request.clone()), other.inspect(request));
        let (one, other) = (answer(one)?, answer(other)?);
        if one.entry_index != other.entry_index || one.leaf_hash != other.leaf_hash {
            return Err(format!("sent twice, it has entries {} and {}", one.entry_index, other.entry_index));
        }
        if one.duplicate == other.duplicate {
            return Err(format!("of two calls both say duplicate = {}", one.duplicate));
        }
        Ok(Some(one.entry_index))
    }

    async fn leave_and_come_back(&mut self, camera: usize, number: u64, after: Duration) -> Trouble {
        let request = self.frames.request(camera, number);
        let mut first = self.inspection.clone();
        let left = tokio::time::timeout(after, first.inspect(request.clone())).await;
        let second = answer(self.inspection.inspect(request).await)?;
        if let Ok(first) = left {
            let first = answer(first)?;
            if first.entry_index != second.entry_index || !second.duplicate {
                return Err(format!("answered as {}, then as {}", first.entry_index, second.entry_index));
            }
        }
        Ok(Some(second.entry_index))
    }

    async fn again(&mut self, camera: usize, number: u64, known: &HashMap<(usize, u64), u64>) -> Trouble {
        let answer = answer(self.inspection.inspect(self.frames.request(camera, number)).await)?;
        if !answer.duplicate || known.get(&(camera, number)) != Some(&answer.entry_index) {
            return Err(format!("{} sent again is entry {}", frame(camera, number), answer.entry_index));
        }
        Ok(None)
    }

    async fn something_else(&mut self, camera: usize, number: u64) -> Trouble {
        let mut request = self.frames.request(camera, number + 1_000_000);
        request.frame_id = frame(camera, number);
        request.frame_counter = number;
        expect(self.inspection.inspect(request).await, Code::AlreadyExists)
    }

    async fn wrong_digest(&mut self, camera: usize, number: u64) -> Trouble {
        let mut request = self.frames.request(camera, number);
        request.image_blake3[7] ^= 1;
        expect(self.inspection.inspect(request).await, Code::InvalidArgument)
    }
}

type Answered = Result<tonic::Response<pb::InspectResponse>, tonic::Status>;

fn answer(answered: Answered) -> Result<pb::InspectResponse, String> {
    answered.map(tonic::Response::into_inner).map_err(|status| status.to_string())
}

fn expect(answered: Answered, code: Code) -> Trouble {
    match answered {
        Err(status) if status.code() == code => Ok(None),
        Err(status) => Err(format!("refused as {status}, not as {code:?}")),
        Ok(answer) => Err(format!("answered as entry {}, not refused as {code:?}", answer.into_inner().entry_index)),
    }
}

/// Every acknowledged frame stands once, where its line PC was told; no frame stands twice; everything fits together.
pub fn assert_whole(plant: &Plant, acknowledged: &HashMap<(usize, u64), u64>, tally: &mut Tally) {
    let mut found: HashMap<String, u64> = HashMap::new();
    for (index, entry) in (0..).zip(entries_of(&plant.data())) {
        let value: serde_json::Value = match serde_json::from_slice(&entry) {
            Ok(value) => value,
            Err(error) => return tally.broken.push(format!("entry {index} is half an entry: {error}")),
        };
        if value["kind"] == "decision" {
            let frame = value["frame"]["id"].as_str().unwrap_or_default().to_owned();
            if let Some(before) = found.insert(frame.clone(), index) {
                tally.broken.push(format!("frame {frame} has the entries {before} and {index}"));
            }
        }
    }
    for ((client, number), index) in acknowledged {
        let frame = frame(*client, *number);
        if found.get(&frame) != Some(index) {
            tally.broken.push(format!("frame {frame}, acknowledged as {index}, is {:?}", found.get(&frame)));
        }
    }
    let output = plant.run(&["fsck"]);
    if output.status.code() != Some(0) {
        tally.broken.push(text(&output));
    }
}

/// The stored entries the published checkpoint covers, from the plain files.
pub fn entries_of(data: &std::path::Path) -> Vec<Vec<u8>> {
    let checkpoint = std::fs::read_to_string(data.join("log/checkpoint")).expect("a checkpoint");
    let size: u64 = checkpoint.lines().nth(1).and_then(|line| line.parse().ok()).expect("a size");
    (0..size.div_ceil(256))
        .flat_map(|bundle| {
            let full = data.join("log/tile/entries").join(check::tile_path(bundle));
            let width = (size - bundle * 256).min(256);
            let partial = std::path::PathBuf::from(format!("{}.p/{width}", full.display()));
            let bytes = std::fs::read(&full).or_else(|_| std::fs::read(&partial)).expect("an entry bundle");
            let mut entries = check::split(&bytes);
            entries.truncate(usize::try_from(width).expect("at most 256"));
            entries
        })
        .collect()
}

/// For rows that need a running service.
pub fn serve(plant: &Plant, tally: &mut Tally) -> Option<Service> {
    plant.try_serve().map_err(|ended| tally.broken.push(format!("no start: {}", ended.log))).ok()
}

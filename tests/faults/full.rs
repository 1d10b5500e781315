//! Another program takes the whole disk at once, in the middle of the load.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tonic::Code;

use crate::{
    Tally,
    dice::Dice,
    disk::{Filler, SmallDisk},
    harness::{Plant, block_on},
    retries::{Frames, assert_whole, serve},
};

const DISK_BYTES: u64 = 96 << 20;
const RESERVE_BYTES: u64 = 4 << 20;

pub fn run(wanted: u64, dice: &mut Dice, tally: &mut Tally) {
    let (mut kept_on, mut ended) = (0, 0);
    for _ in 0..wanted {
        let disk = match SmallDisk::mount(DISK_BYTES) {
            Ok(disk) => disk,
            Err(why) => return tally.skipped = Some(why),
        };
        let root = disk.root().to_owned();
        let plant = Plant::below(root.clone(), disk);
        plant.edit_config("disk_reserve_bytes = 268435456", &format!("disk_reserve_bytes = {RESERVE_BYTES}"));
        let Some(service) = serve(&plant, tally) else { return };
        let mut acknowledged = HashMap::new();
        let frames = Arc::new(Frames::new());
        let (full, refused) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        block_on(async {
            let mut inspection = service.inspection().await;
            let load = tokio::spawn({
                let (frames, full, refused) = (frames.clone(), full.clone(), refused.clone());
                async move {
                    let mut answered = Vec::new();
                    for number in 1.. {
                        match inspection.inspect(frames.request(0, number)).await {
                            Ok(answer) => answered.push((number, answer.into_inner().entry_index)),
                            Err(status) => {
                                refused.store(true, Ordering::Relaxed);
                                return (answered, status, full.load(Ordering::Relaxed));
                            }
                        }
                    }
                    unreachable!("it ends with a refusal")
                }
            });
            tokio::time::sleep(Duration::from_millis(300 + dice.below(1500))).await;
            let mut filler = Filler::new(&root);
            full.store(true, Ordering::Relaxed);
            while !refused.load(Ordering::Relaxed) {
                filler.fill(0);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let (answered, status, was_full) = load.await.expect("the load does not panic");
            acknowledged.extend(answered.into_iter().map(|(number, index)| ((0, number), index)));
            if !was_full || !matches!(status.code(), Code::ResourceExhausted | Code::Unavailable | Code::Internal) {
                tally.broken.push(format!("an unclear refusal: {status}"));
            }
        });
        // A write that met the last byte stops the log for good; then the process ends, and the next start verifies.
        let mut service = Some(service);
        let alive = service.as_mut().is_some_and(|service| service.child.try_wait().is_ok_and(|ended| ended.is_none()));
        if alive {
            kept_on += 1
        } else {
            ended += 1
        }
        let _ = service.take().map(|service| if alive { service.stop() } else { service.wait() });
        let Some(service) = serve(&plant, tally) else { return };
        block_on(async {
            let mut inspection = service.inspection().await;
            let number = 1_000_000;
            match inspection.inspect(frames.request(0, number)).await {
                Ok(answer) => drop(acknowledged.insert((0, number), answer.into_inner().entry_index)),
                Err(status) => tally.broken.push(format!("no verdict with room again: {status}")),
            }
        });
        service.stop();
        assert_whole(&plant, &acknowledged, tally);
        tally.happened += 1;
    }
    tally.note = format!("the service kept on {kept_on} times and ended for the next start {ended} times");
}

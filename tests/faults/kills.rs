//! `kill -9` of the whole service while eight line PCs send.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use lineproof::edge::pb;

use crate::{
    Tally,
    dice::Dice,
    harness::{Plant, Service, block_on},
    retries::{Frames, assert_whole, with_cameras},
};

const CLIENTS: usize = 8;

pub fn run(wanted: u64, dice: &mut Dice, tally: &mut Tally) {
    let plant = Plant::new();
    with_cameras(&plant, CLIENTS);
    let frames = Arc::new(Frames::new());
    // By client and number: the entry the line PC was told.
    let mut acknowledged: HashMap<(usize, u64), u64> = HashMap::new();
    let mut next = [1_u64; CLIENTS];
    while tally.happened < wanted {
        let service = match plant.try_serve() {
            Ok(service) => service,
            Err(ended) => {
                tally.broken.push(format!("no start after {} kills: {}", tally.happened, ended.log));
                return;
            }
        };
        let answers_before_the_kill = 1 + dice.below(80);
        let answered = block_on(load_until_killed(service, &frames, next, answers_before_the_kill));
        for (client, number, index) in answered {
            if let Some(before) = acknowledged.insert((client, number), index)
                && before != index
            {
                tally.broken.push(format!("frame {client}-{number} was entry {before}, then {index}"));
            }
            next[client] = next[client].max(number + 1);
        }
        tally.happened += 1;
    }
    match plant.try_serve().map(Service::stop) {
        Ok(ended) if ended.code == Some(0) => {}
        Ok(ended) | Err(ended) => tally.broken.push(format!("the last start: {:?} {}", ended.code, ended.log)),
    }
    assert_whole(&plant, &acknowledged, tally);
    tally.note = format!("{} frames acknowledged", acknowledged.len());
}

/// Every client sends its last frame again, then goes on; the service is killed after so many answers.
async fn load_until_killed(
    service: Service,
    frames: &Arc<Frames>,
    next: [u64; CLIENTS],
    answers_before_the_kill: u64,
) -> Vec<(usize, u64, u64)> {
    let answers = Arc::new(AtomicU64::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for (client, next) in next.into_iter().enumerate() {
        let (frames, answers) = (frames.clone(), answers.clone());
        let mut inspection = service.inspection().await;
        clients.spawn(async move {
            let mut answered = Vec::new();
            for number in next.saturating_sub(2).max(1).. {
                let request: pb::InspectRequest = frames.request(client, number);
                let Ok(answer) = inspection.inspect(request).await else { return answered };
                let answer = answer.into_inner();
                answered.push((client, number, answer.entry_index));
                answers.fetch_add(1, Ordering::Relaxed);
            }
            answered
        });
    }
    while answers.load(Ordering::Relaxed) < answers_before_the_kill {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    service.kill();
    clients.join_all().await.into_iter().flatten().collect()
}

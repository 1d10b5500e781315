//! Answers to challenges: of both versions, and with all that may be wrong in them.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use lineproof::{
    core::{
        export::{challenge::Challenge, multiproof},
        lineage::index_ranges::IndexRanges,
    },
    types::{EntryIndex, Score, Sha256Digest},
};
use serde_json::{Map, Value, json};

use crate::{
    dice::Dice,
    forge::{Listed, ORIGIN, Plant},
    mutate::{bend_bytes, bend_entry, plant, time},
};

/// What it is, and its bytes.
pub fn bend_answer(dice: &mut Dice) -> (&'static str, Vec<u8>) {
    let mut plant = plant(dice);
    if dice.one_in(4) {
        let at = dice.below(plant.log.len());
        bend_entry(dice, &mut plant.log[at]);
    }
    let nonce = format!("{:016x}", dice.next()).repeat(*dice.pick(&[2, 2, 2, 1, 8, 9]));
    let count = *dice.pick(&[1, 2, 3, 5, 1000, 1001, 0]);
    let (note, size) = (plant.note(), plant.size());
    let mut indexes = match Challenge::new(&nonce, count) {
        Ok(challenge) => challenge.indexes(&plant.checkpoint_text(), size),
        Err(_) => vec![0],
    };
    if dice.one_in(6) {
        // Entries that the plant would rather show.
        indexes = (0..indexes.len() as u64).collect();
    }
    if dice.one_in(12) && indexes.len() > 1 {
        indexes.pop();
    }
    let entry = |index: &u64| format!("entry {}\n", BASE64.encode(&plant.log[*index as usize].body));
    let entries: String = indexes.iter().map(entry).collect();
    let hashes = rows("proof", &proof_of(&plant, &indexes));
    let (version, replays) = match dice.one_in(2) {
        true => {
            let seed = Challenge::new(&nonce, count).map(|challenge| challenge.seed(&plant.checkpoint_text()));
            (2, replay_rows(dice, &plant, &indexes, seed.unwrap_or(Sha256Digest([0; 32]))))
        }
        false => (1, String::new()),
    };
    let text =
        format!("lineproof challenge {version}\nnonce {nonce}\ncount {count}\n{entries}{hashes}{replays}\n{note}");
    let text = match dice.below(18) {
        0 => text.replacen("nonce ", "nonce 0", 1),
        1 => text.replacen("count ", "count 0", 1),
        2 => text.replacen("\nproof ", "\nproof AA", 1),
        3 => text.replacen("\nentry ", "\nproof ", 1),
        4 => text.replacen(" 1\n", " 2\n", 1),
        5 => text.replacen("challenge 2\n", "challenge 1\n", 1),
        6 => text.replacen("challenge 2\n", "challenge 3\n", 1),
        _ => text,
    };
    let what = if version == 2 { "answer with replays, signed" } else { "answer, signed" };
    (what, if dice.one_in(18) { bend_bytes(dice, text.as_bytes()) } else { text.into_bytes() })
}

fn rows(word: &str, hashes: &[Sha256Digest]) -> String {
    hashes.iter().map(|hash| format!("{word} {}\n", BASE64.encode(hash.0))).collect()
}

fn proof_of(plant: &Plant, indexes: &[u64]) -> Vec<Sha256Digest> {
    let proof = multiproof::build::<multiproof::ProofError>(indexes, plant.size(), |index| Ok(plant.inclusion(index)));
    proof.expect("the indexes are those of the log")
}

/// Entries that say what came out when the picked decisions were decided again, in a log that went on; and all that may be
/// wrong with them.
fn replay_rows(dice: &mut Dice, plant: &Plant, indexes: &[u64], seed: Sha256Digest) -> String {
    let is_decision = |index: &&u64| plant.log[**index as usize].value["kind"] == "decision";
    let mut decisions: Vec<u64> = indexes.iter().filter(is_decision).copied().collect();
    match dice.below(12) {
        0 => drop(decisions.pop()),
        1 => decisions.push(dice.below(plant.log.len()) as u64),
        _ => {}
    }
    decisions.sort_unstable();
    let mut later = plant.clone();
    let mut places = Vec::new();
    let share = if dice.one_in(3) { 1 } else { decisions.len().max(1) };
    for some in decisions.chunks(share) {
        if dice.one_in(3) {
            later.log.push(plant.log[0].clone());
        }
        let mut value = replay(dice, plant, some, seed);
        if dice.one_in(4) {
            bend_replay(dice, &mut value);
        }
        places.push(later.size());
        later.log.push(Listed::new(value, false, Vec::new()));
    }
    if dice.one_in(20) {
        places.insert(0, 0);
    }
    if dice.one_in(12) && places.len() > 1 {
        places.swap(0, 1);
    }
    if dice.one_in(15) && !later.log.is_empty() {
        // Another history: an entry before the checkpoint is not the one it was.
        later.log[0] = Listed::new(replay(dice, plant, &[0], seed), false, Vec::new());
    }
    let mut ascending = places.clone();
    ascending.sort_unstable();
    ascending.dedup();
    let proof = if ascending.is_empty() { Vec::new() } else { proof_of(&later, &ascending) };
    let entry = |place: &u64| format!("replay {place} {}\n", BASE64.encode(&later.log[*place as usize].body));
    let entries: String = places.iter().map(entry).collect();
    let consistency = later.consistency(plant.size());
    let note = if dice.one_in(15) { plant.note() } else { later.note() };
    let note = if dice.one_in(15) { note.replacen(ORIGIN, "other.example/log", 1) } else { note };
    let text = format!(
        "{entries}{}{}later {}\n",
        rows("replay-proof", &proof),
        rows("consistency", &consistency),
        BASE64.encode(note)
    );
    match dice.below(24) {
        0 => text.replacen("replay ", "replay 0", 1),
        1 => text.replacen("replay-proof ", "proof ", 1),
        2 => text.replacen("consistency ", "replay-proof ", 1),
        3 => text.replacen("later ", "later AAAA", 1),
        4 => text.lines().rev().map(|line| format!("{line}\n")).collect(),
        5 => text.replacen("later ", "later /+8=\nlater ", 1),
        6 => text.repeat(2),
        7 => entries.repeat(20),
        _ => text,
    }
}

/// A replay of these decisions.
fn replay(dice: &mut Dice, plant: &Plant, decisions: &[u64], seed: Sha256Digest) -> Value {
    let names = ["differs", "exact", "within", "image_gone", "not_archived", "other_provider"];
    let mut sets: [Vec<u64>; 6] = Default::default();
    for index in decisions {
        let was_kept = plant.log.get(*index as usize).and_then(|listed| listed.value["image"]["archive"].as_str());
        let was_kept = was_kept.is_some_and(|archive| !archive.starts_with("none:"));
        let at = if dice.one_in(30) {
            dice.below(6)
        } else if was_kept {
            dice.below(4)
        } else {
            4
        };
        sets[at].push(*index);
    }
    let mut value = json!({"challenge": seed, "clock": "free", "eps": Score::new(1e-5).expect("finite"), "kind": "replay",
        "software": "s", "time": time(9), "v": 2});
    let mut not = Map::new();
    for (at, name) in names.into_iter().enumerate().filter(|(at, _)| !sets[*at].is_empty()) {
        let text = index_ranges(&sets[at]);
        if at < 3 {
            value[name] = text.into();
            value["runtime"] = json!({"cpu": "x86-64-v3", "version": "1.32.0"});
            let most = if sets[0].is_empty() { 1e-5 } else { 1.0 };
            let only_exact = sets[0].is_empty() && sets[2].is_empty();
            let largest = if only_exact { 0.0 } else { most * dice.below(3) as f32 / 2.0 };
            value["largest"] = json!(Score::new(largest).expect("finite"));
        } else {
            not.insert(name.into(), text.into());
        }
    }
    if !not.is_empty() {
        value["not_replayable"] = not.into();
    }
    value
}

/// Ascending indexes, some perhaps named twice, as an entry writes them.
fn index_ranges(indexes: &[u64]) -> String {
    let of = indexes.iter().map(|index| EntryIndex(*index));
    IndexRanges::of(of).map(|ranges| ranges.to_string()).unwrap_or_default()
}

fn bend_replay(dice: &mut Dice, value: &mut Value) {
    let object = value.as_object_mut().expect("an entry is an object");
    let sets = ["differs", "exact", "within"];
    match dice.below(20) {
        16 => drop(object.remove("challenge")),
        17 => drop(object.insert("challenge".into(), json!(Sha256Digest([7; 32])))),
        18 => drop(object.insert("eps".into(), json!(Score::new(1.1e-5).expect("finite")))),
        19 => drop(object.insert("largest".into(), json!(Score::new(0.5).expect("finite")))),
        0 => drop(object.remove("largest")),
        1 => drop(object.remove("runtime")),
        2 => drop(object.remove("eps")),
        3 => drop(object.insert("eps".into(), "0xb727c5ac -0.00001".into())),
        4 => drop(object.insert("not_replayable".into(), json!({}))),
        5 => drop(object.insert("not_replayable".into(), json!({"no_image": "3"}))),
        6 => drop(object.insert("v".into(), json!(1))),
        7 => drop(object.insert("kind".into(), "rotation".into())),
        8 => drop(object.insert((*dice.pick(&sets)).into(), "0-9007199254740991".into())),
        9 => drop(object.insert((*dice.pick(&sets)).into(), "".into())),
        10 => drop(object.insert((*dice.pick(&sets)).into(), "0 1".into())),
        11 => drop(object.insert("more".into(), "0".into())),
        12 => drop(object.insert("runtime".into(), json!({"cpu": "c", "version": "1", "threads": 1}))),
        13 => drop(object.insert("largest".into(), "0x00000000 0".into())),
        14 => {
            for set in sets {
                object.remove(set);
            }
        }
        _ => drop(object.insert((*dice.pick(&sets)).into(), "0".into())),
    }
}

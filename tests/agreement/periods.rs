//! Period closes of an honest plant, and the ways in which a dishonest one bends them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    dice::Dice,
    forge::{Listed, Opened, Plant},
};

/// Closes up to three periods of the plant's one camera, and perhaps corrects one.
pub fn close_periods(dice: &mut Dice, plant: &mut Plant) {
    let mut next = dice.below(2) as u64;
    let mut closed: Vec<(u64, Value)> = Vec::new();
    for number in 0..dice.below(4) {
        let last = next + 1 + dice.below(4) as u64;
        let restarted = number > 0 && dice.one_in(4);
        let first = if restarted { 0 } else { next };
        let last = if restarted { 1 + dice.below(5) as u64 } else { last };
        let mut announced = json!({"first": first, "last": last, "period": format!("p{number}")});
        if restarted {
            announced["restarted"] = true.into();
        }
        if dice.one_in(3) {
            announced["from"] = "2026-11-23T06:00:00.000000000Z".into();
            announced["to"] = "2026-11-23T14:00:00.000000000Z".into();
        }
        let end_of = |back: usize| closed.iter().rev().nth(back).map_or(0, |(_, close)| close["end"].as_u64().unwrap());
        let since = if restarted { end_of(0) } else { end_of(1) };
        let previous = closed.last().map(|(index, _)| *index);
        let (index, close) = write(dice, plant, announced, (since, plant.size()), (previous, None));
        closed.push((index, close));
        if dice.one_in(5) {
            let (original, close) = dice.pick(&closed).clone();
            let window = (close["since"].as_u64().unwrap(), close["end"].as_u64().unwrap());
            let mut announced = close["announced"].clone();
            announced.as_object_mut().unwrap().remove("lost");
            write(dice, plant, announced, window, (close["previous"].as_u64(), Some(original)));
        }
        next = last + 1;
    }
}

/// Counts, one counter at a time, and appends the close.
fn write(
    dice: &mut Dice,
    plant: &mut Plant,
    mut announced: Value,
    (since, end): (u64, u64),
    (previous, corrects): (Option<u64>, Option<u64>),
) -> (u64, Value) {
    let (mut decided, mut noted) = (BTreeSet::new(), BTreeSet::new());
    for listed in &plant.log[since as usize..end as usize] {
        let entry = &listed.value;
        if entry["kind"] == "decision" {
            decided.insert(entry["frame"]["counter"].as_u64().unwrap());
        } else if entry["kind"] == "gap" && entry["count"].as_u64().unwrap() >= 3 {
            noted.extend(entry["first"].as_u64().unwrap()..=entry["last"].as_u64().unwrap());
        }
    }
    let (first, last) = (announced["first"].as_u64().unwrap(), announced["last"].as_u64().unwrap());
    let all: BTreeSet<u64> = (first..=last).collect();
    let open: BTreeSet<u64> = all.iter().copied().filter(|n| !decided.contains(n) && !noted.contains(n)).collect();
    let lost: BTreeSet<u64> = match dice.below(8) {
        0 => BTreeSet::new(),
        1 => all.iter().copied().filter(|_| dice.one_in(2)).collect(),
        2 => all.clone(),
        _ => open.clone(),
    };
    if !lost.is_empty() {
        announced["lost"] = ranges(&lost);
    }
    if dice.one_in(3) {
        let unseen = dice.below(2) as u64;
        announced["parts"] = (all.len() as u64 + unseen + u64::from(dice.one_in(8))).into();
        if unseen > 0 {
            announced["unseen"] = unseen.into();
        }
        if dice.one_in(3) {
            announced["frames_per_part"] = 1.into();
        }
    }
    let missing: BTreeSet<u64> = open.difference(&lost).copied().collect();
    let in_all = |set: &BTreeSet<u64>| all.intersection(set).count() as u64;
    let opened = Opened { field: "client", salt: format!("{:032x}", dice.next()), value: "plc-1".into() };
    let mut close = json!({
        "announced": announced, "camera": "cam-1", "clock": "free", "decided": in_all(&decided), "end": end,
        "gaps": all.iter().filter(|n| noted.contains(n) && !decided.contains(n)).count(), "kind": "period_close",
        "line": "line-1", "lost_frames": open.len() - missing.len(), "missing_frames": missing.len(),
        "private": {"client": opened.commitment()}, "since": since, "station": "station-1",
        "time": "2026-11-23T14:00:01.000000000Z", "v": 2,
    });
    if !missing.is_empty() {
        close["missing"] = ranges(&missing);
    }
    for (key, index) in [("previous", previous), ("corrects", corrects)] {
        if let Some(index) = index {
            close[key] = index.into();
        }
    }
    let index = plant.size();
    plant.log.push(Listed::new(close.clone(), true, vec![opened]));
    (index, close)
}

fn ranges(counters: &BTreeSet<u64>) -> Value {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for &counter in counters {
        match ranges.last_mut().filter(|(_, last)| last + 1 == counter) {
            Some((_, last)) => *last = counter,
            None => ranges.push((counter, counter)),
        }
    }
    ranges.iter().map(|(first, last)| json!({"first": first, "last": last})).collect()
}

/// One number or list of a close that is perhaps not what it should be; sums are kept now and then.
pub fn bend_close(dice: &mut Dice, close: &mut Value) {
    let nudge = |dice: &mut Dice, value: &mut Value| {
        let number = value.as_u64().unwrap_or_default();
        *value = if dice.one_in(2) { number + 1 } else { number.saturating_sub(1) }.into();
    };
    match dice.below(12) {
        0 | 1 => {
            let key = *dice.pick(&[
                "decided",
                "end",
                "gaps",
                "lost_frames",
                "missing_frames",
                "since",
                "previous",
                "corrects",
            ]);
            nudge(dice, &mut close[key]);
        }
        2 => {
            let key = *dice.pick(&["first", "last", "parts", "unseen", "frames_per_part"]);
            nudge(dice, &mut close["announced"][key]);
        }
        3 | 4 => {
            // Two numbers that cancel each other out.
            let keys = ["decided", "gaps", "lost_frames", "missing_frames"];
            let (from, to) = (*dice.pick(&keys), *dice.pick(&keys));
            let number = |close: &Value, key: &str| close[key].as_u64().unwrap();
            if number(close, from) > 0 {
                close[from] = (number(close, from) - 1).into();
                close[to] = (number(close, to) + 1).into();
            }
        }
        5 => {
            // What was missing is called decided, as a dishonest plant would like it.
            let missing = close["missing_frames"].as_u64().unwrap();
            close["decided"] = (close["decided"].as_u64().unwrap() + missing).into();
            close["missing_frames"] = 0.into();
            close.as_object_mut().unwrap().remove("missing");
        }
        6 => {
            let key = *dice.pick(&["camera", "line", "station"]);
            close[key] = "other".into();
        }
        7 => close["announced"]["restarted"] = dice.pick(&[json!(true), json!(false)]).clone(),
        8 => {
            let object = close.as_object_mut().unwrap();
            object.remove(*dice.pick(&["previous", "corrects", "missing"]));
        }
        9 => {
            let list =
                json!([{"first": dice.below(4), "last": dice.below(6)}, {"first": 6, "last": 7 + dice.below(60)}]);
            match dice.below(3) {
                0 => close["missing"] = list,
                1 => close["announced"]["lost"] = list,
                _ => close["missing"] = json!([]),
            }
        }
        10 => {
            let far = *dice.pick(&[48, 49, 9_007_199_254_740_991_u64]);
            close["announced"]["last"] = far.into();
            close["missing_frames"] = far.into();
            let ranges: Vec<Value> =
                (0..far.min(60)).map(|at| json!({"first": 10 + at * 2, "last": 10 + at * 2})).collect();
            close["missing"] = ranges.into();
        }
        _ => {
            let times = ["2026-11-23T06:00:00.000000000Z", "2026-11-23T14:00:00.000000000Z"];
            close["announced"][*dice.pick(&["from", "to"])] = (*dice.pick(&times)).into();
        }
    }
}

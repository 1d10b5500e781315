//! The ways in which evidence is changed: at every layer, and signed again with the plant's own key above it.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use ed25519_dalek::SigningKey;
use lineproof::{
    core::lineage::entry::{ENTRY_VERSION, PLACED_VERSION},
    types::{Blake3Digest, Score},
};
use serde_json::{Map, Value, json};

use crate::{
    answers::bend_answer,
    dice::Dice,
    forge::{
        Files, Listed, MANIFEST, ORIGIN, Opened, Packing, Plant, cosignature_line, key_id, log_key, open_envelope,
        pack, seal, signature_line, text_name, vkey_line, witness_key,
    },
    periods::{bend_close, close_periods},
};

const WITNESS: &str = "witness.example/w1";

/// One piece of evidence, the key file it is held against, and what was done to it.
pub struct Case {
    pub what: String,
    pub evidence: Vec<u8>,
    pub keys: String,
}

/// Evidence that nobody forged: the golden export and passport, with their key file.
pub struct Golden {
    pub export: Vec<u8>,
    pub passport: Vec<u8>,
    pub keys: String,
}

pub fn case(dice: &mut Dice, golden: &Golden) -> Case {
    let keys = format!("{}\n", vkey_line(ORIGIN, 1, &log_key()));
    let of = |what: &str, evidence| Case { what: what.into(), evidence, keys: keys.clone() };
    match dice.below(100) {
        0..4 => Case {
            what: "golden export, bytes".into(),
            evidence: bend_bytes(dice, &golden.export),
            keys: golden.keys.clone(),
        },
        4..7 => Case {
            what: "golden passport, bytes".into(),
            evidence: bend_bytes(dice, &golden.passport),
            keys: golden.keys.clone(),
        },
        7..9 => {
            let export = plant(dice).export();
            of("export, bytes", bend_bytes(dice, &export))
        }
        9..13 => bend_keys(dice),
        13..21 => bend_checkpoint(dice),
        21..29 => of("ZIP", bend_zip(dice)),
        29..43 => of("files, signed", bend_files(dice)),
        43..54 => of("statement, signed", bend_statement(dice)),
        54..57 => of("envelope", bend_envelope(dice)),
        57..75 => of("entry in an export, signed", bend_export_entry(dice)),
        75..81 => {
            let (what, answer) = bend_answer(dice);
            of(what, answer)
        }
        81..90 => of("entry in a passport, signed", bend_passport_entry(dice)),
        _ => of("passport, signed", bend_passport(dice)),
    }
}

// ---- Honest evidence, by chance ----

fn score(value: f32) -> String {
    Score::new(value).expect("finite").to_string()
}

fn version(dice: &mut Dice) -> u64 {
    1 + dice.below(ENTRY_VERSION as usize) as u64
}

fn any_score(dice: &mut Dice) -> f32 {
    match dice.below(6) {
        0 => *dice.pick(&[0.0, 0.3, 0.6, 1.0, -1.0, 16777216.0, 1.5e-9, 0.25, 0.5]),
        1 => f32::from_bits(dice.next() as u32 & 0x3f7f_ffff),
        _ => dice.below(100_000) as f32 / 100_000.0,
    }
}

fn digest(of: &str) -> String {
    Blake3Digest::of(of.as_bytes()).to_string()
}

pub fn time(second: usize) -> String {
    format!("2026-11-23T06:{:02}:{:02}.{:09}Z", second / 60 % 60, second % 60, second * 1000)
}

/// Scores, reasons and verdict that tell one story, in the spelling of this version.
fn story(dice: &mut Dice, version: u64) -> (Value, Vec<String>, &'static str) {
    let comparator = *dice.pick(&[">=", ">=", ">"]);
    let reaches = |score: f32, threshold: f32| if comparator == ">" { score > threshold } else { score >= threshold };
    let shared = (version >= 2 && !dice.one_in(4)).then_some((0.6_f32, 0.3_f32));
    let count = 1 + dice.below(4);
    let (mut labels, mut reasons, mut worst, mut largest) = (Vec::new(), Vec::new(), 0, f32::MIN);
    for at in 0..count {
        let name = *dice.pick(&["scratch", "dent", "pit", "ü\"x"]);
        let value = any_score(dice) + 0.0;
        let mut label = json!({"label": name, "score": score(value)});
        let is_good = at > 0 && dice.one_in(5);
        if is_good {
            if shared.is_some() {
                label["defect"] = false.into();
            }
            labels.push(label);
            continue;
        }
        let (reject, review) = match shared {
            Some(pair) if !dice.one_in(3) => pair,
            _ => {
                let review = any_score(dice);
                let (reject, review) =
                    if dice.one_in(3) { (value.max(review), review) } else { (review.max(0.5), review.min(0.5)) };
                label["reject"] = score(reject).into();
                label["review"] = score(review).into();
                (reject, review)
            }
        };
        largest = largest.max(value);
        let outcome = if reaches(value, reject) { 2 } else { usize::from(reaches(value, review)) };
        if outcome > 0 && !dice.one_in(5) {
            reasons.push(format!("{}:{name}", ["", "review", "reject"][outcome]));
        }
        worst = worst.max(outcome);
        labels.push(label);
    }
    if version == 3 {
        say_where(dice, &mut labels);
    }
    let mut verdict = ["OK", "NOT_DECIDABLE", "NOT_OK"][worst];
    if dice.one_in(5) {
        reasons.insert(0, (*dice.pick(&["quality:focus_min", "quality:", "top_score_min"])).into());
        verdict = "NOT_DECIDABLE";
    } else if dice.one_in(8) {
        reasons.push((*dice.pick(&["operator", "quality", "reject", "later:reason", ""])).into());
        verdict = if dice.one_in(2) { "NOT_DECIDABLE" } else { verdict };
    }
    let mut scores = json!({"comparator": comparator, "decision": score(largest), "labels": labels});
    if let Some((reject, review)) = shared {
        scores["reject"] = score(reject).into();
        scores["review"] = score(review).into();
    }
    (scores, reasons, verdict)
}

/// Some labels, at least one of them, say where they were found.
fn say_where(dice: &mut Dice, labels: &mut [Value]) {
    let first = dice.below(labels.len());
    for (at, label) in labels.iter_mut().enumerate() {
        match dice.below(4) {
            0 if at != first => {}
            0 | 1 => label["boxes"] = 0.into(),
            way => {
                label["at"] = json!({"height": 1 + dice.below(9), "width": 1, "x": 0, "y": dice.below(9)});
                if way == 2 {
                    label["boxes"] = (1 + dice.below(300)).into();
                }
            }
        }
    }
}

/// A place that is perhaps none.
fn place(dice: &mut Dice) -> Value {
    let width = dice.below(3);
    match dice.below(6) {
        0 => json!({"height": 1, "width": width, "x": 0}),
        1 => json!({"height": 1, "width": width, "x": 0, "y": 4_294_967_295_u64 - dice.below(2) as u64}),
        2 => json!({"height": 4_294_967_296_u64, "width": 1, "x": 0, "y": 0}),
        _ => json!({"height": dice.below(3), "width": width, "x": dice.below(2), "y": 0}),
    }
}

fn decision(dice: &mut Dice, at: usize, calibrated: bool) -> (Value, Vec<Opened>) {
    let v = 1 + dice.below(PLACED_VERSION as usize) as u64;
    let (scores, reasons, verdict) = story(dice, v);
    let opened: Vec<Opened> = [("client", "line-pc-1"), ("lot", "L-2200"), ("serial", "SN \"ü\"")]
        .map(|(field, value)| Opened { field, salt: format!("{:032x}", dice.next()), value: value.into() })
        .into();
    let mut private = Map::new();
    for one in &opened {
        private.insert(one.field.into(), one.commitment().into());
    }
    let mut entry = json!({
        "camera": "cam-1", "clock": *dice.pick(&["synchronised", "free", "stepped"]),
        "frame": {"counter": at, "id": format!("f{at}"), "trigger": 9_007_199_254_740_991_u64},
        "image": {"archive": *dice.pick(&["none:ok", "not_ok", "ok_sample"]), "bytes": 1, "encoded": digest("e"), "format": "png", "height": 4_294_967_295_u64,
            "pfnc": "0x01080001", "pixels": digest("p"), "width": 1},
        "kind": "decision", "line": "line-1", "model": {"digest": digest("model"), "version": "1.0.0"}, "private": private,
        "product": "flange", "quality": {"focus": score(0.01), "mean": score(0.5), "saturated": score(0.0)},
        "recipe": {"digest": digest("# recipe\n"), "name": "machined@1.0.0"},
        "runtime": {"batch": 1, "cpu": "avx2", "optimisation": "all", "provider": "cpu", "threads": 1, "version": "1"},
        "scores": scores, "software": "lineproof 0.1.0", "station": "station-1", "time": time(at), "v": v, "verdict": verdict,
    });
    if calibrated {
        entry["calibration"] = digest("# calibration\n").into();
        entry["captured"] = time(at).into();
    }
    if !reasons.is_empty() {
        entry["reasons"] = reasons.into();
    }
    (entry, opened)
}

fn others(dice: &mut Dice) -> Vec<Value> {
    let v = version(dice);
    let place = |mut value: Value| {
        value["clock"] = "free".into();
        value["time"] = time(30).into();
        value["v"] = v.into();
        value
    };
    let gap = json!({"kind": "gap", "camera": "cam-1", "line": "line-1", "station": "station-1", "count": dice.below(9), "first": 5,
        "last": 7, "frame": "f-9", "reason": *dice.pick(&["counter_jump", "overload", "no_recipe"])});
    let recipe = json!({"kind": "recipe", "event": "activated", "model": digest("model"), "calibration": digest("c"),
        "recipe": {"digest": digest("# recipe\n"), "name": "machined@1.0.0"}});
    let access =
        json!({"kind": "access", "event": "export", "count": 3, "index": 2, "object": "sha256:x", "private": {}});
    let key = json!({"kind": "key", "purpose": "log", "vkey": "a+b+c"});
    let start = json!({"kind": "start", "recovered": 0, "software": "lineproof 0.1.0", "torn_bytes": 0});
    let retention = json!({"kind": "retention", "event": *dice.pick(&["erased", "deleted", "held", "released"]), "rule": "Art. 17",
        "private": {}, "destroyed": {"lot": 1, "serial": 40}, "entries": ranges(dice, 6), "class": "not_ok", "before": time(1), "hold": 3,
        "kept": 0, "product": "flange", "line": "line-1", "from": time(0), "to": time(9)});
    let unknown =
        json!({"kind": "later_kind", "anything": [{"deep": [[1]]}, true, ""], "private": {"serial": "sha256:00"}});
    [gap, recipe, access, key, start, retention, unknown].map(place).into()
}

/// Entry indexes; the first six as they should be written.
fn ranges(dice: &mut Dice, among: usize) -> Value {
    let spellings = [
        "0",
        "3 17-40 99",
        "0-1",
        "9007199254740990-9007199254740991",
        "5 7 9-10 12",
        "1000000000000000",
        "",
        " 3",
        "3 ",
        "3  4",
        "03",
        "+3",
        "-3",
        "3-",
        "3-3",
        "4-3",
        "3 4",
        "3-5 6",
        "3-5 5",
        "5 3",
        "3,5",
        "3-4-5",
        "9007199254740992",
        "1-9007199254740992",
        "99999999999999999",
        "3 x",
        "\u{663}",
        "3\n5",
        "3 5\n",
        "00",
        "0 0",
        "0-0",
        "0 1",
        "0 2",
    ];
    json!(*dice.pick(&spellings[..among.min(spellings.len())]))
}

/// A plant with some ten entries, of which an export takes most, and whose line closed some periods.
pub fn plant(dice: &mut Dice) -> Plant {
    let mut plant = open_plant(dice);
    close_periods(dice, &mut plant);
    if !dice.one_in(4) {
        plant.log.iter_mut().for_each(|listed| listed.exported = true);
    }
    plant
}

/// The same with no period closed yet.
fn open_plant(dice: &mut Dice) -> Plant {
    let mut log: Vec<Listed> = others(dice)
        .into_iter()
        .filter(|_| !dice.one_in(3))
        .map(|value| Listed::new(value, true, Vec::new()))
        .collect();
    let calibrated = dice.one_in(2);
    for at in 0..2 + dice.below(5) {
        let (value, mut opened) = decision(dice, at, calibrated);
        opened.retain(|_| !dice.one_in(4));
        log.push(Listed::new(value, at == 0 || !dice.one_in(4), opened));
    }
    for at in (1..log.len()).rev() {
        log.swap(at, dice.below(at + 1));
    }
    let mut texts = Vec::new();
    let mut absent = json!({"calibrations": [], "model_cards": [], "recipes": []});
    for (folder, key, text, ending, named) in [
        ("calibrations", "calibrations", "# calibration\n", ".toml", calibrated),
        ("recipes", "recipes", "# recipe\n", ".toml", true),
        ("model-cards", "model_cards", "model", ".md", true),
    ] {
        let (name, digest) = text_name(folder, text.as_bytes(), ending);
        if named && dice.one_in(4) {
            absent[key] = json!([digest]);
        } else if named {
            texts.push((name, text.as_bytes().to_vec()));
        }
    }
    let selection = if dice.one_in(2) { json!({}) } else { json!({"line": "line-1", "from": time(0)}) };
    Plant { log, selection, texts, absent, software: "lineproof 0.0.0".into() }
}

// ---- Bytes and texts ----

pub fn bend_bytes(dice: &mut Dice, bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    let at = dice.below(out.len());
    match dice.below(8) {
        0 | 1 => out[at] ^= 1 << dice.below(8),
        2 => out.truncate(at),
        3 => out.insert(at, dice.next() as u8),
        4 => {
            out.remove(at);
        }
        5 => out.extend_from_slice(&bytes[at..]),
        6 => {
            let end = (at + 1 + dice.below(64)).min(out.len());
            let piece = out[at..end].to_vec();
            out.splice(at..at, piece);
        }
        _ => {
            let end = (at + dice.below(400)).min(out.len());
            out.drain(at..end);
        }
    }
    out
}

/// Another spelling of a JSON text, or another text.
fn bend_text(dice: &mut Dice, text: String) -> String {
    let places = |wanted: &[char]| -> Vec<usize> {
        text.char_indices().filter(|(_, c)| wanted.contains(c)).map(|(at, _)| at).collect()
    };
    let at_random = |dice: &mut Dice, wanted: &[char]| {
        let places = places(wanted);
        if places.is_empty() { 0 } else { *dice.pick(&places) }
    };
    let splice = |at: usize, take: usize, put: &str| format!("{}{put}{}", &text[..at], &text[at + take..]);
    match dice.below(14) {
        0 => {
            splice(at_random(dice, &[',', ':', '{', '[', '}', ']']), 0, dice.pick::<&str>(&[" ", "\t", "\r", "\u{a0}"]))
        }
        1 => format!("{text} "),
        2 => format!(" {text}"),
        3 => format!("\u{feff}{text}"),
        4 => {
            let letters: Vec<char> = ('a'..='z').chain('A'..='Z').collect();
            let at = at_random(dice, &letters);
            let escaped = format!("\\u{:04x}", u32::from(text.as_bytes()[at]));
            splice(at, 1, &escaped)
        }
        5 => {
            let at = at_random(dice, &['/']);
            if text.as_bytes()[at] == b'/' { splice(at, 1, "\\/") } else { format!("{text}{{}}") }
        }
        6 | 7 => {
            let digits: Vec<char> = ('0'..='9').collect();
            let numbers: Vec<usize> =
                places(&digits).into_iter().filter(|at| *at > 0 && text.as_bytes()[at - 1] == b':').collect();
            if numbers.is_empty() {
                return format!("{text}0");
            }
            let at = *dice.pick(&numbers);
            match dice.below(5) {
                0 => splice(at, 0, "0"),
                1 => splice(at, 0, "-"),
                2 => splice(at, 0, "+"),
                3 => splice(at, 1, "1.0"),
                _ => splice(at, 1, "1e0"),
            }
        }
        8 | 9 => shuffle_keys(dice, &text),
        10 => {
            let at = at_random(dice, &['"']);
            splice(at, 1, "")
        }
        11 => splice(at_random(dice, &[',']), 1, ",,"),
        12 => {
            let quotes = places(&['"']);
            let at = *dice.pick(&quotes) + 1;
            splice(
                at.min(text.len() - 1),
                0,
                dice.pick::<&str>(&["\u{7f}", "\u{202e}", "\\ud83d", "\\n", "\u{1}", "\\u0001", "😀", "\u{2028}"]),
            )
        }
        _ => text.replacen(":\"", dice.pick::<&str>(&[":null,\"", ":[\"", ":\"\\u0000", ":true,\""]), 1),
    }
}

/// The same object with two of its members in another order, or one of them twice.
fn shuffle_keys(dice: &mut Dice, text: &str) -> String {
    let Ok(Value::Object(object)) = serde_json::from_str::<Value>(text) else { return format!("{text}\n") };
    let mut members: Vec<String> = object.iter().map(|(key, value)| format!("{}:{value}", json!(key))).collect();
    let (a, b) = (dice.below(members.len()), dice.below(members.len()));
    if dice.one_in(2) {
        members.swap(a, b);
    } else {
        members.insert(a, members[a].clone());
    }
    format!("{{{}}}", members.join(","))
}

fn odd_value(dice: &mut Dice) -> Value {
    let pool = [
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(-1),
        json!(1.5),
        json!(9_007_199_254_740_991_u64),
        json!(9_007_199_254_740_992_u64),
        json!(4_294_967_296_u64),
        json!(u64::MAX),
        json!(""),
        json!("x"),
        json!("OK"),
        json!("NOT_OK"),
        json!("NOT_DECIDABLE"),
        json!(">"),
        json!(">="),
        json!("a b"),
        json!("line-2"),
        json!("a".repeat(64)),
        json!("a".repeat(65)),
        json!("a".repeat(129)),
        json!("\u{202e}"),
        json!("free"),
        json!("decision"),
        json!("gap"),
        json!("later_kind"),
        json!([]),
        json!({}),
        json!([[]]),
        json!(["x"]),
        json!({"a": 1}),
        json!([null]),
        json!("2026-11-23T06:00:00.000000000Z"),
        json!("2026-11-23T06:00:00Z"),
        json!("2026-11-23T06:00:00.000000000+00:00"),
        json!("2026-02-29T06:00:00.000000000Z"),
        json!("2028-02-29T06:00:00.000000000Z"),
        json!("2026-11-23T06:00:60.000000000Z"),
        json!("2026-11-23T24:00:00.000000000Z"),
        json!("1969-12-31T23:59:59.999999999Z"),
        json!("1970-01-01T00:00:00.000000000Z"),
        json!("2262-04-11T23:47:16.854775807Z"),
        json!("2262-04-11T23:47:16.854775808Z"),
        json!("9999-01-01T00:00:00.000000000Z"),
        json!("2026-11-23t06:00:00.000000000z"),
        json!("2026-11-23 06:00:00.000000000Z"),
        json!("2026-00-10T00:00:00.000000000Z"),
        json!(score(0.0)),
        json!(score(0.3)),
        json!(score(0.6)),
        json!(score(1.0)),
        json!("0x80000000 -0"),
        json!("0x80000000 0"),
        json!("0x3f19999a 0.60"),
        json!("0x3f19999a .6"),
        json!("0x3f19999a 6e-1"),
        json!("0x3F19999A 0.6"),
        json!("0x3f19999a 0.61"),
        json!("0x3f19999a  0.6"),
        json!("0x3f19999a 0.6 "),
        json!("0x7f800000 inf"),
        json!("0x7fc00000 NaN"),
        json!("0xff800000 -inf"),
        json!("0x00000000 0.0"),
        json!("0x00000001 0.000000000000000000000000000000000000000000001"),
        json!(score(f32::MAX)),
        json!(score(f32::MIN)),
        json!(score(f32::MIN_POSITIVE)),
        json!("0x4b800000 16777216"),
        json!("0x4b800000 16777216.0"),
        json!(digest("other")),
        json!(format!("sha256:{}", "0".repeat(64))),
        json!(digest("other").to_uppercase()),
        json!("blake3:00"),
        json!("machined@1.0.0"),
        json!("machined@2.0.0"),
        json!("a/b"),
        json!("0x01080001"),
        json!("3 17-40 99"),
    ];
    match dice.below(8) {
        0 => {
            let mut nested = dice.pick(&[json!(1), json!([]), json!({})]).clone();
            for _ in 0..*dice.pick(&[2, 12, 13, 14, 15, 16, 17, 130]) {
                nested = json!([nested]);
            }
            nested
        }
        1 => json!(score(any_score(dice))),
        _ => dice.pick(&pool).clone(),
    }
}

/// Changes one thing somewhere in a JSON value.
fn bend_value(dice: &mut Dice, value: &mut Value) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            let keys: Vec<String> = object.keys().cloned().collect();
            let key = dice.pick(&keys).clone();
            match dice.below(12) {
                0 => {
                    object.remove(&key);
                }
                1 => {
                    let new = *dice.pick(&[
                        "defect",
                        "reject",
                        "review",
                        "calibration",
                        "captured",
                        "reasons",
                        "trigger",
                        "frame",
                        "first",
                        "count",
                        "index",
                        "serial",
                        "time",
                        "zz",
                        "",
                        "camera",
                        "score_min",
                        "score_max",
                        "verdicts",
                        "recipe",
                        "lot",
                        "part",
                        "to",
                        "destroyed",
                        "entries",
                    ]);
                    object.insert(new.into(), odd_value(dice));
                }
                2 => {
                    let moved = object.remove(&key).expect("the key is there");
                    object.insert(format!("{key}s"), moved);
                }
                3 if object[&key].is_object() && dice.one_in(2) => {
                    // serde reads a list of the right values as the object.
                    let values: Vec<Value> =
                        object[&key].as_object().into_iter().flat_map(|inner| inner.values().cloned()).collect();
                    object.insert(key, values.into());
                }
                3 | 4 if !object[&key].is_object() && !object[&key].is_array() => {
                    object.insert(key, odd_value(dice));
                }
                _ => bend_value(dice, &mut object[&key]),
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let at = dice.below(items.len());
            match dice.below(6) {
                0 => {
                    items.remove(at);
                }
                1 => items.insert(at, items[at].clone()),
                2 => items.insert(at, odd_value(dice)),
                _ => bend_value(dice, &mut items[at]),
            }
        }
        _ => *value = odd_value(dice),
    }
}

// ---- Keys and checkpoints ----

fn bend_keys(dice: &mut Dice) -> Case {
    let plant = plant(dice);
    let line = vkey_line(ORIGIN, 1, &log_key());
    let stranger = SigningKey::from_bytes(&[1; 32]);
    let keys = match dice.below(18) {
        0 => vkey_line(ORIGIN, 1, &stranger),
        1 => format!("{}\n{line}\n", vkey_line(ORIGIN, 1, &stranger)),
        2 => format!("\u{feff}# the plant's key\r\n\r\n  {line}\t\r\n"),
        3 => format!("{line}\n{}\n", vkey_line(WITNESS, 4, &witness_key())),
        4 => vkey_line(ORIGIN, 4, &log_key()),
        5 => vkey_line("other.example/log", 1, &log_key()),
        6 => line.replacen('+', "-", 1),
        7 => format!("{line}\nnonsense\n"),
        8 => String::new(),
        9 => "# nothing\n".into(),
        10 => line[..line.len() - 1].into(),
        11 => line.to_uppercase(),
        12 => format!("{line}\n{line}\n"),
        13 => (0..65).map(|_| format!("{line}\n")).collect(),
        14 => vkey_line("a b", 1, &log_key()),
        15 => vkey_line(ORIGIN, 2, &log_key()),
        16 => {
            let at = dice.below(line.len());
            let mut bent = line.into_bytes();
            bent[at] ^= 1 << dice.below(5);
            String::from_utf8_lossy(&bent).into_owned()
        }
        _ => format!("{line} # comment\n"),
    };
    let evidence = if dice.one_in(2) { plant.export() } else { plant.passport(0).text() };
    Case { what: "key file".into(), evidence, keys }
}

/// The same statement under an odd note.
fn bend_note(dice: &mut Dice, plant: &Plant) -> String {
    let text = plant.checkpoint_text();
    let (key, name) = (log_key(), ORIGIN);
    let sign = |text: &str| format!("{text}\n{}", signature_line(name, &key, text));
    let note = sign(&text);
    let rows: Vec<&str> = text.lines().collect();
    let stranger = SigningKey::from_bytes(&[1; 32]);
    let id = key_id(name, 1, &key.verifying_key().to_bytes());
    match dice.below(30) {
        0 => sign(&format!("{text}extension\n")),
        1 => sign(&format!("{text}\nextension\n")),
        2 => sign(&format!("{}\n0{}\n{}\n", rows[0], rows[1], rows[2])),
        3 => sign(&format!("{}\n+{}\n{}\n", rows[0], rows[1], rows[2])),
        4 => sign(&format!("{}\n{}\n{}\n", rows[0], 1_u64 << 53, rows[2])),
        5 => sign(&format!("{}\n{}\n{}\n", rows[0], plant.size() + 1, rows[2])),
        6 => sign(&format!("{}\n{} \n{}\n", rows[0], rows[1], rows[2])),
        7 => {
            let mut root = rows[2].as_bytes().to_vec();
            root[42] = if root[42] == b'A' { b'B' } else { root[42] + 1 };
            sign(&format!("{}\n{}\n{}\n", rows[0], rows[1], String::from_utf8_lossy(&root)))
        }
        8 => sign(&format!("{}\n{}\n{}\n", rows[0], rows[1], BASE64.encode([0; 31]))),
        9 => sign(&format!("other.example/log\n{}\n{}\n", rows[1], rows[2])),
        10 => format!("{note}{}", signature_line("other.example/x", &stranger, &text)),
        11 => format!("{note}{}", signature_line(name, &stranger, &text)),
        12 => format!("{note}{}", signature_line(name, &key, "another text\n")),
        13 => format!("{note}{}", signature_line(name, &key, &text)),
        14 => format!("{note}\u{2014} a+b {}\n", BASE64.encode([0; 68])),
        15 => format!("{note}\u{2014} a\u{a0}b {}\n", BASE64.encode([0; 68])),
        16 => format!("{note}\u{2014} ab {}\n", BASE64.encode([0; 4])),
        17 => format!("{note}\u{2014} ab {}\n", BASE64.encode([0; 5])),
        18 => format!("{note}- ab {}\n", BASE64.encode([0; 68])),
        19 => format!("{note}\u{2014} {name} {}\n", BASE64.encode([&id[..], &[0; 63]].concat())),
        20 => format!("{note}{}", cosignature_line(WITNESS, &witness_key(), &text, dice.next())),
        21 => format!("{note}{}", cosignature_line(WITNESS, &witness_key(), "other\n", 5)),
        22 => format!("{note}{}", cosignature_line(WITNESS, &stranger, &text, 5)),
        23 => note.trim_end().into(),
        24 => format!("{note}\n"),
        25 => sign(&format!("{text}ex\u{1}tension\n")),
        26 => sign(&format!("{text}ex\rtension\n")),
        27 => format!("{note}{}", signature_line("many.example/x", &stranger, &text).repeat(*dice.pick(&[62, 63, 64]))),
        28 => note.replace("\n\u{2014}", "\u{2014}"),
        _ => String::from_utf8_lossy(&bend_bytes(dice, note.as_bytes())).into_owned(),
    }
}

fn bend_checkpoint(dice: &mut Dice) -> Case {
    let plant = plant(dice);
    let note = bend_note(dice, &plant);
    let evidence = if dice.one_in(2) {
        let files = plant.files(&note);
        let mut statement = plant.statement(&files);
        if let Some(size) = note.lines().nth(1).and_then(|line| line.parse::<u64>().ok()) {
            statement["predicate"]["checkpoint"]["size"] = size.into();
        }
        seal(&pack(&files, &Packing::default()), statement, |text| text)
    } else {
        let mut passport = plant.passport(dice.below(plant.log.len()) as u64);
        passport.note = note;
        passport.text()
    };
    let mut keys = format!("{}\n", vkey_line(ORIGIN, 1, &log_key()));
    if dice.one_in(2) {
        keys.push_str(&vkey_line(WITNESS, 4, &witness_key()));
    }
    Case { what: "checkpoint, signed".into(), evidence, keys }
}

// ---- Exports ----

fn bend_zip(dice: &mut Dice) -> Vec<u8> {
    let plant = plant(dice);
    let mut files = plant.files(&plant.note());
    let member = dice.below(files.len());
    let mut odd = Packing::default();
    match dice.below(12) {
        0 => odd.other_method = Some(dice.below(files.len() + 1)),
        1 => odd.after_stream = Some((member, vec![0; 1 + dice.below(3)])),
        2 => odd.short_stream = Some((member, 1 + dice.below(4))),
        3 => odd.other_sizes = Some((member, 1, 0)),
        4 => odd.other_sizes = Some((member, 0, *dice.pick(&[1, u32::MAX, 1 << 31]))),
        5 => odd.between = Some((member, b"PK".to_vec())),
        6 => odd.other_local = Some((member, dice.below(80), 1 << dice.below(8))),
        7 => odd.other_central = Some((member, dice.below(100), 1 << dice.below(8))),
        8 => {
            let other = dice.below(files.len());
            files.swap(member, other);
        }
        9 => files.insert(member, files[member].clone()),
        10 => files[member].0.push('x'),
        _ => {}
    }
    let statement = plant.statement(&files);
    let bytes = seal(&pack(&files, &odd), statement, |text| text);
    if dice.one_in(8) { [&bytes[..], b"\0"].concat() } else { bytes }
}

fn bend_lines(dice: &mut Dice, bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let mut rows: Vec<String> = text.lines().map(str::to_owned).collect();
    if rows.is_empty() {
        return b"\n".to_vec();
    }
    let (a, b) = (dice.below(rows.len()), dice.below(rows.len()));
    match dice.below(14) {
        0 => rows.swap(a, b),
        1 => {
            rows.remove(a);
        }
        2 => rows.insert(a, rows[b].clone()),
        3 => rows.insert(a, String::new()),
        4 => rows[a] = format!("0{}", rows[a]),
        5 => rows[a] = format!("+{}", rows[a]),
        6 => rows[a].push(' '),
        7 => rows[a].push('\r'),
        8 => return text.trim_end().into(),
        9 => {
            let mut row = rows[a].clone().into_bytes();
            let at = dice.below(row.len());
            if let Some(byte) = row.get_mut(at) {
                *byte ^= 1 << dice.below(7);
            }
            rows[a] = String::from_utf8_lossy(&row).into_owned();
        }
        10 if rows[a].starts_with('{') => rows[a] = bend_text(dice, rows[a].clone()),
        11 | 12 if rows[a].starts_with('{') => {
            let mut value: Value = serde_json::from_str(&rows[a]).expect("our own line");
            bend_value(dice, &mut value);
            rows[a] = value.to_string();
        }
        _ => {
            // Another base64 of the same bytes: the last letter's unused bits.
            let row = rows[a].clone().into_bytes();
            if row.len() == 44 {
                let mut row = row;
                row[42] += 1;
                rows[a] = String::from_utf8_lossy(&row).into_owned();
            } else {
                rows[a] = format!(" {}", rows[a]);
            }
        }
    }
    rows.into_iter().map(|row| row + "\n").collect::<String>().into_bytes()
}

fn find<'a>(files: &'a mut Files, name: &str) -> &'a mut Vec<u8> {
    &mut files.iter_mut().find(|(found, _)| found == name).expect("the file is there").1
}

fn bend_files(dice: &mut Dice) -> Vec<u8> {
    let mut plant = plant(dice);
    let mut absent = plant.absent.clone();
    let mut files = plant.files(&plant.note());
    match dice.below(16) {
        0..3 => {
            let file = find(&mut files, "entries.index.txt");
            *file = bend_lines(dice, file);
        }
        3..5 => {
            let file = find(&mut files, "entries.proof.txt");
            *file = bend_lines(dice, file);
        }
        5..10 => {
            let file = find(&mut files, "private.jsonl");
            *file = bend_lines(dice, file);
        }
        10 => {
            let file = find(&mut files, "entries.jsonl");
            *file = bend_lines(dice, file);
        }
        11 => {
            let at = dice.below(files.len());
            files.remove(at);
        }
        12 => {
            let at = dice.below(files.len());
            let bent = bend_bytes(dice, &[&files[at].1[..], b"\n"].concat());
            files[at].1 = bent;
        }
        13 => {
            // A text that is what its name says, but that nobody names; perhaps the one that was missing.
            let text = *dice.pick(&["# recipe\n", "# calibration\n", "other"]);
            let (folder, ending) =
                *dice.pick(&[("recipes", ".toml"), ("calibrations", ".toml"), ("model-cards", ".md")]);
            files.push((text_name(folder, text.as_bytes(), ending).0, text.into()));
            files.sort();
        }
        14 => {
            let key = *dice.pick(&["recipes", "calibrations", "model_cards"]);
            absent[key] = match dice.below(3) {
                0 => json!([digest("# recipe\n")]),
                1 => json!([digest("a"), digest("a")]),
                _ => json!([]),
            };
        }
        _ => {
            let name = *dice.pick(&["README.txt", "decisions.csv", "report.html", "log.vkey", "decisions.jsonl"]);
            *find(&mut files, name) = b"something else\n".to_vec();
        }
    }
    plant.absent = absent;
    let statement = plant.statement(&files);
    seal(&pack(&files, &Packing::default()), statement, |text| text)
}

fn bend_statement(dice: &mut Dice) -> Vec<u8> {
    let mut plant = plant(dice);
    let way = dice.below(10);
    if way < 5 {
        plant.selection = selection(dice);
    }
    let files = plant.files(&plant.note());
    let mut statement = plant.statement(&files);
    match way {
        0..5 => {}
        5 => {
            let counts = statement["predicate"]["counts"].as_object_mut().expect("an object");
            let keys: Vec<String> = counts.keys().cloned().collect();
            let count = &mut counts[dice.pick(&keys)];
            *count = (count.as_u64().unwrap_or_default() + 1).into();
        }
        6 => bend_value(dice, &mut statement["predicate"]),
        7 => bend_value(dice, &mut statement),
        8 => statement["predicate"]["format"] = dice.pick(&[json!(0), json!(1), json!(2), json!("1")]).clone(),
        _ => {}
    }
    let packed = pack(&files, &Packing::default());
    if way == 9 {
        return seal(&packed, statement, |text| bend_text(dice, text));
    }
    seal(&packed, statement, |text| text)
}

/// What was asked for: values that fit, values that do not, and values that are none.
fn selection(dice: &mut Dice) -> Value {
    let mut selection = json!({});
    let known: [(&str, &[Value]); 12] = [
        ("camera", &[json!("cam-1"), json!("cam-1"), json!("cam-2")]),
        ("from", &[json!(time(0)), json!(time(0)), json!(time(2)), json!("2026-11-23T06:00:00Z")]),
        ("line", &[json!("line-1"), json!("line-1"), json!("line-2"), json!("")]),
        ("lot", &[json!("L-2200"), json!("L-2200"), json!("l-2200"), json!("")]),
        (
            "part",
            &[
                json!("SN \"ü\""),
                json!("SN \"ü\""),
                json!("SN"),
                json!("a".repeat(129)),
                json!("ü".repeat(65)),
                json!("\u{7f}"),
            ],
        ),
        ("product", &[json!("flange"), json!("flange"), json!("gear"), json!("a b")]),
        ("recipe", &[json!("machined@1.0.0"), json!("machined@2.0.0"), json!("a:b")]),
        ("score_max", &[json!(score(1e9)), json!(score(1.0)), json!(score(0.5)), json!("1")]),
        ("score_min", &[json!(score(-1e9)), json!(score(0.0)), json!(score(0.3))]),
        ("station", &[json!("station-1"), json!("station-1"), json!("station-9")]),
        ("to", &[json!(time(3000)), json!(time(3000)), json!(time(1)), json!(time(31))]),
        (
            "verdicts",
            &[
                json!(["OK", "NOT_DECIDABLE", "NOT_OK"]),
                json!(["NOT_OK", "OK", "NOT_DECIDABLE"]),
                json!(["OK"]),
                json!([]),
                json!(["OK", "OK", "NOT_OK", "NOT_DECIDABLE"]),
                json!(["UNDEFINED"]),
            ],
        ),
    ];
    for _ in 0..1 + dice.below(3) {
        let (key, values) = dice.pick(&known);
        selection[*key] = dice.pick(values).clone();
    }
    selection
}

fn bend_envelope(dice: &mut Dice) -> Vec<u8> {
    let plant = plant(dice);
    let (packed, envelope) = open_envelope(&plant);
    let mut value = Value::Object(envelope);
    let text = match dice.below(3) {
        0 => bend_text(dice, value.to_string()),
        1 => {
            bend_value(dice, &mut value);
            value.to_string()
        }
        _ => {
            let signatures = value["signatures"].as_array_mut().expect("a list");
            let (way, first) = (dice.below(3), signatures[0].clone());
            match way {
                0 => signatures.push(first),
                1 => signatures.clear(),
                _ => signatures[0]["sig"] = json!(BASE64.encode([7; 64])),
            }
            value.to_string()
        }
    };
    debug_assert_eq!(MANIFEST, "manifest.dsse.json");
    packed.finish(text.as_bytes())
}

// ---- Entries ----

/// One changed entry: odd JSON, an odd value, or a story that does not add up.
pub fn bend_entry(dice: &mut Dice, listed: &mut Listed) {
    let mut value = listed.value.clone();
    let body = match dice.below(10) {
        0 => bend_text(dice, value.to_string()),
        1 => {
            let mut bytes = bend_bytes(dice, &listed.body);
            bytes.retain(|byte| *byte != b'\n');
            listed.body = bytes;
            return;
        }
        2..8 if value["kind"] == "period_close" => {
            bend_close(dice, &mut value);
            value.to_string()
        }
        2 => {
            let newest = json!(ENTRY_VERSION);
            let placed = json!(PLACED_VERSION);
            let known = [json!(0), json!(1), json!(1), newest, placed, json!(4), json!("1"), json!(1.0)];
            value["v"] = dice.pick(&known).clone();
            value.to_string()
        }
        3..7 if value["kind"] == "decision" => {
            bend_story(dice, &mut value);
            value.to_string()
        }
        3..8 if value["kind"] == "retention" => {
            value["entries"] = ranges(dice, usize::MAX);
            value.to_string()
        }
        _ => {
            bend_value(dice, &mut value);
            if dice.one_in(6) {
                bend_value(dice, &mut value);
            }
            value.to_string()
        }
    };
    if !body.contains('\n') {
        listed.body = body.into_bytes();
    }
}

/// Scores, thresholds, reasons or verdict that are perhaps not what they should be.
fn bend_story(dice: &mut Dice, value: &mut Value) {
    let labels = value["scores"]["labels"].as_array().map_or(0, Vec::len);
    let label = dice.below(labels);
    let reason = *dice.pick(&[
        "reject:scratch",
        "review:scratch",
        "reject:dent",
        "review:pit",
        "reject:",
        "quality:mean_min",
        "top_score_min",
        "later",
        "reject",
        "quality",
        "Quality:x",
        "reject:scratch:x",
    ]);
    match dice.below(17) {
        14 => value["scores"]["labels"][label]["at"] = place(dice),
        15 => value["scores"]["labels"][label]["boxes"] = dice.below(3).into(),
        16 => {
            let label = value["scores"]["labels"][label].as_object_mut().expect("an object");
            label.remove(if dice.one_in(2) { "at" } else { "boxes" });
        }
        0 => value["verdict"] = dice.pick(&[json!("OK"), json!("NOT_OK"), json!("NOT_DECIDABLE")]).clone(),
        1 => value["scores"]["comparator"] = dice.pick(&[json!(">="), json!(">"), json!("="), json!("<")]).clone(),
        2 => value["scores"]["decision"] = score(any_score(dice)).into(),
        3 => value["scores"]["labels"][label]["score"] = score(any_score(dice)).into(),
        4 => value["scores"]["labels"][label]["reject"] = score(any_score(dice)).into(),
        5 => value["scores"]["labels"][label]["review"] = score(any_score(dice)).into(),
        6 => value["scores"]["labels"][label]["defect"] = (*dice.pick(&[false, false, true])).into(),
        7 => {
            let pair = if dice.one_in(2) { "reject" } else { "review" };
            value["scores"][pair] = score(any_score(dice)).into();
        }
        8 => {
            let object = value["scores"].as_object_mut().expect("an object");
            object.remove(if dice.one_in(2) { "reject" } else { "review" });
        }
        9 => value["reasons"] = json!([reason]),
        10 => {
            let mut reasons = value["reasons"].as_array().cloned().unwrap_or_default();
            reasons.push(reason.into());
            value["reasons"] = reasons.into();
            if dice.one_in(2) {
                value["verdict"] = "NOT_DECIDABLE".into();
            }
        }
        11 => {
            value["reasons"] = json!([]);
        }
        12 => {
            value.as_object_mut().expect("an object").remove("reasons");
        }
        _ => {
            // No label is a defect any more.
            let goods: Vec<Value> = value["scores"]["labels"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|label| json!({"label": label["label"], "score": label["score"]}))
                .collect();
            value["scores"]["labels"] = if dice.one_in(2) { goods.into() } else { json!([]) };
        }
    }
}

fn bend_export_entry(dice: &mut Dice) -> Vec<u8> {
    let mut plant = plant(dice);
    let at = dice.below(plant.log.len());
    bend_entry(dice, &mut plant.log[at]);
    plant.export()
}

fn bend_passport_entry(dice: &mut Dice) -> Vec<u8> {
    let mut plant = plant(dice);
    let at = dice.below(plant.log.len());
    bend_entry(dice, &mut plant.log[at]);
    plant.passport(at as u64).text()
}

// ---- Passports ----

fn bend_passport(dice: &mut Dice) -> Vec<u8> {
    let plant = plant(dice);
    let at = dice.below(plant.log.len());
    let mut passport = plant.passport(at as u64);
    let opened = passport.lines.len() > 1;
    match dice.below(20) {
        0 => passport.index = format!("0{}", passport.index),
        1 => passport.index = plant.size().to_string(),
        2 => passport.index = ((at + 1) as u64 % plant.size()).to_string(),
        3 => passport.index.push(' '),
        4 => passport.index = (1_u64 << 60).to_string(),
        5 if !passport.proof.is_empty() => {
            passport.proof.pop();
        }
        6 => passport.proof.push(BASE64.encode([0; 32])),
        7 if !passport.proof.is_empty() => {
            let mut hash = passport.proof[0].clone().into_bytes();
            hash[42] += 1;
            passport.proof[0] = String::from_utf8_lossy(&hash).into_owned();
        }
        8 if passport.proof.len() > 1 => passport.proof.swap(0, 1),
        9 => passport.proof = vec![BASE64.encode([0; 32]); *dice.pick(&[63, 64, 65, 66])],
        10..13 if opened => {
            let at = 1 + dice.below(passport.lines.len() - 1);
            let text = String::from_utf8_lossy(&passport.lines[at]).into_owned();
            passport.lines[at] = bend_text(dice, text).into_bytes();
        }
        13..15 if opened => {
            let at = 1 + dice.below(passport.lines.len() - 1);
            let mut value: Value = serde_json::from_slice(&passport.lines[at]).expect("our own line");
            bend_value(dice, &mut value);
            passport.lines[at] = value.to_string().into_bytes();
        }
        15 => passport.lines.push(passport.lines[dice.below(passport.lines.len())].clone()),
        16 => passport.lines.push(Vec::new()),
        17 => passport.lines.truncate(1),
        18 => {
            let text = passport.text();
            return bend_bytes(dice, &text);
        }
        _ => {
            let text = String::from_utf8_lossy(&passport.text()).into_owned();
            return match dice.below(7) {
                0 => text.replacen("extra ", "extra  ", 1),
                1 => text.replacen("@v1\n", "@v1\r\n", 1),
                2 => text.replacen("\nextra ", "\nExtra ", 1),
                3 => text.replacen("@v1", "@v2", 1),
                4 => text.replacen("\n\n", "\n\n\n", 1),
                5 => format!("{text}\n"),
                _ => text.replacen("index ", "index +", 1),
            }
            .into_bytes();
        }
    }
    passport.text()
}

// ---- Logs ----

/// A log as files, changed or not, and what was done to it.
pub fn log_case(dice: &mut Dice) -> (String, Vec<(String, Vec<u8>)>) {
    let mut plant = open_plant(dice);
    let copies = *dice.pick(&[0, 0, 244, 256, 300, 520]);
    let more: Vec<Listed> = (0..copies)
        .map(|at| Listed::new(json!({"clock": "free", "kind": "start", "recovered": at, "software": "s", "time": time(0), "torn_bytes": 0,
            "v": 1}), false, Vec::new()))
        .collect();
    plant.log.splice(0..0, more);
    close_periods(dice, &mut plant);
    let way = dice.below(17);
    if way == 0 {
        let at = dice.below(plant.log.len());
        bend_entry(dice, &mut plant.log[at]);
    }
    if way == 1 {
        plant.log.clear();
    }
    let closes: Vec<usize> = (0..plant.log.len()).filter(|at| plant.log[*at].value["kind"] == "period_close").collect();
    let bends_close = (10..15).contains(&way) && !closes.is_empty();
    if bends_close {
        let listed = &mut plant.log[*dice.pick(&closes)];
        bend_close(dice, &mut listed.value);
        listed.body = listed.value.to_string().into_bytes();
    }
    let mut note = if way == 2 { bend_note(dice, &plant) } else { plant.note() };
    let mut files = plant.log_files(&note);
    let at = dice.below(files.len());
    let what = match way {
        0 => "an entry, signed",
        1 => "an empty log",
        2 => "the checkpoint, signed",
        3 => {
            files.remove(at);
            "a file removed"
        }
        4 | 5 => {
            files[at].1 = bend_bytes(dice, &files[at].1);
            "a file's bytes"
        }
        6 => {
            files[at].1.extend([0; 32]);
            "a hash too many"
        }
        7 => {
            // The full tile in place of the partial one, whole or not.
            let partials: Vec<usize> = (0..files.len()).filter(|at| files[*at].0.contains(".p/")).collect();
            let at = *dice.pick(&partials);
            let (path, width) = files[at].0.split_once(".p/").expect("a partial tile");
            let (missing, path) = (256 - width.parse::<usize>().expect("a width"), path.to_owned());
            let missing = if dice.one_in(3) { missing - 1 } else { missing };
            let filler: Vec<u8> = if path.contains("entries") { b"\0\x01x".to_vec() } else { vec![7; 32] };
            let bytes = [&files[at].1[..], &filler.repeat(missing)].concat();
            files[at] = (path, bytes);
            "a full tile in place of the partial one"
        }
        8 => {
            // An honest checkpoint of a shorter log over the files of a longer one.
            let mut shorter = plant.clone();
            shorter.log.truncate(1 + dice.below(plant.log.len()));
            note = shorter.note();
            files[0].1 = note.into_bytes();
            "an older checkpoint"
        }
        9 => {
            let path = files[at].0.clone();
            let other = dice.below(files.len());
            files[at].0 = files[other].0.clone();
            files[other].0 = path;
            "two files swapped"
        }
        _ if bends_close => "a close, signed",
        _ => "nothing",
    };
    (what.into(), files)
}

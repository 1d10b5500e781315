//! What is written is read back as it was, and what is written otherwise is refused.

use super::*;

/// A full decision, for tests across the crate.
pub(crate) fn decision(counter: u64) -> Decision {
    let score = |value: f32| Score::new(value).unwrap();
    Decision {
        calibration: Some(Blake3Digest::of(b"calibration")),
        camera: "cam-1".parse().unwrap(),
        captured: Some("2026-11-23T21:43:48Z".parse().unwrap()),
        clock: ClockState::Synchronised,
        frame: FrameRecord { counter, id: FrameId::new(format!("f{counter}")).unwrap(), trigger: Some(counter) },
        image: ImageRecord {
            archive: "not_ok".into(),
            bytes: 262_144,
            encoded: Blake3Digest::of(&counter.to_le_bytes()),
            format: "png".into(),
            height: 512,
            pfnc: "0x01080001".into(),
            pixels: Blake3Digest::of(b"pixels"),
            width: 512,
        },
        kind: DecisionKind::Kind,
        line: "line-1".parse().unwrap(),
        model: ModelRecord { digest: Blake3Digest::of(b"model"), version: "1.0.0".into() },
        private: Commitments { client: None, lot: None, serial: Some(Sha256Digest::of(b"salt and serial")) },
        product: "flange".parse().unwrap(),
        quality: QualityRecord { focus: score(0.01), mean: score(0.5), saturated: score(0.0) },
        reasons: vec!["reject:scratch".into()],
        recipe: RecipeRecord { digest: Blake3Digest::of(b"recipe"), name: "machined-surface@1.0.0".parse().unwrap() },
        runtime: RuntimeRecord {
            batch: 1,
            cpu: "avx2,fma".into(),
            optimisation: "all".into(),
            provider: "cpu".into(),
            threads: 1,
            version: "1.32.0".into(),
        },
        scores: ScoresRecord {
            comparator: ">=".into(),
            decision: score(0.75),
            labels: vec![LabelRecord {
                at: None,
                boxes: None,
                label: "scratch".into(),
                reject: Some(score(0.6)),
                review: Some(score(0.3)),
                score: score(0.75),
            }],
        },
        software: "lineproof 0.1.0".into(),
        station: "station-1".parse().unwrap(),
        time: "2026-11-23T21:43:48.1Z".parse().unwrap(),
        v: ENTRY_VERSION,
        verdict: Verdict::NotOk,
    }
}

/// A close with every key there is.
fn full_close() -> PeriodClose {
    let text = r#"{"announced":{"first":1,"frames_per_part":1,"from":"2026-11-25T06:00:00.000000000Z","last":9,"lost":[{"first":4,"last":5}],"parts":10,"period":"early","restarted":true,"to":"2026-11-25T14:00:00.000000000Z","unseen":1},"camera":"c","clock":"free","corrects":3,"decided":5,"end":9,"gaps":1,"kind":"period_close","line":"l","lost_frames":2,"missing":[{"first":9,"last":9}],"missing_frames":1,"previous":1,"private":{},"since":0,"station":"s","time":"2026-11-25T14:00:01.000000000Z","v":2}"#;
    serde_json::from_str(text).unwrap()
}

/// An entry with every key that a retention entry may have.
pub(crate) fn retention() -> Retention {
    let time: Instant = "2026-11-23T21:43:48.1Z".parse().unwrap();
    Retention {
        before: Some(time),
        class: Some("not_ok".into()),
        clock: ClockState::Free,
        destroyed: Some(Destroyed { client: None, images: Some(3), lot: Some(2), packs: Some(1), serial: Some(2) }),
        entries: Some("3 17-40".parse().unwrap()),
        event: RetentionEvent::Erased,
        from: Some(time),
        hold: Some(EntryIndex(2)),
        kept: Some(1),
        kind: RetentionKind::Kind,
        line: Some("l".parse().unwrap()),
        private: Commitments { serial: Some(Sha256Digest::of(b"x")), ..Commitments::default() },
        product: Some("p".parse().unwrap()),
        rule: "GDPR Art. 17".into(),
        time,
        to: Some(time),
        v: ENTRY_VERSION,
    }
}

fn one_of_each() -> Vec<Entry> {
    let time: Instant = "2026-11-23T21:43:48.1Z".parse().unwrap();
    let clock = ClockState::Free;
    let v = ENTRY_VERSION;
    let recipe = RecipeRecord { digest: Blake3Digest::of(b"r"), name: "a@1.0.0".parse().unwrap() };
    vec![
        Entry::Decision(Box::new(decision(7))),
        Entry::Gap(Gap {
            camera: "c".parse().unwrap(),
            clock,
            count: 3,
            first: Some(4),
            frame: Some("f".parse().unwrap()),
            kind: GapKind::Kind,
            last: Some(6),
            line: "l".parse().unwrap(),
            reason: GapReason::CounterJump,
            station: "s".parse().unwrap(),
            time,
            v,
        }),
        Entry::Recipe(RecipeEvent {
            calibration: Some(Blake3Digest::of(b"c")),
            clock,
            event: RecipeEventKind::Activated,
            kind: RecipeKind::Kind,
            model: Blake3Digest::of(b"m"),
            recipe,
            time,
            v,
        }),
        Entry::Access(Access {
            count: Some(1),
            index: Some(EntryIndex(0)),
            method: Some("lineproof.v1.AuditService/Export".into()),
            object: Some("blake3:".into()),
            private: Commitments { client: Some(Sha256Digest::of(b"x")), ..Commitments::default() },
            reason: Some("role".into()),
            ..Access::new(AccessEvent::Export, (time, clock))
        }),
        Entry::Key(KeyEvent { clock, kind: KeyKind::Kind, purpose: "log".into(), time, v, vkey: "k+1+A".into() }),
        Entry::Start(Start {
            clock,
            kind: StartKind::Kind,
            recovered: 0,
            software: "s".into(),
            time,
            torn_bytes: 0,
            v,
        }),
        Entry::PeriodClose(Box::new(full_close())),
        Entry::Retention(Box::new(retention())),
    ]
}

#[test]
fn every_kind_reads_back_what_it_wrote() {
    for entry in one_of_each() {
        let bytes = entry.encode().unwrap();
        assert_eq!(Entry::parse(&bytes).unwrap(), entry, "{}", String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn entries_have_sorted_keys_and_no_floats() {
    fn check(value: &serde_json::Value, bytes: &str) {
        match value {
            serde_json::Value::Object(map) => map.values().for_each(|value| check(value, bytes)),
            serde_json::Value::Array(values) => values.iter().for_each(|value| check(value, bytes)),
            serde_json::Value::Number(number) => assert!(number.is_u64(), "{number} in {bytes}"),
            _ => {}
        }
    }
    fn sorted(value: &serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_by_key(|(key, _)| key.as_str());
                serde_json::Value::Object(entries.into_iter().map(|(k, v)| (k.clone(), sorted(v))).collect())
            }
            serde_json::Value::Array(values) => values.iter().map(sorted).collect(),
            other => other.clone(),
        }
    }
    for entry in one_of_each() {
        let text = String::from_utf8(entry.encode().unwrap()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        check(&value, &text);
        assert_eq!(sorted(&value).to_string(), text);
    }
}

#[test]
fn a_later_kind_is_kept_and_a_later_version_is_refused() {
    let later = br#"{"kind":"witness_sighted","time":"2026-11-23T21:43:48.100000000Z","v":1}"#;
    assert_eq!(Entry::parse(later).unwrap().kind(), "witness_sighted");
    let newer = br#"{"kind":"decision","v":4}"#;
    assert!(matches!(Entry::parse(newer), Err(EntryError::Newer { found: 4 })));
}

#[test]
fn thresholds_that_labels_share_are_written_once() {
    let score = |value: f32| Score::new(value).unwrap();
    let label = |name: &str, bars: Option<(f32, f32)>| LabelRecord {
        at: None,
        boxes: None,
        label: name.into(),
        reject: bars.map(|(_, reject)| score(reject)),
        review: bars.map(|(review, _)| score(review)),
        score: score(0.75),
    };
    let of = |labels: Vec<LabelRecord>| {
        let mut decision = decision(1);
        decision.scores.labels = labels;
        let bytes = decision.encode().unwrap();
        assert_eq!(Entry::parse(&bytes).unwrap(), Entry::Decision(Box::new(decision)));
        String::from_utf8(bytes).unwrap()
    };
    let (common, other) = (Some((0.3, 0.6)), Some((0.2, 0.5)));
    let text = of(vec![label("a", other), label("b", common), label("c", common), label("good", None)]);
    assert_eq!(text.matches("\"reject\"").count(), 2, "{text}");
    assert!(text.contains(r#"{"defect":false,"label":"good","score":"#), "{text}");
    let text = of(vec![label("a", other), label("b", common), label("good", None)]);
    assert!(text.matches("\"reject\"").count() == 2 && !text.contains("defect"), "{text}");
}

#[test]
fn version_1_is_read_and_has_nothing_of_version_2() {
    let text = String::from_utf8(decision(1).encode().unwrap()).unwrap();
    let first = text.replace(r#""v":2"#, r#""v":1"#);
    let Entry::Decision(read) = Entry::parse(first.as_bytes()).unwrap() else { panic!("a decision") };
    assert_eq!(*read, Decision { v: 1, ..decision(1) });
    let mut four = decision(1);
    four.scores.labels = vec![four.scores.labels[0].clone(); 2];
    let shared = String::from_utf8(four.encode().unwrap()).unwrap().replace(r#""v":2"#, r#""v":1"#);
    assert!(matches!(Entry::parse(shared.as_bytes()), Err(EntryError::Later(_))), "{shared}");
    let marked = first.replace(r#"{"label":"#, r#"{"defect":false,"label":"#);
    assert!(matches!(Entry::parse(marked.as_bytes()), Err(EntryError::Later(_))), "{marked}");
    let one_shared = text.replace("}]},", r#"}],"reject":"0x3f19999a 0.6"},"#);
    assert_ne!(one_shared, text);
    for lie in [
        text.replace(r#"{"label":"#, r#"{"defect":true,"label":"#),
        text.replace(r#"{"label":"#, r#"{"defect":false,"label":"#),
        one_shared,
    ] {
        assert!(matches!(Entry::parse(lie.as_bytes()), Err(EntryError::Json(_))), "{lie}");
    }
}

#[test]
fn a_decision_that_says_where_is_of_version_3_and_no_other_is() {
    let mut placed = decision(1);
    placed.scores.labels[0].at = Some(Bounds { height_px: 4, width_px: 3, x_px: 1, y_px: 2 });
    placed.scores.labels[0].boxes = Some(7);
    placed.v = placed.version();
    let text = String::from_utf8(placed.encode().unwrap()).unwrap();
    assert!(text.contains(r#"{"at":{"height":4,"width":3,"x":1,"y":2},"boxes":7,"label":"scratch","#), "{text}");
    assert_eq!(Entry::parse(text.as_bytes()).unwrap(), Entry::Decision(Box::new(placed)));
    let plain = String::from_utf8(decision(1).encode().unwrap()).unwrap();
    let other_versions = [text.replace(r#""v":3"#, r#""v":2"#), plain.replace(r#""v":2"#, r#""v":3"#)];
    for lie in other_versions {
        assert!(matches!(Entry::parse(lie.as_bytes()), Err(EntryError::Places)), "{lie}");
    }
    let first = text.replace(r#""v":3"#, r#""v":1"#);
    assert!(Entry::parse(first.as_bytes()).is_err());
}

#[test]
fn the_committed_vector_of_version_3_is_read_and_written_as_it_stands() {
    let bytes = include_bytes!("../../../../docs/spec/vectors/placed.entry.json");
    let entry = Entry::parse(bytes).unwrap();
    assert_eq!(entry.encode().unwrap(), bytes);
    let Entry::Decision(decision) = entry else { panic!("a decision") };
    assert_eq!(decision.scores.labels[0].at, Some(Bounds { height_px: 17, width_px: 40, x_px: 230, y_px: 11 }));
    assert_eq!((decision.scores.labels[1].at, decision.scores.labels[1].boxes), (None, Some(0)));
}

#[test]
fn the_largest_decision_that_says_where_fits_into_an_entry() {
    let mut decision = decision(1);
    let label = LabelRecord {
        at: Some(Bounds { height_px: 16_384, width_px: 16_384, x_px: 16_383, y_px: 16_383 }),
        boxes: Some(300),
        label: "l".repeat(crate::core::recipe::LABEL_BYTES_MAX),
        reject: Some(Score::new(0.123_456_79).unwrap()),
        review: Some(Score::new(0.012_345_679).unwrap()),
        score: Score::new(0.876_543_2).unwrap(),
    };
    decision.scores.labels = vec![label; crate::core::recipe::PLACED_LABELS_MAX];
    decision.reasons = decision.scores.labels.iter().map(|label| format!("reject:{}", label.label)).collect();
    // Thresholds of its own for every label.
    for (at, label) in decision.scores.labels.iter_mut().enumerate() {
        label.review = Some(Score::new(0.012_345_679 + at as f32 * 0.001).unwrap());
    }
    let bytes = decision.encode().unwrap();
    assert!(bytes.len() < ENTRY_BYTES_MAX - 2048, "{} bytes", bytes.len());
}

#[test]
fn a_retention_entry_says_of_which_entries_which_values_are_gone() {
    let entry = retention();
    let gone = |index, field| entry.destroyed_value(EntryIndex(index), field);
    assert!(gone(3, PrivateField::Serial) && gone(40, PrivateField::Lot));
    assert!(!gone(3, PrivateField::Client) && !gone(41, PrivateField::Serial));
    assert_eq!(entry.destroyed.unwrap().fields(), [PrivateField::Lot, PrivateField::Serial]);
}

#[test]
fn a_decision_of_one_label_stays_small() {
    let bytes = Entry::Decision(Box::new(decision(1))).encode().unwrap();
    assert!(bytes.len() < 1500, "{} bytes", bytes.len());
}

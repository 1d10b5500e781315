//! The published vectors of `docs/spec/witness.md`, over the log of `lineage.json`. `tests/vectors/make_witness.py` wrote
//! them with nothing of ours.

use std::{fs, io, path::Path};

use super::{
    compare::{Comparison, Held, Past, compare},
    cosign::{Cosigned, Cosigner},
    policy::Policy,
    request::AddCheckpoint,
};
use crate::core::{
    export::{
        keys::{Keys, VerifierKey},
        verify::{LogFiles, Problem, Step, verify_checkpoint, verify_passport},
    },
    lineage::{
        checkpoint::{Checkpoint, LogSigner},
        entry::ENTRY_BYTES_MAX,
        tiles::{RightEdge, TileHashes, encode_hash_tile, parse_hash_tile},
        tree::{consistency_proof, leaf_hash},
    },
};

const TIME: u64 = 1_764_043_200;

fn vector(name: &str) -> String {
    fs::read_to_string(Path::new("docs/spec/vectors").join(name)).unwrap()
}

fn hold(name: &str, text: &str) {
    assert_eq!(vector(name), text, "{name}");
}

fn witness(number: u8) -> Cosigner {
    Cosigner::new(&format!("witness.example/w{number}"), &[100 + number; 32]).unwrap()
}

fn policy() -> String {
    let vkey = |number| witness(number).verifier_key().line();
    format!(
        "# Two of three witnesses vouch for the plant's log.\nlog {}\nwitness oem {} https://witness.example/\nwitness site2 {}\nwitness stick {}\ngroup two-of-three 2 oem site2 stick\nquorum two-of-three\n",
        vector("lineage.vkey").trim(),
        vkey(1),
        vkey(2),
        vkey(3)
    )
}

#[test]
fn the_published_vectors_hold() {
    let facts: serde_json::Value = serde_json::from_str(&vector("lineage.json")).unwrap();
    let key = VerifierKey::parse(vector("lineage.vkey").trim()).unwrap();
    let known: Vec<VerifierKey> = (1..=3).map(|number| witness(number).verifier_key().clone()).collect();
    let mut cosigned = Cosigned::open(facts["checkpoint"].as_str().unwrap(), &[key], &known).unwrap();
    let text = cosigned.text().to_owned();
    for number in [1, 3] {
        cosigned.add(&witness(number).cosign(&text, TIME + u64::from(number)), &known).unwrap();
    }
    hold("witness.checkpoint", &cosigned.note());
    hold("witness.policy", &policy());
    let consistency = &facts["consistency"];
    let proof = consistency["proof"]
        .as_array()
        .unwrap()
        .iter()
        .map(|hash| format!("sha256:{}", hash.as_str().unwrap()).parse().unwrap());
    let note = facts["checkpoint"].as_str().unwrap().to_owned();
    let request = AddCheckpoint { old: consistency["old"].as_u64().unwrap(), proof: proof.collect(), note };
    hold("witness.request", &request.to_text());
    let passport = vector("lineage.tlog-proof");
    let (head, _) = passport.split_once("\n\n").unwrap();
    hold("witness.tlog-proof", &format!("{head}\n\n{}", cosigned.note()));
}

#[test]
fn a_cosigned_passport_satisfies_its_policy_and_says_who_cosigned_when() {
    let keys = Keys::new(Vec::new()).with_policy(Policy::parse(policy().as_bytes()).unwrap());
    let findings = verify_passport(&vector("witness.tlog-proof"), &keys);
    assert!(findings.is_good(), "{:?}", findings.problem);
    let at =
        |number: u8, time: &str| Step::Cosigned { witness: witness(number).verifier_key().key_id(), time: time.into() };
    assert!(findings.steps.contains(&at(1, "2025-11-25T04:00:01Z")), "{:?}", findings.steps);
    assert!(findings.steps.contains(&at(3, "2025-11-25T04:00:03Z")));
    let quorum = Step::Quorum { name: "two-of-three".into(), missing: vec!["site2".into()] };
    assert!(findings.steps.contains(&quorum));

    // The same without cosignatures, and with one too few.
    let findings = verify_passport(&vector("lineage.tlog-proof"), &keys);
    assert!(matches!(findings.problem, Some(Problem::Policy(_))), "{:?}", findings.problem);
    let note = vector("witness.checkpoint");
    let short = note.lines().filter(|line| !line.contains("/w3 ")).fold(String::new(), |text, line| text + line + "\n");
    assert!(verify_checkpoint(note.as_bytes(), &keys).is_good());
    assert!(matches!(verify_checkpoint(short.as_bytes(), &keys).problem, Some(Problem::Policy(_))));

    // Without a policy the cosignatures are named and nothing is claimed of them.
    let log: Keys = vector("lineage.vkey").parse().unwrap();
    let findings = verify_passport(&vector("witness.tlog-proof"), &log);
    assert!(findings.is_good());
    let unchecked = [1, 3].map(|number| witness(number).verifier_key().key_id()).to_vec();
    assert!(findings.steps.contains(&Step::Unchecked { keys: unchecked }), "{:?}", findings.steps);
}

#[test]
fn no_flipped_bit_of_a_cosigned_checkpoint_passes_its_policy() {
    let keys = Keys::new(Vec::new()).with_policy(Policy::parse(policy().as_bytes()).unwrap());
    let note = vector("witness.checkpoint").into_bytes();
    for at in 0..note.len() {
        for bit in 0..8 {
            let mut bad = note.clone();
            bad[at] ^= 1 << bit;
            assert!(!verify_checkpoint(&bad, &keys).is_good(), "byte {at} bit {bit}");
        }
    }
}

/// The hash tiles of a log of `size` entries, in memory.
struct Log {
    tiles: std::collections::HashMap<String, Vec<u8>>,
    note: String,
}

impl LogFiles for Log {
    fn read(&self, path: &str, _bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
        Ok(self.tiles.get(path).cloned())
    }
}

impl Log {
    /// Entries from `parts_at` on differ by `branch`.
    fn new(size: u64, parts_at: u64, branch: &str) -> Self {
        let entry = |index: u64| if index < parts_at { format!("{index}") } else { format!("{index} {branch}") };
        let (mut edge, mut tiles) = (RightEdge::default(), std::collections::HashMap::new());
        for index in 0..size {
            assert!(entry(index).len() < ENTRY_BYTES_MAX);
            edge.push(leaf_hash(entry(index).as_bytes()), |tile, hashes| {
                tiles.insert(tile.path(), encode_hash_tile(&hashes));
            });
        }
        tiles.extend(edge.partials().map(|(tile, hashes)| (tile.path(), encode_hash_tile(hashes))));
        let signer = LogSigner::new("plant.example/log", &[7; 32]).unwrap();
        Self { tiles, note: signer.sign(&Checkpoint::new("plant.example/log", size, edge.root())) }
    }

    fn proof_from(&self, old: u64, size: u64) -> Vec<crate::types::Sha256Digest> {
        let fetch = |tile: crate::core::lineage::tiles::Tile| parse_hash_tile(&self.tiles[&tile.path()], tile.width);
        consistency_proof(old, size, &TileHashes::new(size, fetch)).unwrap()
    }
}

fn compared(one: &Log, past: Past<'_>, other: &Log, other_past: Past<'_>) -> Result<Comparison, Problem> {
    let signer = LogSigner::new("plant.example/log", &[7; 32]).unwrap();
    let keys: Keys = VerifierKey::parse(&signer.verifier_key().to_string()).unwrap().into();
    let [a, b] = [one, other].map(|log| keys.open_checkpoint(log.note.as_bytes()).unwrap());
    compare(&Held { signed: &a, past }, &Held { signed: &b, past: other_past })
}

#[test]
fn two_histories_are_told_apart_and_one_that_grew_is_not() {
    let (short, long, fork) = (Log::new(300, 999, ""), Log::new(700, 999, ""), Log::new(700, 290, "lie"));
    assert_eq!(compared(&short, Past::Nothing, &short, Past::Nothing).unwrap(), Comparison::Same);
    let same_size = compared(&long, Past::Nothing, &fork, Past::Nothing).unwrap();
    assert_eq!(same_size, Comparison::Fork { at: 700, proof: Vec::new() });
    let unlinked = compared(&short, Past::Nothing, &fork, Past::Nothing).unwrap();
    assert_eq!(unlinked, Comparison::Unlinked { from: 300, to: 700 });
    // With the tiles of the larger log, in either order.
    let grown = Comparison::Grown { from: 300, to: 700 };
    assert_eq!(compared(&short, Past::Nothing, &long, Past::Tiles(&long)).unwrap(), grown);
    assert_eq!(compared(&long, Past::Tiles(&long), &short, Past::Tiles(&short)).unwrap(), grown);
    for other_past in [Past::Nothing, Past::Tiles(&short)] {
        let found = compared(&fork, Past::Tiles(&fork), &short, other_past).unwrap();
        assert!(matches!(found, Comparison::Fork { at: 300, ref proof } if !proof.is_empty()), "{found:?}");
    }
    // With a proof at hand.
    let hashes = long.proof_from(300, 700);
    let proof = || Past::Proof { old: 300, hashes: &hashes };
    assert_eq!(compared(&short, Past::Nothing, &long, proof()).unwrap(), grown);
    let lies = fork.proof_from(300, 700);
    let found = compared(&short, Past::Nothing, &fork, Past::Proof { old: 300, hashes: &lies }).unwrap();
    assert_eq!(found, Comparison::Fork { at: 300, proof: lies.clone() });
    // Another size's proof links nothing; a changed one is no evidence.
    let other = fork.proof_from(299, 700);
    let unrelated = compared(&short, Past::Nothing, &fork, Past::Proof { old: 299, hashes: &other }).unwrap();
    assert_eq!(unrelated, Comparison::Unlinked { from: 300, to: 700 });
    let wrong = compared(&short, Past::Nothing, &fork, proof());
    assert!(matches!(wrong, Err(Problem::Consistency(_))), "{wrong:?}");
}

#[test]
fn tiles_that_do_not_lead_to_the_signed_root_prove_no_fork() {
    let (short, mut long) = (Log::new(300, 999, ""), Log::new(700, 999, ""));
    for bytes in long.tiles.values_mut() {
        bytes[0] ^= 1;
    }
    let found = compared(&short, Past::Nothing, &long, Past::Tiles(&long));
    assert!(matches!(found, Err(Problem::Root { size: 700 })), "{found:?}");
}

//! The published vectors of `docs/spec/passport.md`. `LINEPROOF_WRITE_VECTORS=1 cargo test lineage::tests` writes them anew,
//! which is a change of format.

use std::{fs, path::Path};

use serde_json::json;

use super::{
    checkpoint::{Checkpoint, LogSigner},
    entry::{Entry, tests::decision},
    passport::Passport,
    private::{Opening, PrivateField},
    receipt::Receipt,
    tiles::{RightEdge, Tile, TileHashes, TileKind},
    tree::{consistency_proof, inclusion_proof, leaf_hash, verify_consistency},
};
use crate::types::{EntryIndex, Sha256Digest};

const SIZE: u64 = 300;
const PART: u64 = 259;

#[test]
fn the_published_vectors_hold() {
    let signer = LogSigner::new("lineproof.example/plant-1", &[7; 32]).unwrap();
    let opening = Opening { field: PrivateField::Serial, salt: [3; 16], value: "SN-0004711".into() };
    let mut part = decision(PART);
    part.private.serial = Some(opening.commitment());
    let part = Entry::Decision(Box::new(part)).encode().unwrap();
    let entry = |index: u64| match index {
        PART => part.clone(),
        _ => format!(r#"{{"kind":"vector","n":{index},"v":1}}"#).into_bytes(),
    };
    let mut edge = RightEdge::default();
    let mut tiles = std::collections::HashMap::new();
    for index in 0..SIZE {
        edge.push(leaf_hash(&entry(index)), |tile, hashes| drop(tiles.insert(tile, hashes)));
    }
    tiles.extend(edge.partials().map(|(tile, hashes)| (tile, hashes.to_vec())));
    let reader = TileHashes::new(SIZE, |tile: Tile| Ok::<_, std::convert::Infallible>(tiles[&tile].clone()));
    let note = signer.sign(&Checkpoint::new(signer.name(), SIZE, edge.root()));
    let hex = |hashes: Vec<Sha256Digest>| hashes.iter().map(Sha256Digest::hex).collect::<Vec<_>>();
    let inclusion: Vec<_> = [0, 255, 256, PART, 299]
        .into_iter()
        .map(|index| json!({"index": index, "proof": hex(inclusion_proof(index, SIZE, &reader).unwrap())}))
        .collect();
    let old_root = super::tree::root_of((0..256).map(|index| leaf_hash(&entry(index))));
    let consistency = consistency_proof(256, SIZE, &reader).unwrap();
    verify_consistency(256, &old_root, SIZE, &edge.root(), &consistency).unwrap();
    let facts = json!({
        "entries": "entry n is {\"kind\":\"vector\",\"n\":<n>,\"v\":1}, but entry 259 is the one in lineage.tlog-proof",
        "size": SIZE,
        "vkey": signer.verifier_key().to_string(),
        "root": edge.root().hex(),
        "checkpoint": note,
        "leaf_0": leaf_hash(&entry(0)).hex(),
        "level_1": tiles[&Tile { kind: TileKind::Hashes(1), index: 0, width: 1 }][0].hex(),
        "inclusion": inclusion,
        "consistency": {"old": 256, "old_root": old_root.hex(), "proof": hex(consistency)},
    });
    let proof = inclusion_proof(PART, SIZE, &reader).unwrap();
    let passport =
        Passport { index: EntryIndex(PART), entry: part.clone(), openings: vec![opening], proof, checkpoint: note };
    passport.verify(signer.verifier_key()).unwrap();
    let receipt = Receipt::sign(&signer, &passport).unwrap();
    hold("lineage.json", format!("{facts:#}\n").as_bytes());
    hold("lineage.tlog-proof", passport.to_text().as_bytes());
    hold("lineage.vkey", format!("{}\n", signer.verifier_key()).as_bytes());
    hold("receipt.entry.json", &part);
    hold("receipt.cbor", &receipt.to_bytes());
}

fn hold(name: &str, bytes: &[u8]) {
    let path = Path::new("docs/spec/vectors").join(name);
    if std::env::var_os("LINEPROOF_WRITE_VECTORS").is_some() {
        fs::write(&path, bytes).unwrap();
    }
    assert!(fs::read(&path).unwrap() == bytes, "{} is not what is written today", path.display());
}

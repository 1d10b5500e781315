//! A plant whose owner is dishonest: signs whatever it is told to, so that changes get past digests and signatures.

use std::io::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use ed25519_dalek::{Signer as _, SigningKey};
use lineproof::{
    core::{
        export::{keys::VerifierKey, manifest, multiproof},
        lineage::tree::{leaf_hash, node_hash},
    },
    types::{Blake3Digest, Sha256Digest},
};
use miniz_oxide::deflate::compress_to_vec;
use serde_json::{Map, Value, json};

pub const ORIGIN: &str = "plant.example/line-log";
pub const MANIFEST: &str = "manifest.dsse.json";

pub fn log_key() -> SigningKey {
    SigningKey::from_bytes(&[42; 32])
}

pub fn witness_key() -> SigningKey {
    SigningKey::from_bytes(&[43; 32])
}

pub fn vkey_line(name: &str, kind: u8, key: &SigningKey) -> String {
    let public = key.verifying_key().to_bytes();
    let id = hex(&key_id(name, kind, &public));
    format!("{name}+{id}+{}", BASE64.encode([&[kind][..], &public].concat()))
}

pub fn key_id(name: &str, kind: u8, public: &[u8; 32]) -> [u8; 4] {
    let hash = Sha256Digest::of(&[name.as_bytes(), b"\n", &[kind], public].concat()).0;
    [hash[0], hash[1], hash[2], hash[3]]
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A signature line under `text`.
pub fn signature_line(name: &str, key: &SigningKey, text: &str) -> String {
    let id = key_id(name, 1, &key.verifying_key().to_bytes());
    let signature = key.sign(text.as_bytes()).to_bytes();
    format!("\u{2014} {name} {}\n", BASE64.encode([&id[..], &signature].concat()))
}

/// A witness's signature line, which states a time.
pub fn cosignature_line(name: &str, key: &SigningKey, text: &str, time: u64) -> String {
    let id = key_id(name, 4, &key.verifying_key().to_bytes());
    let signature = key.sign(format!("cosignature/v1\ntime {time}\n{text}").as_bytes()).to_bytes();
    format!("\u{2014} {name} {}\n", BASE64.encode([&id[..], &time.to_be_bytes(), &signature].concat()))
}

/// One opened value: the line in `private.jsonl`, without its index.
#[derive(Clone)]
pub struct Opened {
    pub field: &'static str,
    pub salt: String,
    pub value: String,
}

impl Opened {
    pub fn commitment(&self) -> String {
        let mut bytes: Vec<u8> =
            (0..32).step_by(2).map(|at| u8::from_str_radix(&self.salt[at..at + 2], 16).unwrap()).collect();
        bytes.extend(self.value.as_bytes());
        Sha256Digest::of(&bytes).to_string()
    }

    pub fn json(&self) -> Value {
        json!({"field": self.field, "salt": self.salt, "value": self.value})
    }
}

/// One entry of the log, whether it goes into the export, and what opens it.
#[derive(Clone)]
pub struct Listed {
    pub body: Vec<u8>,
    pub value: Value,
    pub exported: bool,
    pub opened: Vec<Opened>,
}

impl Listed {
    pub fn new(value: Value, exported: bool, opened: Vec<Opened>) -> Self {
        Self { body: value.to_string().into_bytes(), value, exported, opened }
    }
}

/// Everything an export is made of.
#[derive(Clone)]
pub struct Plant {
    pub log: Vec<Listed>,
    pub selection: Value,
    pub texts: Vec<(String, Vec<u8>)>,
    pub absent: Value,
    pub software: String,
}

/// The files of an export, manifest excluded, in order.
pub type Files = Vec<(String, Vec<u8>)>;

impl Plant {
    pub fn size(&self) -> u64 {
        self.log.len() as u64
    }

    fn leaves(&self) -> Vec<Sha256Digest> {
        self.log.iter().map(|listed| leaf_hash(&listed.body)).collect()
    }

    pub fn root(&self) -> Sha256Digest {
        subtree(&self.leaves())
    }

    pub fn checkpoint_text(&self) -> String {
        format!("{ORIGIN}\n{}\n{}\n", self.size(), BASE64.encode(self.root().0))
    }

    pub fn note(&self) -> String {
        let text = self.checkpoint_text();
        let line = signature_line(ORIGIN, &log_key(), &text);
        format!("{text}\n{line}")
    }

    pub fn indexes(&self) -> Vec<u64> {
        (0..).zip(&self.log).filter(|(_, listed)| listed.exported).map(|(index, _)| index).collect()
    }

    pub fn inclusion(&self, index: u64) -> Vec<Sha256Digest> {
        path(&self.leaves(), index as usize)
    }

    /// The proof that this log begins with its first `old` entries.
    pub fn consistency(&self, old: u64) -> Vec<Sha256Digest> {
        consistency(&self.leaves(), old as usize, true)
    }

    pub fn files(&self, note: &str) -> Files {
        let indexes = self.indexes();
        let proof: Vec<Sha256Digest> = match indexes.is_empty() {
            true => Vec::new(),
            false => {
                multiproof::build::<multiproof::ProofError>(&indexes, self.size(), |index| Ok(self.inclusion(index)))
                    .expect("the indexes are those of the log")
            }
        };
        let lines = |lines: Vec<Vec<u8>>| lines.into_iter().flat_map(|line| [line, b"\n".to_vec()].concat()).collect();
        let chosen = || self.log.iter().zip(0_u64..).filter(|(listed, _)| listed.exported);
        let private = chosen().flat_map(|(listed, index)| {
            listed.opened.iter().filter(|opened| opened.field != "client").map(move |opened| {
                let mut line = opened.json();
                line["index"] = index.into();
                line.to_string().into_bytes()
            })
        });
        let named = |name: &str, bytes: Vec<u8>| (name.to_owned(), bytes);
        let mut files = vec![
            named("README.txt", b"read me\n".to_vec()),
            named("checkpoint", note.into()),
            named("decisions.csv", b"a\r\n".to_vec()),
            named("decisions.de.csv", Vec::new()),
            named("decisions.jsonl", b"{}\n".to_vec()),
            named("entries.index.txt", lines(indexes.iter().map(|index| index.to_string().into_bytes()).collect())),
            named("entries.jsonl", lines(chosen().map(|(listed, _)| listed.body.clone()).collect())),
            named("entries.proof.txt", lines(proof.iter().map(|hash| BASE64.encode(hash.0).into_bytes()).collect())),
            named("log.vkey", format!("{}\n", vkey_line(ORIGIN, 1, &log_key())).into_bytes()),
            named("private.jsonl", lines(private.collect())),
            named("report.html", b"<p>report".to_vec()),
        ];
        // Exports of earlier renderings have no page.
        if self.log.len().is_multiple_of(2) {
            files.push(named("verify.html", b"<p>page".to_vec()));
        }
        files.extend(self.texts.iter().cloned());
        files.sort();
        files
    }

    /// The counts of what is exported, as far as entries can be read at all.
    fn counts(&self) -> Value {
        let values: Vec<Value> = self
            .log
            .iter()
            .filter(|listed| listed.exported)
            .map(|listed| serde_json::from_slice(&listed.body).unwrap_or_else(|_| listed.value.clone()))
            .collect();
        let of = |kind: &str| values.iter().filter(|value| value["kind"] == kind).count();
        let verdict =
            |name: &str| values.iter().filter(|value| value["kind"] == "decision" && value["verdict"] == name).count();
        let openings: usize = self
            .log
            .iter()
            .filter(|listed| listed.exported)
            .map(|listed| listed.opened.iter().filter(|opened| opened.field != "client").count())
            .sum();
        let frames: u64 =
            values.iter().filter(|value| value["kind"] == "gap").filter_map(|gap| gap["count"].as_u64()).sum();
        json!({
            "decisions": of("decision"), "entries": values.len(), "gap_frames": frames, "gaps": of("gap"),
            "not_decidable": verdict("NOT_DECIDABLE"), "not_ok": verdict("NOT_OK"), "ok": verdict("OK"),
            "openings": openings, "other": values.len() - of("decision") - of("gap"),
        })
    }

    /// The manifest's statement, but for the container, which [`seal`] fills in.
    pub fn statement(&self, files: &Files) -> Value {
        let subject: Vec<Value> = files
            .iter()
            .map(|(name, bytes)| json!({"digest": {"sha256": Sha256Digest::of(bytes).hex()}, "name": name}))
            .collect();
        json!({
            "_type": "https://in-toto.io/Statement/v1",
            "predicate": {
                "absent": self.absent,
                "checkpoint": {"origin": ORIGIN, "root": self.root().to_string(), "size": self.size()},
                "container": "",
                "counts": self.counts(),
                "format": 1,
                "selection": self.selection,
                "software": self.software,
            },
            "predicateType": "urn:lineproof:export:1",
            "subject": subject,
        })
    }

    /// The export as an honest writer would make it.
    pub fn export(&self) -> Vec<u8> {
        let files = self.files(&self.note());
        seal(&pack(&files, &Packing::default()), self.statement(&files), |text| text)
    }

    pub fn passport(&self, index: u64) -> Passport {
        let listed = &self.log[index as usize];
        Passport {
            lines: std::iter::once(listed.body.clone())
                .chain(listed.opened.iter().map(|opened| opened.json().to_string().into_bytes()))
                .collect(),
            index: index.to_string(),
            proof: self.inclusion(index).iter().map(|hash| BASE64.encode(hash.0)).collect(),
            note: self.note(),
        }
    }
}

/// A passport's parts.
#[derive(Clone)]
pub struct Passport {
    pub lines: Vec<Vec<u8>>,
    pub index: String,
    pub proof: Vec<String>,
    pub note: String,
}

impl Passport {
    pub fn text(&self) -> Vec<u8> {
        let extra = BASE64.encode(self.lines.join(&b'\n'));
        let proof: String = self.proof.iter().map(|hash| format!("{hash}\n")).collect();
        format!("c2sp.org/tlog-proof@v1\nextra {extra}\nindex {}\n{proof}\n{}", self.index, self.note).into_bytes()
    }
}

fn subtree(leaves: &[Sha256Digest]) -> Sha256Digest {
    match leaves {
        [] => Sha256Digest::of(b""),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node_hash(&subtree(left), &subtree(right))
        }
    }
}

fn path(leaves: &[Sha256Digest], index: usize) -> Vec<Sha256Digest> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let middle = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(middle);
    let (mut inner, sibling) = match index < middle {
        true => (path(left, index), subtree(right)),
        false => (path(right, index - middle), subtree(left)),
    };
    inner.push(sibling);
    inner
}

/// RFC 6962, section 2.1.2; `is_whole`: the old tree's root is known to whoever checks.
fn consistency(leaves: &[Sha256Digest], old: usize, is_whole: bool) -> Vec<Sha256Digest> {
    if old == leaves.len() {
        return if is_whole { Vec::new() } else { vec![subtree(leaves)] };
    }
    let middle = leaves.len().next_power_of_two() / 2;
    let (left, right) = leaves.split_at(middle);
    let (mut inner, sibling) = match old <= middle {
        true => (consistency(left, old, is_whole), subtree(right)),
        false => (consistency(right, old - middle, false), subtree(left)),
    };
    inner.push(sibling);
    inner
}

/// What may be odd about a ZIP besides its files.
#[derive(Default)]
pub struct Packing {
    /// This member is stored, or the manifest compressed.
    pub other_method: Option<usize>,
    /// These bytes follow the deflate stream of this member.
    pub after_stream: Option<(usize, Vec<u8>)>,
    /// So many bytes of this member's stream are missing.
    pub short_stream: Option<(usize, usize)>,
    /// What is added to the CRC and the size of this member.
    pub other_sizes: Option<(usize, u32, u32)>,
    /// Bytes between this member and the next.
    pub between: Option<(usize, Vec<u8>)>,
    /// A field of the local header, or of the central one, that is another: member, offset, what is added.
    pub other_local: Option<(usize, usize, u8)>,
    pub other_central: Option<(usize, usize, u8)>,
}

/// A ZIP up to its manifest, and the directory so far.
pub struct Packed {
    bytes: Vec<u8>,
    directory: Vec<u8>,
    count: u16,
    packing_of_manifest: bool,
}

/// Packs files in the layout of an export.
pub fn pack(files: &[(String, Vec<u8>)], odd: &Packing) -> Packed {
    let mut packed = Packed { bytes: Vec::new(), directory: Vec::new(), count: 0, packing_of_manifest: false };
    for (at, (name, bytes)) in files.iter().enumerate() {
        packed.member(at, name, bytes, odd.other_method == Some(at), odd);
        if let Some((member, between)) = &odd.between
            && *member == at
        {
            packed.bytes.extend(between);
        }
    }
    packed.packing_of_manifest = odd.other_method == Some(files.len());
    packed
}

impl Packed {
    fn member(&mut self, at: usize, name: &str, content: &[u8], stored: bool, odd: &Packing) {
        let mut data = if stored { content.to_vec() } else { compress_to_vec(content, 6) };
        if let Some((member, bytes)) = &odd.after_stream
            && *member == at
        {
            data.extend(bytes);
        }
        if let Some((member, bytes)) = odd.short_stream
            && member == at
        {
            data.truncate(data.len().saturating_sub(bytes));
        }
        let (mut crc, mut size) = (crc32fast::hash(content), content.len() as u32);
        if let Some((member, more_crc, more_size)) = odd.other_sizes
            && member == at
        {
            (crc, size) = (crc.wrapping_add(more_crc), size.wrapping_add(more_size));
        }
        let (flags, method) = if stored { (0x800_u16, 0_u16) } else { (0x808, 8) };
        let sizes = [crc, data.len() as u32, size];
        let common = [20_u16, flags, method, 0, 33].map(u16::to_le_bytes).concat();
        let known = if stored { sizes } else { [0; 3] }.map(u32::to_le_bytes).concat();
        let lengths = [name.len() as u16, 0].map(u16::to_le_bytes).concat();
        let offset = self.bytes.len() as u32;
        let bend = |mut header: Vec<u8>, odd: Option<(usize, usize, u8)>| {
            if let Some((_, place, more)) = odd.filter(|(member, ..)| *member == at) {
                let place = place % header.len();
                header[place] = header[place].wrapping_add(more);
            }
            header
        };
        let local = [&b"PK\x03\x04"[..], &common, &known, &lengths, name.as_bytes()].concat();
        self.bytes.extend(bend(local, odd.other_local));
        self.bytes.extend(&data);
        if !stored {
            self.bytes.extend(b"PK\x07\x08");
            self.bytes.extend(sizes.map(u32::to_le_bytes).concat());
        }
        let sizes = sizes.map(u32::to_le_bytes).concat();
        let central = [
            &b"PK\x01\x02\x14\x00"[..],
            &common,
            &sizes,
            &(name.len() as u16).to_le_bytes(),
            &[0; 12],
            &offset.to_le_bytes(),
            name.as_bytes(),
        ]
        .concat();
        self.directory.extend(bend(central, odd.other_central));
        self.count += 1;
    }

    /// Adds the manifest and the directory.
    pub fn finish(mut self, manifest: &[u8]) -> Vec<u8> {
        let stored = !self.packing_of_manifest;
        self.member(usize::MAX, MANIFEST, manifest, stored, &Packing::default());
        let (offset, length) = (self.bytes.len() as u32, self.directory.len() as u32);
        let mut out = self.bytes;
        out.extend(self.directory);
        out.extend(b"PK\x05\x06\0\0\0\0");
        out.extend([self.count, self.count].map(u16::to_le_bytes).concat());
        out.extend([length, offset].map(u32::to_le_bytes).concat());
        out.write_all(&[0; 2]).expect("a vector takes bytes");
        out
    }
}

/// Fills in the container, signs the statement after `bend` has had its text, and closes the ZIP.
pub fn seal(packed: &Packed, mut statement: Value, bend: impl FnOnce(String) -> String) -> Vec<u8> {
    if statement["predicate"]["container"] == "" {
        statement["predicate"]["container"] = Sha256Digest::of(&packed.bytes).to_string().into();
    }
    let payload = bend(statement.to_string()).into_bytes();
    let key = VerifierKey::log(ORIGIN, log_key().verifying_key());
    let signature = log_key().sign(&manifest::pae(&payload)).to_bytes();
    packed.copy().finish(&manifest::envelope(&payload, &key.key_id(), signature))
}

impl Packed {
    pub fn copy(&self) -> Self {
        Self { bytes: self.bytes.clone(), directory: self.directory.clone(), ..*self }
    }
}

/// What is before the manifest's envelope, and the honest envelope.
pub fn open_envelope(plant: &Plant) -> (Packed, Map<String, Value>) {
    let files = plant.files(&plant.note());
    let packed = pack(&files, &Packing::default());
    let mut statement = plant.statement(&files);
    statement["predicate"]["container"] = Sha256Digest::of(&packed.bytes).to_string().into();
    let payload = statement.to_string().into_bytes();
    let key = VerifierKey::log(ORIGIN, log_key().verifying_key());
    let signature = log_key().sign(&manifest::pae(&payload)).to_bytes();
    let envelope = manifest::envelope(&payload, &key.key_id(), signature);
    (packed, serde_json::from_slice(&envelope).expect("an envelope is an object"))
}

pub fn text_name(folder: &str, text: &[u8], ending: &str) -> (String, String) {
    let digest = Blake3Digest::of(text);
    (format!("{folder}/{}{ending}", digest.hex()), digest.to_string())
}

impl Plant {
    /// The log as c2sp.org/tlog-tiles lays it out: paths and bytes.
    pub fn log_files(&self, note: &str) -> Vec<(String, Vec<u8>)> {
        let mut files = vec![("checkpoint".to_owned(), note.as_bytes().to_vec())];
        for (number, bundle) in self.log.chunks(256).enumerate() {
            let framed = |listed: &Listed| [&(listed.body.len() as u16).to_be_bytes()[..], &listed.body].concat();
            files.push((tile_path("entries", number, bundle.len()), bundle.iter().flat_map(framed).collect()));
        }
        let mut row = self.leaves();
        for level in 0.. {
            if row.is_empty() {
                return files;
            }
            for (number, tile) in row.chunks(256).enumerate() {
                let bytes = tile.iter().flat_map(|hash| hash.0).collect();
                files.push((tile_path(&level.to_string(), number, tile.len()), bytes));
            }
            row = row.chunks_exact(256).map(subtree).collect();
        }
        unreachable!("a row of hashes is 256 times shorter than the one below it")
    }
}

fn tile_path(level: &str, number: usize, width: usize) -> String {
    assert!(number < 1000, "longer numbers take more folders");
    let path = format!("tile/{level}/{number:03}");
    if width == 256 { path } else { format!("{path}.p/{width}") }
}

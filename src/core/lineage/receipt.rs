//! Receipts: that one entry is in the log, as RFC 9942 (COSE Receipts) says it, for tools that speak COSE. The format is
//! `docs/spec/receipt.md`.

use coset::{
    CborSerializable as _, CoseSign1, Header, HeaderBuilder, Label, TaggedCborSerializable as _, cbor::Value, iana,
};

use super::{
    checkpoint::LogSigner,
    passport::{Passport, PassportError},
    tree::PROOF_HASHES_MAX,
};
use crate::types::{EntryIndex, Sha256Digest};

/// Longest receipt: 64 hashes, a name of 255 bytes, and what is around them.
pub const RECEIPT_BYTES_MAX: usize = 8192;
/// CWT claims in a COSE header (RFC 9597), and in them issuer and subject (RFC 8392).
const CWT_CLAIMS: i64 = 15;
const ISSUER: i64 = 1;
const SUBJECT: i64 = 2;
/// RFC 9942: which verifiable data structure, and its proofs.
const VDS: i64 = 395;
const VDP: i64 = 396;
const RFC9162_SHA256: i64 = 1;
const INCLUSION: i64 = -1;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    #[error("a receipt has at most {RECEIPT_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    #[error("it is no receipt of RFC 9942: {0}")]
    Form(&'static str),
    #[error("the receipt says the same in another encoding than the one it is written in")]
    Encoding,
}

/// The inclusion of one entry, signed by the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The log's name.
    pub origin: String,
    /// As the log's vkey line gives it.
    pub key_id: [u8; 4],
    pub index: EntryIndex,
    /// Entries in the tree whose root was signed.
    pub size: u64,
    /// The leaf's sibling first.
    pub path: Vec<Sha256Digest>,
    pub signature: [u8; 64],
}

impl Receipt {
    /// The same proof as the passport's. Only what this key signed as a checkpoint before is signed again, and only for the
    /// entry that the proof leads from.
    ///
    /// # Errors
    /// [`PassportError`] when the passport does not prove the entry's place under this key.
    ///
    /// # Panics
    /// When an Ed25519 key does not sign, which it always does.
    pub fn sign(signer: &LogSigner, passport: &Passport) -> Result<Self, PassportError> {
        let checkpoint = passport.verify_place(signer.verifier_key())?;
        let mut receipt = Self {
            origin: checkpoint.origin,
            key_id: signed_note::Signer::key_id(signer).to_be_bytes(),
            index: passport.index,
            size: checkpoint.size,
            path: passport.proof.clone(),
            signature: [0; 64],
        };
        let message = receipt.signed_bytes(&checkpoint.root);
        let signature = signed_note::Signer::sign(signer, &message).expect("an Ed25519 key signs");
        receipt.signature = signature.try_into().expect("an Ed25519 signature has 64 bytes");
        Ok(receipt)
    }

    /// The `Sig_structure` over this root as detached payload (RFC 9052 section 4.4).
    #[must_use]
    pub fn signed_bytes(&self, root: &Sha256Digest) -> Vec<u8> {
        self.message().tbs_detached_data(&root.0, &[])
    }

    /// The bytes of a `.receipt.cbor` file.
    ///
    /// # Panics
    /// Never: what it is made of can be written as CBOR.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.message().to_tagged_vec().expect("integers, texts and bytes are CBOR")
    }

    fn message(&self) -> CoseSign1 {
        let claims = vec![
            (Value::from(ISSUER), Value::from(self.origin.as_str())),
            (Value::from(SUBJECT), Value::from(subject(self.index))),
        ];
        let protected = HeaderBuilder::new()
            .algorithm(iana::Algorithm::EdDSA)
            .key_id(self.key_id.to_vec())
            .value(CWT_CLAIMS, Value::Map(claims))
            .value(VDS, Value::from(RFC9162_SHA256))
            .build();
        let path = self.path.iter().map(|hash| Value::Bytes(hash.0.to_vec())).collect();
        let proof = Value::Array(vec![Value::from(self.size), Value::from(self.index.0), Value::Array(path)]);
        let proof = Value::Bytes(proof.to_vec().expect("integers and bytes are CBOR"));
        let proofs = Value::Map(vec![(Value::from(INCLUSION), Value::Array(vec![proof]))]);
        CoseSign1 {
            protected: coset::ProtectedHeader { original_data: None, header: protected },
            unprotected: HeaderBuilder::new().value(VDP, proofs).build(),
            payload: None,
            signature: self.signature.to_vec(),
        }
    }

    /// Reads the bytes of a `.receipt.cbor` file. Nothing vouches for them yet.
    ///
    /// # Errors
    /// [`ReceiptError`] when they are not exactly one receipt.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReceiptError> {
        if bytes.len() > RECEIPT_BYTES_MAX {
            return Err(ReceiptError::TooLong(bytes.len()));
        }
        let wrong = ReceiptError::Form;
        let message = CoseSign1::from_tagged_slice(bytes).map_err(|_| wrong("not a tagged COSE_Sign1"))?;
        let header = &message.protected.header;
        let origin = value(header, CWT_CLAIMS)
            .and_then(|claims| in_map(claims, ISSUER))
            .and_then(Value::as_text)
            .ok_or_else(|| wrong("it names no issuer"))?;
        let key_id = header.key_id.as_slice().try_into().map_err(|_| wrong("its key id has not four bytes"))?;
        let proof = value(&message.unprotected, VDP)
            .and_then(|proofs| in_map(proofs, INCLUSION))
            .and_then(Value::as_array)
            .and_then(|proofs| proofs.first())
            .and_then(Value::as_bytes)
            .ok_or_else(|| wrong("it has no inclusion proof"))?;
        let proof = Value::from_slice(proof).map_err(|_| wrong("its proof is no CBOR"))?;
        let (size, index, path) = read_proof(&proof).ok_or_else(|| wrong("its proof is not size, index and hashes"))?;
        let signature = message.signature.as_slice();
        let signature = signature.try_into().map_err(|_| wrong("its signature has not 64 bytes"))?;
        let receipt = Self { origin: origin.to_owned(), key_id, index: EntryIndex(index), size, path, signature };
        // Whatever else stands in it, or is missing, shows here: one encoding for one receipt.
        if receipt.to_bytes() == bytes { Ok(receipt) } else { Err(ReceiptError::Encoding) }
    }
}

fn subject(index: EntryIndex) -> String {
    format!("entry {index}")
}

fn value(header: &Header, label: i64) -> Option<&Value> {
    header.rest.iter().find(|(found, _)| *found == Label::Int(label)).map(|(_, value)| value)
}

fn in_map(map: &Value, key: i64) -> Option<&Value> {
    map.as_map()?.iter().find(|(found, _)| *found == Value::from(key)).map(|(_, value)| value)
}

fn read_proof(proof: &Value) -> Option<(u64, u64, Vec<Sha256Digest>)> {
    let [size, index, path] = proof.as_array()?.as_slice() else { return None };
    let whole = |value: &Value| u64::try_from(value.as_integer()?).ok();
    let path = path.as_array()?;
    if path.len() > PROOF_HASHES_MAX {
        return None;
    }
    let path = path.iter().map(|hash| Sha256Digest::from_slice(hash.as_bytes()?).ok()).collect::<Option<_>>()?;
    Some((whole(size)?, whole(index)?, path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::lineage::{
        checkpoint::Checkpoint,
        tree::{leaf_hash, root_of},
    };

    fn signer() -> LogSigner {
        LogSigner::new("plant.example/log", &[7; 32]).unwrap()
    }

    /// Entry 3 of five.
    fn passport() -> Passport {
        let entries: Vec<Vec<u8>> =
            (0..5).map(|number| format!(r#"{{"kind":"vector","n":{number},"v":1}}"#).into()).collect();
        let leaves: Vec<Sha256Digest> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        let proof = vec![leaves[2], root_of(leaves[..2].iter().copied()), leaves[4]];
        let checkpoint = signer().sign(&Checkpoint::new("plant.example/log", 5, root_of(leaves)));
        Passport { index: EntryIndex(3), entry: entries[3].clone(), openings: Vec::new(), proof, checkpoint }
    }

    fn receipt() -> Receipt {
        Receipt::sign(&signer(), &passport()).unwrap()
    }

    #[test]
    fn nothing_is_signed_that_was_no_checkpoint_of_this_log_before() {
        let other = LogSigner::new("plant.example/log", &[8; 32]).unwrap();
        assert!(Receipt::sign(&other, &passport()).is_err(), "a checkpoint of another key");
        let elsewhere = Passport { index: EntryIndex(2), ..passport() };
        assert!(Receipt::sign(&signer(), &elsewhere).is_err(), "another place");
        let changed = Passport { entry: b"{}".to_vec(), ..passport() };
        assert!(Receipt::sign(&signer(), &changed).is_err(), "another entry");
    }

    #[test]
    fn a_receipt_is_read_as_it_was_written() {
        let bytes = receipt().to_bytes();
        assert_eq!(Receipt::parse(&bytes).unwrap(), receipt());
        // Tag 18, an array of four: protected, unprotected, no payload, signature.
        assert_eq!(bytes[..2], [0xd2, 0x84]);
    }

    #[test]
    fn no_other_bytes_say_the_same() {
        let bytes = receipt().to_bytes();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert_ne!(Receipt::parse(&changed).ok(), Some(receipt()), "bit {bit} of byte {at}");
            }
        }
        assert_eq!(Receipt::parse(&[&bytes[..], &[0]].concat()).ok(), None);
        assert_eq!(Receipt::parse(&bytes[1..]).ok(), None, "untagged");
    }

    #[test]
    fn what_is_signed_depends_on_root_and_header() {
        let signed = receipt().signed_bytes(&Sha256Digest([2; 32]));
        assert_eq!(signed[..12], *b"\x84jSignature1");
        assert_ne!(receipt().signed_bytes(&Sha256Digest([3; 32])), signed);
        let elsewhere = Receipt { index: EntryIndex(4), ..receipt() };
        assert_ne!(elsewhere.signed_bytes(&Sha256Digest([2; 32])), signed);
    }
}

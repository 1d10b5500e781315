//! The bytes of a pack, as `docs/spec/archive.md` has them. Numbers are big-endian.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::{
    ports::{
        archive::{IMAGE_BYTES_MAX, ImageLocation, RetentionClass},
        sealer::{SEAL_OVERHEAD_BYTES, Sealer},
    },
    types::Blake3Digest,
};

/// Magic, version, zeroes.
const PREFIX: [u8; 16] = *b"LPIMPACK\0\0\0\x01\0\0\0\0";
const WRAPPED_KEY_BYTES: usize = 32 + SEAL_OVERHEAD_BYTES;
/// Prefix and sealed key.
pub(super) const PACK_HEADER_BYTES: usize = PREFIX.len() + WRAPPED_KEY_BYTES;

/// Where the sealed key lies: overwritten with zeroes, it destroys the pack.
pub(super) const WRAPPED_KEY: std::ops::Range<usize> = PREFIX.len()..PACK_HEADER_BYTES;

const RECORD_MARK: [u8; 4] = *b"LPIM";
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// Mark (4), image length (4), digest (32), nonce (12), check (12).
pub(super) const RECORD_HEADER_BYTES: usize = 64;
const CHECKED_BYTES: usize = 52;

/// Bytes one image takes in a pack.
pub(super) fn record_bytes(image_bytes: usize) -> u64 {
    (RECORD_HEADER_BYTES + image_bytes + TAG_BYTES) as u64
}

/// Why an image does not come out of its pack.
#[derive(Debug)]
pub(super) enum ReadError {
    Io(io::Error),
    /// The pack's key is overwritten with zeroes: retention has destroyed its images.
    Destroyed,
    Damaged(&'static str),
}

/// A pack's key, looked at under the newest key of the plant.
pub(super) enum Resealed {
    /// It is sealed under it already, or destroyed.
    Stays,
    Sealed(Vec<u8>),
    /// It opens under no key of the plant.
    Unopened,
}

/// The key that seals the images of one pack. ring seals 6 GB/s where the RustCrypto crate, which seals small values
/// elsewhere, does one: images are where that counts.
pub(super) struct PackKey(LessSafeKey);

impl PackKey {
    /// A new key and the pack header that keeps it.
    pub(super) fn create(sealer: &dyn Sealer, class: &RetentionClass, day: &str, number: u32) -> (Self, Vec<u8>) {
        let mut key = Zeroizing::new([0; 32]);
        random(&mut *key);
        let wrapped = sealer.seal(&header_aad(class, day, number), &*key);
        assert_eq!(wrapped.len(), WRAPPED_KEY_BYTES, "a sealed key has a fixed length");
        (Self::new(&key), [&PREFIX[..], &wrapped].concat())
    }

    fn new(key: &[u8; 32]) -> Self {
        Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("AES-256 takes any 32 bytes")))
    }

    /// The sealed key of a pack under another key of the plant.
    pub(super) fn reseal(
        file: &File,
        sealer: &dyn Sealer,
        newest: &dyn Sealer,
        (class, day, number): (&RetentionClass, &str, u32),
    ) -> Result<Resealed, io::Error> {
        let mut header = [0; PACK_HEADER_BYTES];
        match file.read_exact_at(&mut header, 0) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Resealed::Unopened),
            read => read?,
        }
        let (wrapped, aad) = (&header[WRAPPED_KEY], header_aad(class, day, number));
        // A destroyed pack stays destroyed.
        if wrapped.iter().all(|byte| *byte == 0) || newest.open(&aad, wrapped).is_ok() {
            return Ok(Resealed::Stays);
        }
        Ok(match sealer.open(&aad, wrapped).map(Zeroizing::new) {
            Ok(key) => Resealed::Sealed(newest.seal(&aad, &key)),
            Err(_) => Resealed::Unopened,
        })
    }

    fn read(file: &File, sealer: &dyn Sealer, location: &ImageLocation) -> Result<Self, ReadError> {
        let mut header = [0; PACK_HEADER_BYTES];
        read_exact(file, &mut header, 0)?;
        let (prefix, wrapped) = header.split_at(PREFIX.len());
        if prefix[..8] != PREFIX[..8] {
            return Err(ReadError::Damaged("its file is no image pack"));
        }
        if prefix != PREFIX {
            return Err(ReadError::Damaged("its pack has a format of a later release; use a newer lineproof"));
        }
        if wrapped.iter().all(|byte| *byte == 0) {
            return Err(ReadError::Destroyed);
        }
        let aad = header_aad(&location.class, &location.day, location.pack);
        let key = sealer.open(&aad, wrapped).map(Zeroizing::new);
        let key =
            key.map_err(|_| ReadError::Damaged("the key of its pack was changed, moved, or sealed by other keys"))?;
        key.as_slice()
            .try_into()
            .map(Self::new)
            .map_err(|_| ReadError::Damaged("the key of its pack has a wrong length"))
    }

    /// Makes `record` the whole record of one image.
    pub(super) fn seal(&self, place: &ImageLocation, digest: Blake3Digest, image: &[u8], record: &mut Vec<u8>) {
        let mut nonce = [0; NONCE_BYTES];
        random(&mut nonce);
        let length = u32::try_from(image.len()).expect("the image's length was checked");
        record.clear();
        record.extend_from_slice(&RecordHeader { length, digest, nonce }.encode(place.offset));
        record.extend_from_slice(image);
        let body = &mut record[RECORD_HEADER_BYTES..];
        let (nonce, aad) = (Nonce::assume_unique_for_key(nonce), Aad::from(record_aad(place, digest)));
        let tag = self.0.seal_in_place_separate_tag(nonce, aad, body);
        record.extend_from_slice(tag.expect("an image is far below GCM's 64 GiB").as_ref());
    }
}

/// What stands before each sealed image.
#[derive(Debug, PartialEq)]
pub(super) struct RecordHeader {
    /// Of the image, without the tag.
    pub(super) length: u32,
    pub(super) digest: Blake3Digest,
    nonce: [u8; NONCE_BYTES],
}

impl RecordHeader {
    fn encode(&self, offset: u64) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[..4].copy_from_slice(&RECORD_MARK);
        bytes[4..8].copy_from_slice(&self.length.to_be_bytes());
        bytes[8..40].copy_from_slice(&self.digest.0);
        bytes[40..CHECKED_BYTES].copy_from_slice(&self.nonce);
        let check = check(&bytes, offset);
        bytes[CHECKED_BYTES..].copy_from_slice(&check);
        bytes
    }

    /// `None` where no record begins: in a hole, in a torn header, behind the end.
    pub(super) fn parse(bytes: &[u8; RECORD_HEADER_BYTES], offset: u64) -> Option<Self> {
        let length = u32::from_be_bytes(bytes[4..8].try_into().expect("four bytes"));
        let is_record = bytes[..4] == RECORD_MARK
            && bytes[CHECKED_BYTES..] == check(bytes, offset)
            && length as usize <= IMAGE_BYTES_MAX;
        is_record.then(|| Self {
            length,
            digest: Blake3Digest(bytes[8..40].try_into().expect("32 bytes")),
            nonce: bytes[40..CHECKED_BYTES].try_into().expect("12 bytes"),
        })
    }
}

/// Tells a whole header from a torn one. Not against tampering: the seal is.
fn check(header: &[u8; RECORD_HEADER_BYTES], offset: u64) -> [u8; RECORD_HEADER_BYTES - CHECKED_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&offset.to_be_bytes()).update(&header[..CHECKED_BYTES]);
    let mut check = [0; RECORD_HEADER_BYTES - CHECKED_BYTES];
    check.copy_from_slice(&hasher.finalize().as_bytes()[..RECORD_HEADER_BYTES - CHECKED_BYTES]);
    check
}

/// Reads, opens and checks the image at `location`.
pub(super) fn read_record(
    file: &File,
    sealer: &dyn Sealer,
    location: &ImageLocation,
    digest: Blake3Digest,
) -> Result<Vec<u8>, ReadError> {
    let key = PackKey::read(file, sealer, location)?;
    let mut header = [0; RECORD_HEADER_BYTES];
    read_exact(file, &mut header, location.offset)?;
    let header = RecordHeader::parse(&header, location.offset).ok_or(ReadError::Damaged("no image begins there"))?;
    if header.digest != digest {
        return Err(ReadError::Damaged("another image lies there"));
    }
    // The length is believed only as far as the file goes, before anything is allocated for it.
    let end = location.offset.saturating_add(record_bytes(header.length as usize));
    if file.metadata().map_err(ReadError::Io)?.len() < end {
        return Err(ReadError::Damaged("its pack ends before it does"));
    }
    let mut image = vec![0; header.length as usize + TAG_BYTES];
    read_exact(file, &mut image, location.offset + RECORD_HEADER_BYTES as u64)?;
    let (nonce, aad) = (Nonce::assume_unique_for_key(header.nonce), Aad::from(record_aad(location, digest)));
    let opened = key.0.open_in_place(nonce, aad, &mut image).map(|opened| opened.len());
    image.truncate(opened.map_err(|_| ReadError::Damaged("its seal is broken: it was changed or moved"))?);
    // The seal says that we wrote this; the digest says that it is what the log names.
    if Blake3Digest::of(&image) == digest {
        Ok(image)
    } else {
        Err(ReadError::Damaged("it is not the image it was filed as"))
    }
}

fn read_exact(file: &File, bytes: &mut [u8], offset: u64) -> Result<(), ReadError> {
    file.read_exact_at(bytes, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => ReadError::Damaged("its pack ends before it does"),
        _ => ReadError::Io(error),
    })
}

/// A pack's key opens only in this pack's header.
fn header_aad(class: &RetentionClass, day: &str, number: u32) -> Vec<u8> {
    [&PREFIX[..], format!("{}/{day}/{number:08}", class.as_str()).as_bytes()].concat()
}

/// An image opens only in its pack and under its digest.
fn record_aad(place: &ImageLocation, digest: Blake3Digest) -> Vec<u8> {
    format!("{}/{}/{:08} {digest}", place.class.as_str(), place.day, place.pack).into_bytes()
}

fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system gives random bytes");
}

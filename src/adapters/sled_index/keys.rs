//! Keys: a letter for the table, then numbers in big-endian order.

use super::postings::{Hashed, Level};
use crate::types::{CameraId, LineId};

pub(super) const FORMAT: &[u8] = b"m/format";
pub(super) const KEY_CHECK: &[u8] = b"m/key";
pub(super) const MANIFEST: &[u8] = b"m/manifest";

pub(super) fn head(chunk: u32) -> Vec<u8> {
    [b"h".as_slice(), &chunk.to_be_bytes()].concat()
}

pub(super) fn bitmap(chunk: u32, field_and_value: &[u8]) -> Vec<u8> {
    [b"b".as_slice(), &chunk.to_be_bytes(), field_and_value].concat()
}

pub(super) fn times(chunk: u32, block: u8) -> Vec<u8> {
    [b"t".as_slice(), &chunk.to_be_bytes(), &[block]].concat()
}

pub(super) fn scores(chunk: u32, bucket: u8) -> Vec<u8> {
    [b"s".as_slice(), &chunk.to_be_bytes(), &[bucket]].concat()
}

/// `first` is the first chunk of the run.
pub(super) fn postings(hashed: Hashed, level: Level, first: u32, bucket: u16) -> Vec<u8> {
    [run(hashed, level, first).as_slice(), &bucket.to_be_bytes()].concat()
}

/// What all buckets of a run begin with.
pub(super) fn run(hashed: Hashed, level: Level, first: u32) -> Vec<u8> {
    [b"k".as_slice(), &[hashed as u8, level as u8], &first.to_be_bytes()].concat()
}

/// The camera's last counter. Names hold no zero byte.
pub(super) fn camera(line: &LineId, camera: &CameraId) -> Vec<u8> {
    [b"c", line.as_str().as_bytes(), &[0], camera.as_str().as_bytes()].concat()
}

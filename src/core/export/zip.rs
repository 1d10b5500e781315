//! The one ZIP layout an export may have, written as a stream and read back byte by byte (`docs/spec/export.md`).
//!
//! A general ZIP library accepts many byte sequences for one archive, and ignores bytes between members. Here a reader
//! rebuilds every header from what it understood and compares, so that nothing in the file goes unchecked.

use std::io::{self, Read, Write};

use miniz_oxide::{
    DataFormat, MZError, MZFlush, MZStatus,
    deflate::{CompressionLevel, core::CompressorOxide, stream::deflate},
    inflate::stream::{InflateState, inflate},
};
use sha2::{Digest as _, Sha256};

use super::{FILE_BYTES_MAX, FILES_MAX};
use crate::types::Sha256Digest;

/// zlib's customary level 6; more costs time and gains little on text with digests in it.
const LEVEL: CompressionLevel = CompressionLevel::DefaultLevel;
const LOCAL: u32 = 0x0403_4b50;
const DESCRIPTOR: u32 = 0x0807_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const END: u32 = 0x0605_4b50;
const LOCAL_BYTES: usize = 30;
const CENTRAL_BYTES: usize = 46;
const END_BYTES: usize = 22;
/// 1980-01-01, the oldest date ZIP can say.
const DATE: u16 = 0x0021;
const VERSION: u16 = 20;
const UTF8: u16 = 1 << 11;
const SIZES_FOLLOW: u16 = 1 << 3;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;
const NAME_BYTES_MAX: usize = 128;

#[derive(Debug, thiserror::Error)]
pub enum ZipError {
    #[error("the file is no ZIP of this format: {0}")]
    Layout(String),
    #[error("{name}: {reason}")]
    Member { name: String, reason: String },
}

/// One member as the central directory describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    name: String,
    method: u16,
    crc: u32,
    packed: u32,
    size: u32,
    offset: u32,
}

impl Member {
    fn flags(&self) -> u16 {
        if self.method == STORED { UTF8 } else { UTF8 | SIZES_FOLLOW }
    }

    fn local(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LOCAL_BYTES + self.name.len());
        out.extend(LOCAL.to_le_bytes());
        for value in [VERSION, self.flags(), self.method, 0, DATE] {
            out.extend(value.to_le_bytes());
        }
        // With sizes following, the header comes before they are known.
        let known = self.method == STORED;
        for value in [self.crc, self.packed, self.size] {
            out.extend(if known { value } else { 0 }.to_le_bytes());
        }
        out.extend(name_len(&self.name).to_le_bytes());
        out.extend(0_u16.to_le_bytes());
        out.extend(self.name.as_bytes());
        out
    }

    fn descriptor(&self) -> Vec<u8> {
        if self.method == STORED {
            return Vec::new();
        }
        [DESCRIPTOR, self.crc, self.packed, self.size].into_iter().flat_map(u32::to_le_bytes).collect()
    }

    fn central(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(CENTRAL_BYTES + self.name.len());
        out.extend(CENTRAL.to_le_bytes());
        for value in [VERSION, VERSION, self.flags(), self.method, 0, DATE] {
            out.extend(value.to_le_bytes());
        }
        for value in [self.crc, self.packed, self.size] {
            out.extend(value.to_le_bytes());
        }
        out.extend(name_len(&self.name).to_le_bytes());
        // Extra field, comment, disk, internal attributes; then external attributes.
        out.extend([0; 8]);
        out.extend([0; 4]);
        out.extend(self.offset.to_le_bytes());
        out.extend(self.name.as_bytes());
        out
    }
}

fn name_len(name: &str) -> u16 {
    u16::try_from(name.len()).expect("member names are at most 128 bytes")
}

fn directory(members: &[Member], offset: u32) -> Vec<u8> {
    let mut out: Vec<u8> = members.iter().flat_map(Member::central).collect();
    let bytes = u32::try_from(out.len()).expect("512 names of 128 bytes fit 32 bits");
    let count = u16::try_from(members.len()).expect("an export has at most 512 files");
    out.extend(END.to_le_bytes());
    out.extend([0; 4]);
    out.extend(count.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend(bytes.to_le_bytes());
    out.extend(offset.to_le_bytes());
    out.extend(0_u16.to_le_bytes());
    out
}

/// Writes members one after the other to a sink that need not seek.
pub struct ZipWriter<W: Write> {
    sink: W,
    hasher: Sha256,
    written: u64,
    members: Vec<Member>,
}

/// What a member came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub sha256: Sha256Digest,
    pub bytes: u64,
}

impl<W: Write> ZipWriter<W> {
    pub fn new(sink: W) -> Self {
        Self { sink, hasher: Sha256::new(), written: 0, members: Vec::new() }
    }

    /// SHA-256 of everything written so far.
    pub fn digest(&self) -> Sha256Digest {
        Sha256Digest(self.hasher.clone().finalize().into())
    }

    /// Adds one compressed member with the bytes that `fill` writes.
    ///
    /// # Errors
    /// What `fill` or the sink reports, or a member beyond [`FILE_BYTES_MAX`].
    pub fn add<E: From<io::Error>>(
        &mut self,
        name: &str,
        fill: impl FnOnce(&mut MemberWriter<'_, W>) -> Result<(), E>,
    ) -> Result<Written, E> {
        let mut member = self.member(name, DEFLATED)?;
        self.put(&member.local())?;
        let mut writer = MemberWriter {
            state: Box::new(CompressorOxide::with_format_and_level(DataFormat::Raw, LEVEL)),
            crc: crc32fast::Hasher::new(),
            sha256: Sha256::new(),
            size: 0,
            packed: 0,
            out: vec![0; 64 * 1024],
            zip: self,
        };
        fill(&mut writer)?;
        let (crc, packed, size, sha256) = writer.finish()?;
        member.crc = crc;
        member.packed = fits(packed)?;
        member.size = fits(size)?;
        self.put(&member.descriptor())?;
        self.members.push(member);
        Ok(Written { sha256, bytes: size })
    }

    /// Adds the last member uncompressed, closes the archive and returns its length.
    ///
    /// # Errors
    /// What the sink reports.
    pub fn finish(mut self, name: &str, bytes: &[u8]) -> io::Result<u64> {
        let mut member = self.member(name, STORED)?;
        member.crc = crc32fast::hash(bytes);
        member.packed = fits(bytes.len() as u64)?;
        member.size = member.packed;
        self.put(&member.local())?;
        self.put(bytes)?;
        self.members.push(member);
        let offset = fits(self.written)?;
        let directory = directory(&self.members, offset);
        self.put(&directory)?;
        self.sink.flush()?;
        Ok(self.written)
    }

    fn member(&self, name: &str, method: u16) -> io::Result<Member> {
        assert!(name.len() <= NAME_BYTES_MAX, "member names are ours and short: {name}");
        if self.members.len() >= FILES_MAX {
            return Err(io::Error::other(format!("an export has at most {FILES_MAX} files; narrow the selection")));
        }
        Ok(Member { name: name.into(), method, crc: 0, packed: 0, size: 0, offset: fits(self.written)? })
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.hasher.update(bytes);
        self.sink.write_all(bytes)
    }
}

fn fits(bytes: u64) -> io::Result<u32> {
    let too_large = || io::Error::other(format!("an export has at most {FILE_BYTES_MAX} bytes; narrow the selection"));
    if bytes > FILE_BYTES_MAX { Err(too_large()) } else { u32::try_from(bytes).map_err(|_| too_large()) }
}

/// Compresses and hashes what is written to one member.
pub struct MemberWriter<'z, W: Write> {
    zip: &'z mut ZipWriter<W>,
    state: Box<CompressorOxide>,
    crc: crc32fast::Hasher,
    sha256: Sha256,
    size: u64,
    packed: u64,
    out: Vec<u8>,
}

impl<W: Write> MemberWriter<'_, W> {
    fn push(&mut self, mut input: &[u8], flush: MZFlush) -> io::Result<()> {
        loop {
            let step = deflate(&mut self.state, input, &mut self.out, flush);
            input = &input[step.bytes_consumed..];
            self.packed += step.bytes_written as u64;
            self.zip.put(&self.out[..step.bytes_written])?;
            match step.status {
                Ok(MZStatus::StreamEnd) => return Ok(()),
                Ok(_) if input.is_empty() && flush == MZFlush::None => return Ok(()),
                Ok(_) => {}
                Err(MZError::Buf) if input.is_empty() && flush == MZFlush::None => return Ok(()),
                Err(error) => return Err(io::Error::other(format!("deflate failed: {error:?}"))),
            }
        }
    }

    fn finish(mut self) -> io::Result<(u32, u64, u64, Sha256Digest)> {
        self.push(&[], MZFlush::Finish)?;
        Ok((self.crc.finalize(), self.packed, self.size, Sha256Digest(self.sha256.finalize().into())))
    }
}

impl<W: Write> Write for MemberWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.size += bytes.len() as u64;
        fits(self.size)?;
        self.crc.update(bytes);
        self.sha256.update(bytes);
        self.push(bytes, MZFlush::None)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An export's archive whose every header byte has been checked. The members' data has not.
pub struct Archive<'a> {
    bytes: &'a [u8],
    members: Vec<Member>,
}

impl<'a> Archive<'a> {
    /// Reads the directory, rebuilds all headers and compares them with the file.
    ///
    /// # Errors
    /// [`ZipError`] for anything that [`ZipWriter`] would not have written.
    pub fn open(bytes: &'a [u8]) -> Result<Self, ZipError> {
        let members = read_directory(bytes)?;
        let mut at = 0;
        for member in &members {
            let wrong = |reason: &str| ZipError::Member { name: member.name.clone(), reason: reason.into() };
            if member.offset as usize != at {
                return Err(wrong("it does not start where the file before it ends"));
            }
            let mut expect = |part: &[u8], what| {
                let found = bytes.get(at..at + part.len());
                at += part.len();
                if found == Some(part) { Ok(()) } else { Err(wrong(what)) }
            };
            expect(&member.local(), "its header is not the one an export has")?;
            at += member.packed as usize;
            let mut expect = |part: &[u8], what| {
                let found = bytes.get(at..at + part.len());
                at += part.len();
                if found == Some(part) { Ok(()) } else { Err(wrong(what)) }
            };
            expect(&member.descriptor(), "the sizes after it are not those of the directory")?;
        }
        let offset = u32::try_from(at).map_err(|_| ZipError::Layout("it is too large".into()))?;
        if bytes.get(at..) != Some(directory(&members, offset).as_slice()) {
            return Err(ZipError::Layout("its directory is not the one an export has".into()));
        }
        Ok(Self { bytes, members })
    }

    /// The members' names, in order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.members.iter().map(|member| member.name.as_str())
    }

    /// The length of a member once unpacked, as the directory says.
    #[must_use]
    pub fn size(&self, name: &str) -> Option<u64> {
        self.find(name).map(|member| u64::from(member.size))
    }

    /// Whether a member is packed as it is.
    #[must_use]
    pub fn is_stored(&self, name: &str) -> bool {
        self.find(name).is_some_and(|member| member.method == STORED)
    }

    /// The archive's bytes before the header of `name`.
    #[must_use]
    pub fn before(&self, name: &str) -> Option<&'a [u8]> {
        self.find(name).map(|member| &self.bytes[..member.offset as usize])
    }

    /// Unpacks `name` as a stream.
    #[must_use]
    pub fn reader(&self, name: &str) -> Option<MemberReader<'a>> {
        let member = self.find(name)?.clone();
        let start = member.offset as usize + LOCAL_BYTES + member.name.len();
        Some(MemberReader {
            input: &self.bytes[start..start + member.packed as usize],
            state: (member.method == DEFLATED).then(|| InflateState::new_boxed(DataFormat::Raw)),
            crc: crc32fast::Hasher::new(),
            sha256: Sha256::new(),
            read: 0,
            ended: false,
            member,
        })
    }

    fn find(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }
}

fn read_directory(bytes: &[u8]) -> Result<Vec<Member>, ZipError> {
    let layout = |reason: &str| ZipError::Layout(reason.into());
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(ZipError::Layout(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    let end = bytes.len().checked_sub(END_BYTES).ok_or_else(|| layout("it is too short"))?;
    let end = &bytes[end..];
    if u32_at(end, 0) != END {
        return Err(layout("it does not end in a directory; it was cut off, or something was appended"));
    }
    let count = u16_at(end, 10) as usize;
    if count > FILES_MAX {
        return Err(ZipError::Layout(format!("it says that it has {count} files; at most {FILES_MAX} are allowed")));
    }
    let mut rest = bytes.get(u32_at(end, 16) as usize..).ok_or_else(|| layout("its directory lies outside of it"))?;
    let mut members: Vec<Member> = Vec::with_capacity(count);
    for _ in 0..count {
        if rest.len() < CENTRAL_BYTES + END_BYTES || u32_at(rest, 0) != CENTRAL {
            return Err(layout("its directory is damaged"));
        }
        let name_bytes = u16_at(rest, 28) as usize;
        let name = rest.get(CENTRAL_BYTES..CENTRAL_BYTES + name_bytes).ok_or_else(|| layout("a name is cut off"))?;
        let name = member_name(name)?;
        if members.iter().any(|member| member.name == name) {
            return Err(ZipError::Member { name, reason: "the ZIP has this file twice".into() });
        }
        let member = Member {
            name,
            method: u16_at(rest, 10),
            crc: u32_at(rest, 16),
            packed: u32_at(rest, 20),
            size: u32_at(rest, 24),
            offset: u32_at(rest, 42),
        };
        if !matches!(member.method, STORED | DEFLATED) || u64::from(member.size) > FILE_BYTES_MAX {
            return Err(ZipError::Member { name: member.name, reason: "it is packed in a way no export uses".into() });
        }
        members.push(member);
        rest = &rest[CENTRAL_BYTES + name_bytes..];
    }
    Ok(members)
}

/// A name of lower-case letters, digits, `.`, `-` and `/` that stays below the folder it is unpacked to.
fn member_name(bytes: &[u8]) -> Result<String, ZipError> {
    let name: String = String::from_utf8_lossy(bytes).chars().take(NAME_BYTES_MAX).collect();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '/');
    let parts_are_names = name.split('/').all(|part| !part.is_empty() && !part.starts_with('.'));
    if name.len() == bytes.len() && name.chars().all(plain) && parts_are_names {
        Ok(name)
    } else {
        Err(ZipError::Layout(format!("it holds a file name that no export has: {:?}", name.escape_debug().to_string())))
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Unpacks one member, never beyond the size its directory entry says.
pub struct MemberReader<'a> {
    member: Member,
    input: &'a [u8],
    state: Option<Box<InflateState>>,
    crc: crc32fast::Hasher,
    sha256: Sha256,
    read: u64,
    ended: bool,
}

impl MemberReader<'_> {
    fn wrong(&self, reason: &str) -> io::Error {
        let error = ZipError::Member { name: self.member.name.clone(), reason: reason.into() };
        io::Error::new(io::ErrorKind::InvalidData, error)
    }

    /// Reads what is left, checks that the member ends as it should, and returns its SHA-256.
    ///
    /// # Errors
    /// When the data is damaged, or its length or CRC is not what the directory says.
    pub fn finish(mut self) -> io::Result<Sha256Digest> {
        let mut rest = [0; 16 * 1024];
        while self.read(&mut rest)? > 0 {}
        if !self.input.is_empty() || self.read != u64::from(self.member.size) {
            return Err(self.wrong("its length is not what the directory says"));
        }
        if self.crc.clone().finalize() != self.member.crc {
            return Err(self.wrong("its CRC is not what the directory says"));
        }
        Ok(Sha256Digest(self.sha256.finalize().into()))
    }

    fn unpack(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let Some(state) = &mut self.state else {
            let bytes = out.len().min(self.input.len());
            out[..bytes].copy_from_slice(&self.input[..bytes]);
            self.input = &self.input[bytes..];
            return Ok(bytes);
        };
        while !self.ended {
            let step = inflate(state, self.input, out, MZFlush::None);
            self.input = &self.input[step.bytes_consumed..];
            match step.status {
                Ok(MZStatus::StreamEnd) => self.ended = true,
                Ok(_) if step.bytes_written > 0 || step.bytes_consumed > 0 => {}
                _ => return Err(self.wrong("its compressed data is damaged")),
            }
            if step.bytes_written > 0 {
                return Ok(step.bytes_written);
            }
        }
        Ok(0)
    }
}

impl Read for MemberReader<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        let bytes = self.unpack(out)?;
        self.read += bytes as u64;
        if self.read > u64::from(self.member.size) {
            return Err(self.wrong("it unpacks to more than the directory says"));
        }
        self.crc.update(&out[..bytes]);
        self.sha256.update(&out[..bytes]);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let mut out = Vec::new();
        let mut zip = ZipWriter::new(&mut out);
        zip.add::<io::Error>("README.txt", |w| w.write_all(b"hello hello hello hello")).unwrap();
        zip.add::<io::Error>("empty", |_| Ok(())).unwrap();
        zip.add::<io::Error>("recipes/00.toml", |w| {
            (0..40_000_u32).try_for_each(|n| w.write_all(&n.wrapping_mul(2_654_435_761).to_le_bytes()))
        })
        .unwrap();
        let bytes = zip.finish("manifest.dsse.json", b"{}").unwrap();
        assert_eq!(bytes, out.len() as u64);
        out
    }

    fn unpack_all(bytes: &[u8]) -> Result<Vec<Sha256Digest>, String> {
        let archive = Archive::open(bytes).map_err(|error| error.to_string())?;
        let names: Vec<&str> = archive.names().collect();
        names
            .into_iter()
            .map(|name| archive.reader(name).unwrap().finish().map_err(|error| error.to_string()))
            .collect()
    }

    #[test]
    fn another_zip_library_reads_what_we_write() {
        let bytes = sample();
        let mut zip = zip::ZipArchive::new(io::Cursor::new(&bytes)).unwrap();
        assert_eq!(zip.file_names().collect::<Vec<_>>().len(), 4);
        let mut text = String::new();
        zip.by_name("README.txt").unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello hello hello hello");
        let mut data = Vec::new();
        zip.by_name("recipes/00.toml").unwrap().read_to_end(&mut data).unwrap();
        assert_eq!(data.len(), 160_000);
        assert_eq!(unpack_all(&bytes).unwrap()[2], Sha256Digest::of(&data));
    }

    #[test]
    fn every_header_byte_counts() {
        let mut out = Vec::new();
        let mut zip = ZipWriter::new(&mut out);
        zip.add::<io::Error>("a", |w| w.write_all(b"abc")).unwrap();
        zip.finish("m", b"{}").unwrap();
        // The data of `a`, one deflate block, is covered by the manifest's container digest.
        let data = LOCAL_BYTES + 1..out.len();
        let packed = u32_at(&out, out.len() - END_BYTES - 2 * (CENTRAL_BYTES + 1) + 20) as usize;
        let data = data.start..data.start + packed;
        for at in 0..out.len() {
            for bit in 0..8 {
                let mut bad = out.clone();
                bad[at] ^= 1 << bit;
                assert!(data.contains(&at) || unpack_all(&bad).is_err(), "byte {at} bit {bit}");
            }
        }
        for cut in 0..out.len() {
            assert!(unpack_all(&out[..cut]).is_err());
        }
        assert!(unpack_all(&[&out[..], b"x"].concat()).is_err());
        assert!(unpack_all(&[b"x", &out[..]].concat()).is_err());
    }

    #[test]
    fn a_member_never_unpacks_to_more_than_it_says() {
        let mut out = Vec::new();
        let mut zip = ZipWriter::new(&mut out);
        zip.add::<io::Error>("bomb", |w| (0..1024).try_for_each(|_| w.write_all(&[0; 64 * 1024]))).unwrap();
        zip.members[0].size = 1000;
        let member = zip.members[0].clone();
        zip.finish("m", b"{}").unwrap();
        let descriptor = LOCAL_BYTES + 4 + member.packed as usize;
        out[descriptor..descriptor + 16].copy_from_slice(&member.descriptor());
        let archive = Archive::open(&out).unwrap();
        let error = archive.reader("bomb").unwrap().finish().unwrap_err();
        assert_eq!(error.to_string(), "bomb: it unpacks to more than the directory says");
    }

    #[test]
    fn names_cannot_leave_the_folder() {
        for name in ["../a", "/a", "a//b", "a/../b", ".a", "a\\b", "c:a", "", "a\0", "a/"] {
            assert!(member_name(name.as_bytes()).is_err(), "{name:?}");
        }
        assert!(member_name(b"model-cards/00ff.md").is_ok());
    }
}

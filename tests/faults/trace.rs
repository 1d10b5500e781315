//! The record of a victim's system calls, as strace writes it.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    process::Command,
};

use crate::victim::{self, Ack, Work};

/// Every call by which log and archive change or read the disk, and the one that tells acknowledgements.
const TRACED: &str = "write,pwrite64,writev,pwritev,fsync,fdatasync,syncfs,sync_file_range,openat,rename,renameat,\
renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,ftruncate,fallocate,sendto";

/// One system call that ended.
#[derive(Clone, Debug)]
pub struct Call {
    pub thread: u32,
    pub name: String,
    pub arguments: Vec<String>,
    /// The number it returned; negative when it failed.
    pub result: i64,
    /// Lines of the record where it began and where it ended.
    pub began: usize,
    pub ended: usize,
}

/// Whether strace can inject here.
pub fn has_strace() -> bool {
    let output = Command::new("strace").args(["-e", "trace=fsync", "-e", "inject=fsync:error=EIO", "true"]).output();
    output.is_ok_and(|output| output.status.success())
}

/// Runs a victim and records it.
pub fn record(data: &Path, folder: &Path, work: &Work, planted: &str) -> (Vec<Call>, Vec<Ack>) {
    let report = folder.join("record");
    let mut strace = victim::with(planted);
    strace.args(["strace", "-f", "-y", "-qq", "-xx", "-s", "100000000", "--seccomp-bpf", "-e"]);
    strace.arg(format!("trace={TRACED}")).arg("-o").arg(&report);
    let (acks, output) = victim::run(Some(strace), data, folder, work);
    assert!(output.status.success(), "an unhurt victim failed: {}", String::from_utf8_lossy(&output.stderr));
    (parse(&std::fs::read_to_string(&report).expect("strace writes its record")), acks)
}

fn parse(text: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut unfinished: HashMap<u32, (usize, String)> = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let (Ok(thread), rest) = (thread.parse::<u32>(), rest.trim_start()) else { continue };
        if let Some(begun) = rest.strip_suffix("<unfinished ...>") {
            unfinished.insert(thread, (number, begun.trim_end().to_owned()));
        } else if rest.starts_with("<... ") {
            let (Some((began, start)), Some((_, end))) = (unfinished.remove(&thread), rest.split_once(" resumed>"))
            else {
                continue;
            };
            calls.extend(parse_call(thread, &format!("{start}{end}"), began, number));
        } else {
            calls.extend(parse_call(thread, rest, number, number));
        }
    }
    calls
}

/// `name(argument, …) = result …`. Strings and paths are all in hexadecimal, so that no comma or bracket is theirs.
fn parse_call(thread: u32, text: &str, began: usize, ended: usize) -> Option<Call> {
    let (name, rest) = text.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(") ").or_else(|| rest.rsplit_once(')'))?;
    let result = result.trim_start().strip_prefix("= ")?;
    let end = result.find(|c: char| !c.is_ascii_digit() && c != '-').unwrap_or(result.len());
    Some(Call {
        thread,
        name: name.to_owned(),
        arguments: arguments.split(", ").map(|argument| argument.trim_end_matches(',').trim().to_owned()).collect(),
        result: result[..end].parse().ok()?,
        began,
        ended,
    })
}

impl Call {
    /// The file a descriptor in the arguments leads to.
    pub fn file(&self, at: usize) -> Option<PathBuf> {
        let (_, path) = self.arguments.get(at)?.split_once('<')?;
        let path = String::from_utf8(unhex(path.trim_end_matches('>'))).ok()?;
        Some(PathBuf::from(path.trim_end_matches(" (deleted)")))
    }

    /// Whether the file of a descriptor has lost its name, or given it to another file.
    pub fn is_nameless(&self, at: usize) -> bool {
        self.arguments.get(at).is_some_and(|argument| argument.contains("(deleted)"))
    }

    /// A string among the arguments.
    pub fn bytes(&self, at: usize) -> Vec<u8> {
        self.arguments.get(at).map_or_else(Vec::new, |argument| unhex(argument.trim_matches('"')))
    }

    pub fn path(&self, at: usize) -> PathBuf {
        PathBuf::from(String::from_utf8(self.bytes(at)).unwrap_or_default())
    }

    /// A path that stands behind the descriptor of its folder.
    pub fn path_at(&self, at: usize) -> PathBuf {
        self.file(at).unwrap_or_default().join(self.path(at + 1))
    }

    pub fn number(&self, at: usize) -> usize {
        self.arguments.get(at).and_then(|argument| argument.parse().ok()).unwrap_or_default()
    }

    /// Whether it touches something below `folder`.
    pub fn touches(&self, folder: &Path) -> bool {
        (0..self.arguments.len())
            .any(|at| self.file(at).is_some_and(|path| path.starts_with(folder)) || self.path(at).starts_with(folder))
    }
}

/// Bytes that strace printed as `\x2f\x74`.
fn unhex(text: &str) -> Vec<u8> {
    text.split("\\x").skip(1).filter_map(|digits| u8::from_str_radix(digits.get(..2)?, 16).ok()).collect()
}

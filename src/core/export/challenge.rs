//! The answer to a challenge: entries that an outsider's nonce picked, proven under a checkpoint that was signed before.
//! The format and the rule are `docs/spec/challenge.md`.

use std::{collections::BTreeSet, fmt::Write as _};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use data_encoding::HEXLOWER;

use crate::{
    core::lineage::{
        checkpoint::{parse_decimal, parse_hash},
        entry::ENTRY_BYTES_MAX,
    },
    types::Sha256Digest,
};

/// Entries one challenge may ask for.
pub const CHALLENGE_ENTRIES_MAX: u64 = 1000;
/// Bytes of a nonce: 16 cannot be guessed.
pub const NONCE_BYTES: std::ops::RangeInclusive<usize> = 16..=64;
/// Bytes of an answer: a thousand of the longest entries in base64, a full proof for each, sixteen more and
/// two checkpoints take 14 MB.
pub const CHALLENGE_BYTES_MAX: usize = 16 << 20;

/// Replay entries in one answer: the picked decisions fit into four.
pub const REPLAY_ENTRIES_MAX: usize = 16;

const FIRST_LINE: &str = "lineproof challenge 1";
const FIRST_LINE_WITH_REPLAYS: &str = "lineproof challenge 2";
const DOMAIN: &[u8] = b"lineproof challenge v1\n";

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ChallengeError {
    #[error("a nonce is {} to {} bytes in lower-case hex, made up by whoever asks, such as `openssl rand -hex 16` gives", NONCE_BYTES.start(), NONCE_BYTES.end())]
    Nonce,
    #[error("a challenge asks for 1 to {CHALLENGE_ENTRIES_MAX} entries")]
    Count,
    #[error("line {0} of the answer is not what belongs there")]
    Line(usize),
    #[error("the answer has {found} entries, the nonce picks {picked}")]
    Entries { found: usize, picked: usize },
    #[error("the answer has {0} replay entries; 1 to {REPLAY_ENTRIES_MAX} belong there")]
    Replays(usize),
    #[error("the answer is longer than {CHALLENGE_BYTES_MAX} bytes")]
    TooLong,
}

/// A nonce and how many entries it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    nonce: Vec<u8>,
    count: u64,
}

impl Challenge {
    /// # Errors
    /// [`ChallengeError`] for a nonce or a count that is none.
    pub fn new(nonce: &str, count: u64) -> Result<Self, ChallengeError> {
        let bytes = HEXLOWER.decode(nonce.as_bytes()).ok().filter(|bytes| NONCE_BYTES.contains(&bytes.len()));
        let nonce = bytes.ok_or(ChallengeError::Nonce)?;
        if (1..=CHALLENGE_ENTRIES_MAX).contains(&count) {
            Ok(Self { nonce, count })
        } else {
            Err(ChallengeError::Count)
        }
    }

    #[must_use]
    pub fn nonce(&self) -> String {
        HEXLOWER.encode(&self.nonce)
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What the choice is drawn from, which nobody knows before both the checkpoint and the nonce are there.
    #[must_use]
    pub fn seed(&self, checkpoint: &str) -> Sha256Digest {
        Sha256Digest::of(&[DOMAIN, &Sha256Digest::of(checkpoint.as_bytes()).0, &self.nonce].concat())
    }

    /// The indexes that are picked from a log of `size` entries whose signed checkpoint has the text `checkpoint`,
    /// ascending. Every set of so many indexes is as likely as any other, for whoever cannot guess the nonce.
    #[must_use]
    pub fn indexes(&self, checkpoint: &str, size: u64) -> Vec<u64> {
        let seed = self.seed(checkpoint).0;
        let wanted = usize::try_from(self.count.min(size)).expect("at most CHALLENGE_ENTRIES_MAX");
        let mut picked = BTreeSet::new();
        let mut draw = 0_u64;
        while picked.len() < wanted {
            let hash = Sha256Digest::of(&[&seed[..], &draw.to_be_bytes()].concat()).0;
            let value = u64::from_be_bytes(hash[..8].try_into().expect("eight of 32 bytes"));
            draw += 1;
            // The values above the last whole multiple of `size` below 2^64 would make small indexes likelier.
            let too_many = (u64::MAX % size + 1) % size;
            if value <= u64::MAX - too_many {
                picked.insert(value % size);
            }
        }
        picked.into_iter().collect()
    }
}

/// An answer as it is written; nothing in it is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub challenge: Challenge,
    /// Stored bytes of the picked entries, ascending by index.
    pub entries: Vec<Vec<u8>>,
    /// One proof for all, as in an export.
    pub proof: Vec<Sha256Digest>,
    /// What came out when the picked decisions were decided again: version 2.
    pub replays: Option<Replays>,
    /// The signed checkpoint, byte for byte.
    pub checkpoint: String,
}

/// Entries of kind `replay` with their place in a later tree of the same log; nothing in it is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replays {
    /// Index and stored bytes, ascending.
    pub entries: Vec<(u64, Vec<u8>)>,
    /// One proof for all of them.
    pub proof: Vec<Sha256Digest>,
    /// From the answer's checkpoint to the later one.
    pub consistency: Vec<Sha256Digest>,
    /// The later signed checkpoint, byte for byte.
    pub checkpoint: String,
}

impl Answer {
    /// Whether `bytes` begin like an answer.
    #[must_use]
    pub fn is_one(bytes: &[u8]) -> bool {
        bytes.starts_with(b"lineproof challenge")
    }

    /// The text of the file.
    #[must_use]
    pub fn to_text(&self) -> String {
        let Challenge { count, .. } = &self.challenge;
        let first = if self.replays.is_some() { FIRST_LINE_WITH_REPLAYS } else { FIRST_LINE };
        let mut text = format!("{first}\nnonce {}\ncount {count}\n", self.challenge.nonce());
        let hashes = |text: &mut String, name: &str, hashes: &[Sha256Digest]| {
            for hash in hashes {
                writeln!(text, "{name} {}", BASE64.encode(hash.0)).expect("a string takes any text");
            }
        };
        for entry in &self.entries {
            writeln!(text, "entry {}", BASE64.encode(entry)).expect("a string takes any text");
        }
        hashes(&mut text, "proof", &self.proof);
        if let Some(replays) = &self.replays {
            for (index, entry) in &replays.entries {
                writeln!(text, "replay {index} {}", BASE64.encode(entry)).expect("a string takes any text");
            }
            hashes(&mut text, "replay-proof", &replays.proof);
            hashes(&mut text, "consistency", &replays.consistency);
            writeln!(text, "later {}", BASE64.encode(&replays.checkpoint)).expect("a string takes any text");
        }
        text + "\n" + &self.checkpoint
    }

    /// Reads the text of a file; what [`Self::to_text`] would write in another way is refused.
    ///
    /// # Errors
    /// [`ChallengeError`].
    pub fn parse(text: &str) -> Result<Self, ChallengeError> {
        if text.len() > CHALLENGE_BYTES_MAX {
            return Err(ChallengeError::TooLong);
        }
        let (head, checkpoint) = text.split_once("\n\n").ok_or(ChallengeError::Line(1))?;
        let mut lines = Lines { lines: head.split('\n').peekable(), number: 0 };
        let has_replays = match lines.next() {
            Some(FIRST_LINE) => false,
            Some(FIRST_LINE_WITH_REPLAYS) => true,
            _ => return Err(ChallengeError::Line(1)),
        };
        let nonce = lines.next_of("nonce").ok_or(ChallengeError::Line(2))?;
        let count = lines.next_of("count").and_then(parse_decimal).ok_or(ChallengeError::Line(3))?;
        let challenge = Challenge::new(nonce, count)?;
        let entries = lines.all("entry", entry_bytes)?;
        let proof = lines.all("proof", parse_hash)?;
        let replays = if has_replays { Some(lines.replays()?) } else { None };
        lines.end()?;
        Ok(Self { challenge, entries, proof, replays, checkpoint: checkpoint.to_owned() })
    }
}

fn entry_bytes(base64: &str) -> Option<Vec<u8>> {
    BASE64.decode(base64).ok().filter(|entry| entry.len() <= ENTRY_BYTES_MAX)
}

/// The lines before the checkpoint: a word, a space and what belongs to it.
struct Lines<'a> {
    lines: std::iter::Peekable<std::str::Split<'a, char>>,
    /// Of the line that was taken last, from 1.
    number: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<&'a str> {
        self.number += 1;
        self.lines.next()
    }

    /// The rest of the next line if it begins with this word; otherwise it stays.
    fn next_of(&mut self, word: &str) -> Option<&'a str> {
        let (found, rest) = self.lines.peek()?.split_once(' ')?;
        if found != word {
            return None;
        }
        self.next();
        Some(rest)
    }

    /// All lines from here on that begin with this word.
    fn all<T>(&mut self, word: &str, read: impl Fn(&'a str) -> Option<T>) -> Result<Vec<T>, ChallengeError> {
        let mut all = Vec::new();
        while let Some(rest) = self.next_of(word) {
            all.push(read(rest).ok_or(ChallengeError::Line(self.number))?);
        }
        Ok(all)
    }

    fn replays(&mut self) -> Result<Replays, ChallengeError> {
        let entry = |rest: &str| {
            let (index, entry) = rest.split_once(' ')?;
            Some((parse_decimal(index)?, entry_bytes(entry)?))
        };
        let entries = self.all("replay", entry)?;
        if !(1..=REPLAY_ENTRIES_MAX).contains(&entries.len()) {
            return Err(ChallengeError::Replays(entries.len()));
        }
        let proof = self.all("replay-proof", parse_hash)?;
        let consistency = self.all("consistency", parse_hash)?;
        let note = |base64: &str| String::from_utf8(BASE64.decode(base64).ok()?).ok();
        let later = self.next_of("later").and_then(note);
        Ok(Replays { entries, proof, consistency, checkpoint: later.ok_or(ChallengeError::Line(self.number))? })
    }

    fn end(mut self) -> Result<(), ChallengeError> {
        match self.lines.peek() {
            None => Ok(()),
            Some(_) => Err(ChallengeError::Line(self.number + 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: &str = "000102030405060708090a0b0c0d0e0f";
    const CHECKPOINT: &str = "example.com/plant\n1000\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";

    #[test]
    fn a_nonce_picks_what_the_specification_says() {
        let picked = |count, size| Challenge::new(NONCE, count).unwrap().indexes(CHECKPOINT, size);
        let vector = include_str!("../../../docs/spec/vectors/challenge.txt");
        for line in vector.lines().filter(|line| !line.starts_with('#')) {
            let (asked, indexes) = line.split_once(':').unwrap();
            let (count, size) = asked.split_once(" of ").unwrap();
            let indexes: Vec<u64> = indexes.split_whitespace().map(|index| index.parse().unwrap()).collect();
            assert_eq!(picked(count.parse().unwrap(), size.parse().unwrap()), indexes, "{line}");
        }
        assert_eq!(picked(5, 3), [0, 1, 2], "a short log is given whole");
    }

    #[test]
    fn another_nonce_or_checkpoint_picks_others_and_all_are_picked_alike() {
        let other = Challenge::new(&"ab".repeat(16), 10).unwrap();
        let mine = Challenge::new(NONCE, 10).unwrap();
        assert_ne!(mine.indexes(CHECKPOINT, 1000), other.indexes(CHECKPOINT, 1000));
        assert_ne!(mine.indexes(CHECKPOINT, 1000), mine.indexes("another", 1000));
        let mut often = [0_u32; 7];
        for nonce in 0..3000_u32 {
            let nonce = format!("{nonce:032x}");
            Challenge::new(&nonce, 2)
                .unwrap()
                .indexes(CHECKPOINT, 7)
                .into_iter()
                .for_each(|at| often[at as usize] += 1);
        }
        assert!(often.iter().all(|count| (760..960).contains(count)), "{often:?}");
    }

    #[test]
    fn an_answer_reads_back_and_has_one_spelling() {
        let answer = Answer {
            challenge: Challenge::new(NONCE, 2).unwrap(),
            entries: vec![b"{}".to_vec(), b"{\"a\":1}".to_vec()],
            proof: vec![Sha256Digest([7; 32])],
            replays: None,
            checkpoint: "note\n\nsigned\n".into(),
        };
        let text = answer.to_text();
        assert_eq!(Answer::parse(&text), Ok(answer.clone()));
        let replays = Replays {
            entries: vec![(1000, b"{}".to_vec()), (1003, b"{}".to_vec())],
            proof: vec![Sha256Digest([8; 32])],
            consistency: vec![Sha256Digest([9; 32])],
            checkpoint: "later\n\nsigned\n".into(),
        };
        let with_replays = Answer { replays: Some(replays), ..answer };
        let longer = with_replays.to_text();
        assert_eq!(Answer::parse(&longer), Ok(with_replays));
        for (from, to) in [
            ("challenge 2", "challenge 1"),
            ("challenge 2", "challenge 3"),
            ("replay 1000", "replay 01000"),
            ("replay 1000 ", "replay 1000"),
            ("later ", "later  "),
            ("\nlater", "\n\nlater"),
            ("consistency ", "replay-proof "),
            ("consistency ", "consistence "),
        ] {
            let bad = longer.replacen(from, to, 1);
            assert!(bad != longer && Answer::parse(&bad).map_or(true, |answer| answer.to_text() != longer), "{bad}");
        }
        for (from, to) in
            [("nonce 00", "nonce 0"), ("count 2", "count 02"), ("count 2", "count 0"), ("entry ", "entry  ")]
        {
            let bad = text.replacen(from, to, 1);
            assert!(Answer::parse(&bad).map_or(true, |answer| answer.to_text() != bad), "{bad}");
        }
    }
}

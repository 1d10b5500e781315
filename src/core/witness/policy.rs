//! Which cosignatures are enough: a c2sp.org/tlog-policy file, and what it says of a checkpoint.

use std::collections::HashMap;

use crate::core::export::keys::{Cosignature, VerifierKey};

/// Bytes of a policy file: every definition below with a key, a URL and a line of notes.
pub const POLICY_BYTES_MAX: usize = 256 * 1024;
/// Logs, witnesses and groups each; the specification asks for at least 32.
pub const DEFINITIONS_MAX: usize = 256;
/// The quorum that needs nobody.
const NONE: &[u8] = b"none";

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PolicyError {
    #[error("a policy has at most {POLICY_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    #[error("line {line} of the policy: {reason}")]
    Line { line: usize, reason: String },
    #[error("the policy has no quorum line; it ends with one such as `quorum oem`, or `quorum none`")]
    NoQuorum,
    #[error("the policy names no log and no other key was given; add --key, or a line `log <vkey>`")]
    NoLog,
}

/// A policy that reads well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    logs: Vec<VerifierKey>,
    /// Parallel to the witnesses among `members`.
    witnesses: Vec<VerifierKey>,
    members: Vec<Member>,
    /// `None`: nobody needs to cosign.
    quorum: Option<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    name: String,
    rule: Rule,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    /// By its place among the witnesses.
    Witness(usize),
    Group {
        threshold: usize,
        members: Vec<usize>,
    },
}

/// What a policy says of one checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quorum {
    /// The name in the quorum line.
    pub name: String,
    /// A log of the policy signed, or the policy names none.
    pub log_is_listed: bool,
    /// Enough witnesses cosigned.
    pub is_reached: bool,
    /// The policy's witnesses that did not cosign.
    pub missing: Vec<String>,
}

impl Quorum {
    #[must_use]
    pub fn is_satisfied(&self) -> bool {
        self.log_is_listed && self.is_reached
    }
}

impl Policy {
    /// Every one of these witnesses must cosign; for plants that configure witnesses and no policy.
    #[must_use]
    pub fn all_of(witnesses: Vec<VerifierKey>) -> Self {
        let mut members: Vec<Member> = witnesses
            .iter()
            .enumerate()
            .map(|(at, key)| Member { name: key.name().to_owned(), rule: Rule::Witness(at) })
            .collect();
        let all: Vec<usize> = (0..witnesses.len()).collect();
        let quorum = (!all.is_empty()).then_some(all.len());
        members.push(Member { name: "all".into(), rule: Rule::Group { threshold: all.len(), members: all } });
        Self { logs: Vec::new(), witnesses, members, quorum }
    }

    /// Reads a policy file. Names and URLs may be any bytes above 0x7F, as the specification has it.
    ///
    /// # Errors
    /// [`PolicyError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, PolicyError> {
        if bytes.len() > POLICY_BYTES_MAX {
            return Err(PolicyError::TooLong(bytes.len()));
        }
        let mut reader = Reader::default();
        for (at, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            reader.line(line).map_err(|reason| PolicyError::Line { line: at + 1, reason })?;
        }
        let quorum = reader.quorum.ok_or(PolicyError::NoQuorum)?;
        Ok(Self { logs: reader.logs, witnesses: reader.witnesses, members: reader.members, quorum })
    }

    #[must_use]
    pub fn logs(&self) -> &[VerifierKey] {
        &self.logs
    }

    /// Lists one more log, where any is listed: the one that a listed log's key was changed for.
    pub(in crate::core) fn trust_log(&mut self, key: &VerifierKey) {
        if !self.logs.is_empty() && !self.logs.contains(key) {
            self.logs.push(key.clone());
        }
    }

    #[must_use]
    pub fn witnesses(&self) -> &[VerifierKey] {
        &self.witnesses
    }

    /// Whether a checkpoint these log keys signed, with these cosignatures, is valid. Both were checked before.
    #[must_use]
    pub fn evaluate(&self, signers: &[VerifierKey], cosignatures: &[Cosignature]) -> Quorum {
        let cosigned = |key: &VerifierKey| cosignatures.iter().any(|cosignature| cosignature.witness == *key);
        let missing = |member: &Member| match member.rule {
            Rule::Witness(at) => (!cosigned(&self.witnesses[at])).then(|| member.name.clone()),
            Rule::Group { .. } => None,
        };
        // A group names only what stands before it, so one pass is enough.
        let mut holds: Vec<bool> = Vec::with_capacity(self.members.len());
        for member in &self.members {
            holds.push(match &member.rule {
                Rule::Witness(at) => cosigned(&self.witnesses[*at]),
                Rule::Group { threshold, members } => {
                    members.iter().filter(|member| holds[**member]).count() >= *threshold
                }
            });
        }
        Quorum {
            name: self.quorum.map_or_else(|| "none".into(), |at| self.members[at].name.clone()),
            log_is_listed: self.logs.is_empty() || signers.iter().any(|signer| self.logs.contains(signer)),
            is_reached: self.quorum.is_none_or(|at| holds[at]),
            missing: self.members.iter().filter_map(missing).collect(),
        }
    }
}

#[derive(Default)]
struct Reader {
    logs: Vec<VerifierKey>,
    witnesses: Vec<VerifierKey>,
    members: Vec<Member>,
    by_name: HashMap<Vec<u8>, usize>,
    /// Members that a group names already.
    taken: Vec<bool>,
    quorum: Option<Option<usize>>,
}

impl Reader {
    fn line(&mut self, line: &[u8]) -> Result<(), String> {
        if let Some(byte) = line.iter().find(|byte| (**byte < 0x20 && **byte != b'\t') || **byte == 0x7f) {
            let help = if *byte == b'\r' { "; save the file with LF line ends" } else { "" };
            return Err(format!("the control character 0x{byte:02x} is not allowed{help}"));
        }
        let items: Vec<&[u8]> =
            line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|item| !item.is_empty()).collect();
        match items.as_slice() {
            [] => Ok(()),
            [first, ..] if first.starts_with(b"#") => Ok(()),
            [b"log", key] | [b"log", key, _] => self.log(key),
            [b"witness", name, key] | [b"witness", name, key, _] => self.witness(name, key),
            [b"group", name, threshold, members @ ..] if !members.is_empty() => self.group(name, threshold, members),
            [b"quorum", name] => self.quorum(name),
            _ => Err("expected was `log <vkey> [<url>]`, `witness <name> <vkey> [<url>]`, `group <name> all|any|<k> <name>…` or `quorum <name>`".into()),
        }
    }

    fn log(&mut self, key: &[u8]) -> Result<(), String> {
        let key = read_key(key)?;
        if !key.is_log() {
            return Err("this is a witness's key; a log line has a log's key".into());
        }
        add(&mut self.logs, key, "log")
    }

    fn witness(&mut self, name: &[u8], key: &[u8]) -> Result<(), String> {
        let key = read_key(key)?;
        if key.is_log() {
            return Err(
                "this is a log's key; a witness line has a witness's key, which begins with B after the second +"
                    .into(),
            );
        }
        add(&mut self.witnesses, key, "witness")?;
        self.define(name, Rule::Witness(self.witnesses.len() - 1))
    }

    fn group(&mut self, name: &[u8], threshold: &[u8], names: &[&[u8]]) -> Result<(), String> {
        let mut members = Vec::with_capacity(names.len());
        for name in names {
            let member = self.find(name)?;
            if std::mem::replace(&mut self.taken[member], true) {
                return Err(format!("{} is a member of a group already", show(name)));
            }
            members.push(member);
        }
        let count = members.len();
        let threshold = match threshold {
            b"all" => count,
            b"any" => 1,
            number => std::str::from_utf8(number)
                .ok()
                .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|number| number.parse().ok())
                .filter(|threshold| (1..=count).contains(threshold))
                .ok_or_else(|| format!("{} is not `all`, `any`, or a number from 1 to {count}", show(number)))?,
        };
        self.define(name, Rule::Group { threshold, members })
    }

    fn quorum(&mut self, name: &[u8]) -> Result<(), String> {
        if self.quorum.is_some() {
            return Err("there is a quorum line already".into());
        }
        self.quorum = Some(if name == NONE { None } else { Some(self.find(name)?) });
        Ok(())
    }

    fn define(&mut self, name: &[u8], rule: Rule) -> Result<(), String> {
        if name == NONE || self.by_name.contains_key(name) {
            return Err(format!("the name {} is taken", show(name)));
        }
        if self.members.len() >= 2 * DEFINITIONS_MAX {
            return Err(format!("there are more than {DEFINITIONS_MAX} groups"));
        }
        self.by_name.insert(name.to_vec(), self.members.len());
        self.members.push(Member { name: show(name), rule });
        self.taken.push(false);
        Ok(())
    }

    fn find(&self, name: &[u8]) -> Result<usize, String> {
        self.by_name.get(name).copied().ok_or_else(|| format!("no line above defines {}", show(name)))
    }
}

fn read_key(vkey: &[u8]) -> Result<VerifierKey, String> {
    let text = std::str::from_utf8(vkey).map_err(|_| "the key is no vkey: it is not UTF-8".to_owned())?;
    VerifierKey::parse(text).map_err(|reason| format!("the key is no vkey: {reason}"))
}

/// Two lines with one public key would count one party twice, whatever it calls itself.
fn add(keys: &mut Vec<VerifierKey>, key: VerifierKey, what: &str) -> Result<(), String> {
    if keys.iter().any(|known| known.key() == key.key()) {
        return Err(format!("another {what} line has this key already"));
    }
    if keys.len() == DEFINITIONS_MAX {
        return Err(format!("there are more than {DEFINITIONS_MAX} {what} lines"));
    }
    keys.push(key);
    Ok(())
}

/// A name from the file, fit for a sentence.
fn show(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(80).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use proptest::prelude::*;

    use super::*;

    fn witness(number: u8) -> VerifierKey {
        let key = SigningKey::from_bytes(&[number; 32]).verifying_key();
        VerifierKey::witness(&format!("witness.example/{number}"), key)
    }

    fn log(number: u8) -> VerifierKey {
        VerifierKey::log("plant.example/log", SigningKey::from_bytes(&[number; 32]).verifying_key())
    }

    fn cosigned(witnesses: &[u8]) -> Vec<Cosignature> {
        witnesses.iter().map(|number| Cosignature { witness: witness(*number), time: 1 }).collect()
    }

    /// The specification's example with keys put in.
    fn example() -> String {
        let w = |number| witness(number).line();
        format!(
            "log {}\n\nwitness X1 {}\nwitness X2 {}\nwitness X3 {}\ngroup X-witnesses 2 X1 X2 X3\n\n\
             witness Y1 {} https://y1.example/\nwitness\tY2 \t{}\n  witness Y3 {}  \n  # a note\ngroup Y-witnesses any Y1 Y2 Y3\n\n\
             group X-and-Y all X-witnesses Y-witnesses\nquorum X-and-Y\n",
            log(9).line(),
            w(1),
            w(2),
            w(3),
            w(4),
            w(5),
            w(6)
        )
    }

    #[test]
    fn the_specifications_example_is_held_as_it_says() {
        let policy = Policy::parse(example().as_bytes()).unwrap();
        assert_eq!((policy.logs().len(), policy.witnesses().len()), (1, 6));
        let says = |witnesses: &[u8]| policy.evaluate(&[log(9)], &cosigned(witnesses)).is_satisfied();
        assert!(says(&[1, 3, 5]) && says(&[2, 3, 4, 6]));
        assert!(!says(&[1, 2, 3]), "no Y witness");
        assert!(!says(&[1, 4, 5, 6]), "one X witness");
        assert!(!says(&[]) && !says(&[7, 8, 1, 4]), "strangers count for nothing");
        let quorum = policy.evaluate(&[log(9)], &cosigned(&[1, 3, 5]));
        assert_eq!((quorum.name.as_str(), quorum.missing.join(",").as_str()), ("X-and-Y", "X2,Y1,Y3"));
        let stranger = policy.evaluate(&[log(8)], &cosigned(&[1, 3, 5]));
        assert!(stranger.is_reached && !stranger.log_is_listed && !stranger.is_satisfied());
    }

    #[test]
    fn a_quorum_may_be_one_witness_or_none() {
        let one = format!("witness oem {}\nquorum oem", witness(1).line());
        let policy = Policy::parse(one.as_bytes()).unwrap();
        assert!(policy.evaluate(&[log(9)], &cosigned(&[1])).is_satisfied());
        assert!(!policy.evaluate(&[log(9)], &[]).is_satisfied());
        assert!(Policy::parse(b"quorum none\n").unwrap().evaluate(&[log(9)], &[]).is_satisfied());
        let all = Policy::all_of(vec![witness(1), witness(2)]);
        assert!(all.evaluate(&[log(9)], &cosigned(&[1, 2])).is_satisfied());
        assert!(!all.evaluate(&[log(9)], &cosigned(&[2])).is_satisfied());
    }

    #[test]
    fn what_the_specification_forbids_is_refused_with_its_line() {
        let (one, two) = (witness(1).line(), witness(2).line());
        let renamed = VerifierKey::witness("other.example", *witness(1).key()).line();
        let log_twice = VerifierKey::log("other.example", *log(9).key()).line();
        let cases = [
            (format!("witness a {one}\n"), "no quorum line"),
            ("quorum a\n".into(), "no line above defines a"),
            (format!("quorum none\nwitness a {one}\nquorum a\n"), "line 3"),
            (format!("group g any a\nwitness a {one}\nquorum g\n"), "line 1"),
            (format!("witness a {one}\nwitness a {two}\nquorum a\n"), "the name a is taken"),
            (format!("witness none {one}\nquorum none\n"), "the name none is taken"),
            (format!("witness a {one}\nwitness b {renamed}\nquorum a\n"), "another witness line has this key"),
            (format!("log {}\nlog {log_twice}\nquorum none\n", log(9).line()), "another log line has this key"),
            (format!("witness a {one}\ngroup g any a a\nquorum g\n"), "member of a group already"),
            (format!("witness a {one}\ngroup g any a\ngroup h any a\nquorum g\n"), "member of a group already"),
            (format!("witness a {one}\ngroup g all none\nquorum g\n"), "no line above defines none"),
            (format!("witness a {one}\ngroup g 2 a\nquorum g\n"), "a number from 1 to 1"),
            (format!("witness a {one}\ngroup g 0 a\nquorum g\n"), "a number from 1 to 1"),
            (format!("witness a {one}\ngroup g +1 a\nquorum g\n"), "a number from 1 to 1"),
            (format!("witness a {one}\ngroup g all\nquorum g\n"), "expected was"),
            (format!("witness a {one} url more\nquorum a\n"), "expected was"),
            (format!("witness a {}\nquorum a\n", log(9).line()), "a log's key"),
            (format!("log {one}\nquorum none\n"), "a witness's key"),
            ("quorum none\r\n".into(), "LF line ends"),
            ("witness a b\nquorum a\n".into(), "no vkey"),
        ];
        for (text, expected) in cases {
            let error = Policy::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn names_are_bytes_and_not_characters() {
        // The Kelvin sign and K are two names, and neither need be UTF-8.
        let text =
            [b"witness K ".to_vec(), witness(1).line().into_bytes(), b"\nwitness \xe2\x84\xaa ".to_vec()].concat();
        let text = [text, witness(2).line().into_bytes(), b"\nwitness \xff ".to_vec(), witness(3).line().into_bytes()];
        let text = [text.concat(), b"\ngroup g 3 K \xff \xe2\x84\xaa\nquorum g\n".to_vec()].concat();
        let policy = Policy::parse(&text).unwrap();
        assert!(policy.evaluate(&[log(9)], &cosigned(&[1, 2, 3])).is_satisfied());
    }

    #[test]
    fn as_many_as_the_specification_asks_for_are_read() {
        let mut text = String::new();
        for number in 0..32 {
            text += &format!("log {}\nwitness w{number} {}\n", log(100 + number).line(), witness(number).line());
        }
        let names: Vec<String> = (0..32).map(|number| format!("w{number}")).collect();
        text += &format!("group g0 17 {}\n", names.join(" "));
        (1..32).for_each(|number| text += &format!("group g{number} all g{}\n", number - 1));
        let policy = Policy::parse(format!("{text}quorum g31\n").as_bytes()).unwrap();
        let (enough, few): (Vec<u8>, Vec<u8>) = ((0..17).collect(), (0..16).collect());
        assert!(policy.evaluate(&[log(131)], &cosigned(&enough)).is_satisfied());
        assert!(!policy.evaluate(&[log(131)], &cosigned(&few)).is_satisfied());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Policy::parse(&bytes);
        }

        #[test]
        fn another_cosignature_never_makes_a_policy_fail(mask in 0_u8..64, more in 1_u8..=6) {
            let policy = Policy::parse(example().as_bytes()).unwrap();
            let some: Vec<u8> = (1..=6).filter(|number| mask & (1 << (number - 1)) != 0).collect();
            if policy.evaluate(&[log(9)], &cosigned(&some)).is_satisfied() {
                let with_more = [some, vec![more]].concat();
                prop_assert!(policy.evaluate(&[log(9)], &cosigned(&with_more)).is_satisfied());
            }
        }
    }
}

//! The one way in which evidence writes JSON (`docs/spec/forms.md`): a scanner that accepts it and nothing else.
//!
//! serde reads many spellings of one value: spaces, escapes, keys in any order or twice, `null`. Evidence that may be
//! written in several ways invites two readers to read it in two ways, so a verifier refuses all but one.

use std::borrow::Cow;

use crate::core::lineage::entry::COUNTER_MAX;

/// Objects and lists within each other. Entries need four, manifests five.
const DEPTH_MAX: usize = 16;

/// Whether `bytes` are one JSON value, written as `docs/spec/forms.md` says.
///
/// # Errors
/// What is written in another way.
pub fn check(bytes: &[u8]) -> Result<(), &'static str> {
    scan(bytes, None)
}

/// As [`check`], and lists stand only under these keys. serde reads `["a",1]` as the object of a struct with two fields,
/// so a value that is right where an object belongs may still be a list.
///
/// # Errors
/// What is written in another way.
pub fn check_with_lists_only_at(keys: &[&str], bytes: &[u8]) -> Result<(), &'static str> {
    scan(bytes, Some(keys))
}

fn scan(bytes: &[u8], lists: Option<&[&str]>) -> Result<(), &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8")?;
    let mut scanner = Scanner { text, at: 0, lists };
    if scanner.peek() == b'[' && lists.is_some() {
        return Err("a list where an object belongs");
    }
    scanner.value(DEPTH_MAX)?;
    if scanner.at == text.len() { Ok(()) } else { Err("something follows the JSON value") }
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// Keys whose value may be a list; without this, any value may.
    lists: Option<&'a [&'a str]>,
}

impl<'a> Scanner<'a> {
    fn peek(&self) -> u8 {
        // A zero byte stands in no canonical text, so it can mean the end.
        self.text.as_bytes().get(self.at).copied().unwrap_or_default()
    }

    /// Takes the next byte if it is this one.
    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == byte;
        self.at += usize::from(is_next);
        is_next
    }

    fn value(&mut self, depth: usize) -> Result<(), &'static str> {
        match self.peek() {
            b'{' => self.object(depth),
            b'[' => self.list(depth),
            b'"' => self.string().map(|_| ()),
            b'0'..=b'9' => self.number(),
            _ if self.text[self.at..].starts_with("true") => self.skip("true"),
            _ if self.text[self.at..].starts_with("false") => self.skip("false"),
            _ => Err("it has white space, null, or a number that is not whole"),
        }
    }

    fn skip(&mut self, word: &str) -> Result<(), &'static str> {
        self.at += word.len();
        Ok(())
    }

    fn object(&mut self, depth: usize) -> Result<(), &'static str> {
        let depth = depth.checked_sub(1).ok_or("it is nested too deep")?;
        self.at += 1;
        let mut before: Option<Cow<'a, str>> = None;
        while before.is_none() || self.take(b',') {
            if before.is_none() && self.take(b'}') {
                return Ok(());
            }
            let key = self.string()?;
            if before.is_some_and(|before| before >= key) {
                return Err("its keys are not sorted, or one stands twice");
            }
            before = Some(key);
            if !self.take(b':') {
                return Err("a key without a value, or white space");
            }
            let is_known = |lists: &[&str]| before.as_deref().is_some_and(|key| lists.contains(&key));
            if self.peek() == b'[' && !self.lists.is_none_or(is_known) {
                return Err("a list where an object or a text belongs");
            }
            self.value(depth)?;
        }
        if self.take(b'}') { Ok(()) } else { Err("an object does not end, or has white space") }
    }

    fn list(&mut self, depth: usize) -> Result<(), &'static str> {
        let depth = depth.checked_sub(1).ok_or("it is nested too deep")?;
        self.at += 1;
        if self.take(b']') {
            return Ok(());
        }
        loop {
            if self.peek() == b'[' && self.lists.is_some() {
                return Err("a list within a list");
            }
            self.value(depth)?;
            if !self.take(b',') {
                break;
            }
        }
        if self.take(b']') { Ok(()) } else { Err("a list does not end, or has white space") }
    }

    /// A string, decoded.
    fn string(&mut self) -> Result<Cow<'a, str>, &'static str> {
        let start = self.at;
        if !self.take(b'"') {
            return Err("a key is no string, or there is white space");
        }
        let mut is_plain = true;
        loop {
            match self.peek() {
                b'"' => break,
                0..0x20 => return Err("a string does not end, or has a control character"),
                b'\\' => {
                    is_plain = false;
                    self.at += 2;
                }
                _ => self.at += 1,
            }
        }
        self.at += 1;
        let quoted = self.text.get(start..self.at).ok_or("a string with a damaged escape")?;
        if is_plain {
            return Ok(Cow::Borrowed(&quoted[1..quoted.len() - 1]));
        }
        // serde_json writes the escapes that forms.md names, and no other.
        let decoded: String = serde_json::from_str(quoted).map_err(|_| "a string with a damaged escape")?;
        let is_needed = serde_json::to_string(&decoded).is_ok_and(|again| again == quoted);
        if is_needed { Ok(Cow::Owned(decoded)) } else { Err("a string with an escape that is not needed") }
    }

    fn number(&mut self) -> Result<(), &'static str> {
        let start = self.at;
        while self.peek().is_ascii_digit() {
            self.at += 1;
        }
        let digits = &self.text[start..self.at];
        let is_whole = !matches!(self.peek(), b'.' | b'e' | b'E') && (digits == "0" || !digits.starts_with('0'));
        let is_small = digits.parse::<u64>().is_ok_and(|value| value <= COUNTER_MAX);
        if is_whole && is_small { Ok(()) } else { Err("a number that is not whole, or not below 2^53") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling_passes() {
        for good in [
            r#"{}"#,
            r#"{"a":[],"b":{"c":[true,false,{"d":"x"}]},"v":9007199254740991}"#,
            r#"{"\"":0,"a\\b\n\u001f":"\t\b\f\r ü € 😀 / \u0000"}"#,
            r##"{"\"":1,"#":2}"##,
            "0",
            r#""""#,
        ] {
            assert_eq!(check(good.as_bytes()), Ok(()), "{good}");
        }
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(check(deep(DEPTH_MAX).as_bytes()).is_ok());
        assert!(check(deep(DEPTH_MAX + 1).as_bytes()).is_err());
        assert!(check(deep(100_000).as_bytes()).is_err());
    }

    #[test]
    fn lists_stand_only_where_they_belong() {
        let only_at_a = |text: &str| check_with_lists_only_at(&["a"], text.as_bytes()).is_ok();
        assert!(only_at_a(r#"{"a":[{"a":["x"]},1],"b":{"a":[]}}"#));
        assert!(!only_at_a(r#"{"b":[]}"#));
        assert!(!only_at_a(r#"{"a":{"b":["x"]}}"#));
        assert!(!only_at_a(r#"{"a":[1,["x"]]}"#));
        assert!(!only_at_a(r#"{"a":[["x"]]}"#));
        assert!(!only_at_a("[1]"));
        assert!(check(br#"{"b":[[]]}"#).is_ok());
    }

    #[test]
    fn every_other_spelling_is_refused() {
        for bad in [
            "",
            " {}",
            "{} ",
            "{}{}",
            r#"{"a" :1}"#,
            r#"{"a": 1}"#,
            r#"{"b":1,"a":2}"#,
            r#"{"a":1,"a":2}"#,
            r##"{"#":1,"\"":2}"##,
            r#"{"a":1,}"#,
            r#"{,"a":1}"#,
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{a:1}"#,
            "[1,]",
            "[,1]",
            "[1 ,2]",
            "[",
            "{",
            "\"",
            "\"\\",
            "\"\\\"",
            "null",
            r#"{"a":null}"#,
            "01",
            "-0",
            "-1",
            "+1",
            "1.0",
            "1e3",
            "9007199254740992",
            "99999999999999999999999",
            r#""\/""#,
            r#""\u0041""#,
            r#""\u000a""#,
            r#""\u001F""#,
            r#""\ud83d\ude00""#,
            r#""\ud83d""#,
            r#""\x""#,
            "\"\n\"",
            "\"\u{0}\"",
            "tru",
            "NaN",
        ] {
            assert!(check(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(check(b"\"\xff\"").is_err());
        assert!(check("\u{feff}{}".as_bytes()).is_err());
    }
}

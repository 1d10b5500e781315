//! The lines of a recipe that is being proposed: what is known, and what is asked.

use crate::core::recipe::open::QUESTION_MARK;

/// Longest line of a comment in characters.
const COMMENT_CHARS_MAX: usize = 118;

/// Lines of one table.
#[derive(Debug, Default)]
pub(super) struct Lines(String);

impl Lines {
    /// A key whose value is known; `why` stands above it, unless it is empty.
    pub(super) fn known(&mut self, key: &str, value: impl std::fmt::Display, why: &str) -> &mut Self {
        self.comment(why);
        self.0 += &format!("{key} = {value}\n");
        self
    }

    /// As [`Self::known`], of a text.
    pub(super) fn text(&mut self, key: &str, value: &str, why: &str) -> &mut Self {
        self.known(key, quoted(value), why)
    }

    /// A key whose value somebody must give; `help` stands above it.
    pub(super) fn ask(&mut self, key: &str, question: &str, help: &str) -> &mut Self {
        self.known(key, asked(question), help)
    }

    /// A comment, broken into lines.
    pub(super) fn comment(&mut self, text: &str) -> &mut Self {
        let mut line = String::new();
        for word in text.split_whitespace() {
            if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > COMMENT_CHARS_MAX {
                self.0 += &format!("# {line}\n");
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line += word;
        }
        if !line.is_empty() {
            self.0 += &format!("# {line}\n");
        }
        self
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A value that asks.
pub(super) fn asked(question: &str) -> String {
    quoted(&format!("{QUESTION_MARK} {question}"))
}

/// A TOML text. What comes from a model file may hold anything.
pub(super) fn quoted(text: &str) -> String {
    let mut literal = String::from("\"");
    for char in text.chars() {
        match char {
            '"' | '\\' => literal.extend(['\\', char]),
            char if char.is_control() => literal += &format!("\\u{:04X}", u32::from(char)),
            char => literal.push(char),
        }
    }
    literal.push('"');
    literal
}

/// A TOML array of texts.
pub(super) fn quoted_list(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| quoted(text)).collect::<Vec<_>>().join(", "))
}

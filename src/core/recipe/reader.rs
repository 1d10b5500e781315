//! Reads TOML key by key, so that every refusal names line, column and key, and no key stays unread.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    RecipeError, TEXT_BYTES_MAX,
    open::{self, Question},
};
use crate::types::{Blake3Digest, Score};

/// The parsed text with its positions.
pub(super) struct Document<'t> {
    text: &'t str,
    root: Spanned<DeTable<'t>>,
}

/// One table of the document. Each read removes nothing; `finish` refuses what no read asked for.
pub(super) struct Section<'d> {
    text: &'d str,
    path: String,
    table: &'d DeTable<'d>,
    span: Range<usize>,
    asked: Vec<&'static str>,
}

/// A value with the place it came from, so that later cross checks can point at it.
pub(super) struct Placed<'d> {
    text: &'d str,
    pub(super) key: String,
    value: &'d DeValue<'d>,
    span: Range<usize>,
}

impl<'t> Document<'t> {
    pub(super) fn parse(text: &'t str) -> Result<Self, RecipeError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(RecipeError::TooLong { bytes: text.len() });
        }
        let root = DeTable::parse(text).map_err(|error| {
            let (line, column) = place(text, error.span().map_or(0, |span| span.start));
            RecipeError::Syntax { line, column, problem: error.message().to_owned() }
        })?;
        Ok(Self { text, root })
    }

    /// What somebody still has to answer.
    pub(super) fn questions(&self) -> Vec<Question> {
        open::questions(self.text, self.root.get_ref())
    }

    pub(super) fn root(&self) -> Section<'_> {
        Section {
            text: self.text,
            path: String::new(),
            table: self.root.get_ref(),
            span: self.root.span(),
            asked: Vec::new(),
        }
    }
}

impl<'d> Section<'d> {
    /// The value of `key` if it is there.
    pub(super) fn optional(&mut self, key: &'static str) -> Option<Placed<'d>> {
        self.asked.push(key);
        self.get(key)
    }

    fn get(&self, key: &str) -> Option<Placed<'d>> {
        let value = self.table.get(key)?;
        Some(Placed { text: self.text, key: join(&self.path, key), value: value.get_ref(), span: value.span() })
    }

    pub(super) fn required(&mut self, key: &'static str) -> Result<Placed<'d>, RecipeError> {
        self.optional(key).ok_or_else(|| self.problem(key, "is missing".to_owned()))
    }

    /// A problem with `key` where there is no value to point at: points at the section.
    pub(super) fn problem(&self, key: &str, problem: String) -> RecipeError {
        let (line, column) = place(self.text, self.span.start);
        RecipeError::Key { line, column, key: join(&self.path, key), problem }
    }

    /// All keys, for tables whose keys are data.
    pub(super) fn entries(&self) -> impl Iterator<Item = Placed<'d>> + '_ {
        self.table.keys().filter_map(|key| self.get(key.get_ref()))
    }

    /// Refuses the first key that nobody asked for.
    pub(super) fn finish(self) -> Result<(), RecipeError> {
        for key in self.table.keys() {
            if !self.asked.contains(&key.get_ref().as_ref()) {
                let (line, column) = place(self.text, key.span().start);
                return Err(RecipeError::Key {
                    line,
                    column,
                    key: join(&self.path, key.get_ref()),
                    problem: format!("is not known here; known are {}", self.asked.join(", ")),
                });
            }
        }
        Ok(())
    }
}

impl<'d> Placed<'d> {
    pub(super) fn problem(&self, problem: impl Into<String>) -> RecipeError {
        let (line, column) = place(self.text, self.span.start);
        RecipeError::Key { line, column, key: self.key.clone(), problem: problem.into() }
    }

    /// The last part of the key.
    pub(super) fn name(&self, parent: &str) -> &str {
        self.key.strip_prefix(parent).map_or(&self.key, |rest| rest.trim_start_matches('.'))
    }

    pub(super) fn table(&self) -> Result<Section<'d>, RecipeError> {
        match self.value {
            DeValue::Table(table) => Ok(Section {
                text: self.text,
                path: self.key.clone(),
                table,
                span: self.span.clone(),
                asked: Vec::new(),
            }),
            other => Err(self.wrong_type("a table", other)),
        }
    }

    pub(super) fn array(&self, items_max: usize) -> Result<Vec<Placed<'d>>, RecipeError> {
        let DeValue::Array(items) = self.value else { return Err(self.wrong_type("an array", self.value)) };
        if items.is_empty() || items.len() > items_max {
            return Err(self.problem(format!("has {} items; 1 to {items_max} are allowed", items.len())));
        }
        Ok(items
            .iter()
            .enumerate()
            .map(|(index, item)| Placed {
                text: self.text,
                key: format!("{}[{index}]", self.key),
                value: item.get_ref(),
                span: item.span(),
            })
            .collect())
    }

    /// A text of 1 to `bytes_max` bytes without control characters.
    pub(super) fn text(&self, bytes_max: usize) -> Result<String, RecipeError> {
        let DeValue::String(text) = self.value else { return Err(self.wrong_type("a text", self.value)) };
        if text.is_empty() || text.len() > bytes_max {
            return Err(self.problem(format!("has {} bytes; 1 to {bytes_max} are allowed", text.len())));
        }
        if text.chars().any(char::is_control) {
            return Err(self.problem("holds a control character"));
        }
        Ok(text.clone().into_owned())
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, RecipeError> {
        let DeValue::String(text) = self.value else { return Err(self.wrong_type("a text", self.value)) };
        words.iter().find(|(word, _)| word == text).map(|(_, value)| *value).ok_or_else(|| {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.problem(format!("is {:?}; use one of {}", shortened(text), known.join(", ")))
        })
    }

    pub(super) fn digest(&self) -> Result<Blake3Digest, RecipeError> {
        let DeValue::String(text) = self.value else { return Err(self.wrong_type("a text", self.value)) };
        text.parse().map_err(|error: crate::types::DigestError| self.problem(error.to_string()))
    }

    pub(super) fn boolean(&self) -> Result<bool, RecipeError> {
        match self.value {
            DeValue::Boolean(value) => Ok(*value),
            other => Err(self.wrong_type("true or false", other)),
        }
    }

    /// A level of 255.
    pub(super) fn level(&self) -> Result<u8, RecipeError> {
        Ok(u8::try_from(self.integer(0..=255)?).expect("the range ends at 255"))
    }

    pub(super) fn integer(&self, allowed: std::ops::RangeInclusive<u64>) -> Result<u64, RecipeError> {
        let DeValue::Integer(integer) = self.value else { return Err(self.wrong_type("an integer", self.value)) };
        // Underscores are gone and the sign is kept in `as_str`; a negative number fails to parse as it should.
        let value = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        value
            .filter(|value| allowed.contains(value))
            .ok_or_else(|| self.problem(format!("is {}; {} to {} is allowed", integer, allowed.start(), allowed.end())))
    }

    pub(super) fn integer_u32(&self, allowed: std::ops::RangeInclusive<u32>) -> Result<u32, RecipeError> {
        let value = self.integer(u64::from(*allowed.start())..=u64::from(*allowed.end()))?;
        Ok(u32::try_from(value).expect("the range ends at a u32"))
    }

    /// A finite number within `allowed`, rounded to the nearest `f32`.
    pub(super) fn number(&self, allowed: std::ops::RangeInclusive<f32>) -> Result<f32, RecipeError> {
        let (value, written): (Option<f64>, &str) = match self.value {
            DeValue::Float(float) => (float.as_str().parse().ok(), float.as_str()),
            DeValue::Integer(integer) if integer.radix() == 10 => (integer.as_str().parse().ok(), integer.as_str()),
            other => return Err(self.wrong_type("a number", other)),
        };
        #[expect(clippy::cast_possible_truncation, reason = "thresholds and constants are 32-bit, as tensors are")]
        let value = value.map(|value| value as f32);
        value
            .filter(|value| value.is_finite() && allowed.contains(value))
            .ok_or_else(|| self.problem(format!("is {written}; {} to {} is allowed", allowed.start(), allowed.end())))
    }

    pub(super) fn score(&self, allowed: std::ops::RangeInclusive<f32>) -> Result<Score, RecipeError> {
        self.number(allowed).map(|value| Score::new(value).expect("`number` gives finite values"))
    }

    fn wrong_type(&self, wanted: &str, found: &DeValue<'_>) -> RecipeError {
        self.problem(format!("is {}; {wanted} is expected", found.type_str()))
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

/// Line and column, both from 1, columns in characters.
pub(super) fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

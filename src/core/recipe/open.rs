//! Open questions of a recipe: what `lineproof model add` could not know of a model, written where the answer belongs.
//!
//! A text that begins with `?` stands for an answer that somebody still has to give. A recipe with one is no recipe
//! yet: it would decide by a guess.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::reader::place;

/// What a text begins with that asks.
pub const QUESTION_MARK: char = '?';

/// A question at its place in the recipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// From 1.
    pub line: usize,
    /// Such as `policy.review`.
    pub key: String,
    pub question: String,
}

impl std::fmt::Display for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}, `{}`: {}", self.line, self.key, self.question)
    }
}

/// Every question of a document, in the order of its lines. `title` is for people and asks nothing.
pub(super) fn questions(text: &str, root: &DeTable<'_>) -> Vec<Question> {
    let mut found = Vec::new();
    for (key, value) in root {
        if key.get_ref() != "title" {
            walk(text, key.get_ref(), value, &mut found);
        }
    }
    found.sort_by_key(|question| question.line);
    found
}

fn walk(text: &str, key: &str, value: &Spanned<DeValue<'_>>, found: &mut Vec<Question>) {
    match value.get_ref() {
        DeValue::String(asked) => {
            if let Some(question) = asked.strip_prefix(QUESTION_MARK) {
                let (line, _) = place(text, value.span().start);
                found.push(Question { line, key: key.to_owned(), question: question.trim().to_owned() });
            }
        }
        DeValue::Array(items) => items.iter().for_each(|item| walk(text, key, item, found)),
        DeValue::Table(table) => {
            for (inner, value) in table {
                walk(text, &format!("{key}.{}", inner.get_ref()), value, found);
            }
        }
        _ => {}
    }
}

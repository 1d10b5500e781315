//! The names of a model's classes as labels of a recipe.

use super::{
    DraftError, Wishes,
    lines::{Lines, asked, quoted, quoted_list},
};
use crate::core::recipe::LABEL_BYTES_MAX;

/// The labels of a proposal, once they are known.
#[derive(Debug, PartialEq)]
pub(super) struct Labels {
    /// In the model's order; empty where they are asked for.
    pub(super) names: Vec<String>,
    /// Classes of the model, as far as its shapes tell.
    pub(super) count: Option<usize>,
    /// How names were changed, or why they are asked for.
    note: String,
}

impl Labels {
    /// From what the user gave, else from what the file says.
    ///
    /// # Errors
    /// When the numbers do not agree or there are more than a recipe of `kind` may have.
    pub(super) fn new(
        wishes: &Wishes,
        from_file: Option<Vec<String>>,
        count: Option<usize>,
        most: usize,
        kind: &str,
    ) -> Result<Self, DraftError> {
        let given = wishes.labels.clone().or(from_file);
        let count = count.or(given.as_ref().map(Vec::len));
        if let Some(count) = count.filter(|count| *count > most) {
            return Err(DraftError::TooManyLabels { count, most, kind: kind.to_owned() });
        }
        let Some(given) = given else {
            return Ok(Self { names: Vec::new(), count, note: String::new() });
        };
        if let Some(count) = count.filter(|count| *count != given.len()) {
            return Err(DraftError::OtherLabels { count, given: given.len() });
        }
        let names: Vec<String> = given.iter().map(|name| cleaned(name)).collect();
        let is_unlike = |(at, name): (usize, &String)| !name.is_empty() && !names[..at].contains(name);
        if !names.iter().enumerate().all(is_unlike) {
            let note =
                format!("The file calls its classes {}, which as labels would be alike or empty.", given.join(", "));
            return Ok(Self { names: Vec::new(), count, note });
        }
        let changed: Vec<String> = given
            .iter()
            .zip(&names)
            .filter(|(from, to)| from != to)
            .map(|(from, to)| format!("{from:?} is {to}"))
            .collect();
        let note = match changed.as_slice() {
            [] => String::new(),
            changed => format!("Labels have letters, digits, '.', '_' and '-' only: {}.", changed.join(", ")),
        };
        Ok(Self { names, count, note })
    }

    pub(super) fn write(&self, lines: &mut Lines) {
        if !self.names.is_empty() {
            lines.known("labels", quoted_list(&self.names), &self.note);
            return;
        }
        let question = match self.count {
            Some(1) => "what is the one class called?".to_owned(),
            Some(count) => format!("what are the {count} classes called, in the order of the model's output?"),
            None => "what are the classes called, in the order of the model's output?".to_owned(),
        };
        let question = asked(&question);
        lines.known(
            "labels",
            format!("[{question}]"),
            &format!("{} One name for each, as `--labels FILE` gives them.", self.note),
        );
    }

    /// Asks in `[policy]` what no defect is, where nobody said it and it is not plain.
    pub(super) fn ask_roles(&self, wishes: &Wishes, policy: &mut Lines) {
        // The only label of a model must be a defect.
        if wishes.ok_labels.is_none() && self.count != Some(1) {
            policy.ask(
                "class",
                "which labels are no defect?",
                "Take this line out, and for each label that is no defect, such as a good part, write two lines at the end: \
                 [policy.class.\"LABEL\"] and role = \"ok\". If all of them are defects, just take it out.",
            );
        }
    }

    /// The tables of the labels that are no defect.
    ///
    /// # Errors
    /// When one that is said to be good is none of the model's.
    pub(super) fn role_tables(&self, wishes: &Wishes) -> Result<String, DraftError> {
        let mut tables = String::new();
        for label in wishes.ok_labels.iter().flatten() {
            let label = cleaned(label);
            if !self.names.contains(&label) {
                return Err(DraftError::NoSuchLabel { label, labels: self.names.join(", ") });
            }
            tables += &format!("\n[policy.class.{}]\nrole = \"ok\"\n", quoted(&label));
        }
        Ok(tables)
    }
}

/// As a label may be written; empty if nothing is left.
fn cleaned(name: &str) -> String {
    let allowed = |char: char| if char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-') { char } else { '-' };
    name.trim().chars().map(allowed).take(LABEL_BYTES_MAX).collect()
}

/// The texts of `{0: 'good', 1: "a dent"}`, as Python's `repr` writes a dictionary of names by number; `None` if it is
/// anything else, or a number is missing.
pub(super) fn python_names(text: &str) -> Option<Vec<String>> {
    let mut rest = text.trim().strip_prefix('{')?;
    let mut names = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix('}') {
            return (after.trim().is_empty() && !names.is_empty()).then_some(names);
        }
        let (number, after) = rest.split_once(':')?;
        if number.trim().parse() != Ok(names.len()) {
            return None;
        }
        let (name, after) = python_text(after.trim_start())?;
        names.push(name);
        rest = after.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

/// A text in Python's quotes, and what follows it.
fn python_text(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|char| matches!(char, '\'' | '"'))?;
    let mut name = String::new();
    let mut chars = text[1..].char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => match chars.next()?.1 {
                same @ ('\\' | '\'' | '"') => name.push(same),
                // Line breaks and the like have no place in a label.
                _ => return None,
            },
            char if char == quote => return Some((name, &text[1 + at + 1..])),
            char => name.push(char),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_python_writes_them() {
        let read = |text| python_names(text).map(|names| names.join("|"));
        assert_eq!(read("{0: 'scratch', 1: 'dent'}").as_deref(), Some("scratch|dent"));
        assert_eq!(read(r#"{0: "worker's glove", 1: 'a \'b\' \\'}"#).as_deref(), Some(r"worker's glove|a 'b' \"));
        assert_eq!(read("{0: 'Kratzer, tief: 1', 1: 'größe'}").as_deref(), Some("Kratzer, tief: 1|größe"));
        for wrong in
            ["", "{}", "['a']", "{1: 'a'}", "{0: 'a', 2: 'b'}", "{0: 'a", "{0: a}", "{0: 'a'} and more", "{0: '\\x41'}"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn labels_are_cleaned_and_never_made_alike() {
        let labels = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            Labels::new(&Wishes::default(), Some(names), None, 16, "detection").unwrap()
        };
        let some = labels(&["traffic light", "dent"]);
        assert_eq!(some.names, ["traffic-light", "dent"]);
        assert!(some.note.contains("\"traffic light\" is traffic-light"), "{}", some.note);
        assert!(labels(&["a b", "a-b"]).names.is_empty());
        assert!(labels(&["", "b"]).names.is_empty());
    }
}

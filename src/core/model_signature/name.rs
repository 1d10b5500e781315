//! The name of a signed file: its path below the folder.

use std::{fmt, str::FromStr};

use super::SignatureError;

/// A path below the folder with `/` between its parts, and in one form only: no empty part, no `.`, no `..`. In order of its code
/// points, as the specification has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceName(String);

impl ResourceName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `other` or lies below it.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.strip_prefix(&other.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl FromStr for ResourceName {
    type Err = SignatureError;

    fn from_str(text: &str) -> Result<Self, SignatureError> {
        let is_part = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
        let holds = text.split('/').all(is_part);
        if holds { Ok(Self(text.to_owned())) } else { Err(SignatureError::Name(text.chars().take(160).collect())) }
    }
}

impl fmt::Display for ResourceName {
    /// As a terminal may show it: a name may hold line breaks.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            if char.is_control() { write!(f, "{}", char.escape_debug())? } else { write!(f, "{char}")? }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stays_below_its_folder_and_has_one_form() {
        for wrong in ["", ".", "..", "/etc/passwd", "a//b", "a/../b", "a/./b", "a/", "a\0b"] {
            assert!(wrong.parse::<ResourceName>().is_err(), "{wrong:?}");
        }
        for right in ["model.onnx", ".hidden/f", "sub dir/ä b.txt", "...", "a:0:1", "a\\b"] {
            assert_eq!(right.parse::<ResourceName>().unwrap().as_str(), right);
        }
    }

    #[test]
    fn names_are_sorted_by_code_points_and_a_folder_holds_only_what_lies_below_it() {
        let name = |text: &str| text.parse::<ResourceName>().unwrap();
        let mut names = [name("a.d/f"), name("a/z"), name("ä"), name("a-d/f"), name("Z")];
        names.sort();
        assert_eq!(names.map(|name| name.0), ["Z", "a-d/f", "a.d/f", "a/z", "ä"]);
        assert!(name(".git/x").is_within(&name(".git")) && name(".git").is_within(&name(".git")));
        assert!(!name(".gitignore").is_within(&name(".git")));
        assert_eq!(name("a\nb").to_string(), "a\\nb");
    }
}

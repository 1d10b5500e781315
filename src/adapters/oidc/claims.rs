//! What a verified token says: who it is from, and which roles that gives.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::invalid;
use crate::{
    ports::access::{TokenError, TokenIdentity},
    types::Instant,
};

/// Longest subject in bytes: OpenID Connect Core 1.0, section 2, allows 255.
const SUBJECT_BYTES_MAX: usize = 255;
/// Longest readable name in characters; more is cut off.
const NAME_CHARS_MAX: usize = 128;

/// Which claim holds roles, and what its values mean.
pub(super) struct RoleRule {
    pub claim: String,
    pub names: BTreeMap<String, String>,
}

/// Of any shape, so that whatever is wrong is refused by its name.
#[derive(Deserialize)]
pub(super) struct Claims {
    #[serde(default)]
    iss: Value,
    #[serde(default)]
    sub: Value,
    #[serde(default)]
    exp: Value,
    #[serde(default)]
    iat: Value,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

impl Claims {
    /// What jsonwebtoken does not check. `latest` is now with the leeway, in seconds since 1970.
    pub fn check(&self, issuer: &str, latest: u64) -> Result<(), TokenError> {
        // One issuer, as a text: a list with the right one among others is no match.
        if self.iss.as_str() != Some(issuer) {
            return Err(invalid("it is of another issuer"));
        }
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^52")]
        if !self.iat.is_null() && !self.iat.as_f64().is_some_and(|iat| (0.0..=latest as f64).contains(&iat)) {
            return Err(invalid("it was issued in the future, or its `iat` cannot be read; compare the clocks"));
        }
        // An ID token tells a client who logged in; it is signed by the same keys and no access token. Only those have
        // `at_hash` (OpenID Connect Core 1.0, section 3.1.3.6); Keycloak says it in `typ`.
        let typ = self.others.get("typ").and_then(Value::as_str);
        if self.others.contains_key("at_hash") || typ.is_some_and(|typ| typ.eq_ignore_ascii_case("id")) {
            return Err(invalid("it is an ID token; send the access token"));
        }
        Ok(())
    }

    pub fn identity(&self, rule: &RoleRule) -> Result<TokenIdentity, TokenError> {
        let is_text = |text: &str| !text.is_empty() && !text.chars().any(char::is_control);
        let subject = self.sub.as_str().filter(|text| text.len() <= SUBJECT_BYTES_MAX && is_text(text));
        let wrong = || invalid(format!("its `sub` is not 1 to {SUBJECT_BYTES_MAX} printable characters"));
        let subject = subject.ok_or_else(wrong)?.to_owned();
        #[expect(clippy::cast_possible_truncation, reason = "`as` keeps to the range")]
        let nanos = (self.exp.as_f64().unwrap_or_default() * 1e9) as i64;
        let expires = Instant::from_unix_nanos(nanos.max(0)).unwrap_or(Instant::EPOCH);
        let issuer = self.iss.as_str().unwrap_or_default().to_owned();
        Ok(TokenIdentity { name: self.name(), roles: self.roles(rule), issuer, subject, expires })
    }

    /// OpenID Connect Core 1.0, section 5.1.
    fn name(&self) -> Option<String> {
        let claim = |name: &str| self.others.get(name).and_then(Value::as_str);
        let name = ["name", "preferred_username", "email"].into_iter().find_map(claim)?;
        let shown =
            |c: &char| !c.is_control() && !matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        let name: String = name.chars().filter(shown).take(NAME_CHARS_MAX).collect();
        (!name.trim().is_empty()).then_some(name)
    }

    fn roles(&self, rule: &RoleRule) -> Vec<String> {
        let words: Vec<&str> = match self.claim(&rule.claim) {
            Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).collect(),
            // As `scope` is written: RFC 6749, section 3.3.
            Some(Value::String(text)) => text.split(' ').collect(),
            _ => Vec::new(),
        };
        let ours: BTreeSet<&String> = words.into_iter().filter_map(|word| rule.names.get(word)).collect();
        ours.into_iter().cloned().collect()
    }

    /// A claim by its name, which may hold dots itself, or by a path of names.
    fn claim(&self, path: &str) -> Option<&Value> {
        if let Some(whole) = self.others.get(path) {
            return Some(whole);
        }
        let mut steps = path.split('.');
        let first = self.others.get(steps.next()?)?;
        steps.try_fold(first, |value, step| value.get(step))
    }
}

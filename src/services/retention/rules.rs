//! Retention classes: which decisions are of one, and how long what is kept of them.

use crate::{
    ports::archive::RetentionClass,
    types::{Instant, ProductId, Verdict},
};

const DAY_NANOS: i64 = 86_400_000_000_000;
/// What is written at midnight may still be under way.
const GRACE_NANOS: i64 = 3_600_000_000_000;

/// A class with its periods. A decision is of the first class that takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClassRule {
    pub class: RetentionClass,
    /// Any of these; empty: any.
    pub verdicts: Vec<Verdict>,
    /// Any of these; empty: any.
    pub products: Vec<ProductId>,
    /// Full days that images are kept after the day of their decision; `None`: for ever.
    pub images_days: Option<u32>,
    /// The same for serial numbers, lots and who sent the frame.
    pub private_days: Option<u32>,
    /// The operator's words, for the log.
    pub basis: String,
}

impl ClassRule {
    #[must_use]
    pub fn takes(&self, verdict: Verdict, product: &ProductId) -> bool {
        (self.verdicts.is_empty() || self.verdicts.contains(&verdict))
            && (self.products.is_empty() || self.products.contains(product))
    }

    /// The rule as the log states it. Another rule has another text.
    pub(super) fn text(&self, what: &str, days: u32) -> String {
        let mut text = format!("{what} of class {} are kept {days} days", self.class.as_str());
        if !self.basis.is_empty() {
            text.push_str(&format!(" ({})", self.basis));
        }
        text
    }
}

/// The first class that takes a decision.
#[must_use]
pub fn class_of<'r>(rules: &'r [ClassRule], verdict: Verdict, product: &ProductId) -> Option<&'r ClassRule> {
    rules.iter().find(|rule| rule.takes(verdict, product))
}

/// The midnight before which everything is older than so many full days at `now`.
pub(super) fn before(now: Instant, days: u32) -> Instant {
    let nanos = now.unix_nanos() - GRACE_NANOS - i64::from(days) * DAY_NANOS;
    Instant::from_unix_nanos(nanos.max(0) / DAY_NANOS * DAY_NANOS).expect("not below zero")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_goes_when_it_and_the_period_are_over_and_not_at_midnight_itself() {
        let at = |text: &str| text.parse::<Instant>().unwrap();
        assert_eq!(before(at("2026-11-25T12:00:00Z"), 0), at("2026-11-25T00:00:00Z"));
        assert_eq!(before(at("2026-11-25T00:59:59Z"), 0), at("2026-11-24T00:00:00Z"));
        assert_eq!(before(at("2026-11-25T12:00:00Z"), 30), at("2026-10-26T00:00:00Z"));
        assert_eq!(before(at("1970-01-02T00:00:00Z"), 30), Instant::EPOCH);
    }

    #[test]
    fn a_decision_is_of_the_first_class_that_takes_it() {
        let rule = |name: &str, verdicts: &[Verdict], products: &[&str]| ClassRule {
            class: RetentionClass::new(name).unwrap(),
            verdicts: verdicts.to_vec(),
            products: products.iter().map(|product| product.parse().unwrap()).collect(),
            images_days: None,
            private_days: None,
            basis: String::new(),
        };
        let rules =
            [rule("a", &[Verdict::NotOk], &["flange"]), rule("b", &[Verdict::NotOk], &[]), rule("c", &[], &["gear"])];
        let name = |verdict, product: &str| {
            class_of(&rules, verdict, &product.parse().unwrap()).map(|rule| rule.class.as_str().to_owned())
        };
        assert_eq!(name(Verdict::NotOk, "flange").as_deref(), Some("a"));
        assert_eq!(name(Verdict::NotOk, "gear").as_deref(), Some("b"));
        assert_eq!(name(Verdict::Ok, "gear").as_deref(), Some("c"));
        assert_eq!(name(Verdict::Ok, "flange"), None);
    }
}

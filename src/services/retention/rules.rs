//! Retention classes: which decisions are of one, and how long what is kept of them.

use crate::{
    ports::archive::RetentionClass,
    types::{Blake3Digest, Instant, ProductId, Verdict},
};

const DAY_NANOS: i64 = 86_400_000_000_000;
/// What is written at midnight may still be under way.
const GRACE_NANOS: i64 = 3_600_000_000_000;
/// Hexadecimal digits of the digest that tells one selection of decisions from another.
const SELECTION_DIGITS: usize = 16;

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

    /// The rule for images as the log states it.
    pub(super) fn text_of_images(&self, days: u32) -> String {
        format!("images of class {} are kept {days} days{}", self.class.as_str(), self.basis_in_brackets())
    }

    /// The rule for private values as the log states it. A rule that takes other decisions has another text.
    pub(super) fn text_of_private(&self, rules: &[Self], days: u32) -> String {
        let (class, basis) = (self.class.as_str(), self.basis_in_brackets());
        format!("private values of class {class} are kept {days} days{basis}, selection {}", self.selection(rules))
    }

    fn basis_in_brackets(&self) -> String {
        if self.basis.is_empty() { String::new() } else { format!(" ({})", self.basis) }
    }

    /// A short digest of everything that decides which decisions the class takes: its verdicts and products, and those
    /// of the classes before it.
    fn selection(&self, rules: &[Self]) -> String {
        let mut text = String::new();
        for rule in rules.iter().take_while(|rule| *rule != self).chain([self]) {
            let verdicts: Vec<&str> = rule.verdicts.iter().map(|verdict| verdict.name()).collect();
            let products: Vec<&str> = rule.products.iter().map(ProductId::as_str).collect();
            text.push_str(&format!("{}\n{}\n", verdicts.join("\t"), products.join("\t")));
        }
        let mut digest = Blake3Digest::of(text.as_bytes()).hex();
        digest.truncate(SELECTION_DIGITS);
        digest
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

    fn rule(name: &str, verdicts: &[Verdict], products: &[&str]) -> ClassRule {
        ClassRule {
            class: RetentionClass::new(name).unwrap(),
            verdicts: verdicts.to_vec(),
            products: products.iter().map(|product| product.parse().unwrap()).collect(),
            images_days: None,
            private_days: None,
            basis: String::new(),
        }
    }

    #[test]
    fn a_rule_that_takes_other_decisions_has_another_text() {
        let text = |rules: &[ClassRule]| {
            let rule = rules.iter().find(|rule| rule.class.as_str() == "b").unwrap();
            rule.text_of_private(rules, 30)
        };
        let [a, b, c] =
            [rule("a", &[Verdict::NotOk], &["flange"]), rule("b", &[Verdict::NotOk], &[]), rule("c", &[], &["gear"])];
        let before = text(&[a.clone(), b.clone(), c.clone()]);
        assert!(before.starts_with("private values of class b are kept 30 days, selection "), "{before}");
        // Wider itself, another order, an earlier class that takes less or that is gone.
        let wider = ClassRule { verdicts: vec![Verdict::NotOk, Verdict::NotDecidable], ..b.clone() };
        let of_gears = ClassRule { products: vec!["gear".parse().unwrap()], ..b.clone() };
        let narrower = ClassRule { verdicts: vec![Verdict::NotDecidable], ..a.clone() };
        let others = [
            vec![a.clone(), wider],
            vec![a.clone(), of_gears],
            vec![b.clone(), a.clone()],
            vec![a.clone(), c.clone(), b.clone()],
            vec![narrower, b.clone()],
            vec![b.clone()],
        ];
        others.iter().for_each(|rules| assert_ne!(text(rules), before, "{rules:?}"));
        // What comes after it, and how long an earlier class keeps, does not matter.
        assert_eq!(text(&[ClassRule { private_days: Some(9), ..a }, b]), before);
        let longest = ClassRule { basis: "x".repeat(256), ..c };
        let all = [longest.clone()];
        assert!(longest.text_of_private(&all, 36_525).len() <= crate::services::retention::RULE_BYTES_MAX);
    }

    #[test]
    fn a_decision_is_of_the_first_class_that_takes_it() {
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

//! What the configuration gives to somebody beyond their certificate or token: roles, stations, and for auditors the customers
//! and periods they may see.

use std::collections::{BTreeSet, HashMap};

use super::{Identity, Kind, Stations};
use crate::types::{Instant, LineId, ProductId, Role, Roles, StationId};

/// Roles that see everything; the others that may ask see what was granted.
const SEES_ALL: Roles = Roles::of(&[Role::Qa, Role::Reviewer]);

/// One grant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    pub roles: Roles,
    pub stations: Vec<(LineId, StationId)>,
    /// What an auditor may see; none: nothing.
    pub view: Option<View>,
}

/// Decisions that somebody may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub products: BTreeSet<ProductId>,
    /// Decided at or after.
    pub from: Option<Instant>,
    /// Decided before.
    pub to: Option<Instant>,
}

/// The decisions somebody may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    All,
    Granted(Vec<View>),
}

/// Every grant of the configuration, by the name of whom it is for.
#[derive(Clone, Debug, Default)]
pub struct Grants(HashMap<String, Vec<Grant>>);

/// Why a question is not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotGranted {
    #[error("no customer and no period is granted to you; an administrator does with [[access.grant]]")]
    Nothing,
    #[error("{product} is not among the products that are granted to you: {granted}")]
    Product { product: ProductId, granted: String },
    #[error("name one of the products that are granted to you: {granted}")]
    NameOne { granted: String },
    #[error("this period is not granted to you for {product}")]
    Period { product: ProductId },
    #[error("several periods are granted to you for {product}; ask for one of them")]
    Periods { product: ProductId },
}

/// What to ask instead: a question within what is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Narrowed {
    pub product: Option<ProductId>,
    pub from: Option<Instant>,
    pub to: Option<Instant>,
}

impl Grants {
    pub fn add(&mut self, name: String, grant: Grant) {
        self.0.entry(name).or_default().push(grant);
    }

    /// The identity with what is granted to it.
    #[must_use]
    pub fn complete(&self, mut identity: Identity) -> Identity {
        let own = self.0.get(&identity.name).map(Vec::as_slice).unwrap_or_default();
        let roles = own.iter().fold(identity.roles, |roles, grant| roles.with(grant.roles));
        identity.roles = match identity.kind {
            // A line PC is nobody who reads, and a person no line PC, whatever somebody wrote.
            Kind::Station => Roles::of(&[Role::Line]),
            Kind::Person => roles.without(Role::Line),
            Kind::Service | Kind::Operator | Kind::Local => roles,
        };
        if let Stations::Only(stations) = &mut identity.stations {
            stations.extend(own.iter().flat_map(|grant| grant.stations.iter().cloned()));
        }
        if let Scope::Granted(views) = &mut identity.scope {
            views.extend(own.iter().filter_map(|grant| grant.view.clone()));
        }
        if identity.roles.has_any(SEES_ALL) {
            identity.scope = Scope::All;
        }
        identity
    }
}

impl View {
    fn has_time(&self, time: Instant) -> bool {
        self.from.is_none_or(|from| from <= time) && self.to.is_none_or(|to| time < to)
    }

    /// The part of `from..to` that is within; none if nothing is.
    fn overlap(&self, from: Option<Instant>, to: Option<Instant>) -> Option<(Option<Instant>, Option<Instant>)> {
        let from = from.max(self.from);
        let to = match (to, self.to) {
            (Some(asked), Some(granted)) => Some(asked.min(granted)),
            (asked, granted) => asked.or(granted),
        };
        let is_empty = from.zip(to).is_some_and(|(from, to)| from >= to);
        (!is_empty).then_some((from, to))
    }
}

impl Scope {
    /// Whether a decision may be seen.
    #[must_use]
    pub fn admits(&self, product: &ProductId, time: Instant) -> bool {
        match self {
            Self::All => true,
            Self::Granted(views) => views.iter().any(|view| view.products.contains(product) && view.has_time(time)),
        }
    }

    /// The question within what is granted: the product filled in where there is one, the period cut.
    ///
    /// # Errors
    /// [`NotGranted`], with what to ask.
    pub fn narrow(
        &self,
        product: Option<&ProductId>,
        from: Option<Instant>,
        to: Option<Instant>,
    ) -> Result<Narrowed, NotGranted> {
        let Self::Granted(views) = self else { return Ok(Narrowed { product: product.cloned(), from, to }) };
        let products: BTreeSet<&ProductId> = views.iter().flat_map(|view| &view.products).collect();
        let granted = || products.iter().map(|product| product.as_str()).collect::<Vec<_>>().join(", ");
        let product = match product {
            _ if products.is_empty() => return Err(NotGranted::Nothing),
            Some(product) if products.contains(product) => product,
            Some(product) => return Err(NotGranted::Product { product: product.clone(), granted: granted() }),
            None if products.len() == 1 => products.first().copied().expect("there is one"),
            None => return Err(NotGranted::NameOne { granted: granted() }),
        };
        let of_product = views.iter().filter(|view| view.products.contains(product));
        let mut periods: Vec<_> = of_product.filter_map(|view| view.overlap(from, to)).collect();
        periods.sort_unstable();
        periods.dedup();
        let product = product.clone();
        match periods[..] {
            [] => Err(NotGranted::Period { product }),
            [(from, to)] => Ok(Narrowed { product: Some(product), from, to }),
            _ => Err(NotGranted::Periods { product }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Instant {
        Instant::from_unix_nanos(s * 1_000_000_000).unwrap()
    }

    fn view(products: &[&str], from: Option<i64>, to: Option<i64>) -> View {
        let products = products.iter().map(|product| product.parse().unwrap()).collect();
        View { products, from: from.map(at), to: to.map(at) }
    }

    fn product(name: &str) -> ProductId {
        name.parse().unwrap()
    }

    #[test]
    fn an_auditor_sees_what_is_granted_and_no_more() {
        let scope = Scope::Granted(vec![view(&["a"], Some(10), Some(20)), view(&["b"], None, None)]);
        assert!(scope.admits(&product("a"), at(10)) && !scope.admits(&product("a"), at(20)));
        assert!(scope.admits(&product("b"), at(1)) && !scope.admits(&product("c"), at(15)));
        let narrow = |name: &str, from: Option<i64>, to: Option<i64>| {
            scope.narrow(Some(&product(name)), from.map(at), to.map(at))
        };
        let within = |from, to| Ok(Narrowed { product: Some(product("a")), from: Some(at(from)), to: Some(at(to)) });
        assert_eq!(narrow("a", None, None), within(10, 20));
        assert_eq!(narrow("a", Some(5), Some(15)), within(10, 15));
        assert_eq!(narrow("a", Some(12), Some(99)), within(12, 20));
        assert_eq!(narrow("a", Some(20), None), Err(NotGranted::Period { product: product("a") }));
        assert!(matches!(narrow("c", None, None), Err(NotGranted::Product { .. })));
        let error = scope.narrow(None, None, None).unwrap_err();
        assert_eq!(error.to_string(), "name one of the products that are granted to you: a, b");
        assert_eq!(Scope::Granted(Vec::new()).narrow(None, None, None), Err(NotGranted::Nothing));
        let one = Scope::Granted(vec![view(&["a"], None, None)]);
        assert_eq!(one.narrow(None, None, None).unwrap().product, Some(product("a")));
    }

    #[test]
    fn of_two_periods_one_is_asked_for() {
        let scope = Scope::Granted(vec![view(&["a"], Some(10), Some(20)), view(&["a"], Some(30), Some(40))]);
        assert_eq!(scope.narrow(None, None, None), Err(NotGranted::Periods { product: product("a") }));
        assert_eq!(scope.narrow(None, Some(at(25)), None).unwrap().from, Some(at(30)));
        assert!(!scope.admits(&product("a"), at(25)));
    }

    #[test]
    fn grants_complete_people_and_never_make_a_line_pc_of_them() {
        let mut grants = Grants::default();
        let all = Role::ALL.into_iter().collect();
        let stations = vec![("l".parse().unwrap(), "s".parse().unwrap())];
        grants.add("x".into(), Grant { roles: all, stations, view: None });
        let named = |kind| {
            let (stations, scope) = (Stations::Only(Vec::new()), Scope::Granted(Vec::new()));
            Identity { name: "x".into(), kind, roles: Roles::NONE, stations, scope }
        };
        assert_eq!(grants.complete(named(Kind::Station)).roles, Roles::of(&[Role::Line]));
        let person = grants.complete(named(Kind::Person));
        assert!(!person.roles.has(Role::Line) && person.roles.has(Role::Qa));
        assert_eq!(person.scope, Scope::All, "by the role qa");
        let service = grants.complete(named(Kind::Service));
        assert!(service.may_speak_for(&"l".parse().unwrap(), &"s".parse().unwrap()));
        let stranger = grants.complete(Identity { name: "y".into(), ..named(Kind::Service) });
        assert_eq!((stranger.roles, stranger.scope), (Roles::NONE, Scope::Granted(Vec::new())));
    }
}

//! The grants of a configuration.

use std::collections::BTreeSet;

use super::{Config, GrantConfig};
use crate::{
    core::access::{Grant, Grants, NAME_BYTES_MAX, View},
    types::{Instant, LineId, ProductId, StationId},
};

/// Grants of one plant.
const GRANTS_MAX: usize = 4096;
const DAY_NANOS: i64 = 86_400_000_000_000;

/// Every grant, by whom it is for.
///
/// # Errors
/// What is wrong with one, and whose it is.
pub fn grants(config: &Config) -> Result<Grants, String> {
    let all = &config.access.grants;
    if all.len() > GRANTS_MAX {
        return Err(format!("at most {GRANTS_MAX} grants"));
    }
    let mut grants = Grants::default();
    for grant in all {
        let read = read(config, grant).map_err(|reason| format!("{}: {reason}", grant.name))?;
        grants.add(grant.name.clone(), read);
    }
    Ok(grants)
}

fn read(config: &Config, grant: &GrantConfig) -> Result<Grant, String> {
    if grant.name.is_empty() || grant.name.len() > NAME_BYTES_MAX {
        return Err(format!("a name has 1 to {NAME_BYTES_MAX} bytes"));
    }
    let stations = grant.stations.iter().map(|text| {
        let (line, station) = text.split_once('/').ok_or_else(|| format!("{text:?} is no LINE/STATION"))?;
        let line: LineId = line.parse().map_err(|error| format!("{text:?}: {error}"))?;
        let station: StationId = station.parse().map_err(|error| format!("{text:?}: {error}"))?;
        let is_known = config.stations.iter().any(|known| known.line == line && known.station == station);
        if is_known { Ok((line, station)) } else { Err(format!("{text:?} is no [[station]]")) }
    });
    let mut products: BTreeSet<ProductId> = grant.products.iter().cloned().collect();
    for customer in &grant.customers {
        let of_customer = config.products.iter().filter(|product| product.customer.as_ref() == Some(customer));
        let before = products.len();
        products.extend(of_customer.map(|product| product.product.clone()));
        if products.len() == before {
            return Err(format!("no [[product]] is made for customer {customer:?}"));
        }
    }
    let from = grant.from.as_deref().map(|day| midnight(day, 0)).transpose()?;
    let to = grant.to.as_deref().map(|day| midnight(day, 1)).transpose()?;
    if from.zip(to).is_some_and(|(from, to)| from >= to) {
        return Err("it ends before it begins".into());
    }
    let view = (!products.is_empty()).then_some(View { products, from, to });
    if view.is_none() && (from.is_some() || to.is_some()) {
        return Err("a period needs customers or products".into());
    }
    Ok(Grant { roles: grant.roles.iter().copied().collect(), stations: stations.collect::<Result<_, _>>()?, view })
}

/// The beginning of a day in UTC, so many days later.
fn midnight(day: &str, later: i64) -> Result<Instant, String> {
    let date: jiff::civil::Date = day.parse().map_err(|_| format!("{day:?} is no day, such as 2026-01-31"))?;
    let start = jiff::tz::TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).map_err(|error| error.to_string())?;
    let nanos = start.as_second().checked_mul(1_000_000_000);
    let nanos = nanos.and_then(|nanos| nanos.checked_add(later * DAY_NANOS));
    let nanos = nanos.ok_or_else(|| format!("{day} is outside the years 1970 to 2262"))?;
    Instant::from_unix_nanos(nanos).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        app::config::template,
        core::access::{Identity, Kind, Scope, Stations},
        types::{Role, Roles},
    };

    fn with(grant: &str) -> Result<Config, String> {
        let text = template("Werk", &"l".parse().unwrap(), &"s".parse().unwrap(), &"c".parse().unwrap());
        let text = text.replace("# customer = \"oem-a\"", "customer = \"oem-a\"");
        let text = format!("{text}\n[[access.grant]]\nname = \"spiffe://p.example/person/a\"\n{grant}\n");
        Config::parse(Path::new("lineproof.toml"), &text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_customer_is_its_products_and_a_period_whole_days() {
        let config =
            with("roles = [\"auditor\"]\ncustomers = [\"oem-a\"]\nfrom = \"2026-01-01\"\nto = \"2026-01-31\"").unwrap();
        let (roles, scope) = (Roles::NONE, Scope::Granted(Vec::new()));
        let (name, stations) = ("spiffe://p.example/person/a".to_owned(), Stations::Only(Vec::new()));
        let identity = Identity { name, kind: Kind::Person, roles, stations, scope };
        let identity = grants(&config).unwrap().complete(identity);
        assert_eq!(identity.roles, Roles::of(&[Role::Auditor]));
        let at = |text: &str| {
            Instant::from_unix_nanos(text.parse::<jiff::Timestamp>().unwrap().as_second() * 1_000_000_000).unwrap()
        };
        let admits = |time| identity.scope.admits(&"demo-part".parse().unwrap(), at(time));
        assert!(admits("2026-01-01T00:00:00Z") && admits("2026-01-31T23:59:59Z"));
        assert!(!admits("2026-02-01T00:00:00Z") && !admits("2025-12-31T23:59:59Z"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_whose_it_is() {
        for (grant, reason) in [
            ("customers = [\"oem-b\"]", "no [[product]] is made for"),
            ("stations = [\"l/other\"]", "no [[station]]"),
            ("stations = [\"l\"]", "no LINE/STATION"),
            ("from = \"2026-01-01\"", "needs customers or products"),
            ("products = [\"demo-part\"]\nfrom = \"2026-02-01\"\nto = \"2026-01-01\"", "ends before it begins"),
            ("products = [\"demo-part\"]\nfrom = \"yesterday\"", "is no day"),
        ] {
            let error = with(grant).unwrap_err();
            assert!(error.contains(reason) && error.contains("spiffe://p.example/person/a"), "{error}");
        }
        assert!(with("roles = [\"boss\"]").unwrap_err().contains("boss"));
    }
}

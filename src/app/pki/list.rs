//! `lineproof pki list`: everything issued, and what needs somebody.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::{Value, json};

use super::folder::{self, CrlState};
use crate::{
    adapters::authority::AuthorityFacts,
    core::pki::register::{Issued, Register, State, days_left},
    types::Instant,
};

#[derive(Debug, Args)]
pub struct ListArgs {
    /// Folder of the authority
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// For machines: one JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let register = folder::read_register(&args.dir)?;
    let crl = folder::read_crl(&args.dir)?;
    let authority = folder::read_certificate(&args.dir)?;
    let now = folder::now()?;
    let warnings = warnings(&register, &authority, crl.as_ref(), now);
    if args.json {
        println!("{:#}", document(&register, &authority, crl.as_ref(), &warnings, now));
    } else {
        let days = days_left(authority.not_after, now);
        println!("{}: until {} ({days} days)", authority.name, authority.not_after.day());
        register.issued.iter().for_each(|issued| println!("{}", line(issued, &register, now)));
        if register.issued.is_empty() {
            println!("nothing was issued yet");
        }
        warnings.iter().for_each(|warning| println!("{warning}"));
    }
    Ok(if warnings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// What is wrong already. What only ends soon is marked in its line.
fn warnings(register: &Register, authority: &AuthorityFacts, crl: Option<&CrlState>, now: Instant) -> Vec<String> {
    let over = register.issued.iter().filter(|issued| is_missing(issued, register, now));
    let mut warnings: Vec<String> = over
        .map(|issued| {
            format!("over: the certificate of {} {} ended {}", issued.kind, issued.name, issued.not_after.day())
        })
        .collect();
    if authority.not_after <= now {
        warnings.push("over: the authority, and everything it issued with it; make another one".into());
    }
    match crl {
        None => warnings.push("there is no revocation list; `lineproof pki crl` writes it".into()),
        Some(crl) if crl.number < register.crl_number => {
            warnings.push("the revocation list is behind the register; `lineproof pki crl` writes it anew".into());
        }
        Some(CrlState { next_update: Some(next), .. }) if *next <= now => {
            warnings.push(format!("over: the revocation list ended {}; `lineproof pki crl` renews it", next.day()));
        }
        Some(_) => {}
    }
    warnings
}

/// Whether it is over and nothing took its place: a renewed certificate is left to end.
fn is_missing(issued: &Issued, register: &Register, now: Instant) -> bool {
    let same = |other: &&Issued| (other.kind, &other.name) == (issued.kind, &issued.name);
    issued.state(now) == State::Over
        && !register.issued.iter().filter(same).any(|other| !matches!(other.state(now), State::Over | State::Revoked))
}

fn line(issued: &Issued, register: &Register, now: Instant) -> String {
    let roles: Vec<&str> = issued.roles.iter().map(|role| role.name()).collect();
    let until = issued.not_after.day();
    let mark = match issued.state(now) {
        State::InForce => format!("{} days", issued.days_left(now)),
        State::Ends(1) => "ENDS WITHIN A DAY".into(),
        State::Ends(days) => format!("ENDS WITHIN {days} DAYS ({})", issued.days_left(now)),
        State::Over if is_missing(issued, register, now) => "OVER".into(),
        State::Over => "over, renewed".into(),
        State::Revoked => issued.revoked.as_ref().map_or_else(String::new, |revoked| {
            let reason = revoked.reason.map(|reason| format!(", {}", word(&reason))).unwrap_or_default();
            format!("revoked {}{reason}", revoked.at.day())
        }),
    };
    let roles = if roles.is_empty() { "-".into() } else { roles.join(",") };
    format!("{}  {:<8} {:<28} {roles:<20} until {until}  {mark}", issued.serial, issued.kind, issued.name)
}

/// A value as JSON writes it.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(ToOwned::to_owned)).unwrap_or_default()
}

fn document(
    register: &Register,
    authority: &AuthorityFacts,
    crl: Option<&CrlState>,
    warnings: &[String],
    now: Instant,
) -> Value {
    let certificates = register.issued.iter().map(|issued| {
        let mut value = serde_json::to_value(issued).expect("a record has only text keys");
        let (state, within) = match issued.state(now) {
            State::InForce | State::Ends(_) if issued.not_before > now => ("not_yet", None),
            State::InForce => ("in_force", None),
            State::Ends(days) => ("in_force", Some(days)),
            State::Over if is_missing(issued, register, now) => ("over", None),
            State::Over => ("renewed", None),
            State::Revoked => ("revoked", None),
        };
        let object = value.as_object_mut().expect("a record is an object");
        object.insert("state".into(), state.into());
        object.insert("days_left".into(), issued.days_left(now).into());
        object.insert("ends_within_days".into(), within.into());
        value
    });
    json!({
        "trust_domain": register.trust_domain,
        "authority": {
            "name": authority.name,
            "not_after": authority.not_after,
            "days_left": days_left(authority.not_after, now),
        },
        "crl": crl.map(|crl| json!({ "number": crl.number, "next_update": crl.next_update })),
        "certificates": certificates.collect::<Vec<_>>(),
        "warnings": warnings,
    })
}

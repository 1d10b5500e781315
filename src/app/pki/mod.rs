//! `lineproof pki`: a small certificate authority for plants without one. For plant IT: `docs/pki.md`; files and crash
//! story: `docs/spec/pki.md`.

mod files;
mod folder;
mod issue;
mod list;
mod revoke;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use self::folder::{CRL, Folder, KEY};
use crate::{
    adapters::authority::Authority,
    core::pki::{
        names::{CommonName, TrustDomain},
        register::Register,
    },
};

/// A revocation list is renewed at least so often, in days, if nothing else is said.
const CRL_DAYS: u16 = 30;
/// A new authority's certificate is in force from a day ago on: clocks on the shop floor differ.
const AUTHORITY_BACKDATED_NANOS: i64 = folder::DAY;

#[derive(Debug, Subcommand)]
pub enum PkiCommand {
    /// Make the folder of an authority: its key, its certificate, an empty revocation list
    Init(InitArgs),
    /// Issue a certificate for a server, a station, a service or a person
    Issue(issue::IssueArgs),
    /// Revoke a certificate, and write the list that the service goes by
    Revoke(revoke::RevokeArgs),
    /// Write the revocation list anew before it ends
    Crl(CrlArgs),
    /// Show every certificate ever issued; exit status 1 if something is over that should not be
    List(list::ListArgs),
}

#[derive(Debug, Args)]
pub struct InitArgs {
    /// Folder to make; it belongs on another machine than the service, or on a stick
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The start of every identity that this authority gives, a domain of yours, such as plant.example
    #[arg(long, value_name = "DOMAIN")]
    trust_domain: TrustDomain,
    /// What people read of the authority [default: the trust domain and "Lineproof CA"]
    #[arg(long, value_name = "TEXT")]
    name: Option<CommonName>,
    /// How long the authority lasts
    #[arg(long, value_name = "YEARS", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=30))]
    years: u16,
}

#[derive(Debug, Args)]
pub struct CrlArgs {
    /// Folder of the authority
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    due: CrlDue,
}

/// When a revocation list ends.
#[derive(Debug, Args)]
struct CrlDue {
    /// Days until the list must have been renewed
    #[arg(long = "crl-days", visible_alias = "days", value_name = "DAYS", default_value_t = CRL_DAYS, value_parser = clap::value_parser!(u16).range(1..=397))]
    days: u16,
}

/// # Errors
/// With what to do about it.
pub fn run(command: &PkiCommand) -> anyhow::Result<ExitCode> {
    match command {
        PkiCommand::Init(args) => init(args)?,
        PkiCommand::Issue(args) => return issue::run(args),
        PkiCommand::Revoke(args) => revoke::run(args)?,
        PkiCommand::Crl(args) => crl(args)?,
        PkiCommand::List(args) => return list::run(args),
    }
    Ok(ExitCode::SUCCESS)
}

fn init(InitArgs { dir, trust_domain, name, years }: &InitArgs) -> anyhow::Result<()> {
    let now = folder::now()?;
    let name = match name {
        Some(name) => name.clone(),
        None => CommonName::new(&format!("{} Lineproof CA", trust_domain.as_str()))
            .or_else(|_| CommonName::new("Lineproof CA"))?,
    };
    let not_before = folder::earlier(now, AUTHORITY_BACKDATED_NANOS);
    let not_after = folder::later(now, years * 365 + years / 4)?;
    let (authority, key) = Authority::create(&name, folder::new_serial(), not_before, not_after)?;
    let mut made = Folder::create(dir, authority, &key, Register::new(trust_domain.clone()))?;
    let next_update = made.write_crl(now, CRL_DAYS)?;
    let dir = dir.display();
    println!("made {dir}: the authority {:?}, until {}", name.as_str(), not_after.day());
    println!(
        "whoever has {dir}/{KEY} can be anybody in this plant: keep {dir} on another machine than the service, or"
    );
    println!("on a stick in a safe, and a copy of all of it in another place");
    println!("next: lineproof pki issue {dir} server --dns NAME --ip ADDRESS --out FOLDER");
    println!("      lineproof pki issue {dir} station LINE STATION --out FOLDER");
    println!("{CRL} names nobody yet and must be renewed before {}: lineproof pki crl {dir}", next_update.day());
    Ok(())
}

fn crl(CrlArgs { dir, due }: &CrlArgs) -> anyhow::Result<()> {
    let mut folder = Folder::open(dir)?;
    let next_update = folder.write_crl(folder::now()?, due.days)?;
    say_crl(&folder, next_update);
    Ok(())
}

fn say_crl(folder: &Folder, next_update: crate::types::Instant) {
    let count = folder.register.revoked().count();
    let path = folder.at(CRL);
    println!(
        "wrote {}, number {}: {count} revoked, to be renewed before {}",
        path.display(),
        folder.register.crl_number,
        next_update.day()
    );
    println!("next: copy it over tls/{CRL} of the service");
}

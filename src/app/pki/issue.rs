//! `lineproof pki issue`: one certificate, recorded before anybody has it.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use zeroize::Zeroizing;

use super::{
    files::{self, Access},
    folder::{self, CERTIFICATE, CRL, Folder, PEM_BYTES_MAX},
};
use crate::{
    adapters::authority::{NewKey, Order, PublicKey, request_key},
    app::cli::usage,
    core::pki::{
        names::{CommonName, Holder, HolderName, NameError, ServerName},
        register::{Issued, State},
    },
    types::{Instant, LineId, Role, StationId},
};

/// Longest that a certificate lasts: ten years.
const DAYS_MAX: i64 = 3_652;
/// A certificate is in force from an hour ago on: clocks on the shop floor differ.
const BACKDATED_NANOS: i64 = 3_600 * 1_000_000_000;

#[derive(Debug, Args)]
pub struct IssueArgs {
    /// Folder of the authority
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    #[command(subcommand)]
    whom: Whom,
}

#[derive(Debug, Subcommand)]
enum Whom {
    /// The service, or a witness: whatever others connect to
    Server {
        /// Name under which it is reached; may be given several times
        #[arg(long, value_name = "NAME", num_args = 1.., value_parser = ServerName::dns)]
        dns: Vec<ServerName>,
        /// Address under which it is reached; may be given several times
        #[arg(long, value_name = "ADDRESS", num_args = 1..)]
        ip: Vec<IpAddr>,
        #[command(flatten)]
        how: How,
    },
    /// A line PC; it may send frames of this line and station
    Station {
        /// Its line, as in lineproof.toml
        line: LineId,
        /// Its station, as in lineproof.toml
        station: StationId,
        #[command(flatten)]
        how: How,
    },
    /// A program, such as an MES or a monitor
    Service {
        /// Its name: letters, digits, '.', '_' and '-'
        name: HolderName,
        /// What it may do; without one it may ask for health alone
        #[arg(long, value_name = "ROLE", num_args = 1..)]
        role: Vec<Role>,
        #[command(flatten)]
        how: How,
    },
    /// Somebody
    Person {
        /// Their name: letters, digits, '.', '_' and '-'
        name: HolderName,
        /// What they may do; without one they may ask for health alone
        #[arg(long, value_name = "ROLE", num_args = 1..)]
        role: Vec<Role>,
        #[command(flatten)]
        how: How,
    },
}

#[derive(Debug, Args)]
struct How {
    /// How long it lasts
    #[arg(long, value_name = "DAYS", default_value_t = 397, value_parser = clap::value_parser!(u16).range(1..=DAYS_MAX))]
    days: u16,
    /// Folder for the files; is made if it is not there
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Certificate request (PKCS#10) of whoever has the key; of what stands in it the key counts, and nothing else
    #[arg(long, value_name = "FILE")]
    csr: Option<PathBuf>,
    /// What people read of it; decides nothing [default: its name]
    #[arg(long, value_name = "TEXT")]
    common_name: Option<CommonName>,
}

pub(super) fn run(IssueArgs { dir, whom }: &IssueArgs) -> anyhow::Result<ExitCode> {
    let (holder, how) = match holder(whom) {
        Ok(known) => known,
        Err(error) => return Ok(usage(&error.to_string())),
    };
    issue(dir, &holder, how)?;
    Ok(ExitCode::SUCCESS)
}

fn holder(whom: &Whom) -> Result<(Holder, &How), NameError> {
    Ok(match whom {
        Whom::Server { dns, ip, how } => {
            let addresses = ip.iter().map(|address| ServerName::ip(*address));
            let names = dns.iter().cloned().map(Ok).chain(addresses).collect::<Result<Vec<_>, _>>()?;
            (Holder::server(names)?, how)
        }
        Whom::Station { line, station, how } => (Holder::station(line.clone(), station.clone())?, how),
        Whom::Service { name, role, how } => (Holder::service(name.clone(), role.clone()), how),
        Whom::Person { name, role, how } => (Holder::person(name.clone(), role.clone())?, how),
    })
}

fn issue(dir: &Path, holder: &Holder, how: &How) -> anyhow::Result<()> {
    let mut folder = Folder::open(dir)?;
    let out = Out::prepare(&how.out, holder, how.csr.is_none(), &folder)?;
    let (key, public) = key(how.csr.as_deref())?;
    let now = folder::now()?;
    let common_name = how.common_name.clone().unwrap_or_else(|| holder.common_name());
    let order = Order {
        holder,
        trust_domain: &folder.register.trust_domain,
        common_name: &common_name,
        serial: folder::new_serial(),
        not_before: folder::earlier(now, BACKDATED_NANOS),
        not_after: folder::later(now, how.days)?,
    };
    let ends = folder.authority.not_after();
    if order.not_after > ends {
        let days = (ends.unix_nanos() - now.unix_nanos()) / folder::DAY;
        bail!("the authority ends on {}: give at most --days {days}, or make another authority", ends.day());
    }
    let (certificate, sha256) = folder.authority.issue(&order, &public)?;
    let issued = Issued {
        serial: order.serial,
        kind: holder.kind(),
        name: holder.to_string(),
        id: holder.spiffe_id(order.trust_domain),
        roles: holder.roles().to_vec(),
        not_before: order.not_before,
        not_after: order.not_after,
        sha256,
        revoked: None,
    };
    let earlier = in_force(&folder, &issued, now);
    folder.register.add(issued.clone())?;
    // From here on the register knows it; only now may anybody have it.
    folder.save()?;
    out.write(key.as_ref().map(|key| key.as_str()), &certificate, &folder.authority.pem()?).with_context(|| {
        format!(
            "{0} is recorded but not given out; `lineproof pki revoke {1} {0}` takes it back",
            issued.serial,
            dir.display()
        )
    })?;
    say(&issued, holder, &out, how, dir);
    for serial in earlier {
        println!("when the new one is in use: lineproof pki revoke {} {serial} --reason superseded", dir.display());
    }
    Ok(())
}

/// A new key and its public half; of a request only that.
fn key(csr: Option<&Path>) -> anyhow::Result<(Option<Zeroizing<String>>, PublicKey)> {
    match csr {
        None => {
            let NewKey { pem, public } = NewKey::generate();
            Ok((Some(pem), public))
        }
        Some(path) => {
            let text = files::read(path, PEM_BYTES_MAX)?;
            Ok((None, request_key(&text).with_context(|| path.display().to_string())?))
        }
    }
}

/// The serial numbers of the certificates that the same holder has already.
fn in_force(folder: &Folder, issued: &Issued, now: Instant) -> Vec<String> {
    let same = |other: &&Issued| (other.kind, &other.name) == (issued.kind, &issued.name);
    let living = |other: &&Issued| !matches!(other.state(now), State::Over | State::Revoked);
    folder.register.issued.iter().filter(same).filter(living).map(|other| other.serial.to_string()).collect()
}

/// Where the files go.
struct Out {
    certificate: PathBuf,
    key: PathBuf,
    authority: PathBuf,
    /// The authority's certificate lies there already.
    has_authority: bool,
}

impl Out {
    /// # Errors
    /// When something is there that would be overwritten; nothing was done then.
    fn prepare(folder: &Path, holder: &Holder, with_key: bool, own: &Folder) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let stem = holder.file_stem();
        let at = |extension: &str| folder.join(format!("{stem}.{extension}"));
        let (certificate, key, authority) = (at("pem"), at("key"), folder.join(CERTIFICATE));
        if certificate == authority {
            bail!("{} is the authority's own: give the certificate another name", authority.display());
        }
        for path in [Some(&certificate), with_key.then_some(&key)].into_iter().flatten() {
            if path.symlink_metadata().is_ok() {
                bail!("{} is there already; nothing was issued. Give another --out", path.display());
            }
        }
        let has_authority = authority.symlink_metadata().is_ok();
        if has_authority && files::read(&authority, PEM_BYTES_MAX)? != own.authority.pem()? {
            bail!("{} is of another authority; nothing was issued. Give another --out", authority.display());
        }
        Ok(Self { certificate, key, authority, has_authority })
    }

    /// The certificate last: where it lies, everything lies.
    fn write(&self, key: Option<&str>, certificate: &str, authority: &str) -> anyhow::Result<()> {
        if let Some(key) = key {
            files::create(&self.key, key, Access::Secret)?;
            if files::is_open_to_others(&self.key)? {
                eprintln!("lineproof: {} can be read by others: this file system knows no owners", self.key.display());
            }
        }
        if !self.has_authority {
            files::create(&self.authority, authority, Access::Public)?;
        }
        files::create(&self.certificate, &format!("{certificate}{authority}"), Access::Public)
    }
}

/// What was made, and what to do with it.
fn say(issued: &Issued, holder: &Holder, out: &Out, how: &How, dir: &Path) {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (certificate, key) = (name(&out.certificate), name(&out.key));
    println!("issued {} for {} {}, until {}", issued.serial, issued.kind, issued.name, issued.not_after.day());
    if let Some(id) = &issued.id {
        println!("the service knows it as {id}");
    }
    let made_key = if how.csr.is_none() { format!(", {key}") } else { String::new() };
    println!("in {}: {certificate}, {CERTIFICATE}{made_key}", how.out.display());
    let key = if how.csr.is_none() { key } else { "KEY-OF-THE-REQUEST".into() };
    match holder {
        Holder::Server(_) => {
            println!("next: copy them and {} into tls/ of the data directory, and in", dir.join(CRL).display());
            println!("lineproof.toml, below [listen.tls] (and [office.tls]):");
            println!("  certificate = \"tls/{certificate}\"");
            println!("  key = \"tls/{key}\"");
            println!("  client_ca = \"tls/{CERTIFICATE}\"");
            println!("  crl = \"tls/{CRL}\"");
        }
        Holder::Station { line, station } => {
            println!("next: copy them to the line PC, and there:");
            println!("  lineproof camera dir IMAGES --server https://SERVER:7443 --line {line} --station {station} \\");
            println!("    --ca {CERTIFICATE} --cert {certificate} --key {key}");
        }
        Holder::Service { roles, .. } | Holder::Person { roles, .. } => {
            if roles.is_empty() {
                println!("it has no role and may ask for health alone; --role gives one");
            }
            println!("next: give them to whoever they are for. A gRPC client takes {CERTIFICATE} as its root,");
            println!("{certificate} as its certificate chain and {key} as its private key");
        }
    }
    if how.csr.is_none() {
        println!("the key is in no other place: move it, do not copy it");
    }
}

//! `lineproof pki revoke`: the register first, then the list. Run again after a crash, it ends the same.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{
    CrlDue,
    folder::{self, Folder},
    say_crl,
};
use crate::core::pki::register::{Reason, Revoked};

#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// Folder of the authority
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Serial number, name (LINE/STATION for a station) or SPIFFE id, as `pki list` shows them
    #[arg(value_name = "NAME|SERIAL")]
    wanted: String,
    /// Why
    #[arg(long, value_enum)]
    reason: Option<ReasonArg>,
    /// All certificates of this name
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    due: CrlDue,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum ReasonArg {
    /// Somebody else has, or may have, the private key: lost, stolen, copied
    KeyCompromise,
    /// Another certificate took its place
    Superseded,
    /// The station, service or person is no more
    Cessation,
}

impl From<ReasonArg> for Reason {
    fn from(reason: ReasonArg) -> Self {
        match reason {
            ReasonArg::KeyCompromise => Self::KeyCompromise,
            ReasonArg::Superseded => Self::Superseded,
            ReasonArg::Cessation => Self::Cessation,
        }
    }
}

pub(super) fn run(args: &RevokeArgs) -> anyhow::Result<()> {
    let mut folder = Folder::open(&args.dir)?;
    let now = folder::now()?;
    let serials = folder.register.find(&args.wanted, args.all, now)?;
    let revoked = Revoked { at: now, reason: args.reason.map(Reason::from) };
    for serial in serials {
        let said = if folder.register.revoke(serial, revoked.clone()) { "revoked" } else { "was revoked before:" };
        println!("{said} {serial}");
    }
    // Saved with the list's number, before the list.
    let next_update = folder.write_crl(now, args.due.days)?;
    say_crl(&folder, next_update);
    Ok(())
}

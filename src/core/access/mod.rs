//! Who somebody is, and what of the evidence they may see. docs/access.md says it to users.

mod certificate;
mod grants;

use std::fmt;

pub use self::{
    certificate::{CertificateError, CertificateFacts},
    grants::{Grant, Grants, Narrowed, NotGranted, Scope, View},
};
use crate::types::{LineId, Role, Roles, StationId};

/// Longest name of an identity in bytes: a SPIFFE ID may have 2,048, ours are shorter.
pub const NAME_BYTES_MAX: usize = 512;

/// Somebody the service knows: by a client certificate, by an access token, or because they are on the machine itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The SPIFFE ID of the certificate, `oidc:<issuer>#<subject>`, `operator:<user id>` or `local`.
    pub name: String,
    pub kind: Kind,
    pub roles: Roles,
    pub stations: Stations,
    /// What a role of auditor sees. Those who may see everything by another role have [`Scope::All`].
    pub scope: Scope,
}

/// What an identity is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A line PC.
    Station,
    /// Another program.
    Service,
    Person,
    /// Whoever may use the data directory itself.
    Operator,
    /// Whoever is on this machine, at a listener that knows nobody.
    Local,
}

/// The stations somebody may speak for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stations {
    All,
    Only(Vec<(LineId, StationId)>),
}

impl Identity {
    /// Somebody on this machine, where the listener asks for no certificate: loopback only.
    #[must_use]
    pub fn local(roles: Roles) -> Self {
        let (kind, stations, scope) = (Kind::Local, Stations::All, Scope::All);
        Self { name: "local".into(), kind, roles, stations, scope }
    }

    /// Whoever may use the data directory; it could read every key in it.
    #[must_use]
    pub fn operator(user_id: u32) -> Self {
        let roles = Role::ALL.into_iter().collect::<Roles>().without(Role::Line);
        let (kind, stations, scope) = (Kind::Operator, Stations::Only(Vec::new()), Scope::All);
        Self { name: format!("operator:{user_id}"), kind, roles, stations, scope }
    }

    /// Whether frames of a station may come from them.
    #[must_use]
    pub fn may_speak_for(&self, line: &LineId, station: &StationId) -> bool {
        match &self.stations {
            Stations::All => true,
            Stations::Only(stations) => stations.iter().any(|(own, at)| own == line && at == station),
        }
    }

    /// What the log commits to of them: the name. Nobody, where nobody was asked who they are.
    #[must_use]
    pub fn said(&self) -> Option<String> {
        (self.kind != Kind::Local).then(|| self.name.clone())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.roles)
    }
}

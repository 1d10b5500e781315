//! Whom a certificate names: a server by its addresses, everybody else by a SPIFFE id and roles.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::types::{LineId, Role, StationId};

/// Longest trust domain and longest DNS name in bytes: RFC 1035, section 2.3.4, as text.
pub const DOMAIN_BYTES_MAX: usize = 253;
/// Longest label between two dots, same place.
const LABEL_BYTES_MAX: usize = 63;
/// Longest name of a service or person in bytes.
pub const HOLDER_BYTES_MAX: usize = 64;
/// Longest common name in characters: `ub-common-name` of RFC 5280, appendix A.1.
pub const COMMON_NAME_CHARS_MAX: usize = 64;
/// Addresses of one server.
pub const SERVER_NAMES_MAX: usize = 32;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    #[error(
        "a trust domain is 1 to {DOMAIN_BYTES_MAX} lower-case letters, digits, '.' and '-', such as plant.example: {0:?}"
    )]
    TrustDomain(String),
    #[error("a name is 1 to {HOLDER_BYTES_MAX} letters, digits, '.', '_' and '-', and neither '.' nor '..': {0:?}")]
    Holder(String),
    #[error("a DNS name is labels of letters, digits and '-' between dots, such as inspect.plant.example: {0:?}")]
    Dns(String),
    #[error("a readable name is 1 to {COMMON_NAME_CHARS_MAX} printable characters: {0:?}")]
    CommonName(String),
    #[error("{0}: no server can be reached at this address")]
    Ip(IpAddr),
    #[error("line and station must not be '.' or '..': they are steps of a path in the certificate")]
    Path,
    #[error("a person never has role line: only stations and services send frames")]
    PersonOnLine,
    #[error("a server certificate needs 1 to {SERVER_NAMES_MAX} addresses: --dns NAME or --ip ADDRESS")]
    ServerNames,
}

/// The start of what is shown of a text that was refused.
fn start(text: &str) -> String {
    text.chars().take(64).collect()
}

/// The part of a SPIFFE id that is the same for a whole plant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(String);

/// A service or a person, in one step of a SPIFFE id's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HolderName(String);

/// What people read of a certificate. Decides nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommonName(String);

/// Where a server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerName {
    Dns(String),
    Ip(IpAddr),
}

/// Whom a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// At least one address, the first of which names it.
    Server(Vec<ServerName>),
    /// A line PC. Its role is `line`, without being written down.
    Station {
        line: LineId,
        station: StationId,
    },
    Service {
        name: HolderName,
        roles: Vec<Role>,
    },
    Person {
        name: HolderName,
        roles: Vec<Role>,
    },
}

/// The kinds of holders, as the register and the SPIFFE id write them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Server,
    Station,
    Service,
    Person,
}

impl TrustDomain {
    /// # Errors
    /// [`NameError::TrustDomain`].
    pub fn new(text: &str) -> Result<Self, NameError> {
        let is_fine = (1..=DOMAIN_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-'))
            && text.split('.').all(|label| !label.is_empty());
        if is_fine { Ok(Self(text.to_owned())) } else { Err(NameError::TrustDomain(start(text))) }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl HolderName {
    /// # Errors
    /// [`NameError::Holder`].
    pub fn new(text: &str) -> Result<Self, NameError> {
        let is_fine = (1..=HOLDER_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
            && !is_relative(text);
        if is_fine { Ok(Self(text.to_owned())) } else { Err(NameError::Holder(start(text))) }
    }
}

/// Steps that mean another place in a path; the SPIFFE ID standard, section 2.2, forbids them.
fn is_relative(step: &str) -> bool {
    matches!(step, "." | "..")
}

impl CommonName {
    /// # Errors
    /// [`NameError::CommonName`].
    pub fn new(text: &str) -> Result<Self, NameError> {
        let is_fine = (1..=COMMON_NAME_CHARS_MAX).contains(&text.chars().count())
            && !text
                .chars()
                .any(|c| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'));
        if is_fine { Ok(Self(text.to_owned())) } else { Err(NameError::CommonName(start(text))) }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ServerName {
    /// A DNS name, kept in lower case. No wildcards: a certificate names the servers it is for.
    ///
    /// # Errors
    /// [`NameError::Dns`].
    pub fn dns(text: &str) -> Result<Self, NameError> {
        let lower = text.to_ascii_lowercase();
        let is_label = |label: &str| {
            (1..=LABEL_BYTES_MAX).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        // A name of digits alone would be read as an address.
        let is_address = lower.parse::<IpAddr>().is_ok();
        let is_fine = lower.len() <= DOMAIN_BYTES_MAX && lower.split('.').all(is_label) && !is_address;
        if is_fine { Ok(Self::Dns(lower)) } else { Err(NameError::Dns(start(text))) }
    }

    /// # Errors
    /// [`NameError::Ip`] for addresses that nobody can be reached at.
    pub fn ip(address: IpAddr) -> Result<Self, NameError> {
        if address.is_unspecified() || address.is_multicast() {
            return Err(NameError::Ip(address));
        }
        Ok(Self::Ip(address))
    }
}

impl Holder {
    /// # Errors
    /// [`NameError::ServerNames`].
    pub fn server(mut names: Vec<ServerName>) -> Result<Self, NameError> {
        let mut seen = Vec::new();
        names.retain(|name| !seen.contains(name) && (seen.push(name.clone()), true).1);
        if !(1..=SERVER_NAMES_MAX).contains(&names.len()) {
            return Err(NameError::ServerNames);
        }
        Ok(Self::Server(names))
    }

    /// # Errors
    /// [`NameError::Path`].
    pub fn station(line: LineId, station: StationId) -> Result<Self, NameError> {
        if is_relative(line.as_str()) || is_relative(station.as_str()) {
            return Err(NameError::Path);
        }
        Ok(Self::Station { line, station })
    }

    #[must_use]
    pub fn service(name: HolderName, roles: Vec<Role>) -> Self {
        Self::Service { name, roles: sorted(roles) }
    }

    /// # Errors
    /// [`NameError::PersonOnLine`].
    pub fn person(name: HolderName, roles: Vec<Role>) -> Result<Self, NameError> {
        if roles.contains(&Role::Line) {
            return Err(NameError::PersonOnLine);
        }
        Ok(Self::Person { name, roles: sorted(roles) })
    }

    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Server(_) => Kind::Server,
            Self::Station { .. } => Kind::Station,
            Self::Service { .. } => Kind::Service,
            Self::Person { .. } => Kind::Person,
        }
    }

    /// The URI by which the service knows a client; `None` for a server, which is known by its addresses.
    #[must_use]
    pub fn spiffe_id(&self, domain: &TrustDomain) -> Option<String> {
        (self.kind() != Kind::Server).then(|| format!("spiffe://{}/{}/{self}", domain.as_str(), self.kind()))
    }

    /// The roles that the certificate writes down, in a fixed order, none twice.
    #[must_use]
    pub fn roles(&self) -> &[Role] {
        match self {
            Self::Service { roles, .. } | Self::Person { roles, .. } => roles,
            Self::Server(_) | Self::Station { .. } => &[],
        }
    }

    /// What its files are called: safe on every file system, also on a stick's.
    #[must_use]
    pub fn file_stem(&self) -> String {
        self.to_string().replace('/', "-").replace(':', "_")
    }

    /// A readable name, if nobody gave a better one.
    #[must_use]
    pub fn common_name(&self) -> CommonName {
        let whole = self.to_string();
        let short = match self {
            Self::Station { station, .. } => station.as_str(),
            // The addresses count, and all of them are written out in full.
            _ => whole.get(..COMMON_NAME_CHARS_MAX).unwrap_or(&whole),
        };
        CommonName::new(&whole).unwrap_or_else(|_| CommonName(short.to_owned()))
    }
}

fn sorted(mut roles: Vec<Role>) -> Vec<Role> {
    roles.sort_unstable();
    roles.dedup();
    roles
}

impl fmt::Display for Holder {
    /// The name within its kind: an address, `LINE/STATION`, or the name of the service or person.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(names) => names[0].fmt(f),
            Self::Station { line, station } => write!(f, "{line}/{station}"),
            Self::Service { name, .. } | Self::Person { name, .. } => f.write_str(&name.0),
        }
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Server => "server",
            Self::Station => "station",
            Self::Service => "service",
            Self::Person => "person",
        })
    }
}

macro_rules! from_text {
    ($($name:ident),*) => {$(
        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
    )*};
}

from_text!(TrustDomain, HolderName, CommonName);

impl TryFrom<String> for TrustDomain {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::new(&text)
    }
}

impl From<TrustDomain> for String {
    fn from(domain: TrustDomain) -> Self {
        domain.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain() -> TrustDomain {
        TrustDomain::new("plant.example").unwrap()
    }

    #[test]
    fn a_spiffe_id_names_kind_and_holder() {
        let station = Holder::station("press-2".parse().unwrap(), "left:1".parse().unwrap()).unwrap();
        assert_eq!(station.spiffe_id(&domain()).unwrap(), "spiffe://plant.example/station/press-2/left:1");
        assert_eq!(station.file_stem(), "press-2-left_1");
        let person = Holder::person("a.huber".parse().unwrap(), vec![Role::Auditor, Role::Qa, Role::Qa]).unwrap();
        assert_eq!(person.spiffe_id(&domain()).unwrap(), "spiffe://plant.example/person/a.huber");
        assert_eq!(person.roles(), [Role::Qa, Role::Auditor]);
        let server = Holder::server(vec![ServerName::dns("Inspect.Plant").unwrap()]).unwrap();
        assert_eq!((server.spiffe_id(&domain()), server.to_string()), (None, "inspect.plant".into()));
    }

    #[test]
    fn names_that_mean_something_else_are_refused() {
        for text in ["", "Plant.example", "plant..example", ".plant", "plant.", "plant/x", "plant:1", &"a".repeat(254)]
        {
            assert!(matches!(TrustDomain::new(text), Err(NameError::TrustDomain(_))), "{text}");
        }
        for text in ["", ".", "..", "a/b", "a b", "ä", "a:b", &"a".repeat(65)] {
            assert!(matches!(HolderName::new(text), Err(NameError::Holder(_))), "{text}");
        }
        for text in ["", "*.plant.example", "-a.b", "a-.b", "a..b", "10.0.0.1", "a_b", &"a".repeat(64)] {
            assert!(matches!(ServerName::dns(text), Err(NameError::Dns(_))), "{text}");
        }
        for text in ["", "a\nb", "a\u{202e}b", &"a".repeat(65)] {
            assert!(CommonName::new(text).is_err(), "{text}");
        }
        assert_eq!(Holder::station("..".parse().unwrap(), "a".parse().unwrap()), Err(NameError::Path));
        assert!(ServerName::ip("0.0.0.0".parse().unwrap()).is_err());
        assert_eq!(Holder::server(Vec::new()), Err(NameError::ServerNames));
        assert_eq!(Holder::person("a".parse().unwrap(), vec![Role::Line]), Err(NameError::PersonOnLine));
    }

    #[test]
    fn a_common_name_fits_its_bound() {
        let long = "a".repeat(64);
        let station = Holder::station(long.parse().unwrap(), "left".parse().unwrap()).unwrap();
        assert_eq!(station.common_name().as_str(), "left");
        let name = ["a".repeat(60), "b".repeat(60)].join(".");
        let server = Holder::server(vec![ServerName::dns(&name).unwrap()]).unwrap();
        assert_eq!(server.common_name().as_str().len(), 64);
    }
}

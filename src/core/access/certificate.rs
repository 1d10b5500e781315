//! Who a client certificate names. That it is valid, the TLS handshake has checked before anybody reads it here.
//!
//! The name is the one URI among its subject alternative names, a SPIFFE ID (SPIFFE X.509-SVID, section 2): the path is
//! `/station/<line>/<station>`, `/service/<name>` or `/person/<name>`. Roles are organisational units of the subject.

use x509_cert::{
    Certificate,
    der::{
        Decode as _,
        asn1::{Ia5StringRef, PrintableStringRef, Utf8StringRef},
        oid::db::rfc4519::OU,
    },
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use super::{Identity, Kind, NAME_BYTES_MAX, Scope, Stations};
use crate::types::{LineId, Role, Roles, StationId};

/// Longest certificate in bytes that is looked into.
const CERTIFICATE_BYTES_MAX: usize = 64 << 10;
/// Longest name of a service or a person.
const OWN_NAME_BYTES_MAX: usize = 64;

/// What the service needs to know of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    pub identity: Identity,
    /// As the revocation list has it: big-endian, without leading zeros.
    pub serial: Vec<u8>,
    /// Seconds since 1970 after which it is over.
    pub not_after_s: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    #[error("the certificate cannot be read: {0}")]
    Form(String),
    #[error(
        "the certificate names nobody: it has {0} URIs spiffe://… among its subject alternative names, and needs one"
    )]
    Names(usize),
    #[error(
        "the certificate's name {name:?} is none of spiffe://DOMAIN/station/LINE/STATION, …/service/NAME and …/person/NAME"
    )]
    Name { name: String },
    #[error("the certificate of a person has the role line, which only stations and services have")]
    PersonOfLine,
}

impl CertificateFacts {
    /// Reads a certificate in DER form. Organisational units that are no role are somebody else's business.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn read(der: &[u8]) -> Result<Self, CertificateError> {
        let form = |reason: &dyn std::fmt::Display| CertificateError::Form(reason.to_string());
        if der.len() > CERTIFICATE_BYTES_MAX {
            return Err(form(&format!("it has {} bytes, more than {CERTIFICATE_BYTES_MAX}", der.len())));
        }
        let certificate = Certificate::from_der(der).map_err(|error| form(&error))?;
        let certificate = certificate.tbs_certificate();
        let names = certificate.get_extension::<SubjectAltName>().map_err(|error| form(&error))?;
        let names = names.map(|(_, names)| names.0).unwrap_or_default();
        let uris = names.iter().filter_map(|name| match name {
            GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str()),
            _ => None,
        });
        let ids: Vec<&str> = uris.filter(|uri| uri.starts_with("spiffe://")).collect();
        let [id] = ids[..] else { return Err(CertificateError::Names(ids.len())) };
        let (kind, stations) = parse_id(id).ok_or_else(|| {
            let name = id.chars().take(NAME_BYTES_MAX).collect();
            CertificateError::Name { name }
        })?;
        let units = certificate.subject().iter().filter(|attribute| attribute.oid == OU);
        let units = units.filter_map(|unit| {
            let utf8 = unit.value.decode_as::<Utf8StringRef<'_>>().ok().and_then(|text| text.as_str().parse().ok());
            let printable = || unit.value.decode_as::<PrintableStringRef<'_>>().ok()?.as_str().parse().ok();
            let ia5 = || unit.value.decode_as::<Ia5StringRef<'_>>().ok()?.as_str().parse().ok();
            utf8.or_else(printable).or_else(ia5)
        });
        let mut roles: Roles = units.collect();
        if kind == Kind::Station {
            // The line PC's name says what it is for; whatever else its units say, it is no person's place.
            roles = Roles::of(&[Role::Line]);
        }
        if kind == Kind::Person && roles.has(Role::Line) {
            return Err(CertificateError::PersonOfLine);
        }
        let identity = Identity {
            name: id.to_owned(),
            kind,
            roles,
            stations: Stations::Only(stations),
            scope: Scope::Granted(Vec::new()),
        };
        let serial = certificate.serial_number().as_bytes();
        let leading = serial.iter().take_while(|byte| **byte == 0).count();
        let not_after = certificate.validity().not_after.to_unix_duration().as_secs();
        let not_after_s = i64::try_from(not_after).unwrap_or(i64::MAX);
        Ok(Self { identity, serial: serial[leading..].to_vec(), not_after_s })
    }
}

/// The kind that a SPIFFE ID names, and the station.
fn parse_id(id: &str) -> Option<(Kind, Vec<(LineId, StationId)>)> {
    if id.len() > NAME_BYTES_MAX {
        return None;
    }
    let (domain, path) = id.strip_prefix("spiffe://")?.split_once('/')?;
    let is_domain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_');
    if domain.is_empty() || domain.len() > 255 || !domain.bytes().all(is_domain) {
        return None;
    }
    let parts: Vec<&str> = path.split('/').collect();
    let is_own = |name: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        // A dot alone, or two, is no segment of a SPIFFE path.
        (1..=OWN_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_allowed) && !matches!(name, "." | "..")
    };
    match parts[..] {
        ["station", line, station] => Some((Kind::Station, vec![(line.parse().ok()?, station.parse().ok()?)])),
        ["service", name] if is_own(name) => Some((Kind::Service, Vec::new())),
        ["person", name] if is_own(name) => Some((Kind::Person, Vec::new())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, SerialNumber};

    use super::*;

    fn certificate(ids: &[&str], units: &[&str]) -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["host.example".to_owned()]).unwrap();
        params.subject_alt_names.extend(ids.iter().map(|id| SanType::URI((*id).try_into().unwrap())));
        params.distinguished_name.push(DnType::CommonName, "somebody");
        if let [unit] = units {
            params.distinguished_name.push(DnType::OrganizationalUnitName, *unit);
        }
        params.serial_number = Some(SerialNumber::from(vec![0x00, 0x8f, 0x01]));
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn a_station_speaks_for_itself_alone() {
        let der = certificate(&["spiffe://plant.example/station/line-1/station-1"], &["qa"]);
        let facts = CertificateFacts::read(&der).unwrap();
        let identity = facts.identity;
        assert_eq!(
            (identity.kind, identity.roles),
            (Kind::Station, Roles::of(&[Role::Line])),
            "its unit gives it nothing"
        );
        let may = |line: &str, station: &str| identity.may_speak_for(&line.parse().unwrap(), &station.parse().unwrap());
        assert!(may("line-1", "station-1") && !may("line-1", "station-2") && !may("line-2", "station-1"));
        assert_eq!(facts.serial, [0x8f, 0x01]);
        assert_eq!(identity.said().unwrap(), "spiffe://plant.example/station/line-1/station-1");
    }

    #[test]
    fn people_and_services_have_the_roles_of_their_units() {
        let read = |id: &str, units: &[&str]| CertificateFacts::read(&certificate(&[id], units));
        let eva = read("spiffe://plant.example/person/eva", &["qa"]).unwrap().identity;
        assert_eq!((eva.kind, eva.roles), (Kind::Person, Roles::of(&[Role::Qa])));
        assert_eq!(eva.scope, Scope::Granted(Vec::new()), "who sees what, the grants say");
        let none = read("spiffe://plant.example/person/eva", &["Accounting"]).unwrap().identity;
        assert_eq!(none.roles, Roles::NONE);
        let mes = read("spiffe://plant.example/service/mes", &["line"]).unwrap().identity;
        assert!(mes.roles.has(Role::Line) && !mes.may_speak_for(&"l".parse().unwrap(), &"s".parse().unwrap()));
        assert_eq!(read("spiffe://plant.example/person/eva", &["line"]), Err(CertificateError::PersonOfLine));
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        let read = |ids: &[&str]| CertificateFacts::read(&certificate(ids, &[])).unwrap_err();
        assert_eq!(read(&[]), CertificateError::Names(0));
        assert_eq!(read(&["https://plant.example/person/eva"]), CertificateError::Names(0));
        let two = ["spiffe://plant.example/person/eva", "spiffe://plant.example/person/adam"];
        assert_eq!(read(&two), CertificateError::Names(2));
        for id in [
            "spiffe://plant.example/person",
            "spiffe://plant.example/person/",
            "spiffe://plant.example/person/../x",
            "spiffe://plant.example/person/eva/qa",
            "spiffe://Plant.example/person/eva",
            "spiffe:///person/eva",
            "spiffe://plant.example/station/line-1",
            "spiffe://plant.example/station/line%2f1/s",
            "spiffe://plant.example/root/eva",
            "spiffe://plant.example/person/..",
        ] {
            assert!(matches!(read(&[id]), CertificateError::Name { .. }), "{id}");
        }
        assert!(matches!(CertificateFacts::read(b"no certificate"), Err(CertificateError::Form(_))));
    }
}

//! What stands in a certificate besides key and time: names and extensions, of the authority and of everybody else.

use std::net::IpAddr;

use x509_cert::{
    TbsCertificate,
    attr::AttributeTypeAndValue,
    builder::{self, profile::BuilderProfile},
    der::{
        Decode as _, Encode as _,
        asn1::{Any, Ia5String, ObjectIdentifier, SetOfVec, Utf8StringRef},
    },
    ext::{
        Extension, ToExtension as _,
        pkix::{
            AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
            SubjectKeyIdentifier, name::GeneralName,
        },
    },
    name::{Name, RdnSequence, RelativeDistinguishedName},
    spki::SubjectPublicKeyInfoRef,
};

use super::Order;
use crate::{
    core::pki::names::{CommonName, Kind, ServerName},
    types::Role,
};

/// RFC 5280, appendix A.1: `id-at-commonName`.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
/// Same place: `id-at-organizationalUnitName`.
const ORGANIZATIONAL_UNIT: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.11");
/// RFC 5280, section 4.2.1.12: `id-kp-serverAuth`.
const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
/// Same place: `id-kp-clientAuth`.
const CLIENT_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");

/// One `OU` for each role, then the `CN`.
pub(super) fn subject(roles: &[Role], common_name: &CommonName) -> x509_cert::der::Result<Name> {
    let attribute = |oid, text: &str| -> x509_cert::der::Result<RelativeDistinguishedName> {
        let value = Any::encode_from(&Utf8StringRef::new(text)?)?;
        Ok(RelativeDistinguishedName::from(SetOfVec::try_from(vec![AttributeTypeAndValue { oid, value }])?))
    };
    let mut steps = roles
        .iter()
        .map(|role| attribute(ORGANIZATIONAL_UNIT, role.name()))
        .collect::<x509_cert::der::Result<Vec<_>>>()?;
    steps.push(attribute(COMMON_NAME, common_name.as_str())?);
    // Through DER, so that no character of a name is taken for syntax.
    Name::from_der(&RdnSequence::from(steps).to_der()?)
}

/// An authority that signs certificates of stations, services, people and servers, and no other authority.
pub(super) struct AuthorityProfile {
    pub name: Name,
}

impl BuilderProfile for AuthorityProfile {
    fn get_issuer(&self, subject: &Name) -> Name {
        subject.clone()
    }

    fn get_subject(&self) -> Name {
        self.name.clone()
    }

    fn build_extensions(
        &self,
        key: SubjectPublicKeyInfoRef<'_>,
        _issuer: SubjectPublicKeyInfoRef<'_>,
        _tbs: &TbsCertificate,
    ) -> builder::Result<Vec<Extension>> {
        let none = &[];
        Ok(vec![
            (&BasicConstraints { ca: true, path_len_constraint: Some(0) }).to_extension(&self.name, none)?,
            (&KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign)).to_extension(&self.name, none)?,
            (&SubjectKeyIdentifier::try_from(key)?).to_extension(&self.name, none)?,
        ])
    }
}

/// A server or a client.
pub(super) struct LeafProfile {
    issuer: Name,
    subject: Name,
    names: Vec<GeneralName>,
    usage: ObjectIdentifier,
}

impl LeafProfile {
    pub fn new(order: &Order<'_>, issuer: Name) -> x509_cert::der::Result<Self> {
        use crate::core::pki::names::Holder;

        let names = match order.holder {
            Holder::Server(names) => names.iter().map(server_name).collect::<x509_cert::der::Result<_>>()?,
            client => {
                let id = client.spiffe_id(order.trust_domain).expect("a client has an id");
                vec![GeneralName::UniformResourceIdentifier(Ia5String::new(&id)?)]
            }
        };
        let usage = if order.holder.kind() == Kind::Server { SERVER_AUTH } else { CLIENT_AUTH };
        Ok(Self { issuer, subject: subject(order.holder.roles(), order.common_name)?, names, usage })
    }
}

fn server_name(name: &ServerName) -> x509_cert::der::Result<GeneralName> {
    match name {
        ServerName::Dns(name) => Ok(GeneralName::DnsName(Ia5String::new(name)?)),
        ServerName::Ip(address) => Ok(GeneralName::from(IpAddr::clone(address))),
    }
}

impl BuilderProfile for LeafProfile {
    fn get_issuer(&self, _subject: &Name) -> Name {
        self.issuer.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        key: SubjectPublicKeyInfoRef<'_>,
        issuer: SubjectPublicKeyInfoRef<'_>,
        _tbs: &TbsCertificate,
    ) -> builder::Result<Vec<Extension>> {
        let (subject, none) = (&self.subject, &[]);
        Ok(vec![
            // Not true by default only where nobody says so: some tools refuse a leaf without it.
            (&BasicConstraints { ca: false, path_len_constraint: None }).to_extension(subject, none)?,
            (&KeyUsage(KeyUsages::DigitalSignature.into())).to_extension(subject, none)?,
            (&ExtendedKeyUsage(vec![self.usage])).to_extension(subject, none)?,
            (&SubjectAltName(self.names.clone())).to_extension(subject, none)?,
            (&SubjectKeyIdentifier::try_from(key)?).to_extension(subject, none)?,
            (&AuthorityKeyIdentifier::try_from(issuer)?).to_extension(subject, none)?,
        ])
    }
}

//! X.509 as the plant's own authority writes it: x509-cert encodes, ring signs. ECDSA P-256 with SHA-256 throughout.

mod key;
mod profile;

use std::time::Duration;

use sha2::{Digest as _, Sha256};
use x509_cert::{
    Certificate,
    builder::{Builder, CertificateBuilder, CrlBuilder},
    certificate::Rfc5280,
    crl::{CertificateList, RevokedCert},
    der::{
        Decode as _, DecodePem as _, Encode as _, EncodePem as _, asn1::BitString, oid::AssociatedOid as _,
        pem::LineEnding,
    },
    ext::{
        ToExtension as _,
        pkix::{CrlNumber, CrlReason},
    },
    name::Name,
    serial_number::SerialNumber,
    time::{Time, Validity},
};
use zeroize::Zeroizing;

pub use self::key::{PublicKey, request_key};
use self::{
    key::SigningKey,
    profile::{AuthorityProfile, LeafProfile},
};
use crate::{
    core::pki::{
        names::{CommonName, Holder, TrustDomain},
        register::{CertificateSerial, Reason, Revoked},
    },
    types::{Instant, Sha256Digest},
};

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("it is no private key of ECDSA P-256 in PKCS#8 and PEM form")]
    Key,
    #[error("the private key is not that of the certificate")]
    OtherKey,
    #[error("it is no certificate of an authority: {0}")]
    Certificate(String),
    #[error("it is no revocation list: {0}")]
    Crl(String),
    #[error("it is no certificate request (PKCS#10) in PEM form: {0}")]
    Request(String),
    #[error(
        "the request's key is not ECDSA P-256; `openssl ecparam -name prime256v1 -genkey -noout` makes one that is"
    )]
    RequestKey,
    #[error("the request is not signed by its own key with SHA-256: it was changed, or is not that of this key")]
    RequestSignature,
    #[error("it cannot be written as X.509: {0}")]
    Encode(String),
}

fn encode(error: impl std::fmt::Display) -> AuthorityError {
    AuthorityError::Encode(error.to_string())
}

/// Key and certificate of an authority.
pub struct Authority {
    key: SigningKey,
    certificate: Certificate,
}

/// What is to be written in one certificate.
pub struct Order<'a> {
    pub holder: &'a Holder,
    pub trust_domain: &'a TrustDomain,
    pub common_name: &'a CommonName,
    pub serial: CertificateSerial,
    pub not_before: Instant,
    pub not_after: Instant,
}

/// A private key, to be kept to oneself, and its public half.
pub struct NewKey {
    pub pem: Zeroizing<String>,
    pub public: PublicKey,
}

impl NewKey {
    #[must_use]
    pub fn generate() -> Self {
        let (key, pem) = SigningKey::generate();
        Self { pem, public: key.public() }
    }
}

impl Authority {
    /// A new authority and its private key in PEM form.
    ///
    /// # Errors
    /// [`AuthorityError::Encode`].
    pub fn create(
        name: &CommonName,
        serial: CertificateSerial,
        not_before: Instant,
        not_after: Instant,
    ) -> Result<(Self, Zeroizing<String>), AuthorityError> {
        let (key, pem) = SigningKey::generate();
        let profile = AuthorityProfile { name: profile::subject(&[], name).map_err(encode)? };
        let info = key.public().info().map_err(encode)?;
        let builder = CertificateBuilder::new(profile, number(serial)?, validity(not_before, not_after)?, info);
        let certificate = sign(builder.map_err(encode)?, &key)?;
        Ok((Self { key, certificate }, pem))
    }

    /// # Errors
    /// When one of them is not what it should be, or they do not belong together.
    pub fn open(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let key = SigningKey::from_pem(key_pem)?;
        let wrong = |error: &dyn std::fmt::Display| AuthorityError::Certificate(error.to_string());
        let certificate = Certificate::from_pem(certificate_pem).map_err(|error| wrong(&error))?;
        let info = certificate.tbs_certificate().subject_public_key_info();
        if info.subject_public_key.raw_bytes() != key.public().point() {
            return Err(AuthorityError::OtherKey);
        }
        Ok(Self { key, certificate })
    }

    /// When everything that it signed ends with it.
    #[must_use]
    pub fn not_after(&self) -> Instant {
        instant(self.certificate.tbs_certificate().validity().not_after)
    }

    /// # Errors
    /// [`AuthorityError::Encode`].
    pub fn pem(&self) -> Result<String, AuthorityError> {
        self.certificate.to_pem(LineEnding::LF).map_err(encode)
    }

    /// A certificate in PEM form, and the SHA-256 of its DER.
    ///
    /// # Errors
    /// [`AuthorityError::Encode`].
    pub fn issue(&self, order: &Order<'_>, key: &PublicKey) -> Result<(String, Sha256Digest), AuthorityError> {
        let issuer = self.certificate.tbs_certificate().subject().clone();
        let profile = LeafProfile::new(order, issuer).map_err(encode)?;
        let validity = validity(order.not_before, order.not_after)?;
        let info = key.info().map_err(encode)?;
        let builder = CertificateBuilder::new(profile, number(order.serial)?, validity, info).map_err(encode)?;
        let certificate = sign(builder, &self.key)?;
        let digest = Sha256::digest(certificate.to_der().map_err(encode)?);
        Ok((certificate.to_pem(LineEnding::LF).map_err(encode)?, Sha256Digest(digest.into())))
    }

    /// The revocation list (X.509 CRL version 2) in PEM form.
    ///
    /// # Errors
    /// [`AuthorityError::Encode`].
    pub fn crl<'a>(
        &self,
        list_number: u64,
        this_update: Instant,
        next_update: Instant,
        revoked: impl Iterator<Item = (CertificateSerial, &'a Revoked)>,
    ) -> Result<String, AuthorityError> {
        let list_number = CrlNumber::try_from(list_number).map_err(encode)?;
        let mut builder = CrlBuilder::new_with_this_update(&self.certificate, list_number, time(this_update)?)
            .map_err(encode)?
            .with_next_update(Some(time(next_update)?));
        let revoked = revoked.map(|(serial, revoked)| entry(serial, revoked)).collect::<Result<Vec<_>, _>>()?;
        // RFC 5280, section 5.1.2.6: an empty list must be absent.
        if !revoked.is_empty() {
            builder = builder.with_certificates(revoked.into_iter());
        }
        sign(builder, &self.key)?.to_pem(LineEnding::LF).map_err(encode)
    }
}

/// What an authority's certificate says of it.
pub struct AuthorityFacts {
    pub name: String,
    pub not_after: Instant,
}

impl AuthorityFacts {
    /// # Errors
    /// [`AuthorityError::Certificate`].
    pub fn read(pem: &str) -> Result<Self, AuthorityError> {
        let certificate = Certificate::from_pem(pem).map_err(|error| AuthorityError::Certificate(error.to_string()))?;
        let certificate = certificate.tbs_certificate();
        Ok(Self { name: certificate.subject().to_string(), not_after: instant(certificate.validity().not_after) })
    }
}

/// Number of a revocation list and when the next is due, so that one that is behind the register can be noticed. Its
/// signature is not checked: whoever holds the register holds the key.
///
/// # Errors
/// [`AuthorityError::Crl`] when it is no revocation list.
pub fn crl_facts(pem: &str) -> Result<(u64, Option<Instant>), AuthorityError> {
    let wrong = |error: &dyn std::fmt::Display| AuthorityError::Crl(error.to_string());
    let list = CertificateList::<Rfc5280>::from_pem(pem).map_err(|error| wrong(&error))?.tbs_cert_list;
    let extensions = list.crl_extensions.unwrap_or_default();
    let number =
        extensions.iter().find(|one| one.extn_id == CrlNumber::OID).ok_or_else(|| wrong(&"it has no number"))?;
    let number = CrlNumber::from_der(number.extn_value.as_bytes()).map_err(|error| wrong(&error))?;
    let digits =
        number.0.as_bytes().iter().fold(0_u64, |sum, byte| sum.saturating_mul(256).saturating_add((*byte).into()));
    Ok((digits, list.next_update.map(instant)))
}

fn sign<B: Builder>(mut builder: B, key: &SigningKey) -> Result<B::Output, AuthorityError> {
    let message = builder.finalize(key).map_err(encode)?;
    let signature = BitString::from_bytes(&key.sign(&message)).map_err(encode)?;
    builder.assemble(signature, key).map_err(encode)
}

fn entry(serial: CertificateSerial, revoked: &Revoked) -> Result<RevokedCert, AuthorityError> {
    let reason = revoked.reason.map(|reason| match reason {
        Reason::KeyCompromise => CrlReason::KeyCompromise,
        Reason::Superseded => CrlReason::Superseded,
        Reason::Cessation => CrlReason::CessationOfOperation,
    });
    let extension = reason.map(|reason| (&reason).to_extension(&Name::default(), &[])).transpose().map_err(encode)?;
    Ok(RevokedCert {
        serial_number: number(serial)?,
        revocation_date: time(revoked.at)?,
        crl_entry_extensions: extension.map(|extension| vec![extension]),
    })
}

fn number(serial: CertificateSerial) -> Result<SerialNumber, AuthorityError> {
    SerialNumber::new(serial.bytes()).map_err(encode)
}

/// X.509 knows whole seconds only.
fn time(at: Instant) -> Result<Time, AuthorityError> {
    let seconds = Duration::from_millis(at.unix_millis().unsigned_abs()).as_secs();
    let date = x509_cert::der::DateTime::from_unix_duration(Duration::from_secs(seconds)).map_err(encode)?;
    Ok(Time::from(date))
}

/// A time that evidence cannot write, after 2262, is the last that it can.
fn instant(time: Time) -> Instant {
    let nanos = i64::try_from(time.to_unix_duration().as_nanos()).unwrap_or(i64::MAX);
    Instant::from_unix_nanos(nanos).unwrap_or(Instant::EPOCH)
}

fn validity(not_before: Instant, not_after: Instant) -> Result<Validity, AuthorityError> {
    Ok(Validity::new(time(not_before)?, time(not_after)?))
}

#[cfg(test)]
mod tests;

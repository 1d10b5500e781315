//! The register of an authority: every certificate it ever issued, and which are revoked. `issued.json` on the disk.

use std::{fmt, str::FromStr};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::names::{Kind, TrustDomain};
use crate::types::{Instant, Role, Sha256Digest};

/// The newest format this build writes and reads.
pub const FORMAT: u32 = 1;
/// Certificates of one authority. At one renewal a year that is a thousand stations for ten years.
pub const ISSUED_MAX: usize = 10_000;
/// Longest register in bytes: a record takes at most 1,024.
pub const REGISTER_BYTES_MAX: u64 = (ISSUED_MAX as u64) << 10;

const DAY_NANOS: i64 = 86_400 * 1_000_000_000;

#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    #[error("it is no register of an authority: {0}")]
    Parse(#[from] serde_json::Error),
    #[error("it has format {0}, and this build reads format {FORMAT}; use a newer lineproof")]
    Format(u32),
    #[error(
        "the authority has issued {ISSUED_MAX} certificates, the most it may; make another with `lineproof pki init`"
    )]
    Full,
    #[error("no certificate {0:?} is in the register; `lineproof pki list` shows what is")]
    Unknown(String),
    #[error("{name:?} means {count} certificates: {serials}; give one serial number, or --all")]
    Ambiguous { name: String, count: usize, serials: String },
}

/// A certificate's serial number: 16 random bytes, the first of which is 64 to 127, so that it is positive and every
/// tool writes it with the same 32 digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CertificateSerial([u8; 16]);

/// Why a certificate is revoked, of RFC 5280, section 5.3.1, what a plant has use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Somebody else has, or may have, the private key: lost, stolen, copied.
    KeyCompromise,
    /// Another certificate took its place.
    Superseded,
    /// The station, service or person is no more.
    Cessation,
}

/// What the register knows of one certificate. Never changed but by a revocation, never removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issued {
    pub serial: CertificateSerial,
    pub kind: Kind,
    /// Within its kind: an address, `LINE/STATION`, or a name.
    pub name: String,
    /// The SPIFFE id; servers have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub roles: Vec<Role>,
    pub not_before: Instant,
    pub not_after: Instant,
    /// Of the certificate in DER, as `openssl x509 -fingerprint -sha256` shows it.
    pub sha256: Sha256Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked: Option<Revoked>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revoked {
    pub at: Instant,
    /// Without one, nobody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

/// What a certificate is worth at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    InForce,
    /// In force for at most so many days: 30, 7 or 1.
    Ends(u8),
    Over,
    Revoked,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Register {
    format: u32,
    pub trust_domain: TrustDomain,
    /// Number of the newest revocation list. Counted here before the list is written, so that no two have the same.
    pub crl_number: u64,
    pub issued: Vec<Issued>,
}

impl Register {
    #[must_use]
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self { format: FORMAT, trust_domain, crl_number: 0, issued: Vec::new() }
    }

    /// # Errors
    /// [`RegisterError::Format`] or [`RegisterError::Parse`].
    pub fn parse(bytes: &[u8]) -> Result<Self, RegisterError> {
        #[derive(Deserialize)]
        struct Version {
            format: u32,
        }
        // First, so that a newer register is said to be newer, not to be broken.
        let Version { format } = serde_json::from_slice(bytes)?;
        if format != FORMAT {
            return Err(RegisterError::Format(format));
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// The text of the file: people read it, too.
    #[must_use]
    pub fn text(&self) -> String {
        serde_json::to_string_pretty(self).expect("a register has only text keys") + "\n"
    }

    /// # Errors
    /// [`RegisterError::Full`].
    pub fn add(&mut self, issued: Issued) -> Result<(), RegisterError> {
        if self.issued.len() >= ISSUED_MAX {
            return Err(RegisterError::Full);
        }
        self.issued.push(issued);
        Ok(())
    }

    /// The certificates that a serial number, a name or a SPIFFE id means. Of a name's, those that are revoked or over
    /// count only if there are no others.
    ///
    /// # Errors
    /// [`RegisterError::Unknown`], or [`RegisterError::Ambiguous`] unless `all` are wanted.
    pub fn find(&self, wanted: &str, all: bool, now: Instant) -> Result<Vec<CertificateSerial>, RegisterError> {
        let serial = wanted.to_ascii_lowercase().replace(':', "").parse().ok();
        let is_meant = |issued: &&Issued| {
            Some(issued.serial) == serial || issued.name == wanted || issued.id.as_deref() == Some(wanted)
        };
        let meant: Vec<&Issued> = self.issued.iter().filter(is_meant).collect();
        let counts = |issued: &Issued| !matches!(issued.state(now), State::Revoked | State::Over);
        let living: Vec<&Issued> = meant.iter().copied().filter(|issued| counts(issued)).collect();
        let chosen = if living.is_empty() { meant } else { living };
        if chosen.is_empty() {
            return Err(RegisterError::Unknown(wanted.chars().take(64).collect()));
        }
        let serials: Vec<CertificateSerial> = chosen.iter().map(|issued| issued.serial).collect();
        if serials.len() > 1 && !all {
            let list: Vec<String> = serials.iter().take(8).map(ToString::to_string).collect();
            let name = wanted.to_owned();
            return Err(RegisterError::Ambiguous { name, count: serials.len(), serials: list.join(", ") });
        }
        Ok(serials)
    }

    /// Marks one certificate; `false` if it was revoked before, which stays as it was.
    pub fn revoke(&mut self, serial: CertificateSerial, revoked: Revoked) -> bool {
        let found = self.issued.iter_mut().find(|issued| issued.serial == serial && issued.revoked.is_none());
        found.map(|issued| issued.revoked = Some(revoked)).is_some()
    }

    /// What the revocation list must hold: all that were ever revoked.
    pub fn revoked(&self) -> impl Iterator<Item = (CertificateSerial, &Revoked)> {
        self.issued.iter().filter_map(|issued| issued.revoked.as_ref().map(|revoked| (issued.serial, revoked)))
    }
}

impl Issued {
    #[must_use]
    pub fn state(&self, now: Instant) -> State {
        if self.revoked.is_some() {
            return State::Revoked;
        }
        match self.not_after.unix_nanos() - now.unix_nanos() {
            ..=0 => State::Over,
            left if left <= DAY_NANOS => State::Ends(1),
            left if left <= 7 * DAY_NANOS => State::Ends(7),
            left if left <= 30 * DAY_NANOS => State::Ends(30),
            _ => State::InForce,
        }
    }

    /// Whole days until it is over; negative once it is.
    #[must_use]
    pub fn days_left(&self, now: Instant) -> i64 {
        days_left(self.not_after, now)
    }
}

/// Whole days until `end`; negative once it is over.
#[must_use]
pub fn days_left(end: Instant, now: Instant) -> i64 {
    (end.unix_nanos() - now.unix_nanos()).div_euclid(DAY_NANOS)
}

impl CertificateSerial {
    /// From random bytes.
    #[must_use]
    pub fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[0] = 0x40 | (bytes[0] & 0x3f);
        Self(bytes)
    }

    #[must_use]
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for CertificateSerial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&HEXLOWER.encode(&self.0))
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a serial number is 32 lower-case hex digits, the first of them 4 to 7")]
pub struct SerialError;

impl FromStr for CertificateSerial {
    type Err = SerialError;

    fn from_str(text: &str) -> Result<Self, SerialError> {
        let bytes = HEXLOWER.decode(text.as_bytes()).ok().and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
        bytes.filter(|bytes| (0x40..0x80).contains(&bytes[0])).map(Self).ok_or(SerialError)
    }
}

impl Serialize for CertificateSerial {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CertificateSerial {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = DAY_NANOS;

    fn at(days: i64) -> Instant {
        Instant::from_unix_nanos(20_000 * DAY + days * DAY).unwrap()
    }

    fn issued(number: u8, name: &str, ends: Instant) -> Issued {
        Issued {
            serial: CertificateSerial::from_random([number; 16]),
            kind: Kind::Person,
            name: name.into(),
            id: Some(format!("spiffe://plant.example/person/{name}")),
            roles: vec![Role::Qa],
            not_before: at(0),
            not_after: ends,
            sha256: Sha256Digest([number; 32]),
            revoked: None,
        }
    }

    fn register(all: impl IntoIterator<Item = Issued>) -> Register {
        let mut register = Register::new("plant.example".parse().unwrap());
        all.into_iter().for_each(|one| register.add(one).unwrap());
        register
    }

    #[test]
    fn a_register_reads_back_and_a_newer_one_is_said_to_be_newer() {
        let register = register([issued(1, "anna", at(397))]);
        assert_eq!(Register::parse(register.text().as_bytes()).unwrap(), register);
        let newer = register.text().replace("\"format\": 1", "\"format\": 2, \"more\": {}");
        assert!(matches!(Register::parse(newer.as_bytes()), Err(RegisterError::Format(2))));
        let strange = register.text().replace("\"crl_number\"", "\"crl_nummer\"");
        assert!(matches!(Register::parse(strange.as_bytes()), Err(RegisterError::Parse(_))));
    }

    #[test]
    fn a_state_says_how_long_a_certificate_holds() {
        let one = issued(1, "anna", at(100));
        for (days, state) in [
            (0, State::InForce),
            (69, State::InForce),
            (70, State::Ends(30)),
            (92, State::Ends(30)),
            (93, State::Ends(7)),
            (98, State::Ends(7)),
            (99, State::Ends(1)),
            (100, State::Over),
        ] {
            assert_eq!(one.state(at(days)), state, "{days}");
        }
        let hour_before = Instant::from_unix_nanos(at(100).unix_nanos() - DAY / 24).unwrap();
        assert_eq!((one.state(hour_before), one.days_left(hour_before)), (State::Ends(1), 0));
    }

    #[test]
    fn a_name_means_what_is_in_force_and_one_certificate_unless_all_are_wanted() {
        let mut register = register([issued(1, "anna", at(1)), issued(2, "anna", at(300)), issued(3, "anna", at(400))]);
        let serial = |number| CertificateSerial::from_random([number; 16]);
        assert!(matches!(register.find("bert", false, at(10)), Err(RegisterError::Unknown(_))));
        assert!(matches!(register.find("anna", false, at(10)), Err(RegisterError::Ambiguous { count: 2, .. })));
        assert_eq!(register.find("anna", true, at(10)).unwrap(), [serial(2), serial(3)]);
        let written = serial(2).to_string().to_ascii_uppercase();
        assert_eq!(register.find(&written, false, at(10)).unwrap(), [serial(2)]);
        let revoked = Revoked { at: at(10), reason: Some(Reason::KeyCompromise) };
        assert!(register.revoke(serial(2), revoked.clone()));
        assert!(!register.revoke(serial(2), Revoked { at: at(11), reason: None }), "the first revocation stays");
        assert_eq!(register.find("spiffe://plant.example/person/anna", false, at(10)).unwrap(), [serial(3)]);
        assert_eq!(register.revoked().collect::<Vec<_>>(), [(serial(2), &revoked)]);
    }

    #[test]
    fn serial_numbers_have_32_digits_in_every_tool() {
        let serial = CertificateSerial::from_random([0xff; 16]);
        assert_eq!(serial.to_string(), format!("7f{}", "ff".repeat(15)));
        assert_eq!(serial.to_string().parse::<CertificateSerial>().unwrap(), serial);
        for wrong in ["", "00", &"00".repeat(16), &"80".repeat(16)] {
            assert!(wrong.parse::<CertificateSerial>().is_err(), "{wrong}");
        }
    }
}

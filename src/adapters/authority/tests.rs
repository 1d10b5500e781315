//! What others make of the certificates is tried in `tests/it/pki.rs`; here, what only we can tell.

use x509_cert::der::asn1::Utf8StringRef;

use super::*;
use crate::{core::pki::names::ServerName, types::Role};

const DAY: i64 = 86_400 * 1_000_000_000;

fn day(number: i64) -> Instant {
    Instant::from_unix_nanos(number * DAY).unwrap()
}

fn serial(number: u8) -> CertificateSerial {
    CertificateSerial::from_random([number; 16])
}

fn authority() -> (Authority, Zeroizing<String>) {
    Authority::create(&"Werk Nord CA".parse().unwrap(), serial(1), day(20_000), day(23_650)).unwrap()
}

fn issue(authority: &Authority, holder: &Holder, common_name: &str) -> Certificate {
    let order = Order {
        holder,
        trust_domain: &"plant.example".parse().unwrap(),
        common_name: &common_name.parse().unwrap(),
        serial: serial(2),
        not_before: day(20_000),
        not_after: day(20_397),
    };
    let (pem, digest) = authority.issue(&order, &NewKey::generate().public).unwrap();
    let certificate = Certificate::from_pem(&pem).unwrap();
    assert_eq!(digest.0, <[u8; 32]>::from(Sha256::digest(certificate.to_der().unwrap())));
    certificate
}

#[test]
fn an_authority_opens_with_its_own_key_only() {
    let (made, key) = authority();
    let pem = made.pem().unwrap();
    let opened = Authority::open(&pem, &key).unwrap();
    assert_eq!(opened.not_after(), day(23_650));
    let facts = AuthorityFacts::read(&pem).unwrap();
    assert_eq!((facts.name.as_str(), facts.not_after), ("CN=Werk Nord CA", day(23_650)));
    assert!(matches!(Authority::open(&pem, &NewKey::generate().pem), Err(AuthorityError::OtherKey)));
    assert!(matches!(Authority::open(&pem, &pem), Err(AuthorityError::Key)));
    assert!(matches!(Authority::open(&key, &key), Err(AuthorityError::Certificate(_))));
}

#[test]
fn every_role_is_an_organizational_unit_and_no_character_of_a_name_is_syntax() {
    let (authority, _) = authority();
    let holder = Holder::service("mes".parse().unwrap(), Role::ALL.to_vec());
    let name = "Huber, Anna + OU=admin / \"Süd\" #1";
    let certificate = issue(&authority, &holder, name);
    let texts: Vec<(String, String)> = certificate
        .tbs_certificate()
        .subject()
        .iter()
        .map(|one| (one.oid.to_string(), one.value.decode_as::<Utf8StringRef<'_>>().unwrap().as_str().to_owned()))
        .collect();
    let units: Vec<&str> = texts.iter().filter(|(oid, _)| oid == "2.5.4.11").map(|(_, text)| text.as_str()).collect();
    assert_eq!(units, Role::ALL.map(Role::name));
    assert_eq!(texts.last().unwrap(), &("2.5.4.3".to_owned(), name.to_owned()));
}

#[test]
fn a_server_is_named_by_addresses_alone() {
    let (authority, _) = authority();
    let names =
        vec![ServerName::dns("inspect.plant.example").unwrap(), ServerName::ip("::1".parse().unwrap()).unwrap()];
    let certificate = issue(&authority, &Holder::server(names).unwrap(), "x");
    let (critical, names) =
        certificate.tbs_certificate().get_extension::<x509_cert::ext::pkix::SubjectAltName>().unwrap().unwrap();
    assert!(!critical && names.0.len() == 2, "{names:?}");
}

#[test]
fn a_revocation_list_says_its_number() {
    let (authority, _) = authority();
    let empty = authority.crl(1, day(20_000), day(20_030), std::iter::empty()).unwrap();
    assert_eq!(crl_facts(&empty).unwrap(), (1, Some(day(20_030))));
    let revoked = Revoked { at: day(20_001), reason: None };
    let list = authority.crl(70_000, day(20_001), day(20_031), std::iter::once((serial(2), &revoked))).unwrap();
    assert_eq!(crl_facts(&list).unwrap(), (70_000, Some(day(20_031))));
    assert!(crl_facts("x").is_err());
}

#[test]
fn a_request_that_is_none_is_refused() {
    assert!(matches!(request_key("x"), Err(AuthorityError::Request(_))));
    assert!(matches!(request_key(&authority().0.pem().unwrap()), Err(AuthorityError::Request(_))));
}

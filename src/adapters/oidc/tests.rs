//! What needs no provider; `tests/it/oidc.rs` tries the rest with one that is not ours.

use serde_json::json;

use super::*;

fn claims(more: serde_json::Value) -> Claims {
    let mut all = json!({ "iss": "https://id.example", "sub": "42", "exp": 2_000_000_000, "aud": "lineproof" });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

fn rule(claim: &str) -> RoleRule {
    let names = [("QA Nord", "qa"), ("Chefs", "admin"), ("Leads", "admin")];
    RoleRule { claim: claim.into(), names: names.map(|(theirs, ours)| (theirs.into(), ours.into())).into() }
}

fn roles(claim: &str, more: serde_json::Value) -> Vec<String> {
    claims(more).identity(&rule(claim)).unwrap().roles
}

#[test]
fn roles_come_from_a_claim_or_a_path_and_only_what_is_listed_counts() {
    assert_eq!(roles("roles", json!({ "roles": ["QA Nord", "Chefs", "Leads", "admin", "qa", 7] })), ["admin", "qa"]);
    assert_eq!(roles("realm_access.roles", json!({ "realm_access": { "roles": ["QA Nord"] } })), ["qa"]);
    assert_eq!(roles("https://plant.example/roles", json!({ "https://plant.example/roles": ["Chefs"] })), ["admin"]);
    assert_eq!(roles("scope", json!({ "scope": "openid Chefs" })), ["admin"]);
    for nothing in [json!({}), json!({ "roles": {} }), json!({ "roles": null }), json!({ "roles": [["Chefs"]] })] {
        assert!(roles("roles", nothing).is_empty());
    }
    assert!(roles("roles.deep", json!({ "roles": ["Chefs"] })).is_empty());
}

#[test]
fn a_name_is_for_reading_and_a_subject_is_bounded() {
    let name = |more| claims(more).identity(&rule("roles")).unwrap().name;
    assert_eq!(name(json!({ "name": "Anna\u{202e} Huber\n", "preferred_username": "ahuber" })).unwrap(), "Anna Huber");
    assert_eq!(name(json!({ "name": 7, "preferred_username": "ahuber" })).unwrap(), "ahuber");
    assert_eq!(name(json!({ "name": "x".repeat(200) })).unwrap().len(), 128);
    assert_eq!(name(json!({})), None);
    for sub in ["", "a\nb", &"x".repeat(256)] {
        assert!(claims(json!({ "sub": sub })).identity(&rule("roles")).is_err());
    }
    let expires = claims(json!({ "exp": 2_000_000_000.5 })).identity(&rule("roles")).unwrap().expires;
    assert_eq!(expires.to_string(), "2033-05-18T03:33:20.500000000Z");
}

#[test]
fn an_id_token_and_a_list_of_issuers_are_no_access_token() {
    let check = |more| claims(more).check("https://id.example", 1_900_000_000);
    assert_eq!(check(json!({ "iat": 1_900_000_000 })), Ok(()));
    for wrong in [
        json!({ "at_hash": "x" }),
        json!({ "typ": "ID" }),
        json!({ "iss": ["https://id.example"] }),
        json!({ "iat": 1_900_000_001 }),
        json!({ "iat": -1 }),
    ] {
        assert!(check(wrong.clone()).is_err(), "{wrong}");
    }
}

#[test]
fn a_header_decides_before_anybody_is_asked() {
    let header = |value: serde_json::Value| {
        let part = data_encoding::BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        header(&format!("{part}.e30.AA")).map(|header| header.alg)
    };
    assert_eq!(header(json!({ "alg": "ES256", "typ": "at+jwt" })), Ok(Algorithm::ES256));
    assert_eq!(header(json!({ "alg": "EdDSA", "typ": "application/AT+JWT" })), Ok(Algorithm::EdDSA));
    assert_eq!(header(json!({ "alg": "RS256" })), Ok(Algorithm::RS256));
    for wrong in [
        json!({ "alg": "none" }),
        json!({ "alg": "None" }),
        json!({ "alg": "HS256" }),
        json!({ "alg": "RS384" }),
        json!({ "alg": "ES256", "typ": "logout+jwt" }),
        json!({ "alg": "ES256", "crit": ["b64"] }),
        json!({}),
    ] {
        assert!(header(wrong.clone()).is_err(), "{wrong}");
    }
    assert!(super::header("no token").is_err());
}

#[test]
fn of_a_key_set_only_what_can_sign_is_read_and_it_is_bounded() {
    let now = Monotonic::now();
    let ec = |id: &str| json!({ "kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": id });
    let parse = |keys: Vec<serde_json::Value>| KeySet::parse(json!({ "keys": keys }).to_string().as_bytes(), now);
    let mut others = vec![
        json!({ "kty": "oct", "k": "AAAA", "kid": "secret", "alg": "HS256" }),
        json!({ "kty": "EC", "crv": "P-384", "x": "AA", "y": "AA" }),
        json!({ "kty": "RSA", "n": "AA", "e": "AQAB", "use": "enc", "kid": "box" }),
        json!({ "kty": "RSA", "n": "AA", "e": "AQAB", "alg": "RS512" }),
        json!({ "kty": "new" }),
        json!(7),
    ];
    assert!(parse(others.clone()).is_err());
    others.push(ec("a"));
    let set = parse(others).unwrap();
    let mut header = Header::new(Algorithm::ES256);
    assert!(set.has(&header), "it is clear which");
    header.kid = Some("b".into());
    assert!(!set.has(&header));
    header.kid = Some("a".into());
    assert!(set.has(&header));
    header.alg = Algorithm::RS256;
    assert!(!set.has(&header), "a key signs with its own algorithm");
    let two = parse(vec![ec("a"), ec("b")]).unwrap();
    assert!(!two.has(&Header::new(Algorithm::ES256)), "it is not clear which");
    assert!(parse((0..65).map(|number| ec(&number.to_string())).collect()).is_err());
}

//! Access tokens of an identity provider that is not ours: oidc-provider, certified by the OpenID Foundation.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use lineproof::{
    adapters::oidc::{Oidc, OidcSettings, Pace, TOKEN_BYTES_MAX},
    app::config::oidc::OidcConfig,
    edge::pb::{self, history_service_client::HistoryServiceClient},
    ports::access::{TokenError, TokenIdentity, TokenVerifier as _},
};
use serde_json::{Value, json};
use tonic::Code;

use crate::harness::{Plant, block_on, lineproof, part, skipped, text};

const AUDIENCE: &str = "lineproof";

/// A provider, which ends with the test.
struct Provider {
    child: Child,
    issuer: String,
    /// Where it is without TLS.
    plain: String,
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Provider {
    fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// With the files of a certificate and its key it is behind TLS.
    fn start_with(tls: &[PathBuf]) -> Option<Self> {
        let Some(script) = std::env::var_os("LINEPROOF_OIDC_PROVIDER").filter(|path| !path.is_empty()) else {
            skipped(
                "LINEPROOF_OIDC_PROVIDER is not set: no identity provider issues tokens (scripts/oidc-provider-env.sh)",
            );
            return None;
        };
        let mut node = Command::new("node");
        let mut child =
            node.arg(script).args(tls).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("node runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ["issuer", issuer, "plain", plain] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("the provider does not say where it is: {line}")
        };
        Some(Self { child, issuer: issuer.to_owned(), plain: plain.to_owned() })
    }

    fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// One request, and the body of its answer.
    fn ask(&self, method: &str, path: &str, kind: &str, body: &str) -> String {
        let host = self.plain.strip_prefix("http://").unwrap();
        let mut stream = TcpStream::connect(host).unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: {host}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200 "), "{answer}");
        body.to_owned()
    }

    /// A token as a program gets one: client credentials, for a resource.
    fn token(&self, algorithm: &str, resource: &str) -> String {
        let form = format!(
            "grant_type=client_credentials&client_id=mes-{algorithm}&client_secret=for-tests-only&scope=inspect&resource=urn:{resource}"
        );
        let answer: Value =
            serde_json::from_str(&self.ask("POST", "/token", "application/x-www-form-urlencoded", &form)).unwrap();
        answer["access_token"].as_str().expect("an access token").to_owned()
    }

    /// A token that the provider would not issue.
    fn mint(&self, wanted: &Value) -> String {
        self.ask("POST", "/test/mint", "application/json", &wanted.to_string())
    }

    fn rotate(&self) {
        self.ask("GET", "/test/rotate", "text/plain", "");
    }

    /// How often its keys were asked for.
    fn asked(&self) -> u64 {
        let counts: Value = serde_json::from_str(&self.ask("GET", "/test/counts", "text/plain", "")).unwrap();
        counts["jwks"].as_u64().unwrap()
    }

    fn settings(&self) -> OidcSettings {
        OidcSettings {
            issuer: self.issuer.clone(),
            audience: AUDIENCE.into(),
            tls: None,
            jwks_uri: None,
            role_claim: "realm_access.roles".into(),
            roles: [("QA Nord".to_owned(), "qa".to_owned())].into(),
            pace: Pace { again_after: Duration::ZERO, ..Pace::default() },
        }
    }
}

async fn verified(oidc: &Oidc, token: &str) -> TokenIdentity {
    oidc.verify(token).await.expect("a valid token")
}

/// Why it is refused.
async fn invalid(oidc: &Oidc, token: &str) -> String {
    match oidc.verify(token).await {
        Err(TokenError::Invalid(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

async fn unreachable(oidc: &Oidc, token: &str) -> String {
    match oidc.verify(token).await {
        Err(TokenError::Unreachable(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_providers_tokens_say_who_and_which_roles_in_all_four_algorithms() {
    let Some(provider) = Provider::start() else { return };
    block_on(async {
        let oidc = Oidc::new(provider.settings()).unwrap();
        oidc.warm_up().await.unwrap();
        for algorithm in ["RS256", "PS256", "ES256", "EdDSA"] {
            let identity = verified(&oidc, &provider.token(algorithm, AUDIENCE)).await;
            assert_eq!(identity.issuer, provider.issuer);
            assert_eq!(identity.subject, format!("mes-{algorithm}"));
            assert_eq!((identity.name.as_deref(), &identity.roles[..]), (Some("MES"), &["qa".to_owned()][..]));
        }
        assert_eq!(provider.asked(), 1, "the keys were asked for once");
    });
}

#[test]
fn a_token_that_is_wrong_in_one_thing_is_refused_for_it() {
    let Some(provider) = Provider::start() else { return };
    block_on(async {
        let oidc = Oidc::new(provider.settings()).unwrap();
        let (hour, now) = (3600, jiff::Timestamp::now().as_second());
        verified(&oidc, &provider.mint(&json!({}))).await;
        // Within the leeway.
        verified(&oidc, &provider.mint(&json!({ "claims": { "exp": now - 30, "nbf": now + 30, "iat": now + 30 } })))
            .await;
        verified(&oidc, &provider.mint(&json!({ "claims": { "aud": ["else", AUDIENCE], "nbf": null, "iat": null } })))
            .await;
        verified(&oidc, &provider.mint(&json!({ "header": { "typ": "JWT" } }))).await;
        for (says, wanted) in [
            ("expired", json!({ "claims": { "exp": now - 90 } })),
            ("no usable `exp`", json!({ "claims": { "exp": null } })),
            ("no usable `exp`", json!({ "claims": { "exp": "never" } })),
            ("not valid yet", json!({ "claims": { "nbf": now + 90 } })),
            ("issued in the future", json!({ "claims": { "iat": now + hour } })),
            ("issued in the future", json!({ "claims": { "iat": "now" } })),
            ("`sub` is not", json!({ "claims": { "sub": "a\nb" } })),
            ("another issuer", json!({ "claims": { "iss": format!("{}/", provider.issuer) } })),
            ("another issuer", json!({ "claims": { "iss": [provider.issuer] } })),
            ("no usable `iss`", json!({ "claims": { "iss": null } })),
            ("not for audience \"lineproof\"", json!({ "claims": { "aud": "else" } })),
            ("no usable `aud`", json!({ "claims": { "aud": null } })),
            ("no usable `sub`", json!({ "claims": { "sub": null } })),
            ("ID token", json!({ "claims": { "at_hash": "x" } })),
            ("its type", json!({ "header": { "typ": "logout+jwt" } })),
            ("signed with a known algorithm", json!({ "how": "none" })),
            ("signed with a known algorithm", json!({ "how": "none", "header": { "alg": "NONE" } })),
            ("HS256", json!({ "how": "HS256" })),
            ("signature is wrong", json!({ "how": "stranger" })),
            ("no key of its `kid`", json!({ "header": { "kid": "RS256-1" } })),
            ("no key of its `kid`", json!({ "header": { "kid": "../x" } })),
        ] {
            let reason = invalid(&oidc, &provider.mint(&wanted)).await;
            assert!(reason.contains(says), "{wanted}: {reason}");
        }
        assert!(invalid(&oidc, &provider.token("ES256", "else")).await.contains("not for audience"));

        // Every part of a token counts.
        let token = provider.token("RS256", AUDIENCE);
        let parts: Vec<&str> = token.split('.').collect();
        let claims = data_encoding::BASE64URL_NOPAD.decode(parts[1].as_bytes()).unwrap();
        let claims = String::from_utf8(claims).unwrap().replace("somebody", "QA Nord!");
        let bent = [parts[0], &data_encoding::BASE64URL_NOPAD.encode(claims.as_bytes()), parts[2]].join(".");
        assert_eq!(invalid(&oidc, &bent).await, "its signature is wrong");
        for at in [parts[0].len() / 2, parts[0].len() + 10, token.len() - 20] {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            invalid(&oidc, &String::from_utf8(bytes).unwrap()).await;
        }
        invalid(&oidc, &[parts[0], parts[1], ""].join(".")).await;
        invalid(&oidc, "").await;
        assert!(invalid(&oidc, &"x".repeat(TOKEN_BYTES_MAX + 1)).await.contains("bytes"));
        verified(&oidc, &token).await;
    });
}

#[test]
fn new_keys_of_the_provider_are_found_and_old_ones_forgotten() {
    let Some(provider) = Provider::start() else { return };
    block_on(async {
        let oidc = Oidc::new(provider.settings()).unwrap();
        let before = provider.token("ES256", AUDIENCE);
        verified(&oidc, &before).await;
        provider.rotate();
        verified(&oidc, &provider.token("ES256", AUDIENCE)).await;
        assert!(invalid(&oidc, &before).await.contains("no key of its `kid`"));

        // Without a token of the new key, the interval does it: what is known serves until the answer is there.
        let settings = OidcSettings {
            pace: Pace { refresh_after: Duration::ZERO, ..provider.settings().pace },
            ..provider.settings()
        };
        let oidc = Oidc::new(settings).unwrap();
        let before = provider.token("ES256", AUDIENCE);
        verified(&oidc, &before).await;
        provider.rotate();
        while oidc.verify(&before).await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert!(invalid(&oidc, &before).await.contains("no key of its `kid`"));
    });
}

#[test]
fn a_flood_of_unknown_keys_makes_one_question() {
    let Some(provider) = Provider::start() else { return };
    assert_eq!(Pace::default().again_after, Duration::from_secs(10));
    block_on(async {
        // As long as the test may take on a busy machine.
        let pace = Pace { again_after: Duration::from_secs(3600), ..Pace::default() };
        let oidc = Oidc::new(OidcSettings { pace, ..provider.settings() }).unwrap();
        let strangers: Vec<String> =
            (0..40).map(|number| provider.mint(&json!({ "header": { "kid": format!("unknown-{number}") } }))).collect();
        let mut all = Vec::new();
        let oidc = std::sync::Arc::new(oidc);
        for token in strangers {
            let oidc = oidc.clone();
            all.push(tokio::spawn(async move { invalid(&oidc, &token).await }));
        }
        for one in all {
            assert!(one.await.unwrap().contains("no key of its `kid`"));
        }
        assert_eq!(provider.asked(), 1);
        // Nobody who has a known key waits for that.
        verified(&oidc, &provider.token("ES256", AUDIENCE)).await;
        assert_eq!(provider.asked(), 1);
    });
}

#[test]
fn while_the_provider_is_away_known_keys_still_verify_and_the_rest_is_said_to_be_unreachable() {
    let Some(mut provider) = Provider::start() else { return };
    block_on(async {
        let settings = |trust_for| {
            let pace = Pace { again_after: Duration::ZERO, refresh_after: Duration::ZERO, trust_for };
            OidcSettings { pace, ..provider.settings() }
        };
        let oidc = Oidc::new(settings(Duration::from_secs(3600))).unwrap();
        let short = Oidc::new(settings(Duration::ZERO)).unwrap();
        let never = Oidc::new(provider.settings()).unwrap();
        let token = provider.token("ES256", AUDIENCE);
        let stranger = provider.mint(&json!({ "header": { "kid": "other" } }));
        verified(&oidc, &token).await;
        verified(&short, &token).await;
        provider.stop();
        for _ in 0..3 {
            verified(&oidc, &token).await;
        }
        assert!(invalid(&oidc, &stranger).await.contains("no key of its `kid`"));
        let address = provider.issuer.strip_prefix("http://").unwrap();
        assert!(unreachable(&never, &token).await.contains(address));
        assert!(never.warm_up().await.is_err());
        // Keys that were not confirmed for too long are worth nothing.
        unreachable(&short, &token).await;
        // A bad header needs no provider to be refused.
        assert!(invalid(&never, "a.b.c").await.contains("no JWT"));
    });
}

#[test]
fn keys_of_another_host_count_only_when_they_are_configured() {
    let (Some(provider), Some(other)) = (Provider::start(), Provider::start()) else { return };
    block_on(async {
        let elsewhere = format!("{}/jwks", other.issuer);
        provider.ask("GET", &format!("/test/moved?to={elsewhere}"), "text/plain", "");
        let oidc = Oidc::new(provider.settings()).unwrap();
        let token = provider.token("ES256", AUDIENCE);
        assert!(unreachable(&oidc, &token).await.contains("set jwks_uri"));
        assert_eq!(other.asked(), 0);
        let with = |jwks_uri| Oidc::new(OidcSettings { jwks_uri: Some(jwks_uri), ..provider.settings() }).unwrap();
        verified(&with(format!("{}/jwks", provider.issuer)), &token).await;
        // The other provider's keys are called the same, and are not the same.
        assert_eq!(invalid(&with(elsewhere), &token).await, "its signature is wrong");

        // An issuer that calls itself otherwise is none.
        let issuer = provider.issuer.replace("127.0.0.1", "localhost");
        let oidc = Oidc::new(OidcSettings { issuer, ..provider.settings() }).unwrap();
        assert!(unreachable(&oidc, &token).await.contains("they must be the same"));
    });
}

#[test]
fn behind_tls_only_the_configured_authority_vouches_for_the_provider() {
    let folder = tempfile::TempDir::new().unwrap();
    let pki = |arguments: &[&str]| {
        let output = lineproof().arg("pki").args(arguments).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    };
    for name in ["ca", "other"] {
        pki(&["init", name, "--trust-domain", "plant.example"]);
    }
    pki(&["issue", "ca", "server", "--dns", "localhost", "--out", "tls"]);
    let file = |name: &str| folder.path().join("tls").join(name);
    let Some(provider) = Provider::start_with(&[file("localhost.pem"), file("localhost.key")]) else { return };
    assert!(provider.issuer.starts_with("https://localhost:"));
    let configured = |ca: &str| {
        let issuer = &provider.issuer;
        let text = format!(
            "issuer = {issuer:?}\naudience = \"lineproof\"\nrole_claim = \"realm_access.roles\"\n{ca}\n[roles]\n\"QA Nord\" = \"qa\"\n"
        );
        let mut config: OidcConfig = toml::from_str(&text).unwrap();
        config.check().unwrap();
        config.resolve(Path::new(folder.path()));
        config.build().unwrap()
    };
    block_on(async {
        let token = provider.token("ES256", AUDIENCE);
        let identity = verified(&configured("ca = \"ca/ca.pem\""), &token).await;
        assert_eq!((&identity.issuer, &identity.roles[..]), (&provider.issuer, &["qa".to_owned()][..]));
        let reason = unreachable(&configured("ca = \"other/ca.pem\""), &token).await;
        assert!(reason.contains("TLS"), "{reason}");
    });
}

#[test]
fn people_come_to_the_office_with_a_token_and_nobody_comes_without() {
    let Some(provider) = Provider::start() else { return };
    let plant = Plant::new();
    let table = format!(
        "[access.oidc]\nissuer = \"{}\"\naudience = \"{AUDIENCE}\"\nrole_claim = \"realm_access.roles\"\nroles = {{ \"QA Nord\" = \"qa\" }}\n\n[inspect]\n",
        provider.issuer
    );
    plant.edit_config("[inspect]\n", &table);
    let service = plant.serve();
    block_on(async {
        let office = service.office_channel().await;
        let ask = async |token: Option<&str>| {
            let mut request = tonic::Request::new(pb::ListDecisionsRequest::default());
            if let Some(token) = token {
                request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
            }
            let answer = HistoryServiceClient::new(office.clone()).list_decisions(request).await;
            answer.map(|_| ()).map_err(|status| status.code())
        };
        let good = provider.token("ES256", AUDIENCE);
        assert_eq!(ask(Some(&good)).await, Ok(()));
        assert_eq!(ask(None).await, Err(Code::Unauthenticated), "with an identity provider nobody is believed unasked");
        assert_eq!(ask(Some("")).await, Err(Code::Unauthenticated));
        assert_eq!(ask(Some(&good[..good.len() - 8])).await, Err(Code::Unauthenticated));
        let without = provider.mint(&json!({ "claims": { "realm_access": { "roles": ["Guests"] } } }));
        assert_eq!(ask(Some(&without)).await, Err(Code::PermissionDenied), "known, and without a role");
        // The line's listener takes no tokens: a station has a certificate.
        let mut request = tonic::Request::new(part(1));
        request.metadata_mut().insert("authorization", format!("Bearer {good}").parse().unwrap());
        let refused = service.inspection().await.inspect(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    });
    assert!(plant.run(&["history"]).status.success(), "the operator's socket asks for none");
    assert_eq!(service.stop().code, Some(0));
    let access = crate::evidence::entries(&plant.data(), "access").join("\n");
    assert!(
        access.contains("login_failed") && access.contains("\"reason\":\"token\"") && access.contains("\"read\""),
        "{access}"
    );
    assert!(!access.contains(&provider.issuer), "names stand in no entry");
}

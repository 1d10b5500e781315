//! `[access.oidc]` of `lineproof.toml`: the plant's identity provider, if it has one.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    adapters::oidc::{Oidc, OidcSettings, Pace},
    app::tls,
    types::Role,
};

/// Longest issuer, audience, claim and name of a role, in bytes.
const TEXT_BYTES_MAX: usize = 512;
/// Roles of the provider that mean something here.
const ROLES_MAX: usize = 256;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcConfig {
    /// As the provider writes itself in its discovery document, byte for byte.
    pub issuer: String,
    /// Must be among the audiences of a token.
    pub audience: String,
    /// PEM file of the authority that signed the issuer's certificate, relative to the data directory; unset: those that
    /// the system trusts.
    pub ca: Option<PathBuf>,
    /// Where the provider's keys are; unset: where its discovery document says, on the issuer's host and port.
    pub jwks_uri: Option<String>,
    /// The claim that holds roles: a name, or a path such as `realm_access.roles`.
    #[serde(default = "role_claim")]
    pub role_claim: String,
    /// The provider's names of roles, and ours. What is not listed gives nothing.
    #[serde(default)]
    pub roles: BTreeMap<String, Role>,
}

fn role_claim() -> String {
    "roles".into()
}

impl OidcConfig {
    /// Makes paths relative to the data directory whole.
    pub fn resolve(&mut self, data_dir: &Path) {
        if let Some(ca) = &mut self.ca {
            *ca = data_dir.join(&*ca);
        }
    }

    /// The key that is wrong, and why.
    ///
    /// # Errors
    /// Both as text.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        for (key, text) in [("issuer", &self.issuer), ("audience", &self.audience), ("role_claim", &self.role_claim)] {
            if !(1..=TEXT_BYTES_MAX).contains(&text.len()) {
                return Err((key, format!("it has {} bytes; 1 to {TEXT_BYTES_MAX} are allowed", text.len())));
            }
        }
        if self.roles.is_empty() {
            return Err(("roles", "without it no token gives a role; add `\"Name at the provider\" = \"qa\"`".into()));
        }
        if self.roles.len() > ROLES_MAX || self.roles.keys().any(|name| name.len() > TEXT_BYTES_MAX) {
            return Err(("roles", format!("at most {ROLES_MAX} names of at most {TEXT_BYTES_MAX} bytes are allowed")));
        }
        if let Some((name, _)) = self.roles.iter().find(|(_, role)| **role == Role::Line) {
            let reason = "no token gives role line: frames come from stations and services with a certificate";
            return Err(("roles", format!("{name:?}: {reason}")));
        }
        // Syntax only: whom it trusts is read when it is built.
        let url = |url: &str| url.parse::<hyper::Uri>().is_ok_and(|uri| uri.host().is_some() && uri.scheme().is_some());
        for (key, text) in [("issuer", Some(&self.issuer)), ("jwks_uri", self.jwks_uri.as_ref())] {
            if text.is_some_and(|text| !url(text)) {
                return Err((key, "it is no URL such as https://id.plant.example/realms/plant".into()));
            }
        }
        Ok(())
    }

    /// What verifies tokens. Asks nobody yet.
    ///
    /// # Errors
    /// When the authority cannot be read, or a URL may not be asked.
    pub fn build(&self) -> anyhow::Result<Oidc> {
        let settings = OidcSettings {
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            tls: self.ca.as_deref().map(tls::trusting).transpose()?,
            jwks_uri: self.jwks_uri.clone(),
            role_claim: self.role_claim.clone(),
            roles: self.roles.iter().map(|(theirs, ours)| (theirs.clone(), ours.name().to_owned())).collect(),
            pace: Pace::default(),
        };
        Oidc::new(settings).map_err(anyhow::Error::msg)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"
issuer = "https://id.plant.example/realms/plant"
audience = "lineproof"
ca = "tls/id-ca.pem"
role_claim = "realm_access.roles"
[roles]
"Qualitätssicherung" = "qa"
"IT" = "admin"
"#;

    fn read(text: &str) -> Result<OidcConfig, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_table_says_whom_to_believe_and_what_their_roles_mean() {
        let mut config = read(FULL).unwrap();
        config.resolve(Path::new("/data"));
        assert_eq!(config.ca.as_deref(), Some(Path::new("/data/tls/id-ca.pem")));
        assert_eq!(config.roles["Qualitätssicherung"], Role::Qa);
        assert_eq!(config.check(), Ok(()));
        assert!(config.build().is_err(), "its authority is not there");
        config.ca = None;
        config.issuer = "http://id.plant.example".into();
        assert!(config.build().is_err_and(|error| error.to_string().contains("loopback")));
        config.issuer = "http://127.0.0.1:8080".into();
        assert!(config.build().is_ok());
    }

    #[test]
    fn a_wrong_table_is_refused_by_its_key() {
        assert!(read(&FULL.replace("\"qa\"", "\"boss\"")).unwrap_err().contains("boss"));
        assert!(read(&FULL.replace("audience", "audiences")).is_err());
        let wrong = |from: &str, to: &str| read(&FULL.replace(from, to)).unwrap().check().unwrap_err().0;
        assert_eq!(wrong("\"lineproof\"", "\"\""), "audience");
        assert_eq!(wrong("https://id.plant.example/realms/plant", "id.plant.example"), "issuer");
        assert_eq!(wrong("\"admin\"", "\"line\""), "roles");
        let bare = FULL.split("[roles]").next().unwrap();
        assert_eq!(read(bare).unwrap().check().unwrap_err().0, "roles");
    }
}

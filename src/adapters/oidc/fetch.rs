//! Asking the provider: its discovery document, and through it its keys. Both bounded in bytes and time.

use std::time::{Duration, Instant};

use hyper::{StatusCode, Uri};
use serde::Deserialize;
use tokio::time::timeout;
use tokio_rustls::rustls::ClientConfig;

use super::keys::KeySet;
use crate::outgoing::{Endpoint, get, system_trust};

/// Longest discovery document in bytes.
const DISCOVERY_BYTES_MAX: usize = 64 << 10;
/// Longest set of keys in bytes.
const JWKS_BYTES_MAX: usize = 256 << 10;
/// Longest time for one document.
const FETCH_MAX: Duration = Duration::from_secs(5);
/// How long it is believed where the keys are.
const DISCOVERY_FOR: Duration = Duration::from_secs(3600);
/// After the issuer: OpenID Connect Discovery 1.0, section 4.
const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";

/// Where keys come from.
pub(super) struct Source {
    issuer: Endpoint,
    discovery_path: String,
    tls: Option<ClientConfig>,
    /// A place that is configured; it is not looked for then.
    configured: Option<Place>,
    found: Option<(Instant, Place)>,
}

struct Place {
    endpoint: Endpoint,
    path: String,
}

impl Source {
    pub fn new(issuer: &str, jwks_uri: Option<&str>, tls: Option<ClientConfig>) -> Result<Self, String> {
        let place = |url: &str| Place::new(url, tls.as_ref()).map_err(|reason| format!("{url:?}: {reason}"));
        let Place { endpoint, path } = place(issuer)?;
        if path.contains('?') {
            return Err(format!("{issuer:?}: an issuer has no query"));
        }
        let discovery_path = format!("{}{DISCOVERY_PATH}", path.trim_end_matches('/'));
        let configured = jwks_uri.map(place).transpose()?;
        Ok(Self { issuer: endpoint, discovery_path, tls, configured, found: None })
    }

    /// The provider's keys as of now.
    ///
    /// # Errors
    /// A sentence.
    pub async fn keys(&mut self, issuer: &str) -> Result<KeySet, String> {
        if self.configured.is_none() && self.found.as_ref().is_none_or(|(since, _)| since.elapsed() >= DISCOVERY_FOR) {
            self.found = None;
            self.found = Some((Instant::now(), self.discover(issuer).await?));
        }
        let place = self.configured.as_ref().or(self.found.as_ref().map(|(_, place)| place));
        let place = place.expect("configured, or found just now");
        let since = Instant::now();
        let keys = match fetch(&place.endpoint, &place.path, JWKS_BYTES_MAX).await {
            Ok(bytes) => KeySet::parse(&bytes, since),
            Err(reason) => Err(reason),
        };
        if keys.is_err() {
            // They may have moved.
            self.found = None;
        }
        keys
    }

    async fn discover(&self, issuer: &str) -> Result<Place, String> {
        #[derive(Deserialize)]
        struct Discovery {
            issuer: String,
            jwks_uri: String,
        }
        let bytes = fetch(&self.issuer, &self.discovery_path, DISCOVERY_BYTES_MAX).await?;
        let found: Discovery =
            serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", self.discovery_path))?;
        // Section 4.3: they must be identical, or one provider could speak for another.
        if found.issuer != issuer {
            let found: String = found.issuer.chars().take(200).collect();
            return Err(format!("it calls itself {found:?}, and configured is {issuer:?}; they must be the same"));
        }
        let shown: String = found.jwks_uri.chars().take(200).collect();
        let place = Place::new(&found.jwks_uri, self.tls.as_ref()).map_err(|reason| format!("{shown:?}: {reason}"))?;
        if !place.endpoint.is_same(&self.issuer) {
            return Err(format!("its keys are at {shown:?}, with another host; set jwks_uri if that is right"));
        }
        Ok(place)
    }
}

impl Place {
    fn new(url: &str, tls: Option<&ClientConfig>) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|_| "it is no URL")?;
        let endpoint =
            Endpoint::new(&uri, || tls.cloned().map_or_else(system_trust, Ok)).map_err(|error| error.to_string())?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { endpoint, path })
    }
}

async fn fetch(endpoint: &Endpoint, path: &str, bytes_max: usize) -> Result<Vec<u8>, String> {
    let at = || format!("{}{path}", endpoint.authority());
    match timeout(FETCH_MAX, get(endpoint, path, bytes_max)).await {
        Err(_) => Err(format!("{}: no answer within {} s", at(), FETCH_MAX.as_secs())),
        Ok(Err(reason)) => Err(format!("{}: {reason}", at())),
        Ok(Ok((StatusCode::OK, bytes))) => Ok(bytes.to_vec()),
        Ok(Ok((status, _))) => Err(format!("{}: it answered {status}", at())),
    }
}

//! Access tokens of the plant's identity provider: JWTs (RFC 7519, RFC 9068) that it signs, with keys found by OpenID
//! Connect Discovery 1.0. The only connections it makes are to the configured issuer.

mod claims;
mod fetch;
mod keys;
mod signature;

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant as Monotonic},
};

use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header, errors::ErrorKind};
use tokio::sync::Mutex;
use tokio_rustls::rustls::ClientConfig;

use self::{
    claims::{Claims, RoleRule},
    fetch::Source,
    keys::KeySet,
};
use crate::ports::access::{TokenError, TokenIdentity, TokenVerifier, Verified};

/// Longest token in bytes: what a header of HTTP/2 may have by default.
pub const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Clocks may differ by so many seconds.
const LEEWAY_S: u64 = 60;
/// What a token may be signed with. Nothing that needs a shared secret, and not `none`.
const ALGORITHMS: [Algorithm; 4] = [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA];

/// Whom to believe, and what for.
pub struct OidcSettings {
    /// As the provider writes itself, byte for byte.
    pub issuer: String,
    /// Who we are to the provider; must be among a token's audiences.
    pub audience: String,
    /// Whom to trust for the issuer's certificate; unset: the authorities this system trusts.
    pub tls: Option<ClientConfig>,
    /// Where the keys are, if they are not where the issuer says, or with another host.
    pub jwks_uri: Option<String>,
    /// The claim that holds roles: its name, or a path of names with dots.
    pub role_claim: String,
    /// The provider's names of roles, and ours. Others give nothing.
    pub roles: BTreeMap<String, String>,
    pub pace: Pace,
}

/// How often the provider is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Not sooner after the last time, whatever tokens come.
    pub again_after: Duration,
    /// Keys older than this are asked for anew, while those that are known are still used.
    pub refresh_after: Duration,
    /// Keys that the provider has not confirmed for so long are not used any more.
    pub trust_for: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            again_after: Duration::from_secs(10),
            refresh_after: Duration::from_secs(10 * 60),
            trust_for: Duration::from_secs(24 * 3600),
        }
    }
}

/// The provider's tokens, verified with the provider's keys.
pub struct Oidc(Arc<Provider>);

struct Provider {
    issuer: String,
    audience: String,
    rule: RoleRule,
    pace: Pace,
    /// Read by every token, replaced whole.
    keys: RwLock<Option<Arc<KeySet>>>,
    /// Held while the provider is asked: one question at a time.
    source: Arc<Mutex<Asking>>,
}

struct Asking {
    source: Source,
    /// When the provider was asked last, and why it gave nothing.
    last: Option<(Monotonic, Result<(), String>)>,
}

impl Asking {
    /// How long ago the provider was asked, and why it gave nothing, if that was not longer ago than `pace`.
    fn asked_within(&self, pace: Duration) -> Option<(Duration, &Result<(), String>)> {
        let (at, answered) = self.last.as_ref()?;
        let ago = at.elapsed();
        (ago < pace).then_some((ago, answered))
    }
}

impl Oidc {
    /// Asks nobody yet.
    ///
    /// # Errors
    /// A sentence, when the issuer is no URL that may be asked.
    pub fn new(settings: OidcSettings) -> Result<Self, String> {
        signature::install();
        let OidcSettings { issuer, audience, tls, jwks_uri, role_claim, roles, pace } = settings;
        let source = Source::new(&issuer, jwks_uri.as_deref(), tls)?;
        let rule = RoleRule { claim: role_claim, names: roles };
        let source = Arc::new(Mutex::new(Asking { source, last: None }));
        Ok(Self(Arc::new(Provider { issuer, audience, rule, pace, keys: RwLock::default(), source })))
    }

    /// Asks for the keys, so that the first token need not wait and a wrong configuration is noticed at the start.
    ///
    /// # Errors
    /// [`TokenError::Unreachable`].
    pub async fn warm_up(&self) -> Result<(), TokenError> {
        self.0.ask(None).await.map_err(TokenError::Unreachable).map(|_| ())
    }
}

impl TokenVerifier for Oidc {
    fn verify<'a>(&'a self, token: &'a str) -> Verified<'a> {
        Box::pin(async move { verify(&self.0, token).await })
    }
}

fn invalid(reason: impl Into<String>) -> TokenError {
    TokenError::Invalid(reason.into())
}

/// 1. Look at the header, 2. find the key, 3. check signature, issuer, audience and times, 4. read who it is.
async fn verify(provider: &Arc<Provider>, token: &str) -> Result<TokenIdentity, TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(invalid(format!("it has more than {TOKEN_BYTES_MAX} bytes")));
    }
    let header = header(token)?;
    let keys = provider.keys_for(&header).await?;
    let claims = provider.checked(token, &header, &keys)?;
    claims.identity(&provider.rule)
}

/// The header of a token that may be looked at further.
fn header(token: &str) -> Result<Header, TokenError> {
    let header = decode_header(token).map_err(|_| invalid("it is no JWT signed with a known algorithm"))?;
    if !ALGORITHMS.contains(&header.alg) {
        return Err(invalid(format!("it is signed with {:?}; RS256, PS256, ES256 and EdDSA are accepted", header.alg)));
    }
    // RFC 7515, section 4.1.11: what is critical and not understood makes it invalid. We understand none.
    if header.crit.is_some() {
        return Err(invalid("its header holds `crit`"));
    }
    // RFC 9068, section 2.1, and RFC 7515, section 4.1.9, on how media types are written. Others are other tokens,
    // such as those that end a session.
    let typ = header.typ.as_deref().map(str::to_ascii_lowercase);
    let typ = typ.as_deref().map(|typ| typ.strip_prefix("application/").unwrap_or(typ));
    if !matches!(typ, None | Some("jwt" | "at+jwt")) {
        return Err(invalid("its type is not that of an access token"));
    }
    Ok(header)
}

impl Provider {
    /// Keys among which the one of this token is.
    async fn keys_for(self: &Arc<Self>, header: &Header) -> Result<Arc<KeySet>, TokenError> {
        if let Some(keys) = self.trusted().filter(|keys| keys.has(header)) {
            if keys.age() >= self.pace.refresh_after {
                self.ask_beside();
            }
            return Ok(keys);
        }
        let keys = self.ask(self.known().as_ref()).await.map_err(TokenError::Unreachable)?;
        if keys.has(header) {
            return Ok(keys);
        }
        Err(invalid(match &header.kid {
            Some(_) => {
                "the provider has no key of its `kid`; if it has changed its keys just now, try again in ten seconds"
            }
            None => "it does not say by `kid` which of the provider's keys signed it",
        }))
    }

    fn known(&self) -> Option<Arc<KeySet>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for newer keys while tokens go on being verified with those that are known.
    fn ask_beside(self: &Arc<Self>) {
        // Whoever holds it is asking.
        let Ok(mut asking) = self.source.clone().try_lock_owned() else { return };
        if asking.asked_within(self.pace.again_after).is_none() {
            let provider = self.clone();
            // What went wrong is logged there; the known keys stay good.
            tokio::spawn(async move { provider.ask_now(&mut asking).await.map(|_| ()) });
        }
    }

    /// The provider's keys: newer ones than `seen`, unless it was asked just now.
    async fn ask(&self, seen: Option<&Arc<KeySet>>) -> Result<Arc<KeySet>, String> {
        let mut asking = self.source.lock().await;
        // Somebody else may have asked while we waited.
        let known = self.known();
        let is_newer = |keys: &Arc<KeySet>| seen.is_none_or(|seen| !Arc::ptr_eq(seen, keys));
        if let Some(keys) = known.as_ref().filter(|keys| is_newer(keys)) {
            return Ok(keys.clone());
        }
        match asking.asked_within(self.pace.again_after) {
            None => self.ask_now(&mut asking).await,
            Some((ago, answered)) => self.trusted().ok_or_else(|| {
                let reason = answered.as_ref().err().map_or("its keys are too old", String::as_str);
                let again_in_s = self.pace.again_after.saturating_sub(ago).as_secs() + 1;
                format!("{reason}; it is asked again in {again_in_s} s")
            }),
        }
    }

    async fn ask_now(&self, asking: &mut Asking) -> Result<Arc<KeySet>, String> {
        // Noted before the answer: a caller that goes away in the middle must not make the next one ask at once.
        asking.last = Some((Monotonic::now(), Err("it was asked, and whoever asked did not wait".into())));
        let answered = asking.source.keys(&self.issuer).await;
        asking.last = Some((Monotonic::now(), answered.as_ref().map(|_| ()).map_err(Clone::clone)));
        match answered {
            Ok(keys) => {
                let keys = Arc::new(keys);
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Some(keys.clone());
                Ok(keys)
            }
            // What is known stays good while the provider is away.
            Err(reason) => {
                tracing::warn!(issuer = self.issuer, reason, "the identity provider gives no keys");
                self.trusted().ok_or(reason)
            }
        }
    }

    /// The known keys, unless they are too old.
    fn trusted(&self) -> Option<Arc<KeySet>> {
        self.known().filter(|keys| keys.age() < self.pace.trust_for)
    }

    /// The claims, once signature, issuer, audience and times are right.
    fn checked(&self, token: &str, header: &Header, keys: &KeySet) -> Result<Claims, TokenError> {
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let mut reason = None;
        for key in keys.fitting(header) {
            match decode::<Claims>(token, key, &validation) {
                Ok(data) => {
                    data.claims.check(&self.issuer, jsonwebtoken::get_current_timestamp() + LEEWAY_S)?;
                    return Ok(data.claims);
                }
                Err(error) => reason = reason.filter(|_| *error.kind() == ErrorKind::InvalidSignature).or(Some(error)),
            }
        }
        Err(reason.map_or_else(|| invalid("no key fits"), |error| self.why(error.kind())))
    }

    fn why(&self, kind: &ErrorKind) -> TokenError {
        invalid(match kind {
            ErrorKind::ExpiredSignature => "it has expired".to_owned(),
            ErrorKind::ImmatureSignature => "it is not valid yet; compare the clocks".to_owned(),
            ErrorKind::InvalidIssuer => "it is of another issuer".to_owned(),
            ErrorKind::InvalidAudience => format!("it is not for audience {:?}", self.audience),
            ErrorKind::InvalidSignature => "its signature is wrong".to_owned(),
            ErrorKind::MissingRequiredClaim(claim) => format!("it has no usable `{claim}`"),
            ErrorKind::InvalidClaimFormat(claim) => format!("its `{claim}` cannot be read"),
            _ => "it cannot be read".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests;

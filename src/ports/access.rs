//! Access tokens: who a token says it is from, if the plant's identity provider says so.

use std::pin::Pin;

use crate::types::Instant;

/// Who a valid token names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenIdentity {
    /// The provider, as it writes itself; with `subject` it is the identity.
    pub issuer: String,
    /// Who, in the provider's words; the same for ever, and of nobody else.
    pub subject: String,
    /// For people to read; it decides nothing, and may change. At most 128 printable characters.
    pub name: Option<String>,
    /// Lineproof's names of roles, sorted, none twice. May be empty.
    pub roles: Vec<String>,
    /// From when on the token is worth nothing.
    pub expires: Instant,
}

/// Why there is no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The token is not valid, and asking again will not help. Safe to tell whoever sent it.
    #[error("the access token is not valid: {0}")]
    Invalid(String),
    /// Nobody can say now whether it is valid. For the operator: it names the provider.
    #[error("the identity provider cannot be reached: {0}")]
    Unreachable(String),
}

/// A future that a port returns.
pub type Verified<'a> = Pin<Box<dyn Future<Output = Result<TokenIdentity, TokenError>> + Send + 'a>>;

/// What tells valid tokens from others.
pub trait TokenVerifier: Send + Sync + 'static {
    /// Who sent this token: the text after `Bearer `. Never answers with an identity that the provider did not sign for
    /// this service, or whose time is over. Ends within seconds, whatever the provider does.
    fn verify<'a>(&'a self, token: &'a str) -> Verified<'a>;
}

//! The gate before every method: who asks, whether the table lets them, and what the log says of it.

use std::{
    collections::HashMap,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tonic::{Code, Request, Status, body::Body};
use tonic_types::{ErrorDetails, StatusExt as _};
use tower::{Layer, Service};

use super::methods::{Noted, Rule, Who, Zone, rule};
use crate::{
    core::{
        access::{CertificateError, Grants, Identity, Kind, NAME_BYTES_MAX, NotGranted, Scope, Stations},
        lineage::{
            entry::AccessEvent,
            private::{Opening, PrivateField},
        },
    },
    ports::access::{TokenError, TokenIdentity, TokenVerifier},
    services::{
        access::{AccessJournal, Note},
        inspect::record::salt,
    },
    types::{EntryIndex, LineId, StationId},
};

/// The domain of `google.rpc.ErrorInfo`.
const DOMAIN: &str = "lineproof.v1";

/// Who is at the other end of a connection, as far as the connection itself says it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Unset for the operator's socket.
    pub address: Option<SocketAddr>,
    pub shown: Shown,
}

/// What the other end has shown of itself.
#[derive(Clone, Debug)]
pub enum Shown {
    /// Nothing: no certificate was asked for, or none was given.
    Nothing,
    /// A valid certificate, or the right to use the data directory.
    Known(Arc<Identity>),
    /// A valid certificate that names nobody.
    Unusable(CertificateError),
}

/// Lets calls of one zone through to the methods, or not.
#[derive(Clone)]
pub struct Gate {
    pub zone: Zone,
    /// Who somebody is who was not asked: set where the listener asks for nothing.
    pub local: Option<Arc<Identity>>,
    /// Set where access tokens name people: at the office, with an identity provider.
    pub tokens: Option<Arc<dyn TokenVerifier>>,
    pub grants: Arc<Grants>,
    pub journal: Arc<AccessJournal>,
}

/// Who calls, for the methods behind the gate.
#[derive(Clone)]
pub struct Caller {
    pub identity: Arc<Identity>,
    method: &'static str,
    journal: Arc<AccessJournal>,
}

/// Why a call is not let through.
struct Denied {
    event: AccessEvent,
    /// As in `docs/spec/entry.md`.
    reason: &'static str,
    who: Option<String>,
    status: Status,
}

impl Gate {
    /// Who asks: by the token of the call, else by the connection.
    async fn identify(&self, peer: Option<&Peer>, token: Option<&str>) -> Result<Arc<Identity>, Box<Denied>> {
        let failed = |reason, message: String| {
            let address = peer.and_then(|peer| peer.address).map(|address| format!("address {}", address.ip()));
            let status = refusal(Code::Unauthenticated, reason, &message);
            Box::new(Denied { event: AccessEvent::LoginFailed, reason, who: address, status })
        };
        if let Some(token) = token {
            let Some(tokens) = &self.tokens else {
                return Err(failed("token", "no access tokens are taken here; show a client certificate".into()));
            };
            return match tokens.verify(token).await {
                Ok(identity) => {
                    let identity = identity_of(identity);
                    if identity.name.len() > NAME_BYTES_MAX {
                        return Err(failed(
                            "token",
                            format!("the token's subject is longer than {NAME_BYTES_MAX} bytes"),
                        ));
                    }
                    Ok(Arc::new(self.grants.complete(identity)))
                }
                Err(error @ TokenError::Invalid(_)) => Err(failed("token", error.to_string())),
                Err(error @ TokenError::Unreachable(_)) => {
                    tracing::warn!(%error, "an access token could not be verified");
                    let message = "the identity provider does not answer; try again, or show a client certificate";
                    let mut denied = failed("token", String::new());
                    denied.status = refusal(Code::Unavailable, "token", message);
                    Err(denied)
                }
            };
        }
        match peer.map(|peer| &peer.shown) {
            Some(Shown::Known(identity)) => Ok(identity.clone()),
            Some(Shown::Unusable(error)) => Err(failed("certificate", error.to_string())),
            Some(Shown::Nothing) | None => self.local.clone().ok_or_else(|| {
                failed(
                    "nothing",
                    "show a client certificate of this plant's authority; `lineproof pki issue` makes one".into(),
                )
            }),
        }
    }

    async fn admit(
        &self,
        rule: &'static Rule,
        peer: Option<&Peer>,
        token: Option<&str>,
    ) -> Result<Option<Caller>, Box<Denied>> {
        let Who::OneOf(roles) = rule.who else { return Ok(None) };
        let identity = self.identify(peer, token).await?;
        if !identity.roles.has_any(roles) {
            let message = format!(
                "{} may not call {}: it needs one of the roles {roles}, and has {}",
                identity.name, rule.method, identity.roles
            );
            let status = refusal(Code::PermissionDenied, "role", &message);
            let (event, who) = (AccessEvent::Refused, identity.said());
            return Err(Box::new(Denied { event, reason: "role", who, status }));
        }
        let caller = Caller { identity, method: rule.method, journal: self.journal.clone() };
        match rule.noted {
            Noted::Read => caller.note(AccessEvent::Read, None).await,
            Noted::Changed => caller.note(AccessEvent::Changed, None).await,
            Noted::No | Noted::Itself => {}
        }
        Ok(Some(caller))
    }
}

impl Caller {
    /// Who calls a method behind the gate.
    ///
    /// # Errors
    /// If nobody has looked who it is, nothing is answered.
    pub fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let caller = request.extensions().get::<Self>().cloned();
        caller.ok_or_else(|| Status::internal("nobody has looked who calls; nothing is answered"))
    }

    /// Notes that they read, or had something done.
    pub async fn note(&self, event: AccessEvent, index: Option<EntryIndex>) {
        let (method, who) = (Some(self.method), self.identity.said());
        self.journal.note(Note { method, who, index, ..Note::new(event) }).await;
    }

    /// The same as a value that an entry can commit to; none for whoever is on this machine.
    #[must_use]
    pub fn opening(&self) -> Option<Opening> {
        let value = self.identity.said()?;
        Some(Opening { field: PrivateField::Client, salt: salt(), value })
    }

    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.identity.scope
    }

    /// Whether they may send frames of a station, and hear of its verdicts.
    ///
    /// # Errors
    /// PERMISSION_DENIED, noted.
    pub fn may_speak_for(&self, line: &LineId, station: &StationId) -> Result<(), Status> {
        if self.identity.may_speak_for(line, station) {
            return Ok(());
        }
        let message = format!(
            "{} may not speak for station {station} on line {line}; stations have certificates of their own, services [[access.grant]]",
            self.identity.name
        );
        Err(self.refuse("station", &message))
    }

    /// Whether one of these stations is theirs.
    ///
    /// # Errors
    /// PERMISSION_DENIED, noted.
    pub fn may_speak_for_one_of<'a>(
        &self,
        stations: impl IntoIterator<Item = (&'a LineId, &'a StationId)>,
    ) -> Result<(), Status> {
        let mut stations = stations.into_iter().peekable();
        let Some((first_line, first)) = stations.peek().copied() else { return Ok(()) };
        if stations.any(|(line, station)| self.identity.may_speak_for(line, station)) {
            return Ok(());
        }
        self.may_speak_for(first_line, first)
    }

    /// A question outside what is granted, noted.
    #[must_use]
    pub fn not_granted(&self, error: &NotGranted) -> Status {
        self.refuse("scope", &error.to_string())
    }

    fn refuse(&self, reason: &'static str, message: &str) -> Status {
        let (method, who) = (Some(self.method), self.identity.said());
        self.journal.refused(Note { method, who, reason: Some(reason), ..Note::new(AccessEvent::Refused) });
        refusal(Code::PermissionDenied, reason, message)
    }
}

/// The access token of a call (RFC 6750 section 2.1), which is not text if it is none.
fn bearer(headers: &http::HeaderMap) -> Option<String> {
    let value = headers.get(http::header::AUTHORIZATION)?;
    let text = value.to_str().unwrap_or_default();
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    let token = if scheme.eq_ignore_ascii_case("bearer") { token.trim() } else { "" };
    Some(token.to_owned())
}

/// A person, as a token names them.
fn identity_of(token: TokenIdentity) -> Identity {
    Identity {
        name: format!("oidc:{}#{}", token.issuer, token.subject),
        kind: Kind::Person,
        roles: token.roles.iter().filter_map(|role| role.parse().ok()).collect(),
        stations: Stations::Only(Vec::new()),
        scope: Scope::Granted(Vec::new()),
    }
}

fn refusal(code: Code, reason: &str, message: &str) -> Status {
    let details = ErrorDetails::with_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(code, message, details)
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated { gate: self.clone(), inner }
    }
}

/// The methods behind a [`Gate`].
#[derive(Clone)]
pub struct Gated<S> {
    gate: Gate,
    inner: S,
}

impl<S> Service<http::Request<Body>> for Gated<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let ready = self.inner.clone();
        // The one that was polled ready is the one that is called.
        let mut inner = std::mem::replace(&mut self.inner, ready);
        let gate = self.gate.clone();
        Box::pin(async move {
            let path = request.uri().path();
            let Some(rule) = rule(path).filter(|rule| rule.zones.contains(&gate.zone)) else {
                return Ok(Status::unimplemented("there is no such method here").into_http());
            };
            let peer = request.extensions().get::<Peer>().cloned();
            let token = bearer(request.headers());
            match gate.admit(rule, peer.as_ref(), token.as_deref()).await {
                Ok(caller) => {
                    if let Some(caller) = caller {
                        request.extensions_mut().insert(caller);
                    }
                    inner.call(request).await
                }
                Err(denied) => {
                    let Denied { event, reason, who, status } = *denied;
                    let method = Some(rule.method);
                    gate.journal.refused(Note { method, who, reason: Some(reason), ..Note::new(event) });
                    Ok(status.into_http())
                }
            }
        })
    }
}

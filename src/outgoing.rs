//! HTTP to others: where a URL leads, whom to trust there, and a connection. Plain http goes to loopback addresses only.
//!
//! Beside the layers, because several adapters reach out and none may name another.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::{
    StatusCode, Uri,
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};

/// One connection, for one request at a time.
pub type Connection = SendRequest<Full<Bytes>>;

#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("it is no http or https URL with a host")]
    Url,
    #[error("plain http is for loopback addresses only; use https")]
    Plain,
    #[error("{0}")]
    Tls(String),
}

/// A host and port, and whether it is behind TLS.
pub struct Endpoint {
    authority: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Endpoint {
    /// Where `uri` leads; `tls` is asked whom to trust if that is behind TLS.
    ///
    /// # Errors
    /// [`EndpointError`].
    pub fn new(uri: &Uri, tls: impl FnOnce() -> Result<ClientConfig, String>) -> Result<Self, EndpointError> {
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(EndpointError::Url)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_loopback = bare == "localhost" || bare.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        let (port, tls) = match uri.scheme_str() {
            Some("http") if is_loopback => (80, None),
            Some("http") => return Err(EndpointError::Plain),
            Some("https") => {
                let config = tls().map_err(EndpointError::Tls)?;
                let name = ServerName::try_from(bare).map_err(|_| EndpointError::Url)?;
                (443, Some((TlsConnector::from(Arc::new(config)), name)))
            }
            _ => return Err(EndpointError::Url),
        };
        Ok(Self { authority: format!("{host}:{}", uri.port_u16().unwrap_or(port)), tls })
    }

    /// `host:port`, to connect to and for the Host header.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether `other` leads to the same host and port in the same way.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.authority.eq_ignore_ascii_case(&other.authority) && self.tls.is_some() == other.tls.is_some()
    }

    /// # Errors
    /// A sentence.
    pub async fn connect(&self) -> Result<Connection, String> {
        let stream = TcpStream::connect(&self.authority).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        match &self.tls {
            None => handshake(stream).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await.map_err(|error| format!("TLS: {error}"))?;
                handshake(stream).await
            }
        }
    }
}

async fn handshake<S>(stream: S) -> Result<Connection, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // Ends when the sender is dropped or the other side closes; whoever sends hears of errors.
    tokio::spawn(connection);
    Ok(sender)
}

/// Why the body of an answer is not there.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("its answer is longer than {0} bytes")]
    TooLong(usize),
    #[error("its answer cannot be read: {0}")]
    Broken(String),
}

/// The whole body of an answer of at most `bytes_max`.
///
/// # Errors
/// [`BodyError`].
pub async fn body(incoming: Incoming, bytes_max: usize) -> Result<Bytes, BodyError> {
    let body = Limited::new(incoming, bytes_max).collect().await;
    let body = body.map_err(|error| match error.is::<LengthLimitError>() {
        true => BodyError::TooLong(bytes_max),
        false => BodyError::Broken(error.to_string()),
    });
    Ok(body?.to_bytes())
}

/// One GET on a connection of its own.
///
/// # Errors
/// A sentence.
pub async fn get(endpoint: &Endpoint, path: &str, bytes_max: usize) -> Result<(StatusCode, Bytes), String> {
    let mut connection = endpoint.connect().await?;
    let request = hyper::Request::get(path)
        .header(hyper::header::HOST, endpoint.authority())
        .header(hyper::header::ACCEPT, "application/json")
        .body(Full::default())
        .map_err(|error| error.to_string())?;
    let answer = connection.send_request(request).await.map_err(|error| error.to_string())?;
    let status = answer.status();
    Ok((status, body(answer.into_body(), bytes_max).await.map_err(|error| error.to_string())?))
}

/// Trusts the authorities this system trusts, or those of `SSL_CERT_FILE`.
///
/// # Errors
/// A sentence.
pub fn system_trust() -> Result<ClientConfig, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err("no certificate authorities are found on this system; set SSL_CERT_FILE".into());
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_goes_to_loopback_only() {
        let new = |url: &str| Endpoint::new(&url.parse().unwrap(), system_trust).map(|endpoint| endpoint.authority);
        assert_eq!(new("http://127.0.0.1:7444/w/").unwrap(), "127.0.0.1:7444");
        assert_eq!(new("http://[::1]").unwrap(), "[::1]:80");
        assert_eq!(new("http://localhost/x").unwrap(), "localhost:80");
        for wrong in ["http://id.example/", "http://127.0.0.1.example/", "http://10.0.0.1"] {
            assert!(matches!(new(wrong), Err(EndpointError::Plain)), "{wrong}");
        }
        assert!(matches!(new("ftp://127.0.0.1/"), Err(EndpointError::Url)));
        assert!(matches!(new("/path"), Err(EndpointError::Url)));
    }
}

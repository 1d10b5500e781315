//! Reaching a witness over HTTP: one connection, kept alive, with or without TLS.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, StatusCode, Uri, header};
use tokio::{sync::Mutex, time::timeout};
use tokio_rustls::rustls::ClientConfig;

use crate::{
    outgoing::{self, Connection, Endpoint, EndpointError},
    ports::witness::{Asked, Reply, WitnessLink},
};

/// Bytes of an answer: sixteen signature lines, the largest of them post-quantum.
const ANSWER_BYTES_MAX: usize = 128 << 10;

#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("{0:?} is no URL such as https://witness.example/prefix")]
    Url(String),
    #[error("{0:?}: plain http is for loopback addresses only; use https with a [witness.tls] table")]
    Plain(String),
    #[error("{0:?} needs [witness.tls] with the authority that signed the witness's certificate")]
    NoTls(String),
}

/// A witness at a URL, its submission prefix.
pub struct HttpWitness {
    endpoint: Endpoint,
    path: String,
    timeout: Duration,
    connection: Mutex<Option<Connection>>,
}

impl HttpWitness {
    /// A witness at `url`; `tls` says whom to trust and who we are.
    ///
    /// # Errors
    /// [`LinkError`].
    pub fn new(url: &str, tls: Option<ClientConfig>, timeout: Duration) -> Result<Self, LinkError> {
        let wrong = || LinkError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| wrong())?;
        if uri.query().is_some() {
            return Err(wrong());
        }
        let endpoint = Endpoint::new(&uri, || tls.ok_or_else(String::new)).map_err(|error| match error {
            EndpointError::Url => wrong(),
            EndpointError::Plain => LinkError::Plain(url.to_owned()),
            EndpointError::Tls(_) => LinkError::NoTls(url.to_owned()),
        })?;
        let path = format!("{}/add-checkpoint", uri.path().trim_end_matches('/'));
        Ok(Self { endpoint, path, timeout, connection: Mutex::new(None) })
    }

    async fn ask(&self, body: String) -> Result<Reply, String> {
        let mut connection = self.connection.lock().await;
        // A witness that was restarted has closed the old connection; that is no failure of the new one.
        let kept = match connection.take() {
            Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
            None => None,
        };
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.endpoint.connect().await?,
        };
        let request = Request::post(&self.path)
            .header(header::HOST, self.endpoint.authority())
            .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| error.to_string())?;
        let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body = outgoing::body(answer.into_body(), ANSWER_BYTES_MAX).await.map_err(|error| error.to_string())?;
        let text = String::from_utf8_lossy(&body);
        *connection = Some(sender);
        match status {
            StatusCode::OK => Ok(Reply::Cosigned(text.into_owned())),
            StatusCode::CONFLICT => text
                .strip_suffix('\n')
                .and_then(|size| size.parse().ok())
                .map(Reply::OtherSize)
                .ok_or_else(|| "it answered 409 without a size".to_owned()),
            status => {
                let reason = text.trim().chars().take(200).flat_map(char::escape_debug).collect();
                Ok(Reply::Refused { status: status.as_u16(), reason })
            }
        }
    }
}

impl WitnessLink for HttpWitness {
    fn add_checkpoint(&self, body: String) -> Asked<'_> {
        Box::pin(async move {
            match timeout(self.timeout, self.ask(body)).await {
                Ok(answered) => answered,
                Err(_) => Err(format!("no answer within {} ms", self.timeout.as_millis())),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_goes_to_loopback_only_and_https_needs_an_authority() {
        let new = |url| {
            HttpWitness::new(url, None, Duration::from_secs(1))
                .map(|link| (link.endpoint.authority().to_owned(), link.path))
        };
        let (authority, path) = new("http://127.0.0.1:7444/w/").unwrap();
        assert_eq!((authority.as_str(), path.as_str()), ("127.0.0.1:7444", "/w/add-checkpoint"));
        assert_eq!(new("http://[::1]").unwrap(), ("[::1]:80".into(), "/add-checkpoint".into()));
        assert!(matches!(new("http://witness.example/"), Err(LinkError::Plain(_))));
        assert!(matches!(new("https://witness.example/"), Err(LinkError::NoTls(_))));
        for wrong in ["witness.example", "ftp://x/", "http:///x", "http://127.0.0.1/?a=1"] {
            assert!(matches!(new(wrong), Err(LinkError::Url(_))), "{wrong}");
        }
    }
}

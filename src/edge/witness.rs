//! The witness's HTTP interface, c2sp.org/tlog-witness: `POST /add-checkpoint` and `GET /<origin hash>/checkpoint`.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    core::witness::request::{AddCheckpoint, REQUEST_BYTES_MAX, Refusal},
    services::witness::{Witness, WitnessError},
};

/// Connections at a time; further ones wait to be accepted. Each holds at most one request: 40 MB in all.
const CONNECTIONS_MAX: usize = 256;
/// A TLS handshake, the headers, and the body of a request may each take so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests under way may take so long after the witness was told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(3);
/// Bytes of a request's headers.
const HEADER_BYTES_MAX: usize = 16 << 10;
/// The body of a 409: the size the witness knows.
const SIZE_TYPE: &str = "text/x.tlog.size";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// Serves `listener` until `stopper` fires, by the caller or after a failed write.
pub async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, witness: Arc<Witness>, stopper: CancellationToken) {
    let edge = Edge { witness, stopper: stopper.clone() };
    let (places, connections) = (Arc::new(Semaphore::new(CONNECTIONS_MAX)), TaskTracker::new());
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of files, mostly; those that end give theirs back.
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
            () = stopper.cancelled() => break,
        };
        // An answer is one small packet that should not wait for another.
        let _ = stream.set_nodelay(true);
        let (edge, tls) = (edge.clone(), tls.clone());
        connections.spawn(async move {
            let _place = place;
            match tls {
                None => edge.talk(stream).await,
                Some(tls) => match timeout(PATIENCE, tls.accept(stream)).await {
                    Ok(Ok(stream)) => edge.talk(stream).await,
                    Ok(Err(error)) => tracing::warn!(%error, "a TLS handshake failed"),
                    Err(_) => tracing::warn!("a TLS handshake took too long"),
                },
            }
        });
    }
    connections.close();
    let _ = timeout(DRAIN_MAX, connections.wait()).await;
}

#[derive(Clone)]
struct Edge {
    witness: Arc<Witness>,
    stopper: CancellationToken,
}

type Answer = Response<Full<Bytes>>;

impl Edge {
    async fn talk<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S) {
        let service = service_fn(|request| async move { Ok::<_, Infallible>(self.answer(request).await) });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .max_buf_size(HEADER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            ended = &mut connection => drop(ended),
            () = self.stopper.cancelled() => {
                connection.as_mut().graceful_shutdown();
                drop(connection.await);
            }
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let path = request.uri().path().to_owned();
        match (request.method(), path.as_str()) {
            (&Method::POST, "/add-checkpoint") => self.add_checkpoint(request).await,
            (_, "/add-checkpoint") => text(StatusCode::METHOD_NOT_ALLOWED, "add-checkpoint is asked by POST\n"),
            (&Method::GET, path) => match path.strip_prefix('/').and_then(|rest| rest.strip_suffix("/checkpoint")) {
                Some(place) if is_place(place) => self.checkpoint(place.to_owned()).await,
                _ => text(StatusCode::NOT_FOUND, "nothing is here\n"),
            },
            _ => text(StatusCode::METHOD_NOT_ALLOWED, "nothing is asked this way here\n"),
        }
    }

    async fn add_checkpoint(&self, request: Request<Incoming>) -> Answer {
        let body = match timeout(PATIENCE, Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                return text(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    &format!("a request has at most {REQUEST_BYTES_MAX} bytes\n"),
                );
            }
            Ok(Err(_)) => return text(StatusCode::BAD_REQUEST, "the body did not arrive whole\n"),
            Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "the body took too long\n"),
        };
        let witness = self.witness.clone();
        // Not dropped with the connection: what was begun is finished.
        let asked = tokio::task::spawn_blocking(move || -> Result<_, WitnessError> {
            let request = std::str::from_utf8(&body).map_err(|_| Refusal::Malformed("it is not UTF-8".into()))?;
            let request = AddCheckpoint::parse(request)?;
            let origin = request.origin()?;
            Ok((origin, witness.add_checkpoint(&request)?))
        });
        let asked = match asked.await {
            Ok(asked) => asked,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        match asked {
            Ok((origin, cosigned)) => {
                tracing::info!(origin, size = cosigned.facts().size, "cosigned");
                text(StatusCode::OK, &cosigned.cosignature_lines())
            }
            Err(error) => self.refusal(&error),
        }
    }

    fn refusal(&self, error: &WitnessError) -> Answer {
        match error {
            WitnessError::Refused(refusal @ Refusal::OtherSize { known }) => {
                tracing::debug!(%refusal, "not cosigned");
                let mut answer = text(StatusCode::CONFLICT, &format!("{known}\n"));
                answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(SIZE_TYPE));
                answer
            }
            WitnessError::Refused(refusal) => {
                if matches!(refusal, Refusal::Inconsistent(_)) {
                    tracing::error!(%refusal, "NOT COSIGNED: a log's key signed what does not continue its log");
                } else {
                    tracing::warn!(%refusal, "not cosigned");
                }
                let status = StatusCode::from_u16(refusal.status()).expect("the specification's statuses are HTTP's");
                text(status, &format!("{refusal}\n"))
            }
            WitnessError::Damaged { .. } => {
                tracing::error!(%error, "not cosigned");
                text(StatusCode::INTERNAL_SERVER_ERROR, "this witness cannot answer for this log; ask its operator\n")
            }
            WitnessError::Memory(error) => {
                // What the disk holds is unknown now; the next start reads it.
                tracing::error!(%error, "the witness stops");
                self.stopper.cancel();
                text(StatusCode::INTERNAL_SERVER_ERROR, "this witness has stopped; ask its operator\n")
            }
        }
    }

    async fn checkpoint(&self, place: String) -> Answer {
        let witness = self.witness.clone();
        match tokio::task::spawn_blocking(move || witness.checkpoint(&place)).await {
            Ok(Ok(Some(note))) => text(StatusCode::OK, &note),
            Ok(Ok(None)) => text(StatusCode::NOT_FOUND, "this witness has cosigned nothing of such a log\n"),
            Ok(Err(error)) => self.refusal(&error),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

/// 64 lower-case hex digits.
fn is_place(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn text(status: StatusCode, body: &str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(TEXT_TYPE));
    answer
}

//! A backup store that is a bucket of S3, or of anything that speaks it. rusty-s3 signs; the connections are ours.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, StatusCode, Uri, header};
use rusty_s3::{Bucket, Credentials, S3Action as _, UrlStyle, actions::ListObjectsV2};
use tokio::{runtime::Runtime, time::timeout};

use crate::{
    outgoing::{BodyError, Connection, Endpoint, body, system_trust},
    ports::backup::{BlobStore, StoreError, Stored},
};

/// Calls under way at a time: each mostly waits for the other side.
const CALLS_AT_ONCE: usize = 8;
/// How long a signed request may be used.
const SIGNED_FOR: Duration = Duration::from_secs(900);
/// How long one try may take: 16 MiB over one megabit a second take 135 s.
const TRY_MAX: Duration = Duration::from_secs(300);
/// Every call may be made again without harm, and is after a broken connection or an error of the server.
const TRIES: u32 = 5;
/// Before the second try, doubled before each later one.
const PAUSE: Duration = Duration::from_millis(500);
/// Bytes of an answer that only says what went wrong, and of one page of a listing.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Where a bucket is and who asks.
pub struct S3Settings {
    /// Unset: AWS's own, for the region.
    pub endpoint: Option<String>,
    pub region: String,
    pub bucket: String,
    /// Before every name, without a slash at its end; may be empty.
    pub prefix: String,
}

/// The bucket.
pub struct S3Store {
    bucket: Bucket,
    credentials: Credentials,
    prefix: String,
    endpoint: Endpoint,
    runtime: Runtime,
    /// Connections that are not in use.
    idle: Mutex<Vec<Connection>>,
}

impl S3Store {
    /// A bucket, with the credentials of `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`, over TLS
    /// with the authorities this system trusts (or those of `SSL_CERT_FILE`). Plain http goes to loopback only.
    ///
    /// # Errors
    /// A sentence.
    pub fn new(settings: S3Settings) -> Result<Self, String> {
        let S3Settings { endpoint, region, bucket, prefix } = settings;
        let credentials = Credentials::from_env()
            .ok_or("the bucket's credentials are not set: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")?;
        let (endpoint, style) = match endpoint {
            Some(endpoint) => (endpoint, UrlStyle::Path),
            None => (format!("https://s3.{region}.amazonaws.com"), UrlStyle::VirtualHost),
        };
        let wrong = |reason: &dyn std::fmt::Display| format!("{endpoint:?}: {reason}");
        let url = endpoint.parse().map_err(|error| wrong(&error))?;
        let bucket = Bucket::new(url, style, bucket, region).map_err(|error| wrong(&error))?;
        let uri: Uri = bucket.base_url().as_str().parse().map_err(|error| wrong(&error))?;
        let endpoint = Endpoint::new(&uri, system_trust).map_err(|error| wrong(&error))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        Ok(Self { bucket, credentials, prefix, endpoint, runtime, idle: Mutex::default() })
    }

    fn key(&self, place: &str) -> String {
        if self.prefix.is_empty() { place.to_owned() } else { format!("{}/{place}", self.prefix) }
    }

    fn failed(&self, place: &str, reason: impl std::fmt::Display) -> StoreError {
        let place = format!("s3://{}/{}", self.bucket.name(), self.key(place));
        StoreError::Failed { place, reason: reason.to_string() }
    }

    /// One call, made again while the other side is not well. `path` is signed anew for each try.
    fn call(
        &self,
        place: &str,
        method: &Method,
        path: impl Fn() -> String,
        body: &Bytes,
        max: usize,
    ) -> Result<(StatusCode, Vec<u8>), StoreError> {
        let mut pause = PAUSE;
        for number in 1..=TRIES {
            let tried = self.runtime.block_on(async {
                let tried = timeout(TRY_MAX, self.once(method, path(), body.clone(), max)).await;
                tried.unwrap_or_else(|_| Err(Broken::Other(format!("no answer within {} s", TRY_MAX.as_secs()))))
            });
            let reason = match tried {
                Ok((status, body)) if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                    answer(status, &body)
                }
                Ok(answered) => return Ok(answered),
                Err(Broken::TooLong) => return Err(StoreError::TooLong { place: self.key(place), max: max as u64 }),
                Err(Broken::Other(reason)) => reason,
            };
            if number == TRIES {
                return Err(self.failed(place, format_args!("{reason} ({TRIES} tries)")));
            }
            std::thread::sleep(pause);
            pause *= 2;
        }
        unreachable!("the last try returns")
    }

    async fn once(
        &self,
        method: &Method,
        path: String,
        sent: Bytes,
        max: usize,
    ) -> Result<(StatusCode, Vec<u8>), Broken> {
        let other = |error: &dyn std::fmt::Display| Broken::Other(error.to_string());
        let mut sender = self.connection().await.map_err(Broken::Other)?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.host())
            .body(Full::new(sent))
            .map_err(|error| other(&error))?;
        let answer = sender.send_request(request).await.map_err(|error| other(&error))?;
        let status = answer.status();
        let bytes = body(answer.into_body(), max.max(ANSWER_BYTES_MAX)).await.map_err(|error| match error {
            BodyError::TooLong(_) => Broken::TooLong,
            BodyError::Broken(reason) => Broken::Other(reason),
        })?;
        let bytes = bytes.to_vec();
        lock(&self.idle).push(sender);
        if status.is_success() && bytes.len() > max { Err(Broken::TooLong) } else { Ok((status, bytes)) }
    }

    /// The Host header as the signature covers it: without a port that goes without saying.
    fn host(&self) -> String {
        let base = self.bucket.base_url();
        let host = base.host_str().unwrap_or_default();
        base.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
    }

    async fn connection(&self) -> Result<Connection, String> {
        loop {
            let kept = lock(&self.idle).pop();
            let Some(mut kept) = kept else { break };
            // One that the other side has closed is no failure of a new one.
            if kept.ready().await.is_ok() {
                return Ok(kept);
            }
        }
        self.endpoint.connect().await
    }
}

/// Why a try gave no answer.
enum Broken {
    TooLong,
    Other(String),
}

/// Path and query of a signed request.
macro_rules! signed {
    ($action:expr) => {
        || {
            let url = $action.sign(SIGNED_FOR);
            match url.query() {
                Some(query) => format!("{}?{query}", url.path()),
                None => url.path().to_owned(),
            }
        }
    };
}

/// What the other side said, from its XML the code.
fn answer(status: StatusCode, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map(|(code, _)| code);
    match code {
        Some(code) => format!("it answered {status} {}", code.chars().take(80).collect::<String>()),
        None => format!("it answered {status}"),
    }
}

impl BlobStore for S3Store {
    fn put(&self, place: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let key = self.key(place);
        let path = signed!(self.bucket.put_object(Some(&self.credentials), &key));
        let body = Bytes::copy_from_slice(bytes);
        let (status, body) = self.call(place, &Method::PUT, path, &body, ANSWER_BYTES_MAX)?;
        if status.is_success() { Ok(()) } else { Err(self.failed(place, answer(status, &body))) }
    }

    /// S3 answers when it has the bytes for good.
    fn settle(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn get(&self, place: &str, max: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let key = self.key(place);
        let path = signed!(self.bucket.get_object(Some(&self.credentials), &key));
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let (status, body) = self.call(place, &Method::GET, path, &Bytes::new(), max)?;
        match status {
            StatusCode::OK => Ok(Some(body)),
            StatusCode::NOT_FOUND if !answer(status, &body).contains("NoSuchBucket") => Ok(None),
            _ => Err(self.failed(place, answer(status, &body))),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<Stored>, StoreError> {
        let prefix = self.key(&format!("{folder}/"));
        let mut found = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let mut action = self.bucket.list_objects_v2(Some(&self.credentials));
            action.with_prefix(prefix.as_str());
            if let Some(next) = next {
                action.with_continuation_token(next);
            }
            let (status, body) = self.call(folder, &Method::GET, signed!(action), &Bytes::new(), ANSWER_BYTES_MAX)?;
            if status != StatusCode::OK {
                return Err(self.failed(folder, answer(status, &body)));
            }
            let text = String::from_utf8(body).map_err(|error| self.failed(folder, error))?;
            let page = ListObjectsV2::parse_response(&text).map_err(|error| self.failed(folder, error))?;
            for object in page.contents {
                let below = object.key.strip_prefix(&prefix);
                let place = below.map(|name| format!("{folder}/{name}"));
                found.extend(place.map(|place| Stored { place, bytes: object.size.unwrap_or_default() }));
            }
            next = page.next_continuation_token;
            if next.is_none() {
                return Ok(found);
            }
        }
    }

    fn remove(&self, place: &str) -> Result<(), StoreError> {
        let key = self.key(place);
        let path = signed!(self.bucket.delete_object(Some(&self.credentials), &key));
        let (status, body) = self.call(place, &Method::DELETE, path, &Bytes::new(), ANSWER_BYTES_MAX)?;
        let done = status.is_success() || status == StatusCode::NOT_FOUND;
        if done { Ok(()) } else { Err(self.failed(place, answer(status, &body))) }
    }

    fn calls_at_once(&self) -> usize {
        CALLS_AT_ONCE
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

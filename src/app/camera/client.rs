//! A line PC's connection to the service: every frame gets an answer, over restarts of the service too.
//!
//! A frame is *pending* from the moment it is taken from the source until it is answered. At most `in_flight` frames
//! are pending, so memory is bounded and the source feels the service's pace. When the stream breaks, whatever is
//! pending is sent again under the same id on a new one; the service answers a frame it knows with the entry it has.
//! So nothing is lost (pending frames stay) and nothing is doubled (ids stay).

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Status,
    transport::{Certificate, ClientTlsConfig, Endpoint, Identity},
};
use tonic_types::StatusExt as _;

use super::{
    summary::Summary,
    wire::{self, Client},
    words::{
        Answered, IN_FLIGHT_MAX, LineConfig, LineError, LineEvent, Outcome, OutgoingFrame, Refusal, TlsPem, Unsent,
        code_name,
    },
};

/// A refusal that leaves the outcome open, without a hint when to come back, is tried again this often.
const UNKNOWN_OUTCOME_ATTEMPTS_MAX: u32 = 5;

/// How long the service may take to end a stream we have finished.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// Connects a line to the service.
pub struct LineClient {
    config: LineConfig,
    endpoint: Endpoint,
}

impl LineClient {
    /// Checks the configuration; the connection itself is made, and made again, by [`LineClient::run`].
    ///
    /// # Errors
    /// [`LineError`] for an address, TLS files or limits that cannot work.
    pub fn connect(config: LineConfig) -> Result<Self, LineError> {
        if !(1..=IN_FLIGHT_MAX).contains(&config.in_flight) {
            return Err(LineError::InFlight(config.in_flight));
        }
        if let Some(rate) = config.rate_per_s.filter(|rate| !rate.is_finite() || *rate <= 0.0) {
            return Err(LineError::Rate(rate));
        }
        let endpoint = endpoint(&config.server, config.tls.as_ref())?;
        Ok(Self { config, endpoint })
    }

    #[must_use]
    pub fn config(&self) -> &LineConfig {
        &self.config
    }

    /// Sends every frame of `frames` and waits for every answer.
    ///
    /// Ends when the source is empty and all is answered; after `stop`, when what is in flight is answered; or when
    /// the service stays away too long or will never accept this line PC ([`Summary::gave_up`]).
    pub async fn run<S>(&self, frames: S, stop: CancellationToken, on_event: impl FnMut(LineEvent<'_>)) -> Summary
    where
        S: Stream<Item = Result<OutgoingFrame, Unsent>> + Unpin,
    {
        let mut line = Line::new(&self.config, frames, stop.clone(), on_event);
        let drained = async {
            stop.cancelled().await;
            tokio::time::sleep(self.config.drain_for).await;
        };
        tokio::select! {
            () = line.work(&self.endpoint) => {}
            () = drained => {}
        }
        line.finish()
    }
}

/// Where the service is, and how it is spoken with.
///
/// # Errors
/// [`LineError`] for an address or TLS files that cannot work.
pub fn endpoint(server: &str, tls: Option<&TlsPem>) -> Result<Endpoint, LineError> {
    let wrong = || LineError::Address(server.to_owned());
    let uri: tonic::codegen::http::Uri = server.parse().map_err(|_| wrong())?;
    let host = uri.host().ok_or_else(wrong)?.to_owned();
    let is_tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(wrong()),
    };
    let endpoint = Endpoint::from(uri)
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        // A pulled cable is noticed without waiting for an answer that cannot come.
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true);
    if !is_tls {
        let address = host.trim_start_matches('[').trim_end_matches(']');
        let is_local = host == "localhost" || address.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        return if is_local { Ok(endpoint) } else { Err(LineError::PlainText(host)) };
    }
    let pem = tls.ok_or(LineError::NoAuthority)?;
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&pem.authority));
    if let Some((certificate, key)) = &pem.identity {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    endpoint.tls_config(tls).map_err(LineError::Tls)
}

/// A frame without its final answer.
struct Pending {
    frame: OutgoingFrame,
    request: wire::Request,
    first_sent: Option<Instant>,
    /// When it went out on the present stream; `None`: it still has to.
    sent: Option<Instant>,
    /// Not before this time, as the service asked.
    not_before: Option<Instant>,
    first_refused: Option<Instant>,
    attempts: u32,
}

/// How a stream ended.
enum End {
    /// Nothing is left to do.
    Done,
    /// Worth another stream. The hint is the service's wish for a pause.
    Broken { why: String, hint: Option<Duration> },
    /// The service named a frame's fault without saying which frame.
    Poisoned(Status),
    /// It will never work like this.
    Hopeless(Status),
}

impl End {
    fn broken(why: impl Into<String>) -> Self {
        Self::Broken { why: why.into(), hint: None }
    }

    fn of(status: Status) -> Self {
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented => Self::Hopeless(status),
            Code::InvalidArgument
            | Code::OutOfRange
            | Code::FailedPrecondition
            | Code::NotFound
            | Code::AlreadyExists
            | Code::DataLoss => Self::Poisoned(status),
            _ => Self::Broken {
                why: format!("{}: {}", code_name(status.code()), status.message()),
                hint: status.get_details_retry_info().and_then(|info| info.retry_delay),
            },
        }
    }
}

/// One run: the source, what is pending, and what came of it.
struct Line<'a, S, F> {
    config: &'a LineConfig,
    frames: S,
    stop: CancellationToken,
    on_event: F,
    is_source_done: bool,
    /// By the order they were taken.
    pending: BTreeMap<u64, Pending>,
    by_id: HashMap<String, u64>,
    taken: u64,
    next_frame_at: Instant,
    /// So many frames are to be sent alone, to learn which of them the service cannot take.
    alone: usize,
    heard: Instant,
    failures: u32,
    summary: Summary,
}

impl<'a, S, F> Line<'a, S, F>
where
    S: Stream<Item = Result<OutgoingFrame, Unsent>> + Unpin,
    F: FnMut(LineEvent<'_>),
{
    fn new(config: &'a LineConfig, frames: S, stop: CancellationToken, on_event: F) -> Self {
        let now = Instant::now();
        Self {
            config,
            frames,
            stop,
            on_event,
            is_source_done: false,
            pending: BTreeMap::new(),
            by_id: HashMap::new(),
            taken: 0,
            next_frame_at: now,
            alone: 0,
            heard: now,
            failures: 0,
            summary: Summary::new(),
        }
    }

    /// Streams until all is answered or it makes no sense to go on.
    async fn work(&mut self, endpoint: &Endpoint) {
        let mut client = Client::new(endpoint.connect_lazy()).max_decoding_message_size(1 << 20);
        loop {
            // A stream is opened when there is something to say.
            while self.pending.is_empty() {
                if !self.take_one().await {
                    return;
                }
            }
            match self.stream(&mut client).await {
                End::Done => return,
                End::Broken { why, hint } => {
                    if self.heard.elapsed() >= self.config.reconnect_for {
                        self.summary.gave_up = Some(format!("no answer for {:?}: {why}", self.config.reconnect_for));
                        return;
                    }
                    self.pause(&why, hint).await;
                }
                End::Poisoned(status) => self.quarantine(&status),
                End::Hopeless(status) => {
                    let code = code_name(status.code());
                    self.summary.gave_up =
                        Some(format!("the service refuses this line PC: {code}: {}", status.message()));
                    return;
                }
            }
        }
    }

    /// One stream from opening to its end.
    async fn stream(&mut self, client: &mut Client) -> End {
        let (sender, receiver) = mpsc::channel(self.config.in_flight);
        for pending in self.pending.values_mut() {
            pending.sent = None;
        }
        self.send_ready(&sender);
        let opened = timeout(self.config.answer_within, client.inspect_stream(ReceiverStream::new(receiver))).await;
        let mut answers = match opened {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => return End::of(status),
            Err(_) => return End::broken("the service does not open a stream"),
        };
        loop {
            if self.pending.is_empty() && self.is_source_done {
                drop(sender);
                // Every answer is here; the service only has to notice that we are done.
                let _ = timeout(CLOSE_WITHIN, async { while let Ok(Some(_)) = answers.message().await {} }).await;
                return End::Done;
            }
            if !self.send_ready(&sender) {
                // The reader of our frames is gone; what it still says is in `answers`.
                match timeout(self.config.answer_within, answers.message()).await {
                    Ok(Ok(Some(answer))) => self.hear(wire::answer(answer)),
                    Ok(Err(status)) => return End::of(status),
                    Ok(Ok(None)) | Err(_) => return End::broken("the service ended the stream"),
                }
                continue;
            }
            let answer_by = self.pending.values().filter_map(|pending| pending.sent).min();
            let retry_at =
                self.pending.values().filter(|pending| pending.sent.is_none()).filter_map(|p| p.not_before).min();
            let may_take = !self.is_source_done && self.alone == 0 && self.pending.len() < self.config.in_flight;
            let is_stopping = self.is_source_done;
            tokio::select! {
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => self.hear(wire::answer(answer)),
                    Ok(None) => return End::broken("the service ended the stream"),
                    Err(status) => return End::of(status),
                },
                frame = next_frame(&mut self.frames, self.next_frame_at), if may_take => self.take(frame),
                () = wait_until(retry_at) => {}
                () = wait_until(answer_by.map(|at| at + self.config.answer_within)) => {
                    return End::broken(format!("no answer for {:?}", self.config.answer_within));
                }
                () = self.stop.cancelled(), if !is_stopping => self.is_source_done = true,
            }
        }
    }

    /// Takes the next frame from the source; false when there is none and will be none.
    async fn take_one(&mut self) -> bool {
        if self.is_source_done {
            return false;
        }
        tokio::select! {
            frame = next_frame(&mut self.frames, self.next_frame_at) => self.take(frame),
            () = self.stop.cancelled() => self.is_source_done = true,
        }
        !self.is_source_done
    }

    fn take(&mut self, frame: Option<Result<OutgoingFrame, Unsent>>) {
        match frame {
            None => self.is_source_done = true,
            Some(Err(unsent)) => {
                self.summary.unsent += 1;
                (self.on_event)(LineEvent::Unsent(&unsent));
            }
            Some(Ok(frame)) => {
                if let Some(rate) = self.config.rate_per_s {
                    // From the schedule, not from now: a short stall is caught up.
                    self.next_frame_at += Duration::from_secs_f64(1.0 / rate);
                }
                self.summary.start();
                if self.pending.is_empty() {
                    // The service owed us nothing until now; its silence counts from here.
                    self.heard = Instant::now();
                }
                let id = frame.frame_id.to_string();
                if self.by_id.contains_key(&id) {
                    let unsent = Unsent { name: id, reason: "its frame id is in flight for another frame".to_owned() };
                    self.summary.unsent += 1;
                    (self.on_event)(LineEvent::Unsent(&unsent));
                    return;
                }
                self.summary.frames += 1;
                self.summary.bytes += frame.image.len() as u64;
                self.by_id.insert(id, self.taken);
                let request = wire::request(self.config, &frame);
                let pending = Pending {
                    frame,
                    request,
                    first_sent: None,
                    sent: None,
                    not_before: None,
                    first_refused: None,
                    attempts: 0,
                };
                self.pending.insert(self.taken, pending);
                self.taken += 1;
            }
        }
    }

    /// Sends what may go out now; false when nobody reads any more.
    fn send_ready(&mut self, sender: &mpsc::Sender<wire::Request>) -> bool {
        let window = if self.alone > 0 { 1 } else { self.config.in_flight };
        let mut under_way = self.pending.values().filter(|pending| pending.sent.is_some()).count();
        let now = Instant::now();
        for pending in self.pending.values_mut() {
            if under_way >= window {
                break;
            }
            if pending.sent.is_some() || pending.not_before.is_some_and(|at| at > now) {
                continue;
            }
            // The channel holds `in_flight` frames and no more are under way, so only a closed one refuses.
            if sender.try_send(pending.request.clone()).is_err() {
                return false;
            }
            pending.first_sent.get_or_insert(now);
            pending.sent = Some(now);
            pending.not_before = None;
            pending.attempts += 1;
            under_way += 1;
        }
        true
    }

    fn hear(&mut self, (frame_id, outcome): (String, Outcome)) {
        self.heard = Instant::now();
        self.failures = 0;
        let Some(&key) = self.by_id.get(&frame_id) else {
            self.summary.strays += 1;
            return;
        };
        if let Err(refusal) = &outcome
            && let Some(after) = self.retry_after(key, refusal)
        {
            let pending = self.pending.get_mut(&key).expect("every id in `by_id` names a pending frame");
            pending.sent = None;
            pending.not_before = Some(self.heard + after);
            pending.first_refused.get_or_insert(self.heard);
            self.summary.retries += 1;
            (self.on_event)(LineEvent::Retrying { frame: &pending.frame, refusal, after });
            return;
        }
        self.settle(key, &outcome);
    }

    /// How long to wait before the frame is sent again; `None`: the refusal is final.
    fn retry_after(&self, key: u64, refusal: &Refusal) -> Option<Duration> {
        let pending = &self.pending[&key];
        if pending.first_refused.is_some_and(|at| at.elapsed() >= self.config.retry_for) {
            return None;
        }
        let pause = backoff(self.config.backoff, pending.attempts.saturating_sub(1));
        match (refusal.retry_after, refusal.code) {
            (Some(hint), _) => Some(hint.min(self.config.retry_for)),
            (None, Code::ResourceExhausted) => Some(pause),
            (None, Code::Unavailable | Code::Cancelled | Code::Aborted | Code::Internal | Code::Unknown) => {
                (pending.attempts < UNKNOWN_OUTCOME_ATTEMPTS_MAX).then_some(pause)
            }
            _ => None,
        }
    }

    /// Gives a frame its final answer.
    fn settle(&mut self, key: u64, outcome: &Outcome) {
        let pending = self.pending.remove(&key).expect("only pending frames are settled");
        self.by_id.remove(pending.frame.frame_id.as_str());
        self.alone = self.alone.saturating_sub(1);
        let latency = pending.first_sent.map(|at| at.elapsed()).unwrap_or_default();
        let answered = Answered { frame: &pending.frame, outcome, latency, attempts: pending.attempts };
        self.summary.count(&answered);
        (self.on_event)(LineEvent::Answered(answered));
    }

    /// The service named a fault of one frame by ending the whole stream. Alone it is clear which one it is.
    fn quarantine(&mut self, status: &Status) {
        let sent: Vec<u64> = self.pending.iter().filter(|(_, p)| p.sent.is_some()).map(|(key, _)| *key).collect();
        if let [only] = sent[..] {
            let refusal = Refusal {
                code: status.code(),
                reason: "stream_refused".to_owned(),
                message: status.message().to_owned(),
                retry_after: None,
            };
            self.heard = Instant::now();
            self.settle(only, &Err(refusal));
        } else {
            self.alone = self.pending.len();
        }
    }

    async fn pause(&mut self, why: &str, hint: Option<Duration>) {
        let after = hint
            .map_or_else(|| backoff(self.config.backoff, self.failures), |hint| hint.min(self.config.reconnect_for));
        self.failures += 1;
        self.summary.reconnects += 1;
        (self.on_event)(LineEvent::Reconnecting { why, after, pending: self.pending.len() });
        tokio::time::sleep(after).await;
    }

    fn finish(mut self) -> Summary {
        self.summary.unanswered = self.pending.len() as u64;
        self.summary.end();
        self.summary
    }
}

/// The source's next frame, not before its time.
async fn next_frame<S: Stream + Unpin>(frames: &mut S, at: Instant) -> Option<S::Item> {
    // Both waits may be dropped and begun again without losing a frame.
    sleep_until(at).await;
    frames.next().await
}

async fn wait_until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Doubling pause, capped, of which a random half is left out so that many line PCs do not return at once.
fn backoff((first, longest): (Duration, Duration), failures: u32) -> Duration {
    let pause = first.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX)).min(longest);
    pause.mul_f64(rand::random_range(0.5..1.0))
}

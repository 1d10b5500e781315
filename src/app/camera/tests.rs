//! The line PC against a real gRPC server on a real socket that is killed, restarted, overloaded and refusing.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use clap::{CommandFactory as _, Parser};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Response, Status, Streaming,
    transport::{Certificate, Identity, ServerTlsConfig, server::TcpIncoming},
};

use super::{
    client::LineClient,
    ledger::Ledger,
    source::{Folder, Frames, Serials, SharedLedger},
    summary::{Comparison, Summary},
    words::{LineConfig, LineError, LineEvent, OutgoingFrame, TlsPem, Unsent},
    *,
};
use crate::edge::pb::{
    self, ClosePeriodRequest, ClosePeriodResponse, InspectRequest, InspectResponse, InspectStreamResponse,
    inspection_service_server::{InspectionService, InspectionServiceServer},
};

/// What the scripted service does with a frame.
enum Act {
    Decide,
    Refuse(pb::Refusal),
    /// Write the decision down, then lose power before answering.
    DecideAndDie,
    EndStream(Status),
}

type Script = Box<dyn FnMut(&InspectRequest) -> Act + Send>;

/// What survives the service's restarts: each frame's entry, and how often each frame came.
#[derive(Default)]
struct Book {
    entries: HashMap<String, (Vec<u8>, u64)>,
    came: Vec<(String, u64)>,
}

#[derive(Clone)]
struct Scripted {
    book: Arc<Mutex<Book>>,
    script: Arc<Mutex<Script>>,
    died: mpsc::UnboundedSender<()>,
}

impl Scripted {
    fn answer(&self, request: &InspectRequest) -> Option<Result<InspectStreamResponse, Status>> {
        let image = &request.image.as_ref().unwrap().data;
        assert_eq!(request.image_blake3, blake3::hash(image).as_bytes(), "the digest is of the bytes sent");
        let act = (self.script.lock().unwrap())(request);
        let mut book = self.book.lock().unwrap();
        book.came.push((request.frame_id.clone(), request.frame_counter));
        let outcome = match act {
            Act::EndStream(status) => return Some(Err(status)),
            Act::Refuse(refusal) => pb::inspect_stream_response::Outcome::Refused(refusal),
            Act::Decide | Act::DecideAndDie => {
                let next = book.entries.len() as u64;
                let known = book.entries.get(&request.frame_id).cloned();
                let duplicate = known.is_some();
                let (digest, entry_index) = known.unwrap_or((request.image_blake3.clone(), next));
                assert_eq!(digest, request.image_blake3, "an id always means the same bytes");
                book.entries.insert(request.frame_id.clone(), (digest, entry_index));
                if matches!(act, Act::DecideAndDie) {
                    self.died.send(()).unwrap();
                    return None;
                }
                pb::inspect_stream_response::Outcome::Decided(InspectResponse {
                    frame_id: request.frame_id.clone(),
                    verdict: if image.first() == Some(&b'!') { pb::Verdict::NotOk } else { pb::Verdict::Ok }.into(),
                    entry_index,
                    duplicate,
                    timings: (!duplicate).then(|| pb::Timings { infer_us: 900, total_us: 1_500, ..Default::default() }),
                    ..Default::default()
                })
            }
        };
        Some(Ok(InspectStreamResponse { frame_id: request.frame_id.clone(), outcome: Some(outcome) }))
    }
}

#[tonic::async_trait]
impl InspectionService for Scripted {
    type InspectStreamStream = Pin<Box<dyn Stream<Item = Result<InspectStreamResponse, Status>> + Send>>;

    async fn inspect(&self, _: Request<InspectRequest>) -> Result<Response<InspectResponse>, Status> {
        Err(Status::unimplemented("line PCs stream"))
    }

    async fn get_part(&self, _: Request<pb::GetPartRequest>) -> Result<Response<pb::GetPartResponse>, Status> {
        Err(Status::unimplemented("line PCs of one camera do not ask"))
    }

    async fn close_period(&self, _: Request<ClosePeriodRequest>) -> Result<Response<ClosePeriodResponse>, Status> {
        Err(Status::unimplemented("the tests of closing run against the real service"))
    }

    async fn inspect_stream(
        &self,
        request: Request<Streaming<InspectRequest>>,
    ) -> Result<Response<Self::InspectStreamStream>, Status> {
        let (sender, receiver) = mpsc::channel(1);
        let (service, mut frames) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            loop {
                match frames.message().await {
                    Ok(Some(frame)) => match service.answer(&frame) {
                        Some(answer) => {
                            let is_end = answer.is_err();
                            if sender.send(answer).await.is_err() || is_end {
                                return;
                            }
                        }
                        None => return std::future::pending().await,
                    },
                    Ok(None) => return,
                    Err(status) => {
                        let _ = sender.send(Err(status)).await;
                        return;
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

/// The scripted service on a runtime of its own, which can be killed with everything in flight.
struct Service {
    address: SocketAddr,
    service: Scripted,
    died: mpsc::UnboundedReceiver<()>,
    runtime: Option<tokio::runtime::Runtime>,
    message_bytes_max: usize,
    tls: Option<ServerTlsConfig>,
}

impl Service {
    fn start(script: impl FnMut(&InspectRequest) -> Act + Send + 'static) -> Self {
        Self::start_with_limit(4 << 20, script)
    }

    fn start_with_limit(bytes_max: usize, script: impl FnMut(&InspectRequest) -> Act + Send + 'static) -> Self {
        let (sender, died) = mpsc::unbounded_channel();
        let script: Script = Box::new(script);
        let service = Scripted { book: Arc::default(), script: Arc::new(Mutex::new(script)), died: sender };
        let mut service = Self {
            address: ([127, 0, 0, 1], 0).into(),
            service,
            died,
            runtime: None,
            message_bytes_max: bytes_max,
            tls: None,
        };
        service.up();
        service
    }

    fn up(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let server =
            InspectionServiceServer::new(self.service.clone()).max_decoding_message_size(self.message_bytes_max);
        let _context = runtime.enter();
        let incoming = TcpIncoming::bind(self.address).unwrap();
        self.address = incoming.local_addr().unwrap();
        let mut builder = tonic::transport::Server::builder();
        if let Some(tls) = &self.tls {
            builder = builder.tls_config(tls.clone()).unwrap();
        }
        runtime.spawn(builder.add_service(server).serve_with_incoming(incoming));
        self.runtime = Some(runtime);
    }

    /// Everything in flight is gone when this returns, as after a power cut.
    async fn kill(&mut self) {
        let runtime = self.runtime.take().unwrap();
        let killed = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(5)));
        killed.await.unwrap();
    }

    fn config(&self) -> LineConfig {
        let name = |text: &str| text.to_owned();
        LineConfig {
            backoff: (Duration::from_millis(1), Duration::from_millis(20)),
            ..LineConfig::new(
                format!("http://{}", self.address),
                LineId::new(name("line-1")).unwrap(),
                StationId::new(name("station-1")).unwrap(),
                CameraId::new(name("camera-1")).unwrap(),
                ProductId::new(name("flange")).unwrap(),
            )
        }
    }

    fn client(&self) -> LineClient {
        LineClient::connect(self.config()).unwrap()
    }

    /// How often each frame came, in the order of first coming.
    fn came(&self) -> Vec<(String, u64)> {
        self.service.book.lock().unwrap().came.clone()
    }

    fn entries(&self) -> usize {
        self.service.book.lock().unwrap().entries.len()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn frame(number: u64, image: impl Into<bytes::Bytes>) -> OutgoingFrame {
    OutgoingFrame {
        frame_id: format!("f{number}").parse().unwrap(),
        frame_counter: number,
        serial: format!("S{number}"),
        lot: String::new(),
        image: image.into(),
        raw: None,
        captured_at: None,
        is_bad: None,
    }
}

fn frames(count: u64) -> impl Stream<Item = Result<OutgoingFrame, Unsent>> + Unpin {
    tokio_stream::iter((1..=count).map(|number| Ok(frame(number, format!("part {number}")))))
}

fn refusal(code: Code, reason: &str, retry_after: Option<Duration>) -> pb::Refusal {
    pb::Refusal {
        code: code as i32,
        reason: reason.to_owned(),
        message: "because".to_owned(),
        retry_after: retry_after.map(|time| time.try_into().unwrap()),
    }
}

async fn run(client: &LineClient, frames: impl Stream<Item = Result<OutgoingFrame, Unsent>> + Unpin) -> Summary {
    client.run(frames, CancellationToken::new(), |_| {}).await
}

#[tokio::test]
async fn every_part_gets_its_verdict_and_the_summary_adds_up() {
    let service = Service::start(|_| Act::Decide);
    let parts = tokio_stream::iter((1..=40).map(|number| {
        let is_bad = number % 4 == 0;
        // The third part is good and looks bad: overkill.
        let image = if is_bad || number == 3 { "!" } else { "." };
        Ok(OutgoingFrame { is_bad: Some(is_bad), ..frame(number, format!("{image} {number}")) })
    }));
    let mut serials = Vec::new();
    let client = service.client();
    let summary = client
        .run(parts, CancellationToken::new(), |event| {
            if let LineEvent::Answered(answered) = event {
                serials.push(answered.frame.serial.clone());
            }
        })
        .await;
    assert_eq!(serials.len(), 40);
    assert_eq!((summary.ok, summary.not_ok, summary.frames, summary.duplicates), (29, 11, 40, 0));
    assert_eq!(
        summary.comparison,
        Some(Comparison { good_ok: 29, good_not_ok: 1, bad_not_ok: 10, ..Comparison::default() })
    );
    assert_eq!(summary.exit_code(), 0);
    assert!(summary.stage_medians_us().any(|(name, us)| name == "infer" && (899..=901).contains(&us)));
    let text = summary.to_text();
    assert!(text.contains("40 parts") && text.contains("1 overkill (3.3 %)") && text.contains("p99"), "{text}");
    assert_eq!(summary.to_json()["ok"], 29);
}

#[tokio::test]
async fn a_killed_and_restarted_service_loses_and_doubles_nothing() {
    let mut seen = 0;
    let mut service = Service::start(move |_| {
        seen += 1;
        // Twice the service dies after writing a decision and before answering it.
        if seen == 7 || seen == 23 { Act::DecideAndDie } else { Act::Decide }
    });
    let client = service.client();
    let line = tokio::spawn(async move {
        let mut answers = HashMap::<String, u32>::new();
        let summary = client
            .run(frames(60), CancellationToken::new(), |event| {
                if let LineEvent::Answered(answered) = event {
                    assert!(answered.outcome.is_ok());
                    *answers.entry(answered.frame.serial.clone()).or_default() += 1;
                }
            })
            .await;
        (summary, answers)
    });
    for _ in 0..2 {
        service.died.recv().await.unwrap();
        service.kill().await;
        service.up();
    }
    let (summary, answers) = line.await.unwrap();
    assert_eq!(answers.len(), 60, "every part was answered");
    assert!(answers.values().all(|count| *count == 1), "and once only");
    assert_eq!(service.entries(), 60, "every part has one entry");
    assert_eq!((summary.ok, summary.exit_code()), (60, 0));
    assert!(summary.reconnects >= 2 && summary.duplicates >= 2, "{summary:?}");
}

#[tokio::test]
async fn an_overloaded_service_is_asked_again_when_it_said() {
    let mut first = true;
    let service = Service::start(move |request| {
        if request.frame_id == "f2" && std::mem::take(&mut first) {
            Act::Refuse(refusal(Code::ResourceExhausted, "overload", Some(Duration::from_millis(3))))
        } else {
            Act::Decide
        }
    });
    let mut hints = Vec::new();
    let client = service.client();
    let summary = client
        .run(frames(5), CancellationToken::new(), |event| {
            if let LineEvent::Retrying { frame, after, .. } = event {
                hints.push((frame.frame_counter, after));
            }
        })
        .await;
    assert_eq!(hints, [(2, Duration::from_millis(3))]);
    assert_eq!((summary.ok, summary.retries, summary.refused()), (5, 1, 0));
}

#[tokio::test]
async fn an_overload_that_does_not_end_becomes_a_refusal() {
    let service =
        Service::start(|_| Act::Refuse(refusal(Code::ResourceExhausted, "disk_reserve", Some(Duration::ZERO))));
    let config = LineConfig { retry_for: Duration::from_millis(30), ..service.config() };
    let summary = run(&LineClient::connect(config).unwrap(), frames(2)).await;
    assert_eq!(summary.refusals.get("RESOURCE_EXHAUSTED disk_reserve"), Some(&2));
    assert!(summary.retries > 0);
    assert_eq!(summary.exit_code(), 1);
}

#[tokio::test]
async fn a_refused_part_is_reported_and_the_line_goes_on() {
    let service = Service::start(|request| match request.frame_counter {
        3 => Act::Refuse(refusal(Code::InvalidArgument, "bad_frame", None)),
        _ => Act::Decide,
    });
    let summary = run(&service.client(), frames(6)).await;
    assert_eq!((summary.ok, summary.refused(), summary.retries), (5, 1, 0));
    assert_eq!(summary.refusals.get("INVALID_ARGUMENT bad_frame"), Some(&1));
    assert_eq!(summary.exit_code(), 1, "a part without a verdict is not a success");
}

#[tokio::test]
async fn one_frame_too_large_for_the_service_does_not_stop_the_others() {
    let service = Service::start_with_limit(10_000, |_| Act::Decide);
    let parts = tokio_stream::iter(
        (1..=9).map(|number| Ok(frame(number, if number == 4 { vec![0; 50_000] } else { vec![b'.'; 100] }))),
    );
    let mut refused = Vec::new();
    let client = service.client();
    let summary = client
        .run(parts, CancellationToken::new(), |event| {
            if let LineEvent::Answered(answered) = event
                && answered.outcome.is_err()
            {
                refused.push(answered.frame.frame_counter);
            }
        })
        .await;
    assert_eq!(refused, [4]);
    assert_eq!(summary.ok, 8);
}

#[tokio::test]
async fn a_service_that_will_never_accept_this_line_pc_ends_the_run() {
    let service = Service::start(|_| Act::EndStream(Status::permission_denied("station-1 is not yours")));
    let summary = run(&service.client(), frames(3)).await;
    assert!(summary.gave_up.as_deref().is_some_and(|why| why.contains("station-1 is not yours")), "{summary:?}");
    assert_eq!((summary.decided(), summary.exit_code()), (0, 1));
    assert!(summary.unanswered > 0);
}

#[tokio::test]
async fn a_service_that_stays_away_ends_the_run_with_the_parts_unanswered() {
    let mut service = Service::start(|_| Act::Decide);
    let config = LineConfig { reconnect_for: Duration::from_millis(50), ..service.config() };
    service.kill().await;
    let summary = run(&LineClient::connect(config).unwrap(), frames(3)).await;
    assert!(summary.gave_up.is_some() && summary.reconnects > 0, "{summary:?}");
    assert_eq!((summary.unanswered, summary.frames), (1, 1), "the rest was never taken from the source");
}

#[tokio::test]
async fn a_stop_lets_the_parts_in_flight_finish() {
    let service = Service::start(|_| Act::Decide);
    let stop = CancellationToken::new();
    let client = service.client();
    let mut answered = 0_u64;
    let summary = client
        .run(frames(1_000_000), stop.clone(), |event| {
            if matches!(event, LineEvent::Answered(_)) {
                answered += 1;
                if answered == 10 {
                    stop.cancel();
                }
            }
        })
        .await;
    assert_eq!(summary.frames, answered, "every frame taken is answered");
    assert!((10..20).contains(&answered), "{answered}");
    assert_eq!(summary.exit_code(), 0);
}

#[tokio::test]
async fn over_tls_both_sides_show_who_they_are() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let authority_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(params, authority_key);
    let signed = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let (server, line_pc) = (signed("localhost"), signed("line-1"));

    let mut service = Service::start(|_| Act::Decide);
    service.kill().await;
    service.tls = Some(
        ServerTlsConfig::new()
            .identity(Identity::from_pem(&server.0, &server.1))
            .client_ca_root(Certificate::from_pem(&authority)),
    );
    service.up();
    let config = |identity: Option<(String, String)>| LineConfig {
        server: format!("https://localhost:{}", service.address.port()),
        tls: Some(TlsPem {
            authority: authority.clone().into_bytes(),
            identity: identity.map(|(certificate, key)| (certificate.into_bytes(), key.into_bytes())),
        }),
        reconnect_for: Duration::from_millis(50),
        ..service.config()
    };
    let summary = run(&LineClient::connect(config(Some(line_pc))).unwrap(), frames(5)).await;
    assert_eq!((summary.ok, summary.exit_code()), (5, 0), "{summary:?}");
    let nobody = run(&LineClient::connect(config(None)).unwrap(), frames(5)).await;
    assert_eq!(nobody.decided(), 0, "without a certificate nothing is judged");
    assert_eq!(nobody.exit_code(), 1);
}

fn folder_of(names: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        std::fs::write(folder.path().join(name), format!("picture {name}")).unwrap();
    }
    folder
}

fn camera(path: &Path, watch: Option<Duration>) -> Folder {
    Folder { path: path.to_path_buf(), serials: None, watch }
}

async fn run_with_state(service: &Service, path: &Path, state: &Path) -> Summary {
    let ledger = SharedLedger::new(Ledger::open(state, 1).unwrap());
    let frames = camera(path, None).frames(ledger.clone(), CancellationToken::new()).unwrap();
    service.client().run(frames, CancellationToken::new(), |event| remember(&ledger, &event).unwrap()).await
}

#[tokio::test]
async fn after_its_own_restart_a_line_pc_goes_on_counting_and_sends_only_what_is_new() {
    let mut asked = 0;
    let service = Service::start(move |request| {
        asked += 1;
        // At the first try the service has no recipe for b.
        if request.serial == "b" && asked < 4 {
            Act::Refuse(refusal(Code::FailedPrecondition, "no_recipe", None))
        } else {
            Act::Decide
        }
    });
    let folder = folder_of(&["c.png", "a.png", "b.JPG", "notes.txt"]);
    let state = folder.path().join("state.jsonl");

    let first = run_with_state(&service, folder.path(), &state).await;
    assert_eq!((first.ok, first.refused()), (2, 1), "{first:?}");
    std::fs::write(folder.path().join("d.bmp"), "picture d.bmp").unwrap();
    let second = run_with_state(&service, folder.path(), &state).await;
    assert_eq!((second.ok, second.refused(), second.duplicates), (2, 0, 0), "{second:?}");

    let id = |name: &str| super::source::frame_id(name, format!("picture {name}").as_bytes()).to_string();
    let expected = [("a.png", 1), ("b.JPG", 2), ("c.png", 3), ("b.JPG", 2), ("d.bmp", 4)];
    assert_eq!(service.came(), expected.map(|(name, counter)| (id(name), counter)));
}

#[tokio::test]
async fn a_watched_folder_sends_each_file_once_it_is_complete() {
    let service = Service::start(|_| Act::Decide);
    let folder = folder_of(&["1.png", "2.png"]);
    let stop = CancellationToken::new();
    let ledger = SharedLedger::new(Ledger::in_memory(1));
    let frames = camera(folder.path(), Some(Duration::from_millis(1))).frames(ledger, stop.clone()).unwrap();
    let (path, mut serials) = (folder.path().to_path_buf(), Vec::new());
    let summary = service
        .client()
        .run(frames, stop.clone(), |event| {
            if let LineEvent::Answered(answered) = event {
                serials.push(answered.frame.serial.clone());
                match serials.len() {
                    2 => std::fs::write(path.join("0-late.png"), "picture").unwrap(),
                    3 => stop.cancel(),
                    _ => {}
                }
            }
        })
        .await;
    assert_eq!(serials, ["1", "2", "0-late"]);
    assert_eq!((summary.ok, summary.exit_code()), (3, 0));
}

#[tokio::test]
async fn a_serials_file_names_the_parts_and_a_file_it_does_not_name_is_not_sent() {
    let folder = folder_of(&["x.png", "y.png"]);
    let csv = folder.path().join("serials.csv");
    std::fs::write(&csv, "name,serial,lot\nx.png, DM-77 ,L5\n").unwrap();
    let serials = Serials::read(&csv).unwrap();
    let folder = Folder { serials: Some(serials), ..camera(folder.path(), None) };
    let frames: Frames = folder.frames(SharedLedger::new(Ledger::in_memory(5)), CancellationToken::new()).unwrap();
    let frames: Vec<_> = frames.collect().await;
    let first = frames[0].as_ref().unwrap();
    assert_eq!((first.serial.as_str(), first.lot.as_str(), first.frame_counter), ("DM-77", "L5", 5));
    assert_eq!(frames[1].as_ref().unwrap_err().name, "y.png");

    std::fs::write(&csv, "name,serial\nx.png,1\nx.png,2\n").unwrap();
    assert!(Serials::read(&csv).unwrap_err().to_string().contains("\"x.png\" stands there twice"));
    std::fs::write(&csv, "file;id\nx.png;1\n").unwrap();
    assert!(Serials::read(&csv).unwrap_err().to_string().contains("the columns name, serial"));
}

#[tokio::test]
async fn simulated_parts_arrive_in_order_with_their_truth() {
    let config = SimulatorConfig { width_px: 64, height_px: 64, defect_rate: 0.5, ..SimulatorConfig::default() };
    let simulator = Simulator::new(config).unwrap();
    let ledger = SharedLedger::new(Ledger::in_memory(1));
    let frames = source::simulated(simulator.clone(), ImageFormat::Png, 10..17, Some("again"), true, ledger);
    let frames: Vec<OutgoingFrame> = frames.map(Result::unwrap).collect().await;
    assert_eq!(frames.len(), 7);
    let ids = async |run| {
        let ledger = SharedLedger::new(Ledger::in_memory(1));
        let frames = source::simulated(simulator.clone(), ImageFormat::Png, 10..17, run, true, ledger);
        frames.map(|frame| frame.unwrap().frame_id).collect::<Vec<_>>().await
    };
    let again: Vec<_> = frames.iter().map(|frame| frame.frame_id.clone()).collect();
    assert_eq!(ids(Some("again")).await, again, "a retry finds what was decided");
    assert_ne!(ids(None).await, again, "another run has frames of its own");
    for (number, frame) in (10..).zip(&frames) {
        let part = simulator.part(number);
        assert_eq!(frame.serial, part.serial);
        assert!(!frame.frame_id.as_str().contains(&part.serial), "a frame id is in clear for ever");
        assert_eq!(frame.frame_counter, number - 9);
        assert_eq!(frame.is_bad, Some(part.is_bad));
        assert_eq!(image::load_from_memory(&frame.image).unwrap().into_luma8().into_raw(), part.frame);
    }
}

#[test]
fn a_connection_that_cannot_work_is_refused_with_the_way_out() {
    let with = |server: &str| {
        let id = "x";
        LineConfig::new(server, id.parse().unwrap(), id.parse().unwrap(), id.parse().unwrap(), id.parse().unwrap())
    };
    let refused = |config| LineClient::connect(config).err().expect("refused");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _context = runtime.enter();
    assert!(matches!(refused(with("http://plant.example:7443")), LineError::PlainText(_)));
    assert!(matches!(refused(with("https://plant.example:7443")), LineError::NoAuthority));
    assert!(matches!(refused(with("plant:7443")), LineError::Address(_)));
    assert!(matches!(refused(LineConfig { in_flight: 0, ..with("http://127.0.0.1:1") }), LineError::InFlight(0)));
    let rate = Some(f64::NAN);
    assert!(matches!(refused(LineConfig { rate_per_s: rate, ..with("http://127.0.0.1:1") }), LineError::Rate(_)));
    assert!(LineClient::connect(with("http://[::1]:7443")).is_ok());
    assert!(LineClient::connect(with("http://localhost:7443")).is_ok());
}

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    camera: CameraArgs,
}

#[test]
fn the_arguments_are_a_folder_or_the_simulator() {
    Cli::command().debug_assert();
    let cli = Cli::try_parse_from(["camera", "parts/", "--watch", "--line", "press-2"]).unwrap();
    assert_eq!(cli.camera.folder.line.connect.line.as_str(), "press-2");
    let cli =
        Cli::try_parse_from(["camera", "simulate", "--parts", "5", "--size", "1280x1024", "--rate", "2.5"]).unwrap();
    let Some(CameraCommand::Simulate(args)) = cli.camera.command else { panic!("simulate is a subcommand") };
    assert_eq!((args.parts, args.kind.size, args.line.rate), (5, (1280, 1024), Some(2.5)));
    assert!(Cli::try_parse_from(["camera"]).is_err(), "nothing to send");
    assert!(Cli::try_parse_from(["camera", "parts/", "--line", "a/b"]).is_err(), "a name has its letters");
    assert!(Cli::try_parse_from(["camera", "parts/", "--cert", "c.pem"]).is_err(), "a certificate needs its key");
}

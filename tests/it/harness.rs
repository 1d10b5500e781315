//! A plant for one test: a data directory, the service's process, and a line PC.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use lineproof::{
    core::simulate::{Simulator, SimulatorConfig},
    edge::pb::{
        self, audit_service_client::AuditServiceClient, history_service_client::HistoryServiceClient,
        inspection_service_client::InspectionServiceClient,
    },
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SanType,
};
use tempfile::TempDir;
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

/// Longest wait for the service to say that it listens; loading a model on a busy machine takes a while.
const START_MAX: Duration = Duration::from_secs(60);

/// A data directory made by `lineproof init`.
pub struct Plant {
    folder: PathBuf,
    /// Removes the folder with the plant.
    _keep: Box<dyn std::any::Any>,
}

/// The service's process, killed when dropped.
pub struct Service {
    pub child: Child,
    pub address: String,
    /// Where it serves the office; empty if it does not.
    pub office: String,
    /// Everything the service says on standard error, once it has ended.
    log: Option<std::thread::JoinHandle<String>>,
}

/// What a client needs behind TLS, as PEM.
pub struct ClientPem {
    /// The authority that signed everybody's.
    pub authority: Authority,
    /// A client's certificate and its key.
    pub client: (String, String),
}

/// How a process ended and what it said.
pub struct Ended {
    pub code: Option<i32>,
    pub log: String,
}

pub fn lineproof() -> Command {
    Command::new(env!("CARGO_BIN_EXE_lineproof"))
}

impl Plant {
    pub fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        Self::below(folder.path().to_owned(), folder)
    }

    /// A plant in `folder`, which lasts as long as `keep`.
    pub fn below(folder: PathBuf, keep: impl std::any::Any) -> Self {
        let plant = Self { folder, _keep: Box::new(keep) };
        let output = lineproof().arg("init").arg(plant.data()).output().expect("the binary runs");
        assert!(output.status.success(), "{}", text(&output));
        plant.edit_config("127.0.0.1:7443", "127.0.0.1:0");
        plant.edit_config("127.0.0.1:7444", "127.0.0.1:0");
        plant
    }

    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Replaces a text in `lineproof.toml` that must be there.
    pub fn edit_config(&self, from: &str, to: &str) {
        let path = self.data().join("lineproof.toml");
        let text = std::fs::read_to_string(&path).expect("the configuration");
        assert!(text.contains(from), "{from:?} is not in {text}");
        std::fs::write(path, text.replace(from, to)).expect("the configuration is writable");
    }

    /// Configures TLS at both listeners with a certificate for `localhost`, and that clients must show one of the same authority.
    /// The client's is that of the line PC of `part`.
    pub fn demand_tls(&self) -> ClientPem {
        let authority = Authority::new();
        let server = authority.server();
        let folder = self.data().join("tls");
        std::fs::create_dir(&folder).expect("a folder for the certificates");
        let crl = authority.revoked(&[]);
        let files = [("server.pem", &server.0), ("server.key", &server.1), ("clients.pem", &authority.pem)];
        for (name, pem) in files.into_iter().chain([("clients.crl", &crl)]) {
            std::fs::write(folder.join(name), pem).expect("a certificate is written");
        }
        for key in ["[listen.tls]", "certificate =", "key =", "client_ca =", "crl ="] {
            self.edit_config(&format!("# {key}"), key);
        }
        let files = "certificate = \"tls/server.pem\"\nkey = \"tls/server.key\"\nclient_ca = \"tls/clients.pem\"\ncrl = \"tls/clients.crl\"\n";
        self.edit_config("# [office.tls] ", &format!("[office.tls]\n{files}# "));
        let client = authority.client("spiffe://plant.example/station/line-1/station-1", "line", 1);
        ClientPem { client: (client.0, client.1), authority }
    }

    /// Has the line's side listen at `address` instead of at a port that is free.
    pub fn listen_at(&self, address: &str) {
        self.edit_config("[listen]\naddress = \"127.0.0.1:0\"", &format!("[listen]\naddress = \"{address}\""));
    }

    pub fn serve(&self) -> Service {
        match self.try_serve() {
            Ok(service) => service,
            Err(ended) => panic!("the service ended with {:?}: {}", ended.code, ended.log),
        }
    }

    /// Starts the service and waits until it listens, or until it ends.
    pub fn try_serve(&self) -> Result<Service, Ended> {
        Service::spawn(lineproof().arg("serve").arg("--data").arg(self.data()))
    }

    /// Runs a command on this plant's data directory.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = lineproof();
        command.args(arguments).current_dir(self.folder()).env("LINEPROOF_DATA", self.data());
        command.output().expect("the binary runs")
    }

    pub fn vkey(&self) -> PathBuf {
        self.data().join("log.vkey")
    }
}

/// A certificate authority for one test.
pub struct Authority {
    /// Its own certificate.
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        // With the subject that the others have by default, theirs would look signed by themselves.
        params.distinguished_name.push(DnType::CommonName, "authority of the plant");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for a server at `localhost`, and its key.
    pub fn server(&self) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        (params.signed_by(&key, &self.issuer).expect("a certificate").pem(), key.serialize_pem())
    }

    /// A client's certificate with this SPIFFE ID, organisational unit and serial number, and its key.
    pub fn client(&self, id: &str, unit: &str, serial: u64) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.subject_alt_names.push(SanType::URI(id.try_into().expect("an ASCII text")));
        params.distinguished_name.push(DnType::OrganizationalUnitName, unit);
        params.serial_number = Some(serial.into());
        (params.signed_by(&key, &self.issuer).expect("a certificate").pem(), key.serialize_pem())
    }

    /// A list that revokes the certificates with these serial numbers.
    pub fn revoked(&self, serials: &[u64]) -> String {
        let now = rcgen::date_time_ymd(2026, 1, 1);
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: (*serial).into(),
            revocation_time: now,
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: now,
            next_update: rcgen::date_time_ymd(2096, 1, 1),
            crl_number: (serials.len() as u64 + 1).into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).expect("a list").pem().expect("PEM")
    }
}

impl Service {
    /// Starts `command`, which must serve, and waits until it listens, or until it ends.
    pub fn spawn(command: &mut Command) -> Result<Self, Ended> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
        let stderr = child.stderr.take().expect("stderr is piped");
        let log = std::thread::spawn(move || std::io::read_to_string(stderr).unwrap_or_default());
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let (said, heard) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let (mut line, mut office) = (String::new(), String::new());
            while stdout.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                let address = |rest: &str| rest.split_whitespace().next().unwrap_or_default().to_owned();
                if let Some(rest) = line.strip_prefix("office: history and audit on ") {
                    office = address(rest);
                }
                if let Some(rest) = line.strip_prefix("listening on ") {
                    let _ = said.send((address(rest), std::mem::take(&mut office)));
                }
                line.clear();
            }
        });
        match heard.recv_timeout(START_MAX) {
            Ok((address, office)) => Ok(Self { child, address, office, log: Some(log) }),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                let code = child.wait().expect("a child can be waited for").code();
                Err(Ended { code, log: log.join().expect("the log reader does not panic") })
            }
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                let _ = child.kill();
                panic!("the service did not listen within {START_MAX:?}")
            }
        }
    }

    pub fn kill(mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// Sends SIGTERM.
    pub fn ask_to_stop(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a child can be signalled");
    }

    /// SIGTERM, and what the service said.
    pub fn stop(self) -> Ended {
        self.ask_to_stop();
        self.wait()
    }

    /// Waits until the service ends by itself.
    pub fn wait(mut self) -> Ended {
        let code = self.child.wait().expect("a child can be waited for").code();
        let log = self.log.take().expect("taken once").join().expect("the log reader does not panic");
        Ended { code, log }
    }

    pub async fn channel(&self) -> Channel {
        connect(&self.address).await
    }

    pub async fn office_channel(&self) -> Channel {
        connect(&self.office).await
    }

    pub async fn inspection(&self) -> InspectionServiceClient<Channel> {
        InspectionServiceClient::new(self.channel().await).max_encoding_message_size(64 << 20)
    }

    /// What the standard health service says of `name`.
    pub async fn health(&self, name: &str) -> ServingStatus {
        let mut client = HealthClient::new(self.channel().await);
        let asked = client.check(HealthCheckRequest { service: name.into() }).await;
        asked.map_or(ServingStatus::ServiceUnknown, |answer| answer.into_inner().status())
    }

    pub async fn history(&self) -> HistoryServiceClient<Channel> {
        HistoryServiceClient::new(self.office_channel().await)
    }

    pub async fn audit(&self) -> AuditServiceClient<Channel> {
        AuditServiceClient::new(self.office_channel().await).max_decoding_message_size(64 << 20)
    }
}

async fn connect(address: &str) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{address}")).expect("an address");
    endpoint.connect().await.expect("the service accepts connections")
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Simulated part `number` as a request with a PNG, all names as `lineproof init` configures them.
pub fn part(number: u64) -> pb::InspectRequest {
    request(number, simulated_png(number))
}

pub fn request(number: u64, image: Vec<u8>) -> pb::InspectRequest {
    pb::InspectRequest {
        line: "line-1".into(),
        station: "station-1".into(),
        camera: "cam-1".into(),
        frame_id: format!("f{number}"),
        frame_counter: number,
        product: "demo-part".into(),
        serial: format!("SN-{number:05}"),
        lot: "LOT-7".into(),
        image_blake3: blake3::hash(&image).as_bytes().to_vec(),
        image: Some(pb::Image { data: image.into(), raw: None }),
        ..pb::InspectRequest::default()
    }
}

pub fn simulated_png(number: u64) -> Vec<u8> {
    let config = SimulatorConfig { seed: 7, defect_rate: 0.5, ..SimulatorConfig::default() };
    let simulator = Simulator::new(config).expect("the configuration is fine");
    let part = simulator.part(number);
    encode(&part.frame, part.width_px, part.height_px, image::ImageFormat::Png)
}

pub fn encode(gray: &[u8], width: u32, height: u32, format: image::ImageFormat) -> Vec<u8> {
    let image = image::GrayImage::from_raw(width, height, gray.to_vec()).expect("pixels fill the frame");
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).expect("an image encodes");
    bytes.into_inner()
}

pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Says that a test proves nothing on this machine, past libtest's capture.
pub fn skipped(why: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "skipped: {why}");
}

/// A runtime for one test.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(future)
}

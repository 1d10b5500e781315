//! Who may do what: every role at every method of both listeners, stations that speak only for themselves, auditors who see
//! what is granted, certificates that change and are revoked while the service runs, and what the log says of it all.

use std::time::{Duration, Instant};

use lineproof::{
    edge::{
        methods::{RULES, Rule, Who, Zone},
        pb::{
            self, audit_service_client::AuditServiceClient, history_service_client::HistoryServiceClient,
            inspection_service_client::InspectionServiceClient,
        },
    },
    types::{Role, Roles},
};
use tonic::{
    Code, Status,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt as _;

use crate::evidence::entries;
use crate::harness::{ClientPem, Plant, block_on, part, request, simulated_png};

/// How long the service may take to see other files.
const SEEN_MAX: Duration = Duration::from_secs(30);

/// A channel to `address` with a certificate and its key.
async fn connect(
    address: &str,
    pem: &ClientPem,
    client: &(String, String),
) -> Result<Channel, tonic::transport::Error> {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&pem.authority.pem))
        .domain_name("localhost")
        .identity(Identity::from_pem(&client.0, &client.1));
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap();
    endpoint.connect().await
}

/// How a listener answers an empty message; none while it goes on answering.
async fn answer(channel: &Channel, rule: &Rule) -> Option<Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.expect("the listener is there");
    let request = tonic::Request::new(tokio_stream::once(()));
    let path = format!("/{}", rule.method).parse().unwrap();
    match client.streaming(request, path, ProstCodec::<(), ()>::default()).await {
        Err(status) => Some(status),
        Ok(answers) => answers.into_inner().message().await.err(),
    }
}

fn access_entries(plant: &Plant) -> Vec<serde_json::Value> {
    let entries = entries(&plant.data(), "access");
    entries.iter().map(|entry| serde_json::from_str(entry).expect("an entry is JSON")).collect()
}

fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

#[test]
fn every_role_at_every_method_of_both_listeners() {
    let plant = Plant::new();
    let pem = plant.demand_tls();
    let service = plant.serve();
    let mut cells = 0;
    block_on(async {
        let mut clients: Vec<(String, Roles, (String, String))> = Vec::new();
        for (serial, role) in (10..).zip(Role::ALL) {
            let kind = if role == Role::Line { "service" } else { "person" };
            let id = format!("spiffe://plant.example/{kind}/{role}");
            clients.push((id.clone(), Roles::of(&[role]), pem.authority.client(&id, role.name(), serial)));
        }
        let (nobody, station) =
            ("spiffe://plant.example/person/nobody", "spiffe://plant.example/station/line-1/station-1");
        clients.push((nobody.into(), Roles::NONE, pem.authority.client(nobody, "Accounting", 20)));
        // Whatever else its certificate says.
        clients.push((station.into(), Roles::of(&[Role::Line]), pem.authority.client(station, "admin", 21)));
        clients.push(("no name".into(), Roles::NONE, pem.authority.client("urn:x", "admin", 22)));
        for (zone, address) in [(Zone::Line, &service.address), (Zone::Office, &service.office)] {
            for (name, roles, certificate) in &clients {
                let channel = connect(address, &pem, certificate).await.expect("a certificate of the authority");
                for rule in RULES {
                    let status = answer(&channel, rule).await;
                    let (code, why) =
                        (status.as_ref().map(Status::code), status.as_ref().map(reason).unwrap_or_default());
                    let at = format!("{name} at {} of {zone:?}: {status:?}", rule.method);
                    let is_refused = matches!(code, Some(Code::PermissionDenied)) && why == "role";
                    let is_unknown = matches!(code, Some(Code::Unauthenticated));
                    if !rule.zones.contains(&zone) {
                        assert_eq!(code, Some(Code::Unimplemented), "{at}");
                    } else {
                        let Who::OneOf(needed) = rule.who else {
                            assert!(!is_refused && !is_unknown, "{at}");
                            continue;
                        };
                        assert_ne!(code, Some(Code::Unimplemented), "{at}");
                        assert_eq!(is_unknown, name == "no name", "{at}");
                        assert_eq!(is_refused, !roles.has_any(needed) && !is_unknown, "{at}");
                    }
                    cells += 1;
                }
            }
        }
    });
    assert_eq!(service.stop().code, Some(0));
    assert!(cells > 10 * RULES.len(), "{cells}");
    let entries = access_entries(&plant);
    let refused = entries.iter().filter(|entry| entry["event"] == "refused" && entry["reason"] == "role").count();
    assert!(refused > 100, "each cell that is refused stands in the log: {refused}");
    assert!(entries.iter().any(|entry| entry["event"] == "login_failed" && entry["reason"] == "certificate"));
    assert!(entries.iter().any(|entry| entry["event"] == "read"));
    let text = entries.iter().map(ToString::to_string).collect::<String>();
    assert!(!text.contains("spiffe"), "names stand in no entry, only commitments to them");
}

#[test]
fn a_station_speaks_for_itself_alone() {
    let plant = Plant::new();
    let pem = plant.demand_tls();
    plant.edit_config(
        "[[product]]\n",
        "[[station]]\nline = \"line-1\"\nstation = \"station-2\"\ncameras = [\"cam-2\"]\n\n[[product]]\n",
    );
    let service = plant.serve();
    block_on(async {
        let other = pem.authority.client("spiffe://plant.example/station/line-1/station-2", "line", 2);
        let own = connect(&service.address, &pem, &pem.client).await.unwrap();
        let other = connect(&service.address, &pem, &other).await.unwrap();
        let mut own = InspectionServiceClient::new(own).max_encoding_message_size(64 << 20);
        let mut other = InspectionServiceClient::new(other).max_encoding_message_size(64 << 20);
        let decided = own.inspect(part(1)).await.unwrap().into_inner();
        let status = other.inspect(part(2)).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).as_str()), (Code::PermissionDenied, "station"), "{status}");
        let frames = tokio_stream::iter([
            part(2),
            pb::InspectRequest { station: "station-2".into(), camera: "cam-2".into(), ..request(3, simulated_png(3)) },
        ]);
        let mut answers = other.inspect_stream(frames).await.unwrap().into_inner();
        let mut outcomes = Vec::new();
        while let Some(answer) = answers.message().await.unwrap() {
            use pb::inspect_stream_response::Outcome;
            outcomes.push(match answer.outcome.unwrap() {
                Outcome::Refused(refused) => format!("{} {} {}", answer.frame_id, refused.code, refused.reason),
                Outcome::Decided(_) => format!("{} decided", answer.frame_id),
            });
        }
        outcomes.sort();
        assert_eq!(outcomes, [format!("f2 {} station", Code::PermissionDenied as i32), "f3 decided".to_owned()]);
        let close = pb::ClosePeriodRequest {
            line: "line-1".into(),
            station: "station-1".into(),
            camera: "cam-1".into(),
            period: "early".into(),
            first_counter: Some(1),
            last_counter: 1,
            ..pb::ClosePeriodRequest::default()
        };
        assert_eq!(other.close_period(close.clone()).await.unwrap_err().code(), Code::PermissionDenied);
        assert!(
            own.close_period(close).await.unwrap().into_inner().complete,
            "the other's frame is no gap of this one"
        );
        assert!(decided.entry_index > 0);
        // At the office a line PC has nothing to look for.
        let office = connect(&service.office, &pem, &pem.client).await.unwrap();
        let asked = HistoryServiceClient::new(office).list_decisions(pb::ListDecisionsRequest::default()).await;
        assert_eq!(asked.unwrap_err().code(), Code::PermissionDenied);
    });
    assert_eq!(service.stop().code, Some(0));
    assert!(entries(&plant.data(), "gap").is_empty(), "what a stranger says is no gap of the line");
    let refused = access_entries(&plant);
    assert!(refused.iter().any(|entry| entry["event"] == "refused" && entry["reason"] == "station"));
}

#[test]
fn an_auditor_sees_the_customers_and_periods_that_are_granted() {
    let plant = Plant::new();
    let pem = plant.demand_tls();
    let grant = |name: &str, more: &str| {
        format!("[[access.grant]]\nname = \"spiffe://plant.example/person/{name}\"\nroles = [\"auditor\"]\n{more}\n\n")
    };
    let grants = grant("audrey", "customers = [\"oem-a\"]")
        + &grant("past", "customers = [\"oem-a\"]\nto = \"2020-12-31\"")
        + &grant("none", "");
    plant.edit_config("# customer = \"oem-a\"", "customer = \"oem-a\"");
    let other = "[[product]]\nproduct = \"other-part\"\ncustomer = \"oem-b\"\nrecipe = \"machined-surface@1.1.0\"\n\n";
    plant.edit_config(
        "[[product]]\nproduct = \"demo-part\"",
        &format!("{grants}{other}[[product]]\nproduct = \"demo-part\""),
    );
    let service = plant.serve();
    block_on(async {
        let line = connect(&service.address, &pem, &pem.client).await.unwrap();
        let mut line = InspectionServiceClient::new(line).max_encoding_message_size(64 << 20);
        let ours = line.inspect(part(1)).await.unwrap().into_inner();
        let theirs = pb::InspectRequest { product: "other-part".into(), ..request(2, simulated_png(2)) };
        let theirs = line.inspect(theirs).await.unwrap().into_inner();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let mut office = Vec::new();
        for (serial, name) in (30..).zip(["audrey", "past", "none", "quinn"]) {
            let unit = if name == "quinn" { "qa" } else { "guests" };
            let certificate = pem.authority.client(&format!("spiffe://plant.example/person/{name}"), unit, serial);
            office.push(connect(&service.office, &pem, &certificate).await.unwrap());
        }
        let history = |who: usize| HistoryServiceClient::new(office[who].clone());
        let audit = |who: usize| AuditServiceClient::new(office[who].clone()).max_decoding_message_size(64 << 20);
        let rows = async |who: usize, product: &str| {
            let filter = pb::DecisionFilter { product: product.into(), ..pb::DecisionFilter::default() };
            let list = pb::ListDecisionsRequest { filter: Some(filter), ..pb::ListDecisionsRequest::default() };
            let page = history(who).list_decisions(list).await;
            page.map(|page| page.into_inner().decisions.iter().map(|row| row.entry_index).collect::<Vec<_>>())
        };
        assert_eq!(rows(3, "").await.unwrap().len(), 2, "the plant's own QA sees all");
        assert_eq!(rows(0, "").await.unwrap(), [ours.entry_index]);
        assert_eq!(rows(0, "demo-part").await.unwrap(), [ours.entry_index]);
        for (who, product) in [(0, "other-part"), (2, ""), (2, "demo-part")] {
            let status = rows(who, product).await.unwrap_err();
            assert_eq!((status.code(), reason(&status).as_str()), (Code::PermissionDenied, "scope"), "{status}");
        }
        assert_eq!(rows(1, "").await.unwrap(), [0; 0], "a period that is over holds nothing of today");
        let count = pb::CountDecisionsRequest::default();
        let counted = history(0).count_decisions(count.clone()).await.unwrap().into_inner();
        assert_eq!(counted.ok + counted.not_ok + counted.not_decidable, 1);
        let decision = async |who: usize, index: u64| {
            let by = Some(pb::get_decision_request::By::EntryIndex(index));
            history(who).get_decision(pb::GetDecisionRequest { by }).await.map_err(|status| status.code())
        };
        assert!(decision(0, ours.entry_index).await.is_ok());
        assert_eq!(decision(0, theirs.entry_index).await.unwrap_err(), Code::NotFound);
        let passport = async |who: usize, of: pb::get_passport_request::Of| {
            let answer = audit(who).get_passport(pb::GetPassportRequest { of: Some(of) }).await;
            answer.map(|answer| answer.into_inner().passports.len()).map_err(|status| status.code())
        };
        use pb::get_passport_request::Of;
        assert_eq!(passport(0, Of::EntryIndex(ours.entry_index)).await, Ok(1));
        assert_eq!(passport(0, Of::EntryIndex(theirs.entry_index)).await, Err(Code::PermissionDenied));
        assert_eq!(passport(0, Of::EntryIndex(0)).await, Err(Code::PermissionDenied), "not the plant's own entries");
        assert_eq!(passport(0, Of::Serial("SN-00001".into())).await, Ok(1));
        assert_eq!(passport(0, Of::Serial("SN-00002".into())).await, Err(Code::NotFound));
        assert_eq!(passport(3, Of::Serial("SN-00002".into())).await, Ok(1));
        let export = async |who: usize| {
            let mut answer = audit(who).export(pb::ExportRequest::default()).await?.into_inner();
            let mut bytes = Vec::new();
            while let Some(chunk) = answer.message().await? {
                bytes.extend_from_slice(&chunk.data);
            }
            Ok::<_, Status>(bytes)
        };
        assert_eq!(export(2).await.unwrap_err().code(), Code::PermissionDenied);
        let archive = export(0).await.unwrap();
        let mut archive = zip::ZipArchive::new(std::io::Cursor::new(archive)).unwrap();
        let mut text = String::new();
        for at in 0..archive.len() {
            let mut file = archive.by_index(at).unwrap();
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut file, &mut bytes).unwrap();
            text += &String::from_utf8_lossy(&bytes);
        }
        assert!(text.contains("SN-00001") && !text.contains("SN-00002") && !text.contains("other-part"));
    });
    assert_eq!(service.stop().code, Some(0));
}

#[test]
fn certificates_change_and_are_revoked_while_the_service_runs() {
    let plant = Plant::new();
    let pem = plant.demand_tls();
    let service = plant.serve();
    let tls = plant.data().join("tls");
    block_on(async {
        let bad = pem.authority.client("spiffe://plant.example/station/line-1/station-1", "line", 77);
        let channel = connect(&service.address, &pem, &bad).await.unwrap();
        let mut revoked = InspectionServiceClient::new(channel).max_encoding_message_size(64 << 20);
        let channel = connect(&service.address, &pem, &pem.client).await.unwrap();
        let mut good = InspectionServiceClient::new(channel).max_encoding_message_size(64 << 20);
        revoked.inspect(part(1)).await.unwrap();
        std::fs::write(tls.join("clients.crl"), pem.authority.revoked(&[77])).unwrap();
        let since = Instant::now();
        let mut number = 2;
        // The connection that was open ends, too.
        while revoked.inspect(part(number)).await.is_ok() {
            assert!(since.elapsed() < SEEN_MAX, "a revoked certificate is still good");
            number += 1;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let again = match connect(&service.address, &pem, &bad).await {
            Ok(channel) => InspectionServiceClient::new(channel).inspect(part(number)).await.is_ok(),
            Err(_) => false,
        };
        assert!(!again, "and no new one is let in");
        good.inspect(part(number + 1)).await.expect("others go on");

        let (certificate, key) = pem.authority.server();
        std::fs::write(tls.join("server.key"), key).unwrap();
        std::fs::write(tls.join("server.pem"), &certificate).unwrap();
        let expected = rustls_pem(&certificate);
        let since = Instant::now();
        while shown(&service.address, &pem).await != expected {
            assert!(since.elapsed() < SEEN_MAX, "the new certificate is not shown");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        good.inspect(part(number + 2)).await.expect("an open connection goes on");
    });
    let ended = service.stop();
    assert_eq!(ended.code, Some(0));
    let entries = access_entries(&plant);
    let changes = entries.iter().filter(|entry| entry["event"] == "configured" && entry["reason"] == "certificates");
    assert!(changes.count() >= 2, "both changes, at the listeners that saw them");
}

fn rustls_pem(pem: &str) -> Vec<u8> {
    use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject as _};
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

/// The certificate that a server shows.
async fn shown(address: &str, pem: &ClientPem) -> Vec<u8> {
    use tokio_rustls::rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.authority.pem.as_bytes()).unwrap()).unwrap();
    let provider = std::sync::Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(pem.client.0.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(pem.client.1.as_bytes()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

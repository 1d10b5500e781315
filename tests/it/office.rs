//! Commands on the server, while the service runs behind TLS.

use lineproof::edge::pb::inspection_service_client::InspectionServiceClient;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

use crate::harness::{Plant, block_on, part, text};

#[test]
fn a_service_behind_tls_refuses_strangers_and_still_answers_commands_on_its_data_directory() {
    let plant = Plant::new();
    let pem = plant.demand_tls();
    let service = plant.serve();
    let port = service.address.rsplit(':').next().unwrap();
    block_on(async {
        let connect = async |tls: ClientTlsConfig| {
            let endpoint = Endpoint::from_shared(format!("https://localhost:{port}")).unwrap();
            let channel = endpoint.tls_config(tls.ca_certificate(Certificate::from_pem(&pem.authority.pem))).unwrap();
            InspectionServiceClient::new(channel.connect().await?).inspect(part(1)).await.map_err(anyhow::Error::from)
        };
        let known = ClientTlsConfig::new().identity(Identity::from_pem(&pem.client.0, &pem.client.1));
        let answer = connect(known).await.expect("a client with a certificate of the authority gets a verdict");
        assert!(!answer.into_inner().duplicate);
        assert!(connect(ClientTlsConfig::new()).await.is_err(), "a client without a certificate gets none");
        let plain = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
        let plain = async {
            InspectionServiceClient::new(plain.connect().await?).inspect(part(2)).await.map_err(anyhow::Error::from)
        };
        assert!(plain.await.is_err(), "a client without TLS gets none");
    });
    // The index follows the checkpoint within a second.
    let found = (0..100).find_map(|_| {
        let output = plant.run(&["show", "line-1/cam-1/f1"]);
        output.status.success().then(|| text(&output))
    });
    let shown = found.expect("the decision is shown while the service runs");
    assert!(shown.contains("SN-00001"), "{shown}");
    let output = plant.run(&["passport", "SN-00001"]);
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(service.stop().code, Some(0));
    assert!(!plant.data().join("office.sock").exists(), "a stopped data directory is plain files");
    let output = plant.run(&["show", "line-1/cam-1/f1"]);
    assert!(output.status.success(), "{}", text(&output));
}

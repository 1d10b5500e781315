//! Line and office are two listeners with two sets of methods; whatever is not named for one is not there.

use lineproof::edge::{methods, pb};
use prost::Message as _;
use tonic::{Code, transport::Channel};
use tonic_prost::ProstCodec;

use crate::harness::{Plant, block_on};

/// Every method of every service, as a path.
fn methods_of_all() -> Vec<(String, String)> {
    let ours = prost_types::FileDescriptorSet::decode(pb::DESCRIPTORS).unwrap();
    let health = prost_types::FileDescriptorSet::decode(tonic_health::pb::FILE_DESCRIPTOR_SET).unwrap();
    let mut methods = Vec::new();
    for file in ours.file.into_iter().chain(health.file) {
        for service in &file.service {
            let name = format!("{}.{}", file.package(), service.name());
            let paths = service.method.iter().map(|method| format!("/{name}/{}", method.name()));
            methods.extend(paths.map(|path| (name.clone(), path)));
        }
    }
    methods
}

/// How a listener answers an empty message to a method; none while it goes on answering.
async fn answer(channel: &Channel, path: &str) -> Option<Code> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.expect("the listener is there");
    let request = tonic::Request::new(tokio_stream::once(()));
    let path = path.parse().expect("a path");
    match client.streaming(request, path, ProstCodec::<(), ()>::default()).await {
        Err(status) => Some(status.code()),
        Ok(answers) => {
            let mut answers = answers.into_inner();
            // A watch answers for ever: its first message is enough.
            answers.message().await.err().map(|status| status.code())
        }
    }
}

#[test]
fn every_method_is_where_the_table_says_and_nowhere_else() {
    let plant = Plant::new();
    let service = plant.serve();
    block_on(async {
        let (line, office) = (service.channel().await, service.office_channel().await);
        let all = methods_of_all();
        assert!(all.len() > 30, "{all:?}");
        for (name, path) in &all {
            for (zone, channel) in [(methods::Zone::Line, &line), (methods::Zone::Office, &office)] {
                let is_there = answer(channel, path).await != Some(Code::Unimplemented);
                let is_served = methods::services(zone).contains(&name.as_str());
                assert_eq!(is_there, is_served, "{path} on the listener {zone:?}");
            }
        }
    });
    assert_eq!(service.stop().code, Some(0));
}

#[test]
fn without_an_office_there_is_no_port_for_it_and_commands_still_work() {
    let plant = Plant::new();
    plant.edit_config("[office]\naddress = \"127.0.0.1:0\"\n", "");
    let service = plant.serve();
    assert_eq!(service.office, "");
    assert!(plant.run(&["history"]).status.success());
    assert_eq!(service.stop().code, Some(0));

    let plant = Plant::new();
    plant.edit_config("[office]\naddress = \"127.0.0.1:0\"", "[office]\naddress = \"0.0.0.0:7444\"");
    let Err(ended) = plant.try_serve() else { panic!("the office's port is open to the network in plain text") };
    assert!(ended.log.contains("office.address") && ended.log.contains("client_ca"), "{}", ended.log);
}

//! What knowing who asks costs: frames over mutual TLS with roles and a station's binding, against the same in plain text.
//!
//! `cargo bench --bench access -- --rounds 7 --seconds 4`; `--before PATH` compares a third service with them, of another
//! build, in plain text: an earlier release that asked nobody.
//!
//! Each service decides the same JPEG frames of 1280x1024 for four clients, one after the other in every round. Frames a second
//! say what a line gets; the processor time of the service's process for a frame is steadier on a machine that others use.

#[path = "../tests/it/harness.rs"]
#[allow(dead_code)]
mod harness;
mod measure;

use std::time::{Duration, Instant};

use harness::{Plant, Service, encode};
use lineproof::{
    core::simulate::{Simulator, SimulatorConfig},
    edge::pb::inspection_service_client::InspectionServiceClient,
};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

const CLIENTS: u64 = 4;

/// A service under load.
struct Measured {
    name: &'static str,
    service: Service,
    channel: Channel,
    /// Frames a second, and milliseconds of processor time a frame, of each round.
    rounds: Vec<(f64, f64)>,
    number: u64,
    _plant: Plant,
}

fn main() {
    let rounds = measure::argument("--rounds", 7);
    let seconds = measure::argument("--seconds", 4);
    let before = std::env::args().skip_while(|argument| argument != "--before").nth(1);
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let jpegs = jpegs();
    let mut all = vec![client.block_on(plain("plain text", None)), client.block_on(mutual_tls())];
    if let Some(path) = &before {
        all.push(client.block_on(plain("before, plain text", Some(path))));
    }
    for _ in 0..rounds {
        for measured in &mut all {
            client.block_on(measured.round(&jpegs, Duration::from_secs(seconds)));
        }
    }
    let base = all[0].median();
    for measured in all {
        let (rate, cpu_ms) = measured.median();
        println!(
            "{}: {rate:.1} frames a second, {cpu_ms:.2} ms of processor a frame; {:.3} and {:.3} of plain text",
            measured.name,
            rate / base.0,
            cpu_ms / base.1
        );
        assert_eq!(measured.service.stop().code, Some(0));
    }
}

async fn plain(name: &'static str, binary: Option<&str>) -> Measured {
    let plant = Plant::new();
    let mut command = binary.map_or_else(harness::lineproof, std::process::Command::new);
    let service = Service::spawn(command.arg("serve").arg("--data").arg(plant.data()));
    let service = service.unwrap_or_else(|ended| panic!("the service ended: {}", ended.log));
    let channel = service.channel().await;
    Measured { name, service, channel, rounds: Vec::new(), number: 0, _plant: plant }
}

async fn mutual_tls() -> Measured {
    let plant = Plant::new();
    let pem = plant.demand_tls();
    let service = plant.serve();
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&pem.authority.pem))
        .domain_name("localhost")
        .identity(Identity::from_pem(&pem.client.0, &pem.client.1));
    let endpoint = Endpoint::from_shared(format!("https://{}", service.address)).expect("an address");
    let channel = endpoint.tls_config(tls).expect("certificates").connect().await.expect("the service lets it in");
    Measured { name: "mutual TLS", service, channel, rounds: Vec::new(), number: 0, _plant: plant }
}

impl Measured {
    async fn round(&mut self, jpegs: &[Vec<u8>], time: Duration) {
        let (cpu, started) = (cpu_ms(self.service.child.id()), Instant::now());
        let first = self.number;
        let (next, channel) = (std::cell::Cell::new(first), &self.channel);
        let one = || async {
            let mut client = InspectionServiceClient::new(channel.clone()).max_encoding_message_size(64 << 20);
            while started.elapsed() < time {
                let number = next.get() + 1;
                next.set(number);
                let image = jpegs[number as usize % jpegs.len()].clone();
                client.inspect(harness::request(number, image)).await.expect("a verdict");
            }
        };
        let clients: Vec<_> = (0..CLIENTS).map(|_| Box::pin(one())).collect();
        join(clients).await;
        self.number = next.get();
        let frames = (self.number - first) as f64;
        self.rounds.push((frames / started.elapsed().as_secs_f64(), (cpu_ms(self.service.child.id()) - cpu) / frames));
    }

    fn median(&self) -> (f64, f64) {
        let of = |value: fn(&(f64, f64)) -> f64| measure::median(&self.rounds.iter().map(value).collect::<Vec<_>>());
        (of(|round| round.0), of(|round| round.1))
    }
}

/// Waits for all of them on this one thread.
async fn join<T>(mut futures: Vec<std::pin::Pin<Box<impl Future<Output = T>>>>) -> Vec<T> {
    let mut results: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, result) in futures.iter_mut().zip(&mut results) {
            if result.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *result = Some(value);
            }
        }
        if results.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    results.into_iter().flatten().collect()
}

fn cpu_ms(pid: u32) -> f64 {
    measure::ms(measure::cpu_time(pid))
}

fn jpegs() -> Vec<Vec<u8>> {
    let config = SimulatorConfig { seed: 7, width_px: 1280, height_px: 1024, ..SimulatorConfig::default() };
    let simulator = Simulator::new(config).expect("the configuration is fine");
    let parts = (0..32).map(|number| simulator.part(number));
    parts.map(|part| encode(&part.frame, part.width_px, part.height_px, image::ImageFormat::Jpeg)).collect()
}

//! Who can be asked where: the line's listener, the office's, and the operator's socket. Their method sets are `edge/methods.rs`.
//!
//! The line's listener takes frames and nothing else; the office's answers questions and has no method that could return a pixel.
//! They share no port, so that a plant can put them into different networks.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context as _;
use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinHandle,
};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{
    Certificate, Identity, ServerTlsConfig,
    server::{Router, TcpIncoming},
};

use super::{Inspecting, Server, origin_defaults};
use crate::{
    app::{config::Tls, health},
    edge::{
        audit::AuditEdge,
        history::HistoryEdge,
        inspection::{InspectionEdge, InspectionLimits},
        methods,
        open_inference::{
            OpenInferenceEdge, pb::grpc_inference_service_server::GrpcInferenceServiceServer as OpenInferenceServer,
        },
        pb::{
            self, audit_service_server::AuditServiceServer, history_service_server::HistoryServiceServer,
            inspection_service_server::InspectionServiceServer, registry_service_server::RegistryServiceServer,
            replay_service_server::ReplayServiceServer, retention_service_server::RetentionServiceServer,
        },
        registry::RegistryEdge,
        replay::ReplayEdge,
        retention::RetentionEdge,
    },
};

/// What a message may take beside the frame's bytes.
const MESSAGE_OVERHEAD_BYTES: usize = 64 << 10;
/// Longest request of the services that take no frames.
const SMALL_REQUEST_BYTES_MAX: usize = 1 << 20;
/// HTTP/2 streams one connection may have open.
const STREAMS_PER_CONNECTION_MAX: u32 = 1024;
/// Longest HTTP/2 frame in bytes: an image comes in a few pieces, not in one for every 16 KiB.
const HTTP2_FRAME_BYTES_MAX: u32 = 1 << 20;
/// Longest header list in bytes.
const HEADER_BYTES_MAX: u32 = 16 << 10;

/// Where a running service can be asked.
pub struct Listeners {
    pub line: TcpListener,
    /// Unset: the office has only the operator's socket.
    pub office: Option<TcpListener>,
    /// Unset where the file system has no sockets.
    pub socket: Option<UnixListener>,
}

/// Something served beside the line.
pub(super) struct Side {
    pub name: &'static str,
    pub task: JoinHandle<()>,
}

impl Server {
    /// Frames in, verdicts out, and health.
    pub(super) async fn line_router(
        &self,
        inspecting: &Inspecting,
        stopper: &CancellationToken,
    ) -> anyhow::Result<(Router, JoinHandle<()>)> {
        let Inspecting { inspect, periods, parts } = inspecting;
        let frame_bytes_max = self.config.inspect.frame_bytes_max;
        let limits = InspectionLimits {
            frame_bytes_max,
            stream_frames_max: self.config.inspect.stream_frames_max,
            useful_for: Duration::from_millis(self.config.inspect.useful_for_ms),
        };
        let message_bytes_max = frame_bytes_max + MESSAGE_OVERHEAD_BYTES;
        let (reporter, health_service) = tonic_health::server::health_reporter();
        reporter.set_serving::<InspectionServiceServer<InspectionEdge>>().await;
        health::report(&reporter, &inspect.handle()).await;
        let following = tokio::spawn(health::follow(reporter, inspect.handle()));
        let edge = InspectionEdge::new(inspect.handle(), periods.clone(), parts.handle(), limits, stopper.clone());
        let inspection = InspectionServiceServer::new(edge).max_decoding_message_size(message_bytes_max);
        let open_inference = self.config.open_inference.served.then(|| {
            let edge = OpenInferenceEdge::new(inspect.handle(), origin_defaults(&self.config), limits, stopper.clone());
            OpenInferenceServer::new(edge).max_decoding_message_size(message_bytes_max)
        });
        let router = builder(self.config.listen.tls.as_ref())?
            .add_service(health_service)
            .add_service(reflection(methods::LINE)?)
            .add_service(inspection)
            .add_optional_service(open_inference);
        Ok((router, following))
    }

    /// Questions and proofs for those who are let into the office's network.
    pub(super) async fn serve_office(&self, listener: TcpListener, stopper: CancellationToken) -> anyhow::Result<Side> {
        let (reporter, health_service) = tonic_health::server::health_reporter();
        let (history, audit) = self.questions();
        reporter.set_serving::<HistoryServiceServer<HistoryEdge>>().await;
        reporter.set_serving::<AuditServiceServer<AuditEdge>>().await;
        let router = builder(self.config.office.tls.as_ref())?
            .add_service(health_service)
            .add_service(reflection(methods::OFFICE)?)
            .add_service(history)
            .add_service(audit);
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let serve = async move { router.serve_with_incoming_shutdown(incoming, stopper.cancelled_owned()).await };
        Ok(Side { name: "the office's listener", task: tokio::spawn(said("the office's listener", serve)) })
    }

    /// The operator's socket, on a task of its own.
    pub(super) fn serve_socket(&self, listener: UnixListener, stopper: CancellationToken) -> Side {
        let router = self.operator_router(tonic::transport::Server::builder(), &stopper);
        let incoming = UnixListenerStream::new(listener);
        let serve = async move { router.serve_with_incoming_shutdown(incoming, stopper.cancelled_owned()).await };
        Side { name: "the operator's socket", task: tokio::spawn(said("the operator's socket", serve)) }
    }

    /// Everything that those may ask who may use the data directory itself.
    pub(super) fn operator_router(&self, mut builder: tonic::transport::Server, stopper: &CancellationToken) -> Router {
        let (history, audit) = self.questions();
        let retention = RetentionServiceServer::new(RetentionEdge::new(self.retention.clone()));
        let replay = ReplayServiceServer::new(ReplayEdge::new(self.replay.clone(), stopper.clone()));
        let registry = RegistryServiceServer::new(RegistryEdge::new(self.registry.clone()));
        builder
            .add_service(history)
            .add_service(audit)
            .add_service(retention.max_decoding_message_size(SMALL_REQUEST_BYTES_MAX))
            .add_service(replay.max_decoding_message_size(SMALL_REQUEST_BYTES_MAX))
            .add_service(registry.max_decoding_message_size(SMALL_REQUEST_BYTES_MAX))
    }

    fn questions(&self) -> (HistoryServiceServer<HistoryEdge>, AuditServiceServer<AuditEdge>) {
        let history = HistoryServiceServer::new(HistoryEdge::new(self.history.clone()));
        let audit = AuditServiceServer::new(AuditEdge::new(self.audit.clone()));
        (
            history.max_decoding_message_size(SMALL_REQUEST_BYTES_MAX),
            audit.max_decoding_message_size(SMALL_REQUEST_BYTES_MAX),
        )
    }
}

/// Says when what is served beside the line ends with an error; the line goes on.
async fn said(name: &'static str, serve: impl Future<Output = Result<(), tonic::transport::Error>>) {
    if let Err(error) = serve.await {
        tracing::error!(name, %error, "a listener failed; who asks there finds no service until a restart");
    }
}

/// A server with the limits of a network.
fn builder(tls: Option<&Tls>) -> anyhow::Result<tonic::transport::Server> {
    let builder = tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .initial_stream_window_size(Some(4 << 20))
        .initial_connection_window_size(Some(16 << 20))
        .max_frame_size(Some(HTTP2_FRAME_BYTES_MAX));
    match tls {
        None => Ok(builder),
        Some(tls) => builder.tls_config(tls_config(tls)?).context("TLS configuration"),
    }
}

/// Reflection of the services that a listener has.
fn reflection(
    services: &[&str],
) -> anyhow::Result<
    tonic_reflection::server::v1::ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection + use<>>,
> {
    let mut builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    for service in services {
        builder = builder.with_service_name(*service);
    }
    Ok(builder.build_v1()?)
}

fn tls_config(tls: &Tls) -> anyhow::Result<ServerTlsConfig> {
    let read = |path: &PathBuf| std::fs::read(path).with_context(|| path.display().to_string());
    let mut config = ServerTlsConfig::new().identity(Identity::from_pem(read(&tls.certificate)?, read(&tls.key)?));
    if let Some(ca) = &tls.client_ca {
        config = config.client_ca_root(Certificate::from_pem(read(ca)?));
    }
    Ok(config)
}

/// Listens at `address`, which `key` of the configuration names.
///
/// # Errors
/// With the address and what to do.
pub async fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address}; is another service there? `{key}` in lineproof.toml chooses another port")
    })
}

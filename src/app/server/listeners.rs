//! Who can be asked where: the line's listener, the office's, and the operator's socket. Their method sets are `edge/methods.rs`.
//!
//! The line's listener takes frames and nothing else; the office's answers questions and has no method that could return a pixel.
//! They share no port, so that a plant can put them into different networks.

use std::{net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    net::{TcpListener, UnixListener},
    task::JoinHandle,
};
use tokio_stream::{Stream, StreamExt as _, wrappers::UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::{
    Inspecting, Server,
    accept::{Acceptor, Connection},
    origin_defaults,
};
use crate::{
    app::{
        config::{Connections, Tls},
        health,
        tls::live::LiveTls,
    },
    core::{access::Identity, lineage::entry::AccessEvent},
    edge::{
        access::Gate,
        audit::AuditEdge,
        history::HistoryEdge,
        inspection::{InspectionEdge, InspectionLimits},
        methods::{self, Zone},
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
    services::access::Note,
    types::{Role, Roles},
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

/// A listener at work, until it is told to end.
pub(super) type Serving = Pin<Box<dyn Future<Output = Result<(), tonic::transport::Error>> + Send>>;

/// Something served beside the line.
pub(super) struct Side {
    pub name: &'static str,
    pub task: JoinHandle<()>,
}

impl Server {
    /// Frames in, verdicts out, and health; until `ending` ends.
    pub(super) async fn serve_line(
        &self,
        listener: TcpListener,
        inspecting: &Inspecting,
        stopper: &CancellationToken,
        ending: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<(Serving, JoinHandle<()>)> {
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
        let mut routes = Routes::new(health_service).add_service(reflection(Zone::Line)?).add_service(inspection);
        if self.config.open_inference.served {
            let edge = OpenInferenceEdge::new(inspect.handle(), origin_defaults(&self.config), limits, stopper.clone());
            routes = routes.add_service(OpenInferenceServer::new(edge).max_decoding_message_size(message_bytes_max));
        }
        let listen = &self.config.listen;
        let local = Identity::local(Roles::of(&[Role::Line]));
        let gate = self.gate(Zone::Line, listen.tls.as_ref(), local);
        let incoming = self.accept(listener, "listen.tls", listen.tls.as_ref(), listen.connections(), stopper)?;
        let serving = builder().layer(gate).add_routes(routes).serve_with_incoming_shutdown(incoming, ending);
        Ok((Box::pin(serving), following))
    }

    /// Questions, proofs and releases for those who are let into the office's network.
    pub(super) async fn serve_office(&self, listener: TcpListener, stopper: CancellationToken) -> anyhow::Result<Side> {
        let (reporter, health_service) = tonic_health::server::health_reporter();
        reporter.set_serving::<HistoryServiceServer<HistoryEdge>>().await;
        reporter.set_serving::<AuditServiceServer<AuditEdge>>().await;
        let routes = Routes::new(health_service).add_service(reflection(Zone::Office)?);
        let routes = self.office_services(routes, &stopper);
        let office = &self.config.office;
        // On this machine, without certificates: reading, and nothing that changes anything.
        let local = Identity::local(Roles::of(&[Role::Auditor, Role::Reviewer]));
        let gate = self.gate(Zone::Office, office.tls.as_ref(), local);
        let incoming = self.accept(listener, "office.tls", office.tls.as_ref(), office.connections(), &stopper)?;
        let router = builder().layer(gate).add_routes(routes);
        let serve = async move { router.serve_with_incoming_shutdown(incoming, stopper.cancelled_owned()).await };
        Ok(Side { name: "the office's listener", task: tokio::spawn(said("the office's listener", serve)) })
    }

    /// The operator's socket, on a task of its own.
    pub(super) async fn serve_socket(&self, listener: UnixListener, stopper: CancellationToken) -> Side {
        let incoming = UnixListenerStream::new(listener).map(|stream| stream.map(Connection::unix));
        let serve = self.serve_operator(incoming, &stopper, stopper.clone().cancelled_owned()).await;
        Side { name: "the operator's socket", task: tokio::spawn(said("the operator's socket", serve)) }
    }

    /// Everything that those may ask who may use the data directory itself.
    pub(super) async fn serve_operator(
        &self,
        incoming: impl Stream<Item = std::io::Result<Connection>> + Send + 'static,
        stopper: &CancellationToken,
        ending: impl Future<Output = ()> + Send + 'static,
    ) -> Serving {
        let (reporter, health_service) = tonic_health::server::health_reporter();
        reporter.set_serving::<HistoryServiceServer<HistoryEdge>>().await;
        let routes = self.office_services(Routes::new(health_service), stopper);
        let gate = Gate { local: None, ..self.gate(Zone::Operator, None, Identity::local(Roles::NONE)) };
        let router = tonic::transport::Server::builder().layer(gate).add_routes(routes);
        let incoming = Box::pin(incoming);
        Box::pin(router.serve_with_incoming_shutdown(incoming, ending))
    }

    fn office_services(&self, routes: Routes, stopper: &CancellationToken) -> Routes {
        let history = HistoryServiceServer::new(HistoryEdge::new(self.history.clone()));
        let audit = AuditServiceServer::new(AuditEdge::new(self.audit.clone()));
        let retention = RetentionServiceServer::new(RetentionEdge::new(self.retention.clone()));
        let replay = ReplayServiceServer::new(ReplayEdge::new(self.replay.clone(), stopper.clone()));
        let registry = RegistryServiceServer::new(RegistryEdge::new(self.registry.clone()));
        routes
            .add_service(history.max_decoding_message_size(SMALL_REQUEST_BYTES_MAX))
            .add_service(audit.max_decoding_message_size(SMALL_REQUEST_BYTES_MAX))
            .add_service(retention.max_decoding_message_size(SMALL_REQUEST_BYTES_MAX))
            .add_service(replay.max_decoding_message_size(SMALL_REQUEST_BYTES_MAX))
            .add_service(registry.max_decoding_message_size(SMALL_REQUEST_BYTES_MAX))
    }

    /// The gate of a zone; `local` is who comes where nobody is asked for a certificate.
    fn gate(&self, zone: Zone, tls: Option<&Tls>, local: Identity) -> Gate {
        let tokens = self.tokens.clone().filter(|_| zone == Zone::Office);
        let asks = tls.is_some_and(|tls| tls.client_ca.is_some()) || tokens.is_some();
        let local = (!asks).then(|| Arc::new(local));
        Gate { zone, local, tokens, grants: self.grants.clone(), journal: self.journal.clone() }
    }

    /// The connections of a listener, with certificates that are read again when they change.
    fn accept(
        &self,
        listener: TcpListener,
        key: &'static str,
        tls: Option<&Tls>,
        limits: Connections,
        stopper: &CancellationToken,
    ) -> anyhow::Result<impl Stream<Item = std::io::Result<Connection>> + Send + use<>> {
        // Who comes with a token needs no certificate.
        let is_optional = key == "office.tls" && self.tokens.is_some();
        let tls = tls.map(|tls| LiveTls::load(key, tls, is_optional)).transpose()?.map(Arc::new);
        if let Some(live) = &tls {
            let journal = self.journal.clone();
            let changed = move |digest: &crate::types::Blake3Digest| {
                let (object, reason) = (Some(digest.to_string()), Some("certificates"));
                journal.refused(Note { object, reason, ..Note::new(AccessEvent::Configured) });
            };
            tokio::spawn(live.clone().watch(stopper.clone(), changed));
        }
        let (grants, journal) = (self.grants.clone(), self.journal.clone());
        Ok(Acceptor { tls, limits, grants, journal }.incoming(listener))
    }
}

/// Says when what is served beside the line ends with an error; the line goes on.
async fn said(name: &'static str, serve: impl Future<Output = Result<(), tonic::transport::Error>>) {
    if let Err(error) = serve.await {
        tracing::error!(name, %error, "a listener failed; who asks there finds no service until a restart");
    }
}

/// A server with the limits of a network.
fn builder() -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .initial_stream_window_size(Some(4 << 20))
        .initial_connection_window_size(Some(16 << 20))
        .max_frame_size(Some(HTTP2_FRAME_BYTES_MAX))
}

/// Reflection of the services that a zone has.
fn reflection(
    zone: Zone,
) -> anyhow::Result<
    tonic_reflection::server::v1::ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection + use<>>,
> {
    let mut builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
    for service in methods::services(zone).into_iter().filter(|service| !service.starts_with("grpc.reflection.")) {
        builder = builder.with_service_name(service);
    }
    Ok(builder.build_v1()?)
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

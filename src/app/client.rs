//! How commands reach the service: through the operator's socket if it runs, else in this process on the same data
//! directory.

use std::{io, path::Path, sync::Mutex};

use anyhow::Context as _;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Uri};

use super::{
    config::Config,
    server::{Role, Server},
    socket,
};
use crate::edge::pb::{
    audit_service_client::AuditServiceClient, history_service_client::HistoryServiceClient,
    registry_service_client::RegistryServiceClient, replay_service_client::ReplayServiceClient,
    retention_service_client::RetentionServiceClient,
};

/// Longest answer a command takes: a page of 500 entries of 8 KiB with their rows.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Bytes of the pipe to a service in this process.
const PIPE_BYTES: usize = 1 << 20;

/// The office side of the service of one data directory.
pub struct Office {
    channel: Channel,
    /// The service in this process, if none was running.
    own: Option<(CancellationToken, JoinHandle<anyhow::Result<()>>)>,
}

impl Office {
    /// Reaches the service that runs on the data directory, or opens it in this process.
    ///
    /// # Errors
    /// When neither works.
    pub async fn of(data_dir: &Path) -> anyhow::Result<Self> {
        let config = Config::load(data_dir)?;
        let running = socket::connect(data_dir).await;
        let running = running.with_context(|| format!("asking the service that runs on {}", data_dir.display()))?;
        if let Some(stream) = running {
            return Ok(Self { channel: channel(stream).await?, own: None });
        }
        let (client, service) = tokio::io::duplex(PIPE_BYTES);
        let stopper = CancellationToken::new();
        let server = Server::open(config, data_dir, Role::Office)?;
        let serving = tokio::spawn(server.serve_in_process(service, stopper.clone()));
        Ok(Self { channel: channel(client).await?, own: Some((stopper, serving)) })
    }

    #[must_use]
    pub fn history(&self) -> HistoryServiceClient<Channel> {
        HistoryServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    #[must_use]
    pub fn audit(&self) -> AuditServiceClient<Channel> {
        AuditServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    #[must_use]
    pub fn retention(&self) -> RetentionServiceClient<Channel> {
        RetentionServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    #[must_use]
    pub fn replay(&self) -> ReplayServiceClient<Channel> {
        ReplayServiceClient::new(self.channel.clone())
    }

    #[must_use]
    pub fn registry(&self) -> RegistryServiceClient<Channel> {
        RegistryServiceClient::new(self.channel.clone())
    }

    /// Ends a service of this process and waits until its log is checkpointed.
    ///
    /// # Errors
    /// When that service failed.
    pub async fn close(self) -> anyhow::Result<()> {
        let Some((stopper, serving)) = self.own else { return Ok(()) };
        drop(self.channel);
        stopper.cancel();
        serving.await?
    }
}

/// A channel over one connection, which is not made again when it ends.
async fn channel(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> anyhow::Result<Channel> {
    let stream = Mutex::new(Some(stream));
    let connector = tower::service_fn(move |_: Uri| {
        let stream = stream.lock().ok().and_then(|mut stream| stream.take());
        async move {
            let stream = stream.ok_or_else(|| io::Error::other("the service has ended"))?;
            Ok::<_, io::Error>(hyper_util::rt::TokioIo::new(stream))
        }
    });
    // The name is for the protocol's headers only.
    Ok(Endpoint::from_static("http://office.invalid").connect_with_connector(connector).await?)
}

/// Runs `work` against the office side of a data directory and closes what was opened.
///
/// # Errors
/// What `work` returns, or what kept the data directory from opening.
pub fn with_office<T>(data_dir: &Path, work: impl AsyncFnOnce(&Office) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let office = Office::of(data_dir).await?;
        let worked = work(&office).await;
        let closed = office.close().await.context("closing the data directory");
        let worked = worked?;
        closed?;
        Ok(worked)
    })
}

/// What the service said, in its own words.
#[must_use]
pub fn said(status: tonic::Status) -> anyhow::Error {
    anyhow::Error::msg(status.message().to_owned())
}

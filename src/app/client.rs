//! How commands reach the service: over the network if it runs, else in this process on the same data directory.

use std::{path::Path, sync::Mutex};

use anyhow::Context as _;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Uri};

use super::{
    config::Config,
    server::{Role, Server},
};
use crate::edge::pb::{audit_service_client::AuditServiceClient, history_service_client::HistoryServiceClient};

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
    /// Reaches the service that listens at the configured address, or opens the data directory in this process.
    ///
    /// # Errors
    /// When neither works.
    pub async fn of(data_dir: &Path) -> anyhow::Result<Self> {
        let config = Config::load(data_dir)?;
        if let Some(channel) = running(&config).await? {
            return Ok(Self { channel, own: None });
        }
        let (client, service) = tokio::io::duplex(PIPE_BYTES);
        let stopper = CancellationToken::new();
        let server = Server::open(config, data_dir, Role::Office)?;
        let serving = tokio::spawn(server.serve_in_process(service, stopper.clone()));
        let client = Mutex::new(Some(client));
        let connector = tower::service_fn(move |_: Uri| {
            let stream = client.lock().ok().and_then(|mut client| client.take());
            async move {
                let stream = stream.ok_or_else(|| std::io::Error::other("the service in this process has ended"))?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        });
        let channel = Endpoint::from_static("http://in-process.invalid").connect_with_connector(connector).await?;
        Ok(Self { channel, own: Some((stopper, serving)) })
    }

    #[must_use]
    pub fn history(&self) -> HistoryServiceClient<Channel> {
        HistoryServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    #[must_use]
    pub fn audit(&self) -> AuditServiceClient<Channel> {
        AuditServiceClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
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

/// A channel to the service if one listens at the configured address.
async fn running(config: &Config) -> anyhow::Result<Option<Channel>> {
    let address = config.listen.address;
    if config.listen.tls.is_none() {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
        return Ok(endpoint.connect().await.ok());
    }
    // A service with TLS is reached with certificates of its clients, which commands on the server do not have.
    match tokio::net::TcpStream::connect(address).await {
        Ok(_) => anyhow::bail!(
            "the service runs at {address} with TLS; commands on its data directory work while it is stopped, or use a gRPC client with a certificate"
        ),
        Err(_) => Ok(None),
    }
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

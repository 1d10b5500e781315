//! Takes connections: within limits, with a TLS handshake that may not dawdle, and with whoever is at the other end named
//! once for all their calls.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    net::{TcpListener, TcpStream, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Sleep,
};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use crate::{
    app::{
        config::Connections,
        tls::live::{LiveTls, now_s},
    },
    core::{
        access::{CertificateFacts, Grants, Identity},
        lineage::entry::AccessEvent,
    },
    edge::access::{Peer, Shown},
    services::access::{AccessJournal, Note},
};

/// Longest handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Longest silence before the first byte of a connection that could send at once.
const FIRST_BYTE_MAX: Duration = Duration::from_secs(10);
/// Accepted connections that may wait for the server.
const WAITING_MAX: usize = 16;
/// Pause after a failed accept: without descriptors it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How a listener takes connections.
pub(super) struct Acceptor {
    pub tls: Option<Arc<LiveTls>>,
    pub limits: Connections,
    pub grants: Arc<Grants>,
    pub journal: Arc<AccessJournal>,
}

impl Acceptor {
    /// The connections of a listener. Ends when the stream is dropped.
    pub fn incoming(self, listener: TcpListener) -> ReceiverStream<io::Result<Connection>> {
        let (taken, incoming) = mpsc::channel(WAITING_MAX);
        let shared = Arc::new(Shared {
            all: Arc::new(Semaphore::new(self.limits.connections_max)),
            of_address: Mutex::default(),
            acceptor: self,
        });
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = taken.closed() => return,
                    accepted = listener.accept() => accepted,
                };
                match accepted {
                    Ok((stream, address)) => shared.take(stream, address, &taken),
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        });
        ReceiverStream::new(incoming)
    }
}

struct Shared {
    acceptor: Acceptor,
    all: Arc<Semaphore>,
    of_address: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection's place among those that are allowed; given back when dropped.
struct Place {
    _one_of_all: OwnedSemaphorePermit,
    address: IpAddr,
    shared: Arc<Shared>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut of_address = self.shared.of_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = of_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                of_address.remove(&self.address);
            }
        }
    }
}

impl Shared {
    /// A place for one more, unless there are too many.
    fn place(self: &Arc<Self>, address: IpAddr) -> Result<Place, &'static str> {
        let one_of_all = self.all.clone().try_acquire_owned().map_err(|_| "connections_max")?;
        let mut of_address = self.of_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = of_address.entry(address).or_default();
        if *count >= self.acceptor.limits.connections_per_address_max {
            return Err("connections_per_address_max");
        }
        *count += 1;
        Ok(Place { _one_of_all: one_of_all, address, shared: self.clone() })
    }

    fn take(
        self: &Arc<Self>,
        stream: TcpStream,
        address: std::net::SocketAddr,
        taken: &mpsc::Sender<io::Result<Connection>>,
    ) {
        let place = match self.place(address.ip()) {
            Ok(place) => place,
            Err(limit) => {
                // Said once a minute in the log; closing is the answer.
                self.failed(address.ip(), limit);
                return;
            }
        };
        // Nagle would hold back the last packet of every large frame for 40 ms.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        let (shared, taken) = (self.clone(), taken.clone());
        tokio::spawn(async move {
            let connection = match &shared.acceptor.tls {
                None => Ok(Connection::new(Io::Plain(stream), Peer { address: Some(address), shown: Shown::Nothing })),
                Some(live) => {
                    let handshake = live.acceptor().accept(stream);
                    match tokio::time::timeout(HANDSHAKE_MAX, handshake).await {
                        Ok(Ok(stream)) => Ok(shared.named(stream, address, live)),
                        Ok(Err(error)) => Err(error.to_string()),
                        Err(_) => Err("the TLS handshake took too long".to_owned()),
                    }
                }
            };
            match connection {
                Ok(mut connection) => {
                    connection.place = Some(place);
                    let _ = taken.send(Ok(connection)).await;
                }
                Err(reason) => {
                    tracing::debug!(%address, reason, "a connection was not let in");
                    shared.failed(address.ip(), "certificate");
                }
            }
        });
    }

    /// A connection with the name that its certificate gives.
    fn named(&self, stream: TlsStream<TcpStream>, address: std::net::SocketAddr, live: &Arc<LiveTls>) -> Connection {
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let facts = certificate.map(|certificate| CertificateFacts::read(certificate));
        let (shown, validity) = match facts {
            None => (Shown::Nothing, None),
            Some(Err(error)) => (Shown::Unusable(error), None),
            Some(Ok(CertificateFacts { identity, serial, not_after_s })) => {
                let identity = Arc::new(self.acceptor.grants.complete(identity));
                let (generation, live) = (live.generation(), live.clone());
                (Shown::Known(identity), Some(Validity { serial, not_after_s, generation, live }))
            }
        };
        let io = Io::Tls(Box::new(stream));
        Connection { validity, ..Connection::new(io, Peer { address: Some(address), shown }) }
    }

    fn failed(&self, address: IpAddr, reason: &'static str) {
        let who = Some(format!("address {address}"));
        self.acceptor.journal.refused(Note { who, reason: Some(reason), ..Note::new(AccessEvent::LoginFailed) });
    }
}

/// One connection, whatever carries it.
pub(super) struct Connection {
    io: Io,
    peer: Peer,
    /// Set where the other end showed a certificate.
    validity: Option<Validity>,
    /// Set until the first byte has come.
    patience: Option<Pin<Box<Sleep>>>,
    place: Option<Place>,
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
    Pipe(DuplexStream),
}

/// How long a certificate stands for a connection.
struct Validity {
    serial: Vec<u8>,
    not_after_s: i64,
    /// The listener's generation at which it was last looked up.
    generation: u64,
    live: Arc<LiveTls>,
}

impl Connection {
    fn new(io: Io, peer: Peer) -> Self {
        let patience = Some(Box::pin(tokio::time::sleep(FIRST_BYTE_MAX)));
        Self { io, peer, validity: None, patience, place: None }
    }

    /// A connection of the operator's socket.
    pub fn unix(stream: UnixStream) -> Self {
        // Only the owner of the data directory gets here.
        let user = stream.peer_cred().map_or_else(|_| own_user(), |peer| peer.uid());
        let shown = Shown::Known(Arc::new(Identity::operator(user)));
        Self { patience: None, ..Self::new(Io::Unix(stream), Peer { address: None, shown }) }
    }

    /// A connection within this process.
    pub fn pipe(stream: DuplexStream) -> Self {
        let shown = Shown::Known(Arc::new(Identity::operator(own_user())));
        Self { patience: None, ..Self::new(Io::Pipe(stream), Peer { address: None, shown }) }
    }

    /// Whether what arrives may still be read: the first byte came in time, the certificate is neither over nor revoked.
    fn may_read(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if let Some(patience) = &mut self.patience
            && patience.as_mut().poll(context).is_ready()
        {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "nothing came"));
        }
        let Some(validity) = &mut self.validity else { return Ok(()) };
        if now_s() > validity.not_after_s {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the client's certificate is over"));
        }
        let generation = validity.live.generation();
        if generation != validity.generation {
            if validity.live.is_revoked(&validity.serial) {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the client's certificate was revoked"));
            }
            validity.generation = generation;
        }
        Ok(())
    }
}

fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

/// Calls the same on whatever carries the connection.
macro_rules! carried {
    ($self:expr, $io:ident => $call:expr) => {
        match &mut $self.get_mut().io {
            Io::Plain(stream) => {
                let $io = Pin::new(stream);
                $call
            }
            Io::Tls(stream) => {
                let $io = Pin::new(stream.as_mut());
                $call
            }
            Io::Unix(stream) => {
                let $io = Pin::new(stream);
                $call
            }
            Io::Pipe(stream) => {
                let $io = Pin::new(stream);
                $call
            }
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Err(error) = self.may_read(context) {
            return Poll::Ready(Err(error));
        }
        let before = buffer.filled().len();
        let read = carried!(self.as_mut(), io => io.poll_read(context, buffer));
        if buffer.filled().len() > before {
            self.patience = None;
            // Revoked while this connection waited: what has just come is not taken.
            self.may_read(context)?;
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        carried!(self, io => io.poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        carried!(self, io => io.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        carried!(self, io => io.poll_shutdown(context))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        carried!(self, io => io.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::Tls(stream) => stream.is_write_vectored(),
            Io::Unix(stream) => stream.is_write_vectored(),
            Io::Pipe(stream) => stream.is_write_vectored(),
        }
    }
}

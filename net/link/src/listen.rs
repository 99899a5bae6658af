//! Accepts connections on a port that belongs to this process alone, and reads the first frame of each.
//!
//! ```text
//! bind (any thread) --> Bound --adopt (a core)--> Listener --accept--> first frame, read exactly --> Accepted
//!                                                             Accepted --into_handover--> any core --adopt--> Accepted
//! ```
//! The first frame says where the connection belongs. It is read without a byte beyond it, so that the descriptor can go
//! to another core's executor with everything that follows still in the kernel.
//!
//! glommio's own `bind` sets SO_REUSEPORT, with which a second process takes the same port silently; this one does not.
//! Waiting for readiness needs no more than glommio's `PollableFd`, so no descriptor is adopted by number and this crate
//! has no unsafe code.

use std::cell::Cell;
use std::future::Future;
use std::io::{self, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use glommio::io::PollableFd;
use glommio::timer::sleep;
use proto::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameLimits};
use socket2::{Domain, Protocol, Socket, Type};

use crate::connection::Connection;
use crate::limits::{ACCEPT_BACKLOG, ACCEPT_PAUSE, HANDSHAKE_TIMEOUT, WARN_INTERVAL};
use crate::local::{Tasks, breathe, within};
use crate::reader::ReadError;

/// Counts the connections this process accepted. The number orders links: a later one has a larger number.
static ACCEPTED: AtomicU64 = AtomicU64::new(0);

/// Why nothing listens. The text names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process (or another listener of this one) has the port.
    #[error("{address} is taken by another process: stop it (`ss -ltnp 'sport = :{port}'` shows it) or configure another port", port = address.port())]
    PortTaken {
        /// What was asked for.
        address: SocketAddr,
    },
    /// Not an address of this machine.
    #[error("{address} is not an address of this machine (`ip addr` lists them): configure one that is")]
    NotOurs {
        /// What was asked for.
        address: SocketAddr,
    },
    /// Ports below 1024 need a privilege.
    #[error("not permitted to listen on {address}: configure a port above 1023, or grant CAP_NET_BIND_SERVICE")]
    NotPermitted {
        /// What was asked for.
        address: SocketAddr,
    },
    /// Something else.
    #[error("cannot listen on {address}: {error}")]
    Io {
        /// What was asked for.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
}

/// A port that is ours, not yet served. Made before any executor, so that a taken port is told at once.
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
}

impl Bound {
    /// Takes `address` for this process alone; port 0 takes a free one.
    pub fn bind(address: SocketAddr) -> Result<Bound, ListenError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AddrInUse => ListenError::PortTaken { address },
            io::ErrorKind::AddrNotAvailable => ListenError::NotOurs { address },
            io::ErrorKind::PermissionDenied => ListenError::NotPermitted { address },
            _ => ListenError::Io { address, error },
        };
        let listener = listen(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Bound { listener, address })
    }

    /// The address with the port in use.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes the port into this core's executor. At most `connections_max` connections are open at a time, wherever in
    /// the process they are served; more are closed as soon as they are accepted.
    pub fn adopt(self, connections_max: usize) -> Result<Listener, ListenError> {
        let address = self.address;
        let failed = |error| ListenError::Io { address, error };
        let listener = PollableFd::new(self.listener).map_err(|error| failed(error.into()))?;
        let slots = Arc::new(Slots { taken: AtomicUsize::new(0), max: connections_max });
        Ok(Listener { listener, address, slots, tasks: Tasks::new(), warned: Cell::default() })
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Only lets a port be taken again while connections of a process that ended are winding down.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(ACCEPT_BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Accepts connections on one core.
pub struct Listener {
    listener: PollableFd<TcpListener>,
    address: SocketAddr,
    slots: Arc<Slots>,
    tasks: Tasks,
    warned: Cell<(Option<Instant>, u64)>, // when last, and how often not since then
}

impl Listener {
    /// The address with the port in use.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections open now, on all cores.
    pub fn connections(&self) -> usize {
        self.slots.taken.load(Ordering::Relaxed)
    }

    /// Accepts until the returned future is dropped. Each connection whose first frame is whole in time is given to
    /// `handle`, in a task of its own; a panic there ends only that connection.
    ///
    /// Call `stop` afterwards: the tasks live on.
    pub async fn run<F, Fut>(&self, handle: F)
    where
        F: Fn(Accepted) -> Fut + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        let handle = Rc::new(handle);
        loop {
            let (stream, peer) = match self.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.warn(|missed| {
                        tracing::warn!(address = %self.address, %error, missed, "cannot accept connections");
                    });
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(slot) = self.slots.take() else {
                let max = self.slots.max;
                self.warn(|missed| {
                    tracing::warn!(address = %self.address, %peer, max, missed, "too many connections: closed one");
                });
                continue;
            };
            let handle = Rc::clone(&handle);
            self.tasks.spawn("connection", async move {
                match Accepted::begin(stream, peer, slot).await {
                    Ok(accepted) => handle(accepted).await,
                    Err(error) => tracing::debug!(%peer, %error, "closed a connection without a valid first frame"),
                }
            });
            breathe().await;
        }
    }

    /// Ends all tasks that `run` started, with the connections they serve.
    pub async fn stop(&self) {
        self.tasks.stop().await;
    }

    /// Lets `say` speak at most once in `WARN_INTERVAL`, with the number of times it was not allowed to.
    fn warn(&self, say: impl FnOnce(u64)) {
        let (last, missed) = self.warned.get();
        if last.is_some_and(|last: Instant| last.elapsed() < WARN_INTERVAL) {
            self.warned.set((last, missed + 1));
            return;
        }
        self.warned.set((Some(Instant::now()), 0));
        say(missed);
    }

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        loop {
            match self.listener.get_ref().accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.listener.readable().await?,
                // The one who knocked has left again.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                accepted => return accepted,
            }
        }
    }
}

/// How many connections a listener may have open.
struct Slots {
    taken: AtomicUsize,
    max: usize,
}

impl Slots {
    fn take(self: &Arc<Slots>) -> Option<Slot> {
        let taken = self.taken.fetch_add(1, Ordering::Relaxed);
        let slot = Slot { slots: Arc::clone(self) };
        (taken < self.max).then_some(slot)
    }
}

/// One open connection of a listener; dropped with it, on whatever core.
pub(crate) struct Slot {
    slots: Arc<Slots>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection and its first frame; everything behind that is still in the kernel. `Send`: any core may take it.
pub struct Accepted {
    /// Ascends with each connection that this process accepts, over all listeners. The first is 1.
    pub number: u64,
    /// The other end's address.
    pub peer: SocketAddr,
    /// The first frame's header.
    pub header: FrameHeader,
    /// The first frame's meta, its checksum not yet checked: decoding does that.
    pub meta: Vec<u8>,
    stream: TcpStream,
    slot: Slot,
}

impl Accepted {
    async fn begin(stream: TcpStream, peer: SocketAddr, slot: Slot) -> Result<Accepted, ReadError> {
        let number = ACCEPTED.fetch_add(1, Ordering::Relaxed) + 1;
        stream.set_nonblocking(true)?;
        let stream = PollableFd::new(stream).map_err(|error| ReadError::Io(error.into()))?;
        let (header, meta) =
            within(HANDSHAKE_TIMEOUT, first_frame(&stream)).await.ok_or(ReadError::TimedOut(HANDSHAKE_TIMEOUT))??;
        Ok(Accepted { number, peer, header, meta, stream: stream.into_inner(), slot })
    }

    /// The connection, in this core's executor.
    pub fn into_connection(self) -> io::Result<Connection> {
        Connection::with_slot(OwnedFd::from(self.stream), self.peer, Some(self.slot))
    }
}

/// Header and meta of the first frame, and not a byte beyond.
async fn first_frame(stream: &PollableFd<TcpStream>) -> Result<(FrameHeader, Vec<u8>), ReadError> {
    let mut header = [0; FRAME_HEADER_BYTES];
    read_exactly(stream, &mut header, ReadError::Closed).await?;
    let header = FrameHeader::parse(&header, FrameLimits::HANDSHAKE)?;
    let mut meta = vec![0; header.meta_bytes()];
    read_exactly(stream, &mut meta, ReadError::Truncated).await?;
    Ok((header, meta))
}

/// Fills `into`; `if_empty` is the error if the other end closes before the first byte.
async fn read_exactly(stream: &PollableFd<TcpStream>, into: &mut [u8], if_empty: ReadError) -> Result<(), ReadError> {
    let mut filled = 0;
    while filled < into.len() {
        match stream.get_ref().read(&mut into[filled..]) {
            Ok(0) => return Err(if filled == 0 { if_empty } else { ReadError::Truncated }),
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                stream.readable().await.map_err(|error| ReadError::Io(error.into()))?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

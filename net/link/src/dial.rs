//! Makes the connection of a link: resolves, connects, says hello and hears the answer, each in its time.

use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;

use glommio::io::PollableFd;
use proto::codec::{Encoder, decode_peer_welcome, encode_peer_hello};
use proto::error::Refusal;
use proto::frame::FrameLimits;
use proto::ids::ClusterId;
use proto::peer::{PeerHello, PeerWelcome};
use socket2::{Domain, Protocol, Socket, Type};

use crate::connection::Connection;
use crate::limits::{CONNECT_TIMEOUT, WELCOME_TIMEOUT};
use crate::local::within;
use crate::reader::{FrameReader, FreshBuffers, ReadError};

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address is not one.
    #[error("cannot resolve {address}: {error}")]
    Resolve {
        /// "host:port".
        address: String,
        /// What the resolver says.
        error: io::Error,
    },
    /// Nobody answers there.
    #[error("cannot connect to {address}: {error}")]
    Connect {
        /// The last one tried.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// Connected, but the hello was not answered.
    #[error("{address} did not answer the hello: {error}")]
    Welcome {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: ReadError,
    },
    /// The other end does not want the link.
    #[error("{address} refused the link ({refusal:?}): {text}")]
    Refused {
        /// Where.
        address: SocketAddr,
        /// Why.
        refusal: Refusal,
        /// For people.
        text: String,
    },
}

/// A link on which frames may flow.
pub(crate) struct Opened {
    pub(crate) connection: Connection,
    pub(crate) reader: FrameReader,
    pub(crate) credit: u64,
}

/// Connects to `address` ("host:port").
pub async fn connect(address: &str) -> Result<Connection, DialError> {
    let resolved = resolve(address).await.map_err(|error| DialError::Resolve { address: address.to_owned(), error })?;
    let mut failed = None;
    for address in resolved {
        match within(CONNECT_TIMEOUT, connect_to(address)).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
        {
            Ok(connection) => return Ok(connection),
            Err(error) => failed = Some(DialError::Connect { address, error }),
        }
    }
    Err(failed.unwrap_or_else(|| DialError::Resolve {
        address: address.to_owned(),
        error: io::Error::new(io::ErrorKind::NotFound, "no address of that name"),
    }))
}

/// Connects, says `hello`, and hears that it is welcome.
pub(crate) async fn open(address: &str, hello: &PeerHello) -> Result<Opened, DialError> {
    let connection = connect(address).await?;
    let address = connection.peer();
    let mut reader = connection.reader(FrameLimits::HANDSHAKE);
    let mut bytes = Vec::new();
    encode_peer_hello(&mut Encoder::new(), hello, &mut bytes);
    let exchange = async {
        connection.write_first(&bytes).await?;
        let frame = reader.next(&FreshBuffers).await?;
        Ok(decode_peer_welcome(&frame.header, frame.meta)?)
    };
    let welcome = within(WELCOME_TIMEOUT, exchange)
        .await
        .unwrap_or(Err(ReadError::TimedOut(WELCOME_TIMEOUT)))
        .map_err(|error| DialError::Welcome { address, error })?;
    match welcome {
        PeerWelcome::Welcome { cluster, .. } if is_other(hello.cluster, cluster) => Err(DialError::Refused {
            address,
            refusal: Refusal::WrongCluster,
            text: format!("it belongs to cluster {cluster}"),
        }),
        PeerWelcome::Welcome { credit, .. } => Ok(Opened { connection, reader, credit }),
        PeerWelcome::Refused { refusal, text } => Err(DialError::Refused { address, refusal, text }),
    }
}

fn is_other(ours: ClusterId, theirs: ClusterId) -> bool {
    ours != ClusterId::UNKNOWN && theirs != ClusterId::UNKNOWN && ours != theirs
}

async fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = address.parse() {
        return Ok(vec![address]);
    }
    // A resolver may block for seconds.
    let address = address.to_owned();
    executor::blocking(move || Ok(address.to_socket_addrs()?.collect())).await
}

async fn connect_to(address: SocketAddr) -> io::Result<Connection> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    let begun = socket.connect(&address.into());
    let socket = PollableFd::new(TcpStream::from(socket))?;
    match begun {
        Ok(()) => {}
        Err(error) if is_in_progress(&error) => {
            socket.writable().await?;
            if let Some(error) = socket.get_ref().take_error()? {
                return Err(error);
            }
        }
        Err(error) => return Err(error),
    }
    Connection::from_fd(OwnedFd::from(socket.into_inner()), address)
}

fn is_in_progress(error: &io::Error) -> bool {
    const EINPROGRESS: i32 = 115;
    error.raw_os_error() == Some(EINPROGRESS) || error.kind() == io::ErrorKind::WouldBlock
}

//! A connection on its core: one end of it is read, the other written, both at once.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::task::Poll;

use proto::frame::FrameLimits;

use crate::limits::{LINGER_BYTES_MAX, LINGER_TIMEOUT};
use crate::listen::Slot;
use crate::local::{breathe, within};
use crate::outbox::{Outbox, WriteEnd, WriteError};
use crate::reader::{FrameReader, ReadError};
use crate::stream::Stream;

/// A TCP connection that belongs to this core's executor. Dropping it closes it, once its reader is dropped, too.
pub struct Connection {
    stream: Stream,
    peer: SocketAddr,
    _slot: Option<Slot>, // counted as one of the listener's connections while this lives
}

/// Why a connection ended.
#[derive(Debug)]
pub enum ConnectionEnd {
    /// The outbox was closed and everything in it was written.
    Finished,
    /// The outbox was aborted.
    Aborted,
    /// Nothing more can be read.
    Read(ReadError),
    /// Nothing more can be written.
    Write(WriteError),
}

impl Connection {
    /// Takes a connected socket into this core's executor.
    pub fn from_fd(descriptor: OwnedFd, peer: SocketAddr) -> io::Result<Connection> {
        Connection::with_slot(descriptor, peer, None)
    }

    pub(crate) fn with_slot(descriptor: OwnedFd, peer: SocketAddr, slot: Option<Slot>) -> io::Result<Connection> {
        Ok(Connection { stream: Stream::adopt(descriptor)?, peer, _slot: slot })
    }

    /// The other end's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The reader of this connection. There may be one.
    pub fn reader(&self, limits: FrameLimits) -> FrameReader {
        FrameReader::new(self.stream.clone(), limits)
    }

    /// Writes what is put into `outbox` while `reading` runs, until either ends; then the connection ends.
    ///
    /// `reading` is a loop over the reader's frames. It is dropped when writing ends. If the outbox was closed, the other
    /// end gets everything that was in it: this end then closes its direction and waits a moment for the other to do so.
    /// So a loop that has found an error and wants to tell the other end sends it, closes the outbox, and never returns.
    /// On return the outbox is closed and empty.
    pub async fn serve(self, outbox: &Outbox, reading: impl Future<Output = ReadError>) -> ConnectionEnd {
        let end = self.carry(outbox, reading).await;
        outbox.abort();
        end
    }

    /// As `serve`, but leaves the outbox as it is: with what was not written, open if it was.
    pub(crate) async fn carry(self, outbox: &Outbox, reading: impl Future<Output = ReadError>) -> ConnectionEnd {
        let end = either(outbox.write_to(&self.stream), reading).await;
        if let ConnectionEnd::Finished = end {
            self.linger().await;
        }
        self.stream.shutdown(Shutdown::Both);
        end
    }

    /// Writes `bytes` before anything else is written.
    pub async fn write_first(&self, bytes: &[u8]) -> io::Result<()> {
        let mut written = 0;
        while written < bytes.len() {
            let rest = &bytes[written..];
            written += poll_fn(|context| self.stream.poll_write(context, &[IoSlice::new(rest)])).await?;
        }
        Ok(())
    }

    /// Closes this direction and reads until the other end has closed. A socket closed with unread bytes in it would
    /// reset the connection, and the other end would lose the last frames.
    pub(crate) async fn linger(&self) {
        self.stream.shutdown(Shutdown::Write);
        let drain = async {
            let mut waste = vec![0; 64 << 10];
            let mut wasted = 0;
            while let Ok(read @ 1..) = self.stream.read(&mut waste).await {
                wasted += read;
                if wasted > LINGER_BYTES_MAX {
                    break;
                }
                breathe().await;
            }
        };
        within(LINGER_TIMEOUT, drain).await;
    }
}

async fn either(
    writing: impl Future<Output = Result<WriteEnd, WriteError>>,
    reading: impl Future<Output = ReadError>,
) -> ConnectionEnd {
    let (mut writing, mut reading) = (pin!(writing), pin!(reading));
    poll_fn(|context| {
        if let Poll::Ready(written) = writing.as_mut().poll(context) {
            return Poll::Ready(match written {
                Ok(WriteEnd::Finished) => ConnectionEnd::Finished,
                Ok(WriteEnd::Aborted) => ConnectionEnd::Aborted,
                Err(error) => ConnectionEnd::Write(error),
            });
        }
        reading.as_mut().poll(context).map(ConnectionEnd::Read)
    })
    .await
}

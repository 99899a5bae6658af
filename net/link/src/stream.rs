//! One TCP connection as its two halves see it: bytes in, bytes out, on one core.
//!
//! The halves share the glommio stream, each with its own readiness; a borrow lasts for one poll. Reads go straight to
//! the given memory: there is no buffer in between.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use futures_lite::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use socket2::{Socket, TcpKeepalive};

use crate::limits::{KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES};

/// The connection, shared by its reader and its writer.
#[derive(Clone)]
pub(crate) struct Stream {
    tcp: Rc<RefCell<TcpStream>>,
}

impl Stream {
    /// Takes a connected socket into this core's executor.
    pub(crate) fn adopt(descriptor: OwnedFd) -> io::Result<Stream> {
        let socket = Socket::from(descriptor);
        set_options(&socket)?;
        Ok(Stream { tcp: Rc::new(RefCell::new(TcpStream::from(socket))) })
    }

    /// Reads some bytes; 0 means that the other end has closed, or that `into` is empty.
    pub(crate) fn poll_read(&self, context: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.tcp.borrow_mut()).poll_read(context, into)
    }

    /// Writes some bytes of `slices`.
    pub(crate) fn poll_write(&self, context: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.tcp.borrow_mut()).poll_write_vectored(context, slices)
    }

    /// See `poll_read`.
    pub(crate) async fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        poll_fn(|context| self.poll_read(context, into)).await
    }

    /// Closes one or both directions now. A connection that is gone already is no error.
    pub(crate) fn shutdown(&self, how: Shutdown) {
        let mut context = Context::from_waker(Waker::noop());
        let _ = self.tcp.borrow().poll_shutdown(&mut context, how);
    }
}

/// What every connection has: no delay of small frames, and probes that find a machine that is gone.
fn set_options(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let keepalive =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)
}

//! One blocking connection to a node: frames in, frames out.
//!
//! Per small frame: no system call of its own, neither way (both directions are buffered). Per chunk: one vectored write,
//! or one to a few reads straight into the caller's buffer; each byte is read once for its CRC-32.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::client::{ClientReply, ClientRequest, Target};
use proto::codec::{Encoder, decode_client_reply, encode_client_request};
use proto::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameLimits};
use proto::ids::ClusterId;
use proto::limits::{PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN};

use crate::limits::{FRAME_STALL_US_MAX, READ_BUFFER_BYTES, WRITE_BUFFER_BYTES, WRITE_STALL_US_MAX};
use crate::session::{ConnectFailure, Welcome};

/// A connection after its handshake. Reading and writing may be split over two threads by `split`.
#[derive(Debug)]
pub struct Connection {
    reader: FrameReader,
    writer: FrameWriter,
}

impl Connection {
    /// Connects, says hello and reads the answer; each of the two may take `timeout`.
    pub fn open(
        address: &str,
        target: Target,
        cluster: ClusterId,
        timeout: Duration,
    ) -> Result<(Connection, Welcome), ConnectFailure> {
        let unreachable = |error: io::Error| ConnectFailure::Unreachable { text: error.to_string() };
        let stream = dial(address, timeout).map_err(unreachable)?;
        let mut connection = Connection::over(stream).map_err(unreachable)?;
        let hello = ClientRequest::Hello {
            version_min: PROTOCOL_VERSION_MIN,
            version_max: PROTOCOL_VERSION_MAX,
            cluster,
            target,
            credentials: Vec::new(),
        };
        connection.send(&hello, &[]).and_then(|()| connection.flush()).map_err(unreachable)?;
        let reply = connection.receive(&mut Vec::new(), Some(timeout)).map_err(unreachable)?;
        let Some(reply) = reply else {
            return Err(ConnectFailure::Unreachable { text: "connected, but no answer to the greeting".to_owned() });
        };
        match Welcome::from_reply(reply).map_err(|other| *other) {
            Ok(welcome) => Ok((connection, welcome)),
            Err(ClientReply::Failure { refusal, text, ring, .. }) => {
                Err(ConnectFailure::Refused { refusal, text, ring })
            }
            Err(_) => Err(ConnectFailure::Unreachable { text: "an unexpected answer to the greeting".to_owned() }),
        }
    }

    fn over(stream: TcpStream) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(Duration::from_micros(WRITE_STALL_US_MAX)))?;
        let stream = Arc::new(stream);
        let reader = FrameReader::new(stream.clone());
        let writer = FrameWriter { stream, encoder: Encoder::new(), out: Vec::with_capacity(WRITE_BUFFER_BYTES) };
        Ok(Connection { reader, writer })
    }

    /// Writes one frame into the buffer of this connection; `flush` sends it at the latest.
    ///
    /// `body` is that of a chunk, and empty for anything else. The request must keep the rules of the protocol.
    pub fn send(&mut self, request: &ClientRequest, body: &[u8]) -> io::Result<()> {
        self.writer.send(request, body)
    }

    /// Sends what is buffered.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// Reads one frame; its body goes into `body`, whose content is replaced. `None` when `timeout` passed before a
    /// frame began. After an error the connection is of no use any more.
    pub fn receive(&mut self, body: &mut Vec<u8>, timeout: Option<Duration>) -> io::Result<Option<ClientReply>> {
        self.reader.receive(body, timeout)
    }

    /// Whether a whole header is buffered already, so that `receive` is likely not to wait.
    pub fn has_buffered(&self) -> bool {
        self.reader.end - self.reader.start >= FRAME_HEADER_BYTES
    }

    /// The two directions, for two threads.
    pub fn split(self) -> (FrameReader, FrameWriter) {
        (self.reader, self.writer)
    }
}

/// The outgoing direction of a connection.
pub struct FrameWriter {
    stream: Arc<TcpStream>,
    encoder: Encoder,
    out: Vec<u8>, // at most WRITE_BUFFER_BYTES and one frame's meta
}

impl std::fmt::Debug for FrameWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FrameWriter").field("stream", &self.stream).field("buffered", &self.out.len()).finish()
    }
}

impl FrameWriter {
    /// See `Connection::send`.
    pub fn send(&mut self, request: &ClientRequest, body: &[u8]) -> io::Result<()> {
        encode_client_request(&mut self.encoder, request, body.len(), &mut self.out);
        if !body.is_empty() {
            return self.write_with(body);
        }
        if self.out.len() >= WRITE_BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    /// See `Connection::flush`.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.out.is_empty() { Ok(()) } else { self.write_with(&[]) }
    }

    /// Ends both directions; the reader sees the end.
    pub fn shut_down(&self) {
        // Fails only if the other end was faster.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn write_with(&mut self, body: &[u8]) -> io::Result<()> {
        let (mut head, mut tail) = (&self.out[..], body);
        while !head.is_empty() || !tail.is_empty() {
            let written = match (&*self.stream).write_vectored(&[IoSlice::new(head), IoSlice::new(tail)]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => written,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if is_timeout(&error) => {
                    return Err(io::Error::new(ErrorKind::TimedOut, "the node does not read what it is sent"));
                }
                Err(error) => return Err(error),
            };
            let of_head = written.min(head.len());
            head = &head[of_head..];
            tail = &tail[written - of_head..];
        }
        self.out.clear();
        Ok(())
    }
}

/// The incoming direction of a connection.
#[derive(Debug)]
pub struct FrameReader {
    stream: Arc<TcpStream>,
    buffer: Box<[u8]>,
    start: usize, // start <= end <= buffer.len()
    end: usize,
    meta: Vec<u8>,
    timeout: Option<Duration>, // as set on the socket
}

impl FrameReader {
    fn new(stream: Arc<TcpStream>) -> FrameReader {
        let buffer = vec![0; READ_BUFFER_BYTES].into_boxed_slice();
        FrameReader { stream, buffer, start: 0, end: 0, meta: Vec::new(), timeout: None }
    }

    /// See `Connection::receive`.
    pub fn receive(&mut self, body: &mut Vec<u8>, timeout: Option<Duration>) -> io::Result<Option<ClientReply>> {
        if self.start == self.end && !self.fill(timeout)? {
            return Ok(None);
        }
        let mut bytes = [0u8; FRAME_HEADER_BYTES];
        self.read_whole(&mut bytes, timeout.is_some())?;
        let header = FrameHeader::parse(&bytes, FrameLimits::CLIENT_REPLY).map_err(invalid)?;
        let mut meta = std::mem::take(&mut self.meta);
        meta.resize(header.meta_bytes(), 0);
        self.read_whole(&mut meta, timeout.is_some())?;
        body.resize(header.body_bytes(), 0);
        self.read_whole(body, timeout.is_some())?;
        let reply = decode_client_reply(&header, &meta).map_err(invalid)?;
        self.meta = meta;
        if !body.is_empty() {
            header.check_body(body).map_err(invalid)?;
        }
        Ok(Some(reply))
    }

    /// Reads what there is into the empty buffer; false if nothing came within `timeout`.
    fn fill(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        assert_eq!(self.start, self.end, "the buffer is empty");
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        // As given, so that a socket that has this timeout already costs no system call.
        self.set_timeout(timeout)?;
        loop {
            match (&*self.stream).read(&mut self.buffer) {
                Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the node closed the connection")),
                Ok(count) => {
                    (self.start, self.end) = (0, count);
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {
                    self.set_timeout(until.map(|until| until.saturating_duration_since(Instant::now())))?;
                }
                Err(error) if is_timeout(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Fills `target`: first from the buffer, then small rests through it and large ones past it. A frame that has begun
    /// must come to its end, if the caller waits for a limited time at all.
    fn read_whole(&mut self, mut target: &mut [u8], limited: bool) -> io::Result<()> {
        loop {
            let count = target.len().min(self.end - self.start);
            let (now, later) = target.split_at_mut(count);
            now.copy_from_slice(&self.buffer[self.start..self.start + count]);
            self.start += count;
            target = later;
            if target.is_empty() {
                return Ok(());
            }
            let timeout = limited.then_some(Duration::from_micros(FRAME_STALL_US_MAX));
            if target.len() < self.buffer.len() {
                if !self.fill(timeout)? {
                    return Err(io::Error::new(ErrorKind::TimedOut, "the node stopped in the middle of a message"));
                }
                continue;
            }
            self.set_timeout(timeout)?;
            match (&*self.stream).read(target) {
                Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "the node closed the connection")),
                Ok(count) => target = &mut target[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn set_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        // Zero means "for ever" to the socket, and less than a microsecond is zero.
        let timeout = timeout.map(|timeout| timeout.max(Duration::from_millis(1)));
        if timeout != self.timeout {
            self.stream.set_read_timeout(timeout)?;
            self.timeout = timeout;
        }
        Ok(())
    }
}

fn dial(address: &str, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the host has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

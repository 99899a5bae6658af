//! Reads frames from a connection, bodies straight into their buffers.
//!
//! ```text
//! socket --recv--> read-ahead (64 KiB) --> header, meta          small frames: many for one call
//! socket --recv--> DMA buffer [512..]                            bodies: no copy but of what was read ahead
//! ```
//! Per body of 1 MiB: one buffer, four or more calls of at most 256 KiB, both checksums while each piece is in the cache.
//! The layout of the buffer is that of a chunk: header sector, payload, zeros up to a whole block.
//!
//! A frame that is not one ends the connection: after any `ReadError` the reader must not be used again.

use std::future::{Future, poll_fn};
use std::io;
use std::task::Poll;
use std::time::Duration;

use glommio::allocate_dma_buffer_global;
use glommio::io::DmaBuffer;
use proto::checksum::Sums;
use proto::codec::DecodeError;
use proto::frame::{BodyMismatch, FRAME_HEADER_BYTES, FrameError, FrameHeader, FrameLimits};
use proto::ids::Address;
use proto::limits::{BLOCK_BYTES, CHUNK_HEADER_BYTES};

use crate::credit::{CreditExceeded, CreditGuard, CreditMeter};
use crate::limits::{BREATH_BYTES, FRAME_TIMEOUT, PIECE_BYTES, READ_AHEAD_BYTES, READ_AHEAD_CHUNK_BYTES};
use crate::local::{Deadline, breathe};
use crate::stream::Stream;

/// Gives the buffers that bodies are received into.
pub trait BufferSource {
    /// What it gives.
    type Buffer: AsMut<[u8]>;

    /// A buffer with room for the header sector and `payload_bytes`, laid out as a chunk: the header sector and what
    /// lies behind the payload are zero. May wait for memory; the connection is not read meanwhile.
    fn take(&self, payload_bytes: usize) -> impl Future<Output = Self::Buffer>;
}

/// A source that asks the allocator each time: for connections that seldom have bodies, for measurements and tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct FreshBuffers;

impl BufferSource for FreshBuffers {
    type Buffer = DmaBuffer;

    async fn take(&self, payload_bytes: usize) -> DmaBuffer {
        let end = CHUNK_HEADER_BYTES + payload_bytes;
        let mut buffer = allocate_dma_buffer_global(end.next_multiple_of(BLOCK_BYTES));
        let bytes = buffer.as_bytes_mut();
        bytes[..CHUNK_HEADER_BYTES].fill(0);
        bytes[end..].fill(0);
        buffer
    }
}

/// A received body: checked against the frame's checksum, and counted against the connection's credit if it has one.
pub struct ReceivedBody<B> {
    /// As the source gave it, the payload filled in from `CHUNK_HEADER_BYTES` on.
    pub buffer: B,
    /// Payload bytes.
    pub length: u32,
    /// CRC-32 of the payload.
    pub crc32: u32,
    /// CRC-64 of the payload.
    pub crc64: u64,
    /// To be kept as long as the bytes are.
    pub credit: Option<CreditGuard>,
}

/// One frame. The meta stays valid until the next is read.
pub struct Frame<'a, B> {
    /// The checked header; `header.kind()` tells which message it is.
    pub header: FrameHeader,
    /// The meta, its checksum not yet checked: decoding does that.
    pub meta: &'a [u8],
    /// The body, for kinds that have one.
    pub body: Option<ReceivedBody<B>>,
}

/// Why no further frame can be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The other end closed between two frames: the regular end.
    #[error("closed by the other end")]
    Closed,
    /// The other end closed within a frame.
    #[error("closed by the other end within a frame")]
    Truncated,
    /// Not the header of a frame that may come here.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Not a message that may come here.
    #[error(transparent)]
    Message(#[from] DecodeError),
    /// A peer message from or to another shard than its link is for.
    #[error("a message from {from} to {to} on a link for others", from = source_address, to = target_address)]
    Misrouted {
        /// As in the header.
        source_address: Address,
        /// As in the header.
        target_address: Address,
    },
    /// The body is not what the sender sent.
    #[error(transparent)]
    Body(#[from] BodyMismatch),
    /// A body without credit for it.
    #[error(transparent)]
    Credit(#[from] CreditExceeded),
    /// A frame began and did not end.
    #[error("a frame was not whole after {0:?}")]
    TimedOut(Duration),
    /// The connection failed.
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
}

/// What a reader has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadStats {
    /// Whole frames.
    pub frames: u64,
    /// Body bytes in all.
    pub body_bytes: u64,
    /// Body bytes that were copied, because they had been read ahead with the frames before.
    pub body_bytes_copied: u64,
}

/// Reads the frames of one connection.
pub struct FrameReader {
    input: Input,
    limits: FrameLimits,
    meter: Option<CreditMeter>,
    ahead: Box<[u8]>,
    head: usize, // head <= tail <= ahead.len(); the bytes between are read and not used
    tail: usize,
    meta: Vec<u8>,    // for metas that do not fit into `ahead`
    after_body: bool, // the last frame had one: the next may have one, too
    stats: ReadStats,
}

impl FrameReader {
    pub(crate) fn new(stream: Stream, limits: FrameLimits) -> FrameReader {
        FrameReader {
            input: Input { stream, timeout: FRAME_TIMEOUT, deadline: None, hurried: false, busy_bytes: 0 },
            limits,
            meter: None,
            ahead: vec![0; READ_AHEAD_BYTES].into_boxed_slice(),
            head: 0,
            tail: 0,
            meta: Vec::new(),
            after_body: false,
            stats: ReadStats::default(),
        }
    }

    /// Counts bodies against `meter`; a body without credit is an error.
    pub fn with_credit(mut self, meter: CreditMeter) -> FrameReader {
        self.meter = Some(meter);
        self
    }

    /// Gives a frame that has begun this long to be whole, instead of `FRAME_TIMEOUT`.
    pub fn with_frame_timeout(mut self, timeout: Duration) -> FrameReader {
        self.input.timeout = timeout;
        self
    }

    /// What was read so far.
    pub fn stats(&self) -> ReadStats {
        self.stats
    }

    /// Reads the next frame; waits for its first byte for ever.
    ///
    /// If the returned future is dropped before it is done, bytes may be lost: the connection must then be dropped, too.
    pub async fn next<S: BufferSource>(&mut self, buffers: &S) -> Result<Frame<'_, S::Buffer>, ReadError> {
        self.input.deadline = None;
        self.input.hurried = self.tail > self.head;
        self.fill(FRAME_HEADER_BYTES).await?;
        let bytes = self.ahead[self.head..].first_chunk().expect("fill made sure of a whole header");
        let header = FrameHeader::parse(bytes, self.limits)?;
        self.head += FRAME_HEADER_BYTES;
        // Refused before a byte or a buffer is spent on it.
        let credit = match (&self.meter, header.body_bytes()) {
            (Some(meter), bytes @ 1..) => Some(meter.on_body(bytes as u64)?),
            _ => None,
        };
        let meta_at = self.take_meta(header.meta_bytes()).await?;
        let body = match header.body_bytes() {
            0 => None,
            length => {
                let buffer = buffers.take(length).await;
                // Waiting for memory is not the sender's fault.
                self.input.deadline = None;
                Some(self.take_body(&header, buffer, credit).await?)
            }
        };
        self.stats.frames += 1;
        self.after_body = body.is_some();
        let meta = match meta_at {
            Some(at) => &self.ahead[at..at + header.meta_bytes()],
            None => &self.meta[..],
        };
        Ok(Frame { header, meta, body })
    }

    /// Has at least `bytes` read ahead, in one piece.
    async fn fill(&mut self, bytes: usize) -> Result<(), ReadError> {
        assert!(bytes <= self.ahead.len(), "{bytes} bytes do not fit");
        if self.head == self.tail {
            (self.head, self.tail) = (0, 0);
        }
        if self.head + bytes > self.ahead.len() {
            self.ahead.copy_within(self.head..self.tail, 0);
            (self.head, self.tail) = (0, self.tail - self.head);
        }
        while self.tail - self.head < bytes {
            let most = if self.after_body { READ_AHEAD_CHUNK_BYTES.max(bytes) } else { self.ahead.len() };
            let end = self.ahead.len().min(self.head + most);
            self.tail += self.input.read(&mut self.ahead[self.tail..end]).await?;
        }
        Ok(())
    }

    /// Takes the meta: returns where it begins in `ahead`, or `None` if it is in `meta`.
    async fn take_meta(&mut self, bytes: usize) -> Result<Option<usize>, ReadError> {
        if bytes <= self.ahead.len() {
            if self.tail - self.head < bytes {
                self.fill(bytes).await?;
            }
            let at = self.head;
            self.head += bytes;
            return Ok(Some(at));
        }
        self.meta.clear();
        self.meta.extend_from_slice(&self.ahead[self.head..self.tail]);
        (self.head, self.tail) = (0, 0);
        let mut filled = self.meta.len();
        while filled < bytes {
            // Grows with what really came, so that a header alone does not cost memory.
            let end = bytes.min(filled + PIECE_BYTES);
            if self.meta.len() < end {
                self.meta.resize(end, 0);
            }
            filled += self.input.read(&mut self.meta[filled..end]).await?;
        }
        Ok(None)
    }

    async fn take_body<B: AsMut<[u8]>>(
        &mut self,
        header: &FrameHeader,
        mut buffer: B,
        credit: Option<CreditGuard>,
    ) -> Result<ReceivedBody<B>, ReadError> {
        let length = header.body_bytes();
        let bytes = buffer.as_mut();
        assert!(bytes.len() >= CHUNK_HEADER_BYTES + length, "a buffer of {} bytes for {length}", bytes.len());
        let payload = &mut bytes[CHUNK_HEADER_BYTES..CHUNK_HEADER_BYTES + length];

        let mut sums = Sums::new();
        let copied = length.min(self.tail - self.head);
        payload[..copied].copy_from_slice(&self.ahead[self.head..self.head + copied]);
        self.head += copied;
        sums.update(&payload[..copied]);
        let mut filled = copied;
        while filled < length {
            let end = length.min(filled + PIECE_BYTES);
            let read = self.input.read(&mut payload[filled..end]).await?;
            sums.update(&payload[filled..filled + read]);
            filled += read;
        }
        self.stats.body_bytes += length as u64;
        self.stats.body_bytes_copied += copied as u64;
        let (found, crc64) = sums.finish();
        let expected = header.body_crc32();
        if expected != found {
            return Err(BodyMismatch { expected, found }.into());
        }
        // The header's bounds make it fit.
        let length = u32::try_from(length).expect("a body is bounded far below 4 GiB");
        Ok(ReceivedBody { buffer, length, crc32: found, crc64, credit })
    }
}

/// The bytes of the connection, with an eye on the clock and on the other tasks of this core.
struct Input {
    stream: Stream,
    timeout: Duration,
    deadline: Option<Deadline>, // set at the first wait within a frame, for the rest of it
    hurried: bool,              // the first byte of a frame is there
    busy_bytes: usize,          // since this task last waited
}

impl Input {
    /// Reads at least one byte; within a frame, before its deadline.
    async fn read(&mut self, into: &mut [u8]) -> Result<usize, ReadError> {
        assert!(!into.is_empty());
        if self.busy_bytes >= BREATH_BYTES {
            self.busy_bytes = 0;
            breathe().await;
        }
        let read = poll_fn(|context| match self.stream.poll_read(context, into) {
            Poll::Ready(Ok(0)) if self.hurried => Poll::Ready(Err(ReadError::Truncated)),
            Poll::Ready(Ok(0)) => Poll::Ready(Err(ReadError::Closed)),
            Poll::Ready(read) => Poll::Ready(read.map_err(ReadError::Io)),
            Poll::Pending => {
                self.busy_bytes = 0;
                if !self.hurried {
                    return Poll::Pending;
                }
                let deadline = self.deadline.get_or_insert_with(|| Deadline::after(self.timeout));
                deadline.poll(context).map(|()| Err(ReadError::TimedOut(self.timeout)))
            }
        })
        .await?;
        self.hurried = true;
        self.busy_bytes += read;
        Ok(read)
    }
}

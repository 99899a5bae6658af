//! Bounds of what the sockets and queues of one core keep and how long they wait. The bounds of the protocols are in
//! `proto::limits`.

use std::time::Duration;

use proto::frame::FRAME_HEADER_BYTES;
use proto::limits::{CHUNK_BYTES_MAX, CLIENT_META_BYTES_MAX, FRAME_META_BYTES_MAX};

/// What a reader takes from the socket ahead of the frame it is reading, so that many small frames cost one call. Also
/// the most of a body that can have to be copied.
pub const READ_AHEAD_BYTES: usize = 64 << 10;
/// What is read ahead of a frame that follows one with a body: header and meta of another such frame, hardly any of its
/// body.
pub const READ_AHEAD_CHUNK_BYTES: usize = 256;
/// Bytes received, sent or summed by one call: about 100 µs on one core.
pub const PIECE_BYTES: usize = 256 << 10;
/// Bytes received or sent without waiting before the task lets the executor look at its I/O. (That look costs about 7 µs.)
pub const BREATH_BYTES: usize = 512 << 10;
/// The first frame of a connection must be whole within this time.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A frame that has begun must be whole within this time. Between frames a connection may be silent for ever.
pub const FRAME_TIMEOUT: Duration = Duration::from_secs(30);
/// The other end must take some byte of what is written within this time.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// After the last frame was written: how long the other end may take to read it and to close.
pub const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
/// What is thrown away of the other end's bytes while it closes.
pub const LINGER_BYTES_MAX: usize = 16 << 20;
/// A quiet connection whose machine vanished is found by the kernel: first probe, then one each interval, this often.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// See `KEEPALIVE_IDLE`.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
/// See `KEEPALIVE_IDLE`.
pub const KEEPALIVE_PROBES: u32 = 3;
/// Pause of the accept loop after an error that would repeat at once, such as no descriptor left.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// A listener complains at most this often, so that nobody can fill the log by knocking.
pub const WARN_INTERVAL: Duration = Duration::from_secs(1);
/// Connections the kernel keeps until they are accepted.
pub const ACCEPT_BACKLOG: i32 = 1024;

/// The connection of a link must be made within this time, or its node counts as unreachable.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(300);
/// The answer to `PeerHello` must come within this time. Longer than the time to connect, which only the kernel needs.
pub const WELCOME_TIMEOUT: Duration = Duration::from_secs(2);
/// First pause after a dial that failed at once again. It doubles up to `REDIAL_PAUSE_MAX`.
pub const REDIAL_PAUSE_MIN: Duration = Duration::from_millis(10);
/// Longest pause between two dials.
pub const REDIAL_PAUSE_MAX: Duration = Duration::from_millis(500);

/// Grants of credit smaller than this wait for more, unless the sender may be starved.
pub const GRANT_BYTES_MIN: u64 = 256 << 10;

/// Items one core may have waiting for another before those that may be lost are refused.
pub const MESH_ITEMS_MAX: usize = 16 << 10;
/// Items one core may have waiting for another at all. What must not be lost is bounded by the protocol between cores
/// far below this; beyond it something is broken.
pub const MESH_ITEMS_END: usize = 1 << 20;

/// Bounds of one connection's outbound queue. A frame is taken while both are below; so the queue can exceed
/// `bytes` by one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxLimits {
    /// Header, meta and body bytes.
    pub bytes: u64,
    /// Frames.
    pub frames: usize,
}

impl OutboxLimits {
    /// To a client: deliveries are bounded by its credit, answers by what it asked.
    pub const CLIENT: OutboxLimits = OutboxLimits { bytes: 16 << 20, frames: 8 << 10 };
    /// To a peer, without bodies: some of the largest raft messages.
    pub const CONTROL: OutboxLimits = OutboxLimits { bytes: 16 << 20, frames: 32 << 10 };
    /// To a peer, with bodies: what its credit permits and as much again.
    pub const CHUNKS: OutboxLimits = OutboxLimits { bytes: 32 << 20, frames: 4 << 10 };
}

const _: () = assert!(READ_AHEAD_CHUNK_BYTES >= FRAME_HEADER_BYTES && READ_AHEAD_CHUNK_BYTES <= READ_AHEAD_BYTES);
const _: () = assert!(BREATH_BYTES >= PIECE_BYTES);
const _: () = assert!(READ_AHEAD_BYTES >= FRAME_HEADER_BYTES && READ_AHEAD_BYTES <= PIECE_BYTES);
const _: () = assert!(CLIENT_META_BYTES_MAX <= READ_AHEAD_BYTES);
const _: () = assert!(OutboxLimits::CONTROL.bytes as usize >= 2 * FRAME_META_BYTES_MAX);
const _: () = assert!(OutboxLimits::CHUNKS.bytes >= 2 * proto::limits::LANE_CREDIT_BYTES);
const _: () = assert!(OutboxLimits::CLIENT.bytes as usize >= 4 * CHUNK_BYTES_MAX);
const _: () = assert!(MESH_ITEMS_MAX < MESH_ITEMS_END);

//! Bounds of what the shell of one core keeps and does in one go. Those of logic, link and the protocols are in their crates.

use std::time::Duration;

use proto::limits::{CHUNK_BYTES_MAX, DMA_BUFFER_BYTES, LANE_CREDIT_BYTES, UPLOAD_CREDIT_BYTES};

/// Inputs given to logic before its effects are carried out: small enough that a turn takes some 200 us, large enough
/// that a busy leader gathers many records into one flush.
pub const TURN_INPUTS_MAX: usize = 256;
/// A turn of the shard ends after this long; then sockets and disks are looked at. A single input may take longer.
pub const TURN_US: u64 = 200;
/// Readers of connections wait while more inputs than this are queued. Completions of operations never wait: logic bounds
/// what it asks for.
pub const QUEUED_INPUTS_MAX: usize = 2048;
/// Bytes of chunks from clients that one core holds before it stops reading from them. Beyond it the senders' own
/// sockets fill up; the credit of one client is less.
pub const CLIENT_BUFFER_BYTES: u64 = 64 << 20;
/// Bytes of chunks of one lane that one core holds before it stops reading from its links. Two full lanes can be stored at
/// a time; further ones wait in their sockets.
pub const LANE_BUFFER_BYTES: u64 = 2 * LANE_CREDIT_BYTES + (2 << 20);
/// A client whose queue falls below this is told to logic as drained: it may be given more.
pub const DRAINED_BYTES: u64 = 4 * CHUNK_BYTES_MAX as u64;
/// Bytes that wait for room in the queue of one link. Those of clients and links are bounded by the buffers they lie in;
/// this bounds what logic read from the disk to send it again.
pub const WAITING_BYTES_MAX: u64 = 256 << 20;
/// Messages that wait for room in the queue of one link: as many small chunks as fit into the buffers of a lane.
pub const WAITING_MESSAGES_MAX: usize = 16 << 10;
/// Time between two looks at the filesystem's free space.
pub const SPACE_INTERVAL: Duration = Duration::from_secs(1);
/// A node that does not stop within this time is given up: something in it waits for ever.
pub const STOP_SECONDS_MAX: u64 = 5;
/// How long answers and goodbyes may take to leave when the node stops.
pub const FAREWELL: Duration = Duration::from_millis(300);
/// How long disk operations that are under way may take to end when the node stops.
pub const OPERATIONS_END: Duration = Duration::from_secs(2);
/// Looks at its I/O that a core takes after its last task: one submits the cancellations, one sees their end, one to spare.
pub const CANCEL_TURNS: usize = 3;
/// How long a port may seem taken: the kernel gives back what a killed process had in io_uring a little after its end.
pub const BIND_PATIENCE: Duration = Duration::from_secs(1);
/// Pause between two tries to bind.
pub const BIND_PAUSE: Duration = Duration::from_millis(20);
/// Links to this node: each core of each other node may have one a lane and core.
pub const PEER_CONNECTIONS_MAX: u64 = 1 << 18;
/// Nodes whose refused links are told to the operator; of further ones only the debug log tells.
pub const REFUSALS_TOLD_MAX: usize = 64;
/// How often the thread that started the cores looks whether one of them ended.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(20);
/// Pieces in which checksums over a chunk are computed, so that no task computes for much longer than 100 us at a time.
pub const SUM_PIECE_BYTES: usize = 256 << 10;
const _: () = assert!(TURN_INPUTS_MAX <= QUEUED_INPUTS_MAX);
const _: () = assert!(CLIENT_BUFFER_BYTES >= UPLOAD_CREDIT_BYTES + DMA_BUFFER_BYTES as u64);
const _: () = assert!(LANE_BUFFER_BYTES > LANE_CREDIT_BYTES);
const _: () = assert!(SUM_PIECE_BYTES <= CHUNK_BYTES_MAX && STOP_SECONDS_MAX * 1000 > 10 * FAREWELL.as_millis() as u64);

//! Bounds of the protocols. Every queue, buffer and retry of the project has its bound here or in `logic::limits`.

/// Payload bytes of one chunk. An image is cut into chunks of exactly this size, the last one may be shorter.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;
/// Unit of O_DIRECT transfers and of the crash model.
pub const SECTOR_BYTES: usize = 512;
/// Unit of allocation in a chunk file.
pub const BLOCK_BYTES: usize = 4096;
/// Space in front of a chunk's payload, in its buffer and on disk.
pub const CHUNK_HEADER_BYTES: usize = SECTOR_BYTES;
/// One buffer holds one chunk with its header, padded to whole blocks.
pub const DMA_BUFFER_BYTES: usize = CHUNK_BYTES_MAX + BLOCK_BYTES;
/// Meta of one frame. A raft message with many entries is the largest.
pub const FRAME_META_BYTES_MAX: usize = 2 << 20;
/// Meta of one frame from a client, which sends nothing larger than a begin with many receivers.
pub const CLIENT_META_BYTES_MAX: usize = 64 << 10;
/// Body of one frame.
pub const FRAME_BODY_BYTES_MAX: usize = CHUNK_BYTES_MAX;
/// Bytes of a client name or sender name.
pub const NAME_BYTES_MAX: usize = 128;
/// Bytes of the file name that travels with an image.
pub const FILE_NAME_BYTES_MAX: usize = 255;
/// Bytes of an address, "host:port".
pub const ADDRESS_BYTES_MAX: usize = 100;
/// Bytes of a text for people. Longer ones are cut when they are sent.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Bytes of credentials in a handshake.
pub const CREDENTIALS_BYTES_MAX: usize = 4096;
/// Receivers of one image.
pub const RECEIVERS_MAX: usize = 64;
/// Nodes that hold one image's bytes.
pub const HOLDERS_MAX: usize = 7;
/// Payload of a probe record.
pub const PROBE_BYTES_MAX: usize = 1024;
/// Largest image a cluster can be configured to take.
pub const IMAGE_BYTES_MAX: u64 = 1 << 30;
/// Largest image by default.
pub const IMAGE_BYTES_MAX_DEFAULT: u64 = 64 << 20;
/// Images a session may have between its low-water mark and its newest sequence.
pub const SESSION_WINDOW: u64 = 1024;
/// Nodes of one cluster.
pub const NODES_MAX: usize = 4096;
/// Cores of one node.
pub const CORES_MAX: usize = 256;
/// Entries of one raft message.
pub const RAFT_ENTRIES_MAX: usize = 4096;
/// Bytes of entries in one raft message.
pub const RAFT_MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Bytes of a snapshot in one message.
pub const SNAPSHOT_PART_BYTES_MAX: usize = 64 << 10;
/// Bytes of the context of one raft message.
pub const RAFT_CONTEXT_BYTES_MAX: usize = 256;
/// Inboxes in one record or message of acknowledgements.
pub const ACKS_MAX: usize = 4096;
/// Records named in one record or message of lost copies.
pub const LOST_MAX: usize = 256;
/// Virtual nodes of one node on the ring.
pub const RING_POINTS_PER_NODE: u32 = 128;
/// Chunk bytes a sender may have on one connection before the node returned credit for them.
pub const UPLOAD_CREDIT_BYTES: u64 = 8 << 20;
/// Chunk bytes one lane between two cores may have in flight.
pub const LANE_CREDIT_BYTES: u64 = 16 << 20;
/// Oldest and newest protocol version this build speaks.
pub const PROTOCOL_VERSION_MIN: u16 = 1;
/// See `PROTOCOL_VERSION_MIN`.
pub const PROTOCOL_VERSION_MAX: u16 = 1;

const _: () = assert!(CHUNK_HEADER_BYTES + CHUNK_BYTES_MAX <= DMA_BUFFER_BYTES);
const _: () = assert!(DMA_BUFFER_BYTES.is_multiple_of(BLOCK_BYTES));
const _: () = assert!(BLOCK_BYTES.is_multiple_of(SECTOR_BYTES));
/// One frame fits into one buffer, else a body would have to be split while reading.
const _: () = assert!(FRAME_BODY_BYTES_MAX <= DMA_BUFFER_BYTES - CHUNK_HEADER_BYTES);
const _: () = assert!(RAFT_MESSAGE_BYTES_MAX + RAFT_ENTRIES_MAX * 64 < FRAME_META_BYTES_MAX);
const _: () = assert!(
    SNAPSHOT_PART_BYTES_MAX + 64 < FRAME_META_BYTES_MAX && SNAPSHOT_PART_BYTES_MAX.is_multiple_of(SECTOR_BYTES)
);
const _: () = assert!(UPLOAD_CREDIT_BYTES >= CHUNK_BYTES_MAX as u64);
const _: () = assert!(LANE_CREDIT_BYTES >= CHUNK_BYTES_MAX as u64);
/// All members of the largest cluster fit into one record (about 56 bytes each beside their addresses), hence into one frame.
const _: () = assert!(NODES_MAX * (2 * ADDRESS_BYTES_MAX + 56) <= RAFT_MESSAGE_BYTES_MAX);
const _: () = assert!(RECEIVERS_MAX * (NAME_BYTES_MAX + 12) + 1024 < CLIENT_META_BYTES_MAX);
const _: () = assert!(RECEIVERS_MAX * (NAME_BYTES_MAX + HOLDERS_MAX * 16 + 40) < FRAME_META_BYTES_MAX);

//! Bounds of what a shard keeps and does. The bounds of the protocols are in `proto::limits`.

/// Terms, indexes, rounds, segments, signatures, births and other counters on disk: what says more is damaged, since
/// nothing was ever counted so far. What is decoded can be added to without looking for overflow.
pub const POSITION_MAX: u64 = 1 << 62;
/// Where counting begins: terms and indexes that peers send, and a log at start. From here no life of a process is long
/// enough to come to `POSITION_MAX`, so whatever is written can be read again.
pub const POSITION_START_MAX: u64 = POSITION_MAX / 2;

/// Time between two `Input::Tick`.
pub const TICK_US: u64 = 50_000;
/// Silence after which a node is marked down, and after which a node without leader stops serving as home.
pub const DOWN_US: u64 = 600_000;
/// Inbox entries handed to a delivering core at once.
pub const INBOX_PULL_ENTRIES: usize = 64;
/// Images sent to a receiver and not yet acknowledged by it: bounds what is queued for one that does not read.
pub const DELIVERY_WINDOW: u64 = 256;
/// Chunks of one receiver being read ahead of sending.
pub const READ_AHEAD_CHUNKS: usize = 4;
/// Requests to the leader that one core has open; more are answered "busy".
pub const REQUESTS_MAX: usize = 65_536;
/// A request without an answer is sent again after this long.
pub const REQUEST_RETRY_US: u64 = 1_000_000;
/// A client's own request (register, session, probe) is answered "no leader" after this long.
pub const REQUEST_DEADLINE_US: u64 = 5_000_000;
/// Uploads that one core passes on as ingest.
pub const INGEST_UPLOADS_MAX: usize = 16_384;
/// Uploads not yet ready that one core stores as home or holder.
pub const HOME_UPLOADS_MAX: usize = 16_384;
/// Client connections of one core.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Bytes a home has under way to one further holder.
pub const HOLDER_WINDOW_BYTES: u64 = 8 << 20;
/// An upload or holder that shows no progress for this long is tried elsewhere.
pub const STALL_US: u64 = 3_000_000;
/// What was sent to a holder and not confirmed for this long is sent again.
pub const RESEND_US: u64 = 1_000_000;
/// A node that could not be reached is passed over for this long, then tried again.
pub const SUSPECT_US: u64 = 2_000_000;
/// A holder with complete bytes asks the leader itself after this long without a record.
pub const ORPHAN_US: u64 = 5_000_000;
/// Bytes found at start that no record claims are kept at least so long: a home that counted on them before this process
/// began has told the leader by then, or asked again.
pub const FOUND_IDLE_US: u64 = 60_000_000;
/// Receivers with names that are not known which may wait at once until that is sure; more try again.
pub const UNKNOWN_MAX: usize = 256;
/// A refused notice is repeated after this long.
pub const NOTICE_RETRY_US: u64 = 200_000;
/// After no log had room for a record, a home begins nothing new for this long.
pub const NO_ROOM_US: u64 = 1_000_000;
/// A fetch without an answer goes to the next holder after this long.
pub const FETCH_TIMEOUT_US: u64 = 2_000_000;
/// When no holder could serve an image, all are asked again after this long.
pub const FETCH_AGAIN_US: u64 = 500_000;
/// Bytes that a record names here and that are not here are fetched after this long: with a start they may be freed at once.
pub const REPAIR_AFTER_US: u64 = 500_000;
/// Images whose bytes are fetched again at once.
pub const REPAIRS_MAX: usize = 8;
/// Records that a leader looks through with a tick for holders of former lives.
pub const FORMER_LOOKS_MAX: usize = 4096;
/// Images that wait for it and are looked at with a tick.
pub const REPAIR_LOOKS_MAX: usize = 256;
/// Bytes of stored chunks that a core reads again with a tick, to see whether they are what was written.
pub const SCRUB_TICK_BYTES: u64 = 256 << 10;
/// What a chunk costs of that at least.
pub const SCRUB_CHUNK_BYTES_MIN: u64 = 16 << 10;
/// Bytes of the log and of snapshots that core 0 reads again with a tick, for the same reason.
pub const SCRUB_GROUP_TICK_BYTES: u32 = 256 << 10;
/// What is read of the log for it at once; more where one entry is longer.
pub const SCRUB_LOG_BYTES: u32 = 64 << 10;
/// Chunk reads that one core serves to other homes at once.
pub const FETCHES_MAX: usize = 64;
/// Chunks waiting for a chunk file to be made.
pub const WAITING_CHUNKS_MAX: usize = 4096;
/// Notices of single holders that the leader gathers.
pub const GATHERED_MAX: usize = 65_536;
/// Proposals that wait for their commit; more are answered "busy".
pub const PENDING_MAX: usize = 65_536;
/// Of those, kept for records that make images ready, acknowledge them or change the ring.
pub const PENDING_RESERVED: usize = 16_384;

const _: () = assert!(PENDING_RESERVED < PENDING_MAX);
const _: () = assert!(DOWN_US > 4 * TICK_US);
const _: () = assert!(INBOX_PULL_ENTRIES as u64 <= DELIVERY_WINDOW);
/// A node that asks to be on the ring again may lack this many records: it goes on catching up while it serves.
pub const RETURN_LAG_MAX: u64 = 10_000;
/// After proposing a change of the ring for a node, the leader waits this long before it proposes another.
pub const RING_PATIENCE_US: u64 = 300_000;
/// Between two greetings of an empty node, and two requests to be on the ring again.
pub const GREETING_US: u64 = 200_000;
/// An intent that came to nothing is forgotten after this long.
pub const INTENT_US: u64 = 600_000_000;
/// Between two looks for sessions that ended.
pub const EXPIRY_US: u64 = 60_000_000;
/// Snapshots kept: if the newest is bad, the one before and the log behind it are as good.
pub const SNAPSHOTS_KEPT: usize = 2;
/// Of those, one more as long as it is being read by a node that lags.
pub const SNAPSHOT_PINNED_US: u64 = 10_000_000;
/// Bytes of a snapshot written per tick: it leaves the disk to the log.
pub const SNAPSHOT_TICK_BYTES: u64 = 2 << 20;
/// When there was no room for a snapshot, another is begun after this long.
pub const SNAPSHOT_AGAIN_US: u64 = 10_000_000;
/// Ticks that a leader whose log went bad or has no room waits until it hands leadership over again, to another one.
pub const HAND_OVER_TICKS: u32 = 40;
/// With less room than this for its log, on a disk that gives no more, a node does not lead if another one can.
pub const LOG_ROOM_LOW_BYTES: u64 = 256 << 10;
/// Parts of snapshots that a node reads for others at once; more are asked for again.
pub const SNAPSHOT_READS_MAX: usize = 8;
/// A part of a snapshot that did not come is asked for again after this long.
pub const SNAPSHOT_ASK_US: u64 = 500_000;
/// After so many questions without an answer the snapshot is given up.
pub const SNAPSHOT_ASKS_MAX: u32 = 20;
/// Between two reports of a core.
pub const REPORT_US: u64 = 500_000;
/// Claims of records found at start that a core is told at once: what it does with them takes less than a millisecond.
pub const CLAIMS_MAX: usize = 1024;
/// Images found at start and claimed by no record that are asked after at once.
pub const UNCLAIMED_MAX: usize = 4096;
/// Between two clearings of the slots of freed extents while a store is busy: by then most were written anew. An idle
/// store clears them at once.
pub const CLEAR_SLOTS_US: u64 = 2_000_000;
/// Slot sectors cleared at once.
pub const CLEAR_SLOTS_MAX: usize = 1024;

//! Bounds of the client: how long it waits, how often it tries, how much it keeps.

use proto::limits::CHUNK_BYTES_MAX;

/// Body bytes a receiver permits ahead of what it has taken. Eight chunks keep a fast link busy while one is stored.
pub const INBOX_CREDIT_BYTES: u64 = 8 << 20;
/// A receiver raises its credit when this much of it is used up, so that small images do not cost a frame each.
pub const INBOX_CREDIT_STEP_BYTES: u64 = INBOX_CREDIT_BYTES / 4;
/// Images a receiver takes before the first of them is reported stored; beyond it, no more credit is given.
pub const INBOX_UNSTORED_MAX: usize = 256;
/// Acknowledgements leave at most this often; those between are covered by the next one.
pub const ACK_GAP_US: u64 = 2_000;
/// First wait after a failure; it doubles with each further one.
pub const BACKOFF_FIRST_US: u64 = 20_000;
/// Longest wait after a failure.
pub const BACKOFF_MAX_US: u64 = 1_000_000;
/// A quiet connection is asked for a sign of life after this time.
pub const PING_AFTER_US: u64 = 2_000_000;
/// A connection that gave no sign of life for this long after being asked is given up. A full credit window on a slow
/// line (8 MiB at 2 MB/s) must fit.
pub const SILENCE_MAX_US: u64 = 6_000_000;
/// A connection that is not there after this time is given up.
pub const CONNECT_US_MAX: u64 = 3_000_000;
/// An image without news for this long is asked after by another `Begin`.
pub const ASK_AFTER_US: u64 = 6_000_000;
/// How often a sender looks after waits and deadlines while something is unfinished.
pub const SENDER_TICK_US: u64 = 10_000;
/// A request without answer for this long is asked again, at another node. A node answers "no leader" sooner.
pub const REQUEST_AGAIN_US: u64 = 7_000_000;
/// After this many refusals in a row that may pass, without a success between, another node is tried.
pub const REFUSALS_PER_NODE_MAX: u32 = 3;
/// A receiver whose home does not answer asks another node at least this often who the home is now.
pub const HOME_LOOK_US_MAX: u64 = 100_000;
/// A sender stops going to a home that failed this often in a row,
pub const HOME_FAILURES_MAX: u32 = 3;
/// and tries it again after this time.
pub const HOME_AGAIN_US: u64 = 30_000_000;
/// A home that has not applied what a receiver waits for is asked again after this time.
pub const HOME_BEHIND_US: u64 = 10_000;
/// A receiver that asks whether there is more and hears of no leader asks again after this time.
pub const MARK_AGAIN_US: u64 = 200_000;
/// A receiver's name may be unknown at its home for this long after another node registered it.
pub const UNKNOWN_RECEIVER_GRACE_US: u64 = 2_000_000;
/// Images given to a session and not finished. Beyond it a submission is refused as busy.
pub const IMAGES_SUBMITTED_MAX: usize = 65_536;
/// Requests given to a request session and not answered.
pub const REQUESTS_MAX: usize = 4_096;
/// Images given to the blocking sender and not finished; beyond it `submit` waits.
pub const SHELL_IMAGES_MAX: usize = 4_096;
/// Frames read ahead of the session by a connection's reader.
pub const READ_AHEAD_FRAMES_MAX: usize = 64;
/// Body buffers a connection keeps for reuse: those of a full credit window.
pub const BODIES_SPARE_MAX: usize = 8;
/// Delivery frames put aside while a receiver waits for its acknowledgements only.
pub const STASH_FRAMES_MAX: usize = 4_096;
/// A write that moves nothing for this long ends the connection: nodes always read what they gave credit for.
pub const WRITE_STALL_US_MAX: u64 = 10_000_000;
/// A frame that has begun and does not go on for this long ends the connection.
pub const FRAME_STALL_US_MAX: u64 = 10_000_000;
/// Bytes gathered before a write of small frames.
pub const WRITE_BUFFER_BYTES: usize = 64 << 10;
/// Bytes asked of the socket by one read, bodies apart.
pub const READ_BUFFER_BYTES: usize = 64 << 10;
/// Addresses whose last words an error tells.
pub const TROUBLES_MAX: usize = 16;
/// Default time without progress after which an image or a request is given up.
pub const DEADLINE_DEFAULT_US: u64 = 60_000_000;
/// A probe without answer for this long ends its load.
pub const PROBE_ANSWER_US_MAX: u64 = 20_000_000;
/// After a probe was refused for now, a load sends no new one for this long.
pub const PROBE_REFUSED_WAIT_US: u64 = 10_000;
/// Probes a load keeps in flight at most.
pub const PROBES_IN_FLIGHT_MAX: usize = 16_384;

const _: () = assert!(INBOX_CREDIT_BYTES >= 2 * CHUNK_BYTES_MAX as u64);
const _: () = assert!(INBOX_CREDIT_STEP_BYTES + CHUNK_BYTES_MAX as u64 <= INBOX_CREDIT_BYTES);
const _: () = assert!(BACKOFF_FIRST_US <= BACKOFF_MAX_US && PING_AFTER_US < SILENCE_MAX_US);

//! The raft log: its bytes on disk, its judgement at start, its tail in memory.
//!
//! `layout` and `rounds` are the two formats; `walk` reads what is found at start and `recover` judges it; `log` is the
//! running log in memory, `flush` its writing side, `fetch` its reading side, `scrub` reads it again to see whether it is still
//! good, `storage` is what raft sees of it. All of it works on byte slices; whoever owns the files carries out the writes that
//! are handed to it.

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod damage_test;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod disk_model;
pub mod fetch;
pub mod flush;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod heal_test;
pub mod layout;
#[allow(clippy::module_inception, reason = "the running log is the log")]
pub mod log;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod range_test;
pub mod recover;
pub mod rounds;
mod runs;
mod scrub;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod scrub_test;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod snapshot_test;
mod storage;
mod walk;

pub use fetch::{FetchError, FetchId, LogFetch};
pub use flush::{Flushed, LogFlush};
pub use layout::{
    Bad, EntryHeader, EntryKind, Found, HeaderError, Position, Reader, Reason, SEGMENT_BYTES_DEFAULT,
    SEGMENT_BYTES_MIN, SegmentHeader, StoreId,
};
pub use log::{AppendMark, Log, LogConfig, LogStats};
pub use recover::{
    Examined, Fault, Finding, Judgement, Proof, RecoverError, RecoverInput, SnapshotMark, Trace, examine,
};
pub use rounds::{ROUNDS_BYTES, RoundRecord, Rounds};
pub use scrub::{LogRead, Rot};

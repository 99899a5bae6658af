//! The raft log: its bytes on disk, its judgement at start, its tail in memory.
//!
//! `layout` and `rounds` are the two formats, `recover` judges what is found at start, `log` is the running log and
//! raft's `Storage`. All of it works on byte slices; who owns the files carries out the writes that are handed to it.

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod disk_model;
pub mod fetch;
pub mod layout;
#[allow(clippy::module_inception, reason = "the running log is the log")]
pub mod log;
pub mod recover;
pub mod rounds;
mod runs;
mod storage;

pub use fetch::{FetchError, FetchId, LogFetch};
pub use layout::{
    Bad, EntryHeader, EntryKind, Found, HeaderError, Position, Reader, Reason, SEGMENT_BYTES_DEFAULT,
    SEGMENT_BYTES_MIN, SegmentHeader, StoreId,
};
pub use log::{AppendMark, Flushed, Log, LogConfig, LogFlush, LogStats};
pub use recover::{Examined, Fault, Finding, Judgement, Proof, RecoverError, RecoverInput, Trace, examine};
pub use rounds::{ROUNDS_BYTES, RoundRecord, Rounds};

//! All file I/O of a node: opens, maps, preallocates, reads, writes, flushes. It decides nothing.
//!
//! Two kinds of functions. *Blocking* ones open and read what is there; they run before the executors do, or on a
//! blocking thread. *Async* ones belong to one executor (core) and never block it: they await io_uring, a thread of
//! their own, or the blocking pool.
//!
//! Invariants:
//! - An `Err(io::Error)` of a write or sync is final: nothing of that file is confirmed any more, the caller ends the
//!   process, and nothing here retries (promise P6). What is expected (no space, an unreadable sector) is the inner
//!   result of an [`Outcome`].
//! - A file appears under its own name only when it is complete and durable: it is made as `*.new`, synced, renamed,
//!   and its directory synced.
//! - No file is written by O_DIRECT and through a writable map at the same time.

pub mod baseline;
mod budget;
pub mod buffers;
pub mod chunk_file_header;
pub mod chunk_files;
pub mod descriptors;
pub mod dir;
mod direct_io;
pub mod error;
pub mod log_device;
mod log_direct;
pub mod log_files;
mod log_mmap;
pub mod log_tail;
pub mod machine;
mod new_file;
#[cfg(test)]
mod no_descriptor_test;
#[cfg(test)]
mod no_space_test;
mod reading;
pub mod repair;
mod set_aside;
pub mod small_files;
pub mod snapshot_files;
#[cfg(test)]
mod test_dir;

pub use buffers::{BufferPool, ChunkBuffer};
pub use chunk_files::ChunkFiles;
pub use dir::{DataDir, DataDirView, DirError};
pub use error::Outcome;
pub use log_device::{FlushMethod, LogDevice};
pub use log_files::LogFiles;
pub use repair::Repair;
pub use small_files::SmallFiles;
pub use snapshot_files::{SnapshotFiles, SnapshotMaps};

//! Disk operations of logic: each a task that ends with its completion input.
//!
//! A failed write or sync ends the node (promise P6) and is never tried again: after it nobody can say what is on the disk.
//! What is expected, no room and unreadable sectors, goes back to logic as a result.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use disk::{ChunkBuffer, SmallFiles};
use glommio::timer::sleep;
use link::{Event, breathe};

use logic::io::{BufId, Extent, FileId, Input, LogWrite, SegmentId, Ticket};
use proto::checksum::Sums;
use proto::limits::SECTOR_BYTES;

use crate::buffers::Filled;
use crate::core::{Core, GroupFiles};
use crate::limits::{SPACE_INTERVAL, SUM_PIECE_BYTES};

type Sector = Box<[u8; SECTOR_BYTES]>;

/// `Effect::ChunkWrite`.
pub(crate) fn chunk_write(core: &Rc<Core>, ticket: Ticket, extent: Extent, buf: BufId) {
    let (used, own) = (core.buffers.use_for(buf, "stored"), core.clone());
    core.operate("chunk write", async move {
        match own.chunks.write(extent, used.chunk().clone()).await {
            Ok(()) => {
                used.set_stored();
                own.inputs.push(Input::ChunkWritten { ticket });
            }
            Err(error) => fatal(&own, "write a chunk", &error),
        }
    });
}

/// `Effect::StoreCommit`.
pub(crate) fn store_commit(core: &Rc<Core>, ticket: Ticket, slots: Vec<(FileId, u32, Sector)>, files: Vec<FileId>) {
    let own = core.clone();
    core.operate("store commit", async move {
        match own.chunks.commit(slots, files).await {
            Ok(()) => own.inputs.push(Input::StoreCommitted { ticket }),
            Err(error) => fatal(&own, "make chunks durable", &error),
        }
    });
}

/// `Effect::ChunkRead`.
pub(crate) fn chunk_read(core: &Rc<Core>, ticket: Ticket, extent: Extent, length: u32) {
    let own = core.clone();
    core.operate("chunk read", async move {
        let result = match own.chunks.read(extent).await {
            Ok(chunk) => {
                let (crc32, crc64) = sums(&chunk, length).await;
                Ok(own.buffers.add(Filled { chunk, length, crc32, crc64 }, None))
            }
            Err(error) => Err(error),
        };
        own.inputs.push(Input::ChunkRead { ticket, result });
    });
}

/// Both checksums of a payload, computed in pieces between which other work gets its turn.
async fn sums(chunk: &ChunkBuffer, length: u32) -> (u32, u64) {
    let mut sums = Sums::new();
    for (number, piece) in chunk.payload(length as usize).chunks(SUM_PIECE_BYTES).enumerate() {
        if number > 0 {
            breathe().await;
        }
        sums.update(piece);
    }
    sums.finish()
}

/// `Effect::FileCreate`.
pub(crate) fn file_create(core: &Rc<Core>, file: FileId) {
    let own = core.clone();
    core.operate("chunk file creation", async move {
        match own.chunks.create(file).await {
            Ok(result) => own.inputs.push(Input::FileCreated { file, result }),
            Err(error) => fatal(&own, "make a chunk file", &error),
        }
    });
}

/// `Effect::LogFlush`.
pub(crate) fn log_flush(core: &Rc<Core>, ticket: Ticket, drop_from: Option<SegmentId>, writes: Vec<LogWrite>) {
    let own = core.clone();
    core.operate("log flush", async move {
        let log = &group(&own).log;
        if let Some(first) = drop_from
            && let Err(error) = log.drop_from(first).await
        {
            return fatal(&own, "remove log segments that cannot be used", &error);
        }
        match log.flush(writes).await {
            Ok(()) => own.inputs.push(Input::LogFlushed { ticket }),
            Err(error) => fatal(&own, "make the log durable", &error),
        }
    });
}

/// `Effect::SegmentPrepare`.
pub(crate) fn segment_prepare(core: &Rc<Core>, segment: SegmentId, header: Sector) {
    let own = core.clone();
    core.operate("segment preparation", async move {
        match group(&own).log.prepare(segment, header).await {
            Ok(result) => own.inputs.push(Input::SegmentPrepared { segment, result }),
            Err(error) => fatal(&own, "make a log segment", &error),
        }
    });
}

/// `Effect::SegmentsRetire`.
pub(crate) fn segments_retire(core: &Rc<Core>, end: SegmentId) {
    let own = core.clone();
    core.operate("segment retirement", async move {
        if let Err(error) = group(&own).log.retire(end).await {
            fatal(&own, "recycle log segments", &error);
        }
    });
}

/// `Effect::LogRead`.
pub(crate) fn log_read(core: &Rc<Core>, ticket: Ticket, segment: SegmentId, offset: u32, length: u32) {
    let own = core.clone();
    core.operate("log read", async move {
        let result = group(&own).log.read(segment, offset, length).await;
        own.inputs.push(Input::LogRead { ticket, result });
    });
}

/// `Effect::VoteWrite`.
pub(crate) fn vote_write(core: &Core, ticket: Ticket, sector: Sector) {
    group(core).small.push(SmallWrite::Vote(ticket, sector));
}

/// `Effect::IdentityWrite`.
pub(crate) fn identity_write(core: &Core, ticket: Ticket, bytes: Vec<u8>) {
    group(core).small.push(SmallWrite::Identity(ticket, bytes));
}

/// A write of one of the small files.
pub(crate) enum SmallWrite {
    Vote(Ticket, Sector),
    Identity(Ticket, Vec<u8>),
}

/// The writes of small files that wait. They are carried out one after the other: a later vote never comes to lie below an
/// earlier one.
#[derive(Default)]
pub(crate) struct SmallWrites {
    waiting: RefCell<VecDeque<SmallWrite>>,
    filled: Event,
}

impl SmallWrites {
    fn push(&self, write: SmallWrite) {
        self.waiting.borrow_mut().push_back(write);
        self.filled.notify();
    }

    async fn next(&self) -> SmallWrite {
        self.filled.until(|| self.waiting.borrow_mut().pop_front()).await
    }
}

/// Carries out the writes of small files, on core 0.
pub(crate) async fn write_small_files(core: Rc<Core>, files: SmallFiles) {
    loop {
        let write = group(&core).small.next().await;
        let (written, done) = match write {
            SmallWrite::Vote(ticket, sector) => (files.write_vote(sector).await, Input::VoteWritten { ticket }),
            SmallWrite::Identity(ticket, bytes) => {
                (files.write_identity(bytes).await, Input::IdentityWritten { ticket })
            }
        };
        match written {
            Ok(()) => core.inputs.push(done),
            Err(error) => return fatal(&core, "make term and vote or the identity durable", &error),
        }
    }
}

/// Measures the room on the filesystem from time to time.
pub(crate) async fn watch_space(core: Rc<Core>) {
    let mut lacks_descriptors = false;
    loop {
        sleep(SPACE_INTERVAL).await;
        match core.chunks.room().await {
            Ok(room) => {
                let has_none = room.files == 0;
                if has_none && !lacks_descriptors {
                    tracing::warn!(
                        core = core.me.core.0,
                        "no further chunk file may be opened, and images are refused once those there are full: raise the \
                         limit of open files with `ulimit -n` or `LimitNOFILE=`"
                    );
                }
                lacks_descriptors = has_none;
                core.inputs.push(Input::Space { room });
            }
            Err(error) => tracing::error!(core = core.me.core.0, %error, "free space cannot be read"),
        }
    }
}

pub(crate) fn group(core: &Core) -> &GroupFiles {
    core.group.as_ref().expect("only core 0 has a log, and only its logic asks for it")
}

pub(crate) fn fatal(core: &Core, what: &str, error: &io::Error) {
    core.fail(format!(
        "cannot {what}: {error}; nothing after it was confirmed. Check the disk (`dmesg`), then start the node again"
    ));
}

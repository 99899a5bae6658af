//! Old entries on their way from a segment to raft.
//!
//! Raft asks for entries that are no longer in memory when a follower lags. The answer is "not now", the request is noted
//! here, the shell reads the stretch, and raft asks again. A request that does not fit is forgotten: raft repeats it with
//! the follower's next heartbeat.

use std::cell::RefCell;
use std::collections::VecDeque;

use proto::ids::LogIndex;
use raft::GetEntriesContext;
use raft::eraftpb::Entry;

use crate::io::{DiskError, SegmentId};
use crate::log::layout::{EntryCodec, EntryKind, Position, Reason};
use crate::log::runs::{Runs, Stretch};

/// Stretches read at the same time.
pub const FETCHES_RUNNING_MAX: usize = 4;
/// Stretches waiting to be read: about one for each lagging follower.
pub const FETCHES_WAITING_MAX: usize = 64;
/// Requests that wait for one stretch.
const CONTEXTS_MAX: usize = 64;
/// About what is read at once; a little more where one entry is long.
const FETCH_BYTES: u32 = 1 << 20;
/// Stretches kept after they were read.
const KEPT_MAX: usize = 16;

/// Names one read; its completion carries it. Never given twice in one process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FetchId(pub u64);

/// A stretch of a segment to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogFetch {
    /// For `Log::on_fetched`.
    pub id: FetchId,
    /// Which segment.
    pub segment: SegmentId,
    /// From where.
    pub offset: u32,
    /// How much.
    pub length: u32,
}

/// Old entries could not be had from the disk. They were there once, so the disk rots; nothing lost them but it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FetchError {
    /// The device could not read.
    #[error("{at} cannot be read: {error:?}")]
    Device {
        /// Where the read began.
        at: Position,
        /// What the device said.
        error: DiskError,
    },
    /// What was read is not what was written.
    #[error("entry at {at} went bad ({reason})")]
    Entry {
        /// Where.
        at: Position,
        /// Why it is no entry.
        reason: Reason,
    },
    /// What was read is intact but another entry.
    #[error("{at} holds entry {found}, expected {expected}")]
    Index {
        /// Where.
        at: Position,
        /// What was expected.
        expected: LogIndex,
        /// What is there.
        found: LogIndex,
    },
}

impl FetchError {
    /// Where.
    pub fn at(self) -> Position {
        match self {
            FetchError::Device { at, .. } | FetchError::Entry { at, .. } | FetchError::Index { at, .. } => at,
        }
    }
}

struct Request {
    low: u64,
    contexts: Vec<GetEntriesContext>,
}

struct Running {
    id: FetchId,
    stretch: Stretch,
    request: Request,
}

/// Entries read from a segment: `first..first + entries.len()`.
struct Kept {
    first: u64,
    entries: Vec<Entry>,
}

/// Requests and what was read for them. Raft holds the log by shared reference while it asks, hence the cells.
#[derive(Default)]
pub(super) struct Fetches {
    waiting: RefCell<VecDeque<Request>>,
    running: RefCell<Vec<Running>>,
    kept: VecDeque<Kept>,
    last_id: u64,
}

impl Fetches {
    /// Entries from `low` on, below `high`, if they were read before.
    pub fn kept(&self, low: u64, high: u64) -> Option<&[Entry]> {
        let kept = self.kept.iter().find(|kept| (kept.first..kept.first + kept.entries.len() as u64).contains(&low))?;
        let begin = (low - kept.first) as usize;
        let end = ((high - kept.first) as usize).min(kept.entries.len());
        Some(&kept.entries[begin..end])
    }

    /// Notes that raft wants entries from `low` on.
    pub fn request(&self, low: u64, context: GetEntriesContext) {
        let mut running = self.running.borrow_mut();
        let mut waiting = self.waiting.borrow_mut();
        let covers = |running: &&mut Running| running.stretch.first <= low && low <= running.request.low;
        let room = waiting.len() < FETCHES_WAITING_MAX;
        let mut requests = running
            .iter_mut()
            .find(covers)
            .map(|running| &mut running.request)
            .into_iter()
            .chain(waiting.iter_mut().filter(|request| request.low == low));
        if let Some(request) = requests.next() {
            if request.contexts.len() < CONTEXTS_MAX {
                request.low = low;
                request.contexts.push(context);
            }
            return;
        }
        drop(requests);
        if room {
            waiting.push_back(Request { low, contexts: vec![context] });
        }
    }

    /// The next stretch to read, of entries below `end`.
    pub fn take(&mut self, runs: &Runs, end: u64) -> Option<LogFetch> {
        let running = self.running.get_mut();
        if running.len() >= FETCHES_RUNNING_MAX {
            return None;
        }
        let request = self.waiting.get_mut().pop_front()?;
        let stretch = runs.stretch(request.low, FETCH_BYTES).expect("what is not in memory is in a segment");
        let stretch = Stretch { last: stretch.last.min(end - 1), ..stretch };
        assert!(request.low <= stretch.last, "entry {} was asked for and is in memory from {end}", request.low);
        self.last_id += 1;
        let id = FetchId(self.last_id);
        running.push(Running { id, stretch, request });
        Some(LogFetch { id, segment: stretch.segment, offset: stretch.offset, length: stretch.length })
    }

    /// Entries up to `index` are forgotten: whoever asked for them asks again, and is told so.
    pub fn drop_upto(&mut self, index: u64) {
        self.waiting.get_mut().retain(|request| request.low > index);
        self.kept.retain(|kept| kept.first > index);
    }

    /// Takes what was read; gives back who asked. `codec` belongs to the segment of the fetch; none if that was forgotten
    /// meanwhile.
    pub fn finish(
        &mut self,
        id: FetchId,
        bytes: Result<&[u8], DiskError>,
        codec: impl FnOnce(SegmentId) -> Option<EntryCodec>,
    ) -> Result<Vec<GetEntriesContext>, FetchError> {
        let running = self.running.get_mut();
        let at = running.iter().position(|running| running.id == id).expect("a fetch is finished once");
        let Running { stretch, request, .. } = running.swap_remove(at);
        let at = Position { segment: stretch.segment, offset: stretch.offset };
        let Some(codec) = codec(stretch.segment) else { return Ok(request.contexts) };
        let bytes = bytes.map_err(|error| FetchError::Device { at, error })?;
        let entries = decode(stretch, bytes, codec, request.low)?;
        if self.kept.len() == KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(Kept { first: request.low, entries });
        Ok(request.contexts)
    }

    /// Bytes of payload kept.
    pub fn kept_bytes(&self) -> u64 {
        self.kept.iter().flat_map(|kept| &kept.entries).map(|entry| entry.data.len() as u64).sum()
    }
}

/// The entries of `stretch` from `low` on.
fn decode(stretch: Stretch, bytes: &[u8], codec: EntryCodec, low: u64) -> Result<Vec<Entry>, FetchError> {
    let (mut entries, mut offset, mut expected) = (Vec::new(), 0u32, stretch.first);
    while (offset as usize) < bytes.len() && expected <= stretch.last {
        let at = Position { segment: stretch.segment, offset: stretch.offset + offset };
        let found = codec.decode(bytes, offset).map_err(|reason| FetchError::Entry { at, reason })?;
        let header = found.header;
        if header.index.0 != expected || header.kind != EntryKind::Record {
            return Err(FetchError::Index { at, expected: LogIndex(expected), found: header.index });
        }
        if expected >= low {
            let data = found.payload.to_vec().into();
            entries.push(Entry { term: header.term.0, index: expected, data, ..Entry::default() });
        }
        expected += 1;
        offset = found.next;
    }
    // The stretch reaches beyond `low` (`Runs::stretch`), so less means that the device gave less.
    if expected <= low {
        let at = Position { segment: stretch.segment, offset: stretch.offset + offset };
        return Err(FetchError::Entry { at, reason: Reason::Room { bytes: u64::from(stretch.length) } });
    }
    Ok(entries)
}

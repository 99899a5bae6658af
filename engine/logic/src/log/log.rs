//! The running log: its tail in memory, what waits to be flushed, where everything lies.
//!
//! ```text
//!            1 ........ tail.front ........ applied ..... pending ........ last
//! segments   [========================================)
//! memory                [====================================================]
//!                                                        [-- next flush ----]
//! ```
//! Raft's `Storage` must answer at once for all that was appended, so entries are in memory from `append` on, and leave it
//! only when they are applied, durable and beyond the cache's bound. One flush is under way at most; everything appended
//! meanwhile waits for the next one (group commit).
//!
//! Invariants: truncated <= applied <= last; durable <= last; the tail is without gap and ends at last; every entry above
//! min(applied, durable) is in it; every entry below `pending` is in `runs`.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};

use proto::ids::{LogIndex, NodeId, Term};
use raft::eraftpb::{ConfState, Entry, EntryType, HardState};

use crate::io::{DiskError, LogFile, LogWrite, SegmentId};
use crate::limits::POSITION_MAX;
use crate::log::fetch::{FetchError, FetchId, Fetches, LogFetch};
use crate::log::flush::{Flight, Next};
use crate::log::layout::{
    EntryCodec, PAYLOAD_BYTES_MAX, Position, Reader, SEAL_BYTES, SEGMENT_BYTES_MIN, SEGMENT_HEADER_BYTES,
    SegmentHeader, StoreId, entry_bytes,
};
use crate::log::recover::{Examined, Finding, Judgement, RecoverError, RecoverInput, SnapshotMark, examine};
use crate::log::rounds::{ROUNDS_SLOTS, RoundRecord};
use crate::log::runs::{Runs, Terms};
use crate::log::scrub::Scrub;
use crate::mutant::Mutant;
use crate::vote::Healing;

/// Bytes of applied entries kept in memory for followers that lag a little.
pub const CACHE_BYTES_MAX: usize = 16 << 20;
/// What an entry in memory costs beside its payload.
const ENTRY_OVERHEAD_BYTES: usize = 160;

/// What the log is told about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// Whose log it is.
    pub store: StoreId,
    /// Bytes of new segments: whole sectors, at least `SEGMENT_BYTES_MIN`.
    pub segment_bytes: u32,
    /// A wrong decision, or none.
    pub(crate) mutant: Mutant,
}

impl LogConfig {
    /// For the log of `store`.
    pub fn new(store: StoreId, segment_bytes: u32) -> LogConfig {
        LogConfig { store, segment_bytes, mutant: Mutant::None }
    }
}

/// Counts the calls of `append` that appended something. The first is 1; 0 is "none".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct AppendMark(pub u64);

/// Figures for the status.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogStats {
    /// Segments, the prepared one included.
    pub segments: u64,
    /// Bytes of entries in the segments, framing and replaced entries included; about, once the beginning was recycled.
    pub entry_bytes: u64,
    /// First entry that is still there.
    pub first: LogIndex,
    /// Last entry.
    pub last: LogIndex,
    /// Last durable entry.
    pub durable: LogIndex,
    /// Last flush round.
    pub round: u64,
    /// Bytes of entries in memory.
    pub cache_bytes: u64,
}

/// The log of one node. Owned by raft as its `Storage`.
pub struct Log {
    pub(super) config: LogConfig,
    pub(super) judgement: Judgement,
    pub(super) initial: (HardState, ConfState),
    // Index and term before the first entry; (0, 0) as long as all are there.
    pub(super) truncated: (u64, u64),
    pub(super) last: u64,
    pub(super) tail: VecDeque<Entry>,
    pub(super) tail_bytes: usize,
    pub(super) terms: Terms,
    pub(super) fetches: Fetches,
    pub(super) scrub: Scrub,
    pub(super) runs: Runs,
    // All segments up to the active one, which may be missing if it has to be made anew.
    pub(super) segments: Vec<SegmentHeader>,
    pub(super) commit: u64,
    pub(super) applied: u64,
    pub(super) durable: u64,
    // First entry that no flush took yet.
    pub(super) pending: u64,
    pub(super) mark: AppendMark,
    // Appends of which no flush took everything yet, with the index up to which one must.
    pub(super) marks: VecDeque<(AppendMark, u64)>,
    // Everything appended up to this is durable. settled <= mark
    pub(super) settled: AppendMark,
    pub(super) mend: Vec<LogWrite>,
    // Segments from here on are removed when it is mended.
    pub(super) drop_from: Option<SegmentId>,
    pub(super) flight: Option<Flight>,
    pub(super) next: Next,
    // Where the next entry goes, and up to where everything is durable.
    pub(super) end: Position,
    pub(super) durable_end: Position,
    // The entry that was written last, replaced or not.
    pub(super) written: (u64, u64),
    pub(super) round: u64,
    pub(super) durable_round: u64,
    // What a flush under way numbers itself with.
    pub(super) round_next: u64,
    pub(super) signature_next: u64,
    pub(super) entry_bytes: u64,
    // Bytes of entries written by this process.
    pub(super) written_bytes: u64,
    // Nodes that lack entries which are not here any more. raft holds the log by shared reference while it asks.
    pub(super) wanted: RefCell<BTreeSet<u64>>,
}

impl Log {
    /// Reads what is on disk, judges it, and hands every entry behind the last snapshot and up to the commit hint to
    /// `on_committed`, in order.
    ///
    /// On return raft can start with `applied` = `commit`. The files must have been synced by whoever opened them: raft
    /// takes all that it finds for durable. If `needs_mending`, the first `take_flush` must be durable before anything else
    /// happens: no message in or out, no tick.
    pub fn recover(
        input: RecoverInput<'_>,
        mut on_committed: impl FnMut(LogIndex, Term, &[u8]),
    ) -> Result<Log, RecoverError> {
        let config = input.config;
        assert!(config.segment_bytes >= SEGMENT_BYTES_MIN, "segments of {} bytes", config.segment_bytes);
        assert!(config.segment_bytes.is_multiple_of(SEGMENT_HEADER_BYTES), "whole sectors");
        let examined = examine(&input)?;
        let mut log = Log::from_examined(&examined, config);
        log.replay(&examined, &mut on_committed);
        log.check_invariants();
        Ok(log)
    }

    /// What was found to be missing.
    pub fn lost(&self) -> Healing {
        match self.judgement {
            Judgement::Clean | Judgement::Torn(_) => Healing::Whole,
            Judgement::Uncertain(_) if self.config.mutant.is(Mutant::TruncateUncertain) => Healing::Whole,
            Judgement::Rot(_) if self.config.mutant.is(Mutant::TruncateRot) => Healing::Whole,
            Judgement::Uncertain(_) => Healing::Uncertain,
            Judgement::Rot(_) => Healing::Rot,
        }
    }

    /// Where it lacks something, and the evidence.
    pub fn finding(&self) -> Option<Finding> {
        match self.judgement {
            Judgement::Uncertain(finding) | Judgement::Rot(finding) => Some(finding),
            Judgement::Clean | Judgement::Torn(_) => None,
        }
    }

    fn from_examined(examined: &Examined<'_>, config: LogConfig) -> Log {
        let mut segments: Vec<SegmentHeader> = examined.readers.iter().map(|reader| *reader.header()).collect();
        // At most one is behind the active one: it was prepared ahead.
        let next = if segments.last().is_some_and(|last| last.segment > examined.end.segment) {
            segments.pop().map_or(Next::Wanted, Next::Ready)
        } else {
            Next::Wanted
        };
        assert!(segments.last().is_none_or(|active| active.segment <= examined.end.segment), "{segments:?}");
        let last = examined.last.0.0;
        Log {
            config,
            judgement: examined.judgement,
            initial: (HardState::default(), ConfState::default()),
            truncated: (examined.truncated.index.0, examined.truncated.term.0),
            last,
            tail: VecDeque::new(),
            tail_bytes: 0,
            terms: examined.terms.clone(),
            fetches: Fetches::default(),
            scrub: Scrub::new(examined.replaced_upto),
            runs: examined.runs.clone(),
            segments,
            commit: examined.commit.0,
            applied: examined.commit.0,
            durable: last,
            pending: last + 1,
            mark: AppendMark(0),
            marks: VecDeque::new(),
            settled: AppendMark(0),
            mend: examined.mend.clone(),
            drop_from: examined.drop_from,
            flight: None,
            next,
            end: examined.end,
            durable_end: examined.end,
            written: (last, examined.last.1.0),
            round: examined.round,
            durable_round: examined.round,
            round_next: examined.round_next,
            signature_next: examined.signature_next,
            entry_bytes: examined.entry_bytes,
            written_bytes: 0,
            wanted: RefCell::default(),
        }
    }

    /// Gives the committed entries to the state machine and fills the tail.
    fn replay(&mut self, examined: &Examined<'_>, on_committed: &mut impl FnMut(LogIndex, Term, &[u8])) {
        let mut index = self.truncated.0.max(examined.snapshot.0) + 1;
        while index <= self.last {
            let stretch = self.runs.stretch(index, u32::MAX).expect("every entry was given a position");
            let is_its = |reader: &&Reader<'_>| reader.header().segment == stretch.segment;
            let reader = examined.readers.iter().find(is_its).expect("the entry was read from it");
            let mut offset = stretch.offset;
            let mut here = stretch.first;
            while here <= stretch.last {
                let found = reader.entry(offset).expect("the entry was read a moment ago");
                assert_eq!(found.header.index.0, here, "entry at {offset} of segment {}", stretch.segment.0);
                if here >= index {
                    self.take_replayed(here, found.header.term, found.payload, on_committed);
                }
                offset = found.next;
                here += 1;
            }
            index = here;
        }
    }

    fn take_replayed(
        &mut self,
        index: u64,
        term: Term,
        payload: &[u8],
        on_committed: &mut impl FnMut(LogIndex, Term, &[u8]),
    ) {
        if index <= self.commit {
            on_committed(LogIndex(index), term, payload);
        }
        let entry = Entry { term: term.0, index, data: payload.to_vec().into(), ..Entry::default() };
        self.tail_bytes += cost(&entry);
        self.tail.push_back(entry);
        self.shrink_below(index + 1);
    }

    /// How the log was found.
    pub fn judgement(&self) -> Judgement {
        self.judgement
    }

    /// Until the flush of `take_flush` is done, nothing else may happen: neither messages nor ticks.
    pub fn needs_mending(&self) -> bool {
        !self.mend.is_empty() || self.drop_from.is_some() || matches!(self.flight, Some(Flight::Mend))
    }

    /// Term, vote, voters and learners, for `Storage::initial_state`. Set before raft starts.
    pub fn set_initial_state(&mut self, term: Term, voted: NodeId, conf_state: ConfState) {
        self.initial = (HardState { term: term.0, vote: voted.0, ..HardState::default() }, conf_state);
    }

    /// What raft starts with.
    pub(super) fn start_state(&self) -> (HardState, ConfState) {
        let (hard_state, conf_state) = self.initial.clone();
        (HardState { commit: self.commit().0, ..hard_state }, conf_state)
    }

    /// Payload that fits into one entry. Whoever takes records from outside refuses longer ones.
    pub fn payload_bytes_max(&self) -> u32 {
        let of_next = match &self.next {
            Next::Asked(header) | Next::Ready(header) => header.segment_bytes,
            Next::Wanted | Next::Refused => u32::MAX,
        };
        payload_bytes_max(self.config.segment_bytes.min(of_next))
    }

    /// Appends entries from raft, replacing everything at and above the index of the first.
    ///
    /// On return they are in memory, so that `Storage` answers for them, and wait for the next flush; nothing is durable.
    /// `commit` is what raft knows to be committed, kept as a hint.
    pub fn append(&mut self, entries: &[Entry], commit: u64) -> AppendMark {
        self.commit = self.commit.max(commit);
        let Some(first) = entries.first() else { return self.mark };
        assert!(self.applied < first.index && first.index <= self.last + 1, "{} after {}", first.index, self.last);
        if first.index <= self.last {
            self.truncate(first.index);
        }
        for entry in entries {
            assert_eq!(entry.index, self.last + 1, "entries without a gap");
            assert!(entry.term <= POSITION_MAX, "term {}", entry.term);
            assert!(entry.entry_type == EntryType::EntryNormal && entry.context.is_empty(), "only records are logged");
            assert!(entry.data.len() <= self.payload_bytes_max() as usize, "payload of {} bytes", entry.data.len());
            self.last = entry.index;
            self.terms.push(entry.index, entry.term);
            self.tail_bytes += cost(entry);
            self.tail.push_back(entry.clone());
        }
        self.mark.0 += 1;
        // What was replaced is settled together with what replaced it.
        for (_, last) in self.marks.iter_mut().filter(|(_, last)| *last >= first.index) {
            *last = self.last;
        }
        self.marks.push_back((self.mark, self.last));
        self.mark
    }

    /// Forgets entries at and above `index`, in memory. On disk the ones appended next replace them.
    fn truncate(&mut self, index: u64) {
        assert!(index > self.applied && index > self.truncated.0, "truncation at {index}, applied {}", self.applied);
        while self.tail.back().is_some_and(|entry| entry.index >= index) {
            let entry = self.tail.pop_back().expect("there is a last one");
            self.tail_bytes -= cost(&entry);
        }
        self.runs.cut(index);
        self.scrub.note_replaced(self.last);
        self.last = index - 1;
        self.durable = self.durable.min(self.last);
        self.pending = self.pending.min(index);
        if let Some(Flight::Round { last, .. }) = &mut self.flight {
            *last = (*last).min(self.last);
        }
    }

    /// Notes what raft knows to be committed, for the hint in entries written from now on.
    pub fn set_commit(&mut self, commit: u64) {
        assert!(commit <= self.last, "commit {commit} last {}", self.last);
        self.commit = self.commit.max(commit);
    }

    /// Notes up to where entries are applied (what raft was told by `advance_apply_to`): they may leave memory.
    pub fn set_applied(&mut self, index: u64) {
        assert!(self.applied <= index && index <= self.last, "applied {} then {index}", self.applied);
        self.applied = index;
        self.shrink_below(self.pending);
    }

    /// The commit hint: what raft may start with.
    pub fn commit(&self) -> LogIndex {
        LogIndex(self.commit.min(self.last))
    }

    /// The last entry that is durable here.
    pub fn durable(&self) -> LogIndex {
        LogIndex(self.durable)
    }

    /// Old entries that raft asked for and that have to be read.
    pub fn take_fetch(&mut self) -> Option<LogFetch> {
        // What is in memory is perhaps not in the segments yet.
        self.fetches.take(&self.runs, self.tail_first())
    }

    /// What was read for a fetch. Every context goes to `on_entries_fetched`, whereupon raft asks again and is answered.
    pub fn on_fetched(
        &mut self,
        id: FetchId,
        bytes: Result<&[u8], DiskError>,
    ) -> Result<Vec<raft::GetEntriesContext>, FetchError> {
        let segments = &self.segments;
        let header_of = |segment| segments.iter().find(|header| header.segment == segment);
        let fetched = self.fetches.finish(id, bytes, |segment| header_of(segment).map(EntryCodec::new));
        match &fetched {
            // Whoever asked asks again.
            Ok(_) | Err(FetchError::Device { error: DiskError::Refused, .. }) => {}
            Err(error) => self.note_rot(error.at(), error),
        }
        fetched
    }

    /// Forgets entries up to `index`, which are applied, durable, and in the snapshots that are kept. Gives the first
    /// segment that is still needed, if there is one before it.
    pub fn compact(&mut self, index: LogIndex) -> Option<SegmentId> {
        assert!(
            index.0 <= self.applied && index.0 <= self.durable,
            "{index} applied {} durable {}",
            self.applied,
            self.durable
        );
        if index.0 <= self.truncated.0 {
            return None;
        }
        let term = self.term_of(index.0).expect("an applied entry that is there has a term");
        self.truncated = (index.0, term);
        self.runs.drop_upto(index.0);
        self.terms.drop_upto(index.0);
        self.fetches.drop_upto(index.0);
        self.scrub.drop_upto(index);
        let first = self.runs.first_segment().unwrap_or(self.end.segment);
        let before = self.segments.len();
        self.segments.retain(|header| header.segment >= first);
        self.entry_bytes = self.bytes_behind(index);
        (self.segments.len() < before).then_some(first)
    }

    /// The log as it is after a snapshot of another node took the place of everything in it: it begins anew behind that,
    /// and with a mending. Nothing is under way.
    pub fn install(&self, snapshot: SnapshotMark) -> Log {
        let (index, term) = (snapshot.index.0, snapshot.term.0);
        assert!(self.is_quiet() && !self.needs_mending(), "{:?}", self.flight);
        assert!(index > self.commit().0, "snapshot {index} commit {}", self.commit());
        let spare = match &self.next {
            Next::Ready(header) => Some(header.segment),
            _ => None,
        };
        let there = || self.segments.iter().map(|header| header.segment).chain(spare);
        let last = there().max().unwrap_or(self.end.segment);
        let (drop_from, end) = (there().min(), Position::first(SegmentId(last.0 + 1)));
        // Nothing may speak of what was there.
        let first = self.round_next.saturating_sub(ROUNDS_SLOTS).max(1);
        let void = |round| RoundRecord { round, durable: 0, start: end, end, signature: 0 };
        let mend = (first..self.round_next).map(void).map(|record| {
            let bytes = record.encode(self.config.store).to_vec();
            LogWrite { file: LogFile::Rounds, offset: record.offset(), bytes }
        });
        let mend = mend.collect();
        Log {
            config: self.config,
            judgement: self.judgement,
            initial: (HardState::default(), ConfState::default()),
            truncated: (index, term),
            last: index,
            tail: VecDeque::new(),
            tail_bytes: 0,
            terms: Terms::default(),
            fetches: Fetches::default(),
            scrub: Scrub::new(0),
            runs: Runs::default(),
            segments: Vec::new(),
            commit: index,
            applied: index,
            durable: index,
            pending: index + 1,
            mark: AppendMark(0),
            marks: VecDeque::new(),
            settled: AppendMark(0),
            mend,
            drop_from,
            flight: None,
            next: Next::Wanted,
            end,
            durable_end: end,
            written: (index, term),
            round: 0,
            durable_round: 0,
            round_next: self.round_next,
            signature_next: self.signature_next,
            entry_bytes: 0,
            written_bytes: self.written_bytes,
            wanted: RefCell::default(),
        }
    }

    /// Bytes of entries that this process wrote.
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// About how many bytes of the segments lie behind the entry at `index`.
    pub fn bytes_behind(&self, index: LogIndex) -> u64 {
        let next = index.0.max(self.truncated.0) + 1;
        let Some(stretch) = self.runs.stretch(next, 1) else { return 0 };
        let segments = self.end.segment.0 - stretch.segment.0;
        (segments * u64::from(self.config.segment_bytes) + u64::from(self.end.offset))
            .saturating_sub(u64::from(stretch.offset))
    }

    /// Nodes for which raft asked for entries that are not here any more.
    pub fn take_wanted(&mut self) -> BTreeSet<u64> {
        std::mem::take(self.wanted.get_mut())
    }

    /// Whether nothing of the log is being written or prepared.
    pub fn is_quiet(&self) -> bool {
        self.flight.is_none() && !matches!(self.next, Next::Asked(_))
    }

    /// Figures for the status.
    pub fn stats(&self) -> LogStats {
        LogStats {
            segments: self.segments.len() as u64 + u64::from(matches!(self.next, Next::Ready(_))),
            entry_bytes: self.entry_bytes,
            first: LogIndex(self.truncated.0 + 1),
            last: LogIndex(self.last),
            durable: LogIndex(self.durable),
            round: self.round,
            cache_bytes: self.tail_bytes as u64 + self.fetches.kept_bytes(),
        }
    }

    /// The term of an entry that is there, or of the place before the first.
    pub(super) fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.truncated.0 {
            return Some(self.truncated.1);
        }
        if index < self.truncated.0 || index > self.last { None } else { self.terms.get(index) }
    }

    /// An entry, if it is in memory.
    pub(crate) fn in_memory(&self, index: u64) -> Option<&Entry> {
        self.tail.get(index.checked_sub(self.tail_first())? as usize)
    }

    /// Index of the first entry in memory.
    pub(super) fn tail_first(&self) -> u64 {
        self.last + 1 - self.tail.len() as u64
    }

    /// Drops entries from memory down to the bound: applied, durable, and below `end`.
    pub(super) fn shrink_below(&mut self, end: u64) {
        let end = end.min(self.applied + 1).min(self.durable + 1);
        while self.tail_bytes > CACHE_BYTES_MAX && self.tail.front().is_some_and(|entry| entry.index < end) {
            let entry = self.tail.pop_front().expect("there is a first one");
            self.tail_bytes -= cost(&entry);
        }
    }

    /// Checks what must always hold; scans the tail.
    pub fn check_invariants(&self) {
        assert!(self.truncated.0 <= self.applied && self.applied <= self.last, "{} {}", self.applied, self.last);
        assert!(self.durable <= self.last && self.pending <= self.last + 1, "{} {}", self.durable, self.pending);
        assert!(self.tail_first() <= self.applied.min(self.durable) + 1, "tail begins at {}", self.tail_first());
        assert!(self.tail_first() <= self.pending, "pending {} tail {}", self.pending, self.tail_first());
        assert_eq!(self.tail_bytes, self.tail.iter().map(cost).sum::<usize>());
        for (at, entry) in self.tail.iter().enumerate() {
            assert_eq!(entry.index, self.tail_first() + at as u64);
            assert_eq!(Some(entry.term), self.terms.get(entry.index));
        }
        assert!(self.durable_end <= self.end && self.durable_round <= self.round && self.round < self.round_next);
    }
}

/// Payload that fits into an entry of a segment of that size.
const fn payload_bytes_max(segment_bytes: u32) -> u32 {
    let room = segment_bytes - SEGMENT_HEADER_BYTES - SEAL_BYTES - entry_bytes(0);
    if room < PAYLOAD_BYTES_MAX { room } else { PAYLOAD_BYTES_MAX }
}

/// What an entry takes in memory.
fn cost(entry: &Entry) -> usize {
    entry.data.len() + ENTRY_OVERHEAD_BYTES
}

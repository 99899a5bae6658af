//! The writing side of the log: puts what waits into rounds, rolls over to the next segment, asks for segments ahead.
//!
//! ```text
//! a round  [rest of the active segment: entries ... seal][next segment: entries ...]  [its identifier]
//! ```
//! A round goes into at most two segments. It takes as much of what waits as fits; usually all. The identifier is the last
//! write of a flush: whoever carries out the writes one after the other by a copy into memory keeps that order, so that a
//! killed process does not leave an identifier without its entries.

use proto::ids::{LogIndex, Term};
use raft::eraftpb::Entry;

use crate::io::{DiskError, LogFile, LogWrite, SegmentId};
use crate::log::layout::{
    EntryCodec, EntryHeader, EntryKind, PAYLOAD_BYTES_MAX, Position, SEAL_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader,
    entry_bytes,
};
use crate::log::log::{AppendMark, Log};
use crate::log::rounds::RoundRecord;

/// Bytes of entries in one flush. What is more waits for the next one, so that one flush never takes long.
pub const FLUSH_BYTES_MAX: u32 = 4 << 20;
const _: () = assert!(PAYLOAD_BYTES_MAX < FLUSH_BYTES_MAX);

/// One flush: all of it durable, or the process ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogFlush {
    /// For `on_flushed`.
    pub round: u64,
    /// Segments from here on are removed first.
    pub drop_from: Option<SegmentId>,
    /// What to write where. Writes do not overlap; offsets and lengths are not aligned.
    pub writes: Vec<LogWrite>,
}

/// What a finished flush made durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Flushed {
    /// Everything appended up to this call is durable (or was replaced by something durable).
    pub upto: AppendMark,
    /// The last durable entry.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
}

/// The flush under way.
#[derive(Debug)]
pub(super) enum Flight {
    Mend,
    // `last` sinks when what is being flushed is replaced meanwhile.
    Round { last: u64, upto: AppendMark, end: Position, rolled: bool },
}

/// The segment after the active one.
#[derive(Debug)]
pub(super) enum Next {
    Wanted,
    Asked(SegmentHeader),
    Ready(SegmentHeader),
    Refused,
}

/// What the next flush takes.
struct Plan {
    entries: usize,
    bytes: u32,
    // The seal goes before this entry.
    roll: Option<usize>,
}

impl Log {
    /// Takes all that waits as one flush. `None` while a flush is under way, if nothing waits, or if there is no room until
    /// the next segment is prepared.
    pub fn take_flush(&mut self) -> Option<LogFlush> {
        if self.flight.is_some() {
            return None;
        }
        if self.needs_mending() {
            self.flight = Some(Flight::Mend);
            let (drop_from, writes) = (self.drop_from.take(), std::mem::take(&mut self.mend));
            return Some(LogFlush { round: self.round, drop_from, writes });
        }
        let plan = self.plan()?;
        let rolled = plan.roll.is_some();
        let (writes, last) = self.encode(&plan);
        let mut upto = self.settled;
        while let Some((mark, _)) = self.marks.front().copied().filter(|(_, index)| *index <= last) {
            upto = mark;
            self.marks.pop_front();
        }
        self.flight = Some(Flight::Round { last, upto, end: self.end, rolled });
        Some(LogFlush { round: self.round, drop_from: None, writes })
    }

    /// How much of what waits goes into the next flush.
    fn plan(&self) -> Option<Plan> {
        let active = self.active_there()?;
        let mut plan = Plan { entries: 0, bytes: 0, roll: None };
        let mut room = (active.segment_bytes - SEAL_BYTES).saturating_sub(self.end.offset);
        for entry in self.waiting() {
            let bytes = entry_bytes(entry.data.len() as u32);
            if plan.entries > 0 && plan.bytes + bytes > FLUSH_BYTES_MAX {
                break;
            }
            if bytes > room {
                match &self.next {
                    Next::Ready(next) if plan.roll.is_none() => {
                        plan.roll = Some(plan.entries);
                        room = next.segment_bytes - SEAL_BYTES - SEGMENT_HEADER_BYTES;
                        assert!(bytes <= room, "an entry of {bytes} bytes fits into a segment");
                    }
                    _ => break,
                }
            }
            room -= bytes;
            plan.bytes += bytes;
            plan.entries += 1;
        }
        (plan.entries > 0).then_some(plan)
    }

    /// Entries that no flush took yet.
    fn waiting(&self) -> impl Iterator<Item = &Entry> {
        let count = (self.last + 1 - self.pending) as usize;
        self.tail.range(self.tail.len() - count..)
    }

    /// Writes out the plan as a new round; gives the writes and the last index in it.
    fn encode(&mut self, plan: &Plan) -> (Vec<LogWrite>, u64) {
        self.round = self.round_next;
        self.round_next += 1;
        let start = self.end;
        let entries: Vec<Entry> = self.waiting().take(plan.entries).cloned().collect();
        let head_count = plan.roll.unwrap_or(entries.len());
        let (head, rest) = entries.split_at(head_count);
        let mut writes = Vec::with_capacity(3);
        let mut bytes = Vec::with_capacity((plan.bytes + SEAL_BYTES) as usize);
        self.encode_part(head, start, plan.roll.is_none(), &mut bytes);
        if plan.roll.is_some() {
            self.encode_seal(start, &mut bytes);
            writes.push(LogWrite { file: LogFile::Segment(start.segment), offset: start.offset, bytes });
            let Next::Ready(next) = std::mem::replace(&mut self.next, Next::Wanted) else {
                unreachable!("a roll is planned only into a prepared segment");
            };
            self.segments.push(next);
            self.end = Position::first(next.segment);
            bytes = Vec::with_capacity(plan.bytes as usize);
            let begin = self.end;
            self.encode_part(rest, start, true, &mut bytes);
            writes.push(LogWrite { file: LogFile::Segment(begin.segment), offset: begin.offset, bytes });
        } else {
            writes.push(LogWrite { file: LogFile::Segment(start.segment), offset: start.offset, bytes });
        }
        let signature = self.active().signature;
        let record = RoundRecord { round: self.round, durable: self.durable_round, start, end: self.end, signature };
        let offset = record.offset();
        writes.push(LogWrite { file: LogFile::Rounds, offset, bytes: record.encode(self.config.store).to_vec() });
        self.pending = self.written.0 + 1;
        (writes, self.written.0)
    }

    /// Encodes entries into the active segment from `self.end` on.
    fn encode_part(&mut self, entries: &[Entry], start: Position, with_last: bool, bytes: &mut Vec<u8>) {
        let active = *self.active();
        let codec = EntryCodec::new(&active);
        for (at, entry) in entries.iter().enumerate() {
            let header = EntryHeader {
                kind: EntryKind::Record,
                term: Term(entry.term),
                index: LogIndex(entry.index),
                commit: LogIndex(self.commit.min(entry.index)),
                round_last: with_last && at + 1 == entries.len(),
                ..self.header(start)
            };
            let before = bytes.len();
            codec.encode(&header, &entry.data, bytes);
            let at = self.end;
            self.end.offset += (bytes.len() - before) as u32;
            self.runs.push(entry.index, at, self.end.offset);
            self.written = (entry.index, entry.term);
            self.entry_bytes += (bytes.len() - before) as u64;
            self.written_bytes += (bytes.len() - before) as u64;
        }
        assert!(self.end.offset + SEAL_BYTES <= active.segment_bytes, "room for the seal behind {}", self.end);
    }

    fn encode_seal(&mut self, start: Position, bytes: &mut Vec<u8>) {
        let codec = EntryCodec::new(self.active());
        codec.encode(&EntryHeader { kind: EntryKind::Seal, ..self.header(start) }, &[], bytes);
        self.entry_bytes += u64::from(SEAL_BYTES);
    }

    /// What all entries of the round that began at `start` have in common; term and index of the last written one.
    fn header(&self, start: Position) -> EntryHeader {
        EntryHeader {
            kind: EntryKind::Record,
            term: Term(self.written.1),
            index: LogIndex(self.written.0),
            round: self.round,
            durable: self.durable_round,
            // Not above what is replaced by what follows.
            commit: LogIndex(self.commit.min(self.written.0).min(self.pending - 1)),
            round_start: start.offset,
            round_continued: self.end.segment != start.segment,
            round_last: false,
        }
    }

    fn active(&self) -> &SegmentHeader {
        self.active_there().expect("a flush is planned only with an active segment")
    }

    /// The segment in which the log goes on, unless it must be made first.
    fn active_there(&self) -> Option<&SegmentHeader> {
        self.segments.last().filter(|last| last.segment == self.end.segment)
    }

    /// The flush `round` is durable.
    pub fn on_flushed(&mut self, round: u64) -> Flushed {
        assert_eq!(round, self.round, "one flush at a time");
        match self.flight.take().expect("a flush is under way") {
            Flight::Mend => {}
            Flight::Round { last, upto, end, .. } => {
                self.durable = last;
                self.durable_round = round;
                self.durable_end = end;
                self.settled = upto;
            }
        }
        self.shrink_below(self.pending);
        let term = self.term_of(self.durable).expect("the last durable entry has a term");
        Flushed { upto: self.settled, index: LogIndex(self.durable), term: Term(term) }
    }

    /// The segment to prepare now, with its header, if the one after the active one is not there yet.
    pub fn take_prepare(&mut self) -> Option<(SegmentId, Box<[u8; 512]>)> {
        let rolling = matches!(self.flight, Some(Flight::Round { rolled: true, .. }));
        // A segment exists only when the one before it was begun durably: recovery relies on it.
        if self.needs_mending() || rolling || !matches!(self.next, Next::Wanted) {
            return None;
        }
        let is_active_there = self.active_there().is_some();
        let segment = if is_active_there { SegmentId(self.end.segment.0 + 1) } else { self.end.segment };
        let header = SegmentHeader {
            segment_bytes: self.config.segment_bytes,
            segment,
            signature: self.signature_next,
            store: self.config.store,
            durable: self.durable_round,
            durable_upto: self.durable_end,
        };
        self.signature_next += 1;
        self.next = Next::Asked(header);
        Some((segment, header.encode()))
    }

    /// The segment is there, or the disk refused.
    pub fn on_prepared(&mut self, segment: SegmentId, result: Result<(), DiskError>) {
        let Next::Asked(header) = std::mem::replace(&mut self.next, Next::Wanted) else {
            unreachable!("segment {} was not asked for", segment.0);
        };
        assert_eq!(header.segment, segment, "one segment is prepared at a time");
        match result {
            Err(_) => self.next = Next::Refused,
            Ok(()) if segment == self.end.segment => self.segments.push(header),
            Ok(()) => self.next = Next::Ready(header),
        }
    }

    /// The disk refused the next segment. Entries are still flushed while the active one has room; then they wait.
    pub fn is_full(&self) -> bool {
        matches!(self.next, Next::Refused)
    }

    /// There may be room now: `take_prepare` asks again after a refusal.
    pub fn retry_prepare(&mut self) {
        if self.is_full() {
            self.next = Next::Wanted;
        }
    }

    /// Bytes of entries that fit before the disk must give another segment.
    pub fn room_bytes(&self) -> u64 {
        let next = match &self.next {
            Next::Ready(next) => next.segment_bytes - SEAL_BYTES - SEGMENT_HEADER_BYTES,
            _ => 0,
        };
        let active =
            self.active_there().map_or(0, |active| (active.segment_bytes - SEAL_BYTES).saturating_sub(self.end.offset));
        u64::from(active) + u64::from(next)
    }

    /// Bytes of payload that wait for a flush.
    pub fn waiting_bytes(&self) -> u64 {
        self.waiting().map(|entry| entry.data.len() as u64).sum()
    }
}

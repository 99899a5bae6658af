//! Reads a log from its beginning to its end, and gathers what speaks about the place behind the end.
//!
//! The entries up to a snapshot are not needed: where one of them is bad, the walk goes on at the next intact entry that the
//! snapshot reaches up to. A log that has nothing behind the snapshot, or another history, is of no use: it begins anew, in a
//! segment that comes after all that are there.

use proto::ids::{LogIndex, Term};

use crate::io::SegmentId;
use crate::log::layout::{
    EntryHeader, EntryKind, Found, Position, Reader, SEAL_BYTES, SEGMENT_FIRST, SEGMENT_HEADER_BYTES,
};
use crate::log::recover::{Fault, Proof, SnapshotMark};
use crate::log::rounds::Rounds;
use crate::log::runs::{Runs, Terms};
use crate::mutant::Mutant;

/// Rounds whose remains are looked up in the ring. A torn end has one.
const REMAINS_ROUNDS_MAX: usize = 16;

/// A segment as found, or what is wrong with all of it.
pub(super) struct Slot<'a> {
    pub segment: SegmentId,
    pub reader: Result<Reader<'a>, Fault>,
}

/// Where to read on.
#[derive(Clone, Copy)]
struct Cursor {
    slot: usize,
    offset: u32,
    // What is there is taken whatever came before.
    leaps: bool,
}

/// The log read from its beginning, entry by entry.
pub(super) struct Walk {
    // Entries up to this one are not needed; index 0 if there is none.
    pub snapshot: SnapshotMark,
    // The first entry without a gap behind it.
    pub first: u64,
    // Nothing in the segments counts.
    pub begins_anew: bool,
    mutant: Mutant,
    // Where the next entry is expected.
    pub end: Position,
    pub sealed: bool,
    pub last: u64,
    // The highest index of an entry that another one replaced.
    pub replaced_upto: u64,
    pub last_term: u64,
    pub commit: u64,
    pub term_max: (LogIndex, Term),
    // Of the last entry.
    pub round: u64,
    pub round_durable: u64,
    pub round_start: Position,
    pub round_whole: bool,
    pub entry_bytes: u64,
    pub runs: Runs,
    pub terms: Terms,
}

impl Default for Walk {
    fn default() -> Walk {
        Walk {
            snapshot: SnapshotMark::default(),
            first: 1,
            begins_anew: false,
            mutant: Mutant::None,
            end: Position::first(SEGMENT_FIRST),
            sealed: false,
            last: 0,
            replaced_upto: 0,
            last_term: 0,
            commit: 0,
            term_max: (LogIndex(0), Term(0)),
            round: 0,
            round_durable: 0,
            round_start: Position::first(SEGMENT_FIRST),
            round_whole: true,
            entry_bytes: 0,
            runs: Runs::default(),
            terms: Terms::default(),
        }
    }
}

/// Whether the seal still fits behind an entry, as it does behind every one that was written.
fn leaves_room(reader: &Reader<'_>, found: &Found<'_>) -> bool {
    found.header.kind == EntryKind::Seal || found.next + SEAL_BYTES <= reader.header().segment_bytes
}

/// Whether an entry lies where its round was written, as far as it knows: not before the round begins.
fn is_in_its_round(segment: SegmentId, found: &Found<'_>) -> bool {
    found.round_start(segment) <= Position { segment, offset: found.offset }
}

impl Walk {
    /// Of a log behind that snapshot.
    pub fn behind(snapshot: SnapshotMark, mutant: Mutant) -> Walk {
        Walk { snapshot, mutant, ..Walk::default() }
    }

    /// Reads on until something that is needed is no entry. `None` if there is no segment to read on in.
    pub fn run(&mut self, slots: &[Slot<'_>]) -> Option<Fault> {
        // A log whose beginning was recycled goes on where a snapshot ends.
        let is_cut = slots.first().is_some_and(|slot| slot.segment != SEGMENT_FIRST);
        let mut cursor = Cursor { slot: 0, offset: SEGMENT_HEADER_BYTES, leaps: is_cut };
        let mut fault = self.run_from(slots, &mut cursor);
        if is_cut && self.round == 0 && matches!(fault, Some(Fault::Order { .. })) {
            fault = Some(Fault::Missing); // What was before is in no snapshot.
        }
        while fault.is_some()
            && let Some(next) = self.leap(slots, cursor)
        {
            cursor = next;
            fault = self.run_from(slots, &mut cursor);
        }
        self.conclude();
        fault
    }

    fn run_from(&mut self, slots: &[Slot<'_>], cursor: &mut Cursor) -> Option<Fault> {
        for (at, slot) in slots.iter().enumerate().skip(cursor.slot) {
            if at != cursor.slot {
                *cursor = Cursor { slot: at, offset: SEGMENT_HEADER_BYTES, leaps: false };
            }
            self.end = Position { segment: slot.segment, offset: cursor.offset };
            let reader = match &slot.reader {
                Ok(reader) => reader,
                Err(fault) => return Some(*fault),
            };
            self.sealed = false;
            while !self.sealed {
                match reader.entry(cursor.offset) {
                    Ok(found)
                        if leaves_room(reader, &found) && cursor.leaps && self.is_reached(slot.segment, &found) =>
                    {
                        self.begin_at(found.header.index.0);
                        self.take(slot.segment, &found);
                        *cursor = Cursor { slot: at, offset: found.next, leaps: false };
                    }
                    Ok(found) if leaves_room(reader, &found) && self.follows(slot.segment, &found) => {
                        self.take(slot.segment, &found);
                        *cursor = Cursor { slot: at, offset: found.next, leaps: false };
                    }
                    Ok(found) => {
                        let EntryHeader { index, term, round, .. } = found.header;
                        return Some(Fault::Order { index, term, round });
                    }
                    Err(reason) => return Some(Fault::Entry(reason)),
                }
            }
        }
        None
    }

    /// Where to read on if nothing is missing that the snapshot does not have.
    fn leap(&self, slots: &[Slot<'_>], from: Cursor) -> Option<Cursor> {
        if self.last >= self.snapshot.index.0 && !self.mutant.is(Mutant::LeapOverRot) {
            return None;
        }
        for (at, slot) in slots.iter().enumerate().skip(from.slot) {
            let Ok(reader) = &slot.reader else { continue };
            let offset = if at == from.slot { from.offset } else { SEGMENT_HEADER_BYTES };
            let mut records = reader
                .resync(offset)
                .filter(|found| found.header.kind == EntryKind::Record && is_in_its_round(slot.segment, found));
            if let Some(found) = records.next() {
                let cursor = Cursor { slot: at, offset: found.offset, leaps: true };
                return (leaves_room(reader, &found) && self.is_reached(slot.segment, &found)).then_some(cursor);
            }
        }
        None
    }

    /// Whether the snapshot has everything before this entry.
    fn is_reached(&self, segment: SegmentId, found: &Found<'_>) -> bool {
        let EntryHeader { kind, index, .. } = found.header;
        let is_near = index.0 <= self.snapshot.index.0 + 1 || self.mutant.is(Mutant::LeapOverRot);
        kind == EntryKind::Record && index.0 > 0 && is_near && is_in_its_round(segment, found)
    }

    /// The log begins anew, with this entry.
    fn begin_at(&mut self, index: u64) {
        self.first = index;
        self.last = index - 1;
        self.last_term = 0;
        self.runs = Runs::default();
        self.terms = Terms::default();
    }

    /// What is in the log counts only as far as it goes on from the snapshot.
    fn conclude(&mut self) {
        let SnapshotMark { index, term } = self.snapshot;
        if index.0 == 0 {
            return;
        }
        let is_other = self.first <= index.0 && self.terms.get(index.0) != Some(term.0);
        if self.last < index.0 || is_other {
            self.begin_at(index.0 + 1);
            self.last_term = term.0;
            self.begins_anew = true;
        }
        self.commit = self.commit.max(index.0);
    }

    /// Whether this entry can be the next one.
    fn follows(&self, segment: SegmentId, found: &Found<'_>) -> bool {
        let header = &found.header;
        let start = found.round_start(segment);
        let in_round = if header.round == self.round {
            !self.round_whole && header.durable == self.round_durable && start == self.round_start
        } else {
            let here = Position { segment, offset: found.offset };
            header.round > self.round && header.durable == self.round && start == here
        };
        let index = header.index.0;
        let in_order = match header.kind {
            EntryKind::Seal => index == self.last && header.term.0 == self.last_term && found.payload.is_empty(),
            EntryKind::Record => {
                // What was committed is never replaced.
                let free = index > self.last || index > self.commit;
                let before = if index > self.last { Some(self.last_term) } else { self.terms.get(index.max(1) - 1) };
                index >= 1 && index <= self.last + 1 && free && header.term.0 >= before.unwrap_or(0)
            }
        };
        // A hint never speaks about entries that come later: those here may be the ones that they replace.
        in_round && in_order && header.commit <= header.index
    }

    fn take(&mut self, segment: SegmentId, found: &Found<'_>) {
        let header = &found.header;
        let here = Position { segment, offset: found.offset };
        if header.kind == EntryKind::Record {
            if header.index.0 <= self.last {
                self.replaced_upto = self.replaced_upto.max(self.last);
            }
            self.last = header.index.0;
            self.last_term = header.term.0;
            self.runs.push(self.last, here, found.next);
            self.terms.push(self.last, self.last_term);
            self.term_max = self.term_max.max_by_term(header);
        }
        self.commit = self.commit.max(header.commit.0);
        self.entry_bytes += u64::from(found.next - found.offset);
        self.round = header.round;
        self.round_durable = header.durable;
        self.round_start = found.round_start(segment);
        self.round_whole = header.round_last;
        self.sealed = header.kind == EntryKind::Seal;
        self.end = if self.sealed {
            Position::first(SegmentId(segment.0 + 1))
        } else {
            Position { segment, offset: found.next }
        };
    }
}

trait MaxByTerm {
    fn max_by_term(self, header: &EntryHeader) -> Self;
}

impl MaxByTerm for (LogIndex, Term) {
    fn max_by_term(self, header: &EntryHeader) -> Self {
        if header.term > self.1 { (header.index, header.term) } else { self }
    }
}

/// Everything that speaks about what is behind the end of the log.
pub(super) struct Behind {
    // The place furthest on that is proven: everything before it was durable.
    pub proven: (Position, Option<Proof>),
    // Rounds of intact entries behind the end, at most one after the last (others are before a proof).
    pub rounds: Vec<u64>,
    pub round_max: u64,
    pub signature_max: u64,
    pub term_max: (LogIndex, Term),
    pub remains: u64,
    // Segments after the one in which the log ends.
    pub segments: usize,
    // The last round with entries is not whole.
    pub cut: bool,
}

impl Behind {
    pub fn gather(walk: &Walk, readers: &[Reader<'_>], rounds: &Rounds<'_>) -> Behind {
        let mut behind = Behind {
            proven: (Position::default(), None),
            rounds: Vec::new(),
            round_max: walk.round,
            signature_max: 0,
            term_max: walk.term_max,
            remains: 0,
            segments: readers.iter().filter(|reader| reader.header().segment > walk.end.segment).count(),
            cut: !walk.round_whole,
        };
        for reader in readers {
            let header = reader.header();
            behind.signature_max = behind.signature_max.max(header.signature);
            behind.round_max = behind.round_max.max(header.durable);
            behind.prove(header.durable_upto, Proof::Segment { segment: header.segment });
            if header.segment >= walk.end.segment {
                behind.look(walk, reader);
            }
        }
        for record in rounds.records() {
            behind.signature_max = behind.signature_max.max(record.signature);
            behind.round_max = behind.round_max.max(record.round);
            // The void ones of a log that began anew speak of a place before which there is nothing.
            if !record.is_void() || record.durable > 0 {
                behind.prove(record.start, Proof::Identifier { round: record.round });
            }
            // A torn round whose kept entries were given an identifier when it was mended.
            if record.round == walk.round && record.end == walk.end {
                behind.cut = false;
            }
        }
        behind
    }

    /// What an open segment holds behind the end.
    fn look(&mut self, walk: &Walk, reader: &Reader<'_>) {
        let segment = reader.header().segment;
        let from = if segment == walk.end.segment { walk.end.offset } else { SEGMENT_HEADER_BYTES };
        self.remains += u64::from(reader.used_end(from) - from);
        for found in reader.resync(from) {
            let (round, at) = (found.header.round, Position { segment, offset: found.offset });
            self.prove(found.round_start(segment), Proof::Entry { at, round });
            self.round_max = self.round_max.max(round);
            self.term_max = self.term_max.max_by_term(&found.header);
            if !self.rounds.contains(&round) && self.rounds.len() < REMAINS_ROUNDS_MAX {
                self.rounds.push(round);
            }
        }
    }

    fn prove(&mut self, upto: Position, proof: Proof) {
        if upto > self.proven.0 {
            self.proven = (upto, Some(proof));
        }
    }
}

//! Reads a log from its beginning to its end, and gathers what speaks about the place behind the end.

use proto::ids::{LogIndex, Term};

use crate::io::SegmentId;
use crate::log::layout::{
    EntryHeader, EntryKind, Found, Position, Reader, SEAL_BYTES, SEGMENT_FIRST, SEGMENT_HEADER_BYTES,
};
use crate::log::recover::{Fault, Proof};
use crate::log::rounds::Rounds;
use crate::log::runs::{Runs, Terms};

/// Rounds whose remains are looked up in the ring. A torn end has one.
const REMAINS_ROUNDS_MAX: usize = 16;

/// The log read from its beginning, entry by entry.
pub(super) struct Walk {
    // Where the next entry is expected.
    pub end: Position,
    pub sealed: bool,
    pub last: u64,
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
            end: Position::first(SEGMENT_FIRST),
            sealed: false,
            last: 0,
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

impl Walk {
    /// Reads on until something is no entry. `None` if there is no segment to read on in.
    pub fn run(&mut self, readers: &[Reader<'_>]) -> Option<Fault> {
        for reader in readers {
            let segment = reader.header().segment;
            self.end = Position::first(segment);
            self.sealed = false;
            for found in reader.entries() {
                match found {
                    Ok(found) if leaves_room(reader, &found) && self.follows(segment, &found) => {
                        self.take(segment, &found);
                    }
                    Ok(found) => {
                        let EntryHeader { index, term, round, .. } = found.header;
                        return Some(Fault::Order { index, term, round });
                    }
                    Err(bad) => return Some(Fault::Entry(bad.reason)),
                }
            }
            assert!(self.sealed, "the entries of a segment end with a seal or with a bad place");
        }
        None
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
            behind.prove(record.start, Proof::Identifier { round: record.round });
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

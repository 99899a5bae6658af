//! Judges what is found on disk at start. The judgement is one table: `judge`.
//!
//! The log is read from its beginning up to the first place that is no entry (the *end*). What is left to decide is whether
//! anything that may have been acknowledged is missing there. Three facts decide:
//!
//! - **Proof.** Rounds are flushed one after the other. So whatever was written in a round proves that everything before the
//!   begin of that round was durable: a later entry, a round's identifier, the header of a segment made later. An end before
//!   such a place is rot. Truncation never touches what a proof covers, so a proof never goes stale.
//! - **Identifier.** If nothing proves it, the entries missing at the end belong to the last round that was written, finished
//!   or not. Its identifier is in another place: absent means that the flush was never finished (a finished flush has all
//!   its sectors), present or unreadable means that nobody knows.
//! - **Tail.** Whether anything is behind the end: remains of the torn round, to be zeroed.
//!
//! Nothing below a snapshot is needed: a bad place there stops nobody (`walk`).
//!
//! A power cut leaves any subset of the sectors of the round under way, and everything of the rounds before.
//! After a torn end, `mend` is written and durable before anything else happens: zeros over the remains, and an identifier
//! for the entries that were kept of the torn round (else rot in them would later pass for a torn round).

use std::collections::BTreeSet;
use std::fmt;

use proto::ids::{LogIndex, Term};
use proto::limits::SECTOR_BYTES;

use crate::io::{LogFile, LogWrite, SegmentId};
use crate::limits::POSITION_START_MAX;
use crate::log::layout::{HeaderError, Position, Reader, Reason, SEGMENT_HEADER_BYTES, StoreId};
use crate::log::log::LogConfig;
use crate::log::rounds::{Identifier, RoundRecord, Rounds};
use crate::log::runs::{Runs, Terms};
use crate::log::walk::{Behind, Slot, Walk};
use crate::mutant::Mutant;
use crate::vote::Healing;

/// Numbers passed over at once: those of the remains of a torn round, which is one.
const VOID_ROUNDS_MAX: usize = 16;
/// One write of zeros over remains.
const ZERO_WRITE_BYTES: u32 = 1 << 20;

/// What is on disk.
#[derive(Clone, Copy, Debug)]
pub struct RecoverInput<'a> {
    /// The segments in ascending order, whole.
    pub segments: &'a [(SegmentId, &'a [u8])],
    /// The file of round identifiers; empty if there is none.
    pub rounds: &'a [u8],
    /// The term in the vote file, 0 if it was never written: no entry can have a higher one. An inspector that does not
    /// know it says `u64::MAX`.
    pub vote_term: Term,
    /// Whose log it must be.
    pub config: LogConfig,
    /// The snapshots that can be read, ascending. The state is that of the last one.
    pub snapshots: &'a [SnapshotMark],
    /// What the log may have lost at its end and be taken all the same, as far as it is intact: the node heals then before
    /// it takes part.
    pub heals: Healing,
}

/// Where a snapshot stands in the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SnapshotMark {
    /// The last entry whose effect it has.
    pub index: LogIndex,
    /// Its term.
    pub term: Term,
}

/// What the end of the log looks like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judgement {
    /// Every round is whole and nothing is behind the last.
    Clean,
    /// The last round was never finished, hence never acknowledged: what is bad of it is dropped.
    Torn(Finding),
    /// Something may be missing that was acknowledged, or not: not decidable here.
    Uncertain(Finding),
    /// Something is missing or damaged that was durable.
    Rot(Finding),
}

/// Where the log ends before it should, and the evidence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Where the intact part of the log ends.
    pub at: Position,
    /// What is wrong there.
    pub fault: Fault,
    /// The last intact entry before.
    pub last: LogIndex,
    /// Its flush round; 0 if there is none.
    pub round: u64,
    /// What proves that more was durable.
    pub proof: Option<Proof>,
    /// What the ring of identifiers says about the round that is missing.
    pub identifier: Trace,
    /// Bytes of remains behind the end.
    pub remains: u64,
}

/// What is wrong at a place of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// No entry.
    Entry(Reason),
    /// An intact entry that cannot follow those before it.
    Order {
        /// Its index.
        index: LogIndex,
        /// Its term.
        term: Term,
        /// Its round.
        round: u64,
    },
    /// The file of the segment is missing.
    Missing,
    /// The header of the segment.
    Header(HeaderError),
    /// The header is intact, but of another segment or with a signature that is not new.
    Stray {
        /// The segment it says it is.
        segment: SegmentId,
        /// Its signature.
        signature: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (intact up to index {}, flush round {}", self.at, self.fault, self.last, self.round)?;
        match self.proof {
            None => {}
            Some(Proof::Entry { at, round }) => write!(f, "; the entry of round {round} at {at} was written later")?,
            Some(Proof::Identifier { round }) => write!(f, "; round {round} was written later")?,
            Some(Proof::Segment { segment }) => write!(f, "; segment {} was made later", segment.0)?,
            Some(Proof::Sequence) => write!(f, "; the segment was in use")?,
            Some(Proof::Intact) => write!(f, "; what is there is intact")?,
        }
        match self.identifier {
            Trace::Absent => {}
            Trace::Present { round } => write!(f, "; the identifier of round {round} is there")?,
            Trace::Unreadable { round } => write!(f, "; the identifier of round {round} cannot be read")?,
        }
        write!(f, "; {} bytes behind it)", self.remains)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Entry(reason) => write!(f, "no entry: {reason}"),
            Fault::Order { index, term, round } => {
                write!(f, "entry {index} of term {} and round {round} cannot follow", term.0)
            }
            Fault::Missing => f.write_str("the file of the segment is missing"),
            Fault::Header(error) => write!(f, "{error}"),
            Fault::Stray { segment, signature } => {
                write!(f, "the header is that of segment {} with signature {signature}", segment.0)
            }
        }
    }
}

/// What proves that the log was durable beyond a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Proof {
    /// An entry further on.
    Entry {
        /// Where it is.
        at: Position,
        /// Its round.
        round: u64,
    },
    /// The identifier of a later round.
    Identifier {
        /// Which.
        round: u64,
    },
    /// The header of a segment that was made later.
    Segment {
        /// Which.
        segment: SegmentId,
    },
    /// The seal before it: a segment is durable before the one before it is sealed; or its place between others.
    Sequence,
    /// The place itself: what is there is intact, so it was not torn.
    Intact,
}

/// What the ring of identifiers says about the round that is missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trace {
    /// Its place is readable and it is not there.
    Absent,
    /// It is there.
    Present {
        /// Which round.
        round: u64,
    },
    /// Its place cannot be read.
    Unreadable {
        /// Which round.
        round: u64,
    },
}

/// Why a node does not start with this log. Nothing on disk was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecoverError {
    /// Durable entries are damaged or missing.
    #[error("the log lost entries that were durable: {0}; {REMEDY}")]
    Rot(Finding),
    /// Entries are missing that may have been acknowledged.
    #[error("the log may have lost entries that were acknowledged: {0}; {REMEDY}")]
    Uncertain(Finding),
    /// The log is newer than term and vote.
    #[error(
        "entry {index} has term {entry_term}, but the vote file only knows term {vote_term}: term and vote are lost; \
         restore the directory as it was. If that cannot be, start the node with --rejoin: then it is taken in again",
        index = .index.0, entry_term = .entry_term.0, vote_term = .vote_term.0
    )]
    Amnesia {
        /// Which entry.
        index: LogIndex,
        /// Its term.
        entry_term: Term,
        /// What the vote file says.
        vote_term: Term,
    },
    /// A term, round or signature from which counting could come to what is taken for damage. No log gets there by itself.
    #[error("the log has counted to {position}, which no log does by itself; {REMEDY}")]
    Exhausted {
        /// The largest of them.
        position: u64,
    },
    /// A segment belongs to another cluster or data directory.
    #[error(
        "log segment {} belongs to cluster {} and another data directory: files were mixed up; put the right ones back",
        .segment.0, .found.cluster
    )]
    Foreign {
        /// Which segment.
        segment: SegmentId,
        /// Whose it is.
        found: StoreId,
    },
    /// A segment was made by another version.
    #[error("log segment {} has format version {found}: start the program that made it", .segment.0)]
    Version {
        /// Which segment.
        segment: SegmentId,
        /// What it says.
        found: u16,
    },
}

const REMEDY: &str = "nothing was changed; look at it with `helio log verify`. A lone voter has nobody from whom to take what is \
     missing: restore the directory as it was";

/// A log that was read and judged.
pub struct Examined<'a> {
    /// How its end looks; `Rot` and `Uncertain` only if the node is to heal.
    pub judgement: Judgement,
    /// The last entry.
    pub last: (LogIndex, Term),
    /// The highest commit hint; at most the last entry.
    pub commit: LogIndex,
    /// Flush round of the last entry; 0 if there is none.
    pub round: u64,
    /// Where the next entry goes.
    pub end: Position,
    // Place before the first entry that is there.
    pub(super) truncated: SnapshotMark,
    // Up to here the state is that of a snapshot.
    pub(super) snapshot: LogIndex,
    // Segments from here on cannot be used: they are removed when the log is mended.
    pub(super) drop_from: Option<SegmentId>,
    pub(super) readers: Vec<Reader<'a>>,
    // Above every round and signature seen anywhere.
    pub(super) round_next: u64,
    pub(super) signature_next: u64,
    pub(super) mend: Vec<LogWrite>,
    pub(super) runs: Runs,
    pub(super) terms: Terms,
    pub(super) entry_bytes: u64,
    pub(super) replaced_upto: u64,
}

/// Reads and judges a log. `Err` if it needs healing, `Ok` if it is clean or torn.
pub fn examine<'a>(input: &RecoverInput<'a>) -> Result<Examined<'a>, RecoverError> {
    let rounds = Rounds::new(input.rounds, input.config.store);
    let slots = open_segments(input)?;
    let mut walk = Walk::behind(input.snapshots.last().copied().unwrap_or_default(), input.config.mutant);
    let fault = walk.run(&slots);
    let readers: Vec<Reader<'a>> = slots.iter().filter_map(|slot| slot.reader.ok()).collect();
    let broken = broken(&walk, &slots);
    let behind = Behind::gather(&walk, &readers, &rounds);
    let of_snapshot = (walk.snapshot.index, walk.snapshot.term);
    let of_entry = behind.term_max;
    let (vote_term, (index, entry_term)) =
        (input.vote_term, if of_snapshot.1 > of_entry.1 { of_snapshot } else { of_entry });
    if entry_term > vote_term {
        return Err(RecoverError::Amnesia { index, entry_term, vote_term });
    }
    let finding = find(&walk, fault, broken, &behind, &rounds);
    let judgement = judge(finding, behind.cut);
    match judgement {
        Judgement::Rot(_) if input.config.mutant.is(Mutant::TruncateRot) => {}
        Judgement::Uncertain(_) if input.config.mutant.is(Mutant::TruncateUncertain) => {}
        Judgement::Rot(_) if input.heals == Healing::Rot => {}
        Judgement::Uncertain(_) if input.heals >= Healing::Uncertain => {}
        Judgement::Rot(finding) => return Err(RecoverError::Rot(finding)),
        Judgement::Uncertain(finding) => return Err(RecoverError::Uncertain(finding)),
        Judgement::Clean | Judgement::Torn(_) => {}
    }
    let position = behind.round_max.max(behind.signature_max).max(entry_term.0);
    if position > POSITION_START_MAX {
        return Err(RecoverError::Exhausted { position });
    }
    if input.config.mutant.is(Mutant::ApplyUncommitted) {
        walk.commit = walk.last;
    }
    let drop_from = drop_from(&walk, &slots, broken, &behind);
    if walk.begins_anew {
        begin_anew(&mut walk, &slots);
    }
    let kept: Vec<Reader<'a>> =
        readers.iter().copied().filter(|reader| drop_from.is_none_or(|from| reader.header().segment < from)).collect();
    let mend = mend(&walk, behind.round_max, &kept, &rounds, input.config.store);
    let truncated = truncated(&mut walk, input.snapshots);
    Ok(Examined {
        judgement,
        last: (LogIndex(walk.last), Term(walk.last_term)),
        commit: LogIndex(walk.commit),
        round: walk.round,
        end: walk.end,
        round_next: behind.round_max + 1,
        signature_next: behind.signature_max + 1,
        mend,
        runs: walk.runs,
        terms: walk.terms,
        entry_bytes: walk.entry_bytes,
        replaced_upto: walk.replaced_upto,
        readers: kept,
        truncated,
        snapshot: walk.snapshot.index,
        drop_from,
    })
}

/// The table. `cut`: the last round that has entries is not whole.
fn judge(finding: Finding, cut: bool) -> Judgement {
    match (finding.proof, finding.identifier, finding.remains > 0 || cut) {
        // Something durable is missing: keep everything as it is, heal.
        (Some(_), _, _) => Judgement::Rot(finding),
        // The round may have been finished and acknowledged: as rot.
        (None, Trace::Present { .. } | Trace::Unreadable { .. }, _) => Judgement::Uncertain(finding),
        // The round was never finished: truncate, zero, go on.
        (None, Trace::Absent, true) => Judgement::Torn(finding),
        // There is no such round.
        (None, Trace::Absent, false) => Judgement::Clean,
    }
}

/// Whatever is there is removed, and the log goes on behind it.
fn begin_anew(walk: &mut Walk, slots: &[Slot<'_>]) {
    let last = slots.last().map_or(walk.end.segment.0 - 1, |slot| slot.segment.0);
    walk.end = Position::first(SegmentId(last + 1));
    (walk.round, walk.round_durable, walk.round_start, walk.round_whole) = (0, 0, walk.end, true);
}

/// From where on segments cannot be used: what is behind the end of a log that goes on there can only be one that was
/// prepared.
fn drop_from(walk: &Walk, slots: &[Slot<'_>], broken: Option<Broken>, behind: &Behind) -> Option<SegmentId> {
    let end = walk.end.segment;
    if walk.begins_anew {
        return slots.first().map(|slot| slot.segment);
    }
    let is_active_there = slots.iter().any(|slot| slot.segment == end && slot.reader.is_ok());
    let has_later = slots.last().is_some_and(|slot| slot.segment >= end);
    // One that was prepared proves more than there is.
    let proves_more = |slot: &Slot<'_>| {
        let is_later = |reader: &Reader<'_>| reader.header().durable_upto > walk.end;
        slot.segment > end && slot.reader.as_ref().is_ok_and(is_later)
    };
    let is_useless = broken.is_some() || behind.segments > 1 || slots.iter().any(proves_more);
    match (has_later, is_active_there, is_useless) {
        (false, _, _) | (true, true, false) => None,
        (true, true, true) => Some(SegmentId(end.0 + 1)),
        (true, false, _) => Some(end),
    }
}

/// The place before the first entry that can be given to others: where the oldest snapshot stands from which on nothing is
/// missing.
fn truncated(walk: &mut Walk, snapshots: &[SnapshotMark]) -> SnapshotMark {
    if walk.first == 1 {
        return SnapshotMark::default();
    }
    let is_joined = |mark: &&SnapshotMark| {
        let SnapshotMark { index, term } = **mark;
        index.0 + 1 == walk.first || (index.0 >= walk.first && walk.terms.get(index.0) == Some(term.0))
    };
    let mark = *snapshots.iter().find(is_joined).expect("the walk joins the last snapshot");
    walk.runs.drop_upto(mark.index.0);
    walk.terms.drop_upto(mark.index.0);
    mark
}

/// A segment that cannot be opened.
#[derive(Clone, Copy)]
struct Broken {
    segment: SegmentId,
    fault: Fault,
    // Others come after it.
    followed: bool,
}

/// The first segment at or behind the end that cannot be opened.
fn broken(walk: &Walk, slots: &[Slot<'_>]) -> Option<Broken> {
    let (at, slot, fault) = slots.iter().enumerate().find_map(|(at, slot)| {
        let fault = slot.reader.err()?;
        (slot.segment >= walk.end.segment).then_some((at, slot, fault))
    })?;
    Some(Broken { segment: slot.segment, fault, followed: at + 1 < slots.len() })
}

/// Opens the segments.
///
/// The last one may be one that was prepared and never used: if its preparation was cut off it is left out.
fn open_segments<'a>(input: &RecoverInput<'a>) -> Result<Vec<Slot<'a>>, RecoverError> {
    let mut slots: Vec<Slot<'a>> = Vec::with_capacity(input.segments.len());
    let mut signature = 0;
    for (at, (segment, bytes)) in input.segments.iter().enumerate() {
        let last = at + 1 == input.segments.len();
        let expected = slots.last().map(|slot| SegmentId(slot.segment.0 + 1));
        assert!(expected.is_none_or(|expected| *segment >= expected), "segments come in ascending order");
        if let Some(expected) = expected.filter(|expected| expected != segment) {
            slots.push(Slot { segment: expected, reader: Err(Fault::Missing) });
        }
        let unused = || last && bytes.iter().skip(SECTOR_BYTES).all(|byte| *byte == 0);
        let reader = match Reader::new(bytes) {
            Ok(reader) => reader,
            Err(HeaderError::Version { found }) => return Err(RecoverError::Version { segment: *segment, found }),
            Err(_) if unused() => break,
            Err(error) => {
                slots.push(Slot { segment: *segment, reader: Err(Fault::Header(error)) });
                continue;
            }
        };
        let header = *reader.header();
        if header.store != input.config.store {
            return Err(RecoverError::Foreign { segment: *segment, found: header.store });
        }
        let fault = if header.segment != *segment || header.signature <= signature {
            Some(Fault::Stray { segment: header.segment, signature: header.signature })
        } else if bytes.len() < header.segment_bytes as usize && unused() {
            break;
        } else {
            // One that was cut off has no entries where it ends: what was there, others prove.
            signature = header.signature;
            None
        };
        slots.push(Slot { segment: *segment, reader: fault.map_or(Ok(reader), Err) });
    }
    Ok(slots)
}

/// Puts together what the table needs.
fn find(walk: &Walk, fault: Option<Fault>, broken: Option<Broken>, behind: &Behind, rounds: &Rounds<'_>) -> Finding {
    let mut finding = Finding {
        at: walk.end,
        fault: fault.unwrap_or(if walk.sealed { Fault::Missing } else { Fault::Entry(Reason::Zeros) }),
        last: LogIndex(walk.last),
        round: walk.round,
        proof: behind.proven.1.filter(|_| behind.proven.0 > walk.end).or_else(|| later_round(walk, rounds)),
        identifier: trace(walk, behind, rounds),
        remains: behind.remains,
    };
    match (broken, finding.fault) {
        // The walk came to the segment that cannot be opened, or others follow it: it was in use.
        (Some(broken), _) if broken.followed || (walk.sealed && broken.segment == walk.end.segment) => {
            finding.at = Position::first(broken.segment);
            finding.fault = broken.fault;
            finding.proof = finding.proof.or(Some(Proof::Sequence));
        }
        // It is the last one, not reached, and not empty: what it held cannot be told.
        (Some(broken), _) => {
            finding.at = Position::first(broken.segment);
            finding.fault = broken.fault;
            if finding.identifier == Trace::Absent {
                finding.identifier = Trace::Unreadable { round: walk.round + 1 };
            }
        }
        // The second segment after one is made only when that one is sealed.
        (None, _) if behind.segments > 1 => {
            finding.proof = finding.proof.or(Some(Proof::Sequence));
        }
        (None, Fault::Missing) => finding.proof = finding.proof.or(Some(Proof::Sequence)),
        (None, Fault::Order { .. }) => finding.proof = finding.proof.or(Some(Proof::Intact)),
        (None, _) => {}
    }
    finding
}

/// If more than one round left its identifier and is not there: the last of them, before which the others were durable.
fn later_round(walk: &Walk, rounds: &Rounds<'_>) -> Option<Proof> {
    let lost = rounds.records().filter(|record| record.round > walk.round && !record.is_void());
    let (first, last) =
        lost.fold((u64::MAX, 0), |(first, last), record| (first.min(record.round), last.max(record.round)));
    (first < last).then_some(Proof::Identifier { round: last })
}

/// Whether the round that is missing at the end left its identifier. Any doubt counts.
fn trace(walk: &Walk, behind: &Behind, rounds: &Rounds<'_>) -> Trace {
    if let Some(record) = rounds.records().find(|record| record.round > walk.round && !record.is_void()) {
        return Trace::Present { round: record.round };
    }
    // A store that was never written has no ring yet; in one that began anew every round is void.
    let is_new = rounds.is_missing() || rounds.is_void();
    if is_new && walk.round == 0 && behind.remains == 0 {
        return Trace::Absent;
    }
    let has_holes = rounds.has_holes(walk.round);
    let cut = behind.cut.then_some(walk.round);
    // Remains of the last round, if that is known to be whole, were cut off before and are not yet zeroed.
    let remains = behind.rounds.iter().copied().filter(|round| *round != walk.round);
    for round in cut.into_iter().chain([walk.round + 1]).chain(remains) {
        match rounds.identifier(round) {
            Identifier::Absent if has_holes && rounds.is_empty(round) => return Trace::Unreadable { round },
            Identifier::Absent => {}
            Identifier::Present(_) => return Trace::Present { round },
            Identifier::Unreadable => return Trace::Unreadable { round },
        }
    }
    Trace::Absent
}

/// What must be durable before the log is used: zeros over the remains, an identifier for the last round if it has none, and
/// void ones for the numbers that are passed over, for the rounds that are lost, and for those whose slots are spoiled.
fn mend(walk: &Walk, round_max: u64, readers: &[Reader<'_>], rounds: &Rounds<'_>, store: StoreId) -> Vec<LogWrite> {
    let mut writes = Vec::new();
    for reader in readers.iter().filter(|reader| reader.header().segment >= walk.end.segment) {
        let segment = reader.header().segment;
        let mut offset = if segment == walk.end.segment { walk.end.offset } else { SEGMENT_HEADER_BYTES };
        let end = reader.used_end(offset);
        while offset < end {
            let length = (end - offset).min(ZERO_WRITE_BYTES);
            let bytes = vec![0; length as usize];
            writes.push(LogWrite { file: LogFile::Segment(segment), offset, bytes });
            offset += length;
        }
    }
    let last = readers.iter().find(|reader| reader.header().segment == walk.end.segment);
    let signature = last.map_or(0, |reader| reader.header().signature);
    let whole = RoundRecord {
        round: walk.round,
        durable: walk.round_durable,
        start: walk.round_start,
        end: walk.end,
        signature,
    };
    let void = |round| RoundRecord { round, durable: walk.round, start: walk.end, end: walk.end, signature };
    let last = last.filter(|_| walk.round > 0).map(|_| whole);
    // A number a whole turn ahead has the slot of the last round, whose identifier matters more.
    let passed_over = (walk.round + 1..=round_max).rev().take(VOID_ROUNDS_MAX);
    // After a loss nothing may speak of what was there: its place is written anew.
    let lost = rounds.records().filter(|record| record.round > walk.round && !record.is_void());
    let passed_over: BTreeSet<u64> = passed_over.chain(lost.map(|record| record.round)).collect();
    let passed_over =
        passed_over.into_iter().map(void).filter(|void| last.is_none_or(|last| last.offset() != void.offset()));
    let written: Vec<RoundRecord> = passed_over.chain(last).collect();
    // Nor may the next start take for a hole what it is told of here.
    for (slot, round) in rounds.spoiled(round_max) {
        let offset = slot as u32 * SECTOR_BYTES as u32;
        if written.iter().all(|record| record.offset() != offset) {
            let bytes = round.map_or_else(
                || vec![0; SECTOR_BYTES],
                |round| RoundRecord { durable: walk.round.min(round - 1), ..void(round) }.encode(store).to_vec(),
            );
            writes.push(LogWrite { file: LogFile::Rounds, offset, bytes });
        }
    }
    for record in written {
        if rounds.record(record.round).is_none_or(|found| found.end != record.end) {
            let bytes = record.encode(store).to_vec();
            writes.push(LogWrite { file: LogFile::Rounds, offset: record.offset(), bytes });
        }
    }
    writes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "recover_test.rs"]
pub(super) mod tests;

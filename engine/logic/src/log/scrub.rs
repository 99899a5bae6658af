//! Reads the log again while it is in use, and remembers where it went bad.
//!
//! A pass goes from the first entry that is still there to the last durable one, in the order in which they were written, as the
//! next start would: headers of segments, entries, those that others replaced, seals. None of that changes as long as its
//! segment is there, so what reads wrong is rot, unless it was forgotten while it was read.
//!
//! Rot takes nothing from the process that runs: what is not applied is in memory, all else in its state. What it lost is the
//! next start, which passes over a bad place only below a snapshot that has it *and* the first intact entry behind it.
//! So the log remembers the index of an entry behind the place (`Rot::upto`), until it is forgotten up to there.

use proto::ids::LogIndex;

use crate::io::{DiskError, SegmentId};
use crate::limits::SCRUB_LOG_BYTES;
use crate::log::layout::{EntryCodec, EntryKind, HeaderError, Position, Reason, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::log::log::Log;
use crate::mutant::Mutant;

/// A part of a segment to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogRead {
    /// Which segment.
    pub segment: SegmentId,
    /// From where.
    pub offset: u32,
    /// How much.
    pub length: u32,
}

/// Where the log went bad while it was in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rot {
    /// The place that was found first.
    pub at: Position,
    /// A snapshot up to this entry has all that was lost, and the next start passes over every bad place.
    pub upto: LogIndex,
}

/// What is wrong at a place that was read again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScrubError {
    /// The device could not read, or gave less.
    #[error("it cannot be read: {0:?}")]
    Device(DiskError),
    /// The header of the segment is not what was written.
    #[error("the header of the segment: {0}")]
    Header(HeaderError),
    /// The header of the segment is intact and another one's.
    #[error("the header is that of segment {}", .found.0)]
    Stray {
        /// Whose.
        found: SegmentId,
    },
    /// What is there is not what was written.
    #[error("no entry: {0}")]
    Entry(Reason),
    /// An intact entry that cannot follow the one before.
    #[error("entry {index} of round {round} cannot follow")]
    Order {
        /// Its index.
        index: LogIndex,
        /// Its round.
        round: u64,
    },
}

/// How far a pass is, and what was found.
#[derive(Debug)]
pub(super) struct Scrub {
    // Where it reads on; none between two passes. Offset 0 is the header.
    at: Option<Position>,
    // What is written later is the next pass's, or else one of a busy log would never end.
    end: Position,
    // Of the last entry that was read.
    round: u64,
    // What the entry at `at` takes, if that is known.
    entry_bytes: u32,
    under_way: Option<LogRead>,
    rot: Option<Rot>,
    // Entries up to here lie about that were replaced.
    replaced_upto: u64,
}

impl Scrub {
    pub fn new(replaced_upto: u64) -> Scrub {
        Scrub {
            at: None,
            end: Position::default(),
            round: 0,
            entry_bytes: 0,
            under_way: None,
            rot: None,
            replaced_upto,
        }
    }

    /// Entries up to `last` are replaced by others.
    pub fn note_replaced(&mut self, last: u64) {
        self.replaced_upto = self.replaced_upto.max(last);
    }

    /// Entries up to `index` are forgotten.
    pub fn drop_upto(&mut self, index: LogIndex) {
        self.rot = self.rot.filter(|rot| rot.upto > index);
    }
}

impl Log {
    /// Begins a pass.
    pub fn begin_scrub(&mut self) {
        self.scrub.at = self.first_position().map(begin_of);
        self.scrub.end = self.durable_end;
        (self.scrub.round, self.scrub.entry_bytes) = (0, 0);
    }

    /// Whether a pass is under way.
    pub fn is_scrubbing(&self) -> bool {
        self.scrub.at.is_some() || self.scrub.under_way.is_some()
    }

    /// Where the log went bad, as long as that is not forgotten.
    pub fn rot(&self) -> Option<Rot> {
        self.scrub.rot
    }

    /// The next part to read in a pass, one at a time. `None` also when it comes to its end.
    pub fn take_scrub(&mut self) -> Option<LogRead> {
        if self.scrub.under_way.is_some() || self.needs_mending() {
            return None;
        }
        let read = self.scrub.at.and_then(|at| self.next_read(at));
        if read.is_none() {
            self.scrub.at = None;
        }
        self.scrub.under_way = read;
        read
    }

    fn next_read(&self, at: Position) -> Option<LogRead> {
        let first = self.first_position()?;
        let at = if at.offset == 0 { at.max(begin_of(first)) } else { at.max(first) };
        let (segment, offset) = (at.segment, at.offset);
        let end = self.end_in(segment)?;
        if offset == 0 {
            // Without the header all of the segment is lost: only a segment behind it can be gone on with.
            let is_last = self.runs.anchor_behind(end_of(segment)).is_none();
            if !is_last {
                return Some(LogRead { segment, offset, length: SEGMENT_HEADER_BYTES });
            }
            return self.next_read(self.first_entry_in(segment));
        }
        let length = SCRUB_LOG_BYTES.max(self.scrub.entry_bytes).min(end.checked_sub(offset)?);
        (length > 0).then_some(LogRead { segment, offset, length })
    }

    /// What was read is judged, and the pass goes on behind it. Rot is remembered.
    pub fn on_scrubbed(&mut self, bytes: Result<&[u8], DiskError>) {
        let read = self.scrub.under_way.take().expect("one part is being read");
        let at = Position { segment: read.segment, offset: read.offset };
        let is_there = self.first_position().is_some_and(|first| at >= first || at == begin_of(first));
        let header = self.segments.iter().find(|header| header.segment == read.segment).copied();
        let Some(header) = header.filter(|_| is_there) else {
            return; // Forgotten meanwhile: the pass goes on with what is there.
        };
        if bytes == Err(DiskError::Refused) {
            return; // This says nothing about the bytes: the same part is read again.
        }
        match self.judge_read(read, &header, bytes) {
            Ok(next) => self.scrub.at = Some(next),
            Err((at, error)) => {
                self.note_rot(at, &error);
                // What the bad place hides of its segment is passed over; behind it another round may begin.
                let next = self.runs.anchor_behind(at).map(|(next, _)| next);
                let begin = Position { segment: SegmentId(at.segment.0 + 1), offset: 0 };
                self.scrub.at = next.map(|next| next.min(begin));
                (self.scrub.round, self.scrub.entry_bytes) = (0, 0);
            }
        }
    }

    /// Gives the place where the next part begins.
    fn judge_read(
        &mut self,
        read: LogRead,
        header: &SegmentHeader,
        bytes: Result<&[u8], DiskError>,
    ) -> Result<Position, (Position, ScrubError)> {
        let segment = read.segment;
        let at = |offset: u32| Position { segment, offset: read.offset + offset };
        let bytes = bytes.map_err(|error| (at(0), ScrubError::Device(error)))?;
        if bytes.len() < read.length as usize {
            return Err((at(0), ScrubError::Device(DiskError::Unreadable)));
        }
        if read.offset == 0 {
            return match SegmentHeader::decode(bytes) {
                Ok(found) if found == *header => Ok(self.first_entry_in(segment)),
                Ok(found) => Err((at(0), ScrubError::Stray { found: found.segment })),
                Err(error) => Err((at(0), ScrubError::Header(error))),
            };
        }
        let (codec, mut offset) = (EntryCodec::new(header), 0);
        self.scrub.entry_bytes = 0;
        while offset < read.length {
            match codec.decode(bytes, offset) {
                Ok(found) => {
                    let (index, round) = (found.header.index, found.header.round);
                    if round < self.scrub.round || found.round_start(segment) > at(offset) {
                        return Err((at(offset), ScrubError::Order { index, round }));
                    }
                    self.scrub.round = round;
                    if found.header.kind == EntryKind::Seal {
                        return Ok(Position { segment: SegmentId(segment.0 + 1), offset: 0 });
                    }
                    offset = found.next;
                }
                // Only its begin was read.
                Err(Reason::Room { bytes }) if self.has_bytes(at(offset), bytes) => {
                    self.scrub.entry_bytes = u32::try_from(bytes).expect("it fits into a segment");
                    return Ok(at(offset));
                }
                Err(reason) => return Err((at(offset), ScrubError::Entry(reason))),
            }
        }
        Ok(at(offset))
    }

    /// Whether so much is read from there on, in that segment.
    fn has_bytes(&self, at: Position, bytes: u64) -> bool {
        let end = self.end_in(at.segment).unwrap_or(0);
        u64::from(at.offset) + bytes <= u64::from(end)
    }

    /// Notes that the log is bad there.
    pub(super) fn note_rot(&mut self, at: Position, error: &dyn std::fmt::Display) {
        let is_forgotten = self.first_position().is_none_or(|first| at < first && at != begin_of(first));
        if is_forgotten || self.config.mutant.is(Mutant::ScrubForgetsRot) {
            return;
        }
        // With its header all of a segment is lost. Of what no flush took yet all will lie behind it.
        let lost_upto = if at.offset == 0 { end_of(at.segment) } else { at };
        let behind = self.runs.anchor_behind(lost_upto).map_or(self.pending, |(_, index)| index);
        // The next start passes over a place only if the snapshot has more than was intact before it, replaced or not.
        let upto = LogIndex(behind.max(self.scrub.replaced_upto + 1));
        let known = self.scrub.rot;
        if known.is_some_and(|known| known.upto >= upto) {
            return;
        }
        tracing::error!(
            %at, %error, %upto,
            "the log went bad on disk: nothing is lost while this process runs. A snapshot beyond it is made, behind which the \
             log is forgotten; until then another node is to lead. Check the disk"
        );
        self.scrub.rot = Some(Rot { at: known.map_or(at, |known| known.at), upto });
    }

    /// Where the first entry lies that is needed to find all that are there.
    fn first_position(&self) -> Option<Position> {
        if self.truncated.0 == 0 {
            // Those before it were all replaced.
            return self.segments.first().map(|first| Position::first(first.segment));
        }
        let first = self.runs.stretch(self.truncated.0 + 1, 1)?;
        Some(Position { segment: first.segment, offset: first.offset })
    }

    /// Where the first entry lies that counts of a segment.
    fn first_entry_in(&self, segment: SegmentId) -> Position {
        let begin = Position::first(segment);
        self.first_position().filter(|first| first.segment == segment).map_or(begin, |first| first.max(begin))
    }

    /// End of what is read of a segment.
    fn end_in(&self, segment: SegmentId) -> Option<u32> {
        let header = self.segments.iter().find(|header| header.segment == segment)?;
        let end = self.scrub.end;
        if segment == end.segment {
            return Some(end.offset);
        }
        (segment < end.segment).then_some(header.segment_bytes)
    }
}

/// Where the header of its segment lies.
fn begin_of(at: Position) -> Position {
    Position { segment: at.segment, offset: 0 }
}

/// Behind all of a segment.
fn end_of(segment: SegmentId) -> Position {
    Position { segment, offset: u32::MAX }
}

//! Where the entries lie and which term they have, compactly.
//!
//! A run is a stretch of one segment whose entries have consecutive indexes. The file is append-only: a conflicting suffix is
//! replaced by entries further on, so a new run begins and the older ones are cut. Within a run only every so-many-th entry's
//! offset is kept (an anchor); the entries between are found by reading on from it.
//!
//! Invariants: runs are in order of index without gap or overlap, and in order of position; term ranges are in order of
//! index with strictly rising terms.

use crate::io::SegmentId;
use crate::log::layout::Position;

/// Entries from one anchor to the next.
const ANCHOR_ENTRIES: u64 = 64;
/// Bytes from one anchor to the next, unless a single entry is longer.
const ANCHOR_BYTES: u32 = 64 << 10;

/// An entry whose offset is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Anchor {
    index: u64,
    offset: u32,
}

#[derive(Clone, Debug)]
struct Run {
    segment: SegmentId,
    // first <= last; the first anchor may be of an entry before, which is forgotten
    first: u64,
    last: u64,
    // Where the entry after the last one written in this stretch begins; entries above `last` were cut off.
    end: u32,
    cut: bool,
    anchors: Vec<Anchor>,
}

/// A stretch of a segment that holds an entry and entries after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stretch {
    pub segment: SegmentId,
    /// Begin of the entry `first`.
    pub offset: u32,
    pub length: u32,
    pub first: u64,
    /// No entry above this one counts, even if the stretch holds some.
    pub last: u64,
}

/// Positions of all entries of the log that are in a segment.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs {
    runs: Vec<Run>,
}

impl Runs {
    /// Notes an entry written at `at`, ending at `next`. It replaces every entry at or above its index.
    pub fn push(&mut self, index: u64, at: Position, next: u32) {
        self.cut(index);
        if let Some(run) = self.runs.last_mut() {
            assert_eq!(run.last + 1, index, "positions without a gap");
            assert!(Position { segment: run.segment, offset: run.end } <= at, "appended at {at} before {}", run.end);
            if !run.cut && run.segment == at.segment && run.end == at.offset {
                let anchor = run.anchors.last().expect("a run begins with an anchor");
                if index - anchor.index >= ANCHOR_ENTRIES || next - anchor.offset > ANCHOR_BYTES {
                    run.anchors.push(Anchor { index, offset: at.offset });
                }
                run.last = index;
                run.end = next;
                return;
            }
        }
        let anchors = vec![Anchor { index, offset: at.offset }];
        self.runs.push(Run { segment: at.segment, first: index, last: index, end: next, cut: false, anchors });
    }

    /// Forgets entries at and above `index`.
    pub fn cut(&mut self, index: u64) {
        while self.runs.last().is_some_and(|run| run.first >= index) {
            self.runs.pop();
        }
        if let Some(run) = self.runs.last_mut().filter(|run| run.last >= index) {
            run.last = index - 1;
            run.cut = true;
            run.anchors.retain(|anchor| anchor.index < index);
        }
    }

    /// Forgets entries at and below `index`.
    pub fn drop_upto(&mut self, index: u64) {
        let gone = self.runs.partition_point(|run| run.last <= index);
        self.runs.drain(..gone);
        if let Some(run) = self.runs.first_mut().filter(|run| run.first <= index) {
            // The anchor at or before the first that stays is still needed to find it.
            let behind = run.anchors.partition_point(|anchor| anchor.index <= index + 1);
            run.anchors.drain(..behind - 1);
            run.first = index + 1;
        }
    }

    /// The segment of the first entry.
    pub fn first_segment(&self) -> Option<SegmentId> {
        self.runs.first().map(|run| run.segment)
    }

    /// The first entry behind that place whose offset is known.
    pub fn anchor_behind(&self, at: Position) -> Option<(Position, u64)> {
        let of = |run: &Run| {
            let anchors = run.anchors.iter().map(|anchor| (anchor.index, anchor.offset));
            let segment = run.segment;
            let found = anchors.map(move |(index, offset)| (Position { segment, offset }, index));
            found.filter(|(place, _)| *place > at).min()
        };
        // Runs are in order of position.
        let from = self.runs.partition_point(|run| run.segment < at.segment);
        self.runs[from..].iter().find_map(of)
    }

    /// The stretch that holds entry `index`, up to about `bytes_max` long.
    pub fn stretch(&self, index: u64, bytes_max: u32) -> Option<Stretch> {
        let run = &self.runs[..self.runs.partition_point(|run| run.first <= index)].last()?;
        if index > run.last {
            return None;
        }
        let behind = run.anchors.partition_point(|anchor| anchor.index <= index);
        let begin = run.anchors[behind - 1];
        let end = run.anchors[behind..].iter().map(|anchor| anchor.offset).find(|end| end - begin.offset >= bytes_max);
        Some(Stretch {
            segment: run.segment,
            offset: begin.offset,
            length: end.unwrap_or(run.end) - begin.offset,
            first: begin.index,
            last: run.last,
        })
    }
}

/// The terms of all entries.
#[derive(Clone, Debug, Default)]
pub(super) struct Terms {
    // (first index, term)
    ranges: Vec<(u64, u64)>,
}

impl Terms {
    /// Notes an entry. It replaces every entry at or above its index.
    pub fn push(&mut self, index: u64, term: u64) {
        while self.ranges.last().is_some_and(|(first, _)| *first >= index) {
            self.ranges.pop();
        }
        match self.ranges.last() {
            Some((_, last)) if *last == term => {}
            last => {
                assert!(last.is_none_or(|(_, last)| *last < term), "term {term} at {index} after {last:?}");
                self.ranges.push((index, term));
            }
        }
    }

    /// Forgets entries at and below `index`.
    pub fn drop_upto(&mut self, index: u64) {
        let behind = self.ranges.partition_point(|(first, _)| *first <= index + 1);
        if behind > 0 {
            self.ranges.drain(..behind - 1);
            self.ranges[0].0 = self.ranges[0].0.max(index + 1);
        }
    }

    /// The term of an entry that is in the log.
    pub fn get(&self, index: u64) -> Option<u64> {
        self.ranges[..self.ranges.partition_point(|(first, _)| *first <= index)].last().map(|(_, term)| *term)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(segment: u64, offset: u32) -> Position {
        Position { segment: SegmentId(segment), offset }
    }

    #[test]
    fn stretch_begins_at_an_anchor_at_or_before_the_entry() {
        let mut runs = Runs::default();
        for index in 1..=1000u64 {
            let offset = 512 + (index as u32 - 1) * 100;
            runs.push(index, at(1, offset), offset + 100);
        }
        for index in [1, 2, 64, 65, 66, 500, 1000] {
            let found = runs.stretch(index, 1).unwrap();
            assert!(found.first <= index && index - found.first < ANCHOR_ENTRIES, "{index} {found:?}");
            assert_eq!(found.offset, 512 + (found.first as u32 - 1) * 100);
            assert!(u64::from(found.length / 100) > index - found.first, "{index} {found:?}");
            assert_eq!(found.last, 1000);
        }
        assert_eq!(runs.stretch(1001, 1), None);
        assert_eq!(runs.stretch(1, u32::MAX).unwrap().length, 100_000);
    }

    #[test]
    fn replaced_suffix_is_found_where_it_was_written_last() {
        let mut runs = Runs::default();
        for index in 1..=10u64 {
            runs.push(index, at(1, 512 + index as u32 * 8), 520 + index as u32 * 8);
        }
        runs.push(6, at(1, 2000), 2008);
        runs.push(7, at(2, 512), 520);
        let found = runs.stretch(5, u32::MAX).unwrap();
        assert_eq!((found.segment, found.first, found.last), (SegmentId(1), 1, 5));
        let found = runs.stretch(6, u32::MAX).unwrap();
        assert_eq!((found.offset, found.first, found.last), (2000, 6, 6));
        assert_eq!(runs.stretch(7, u32::MAX).unwrap().segment, SegmentId(2));
        assert_eq!(runs.stretch(8, u32::MAX), None);
        runs.push(3, at(2, 520), 528);
        assert_eq!(runs.stretch(2, u32::MAX).unwrap().last, 2);
        assert_eq!(runs.stretch(3, u32::MAX).unwrap().segment, SegmentId(2));
        assert_eq!(runs.stretch(4, u32::MAX), None);
    }

    #[test]
    fn terms_follow_replacement() {
        let mut terms = Terms::default();
        for (index, term) in [(1, 1), (2, 1), (3, 4), (4, 4), (3, 2), (4, 5)] {
            terms.push(index, term);
        }
        assert_eq!([1, 2, 3, 4, 9].map(|index| terms.get(index).unwrap()), [1, 1, 2, 5, 5]);
        assert_eq!(terms.get(0), None);
    }
}

//! What was written, in the order in which it was written, and what of it a recovered log must have.

use logic::io::{LogFile, LogWrite, SegmentId};
use logic::log::layout::{EntryKind, Found, SEGMENT_HEADER_BYTES};
use logic::log::{LogFlush, Reader};

use super::disk::Disk;

/// Term and payload of entries 1, 2, ...
pub type Content = Vec<(u64, Vec<u8>)>;

/// Puts a record in its place: it replaces everything from its index on.
fn put(content: &mut Content, found: &Found<'_>) {
    content.truncate(found.header.index.0 as usize - 1);
    content.push((found.header.term.0, found.payload.to_vec()));
}

/// The records of a flush that `disk` has whole, in order.
fn records<'a>(disk: &'a Disk, flush: &'a LogFlush) -> impl Iterator<Item = Found<'a>> {
    let in_segments = flush.writes.iter().filter_map(|write| match write.file {
        LogFile::Rounds => None,
        LogFile::Segment(segment) => Some((segment, write.offset)),
    });
    in_segments
        .flat_map(|(segment, offset)| Reader::new(&disk.segments[&segment.0]).expect("in use").resync(offset))
        .filter(|found| found.header.round == flush.round && found.header.kind == EntryKind::Record)
}

/// What the disk holds after a flush.
pub fn apply(content: &mut Content, disk: &Disk, flush: &LogFlush) {
    records(disk, flush).for_each(|found| put(content, &found));
}

/// What the disk may hold when a flush was cut off: nothing more than before, then one record more each.
pub fn steps(before: &Content, whole: &Disk, flush: &LogFlush) -> Vec<Content> {
    let mut steps = vec![before.clone()];
    for found in records(whole, flush) {
        let mut next = steps.last().expect("there is a first one").clone();
        put(&mut next, &found);
        steps.push(next);
    }
    steps
}

struct Written {
    segment: u64,
    offset: u32,
    next: u32,
    round: u64,
    /// `None` for a seal.
    record: Option<(u64, u64, Vec<u8>)>,
}

/// Everything that is on a clean disk, replaced entries and seals included, in order.
pub struct History {
    written: Vec<Written>,
    clean: Disk,
}

impl History {
    /// Reads a disk that has `content`.
    pub fn of(disk: &Disk, content: &Content) -> History {
        let mut written = Vec::new();
        let mut replayed = Content::new();
        for (segment, bytes) in &disk.segments {
            let reader = Reader::new(bytes).expect("a clean disk");
            assert_eq!(reader.header().segment, SegmentId(*segment));
            for found in reader.entries().map_while(Result::ok) {
                let is_record = found.header.kind == EntryKind::Record;
                if is_record {
                    put(&mut replayed, &found);
                }
                let (index, term) = (found.header.index.0, found.header.term.0);
                written.push(Written {
                    segment: *segment,
                    offset: found.offset,
                    next: found.next,
                    round: found.header.round,
                    record: is_record.then(|| (index, term, found.payload.to_vec())),
                });
            }
        }
        assert_eq!(&replayed, content, "the disk holds what was flushed");
        History { written, clean: disk.clone() }
    }

    /// `content` was recovered from `rotten`: it is what was written up to some point, and that point is not before the
    /// last round of which anything is intact (that round proves all rounds before it).
    pub fn check(&self, content: &Content, rotten: &Disk) {
        let proven = self.written.iter().filter(|written| self.is_intact(written, rotten)).map(|written| written.round);
        let proven = proven.max().unwrap_or(0);
        let mut replayed = Content::new();
        let mut is_found = proven == 0 && content.is_empty();
        for (at, written) in self.written.iter().enumerate() {
            if let Some((index, term, payload)) = &written.record {
                replayed.truncate(*index as usize - 1);
                replayed.push((*term, payload.clone()));
            }
            let upto = self.written.get(at + 1).map_or(u64::MAX, |next| next.round);
            is_found |= upto >= proven && replayed.len() == content.len() && replayed == *content;
        }
        is_found |= self.written.first().is_some_and(|first| first.round >= proven) && content.is_empty();
        assert!(is_found, "recovered {} entries that were not all written, or not all that is proven", content.len());
    }

    fn is_intact(&self, written: &Written, rotten: &Disk) -> bool {
        let Some(bytes) = rotten.segments.get(&written.segment) else { return false };
        let clean = &self.clean.segments[&written.segment];
        let header = 0..SEGMENT_HEADER_BYTES as usize;
        let entry = written.offset as usize..written.next as usize;
        bytes.len() >= entry.end && bytes[header.clone()] == clean[header] && bytes[entry.clone()] == clean[entry]
    }
}

/// The round of the entries that a flush wrote; `None` if it wrote only zeros and identifiers.
pub fn round_of(disk: &Disk, writes: &[LogWrite]) -> Option<u64> {
    writes.iter().find_map(|write| match write.file {
        LogFile::Rounds => None,
        LogFile::Segment(segment) => {
            let reader = Reader::new(&disk.segments[&segment.0]).expect("in use");
            reader.entry(write.offset).ok().map(|found| found.header.round)
        }
    })
}

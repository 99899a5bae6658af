//! A segment that a node may be writing, read entry by entry as far as there are any.

use std::io;
use std::path::{Path, PathBuf};

use disk::log_tail::SegmentTail;
use logic::io::SegmentId;
use logic::log::layout::{ENTRY_ALIGN_BYTES, ENTRY_HEADER_BYTES, PAYLOAD_BYTES_MAX, SEGMENT_HEADER_BYTES, entry_bytes};
use logic::log::{EntryKind, Found, HeaderError, Position, Reader, Reason, SegmentHeader};
use proto::checksum::crc32;

/// Read at once.
const WINDOW_BYTES: u32 = 64 << 10;
/// The largest entry.
const ENTRY_BYTES_MAX: u32 = entry_bytes(PAYLOAD_BYTES_MAX);
const _: () = assert!(WINDOW_BYTES > ENTRY_HEADER_BYTES && SEGMENT_HEADER_BYTES.is_multiple_of(ENTRY_ALIGN_BYTES));

/// An entry that was shown, as it was then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    pub segment: SegmentId,
    pub offset: u32,
    pub next: u32,
    pub checksum: u32,
    pub is_seal: bool,
}

/// See the module. Reads only what it has to.
#[derive(Debug)]
pub struct LiveSegment {
    pub path: PathBuf,
    pub header: SegmentHeader,
    /// Of the next entry.
    pub offset: u32,
    tail: SegmentTail,
    fresh_end: u32, // everything from `offset` up to here was read in this turn; nothing if it is not above `offset`
}

impl LiveSegment {
    /// Opens the segment at `path`, to go on at `offset`.
    pub fn open(path: &Path, offset: u32) -> io::Result<Result<LiveSegment, HeaderError>> {
        let mut tail = SegmentTail::open(path)?;
        tail.read(0, SEGMENT_HEADER_BYTES as usize)?;
        Ok(SegmentHeader::decode(tail.bytes()).map(|header| LiveSegment {
            path: path.to_owned(),
            header,
            offset,
            tail,
            fresh_end: 0,
        }))
    }

    /// A new turn: what was read may have become more. False if the file is another segment by now.
    pub fn begin_turn(&mut self) -> io::Result<bool> {
        self.fresh_end = 0;
        self.tail.read(0, SEGMENT_HEADER_BYTES as usize)?;
        Ok(SegmentHeader::decode(self.tail.bytes()).is_ok_and(|header| header == self.header))
    }

    /// Reads until the next entry is whole, or until it is clear that there is none yet.
    pub fn fill(&mut self) -> io::Result<Result<(), Reason>> {
        if self.fresh_end < self.offset.saturating_add(ENTRY_HEADER_BYTES) {
            self.read_upto(self.offset.saturating_add(WINDOW_BYTES))?;
        }
        match self.entry() {
            Ok(_) => Ok(Ok(())),
            Err(reason) if reason == Reason::Zeros || self.fresh_end >= self.offset.saturating_add(ENTRY_BYTES_MAX) => {
                Ok(Err(reason))
            }
            Err(_) => {
                self.read_upto(self.offset.saturating_add(ENTRY_BYTES_MAX))?;
                Ok(self.entry().map(|_| ()))
            }
        }
    }

    /// The next entry, if `fill` found it whole.
    pub fn entry(&self) -> Result<Found<'_>, Reason> {
        self.reader().entry(self.offset)
    }

    /// The next entry as it is to be remembered; it is whole.
    pub fn as_shown(&self, found: &Found<'_>) -> Shown {
        let bytes = &self.tail.bytes()[found.offset as usize..found.next as usize];
        Shown {
            segment: self.header.segment,
            offset: found.offset,
            next: found.next,
            checksum: crc32(bytes),
            is_seal: found.header.kind == EntryKind::Seal,
        }
    }

    /// Whether this entry is in it as it was shown.
    pub fn holds(&mut self, shown: &Shown) -> io::Result<bool> {
        let (start, end) = (shown.offset as usize, shown.next as usize);
        self.tail.read(start, end - start)?;
        let reader = self.reader();
        Ok(reader.entry(shown.offset).is_ok_and(|found| self.as_shown(&found) == *shown))
    }

    /// Whether an entry behind the next place proves that what should be there was durable. Reads the whole rest.
    pub fn proves_itself(&mut self) -> io::Result<bool> {
        self.read_upto(u32::MAX)?;
        let bad = Position { segment: self.header.segment, offset: self.offset };
        let mut behind = self.reader().resync(self.offset + ENTRY_ALIGN_BYTES);
        Ok(behind.any(|found| found.round_start(self.header.segment) > bad))
    }

    /// Whether an entry of this segment, from its next on, proves that what should be at `bad`, before it, was durable.
    pub fn proves(&mut self, bad: Position) -> io::Result<bool> {
        while self.fill()?.is_ok() {
            let Ok(found) = self.entry() else { break };
            if found.round_start(self.header.segment) > bad {
                return Ok(true);
            }
            self.offset = found.next;
        }
        Ok(false)
    }

    /// Where the next whole entry begins behind the place that is none, and how many bytes are in use from there on. Reads the
    /// whole rest.
    pub fn look_behind(&mut self) -> io::Result<(Option<u32>, u32)> {
        self.fresh_end = 0;
        self.read_upto(u32::MAX)?;
        let reader = self.reader();
        let next = reader.resync(self.offset + ENTRY_ALIGN_BYTES).next().map(|found| found.offset);
        Ok((next, reader.used_end(self.offset) - self.offset))
    }

    fn reader(&self) -> Reader<'_> {
        Reader::new(self.tail.bytes()).expect("the header was read, and is compared whenever it is read again")
    }

    fn read_upto(&mut self, end: u32) -> io::Result<()> {
        let start = self.fresh_end.max(self.offset);
        self.tail.read(start as usize, end.saturating_sub(start) as usize)?;
        self.fresh_end = end;
        Ok(())
    }
}

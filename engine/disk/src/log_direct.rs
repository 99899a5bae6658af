//! The `direct` way of the log's tail: dirty sectors are copied into DMA buffers and written O_DIRECT + O_DSYNC.
//!
//! Invariants:
//! - Every open file knows from where on it holds only zeros (`zero_from`), and the content of the sector it wrote last
//!   (`tail`): appending reads nothing. Any other partly covered sector is read from the disk first.
//! - Runs of one flush do not overlap, so they are written at the same time, in no order.
//! - An open segment is read through its `DmaFile` only, never through a map.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::rc::Rc;

use glommio::io::{DmaBuffer, DmaFile};
use logic::io::{LogFile, LogWrite, SegmentId};
use proto::limits::SECTOR_BYTES;

use crate::dir::DataDirView;
use crate::direct_io;
use crate::error::from_glommio;
use crate::log_files::LogFiles;

const SECTOR: u64 = SECTOR_BYTES as u64;
/// Bytes of one write. A longer run is cut, so that no buffer is larger.
const RUN_BYTES_MAX: u64 = 1 << 20;
/// Segments kept open: the one being written, the one before, and one prepared ahead.
const OPEN_SEGMENTS_MAX: usize = 4;

/// Sorts behind every segment.
const ROUNDS_KEY: u64 = u64::MAX;

pub(crate) struct Direct {
    dir: DataDirView,
    // By `key_of`.
    open: RefCell<BTreeMap<u64, Rc<OpenFile>>>,
    // Where the zeros begin in the segments as found at start and not opened since.
    zero_from: RefCell<BTreeMap<SegmentId, u64>>,
}

struct OpenFile {
    file: DmaFile,
    length: u64,
    // All bytes from here on are zero on disk; whole sectors.
    zero_from: Cell<u64>,
    // Offset and content of the last sector written.
    tail: RefCell<Option<(u64, [u8; SECTOR_BYTES])>>,
}

/// A range of whole sectors and its new content.
struct Run {
    offset: u64,
    buffer: DmaBuffer,
}

impl Direct {
    pub(crate) fn new(files: &LogFiles) -> Direct {
        let zero_from = files.segments.iter().map(|(segment, map)| (*segment, map.zero_from())).collect();
        Direct { dir: files.dir.clone(), open: RefCell::new(BTreeMap::new()), zero_from: RefCell::new(zero_from) }
    }

    pub(crate) fn is_open(&self, segment: SegmentId) -> bool {
        self.open.borrow().contains_key(&key_of(LogFile::Segment(segment)))
    }

    /// Opens a segment that was just prepared, so that its first write does not have to.
    pub(crate) async fn adopt_prepared(&self, segment: SegmentId) -> io::Result<()> {
        let file = self.open_file(LogFile::Segment(segment)).await?;
        file.zero_from.set(SECTOR);
        Ok(())
    }

    pub(crate) async fn flush(&self, writes: Vec<LogWrite>) -> io::Result<()> {
        let mut by_file: BTreeMap<u64, Vec<&LogWrite>> = BTreeMap::new();
        for write in writes.iter().filter(|write| !write.bytes.is_empty()) {
            by_file.entry(key_of(write.file)).or_default().push(write);
        }
        let mut pending = Vec::new();
        for writes in by_file.into_values() {
            let file = self.open_file(writes[0].file).await?;
            for run in file.runs(&writes).await? {
                let file = file.clone();
                pending.push(async move { direct_io::write(&file.file, run.buffer, run.offset).await });
            }
        }
        direct_io::join_all(pending).await?;
        self.close_old().await
    }

    /// `None` if the segment is not open here.
    pub(crate) async fn read(&self, segment: SegmentId, offset: u32, length: u32) -> Option<io::Result<Vec<u8>>> {
        let file = self.open.borrow().get(&key_of(LogFile::Segment(segment))).cloned()?;
        Some(file.read(u64::from(offset), length as usize).await)
    }

    async fn open_file(&self, name: LogFile) -> io::Result<Rc<OpenFile>> {
        if let Some(file) = self.open.borrow().get(&key_of(name)) {
            return Ok(file.clone());
        }
        let (path, known_zero) = match name {
            LogFile::Segment(segment) => (self.dir.segment_path(segment), self.zero_from.borrow_mut().remove(&segment)),
            LogFile::Rounds => (self.dir.rounds_path(), None),
        };
        let file = direct_io::open(&path, libc::O_DSYNC).await?;
        let length = file.file_size().await.map_err(from_glommio)?;
        let file = Rc::new(OpenFile {
            file,
            length,
            zero_from: Cell::new(known_zero.unwrap_or(length)),
            tail: RefCell::new(None),
        });
        // `prepare` and `flush` may have opened it at the same time: the first one counts.
        Ok(self.open.borrow_mut().entry(key_of(name)).or_insert(file).clone())
    }

    /// Closes segments that are not used any more; a drop closes in the background.
    pub(crate) fn forget(&self, is_gone: impl Fn(SegmentId) -> bool) {
        self.open.borrow_mut().retain(|key, _| *key == ROUNDS_KEY || !is_gone(SegmentId(*key)));
        self.zero_from.borrow_mut().retain(|segment, _| !is_gone(*segment));
    }

    /// Closes what is far behind the newest segment; it is read through a map from then on.
    async fn close_old(&self) -> io::Result<()> {
        loop {
            let oldest = {
                let mut open = self.open.borrow_mut();
                let segments = open.keys().filter(|key| **key != ROUNDS_KEY).count();
                if segments <= OPEN_SEGMENTS_MAX {
                    return Ok(());
                }
                open.pop_first().expect("more than the bound are open").1
            };
            close_file(oldest).await?;
        }
    }

    pub(crate) async fn close(&self) -> io::Result<()> {
        let open = std::mem::take(&mut *self.open.borrow_mut());
        for file in open.into_values() {
            close_file(file).await?;
        }
        Ok(())
    }
}

impl OpenFile {
    /// What to write for these writes, later ones over earlier ones, and remembers the new tail.
    async fn runs(&self, writes: &[&LogWrite]) -> io::Result<Vec<Run>> {
        let mut runs = Vec::new();
        for range in merged(writes) {
            assert!(range.end <= self.length, "write up to {} of {} bytes", range.end, self.length);
            let mut offset = range.start;
            while offset < range.end {
                let end = range.end.min(offset + RUN_BYTES_MAX);
                let buffer = direct_io::zeroed(usize::try_from(end - offset).expect("at most RUN_BYTES_MAX"));
                runs.push(Run { offset, buffer });
                offset = end;
            }
        }
        for sector in partly_covered(writes) {
            let bytes = self.sector(sector).await?;
            place(&mut runs, sector, &bytes);
        }
        for write in writes {
            place(&mut runs, u64::from(write.offset), &write.bytes);
        }
        let last = writes.iter().map(|write| u64::from(write.offset) + write.bytes.len() as u64).max();
        let last = last.expect("called with at least one write").next_multiple_of(SECTOR) - SECTOR;
        let run = runs.last().expect("a write covers at least one sector");
        let at = usize::try_from(last - run.offset).expect("within the run");
        let content = run.buffer.as_bytes()[at..at + SECTOR_BYTES].try_into().expect("one sector");
        *self.tail.borrow_mut() = Some((last, content));
        self.zero_from.set(self.zero_from.get().max(last + SECTOR));
        Ok(runs)
    }

    /// The present content of a sector.
    async fn sector(&self, offset: u64) -> io::Result<[u8; SECTOR_BYTES]> {
        if offset >= self.zero_from.get() {
            return Ok([0; SECTOR_BYTES]);
        }
        if let Some((_, content)) = self.tail.borrow().as_ref().filter(|(tail, _)| *tail == offset) {
            return Ok(*content);
        }
        let read = direct_io::read(&self.file, offset, SECTOR_BYTES).await?;
        Ok(read[..].try_into().expect("one sector"))
    }

    async fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let end = offset + length as u64;
        if end > self.length {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "behind the end of the segment"));
        }
        if length == 0 {
            return Ok(Vec::new());
        }
        let start = offset - offset % SECTOR;
        let bytes = usize::try_from(end.next_multiple_of(SECTOR) - start).expect("a read fits into memory");
        let read = direct_io::read(&self.file, start, bytes).await?;
        let skip = usize::try_from(offset - start).expect("less than a sector");
        Ok(read[skip..skip + length].to_vec())
    }
}

/// A file that is still read is closed by its reader's drop.
async fn close_file(file: Rc<OpenFile>) -> io::Result<()> {
    match Rc::try_unwrap(file) {
        Ok(file) => file.file.close().await.map_err(from_glommio),
        Err(_) => Ok(()),
    }
}

fn key_of(file: LogFile) -> u64 {
    match file {
        LogFile::Segment(segment) => segment.0,
        LogFile::Rounds => ROUNDS_KEY,
    }
}

/// The sectors these writes touch, as ascending ranges that neither overlap nor touch each other.
fn merged(writes: &[&LogWrite]) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = writes
        .iter()
        .map(|write| {
            let (start, end) = (u64::from(write.offset), u64::from(write.offset) + write.bytes.len() as u64);
            start - start % SECTOR..end.next_multiple_of(SECTOR)
        })
        .collect();
    ranges.sort_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// The sectors of which some write covers only a part; ascending. Their old content is laid below the writes.
fn partly_covered(writes: &[&LogWrite]) -> Vec<u64> {
    let mut sectors = Vec::new();
    for write in writes {
        let (start, end) = (u64::from(write.offset), u64::from(write.offset) + write.bytes.len() as u64);
        for edge in [start, end] {
            if edge % SECTOR != 0 {
                sectors.push(edge - edge % SECTOR);
            }
        }
    }
    sectors.sort_unstable();
    sectors.dedup();
    sectors
}

/// Copies bytes to their place in the runs that cover them.
fn place(runs: &mut [Run], offset: u64, bytes: &[u8]) {
    let mut offset = offset;
    let mut rest = bytes;
    let first = runs.partition_point(|run| run.offset + run.buffer.len() as u64 <= offset);
    for run in &mut runs[first..] {
        if rest.is_empty() {
            break;
        }
        let at = usize::try_from(offset - run.offset).expect("within the run");
        let count = rest.len().min(run.buffer.len() - at);
        run.buffer.as_bytes_mut()[at..at + count].copy_from_slice(&rest[..count]);
        offset += count as u64;
        rest = &rest[count..];
    }
    assert!(rest.is_empty(), "{} bytes at {offset} lie outside of the runs", rest.len());
}

#[cfg(test)]
#[path = "log_direct_test.rs"]
mod tests;

//! What one data directory knows: the entries of its log that count, its snapshots, and the chunks that its slot tables name.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use disk::log_files::SegmentMap;
use disk::{ChunkFiles, DataDirView, DirError};
use logic::io::{Room, SegmentId};
use logic::log::layout::{ENTRY_ALIGN_BYTES, SEGMENT_HEADER_BYTES};
use logic::log::{EntryKind, SnapshotMark};
use logic::snapshot::{SnapshotHeader, load};
use logic::state::State;
use logic::store::layout::DATA_OFFSET;
use logic::store::slot::Slot;
use logic::store::space::Space;
use proto::ids::{ClusterId, CoreId, ImageId, LogIndex, NodeId};
use proto::limits::BLOCK_BYTES;
use proto::record::Record;

use crate::command::log::entry::Entry;
use crate::command::log::segments::{Segment, Unread};
use crate::exit::{Cause, Failure};

/// Damaged places told of one directory.
const FAULTS_MAX: usize = 16;

/// An entry of a log that no later one replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub index: u64,
    pub term: u64,
    segment: u32, // which of the segments that were opened
    offset: u32,
}

/// The parts of an image that one core's chunk files have.
#[derive(Debug)]
pub struct CoreChunks {
    pub core: CoreId,
    pub chunks: Vec<Chunk>, // by number; a number may come twice
}

/// A whole slot of the image.
#[derive(Debug)]
pub struct Chunk {
    pub number: u32,
    pub bytes: u32,
    pub file: PathBuf,
    /// Of the extent in the file: the chunk's header sector, then its payload.
    pub offset: u64,
}

/// One data directory.
pub struct Witness {
    pub path: PathBuf,
    pub node: NodeId,
    pub cluster: Option<ClusterId>,
    /// Ascending by index.
    pub places: Vec<Place>,
    /// Known to be committed up to here.
    pub commit: u64,
    /// Ascending.
    pub snapshots: Vec<LogIndex>,
    pub cores: Vec<CoreChunks>,
    /// What is damaged or missing in it, for people.
    pub faults: Vec<String>,
    view: DataDirView,
    segments: Vec<Segment>,
}

impl Witness {
    /// Reads the directory. What is damaged in it is a fault and not an error.
    pub fn read(path: &Path, image: ImageId) -> Result<Witness, Failure> {
        let view = DataDirView::open(path).map_err(|error| match error {
            DirError::Foreign { .. } | DirError::Missing { .. } => {
                let text =
                    format!("{}: is not the data directory of a node: name one, or a copy of it", path.display());
                Failure::new(Cause::File, text)
            }
            other => Failure::new(Cause::File, other),
        })?;
        let mut witness = Witness {
            path: path.to_owned(),
            node: view.node(),
            cluster: None,
            places: Vec::new(),
            commit: 0,
            snapshots: Vec::new(),
            cores: Vec::new(),
            faults: Vec::new(),
            view: view.clone(),
            segments: Vec::new(),
        };
        witness.read_log(&view);
        match view.snapshots() {
            Ok(snapshots) => witness.snapshots = snapshots,
            Err(error) => witness.fault(format!("the snapshots cannot be listed: {error}")),
        }
        for core in (0..view.cores()).map(CoreId) {
            witness.read_chunks(&view, core, image);
        }
        Ok(witness)
    }

    /// The record of an entry: none if it has none, an error if this program does not understand it.
    pub fn record(&self, place: &Place) -> Option<Result<Record, String>> {
        let reader = self.segments[place.segment as usize].reader();
        match reader.entry(place.offset) {
            Ok(found) => Entry::new(reader.header(), &found).record,
            // A node that runs gave the segment to newer entries.
            Err(reason) => Some(Err(reason.to_string())),
        }
    }

    /// The state behind that entry; none if a running node has removed the snapshot meanwhile, an error if it is damaged.
    pub fn snapshot(&self, index: LogIndex) -> Result<Option<(SnapshotMark, State)>, String> {
        let map = match SegmentMap::open(&self.view.snapshot_path(index)) {
            Ok(map) => map,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        map.touch(0, map.len()).map_err(|error| error.to_string())?;
        let (mark, state) = self.load(&map)?;
        if mark.index == index { Ok(Some((mark, state))) } else { Err(format!("it is that of entry {}", mark.index)) }
    }

    fn load(&self, bytes: &[u8]) -> Result<(SnapshotMark, State), String> {
        let header = SnapshotHeader::decode(bytes).map_err(|error| error.to_string())?;
        load(bytes, self.cluster.unwrap_or(header.cluster)).map_err(|error| error.to_string())
    }

    /// One fault more; of too many only the first ones are kept.
    pub fn fault(&mut self, text: String) {
        match self.faults.len() {
            0..FAULTS_MAX => self.faults.push(text),
            FAULTS_MAX => self.faults.push("and more".to_owned()),
            _ => {}
        }
    }

    fn read_log(&mut self, view: &DataDirView) {
        let numbers = match view.segments() {
            Ok(numbers) => numbers,
            Err(error) => return self.fault(format!("the log cannot be listed: {error}")),
        };
        if numbers.is_empty() {
            self.fault("there is no log".to_owned());
        }
        let mut before: Option<SegmentId> = None;
        for number in numbers {
            if let Some(before) = before.filter(|before| before.0 + 1 < number.0) {
                self.fault(format!("segments {} to {} are missing", before.0 + 1, number.0 - 1));
            }
            before = Some(number);
            match Segment::open(&view.segment_path(number)) {
                Ok(segment) => match *segment.reader().header() {
                    header if header.segment != number => {
                        self.fault(format!("segment {}: its header is that of segment {}", number.0, header.segment.0));
                    }
                    header if self.cluster.is_some_and(|cluster| cluster != header.store.cluster) => {
                        self.fault(format!("segment {} is of cluster {}", number.0, header.store.cluster));
                    }
                    _ => self.read_segment(segment),
                },
                Err(Unread::Open(error) | Unread::Bytes(error)) => {
                    self.fault(format!("segment {} cannot be read: {error}", number.0));
                }
                Err(Unread::Header(error, _)) => self.fault(format!("segment {}: {error}", number.0)),
            }
        }
        self.commit = self.commit.min(self.places.last().map_or(0, |place| place.index));
    }

    fn read_segment(&mut self, segment: Segment) {
        let at = self.segments.len() as u32;
        let reader = segment.reader();
        let header = *reader.header();
        self.cluster.get_or_insert(header.store.cluster);
        // Looked at first: what a running node appends meanwhile is not taken for damage.
        let used_end = reader.used_end(0);
        let mut offset = SEGMENT_HEADER_BYTES;
        loop {
            match reader.entry(offset) {
                Ok(found) if found.header.kind == EntryKind::Seal => break,
                Ok(found) => {
                    let (index, term) = (found.header.index.0, found.header.term.0);
                    while self.places.last().is_some_and(|last| last.index >= index) {
                        self.places.pop();
                    }
                    self.places.push(Place { index, term, segment: at, offset });
                    self.commit = self.commit.max(found.header.commit.0);
                    offset = found.next;
                }
                Err(_) if offset >= used_end || segment.is_given_away(&reader) => break,
                Err(reason) => {
                    let next = reader.resync(offset + ENTRY_ALIGN_BYTES).next().map(|found| found.offset);
                    let behind = if next.is_some() { "entries follow" } else { "no entry follows" };
                    self.fault(format!("damaged at segment {} offset {offset}: {reason}; {behind}", header.segment.0));
                    let Some(next) = next else { break };
                    offset = next;
                }
            }
        }
        self.segments.push(segment);
    }

    fn read_chunks(&mut self, view: &DataDirView, core: CoreId, image: ImageId) {
        let files = match ChunkFiles::inspect(view, core) {
            Ok(files) => files,
            Err(error) => return self.fault(error.to_string()),
        };
        let mut found = CoreChunks { core, chunks: Vec::new() };
        for file in files {
            let start = match file {
                Ok(found) => found.start,
                Err(error) => {
                    self.fault(error.to_string());
                    continue;
                }
            };
            // Which slots count is decided by the code that decides it when a node starts.
            let (_, slots) = Space::recover(&[(start.file, &start.table)], Room { free_bytes: 0, files: 0 }, 0);
            let path = view.chunk_path(core, start.file);
            found.chunks.extend(slots.iter().filter(|slot| slot.image == image).map(|slot| chunk(slot, &path)));
        }
        found.chunks.sort_by_key(|chunk| chunk.number);
        self.cores.push(found);
    }
}

fn chunk(slot: &Slot, file: &Path) -> Chunk {
    let offset = DATA_OFFSET + u64::from(slot.extent.block) * BLOCK_BYTES as u64;
    Chunk { number: slot.chunk, bytes: slot.length, file: file.to_owned(), offset }
}

impl CoreChunks {
    /// Bytes of the image, each counted once.
    pub fn bytes(&self) -> u64 {
        let mut numbers: Vec<(u32, u32)> = self.chunks.iter().map(|chunk| (chunk.number, chunk.bytes)).collect();
        numbers.dedup_by_key(|(number, _)| *number);
        numbers.into_iter().map(|(_, bytes)| u64::from(bytes)).sum()
    }
}

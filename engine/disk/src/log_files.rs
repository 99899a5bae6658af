//! The log as it lies on disk: every segment mapped read-only, for recovery and for inspectors.
//!
//! Invariants:
//! - After `LogFiles::open` every byte that the maps show is durable: raft takes all of it as such.
//! - Every page was touched while opening: an unreadable sector is an error here and not a signal later.
//! - Nothing here writes but `mend`, and only what recovery would make no use of. A missing file of rounds is not replaced by
//!   an empty one: recovery must see that it is gone.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use logic::io::SegmentId;
use logic::log::{HeaderError, Reader};
use memmap2::{Advice, Mmap, MmapOptions};
use proto::limits::SECTOR_BYTES;

use crate::dir::{DataDir, DataDirView, publish, remove_unfinished, sync_dir};
use crate::reading;
use crate::repair::{Repair, lengthen};

/// Bytes of the file of round identifiers.
pub(crate) const ROUNDS_BYTES: usize = logic::log::rounds::ROUNDS_BYTES as usize;
const _: () = assert!(ROUNDS_BYTES.is_multiple_of(SECTOR_BYTES));

/// Why the log could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{path}: cannot {action}: {error}")]
pub struct LogOpenError {
    /// Which file.
    pub path: PathBuf,
    /// What was tried.
    pub action: &'static str,
    /// What the system said.
    #[source]
    pub error: io::Error,
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> LogOpenError {
    let path = path.to_owned();
    move |error| LogOpenError { path, action, error }
}

/// The last segment if it was never used and cannot be either: prepared in advance, and damaged or cut off since. Recovery
/// leaves it out, and it would be in the way of the next one.
fn unusable_spare(dir: &DataDirView) -> io::Result<Option<SegmentId>> {
    let Some(last) = dir.segments()?.into_iter().max() else { return Ok(None) };
    let path = dir.segment_path(last);
    // Nearly always the header tells that it can be used.
    let (mut header, file) = (Vec::new(), reading::open(&path)?);
    let length = file.metadata()?.len();
    io::Read::read_to_end(&mut io::Read::take(file, SECTOR_BYTES as u64), &mut header)?;
    if Reader::new(&header).is_ok_and(|reader| length >= u64::from(reader.header().segment_bytes)) {
        return Ok(None);
    }
    let bytes = reading::read(&path)?;
    let is_unused = bytes.iter().skip(SECTOR_BYTES).all(|byte| *byte == 0);
    let is_unusable = match Reader::new(&bytes) {
        Ok(reader) => bytes.len() < reader.header().segment_bytes as usize,
        Err(HeaderError::Version { .. }) => false,
        Err(_) => true,
    };
    Ok((is_unused && is_unusable).then_some(last))
}

/// Length of the segment, and the one that its header states, if that is more.
fn cut_off(path: &Path) -> io::Result<Option<(u64, u32)>> {
    let (mut header, file) = (Vec::new(), reading::open(path)?);
    let found = file.metadata()?.len();
    io::Read::read_to_end(&mut io::Read::take(file, SECTOR_BYTES as u64), &mut header)?;
    let stated = Reader::new(&header).ok().map(|reader| reader.header().segment_bytes);
    Ok(stated.filter(|stated| found < u64::from(*stated)).map(|stated| (found, stated)))
}

/// What is done before the log is judged, in a form that needs no judgement: the segment to remove, the lengths of the others and of the ring.
fn find_repairs(dir: &DataDirView) -> Result<(Option<SegmentId>, Vec<Repair>), LogOpenError> {
    let log_dir = dir.log_dir();
    let removed = unusable_spare(dir).map_err(failed(&log_dir, "look at its last segment"))?;
    let mut repairs: Vec<Repair> =
        removed.map(|segment| Repair::UnusedSegment { path: dir.segment_path(segment) }).into_iter().collect();
    for segment in dir.segments().map_err(failed(&log_dir, "list it"))? {
        let path = dir.segment_path(segment);
        if Some(segment) != removed
            && let Some((found, stated)) = cut_off(&path).map_err(failed(&path, "read its header"))?
        {
            repairs.push(Repair::SegmentLength { path, found, stated });
        }
    }
    let path = dir.rounds_path();
    match fs::metadata(&path) {
        Ok(metadata) if metadata.len() != ROUNDS_BYTES as u64 => {
            repairs.push(Repair::RoundsLength { path, found: metadata.len() });
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&path, "find its length")(error)),
        _ => {}
    }
    Ok((removed, repairs))
}

fn carry_out(repair: &Repair) -> io::Result<()> {
    match repair {
        Repair::UnusedSegment { path } => fs::remove_file(path),
        Repair::SegmentLength { path, stated, .. } => {
            let mut file = fs::OpenOptions::new().append(true).open(path)?;
            let missing = u64::from(*stated).saturating_sub(file.metadata()?.len());
            lengthen(&mut file, |file| {
                io::copy(&mut io::Read::take(io::repeat(0), missing), file)?;
                file.sync_all()
            })
        }
        // As if it was missing: recovery must see that it is gone.
        Repair::RoundsLength { path, found: 0 } => fs::remove_file(path),
        Repair::RoundsLength { path, .. } => {
            let new = path.with_extension("new");
            fs::write(&new, of_their_length(reading::read(path)?))?;
            File::open(&new)?.sync_all()?;
            publish(&new, path)
        }
        other => unreachable!("{other:?} is not of the log"),
    }
}

/// What a slot of the ring has instead of an identifier that was cut off: nothing that can be read. Zeros would say that it was
/// never written.
const CUT_OFF: u8 = 0xff;

/// Identifiers that were cut off cannot be read. None at all are none.
fn of_their_length(mut rounds: Vec<u8>) -> Vec<u8> {
    if !rounds.is_empty() {
        rounds.resize(ROUNDS_BYTES, CUT_OFF);
    }
    rounds
}

/// A whole file, mapped read-only.
#[derive(Debug)]
pub struct SegmentMap {
    map: Mmap,
}

impl SegmentMap {
    /// Maps a file. Touches nothing yet.
    pub fn open(path: &Path) -> io::Result<SegmentMap> {
        SegmentMap::map(&reading::open(path)?)
    }

    #[allow(unsafe_code)]
    fn map(file: &File) -> io::Result<SegmentMap> {
        // SAFETY: nobody shortens a segment: it is published at its full length and only ever overwritten in place, by
        // the process that holds the lock of the data directory. Bytes that are written while somebody reads them lie
        // above everything that was flushed, and logic asks only for what was flushed. One that is used again is written
        // over only when its process has let go of its map; an inspector may see that, and takes nothing on trust.
        let map = unsafe { MmapOptions::new().map(file)? };
        Ok(SegmentMap { map })
    }

    /// Brings the pages of a range into memory. `Err` where a plain access would end the process with SIGBUS.
    pub fn touch(&self, offset: usize, length: usize) -> io::Result<()> {
        match self.map.advise_range(Advice::PopulateRead, offset, length) {
            // Linux before 5.14 does not know the advice; then the access itself brings the pages.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            other => other,
        }
    }

    /// Where the zeros at the end of the file begin, in whole sectors.
    pub(crate) fn zero_from(&self) -> u64 {
        let used = self.map.rchunks(SECTOR_BYTES).position(|sector| sector.iter().any(|byte| *byte != 0));
        // `rchunks` counts from the end; a file length is whole sectors, or else the first chunk is the odd one.
        let zeros = used.map_or(self.map.len(), |sectors| sectors * SECTOR_BYTES);
        (self.map.len() - zeros).next_multiple_of(SECTOR_BYTES) as u64
    }
}

impl Deref for SegmentMap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

/// The files of the log as found at start.
#[derive(Debug)]
pub struct LogFiles {
    pub(crate) dir: DataDirView,
    pub(crate) segments: BTreeMap<SegmentId, Arc<SegmentMap>>,
    rounds: Vec<u8>,
    repairs: Vec<Repair>,
}

impl LogFiles {
    /// Maps and reads everything, and syncs every file it keeps: the log as it is once it is mended. Blocking; before the device
    /// starts, which mends it.
    pub fn open(dir: &DataDir) -> Result<LogFiles, LogOpenError> {
        let log_dir = dir.view().log_dir();
        remove_unfinished(&log_dir).map_err(failed(&log_dir, "remove unfinished files"))?;
        let files = LogFiles::load(dir.view(), true)?;
        sync_dir(&log_dir).map_err(failed(&log_dir, "sync it"))?;
        Ok(files)
    }

    /// As `open`, but changes nothing. For inspectors; a running node may write meanwhile. Blocking.
    pub fn inspect(dir: &DataDirView) -> Result<LogFiles, LogOpenError> {
        LogFiles::load(dir, false)
    }

    /// Carries out the repairs. Doing it again does no harm. Blocking.
    pub(crate) fn mend(&self) -> io::Result<()> {
        self.repairs.iter().try_for_each(carry_out)
    }

    /// What is to be mended.
    #[must_use]
    pub fn repairs(&self) -> &[Repair] {
        &self.repairs
    }

    /// The segments, ascending.
    #[must_use]
    pub fn segments(&self) -> Vec<(SegmentId, &[u8])> {
        self.segments.iter().map(|(segment, map)| (*segment, &***map)).collect()
    }

    /// The file of round identifiers; empty if it does not exist.
    #[must_use]
    pub fn rounds(&self) -> &[u8] {
        &self.rounds
    }

    fn load(dir: &DataDirView, sync: bool) -> Result<LogFiles, LogOpenError> {
        let log_dir = dir.log_dir();
        let (left_out, repairs) = find_repairs(dir)?;
        let mut segments = BTreeMap::new();
        let found = dir.segments().map_err(failed(&log_dir, "list it"))?;
        for segment in found.into_iter().filter(|segment| Some(*segment) != left_out) {
            let path = dir.segment_path(segment);
            let file = reading::open(&path).map_err(failed(&path, "open it"))?;
            if sync {
                file.sync_data().map_err(failed(&path, "sync it"))?;
            }
            let map = SegmentMap::map(&file).map_err(failed(&path, "map it"))?;
            map.touch(0, map.len()).map_err(failed(&path, "read all of it"))?;
            segments.insert(segment, Arc::new(map));
        }
        let path = dir.rounds_path();
        let rounds = match reading::open(&path) {
            Ok(mut file) => {
                if sync {
                    file.sync_data().map_err(failed(&path, "sync it"))?;
                }
                let mut bytes = Vec::with_capacity(ROUNDS_BYTES);
                io::Read::read_to_end(&mut file, &mut bytes).map_err(failed(&path, "read it"))?;
                of_their_length(bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(&path, "open it")(error)),
        };
        Ok(LogFiles { dir: dir.clone(), segments, rounds, repairs })
    }
}

//! The chunk files of one core: whole extents in and out by O_DIRECT, without copying a byte of them.
//!
//! Cost of a chunk of 1 MiB: one write from the buffer it was received into; per commit one write for each run of slot
//! sectors and one fdatasync for each file, all files at the same time.
//!
//! Invariants:
//! - `write` completed is not durable; `commit` makes durable what was completed before it was called, and its slots.
//! - At most `IO_UNITS_MAX` reads and writes are under way, served in order; more wait.
//! - A chunk file appears under its name only when it is complete: allocated, header and zeroed slot table durable.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use glommio::io::{DmaBuffer, DmaFile};
use logic::io::{DiskError, Extent, FileId, Room};
use logic::shard::ChunkFileStart;
use logic::store::layout::{DATA_OFFSET, FILE_BLOCKS, FILE_BYTES, TABLE_BYTES, TABLE_OFFSET};
use proto::ids::CoreId;
use proto::limits::{BLOCK_BYTES, SECTOR_BYTES};

use crate::budget::Budget;
use crate::buffers::{BufferPool, ChunkBuffer};
use crate::chunk_file_header::{ChunkFileHeader, ChunkHeaderError};
use crate::descriptors;
use crate::dir::{DataDir, DataDirView, remove_unfinished, sync_dir};
use crate::direct_io::{self, join_all};
use crate::error::{Outcome, from_glommio, outcome};
use crate::machine;
use crate::new_file::{self, NewFile, blocking};
use crate::reading;
use crate::repair::{Repair, lengthen};

/// Reads and writes under way at once: well below the 128 entries of the ring, and enough for any disk of today.
const IO_UNITS_MAX: u64 = 32;
/// Commits under way at once. They do not queue behind the writes of chunks.
const COMMITS_MAX: u64 = 8;

/// One sector of a slot table, complete.
pub type SlotSector = Box<[u8; SECTOR_BYTES]>;

/// Why the chunk files of a core could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ChunkOpenError {
    /// The system refused something.
    #[error("{path}: cannot {action}: {error}")]
    System {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// It is not the file that its name says.
    #[error(
        "{path}: is chunk file {} of core {} of node {}: put it back to where it belongs",
        .found.file.0, .found.core.0, .found.node.0
    )]
    NotOurs {
        /// Which file.
        path: PathBuf,
        /// Its header.
        found: ChunkFileHeader,
    },
    /// Made by another version.
    #[error("{path}: has format version {found}: start the program that made it")]
    Version {
        /// Which file.
        path: PathBuf,
        /// What it says.
        found: u32,
    },
}

/// A chunk file, as it is once it is mended.
#[derive(Debug)]
pub struct FoundChunkFile {
    /// Its header and slot table.
    pub start: ChunkFileStart,
    /// What is to be mended.
    pub repairs: Vec<Repair>,
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> ChunkOpenError {
    let path = path.to_owned();
    move |error| ChunkOpenError::System { path, action, error }
}

/// The chunk files of one core, open. Clones share them; belongs to that core's executor.
#[derive(Clone)]
pub struct ChunkFiles {
    inner: Rc<Inner>,
}

struct Inner {
    dir: DataDirView,
    core: CoreId,
    pool: BufferPool,
    open: RefCell<BTreeMap<FileId, Rc<DmaFile>>>,
    io: Budget,
    commits: Budget,
}

impl ChunkFiles {
    /// Reads header and slot table of every chunk file of a core as they are once they are mended, and makes durable what it
    /// read. Blocking.
    pub fn load(dir: &DataDir, core: CoreId) -> Result<Vec<FoundChunkFile>, ChunkOpenError> {
        let dir = dir.view();
        let core_dir = dir.core_dir(core);
        remove_unfinished(&core_dir).map_err(failed(&core_dir, "remove unfinished files"))?;
        sync_dir(&core_dir).map_err(failed(&core_dir, "sync it"))?;
        let files = dir.chunk_files(core).map_err(failed(&core_dir, "list it"))?;
        files.into_iter().map(|file| load_file(dir, core, file, true)).collect()
    }

    /// Gives files of a core their length and their header, durably. Doing it again does no harm. Blocking; before `start`.
    pub fn mend(dir: &DataDir, core: CoreId, files: &[FileId]) -> Result<(), ChunkOpenError> {
        files.iter().try_for_each(|&file| {
            let path = dir.view().chunk_path(core, file);
            let header = ChunkFileHeader { node: dir.view().node(), core, file }.encode();
            mend(&path, &header).map_err(failed(&path, "repair it"))
        })
    }

    /// Reads header and slot table of every chunk file of a core, each by itself, and changes nothing. For inspectors; a
    /// running node may write meanwhile. Blocking.
    pub fn inspect(
        dir: &DataDirView,
        core: CoreId,
    ) -> Result<Vec<Result<FoundChunkFile, ChunkOpenError>>, ChunkOpenError> {
        let core_dir = dir.core_dir(core);
        let files = dir.chunk_files(core).map_err(failed(&core_dir, "list it"))?;
        Ok(files.into_iter().map(|file| load_file(dir, core, file, false)).collect())
    }

    /// Opens every chunk file of the core on this executor.
    pub async fn start(dir: &DataDir, core: CoreId, pool: BufferPool) -> io::Result<ChunkFiles> {
        let dir = dir.view().clone();
        let mut open = BTreeMap::new();
        for file in dir.chunk_files(core)? {
            open.insert(file, Rc::new(direct_io::open(&dir.chunk_path(core, file), 0).await?));
        }
        let inner = Inner {
            dir,
            core,
            pool,
            open: RefCell::new(open),
            io: Budget::new(IO_UNITS_MAX),
            commits: Budget::new(COMMITS_MAX),
        };
        Ok(ChunkFiles { inner: Rc::new(inner) })
    }

    /// Makes a chunk file. It must not exist. Without room, or without a descriptor, nothing is left behind.
    pub async fn create(&self, file: FileId) -> Outcome<()> {
        let inner = &*self.inner;
        let path = inner.dir.chunk_path(inner.core, file);
        let header = ChunkFileHeader { node: inner.dir.node(), core: inner.core, file }.encode();
        // The slot table is written often in small pieces, the data region once in large ones.
        let new = NewFile { bytes: FILE_BYTES, zeroed_bytes: DATA_OFFSET, header: &header, spare: None };
        match outcome(new_file::make(&path, new).await)? {
            Ok(()) => {}
            Err(error) => return Ok(Err(error)),
        }
        let opened = Rc::new(direct_io::open(&path, 0).await?);
        inner.open.borrow_mut().insert(file, opened);
        Ok(Ok(()))
    }

    /// Writes a whole buffer to its extent, which has exactly its blocks. Durable only after a `commit`.
    pub async fn write(&self, extent: Extent, buffer: Rc<ChunkBuffer>) -> io::Result<()> {
        assert_eq!(extent.blocks, buffer.blocks(), "extent and buffer differ");
        let offset = offset_of(extent);
        let file = self.inner.file(extent.file)?;
        let _unit = self.inner.io.acquire(1).await;
        direct_io::write_shared(&file, buffer.dma().clone(), offset).await
    }

    /// Writes slot sectors (file, number of the sector in the table, content), then makes all named files durable.
    pub async fn commit(&self, slots: Vec<(FileId, u32, SlotSector)>, files: Vec<FileId>) -> io::Result<()> {
        let _commit = self.inner.commits.acquire(1).await;
        let mut synced: BTreeSet<FileId> = files.into_iter().collect();
        synced.extend(slots.iter().map(|(file, ..)| *file));
        let mut writes = Vec::new();
        for run in slot_runs(slots) {
            let file = self.inner.file(run.file)?;
            let inner = self.inner.clone();
            writes.push(async move {
                let _unit = inner.io.acquire(1).await;
                direct_io::write(&file, run.buffer, run.offset).await
            });
        }
        join_all(writes).await?;
        let mut syncs = Vec::with_capacity(synced.len());
        for file in synced {
            let file = self.inner.file(file)?;
            syncs.push(async move { file.fdatasync().await.map_err(from_glommio) });
        }
        join_all(syncs).await
    }

    /// Reads an extent into a new buffer: header, payload and padding, at the address the kernel wrote it to.
    ///
    /// What the bytes are is not checked here.
    pub async fn read(&self, extent: Extent) -> Result<ChunkBuffer, DiskError> {
        let offset = offset_of(extent);
        let bytes = extent.blocks as usize * BLOCK_BYTES;
        let _unit = self.inner.io.acquire(1).await;
        let read = async { direct_io::read(&*self.inner.file(extent.file)?, offset, bytes).await };
        match read.await {
            Ok(result) => Ok(self.inner.pool.adopt_read(DmaBuffer::from(result))),
            Err(error) => {
                tracing::error!(core = self.inner.core.0, ?extent, %error, "a chunk could not be read");
                Err(reading::failure(&error))
            }
        }
    }

    /// Closes every file. Without it, descriptors stay open when the executor ends before the process does.
    pub async fn close(self) -> io::Result<()> {
        let open = std::mem::take(&mut *self.inner.open.borrow_mut());
        for file in open.into_values() {
            // A file still in use is closed by the drop of its last user.
            if let Ok(file) = Rc::try_unwrap(file) {
                file.close().await.map_err(from_glommio)?;
            }
        }
        Ok(())
    }

    /// Room for new files.
    pub async fn room(&self) -> io::Result<Room> {
        let dir = self.inner.dir.clone();
        let files = self.inner.open.borrow().len() as u64;
        blocking(move || room(&dir, files)).await
    }
}

/// Room for new files of a core that has so many. Blocking.
pub fn room(dir: &DataDirView, files: u64) -> io::Result<Room> {
    let files_max = descriptors::chunk_files_max(descriptors::limit()?, dir.cores());
    Ok(Room { free_bytes: machine::free_bytes(dir.path())?, files: files_max.saturating_sub(files) })
}

impl Inner {
    fn file(&self, file: FileId) -> io::Result<Rc<DmaFile>> {
        let open = self.open.borrow();
        open.get(&file).cloned().ok_or_else(|| {
            let path = self.dir.chunk_path(self.core, file);
            io::Error::new(io::ErrorKind::NotFound, format!("{} is not open", path.display()))
        })
    }
}

impl fmt::Debug for ChunkFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkFiles").field("core", &self.inner.core).finish_non_exhaustive()
    }
}

fn offset_of(extent: Extent) -> u64 {
    let end = u64::from(extent.block) + u64::from(extent.blocks);
    assert!(extent.blocks > 0 && end <= u64::from(FILE_BLOCKS), "{extent:?} lies outside of its file");
    DATA_OFFSET + u64::from(extent.block) * BLOCK_BYTES as u64
}

/// A sector of a slot table, and its content.
type PlacedSlots = ((FileId, u32), SlotSector);

/// Neighbouring slot sectors of one file, written together.
struct SlotRun {
    file: FileId,
    offset: u64,
    buffer: DmaBuffer,
}

fn slot_runs(slots: Vec<(FileId, u32, SlotSector)>) -> Vec<SlotRun> {
    // Sorted, and of two contents for one sector the later one counts.
    let slots: BTreeMap<(FileId, u32), SlotSector> =
        slots.into_iter().map(|(file, sector, content)| ((file, sector), content)).collect();
    let mut groups: Vec<Vec<PlacedSlots>> = Vec::new();
    for (key, content) in slots {
        assert!((key.1 as usize) < TABLE_BYTES / SECTOR_BYTES, "sector {} lies behind the slot table", key.1);
        match groups.last_mut() {
            Some(group) if group.last().is_some_and(|(last, _)| (last.0, last.1 + 1) == key) => {
                group.push((key, content));
            }
            _ => groups.push(vec![(key, content)]),
        }
    }
    let run_of = |group: Vec<PlacedSlots>| {
        let mut buffer = direct_io::zeroed(group.len() * SECTOR_BYTES);
        for (target, (_, content)) in buffer.as_bytes_mut().chunks_exact_mut(SECTOR_BYTES).zip(&group) {
            target.copy_from_slice(&content[..]);
        }
        let (file, sector) = group[0].0;
        SlotRun { file, offset: TABLE_OFFSET + u64::from(sector) * SECTOR_BYTES as u64, buffer }
    };
    groups.into_iter().map(run_of).collect()
}

/// A file that was cut off reads as if it had its length again, and one without a whole header as if it had ours.
fn load_file(dir: &DataDirView, core: CoreId, file: FileId, sync: bool) -> Result<FoundChunkFile, ChunkOpenError> {
    let path = dir.chunk_path(core, file);
    let opened = reading::open(&path).map_err(failed(&path, "open it"))?;
    if sync {
        opened.sync_data().map_err(failed(&path, "sync it"))?;
    }
    let length = opened.metadata().map_err(failed(&path, "find its length"))?.len();
    let mut header = Box::new([0; SECTOR_BYTES]);
    let mut table = vec![0; TABLE_BYTES];
    read_what_is_there(&opened, length, &mut header[..], 0).map_err(failed(&path, "read its header"))?;
    read_what_is_there(&opened, length, &mut table, TABLE_OFFSET).map_err(failed(&path, "read its slot table"))?;
    let ours = ChunkFileHeader { node: dir.node(), core, file };
    let mut repairs = Vec::new();
    match ChunkFileHeader::decode(&header) {
        Ok(found) if found == ours => {}
        Ok(found) => return Err(ChunkOpenError::NotOurs { path, found }),
        Err(ChunkHeaderError::Version { found }) => return Err(ChunkOpenError::Version { path, found }),
        Err(ChunkHeaderError::Damaged) => {
            header = ours.encode();
            repairs.push(Repair::ChunkFileHeader { path: path.clone() });
        }
    }
    if length < FILE_BYTES {
        repairs.push(Repair::ChunkFileLength { path, found: length });
    }
    Ok(FoundChunkFile { start: ChunkFileStart { file, header, table }, repairs })
}

fn read_what_is_there(file: &File, length: u64, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    let rest = usize::try_from(length.saturating_sub(offset)).unwrap_or(usize::MAX);
    let there = rest.min(bytes.len());
    file.read_exact_at(&mut bytes[..there], offset)
}

fn mend(path: &Path, header: &[u8; SECTOR_BYTES]) -> io::Result<()> {
    let mut file = File::options().write(true).open(path)?;
    lengthen(&mut file, |file| allocate(file, FILE_BYTES))?;
    file.write_all_at(header, 0)?;
    file.sync_all()
}

#[allow(unsafe_code)]
fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    let bytes = libc::off_t::try_from(bytes).expect("a file's length fits");
    // SAFETY: the descriptor is open as long as `file` is borrowed; the call takes no memory of ours.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, bytes) } {
        0 => Ok(()),
        number => Err(io::Error::from_raw_os_error(number)),
    }
}

#[cfg(test)]
#[path = "chunk_files_test.rs"]
mod tests;

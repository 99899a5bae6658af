//! The data directory of a node: made once, recognised ever after, used by one process at a time.
//!
//! ```text
//! LOCK                      flock of the process that uses the directory; its pid inside
//! HELIOGRAPH                marker: format, node, cores (text, see `Marker`)
//! identity                  written by the node when it knows its cluster
//! vote                      term and vote, two copies
//! log/<16 digits>.seg       segments, in log order
//! log/rounds                identifiers of flush rounds
//! log/spare                 a segment that is not needed any more, to be used again
//! snapshots/<16 digits>.snap  snapshots of the replicated state, by the index of the last record
//! core-<n>/<16 digits>.chk  chunk files of core n
//! before-rejoin-<n>/        what was there before the node was taken in again (`set_aside`); nobody reads it
//! ```
//! Invariants:
//! - The marker is written last, durably: a directory with a marker has all its parts; one without is empty or not ours.
//! - What is not ours is never changed.
//! - Files named `*.new` were never finished and hold nothing; they may be removed.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use logic::io::{FileId, SegmentId};
use proto::ids::{CoreId, LogIndex, NodeId};

use crate::reading;
use crate::set_aside::SET_ASIDE;

const LOCK: &str = "LOCK";
const MARKER: &str = "HELIOGRAPH";
const MARKER_NEW: &str = "HELIOGRAPH.new";
const IDENTITY: &str = "identity";
const VOTE: &str = "vote";
const LOG: &str = "log";
const ROUNDS: &str = "rounds";
const SPARE: &str = "spare";
const SNAPSHOTS: &str = "snapshots";
/// Version of everything below the data directory.
const FORMAT: u32 = 1;
/// A marker is smaller than this.
const MARKER_BYTES_MAX: u64 = 4096;

/// Why a data directory cannot be used. The text names the remedy.
#[derive(Debug, thiserror::Error)]
pub enum DirError {
    /// It does not exist, or is empty, and was not to be created.
    #[error("{path}: there is no data directory: check the path, or let the node create it")]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// Another process uses it.
    #[error("{path}: in use by pid {pid}: stop that process, or give this node a directory of its own")]
    InUse {
        /// The directory.
        path: PathBuf,
        /// Who has it, as far as it is known ("?" if not).
        pid: String,
    },
    /// It holds something else.
    #[error("{path}: not a data directory of this program (it contains {found:?}): name an empty or a new directory")]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Something in it.
        found: PathBuf,
    },
    /// Its marker cannot be understood, or is not there though other parts of a data directory are.
    #[error(
        "{path}: the marker file is damaged or gone: restore it as it was. If that cannot be, move the directory away and start the node with --rejoin: then it is taken in again with a new one"
    )]
    MarkerDamaged {
        /// The marker.
        path: PathBuf,
    },
    /// A later program made it.
    #[error("{path}: format {found} is not known to this program (it knows {known}): use the release that wrote it")]
    Format {
        /// The directory.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// It belongs to another node.
    #[error("{path}: belongs to node {found}, this is node {node}: correct the node's id or the path")]
    OtherNode {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: u64,
        /// Who asks.
        node: u64,
    },
    /// It was made for another number of cores.
    #[error("{path}: was made for {found} cores, not {cores}: start the node with `cores = {found}`")]
    OtherCores {
        /// The directory.
        path: PathBuf,
        /// As made.
        found: u16,
        /// As asked.
        cores: u16,
    },
    /// A part of it is gone.
    #[error(
        "{part}: is missing from the data directory: restore it. If that cannot be, start the node with --rejoin: then it is taken in again"
    )]
    PartMissing {
        /// What is gone.
        part: PathBuf,
    },
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
}

pub(crate) fn system(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> DirError {
    let path = path.to_owned();
    move |error| DirError::System { path, action, error }
}

/// A data directory in use by this process. The lock lasts as long as this value; share it as `Arc<DataDir>`.
#[derive(Debug)]
pub struct DataDir {
    view: DataDirView,
    // Held for its flock.
    _lock: File,
}

impl DataDir {
    /// Opens the directory, or makes it if `create` and there is nothing yet, and locks it. Blocking.
    pub fn open(path: &Path, node: NodeId, cores: u16, create: bool) -> Result<DataDir, DirError> {
        let dir = DataDir::lock(path, node, cores, create)?;
        dir.view.check_parts()?;
        // What is in it can be had from the other nodes, so it may be gone.
        make_part(&dir.view.snapshots_dir())?;
        Ok(dir)
    }

    /// As `open`, or makes the directory; also one of which parts are gone, and then says which. `set_aside` makes them again.
    pub fn open_incomplete(path: &Path, node: NodeId, cores: u16) -> Result<(DataDir, Option<DirError>), DirError> {
        let dir = DataDir::lock(path, node, cores, true)?;
        let missing = dir.view.check_parts().err();
        Ok((dir, missing))
    }

    fn lock(path: &Path, node: NodeId, cores: u16, create: bool) -> Result<DataDir, DirError> {
        assert!(cores > 0, "a node has at least one core");
        let ours = Marker { format: FORMAT, node: node.0, cores };
        match first_foreign(path)? {
            Content::Nothing if !create => return Err(DirError::Missing { path: path.to_owned() }),
            Content::Nothing => make_directory(path)?,
            Content::Ours => {}
            Content::Foreign(found) => return Err(DirError::Foreign { path: path.to_owned(), found }),
        }
        let lock = take_lock(path)?;
        // Looked at again under the lock: two processes may have found nothing at the same time.
        match Marker::read(path)? {
            Some(found) => found.check(&ours, path)?,
            None => make_parts(path, &ours)?,
        }
        let view = DataDirView { path: path.to_owned(), marker: ours };
        Ok(DataDir { view, _lock: lock })
    }

    /// Why the directory cannot be used now, if another process has it. Changes nothing, and proves nothing for later.
    #[must_use]
    pub fn in_use(path: &Path) -> Option<DirError> {
        let mut file = reading::open(&path.join(LOCK)).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => Some(DirError::InUse { path: path.to_owned(), pid: holder(&mut file) }),
            // Free, and let go of again at once.
            _ => None,
        }
    }

    /// Paths and contents.
    #[must_use]
    pub fn view(&self) -> &DataDirView {
        &self.view
    }
}

/// A data directory as an inspector sees it: takes no lock and changes nothing, so it may be read while a node uses it.
#[derive(Clone, Debug)]
pub struct DataDirView {
    path: PathBuf,
    marker: Marker,
}

impl DataDirView {
    /// Opens a directory whoever it belongs to. Blocking.
    pub fn open(path: &Path) -> Result<DataDirView, DirError> {
        match first_foreign(path)? {
            Content::Nothing => Err(DirError::Missing { path: path.to_owned() }),
            Content::Foreign(found) => Err(DirError::Foreign { path: path.to_owned(), found }),
            Content::Ours => {
                let marker = Marker::read(path)?.ok_or_else(|| DirError::Missing { path: path.to_owned() })?;
                if marker.format != FORMAT {
                    return Err(DirError::Format { path: path.to_owned(), found: marker.format, known: FORMAT });
                }
                Ok(DataDirView { path: path.to_owned(), marker })
            }
        }
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose it is.
    #[must_use]
    pub fn node(&self) -> NodeId {
        NodeId(self.marker.node)
    }

    /// For how many cores it was made.
    #[must_use]
    pub fn cores(&self) -> u16 {
        self.marker.cores
    }

    /// The directory of the log.
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// A segment.
    #[must_use]
    pub fn segment_path(&self, segment: SegmentId) -> PathBuf {
        segment_path_in(&self.log_dir(), segment)
    }

    /// The identifiers of flush rounds.
    #[must_use]
    pub fn rounds_path(&self) -> PathBuf {
        self.log_dir().join(ROUNDS)
    }

    /// A segment that is kept to be used again.
    #[must_use]
    pub fn spare_path(&self) -> PathBuf {
        self.log_dir().join(SPARE)
    }

    /// The directory of the snapshots.
    #[must_use]
    pub fn snapshots_dir(&self) -> PathBuf {
        self.path.join(SNAPSHOTS)
    }

    /// A snapshot.
    #[must_use]
    pub fn snapshot_path(&self, index: LogIndex) -> PathBuf {
        self.snapshots_dir().join(format!("{:016}.snap", index.0))
    }

    /// The snapshots that exist, ascending; none if there is no directory for them. Blocking.
    pub fn snapshots(&self) -> io::Result<Vec<LogIndex>> {
        match numbered(&self.snapshots_dir(), "snap") {
            Ok(numbers) => Ok(numbers.into_iter().map(LogIndex).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Term and vote.
    #[must_use]
    pub fn vote_path(&self) -> PathBuf {
        self.path.join(VOTE)
    }

    /// The node's identity.
    #[must_use]
    pub fn identity_path(&self) -> PathBuf {
        self.path.join(IDENTITY)
    }

    /// The directory of a core's chunk files.
    #[must_use]
    pub fn core_dir(&self, core: CoreId) -> PathBuf {
        self.path.join(format!("core-{}", core.0))
    }

    /// A chunk file.
    #[must_use]
    pub fn chunk_path(&self, core: CoreId, file: FileId) -> PathBuf {
        self.core_dir(core).join(format!("{:016}.chk", file.0))
    }

    /// The segments that exist, ascending. Blocking.
    pub fn segments(&self) -> io::Result<Vec<SegmentId>> {
        Ok(segments_in(&self.log_dir())?.into_iter().map(|(segment, _)| segment).collect())
    }

    /// Files that were never finished: a start removes them. Blocking.
    pub fn unfinished(&self) -> io::Result<Vec<PathBuf>> {
        let cores = (0..self.cores()).map(|core| self.core_dir(CoreId(core)));
        let mut all = Vec::new();
        for dir in [self.log_dir(), self.snapshots_dir()].into_iter().chain(cores) {
            match unfinished(&dir) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                found => all.extend(found?),
            }
        }
        Ok(all)
    }

    /// The chunk files of a core that exist, ascending. Blocking.
    pub fn chunk_files(&self, core: CoreId) -> io::Result<Vec<FileId>> {
        Ok(numbered(&self.core_dir(core), "chk")?.into_iter().map(FileId).collect())
    }

    /// Whether all parts are there that the node does not make again.
    pub fn check_parts(&self) -> Result<(), DirError> {
        let cores = (0..self.marker.cores).map(|core| self.core_dir(CoreId(core)));
        for part in cores.chain([self.log_dir()]) {
            if !part.is_dir() {
                return Err(DirError::PartMissing { part });
            }
        }
        Ok(())
    }
}

/// The segments in `folder`, ascending, with their paths: for inspectors of a log that lies by itself. Blocking.
pub fn segments_in(folder: &Path) -> io::Result<Vec<(SegmentId, PathBuf)>> {
    let segments = numbered(folder, "seg")?.into_iter().map(SegmentId);
    Ok(segments.map(|segment| (segment, segment_path_in(folder, segment))).collect())
}

fn segment_path_in(folder: &Path, segment: SegmentId) -> PathBuf {
    folder.join(format!("{:016}.seg", segment.0))
}

/// The marker file: one `key value` a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Marker {
    format: u32,
    node: u64,
    cores: u16,
}

impl Marker {
    fn encode(&self) -> String {
        format!("heliograph data directory\nformat {}\nnode {}\ncores {}\n", self.format, self.node, self.cores)
    }

    fn decode(text: &str) -> Option<Marker> {
        let mut lines = text.lines();
        if lines.next() != Some("heliograph data directory") {
            return None;
        }
        let mut value = |key: &str| lines.next()?.strip_prefix(key)?.strip_prefix(' ');
        let format = value("format")?.parse().ok()?;
        if format != FORMAT {
            // What follows is only known to whoever wrote it.
            return Some(Marker { format, node: 0, cores: 0 });
        }
        Some(Marker { format, node: value("node")?.parse().ok()?, cores: value("cores")?.parse().ok()? })
    }

    fn read(dir: &Path) -> Result<Option<Marker>, DirError> {
        let path = dir.join(MARKER);
        let file = match reading::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(system(&path, "open it")(error)),
        };
        let mut bytes = Vec::new();
        file.take(MARKER_BYTES_MAX).read_to_end(&mut bytes).map_err(system(&path, "read it"))?;
        let marker = std::str::from_utf8(&bytes).ok().and_then(Marker::decode);
        marker.map(Some).ok_or(DirError::MarkerDamaged { path })
    }

    fn check(&self, ours: &Marker, path: &Path) -> Result<(), DirError> {
        let path = path.to_owned();
        if self.format != ours.format {
            return Err(DirError::Format { path, found: self.format, known: ours.format });
        }
        if self.node != ours.node {
            return Err(DirError::OtherNode { path, found: self.node, node: ours.node });
        }
        if self.cores != ours.cores {
            return Err(DirError::OtherCores { path, found: self.cores, cores: ours.cores });
        }
        Ok(())
    }
}

enum Content {
    /// No directory, or an empty one, or one whose making was interrupted.
    Nothing,
    /// There is a marker.
    Ours,
    /// No marker, but this.
    Foreign(PathBuf),
}

fn first_foreign(path: &Path) -> Result<Content, DirError> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Content::Nothing),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Ok(Content::Foreign(path.file_name().map(PathBuf::from).unwrap_or_default()));
        }
        Err(error) => return Err(system(path, "list it")(error)),
    };
    if path.join(MARKER).exists() {
        return Ok(Content::Ours);
    }
    for entry in entries {
        let name = entry.map_err(system(path, "list it"))?.file_name();
        let text = name.to_string_lossy();
        // What an interrupted `make_parts` leaves, and what `mkfs` puts into a new filesystem.
        let made_by_us = [LOCK, MARKER_NEW, LOG, SNAPSHOTS, "lost+found"].contains(&text.as_ref())
            || ["core-", SET_ASIDE].iter().any(|start| text.starts_with(start));
        if [IDENTITY, VOTE].contains(&text.as_ref()) && path.join(LOG).is_dir() {
            return Err(DirError::MarkerDamaged { path: path.join(MARKER) });
        }
        if !made_by_us {
            return Ok(Content::Foreign(PathBuf::from(name)));
        }
    }
    Ok(Content::Nothing)
}

fn make_directory(path: &Path) -> Result<(), DirError> {
    let path = std::path::absolute(path).map_err(system(path, "resolve it"))?;
    let made: Vec<&Path> = path.ancestors().take_while(|ancestor| !ancestor.exists()).collect();
    fs::create_dir_all(&path).map_err(system(&path, "create it"))?;
    // The entries in the parents must survive as well.
    for parent in made.iter().filter_map(|made| made.parent()) {
        sync_dir(parent).map_err(system(parent, "sync it"))?;
    }
    Ok(())
}

fn make_parts(path: &Path, marker: &Marker) -> Result<(), DirError> {
    let cores = (0..marker.cores).map(|core| path.join(format!("core-{core}")));
    for part in cores.chain([path.join(LOG), path.join(SNAPSHOTS)]) {
        make_part(&part)?;
    }
    let target = path.join(MARKER);
    replace_file(&target, &path.join(MARKER_NEW), marker.encode().as_bytes()).map_err(system(&target, "write it"))
}

pub(crate) fn make_part(part: &Path) -> Result<(), DirError> {
    match fs::create_dir(part) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(system(part, "create it")(error)),
        _ => Ok(()),
    }
}

fn take_lock(path: &Path) -> Result<File, DirError> {
    let lock_path = path.join(LOCK);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&lock_path)
        .map_err(system(&lock_path, "open it"))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(DirError::InUse { path: path.to_owned(), pid: holder(&mut file) });
        }
        Err(TryLockError::Error(error)) => return Err(system(&lock_path, "lock it")(error)),
    }
    let text = format!("{}\n", std::process::id());
    // In place: on a full filesystem what is given back may be gone.
    let written = file.write_all(text.as_bytes()).and_then(|()| file.set_len(text.len() as u64));
    written.map_err(system(&lock_path, "write it"))?;
    Ok(file)
}

/// Who holds the lock, for the text; whoever does may be writing it just now.
fn holder(lock: &mut File) -> String {
    let mut pid = String::new();
    let _ = lock.take(32).read_to_string(&mut pid);
    let pid = pid.trim();
    if pid.is_empty() { "?".to_owned() } else { pid.to_owned() }
}

/// Puts a whole file in place of `target`, durably: new file, sync, rename, sync of the directory. Blocking.
pub(crate) fn replace_file(target: &Path, new: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    publish(new, target)
}

/// Gives a complete and synced file its name, durably. Blocking.
pub(crate) fn publish(new: &Path, target: &Path) -> io::Result<()> {
    // Opened first: without a descriptor for it nothing is under the name yet.
    let dir = File::open(target.parent().expect("files of the data directory lie in a directory"))?;
    fs::rename(new, target)?;
    dir.sync_all()
}

/// Makes the entries of a directory durable. Blocking.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// What was never finished. Blocking.
pub(crate) fn unfinished(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "new") {
            all.push(path);
        }
    }
    all.sort();
    Ok(all)
}

/// Removes what was never finished. Blocking.
pub(crate) fn remove_unfinished(dir: &Path) -> io::Result<()> {
    unfinished(dir)?.iter().try_for_each(fs::remove_file)
}

/// The numbers of the files `<16 digits>.<extension>`, ascending. Other names are nobody's business.
fn numbered(dir: &Path, extension: &str) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let Some((stem, found)) = name.to_str().and_then(|name| name.rsplit_once('.')) else { continue };
        if found == extension && stem.len() == 16 && stem.bytes().all(|byte| byte.is_ascii_digit()) {
            numbers.push(stem.parse().expect("sixteen digits fit into 64 bits"));
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
#[path = "dir_test.rs"]
mod tests;

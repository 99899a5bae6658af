//! The segments of a log as an inspector finds them: mapped, told by their content, in the order of the log.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use disk::DataDirView;
use disk::log_files::SegmentMap;
use logic::log::{Bad, HeaderError, Reader, Reason};

use crate::exit::{Cause, Failure};

/// A segment is told by its first bytes, whatever the file's name.
const MAGIC: &[u8] = b"HELIOSEG";

/// A mapped segment whose header is intact.
pub struct Segment {
    pub path: PathBuf,
    map: SegmentMap,
}

/// Why a file is not read as a segment.
#[derive(Debug)]
pub enum Unread {
    /// It cannot be opened or mapped; an empty file cannot.
    Open(io::Error),
    /// The disk does not give its bytes.
    Bytes(io::Error),
    /// Its header, with whether it begins as that of a segment.
    Header(HeaderError, bool),
}

impl Segment {
    /// Maps a segment and brings all of it into memory: what the disk does not give is an error here, and not a signal later.
    pub fn open(path: &Path) -> Result<Segment, Unread> {
        let map = SegmentMap::open(path).map_err(Unread::Open)?;
        map.touch(0, map.len()).map_err(Unread::Bytes)?;
        match Reader::new(&map) {
            Ok(_) => Ok(Segment { path: path.to_owned(), map }),
            Err(error) => Err(Unread::Header(error, map.starts_with(MAGIC))),
        }
    }

    pub fn reader(&self) -> Reader<'_> {
        Reader::new(&self.map).expect("opened by the same reader")
    }

    /// Whether the node gave the file to newer entries since it was opened.
    pub fn is_given_away(&self, reader: &Reader<'_>) -> bool {
        Reader::new(&self.map).is_ok_and(|now| now.header() != reader.header())
    }
}

/// The segments at `path`: a segment, a folder of them, or a data directory.
pub fn segments(path: &Path) -> Result<Vec<Segment>, Failure> {
    let is_single = !path.is_dir();
    // What one that is to be used again holds says nothing.
    let is_spare = |path: &PathBuf| path.file_name().is_some_and(|name| name == "spare");
    let files = if is_single {
        vec![path.to_owned()]
    } else {
        let folder = DataDirView::open(path).map_or_else(|_| path.to_owned(), |view| view.log_dir());
        let entries = fs::read_dir(&folder).map_err(|error| unread(&folder, &error))?;
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file() && !is_spare(path)).collect()
    };
    let mut found: Vec<Segment> = Vec::new();
    for file in files {
        match Segment::open(&file) {
            Ok(segment) => found.push(segment),
            // In a folder what cannot be mapped is just no segment; or it was one, and vanished meanwhile.
            Err(Unread::Open(_) | Unread::Header(_, false)) if !is_single => {}
            Err(Unread::Open(error) | Unread::Bytes(error)) => return Err(unread(&file, &error)),
            Err(Unread::Header(error, _)) if !is_single => eprintln!("helio: {}: bad: {error}", file.display()),
            Err(Unread::Header(error, _)) => {
                let text = format!("is no segment of a log ({error}): name a segment, or the data directory");
                return Err(failure(&file, &text));
            }
        }
    }
    if found.is_empty() {
        return Err(no_segment(path));
    }
    found.sort_by_key(|segment| segment.reader().header().segment);
    Ok(found)
}

/// What follows the last entry of a segment.
pub fn is_end(bad: &Bad) -> bool {
    matches!(bad.reason, Reason::Zeros | Reason::Room { .. })
}

/// There is none at `path`.
pub fn no_segment(path: &Path) -> Failure {
    failure(path, "holds no segment of a log; name a segment, a folder of them, or a data directory")
}

/// The system does not give it.
pub fn unread(path: &Path, error: &io::Error) -> Failure {
    match error.kind() {
        ErrorKind::NotFound => failure(path, "does not exist: name a segment, a folder of them, or a data directory"),
        ErrorKind::PermissionDenied => failure(path, "may not be read by this user: run this as the user of the node"),
        _ => failure(path, &format!("cannot be read: {error}")),
    }
}

fn failure(path: &Path, text: &str) -> Failure {
    Failure::new(Cause::File, format!("{}: {text}", path.display()))
}

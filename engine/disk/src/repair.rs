//! What a start mends by itself before it uses the data directory: damage of which nothing follows that the files do not tell
//! as well without it.
//!
//! Start and inspector both see and judge the files as they are once they are mended. Only a start that does not refuse mends
//! them.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::PathBuf;

/// One file to mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// The last log segment was prepared and never used, and is damaged: it would be in the way of the next one.
    UnusedSegment {
        /// The segment.
        path: PathBuf,
    },
    /// A log segment was cut off. The entries that are left stay; recovery judges what is missing.
    SegmentLength {
        /// The segment.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// The length that its header states.
        stated: u32,
    },
    /// The ring of round identifiers has another length. What is left of it stays; recovery judges what is missing.
    RoundsLength {
        /// The ring.
        path: PathBuf,
        /// Its length.
        found: u64,
    },
    /// A chunk file was cut off. Its slots and chunks that are left have checksums of their own.
    ChunkFileLength {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
    },
    /// The header of a chunk file is damaged. It guards against a whole file in the wrong place, and a damaged one says
    /// nothing; the slots are bound to their file, and every chunk to its image, by checksums of their own.
    ChunkFileHeader {
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Repair::UnusedSegment { path } => {
                write!(f, "{}: a log segment that was never used is damaged: it is removed", path.display())
            }
            Repair::SegmentLength { path, found, .. } => {
                write!(f, "{}: the log segment was cut off at {found} bytes: its length is repaired", path.display())
            }
            Repair::RoundsLength { path, found: 0 } => {
                write!(f, "{}: the ring of round identifiers is empty: it is made again", path.display())
            }
            Repair::RoundsLength { path, found } => {
                write!(f, "{}: the ring of round identifiers has {found} bytes: its length is repaired", path.display())
            }
            Repair::ChunkFileLength { path, found } => write!(
                f,
                "{}: the chunk file was cut off at {found} bytes: its length is repaired; images of which bytes are missing \
                 come from other nodes that hold them",
                path.display()
            ),
            Repair::ChunkFileHeader { path } => write!(
                f,
                "{}: the header of the chunk file is damaged: it is written anew; the images in it are not concerned",
                path.display()
            ),
        }
    }
}

/// Gives a file back the length that `grow` makes, or leaves it as it was: a file that grew by what room there was would take
/// that from everything else.
pub(crate) fn lengthen(file: &mut File, grow: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let found = file.metadata()?.len();
    let result = grow(file);
    if result.is_err() {
        file.set_len(found)?;
    }
    result
}

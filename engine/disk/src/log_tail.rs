//! A segment that a node may be writing just now, read beside it, as far as asked and again where asked.
//!
//! The node writes past the page cache, so a map or an ordinary read may show what was there before, and what it leaves in
//! the cache is in the node's way. Hence O_DIRECT here too, where the filesystem can. A sector that is being written may
//! come back old or new: whoever reads believes only entries that are whole, and asks again.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::reading;

/// Enough for every disk that O_DIRECT knows: offset, length and address are multiples of this.
const ALIGN_BYTES: usize = 4096;

/// The bytes of one segment, as far as they were read. Changes nothing on disk.
#[derive(Debug)]
pub struct SegmentTail {
    path: PathBuf,
    file: File,
    is_direct: bool,
    room: Vec<u8>, // never grows: its address stays
    begin: usize,  // of the segment in `room`, aligned
    length: usize,
}

impl SegmentTail {
    /// Opens a segment and reads nothing yet. Blocking.
    pub fn open(path: &Path) -> io::Result<SegmentTail> {
        let (file, is_direct) =
            match OpenOptions::new().read(true).custom_flags(libc::O_DIRECT | libc::O_NONBLOCK).open(path) {
                Ok(file) => (file, true),
                // The filesystem has no O_DIRECT.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => (reading::open(path)?, false),
                Err(error) => return Err(error),
            };
        let length = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let room = vec![0; length.next_multiple_of(ALIGN_BYTES) + ALIGN_BYTES];
        let begin = room.as_ptr().align_offset(ALIGN_BYTES);
        Ok(SegmentTail { path: path.to_owned(), file, is_direct, room, begin, length })
    }

    /// The whole segment; zeros where nothing was read yet.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.room[self.begin..self.begin + self.length]
    }

    /// Reads this range, again if it was read before; behind the end there is nothing to read. Blocking.
    pub fn read(&mut self, offset: usize, length: usize) -> io::Result<()> {
        let start = offset.min(self.length) / ALIGN_BYTES * ALIGN_BYTES;
        let end = offset.saturating_add(length).min(self.length).next_multiple_of(ALIGN_BYTES);
        let mut at = start;
        while at < end {
            let target = &mut self.room[self.begin + at..self.begin + end];
            match self.file.read_at(target, at as u64) {
                // The last piece of a file whose length is no multiple, or of one that was cut short.
                Ok(0) => break,
                Ok(read) if !read.is_multiple_of(ALIGN_BYTES) => break,
                Ok(read) => at += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if self.is_direct && error.raw_os_error() == Some(libc::EINVAL) => {
                    self.file = reading::open(&self.path)?;
                    self.is_direct = false;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::SegmentTail;
    use crate::test_dir::test_dir;

    #[test]
    fn ranges_are_read_as_they_are_now_and_the_rest_is_not() {
        let folder = test_dir();
        let path = folder.path().join("segment");
        let mut expected: Vec<u8> = (0..20_000u32).map(|at| (at % 251) as u8 + 1).collect();
        fs::write(&path, &expected).unwrap();
        let mut tail = SegmentTail::open(&path).unwrap();
        assert_eq!(tail.bytes().len(), 20_000);
        assert!(tail.bytes().iter().all(|&byte| byte == 0));
        tail.read(5000, 10).unwrap();
        assert_eq!(tail.bytes()[4096..8192], expected[4096..8192]);
        assert!(tail.bytes()[8192..].iter().all(|&byte| byte == 0));
        expected[5000..5010].fill(0xee);
        fs::write(&path, &expected).unwrap();
        tail.read(0, usize::MAX).unwrap();
        assert!(tail.bytes() == expected, "an odd end is read, too");
        tail.read(30_000, 10).unwrap();
    }
}

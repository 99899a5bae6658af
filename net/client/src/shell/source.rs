//! Where the bytes of an image come from, and its fingerprint.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use proto::checksum::{CRC64_EMPTY, crc32, crc64, crc64_combine};
use proto::ids::Fingerprint;
use proto::limits::CHUNK_BYTES_MAX;

/// Bytes of an image: may be read more than once, in pieces, and must stay the same.
pub trait ImageSource: Send + Sync {
    /// Bytes in all.
    fn length(&self) -> u64;
    /// Fills `buffer` with the bytes from `offset` on. `UnexpectedEof` means that there are fewer bytes than `length`
    /// said: the source changed.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

/// A file, read in pieces, never whole in memory.
#[derive(Debug)]
pub struct FileSource {
    file: File,
    length: u64,
}

impl FileSource {
    /// Opens `path`, which must be a regular file. Its length is that of this moment.
    pub fn open(path: &Path) -> io::Result<FileSource> {
        // Looked at before it is opened: opening a pipe would wait for its other end.
        let metadata = std::fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file"));
        }
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(FileSource { file, length })
    }
}

impl ImageSource for FileSource {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)?;
        let at_end = offset + buffer.len() as u64 == self.length;
        if at_end && self.file.metadata()?.len() != self.length {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "the file has another length now"));
        }
        Ok(())
    }
}

/// Bytes in memory.
#[derive(Clone, Debug)]
pub struct MemorySource(pub Arc<Vec<u8>>);

impl ImageSource for MemorySource {
    fn length(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| ErrorKind::UnexpectedEof)?;
        let bytes = self.0.get(start..).and_then(|rest| rest.get(..buffer.len())).ok_or(ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

/// What one reading of a source gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) fingerprint: Fingerprint,
    /// CRC-32 of each chunk: the second reading must give the same.
    pub(crate) chunks: Vec<u32>,
}

/// Reads a source once, a chunk at a time.
pub(crate) fn read_through(source: &dyn ImageSource) -> io::Result<Reading> {
    let length = source.length();
    let mut buffer = vec![0; CHUNK_BYTES_MAX.min(usize::try_from(length).unwrap_or(CHUNK_BYTES_MAX))];
    let (mut checksum, mut chunks, mut offset) = (CRC64_EMPTY, Vec::new(), 0);
    while offset < length {
        let piece = (length - offset).min(CHUNK_BYTES_MAX as u64);
        let bytes = &mut buffer[..piece as usize];
        source.read_at(offset, bytes)?;
        checksum = crc64_combine(checksum, crc64(bytes), piece);
        chunks.push(crc32(bytes));
        offset += piece;
    }
    Ok(Reading { fingerprint: Fingerprint { length, checksum }, chunks })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use proto::checksum::{crc32, crc64};
    use proto::limits::CHUNK_BYTES_MAX;

    use super::{FileSource, ImageSource, MemorySource, read_through};

    #[test]
    fn reading_in_chunks_gives_the_checksum_of_the_whole() {
        for length in [1, CHUNK_BYTES_MAX - 1, CHUNK_BYTES_MAX, 2 * CHUNK_BYTES_MAX + 77] {
            let bytes: Vec<u8> = (0..length).map(|i| (i * 7 % 253) as u8).collect();
            let reading = read_through(&MemorySource(Arc::new(bytes.clone()))).unwrap();
            assert_eq!((reading.fingerprint.length, reading.fingerprint.checksum), (length as u64, crc64(&bytes)));
            assert_eq!(reading.chunks, bytes.chunks(CHUNK_BYTES_MAX).map(crc32).collect::<Vec<_>>());
        }
    }

    #[test]
    fn file_that_grows_or_shrinks_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image");
        std::fs::write(&path, [7; 1000]).unwrap();
        let source = FileSource::open(&path).unwrap();
        assert_eq!(read_through(&source).unwrap().fingerprint.length, 1000);
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"x").unwrap();
        assert_eq!(source.read_at(0, &mut [0; 1000]).unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
        std::fs::write(&path, [7; 10]).unwrap();
        assert_eq!(source.read_at(0, &mut [0; 1000]).unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
        assert!(FileSource::open(directory.path()).is_err());
        assert!(FileSource::open(&directory.path().join("none")).is_err());
    }
}

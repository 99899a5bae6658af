//! O_DIRECT reads and writes through glommio, whole or not at all, with the system's error numbers.

use std::future::{Future, poll_fn};
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use glommio::allocate_dma_buffer;
use glommio::io::{DmaBuffer, DmaFile, OpenOptions, ReadResult};
use proto::limits::SECTOR_BYTES;

use crate::error::from_glommio;

/// A zeroed buffer of whole sectors, from the ring's registered memory while that lasts. For small and medium I/O.
pub(crate) fn zeroed(bytes: usize) -> DmaBuffer {
    assert!(bytes > 0 && bytes.is_multiple_of(SECTOR_BYTES), "{bytes} bytes are not whole sectors");
    let mut buffer = allocate_dma_buffer(bytes);
    buffer.as_bytes_mut().fill(0);
    buffer
}

/// Opens an existing file for reading and writing; `flags` as for open(2).
pub(crate) async fn open(path: &Path, flags: i32) -> io::Result<DmaFile> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(flags).dma_open(path).await.map_err(from_glommio)
}

/// Makes a file that must not exist yet, empty.
pub(crate) async fn create(path: &Path) -> io::Result<DmaFile> {
    OpenOptions::new().read(true).write(true).create_new(true).dma_open(path).await.map_err(from_glommio)
}

/// Writes the whole buffer. A short write is a failure.
pub(crate) async fn write(file: &DmaFile, buffer: DmaBuffer, offset: u64) -> io::Result<()> {
    let expected = buffer.len();
    whole(file.write_at(buffer, offset).await.map_err(from_glommio)?, expected)
}

/// As `write`, with a buffer that others read meanwhile.
pub(crate) async fn write_shared(file: &DmaFile, buffer: Rc<DmaBuffer>, offset: u64) -> io::Result<()> {
    let expected = buffer.len();
    whole(file.write_rc_at(buffer, offset).await.map_err(from_glommio)?, expected)
}

/// Reads that many bytes. A short read is a failure. Offset and length are whole sectors.
pub(crate) async fn read(file: &DmaFile, offset: u64, bytes: usize) -> io::Result<ReadResult> {
    assert!(offset.is_multiple_of(SECTOR_BYTES as u64), "read at {offset}");
    assert!(bytes.is_multiple_of(SECTOR_BYTES), "read of {bytes}");
    let result = file.read_at_aligned(offset, bytes).await.map_err(from_glommio)?;
    if result.len() != bytes {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} of {bytes} bytes read", result.len())));
    }
    Ok(result)
}

fn whole(written: usize, expected: usize) -> io::Result<()> {
    if written == expected {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::WriteZero, format!("{written} of {expected} bytes written")))
}

/// Runs all of them at the same time and waits for every one; the first error wins.
///
/// Waiting for the rest matters: a caller that saw an error must not reuse what the kernel still reads.
pub(crate) async fn join_all<F: Future<Output = io::Result<()>>>(futures: Vec<F>) -> io::Result<()> {
    let mut running: Vec<Pin<Box<F>>> = futures.into_iter().map(Box::pin).collect();
    let mut first_error = None;
    poll_fn(|cx| {
        running.retain_mut(|future| match future.as_mut().poll(cx) {
            Poll::Pending => true,
            Poll::Ready(result) => {
                first_error = first_error.take().or(result.err());
                false
            }
        });
        if running.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    first_error.map_or(Ok(()), Err)
}

//! Makes large files ready before they are needed: allocated, zeroed, durable, and only then under their name.
//!
//! Zeros are written by O_DIRECT and not only allocated: the first write to an unwritten extent costs a journal commit
//! per sync, and large buffered writes leave large folios, of which a mapped write then syncs a whole MiB (measured).

use std::fs;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use glommio::io::DmaFile;
use glommio::timer::sleep;
use proto::limits::SECTOR_BYTES;

use crate::dir::publish;
use crate::direct_io;
use crate::error::from_glommio;

/// Zeros written at once.
const ZERO_PIECE_BYTES: usize = 1 << 20;
/// Longest pause between two pieces, so that a slow disk is not waited for twice.
const PAUSE_MAX: Duration = Duration::from_millis(5);

/// What a new file looks like.
#[derive(Clone, Copy)]
pub(crate) struct NewFile<'a> {
    /// Its length; all of it is allocated and reads as zeros behind the header.
    pub(crate) bytes: u64,
    /// So much of it, from the beginning, is written with zeros and not only allocated.
    pub(crate) zeroed_bytes: u64,
    /// Its first sector.
    pub(crate) header: &'a [u8; SECTOR_BYTES],
    /// A file of the same length that may be used for it, if it is there: what was in it is written over.
    pub(crate) spare: Option<&'a Path>,
}

/// Makes a file that must not exist yet. On any error nothing is left behind.
pub(crate) async fn make(path: &Path, file: NewFile<'_>) -> io::Result<()> {
    let target = path.to_owned();
    let new = path.with_extension("new");
    let (target_seen, new_old, spare) = (target.clone(), new.clone(), file.spare.map(Path::to_owned));
    let is_recycled = blocking(move || {
        if target_seen.exists() {
            // Never written over: it may be part of the log.
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} exists", target_seen.display())));
        }
        remove_if_there(&new_old)?;
        let Some(spare) = spare else { return Ok(false) };
        match fs::metadata(&spare) {
            Ok(found) if found.len() == file.bytes => fs::rename(&spare, &new_old).map(|()| true),
            Ok(_) => fs::remove_file(&spare).map(|()| false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    })
    .await?;
    let result = match fill(&new, file, is_recycled).await {
        Ok(()) => {
            let new = new.clone();
            blocking(move || {
                fs::File::open(&new)?.sync_all()?;
                publish(&new, &target)
            })
            .await
        }
        Err(error) => Err(error),
    };
    if result.is_err() {
        // The error that counts is the first one; whatever stays behind is removed at the next start.
        let _ = blocking(move || remove_if_there(&new)).await;
    }
    result
}

async fn fill(new: &Path, wanted: NewFile<'_>, is_recycled: bool) -> io::Result<()> {
    let file = if is_recycled { direct_io::open(new, 0).await? } else { direct_io::create(new).await? };
    let filled = fill_open(&file, wanted).await;
    // Closed also after a failure, and before the name is removed: an open file keeps its space.
    let closed = file.close().await.map_err(from_glommio);
    filled.and(closed)
}

async fn fill_open(file: &DmaFile, NewFile { bytes, zeroed_bytes, header, .. }: NewFile<'_>) -> io::Result<()> {
    assert!(zeroed_bytes >= SECTOR_BYTES as u64 && zeroed_bytes <= bytes, "{zeroed_bytes} of {bytes}");
    file.pre_allocate(bytes, false).await.map_err(from_glommio)?;
    let piece = Rc::new(direct_io::zeroed(ZERO_PIECE_BYTES));
    let mut offset = 0;
    while offset < zeroed_bytes {
        let rest = zeroed_bytes - offset;
        let started = Instant::now();
        if rest >= ZERO_PIECE_BYTES as u64 {
            direct_io::write_shared(file, piece.clone(), offset).await?;
            offset += ZERO_PIECE_BYTES as u64;
            // Half of the disk's time is left to the flushes that go on meanwhile.
            sleep(started.elapsed().min(PAUSE_MAX)).await;
        } else {
            let last = direct_io::zeroed(usize::try_from(rest).expect("less than one piece"));
            direct_io::write(file, last, offset).await?;
            offset = zeroed_bytes;
        }
    }
    let mut first = direct_io::zeroed(SECTOR_BYTES);
    first.as_bytes_mut().copy_from_slice(header);
    direct_io::write(file, first, 0).await
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Runs blocking work on the executor's pool.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    executor::blocking(work).await
}

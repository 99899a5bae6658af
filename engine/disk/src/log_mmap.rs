//! The `mmap` way of the log's tail: copied into writable maps and synced by threads of its own.
//!
//! After each sync the pages of a map are write-protected again, so the next store faults; and stores into a map that is
//! being synced stall for milliseconds. So no executor ever touches a writable map: two threads do (one for segments, one
//! for the rounds, so that both syncs of a flush run at the same time).
//!
//! Invariants:
//! - A writable map is opened after its page cache was dropped and with readahead off: large folios would make each sync
//!   write a MiB. The same file is never open for O_DIRECT here at the same time.
//! - An identifier is stored only after the entries of its round were: a process killed between the two must not leave the
//!   identifier alone, which would make the round look as if it might have been acknowledged.
//! - The threads end when this value is dropped, after the job they are at.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use glommio::channels::oneshot::{SharedReceiver, SharedSender, shared};
use logic::io::{LogFile, LogWrite, SegmentId};
use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::dir::DataDirView;
use crate::new_file::blocking;

/// Jobs waiting for a thread: at most one flush is under way, and it gives each thread at most one.
const JOBS_MAX: usize = 1;
/// Segments kept mapped for writing: the one being written, the one before, and some prepared ahead.
const OPEN_SEGMENTS_MAX: usize = 4;
/// Bytes behind the last write whose pages are mapped before they are needed.
const AHEAD_BYTES: usize = 256 << 10;
/// Bytes that one call to read ahead takes at most.
const READ_AHEAD_BYTES: usize = 128 << 10;

pub(crate) struct Mapped {
    dir: DataDirView,
    segments: RefCell<BTreeMap<SegmentId, Arc<WritableMap>>>,
    rounds: RefCell<Option<Arc<WritableMap>>>,
    segment_jobs: SyncSender<Job>,
    rounds_jobs: SyncSender<Job>,
}

/// Offset and bytes of each write to one file.
type Writes = Vec<(u32, Vec<u8>)>;

/// Writes to some files and how to tell that they are durable.
struct Job {
    files: Vec<(Arc<WritableMap>, Writes)>,
    after: Option<Receiver<()>>, // store only when this was told, or nobody will
    stored: Option<Sender<()>>,  // to be told when all is stored
    done: SharedSender<io::Result<()>>,
}

impl Mapped {
    pub(crate) fn start(dir: DataDirView) -> io::Result<Mapped> {
        let thread = |name: &str| -> io::Result<SyncSender<Job>> {
            let (jobs, queue) = sync_channel(JOBS_MAX);
            thread::Builder::new().name(name.to_owned()).spawn(move || work(&queue))?;
            Ok(jobs)
        };
        Ok(Mapped {
            dir,
            segments: RefCell::new(BTreeMap::new()),
            rounds: RefCell::new(None),
            segment_jobs: thread("log-segments")?,
            rounds_jobs: thread("log-rounds")?,
        })
    }

    pub(crate) fn is_open(&self, segment: SegmentId) -> bool {
        self.segments.borrow().contains_key(&segment)
    }

    /// Maps a segment that was just prepared, so that its first write does not have to.
    pub(crate) async fn adopt_prepared(&self, segment: SegmentId) -> io::Result<()> {
        self.segment(segment).await.map(drop)
    }

    pub(crate) async fn flush(&self, writes: Vec<LogWrite>) -> io::Result<()> {
        let mut segments: BTreeMap<SegmentId, Writes> = BTreeMap::new();
        let mut rounds = Writes::new();
        for write in writes {
            match write.file {
                LogFile::Segment(segment) => segments.entry(segment).or_default().push((write.offset, write.bytes)),
                LogFile::Rounds => rounds.push((write.offset, write.bytes)),
            }
        }
        let mut pending = Vec::with_capacity(2);
        let mut entries_stored = None;
        if !segments.is_empty() {
            let mut files = Vec::with_capacity(segments.len());
            for (segment, writes) in segments {
                files.push((self.segment(segment).await?, writes));
            }
            let (stored, told) = channel();
            entries_stored = Some(told);
            pending.push(submit(&self.segment_jobs, files, None, Some(stored))?);
        }
        if !rounds.is_empty() {
            let files = vec![(self.rounds().await?, rounds)];
            pending.push(submit(&self.rounds_jobs, files, entries_stored, None)?);
        }
        for done in pending {
            done.await.map_err(|_| thread_is_gone())??;
        }
        self.close_old();
        Ok(())
    }

    /// `None` if the segment is not mapped for writing here.
    pub(crate) async fn read(&self, segment: SegmentId, offset: u32, length: u32) -> Option<io::Result<Vec<u8>>> {
        let map = self.segments.borrow().get(&segment).cloned()?;
        Some(blocking(move || map.read(offset as usize, length as usize)).await)
    }

    async fn segment(&self, segment: SegmentId) -> io::Result<Arc<WritableMap>> {
        if let Some(map) = self.segments.borrow().get(&segment) {
            return Ok(map.clone());
        }
        let path = self.dir.segment_path(segment);
        let map = blocking(move || WritableMap::open(&path)).await?;
        Ok(self.segments.borrow_mut().entry(segment).or_insert(Arc::new(map)).clone())
    }

    async fn rounds(&self) -> io::Result<Arc<WritableMap>> {
        if let Some(map) = &*self.rounds.borrow() {
            return Ok(map.clone());
        }
        let path = self.dir.rounds_path();
        let map = Arc::new(blocking(move || WritableMap::open(&path)).await?);
        *self.rounds.borrow_mut() = Some(map.clone());
        Ok(map)
    }

    /// Closes segments that are not used any more.
    pub(crate) fn forget(&self, is_gone: impl Fn(SegmentId) -> bool) {
        self.segments.borrow_mut().retain(|segment, _| !is_gone(*segment));
    }

    pub(crate) fn close(&self) {
        self.segments.borrow_mut().clear();
        *self.rounds.borrow_mut() = None;
    }

    /// What is far behind the newest segment is read through a plain map from now on.
    fn close_old(&self) {
        let mut segments = self.segments.borrow_mut();
        while segments.len() > OPEN_SEGMENTS_MAX {
            segments.pop_first();
        }
    }
}

fn submit(
    jobs: &SyncSender<Job>,
    files: Vec<(Arc<WritableMap>, Writes)>,
    after: Option<Receiver<()>>,
    stored: Option<Sender<()>>,
) -> io::Result<SharedReceiver<io::Result<()>>> {
    let (done, receiver) = shared();
    // Never waits: the queue has room for the one flush that is under way.
    jobs.try_send(Job { files, after, stored, done }).map_err(|_| thread_is_gone())?;
    Ok(receiver)
}

fn thread_is_gone() -> io::Error {
    io::Error::other("a thread of the log ended")
}

fn work(queue: &Receiver<Job>) {
    while let Ok(Job { files, after, stored, done }) = queue.recv() {
        if let Some(after) = after
            && after.recv().is_err()
        {
            let _ = done.send(Err(thread_is_gone()));
            continue;
        }
        for (map, writes) in &files {
            for (offset, bytes) in writes {
                map.write(*offset as usize, bytes);
            }
        }
        if let Some(stored) = stored {
            // The other thread is gone only if the device is.
            let _ = stored.send(());
        }
        let result = files.iter().try_for_each(|(map, _)| map.sync());
        // Nobody waits any more: the device is gone, and with it whoever wanted to know.
        let _ = done.send(result);
        // After the answer, so that no flush waits for pages of the next one.
        for (map, writes) in &files {
            if let Some((offset, bytes)) = writes.last() {
                map.touch_ahead(*offset as usize, *offset as usize + bytes.len());
            }
        }
    }
}

/// A file mapped for writing. Only the threads of this file store into it.
struct WritableMap {
    file: File,
    map: MmapRaw,
}

impl WritableMap {
    /// Brings all of it into memory. Blocking.
    fn open(path: &Path) -> io::Result<WritableMap> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        advise(&file, 0..0, libc::POSIX_FADV_DONTNEED)?;
        advise(&file, 0..0, libc::POSIX_FADV_RANDOM)?;
        let map = MmapOptions::new().map_raw(&file)?;
        map.advise(Advice::Random)?;
        // Read ahead on demand is done in single pages, which stay single; one call takes no more than this.
        for start in (0..map.len()).step_by(READ_AHEAD_BYTES) {
            advise(&file, start..map.len().min(start + READ_AHEAD_BYTES), libc::POSIX_FADV_WILLNEED)?;
        }
        Ok(WritableMap { file, map })
    }

    #[allow(unsafe_code)]
    fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.map.len(), "write up to {} of {}", offset + bytes.len(), self.map.len());
        // SAFETY: the range lies in the map (asserted), which lives as long as `self`; the file is never shortened. Only
        // one thread stores into this map, and readers ask only for bytes that were flushed before.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.map.as_mut_ptr().add(offset), bytes.len()) }
    }

    #[allow(unsafe_code)]
    fn read(&self, offset: usize, length: usize) -> io::Result<Vec<u8>> {
        if offset + length > self.map.len() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "behind the end of the segment"));
        }
        self.touch(offset, length)?;
        let mut bytes = vec![0u8; length];
        // SAFETY: the range lies in the map (checked), `bytes` is as long, and both are apart. Flushed bytes are not
        // stored to any more, and the caller asks only for those.
        unsafe { std::ptr::copy_nonoverlapping(self.map.as_ptr().add(offset), bytes.as_mut_ptr(), length) }
        Ok(bytes)
    }

    #[allow(unsafe_code)]
    fn sync(&self) -> io::Result<()> {
        // SAFETY: a system call on a descriptor that `self.file` keeps open. It covers pages dirtied through the map.
        if unsafe { libc::fdatasync(self.file.as_raw_fd()) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// `Err` where a plain access would end the process with SIGBUS.
    fn touch(&self, offset: usize, length: usize) -> io::Result<()> {
        match self.map.advise_range(Advice::PopulateRead, offset, length) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            other => other,
        }
    }

    /// Maps the pages behind a write, once for each piece of `AHEAD_BYTES` that writes enter.
    fn touch_ahead(&self, write_start: usize, write_end: usize) {
        if write_start / AHEAD_BYTES == write_end / AHEAD_BYTES {
            return;
        }
        let start = write_end - write_end % AHEAD_BYTES;
        let end = self.map.len().min(start + 2 * AHEAD_BYTES);
        if start < end {
            // Only to be quick; a failure shows again when the bytes are needed.
            let _ = self.touch(start, end - start);
        }
    }
}

/// Advises about a range of a file; an empty range stands for all of it.
#[allow(unsafe_code)]
fn advise(file: &File, range: Range<usize>, advice: i32) -> io::Result<()> {
    let offset = libc::off_t::try_from(range.start).map_err(io::Error::other)?;
    let length = libc::off_t::try_from(range.len()).map_err(io::Error::other)?;
    // SAFETY: a system call on a descriptor that `file` keeps open; it takes no memory of ours.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), offset, length, advice) } {
        0 => Ok(()),
        number => Err(io::Error::from_raw_os_error(number)),
    }
}

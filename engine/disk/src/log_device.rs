//! The log's device on core 0: makes writes durable, prepares segments ahead, reads old entries. Two ways to flush.
//!
//! Cost of one flush: `direct`: one memcpy of the dirty sectors and two concurrent O_DIRECT + O_DSYNC writes (segment and
//! rounds); `mmap`: one hand-over to a thread of its own, a memcpy there, two concurrent fdatasyncs, one hand-over back.
//! engine/notes/002 has the figures.
//!
//! Invariants:
//! - At most one flush is under way (asserted). All its writes belong together: they are durable when it returns.
//! - After an `Err` of `flush` or `prepare` nothing more is confirmed: the caller ends the process.
//! - A segment appears under its name only when it is complete: full length, zeros, header, durable.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::rc::Rc;
use std::str::FromStr;
use std::sync::Arc;

use logic::io::{DiskError, LogFile, LogWrite, SegmentId};
use proto::limits::SECTOR_BYTES;

use crate::dir::{DataDirView, sync_dir};
use crate::error::{Outcome, outcome};
use crate::log_direct::Direct;
use crate::log_files::{LogFiles, ROUNDS_BYTES, SegmentMap};
use crate::log_mmap::Mapped;
use crate::new_file::{self, NewFile};
use crate::reading;

/// Segments kept mapped for reading.
const MAPS_MAX: usize = 64;
/// Bytes of one `read`.
const READ_BYTES_MAX: u32 = 64 << 20;

/// How the tail of the log becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FlushMethod {
    /// O_DIRECT + O_DSYNC through io_uring, from a copy of the dirty sectors.
    #[default]
    Direct,
    /// Copies into a writable map and fdatasync, on threads of its own.
    Mmap,
}

impl fmt::Display for FlushMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FlushMethod::Direct => "direct",
            FlushMethod::Mmap => "mmap",
        })
    }
}

/// The name is no flush method.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the flush method is `direct` or `mmap`")]
pub struct UnknownFlushMethod;

impl FromStr for FlushMethod {
    type Err = UnknownFlushMethod;

    fn from_str(name: &str) -> Result<FlushMethod, UnknownFlushMethod> {
        match name {
            "direct" => Ok(FlushMethod::Direct),
            "mmap" => Ok(FlushMethod::Mmap),
            _ => Err(UnknownFlushMethod),
        }
    }
}

/// The log's device. Clones share it; belongs to core 0's executor.
#[derive(Clone)]
pub struct LogDevice {
    device: Rc<Device>,
}

struct Device {
    dir: DataDirView,
    segment_bytes: u32,
    method: Method,
    // Segments that nobody writes, mapped for reading.
    maps: RefCell<BTreeMap<SegmentId, Arc<SegmentMap>>>,
    flushing: Cell<bool>,
    // The ring of round identifiers is there.
    has_rounds: Cell<bool>,
}

enum Method {
    Direct(Direct),
    Mmap(Mapped),
}

impl LogDevice {
    /// Takes over the files as found, and mends what is to be mended. `segment_bytes`: of new segments.
    ///
    /// Makes the ring of round identifiers in a new directory. One that is gone is made with the first flush: until then
    /// every start must see that it is gone, since logic first notes that the log heals.
    pub async fn start(method: FlushMethod, files: LogFiles, segment_bytes: u32) -> io::Result<LogDevice> {
        assert!(
            segment_bytes > 0 && (segment_bytes as usize).is_multiple_of(SECTOR_BYTES),
            "{segment_bytes} bytes a segment"
        );
        files.mend()?;
        let is_new = files.segments.is_empty();
        let has_rounds = !files.rounds().is_empty();
        let method = match method {
            FlushMethod::Direct => Method::Direct(Direct::new(&files)),
            FlushMethod::Mmap => Method::Mmap(Mapped::start(files.dir.clone())?),
        };
        let device = Device {
            dir: files.dir,
            segment_bytes,
            method,
            maps: RefCell::new(files.segments),
            flushing: Cell::new(false),
            has_rounds: Cell::new(has_rounds),
        };
        if is_new {
            device.ensure_rounds().await?;
        }
        Ok(LogDevice { device: Rc::new(device) })
    }

    /// Writes all of it and makes it durable. At most one at a time.
    ///
    /// Writes may start anywhere; sectors they cover only partly keep their other bytes. Of writes that overlap, the
    /// later one counts. Segments must exist.
    pub async fn flush(&self, writes: Vec<LogWrite>) -> io::Result<()> {
        let device = &*self.device;
        assert!(!device.flushing.replace(true), "one flush at a time");
        device.ensure_rounds().await?;
        // What is written is no longer read through a plain map.
        for write in &writes {
            if let LogFile::Segment(segment) = write.file {
                device.maps.borrow_mut().remove(&segment);
            }
        }
        let result = match &device.method {
            Method::Direct(direct) => direct.flush(writes).await,
            Method::Mmap(mapped) => mapped.flush(writes).await,
        };
        device.flushing.set(false);
        result
    }

    /// Makes a new segment: allocated, zeroed, header written, durable. In the background: flushes go on meanwhile.
    ///
    /// The segment must not exist. Without room nothing is left behind.
    pub async fn prepare(&self, segment: SegmentId, header: Box<[u8; SECTOR_BYTES]>) -> Outcome<()> {
        let device = &*self.device;
        let path = device.dir.segment_path(segment);
        let bytes = u64::from(device.segment_bytes);
        let spare = device.dir.spare_path();
        let file = NewFile { bytes, zeroed_bytes: bytes, header: &header, spare: Some(&spare) };
        match outcome(new_file::make(&path, file).await)? {
            Ok(()) => {}
            Err(error) => return Ok(Err(error)),
        }
        match &device.method {
            Method::Direct(direct) => direct.adopt_prepared(segment).await?,
            Method::Mmap(mapped) => mapped.adopt_prepared(segment).await?,
        }
        Ok(Ok(()))
    }

    /// Segments below `end` are not needed any more: one is kept to be used again, the others are removed, the first one
    /// first. A crash in between leaves the later ones.
    pub async fn retire(&self, end: SegmentId) -> io::Result<()> {
        let device = &*self.device;
        self.forget(|segment| segment < end);
        let dir = device.dir.clone();
        new_file::blocking(move || {
            let spare = dir.spare_path();
            for segment in dir.segments()?.into_iter().filter(|segment| *segment < end) {
                let path = dir.segment_path(segment);
                if spare.exists() { fs::remove_file(&path)? } else { fs::rename(&path, &spare)? }
            }
            sync_dir(&dir.log_dir())
        })
        .await
    }

    /// Removes the segments from `first` on, the last one first: a crash in between leaves the earlier ones.
    pub async fn drop_from(&self, first: SegmentId) -> io::Result<()> {
        let device = &*self.device;
        // A directory without segments and ring would be taken for one that was emptied.
        device.ensure_rounds().await?;
        self.forget(|segment| segment >= first);
        let dir = device.dir.clone();
        new_file::blocking(move || {
            for segment in dir.segments()?.into_iter().rev().filter(|segment| *segment >= first) {
                tracing::warn!(segment = segment.0, "a log segment that cannot be used is removed");
                fs::remove_file(dir.segment_path(segment))?;
            }
            sync_dir(&dir.log_dir())
        })
        .await
    }

    /// Closes segments, which are not used any more.
    fn forget(&self, is_gone: impl Fn(SegmentId) -> bool) {
        let device = &*self.device;
        device.maps.borrow_mut().retain(|segment, _| !is_gone(*segment));
        match &device.method {
            Method::Direct(direct) => direct.forget(is_gone),
            Method::Mmap(mapped) => mapped.forget(is_gone),
        }
    }

    /// Reads what was flushed. `Unreadable`: the device failed, or the range is not in the file; `Refused`:
    /// the system did not let it happen.
    pub async fn read(&self, segment: SegmentId, offset: u32, length: u32) -> Result<Vec<u8>, DiskError> {
        match self.try_read(segment, offset, length).await {
            Ok(bytes) => Ok(bytes),
            Err(error) => {
                tracing::error!(segment = segment.0, offset, length, %error, "the log could not be read");
                Err(reading::failure(&error))
            }
        }
    }

    /// Closes what is open. Without it, descriptors stay open when the executor ends before the process does.
    ///
    /// Nothing may be under way.
    pub async fn close(self) -> io::Result<()> {
        assert!(!self.device.flushing.get(), "closed during a flush");
        self.device.maps.borrow_mut().clear();
        match &self.device.method {
            Method::Direct(direct) => direct.close().await,
            Method::Mmap(mapped) => {
                mapped.close();
                Ok(())
            }
        }
    }

    async fn try_read(&self, segment: SegmentId, offset: u32, length: u32) -> io::Result<Vec<u8>> {
        if length > READ_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "more than one read may take"));
        }
        let device = &*self.device;
        let written = match &device.method {
            Method::Direct(direct) => direct.read(segment, offset, length).await,
            Method::Mmap(mapped) => mapped.read(segment, offset, length).await,
        };
        if let Some(result) = written {
            return result;
        }
        let known = device.maps.borrow().get(&segment).cloned();
        let path = device.dir.segment_path(segment);
        // Opening, mapping and touching pages all may wait for the disk.
        let blocking = new_file::blocking(move || {
            let map = match known {
                Some(map) => map,
                None => Arc::new(SegmentMap::open(&path)?),
            };
            let (start, end) = (offset as usize, offset as usize + length as usize);
            if end > map.len() {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "behind the end of the segment"));
            }
            map.touch(start, length as usize)?;
            Ok((map[start..end].to_vec(), map))
        });
        let (bytes, map) = blocking.await?;
        self.keep_map(segment, map);
        Ok(bytes)
    }

    fn keep_map(&self, segment: SegmentId, map: Arc<SegmentMap>) {
        // Written meanwhile: then it is no longer read through a plain map.
        let written = match &self.device.method {
            Method::Direct(direct) => direct.is_open(segment),
            Method::Mmap(mapped) => mapped.is_open(segment),
        };
        if written {
            return;
        }
        let mut maps = self.device.maps.borrow_mut();
        maps.insert(segment, map);
        while maps.len() > MAPS_MAX {
            let oldest = *maps.keys().find(|other| **other != segment).expect("more than one is mapped");
            maps.remove(&oldest);
        }
    }
}

impl Device {
    /// Makes the ring of round identifiers if there is none.
    async fn ensure_rounds(&self) -> io::Result<()> {
        if self.has_rounds.get() {
            return Ok(());
        }
        let bytes = ROUNDS_BYTES as u64;
        let file = NewFile { bytes, zeroed_bytes: bytes, header: &[0; SECTOR_BYTES], spare: None };
        new_file::make(&self.dir.rounds_path(), file).await?;
        self.has_rounds.set(true);
        Ok(())
    }
}

impl fmt::Debug for LogDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogDevice").field("dir", &self.device.dir.path()).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "log_device_test.rs"]
mod tests;

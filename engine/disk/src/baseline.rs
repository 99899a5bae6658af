//! Physical limits of a disk, measured with as little between as possible, and both flush methods of the log on it.
//!
//! Everything here is blocking and cleans up after itself; the files lie in a directory of their own below the one named.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use glommio::spawn_local;
use logic::io::{LogFile, LogWrite, SegmentId};
use logic::log::layout::SEGMENT_BYTES_DEFAULT;
use logic::log::rounds::ROUNDS_SLOTS;
use proto::ids::NodeId;
use proto::limits::{BLOCK_BYTES, SECTOR_BYTES};

use crate::dir::DataDir;
use crate::log_device::{FlushMethod, LogDevice};
use crate::log_files::LogFiles;

/// Bytes of one transfer when measuring bandwidth.
const TRANSFER_BYTES: usize = 1 << 20;
/// The extent that single flushes are written to, round and round.
const FLOOR_BYTES: u64 = 16 << 20;

/// Measured times, in ascending order.
#[derive(Clone, Debug)]
pub struct Samples {
    // Never empty.
    ascending: Vec<Duration>,
}

impl Samples {
    /// At least one sample.
    #[must_use]
    pub fn new(mut samples: Vec<Duration>) -> Samples {
        assert!(!samples.is_empty(), "nothing was measured");
        samples.sort_unstable();
        Samples { ascending: samples }
    }

    /// The smallest sample that `percent` of all do not exceed.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Duration {
        assert!((0.0..=100.0).contains(&percent), "{percent} %");
        let count = self.ascending.len();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let rank = (percent / 100.0 * count as f64).ceil() as usize;
        self.ascending[rank.clamp(1, count) - 1]
    }

    /// All of them, ascending.
    #[must_use]
    pub fn ascending(&self) -> &[Duration] {
        &self.ascending
    }
}

/// What sequential O_DIRECT transfers reach, in bytes a second.
#[derive(Clone, Copy, Debug)]
pub struct Bandwidth {
    /// Writing to an allocated file, last sync included.
    pub write: f64,
    /// Reading it back.
    pub read: f64,
}

/// One flush method of the log, measured with one flush in flight.
#[derive(Clone, Debug)]
pub struct FlushRun {
    /// Which method.
    pub method: FlushMethod,
    /// Records that one flush made durable.
    pub batch: usize,
    /// Time of each flush.
    pub flushes: Samples,
    /// Records made durable per second, roll-overs included.
    pub records_per_second: f64,
}

/// One append of 4 KiB and its fdatasync after the other, on a written extent, through the page cache: how a log is made
/// durable by those who do not use O_DIRECT, and the latency that disks are compared by.
pub fn fdatasync_latency(dir: &Path, count: usize) -> io::Result<Samples> {
    let scratch = Scratch::new(dir)?;
    let path = scratch.path.join("fdatasync");
    written_file(&path)?;
    let file = OpenOptions::new().read(true).write(true).open(&path)?;
    let block = [0xa5; BLOCK_BYTES];
    sample(count, |offset| {
        file.write_all_at(&block, offset)?;
        file.sync_data()
    })
}

/// One blocking pwritev2 of 4 KiB after the other, O_DIRECT and RWF_DSYNC, on a written extent: what no log can beat.
pub fn flush_floor(dir: &Path, count: usize) -> io::Result<Samples> {
    let scratch = Scratch::new(dir)?;
    let file = written_file(&scratch.path.join("floor"))?;
    let mut block = AlignedBytes::new(BLOCK_BYTES);
    block.bytes_mut().fill(0xa5);
    sample(count, |offset| write_durable(&file, block.bytes(), offset))
}

/// Times `write` for blocks that go round and round in a file of `FLOOR_BYTES`.
fn sample(count: usize, mut write: impl FnMut(u64) -> io::Result<()>) -> io::Result<Samples> {
    let mut samples = Vec::with_capacity(count);
    for number in 0..count as u64 {
        let offset = number * BLOCK_BYTES as u64 % FLOOR_BYTES;
        let started = Instant::now();
        write(offset)?;
        samples.push(started.elapsed());
    }
    Ok(Samples::new(samples))
}

/// Sequential transfers of 1 MiB, `in_flight` of them at once, over `bytes` in all.
pub fn bandwidth(dir: &Path, bytes: u64, in_flight: usize) -> io::Result<Bandwidth> {
    let scratch = Scratch::new(dir)?;
    let pieces = bytes.div_ceil(TRANSFER_BYTES as u64);
    let file = direct_file(&scratch.path.join("bandwidth"), pieces * TRANSFER_BYTES as u64)?;
    let write = timed_transfers(
        pieces,
        in_flight,
        |offset, buffer| file.write_all_at(buffer.bytes(), offset),
        || file.sync_data(),
    )?;
    let read =
        timed_transfers(pieces, in_flight, |offset, buffer| file.read_exact_at(buffer.bytes_mut(), offset), || Ok(()))?;
    Ok(Bandwidth { write, read })
}

/// Drives the log's device for about `time` with one flush in flight, each of `batch` records of `record_bytes`.
///
/// Runs on an executor of its own. Each flush writes to the segment and to the rounds, as a node's does.
pub fn log_flushes(
    dir: &Path,
    method: FlushMethod,
    batch: usize,
    record_bytes: usize,
    time: Duration,
) -> io::Result<FlushRun> {
    let scratch = Scratch::new(dir)?;
    let data_dir = DataDir::open(&scratch.path.join("node"), NodeId(1), 1, true).map_err(io::Error::other)?;
    let files = LogFiles::open(&data_dir).map_err(io::Error::other)?;
    let handle = executor::spawn("bench-log", move || drive(method, files, batch, record_bytes, time));
    let outcome = handle.map_err(io::Error::other)?.join();
    let (flushes, elapsed) = outcome.map_err(|_| io::Error::other("the executor panicked"))??;
    #[allow(clippy::cast_precision_loss)]
    let records_per_second = (flushes.len() * batch) as f64 / elapsed.as_secs_f64();
    Ok(FlushRun { method, batch, flushes: Samples::new(flushes), records_per_second })
}

async fn drive(
    method: FlushMethod,
    files: LogFiles,
    batch: usize,
    record_bytes: usize,
    time: Duration,
) -> io::Result<(Vec<Duration>, Duration)> {
    let device = LogDevice::start(method, files, SEGMENT_BYTES_DEFAULT).await?;
    let mut segment = SegmentId(1);
    prepare(&device, segment).await?;
    let mut next = Some(prepare_ahead(&device, SegmentId(segment.0 + 1)));
    let flush_bytes = batch * record_bytes;
    let mut offset = SECTOR_BYTES;
    let mut samples = Vec::new();
    let started = Instant::now();
    while started.elapsed() < time {
        if offset + flush_bytes > SEGMENT_BYTES_DEFAULT as usize {
            if let Some(prepared) = next.take() {
                prepared.await?;
            }
            segment = SegmentId(segment.0 + 1);
            next = Some(prepare_ahead(&device, SegmentId(segment.0 + 1)));
            offset = SECTOR_BYTES;
        }
        let round = samples.len();
        let slot = u32::try_from(round % ROUNDS_SLOTS as usize * SECTOR_BYTES).expect("within the file of rounds");
        let place = u32::try_from(offset).expect("within a segment");
        let writes = vec![
            LogWrite { file: LogFile::Segment(segment), offset: place, bytes: vec![0x5a; flush_bytes] },
            LogWrite { file: LogFile::Rounds, offset: slot, bytes: vec![0x77; SECTOR_BYTES] },
        ];
        let begun = Instant::now();
        device.flush(writes).await?;
        samples.push(begun.elapsed());
        offset += flush_bytes;
    }
    let elapsed = started.elapsed();
    if let Some(prepared) = next.take() {
        prepared.await?;
    }
    device.close().await?;
    Ok((samples, elapsed))
}

async fn prepare(device: &LogDevice, segment: SegmentId) -> io::Result<()> {
    let result = device.prepare(segment, Box::new([1; SECTOR_BYTES])).await?;
    result.map_err(|error| io::Error::other(format!("the next segment could not be made: {error:?}")))
}

fn prepare_ahead(device: &LogDevice, segment: SegmentId) -> glommio::Task<io::Result<()>> {
    let device = device.clone();
    spawn_local(async move { prepare(&device, segment).await })
}

/// A directory that is gone when this value is.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new(dir: &Path) -> io::Result<Scratch> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("helio-bench-{}-{number}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(Scratch { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "measured files stay behind");
        }
    }
}

fn direct_file(path: &Path, bytes: u64) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).custom_flags(libc::O_DIRECT).open(path)?;
    crate::machine::allocate(&file, bytes)?;
    file.sync_all()?;
    Ok(file)
}

/// A file of `FLOOR_BYTES` zeros, durable, none of them in the page cache.
fn written_file(path: &Path) -> io::Result<File> {
    let file = direct_file(path, FLOOR_BYTES)?;
    let zeros = AlignedBytes::new(TRANSFER_BYTES);
    for offset in (0..FLOOR_BYTES).step_by(TRANSFER_BYTES) {
        file.write_all_at(zeros.bytes(), offset)?;
    }
    file.sync_all()?;
    Ok(file)
}

#[allow(unsafe_code)]
fn write_durable(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let slice = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    // SAFETY: `slice` describes `bytes`, which outlives the call and is only read by it; the descriptor is open.
    let written = unsafe { libc::pwritev2(file.as_raw_fd(), &slice, 1, offset, libc::RWF_DSYNC) };
    match usize::try_from(written) {
        Ok(written) if written == bytes.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Bytes a second over all pieces, `finish` included.
fn timed_transfers(
    pieces: u64,
    in_flight: usize,
    transfer: impl Fn(u64, &mut AlignedBytes) -> io::Result<()> + Sync,
    finish: impl Fn() -> io::Result<()>,
) -> io::Result<f64> {
    let next = AtomicU64::new(0);
    let started = Instant::now();
    let work = || -> io::Result<()> {
        let mut buffer = AlignedBytes::new(TRANSFER_BYTES);
        loop {
            let piece = next.fetch_add(1, Ordering::Relaxed);
            if piece >= pieces {
                return Ok(());
            }
            transfer(piece * TRANSFER_BYTES as u64, &mut buffer)?;
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..in_flight.max(1)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("a transfer does not panic"))
    })?;
    finish()?;
    #[allow(clippy::cast_precision_loss)]
    let bytes = (pieces * TRANSFER_BYTES as u64) as f64;
    Ok(bytes / started.elapsed().as_secs_f64())
}

/// Zeroed memory that O_DIRECT takes.
struct AlignedBytes {
    blocks: Vec<AlignedBlock>,
}

#[derive(Clone)]
#[repr(C, align(4096))]
struct AlignedBlock([u8; BLOCK_BYTES]);

impl AlignedBytes {
    fn new(bytes: usize) -> AlignedBytes {
        assert!(bytes.is_multiple_of(BLOCK_BYTES), "{bytes} bytes are not whole blocks");
        AlignedBytes { blocks: vec![AlignedBlock([0; BLOCK_BYTES]); bytes / BLOCK_BYTES] }
    }

    #[allow(unsafe_code)]
    fn bytes(&self) -> &[u8] {
        // SAFETY: a block is exactly its bytes (as large as its alignment, so without padding), and all are set.
        unsafe { std::slice::from_raw_parts(self.blocks.as_ptr().cast(), self.blocks.len() * BLOCK_BYTES) }
    }

    #[allow(unsafe_code)]
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed for writing.
        unsafe { std::slice::from_raw_parts_mut(self.blocks.as_mut_ptr().cast(), self.blocks.len() * BLOCK_BYTES) }
    }
}

const _: () = assert!(size_of::<AlignedBlock>() == BLOCK_BYTES);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::test_dir::test_dir;

    #[test]
    fn percentiles_are_samples_of_that_rank() {
        let samples = Samples::new((1..=200).rev().map(Duration::from_micros).collect());
        let at = |percent| samples.percentile(percent).as_micros();
        assert_eq!((at(0.0), at(50.0), at(99.0), at(99.9), at(100.0)), (1, 100, 198, 200, 200));
    }

    #[test]
    fn limits_are_measured_and_nothing_stays_behind() {
        let dir = test_dir();
        assert_eq!(flush_floor(dir.path(), 20).unwrap().ascending().len(), 20);
        assert_eq!(fdatasync_latency(dir.path(), 20).unwrap().ascending().len(), 20);
        let rates = bandwidth(dir.path(), 4 << 20, 4).unwrap();
        assert!(rates.write > 0.0 && rates.read > 0.0);
        for method in [FlushMethod::Direct, FlushMethod::Mmap] {
            let run = log_flushes(dir.path(), method, 64, 200, Duration::from_millis(50)).unwrap();
            assert!(run.records_per_second > 0.0 && run.flushes.percentile(50.0) > Duration::ZERO);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

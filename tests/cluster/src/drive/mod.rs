//! A drive with a volatile cache: what was not flushed can be lost, and a flush can fail.
//!
//! ```text
//! node -> ext4 -> loop device -> file of a FUSE filesystem that this process serves -> cache (memory) -> base file
//!                 flush of the device = FSYNC of the file = the cache goes to the base file
//! ```
//!
//! What a power cut here is: the processes, the page cache, the filesystem's memory and the cache of the drive are gone at
//! one moment. Of the sectors (512 bytes) written since the last flush of the drive, any subset survives, as chosen by the
//! caller; each ends old or new, never mixed. Everything flushed survives. So a program or filesystem that forgets a sync,
//! or takes the order of writes for granted, is found.
//!
//! What it is not: a drive that lies about its flushes, that mixes old and new bytes in one sector, or that forgets what it
//! had long been given. Those are rot, not a power cut.
//!
//! Needs root (loop devices, mounts in this mount namespace) and `/dev/fuse`; no kernel module of its own. The base file
//! itself is never synced: the machine that runs the test keeps its power.

mod fuse;
mod volume;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use volume::{Mounted, Volume};

/// Unit of the crash model.
pub const SECTOR_BYTES: usize = 512;

type Sector = [u8; SECTOR_BYTES];

/// What a power cut did to one drive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Sectors written and not flushed at that moment.
    pub unsynced: usize,
    /// Of those, how many are as they were before.
    pub lost: usize,
}

/// One drive, shared by those who use it and the thread that serves it.
#[derive(Clone, Debug)]
pub struct Drive {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    base: File,
    length: u64,
    // By sector number; newer than the base file.
    cache: BTreeMap<u64, Sector>,
    power: Power,
    hold: Hold,
    flushes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    On,
    // Reads and writes work; a flush fails and loses what is in the cache.
    FlushesFail,
    Off,
}

/// `No -> Armed` by `hold_flush`, `Armed -> Held` by the next flush, `-> No` by `cut`, `fail_flushes` or `release`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    No,
    Armed,
    Held,
}

impl Drive {
    fn over(base: File) -> io::Result<Drive> {
        let length = base.metadata()?.len();
        let state = State { base, length, cache: BTreeMap::new(), power: Power::On, hold: Hold::No, flushes: 0 };
        Ok(Drive { shared: Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() }) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Flushes that succeeded so far.
    pub fn flushes(&self) -> u64 {
        self.lock().flushes
    }

    /// The next flush does not return before `cut`, `fail_flushes` or `release`: a moment at which something is unsynced.
    pub fn hold_flush(&self) {
        self.lock().hold = Hold::Armed;
    }

    /// Waits until a flush is held. False: none came within `patience`.
    pub fn wait_held(&self, patience: Duration) -> bool {
        let start = Instant::now();
        let mut state = self.lock();
        while state.hold != Hold::Held {
            let Some(left) = patience.checked_sub(start.elapsed()) else { return false };
            (state, _) = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// No flush is held any more.
    pub fn release(&self) {
        self.lock().hold = Hold::No;
        self.shared.changed.notify_all();
    }

    /// From now on every flush fails with EIO and loses what was written since the last good one, as a drive does that
    /// cannot write its cache. Reads and writes go on.
    pub fn fail_flushes(&self) {
        self.lock().power = Power::FlushesFail;
        self.release();
    }

    /// The power is gone: `survives` says for each sector not yet flushed, in their order on the drive, whether it got
    /// there. From now on nothing reaches the drive, and every request fails.
    pub fn cut(&self, mut survives: impl FnMut() -> bool) -> io::Result<Cut> {
        let mut state = self.lock();
        assert!(state.power != Power::Off, "the power is off");
        state.power = Power::Off;
        let cache = std::mem::take(&mut state.cache);
        let mut cut = Cut { unsynced: cache.len(), lost: 0 };
        for (number, sector) in cache {
            if survives() {
                state.base.write_all_at(&sector, number * SECTOR_BYTES as u64)?;
            } else {
                cut.lost += 1;
            }
        }
        drop(state);
        self.release();
        Ok(cut)
    }

    /// Bytes of the drive.
    fn length(&self) -> u64 {
        self.lock().length
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let state = self.lock();
        state.check_power()?;
        let left = usize::try_from(state.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = out.len().min(left);
        let out = &mut out[..length];
        state.base.read_exact_at(out, offset)?;
        let end = offset + length as u64;
        let first = offset / SECTOR_BYTES as u64;
        for (&number, sector) in state.cache.range(first..end.div_ceil(SECTOR_BYTES as u64)) {
            let at = number * SECTOR_BYTES as u64;
            let (from, to) = (at.max(offset), (at + SECTOR_BYTES as u64).min(end));
            out[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&sector[(from - at) as usize..(to - at) as usize]);
        }
        Ok(length)
    }

    /// A loop device writes whole sectors.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.lock();
        state.check_power()?;
        let is_whole = offset.is_multiple_of(SECTOR_BYTES as u64) && bytes.len().is_multiple_of(SECTOR_BYTES);
        if !is_whole || offset + bytes.len() as u64 > state.length {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let (sectors, _) = bytes.as_chunks::<SECTOR_BYTES>();
        let first = offset / SECTOR_BYTES as u64;
        state.cache.extend((first..).zip(sectors.iter().copied()));
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        let mut state = self.lock();
        if state.hold == Hold::Armed {
            state.hold = Hold::Held;
            self.shared.changed.notify_all();
        }
        while state.hold == Hold::Held {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match state.power {
            Power::On => {}
            Power::FlushesFail => {
                state.cache.clear();
                return Err(failed());
            }
            Power::Off => return Err(failed()),
        }
        let cache = std::mem::take(&mut state.cache);
        let mut run: Vec<u8> = Vec::new();
        let mut run_end = 0; // in sectors
        for (number, sector) in cache {
            if number != run_end && !run.is_empty() {
                state.write_base(run_end, &run)?;
                run.clear();
            }
            run.extend_from_slice(&sector);
            run_end = number + 1;
        }
        state.write_base(run_end, &run)?;
        state.flushes += 1;
        Ok(())
    }
}

impl State {
    fn check_power(&self) -> io::Result<()> {
        if self.power == Power::Off { Err(failed()) } else { Ok(()) }
    }

    fn write_base(&self, end: u64, bytes: &[u8]) -> io::Result<()> {
        self.base.write_all_at(bytes, end * SECTOR_BYTES as u64 - bytes.len() as u64)
    }
}

/// EIO.
fn failed() -> io::Error {
    rustix::io::Errno::IO.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::FileExt;

    use super::{Cut, Drive, SECTOR_BYTES};

    const LENGTH: usize = 16 * SECTOR_BYTES;

    fn drive() -> (Drive, std::fs::File) {
        let base = tempfile::tempfile().unwrap();
        base.set_len(LENGTH as u64).unwrap();
        (Drive::over(base.try_clone().unwrap()).unwrap(), base)
    }

    /// The first byte of each sector of the base file, and of the drive if it has power.
    fn check(drive: &Drive, base: &std::fs::File, on_base: &str, seen: &str) {
        let firsts =
            |bytes: &[u8]| bytes.chunks(SECTOR_BYTES).map(|sector| char::from(b'0' + sector[0])).collect::<String>();
        let mut bytes = vec![0; LENGTH];
        base.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(firsts(&bytes), on_base);
        assert_eq!(drive.read(0, &mut bytes).map_or("off".to_owned(), |_| firsts(&bytes)), seen);
    }

    #[test]
    fn what_was_flushed_survives_a_cut_and_of_the_rest_what_was_chosen() {
        let (drive, base) = drive();
        drive.write(0, &[1; 3 * SECTOR_BYTES]).unwrap();
        drive.write(8 * SECTOR_BYTES as u64, &[2; SECTOR_BYTES]).unwrap();
        check(&drive, &base, "0000000000000000", "1110000020000000");
        drive.flush().unwrap();
        check(&drive, &base, "1110000020000000", "1110000020000000");
        drive.write(SECTOR_BYTES as u64, &[3; 4 * SECTOR_BYTES]).unwrap();
        check(&drive, &base, "1110000020000000", "1333300020000000");
        let mut survives = [true, false, false, true].into_iter();
        let cut = drive.cut(|| survives.next().unwrap()).unwrap();
        assert_eq!(cut, Cut { unsynced: 4, lost: 2 });
        assert!(drive.flush().is_err() && drive.write(0, &[4; SECTOR_BYTES]).is_err());
        check(&drive, &base, "1310300020000000", "off");
    }

    #[test]
    fn a_failed_flush_loses_what_was_written_since_the_last_good_one() {
        let (drive, base) = drive();
        drive.write(0, &[1; SECTOR_BYTES]).unwrap();
        drive.flush().unwrap();
        drive.write(0, &[2; 2 * SECTOR_BYTES]).unwrap();
        drive.fail_flushes();
        assert_eq!(drive.flush().unwrap_err().raw_os_error(), Some(5));
        check(&drive, &base, "1000000000000000", "1000000000000000");
        assert_eq!(drive.flushes(), 1);
    }

    #[test]
    fn a_held_flush_is_not_durable_when_the_power_goes() {
        let (drive, base) = drive();
        drive.write(0, &[1; SECTOR_BYTES]).unwrap();
        drive.hold_flush();
        let flushing = std::thread::spawn({
            let drive = drive.clone();
            move || drive.flush().is_err()
        });
        assert!(drive.wait_held(std::time::Duration::from_secs(20)));
        assert_eq!(drive.cut(|| false).unwrap(), Cut { unsynced: 1, lost: 1 });
        assert!(flushing.join().unwrap(), "the flush said that it succeeded");
        check(&drive, &base, "0000000000000000", "off");
    }
}

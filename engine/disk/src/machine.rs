//! Looks at the machine before a node starts on it, and says what to change. Blocking.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use proto::ids::CoreId;
use proto::limits::{BLOCK_BYTES, SECTOR_BYTES};

use executor::MEMLOCK_BYTES_MIN;

use crate::descriptors;
use crate::dir::DataDirView;
use crate::error::is_no_space;

/// Locked memory that one executor takes of the user's budget (measured: 0.23 MiB).
const MEMLOCK_PER_CORE_BYTES: u64 = 256 << 10;
/// A new directory is not made for more cores than this many for each CPU: its cores would only wait for each other.
const CORES_PER_CPU_MAX: usize = 4;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// The node runs, but some promise or speed suffers.
    Warning,
    /// The node cannot run.
    Refusal,
}

/// Something about the machine, with its remedy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// What it is and what to do.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn refusal(text: String) -> Finding {
    Finding { severity: Severity::Refusal, text }
}

fn warning(text: String) -> Finding {
    Finding { severity: Severity::Warning, text }
}

/// Everything a node needs: CPUs, io_uring, locked memory and descriptors for `cores` executors and so many clients, and a
/// filesystem with O_DIRECT and `bytes_needed` free. `data_dir` need not exist yet. Nothing found means that the node can start.
#[must_use]
pub fn check(data_dir: &Path, cores: u16, bytes_needed: u64, clients: u32) -> Vec<Finding> {
    let view = DataDirView::open(data_dir).ok();
    let cpus = std::thread::available_parallelism().map_or(1, |count| count.get());
    let mut findings: Vec<Finding> = check_cpus(cores, cpus, view.is_some()).into_iter().collect();
    findings.extend(check_memlock(cores));
    findings.extend(check_descriptors(cores, view.as_ref().map_or(0, chunk_file_count), clients));
    if let Err(error) = executor::probe() {
        findings.push(refusal(error.to_string()));
    }
    findings.extend(check_filesystem(data_dir, bytes_needed, view.is_some()));
    findings
}

/// A directory that was made for more cores must still start: the number is part of it.
fn check_cpus(cores: u16, cpus: usize, is_made: bool) -> Option<Finding> {
    if usize::from(cores) <= cpus {
        return None;
    }
    if usize::from(cores) > CORES_PER_CPU_MAX * cpus && !is_made {
        return Some(refusal(format!(
            "{cores} cores are too many for this machine: this process may use {cpus} (CPUs, or what taskset and the \
             container leave of them): use at most as many"
        )));
    }
    Some(warning(format!(
        "{cores} cores, but this process may use only {cpus} (CPUs, or what taskset and the container leave of them): the \
         cores wait for each other"
    )))
}

/// Chunk files of all cores.
#[must_use]
pub fn chunk_file_count(dir: &DataDirView) -> u64 {
    let of_core = |core| dir.chunk_files(CoreId(core)).map_or(0, |files| files.len() as u64);
    (0..dir.cores()).map(of_core).sum()
}

fn check_descriptors(cores: u16, chunk_files: u64, clients: u32) -> Option<Finding> {
    match descriptors::limit() {
        Ok(limit) => descriptors::judge(limit, cores, chunk_files, clients),
        Err(error) => Some(warning(format!("the limit of open files cannot be read: {error}"))),
    }
}

fn check_memlock(cores: u16) -> Vec<Finding> {
    let limit = match memlock_limit() {
        Ok(limit) => limit,
        Err(error) => return vec![warning(format!("the limit of locked memory cannot be read: {error}"))],
    };
    let wanted = MEMLOCK_BYTES_MIN.max(u64::from(cores) * MEMLOCK_PER_CORE_BYTES);
    if limit >= wanted || limit < MEMLOCK_BYTES_MIN {
        // Below the minimum no executor starts, and the probe says so.
        return Vec::new();
    }
    vec![warning(format!(
        "the limit of locked memory is {limit} bytes; {cores} cores take about {wanted} (shared by all processes of this \
         user): raise it with `ulimit -l` or `LimitMEMLOCK=`"
    ))]
}

fn check_filesystem(data_dir: &Path, bytes_needed: u64, is_made: bool) -> Vec<Finding> {
    let Some(base) = data_dir.ancestors().find(|ancestor| ancestor.is_dir()).map(existing) else {
        return vec![refusal(format!("{}: no part of this path exists: correct the path", data_dir.display()))];
    };
    let mut findings = Vec::new();
    match free_bytes(&base) {
        Ok(free) if free < bytes_needed => findings.push(refusal(format!(
            "{}: {free} bytes are free, {bytes_needed} are needed to start: free some space or name another directory",
            base.display()
        ))),
        Ok(_) => {}
        Err(error) => findings.push(refusal(format!("{}: free space cannot be read: {error}", base.display()))),
    }
    match is_tmpfs(&base) {
        Ok(true) => findings.push(warning(format!(
            "{}: is in memory (tmpfs): nothing there survives a power cut; use a directory on a disk",
            base.display()
        ))),
        Ok(false) => findings.extend(probe_direct(&base, is_made)),
        Err(error) => findings.push(warning(format!("{}: its filesystem cannot be told: {error}", base.display()))),
    }
    findings
}

/// "" is the directory the process is in.
fn existing(ancestor: &Path) -> PathBuf {
    if ancestor.as_os_str().is_empty() { PathBuf::from(".") } else { ancestor.to_owned() }
}

/// Allocates a small file and writes one sector by O_DIRECT where a node would. A directory that is made was looked at then:
/// without room it still starts, for only so can it free anything.
fn probe_direct(base: &Path, is_made: bool) -> Option<Finding> {
    let path = base.join(format!(".helio-probe-{}", std::process::id()));
    let result = probe_file(&path);
    // It may not have been made at all.
    let _ = std::fs::remove_file(&path);
    let error = result.err()?;
    let base = base.display();
    if is_made && is_no_space(&error) {
        let text = "is full: what is stored is given out, and nothing new taken until some space is free";
        return Some(warning(format!("{base}: {text}")));
    }
    Some(refusal(match error.raw_os_error() {
        Some(libc::EINVAL) => format!(
            "{base}: does not take O_DIRECT writes of 512 bytes: use ext4 or xfs on a disk with sectors of 512 bytes"
        ),
        Some(libc::EOPNOTSUPP) => format!("{base}: cannot preallocate files: use ext4 or xfs"),
        Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
            format!("{base}: cannot be written by this user: change its owner, or name another directory")
        }
        _ if is_no_space(&error) => format!("{base}: is full: free some space or name another directory"),
        _ => format!("{base}: a test file cannot be written: {error}"),
    }))
}

fn probe_file(path: &Path) -> io::Result<()> {
    #[repr(align(4096))]
    struct Aligned([u8; BLOCK_BYTES]);
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).custom_flags(libc::O_DIRECT).open(path)?;
    allocate(&file, BLOCK_BYTES as u64)?;
    let sector = Aligned([0; BLOCK_BYTES]);
    file.write_all_at(&sector.0[..SECTOR_BYTES], SECTOR_BYTES as u64)
}

#[allow(unsafe_code)]
pub(crate) fn allocate(file: &File, bytes: u64) -> io::Result<()> {
    let bytes = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: a system call on a descriptor that `file` keeps open; it takes no memory of ours.
    if unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The limit of locked memory of this process.
#[allow(unsafe_code)]
pub fn memlock_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the call to write to.
    if unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit.rlim_cur)
}

/// Bytes that an ordinary user may still take on the filesystem of `path`.
#[allow(unsafe_code, clippy::useless_conversion, reason = "the fields have other widths on other architectures")]
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    // SAFETY: all zeros is a valid value of this plain struct.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` ends with a zero, `stat` is a valid place for the call to write to.
    if unsafe { libc::statvfs(path.as_ptr(), &mut stat) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::from(stat.f_bavail) * u64::from(stat.f_frsize))
}

#[allow(unsafe_code)]
fn is_tmpfs(path: &Path) -> io::Result<bool> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)?;
    // SAFETY: all zeros is a valid value of this plain struct.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `path` ends with a zero, `stat` is a valid place for the call to write to.
    if unsafe { libc::statfs(path.as_ptr(), &mut stat) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(stat.f_type == libc::TMPFS_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_dir::test_dir;

    fn refusals(dir: &Path, bytes: u64) -> Vec<String> {
        let refused = |finding: &Finding| finding.severity == Severity::Refusal;
        check(dir, 1, bytes, 1).into_iter().filter(refused).map(|finding| finding.text).collect()
    }

    #[test]
    fn a_machine_that_runs_these_tests_is_not_refused_and_the_probe_leaves_nothing() {
        let dir = test_dir();
        assert_eq!(refusals(&dir.path().join("not/yet/there"), 1 << 20), [""; 0]);
        assert_eq!(std::fs::read_dir(dir.path()).map(Iterator::count).ok(), Some(0));
    }

    fn check_finding(found: Option<Finding>, expected: Option<(Severity, &str)>) {
        match (&found, expected) {
            (None, None) => {}
            (Some(found), Some((severity, part))) => {
                assert!(found.severity == severity && found.text.contains(part), "{found:?}, expected {part}");
            }
            _ => panic!("{found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn more_cores_than_cpus_are_said_and_far_more_are_refused_unless_the_directory_was_made_for_them() {
        check_finding(check_cpus(2, 2, false), None);
        check_finding(check_cpus(3, 2, false), Some((Severity::Warning, "3 cores, but this process may use only 2")));
        check_finding(check_cpus(8, 2, false), Some((Severity::Warning, "only 2")));
        check_finding(check_cpus(9, 2, false), Some((Severity::Refusal, "9 cores are too many")));
        check_finding(check_cpus(9, 2, true), Some((Severity::Warning, "only 2")));
    }

    #[test]
    fn descriptors_are_counted_for_the_cores_and_their_chunk_files() {
        let judge = |limit, cores, chunk_files| descriptors::judge(limit, cores, chunk_files, 100);
        check_finding(judge(1024, 4, 0), None);
        check_finding(judge(39, 4, 0), Some((Severity::Refusal, "need 40")));
        check_finding(judge(551, 4, 0), Some((Severity::Warning, "need 40")));
        check_finding(judge(1024, 4, 500), Some((Severity::Warning, "500 chunk files need 540")));
        check_finding(judge(1024, 170, 0), Some((Severity::Refusal, "need 1036")));
        check_finding(
            descriptors::judge(1024, 4, 0, 4096),
            Some((Severity::Warning, "256 clients may connect at a time, not 4096")),
        );
        let connections = |limit, chunk_files| {
            let fitting = descriptors::connections(limit, 4, chunk_files, 4096);
            (fitting.clients, fitting.peers)
        };
        assert_eq!(connections(1024, 0), (256, 128), "a quarter, an eighth");
        assert_eq!(connections(1 << 20, 0), (4096, (1 << 18) - 2048), "what clients do not want is for links");
        assert_eq!(connections(1024, 800), (60, 30), "of what the files leave");
        assert_eq!(connections(100, 90), (1, 1));
        assert_eq!(descriptors::chunk_files_max(1024, 4), 102);
        assert_eq!(descriptors::chunk_files_max(100, 4), 0);
    }

    #[test]
    fn too_little_room_is_said_with_both_figures() {
        let dir = test_dir();
        let texts = refusals(dir.path(), u64::MAX);
        assert!(texts.len() == 1 && texts[0].contains(&u64::MAX.to_string()), "{texts:?}");
    }
}

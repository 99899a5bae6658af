//! File descriptors: how many a node may open, and who gets how many of them.
//!
//! A process that has none left cannot make its vote or its log durable and ends (promise P6), so nobody from outside may
//! take the last one. Half of the limit is for files, a quarter at most for clients, and of the rest a half each for links from
//! and to peers. Chunk files that are there already are opened in any case; the connections then share what they leave.

use std::io;

use crate::machine::{Finding, Severity};

/// Descriptors of a node alone with empty stores (measured: 12 and 5 a core; a chunk file, a client and a link take one each).
const BASE: u64 = 16;
const PER_CORE: u64 = 6;
/// For files that are open only for a moment: votes, snapshots, directories.
const PASSING: u64 = 64;
/// Below this many to spare, clients and chunk files soon find none left.
const SPARE: u64 = 512;
/// What to do about too few.
pub(crate) const REMEDY: &str = "raise it with `ulimit -n 65536` or `LimitNOFILE=65536`";

/// Connections that a node may accept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Connections {
    /// Of clients.
    pub clients: u64,
    /// Of peers.
    pub peers: u64,
}

/// The limit of open files of this process.
pub fn limit() -> io::Result<u64> {
    read().map(|limit| limit.rlim_cur)
}

/// Raises the limit of open files of this process as far as it may by itself, and returns what it is then.
#[allow(unsafe_code)]
pub fn raise() -> io::Result<u64> {
    let mut limit = read()?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is a valid value for the call to read.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit.rlim_cur)
}

#[allow(unsafe_code)]
fn read() -> io::Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the call to write to.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit)
}

/// Chunk files that one of `cores` cores may have open under a limit.
#[must_use]
pub fn chunk_files_max(limit: u64, cores: u16) -> u64 {
    (limit / 2).saturating_sub(needed(cores, 0) + PASSING) / u64::from(cores)
}

/// What is left for connections to a node with so many chunk files, if so many clients are `wanted`: at least one of each, or
/// nobody could help it.
#[must_use]
pub fn connections(limit: u64, cores: u16, chunk_files: u64, wanted: u32) -> Connections {
    let files = (limit / 2).max(needed(cores, chunk_files) + PASSING);
    let rest = limit.saturating_sub(files);
    let clients = (rest / 2).clamp(1, u64::from(wanted).max(1));
    Connections { clients, peers: (rest.saturating_sub(clients) / 2).max(1) }
}

/// Whether a node can start under the limit, and whether it gets far with so many clients.
pub(crate) fn judge(limit: u64, cores: u16, chunk_files: u64, clients: u32) -> Option<Finding> {
    let needed = needed(cores, chunk_files);
    if limit < needed {
        let text = format!(
            "the limit of open files is {limit}; {cores} cores with {chunk_files} chunk files need {needed} before any \
             client connects: {REMEDY}"
        );
        return Some(Finding { severity: Severity::Refusal, text });
    }
    let fitting = connections(limit, cores, chunk_files, clients).clients;
    let text = if limit < needed + SPARE {
        format!(
            "the limit of open files is {limit}, of which {cores} cores with {chunk_files} chunk files need {needed}: few are \
             left for clients and further chunk files (one for each 64 MiB of images): {REMEDY}"
        )
    } else if fitting < u64::from(clients) {
        format!(
            "the limit of open files is {limit}: {fitting} clients may connect at a time, not {clients} (connections_max): \
             {REMEDY}, or lower connections_max"
        )
    } else {
        return None;
    };
    Some(Finding { severity: Severity::Warning, text })
}

fn needed(cores: u16, chunk_files: u64) -> u64 {
    BASE + PER_CORE * u64::from(cores) + chunk_files
}

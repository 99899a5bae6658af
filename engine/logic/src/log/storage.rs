//! The log as raft's `Storage`.
//!
//! Raft panics if a committed entry above the applied index is not there at once: those are always in memory. Older ones are
//! asked for on behalf of a lagging follower, which can wait.

use raft::eraftpb::{Entry, Snapshot};
use raft::util::limit_size;
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};

use crate::log::log::Log;

impl Storage for Log {
    fn initial_state(&self) -> Result<RaftState> {
        let (hard_state, conf_state) = self.start_state();
        Ok(RaftState::new(hard_state, conf_state))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        assert!(low <= high && high <= self.last + 1, "entries {low}..{high}, last {}", self.last);
        let max_size = max_size.into();
        if low <= self.truncated.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        let tail_first = self.tail_first();
        if low >= tail_first {
            let (begin, end) = ((low - tail_first) as usize, (high - tail_first) as usize);
            return Ok(limited(self.tail.range(begin..end), max_size));
        }
        if let Some(kept) = self.fetches.kept(low, high.min(tail_first)) {
            return Ok(limited(kept.iter(), max_size));
        }
        if !context.can_async() {
            return Err(Error::Store(StorageError::Unavailable));
        }
        // What went bad on disk is had from memory or from a snapshot beyond it, which is being made: raft asks again.
        if self.rot().is_none_or(|rot| low > rot.upto.0) {
            self.fetches.request(low, context);
        }
        Err(Error::Store(StorageError::LogTemporarilyUnavailable))
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index < self.truncated.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        self.term_of(index).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.truncated.0 + 1)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last)
    }

    fn snapshot(&self, _request_index: u64, to: u64) -> Result<Snapshot> {
        // The node that lacks entries is offered the snapshot by messages of our own (`group::snapshots`): raft waits.
        self.wanted.borrow_mut().insert(to);
        Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}

/// Clones entries up to `max_size` bytes as raft counts them, at least one.
fn limited<'a>(entries: impl Iterator<Item = &'a Entry>, max_size: Option<u64>) -> Vec<Entry> {
    let bound = max_size.unwrap_or(u64::MAX);
    // The payload alone is less than raft's measure, so this takes at least enough; then raft's own measure decides.
    let mut payload = 0u64;
    let mut taken: Vec<Entry> = Vec::new();
    for entry in entries {
        if !taken.is_empty() && payload > bound {
            break;
        }
        payload += entry.data.len() as u64;
        taken.push(entry.clone());
    }
    limit_size(&mut taken, max_size);
    taken
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "storage_test.rs"]
mod tests;

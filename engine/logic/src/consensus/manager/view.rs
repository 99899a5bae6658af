//! What others may know of a node's consensus: the status, the inspector, the simulator.

use proto::ids::{LogIndex, NodeId, Term};

use super::RaftManager;
use crate::consensus::report;
use crate::consensus::standing::{Dropped, Standing};
use crate::log::LogStats;
use crate::outlook::{self, Outlook};

impl RaftManager {
    /// How things stand.
    pub fn state(&self) -> Standing {
        let raft = &self.raw.raft;
        Standing {
            role: report::kind_of(raft.state),
            term: Term(raft.term),
            leader: (raft.leader_id != 0).then_some(NodeId(raft.leader_id)),
            last: LogIndex(raft.raft_log.last_index()),
            committed: LogIndex(raft.raft_log.committed),
            applied: self.applied,
            serving: self.is_serving(),
            healing: self.healing.is_some(),
            rotten: self.rotten_upto().is_some(),
        }
    }

    /// What was found at start, and what follows from it.
    pub fn outlook(&self) -> Outlook {
        outlook::of_log(self.raw.store().judgement(), self.durability.healing())
    }

    /// Whether the log is to be mended before anything else.
    pub fn needs_mending(&self) -> bool {
        self.raw.store().needs_mending()
    }

    /// Figures of the log.
    pub fn log_stats(&self) -> LogStats {
        self.raw.store().stats()
    }

    /// Term and payload of an entry, if it is in memory. For the simulator.
    pub fn entry(&self, index: LogIndex) -> Option<(Term, &[u8])> {
        let entry = self.raw.store().in_memory(index.0)?;
        Some((Term(entry.term), &entry.data))
    }

    /// Messages of peers that were not stepped.
    pub fn dropped(&self) -> Dropped {
        self.dropped
    }
}

//! What the log does not have any more: it is behind a snapshot, here or on the node that asks for it.
//!
//! raft itself sends no snapshots. To it one that is needed is never there yet, and it waits; meanwhile the group offers the
//! lagging node the newest (`group::snapshots`). When that node has it, its raft begins anew behind it, as after a restart,
//! and the leader sends on from there. What raft would do instead (a snapshot as part of a Ready, and of a follower's
//! progress) has more states than this, of which some end only if nobody crashes.

use proto::ids::{LogIndex, NodeId, Term};

use super::RaftManager;
use crate::io::SegmentId;
use crate::log::SnapshotMark;

impl RaftManager {
    /// The place of an entry that is applied.
    pub fn mark_of(&self, index: LogIndex) -> Option<SnapshotMark> {
        let term = self.raw.raft.raft_log.term(index.0).ok().filter(|term| *term > 0)?;
        (index <= self.applied).then_some(SnapshotMark { index, term: Term(term) })
    }

    /// Bytes of log that this process wrote.
    pub fn log_bytes_written(&self) -> u64 {
        self.raw.store().written_bytes()
    }

    /// Forgets the log up to `index`, which every snapshot that is kept has. Gives the first segment that is still needed,
    /// if there are some before it.
    pub fn compact(&mut self, index: LogIndex) -> Option<SegmentId> {
        self.raw.mut_store().compact(index)
    }

    /// Members that lack entries which the log of this leader does not have any more.
    pub fn take_lagging(&mut self) -> Vec<NodeId> {
        self.raw.mut_store().take_wanted().into_iter().map(NodeId).collect()
    }

    /// Whether a snapshot is newer than everything that is committed here, as far as this node knows.
    pub fn lacks(&self, snapshot: SnapshotMark) -> bool {
        snapshot.index.0 > self.raw.raft.raft_log.committed && !self.is_serving()
    }

    /// Whether its term is durable here. It must be so before the snapshot is, or else the next start would find that term
    /// and vote are lost.
    pub fn knows_term_of(&self, snapshot: SnapshotMark) -> bool {
        self.durability.vote_durable() && snapshot.term <= self.durability.vote().term
    }

    /// Nothing reaches raft any more, and it asks for nothing, until it begins anew or goes on.
    pub fn pause(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
    }

    /// See `pause`.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// Whether nothing is under way that was begun before.
    pub fn is_quiet(&self) -> bool {
        self.vote_ticket.is_none()
            && self.fetches.is_empty()
            && self.scrub_ticket.is_none()
            && self.raw.store().is_quiet()
    }

    /// Begins anew behind a snapshot of another node, as after a restart. Nothing is under way, and the snapshot is durable.
    pub fn begin_behind(&mut self, snapshot: SnapshotMark) {
        assert!(self.is_quiet() && self.flight.is_none(), "{snapshot:?}");
        assert!(self.lacks(snapshot) && self.knows_term_of(snapshot), "{snapshot:?}");
        let log = self.raw.store().install(snapshot);
        let begun = RaftManager::new(self.config.clone(), log, self.durability.vote(), snapshot.index);
        let before = std::mem::replace(self, begun);
        // Nothing that was given away once is given away again.
        (self.ticket_last, self.random, self.links) = (before.ticket_last, before.random, before.links);
        self.dropped = before.dropped;
    }
}

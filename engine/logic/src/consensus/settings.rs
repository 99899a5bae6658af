//! How raft is set up, with the reason of each value, and this node's numbers for it.
//!
//! Appends are never batched by raft itself: with that, raft 0.7 commits without a quorum when links reorder. Many
//! proposals go as one message per turn instead. Only a mutant (`Mutant::BatchAppend`) does batch.

use std::collections::BTreeSet;

use proto::ids::{LogIndex, NodeId};
use proto::limits::RAFT_MESSAGE_BYTES_MAX;
use raft::{Config, ReadOnlyOption};

use crate::log::layout::PAYLOAD_BYTES_MAX;
use crate::mutant::Mutant;

/// Bytes of entries in one append message. Big enough that a lagging follower is fed with few messages, small enough
/// that one does not hold up a heartbeat on its link for more than a fraction of a millisecond.
pub const APPEND_BYTES_MAX: u64 = 256 << 10;
/// Append messages with entries on their way to one follower. With the size above this bounds what its link must queue
/// to 32 MiB; a turn makes one, so it covers 128 turns within one round trip and flush.
pub const APPENDS_INFLIGHT_MAX: usize = 128;
/// Bytes proposed and not yet committed; more is refused as busy. Some 80,000 small records: far more than a healthy
/// disk has under way, and what a leader without quorum may pile up until it steps down.
pub const UNCOMMITTED_BYTES_MAX: u64 = 16 << 20;
/// Bytes of committed entries in one `Ready`: about 1,300 small records, a millisecond of applying.
pub const COMMITTED_BYTES_MAX: u64 = 256 << 10;
/// Committed entries that wait to be taken; then no new `Ready` is asked for until they were.
pub const COMMITTED_ENTRIES_MAX: usize = 4096;
/// Readies that wait for the disk. Above, messages of peers are dropped: a disk that is so far behind acknowledges
/// nothing anyway, and raft sends again.
pub const WAITING_MAX: usize = 4096;
/// Voters beyond this would only make commits slower.
pub const VOTERS_MAX: usize = 7;

const _: () = assert!(APPEND_BYTES_MAX as usize <= RAFT_MESSAGE_BYTES_MAX);
// A single entry may be longer than `APPEND_BYTES_MAX`; then it is the only one of its message.
const _: () = assert!(PAYLOAD_BYTES_MAX as usize <= RAFT_MESSAGE_BYTES_MAX);
const _: () = assert!(UNCOMMITTED_BYTES_MAX >= APPEND_BYTES_MAX);

/// What a `RaftManager` is told once.
#[derive(Clone, Debug)]
pub struct ManagerConfig {
    /// This node.
    pub node: NodeId,
    /// The nodes whose majority commits: 3, 5 or 7 (1 and 2 work, without surviving any loss).
    pub voters: Vec<NodeId>,
    /// All other nodes: they get the log and have no vote.
    pub learners: Vec<NodeId>,
    /// Fewest ticks without a leader before this node campaigns. Also the time after which a leader without quorum steps
    /// down, and for which a follower that hears its leader refuses to vote for another.
    pub election_ticks_min: usize,
    /// Exclusive upper bound of the same.
    pub election_ticks_max: usize,
    /// Ticks between two heartbeats of the leader.
    pub heartbeat_ticks: usize,
    /// For drawing election timeouts; different on each node.
    pub seed: u64,
    /// A wrong decision, or none.
    pub(crate) mutant: Mutant,
}

impl ManagerConfig {
    /// For the only voter of a group, with the usual timeouts; whoever calls says who else is in it.
    pub fn new(node: NodeId, seed: u64) -> ManagerConfig {
        ManagerConfig {
            node,
            voters: vec![node],
            learners: Vec::new(),
            election_ticks_min: 10,
            election_ticks_max: 20,
            heartbeat_ticks: 2,
            seed,
            mutant: Mutant::None,
        }
    }

    pub(super) fn voter_set(&self) -> BTreeSet<NodeId> {
        self.voters.iter().copied().collect()
    }

    pub(super) fn learner_set(&self) -> BTreeSet<NodeId> {
        self.learners.iter().copied().collect()
    }

    pub(super) fn check(&self) {
        let (voters, learners) = (self.voter_set(), self.learner_set());
        assert!(self.node.0 != 0, "raft reserves node 0");
        assert!(!voters.contains(&NodeId(0)) && !learners.contains(&NodeId(0)), "raft reserves node 0");
        assert_eq!(voters.len(), self.voters.len(), "a voter is named twice");
        assert_eq!(learners.len(), self.learners.len(), "a learner is named twice");
        assert!(voters.is_disjoint(&learners), "a node is voter and learner");
        assert!(voters.contains(&self.node) || learners.contains(&self.node), "{} is no member", self.node);
        assert!((1..=VOTERS_MAX).contains(&voters.len()), "{} voters", voters.len());
        assert!(self.election_ticks_min > self.heartbeat_ticks && self.heartbeat_ticks > 0);
        assert!(self.election_ticks_max > self.election_ticks_min, "timeouts of nodes must be able to differ");
    }
}

/// raft's configuration for that node, whose state machine has applied everything up to `applied`.
pub(super) fn raft_config(config: &ManagerConfig, applied: LogIndex) -> Config {
    Config {
        id: config.node.0,
        election_tick: config.election_ticks_min,
        heartbeat_tick: config.heartbeat_ticks,
        applied: applied.0,
        // The default of 0 would be one entry a message.
        max_size_per_msg: APPEND_BYTES_MAX,
        max_inflight_msgs: APPENDS_INFLIGHT_MAX,
        // A leader that a majority does not hear steps down, and a node that was away does not depose a leader.
        check_quorum: true,
        pre_vote: true,
        min_election_tick: config.election_ticks_min,
        max_election_tick: config.election_ticks_max,
        read_only_option: ReadOnlyOption::Safe,
        max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
        max_committed_size_per_ready: COMMITTED_BYTES_MAX,
        batch_append: config.mutant.is(Mutant::BatchAppend),
        ..Config::default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn config() -> ManagerConfig {
        ManagerConfig {
            node: NodeId(1),
            voters: vec![NodeId(1), NodeId(2), NodeId(3)],
            learners: vec![NodeId(4)],
            election_ticks_min: 10,
            election_ticks_max: 20,
            heartbeat_ticks: 2,
            seed: 1,
            mutant: Mutant::None,
        }
    }

    #[test]
    fn raft_takes_the_configuration_and_every_guard_rail_is_set() {
        config().check();
        let raft = raft_config(&config(), LogIndex(7));
        raft.validate().unwrap();
        assert!(raft.check_quorum && raft.pre_vote);
        assert_eq!(raft.read_only_option, ReadOnlyOption::Safe);
        assert!(raft.max_size_per_msg > 0 && raft.max_uncommitted_size < u64::MAX);
        assert!(raft.max_committed_size_per_ready < u64::MAX && raft.max_inflight_msgs > 1);
        assert_eq!(raft.applied, 7);
    }

    #[test]
    #[should_panic(expected = "voter and learner")]
    fn node_that_is_voter_and_learner_is_refused() {
        ManagerConfig { learners: vec![NodeId(3)], ..config() }.check();
    }
}

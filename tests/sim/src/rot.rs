//! What becomes of a log and of snapshots that go bad on disk while their node runs: nobody misses them, and the next start
//! finds nothing to heal.

use proto::ids::NodeId;

use crate::faults::Fault;
use crate::scenario::Run;
use crate::setup::SEGMENT_BYTES;

/// Simulated time within which rot is found and made good: a pass of the scrub begins every ten seconds.
const MENDED_US: u64 = 60_000_000;

impl Run {
    /// Garbage in the log of a node that runs, such that its next start would have to heal.
    fn rot_log(&mut self, node: NodeId) {
        assert!(!self.world.would_heal(node));
        while !self.world.would_heal(node) {
            self.world.rot(node, Fault::LogRot);
        }
    }

    /// Lets images come until that holds.
    fn send_until(&mut self, what: &str, holds: impl Fn(&Run) -> bool) {
        let deadline_us = self.world.now_us + MENDED_US;
        while !holds(self) {
            assert!(self.world.now_us < deadline_us, "not within {} s: {what}", MENDED_US / 1_000_000);
            self.submit(1);
            self.pass(100_000);
        }
    }

    /// Waits until the next start of that node would find nothing to heal, while nothing is being written.
    fn wait_mended(&mut self, node: NodeId) {
        let deadline_us = self.world.now_us + MENDED_US;
        while self.world.would_heal(node) {
            assert!(self.world.now_us < deadline_us, "{node} would still have to heal");
            self.submit(1);
            self.settle();
        }
        assert!(self.world.standing(node).is_some_and(|standing| !standing.rotten), "{node} does not know it");
    }

    /// The log of the leader goes bad. Another one leads soon, the log is whole again without a restart, and a start finds
    /// nothing to heal.
    pub fn log_of_leader_rots(&mut self) {
        self.submit(10);
        self.settle();
        let leader = self.world.leader().expect("a settled cluster has a leader");
        // With small segments there may be a snapshot that stands for it already.
        let is_missed = self.world.plan.segment_bytes == SEGMENT_BYTES[0];
        let is_alone = self.world.nodes().len() == 1;
        self.rot_log(leader);
        if is_missed && !is_alone {
            self.send_until("another one leads", |run| run.world.leader().is_some_and(|other| other != leader));
        }
        self.settle();
        self.wait_mended(leader);
        assert_eq!(self.world.healed, 0);
        self.world.crash(leader, Fault::Kill);
        assert!(self.world.start(leader));
        assert!(self.world.standing(leader).is_some_and(|standing| !standing.healing));
        self.submit(5);
        self.settle();
        assert_eq!(self.world.healed, 0, "the kill came between two writes");
    }

    /// Snapshots of a node go bad: others take their place while it runs.
    pub fn snapshots_rot(&mut self) {
        let node = self.world.nodes()[1];
        self.send_until("snapshots are made", |run| run.world.snapshots_of(node).0 >= 2);
        self.settle();
        while self.world.snapshots_of(node).1 == 0 {
            self.world.rot(node, Fault::SnapshotRot);
        }
        self.send_until("they are replaced", |run| run.world.snapshots_of(node) == (2, 0));
        self.settle();
        assert!(!self.world.would_heal(node));
    }

    /// A node hears nobody while the logs of all others go bad, one after the other. What it lacks it gets with a snapshot.
    /// Returns how many nodes began behind one of another node.
    pub fn logs_rot_while_one_lags(&mut self) -> u64 {
        self.submit(5);
        self.settle();
        let leader = self.world.leader().expect("a settled cluster has a leader");
        let nodes = self.world.nodes();
        let lagging = nodes.iter().copied().find(|node| *node != leader).expect("there are others");
        let others: Vec<NodeId> = nodes.into_iter().filter(|node| *node != lagging).collect();
        self.world.isolate(lagging, true);
        self.submit(5);
        self.pass(3_000_000);
        for node in others {
            while !self.world.would_heal(node) {
                self.world.rot(node, Fault::LogRot);
            }
            self.send_until("it is made good", |run| !run.world.would_heal(node));
        }
        self.settle();
        self.world.caught_up
    }
}

//! What becomes of stored bytes that rot: they come again from the other holders, and without one a record says so.

use proto::ids::NodeId;

use crate::faults::Fault;
use crate::scenario::Run;

/// Simulated seconds within which all bytes are read again and what is wrong of them is repaired.
const REPAIRED_SECONDS: u64 = 60;

impl Run {
    /// Stores images for receivers that are not there.
    fn store(&mut self, count: u64) {
        for user in &mut self.inboxes {
            user.leave(&mut self.world);
        }
        let away = std::mem::take(&mut self.inboxes);
        self.submit(count);
        let deadline_us = self.world.now_us + REPAIRED_SECONDS * 1_000_000;
        while self.book.open() > 0 {
            assert!(self.world.now_us < deadline_us, "not stored\n{}", self.world.describe());
            self.step();
        }
        self.inboxes = away;
    }

    /// The receivers come and get everything.
    fn fetch(&mut self) {
        for user in &mut self.inboxes {
            user.vanish(&mut self.world);
        }
        self.settle();
    }

    /// Waits, without receivers, until every copy that a record names is whole, and returns how many were not.
    fn wait_repaired(&mut self) -> u64 {
        let away = std::mem::take(&mut self.inboxes);
        // By then a node that started has a leader, and knows which records name it.
        let mut missing = self.world.missing_copies().len() as u64;
        for _ in 0..20 {
            self.pass(100_000);
            missing = missing.max(self.world.repairs());
        }
        let deadline_us = self.world.now_us + REPAIRED_SECONDS * 1_000_000;
        while self.world.repairs() > 0 || !self.world.missing_copies().is_empty() {
            assert!(
                self.world.now_us < deadline_us,
                "not repaired: {:?}\n{}",
                self.world.missing_copies(),
                self.world.describe()
            );
            self.pass(1_000_000);
        }
        self.inboxes = away;
        missing
    }

    /// One node after the other loses chunks, or their index, and has all of them again before the next does. Returns how many
    /// copies were repaired, how many were given up, and how many images came without bytes.
    pub fn rot_one_after_the_other(&mut self, fault: Fault) -> (u64, u64, u64) {
        self.store(20);
        let mut repaired = 0;
        for node in self.world.nodes() {
            if fault == Fault::IndexRot {
                // It is read at start only.
                self.world.crash(node, Fault::Kill);
            }
            self.world.rot(node, fault);
            if fault == Fault::IndexRot {
                assert!(self.world.start(node));
            }
            repaired += self.wait_repaired();
        }
        self.fetch();
        (repaired, self.world.checks.lost, self.world.damaged)
    }

    /// Every chunk of every node rots. Returns how many images there were, and how many came to receivers without bytes.
    pub fn rot_everything(&mut self) -> (u64, u64) {
        self.store(12);
        let nodes: Vec<NodeId> = self.world.nodes();
        for node in nodes {
            self.world.rot_all_chunks(node);
        }
        self.fetch();
        (self.book.images(), self.world.damaged)
    }
}

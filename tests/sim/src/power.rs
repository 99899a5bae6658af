//! The power of a whole cluster goes, again and again, in the middle of what it writes.

use crate::faults::Fault;
use crate::scenario::Run;

/// Simulated time within which a cluster must have a leader again.
const BACK_US: u64 = 10_000_000;
/// Disks that slow let gather what then goes into one round.
const SLOW_US: u64 = 2_000_000;

impl Run {
    /// Cuts the power of all nodes `cuts` times, in rounds of several sectors and in commits of chunks. Every node must start
    /// each time, and a leader be there soon. The first cut comes up to 30 ms after the images, which `pace` spreads.
    pub fn cut_power(&mut self, cuts: u64, pace: u64) {
        for cut in 0..cuts {
            self.submit(8);
            for node in self.world.nodes() {
                self.world.slow(node, SLOW_US);
            }
            self.pass(1_000 + pace * 977 * (cut + 1) % 30_000);
            let late_us = self.world.now_us + SLOW_US;
            while self.world.long_rounds() < 2 && self.world.now_us < late_us {
                self.pass(200);
            }
            for node in self.world.nodes() {
                self.world.crash(node, Fault::PowerAll);
            }
            for node in self.world.nodes() {
                assert!(self.world.start(node), "cut {cut}: {node} does not start");
            }
            let begin_us = self.world.now_us;
            while self.world.leader().is_none() {
                self.pass(10_000);
                let is_late = self.world.now_us > begin_us + BACK_US;
                assert!(!is_late, "cut {cut}: no leader after {} s", BACK_US / 1_000_000);
            }
        }
    }
}

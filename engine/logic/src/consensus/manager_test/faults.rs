//! Random runs with every fault at once: messages lost, repeated, reordered; disks slow; nodes cut off, killed in the
//! middle of a write, started again. What must hold is checked by the harness while they run.

use super::world::{OpKind, SEGMENT_BYTES, World};
use crate::consensus::random::Random;
use crate::mutant::Mutant;

const SEEDS: u64 = 300;
const STEPS: usize = 2000;

/// What the faults of all runs did, so that one that never happens is noticed.
#[derive(Debug, Default)]
pub struct Drawn {
    crashes: u64,
    torn: u64,
    lost: u64,
    repeated: u64,
    reordered: u64,
    cut: u64,
    committed: u64,
    leaders: u64,
}

struct Run {
    world: World,
    random: Random,
    proposed: u64,
    drawn: Drawn,
}

impl Run {
    fn step(&mut self) {
        let ids = self.world.ids();
        let node = ids[self.random.within(0, ids.len() as u64) as usize];
        match self.random.within(0, 1000) {
            0..400 => self.some_message(),
            400..700 => self.some_disk(node),
            700..860 => self.world.tick(node),
            860..970 => self.propose(),
            970..985 => self.start_or_crash(node),
            985..990 => {
                self.drawn.cut += u64::from(self.world.cut.insert(node));
            }
            _ => self.world.cut.clear(),
        }
    }

    fn some_message(&mut self) {
        let waiting = self.world.wire.len() as u64;
        if waiting == 0 {
            return;
        }
        // Mostly the oldest, else any.
        let at = if self.random.within(0, 4) > 0 { 0 } else { self.random.within(0, waiting) };
        self.drawn.reordered += u64::from(at > 0);
        let parcel = self.world.wire.remove(at as usize).unwrap();
        match self.random.within(0, 20) {
            0 => self.drawn.lost += 1,
            1 => {
                self.world.wire.push_back(parcel.clone());
                self.drawn.repeated += 1;
                self.world.deliver(parcel);
            }
            _ => self.world.deliver(parcel),
        }
    }

    fn some_disk(&mut self, node: u64) {
        if !self.world.is_up(node) {
            return;
        }
        let kinds: Vec<OpKind> = self.world.node(node).ops.iter().map(|op| op.kind()).collect();
        if !kinds.is_empty() {
            let at = self.random.within(0, kinds.len() as u64) as usize;
            self.world.finish(node, kinds[at]);
        }
    }

    fn propose(&mut self) {
        if let Some(leader) = self.world.leader() {
            self.proposed += 1;
            let records: Vec<String> =
                (0..self.random.within(1, 4)).map(|i| format!("{}.{i} {}", self.proposed, "x".repeat(60))).collect();
            let _ = self.world.propose(leader, &records.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }

    fn start_or_crash(&mut self, node: u64) {
        if !self.world.is_up(node) {
            self.world.start(node);
        } else if self.random.within(0, 2) == 0 {
            let sectors = [0, usize::MAX, self.random.within(0, 4) as usize][self.random.within(0, 3) as usize];
            self.drawn.crashes += 1;
            let flushing = self.world.node(node).ops.iter().any(|op| op.kind() == OpKind::Flush);
            self.drawn.torn += u64::from(flushing && sectors > 0 && sectors < 4);
            self.world.crash(node, sectors, self.random.within(0, 3) as usize);
        }
    }
}

/// Runs one seed, then lets the group recover: it must agree and go on.
pub fn run(seed: u64, mutant: Mutant) -> Drawn {
    let voters = [3, 3, 5][(seed % 3) as usize];
    let mut world = World::with_mutant(voters, seed % 2, seed, SEGMENT_BYTES, mutant);
    world.turns = Some(Random::new(!seed));
    let mut run = Run { world, random: Random::new(seed), proposed: 0, drawn: Drawn::default() };
    for step in 0..STEPS {
        run.step();
        if step % 50 == 0 {
            run.world.check_logs_match();
        }
    }
    let Run { mut world, mut drawn, .. } = run;
    world.cut.clear();
    world.turns = None;
    for node in world.ids() {
        if world.is_up(node) {
            world.turn(node);
        } else {
            world.start(node);
        }
    }
    world.pass(80);
    let leader = world.leader().expect("a whole group has a leader");
    world.propose(leader, &["the end"]).unwrap();
    world.pass(10);
    world.check_logs_match();
    let records = world.records(leader);
    assert_eq!(records.last().unwrap(), "the end");
    for node in world.ids() {
        assert_eq!(world.records(node), records, "node {node}");
        assert_eq!(world.node(node).up().dropped().invalid, 0, "node {node} refused what a correct peer sent");
    }
    drawn.committed = records.len() as u64;
    drawn.leaders = *world.terms(leader).last().unwrap();
    drawn
}

/// Raft paper, figure 3: all five properties, in every run.
#[test]
fn no_fault_breaks_a_property_of_the_paper() {
    let mut sum = Drawn::default();
    for seed in 0..SEEDS {
        let drawn = std::panic::catch_unwind(|| run(seed, Mutant::None)).unwrap_or_else(|_| panic!("seed {seed}"));
        sum.crashes += drawn.crashes;
        sum.torn += drawn.torn;
        sum.lost += drawn.lost;
        sum.repeated += drawn.repeated;
        sum.reordered += drawn.reordered;
        sum.cut += drawn.cut;
        sum.committed += drawn.committed;
        sum.leaders += drawn.leaders;
    }
    println!("{sum:?}");
    for drawn in [sum.crashes, sum.torn, sum.lost, sum.repeated, sum.reordered, sum.cut] {
        assert!(drawn > 0, "a fault was never drawn: {sum:?}");
    }
    assert!(sum.committed > 10 * SEEDS && sum.leaders > 2 * SEEDS, "too little happened: {sum:?}");
}

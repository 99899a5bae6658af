//! The power of a whole cluster goes, again and again, in the middle of what it writes: it comes back by itself.

use sim::faults::Fault;
use sim::mutants::Mutant;
use sim::scenario::Run;
use sim::world::Plan;

const WORLDS: u64 = 25;
const CUTS: u64 = 40;
/// Simulated time within which a cluster must have a leader again.
const BACK_US: u64 = 10_000_000;

/// Blueprint, section 5: alive after a power cut of the whole cluster in the middle of rounds of several sectors.
#[test]
fn a_cluster_comes_back_by_itself_from_a_thousand_power_cuts() {
    let (mut torn, mut healed, mut snapshots, mut images) = (0, 0, 0, 0);
    for seed in 1..=WORLDS {
        let mut run = Run::new(Plan {
            seed,
            nodes: 3,
            cores: 1 + (seed % 2) as u16,
            is_busy: seed.is_multiple_of(2),
            upload_idle_us: 60_000_000,
            segment_bytes: if seed.is_multiple_of(3) { 1 << 20 } else { 16 << 10 },
            mutant: Mutant::None,
            trace_lines: 0,
        });
        for cut in 0..CUTS {
            run.submit(8);
            // Slow disks: what gathers meanwhile goes into one round.
            for node in run.world.nodes() {
                run.world.slow(node, 2_000_000);
            }
            run.pass(1_000 + seed * 977 * (cut + 1) % 30_000);
            let late_us = run.world.now_us + 2_000_000;
            while run.world.long_rounds() < 2 && run.world.now_us < late_us {
                run.pass(200);
            }
            for node in run.world.nodes() {
                run.world.crash(node, Fault::PowerAll);
            }
            for node in run.world.nodes() {
                assert!(run.world.start(node), "world {seed}, cut {cut}: {node} does not start");
            }
            let begin_us = run.world.now_us;
            while run.world.leader().is_none() {
                run.pass(10_000);
                let is_late = run.world.now_us > begin_us + BACK_US;
                assert!(!is_late, "world {seed}, cut {cut}: no leader after {} s", BACK_US / 1_000_000);
            }
        }
        let done = run.settle();
        torn += run.world.torn_rounds;
        healed += done.healed;
        snapshots += done.snapshots;
        images += done.images;
    }
    println!(
        "{} power cuts: {torn} rounds of several sectors cut, {healed} logs healed, {snapshots} snapshots, {images} images",
        WORLDS * CUTS
    );
    assert!(torn >= WORLDS * CUTS, "only {torn} rounds of several sectors were cut");
}

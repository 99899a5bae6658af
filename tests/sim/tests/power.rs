//! The power of a whole cluster goes, again and again, in the middle of what it writes: it comes back by itself.

use sim::mutants::Mutant;
use sim::scenario::Run;
use sim::world::Plan;

const WORLDS: u64 = 25;
const CUTS: u64 = 40;

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
        run.cut_power(CUTS, seed);
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

//! Stored bytes that rot, in whole worlds.

use sim::faults::Fault;
use sim::mutants::Mutant;
use sim::scenario::Run;
use sim::world::Plan;

fn world(seed: u64) -> Run {
    Run::new(Plan {
        segment_bytes: 1 << 20,
        seed,
        nodes: if seed.is_multiple_of(3) { 5 } else { 3 },
        cores: 2,
        is_busy: seed.is_multiple_of(2),
        upload_idle_us: 60_000_000,
        mutant: Mutant::None,
        trace_lines: 0,
    })
}

#[test]
fn rotten_chunks_come_again_from_the_other_holder() {
    for seed in 1..=6 {
        let (repaired, given_up, damaged) = world(seed).rot_one_after_the_other(Fault::ChunkRot);
        assert!(repaired > 0, "seed {seed}");
        assert_eq!((given_up, damaged), (0, 0), "seed {seed}");
    }
}

#[test]
fn what_a_chunk_index_lacks_comes_again_from_the_other_holder() {
    let mut sum = 0;
    for seed in 1..=6 {
        let (repaired, given_up, damaged) = world(seed).rot_one_after_the_other(Fault::IndexRot);
        assert_eq!((given_up, damaged), (0, 0), "seed {seed}");
        sum += repaired;
    }
    assert!(sum > 0);
}

#[test]
fn an_image_without_any_good_copy_takes_its_place_as_damaged() {
    for seed in 1..=4 {
        let (images, damaged) = world(seed).rot_everything();
        // What lies in memory is right.
        assert!(damaged > images / 2, "seed {seed}: {damaged} of {images}");
    }
}

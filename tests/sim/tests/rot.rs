//! Logs and snapshots that go bad on disk while their node runs.

use sim::mutants::Mutant;
use sim::scenario::{Limits, Run, plan};
use sim::world::Plan;

fn world(seed: u64, nodes: u64, segment_bytes: u32) -> Run {
    Run::new(Plan {
        segment_bytes,
        seed,
        nodes,
        cores: 1,
        is_busy: seed.is_multiple_of(2),
        upload_idle_us: 60_000_000,
        mutant: Mutant::None,
        trace_lines: 0,
    })
}

#[test]
fn a_leader_whose_log_rots_hands_over_and_is_whole_again_without_a_restart() {
    for seed in 1..=10 {
        world(seed, 3 + seed % 2 * 2, 1 << 20).log_of_leader_rots();
    }
}

/// What catches the mutant `scrub-forgets-rot` holds without it, in the same world.
#[test]
fn worlds_that_catch_a_scrub_that_forgets_are_right_without_it() {
    for seed in 1..=9 {
        Run::new(plan(seed, Limits::FULL)).log_of_leader_rots();
    }
}

#[test]
fn the_log_of_a_lone_node_is_whole_again_behind_a_snapshot() {
    for seed in 1..=4 {
        world(seed, 1, 1 << 20).log_of_leader_rots();
    }
}

#[test]
fn snapshots_that_rot_are_replaced_while_their_node_runs() {
    for seed in 1..=5 {
        world(seed, 3, 16 << 10).snapshots_rot();
    }
}

#[test]
fn whoever_lags_gets_a_snapshot_instead_of_entries_that_rotted() {
    for seed in 1..=5 {
        let caught_up = world(seed, 3, 1 << 20).logs_rot_while_one_lags();
        assert!(caught_up > 0, "seed {seed}");
    }
}

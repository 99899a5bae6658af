//! The walk of images through whole worlds.

use sim::scenario::{Run, run};

#[test]
fn images_of_all_sizes_cross_a_healthy_cluster() {
    for seed in 1..=10 {
        let mut run = Run::new(seed, 3);
        run.submit(30);
        run.settle(seed);
    }
}

#[test]
fn a_cluster_of_one_works() {
    let mut run = Run::new(7, 1);
    run.submit(30);
    run.settle(7);
}

#[test]
fn no_image_is_lost_while_nodes_die_and_links_break() {
    for seed in 100..120 {
        run(seed);
    }
}

/// It took six seconds, until the client asked after them.
#[test]
fn images_under_way_are_accepted_soon_after_the_leader_died() {
    for seed in 1..=30 {
        Run::new(seed, 3).kill_leader(seed);
    }
}

/// A core that had just started named itself as holder without knowing its life in the cluster.
#[test]
fn a_copy_taken_right_after_a_start_counts() {
    run(101);
}

/// Records applied right after a start, before the cores had been told of the cluster, claimed and freed nothing.
#[test]
fn what_is_acknowledged_right_after_a_start_is_freed() {
    run(112);
}

#[test]
fn the_same_seed_does_the_same() {
    assert_eq!(run(42), run(42));
}

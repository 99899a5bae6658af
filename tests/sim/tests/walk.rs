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

/// With its log gone, but identity and vote in place, a node began a new log and elected another that lacked accepted images.
#[test]
fn a_member_without_its_log_refuses_to_start() {
    let mut run = Run::new(5, 3);
    run.submit(3);
    run.settle(5);
    let node = run.world.nodes()[1];
    run.world.crash(node);
    run.world.lose_log(node);
    assert!(run.world.refusal_of(node).is_some_and(|text| text.contains("no log/rounds")));
}

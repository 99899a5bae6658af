//! Nodes die, at any moment, and come back; the whole cluster stops and starts.

use std::time::Duration;

use client::{Routing, Sender};
use cluster::{Cluster, Ledger};

use crate::setup::{PATIENCE, cluster, hand_over, receive_and_check, register, send, settle};

/// So many that every node is home of some (checked).
const RECEIVERS: [&str; 6] = ["gallery", "archive", "press", "museum", "office", "cellar"];

fn send_to_each(cluster: &Cluster, ledger: &mut Ledger, round: &str) {
    for number in cluster.running() {
        let sender = Sender::connect(cluster.options_of(number, PATIENCE), "camera").unwrap();
        for receiver in RECEIVERS {
            send(&sender, ledger, &format!("{round}-{number}-{receiver}"), &[receiver], 3000);
        }
        send(&sender, ledger, &format!("{round}-{number}-large"), &RECEIVERS, (2 << 20) + 5);
    }
}

#[test]
fn kill_of_any_one_node_between_acceptance_and_receipt_loses_nothing() {
    let mut cluster = cluster();
    register(&cluster, &RECEIVERS);
    for victim in cluster.numbers() {
        let mut ledger = Ledger::new();
        send_to_each(&cluster, &mut ledger, &format!("before-{victim}"));
        cluster.kill(victim).unwrap();
        for receiver in RECEIVERS {
            receive_and_check(&cluster, &ledger, receiver);
        }
        cluster.start_node(victim).unwrap();
        cluster.wait_ready(PATIENCE).unwrap();
    }
}

#[test]
fn whole_cluster_stopped_or_killed_delivers_afterwards_what_was_undelivered() {
    let mut cluster = cluster();
    register(&cluster, &RECEIVERS);
    let mut ledger = Ledger::new();
    send_to_each(&cluster, &mut ledger, "stopped");
    for (number, status) in cluster.stop_all().unwrap() {
        assert!(status.success(), "node {number} after SIGTERM: {status}; {}", cluster.log_tail(number, 5));
    }
    cluster.start_all().unwrap();
    cluster.wait_ready(PATIENCE).unwrap();
    send_to_each(&cluster, &mut ledger, "killed");
    for number in cluster.running() {
        cluster.kill(number).unwrap();
    }
    cluster.start_all().unwrap();
    cluster.wait_ready(PATIENCE).unwrap();
    for receiver in RECEIVERS {
        receive_and_check(&cluster, &ledger, receiver);
    }
}

#[test]
fn sender_goes_on_elsewhere_when_its_node_dies_in_the_middle() {
    let mut cluster = cluster();
    register(&cluster, &RECEIVERS);
    let mut ledger = Ledger::new();
    for victim in cluster.numbers() {
        let mut options = cluster.options(Routing::Any, PATIENCE);
        let first = cluster.address(victim).client.clone();
        options.nodes.sort_by_key(|address| *address != first);
        let sender = Sender::connect(options, "camera").unwrap();
        let flying: Vec<_> = (0..4)
            .map(|image| hand_over(&sender, &mut ledger, &format!("{victim}-{image}"), &RECEIVERS[..3], 6 << 20))
            .collect();
        cluster.kill(victim).unwrap();
        for image in flying {
            settle(image, &mut ledger).unwrap();
        }
        cluster.start_node(victim).unwrap();
        cluster.wait_ready(PATIENCE).unwrap();
    }
    for receiver in &RECEIVERS[..3] {
        receive_and_check(&cluster, &ledger, receiver);
    }
}

#[test]
fn leader_killed_again_and_again_under_load_loses_and_doubles_nothing() {
    let mut cluster = cluster();
    register(&cluster, &RECEIVERS);
    let mut ledger = Ledger::new();
    let sender = Sender::connect(cluster.options(Routing::Rotate, PATIENCE), "camera").unwrap();
    for round in 0..4 {
        let flying: Vec<_> = (0..40)
            .map(|image| {
                let receiver = RECEIVERS[image % RECEIVERS.len()];
                hand_over(&sender, &mut ledger, &format!("{round}-{image}"), &[receiver], 20_000 + image)
            })
            .collect();
        let leader = cluster.wait_leader(PATIENCE).unwrap().0;
        cluster.kill(leader).unwrap();
        for image in flying {
            settle(image, &mut ledger).unwrap();
        }
        cluster.start_node(leader).unwrap();
        cluster.wait_ready(PATIENCE).unwrap();
    }
    for receiver in RECEIVERS {
        receive_and_check(&cluster, &ledger, receiver);
    }
    cluster
        .wait_for("nothing is undelivered", Duration::from_secs(20), |cluster| {
            let left = cluster.status(1)?.undelivered;
            if left == 0 { Ok(()) } else { Err(cluster::Problem(format!("{left} undelivered"))) }
        })
        .unwrap();
}

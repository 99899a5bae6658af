//! The machine takes the CPU away from a node for a moment. (A known hang of the runtime is set off by just this.)

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use client::{Options, Routing, Sender};
use cluster::Ledger;

use crate::setup::{PATIENCE, cluster, hand_over, is_full, receive_and_check, register, settle};

const PAUSE: Duration = Duration::from_millis(150);
const RECEIVERS: [&str; 3] = ["gallery", "archive", "press"];
/// Images under way at a time.
const FLYING: usize = 8;

/// Sends images one batch after the other until told to end.
fn load(options: Options, done: &AtomicBool) -> Ledger {
    let mut ledger = Ledger::new();
    let sender = Sender::connect(options, "camera").unwrap();
    while !done.load(Ordering::Acquire) {
        let from = ledger.sent().len();
        let flying: Vec<_> = (from..from + FLYING)
            .map(|image| {
                hand_over(&sender, &mut ledger, &format!("image-{image}"), &RECEIVERS[image % 3..=image % 3], 9000)
            })
            .collect();
        for image in flying {
            settle(image, &mut ledger).unwrap();
        }
    }
    ledger
}

#[test]
fn nodes_stopped_for_a_moment_during_load_hang_and_lose_nothing() {
    let rounds = if is_full() { 50 } else { 4 };
    let mut cluster = cluster();
    register(&cluster, &RECEIVERS);
    let done = Arc::new(AtomicBool::new(false));
    let options = cluster.options(Routing::Rotate, PATIENCE);
    let is_done = done.clone();
    let loader = std::thread::spawn(move || load(options, &is_done));
    for _ in 0..rounds {
        for number in cluster.numbers() {
            cluster.process(number).pause().unwrap();
            // The pause itself is what is tried.
            std::thread::sleep(PAUSE);
            cluster.process(number).resume().unwrap();
        }
    }
    cluster.wait_ready(PATIENCE).unwrap();
    done.store(true, Ordering::Release);
    let ledger = loader.join().unwrap();
    assert!(ledger.sent().len() >= FLYING, "the load sent nothing");
    for receiver in RECEIVERS {
        receive_and_check(&cluster, &ledger, receiver);
    }
}

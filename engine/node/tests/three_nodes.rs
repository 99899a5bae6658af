//! Three whole nodes in this process, on loopback, with real files: the walk of an image through all parts.

#![allow(clippy::unwrap_used)]

mod harness;

use std::time::Duration;

use client::{Client, Inbox, Options, Sender};
use harness::{Cluster, image};

const PATIENCE: Duration = Duration::from_secs(30);

fn options(nodes: Vec<String>) -> Options {
    Options { deadline: Some(PATIENCE), ..Options::new(nodes) }
}

fn receive(inbox: &mut Inbox) -> client::Delivery {
    inbox.receive(PATIENCE).unwrap().expect("an image within the time")
}

#[test]
fn images_of_all_sizes_cross_the_cluster_in_order_and_are_freed_after_acknowledgement() {
    let cluster = Cluster::start(3, 2);
    let nodes = cluster.client_addresses();
    let mut client = Client::new(options(nodes.clone())).unwrap();
    client.register("alice").unwrap();
    client.register("bob").unwrap();
    let receivers = ["bob".to_owned()];
    let sizes = [1, 100, 4096, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 20];
    let sender = Sender::connect(options(nodes.clone()), "alice").unwrap();
    for (seed, &bytes) in sizes.iter().enumerate() {
        let receipt = sender.send_bytes(image(seed as u64, bytes), &format!("{seed}.jpg"), &receivers).unwrap();
        assert_eq!(receipt.fingerprint.length, bytes as u64);
        assert!(receipt.holders.len() >= 2, "{:?}", receipt.holders);
    }
    let mut inbox = Inbox::open(options(nodes.clone()), "bob").unwrap();
    for (seed, &bytes) in sizes.iter().enumerate() {
        let delivery = receive(&mut inbox);
        assert_eq!(delivery.head.seq.0, seed as u64 + 1);
        assert_eq!(delivery.head.name, format!("{seed}.jpg"));
        assert!(delivery.bytes == image(seed as u64, bytes), "image {seed} differs");
        inbox.acknowledge(delivery.head.seq).unwrap();
    }
    assert!(inbox.flush(PATIENCE).unwrap());
    cluster.wait_until("the bytes are freed everywhere", |status| {
        status.iter().all(|node| node.cores.iter().all(|core| core.image_bytes == 0))
    });
    cluster.stop();
}

#[test]
fn undelivered_images_survive_a_stop_of_the_whole_cluster() {
    let mut cluster = Cluster::start(3, 1);
    let nodes = cluster.client_addresses();
    Client::new(options(nodes.clone())).unwrap().register("bob").unwrap();
    let sender = Sender::connect(options(nodes), "alice").unwrap();
    for seed in 0..5 {
        sender.send_bytes(image(seed, 300_000), "x", &["bob".to_owned()]).unwrap();
    }
    drop(sender);
    cluster.restart();
    let mut inbox = Inbox::open(options(cluster.client_addresses()), "bob").unwrap();
    for seed in 0..5 {
        let delivery = receive(&mut inbox);
        assert!(delivery.bytes == image(seed, 300_000), "image {seed} differs");
    }
    cluster.stop();
}

#[test]
fn any_one_node_may_go_between_acceptance_and_receipt() {
    for gone in 0..3 {
        let mut cluster = Cluster::start(3, 1);
        let nodes = cluster.client_addresses();
        Client::new(options(nodes.clone())).unwrap().register("bob").unwrap();
        let sender = Sender::connect(options(nodes.clone()), "alice").unwrap();
        let before = image(1, 2 << 20);
        sender.send_bytes(before.clone(), "before", &["bob".to_owned()]).unwrap();
        cluster.stop_node(gone);
        let after = image(2, 2 << 20);
        sender.send_bytes(after.clone(), "after", &["bob".to_owned()]).unwrap();
        let mut inbox = Inbox::open(options(nodes), "bob").unwrap();
        for expected in [before, after] {
            let delivery = receive(&mut inbox);
            assert!(delivery.bytes == expected, "{} differs without node {gone}", delivery.head.name);
            inbox.acknowledge(delivery.head.seq).unwrap();
        }
        cluster.stop();
    }
}

#[test]
fn node_that_ended_has_let_go_of_its_ports_and_directory() {
    let mut cluster = Cluster::start(1, 2);
    for _ in 0..8 {
        assert_eq!(cluster.status().len(), 1);
        cluster.stop_node(0);
        // Without the patience of `Listeners::bind`.
        for address in cluster.client_addresses().into_iter().chain(cluster.peer_addresses()) {
            drop(link::Bound::bind(address.parse().unwrap()).unwrap());
        }
        cluster.start_node(0);
    }
    cluster.stop();
}

#[test]
fn one_node_alone_is_a_cluster() {
    let cluster = Cluster::start(1, 2);
    let nodes = cluster.client_addresses();
    Client::new(options(nodes.clone())).unwrap().register("bob").unwrap();
    let sender = Sender::connect(options(nodes.clone()), "alice").unwrap();
    sender.send_bytes(image(7, 70_000), "x", &["bob".to_owned()]).unwrap();
    let mut inbox = Inbox::open(options(nodes), "bob").unwrap();
    assert!(receive(&mut inbox).bytes == image(7, 70_000));
    cluster.stop();
}

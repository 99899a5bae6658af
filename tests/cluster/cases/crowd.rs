//! Whoever opens connections without end takes none of the file descriptors that a node needs for its own files.

use std::net::TcpStream;

use client::Sender;
use cluster::nodes::Place;
use cluster::process::allow_files;
use cluster::{Cluster, Ledger, Setup};

use crate::setup::{HELIO, PATIENCE, receive_and_check, register, send};

/// Of open files, for each node.
const LIMIT: usize = 200;
/// To each port of each node: more than its limit.
const CROWD: usize = 220;

#[test]
fn crowd_at_both_ports_leaves_descriptors_for_files() {
    allow_files(2048).unwrap();
    let mut setup = Setup::new(HELIO);
    // Soft and hard: a node would raise the first to the second.
    let prefix = ["sh", "-c", &format!("ulimit -n {LIMIT} && exec \"$@\""), "sh"].map(str::to_owned).to_vec();
    setup.places = (0..setup.nodes).map(|_| Place { prefix: prefix.clone(), ..Place::default() }).collect();
    let mut cluster = Cluster::start(setup).unwrap();
    register(&cluster, &["gallery"]);
    let mut ledger = Ledger::new();
    let senders: Vec<Sender> = cluster
        .numbers()
        .into_iter()
        .map(|number| Sender::connect(cluster.options_of(number, PATIENCE), "camera").unwrap())
        .collect();
    let mut crowd = Vec::new();
    for number in cluster.numbers() {
        let addresses = cluster.address(number).clone();
        for address in [&addresses.client, &addresses.peer] {
            crowd.extend((0..CROWD).map(|_| TcpStream::connect(address).unwrap()));
        }
    }
    // Several chunk files on each holder, and several segments of the log.
    for image in 0..24 {
        let sender = &senders[image % senders.len()];
        send(sender, &mut ledger, &format!("image-{image}"), &["gallery"], 8 << 20);
    }
    cluster.check_alive().unwrap();
    drop(crowd);
    receive_and_check(&cluster, &ledger, "gallery");
    cluster.check_alive().unwrap();
}

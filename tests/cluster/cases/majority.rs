//! Without a majority nothing is accepted, and that is said; with it again, all goes on.

use std::fs;

use crate::setup::{PATIENCE, cluster, helio, register};

#[test]
fn without_a_majority_nothing_is_accepted_and_afterwards_all_is() {
    let mut cluster = cluster();
    register(&cluster, &["gallery"]);
    let nodes = cluster.client_addresses().join(",");
    let path = cluster.folder().join("cat.png");
    fs::write(&path, [3u8; 20_000]).unwrap();
    let path = path.to_str().unwrap().to_owned();
    let leader = cluster.wait_leader(PATIENCE).unwrap().0;
    let follower = cluster.running().into_iter().find(|&number| number != leader).unwrap();
    cluster.kill(leader).unwrap();
    cluster.kill(follower).unwrap();

    helio(&nodes, &["send", &path, "--to", "gallery", "--timeout", "4"]).fails(4, "");
    helio(&nodes, &["register", "archive", "--timeout", "3"]).fails(4, "");
    let status = helio(&nodes, &["status"]).fails(4, "no majority");
    assert!(status.stdout.contains("silent"), "{status:?}");

    cluster.start_node(leader).unwrap();
    cluster.start_node(follower).unwrap();
    cluster.wait_ready(PATIENCE).unwrap();
    helio(&nodes, &["register", "archive"]).ok();
    helio(&nodes, &["send", &path, "--to", "gallery,archive"]).ok();
    helio(&nodes, &["status"]).ok();
    let out = cluster.folder().join("out");
    let ran = helio(&nodes, &["inbox", "archive", "--out", out.to_str().unwrap()]).ok();
    assert_eq!(ran.stdout.lines().count(), 1, "{ran:?}");
}

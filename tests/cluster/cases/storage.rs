//! Where bytes are: on exactly `copies` nodes, freed after the acknowledgement; and little of them in the log.

use std::time::Duration;

use client::{Routing, Sender};
use cluster::{Cluster, Ledger, Problem};
use serde_json::Value;

use crate::setup::{PATIENCE, cluster, helio, is_full, receive_and_check, register, send};

const IMAGE_BYTES: usize = 1 << 20;
/// A node reports what it holds twice a second, and asks about bytes it cannot judge after some seconds.
const FREED_PATIENCE: Duration = Duration::from_secs(20);

fn log_stat(cluster: &Cluster, number: u64) -> Value {
    let data = cluster.data_path(number);
    let ran = helio("", &["log", "stat", data.to_str().unwrap(), "--json"]).ok();
    serde_json::from_str(&ran.stdout).unwrap()
}

/// Bytes held by each node, as `helio status` says.
fn held(cluster: &Cluster) -> Result<Vec<u64>, Problem> {
    let ran = helio(&cluster.client_addresses().join(","), &["status", "--json"]);
    let status: Value = serde_json::from_str(&ran.stdout).map_err(|error| Problem(format!("{error}: {ran:?}")))?;
    let nodes = status["nodes"].as_array().ok_or_else(|| Problem(format!("{ran:?}")))?;
    Ok(nodes.iter().map(|node| node["image_bytes"].as_u64().unwrap_or(0)).collect())
}

#[test]
fn exactly_copies_nodes_hold_the_bytes_and_the_log_takes_less_than_a_kibibyte_an_image() {
    let images = if is_full() { 200 } else { 12 };
    let mut cluster = cluster();
    register(&cluster, &["gallery"]);
    let sender = Sender::connect(cluster.options(Routing::Rotate, PATIENCE), "camera").unwrap();
    let mut ledger = Ledger::new();
    let before: Vec<u64> =
        cluster.numbers().iter().map(|&n| log_stat(&cluster, n)["bytes"].as_u64().unwrap()).collect();
    for image in 0..images {
        let receipt = send(&sender, &mut ledger, &format!("image-{image}"), &["gallery"], IMAGE_BYTES);
        let mut holders: Vec<_> = receipt.holders.iter().map(|holder| holder.address.node).collect();
        holders.sort_unstable();
        holders.dedup();
        assert!(holders.len() >= 2, "{:?}", receipt.holders);
    }
    let all = (images * IMAGE_BYTES) as u64;
    cluster
        .wait_for("exactly two nodes report the bytes", PATIENCE, |cluster| {
            let mut held = held(cluster)?;
            held.sort_unstable();
            if held == [0, all, all] { Ok(()) } else { Err(Problem(format!("{held:?}, expected 0, {all}, {all}"))) }
        })
        .unwrap();
    for (number, before) in cluster.numbers().into_iter().zip(before) {
        let stat = log_stat(&cluster, number);
        let per_image = (stat["bytes"].as_u64().unwrap() - before) as f64 / images as f64;
        assert!(per_image < 1024.0, "node {number}: {per_image} bytes of log an image: {stat:#}");
        assert_eq!(stat["kinds"]["ready"]["entries"], images as u64, "node {number}: {stat:#}");
        assert_eq!(stat["bad"], 0, "node {number}: {stat:#}");
    }
    receive_and_check(&cluster, &ledger, "gallery");
    cluster
        .wait_for("the bytes are freed", PATIENCE, |cluster| {
            let held = held(cluster)?;
            if held.iter().all(|&bytes| bytes == 0) { Ok(()) } else { Err(Problem(format!("still held: {held:?}"))) }
        })
        .unwrap();
}

#[test]
fn freed_bytes_stay_freed_when_the_nodes_start_again() {
    let mut cluster = cluster();
    register(&cluster, &["gallery"]);
    let mut ledger = Ledger::new();
    let is_free = |cluster: &mut Cluster| {
        let held = held(cluster)?;
        if held.iter().all(|&bytes| bytes == 0) { Ok(()) } else { Err(Problem(format!("still held: {held:?}"))) }
    };
    for round in 0..2 {
        for image in 0..6 {
            // A session for each, as by `helio send`: no later image of the session says that this one is finished.
            let sender = Sender::connect(cluster.options(Routing::Any, PATIENCE), "camera").unwrap();
            send(&sender, &mut ledger, &format!("image-{round}-{image}"), &["gallery"], 240_512);
        }
        let received = cluster::receive(cluster.options(Routing::Any, PATIENCE), "gallery", 6, PATIENCE).unwrap();
        assert_eq!(received.len(), 6);
        cluster.wait_for("the bytes are freed", FREED_PATIENCE, is_free).unwrap();
        cluster.stop_all().unwrap();
        cluster.start_all().unwrap();
        cluster.wait_ready(PATIENCE).unwrap();
        cluster.wait_for("the bytes are free after the start", FREED_PATIENCE, is_free).unwrap();
    }
}

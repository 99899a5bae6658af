//! Nothing fails: images cross the cluster, by the command line and by the library.

use std::fs;

use client::{Routing, Sender};
use cluster::Ledger;
use cluster::ledger::bytes_of;

use crate::setup::{PATIENCE, cluster, helio, receive_and_check, register, send};

#[test]
fn an_image_crosses_the_cluster_through_each_node() {
    let mut cluster = cluster();
    let nodes = cluster.client_addresses();
    helio(&nodes[0], &["register", "gallery"]).ok();
    let folder = cluster.folder().join("sent");
    fs::create_dir(&folder).unwrap();
    let mut sent = Vec::new();
    for (via, address) in nodes.iter().enumerate() {
        for length in [1usize, 4096, 1 << 20, (3 << 20) + 17] {
            let path = folder.join(format!("image-{via}-{length}.png"));
            fs::write(&path, bytes_of(length as u64 + via as u64, length).as_slice()).unwrap();
            let ran = helio(address, &["send", path.to_str().unwrap(), "--from", "camera", "--to", "gallery"]).ok();
            assert!(ran.stdout.contains("accepted"), "{ran:?}");
            sent.push(path);
        }
    }
    let out = cluster.folder().join("received");
    let ran = helio(&nodes[1], &["inbox", "gallery", "--out", out.to_str().unwrap()]).ok();
    assert_eq!(ran.stdout.lines().count(), sent.len(), "{ran:?}");
    let mut files: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('.'));
    files.sort();
    assert_eq!(files.len(), sent.len(), "{files:?}");
    for (file, sent) in files.iter().zip(&sent) {
        assert!(file.to_str().unwrap().ends_with(sent.file_name().unwrap().to_str().unwrap()), "{file:?} {sent:?}");
        assert!(fs::read(file).unwrap() == fs::read(sent).unwrap(), "{file:?} differs from {sent:?}");
    }
    // What was acknowledged does not come again.
    let again = helio(&nodes[2], &["inbox", "gallery", "--out", out.to_str().unwrap()]).ok();
    assert_eq!(again.stdout, "", "{again:?}");
    cluster.check_alive().unwrap();
}

#[test]
fn an_image_for_several_receivers_reaches_each_in_order() {
    let mut cluster = cluster();
    let receivers = ["gallery", "archive", "press", "museum"];
    register(&cluster, &receivers);
    let mut ledger = Ledger::new();
    for number in cluster.numbers() {
        let sender = Sender::connect(cluster.options_of(number, PATIENCE), "camera").unwrap();
        for image in 0..5 {
            send(&sender, &mut ledger, &format!("to-all-{number}-{image}"), &receivers, 10_000 + image);
            send(&sender, &mut ledger, &format!("to-one-{number}-{image}"), &receivers[image % 4..=image % 4], 700);
        }
    }
    for receiver in receivers {
        receive_and_check(&cluster, &ledger, receiver);
    }
    cluster.check_alive().unwrap();
}

#[test]
fn status_and_log_say_what_happened() {
    let cluster = cluster();
    register(&cluster, &["gallery"]);
    let sender = Sender::connect(cluster.options(Routing::Home, PATIENCE), "camera").unwrap();
    let mut ledger = Ledger::new();
    let receipt = send(&sender, &mut ledger, "one.png", &["gallery"], 5000);
    let nodes = cluster.client_addresses();
    let ran = helio(&nodes[0], &["status", "--json"]).ok();
    let status: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(status["nodes"].as_array().unwrap().len(), 3, "{status:#}");
    let share: f64 = status["nodes"].as_array().unwrap().iter().map(|node| node["ring_share"].as_f64().unwrap()).sum();
    assert!((share - 1.0).abs() < 1e-6, "{status:#}");
    assert!(status["leader"].as_u64().is_some_and(|leader| (1..=3).contains(&leader)), "{status:#}");
    let table = helio(&nodes[0], &["status"]).ok();
    assert!(table.stdout.contains("leader") && table.stdout.contains("follower"), "{table:?}");
    let data = cluster.data_path(receipt.holders[0].address.node.0);
    let dump = helio(&nodes[0], &["log", "dump", data.to_str().unwrap(), "--json"]).ok();
    let ready = dump.stdout.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let ready: Vec<_> = ready.filter(|entry| entry["kind"] == "ready").collect();
    assert_eq!(ready.len(), 1, "{}", dump.stdout);
    assert_eq!(ready[0]["index"], receipt.index.0);
    assert_eq!(ready[0]["record"]["body"]["name"], "one.png");
}

//! A member whose data directory is gone does not come back silently, and is taken in again when its operator says so.

use std::fs;

use client::{Routing, Sender};
use cluster::{Cluster, Ledger, Problem};

use crate::setup::{PATIENCE, cluster, helio, receive_and_check, register, send};

fn sender(cluster: &Cluster) -> Sender {
    Sender::connect(cluster.options(Routing::Any, PATIENCE), "camera").unwrap()
}

/// Waits until the node's log says so.
fn wait_said(cluster: &mut Cluster, number: u64, part: &str) {
    let said = |cluster: &mut Cluster| match cluster.log_tail(number, 200) {
        text if text.contains(part) => Ok(()),
        text => Err(Problem(text)),
    };
    cluster.wait_for(part, PATIENCE, said).unwrap();
}

/// Waits until the node has everything again, in that life.
fn wait_whole(cluster: &mut Cluster, number: u64, incarnation: u32) {
    cluster.wait_ready(PATIENCE).unwrap();
    let is_whole = |cluster: &mut Cluster| match cluster.status(number)? {
        status if status.healing || status.incarnation.0 != incarnation => Err(Problem(format!("{status:?}"))),
        _ => Ok(()),
    };
    cluster.wait_for("the node is whole", PATIENCE, is_whole).unwrap();
}

/// What is in a directory, by path, with the lengths of the files.
fn listing(path: &std::path::Path) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        // Who looked at it last stands in LOCK, in as many digits as it takes.
        let is_counted = metadata.is_file() && entry.file_name() != "LOCK";
        all.push((entry.path().display().to_string(), if is_counted { metadata.len() } else { 0 }));
        if metadata.is_dir() {
            all.extend(listing(&entry.path()));
        }
    }
    all.sort();
    all
}

#[test]
fn a_node_without_its_directory_is_taken_in_again_and_needed_for_the_next_majority() {
    let mut cluster = cluster();
    register(&cluster, &["gallery"]);
    let mut ledger = Ledger::new();
    let (victim, other) = (2, 3);
    for image in 0..20 {
        send(&sender(&cluster), &mut ledger, &format!("before-{image}"), &["gallery"], 20_000);
    }
    cluster.kill(victim).unwrap();
    fs::remove_dir_all(cluster.data_path(victim)).unwrap();

    // By itself it takes no part, and the others do without it.
    cluster.start_node(victim).unwrap();
    wait_said(&mut cluster, victim, "start it with --rejoin");
    for image in 0..5 {
        send(&sender(&cluster), &mut ledger, &format!("without-{image}"), &["gallery"], 20_000);
    }
    let refusal = cluster.status(victim).unwrap_err().0;
    assert!(refusal.contains("start it with --rejoin"), "{refusal}");
    cluster.stop(victim).unwrap();

    cluster.start_node_with(victim, &["--rejoin"]).unwrap();
    wait_whole(&mut cluster, victim, 2);
    cluster.kill(other).unwrap();
    for image in 0..5 {
        send(&sender(&cluster), &mut ledger, &format!("needed-{image}"), &["gallery"], 20_000);
    }
    cluster.start_node(other).unwrap();
    cluster.wait_ready(PATIENCE).unwrap();

    // Said again it has no effect.
    cluster.kill(victim).unwrap();
    cluster.start_node_with(victim, &["--rejoin"]).unwrap();
    wait_whole(&mut cluster, victim, 2);
    assert!(cluster.log_tail(victim, 200).contains("--rejoin has no effect"), "{}", cluster.log_tail(victim, 200));
    receive_and_check(&cluster, &ledger, "gallery");
    cluster.check_alive().unwrap();
}

#[test]
fn a_directory_that_forgot_its_votes_or_its_log_is_set_aside_and_a_whole_one_is_left_alone() {
    let mut cluster = cluster();
    register(&cluster, &["gallery"]);
    let mut ledger = Ledger::new();
    for image in 0..5 {
        send(&sender(&cluster), &mut ledger, &format!("before-{image}"), &["gallery"], 20_000);
    }
    let victim = 2;
    let data = cluster.data_path(victim);
    cluster.stop(victim).unwrap();
    let config = cluster.config_path(victim).display().to_string();
    let before = listing(&data);
    helio("", &["node", "--config", &config, "--rejoin"]).fails(5, "start the node without --rejoin");
    assert_eq!(listing(&data), before, "nothing was changed");

    let forgets: [(u32, &dyn Fn()); 3] = [
        (2, &|| fs::write(data.join("vote"), vec![7; 8192]).unwrap()),
        (3, &|| fs::remove_dir_all(data.join("log")).unwrap()),
        (4, &|| fs::remove_file(data.join("vote")).unwrap()),
    ];
    for (incarnation, forget) in forgets {
        forget();
        helio("", &["node", "--config", &config]).fails(5, "--rejoin");
        if incarnation != 3 {
            helio("", &["log", "verify", data.to_str().unwrap()]).fails(14, "--rejoin");
        }
        cluster.start_node_with(victim, &["--rejoin"]).unwrap();
        wait_whole(&mut cluster, victim, incarnation);
        let aside = data.join(format!("before-rejoin-{}", incarnation - 1));
        assert!(aside.join("identity").exists() && aside.join("core-0").is_dir(), "{:?}", listing(&aside));
        send(&sender(&cluster), &mut ledger, &format!("as-{incarnation}"), &["gallery"], 20_000);
        cluster.stop(victim).unwrap();
    }
    cluster.start_node(victim).unwrap();
    wait_whole(&mut cluster, victim, 4);
    receive_and_check(&cluster, &ledger, "gallery");
    cluster.check_alive().unwrap();
}

#[test]
fn the_only_voter_cannot_be_taken_in_again_by_anybody() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let ports = ["--client", "127.0.0.1:0", "--peer", "127.0.0.1:0"];
    let arguments = ["node", "--id", "1", "--data", data.to_str().unwrap(), "--rejoin"];
    helio("", &[&arguments[..], &ports[..]].concat()).fails(5, "only voter");
    assert!(!data.exists());
}

#[test]
fn a_directory_that_was_replaced_takes_no_part_any_more() {
    let mut cluster = cluster();
    register(&cluster, &["gallery"]);
    let mut ledger = Ledger::new();
    let (victim, other) = (2, 3);
    let (data, old, new) = (cluster.data_path(victim), cluster.folder().join("old"), cluster.folder().join("new"));
    cluster.stop(victim).unwrap();
    fs::rename(&data, &old).unwrap();
    cluster.start_node_with(victim, &["--rejoin"]).unwrap();
    wait_whole(&mut cluster, victim, 2);
    send(&sender(&cluster), &mut ledger, "first", &["gallery"], 20_000);
    cluster.stop(victim).unwrap();

    fs::rename(&data, &new).unwrap();
    fs::rename(&old, &data).unwrap();
    cluster.start_node(victim).unwrap();
    wait_said(&mut cluster, victim, "must not be used any more");
    let refusal = cluster.status(victim).unwrap_err().0;
    assert!(refusal.contains("must not be used any more"), "{refusal}");
    // It makes no majority with the one that is left.
    cluster.kill(other).unwrap();
    let nodes = cluster.client_addresses().join(",");
    let file = cluster.folder().join("image");
    fs::write(&file, b"an image").unwrap();
    let ran = helio(&nodes, &["send", file.to_str().unwrap(), "--to", "gallery", "--timeout", "3"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    cluster.stop(victim).unwrap();

    fs::rename(&data, &old).unwrap();
    fs::rename(&new, &data).unwrap();
    cluster.start_node(victim).unwrap();
    cluster.start_node(other).unwrap();
    wait_whole(&mut cluster, victim, 2);
    receive_and_check(&cluster, &ledger, "gallery");
    cluster.check_alive().unwrap();
}

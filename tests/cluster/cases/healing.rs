//! Logs rot. A node that was down takes what it lost from the others, and is a full member again by itself; one that runs is
//! whole again without a restart.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;

use client::{Routing, Sender};
use cluster::{Cluster, Ledger, Problem};

use crate::setup::{PATIENCE, cluster, cluster_with, helio, receive_and_check, register, send, wait_settled};

/// Flips a bit of the node's log, at so many thousandths of what is used of its last segment.
fn rot(cluster: &Cluster, number: u64, thousandths: usize) {
    let mut segments: Vec<_> = fs::read_dir(cluster.data_path(number).join("log"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    segments.sort();
    let used = |path: &std::path::PathBuf| fs::read(path).unwrap().iter().rposition(|&byte| byte != 0).unwrap_or(0);
    let (path, end) = segments.iter().map(|path| (path, used(path))).rfind(|&(_, end)| end > 4096).unwrap();
    let at = 4096 + (end - 4096) * thousandths / 1000;
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at as u64).unwrap();
}

fn sender(cluster: &Cluster) -> Sender {
    Sender::connect(cluster.options(Routing::Any, PATIENCE), "camera").unwrap()
}

#[test]
fn a_node_with_a_rotten_log_heals_and_is_needed_for_the_next_majority() {
    let mut cluster = cluster();
    register(&cluster, &["gallery"]);
    let mut ledger = Ledger::new();
    // In the middle, where later entries prove the loss; in the last round, where only its identifier speaks of it.
    for (round, thousandths) in [(1, 500), (2, 999)] {
        for image in 0..20 {
            send(&sender(&cluster), &mut ledger, &format!("before-{round}-{image}"), &["gallery"], 2000);
        }
        let (victim, other) = (2, 3);
        cluster.kill(victim).unwrap();
        let data = cluster.data_path(victim).to_str().unwrap().to_owned();
        let before = helio("", &["log", "verify", &data]);
        assert!(matches!(before.code, 0 | 11 | 12), "a kill leaves no rot: {before:?}");
        rot(&cluster, victim, thousandths);
        let after = helio("", &["log", "verify", &data, "--json"]);
        let said: serde_json::Value = serde_json::from_str(&after.stdout).unwrap();
        assert!(
            matches!((after.code, said["judgement"].as_str()), (13, Some("rot")) | (12, Some("uncertain"))),
            "{after:?}"
        );
        assert!(said["next_start"].as_str().unwrap().contains("take what it lost from the others"), "{after:?}");
        cluster.start_node(victim).unwrap();
        cluster.wait_ready(PATIENCE).unwrap();
        assert!(cluster.log_tail(victim, 200).contains("the log lost entries"), "{}", cluster.log_tail(victim, 200));
        let healed = |cluster: &mut Cluster| match cluster.status(victim)? {
            status if status.healing => Err(Problem(format!("{status:?}"))),
            _ => Ok(()),
        };
        cluster.wait_for("the log to be whole again", PATIENCE, healed).unwrap();
        cluster.kill(other).unwrap();
        for image in 0..5 {
            send(&sender(&cluster), &mut ledger, &format!("without-{round}-{image}"), &["gallery"], 2000);
        }
        cluster.start_node(other).unwrap();
        cluster.wait_ready(PATIENCE).unwrap();
    }
    receive_and_check(&cluster, &ledger, "gallery");
    cluster.check_alive().unwrap();
}

#[test]
fn a_leader_whose_log_rots_while_it_runs_hands_over_and_has_nothing_to_heal_afterwards() {
    let mut cluster = cluster_with(&["scrub_seconds = 1"]);
    register(&cluster, &["gallery"]);
    let mut ledger = Ledger::new();
    for image in 0..20 {
        send(&sender(&cluster), &mut ledger, &format!("before-{image}"), &["gallery"], 2000);
    }
    let victim = cluster.wait_leader(PATIENCE).unwrap().0;
    rot(&cluster, victim, 500);
    let hands_over = |cluster: &mut Cluster| match cluster.status(victim)? {
        status if status.leader.0 == victim || status.leader.0 == 0 => Err(Problem(format!("{status:?}"))),
        _ => Ok(()),
    };
    cluster.wait_for("another one to lead", PATIENCE, hands_over).unwrap();
    for image in 0..20 {
        send(&sender(&cluster), &mut ledger, &format!("afterwards-{image}"), &["gallery"], 2000);
    }
    let is_whole = |cluster: &mut Cluster| {
        let tail = cluster.log_tail(victim, 200);
        if tail.contains("the log is whole again") { Ok(()) } else { Err(Problem(tail)) }
    };
    cluster.wait_for("the log to be whole again", PATIENCE, is_whole).unwrap();
    cluster.stop(victim).unwrap();
    helio("", &["log", "verify", cluster.data_path(victim).to_str().unwrap()]).ok();
    cluster.start_node(victim).unwrap();
    cluster.wait_ready(PATIENCE).unwrap();
    assert!(!cluster.log_tail(victim, 200).contains("the log lost entries"));
    receive_and_check(&cluster, &ledger, "gallery");
    cluster.check_alive().unwrap();
}

#[test]
fn status_tells_of_rot_at_the_end_of_a_running_log_until_the_log_has_gone_on() {
    let mut cluster = cluster_with(&["scrub_seconds = 1"]);
    register(&cluster, &["gallery"]);
    let mut ledger = Ledger::new();
    for image in 0..20 {
        send(&sender(&cluster), &mut ledger, &format!("before-{image}"), &["gallery"], 2000);
    }
    let leader = cluster.wait_leader(PATIENCE).unwrap().0;
    let victim = cluster.numbers().into_iter().find(|number| *number != leader).unwrap();
    wait_settled(&mut cluster);
    rot(&cluster, victim, 999);
    let wait = |cluster: &mut Cluster, is_rotten: bool| {
        let tells = |cluster: &mut Cluster| match cluster.status(victim)? {
            status if status.log_rotten == is_rotten => Ok(()),
            status => Err(Problem(format!("{status:?}"))),
        };
        cluster.wait_for("the node to tell how its log is", PATIENCE, tells).unwrap();
    };
    wait(&mut cluster, true);
    let nodes = cluster.client_addresses().join(",");
    let shown = helio(&nodes, &["status"]).ok().stdout;
    assert_eq!(shown.matches("follower, rot").count(), 1, "{shown}");
    let told: serde_json::Value = serde_json::from_str(&helio(&nodes, &["status", "--json"]).ok().stdout).unwrap();
    let rotten: Vec<u64> = (told["nodes"].as_array().unwrap().iter())
        .filter(|node| node["log_rotten"] == true)
        .map(|node| node["node"].as_u64().unwrap())
        .collect();
    assert_eq!(rotten, [victim], "{told:#}");
    for image in 0..20 {
        send(&sender(&cluster), &mut ledger, &format!("afterwards-{image}"), &["gallery"], 2000);
    }
    wait(&mut cluster, false);
    receive_and_check(&cluster, &ledger, "gallery");
    cluster.check_alive().unwrap();
}

#[test]
fn a_log_that_was_put_back_to_an_old_copy_is_healed_while_a_leader_remembers() {
    let mut cluster = cluster();
    register(&cluster, &["gallery"]);
    let mut ledger = Ledger::new();
    for image in 0..10 {
        send(&sender(&cluster), &mut ledger, &format!("before-{image}"), &["gallery"], 2000);
    }
    wait_settled(&mut cluster);
    let leader = cluster.wait_leader(PATIENCE).unwrap().0;
    let (victim, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    cluster.stop(victim).unwrap();
    let (log, copy) = (cluster.data_path(victim).join("log"), cluster.folder().join("copy"));
    let put = |from: &std::path::Path, to: &std::path::Path| {
        fs::create_dir_all(to).unwrap();
        for file in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
            fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
        }
    };
    put(&log, &copy);
    cluster.start_node(victim).unwrap();
    cluster.wait_ready(PATIENCE).unwrap();
    for image in 0..10 {
        send(&sender(&cluster), &mut ledger, &format!("after-{image}"), &["gallery"], 2000);
    }
    wait_settled(&mut cluster);
    cluster.stop(victim).unwrap();
    fs::remove_dir_all(&log).unwrap();
    put(&copy, &log);
    cluster.start_node(victim).unwrap();
    let told = |cluster: &mut Cluster| match cluster.log_tail(victim, 200) {
        text if text.contains("the log has everything again") => Ok(text),
        text => Err(Problem(text)),
    };
    let text = cluster.wait_for("the log to be whole again", PATIENCE, told).unwrap();
    assert!(text.contains("entries that this node had acknowledged"), "{text}");
    cluster.kill(other).unwrap();
    for image in 0..5 {
        send(&sender(&cluster), &mut ledger, &format!("needed-{image}"), &["gallery"], 2000);
    }
    cluster.start_node(other).unwrap();
    cluster.wait_ready(PATIENCE).unwrap();
    receive_and_check(&cluster, &ledger, "gallery");
    cluster.check_alive().unwrap();
}

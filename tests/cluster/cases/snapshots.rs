//! A log that stays small: snapshots of the state, what they are good for, and a node that was away for too long.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use client::{Client, Routing, Sender};
use cluster::{Cluster, Ledger, Problem};

use crate::setup::{PATIENCE, cluster, helio, receive_and_check, register, send};

/// The files of that kind in a folder of the node's data directory, ascending.
fn files(cluster: &Cluster, number: u64, folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(cluster.data_path(number).join(folder)).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    files
}

/// Writes that much into the log, in small records.
fn fill_log(cluster: &Cluster, bytes: usize) {
    let mut client = Client::new(cluster.options(Routing::Any, PATIENCE)).unwrap();
    for _ in 0..bytes / 1024 {
        client.probe(&[7; 1024]).unwrap();
    }
}

fn sender(cluster: &Cluster) -> Sender {
    Sender::connect(cluster.options(Routing::Any, PATIENCE), "camera").unwrap()
}

fn flip(path: &PathBuf, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

#[test]
fn a_node_that_was_away_for_too_long_goes_on_behind_a_snapshot_and_is_needed_for_the_next_majority() {
    let mut cluster = cluster();
    register(&cluster, &["gallery", "album"]);
    let mut ledger = Ledger::new();
    for image in 0..10 {
        send(&sender(&cluster), &mut ledger, &format!("before-{image}"), &["gallery", "album"], 3000);
    }
    receive_and_check(&cluster, &ledger, "album");
    let (away, other) = (3, 2);
    cluster.kill(away).unwrap();
    for image in 0..10 {
        send(&sender(&cluster), &mut ledger, &format!("meanwhile-{image}"), &["gallery"], 3000);
    }
    fill_log(&cluster, 5 << 20);
    for number in [1, 2] {
        assert!(files(&cluster, number, "log", "seg").len() <= 4, "{:?}", files(&cluster, number, "log", "seg"));
        assert_eq!(files(&cluster, number, "snapshots", "snap").len(), 2);
    }
    cluster.start_node(away).unwrap();
    cluster.wait_ready(PATIENCE).unwrap();
    let level = |cluster: &mut Cluster| {
        let (here, there) = (cluster.status(away)?, cluster.status(1)?);
        if here.applied >= there.applied { Ok(()) } else { Err(Problem(format!("{here:?}"))) }
    };
    cluster.wait_for("the node to be level again", PATIENCE, level).unwrap();
    assert!(
        cluster.log_tail(away, 300).contains("behind a snapshot of another node"),
        "{}",
        cluster.log_tail(away, 300)
    );
    cluster.kill(other).unwrap();
    for image in 0..5 {
        send(&sender(&cluster), &mut ledger, &format!("without-{image}"), &["gallery"], 3000);
    }
    // It starts from that snapshot, too.
    cluster.kill(away).unwrap();
    cluster.start_node(away).unwrap();
    cluster.wait_leader(PATIENCE).unwrap();
    receive_and_check(&cluster, &ledger, "gallery");
    cluster.start_node(other).unwrap();
    cluster.wait_ready(PATIENCE).unwrap();
    cluster.check_alive().unwrap();
}

fn healed(cluster: &mut Cluster, number: u64) -> Result<(), Problem> {
    match cluster.status(number)? {
        status if status.healing => Err(Problem(format!("{status:?}"))),
        _ => Ok(()),
    }
}

#[test]
fn a_start_does_without_bad_snapshots_and_without_what_a_good_one_has() {
    let mut cluster = cluster();
    register(&cluster, &["gallery"]);
    let mut ledger = Ledger::new();
    for image in 0..10 {
        send(&sender(&cluster), &mut ledger, &format!("early-{image}"), &["gallery"], 3000);
    }
    fill_log(&cluster, 3 << 20);
    let victim = 2;
    let data = cluster.data_path(victim).to_str().unwrap().to_owned();
    let verify = || helio("", &["log", "verify", &data]);
    // The newest is bad: the one before and the log behind it are as good.
    cluster.stop(victim).unwrap();
    let snapshots = files(&cluster, victim, "snapshots", "snap");
    let inspect = || helio("", &["snapshot", "inspect", &data, "--json"]);
    let whole: serde_json::Value = serde_json::from_str(&inspect().ok().stdout).unwrap();
    assert_eq!((whole[1]["clients"].as_u64(), whole[1]["undelivered"].as_u64()), (Some(1), Some(10)), "{whole:#}");
    flip(&snapshots[1], 700);
    inspect().fails(13, "does without it");
    assert!(verify().ok().stdout.contains("damaged, and not used"), "{:?}", verify());
    cluster.start_node(victim).unwrap();
    cluster.wait_ready(PATIENCE).unwrap();
    assert!(!cluster.status(victim).unwrap().healing);
    // What is before a good one may be bad.
    cluster.stop(victim).unwrap();
    flip(&files(&cluster, victim, "log", "seg")[0], 900);
    assert!(verify().ok().stdout.contains("a snapshot has it"), "{:?}", verify());
    cluster.start_node(victim).unwrap();
    cluster.wait_ready(PATIENCE).unwrap();
    // Nothing says which rounds there were: all of it is doubtful.
    cluster.stop(victim).unwrap();
    fs::remove_file(cluster.data_path(victim).join("log/rounds")).unwrap();
    assert!(matches!(verify().code, 12 | 13), "{:?}", verify());
    cluster.start_node(victim).unwrap();
    cluster.wait_for("the log to be whole again", PATIENCE, |cluster| healed(cluster, victim)).unwrap();
    // Bad snapshots are removed when there are good ones.
    fill_log(&cluster, 2 << 20);
    let good: Vec<PathBuf> = files(&cluster, victim, "snapshots", "snap");
    assert!(good.len() <= 2 && !good.contains(&snapshots[1]), "{good:?}");
    // Nothing is left at all: the others have everything.
    cluster.stop(victim).unwrap();
    for file in [files(&cluster, victim, "snapshots", "snap"), files(&cluster, victim, "log", "seg")].concat() {
        fs::remove_file(file).unwrap();
    }
    assert_eq!(verify().code, 13, "{:?}", verify());
    cluster.start_node(victim).unwrap();
    cluster.wait_ready(PATIENCE).unwrap();
    cluster.wait_for("the log to be whole again", PATIENCE, |cluster| healed(cluster, victim)).unwrap();
    receive_and_check(&cluster, &ledger, "gallery");
    cluster.check_alive().unwrap();
}

#[test]
fn snapshots_that_only_cannot_be_opened_refuse_the_start_and_nothing_is_lost() {
    let mut cluster = cluster();
    register(&cluster, &["gallery"]);
    let mut ledger = Ledger::new();
    for image in 0..5 {
        send(&sender(&cluster), &mut ledger, &format!("early-{image}"), &["gallery"], 3000);
    }
    fill_log(&cluster, 3 << 20);
    cluster.stop_all().unwrap();
    let listing = |cluster: &Cluster, number| {
        let segments = files(cluster, number, "log", "seg");
        segments.into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect::<Vec<_>>()
    };
    for number in 1..=3 {
        // Like a permission that is missing, whoever runs this: a link that leads to itself.
        let snapshots = files(&cluster, number, "snapshots", "snap");
        assert_eq!(snapshots.len(), 2);
        for path in &snapshots {
            fs::rename(path, path.with_extension("aside")).unwrap();
            std::os::unix::fs::symlink(path, path).unwrap();
        }
        let (data, config) = (cluster.data_path(number), cluster.config_path(number));
        let before = listing(&cluster, number);
        helio("", &["log", "verify", data.to_str().unwrap()]).fails(14, "correct its permissions");
        helio("", &["node", "--config", config.to_str().unwrap()]).fails(5, "correct its permissions");
        assert!(listing(&cluster, number) == before, "the log changed");
        for path in &snapshots {
            fs::remove_file(path).unwrap();
            fs::rename(path.with_extension("aside"), path).unwrap();
        }
    }
    cluster.start_all().unwrap();
    cluster.wait_ready(PATIENCE).unwrap();
    receive_and_check(&cluster, &ledger, "gallery");
}

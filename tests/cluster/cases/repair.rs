//! `helio log repair` does to a stopped node's log what the node would, says it before, and touches nothing else.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use client::{Routing, Sender};
use cluster::Ledger;

use crate::setup::{PATIENCE, cluster, helio, receive_and_check, register, send};

/// Every file below a folder but LOCK, which says who looked at it last.
fn contents(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.is_dir() {
            true => all.extend(contents(&entry)),
            false if entry.ends_with("LOCK") => {}
            false => drop(all.insert(entry.clone(), fs::read(&entry).unwrap())),
        }
    }
    all
}

/// Remains of a round that was never finished: garbage behind the last entry.
fn tear(data: &Path) {
    let segments =
        contents(&data.join("log")).into_iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "seg"));
    let used = |bytes: &[u8]| bytes.iter().rposition(|&byte| byte != 0).unwrap_or(0);
    let (path, end) = segments.map(|(path, bytes)| (path, used(&bytes))).rfind(|&(_, end)| end > 512).unwrap();
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[0x5a; 40], (end as u64 + 1).next_multiple_of(8) + 8).unwrap();
}

#[test]
fn what_a_start_would_mend_is_said_and_then_done_without_it() {
    let mut cluster = cluster();
    register(&cluster, &["gallery"]);
    let mut ledger = Ledger::new();
    let sender = Sender::connect(cluster.options(Routing::Any, PATIENCE), "camera").unwrap();
    for image in 0..10 {
        send(&sender, &mut ledger, &format!("before-{image}"), &["gallery"], 2000);
    }
    let victim = 2;
    let path = cluster.data_path(victim);
    let data = path.to_str().unwrap().to_owned();
    helio("", &["log", "repair", &data]).fails(5, "in use");
    helio("", &["log", "repair", &data, "--yes"]).fails(5, "in use");
    cluster.stop(victim).unwrap();
    let ran = helio("", &["log", "repair", &data, "--yes"]).ok();
    assert!(ran.stdout.starts_with("nothing to repair\nclean"), "{ran:?}");

    // Torn: said with the code of `log verify`, and nothing changed; then done.
    tear(&path);
    fs::write(path.join("log/0000000000000099.new"), b"never finished").unwrap();
    let before = contents(&path);
    helio("", &["log", "verify", &data]).fails(11, "torn");
    let said = helio("", &["log", "repair", &data]).fails(11, "torn");
    assert!(said.stdout.contains("never finished") && said.stdout.contains("cuts the log"), "{said:?}");
    assert_eq!(contents(&path), before, "it was only said");
    let done = helio("", &["log", "repair", &data, "--yes"]).ok();
    assert!(done.stdout.starts_with("done:\n") && done.stdout.contains("\nclean"), "{done:?}");
    assert!(!path.join("log/0000000000000099.new").exists());
    helio("", &["log", "verify", &data]).ok();
    assert!(helio("", &["log", "repair", &data]).ok().stdout.starts_with("nothing to repair"));

    // One copy of the vote is damaged.
    let vote = OpenOptions::new().write(true).open(path.join("vote")).unwrap();
    vote.write_all_at(&[0xee; 16], 4096 + 100).unwrap();
    assert!(helio("", &["log", "repair", &data]).ok().stdout.contains("term and vote"));
    assert!(helio("", &["log", "verify", &data]).ok().stdout.contains("the next start writes term and vote again"));
    helio("", &["log", "repair", &data, "--yes"]).ok();
    let copies = fs::read(path.join("vote")).unwrap();
    assert_eq!(copies[..512], copies[4096..4608]);

    // The ring is gone: it is made, and the node knows that it has to heal.
    fs::remove_file(path.join("log/rounds")).unwrap();
    let code = helio("", &["log", "verify", &data]).code;
    assert!(matches!(code, 12 | 13), "{code}");
    let said = helio("", &["log", "repair", &data, "--json"]);
    let value: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((said.code, value["done"].as_bool()), (code, Some(false)), "{said:?}");
    assert!(!path.join("log/rounds").exists());
    helio("", &["log", "repair", &data, "--yes"]).ok();
    assert!(path.join("log/rounds").exists());
    let code = helio("", &["log", "verify", &data]).code;
    assert!(matches!(code, 12 | 13), "it still has to take from the others what it lost: {code}");
    cluster.start_node(victim).unwrap();
    cluster.wait_ready(PATIENCE).unwrap();
    receive_and_check(&cluster, &ledger, "gallery");

    // What the node would refuse is refused, and left as it is.
    cluster.stop(victim).unwrap();
    fs::write(path.join("vote"), vec![7; 8192]).unwrap();
    let before = contents(&path);
    helio("", &["log", "repair", &data, "--yes"]).fails(14, "--rejoin");
    assert_eq!(contents(&path), before);
    cluster.check_alive().unwrap();
}

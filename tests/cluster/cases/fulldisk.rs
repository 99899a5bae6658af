//! A full disk: the sender is told, what was accepted survives, and when space is freed all goes on.
//!
//! Needs a small filesystem of its own, hence a user and mount namespace with a tmpfs. Where that is not allowed the test
//! says so and is skipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use client::{Client, Routing, SendError, Sender};
use cluster::{Cluster, Ledger, Setup};
use proto::error::Refusal;

use crate::setup::{HELIO, PATIENCE, hand_over, receive_and_check, send, settle};

/// Set by the outer half for the inner one.
const FOLDER: &str = "HELIO_TEST_SMALL_FILESYSTEM";
/// Of the filesystem that three nodes share.
const FILESYSTEM: &str = "size=700m";
const IMAGE_BYTES: usize = 8 << 20;
/// More than fit.
const IMAGES_MAX: usize = 100;

#[test]
fn full_disk_is_said_and_accepted_images_survive_it() {
    match std::env::var_os(FOLDER) {
        Some(folder) => inside(Path::new(&folder)),
        None => outside(),
    }
}

/// Runs this very test again where the small filesystem is.
fn outside() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!("mount -t tmpfs -o {FILESYSTEM} heliograph \"$0\" && exec \"$@\"");
    let can_mount = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
        .arg(folder.path())
        .arg("true")
        .output();
    match can_mount {
        Ok(output) if output.status.success() => {}
        Ok(output) => return println!("skipped: {}", String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => return println!("skipped: unshare: {error}"),
    }
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", &script])
        .arg(folder.path())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "fulldisk::full_disk_is_said_and_accepted_images_survive_it", "--nocapture"])
        .env(FOLDER, folder.path())
        .status()
        .unwrap();
    assert!(status.success(), "inside the namespace: {status}");
}

fn inside(folder: &Path) {
    let mut setup = Setup::new(HELIO);
    setup.parent = Some(PathBuf::from(folder));
    let mut cluster = Cluster::start(setup).unwrap();
    let mut client = Client::new(cluster.options(Routing::Any, PATIENCE)).unwrap();
    client.register("gallery").unwrap();
    let sender = Sender::connect(cluster.options(Routing::Home, std::time::Duration::from_secs(10)), "camera").unwrap();
    let mut ledger = Ledger::new();
    let refusal = (0..IMAGES_MAX).find_map(|image| {
        let flying = hand_over(&sender, &mut ledger, &format!("image-{image}"), &["gallery"], IMAGE_BYTES);
        settle(flying, &mut ledger).err()
    });
    match refusal.expect("the disk is full at last") {
        SendError::Refused { refusal: Refusal::NoSpace, .. } => {}
        other => panic!("expected no space, got {other} ({other:?})"),
    }
    assert!(ledger.due("gallery") > 3, "only {} images fitted", ledger.due("gallery"));
    cluster.check_alive().unwrap();
    // By the command line it has its own exit code.
    let path = folder.join("cat.png");
    if fs::write(&path, vec![1u8; IMAGE_BYTES / 16]).is_ok() {
        let nodes = cluster.client_addresses().join(",");
        let arguments = ["send", path.to_str().unwrap(), "--to", "gallery", "--timeout", "10"];
        let ran = crate::setup::helio(&nodes, &arguments);
        assert!(ran.code == 9 || ran.code == 0, "{ran:?}");
        if ran.code == 0 {
            // A small one may still fit; then the ledger must know it.
            let bytes = std::sync::Arc::new(fs::read(&path).unwrap());
            let number = ledger.begin("cat.png", &["gallery".to_owned()], bytes);
            ledger.accepted(number);
        }
    }
    for number in cluster.numbers() {
        cluster.stop(number).unwrap();
        cluster.start_node(number).unwrap();
        cluster.wait_ready(PATIENCE).unwrap();
    }
    receive_and_check(&cluster, &ledger, "gallery");
    // Freed by the acknowledgements: a new image fits again.
    send(&sender, &mut ledger, "afterwards", &["gallery"], IMAGE_BYTES);
}

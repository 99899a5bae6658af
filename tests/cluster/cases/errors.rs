//! Each mistake is one line with the remedy and its own exit code, and the nodes live on.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use cluster::address::{free_ports, own_address};
use cluster::ledger::bytes_of;
use cluster::{Cluster, Setup};

use crate::setup::{HELIO, PATIENCE, cluster_with, helio, register, run};

#[test]
fn mistakes_of_a_sender_are_one_line_each() {
    let mut cluster = cluster_with(&["image_bytes_max = 1048576"]);
    register(&cluster, &["gallery"]);
    let nodes = cluster.client_addresses().join(",");
    let folder = cluster.folder().to_path_buf();
    let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    fs::write(path("good.png"), [7u8; 5000]).unwrap();
    fs::write(path("empty.png"), []).unwrap();
    fs::write(path("large.png"), vec![1u8; (1 << 20) + 1]).unwrap();
    let send = |file: &str, to: &str| helio(&nodes, &["send", &path(file), "--from", "camera", "--to", to]);
    send("good.png", "nobody").fails(3, "nobody");
    send("absent.png", "gallery").fails(10, "no such file");
    send("empty.png", "gallery").fails(10, "empty");
    send("large.png", "gallery").fails(3, "1048576");
    send("good.png", "not/a name").fails(2, "name");
    send("good.png", "gallery,archive,gallery").fails(2, "named twice");
    // A terabyte, and none of it is read.
    fs::File::create(path("huge.png")).unwrap().set_len(1 << 40).unwrap();
    send("huge.png", "gallery").fails(3, "takes up to 1048576");
    let wrong = "0123456789abcdef0123456789abcdef";
    helio(&nodes, &["send", &path("good.png"), "--to", "gallery", "--cluster", wrong]).fails(3, "cluster");
    helio(&nodes, &["inbox", "nobody", "--out", &path("out")]).fails(3, "nobody");
    let ports = free_ports(own_address(), 1).unwrap();
    let silent = format!("127.0.0.1:{}", ports[0]);
    helio(&silent, &["send", &path("good.png"), "--to", "gallery", "--timeout", "2"]).fails(4, "");
    let since = Instant::now();
    let status = helio(&silent, &["status", "--timeout", "30"]).fails(4, "no node answered");
    assert!(status.stdout.is_empty() && since.elapsed() < Duration::from_secs(15), "{status:?} {:?}", since.elapsed());
    // Several files: the good ones go, and the code says that not all did.
    let both = ["send", &path("empty.png"), &path("good.png"), "--to", "gallery"];
    let ran = helio(&nodes, &both);
    assert!(ran.code == 10 && ran.stdout.contains("good.png: accepted"), "{ran:?}");
    // What names a file says which, and what to do.
    let file = path("good.png");
    helio(&nodes, &["inbox", "gallery", "--out", &file]).fails(10, "good.png: is a file: name a directory");
    helio(&nodes, &["log", "stat", &path("nodir")]).fails(10, "nodir: does not exist: name");
    helio(&nodes, &["log", "stat", &path("empty.png")]).fails(10, "empty.png: is no segment of a log");
    helio(&nodes, &["demo", "--images", &path("nodir")]).fails(10, "nodir: is missing: name a folder");
    helio(&nodes, &["demo", "--images", &file]).fails(10, "good.png: is no folder");
    fs::create_dir_all(path("folder/within")).unwrap();
    helio(&nodes, &["demo", "--images", &path("folder")]).fails(10, "folder: has no files to send");
    cluster.check_alive().unwrap();
    send("good.png", "gallery").ok();
}

#[test]
fn without_a_majority_every_command_says_so_and_what_each_node_said() {
    let mut cluster = cluster_with(&[]);
    register(&cluster, &["gallery"]);
    let nodes = cluster.client_addresses().join(",");
    cluster.kill(2).unwrap();
    cluster.kill(3).unwrap();
    let out = cluster.folder().join("out").to_str().unwrap().to_owned();
    let inbox =
        helio(&nodes, &["inbox", "gallery", "--out", &out, "--timeout", "4"]).fails(4, "start the nodes that are");
    for address in cluster.client_addresses() {
        assert!(inbox.stderr.contains(&address), "{address} is not in {inbox:?}");
    }
    helio(&nodes, &["register", "archive", "--timeout", "3"]).fails(4, "no majority");
    let status = helio(&nodes, &["status"]).fails(4, "no majority");
    for part in
        ["leader none", "no majority: 1 of 3 voters; only n1 answers", "n2    ?     silent", "n3    ?     silent"]
    {
        assert!(status.stdout.contains(part), "expected {part:?}: {status:?}");
    }
    let told: serde_json::Value = serde_json::from_str(&helio(&nodes, &["status", "--json"]).stdout).unwrap();
    assert_eq!((&told["leader"], &told["majority"]), (&serde_json::Value::Null, &serde_json::Value::Bool(false)));
}

#[test]
fn a_starting_node_says_whom_it_waits_for() {
    let mut cluster = Cluster::prepare(Setup::new(HELIO)).unwrap();
    cluster.start_node(1).unwrap();
    let absent: Vec<String> = [2, 3].map(|number| format!("n{number} at {}", cluster.address(number).peer)).to_vec();
    let expected =
        format!("0 of 2 are reached, and the cluster forms when all are; not reached: {}", absent.join(", "));
    said(&mut cluster, 1, &expected);
    let nodes = cluster.client_addresses().join(",");
    let status = helio(&nodes, &["status"]).fails(4, "the cluster has not formed yet");
    assert!(cluster.client_addresses().iter().all(|address| status.stderr.contains(address)), "{status:?}");
    cluster.start_all().unwrap();
    cluster.wait_ready(PATIENCE).unwrap();
    cluster.stop_all().unwrap();
    cluster.start_node(2).unwrap();
    said(&mut cluster, 2, "waiting for a majority: no other voter is reached: n1 at ");
}

/// Waits until a node's log has a line with `part`.
fn said(cluster: &mut Cluster, number: u64, part: &str) {
    cluster
        .wait_for("the node says it", PATIENCE, |cluster| {
            let log = fs::read_to_string(cluster.log_path(number)).unwrap_or_default();
            if log.contains(part) { Ok(()) } else { Err(cluster::Problem(format!("{part:?} is not in {log}"))) }
        })
        .unwrap();
}

#[test]
fn damaged_files_are_named_with_a_remedy_that_works() {
    let mut cluster = cluster_with(&[]);
    register(&cluster, &["gallery"]);
    let nodes = cluster.client_addresses().join(",");
    let image = cluster.folder().join("cat.png");
    fs::write(&image, bytes_of(7, 3_000_000).as_slice()).unwrap();
    let sent = helio(&nodes, &["send", image.to_str().unwrap(), "--to", "gallery", "--json"]).ok();
    let sent: serde_json::Value = serde_json::from_str(&sent.stdout).unwrap();
    let number = sent["holders"][0].as_u64().unwrap();
    cluster.stop(number).unwrap();
    let data = cluster.data_path(number);
    let flip = |path: &Path| {
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 20).unwrap();
        file.write_all_at(&[byte[0] ^ 1], 20).unwrap();
    };
    let start = |cluster: &Cluster, path: &Path, remedy: &str| {
        let config = cluster.config_path(number);
        let ran = helio("", &["node", "--config", config.to_str().unwrap()]).fails(5, remedy);
        assert!(ran.stderr.contains(path.to_str().unwrap()), "{path:?} is not in {ran:?}");
    };

    let identity = data.join("identity");
    flip(&identity);
    start(&cluster, &identity, "restore this file");
    flip(&identity);

    // A whole header of another file: somebody put it there.
    let chunks = data.join("core-0").join("0000000000000001.chk");
    let stray = data.join("core-0").join("0000000000000007.chk");
    fs::rename(&chunks, &stray).unwrap();
    start(&cluster, &stray, "is chunk file 1 of core 0");
    let verify = || helio("", &["log", "verify", data.to_str().unwrap()]);
    verify().fails(14, "put it back to where it belongs");
    fs::rename(&stray, &chunks).unwrap();
    // A damaged one says nothing, and takes nothing with it.
    flip(&chunks);
    let repair = format!("{}: the header of the chunk file is damaged: it is written anew", chunks.display());
    assert!(verify().ok().stdout.contains(&format!("the next start repairs {repair}")), "{:?}", verify());
    cluster.start_node(number).unwrap();
    cluster.wait_ready(PATIENCE).unwrap();
    assert!(cluster.log_tail(number, 100).contains(&format!("repaired: {repair}")));
    assert!(!verify().stdout.contains("repair"), "{:?}", verify());
    let out = cluster.folder().join("out");
    helio(&nodes, &["inbox", "gallery", "--out", out.to_str().unwrap()]).ok();
    assert!(fs::read(out.join("000000000001-cat.png")).unwrap() == fs::read(&image).unwrap());

    // A slot of the chunk index that says nothing any more.
    cluster.stop(number).unwrap();
    let file = OpenOptions::new().write(true).open(&chunks).unwrap();
    file.write_all_at(&[1], logic::store::layout::TABLE_OFFSET).unwrap();
    let told = format!("{}: 1 slot of the chunk index damaged", chunks.display());
    assert!(verify().ok().stdout.contains(&told), "{:?}", verify());
    cluster.start_node(number).unwrap();
    cluster.wait_ready(PATIENCE).unwrap();
}

#[test]
fn a_node_that_cannot_start_says_why_in_one_line() {
    let mut cluster = cluster_with(&[]);
    let folder = cluster.folder().to_path_buf();
    let taken = cluster.address(1).clone();
    let ports = free_ports(own_address(), 2).unwrap();
    let (client, peer) = (format!("127.0.0.1:{}", ports[0]), format!("127.0.0.1:{}", ports[1]));
    let node = |data: &str, client: &str, peer: &str, more: &[&str]| {
        let mut command = std::process::Command::new(HELIO);
        command.args(["node", "--id", "1", "--cores", "1", "--segment-bytes", "1M", "--data"]).arg(folder.join(data));
        command.args(["--client", client, "--peer", peer]).args(more);
        run(command)
    };
    node("other", &taken.client, &peer, &[]).fails(6, "taken");
    node("other", &client, &taken.peer, &[]).fails(6, "taken");
    assert!(!folder.join("other").join("log").exists(), "nothing is made before the ports are bound");
    node("node1", &client, &peer, &[]).fails(5, "in use");
    // The same node started twice: its ports are taken too, but that is not what is wrong.
    let twice = node("node1", &taken.client, &taken.peer, &[]).fails(5, "in use");
    assert!(twice.stderr.contains(&format!("{}: ", taken.client)) || twice.stderr.contains("taken"), "{twice:?}");

    fs::create_dir(folder.join("letters")).unwrap();
    fs::write(folder.join("letters/letter.txt"), "dear").unwrap();
    node("letters", &client, &peer, &[]).fails(5, "letter.txt");
    assert_eq!(fs::read_to_string(folder.join("letters/letter.txt")).unwrap(), "dear");
    assert_eq!(fs::read_dir(folder.join("letters")).unwrap().count(), 1);

    node("other", &client, &peer, &["--copies", "5"]).fails(2, "copies");
    helio("", &["doctor", "--cores", "257"]).fails(2, "cores = 257: must be 0 to 256");
    let config = folder.join("node.toml");
    fs::write(&config, format!("node = 1\ndata = {:?}\ncolour = \"red\"\n", folder.join("other"))).unwrap();
    let config = config.to_str().unwrap();
    helio("", &["node", "--config", config]).fails(2, "colour");
    helio("", &["node", "--config", "absent.toml"]).fails(2, "absent.toml");

    cluster.check_alive().unwrap();
    // The data of another node is not taken either.
    let status = cluster.stop(1).unwrap();
    assert!(status.success(), "{status}");
    let mut command = std::process::Command::new(HELIO);
    command.args(["node", "--id", "2", "--cores", "1", "--data"]).arg(folder.join("node1"));
    command.args(["--client", &client, "--peer", &peer]);
    run(command).fails(5, "node 1");
}

#[test]
fn output_that_nobody_reads_is_no_failure() {
    let cluster = crate::setup::cluster();
    for arguments in [&["status"][..], &["status", "--json"], &["doctor"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = std::process::Command::new(HELIO);
        command.args(arguments).env("HELIO_NODES", cluster.client_addresses().join(",")).stdout(writer);
        let output = command.env_remove("RUST_LOG").output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(0) && stderr.is_empty(), "{arguments:?}: {:?} {stderr}", output.status);
    }
}

#[test]
fn a_data_directory_without_its_marker_is_told_from_one_that_is_not_ours() {
    let mut cluster = crate::setup::cluster();
    let data = cluster.data_path(1);
    assert!(cluster.stop(1).unwrap().success());
    fs::rename(data.join("HELIOGRAPH"), data.join("log/HELIOGRAPH")).unwrap();
    let path = data.to_str().unwrap();
    helio("", &["log", "verify", path]).fails(14, "the marker file is damaged or gone");
    cluster.start_node(1).unwrap();
    assert_eq!(cluster.process(1).wait(PATIENCE).unwrap().and_then(|status| status.code()), Some(5));
    fs::rename(data.join("log/HELIOGRAPH"), data.join("HELIOGRAPH")).unwrap();
}

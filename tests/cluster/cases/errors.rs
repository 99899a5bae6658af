//! Each mistake is one line with the remedy and its own exit code, and the nodes live on.

use std::fs;

use cluster::address::{free_ports, own_address};

use crate::setup::{HELIO, cluster_with, helio, register, run};

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
    let wrong = "0123456789abcdef0123456789abcdef";
    helio(&nodes, &["send", &path("good.png"), "--to", "gallery", "--cluster", wrong]).fails(3, "cluster");
    helio(&nodes, &["inbox", "nobody", "--out", &path("out")]).fails(3, "nobody");
    let ports = free_ports(own_address(), 1).unwrap();
    let silent = format!("127.0.0.1:{}", ports[0]);
    helio(&silent, &["send", &path("good.png"), "--to", "gallery", "--timeout", "2"]).fails(4, "");
    helio(&silent, &["status", "--timeout", "2"]).fails(4, "no node answered");
    // Several files: the good ones go, and the code says that not all did.
    let both = ["send", &path("empty.png"), &path("good.png"), "--to", "gallery"];
    let ran = helio(&nodes, &both);
    assert!(ran.code == 10 && ran.stdout.contains("good.png: accepted"), "{ran:?}");
    cluster.check_alive().unwrap();
    send("good.png", "gallery").ok();
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

    fs::create_dir(folder.join("letters")).unwrap();
    fs::write(folder.join("letters/letter.txt"), "dear").unwrap();
    node("letters", &client, &peer, &[]).fails(5, "letter.txt");
    assert_eq!(fs::read_to_string(folder.join("letters/letter.txt")).unwrap(), "dear");
    assert_eq!(fs::read_dir(folder.join("letters")).unwrap().count(), 1);

    node("other", &client, &peer, &["--copies", "5"]).fails(2, "copies");
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

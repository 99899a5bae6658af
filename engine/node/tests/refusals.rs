//! What keeps a node from starting, and what does not keep it from going on.

#![allow(clippy::unwrap_used)]

mod harness;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use client::{Client, Inbox, Options, Sender};
use harness::{Cluster, image, own_host};
use node::{ErrorKind, NodeConfig, NodeError, StopHandle, run};
use proto::client::{ClientRequest, Target};
use proto::codec::{Encoder, encode_client_request, encode_peer_hello};
use proto::ids::{Address, ClusterId, CoreId, Incarnation, NodeId, RequestId};
use proto::peer::{Lane, PeerHello};

const PATIENCE: Duration = Duration::from_secs(30);

fn config(dir: &tempfile::TempDir) -> NodeConfig {
    let host = own_host();
    NodeConfig {
        client: format!("{host}:0"),
        peer: format!("{host}:0"),
        cores: 1,
        segment_bytes: 1 << 20,
        ..NodeConfig::new(1, dir.path().join("data"))
    }
}

/// Runs a node that must refuse to start; its error is one line of that kind which contains `part`.
fn check(config: NodeConfig, kind: ErrorKind, part: &str) -> NodeError {
    let error = run(config, StopHandle::new()).unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    assert!(text.contains(part) && !text.contains('\n'), "{text}");
    error
}

/// Runs a node once, so that its directory is there.
fn run_once(config: &NodeConfig) {
    let stop = StopHandle::new();
    stop.stop();
    run(config.clone(), stop).unwrap();
}

#[test]
fn taken_port_is_told_before_anything_starts() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    check(NodeConfig { client: address.clone(), ..config(&dir) }, ErrorKind::Listen, "taken by another process");
    check(NodeConfig { peer: address, ..config(&dir) }, ErrorKind::Listen, "cannot listen for peers");
    check(
        NodeConfig { peer: "192.0.2.1:7500".into(), ..config(&dir) },
        ErrorKind::Listen,
        "not an address of this machine",
    );
    assert!(!dir.path().join("data").exists());
}

#[test]
fn directory_in_use_of_another_node_of_other_cores_or_not_ours_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let own = config(&dir);
    let stop = StopHandle::new();
    let running = {
        let (own, stop) = (own.clone(), stop.clone());
        std::thread::spawn(move || run(own, stop))
    };
    while !own.data.join("identity").exists() {
        std::thread::yield_now();
    }
    assert!(matches!(check(config(&dir), ErrorKind::Data, "in use by pid"), NodeError::DataInUse { .. }));
    stop.stop();
    running.join().unwrap().unwrap();
    check(NodeConfig { node: 2, ..own.clone() }, ErrorKind::Data, "belongs to node 1");
    check(NodeConfig { cores: 2, ..own.clone() }, ErrorKind::Data, "start the node with `cores = 1`");
    run_once(&own);

    let foreign = dir.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("thesis.tex"), "x").unwrap();
    check(NodeConfig { data: foreign.clone(), ..own }, ErrorKind::Data, "not a data directory");
    assert_eq!(fs::read_dir(&foreign).unwrap().count(), 1, "nothing was added to it");
}

#[test]
fn configuration_and_lost_identity_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let own = config(&dir);
    check(NodeConfig { copies: 3, ..own.clone() }, ErrorKind::Config, "copies = 3: must be 0 to 1");
    let stop = StopHandle::new();
    let running = {
        let (own, stop) = (own.clone(), stop.clone());
        std::thread::spawn(move || run(own, stop))
    };
    // The vote is written when the node campaigns, hence after it became a member of its cluster.
    while !own.data.join("vote").exists() {
        std::thread::yield_now();
    }
    stop.stop();
    running.join().unwrap().unwrap();
    fs::remove_file(own.data.join("identity")).unwrap();
    check(own, ErrorKind::Recovery, "no identity file");
}

#[test]
fn node_lives_on_after_garbage_and_every_truncation_of_valid_frames() {
    let cluster = Cluster::start(1, 2);
    let (client, peer) = (cluster.client_addresses().remove(0), cluster.peer_addresses().remove(0));
    let options = || Options { deadline: Some(PATIENCE), ..Options::new([client.clone()]) };
    Client::new(options()).unwrap().register("bob").unwrap();
    for address in [&client, &peer] {
        for seed in 0..4 {
            let mut stream = TcpStream::connect(address).unwrap();
            // The node closes after the first bytes; then writing fails, which is all right.
            let _ = stream.write_all(&image(seed, 5 << 19));
        }
    }
    let (hello, status) = (frames_of_client(), status_frame());
    for whole in [[&hello[..], &status].concat(), peer_hello()] {
        for end in 0..whole.len() {
            let address = if whole.starts_with(&hello) { &client } else { &peer };
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(&whole[..end]).unwrap();
        }
    }
    // A valid hello and then garbage: told so, and closed.
    let mut stream = TcpStream::connect(&client).unwrap();
    stream.write_all(&hello).unwrap();
    stream.write_all(&[0x5a; 4096]).unwrap();
    let mut answers = Vec::new();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.read_to_end(&mut answers).unwrap();
    assert!(contains(&answers, b"not a Heliograph frame"), "a failure says why before the end");

    let sender = Sender::connect(options(), "alice").unwrap();
    sender.send_bytes(image(1, 1 << 20), "x", &["bob".to_owned()]).unwrap();
    let mut inbox = Inbox::open(options(), "bob").unwrap();
    assert!(inbox.receive(PATIENCE).unwrap().unwrap().bytes == image(1, 1 << 20));
    cluster.stop();
}

#[test]
fn client_that_does_not_read_its_answers_is_closed_and_the_others_are_served() {
    let cluster = Cluster::start(1, 1);
    let client = cluster.client_addresses().remove(0);
    let options = || Options { deadline: Some(PATIENCE), ..Options::new([client.clone()]) };
    Client::new(options()).unwrap().register("bob").unwrap();
    let mut stream = TcpStream::connect(&client).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&frames_of_client()).unwrap();
    let questions = status_frame().repeat(1000);
    // 100 MB of questions: far more than sockets and queues take.
    let asked = (0..1000).take_while(|_| stream.write_all(&questions).is_ok()).count();
    assert!(asked < 1000, "still taken after {asked} thousand questions");
    assert!(Client::new(options()).unwrap().status().is_ok());
    cluster.stop();
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn frames_of_client() -> Vec<u8> {
    let hello = ClientRequest::Hello {
        version_min: 1,
        version_max: 1,
        cluster: ClusterId::UNKNOWN,
        target: Target::Any,
        credentials: Vec::new(),
    };
    let mut bytes = Vec::new();
    encode_client_request(&mut Encoder::new(), &hello, 0, &mut bytes);
    bytes
}

fn status_frame() -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_client_request(&mut Encoder::new(), &ClientRequest::Status { request: RequestId(1) }, 0, &mut bytes);
    bytes
}

fn peer_hello() -> Vec<u8> {
    let hello = PeerHello {
        version_min: 1,
        version_max: 1,
        cluster: ClusterId(5),
        source: Address { node: NodeId(9), core: CoreId(0) },
        incarnation: Incarnation(1),
        start: 1,
        target: Address { node: NodeId(1), core: CoreId(1) },
        lane: Lane::Control,
        credentials: Vec::new(),
    };
    let mut bytes = Vec::new();
    encode_peer_hello(&mut Encoder::new(), &hello, &mut bytes);
    bytes
}

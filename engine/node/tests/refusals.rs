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
use proto::codec::{Encoder, decode_peer_welcome, encode_client_request, encode_peer_hello, encode_peer_message};
use proto::error::Refusal;
use proto::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameLimits};
use proto::ids::{Address, ClusterId, CoreId, Incarnation, NodeId, RequestId};
use proto::peer::{Lane, LeaderRequest, PeerHello, PeerMessage, PeerWelcome};

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

/// A member of two clusters by mistake: its messages have the right form and the wrong meaning.
#[test]
fn peer_of_another_cluster_is_refused_with_what_it_says_and_one_of_this_cluster_is_served() {
    let mut cluster = Cluster::start(3, 1);
    cluster.wait_until("the cluster is there", |status| status.iter().all(|node| node.leader.0 != 0));
    // From now on this test speaks for node 3.
    cluster.stop_node(2);
    cluster.wait_until("another leads", |status| {
        let leader = status[0].leader;
        matches!(leader.0, 1 | 2) && status.iter().all(|node| node.leader == leader)
    });
    let status = cluster.status().remove(0);
    let at = cluster.peer_addresses().remove(status.leader.0 as usize - 1);
    let (ours, other) = (status.cluster, ClusterId(status.cluster.0 ^ 1));

    let (welcome, mut stream) = register_as_peer(&at, hello_of(3, other, status.leader), "mallory");
    let PeerWelcome::Refused { refusal: Refusal::WrongCluster, text } = welcome else { panic!("{welcome:?}") };
    assert!(text.contains(&format!("this is cluster {ours}, not {other}")), "{text}");
    assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0, "closed after the refusal");

    let (welcome, _stream) = register_as_peer(&at, hello_of(3, ours, status.leader), "bob");
    assert!(matches!(welcome, PeerWelcome::Welcome { cluster, .. } if cluster == ours), "{welcome:?}");
    cluster.wait_until("bob is registered", |status| status.iter().all(|node| node.clients == 1));
    let options = Options { deadline: Some(PATIENCE), ..Options::new([cluster.client_addresses().remove(0)]) };
    Client::new(options).unwrap().register("carol").unwrap();
    cluster.wait_until("carol is registered", |status| status.iter().all(|node| node.clients >= 2));
    assert!(cluster.status().iter().all(|node| node.clients == 2), "what the other cluster's node said counts");
    cluster.stop();
}

/// Says hello and at once that `name` is to be registered; gives the answer to the hello.
fn register_as_peer(at: &str, hello: PeerHello, name: &str) -> (PeerWelcome, TcpStream) {
    let mut bytes = hello_bytes(&hello);
    let body = LeaderRequest::Register { name: name.to_owned() };
    let message = PeerMessage::Request { origin: hello.source, request: RequestId(1), hops: 1, body };
    encode_peer_message(&mut Encoder::new(), hello.source, hello.target, &message, 0, &mut bytes);
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&bytes).unwrap();
    let mut header = [0; FRAME_HEADER_BYTES];
    stream.read_exact(&mut header).unwrap();
    let header = FrameHeader::parse(&header, FrameLimits::HANDSHAKE).unwrap();
    let mut meta = vec![0; header.meta_bytes()];
    stream.read_exact(&mut meta).unwrap();
    (decode_peer_welcome(&header, &meta).unwrap(), stream)
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
    let target = Address { node: NodeId(1), core: CoreId(1) };
    hello_bytes(&PeerHello { target, ..hello_of(9, ClusterId(5), NodeId(1)) })
}

/// From core 0 of a node to core 0 of another.
fn hello_of(node: u64, cluster: ClusterId, target: NodeId) -> PeerHello {
    PeerHello {
        version_min: 1,
        version_max: 1,
        cluster,
        source: Address { node: NodeId(node), core: CoreId(0) },
        incarnation: Incarnation(1),
        start: 1,
        target: Address { node: target, core: CoreId(0) },
        lane: Lane::Control,
        credentials: Vec::new(),
    }
}

fn hello_bytes(hello: &PeerHello) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_peer_hello(&mut Encoder::new(), hello, &mut bytes);
    bytes
}

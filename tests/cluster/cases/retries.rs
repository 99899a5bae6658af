//! The same image id said again, at whatever node and however late, never makes a second inbox entry (promise P2).

use std::time::{Duration, Instant};

use client::Options;
use client::shell::connection::Connection;
use cluster::Cluster;
use proto::checksum::{crc32, crc64};
use proto::client::{Begin, ChunkHead, ClientReply, ClientRequest, Target};
use proto::error::Refusal;
use proto::ids::{ClusterId, Fingerprint, ImageId, LogIndex, RequestId, Sequence, SessionId};

use crate::setup::{PATIENCE, cluster, register};

/// What a node says in the end to a `Begin` and its bytes.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Accepted(LogIndex),
    Refused(Refusal),
}

fn connect(cluster: &Cluster, number: u64) -> (Connection, ClusterId) {
    let address = &cluster.address(number).client;
    let start = Instant::now();
    loop {
        match Connection::open(address, Target::Any, ClusterId::UNKNOWN, Duration::from_secs(5)) {
            Ok((connection, welcome)) => return (connection, welcome.cluster),
            Err(failure) => assert!(start.elapsed() < PATIENCE, "node {number}: {failure:?}"),
        }
    }
}

fn next(connection: &mut Connection) -> ClientReply {
    let mut body = Vec::new();
    connection.receive(&mut body, Some(PATIENCE)).unwrap().expect("an answer in time")
}

fn open_session(connection: &mut Connection) -> SessionId {
    let request = RequestId(1);
    connection.send(&ClientRequest::OpenSession { request, sender: "camera".into() }, &[]).unwrap();
    connection.flush().unwrap();
    loop {
        match next(connection) {
            ClientReply::SessionOpened { session, .. } => return session,
            ClientReply::Failure { refusal, text, .. } => panic!("{refusal:?}: {text}"),
            _ => {}
        }
    }
}

/// Says `Begin` at node `number`, sends what is asked for, and gives the verdict.
fn attempt(cluster: &Cluster, number: u64, image: ImageId, receivers: &[&str], bytes: &[u8]) -> Verdict {
    let start = Instant::now();
    loop {
        let (mut connection, id) = connect(cluster, number);
        let verdict = attempt_on(&mut connection, id, image, receivers, bytes);
        match verdict {
            Verdict::Refused(refusal) if refusal.is_transient() && start.elapsed() < PATIENCE => {}
            verdict => return verdict,
        }
    }
}

fn attempt_on(connection: &mut Connection, id: ClusterId, image: ImageId, receivers: &[&str], bytes: &[u8]) -> Verdict {
    let fingerprint = Fingerprint { length: bytes.len() as u64, checksum: crc64(bytes) };
    let begin = Begin {
        cluster: id,
        image,
        low_water: Sequence(1),
        receivers: receivers.iter().map(|name| (*name).to_owned()).collect(),
        fingerprint,
        name: "retried.png".into(),
    };
    connection.send(&ClientRequest::Begin(begin), &[]).unwrap();
    connection.flush().unwrap();
    loop {
        match next(connection) {
            ClientReply::BeginAnswer { resume_from, .. } if resume_from < bytes.len() as u64 => {
                let head = ChunkHead { image, offset: resume_from, crc32: crc32(&bytes[resume_from as usize..]) };
                connection.send(&ClientRequest::Chunk(head), &bytes[resume_from as usize..]).unwrap();
                connection.flush().unwrap();
            }
            ClientReply::Accepted { index, .. } => return Verdict::Accepted(index),
            ClientReply::Refused { refusal, .. } => return Verdict::Refused(refusal),
            ClientReply::Failure { refusal, .. } => return Verdict::Refused(refusal),
            _ => {}
        }
    }
}

fn inbox(cluster: &Cluster, receiver: &str, count: usize) -> Vec<cluster::Received> {
    let options: Options = cluster.options(client::Routing::Any, PATIENCE);
    cluster::receive(options, receiver, count, PATIENCE).unwrap()
}

#[test]
fn the_same_image_id_said_again_is_answered_but_not_delivered_twice() {
    let mut cluster = cluster();
    register(&cluster, &["gallery", "archive"]);
    let bytes = cluster::ledger::bytes_of(1, 100_000);
    let receivers = ["gallery", "archive"];
    let (mut connection, _) = connect(&cluster, 1);
    let image = ImageId { session: open_session(&mut connection), sequence: Sequence(1) };
    let first = attempt(&cluster, 1, image, &receivers, &bytes);
    assert!(matches!(first, Verdict::Accepted(_)), "{first:?}");
    for number in cluster.numbers() {
        assert_eq!(attempt(&cluster, number, image, &receivers, &bytes), first, "at node {number}");
    }

    // Other bytes under the same id are refused, whatever their length.
    let other = cluster::ledger::bytes_of(2, 100_000);
    assert_eq!(attempt(&cluster, 2, image, &receivers, &other), Verdict::Refused(Refusal::DifferentBytes));
    assert_eq!(attempt(&cluster, 3, image, &receivers, &bytes[..10]), Verdict::Refused(Refusal::DifferentBytes));

    // After a change of leader, and of every process.
    let leader = cluster.wait_leader(PATIENCE).unwrap().0;
    cluster.kill(leader).unwrap();
    let survivor = cluster.running()[0];
    assert_eq!(attempt(&cluster, survivor, image, &receivers, &bytes), first, "after the leader died");
    cluster.start_node(leader).unwrap();
    cluster.wait_ready(PATIENCE).unwrap();
    cluster.stop_all().unwrap();
    cluster.start_all().unwrap();
    cluster.wait_ready(PATIENCE).unwrap();
    assert_eq!(attempt(&cluster, leader, image, &receivers, &bytes), first, "after all restarted");

    for receiver in receivers {
        let received = inbox(&cluster, receiver, 1);
        assert!(received[0].bytes == *bytes, "{receiver}");
    }
    // After it was received and acknowledged: answered as accepted, or refused as finished, never delivered again.
    for number in cluster.numbers() {
        let late = attempt(&cluster, number, image, &receivers, &bytes);
        assert!(late == first || late == Verdict::Refused(Refusal::AlreadyFinished), "{late:?}");
    }
    for receiver in receivers {
        assert!(inbox(&cluster, receiver, 0).is_empty(), "{receiver} got it again");
    }
}

#[test]
fn a_session_that_never_was_cannot_be_judged_and_is_refused() {
    let cluster = cluster();
    register(&cluster, &["gallery"]);
    let image = ImageId { session: SessionId(1 << 40), sequence: Sequence(1) };
    let verdict = attempt(&cluster, 2, image, &["gallery"], b"bytes");
    assert_eq!(verdict, Verdict::Refused(Refusal::SessionUnknown));
    assert!(inbox(&cluster, "gallery", 0).is_empty());
}

//! The blocking shells against a scripted cluster on loopback.

#![allow(clippy::unwrap_used, missing_docs)]

mod fake;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use client::session::SessionFailure;
use client::{
    Client, ClientError, DirectoryStore, ImageSource, Inbox, MemorySource, Options, ProbeLoad, ProbePlan, Routing,
    SendError, Sender,
};
use proto::client::Target;
use proto::error::Refusal;
use proto::ids::{ClusterId, InboxSeq, NodeId};
use proto::limits::CHUNK_BYTES_MAX;

use fake::{CLUSTER, Fake};

const SOON: Duration = Duration::from_secs(20);
const MIB: usize = CHUNK_BYTES_MAX;

fn options(fake: &Fake) -> Options {
    Options { deadline: Some(SOON), ..Options::new(fake.addresses.clone()) }
}

fn to(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn image(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

#[test]
fn image_goes_from_a_file_to_a_file() {
    let fake = Fake::start(3);
    let directory = tempfile::tempdir().unwrap();
    let (source, target) = (directory.path().join("Bäume.jpg"), directory.path().join("in"));
    let bytes = image(3 * MIB + 12_345, 1);
    std::fs::write(&source, &bytes).unwrap();

    let mut client = Client::new(options(&fake)).unwrap();
    let inbox_id = client.register("gallery").unwrap();
    assert_eq!(client.register("gallery").unwrap(), inbox_id);
    let sender = Sender::connect(options(&fake), "camera").unwrap();
    let mut seen = Vec::new();
    let receipt = sender.send_file(&source, &to(&["gallery"]), |done, all| seen.push((done, all))).unwrap();
    assert_eq!(receipt.fingerprint.length, bytes.len() as u64);
    assert_eq!(receipt.holders.len(), 2);
    assert_eq!(seen.last(), Some(&(bytes.len() as u64, bytes.len() as u64)));

    let mut store = DirectoryStore::open(&target).unwrap();
    let mut inbox = Inbox::open_with(options(&fake), "gallery", &mut store).unwrap();
    assert_eq!((inbox.inbox(), inbox.cluster()), (inbox_id, CLUSTER));
    let file = inbox.receive_file(&mut store, SOON).unwrap().unwrap();
    assert_eq!(file.path, target.join("000000000001-Bäume.jpg"));
    assert_eq!((file.head.sender.as_str(), file.head.image), ("camera", receipt.image));
    assert_eq!(std::fs::read(&file.path).unwrap(), bytes);
    assert!(inbox.flush(SOON).unwrap());
    assert_eq!(fake.acked("gallery"), 1);
    assert_eq!(inbox.receive_file(&mut store, Duration::from_millis(20)).unwrap(), None);
}

#[test]
fn connection_cut_in_the_middle_of_chunks_loses_and_doubles_nothing() {
    let fake = Fake::start(3);
    fake.register("gallery");
    fake.faults(|faults| {
        faults.cut_uploads = [0, 2 * MIB as u64 + 7, 1, 5 * MIB as u64 - 1, 100].into();
        faults.cut_deliveries = [0, 3, 1, 9].into();
    });
    let sender = Sender::connect(Options { routing: Routing::Any, ..options(&fake) }, "camera").unwrap();
    let images: Vec<Vec<u8>> = (1..=6).map(|i| image(2 * MIB + i * 1000, i as u64)).collect();
    for bytes in &images {
        sender.send_bytes(bytes.clone(), "x.png", &to(&["gallery"])).unwrap();
    }
    let mut inbox = Inbox::open(options(&fake), "gallery").unwrap();
    for (bytes, seq) in images.iter().zip(1..) {
        let delivery = inbox.receive(SOON).unwrap().unwrap();
        assert_eq!(delivery.head.seq, InboxSeq(seq));
        assert!(delivery.bytes == *bytes, "image {seq}");
        inbox.acknowledge(delivery.head.seq).unwrap();
    }
    assert!(inbox.flush(SOON).unwrap());
    assert_eq!((fake.acked("gallery"), fake.images("gallery").len()), (6, 6));
    let again = fake.begins().len();
    assert!(again >= 6 + 3, "the cuts made it begin again: {again}");
}

#[test]
fn many_images_are_in_flight_on_one_session() {
    let fake = Fake::start(1);
    fake.register("a");
    fake.register("b");
    let sender = Sender::connect(options(&fake), "camera").unwrap();
    let pending: Vec<_> = (0..200u64)
        .map(|i| {
            let source = Arc::new(MemorySource(Arc::new(image(5_000 + i as usize, i))));
            sender.submit(source, &format!("{i}"), &to(&["a", "b"])).unwrap()
        })
        .collect();
    fake.cut_all();
    for one in pending {
        one.wait().unwrap();
    }
    let lengths: Vec<usize> = fake.images("b").iter().map(|bytes| bytes.len()).collect();
    let mut sorted = lengths.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (5_000..5_200).collect::<Vec<_>>(), "each once");
    assert_eq!(fake.images("a").len(), 200);
    let low = fake.begins().iter().all(|begin| begin.low_water <= begin.image.sequence);
    assert!(low && fake.begins().iter().any(|begin| begin.low_water.0 > 1));
}

#[test]
fn unanswered_image_is_asked_after_and_not_sent_twice() {
    let fake = Fake::start(1);
    fake.register("gallery");
    fake.faults(|faults| faults.silent_accepts = 1);
    let sender = Sender::connect(options(&fake), "camera").unwrap();
    sender.send_bytes(image(MIB, 1), "x", &to(&["gallery"])).unwrap();
    assert_eq!(fake.images("gallery").len(), 1);
    assert_eq!(fake.body_bytes(), MIB as u64);
    assert_eq!(fake.begins().len(), 2);
}

#[test]
fn passing_refusals_are_waited_out() {
    let fake = Fake::start(3);
    fake.register("gallery");
    fake.faults(|faults| {
        faults.refusals =
            [Refusal::Busy, Refusal::NoLeader, Refusal::NoLeader, Refusal::NoLeader, Refusal::NotReady].into();
    });
    let sender = Sender::connect(Options { routing: Routing::Any, ..options(&fake) }, "camera").unwrap();
    sender.send_bytes(image(10, 1), "x", &to(&["gallery"])).unwrap();
    let ids: Vec<_> = fake.begins().iter().map(|begin| begin.image).collect();
    assert_eq!(ids.len(), 6);
    assert!(ids.iter().all(|id| *id == ids[0]), "one id for ever: {ids:?}");
    assert!(fake.hellos().len() > 1, "it tried another node");
}

#[test]
fn refusals_for_good_are_typed_and_one_line() {
    let fake = Fake::start(1);
    fake.register("gallery");
    let sender = Sender::connect(options(&fake), "camera").unwrap();
    fn refused<T: std::fmt::Debug>(result: Result<T, SendError>, expected: Refusal) {
        match result.unwrap_err() {
            SendError::Refused { refusal, .. } => assert_eq!(refusal, expected),
            other => panic!("{other}"),
        }
    }
    refused(sender.send_bytes(image(10, 1), "x", &to(&["nobody"])), Refusal::UnknownReceiver);
    refused(sender.send_bytes(Vec::new(), "x", &to(&["gallery"])), Refusal::ImageEmpty);
    refused(sender.send_bytes(vec![0; (64 << 20) + 1], "x", &to(&["gallery"])), Refusal::ImageTooLarge);
    // What is too large is not even read.
    let unreadable = Arc::new(Unreadable { length: sender.image_bytes_max() + 1 });
    refused(sender.submit(unreadable, "x", &to(&["gallery"])), Refusal::ImageTooLarge);
    refused(sender.send_bytes(image(10, 1), "a/b", &to(&["gallery"])), Refusal::NameInvalid);
    let error = sender.send_file("/nonexistent/x.jpg".as_ref(), &to(&["gallery"]), |_, _| {}).unwrap_err();
    assert!(matches!(error, SendError::Source { .. }), "{error}");
    sender.send_bytes(image(10, 1), "x", &to(&["gallery"])).unwrap();
    fake.forget_sessions();
    let error = sender.send_bytes(image(10, 2), "x", &to(&["gallery"])).unwrap_err();
    assert!(matches!(error, SendError::Client(ClientError::Session(SessionFailure::SessionUnknown { .. }))), "{error}");
    assert!(sender.send_bytes(image(10, 2), "x", &to(&["gallery"])).is_err(), "it stays ended");
    assert_eq!(fake.images("gallery").len(), 1);
}

struct Unreadable {
    length: u64,
}

impl ImageSource for Unreadable {
    fn length(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, _buffer: &mut [u8]) -> std::io::Result<()> {
        panic!("read at {offset}")
    }
}

/// Gives other bytes at the second reading.
struct Changing {
    reads: AtomicU64,
}

impl ImageSource for Changing {
    fn length(&self) -> u64 {
        3 * MIB as u64
    }

    fn read_at(&self, _offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let changed = self.reads.fetch_add(1, Ordering::Relaxed) >= 4;
        buffer.fill(u8::from(changed));
        Ok(())
    }
}

#[test]
fn source_that_changes_is_an_error_and_the_session_lives_on() {
    let fake = Fake::start(1);
    fake.register("gallery");
    let sender = Sender::connect(options(&fake), "camera").unwrap();
    let pending = sender.submit(Arc::new(Changing { reads: AtomicU64::new(0) }), "x", &to(&["gallery"])).unwrap();
    let error = pending.wait().unwrap_err();
    assert!(matches!(error, SendError::SourceChanged { .. }), "{error}");
    sender.send_bytes(image(10, 1), "x", &to(&["gallery"])).unwrap();
    assert_eq!(fake.images("gallery").len(), 1);
}

#[test]
fn wrong_cluster_is_said_by_every_shell() {
    let fake = Fake::start(1);
    let wrong = Options { cluster: ClusterId(1), ..options(&fake) };
    let is_wrong = |error: ClientError| {
        assert!(matches!(error, ClientError::Session(SessionFailure::WrongCluster { .. })), "{error}")
    };
    is_wrong(Sender::connect(wrong.clone(), "camera").unwrap_err());
    is_wrong(Inbox::open(wrong.clone(), "gallery").unwrap_err());
    is_wrong(Client::new(wrong.clone()).unwrap().status().unwrap_err());
    is_wrong(ProbeLoad::connect(&wrong, Target::Any).unwrap_err());
}

#[test]
fn nobody_there_is_said_within_the_deadline() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let options = Options { deadline: Some(Duration::from_millis(300)), ..Options::new([address.clone()]) };
    let since = Instant::now();
    for error in [
        Sender::connect(options.clone(), "camera").map(|_| ()).unwrap_err(),
        Inbox::open(options.clone(), "gallery").map(|_| ()).unwrap_err(),
        Client::new(options.clone()).unwrap().status().map(|_| ()).unwrap_err(),
    ] {
        assert!(
            matches!(&error, ClientError::TimedOut { troubles, .. } if troubles.last().is_some_and(|last| last.address == address)),
            "{error}"
        );
    }
    assert!(since.elapsed() < SOON);
    assert!(matches!(Sender::connect(Options::new([""; 0]), "camera").unwrap_err(), ClientError::NoNodes));
}

#[test]
fn nodes_that_are_not_ready_are_passed_over() {
    let fake = Fake::start(3);
    fake.faults(|faults| faults.not_ready = vec![1, 2]);
    assert_eq!(Client::new(options(&fake)).unwrap().status().unwrap().node, NodeId(3));
}

#[test]
fn wrong_bytes_are_fetched_again_and_never_given_out() {
    let fake = Fake::start(1);
    let bytes = image(2 * MIB + 5, 3);
    fake.deliver("gallery", "x", bytes.clone());
    fake.faults(|faults| faults.corrupt_chunks = 2);
    let mut inbox = Inbox::open(options(&fake), "gallery").unwrap();
    let delivery = inbox.receive(SOON).unwrap().unwrap();
    assert!(delivery.bytes == bytes);
    assert!(fake.hellos().len() >= 2);
    assert_eq!(fake.acked("gallery"), 0, "not acknowledged before the user says so");
}

#[test]
fn restarted_receiver_takes_nothing_twice() {
    let fake = Fake::start(1);
    let directory = tempfile::tempdir().unwrap();
    for seq in 1..=3 {
        fake.deliver("gallery", "x.jpg", image(seq * 1000, seq as u64));
    }
    fake.faults(|faults| faults.lost_acks = u32::MAX);
    {
        let mut store = DirectoryStore::open(directory.path()).unwrap();
        let mut inbox = Inbox::open_with(options(&fake), "gallery", &mut store).unwrap();
        for _ in 0..2 {
            inbox.receive_file(&mut store, SOON).unwrap().unwrap();
        }
        assert!(!inbox.flush(Duration::from_millis(20)).unwrap());
    }
    assert_eq!(fake.acked("gallery"), 0);
    fake.faults(|faults| faults.lost_acks = 0);
    let mut store = DirectoryStore::open(directory.path()).unwrap();
    let mut inbox = Inbox::open_with(options(&fake), "gallery", &mut store).unwrap();
    let file = inbox.receive_file(&mut store, SOON).unwrap().unwrap();
    assert_eq!(file.head.seq, InboxSeq(3));
    assert!(inbox.flush(SOON).unwrap());
    assert_eq!(fake.acked("gallery"), 3);
    // Another inbox may not use the directory.
    drop((inbox, store));
    fake.register("other");
    let mut store = DirectoryStore::open(directory.path()).unwrap();
    let error = Inbox::open_with(options(&fake), "other", &mut store).unwrap_err();
    assert!(matches!(error, ClientError::DirectoryOfOtherInbox { .. }), "{error}");
}

#[test]
fn flush_puts_deliveries_aside_and_keeps_their_order() {
    let fake = Fake::start(1);
    fake.deliver("gallery", "1", image(10, 1));
    let mut inbox = Inbox::open(options(&fake), "gallery").unwrap();
    let first = inbox.receive(SOON).unwrap().unwrap();
    for seq in 2..=20 {
        fake.deliver("gallery", "x", image(seq * 100_000, seq as u64));
    }
    inbox.acknowledge(first.head.seq).unwrap();
    assert!(inbox.flush(SOON).unwrap());
    for seq in 2..=20u64 {
        let delivery = inbox.receive(SOON).unwrap().unwrap();
        assert_eq!((delivery.head.seq.0, delivery.bytes.len() as u64), (seq, seq * 100_000));
        inbox.acknowledge(delivery.head.seq).unwrap();
    }
    assert!(inbox.flush(SOON).unwrap());
    assert_eq!(fake.acked("gallery"), 20);
}

#[test]
fn receiver_follows_its_home_and_a_newer_one_takes_over() {
    let fake = Fake::start(3);
    fake.deliver("gallery", "1", image(10, 1));
    let mut inbox = Inbox::open(options(&fake), "gallery").unwrap();
    let first = inbox.receive(SOON).unwrap().unwrap();
    inbox.acknowledge(first.head.seq).unwrap();
    let home = fake.ring(1, &[]).home("gallery").unwrap().node.0;
    fake.change_ring(2, &[home]);
    fake.deliver("gallery", "2", image(20, 2));
    assert_eq!(inbox.receive(SOON).unwrap().unwrap().bytes.len(), 20);
    let next = fake.ring(2, &[home]).home("gallery").unwrap().node.0;
    assert_eq!(fake.hellos().last(), Some(&next));

    let mut newer = Inbox::open(options(&fake), "gallery").unwrap();
    let error = inbox.receive(SOON).unwrap_err();
    assert!(matches!(error, ClientError::Session(SessionFailure::Superseded { .. })), "{error}");
    assert_eq!(newer.receive(SOON).unwrap().unwrap().bytes.len(), 20);
}

#[test]
fn receiver_learns_that_there_is_nothing_more() {
    let fake = Fake::start(3);
    fake.register("gallery");
    let mut inbox = Inbox::open(options(&fake), "gallery").unwrap();
    assert!(inbox.is_caught_up(SOON).unwrap());
    fake.deliver("gallery", "a.jpg", image(MIB + 5, 3));
    let delivery = inbox.receive(SOON).unwrap().unwrap();
    assert_eq!(inbox.received_bytes(), (MIB + 5) as u64);
    // What is not acknowledged may still be lost: the end is not reached.
    assert!(!inbox.is_caught_up(Duration::from_millis(50)).unwrap());
    inbox.acknowledge(delivery.head.seq).unwrap();
    assert!(inbox.is_caught_up(SOON).unwrap());
    fake.deliver("gallery", "b.jpg", image(10, 4));
    assert_eq!(inbox.receive(SOON).unwrap().unwrap().head.name, "b.jpg");
}

#[test]
fn status_is_asked_once_and_fails_at_once() {
    let fake = Fake::start(2);
    fake.faults(|faults| faults.not_ready = vec![2]);
    assert_eq!(client::status_of(&fake.addresses[0], CLUSTER, SOON).unwrap().node, NodeId(1));
    let error = client::status_of(&fake.addresses[1], CLUSTER, SOON).unwrap_err();
    assert!(matches!(error, ClientError::Refused { refusal: Refusal::NotReady, .. }), "{error}");
    let since = Instant::now();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let error = client::status_of(&nobody, CLUSTER, SOON).unwrap_err();
    assert!(matches!(&error, ClientError::Connection { address, .. } if *address == nobody), "{error}");
    assert!(since.elapsed() < SOON / 2, "{:?}", since.elapsed());
}

#[test]
fn unknown_receiver_is_an_error_of_its_own() {
    let fake = Fake::start(1);
    let error = Inbox::open(options(&fake), "nobody").unwrap_err();
    assert!(matches!(error, ClientError::Session(SessionFailure::UnknownReceiver { .. })), "{error}");
    assert!(matches!(Inbox::open(options(&fake), "a b").unwrap_err(), ClientError::NameInvalid { .. }));
}

#[test]
fn failing_sink_leaves_the_image_for_the_next_call() {
    struct Full(u32, Vec<u8>);
    impl client::ImageSink for Full {
        fn begin(&mut self, _head: &proto::client::ImageHead) -> Result<(), ClientError> {
            self.1.clear();
            Ok(())
        }
        fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
            self.1.extend_from_slice(bytes);
            Ok(())
        }
        fn finish(&mut self) -> Result<(), ClientError> {
            if self.0 > 0 {
                self.0 -= 1;
                let error = std::io::ErrorKind::StorageFull.into();
                return Err(ClientError::File { path: "x".into(), error });
            }
            Ok(())
        }
        fn abort(&mut self) {
            self.1.clear();
        }
        fn damaged(&mut self, _head: &proto::client::ImageHead) -> Result<(), ClientError> {
            Ok(())
        }
    }
    let fake = Fake::start(1);
    let bytes = image(2 * MIB, 1);
    fake.deliver("gallery", "x", bytes.clone());
    let mut inbox = Inbox::open(options(&fake), "gallery").unwrap();
    let mut sink = Full(1, Vec::new());
    assert!(matches!(inbox.receive_into(&mut sink, SOON).unwrap_err(), ClientError::File { .. }));
    assert_eq!(fake.acked("gallery"), 0);
    let head = inbox.receive_into(&mut sink, SOON).unwrap().unwrap();
    assert!(sink.1 == bytes && head.seq == InboxSeq(1));
    assert!(inbox.flush(SOON).unwrap());
}

#[test]
fn dropped_sender_tells_those_who_wait() {
    let fake = Fake::start(1);
    fake.register("gallery");
    fake.faults(|faults| faults.refusals = vec![Refusal::Busy; 1000].into());
    let sender = Sender::connect(options(&fake), "camera").unwrap();
    let source = Arc::new(MemorySource(Arc::new(image(10, 1))));
    let pending = sender.submit(source, "x", &to(&["gallery"])).unwrap();
    assert!(pending.poll().is_none());
    drop(sender);
    assert!(matches!(pending.wait().unwrap_err(), SendError::Client(ClientError::Closed)));
}

#[test]
fn deadline_ends_a_send_with_the_last_reason() {
    let fake = Fake::start(1);
    fake.register("gallery");
    fake.faults(|faults| faults.refusals = vec![Refusal::NoLeader; 1000].into());
    let options = Options { deadline: Some(Duration::from_millis(400)), ..options(&fake) };
    let sender = Sender::connect(options, "camera").unwrap();
    let error = sender.send_bytes(image(10, 1), "x", &to(&["gallery"])).unwrap_err();
    let SendError::Unconfirmed { begun: true, troubles, .. } = &error else { panic!("{error}") };
    assert_eq!(troubles.cause(), Some(Refusal::NoLeader));
    assert!(error.to_string().contains("no majority") && !error.to_string().contains('\n'), "{error}");
}

#[test]
fn probe_load_keeps_its_number_in_flight_and_measures_each() {
    let fake = Fake::start(1);
    fake.faults(|faults| faults.busy_probes = 3);
    let mut load = ProbeLoad::connect(&options(&fake), Target::Any).unwrap();
    assert_eq!(load.welcome().node, NodeId(1));
    let plan = ProbePlan { in_flight: 64, payload_bytes: 150, duration: SOON, count_max: Some(5_000) };
    let mut samples = Vec::new();
    let report = load.run(&plan, |sample| samples.push(sample)).unwrap();
    assert_eq!((report.committed, report.refused, samples.len()), (4_997, 3, 4_997));
    assert!(samples.iter().all(|sample| sample.latency <= sample.at && sample.at <= report.elapsed));
    let mut indexes: Vec<_> = samples.iter().map(|sample| sample.index).collect();
    indexes.sort_unstable();
    indexes.dedup();
    assert_eq!(indexes.len(), samples.len());
    // A load that ends by time, on the same connection.
    let plan = ProbePlan { in_flight: 4, payload_bytes: 0, duration: Duration::from_millis(50), count_max: None };
    let report = load.run(&plan, |_| {}).unwrap();
    assert!(report.committed > 0 && report.elapsed >= Duration::from_millis(50));
}

#[test]
fn client_asks_again_after_its_connection_was_cut() {
    let fake = Fake::start(2);
    let mut client = Client::new(options(&fake)).unwrap();
    client.status().unwrap();
    for _ in 0..5 {
        fake.cut_all();
        client.probe(b"x").unwrap();
    }
}

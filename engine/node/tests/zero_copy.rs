//! The bytes of a chunk stay where they were received: the same address is written to disk and given to every socket.
//!
//! One test, in a process of its own, since it listens to everything that the nodes trace.

#![allow(clippy::unwrap_used)]

mod harness;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{Client, Inbox, Options, Sender};
use harness::{Cluster, image};

const PATIENCE: Duration = Duration::from_secs(30);
const CHUNKS: usize = 3;

/// Collects what is traced.
#[derive(Clone, Default)]
struct Collected(Arc<Mutex<Vec<u8>>>);

impl Write for Collected {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Collected {
    /// The steps of each buffer, told apart by thread and number, with the address at each step.
    fn walks(&self) -> BTreeMap<(String, String), Vec<(String, String)>> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let mut walks: BTreeMap<(String, String), Vec<(String, String)>> = BTreeMap::new();
        for line in text.lines().filter(|line| line.contains("node::walk")) {
            let field = |name: &str| {
                let mut words = line.split_whitespace();
                let found = words.find_map(|word| word.strip_prefix(name));
                found.unwrap_or_else(|| panic!("no {name} in {line}")).trim_matches('"')
            };
            let thread = line.split_whitespace().find(|word| word.starts_with("node-")).unwrap();
            let buffer = (thread.to_owned(), field("buf=").to_owned());
            walks.entry(buffer).or_default().push((field("step=").to_owned(), field("address=").to_owned()));
        }
        walks
    }
}

#[test]
fn chunk_is_stored_and_sent_from_the_address_it_was_received_at() {
    let collected = Collected::default();
    let writer = collected.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_thread_names(true)
        .with_writer(move || writer.clone())
        .init();
    let cluster = Cluster::start(3, 1);
    let options = || Options { deadline: Some(PATIENCE), ..Options::new(cluster.client_addresses()) };
    Client::new(options()).unwrap().register("bob").unwrap();
    let sender = Sender::connect(options(), "alice").unwrap();
    let bytes = image(3, CHUNKS << 20);
    let receipt = sender.send_bytes(bytes.clone(), "x", &["bob".to_owned()]).unwrap();
    let mut inbox = Inbox::open(options(), "bob").unwrap();
    assert!(inbox.receive(PATIENCE).unwrap().unwrap().bytes == bytes);
    drop((inbox, sender));
    let holders = receipt.holders.len();
    cluster.stop();

    let walks = collected.walks();
    let (mut stored, mut passed_on) = (0, 0);
    for (buffer, steps) in &walks {
        let (first, address) = &steps[0];
        assert_eq!(first, "held", "{buffer:?}");
        assert!(steps.iter().all(|(_, other)| other == address), "moved: {buffer:?} {steps:?}");
        stored += steps.iter().filter(|(step, _)| step == "stored").count();
        let is_passed_on =
            steps.iter().any(|(step, _)| step == "stored") && steps.iter().any(|(step, _)| step == "sent");
        passed_on += usize::from(is_passed_on);
    }
    assert_eq!(stored, CHUNKS * holders, "each holder writes each chunk once: {walks:#?}");
    assert!(passed_on >= CHUNKS, "at the home the same buffer goes to the disk and to the next holder: {walks:#?}");
}

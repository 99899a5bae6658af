//! Whatever bytes come to a port, the node lives on and serves.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use client::Sender;
use cluster::{Cluster, Ledger};
use proto::codec::Encoder;
use proto::samples::Message;

use crate::setup::{PATIENCE, cluster, receive_and_check, register, send};

/// Bytes of one connection's garbage.
const GARBAGE_BYTES: usize = 1 << 20;

/// Writes until done or until the node ends the connection, as it may at any moment.
fn throw(address: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    if stream.write_all(bytes).is_ok() {
        let _ = stream.shutdown(Shutdown::Write);
    }
}

/// As `throw`, and waits until the node has ended the connection too.
fn throw_and_wait(address: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    if stream.write_all(bytes).is_ok() && stream.shutdown(Shutdown::Write).is_ok() {
        let mut answer = [0u8; 4096];
        loop {
            match stream.read(&mut answer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                    panic!("{address} keeps a connection that sent {} bytes and ended", bytes.len())
                }
                Err(_) => break,
            }
        }
    }
}

fn serves_still(cluster: &mut Cluster, ledger: &mut Ledger, name: &str) {
    cluster.check_alive().unwrap();
    for number in cluster.numbers() {
        let sender = Sender::connect(cluster.options_of(number, PATIENCE), "camera").unwrap();
        send(&sender, ledger, &format!("{name}-{number}"), &["gallery"], 50_000);
    }
}

#[test]
fn ten_megabytes_of_random_bytes_to_both_ports_hurt_nobody() {
    let mut cluster = cluster();
    register(&cluster, &["gallery"]);
    let mut ledger = Ledger::new();
    for number in cluster.numbers() {
        let addresses = cluster.address(number).clone();
        for piece in 0..10u64 {
            let bytes = cluster::ledger::bytes_of(number * 100 + piece, GARBAGE_BYTES);
            throw(&addresses.client, &bytes);
            throw(&addresses.peer, &bytes);
        }
    }
    serves_still(&mut cluster, &mut ledger, "after");
    receive_and_check(&cluster, &ledger, "gallery");
}

#[test]
fn every_truncation_of_valid_frames_to_both_ports_hurts_nobody() {
    let mut cluster = cluster();
    register(&cluster, &["gallery"]);
    let mut ledger = Ledger::new();
    let mut encoder = Encoder::new();
    let frames: Vec<Vec<u8>> = Message::samples().iter().map(|message| message.encode(&mut encoder)).collect();
    assert!(frames.len() > 20, "{} frames", frames.len());
    let hello_client = frames[0].clone();
    for number in cluster.numbers() {
        let addresses = cluster.address(number).clone();
        // Every length of a few frames a node, all kinds over all nodes; and each whole frame where it does not belong.
        for frame in frames.iter().skip(number as usize - 1).step_by(3) {
            for length in 1..=frame.len() {
                throw(&addresses.client, &frame[..length]);
                throw(&addresses.peer, &frame[..length]);
            }
            for length in (1..=frame.len()).step_by(7) {
                let bytes = [hello_client.as_slice(), &frame[..length]].concat();
                throw(&addresses.client, &bytes);
            }
            throw_and_wait(&addresses.client, frame);
            throw_and_wait(&addresses.peer, frame);
        }
        cluster.check_alive().unwrap();
    }
    serves_still(&mut cluster, &mut ledger, "after");
    receive_and_check(&cluster, &ledger, "gallery");
}

//! Nodes as threads of the test, on ports of their own and in a directory that goes with them.

#![allow(clippy::unwrap_used, dead_code, reason = "each test file uses a part of it")]

use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use client::{Client, Options, Routing};
use node::{Listeners, MemberConfig, NodeConfig, NodeError, StopHandle, run_with};
use proto::client::NodeStatus;

/// A running node.
struct Running {
    stop: StopHandle,
    thread: JoinHandle<Result<(), NodeError>>,
}

/// A cluster of nodes in this process.
pub struct Cluster {
    configs: Vec<NodeConfig>,
    nodes: Vec<Option<Running>>,
    _dir: tempfile::TempDir,
}

impl Cluster {
    /// Starts `count` nodes with `cores` cores each. They form a cluster by themselves.
    pub fn start(count: u64, cores: u16) -> Cluster {
        // `RUST_LOG=debug` shows what the nodes say; the first test of the process sets it for all.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let dir = tempfile::tempdir().unwrap();
        let host = own_host();
        let mut configs: Vec<NodeConfig> = (1..=count)
            .map(|node| NodeConfig {
                client: format!("{host}:0"),
                peer: format!("{host}:0"),
                cores,
                segment_bytes: 1 << 20,
                cache_bytes: 8 << 20,
                reserve_bytes: 8 << 20,
                ..NodeConfig::new(node, dir.path().join(format!("node-{node}")))
            })
            .collect();
        let listeners: Vec<Listeners> = configs.iter().map(|config| Listeners::bind(config).unwrap()).collect();
        let members: Vec<MemberConfig> = (1..)
            .zip(&listeners)
            .map(|(node, bound)| MemberConfig {
                node,
                client: bound.client_address().to_string(),
                peer: bound.peer_address().to_string(),
            })
            .collect();
        for (config, member) in configs.iter_mut().zip(&members) {
            // From now on the same ports, also after a restart.
            (config.client, config.peer) = (member.client.clone(), member.peer.clone());
            config.members = members.clone();
        }
        let nodes = configs.iter().zip(listeners).map(|(config, bound)| Some(start_node(config, bound))).collect();
        Cluster { configs, nodes, _dir: dir }
    }

    /// Where clients reach the nodes.
    pub fn client_addresses(&self) -> Vec<String> {
        self.configs.iter().map(|config| config.client.clone()).collect()
    }

    /// Where peers reach the nodes.
    pub fn peer_addresses(&self) -> Vec<String> {
        self.configs.iter().map(|config| config.peer.clone()).collect()
    }

    /// The configuration of a node, counted from 0.
    pub fn config(&self, position: usize) -> &NodeConfig {
        &self.configs[position]
    }

    /// Stops one node, counted from 0.
    pub fn stop_node(&mut self, position: usize) {
        let Running { stop, thread } = self.nodes[position].take().unwrap();
        let since = Instant::now();
        stop.stop();
        thread.join().unwrap().unwrap();
        assert!(since.elapsed() < Duration::from_secs(5), "stopping took {:?}", since.elapsed());
    }

    /// Starts a stopped node again.
    pub fn start_node(&mut self, position: usize) {
        let config = &self.configs[position];
        self.nodes[position] = Some(start_node(config, Listeners::bind(config).unwrap()));
    }

    /// Stops all nodes, then starts them again.
    pub fn restart(&mut self) {
        let count = self.nodes.len();
        (0..count).for_each(|position| self.stop_node(position));
        (0..count).for_each(|position| self.start_node(position));
    }

    /// What each running node says of itself.
    pub fn status(&self) -> Vec<NodeStatus> {
        let running = self.nodes.iter().zip(&self.configs).filter(|(node, _)| node.is_some());
        running.map(|(_, config)| status_of(&config.client)).collect()
    }

    /// Waits until the status of the running nodes is as wished.
    pub fn wait_until(&self, what: &str, mut wished: impl FnMut(&[NodeStatus]) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let status = self.status();
            if wished(&status) {
                return;
            }
            assert!(Instant::now() < deadline, "not in time: {what}; {status:#?}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops what still runs and checks that it ends well.
    pub fn stop(mut self) {
        for position in 0..self.nodes.len() {
            if self.nodes[position].is_some() {
                self.stop_node(position);
            }
        }
    }
}

impl Drop for Cluster {
    /// After a failed assertion: nothing may live on.
    fn drop(&mut self) {
        for node in self.nodes.iter().flatten() {
            node.stop.stop();
        }
        for node in self.nodes.iter_mut().filter_map(Option::take) {
            let ended = node.thread.join();
            if std::thread::panicking() {
                eprintln!("a node ended: {ended:?}");
            }
        }
    }
}

fn start_node(config: &NodeConfig, listeners: Listeners) -> Running {
    let (stop, config) = (StopHandle::new(), config.clone());
    let given = stop.clone();
    let thread = std::thread::spawn(move || run_with(config, listeners, given));
    Running { stop, thread }
}

fn status_of(address: &str) -> NodeStatus {
    let options =
        Options { routing: Routing::Fixed, deadline: Some(Duration::from_secs(20)), ..Options::new([address]) };
    Client::new(options).unwrap().status().unwrap()
}

/// A loopback address of this cluster alone. While a node is down nobody else can take its port there: connections that
/// others open come from 127.0.0.1.
pub fn own_host() -> String {
    static CLUSTERS: AtomicU8 = AtomicU8::new(2);
    let process = std::process::id().to_le_bytes();
    format!("127.{}.{}.{}", 1 + process[1] % 254, process[0], CLUSTERS.fetch_add(1, Ordering::Relaxed))
}

/// Bytes that look like an image: no two seeds alike, no part like another.
pub fn image(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

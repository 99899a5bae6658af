//! Starts a node, keeps it running, and ends it whole.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use disk::descriptors::{self, Connections};
use disk::log_device::FlushMethod;
use disk::machine::{self, Severity};
use disk::{DataDir, DataDirView};
use executor::JoinHandle;
use link::{Bound, ListenError, mesh};

use logic::shard::{InitialMember, ShardConfig};
use proto::ids::{Address, CoreId, NodeId};

use crate::clock::Clock;
use crate::config::{FlushChoice, NodeConfig, resolve};
use crate::ending::Ending;
use crate::error::NodeError;
use crate::limits::{BIND_PATIENCE, BIND_PAUSE, PEER_CONNECTIONS_MAX, STOP_SECONDS_MAX, WATCH_INTERVAL};
use crate::rejoin;
use crate::start::{CoreListeners, CoreStart, run_core};
use crate::stop::StopHandle;

/// The two listening sockets of a node, bound but not yet accepting.
pub struct Listeners {
    client: Bound,
    peer: Bound,
}

impl Listeners {
    /// Binds both addresses of `config`, exclusively: a second process cannot take the same port. Port 0 takes a free one.
    /// Waits a moment for a port that is taken, since a process that was just killed may not have let go of it yet.
    pub fn bind(config: &NodeConfig) -> Result<Listeners, NodeError> {
        Ok(Listeners { client: bind("clients", &config.client)?, peer: bind("peers", &config.peer)? })
    }

    /// Where clients reach the node.
    pub fn client_address(&self) -> SocketAddr {
        self.client.address()
    }

    /// Where peers reach the node.
    pub fn peer_address(&self) -> SocketAddr {
        self.peer.address()
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (client, peer) = (self.client_address(), self.peer_address());
        f.debug_struct("Listeners").field("client", &client).field("peer", &peer).finish()
    }
}

fn bind(role: &'static str, address: &str) -> Result<Bound, NodeError> {
    let unresolved =
        |error: String| NodeError::Listen { role, text: format!("{address}: {error}; correct the host name") };
    let found = resolve(address).map_err(|error| unresolved(error.to_string()))?;
    let socket = found.first().copied().ok_or_else(|| unresolved("no address of that name".to_owned()))?;
    let deadline = Instant::now() + BIND_PATIENCE;
    loop {
        match Bound::bind(socket) {
            Err(ListenError::PortTaken { .. }) if Instant::now() < deadline => thread::sleep(BIND_PAUSE),
            bound => return bound.map_err(|error| NodeError::Listen { role, text: error.to_string() }),
        }
    }
}

/// Runs a node until `stop` is stopped (`Ok`) or it cannot go on. Blocks the calling thread.
///
/// Checks configuration, machine and data directory and binds both ports before anything starts, so that these errors
/// come at once. On return every thread of the node has ended, and its ports and its data directory are free.
pub fn run(config: NodeConfig, stop: StopHandle) -> Result<(), NodeError> {
    config.check()?;
    let listeners = Listeners::bind(&config)?;
    run_with(config, listeners, stop)
}

/// As `run`, with listeners that the caller bound.
pub fn run_with(config: NodeConfig, listeners: Listeners, stop: StopHandle) -> Result<(), NodeError> {
    config.check()?;
    let cores = config.cores_or_default();
    for address in config.open_addresses() {
        tracing::warn!(address, "other machines can reach this address, and nobody is asked who they are");
    }
    if let Err(error) = descriptors::raise() {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
    check_machine(&config, cores)?;
    let dir = Arc::new(match config.rejoin {
        true => rejoin::open(&config, cores)?,
        false => DataDir::open(&config.data, config.node_id(), cores, true).map_err(NodeError::of_dir)?,
    });
    tracing::info!(node = config.node, data = %config.data.display(), cores, "starting");
    let ending = Ending::new(stop);
    let handles = start_cores(&config, cores, &dir, listeners, &ending)?;
    let ended = watch(handles, &ending);
    tracing::info!(node = config.node, "stopped");
    ending.take_failure().map_or(ended, Err)
}

fn check_machine(config: &NodeConfig, cores: u16) -> Result<(), NodeError> {
    let bytes = bytes_needed(&config.data, config.segment_bytes);
    for finding in machine::check(&config.data, cores, bytes, config.connections_max) {
        match finding.severity {
            Severity::Refusal => return Err(NodeError::Machine { text: finding.text }),
            Severity::Warning => tracing::warn!("{finding}"),
        }
    }
    Ok(())
}

/// As many as were asked for, and as the descriptors allow.
fn connections(config: &NodeConfig, dir: &DataDir) -> Result<Connections, NodeError> {
    let limit = descriptors::limit()
        .map_err(|error| NodeError::Machine { text: format!("the limit of open files cannot be read: {error}") })?;
    let (cores, chunk_files) = (dir.view().cores(), machine::chunk_file_count(dir.view()));
    let fitting = descriptors::connections(limit, cores, chunk_files, config.connections_max);
    Ok(Connections { peers: fitting.peers.min(PEER_CONNECTIONS_MAX), ..fitting })
}

/// A new node needs its first segments of the log; one that was there before must start even if the disk is full, since
/// only then can it free anything.
fn bytes_needed(data: &Path, segment_bytes: u32) -> u64 {
    match DataDirView::open(data) {
        Ok(_) => 0,
        Err(_) => 2 * u64::from(segment_bytes),
    }
}

/// A core's thread.
struct CoreThread {
    core: u16,
    handle: JoinHandle<()>,
}

/// Starts all cores or none.
fn start_cores(
    config: &NodeConfig,
    cores: u16,
    dir: &Arc<DataDir>,
    listeners: Listeners,
    ending: &Ending,
) -> Result<Vec<CoreThread>, NodeError> {
    let own_peer_address = listeners.peer_address().to_string();
    let (clock, start) = (Clock::start(), draw()?[0]);
    let connections = connections(config, dir)?;
    let (ready_sender, ready) = mpsc::channel();
    let mut listeners = Some(CoreListeners {
        client: listeners.client,
        peer: listeners.peer,
        clients_max: usize::try_from(connections.clients).unwrap_or(usize::MAX),
        peers_max: usize::try_from(connections.peers).unwrap_or(usize::MAX),
    });
    let (mut threads, mut goes) = (Vec::new(), Vec::new());
    for (seat, core) in mesh(cores).into_iter().zip(0..) {
        let (go_sender, go) = mpsc::channel();
        let core_start = CoreStart {
            config: shard_config(config, core, cores)?,
            dir: dir.clone(),
            flush: flush_method(config.flush),
            clock,
            ending: ending.clone(),
            seat,
            start,
            own_peer_address: own_peer_address.clone(),
            listeners: listeners.take(),
            ready: ready_sender.clone(),
            go,
        };
        let name = format!("node-{}-core-{core}", config.node);
        match executor::spawn(&name, move || run_core(core_start)) {
            Ok(handle) => threads.push(CoreThread { core, handle }),
            Err(error) => {
                drop(goes);
                end_early(threads);
                return Err(NodeError::Machine { text: error.to_string() });
            }
        }
        goes.push(go_sender);
    }
    drop(ready_sender);
    for _ in 0..cores {
        // A core that says nothing has panicked.
        let silent =
            || NodeError::Fatal { core: 0, text: "a core ended while it recovered: see the log above".to_owned() };
        if let Err(error) = ready.recv().unwrap_or_else(|_| Err(silent())) {
            drop(goes);
            end_early(threads);
            return Err(error);
        }
    }
    for go in goes {
        // A core that is gone is noticed by `watch`.
        let _ = go.send(());
    }
    Ok(threads)
}

/// Waits for cores that were not told to go on; they end by themselves.
fn end_early(threads: Vec<CoreThread>) {
    for thread in threads {
        // The error that is told already came first.
        let _ = thread.handle.join();
    }
}

/// Waits until the node is to end or one of its cores has, then ends the others.
fn watch(threads: Vec<CoreThread>, ending: &Ending) -> Result<(), NodeError> {
    while !ending.is_due() && !threads.iter().any(|thread| thread.handle.is_finished()) {
        thread::sleep(WATCH_INTERVAL);
    }
    ending.end();
    let deadline = Instant::now() + Duration::from_secs(STOP_SECONDS_MAX);
    for CoreThread { core, handle } in threads {
        while !handle.is_finished() {
            if Instant::now() >= deadline {
                return Err(NodeError::Stuck { core, seconds: STOP_SECONDS_MAX });
            }
            thread::sleep(WATCH_INTERVAL);
        }
        if handle.join().is_err() {
            let text = "it panicked: see the log above. Start the node again; nothing accepted is lost".to_owned();
            ending.fail(NodeError::Fatal { core, text });
        }
    }
    Ok(())
}

fn shard_config(config: &NodeConfig, core: u16, cores: u16) -> Result<ShardConfig, NodeError> {
    let members = config.members_or_self().into_iter().map(|member| InitialMember {
        node: NodeId(member.node),
        client_address: member.client,
        peer_address: member.peer,
    });
    Ok(ShardConfig {
        address: Address { node: config.node_id(), core: CoreId(core) },
        cores,
        entropy: draw()?,
        members: members.collect(),
        copies: config.copies,
        image_bytes_max: config.image_bytes_max,
        segment_bytes: config.segment_bytes,
        cache_bytes: config.cache_bytes,
        reserve_bytes: config.reserve_bytes,
        upload_idle_us: config.upload_idle_seconds * 1_000_000,
        session_idle_ms: config.session_idle_seconds * 1_000,
        scrub_pass_us: config.scrub_seconds * 1_000_000,
        rejoin: config.rejoin,
    })
}

/// Four numbers of the system's entropy.
fn draw() -> Result<[u64; 4], NodeError> {
    let mut drawn = [0; 4];
    for number in &mut drawn {
        *number = getrandom::u64()
            .map_err(|error| NodeError::Machine { text: format!("the system gives no entropy: {error}") })?;
    }
    Ok(drawn)
}

fn flush_method(choice: FlushChoice) -> FlushMethod {
    match choice {
        FlushChoice::Auto => FlushMethod::default(),
        FlushChoice::Direct => FlushMethod::Direct,
        FlushChoice::Mmap => FlushMethod::Mmap,
    }
}

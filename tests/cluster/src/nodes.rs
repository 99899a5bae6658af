//! The nodes of one cluster: started, asked, killed and started again by their number (1, 2, 3 ...).

use std::fs;
use std::io;
use std::net::{IpAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use client::{Client, Options, Routing};
use proto::client::{NodeStatus, RoleKind};
use proto::ids::NodeId;
use tempfile::TempDir;

use crate::address::{free_ports, own_address};
use crate::process::Process;
use crate::{Problem, problem};

/// How long a node may take to answer a question about itself.
const STATUS_PATIENCE: Duration = Duration::from_millis(1_500);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(15);
/// How long a whole cluster may take until it is ready. Bootstrap zeroes segments first; a loaded machine is slow.
pub const READY_PATIENCE: Duration = Duration::from_secs(40);
/// How long a node may take to stop cleanly.
pub const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// How long the ports of a process that is gone may stay taken.
const PORTS_PATIENCE: Duration = Duration::from_secs(5);
/// Lines of each node's log shown when a test fails.
const LOG_TAIL_LINES: usize = 40;

/// What cluster to make.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The executable whose subcommand `node` runs a node.
    pub program: PathBuf,
    /// How many nodes.
    pub nodes: u64,
    /// Further lines of every node's configuration file.
    pub settings: Vec<String>,
    /// What the nodes log.
    pub log: String,
    /// Where the folder of the cluster is made; the system's folder for temporary files by default.
    pub parent: Option<PathBuf>,
    /// Where each node runs, by node number less one. Empty: all here, at a loopback address of the cluster's own, with
    /// their data in the folder of the cluster.
    pub places: Vec<Place>,
    /// Once set, every wait ends with an error.
    pub interrupt: Arc<AtomicBool>,
}

/// Where a node runs that does not run in the network and on the filesystem of its starter.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// Comes before the command of the node, and must become it (exec): `nsenter --net=...`. Empty: nothing.
    pub prefix: Vec<String>,
    /// Where it listens, if not at an address of this network.
    pub ip: Option<IpAddr>,
    /// Its data directory, if not in the folder of the cluster.
    pub data: Option<PathBuf>,
}

impl Setup {
    /// Three nodes of one core each with small segments, so that roll-over is part of the run.
    pub fn new(program: impl Into<PathBuf>) -> Setup {
        let settings = ["cores = 1", "segment_bytes = 1048576", "cache_bytes = 8388608", "reserve_bytes = 67108864"];
        Setup {
            program: program.into(),
            nodes: 3,
            settings: settings.map(str::to_owned).to_vec(),
            log: "info".to_owned(),
            parent: None,
            places: Vec::new(),
            interrupt: Arc::default(),
        }
    }
}

/// Where a node is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// By clients.
    pub client: String,
    /// By peers.
    pub peer: String,
}

/// The processes and their folder. Dropping it kills all that still run and removes the folder.
#[derive(Debug)]
pub struct Cluster {
    setup: Setup,
    addresses: Vec<Addresses>,
    // By node number less one; none: not running.
    processes: Vec<Option<Process>>,
    // Last, so that the processes are gone before their files.
    folder: Option<TempDir>,
    path: PathBuf,
}

impl Cluster {
    /// Chooses addresses, makes the folder and the configuration files; starts nothing.
    pub fn prepare(setup: Setup) -> Result<Cluster, Problem> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("heliograph-");
        let folder = match &setup.parent {
            Some(parent) => builder.tempdir_in(parent),
            None => builder.tempdir(),
        }
        .map_err(problem("cannot make a folder for the nodes"))?;
        let count = usize::try_from(setup.nodes).expect("a handful");
        let ip = own_address();
        let ports = free_ports(ip, 2 * count).map_err(problem(format!("cannot bind to {ip}")))?;
        let places = setup.places.iter().map(|place| place.ip.unwrap_or(ip)).chain(std::iter::repeat(ip));
        let addresses = ports
            .chunks(2)
            .zip(places)
            .map(|(pair, ip)| Addresses { client: format!("{ip}:{}", pair[0]), peer: format!("{ip}:{}", pair[1]) })
            .collect();
        let processes = (0..count).map(|_| None).collect();
        let path = folder.path().to_path_buf();
        let cluster = Cluster { setup, addresses, processes, folder: Some(folder), path };
        cluster.numbers().into_iter().try_for_each(|number| cluster.write_config(number))?;
        Ok(cluster)
    }

    /// Starts all nodes and waits until they have a leader and know each other as up.
    pub fn start(setup: Setup) -> Result<Cluster, Problem> {
        let mut cluster = Cluster::prepare(setup)?;
        cluster.start_all()?;
        cluster.wait_ready(READY_PATIENCE)?;
        Ok(cluster)
    }

    /// Starts every node that is not running.
    pub fn start_all(&mut self) -> Result<(), Problem> {
        self.numbers()
            .into_iter()
            .try_for_each(|number| if self.is_running(number) { Ok(()) } else { self.start_node(number) })
    }

    /// Starts a node that is not running; does not wait for it.
    pub fn start_node(&mut self, number: u64) -> Result<(), Problem> {
        self.start_node_with(number, &[])
    }

    /// As `start_node`, with further arguments.
    pub fn start_node_with(&mut self, number: u64, arguments: &[&str]) -> Result<(), Problem> {
        assert!(!self.is_running(number), "node {number} is running");
        let mut command = self.command(number);
        command.args(arguments);
        let process = Process::start(&mut command, &self.log_path(number))
            .map_err(problem(format!("cannot start node {number}")))?;
        self.processes[slot(number)] = Some(process);
        Ok(())
    }

    /// The command that starts node `number`; it reads the configuration that `prepare` wrote.
    pub fn command(&self, number: u64) -> Command {
        let prefix = self.place(number).map_or(&[][..], |place| &place.prefix[..]);
        let mut command = match prefix {
            [] => Command::new(&self.setup.program),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&self.setup.program);
                command
            }
        };
        command.env_remove("RUST_LOG").env_remove("HELIO_NODES");
        command
            .args(["node", "--exit-with-parent", "--log", &self.setup.log, "--config"])
            .arg(self.config_path(number));
        command
    }

    /// A node's configuration file.
    pub fn config_path(&self, number: u64) -> PathBuf {
        self.folder().join(format!("node{number}.toml"))
    }

    fn write_config(&self, number: u64) -> Result<(), Problem> {
        let own = self.address(number);
        let mut text = format!(
            "node = {number}\ndata = {:?}\nclient = {:?}\npeer = {:?}\n",
            self.data_path(number),
            own.client,
            own.peer
        );
        for line in &self.setup.settings {
            text.push_str(line);
            text.push('\n');
        }
        for (at, member) in self.addresses.iter().enumerate() {
            text.push_str(&format!(
                "[[members]]\nnode = {}\nclient = {:?}\npeer = {:?}\n",
                at + 1,
                member.client,
                member.peer
            ));
        }
        fs::write(self.config_path(number), text)
            .map_err(problem(format!("cannot write the configuration of node {number}")))
    }

    /// Node numbers, from 1.
    pub fn numbers(&self) -> Vec<u64> {
        (1..=self.setup.nodes).collect()
    }

    /// Numbers of the nodes whose process was started and not ended by us.
    pub fn running(&self) -> Vec<u64> {
        self.numbers().into_iter().filter(|&number| self.is_running(number)).collect()
    }

    /// Whether the node's process was started and not ended by us.
    pub fn is_running(&self, number: u64) -> bool {
        self.processes[slot(number)].is_some()
    }

    /// Whether every node was started and not ended.
    pub fn is_whole(&self) -> bool {
        self.processes.iter().all(Option::is_some)
    }

    /// Whether more than half of the nodes were started and not ended.
    pub fn has_majority(&self) -> bool {
        self.running().len() as u64 * 2 > self.setup.nodes
    }

    /// The process of a running node.
    pub fn process(&mut self, number: u64) -> &mut Process {
        self.processes[slot(number)].as_mut().unwrap_or_else(|| panic!("node {number} is not running"))
    }

    /// Where a node is reached.
    pub fn address(&self, number: u64) -> &Addresses {
        &self.addresses[slot(number)]
    }

    /// The client addresses of all nodes.
    pub fn client_addresses(&self) -> Vec<String> {
        self.addresses.iter().map(|member| member.client.clone()).collect()
    }

    /// Of the whole cluster.
    pub fn folder(&self) -> &Path {
        &self.path
    }

    /// A node's data directory.
    pub fn data_path(&self, number: u64) -> PathBuf {
        let elsewhere = self.place(number).and_then(|place| place.data.clone());
        elsewhere.unwrap_or_else(|| self.folder().join(format!("node{number}")))
    }

    fn place(&self, number: u64) -> Option<&Place> {
        self.setup.places.get(slot(number))
    }

    /// What a node printed.
    pub fn log_path(&self, number: u64) -> PathBuf {
        self.folder().join(format!("node{number}.log"))
    }

    /// Leaves the folder where it is, and says where.
    pub fn keep_folder(&mut self) -> PathBuf {
        if let Some(folder) = self.folder.take() {
            return folder.keep();
        }
        self.path.clone()
    }

    /// Client options that know all nodes.
    pub fn options(&self, routing: Routing, deadline: Duration) -> Options {
        let mut options = Options::new(self.client_addresses());
        options.routing = routing;
        options.deadline = Some(deadline);
        options
    }

    /// Client options that know only one node.
    pub fn options_of(&self, number: u64, deadline: Duration) -> Options {
        let mut options = Options::new([self.address(number).client.clone()]);
        options.routing = Routing::Fixed;
        options.deadline = Some(deadline);
        options
    }

    /// SIGKILL; on return the process is gone and its ports are free.
    pub fn kill(&mut self, number: u64) -> Result<(), Problem> {
        let process = self.take(number);
        process.kill().map_err(problem(format!("cannot kill node {number}")))?;
        self.wait_ports_free(number)
    }

    /// SIGKILL to several at once; on return the processes are gone and their ports are free.
    pub fn kill_together(&mut self, numbers: &[u64]) -> Result<(), Problem> {
        for &number in numbers {
            self.process(number).strike().map_err(problem(format!("cannot kill node {number}")))?;
        }
        numbers.iter().try_for_each(|&number| self.kill(number))
    }

    /// The kernel ends a killed process's io_uring, and with it the listening sockets that had an accept under way, some
    /// milliseconds after the process itself.
    fn wait_ports_free(&self, number: u64) -> Result<(), Problem> {
        let start = Instant::now();
        let Addresses { client, peer } = self.address(number);
        // In another network they cannot be bound from here, but nobody may answer there.
        let is_elsewhere = self.place(number).is_some_and(|place| place.ip.is_some());
        let look = |address: &str| if is_elsewhere { refuses(address) } else { TcpListener::bind(address).map(drop) };
        loop {
            match look(client).and_then(|()| look(peer)) {
                Ok(()) => return Ok(()),
                Err(error) if start.elapsed() > PORTS_PATIENCE => {
                    return Err(Problem(format!("ports of node {number} after its end: {error}")));
                }
                Err(_) => thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Notes that a node ended by itself; gives how. `None`: it runs.
    pub fn take_ended(&mut self, number: u64) -> Result<Option<ExitStatus>, Problem> {
        let ended = self.process(number).ended().map_err(problem(format!("node {number}")))?;
        if ended.is_some() {
            self.processes[slot(number)] = None;
            self.wait_ports_free(number)?;
        }
        Ok(ended)
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self, number: u64) -> Result<ExitStatus, Problem> {
        self.process(number).terminate().map_err(problem(format!("cannot stop node {number}")))?;
        self.wait_stopped(number)
    }

    /// SIGTERM to all that run at once, and waits for their ends.
    pub fn stop_all(&mut self) -> Result<Vec<(u64, ExitStatus)>, Problem> {
        let running = self.running();
        for &number in &running {
            self.process(number).terminate().map_err(problem(format!("cannot stop node {number}")))?;
        }
        running.into_iter().map(|number| Ok((number, self.wait_stopped(number)?))).collect()
    }

    fn wait_stopped(&mut self, number: u64) -> Result<ExitStatus, Problem> {
        let mut process = self.take(number);
        match process.wait(STOP_PATIENCE).map_err(problem(format!("node {number}")))? {
            Some(status) => Ok(status),
            None => Err(Problem(format!("node {number} did not stop within {STOP_PATIENCE:?} of SIGTERM"))),
        }
    }

    fn take(&mut self, number: u64) -> Process {
        self.processes[slot(number)].take().unwrap_or_else(|| panic!("node {number} is not running"))
    }

    /// Asks a node how it is. An error is an answer too: it is down.
    pub fn status(&self, number: u64) -> Result<NodeStatus, Problem> {
        Client::new(self.options_of(number, STATUS_PATIENCE))
            .and_then(|mut client| client.status())
            .map_err(problem(format!("status of node {number}")))
    }

    /// Looks at a condition until it gives something. `Err` of the condition is remembered for the text, not final.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        patience: Duration,
        mut condition: impl FnMut(&mut Cluster) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let start = Instant::now();
        loop {
            let error = match condition(self) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if self.setup.interrupt.load(Ordering::Acquire) {
                return Err(Problem(format!("{what}: interrupted")));
            }
            self.check_alive()?;
            if start.elapsed() > patience {
                return Err(Problem(format!("{what}: not within {patience:?}; last: {error}")));
            }
            thread::sleep(POLL);
        }
    }

    /// Fails if a process that we did not end has ended.
    pub fn check_alive(&mut self) -> Result<(), Problem> {
        for number in self.running() {
            if let Some(status) = self.process(number).ended().map_err(problem(format!("node {number}")))? {
                self.processes[slot(number)] = None;
                let tail = self.log_tail(number, 3);
                return Err(Problem(format!("node {number} ended by itself ({status}): {tail}")));
            }
        }
        Ok(())
    }

    /// Waits until all running nodes know the same leader, which runs, and count exactly the running nodes as up.
    pub fn wait_ready(&mut self, patience: Duration) -> Result<NodeId, Problem> {
        self.wait_for("the nodes are ready", patience, |cluster| {
            let mut leaders = Vec::new();
            let running: Vec<NodeId> = cluster.running().into_iter().map(NodeId).collect();
            for &number in &running {
                let status = cluster.status(number.0)?;
                let up: Vec<NodeId> =
                    status.ring.members().iter().filter(|member| member.up).map(|member| member.node).collect();
                if up != running {
                    return Err(Problem(format!("{number} sees up: {up:?}, running are {running:?}")));
                }
                leaders.push(status.leader);
            }
            cluster.agreed(&leaders)
        })
    }

    /// Waits until a majority of all nodes knows the same leader, which runs and says so itself.
    pub fn wait_leader(&mut self, patience: Duration) -> Result<NodeId, Problem> {
        self.wait_for("a leader is known", patience, |cluster| {
            let told: Vec<NodeStatus> =
                cluster.running().into_iter().filter_map(|number| cluster.status(number).ok()).collect();
            let found = told.iter().find(|status| status.role == RoleKind::Leader).map(|status| status.node);
            let Some(leader) = found else { return Err(Problem("no node says it is the leader".into())) };
            let followers = told.iter().filter(|status| status.leader == leader).count() as u64;
            if followers * 2 > cluster.setup.nodes {
                Ok(leader)
            } else {
                Err(Problem(format!("{followers} know {leader} as leader")))
            }
        })
    }

    fn agreed(&self, leaders: &[NodeId]) -> Result<NodeId, Problem> {
        match leaders.first() {
            Some(&first) if first.0 > 0 && leaders.iter().all(|&other| other == first) && self.is_running(first.0) => {
                Ok(first)
            }
            _ => Err(Problem(format!("leaders known: {leaders:?}"))),
        }
    }

    /// The last lines of what a node printed, in one line.
    pub fn log_tail(&self, number: u64, lines: usize) -> String {
        let text = fs::read(self.log_path(number)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join(" | ")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if thread::panicking() {
            for number in self.numbers() {
                eprintln!("--- node {number}, last lines:");
                eprintln!("{}", self.log_tail(number, LOG_TAIL_LINES).replace(" | ", "\n"));
            }
        }
        self.processes.clear();
    }
}

fn refuses(address: &str) -> io::Result<()> {
    match TcpStream::connect(address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other(format!("{address} answers still"))),
    }
}

fn slot(number: u64) -> usize {
    usize::try_from(number).ok().and_then(|number| number.checked_sub(1)).expect("node numbers count from 1")
}

//! `bench`: physical limits of this machine, and how near the cluster comes to them.

mod backlog;
mod commit;
mod disk;
mod load;
mod loopback;
mod node;
mod numbers;
mod state;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  bench disk                         what disk, loopback and CPU can do, and both flush methods of the log
  bench commit                       commit latency of a cluster of three, started for it on loopback
  bench commit --nodes HOST:PORT,... of a running cluster
  bench commit --via any --size 1024 --in-flight 64 --seconds 10
  bench backlog --images 1000000     what undelivered images cost: snapshots, a node that was away, starts
  bench state --images 10000000 --clients 1000000   memory of the replicated state
  bench backlog --images 2000000 --receive   what is left on disk when everything was received";

/// Measures Heliograph beside the limits of the machine it runs on.
#[derive(Parser, Debug)]
#[command(name = "bench", version, max_term_width = 110, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Flush latency, O_DIRECT MB/s, loopback, CRC, and both ways in which the log becomes durable
    Disk(DiskArguments),
    /// Commit latency of small records: a request that is logged, replicated, committed, applied and answered
    Commit(CommitArguments),
    /// What a large backlog costs: snapshots beside commits, a node that was away, starts; or a turnover of small images
    Backlog(BacklogArguments),
    /// Memory of the replicated state, for each client and each undelivered image
    State(StateArguments),
    /// A node of the cluster that `commit` starts
    #[command(hide = true)]
    Node(NodeArguments),
}

/// `bench disk`.
#[derive(Args, Debug)]
pub struct DiskArguments {
    /// Where to measure; what is written there is removed again.
    #[arg(long, default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// Length of each measurement.
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    seconds: f64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Which node the requests go to.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The leader.
    Leader,
    /// A follower, which forwards each request to the leader.
    Any,
}

/// How the log of started nodes becomes durable.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// What measured better.
    Auto,
    /// Mapped, then fdatasync.
    Mmap,
    /// O_DIRECT and O_DSYNC.
    Direct,
}

/// `bench backlog`. Starts three nodes on loopback.
#[derive(Args, Debug)]
pub struct BacklogArguments {
    /// Images to send.
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    images: u64,
    /// Bytes of an image.
    #[arg(long, default_value_t = 100, value_name = "BYTES")]
    size: usize,
    /// Receivers, in turn.
    #[arg(long, default_value_t = 50, value_name = "N")]
    receivers: usize,
    /// Senders at the same time.
    #[arg(long, default_value_t = 4, value_name = "N")]
    senders: u64,
    /// Length of the measurement of commits.
    #[arg(long, default_value_t = 20.0, value_name = "SECONDS")]
    seconds: f64,
    /// Receive everything, and measure what is left, instead.
    #[arg(long)]
    receive: bool,
    /// Fill and receive so many times, with --receive: what a turn leaves behind shows in the next one
    #[arg(long, value_name = "N", default_value_t = 1, requires = "receive")]
    turns: u64,
    /// Cores of each node.
    #[arg(long, default_value_t = 1, value_name = "N")]
    cores: u16,
    /// Where the nodes have their data; removed again.
    #[arg(long, default_value = ".", value_name = "DIR")]
    dir: PathBuf,
}

/// `bench state`.
#[derive(Args, Debug)]
pub struct StateArguments {
    /// Undelivered images.
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    images: u64,
    /// Registered clients.
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    clients: u64,
}

/// `bench commit`.
#[derive(Args, Debug)]
pub struct CommitArguments {
    /// Client addresses of a running cluster; without it three nodes are started on loopback.
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT,...")]
    nodes: Vec<String>,
    /// Where the requests go.
    #[arg(long, default_value = "leader")]
    via: Via,
    /// Bytes of each record, at most 1024.
    #[arg(long, default_value_t = 150, value_name = "BYTES")]
    size: usize,
    /// Requests in flight, one step each.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256", value_name = "N,...")]
    in_flight: Vec<usize>,
    /// Length of each step, after a warm-up of a quarter of it.
    #[arg(long, default_value_t = 4.0, value_name = "SECONDS")]
    seconds: f64,
    /// Where started nodes keep their data, and where the flush baseline is measured.
    #[arg(long, default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// How the log of started nodes becomes durable.
    #[arg(long, default_value = "auto")]
    flush: Flush,
    /// Cores of each started node.
    #[arg(long, default_value_t = 1, value_name = "N")]
    cores: u16,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// `bench node`.
#[derive(Args, Debug)]
pub struct NodeArguments {
    #[arg(long)]
    config: PathBuf,
    #[arg(long)]
    exit_with_parent: bool,
    #[arg(long, default_value = "info")]
    log: String,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Disk(arguments) => disk::run(&arguments),
        Command::Backlog(arguments) => backlog::run(&arguments),
        Command::State(arguments) => state::run(&arguments),
        Command::Commit(arguments) => commit::run(&arguments),
        Command::Node(arguments) => node::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            eprintln!("bench: {text}");
            ExitCode::FAILURE
        }
    }
}

/// `context: error` as the text of a failed measurement.
fn failed<E: std::fmt::Display>(context: &str) -> impl FnOnce(E) -> String + '_ {
    move |error| format!("{context}: {error}")
}

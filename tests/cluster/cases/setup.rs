//! What the cases share: a cluster of this build's `helio`, commands against it, and senders.

use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use client::{Client, MemorySource, PendingImage, Receipt, SendError, Sender};
use cluster::{Cluster, Ledger, Problem, Setup};

/// The executable under test.
pub const HELIO: &str = env!("CARGO_BIN_EXE_helio");
/// Without news for this long, something hangs. The machine may be busy with the other cases.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Whether the long forms were asked for.
pub fn is_full() -> bool {
    std::env::var_os("HELIO_FULL").is_some()
}

/// A cluster of three, ready.
pub fn cluster() -> Cluster {
    Cluster::start(Setup::new(HELIO)).unwrap()
}

/// A cluster of three with further lines in each node's configuration, ready.
pub fn cluster_with(settings: &[&str]) -> Cluster {
    let mut setup = Setup::new(HELIO);
    setup.settings.extend(settings.iter().map(|line| (*line).to_owned()));
    Cluster::start(setup).unwrap()
}

/// Registers the names.
pub fn register(cluster: &Cluster, names: &[&str]) {
    let mut client = Client::new(cluster.options(client::Routing::Any, PATIENCE)).unwrap();
    for name in names {
        client.register(name).unwrap();
    }
}

/// The names as a sender wants them.
pub fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// An image handed over, with its number in the ledger.
pub struct Flying {
    pub number: usize,
    pub pending: PendingImage,
}

/// Hands an image of `length` bytes over; its content follows from its name.
pub fn hand_over(sender: &Sender, ledger: &mut Ledger, name: &str, receivers: &[&str], length: usize) -> Flying {
    let seed = name.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(131).wrapping_add(u64::from(byte)));
    let bytes = cluster::ledger::bytes_of(seed, length);
    let receivers = names(receivers);
    let number = ledger.begin(name, &receivers, bytes.clone());
    let pending = sender.submit(Arc::new(MemorySource(bytes)), name, &receivers).unwrap();
    Flying { number, pending }
}

/// Waits for an image and notes it.
pub fn settle(flying: Flying, ledger: &mut Ledger) -> Result<Receipt, SendError> {
    let receipt = flying.pending.wait()?;
    ledger.accepted(flying.number);
    Ok(receipt)
}

/// Hands an image over and waits until it is accepted.
pub fn send(sender: &Sender, ledger: &mut Ledger, name: &str, receivers: &[&str], length: usize) -> Receipt {
    let flying = hand_over(sender, ledger, name, receivers, length);
    settle(flying, ledger).unwrap()
}

/// Receives all that is due for `receiver`, and checks it.
pub fn receive_and_check(cluster: &Cluster, ledger: &Ledger, receiver: &str) {
    let options = cluster.options(client::Routing::Any, PATIENCE);
    let received = cluster::ledger::receive_some(options, receiver, ledger.due(receiver), PATIENCE).unwrap();
    ledger.check(receiver, &received).unwrap();
}

/// A finished command.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs `helio` with these arguments; `--nodes` is the environment's.
pub fn helio(nodes: &str, arguments: &[&str]) -> Ran {
    let mut command = Command::new(HELIO);
    command.args(arguments).env("HELIO_NODES", nodes);
    run(command)
}

/// Runs a command to its end.
pub fn run(mut command: Command) -> Ran {
    let Output { status, stdout, stderr } = command.env_remove("RUST_LOG").output().unwrap();
    Ran {
        code: status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    }
}

impl Ran {
    /// It succeeded.
    pub fn ok(self) -> Ran {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// It failed with `code`, and said why in one line that contains `part`.
    pub fn fails(self, code: i32, part: &str) -> Ran {
        let lines: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with("helio: ")).collect();
        assert!(self.code == code && lines.len() == 1, "expected code {code} and one line: {self:?}");
        assert!(lines[0].to_lowercase().contains(&part.to_lowercase()), "expected {part:?}: {self:?}");
        self
    }
}

/// Waits until every node has applied all that is committed: an idle cluster writes nothing more.
pub fn wait_settled(cluster: &mut Cluster) {
    let settled = |cluster: &mut Cluster| {
        let statuses =
            cluster.numbers().into_iter().map(|number| cluster.status(number)).collect::<Result<Vec<_>, _>>()?;
        let committed: Vec<u64> = statuses.iter().map(|status| status.committed.0).collect();
        let is_idle = statuses.iter().all(|status| status.applied.0 == committed[0]);
        if is_idle && committed.iter().all(|other| *other == committed[0]) {
            return Ok(());
        }
        Err(Problem(format!("committed {committed:?}")))
    };
    cluster.wait_for("the logs are equal", PATIENCE, settled).unwrap();
}

//! `helio status`: asks the given nodes and every member they name, all at once; a silent one is shown as such.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use client::{ClientError, Options};
use proto::client::{NodeStatus, RoleKind};
use proto::error::Refusal;
use proto::ids::NodeId;
use proto::ring::Ring;
use serde_json::{Value, json};

use crate::args::StatusArguments;
use crate::connect;
use crate::exit::{Cause, Failure};
use crate::table::{Table, counted, grouped};

/// A node that has not answered after this long is shown as silent. One that cannot be reached is at once.
const PATIENCE_MAX: Duration = Duration::from_secs(3);

const NOT_FORMED: &str =
    "the cluster has not formed yet: it begins when every initial member runs and reaches the others";

/// What asking one address gave.
struct Told {
    address: String,
    answer: Result<NodeStatus, Silent>,
}

/// Who did not tell anything of itself.
struct Silent {
    address: String,
    failure: Failure,
    is_forming: bool, // it runs, and waits for the others to form the cluster
}

/// Everything that is known after asking.
struct Picture {
    // By the id that the node gave itself.
    nodes: BTreeMap<NodeId, (String, NodeStatus)>,
    // Addresses that did not answer, with the reason.
    silent: Vec<Silent>,
    // The newest ring.
    ring: Ring,
}

/// Asks and prints. Fails if no majority of the voters answered.
pub fn run(arguments: &StatusArguments) -> Result<(), Failure> {
    let mut options = connect::options(&arguments.nodes)?;
    options.deadline = options.deadline.map(|patience| patience.min(PATIENCE_MAX));
    let picture = look(&options);
    if arguments.json {
        say!("{:#}", picture.json());
    } else {
        picture.print();
    }
    picture.verdict()
}

fn look(options: &Options) -> Picture {
    let mut picture = Picture { nodes: BTreeMap::new(), silent: Vec::new(), ring: Ring::default() };
    let mut asked: BTreeSet<String> = BTreeSet::new();
    let mut next: Vec<String> = options.nodes.clone();
    // At most two rounds: those given, then the members they name.
    for _ in 0..2 {
        next.retain(|address| asked.insert(address.clone()));
        for told in ask_all(options, &next) {
            match told.answer {
                Ok(status) => {
                    if status.ring.epoch() >= picture.ring.epoch() {
                        picture.ring = status.ring.clone();
                    }
                    picture.nodes.entry(status.node).or_insert((told.address, status));
                }
                Err(silent) => picture.silent.push(silent),
            }
        }
        let unseen = picture.ring.members().iter().filter(|member| !picture.nodes.contains_key(&member.node));
        next = unseen.map(|member| member.client_address.clone()).filter(|address| !address.is_empty()).collect();
    }
    picture
}

fn ask_all(options: &Options, addresses: &[String]) -> Vec<Told> {
    thread::scope(|scope| {
        let asking: Vec<_> = addresses
            .iter()
            .map(|address| {
                scope.spawn(move || {
                    let patience = options.deadline.unwrap_or(PATIENCE_MAX);
                    client::status_of(address, options.cluster, patience).map_err(|error| silent(address, &error))
                })
            })
            .collect();
        addresses
            .iter()
            .zip(asking)
            .map(|(address, thread)| Told {
                address: address.clone(),
                answer: thread.join().unwrap_or_else(|_| Err(silent(address, &ClientError::ThreadEnded))),
            })
            .collect()
    })
}

fn silent(address: &str, error: &ClientError) -> Silent {
    let Failure { cause, text } = connect::failure(error);
    let failure = match error {
        ClientError::Connection { text, .. } => Failure::new(cause, text), // The address stands beside it.
        _ => Failure { cause, text },
    };
    let is_forming = matches!(error, ClientError::Refused { refusal: Refusal::NotReady, .. });
    Silent { address: address.to_owned(), failure, is_forming }
}

fn role(role: RoleKind) -> &'static str {
    match role {
        RoleKind::Follower => "follower",
        RoleKind::Candidate => "candidate",
        RoleKind::Leader => "leader",
    }
}

fn sum(status: &NodeStatus, of: impl Fn(&proto::client::CoreStatus) -> u64) -> u64 {
    status.cores.iter().map(of).sum()
}

impl Picture {
    /// Who knows most.
    fn newest(&self) -> Option<&NodeStatus> {
        self.nodes.values().map(|(_, status)| status).max_by_key(|status| (status.term, status.applied))
    }

    fn share(&self, node: NodeId) -> f64 {
        self.ring.shares().into_iter().find(|(other, _)| *other == node).map_or(0.0, |(_, share)| share)
    }

    /// Members of the ring and nodes that answered without being in it, by id.
    fn all(&self) -> BTreeSet<NodeId> {
        self.ring.members().iter().map(|member| member.node).chain(self.nodes.keys().copied()).collect()
    }

    fn voters(&self) -> (usize, usize) {
        let voters: Vec<NodeId> =
            self.ring.members().iter().filter(|member| member.voter).map(|member| member.node).collect();
        (voters.iter().filter(|node| self.nodes.contains_key(node)).count(), voters.len())
    }

    fn verdict(&self) -> Result<(), Failure> {
        if self.nodes.is_empty() {
            return Err(self.nobody());
        }
        match self.voters() {
            (_, 0) => Err(Failure::new(Cause::Unreachable, NOT_FORMED)),
            (answered, all) if answered * 2 > all => Ok(()),
            (answered, all) => Err(Failure::new(
                Cause::Unreachable,
                format!(
                    "only {answered} of {all} voters answered: no majority, nothing can be accepted; start the others"
                ),
            )),
        }
    }

    /// No node told anything of itself: what each address gave.
    fn nobody(&self) -> Failure {
        let told: Vec<String> =
            self.silent.iter().map(|silent| format!("{}: {}", silent.address, silent.failure.text)).collect();
        if self.silent.iter().any(|silent| silent.is_forming) {
            let text = format!("{NOT_FORMED} [{}]", told.join(", "));
            return Failure::new(Cause::Unreachable, text);
        }
        let mut causes = self.silent.iter().map(|silent| silent.failure.cause);
        let first = causes.next().unwrap_or(Cause::Usage);
        let cause = if causes.all(|cause| cause == first) { first } else { Cause::Unreachable };
        let remedy = match told.len() {
            0 => "no address given",
            _ => "are the nodes running, and are these their client addresses?",
        };
        Failure::new(cause, format!("no node answered: {remedy} [{}]", told.join(", ")))
    }

    fn has_majority(&self) -> bool {
        let (answered, all) = self.voters();
        answered * 2 > all
    }

    /// A node's own word for the leader counts only if a majority answered: the others may know better, or nobody may.
    fn leader(&self) -> Option<NodeId> {
        self.newest().map(|newest| newest.leader).filter(|leader| leader.0 > 0 && self.has_majority())
    }

    fn json(&self) -> Value {
        let nodes: Vec<Value> = self.all().into_iter().map(|node| self.node_json(node)).collect();
        let newest = self.newest();
        let told = |silent: &Silent| json!({ "address": silent.address, "error": silent.failure.text });
        let silent: Vec<Value> = self.silent.iter().map(told).collect();
        json!({
            "cluster": newest.map(|status| status.cluster.to_string()),
            "term": newest.map(|status| status.term.0),
            "leader": self.leader().map(|leader| leader.0),
            "majority": self.has_majority(),
            "committed": newest.map(|status| status.committed.0),
            "ring_epoch": self.ring.epoch().0,
            "clients": newest.map(|status| status.clients),
            "sessions": newest.map(|status| status.sessions),
            "undelivered": newest.map(|status| status.undelivered),
            "answered": self.nodes.len(),
            "nodes": nodes,
            "silent": silent,
        })
    }

    fn node_json(&self, node: NodeId) -> Value {
        let member = self.ring.member(node);
        let mut value = json!({
            "node": node.0,
            "member": member.is_some(),
            "up": member.is_some_and(|member| member.up),
            "voter": member.is_some_and(|member| member.voter),
            "client": member.map(|member| member.client_address.clone()),
            "peer": member.map(|member| member.peer_address.clone()),
            "ring_share": self.share(node),
            "answered": self.nodes.contains_key(&node),
        });
        let Some((address, status)) = self.nodes.get(&node) else { return value };
        let more = json!({
            "address": address,
            "incarnation": status.incarnation.0,
            "role": role(status.role),
            "healing": status.healing,
            "log_rotten": status.log_rotten,
            "term": status.term.0,
            "leader": status.leader.0,
            "last": status.last.0,
            "committed": status.committed.0,
            "applied": status.applied.0,
            "undelivered": status.undelivered,
            "intents": status.intents,
            "log_segments": status.log_segments,
            "log_bytes": status.log_bytes,
            "snapshot_index": status.snapshot_index.0,
            "snapshot_bytes": status.snapshot_bytes,
            "snapshot_under_way": status.snapshot_under_way,
            "connections": sum(status, |core| core.connections),
            "uploads": sum(status, |core| core.uploads),
            "images": sum(status, |core| core.images),
            "image_bytes": sum(status, |core| core.image_bytes),
            "chunk_files": sum(status, |core| core.chunk_files),
            "repairs": sum(status, |core| core.repairs),
            // The cores share the filesystem: what one of them could still take, all together could.
            "room_bytes": status.cores.iter().map(|core| core.room_bytes).max().unwrap_or(0),
            "cores": status.cores.iter().map(|core| json!({
                "core": core.core.0, "connections": core.connections, "uploads": core.uploads, "images": core.images,
                "image_bytes": core.image_bytes, "chunk_files": core.chunk_files, "room_bytes": core.room_bytes,
                "repairs": core.repairs,
            })).collect::<Vec<_>>(),
        });
        if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
            value.extend(more);
        }
        value
    }

    fn print(&self) {
        if let Some(newest) = self.newest() {
            let leader = self.leader().map_or("none".to_owned(), |leader| leader.to_string());
            say!("cluster {}  leader {leader}  term {}  committed {}", newest.cluster, newest.term.0, newest.committed);
            if !self.has_majority() {
                say!("{}", self.minority());
            }
            say!(
                "{}, {}, {} accepted and not yet acknowledged",
                counted(newest.clients, "client"),
                counted(newest.sessions, "session"),
                counted(newest.undelivered, "image")
            );
        }
        let mut table = Table::new(&[
            "node",
            "ring",
            "role",
            "term",
            "applied",
            "committed",
            "share",
            "images",
            "image bytes",
            "segments",
            "log bytes",
            "address",
        ]);
        for node in self.all() {
            table.row(self.row(node));
        }
        if !self.all().is_empty() {
            say!("{}", table.render());
        }
        // With no answer at all, the error tells it.
        for silent in self.silent.iter().filter(|_| !self.nodes.is_empty()) {
            say!("{} does not answer: {}", silent.address, silent.failure.text);
        }
    }

    /// Who answered, and what the rest of the table is worth then.
    fn minority(&self) -> String {
        let (answered, all) = self.voters();
        let names: Vec<String> = self.nodes.keys().map(NodeId::to_string).collect();
        let verb = if names.len() == 1 { "answers" } else { "answer" };
        format!(
            "no majority: {answered} of {}; only {} {verb}; figures are as last known there",
            counted(all as u64, "voter"),
            names.join(" ")
        )
    }

    fn row(&self, node: NodeId) -> Vec<String> {
        let member = self.ring.member(node);
        let state = match member {
            // The ring is as the last majority left it: of those that do not answer nobody knows.
            Some(_) if !self.has_majority() && !self.nodes.contains_key(&node) => "?",
            Some(member) if member.up => "up",
            Some(_) => "down",
            None => "-",
        };
        let share = format!("{:.1}%", self.share(node) * 100.0);
        let address = member.map(|member| member.client_address.clone()).unwrap_or_default();
        let mut cells = vec![node.to_string(), state.to_owned()];
        match self.nodes.get(&node) {
            Some((_, status)) => cells.extend([
                match (status.healing, status.log_rotten) {
                    (true, _) => "heals".to_owned(),
                    (false, true) => format!("{}, rot", role(status.role)),
                    (false, false) => role(status.role).to_owned(),
                },
                status.term.0.to_string(),
                status.applied.to_string(),
                status.committed.to_string(),
                share,
                grouped(sum(status, |core| core.images)),
                grouped(sum(status, |core| core.image_bytes)),
                status.log_segments.to_string(),
                grouped(status.log_bytes),
            ]),
            None => {
                cells.extend(["silent", "-", "-", "-"].map(str::to_owned));
                cells.push(share);
                cells.extend(["-", "-", "-", "-"].map(str::to_owned));
            }
        }
        cells.push(address);
        cells
    }
}

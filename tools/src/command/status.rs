//! `helio status`: asks the given nodes and every member they name, all at once; a silent one is shown as such.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use client::{Client, Options, Routing};
use proto::client::{NodeStatus, RoleKind};
use proto::ids::NodeId;
use proto::ring::Ring;
use serde_json::{Value, json};

use crate::args::StatusArguments;
use crate::connect;
use crate::exit::{Cause, Failure};
use crate::table::{Table, grouped};

/// A node that has not answered after this long is shown as silent.
const PATIENCE_MAX: Duration = Duration::from_secs(3);

/// What asking one address gave.
struct Told {
    address: String,
    answer: Result<NodeStatus, Failure>,
}

/// Everything that is known after asking.
struct Picture {
    // By the id that the node gave itself.
    nodes: BTreeMap<NodeId, (String, NodeStatus)>,
    // Addresses that did not answer, with the reason.
    silent: Vec<(String, Failure)>,
    // The newest ring.
    ring: Ring,
}

/// Asks and prints. Fails if no majority of the voters answered.
pub fn run(arguments: &StatusArguments) -> Result<(), Failure> {
    let mut options = connect::options(&arguments.nodes)?;
    options.deadline = options.deadline.map(|patience| patience.min(PATIENCE_MAX));
    let picture = look(&options);
    if arguments.json {
        println!("{:#}", picture.json());
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
                Err(failure) => picture.silent.push((told.address, failure)),
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
                let one = Options { nodes: vec![address.clone()], routing: Routing::Fixed, ..options.clone() };
                scope.spawn(move || {
                    Client::new(one).and_then(|mut client| client.status()).map_err(|error| connect::failure(&error))
                })
            })
            .collect();
        addresses
            .iter()
            .zip(asking)
            .map(|(address, thread)| Told {
                address: address.clone(),
                answer: thread
                    .join()
                    .unwrap_or_else(|_| Err(Failure::new(Cause::Failed, "asking it ended unexpectedly"))),
            })
            .collect()
    })
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
    /// A node's own word for the leader counts only if a majority answered; the highest term wins.
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
            let reason = self.silent.first().map_or("no address given".to_owned(), |(_, failure)| failure.text.clone());
            return Err(Failure::new(Cause::Unreachable, format!("no node answered: {reason}")));
        }
        match self.voters() {
            (_, 0) => Err(Failure::new(
                Cause::Unreachable,
                "the cluster has not formed yet: it begins when every initial member runs and reaches the others",
            )),
            (answered, all) if answered * 2 > all => Ok(()),
            (answered, all) => Err(Failure::new(
                Cause::Unreachable,
                format!(
                    "only {answered} of {all} voters answered: no majority, nothing can be accepted; start the others"
                ),
            )),
        }
    }

    fn json(&self) -> Value {
        let nodes: Vec<Value> = self.all().into_iter().map(|node| self.node_json(node)).collect();
        let newest = self.newest();
        json!({
            "cluster": newest.map(|status| status.cluster.to_string()),
            "term": newest.map(|status| status.term.0),
            "leader": newest.map(|status| status.leader.0).filter(|&leader| leader > 0),
            "committed": newest.map(|status| status.committed.0),
            "ring_epoch": self.ring.epoch().0,
            "clients": newest.map(|status| status.clients),
            "sessions": newest.map(|status| status.sessions),
            "undelivered": newest.map(|status| status.undelivered),
            "answered": self.nodes.len(),
            "nodes": nodes,
            "silent": self.silent.iter().map(|(address, failure)| json!({ "address": address, "error": failure.text })).collect::<Vec<_>>(),
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
            "term": status.term.0,
            "leader": status.leader.0,
            "last": status.last.0,
            "committed": status.committed.0,
            "applied": status.applied.0,
            "undelivered": status.undelivered,
            "intents": status.intents,
            "log_segments": status.log_segments,
            "log_bytes": status.log_bytes,
            "connections": sum(status, |core| core.connections),
            "uploads": sum(status, |core| core.uploads),
            "images": sum(status, |core| core.images),
            "image_bytes": sum(status, |core| core.image_bytes),
            "chunk_files": sum(status, |core| core.chunk_files),
            // The cores share the filesystem: what one of them could still take, all together could.
            "room_bytes": status.cores.iter().map(|core| core.room_bytes).max().unwrap_or(0),
            "cores": status.cores.iter().map(|core| json!({
                "core": core.core.0, "connections": core.connections, "uploads": core.uploads, "images": core.images,
                "image_bytes": core.image_bytes, "chunk_files": core.chunk_files, "room_bytes": core.room_bytes,
            })).collect::<Vec<_>>(),
        });
        if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
            value.extend(more);
        }
        value
    }

    fn print(&self) {
        if let Some(newest) = self.newest() {
            let leader = if newest.leader.0 > 0 { newest.leader.to_string() } else { "none".to_owned() };
            println!(
                "cluster {}  leader {leader}  term {}  committed {}",
                newest.cluster, newest.term.0, newest.committed
            );
            println!(
                "{} clients, {} sessions, {} images accepted and not yet acknowledged",
                grouped(newest.clients),
                grouped(newest.sessions),
                grouped(newest.undelivered)
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
            println!("{}", table.render());
        }
        for (address, failure) in &self.silent {
            println!("{address} does not answer: {}", failure.text);
        }
    }

    fn row(&self, node: NodeId) -> Vec<String> {
        let member = self.ring.member(node);
        let state = match member {
            Some(member) if member.up => "up",
            Some(_) => "down",
            None => "-",
        };
        let share = format!("{:.1}%", self.share(node) * 100.0);
        let address = member.map(|member| member.client_address.clone()).unwrap_or_default();
        let mut cells = vec![node.to_string(), state.to_owned()];
        match self.nodes.get(&node) {
            Some((_, status)) => cells.extend([
                role(status.role).to_owned(),
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

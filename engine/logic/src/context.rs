//! What every stage of a shard is given with an input: the time, where it is, what it knows of the cluster, and where to
//! put effects.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::client::ClientReply;
use proto::error::Refusal;
use proto::ids::{Address, CoreId, NodeId};
use proto::peer::{Lane, PeerMessage};
use proto::ring::core_of;

use crate::io::{BodyRef, BufId, ConnId, CoreNote, Effect, Now, Ticket, View};
use crate::limits::SUSPECT_US;
use crate::mutant::Mutant;
use crate::requests::Requests;

/// The surroundings of one step.
pub(crate) struct Context<'a> {
    pub now: Now,
    pub me: Address,
    pub view: &'a Arc<View>,
    pub suspects: &'a mut Suspects,
    pub requests: &'a mut Requests,
    pub tickets: &'a mut Tickets,
    pub mutant: Mutant,
    pub out: &'a mut Vec<Effect>,
}

impl Context<'_> {
    pub fn reply(&mut self, conn: ConnId, message: ClientReply) {
        self.out.push(Effect::ClientSend { conn, message, body: None });
    }

    pub fn send(&mut self, to: Address, message: PeerMessage) {
        self.send_on(Lane::Control, to, message);
    }

    /// A message that must not overtake, nor be overtaken by, the chunks of that lane.
    pub fn send_on(&mut self, lane: Lane, to: Address, message: PeerMessage) {
        self.out.push(Effect::Send { to, lane, message, body: None });
    }

    pub fn send_body(&mut self, lane: Lane, to: Address, message: PeerMessage, body: BodyRef) {
        self.out.push(Effect::Send { to, lane, message, body: Some(body) });
    }

    pub fn tell(&mut self, core: CoreId, note: CoreNote) {
        self.out.push(Effect::Tell { core, note });
    }

    pub fn release(&mut self, buf: BufId) {
        self.out.push(Effect::Release { buf });
    }

    /// The shards that should hold the bytes for `client` now, in the order of the ring, the home first. Nodes that are
    /// down or could not be reached lately are passed over; if that leaves too few, the latter are taken all the same.
    pub fn placement(&self, client: &str, count: usize) -> Vec<Address> {
        let successors = self.view.ring.successors(client);
        let (good, bad): (Vec<_>, Vec<_>) =
            successors.into_iter().partition(|member| !self.suspects.contains(member.node, self.now));
        good.into_iter()
            .chain(bad)
            .take(count)
            .map(|member| Address { node: member.node, core: core_of(client, member.cores) })
            .collect()
    }

    /// Ends a client connection with a reason.
    pub fn dismiss(&mut self, conn: ConnId, refusal: Refusal, text: &str) {
        let ring = (!self.view.ring.members().is_empty()).then(|| self.view.ring.clone());
        self.reply(conn, ClientReply::Failure { request: None, refusal, text: text.to_owned(), ring });
        self.out.push(Effect::ClientClose { conn });
    }
}

/// Nodes that could not be reached lately.
#[derive(Debug, Default)]
pub(crate) struct Suspects {
    until: BTreeMap<NodeId, u64>, // monotonic microseconds
}

impl Suspects {
    pub fn insert(&mut self, node: NodeId, now: Now) {
        self.until.insert(node, now.mono_us + SUSPECT_US);
    }

    pub fn remove(&mut self, node: NodeId) {
        self.until.remove(&node);
    }

    pub fn contains(&self, node: NodeId, now: Now) -> bool {
        self.until.get(&node).is_some_and(|&until| now.mono_us < until)
    }
}

/// Gives out tickets, each once.
#[derive(Debug, Default)]
pub(crate) struct Tickets {
    last: u64,
}

impl Tickets {
    pub fn next(&mut self) -> Ticket {
        self.last += 1;
        Ticket(self.last)
    }
}

//! Messages between nodes and between users and nodes: delayed, lost, doubled, overtaken, cut off.
//!
//! A node has one link to each other one at a time, with a number that grows. What travels on one lane of it keeps its
//! order, unless a fault of this world says otherwise.

use std::collections::{BTreeMap, BTreeSet};

use logic::io::{BodyRef, BufId, ConnId, Input};
use proto::client::{ClientReply, ClientRequest};
use proto::ids::{Address, CoreId, NodeId};
use proto::limits::UPLOAD_CREDIT_BYTES;
use proto::peer::{Lane, PeerMessage};

use crate::disk::Facts;
use crate::faults::Fault;
use crate::world::{Event, Heard, Wire, World};

/// What is on the way, and what is in the way.
#[derive(Debug, Default)]
pub(crate) struct Network {
    links: BTreeMap<(NodeId, NodeId), u64>,
    next_link: u64,
    lanes: BTreeMap<(Address, Address, Lane), u64>, // last arrival, to keep the order of a lane
    conns: BTreeMap<ConnId, Conn>,
    next_conn: u64,
    uploads: BTreeMap<BufId, ConnId>, // buffers whose bytes count against a sender's credit
    cut: BTreeSet<(NodeId, NodeId)>,  // from, to: messages are lost
    is_holder_lane_cut: bool,         // everywhere
    clogged: BTreeMap<(NodeId, NodeId), u64>, // and what takes so much longer
    told_unreachable: BTreeMap<(NodeId, NodeId), u64>,
}

/// A client connection as the world sees it.
#[derive(Debug)]
struct Conn {
    to: Address,
    start: u64,
    open: bool,
    last_us: u64, // of the last event towards the node
    last_back_us: u64,
    credit: u64, // body bytes permitted in all
}

impl World {
    /// Messages from one node to another are lost, or not any more.
    pub fn cut(&mut self, from: NodeId, to: NodeId, is_cut: bool) {
        if is_cut {
            self.network.cut.insert((from, to));
        } else {
            self.network.cut.remove(&(from, to));
        }
    }

    /// Cuts a node off from all others, or ends that.
    pub fn isolate(&mut self, node: NodeId, is_cut: bool) {
        for other in self.nodes() {
            if other != node {
                self.cut(node, other, is_cut);
                self.cut(other, node, is_cut);
            }
        }
    }

    /// Messages from one node to another take so much longer; 0 ends it.
    pub fn clog(&mut self, from: NodeId, to: NodeId, us: u64) {
        self.network.clogged.insert((from, to), us);
    }

    /// No bytes pass from homes to further holders, or they do again.
    pub fn cut_holders(&mut self, is_cut: bool) {
        self.network.is_holder_lane_cut = is_cut;
    }

    /// Nothing is cut or clogged any more.
    pub fn heal_network(&mut self) {
        self.network.cut.clear();
        self.network.is_holder_lane_cut = false;
        self.network.clogged.clear();
    }

    /// The node's process is new: so are its links.
    pub(crate) fn new_links(&mut self, node: NodeId) {
        for other in self.nodes() {
            self.network.new_link(node, other);
            self.network.new_link(other, node);
        }
    }

    /// The connections between two nodes break and are made anew. What was on the way is lost, or comes late.
    pub fn break_link(&mut self, one: NodeId, other: NodeId) {
        self.network.new_link(one, other);
        self.network.new_link(other, one);
        let is_theirs = |event: &Event| match event {
            Event::Input { to, input, .. } => {
                (input.from.node, to.node) == (one, other) || (input.from.node, to.node) == (other, one)
            }
            _ => false,
        };
        let on_the_way: Vec<(u64, u64)> =
            self.events.iter().filter(|(_, event)| is_theirs(event)).map(|(&key, _)| key).collect();
        for key in on_the_way {
            let event = self.events.remove(&key).expect("listed above");
            if self.random.chance(50) {
                let late_us = self.random.within(0, 300_000);
                self.after(key.0.saturating_sub(self.now_us) + late_us, event);
            }
        }
    }

    /// `Effect::Send` to another core.
    pub(crate) fn send(&mut self, from: Address, to: Address, lane: Lane, message: PeerMessage, body: Option<BodyRef>) {
        let facts = body.map(|body| self.facts(from, body.buf));
        let incarnation = self.nodes[&from.node].lives.incarnation;
        if let PeerMessage::Raft(message) = &message {
            let node = &self.nodes[&from.node];
            self.checks.promise(message, node.group.read_vote(), &node.durable);
        }
        if !self.is_up(to.node) {
            return self.tell_unreachable(from.node, to.node);
        }
        let is_lane_cut = self.network.is_holder_lane_cut && lane == Lane::Holder;
        if is_lane_cut || self.network.cut.contains(&(from.node, to.node)) {
            return;
        }
        if from.node == to.node {
            let wire = Wire { from, incarnation, link: 0, lane, message, facts };
            let delay = self.random.within(5, 30);
            return self.carry(to, wire, delay, true);
        }
        let link = self.network.link(from.node, to.node);
        let wire = Wire { from, incarnation, link, lane, message, facts };
        if self.is_hit(self.rates.loss, Fault::Loss) {
            self.trace.add(self.now_us, || format!("lost: {to} {wire:?}"));
            return;
        }
        if self.is_hit(self.rates.duplicate, Fault::Duplicate) {
            let delay = self.random.within(50, 200_000);
            self.carry(to, wire.clone(), delay, false);
        }
        let clogged_us = self.network.clogged.get(&(from.node, to.node)).copied().unwrap_or(0);
        let delay = self.random.within(50, 600) + clogged_us;
        let overtakes = self.is_hit(self.rates.reorder, Fault::Reorder);
        let late_us = if overtakes { self.random.within(0, 20_000) } else { 0 };
        self.carry(to, wire, delay + late_us, !overtakes);
    }

    fn is_hit(&mut self, rate: u64, fault: Fault) -> bool {
        let is_hit = rate > 0 && self.random.within(0, 1000) < rate;
        if is_hit {
            self.counts.add(fault);
        }
        is_hit
    }

    fn carry(&mut self, to: Address, wire: Wire, delay: u64, keeps_order: bool) {
        let mut at_us = self.now_us + delay;
        if keeps_order {
            let last = self.network.lanes.entry((wire.from, to, wire.lane)).or_insert(0);
            at_us = at_us.max(*last + 1);
            *last = at_us;
        }
        let start = self.nodes[&to.node].start;
        self.after(at_us - self.now_us, Event::Input { to, start, input: Box::new(wire) });
    }

    fn tell_unreachable(&mut self, from: NodeId, to: NodeId) {
        let told = self.network.told_unreachable.entry((from, to)).or_insert(0);
        if self.now_us < *told + 100_000 {
            return;
        }
        *told = self.now_us;
        let start = self.nodes[&from].start;
        for core in 0..self.cores() {
            let at = Address { node: from, core: CoreId(core) };
            self.after(1000, Event::Unreachable { at, start, node: to });
        }
    }

    /// A client connects to a core and says hello; what it hears comes by `run`.
    pub fn connect(&mut self, to: Address, hello: ClientRequest) -> ConnId {
        self.network.next_conn += 1;
        let conn = ConnId(self.network.next_conn);
        let open = self.is_up(to.node);
        let (start, now_us) = (self.nodes[&to.node].start, self.now_us);
        let credit = UPLOAD_CREDIT_BYTES;
        self.network.conns.insert(conn, Conn { to, start, open, last_us: now_us, last_back_us: now_us, credit });
        if open {
            self.request(conn, hello, None);
        } else {
            self.after(200, Event::Closed { conn });
        }
        conn
    }

    /// A client says something.
    pub fn request(&mut self, conn: ConnId, request: ClientRequest, facts: Option<Facts>) {
        let delay = self.random.within(20, 300);
        let now_us = self.now_us;
        let Some(state) = self.network.open_conn(conn) else { return };
        state.last_us = (now_us + delay).max(state.last_us + 1);
        let wait = state.last_us - now_us;
        self.after(wait, Event::Request { conn, request: Box::new(request), facts });
    }

    /// A client hangs up.
    pub fn hang_up(&mut self, conn: ConnId) {
        let Some(state) = self.network.open_conn(conn) else { return };
        state.open = false;
        let (to, start) = (state.to, state.start);
        self.after(1, Event::HungUp { conn, to, start });
    }

    /// A client's connection breaks, for both ends. `false` if there is none.
    pub fn break_client(&mut self) -> bool {
        let open: Vec<ConnId> =
            self.network.conns.iter().filter(|(_, state)| state.open).map(|(&conn, _)| conn).collect();
        if open.is_empty() {
            return false;
        }
        let conn = open[self.random.within(0, open.len() as u64) as usize];
        self.hang_up(conn);
        self.after(100, Event::Closed { conn });
        true
    }

    pub(crate) fn close_conns_of(&mut self, node: NodeId) {
        let mut gone = Vec::new();
        for (&conn, state) in &mut self.network.conns {
            if state.to.node == node && state.open {
                state.open = false;
                gone.push(conn);
            }
        }
        for conn in gone {
            self.after(100, Event::Closed { conn });
        }
    }

    pub(crate) fn deliver_request(&mut self, conn: ConnId, request: ClientRequest, facts: Option<Facts>) {
        let Some(state) = self.network.open_conn(conn) else { return };
        let (to, start) = (state.to, state.start);
        if !self.is_running(to.node, start) {
            return;
        }
        let until_us = self.nodes[&to.node].stopped_until_us;
        if until_us > self.now_us {
            let request = Box::new(request);
            return self.after(until_us - self.now_us, Event::Request { conn, request, facts });
        }
        let body = facts.map(|facts| self.new_body(to, facts));
        if let Some(body) = body {
            self.network.uploads.insert(body.buf, conn);
        }
        let input = match request {
            ClientRequest::Hello { .. } => Input::ClientOpened { conn, hello: request },
            message => Input::Client { conn, message, body },
        };
        self.input(to, input);
    }

    pub(crate) fn tell_client(&mut self, conn: ConnId, event: Event) {
        let delay = self.random.within(20, 300);
        let now_us = self.now_us;
        let Some(state) = self.network.open_conn(conn) else { return };
        state.last_back_us = (now_us + delay).max(state.last_back_us + 1);
        let wait = state.last_back_us - now_us;
        self.after(wait, event);
    }

    pub(crate) fn hear_reply(&mut self, conn: ConnId, reply: ClientReply, facts: Option<Facts>) {
        if self.network.open_conn(conn).is_some() {
            self.heard.push(Heard::Reply(conn, reply, facts));
        }
    }

    pub(crate) fn hear_closed(&mut self, conn: ConnId) {
        if let Some(state) = self.network.conns.get_mut(&conn) {
            state.open = false;
        }
        self.heard.push(Heard::Closed(conn));
    }

    /// The bytes left the ingest's memory: their sender may send as many again.
    pub(crate) fn give_credit(&mut self, buf: BufId, facts: Facts) {
        let Some(conn) = self.network.uploads.remove(&buf) else { return };
        let Some(state) = self.network.conns.get_mut(&conn) else { return };
        state.credit += u64::from(facts.length);
        let reply = Box::new(ClientReply::Credit { credit: state.credit });
        self.tell_client(conn, Event::Reply { conn, reply, facts: None });
    }
}

impl Network {
    fn new_link(&mut self, from: NodeId, to: NodeId) {
        self.next_link += 1;
        self.links.insert((from, to), self.next_link);
    }

    fn link(&mut self, from: NodeId, to: NodeId) -> u64 {
        self.links.get(&(from, to)).copied().expect("both were started")
    }

    fn open_conn(&mut self, conn: ConnId) -> Option<&mut Conn> {
        self.conns.get_mut(&conn).filter(|state| state.open)
    }
}

//! The world: time, events, and what logic asks for. Nodes and their disks are in `node`, messages in `network`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use logic::consensus::Dropped;
use logic::io::{Body, BodyRef, BufId, ConnId, Effect, Input, Room};
use logic::limits::TICK_US;
use logic::shard::InitialMember;
use proto::client::{ClientReply, ClientRequest};
use proto::ids::{Address, CoreId, Fingerprint, Holder, ImageId, Incarnation, NodeId};
use proto::peer::{Lane, LeaderAnswer, PeerMessage};

use crate::checks::Checks;
use crate::disk::Facts;
use crate::faults::{Counts, Rates};
use crate::mutants::Mutant;
use crate::network::Network;
use crate::node::{Done, Node};
use crate::random::Random;
use crate::snapshots::SnapshotPart;
use crate::trace::Trace;

/// Events and inputs within a millisecond, at most.
const STEPS_MAX: u64 = 100_000;
const START_US: u64 = 1_000_000;
/// Time between two pulses.
const PULSE_US: u64 = 5_000;

/// What happens at some time.
#[derive(Debug)]
pub(crate) enum Event {
    /// Time goes on when no process runs.
    Pulse,
    Tick {
        node: NodeId,
        start: u64,
    },
    Input {
        to: Address,
        start: u64,
        input: Box<Wire>,
    },
    Done {
        at: Address,
        start: u64,
        done: Done,
    },
    Space {
        node: NodeId,
        start: u64,
    },
    Turn {
        at: Address,
        start: u64,
    },
    Unreachable {
        at: Address,
        start: u64,
        node: NodeId,
    },
    Reply {
        conn: ConnId,
        reply: Box<ClientReply>,
        facts: Option<Facts>,
    },
    Closed {
        conn: ConnId,
    },
    HungUp {
        conn: ConnId,
        to: Address,
        start: u64,
    },
    Request {
        conn: ConnId,
        request: Box<ClientRequest>,
        facts: Option<Facts>,
    },
}

impl Event {
    /// The process that has to run for it.
    fn of(&self) -> Option<(NodeId, u64)> {
        match self {
            Event::Tick { node, start } | Event::Space { node, start } => Some((*node, *start)),
            Event::Input { to, start, .. } | Event::HungUp { to, start, .. } => Some((to.node, *start)),
            Event::Done { at, start, .. } | Event::Turn { at, start } | Event::Unreachable { at, start, .. } => {
                Some((at.node, *start))
            }
            Event::Pulse | Event::Reply { .. } | Event::Closed { .. } | Event::Request { .. } => None,
        }
    }
}

/// A message between cores.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    pub from: Address,
    pub incarnation: Incarnation,
    pub link: u64,
    pub lane: Lane,
    pub message: PeerMessage,
    pub facts: Option<Facts>,
}

/// What lies on the disks, for checks.
pub(crate) struct Disks<'a> {
    nodes: &'a BTreeMap<NodeId, Node>,
}

impl Disks<'_> {
    /// How many nodes have that entry.
    pub fn logs_with(&self, index: u64, term: u64) -> u64 {
        self.nodes.values().filter(|node| node.durable.get(&index) == Some(&term)).count() as u64
    }

    /// Whether a core has all bytes of an image.
    pub fn has(&self, at: Address, image: ImageId, fingerprint: Fingerprint) -> bool {
        let copies = self.nodes[&at.node].cores[usize::from(at.core.0)].durable_copies(image);
        copies.contains(&(fingerprint.length, fingerprint.checksum))
    }

    /// What a core has of an image, for people.
    pub fn describe(&self, at: Address, image: ImageId) -> String {
        self.nodes[&at.node].cores[usize::from(at.core.0)].describe(image)
    }

    /// Whether this world has damaged that node since it became a holder.
    pub fn is_spoiled(&self, holder: &Holder) -> bool {
        let node = &self.nodes[&holder.address.node];
        node.is_spoiled() || holder.incarnation < node.lives.incarnation
    }
}

/// What users hear.
#[derive(Debug)]
pub enum Heard {
    /// A node said something.
    Reply(ConnId, ClientReply, Option<Facts>),
    /// The connection is gone.
    Closed(ConnId),
}

/// What a world is made of.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Everything else is drawn from it.
    pub seed: u64,
    /// How many nodes, all of them voters.
    pub nodes: u64,
    /// Cores of each.
    pub cores: u16,
    /// Whether cores often take several inputs before their turn.
    pub is_busy: bool,
    /// How long bytes of an upload are kept that nobody continues, in microseconds.
    pub upload_idle_us: u64,
    /// Bytes of a log segment.
    pub segment_bytes: u32,
    /// A wrong decision planted into every node.
    pub mutant: Mutant,
    /// How many of the last things that happened are kept for people.
    pub trace_lines: usize,
}

/// Nodes, links, time.
pub struct World {
    /// Chance.
    pub random: Random,
    /// Microseconds.
    pub now_us: u64,
    /// Faults that happened.
    pub counts: Counts,
    /// What messages between nodes suffer.
    pub rates: Rates,
    /// What is checked after every step.
    pub checks: Checks,
    /// The last things that happened.
    pub trace: Trace,
    pub(crate) plan: Plan,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    pub(crate) members: Vec<InitialMember>,
    pub(crate) network: Network,
    pub(crate) events: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    next_buf: u64,
    steps: u64, // within this millisecond
    pub(crate) heard: Vec<Heard>,
    /// Nodes whose log lost entries, and that have them again.
    pub healed: u64,
    /// Images that came to a receiver without bytes, because nobody had them any more.
    pub damaged: u64,
    /// Nodes that began a new life with a new directory.
    pub rejoined: u64,
    /// Rounds of several sectors in the middle of which the power went.
    pub torn_rounds: u64,
    /// Snapshots made or taken over.
    pub snapshots: u64,
    /// Logs that began anew behind a snapshot of another node.
    pub caught_up: u64,
}

impl World {
    /// Empty nodes, all started.
    pub fn new(plan: Plan) -> World {
        let members = (1..=plan.nodes)
            .map(|node| InitialMember {
                node: NodeId(node),
                client_address: format!("node{node}:1"),
                peer_address: format!("node{node}:2"),
            })
            .collect();
        let mut world = World {
            random: Random::new(plan.seed),
            now_us: START_US,
            counts: Counts::default(),
            rates: Rates::default(),
            checks: Checks::new(plan.nodes),
            trace: Trace::new(plan.trace_lines),
            plan,
            nodes: BTreeMap::new(),
            members,
            network: Network::default(),
            events: BTreeMap::new(),
            next_event: 0,
            next_buf: 1,
            steps: 0,
            heard: Vec::new(),
            healed: 0,
            damaged: 0,
            rejoined: 0,
            torn_rounds: 0,
            snapshots: 0,
            caught_up: 0,
        };
        world.after(PULSE_US, Event::Pulse);
        for node in 1..=plan.nodes {
            let is_mapped = world.random.chance(50);
            world.nodes.insert(NodeId(node), Node::new(plan.cores, is_mapped));
            world.start(NodeId(node));
        }
        world
    }

    /// The nodes.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// Cores of each node.
    pub fn cores(&self) -> u16 {
        self.plan.cores
    }

    /// Lets the next event happen and returns what users heard.
    pub fn run(&mut self) -> Vec<Heard> {
        let Some(((at_us, _), event)) = self.events.pop_first() else { return Vec::new() };
        if at_us / 1000 > self.now_us / 1000 {
            self.steps = 0;
        }
        self.now_us = self.now_us.max(at_us);
        self.step_made();
        if let Some((node, start)) = event.of() {
            if !self.is_running(node, start) {
                return Vec::new();
            }
            let until_us = self.nodes[&node].stopped_until_us;
            if until_us > self.now_us {
                self.after(until_us - self.now_us, event);
                return Vec::new();
            }
        }
        self.happen(event);
        std::mem::take(&mut self.heard)
    }

    fn happen(&mut self, event: Event) {
        if !matches!(event, Event::Pulse | Event::Tick { .. } | Event::Closed { .. }) {
            self.trace.add(self.now_us, || format!("{event:?}"));
        }
        match event {
            Event::Pulse => self.after(PULSE_US, Event::Pulse),
            Event::Tick { node, start } => {
                for core in 0..self.plan.cores {
                    // A core may end the process.
                    if self.is_running(node, start) {
                        self.input(Address { node, core: CoreId(core) }, Input::Tick);
                    }
                }
                let wait = self.nodes[&node].clock.real_us(TICK_US);
                self.after(wait, Event::Tick { node, start });
            }
            Event::Input { to, input, start } => {
                let Wire { from, incarnation, link, message, facts, .. } = *input;
                let body = facts.map(|facts| self.new_body(to, facts));
                let dropped = self.dropped(to).filter(|_| matches!(message, PeerMessage::Raft(_)));
                self.input(to, Input::Peer { from, incarnation, link, message, body });
                if dropped.is_some() && dropped == self.dropped(to) {
                    self.checks.taken((to.node, start), from.node, link);
                }
            }
            Event::Done { at, done, .. } => self.finish(at, done),
            Event::Space { node, .. } => {
                let room = Room { free_bytes: self.nodes[&node].room(), files: u64::MAX };
                for core in 0..self.plan.cores {
                    self.input(Address { node, core: CoreId(core) }, Input::Space { room });
                }
            }
            Event::Turn { at, .. } => {
                self.core(at).is_turn_due = false;
                let effects = self.step(at, Input::Turn);
                self.carry_out(at, effects);
            }
            Event::Unreachable { at, node, .. } => self.input(at, Input::PeerUnreachable { node }),
            Event::HungUp { conn, to, .. } => self.input(to, Input::ClientClosed { conn }),
            Event::Reply { conn, reply, facts } => self.hear_reply(conn, *reply, facts),
            Event::Closed { conn } => self.hear_closed(conn),
            Event::Request { conn, request, facts } => self.deliver_request(conn, *request, facts),
        }
    }

    /// The leader that most cores know.
    pub fn leader(&self) -> Option<NodeId> {
        let mut counts: BTreeMap<NodeId, usize> = BTreeMap::new();
        self.up_cores().for_each(|core| *counts.entry(core.shard.leader()).or_default() += 1);
        counts.into_iter().filter(|(node, _)| node.0 != 0).max_by_key(|&(_, count)| count).map(|(node, _)| node)
    }

    /// Messages that a core did not give to raft, if it takes part and runs.
    fn dropped(&self, at: Address) -> Option<Dropped> {
        self.nodes[&at.node].process.as_ref()?[usize::from(at.core.0)].shard.dropped()
    }

    /// Nodes with all of an image's bytes on disk.
    pub fn copies(&self, image: ImageId, fingerprint: Fingerprint) -> Vec<NodeId> {
        let disks = Disks { nodes: &self.nodes };
        let has = |&id: &NodeId| {
            (0..self.plan.cores).any(|core| disks.has(Address { node: id, core: CoreId(core) }, image, fingerprint))
        };
        self.nodes().into_iter().filter(has).collect()
    }

    /// Copies that committed records name and that are not whole on a disk.
    pub fn missing_copies(&self) -> Vec<(Address, ImageId)> {
        let disks = Disks { nodes: &self.nodes };
        let named = self.checks.holders.values();
        let each = named.flat_map(|(image, print, holders)| holders.iter().map(move |at| (*at, *image, *print)));
        each.filter(|&(at, image, print)| !disks.has(at, image, print)).map(|(at, image, _)| (at, image)).collect()
    }

    /// Images whose bytes some core fetches again.
    pub fn repairs(&self) -> u64 {
        self.up_cores().map(|core| core.shard.load().repairs).sum()
    }

    /// What is under way on every core that runs, for people.
    pub fn describe(&self) -> String {
        self.up_cores().map(|core| format!("{:#?}\n", core.shard)).collect()
    }

    /// Cores on which something is under way: uploads passed on, uploads stored, requests, image bytes stored.
    pub fn under_way(&self) -> Vec<[u64; 4]> {
        self.up_cores().map(|core| core.shard.under_way()).filter(|counts| counts.iter().any(|&n| n > 0)).collect()
    }

    pub(crate) fn is_running(&self, node: NodeId, start: u64) -> bool {
        let node = &self.nodes[&node];
        node.start == start && node.process.is_some()
    }

    pub(crate) fn after(&mut self, wait_us: u64, event: Event) {
        self.next_event += 1;
        self.events.insert((self.now_us + wait_us, self.next_event), event);
    }

    /// Gives a core an input and a turn, and everything it tells itself and its sibling cores.
    pub(crate) fn input(&mut self, at: Address, input: Input) {
        let mut inputs = VecDeque::from([(at, input)]);
        let mut touched = BTreeSet::new();
        loop {
            let Some((at, input)) = inputs.pop_front() else {
                let Some(at) = touched.pop_first() else { break };
                if self.puts_off_turn(at) {
                    continue;
                }
                let effects = self.step(at, Input::Turn);
                self.sort(at, effects, &mut inputs);
                if !self.is_up(at.node) {
                    return;
                }
                continue;
            };
            touched.insert(at);
            let effects = self.step(at, input);
            self.sort(at, effects, &mut inputs);
            if !self.is_up(at.node) {
                return;
            }
        }
        self.check(at.node);
    }

    /// A busy core takes further inputs before its turn.
    fn puts_off_turn(&mut self, at: Address) -> bool {
        if !self.plan.is_busy || !self.random.chance(40) {
            return false;
        }
        if !self.core(at).is_turn_due {
            self.core(at).is_turn_due = true;
            let (wait, start) = (self.random.within(10, 300), self.nodes[&at.node].start);
            self.after(wait, Event::Turn { at, start });
        }
        true
    }

    /// Nothing may go round in circles: as many events and inputs within a millisecond are never right.
    fn step_made(&mut self) {
        self.steps += 1;
        assert!(self.steps <= STEPS_MAX, "{STEPS_MAX} events within a millisecond, and no end");
    }

    fn step(&mut self, at: Address, input: Input) -> Vec<Effect> {
        self.step_made();
        let now = self.nodes[&at.node].clock.now(self.now_us);
        let mut effects = Vec::new();
        self.core(at).shard.step(now, input, &mut effects);
        effects
    }

    fn check(&mut self, id: NodeId) {
        self.note_begin(id);
        self.note_healing(id);
        let node = &self.nodes[&id];
        let Some(process) = &node.process else { return };
        let disks = Disks { nodes: &self.nodes };
        self.checks.after_step(id, node.start, &process[0].shard, &disks);
        for core in process {
            self.checks.bounds(id, &core.shard, core.buffers.len());
        }
    }

    pub(crate) fn carry_out(&mut self, at: Address, effects: Vec<Effect>) {
        let mut inputs = VecDeque::new();
        self.sort(at, effects, &mut inputs);
        for (at, input) in inputs {
            self.input(at, input);
        }
    }

    /// Carries out effects; what stays within the node and costs nothing goes to `inputs`.
    fn sort(&mut self, at: Address, effects: Vec<Effect>, inputs: &mut VecDeque<(Address, Input)>) {
        for effect in effects {
            if let Effect::Send { message: PeerMessage::Request { origin, request, body, .. }, .. } = &effect
                && *origin == at
            {
                self.checks.asked(at, *request, body);
            }
            if let Effect::Send { message: PeerMessage::Answer { body: LeaderAnswer::Ready { ready }, .. }, .. } =
                &effect
            {
                let last = ready.iter().map(|receiver| receiver.index).max().unwrap_or_default();
                self.checks.told_ready(at, last, &self.nodes[&at.node].process.as_ref().expect("it runs")[0].shard);
            }
            match effect {
                Effect::Tell { core, note } => {
                    inputs.push_back((Address { node: at.node, core }, Input::Core { from: at.core, note }));
                }
                Effect::Send { to, message, body, .. } if to == at => {
                    let body = body.map(|body| self.hold(at, body));
                    let incarnation = self.nodes[&at.node].lives.incarnation;
                    inputs.push_back((at, Input::Peer { from: at, incarnation, link: 0, message, body }));
                }
                effect => self.effect(at, effect),
            }
        }
    }

    fn effect(&mut self, at: Address, effect: Effect) {
        let done = match effect {
            Effect::Tell { .. } => unreachable!("sorted out"),
            Effect::Send { to, lane, message, body } => return self.send(at, to, lane, message, body),
            Effect::ClientSend { conn, message, body } => {
                let facts = body.map(|body| self.facts(at, body.buf));
                return self.tell_client(conn, Event::Reply { conn, reply: Box::new(message), facts });
            }
            Effect::ClientClose { conn } => return self.tell_client(conn, Event::Closed { conn }),
            Effect::Release { buf } => return self.release(at, buf),
            Effect::ChunkWrite { ticket, extent, buf } => {
                let facts = self.facts(at, buf);
                self.give_credit(buf, facts);
                Done::ChunkWrite { ticket, extent, facts }
            }
            Effect::StoreCommit { ticket, slots, files } => Done::Commit { ticket, slots, files },
            Effect::ChunkRead { ticket, extent, .. } => Done::ChunkRead { ticket, extent },
            Effect::FileCreate { file } => Done::File { file },
            Effect::LogFlush { ticket, drop_from, writes } => Done::Flush { ticket, drop_from, writes },
            Effect::SegmentsRetire { end } => Done::Retire { end },
            Effect::SnapshotWrite { ticket, index, offset, bytes } => {
                Done::Snapshot { ticket, part: SnapshotPart { index, offset, bytes } }
            }
            Effect::SnapshotFinish { ticket, index } => Done::SnapshotFinish { ticket, index },
            Effect::SnapshotRead { ticket, index, offset, length } => {
                Done::SnapshotRead { ticket, index, offset, length }
            }
            Effect::SnapshotRemove { index } => {
                let node = self.nodes.get_mut(&at.node).expect("a known node");
                return node.group.snapshots.remove(index);
            }
            Effect::SegmentPrepare { segment, header } => Done::Segment { segment, header },
            Effect::LogRead { ticket, segment, offset, length } => Done::LogRead { ticket, segment, offset, length },
            Effect::VoteWrite { ticket, sector } => Done::Vote { ticket, sector },
            Effect::IdentityWrite { ticket, bytes } => Done::Identity { ticket, bytes },
            Effect::ClusterKnown { incarnation, .. } => return self.note_life(at.node, incarnation),
            Effect::PeerAddress { .. } => return,
            Effect::Fatal { text } => panic!("{at} gave up: {text}"),
        };
        self.begin(at, done);
    }

    fn release(&mut self, at: Address, buf: BufId) {
        let core = self.core(at);
        let (_, holds) = core.buffers.get_mut(&buf).unwrap_or_else(|| panic!("{at} released {buf:?} too often"));
        *holds -= 1;
        if *holds == 0 {
            let (facts, _) = core.buffers.remove(&buf).expect("it was there a line above");
            self.give_credit(buf, facts);
        }
    }

    pub(crate) fn new_body(&mut self, at: Address, facts: Facts) -> Body {
        let buf = BufId(self.next_buf);
        self.next_buf += 1;
        self.core(at).buffers.insert(buf, (facts, 1));
        Body { buf, length: facts.length, crc32: facts.crc32, crc64: facts.crc64 }
    }

    fn hold(&mut self, at: Address, body: BodyRef) -> Body {
        let entry = self.core(at).buffers.get_mut(&body.buf);
        let (facts, holds) = entry.unwrap_or_else(|| panic!("{at} named {:?} without a hold", body.buf));
        *holds += 1;
        Body { buf: body.buf, length: facts.length, crc32: facts.crc32, crc64: facts.crc64 }
    }

    pub(crate) fn facts(&mut self, at: Address, buf: BufId) -> Facts {
        self.core(at).buffers.get(&buf).unwrap_or_else(|| panic!("{at} named {buf:?} without a hold")).0
    }
}

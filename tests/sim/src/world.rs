//! The world: nodes that crash and come back, links that delay and break, and the users.

use std::collections::{BTreeMap, BTreeSet};

use logic::io::{Body, BodyRef, BufId, ConnId, DiskError, Effect, Input, LogWrite, Now, Ticket};
use logic::limits::TICK_US;
use logic::shard::{ChunkFileStart, InitialMember, Shard, ShardStart};
use proto::client::{ClientReply, ClientRequest};
use proto::ids::{Address, CoreId, Incarnation, NodeId};
use proto::limits::UPLOAD_CREDIT_BYTES;
use proto::peer::{Lane, PeerMessage};

use crate::disk::{CoreDisk, Facts, GroupDisk, empty_table};
use crate::random::Random;
use crate::setup::shard_config;

const START_US: u64 = 1_000_000;
const FS_FREE_BYTES: u64 = 16 << 30;

/// What happens at some time.
#[derive(Debug)]
enum Event {
    Tick { node: NodeId, start: u64 },
    Input { to: Address, start: u64, input: Box<Wire> },
    Done { at: Address, start: u64, done: Done },
    Unreachable { at: Address, start: u64, node: NodeId },
    Reply { conn: ConnId, reply: Box<ClientReply>, facts: Option<Facts> },
    Closed { conn: ConnId },
    Request { conn: ConnId, request: Box<ClientRequest>, facts: Option<Facts> },
}

#[derive(Debug)]
struct Wire {
    from: Address,
    from_start: u64,
    message: PeerMessage,
    facts: Option<Facts>,
}

/// A disk operation that ends.
#[derive(Debug)]
enum Done {
    ChunkWrite { ticket: Ticket, extent: logic::io::Extent, facts: Facts },
    Commit { ticket: Ticket, slots: Vec<(logic::io::FileId, u32, Box<[u8; 512]>)>, files: Vec<logic::io::FileId> },
    ChunkRead { ticket: Ticket, extent: logic::io::Extent },
    File { file: logic::io::FileId },
    Flush { ticket: Ticket, writes: Vec<LogWrite> },
    Segment { segment: logic::io::SegmentId, header: Box<[u8; 512]> },
    LogRead { ticket: Ticket, segment: logic::io::SegmentId, offset: u32, length: u32 },
    Vote { ticket: Ticket, sector: Box<[u8; 512]> },
    Identity { ticket: Ticket, bytes: Vec<u8> },
}

/// A node: its disk outlives its process.
struct Node {
    cores: Vec<CoreDisk>,
    group: GroupDisk,
    process: Option<Vec<Core>>,
    start: u64, // counts the processes
}

struct Core {
    shard: Shard,
    buffers: BTreeMap<BufId, (Facts, u32)>, // with the number of holds of logic
}

/// A client connection as the world sees it.
struct Conn {
    to: Address,
    start: u64,
    open: bool,
    last_us: u64, // of the last event towards the node
    last_back_us: u64,
    credit: u64, // body bytes permitted in all
}

/// What users hear.
#[derive(Debug)]
pub enum Heard {
    /// A node said something.
    Reply(ConnId, ClientReply, Option<Facts>),
    /// The connection is gone.
    Closed(ConnId),
}

/// Nodes, links, time.
pub struct World {
    /// Chance.
    pub random: Random,
    /// Microseconds.
    pub now_us: u64,
    nodes: BTreeMap<NodeId, Node>,
    members: Vec<InitialMember>,
    cores: u16,
    events: BTreeMap<(u64, u64), Event>,
    next_event: u64,
    lanes: BTreeMap<(Address, Address, Lane), u64>, // last arrival, to keep the order of a lane
    conns: BTreeMap<ConnId, Conn>,
    next_conn: u64,
    next_buf: u64,
    uploads: BTreeMap<BufId, ConnId>, // buffers whose bytes count against a sender's credit
    heard: Vec<Heard>,
    cut: BTreeSet<(NodeId, NodeId)>, // from, to: messages are lost
    told_unreachable: BTreeMap<(NodeId, NodeId), u64>,
}

impl World {
    /// `nodes` empty nodes of `cores` cores, all started.
    pub fn new(seed: u64, nodes: u64, cores: u16) -> World {
        let members = (1..=nodes)
            .map(|node| InitialMember {
                node: NodeId(node),
                client_address: format!("node{node}:1"),
                peer_address: format!("node{node}:2"),
            })
            .collect();
        let mut world = World {
            random: Random::new(seed),
            now_us: START_US,
            nodes: BTreeMap::new(),
            members,
            cores,
            events: BTreeMap::new(),
            next_event: 0,
            lanes: BTreeMap::new(),
            conns: BTreeMap::new(),
            next_conn: 1,
            next_buf: 1,
            uploads: BTreeMap::new(),
            heard: Vec::new(),
            cut: BTreeSet::new(),
            told_unreachable: BTreeMap::new(),
        };
        for node in 1..=nodes {
            let cores = (0..cores).map(|_| CoreDisk::default()).collect();
            world.nodes.insert(NodeId(node), Node { cores, group: GroupDisk::default(), process: None, start: 0 });
            world.start(NodeId(node));
        }
        world
    }

    /// Whether the node's process runs.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.nodes[&node].process.is_some()
    }

    /// The nodes.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// Messages from one node to another are lost, or not any more.
    pub fn cut(&mut self, from: NodeId, to: NodeId, is_cut: bool) {
        if is_cut {
            self.cut.insert((from, to));
        } else {
            self.cut.remove(&(from, to));
        }
    }

    /// Everything below a node's log directory is gone.
    pub fn lose_log(&mut self, id: NodeId) {
        let group = &mut self.nodes.get_mut(&id).expect("a known node").group;
        group.segments.clear();
        group.rounds.clear();
    }

    /// Why a node would refuse to start, if it would.
    pub fn refusal_of(&self, id: NodeId) -> Option<String> {
        let group = &self.nodes[&id].group;
        let start = ShardStart { files: Vec::new(), free_bytes: FS_FREE_BYTES, group: Some(group.start()) };
        let config = shard_config(Address { node: id, core: CoreId(0) }, self.cores, &self.members, [0; 4]);
        Shard::new(config, start, Now::default(), &mut Vec::new()).err().map(|error| error.text)
    }

    /// Starts the process of a node. Panics if it refuses: no fault of this world makes a log that needs healing, except
    /// a torn last round whose identifier survived, which is answered with `false`.
    pub fn start(&mut self, id: NodeId) -> bool {
        let node = self.nodes.get_mut(&id).expect("a known node");
        assert!(node.process.is_none());
        node.start += 1;
        let start = node.start;
        let mut process = Vec::new();
        let mut effects = Vec::new();
        for core in 0..self.cores {
            let address = Address { node: id, core: CoreId(core) };
            let config = shard_config(address, self.cores, &self.members, [0; 4].map(|_: u64| self.random.draw()));
            let disk = &node.cores[usize::from(core)];
            let files = disk
                .tables
                .iter()
                .map(|(&file, table)| ChunkFileStart { file, header: Box::new([0; 512]), table: table.clone() })
                .collect();
            let group = (core == 0).then(|| node.group.start());
            let mut out = Vec::new();
            let now = Now { mono_us: self.now_us, wall_ms: self.now_us / 1000 };
            match Shard::new(config, ShardStart { files, free_bytes: FS_FREE_BYTES, group }, now, &mut out) {
                Ok(shard) => process.push(Core { shard, buffers: BTreeMap::new() }),
                Err(error) if error.text.contains("may have lost entries") => return false,
                Err(error) => panic!("{id} does not start: {}", error.text),
            }
            effects.push((Address { node: id, core: CoreId(core) }, out));
        }
        node.process = Some(process);
        node.group.rounds.resize(logic::log::ROUNDS_BYTES as usize, 0);
        for (at, out) in effects {
            self.carry_out(at, out);
        }
        self.after(TICK_US, Event::Tick { node: id, start });
        true
    }

    /// kill -9, or (with `power`) also the loss of what was not synced.
    pub fn crash(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a known node");
        if node.process.take().is_none() {
            return;
        }
        for core in &mut node.cores {
            core.crash(&mut self.random);
        }
        // Disk operations under way end, or not, or in part.
        let under_way: Vec<(u64, u64)> = self
            .events
            .iter()
            .filter(|(_, event)| matches!(event, Event::Done { at, .. } if at.node == id))
            .map(|(&key, _)| key)
            .collect();
        for key in under_way {
            let Some(Event::Done { at, done, .. }) = self.events.remove(&key) else { continue };
            let core = &mut node.cores[usize::from(at.core.0)];
            let happens = self.random.chance(50);
            match done {
                Done::ChunkWrite { extent, facts, .. } if happens => {
                    core.write(extent, facts);
                    core.crash(&mut self.random);
                }
                Done::Commit { slots, files, .. } => {
                    let kept: Vec<_> = slots.into_iter().filter(|_| self.random.chance(50)).collect();
                    let files = if happens { files } else { Vec::new() };
                    core.commit(&kept, &files);
                }
                Done::File { file } if happens => {
                    core.tables.insert(file, empty_table());
                }
                Done::Flush { writes, .. } => node.group.tear(&writes, &mut self.random),
                Done::Vote { sector, .. } if happens => {
                    let copies = node.group.vote.get_or_insert_with(|| [Box::new([0; 512]), Box::new([0; 512])]);
                    copies[0] = sector;
                }
                Done::Identity { bytes, .. } if happens => node.group.identity = Some(bytes),
                _ => {}
            }
        }
        let gone: Vec<ConnId> =
            self.conns.iter().filter(|(_, conn)| conn.to.node == id && conn.open).map(|(&c, _)| c).collect();
        for conn in gone {
            self.conns.get_mut(&conn).expect("listed above").open = false;
            self.after(100, Event::Closed { conn });
        }
    }

    /// A client connects to a core and says hello; what it hears comes by `run`.
    pub fn connect(&mut self, to: Address, hello: ClientRequest) -> ConnId {
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        let open = self.is_up(to.node);
        let start = self.nodes[&to.node].start;
        self.conns.insert(
            conn,
            Conn { to, start, open, last_us: self.now_us, last_back_us: self.now_us, credit: UPLOAD_CREDIT_BYTES },
        );
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
        let Some(state) = self.conns.get_mut(&conn).filter(|state| state.open) else { return };
        state.last_us = (self.now_us + delay).max(state.last_us + 1);
        let wait = state.last_us - self.now_us;
        self.after(wait, Event::Request { conn, request: Box::new(request), facts });
    }

    /// A client hangs up.
    pub fn hang_up(&mut self, conn: ConnId) {
        let Some(state) = self.conns.get_mut(&conn).filter(|state| state.open) else { return };
        state.open = false;
        let (to, start) = (state.to, state.start);
        if self.is_running(to.node, start) {
            self.input(to, Input::ClientClosed { conn });
        }
    }

    /// Lets the next event happen and returns what users heard.
    pub fn run(&mut self) -> Vec<Heard> {
        let Some((&key, _)) = self.events.first_key_value() else { return Vec::new() };
        let event = self.events.remove(&key).expect("it was there a line above");
        self.now_us = self.now_us.max(key.0);
        match event {
            Event::Tick { node, start } if self.is_running(node, start) => {
                for core in 0..self.cores {
                    self.input(Address { node, core: CoreId(core) }, Input::Tick);
                }
                self.after(TICK_US, Event::Tick { node, start });
            }
            Event::Input { to, start, input } if self.is_running(to.node, start) => {
                let Wire { from, from_start, message, facts } = *input;
                let link = if from.node == to.node { 0 } else { from_start };
                let body = facts.map(|facts| self.new_body(to, facts));
                let incarnation = Incarnation(1);
                self.input(to, Input::Peer { from, incarnation, link, message, body });
            }
            Event::Done { at, start, done } if self.is_running(at.node, start) => self.finish(at, done),
            Event::Unreachable { at, start, node } if self.is_running(at.node, start) => {
                self.input(at, Input::PeerUnreachable { node });
            }
            Event::Reply { conn, reply, facts } if self.conns.get(&conn).is_some_and(|state| state.open) => {
                self.heard.push(Heard::Reply(conn, *reply, facts));
            }
            Event::Closed { conn } => {
                if let Some(state) = self.conns.get_mut(&conn) {
                    state.open = false;
                }
                self.heard.push(Heard::Closed(conn));
            }
            Event::Request { conn, request, facts } => self.deliver_request(conn, *request, facts),
            _ => {}
        }
        std::mem::take(&mut self.heard)
    }

    /// What is under way on every core that runs, for people.
    pub fn describe(&self) -> String {
        let cores = self.nodes.values().filter_map(|node| node.process.as_ref()).flatten();
        cores.map(|core| format!("{:#?}\n", core.shard)).collect()
    }

    /// The leader that most cores know.
    pub fn leader(&self) -> Option<NodeId> {
        let cores = self.nodes.values().filter_map(|node| node.process.as_ref()).flatten();
        let mut counts: BTreeMap<NodeId, usize> = BTreeMap::new();
        cores.for_each(|core| *counts.entry(core.shard.leader()).or_default() += 1);
        counts.into_iter().filter(|(node, _)| node.0 != 0).max_by_key(|&(_, count)| count).map(|(node, _)| node)
    }

    /// Cores on which something is under way: uploads passed on, uploads stored, requests, image bytes stored.
    pub fn under_way(&self) -> Vec<[u64; 4]> {
        let cores = self.nodes.values().filter_map(|node| node.process.as_ref()).flatten();
        cores.map(|core| core.shard.under_way()).filter(|counts| counts.iter().any(|&count| count > 0)).collect()
    }

    /// Buffers that logic holds on a core: they must be its cache and what is under way, no more.
    pub fn buffers_held(&self, at: Address) -> usize {
        self.nodes[&at.node].process.as_ref().map_or(0, |cores| cores[usize::from(at.core.0)].buffers.len())
    }

    fn deliver_request(&mut self, conn: ConnId, request: ClientRequest, facts: Option<Facts>) {
        let Some(state) = self.conns.get(&conn).filter(|state| state.open) else { return };
        let (to, start) = (state.to, state.start);
        if !self.is_running(to.node, start) {
            return;
        }
        let body = facts.map(|facts| self.new_body(to, facts));
        if let Some(body) = body {
            self.uploads.insert(body.buf, conn);
        }
        let input = match request {
            ClientRequest::Hello { .. } => Input::ClientOpened { conn, hello: request },
            message => Input::Client { conn, message, body },
        };
        self.input(to, input);
    }

    fn is_running(&self, node: NodeId, start: u64) -> bool {
        self.nodes[&node].start == start && self.is_up(node)
    }

    fn after(&mut self, wait_us: u64, event: Event) {
        self.next_event += 1;
        self.events.insert((self.now_us + wait_us, self.next_event), event);
    }

    /// Gives a core an input and a turn, and everything it tells itself and its sibling cores.
    fn input(&mut self, at: Address, input: Input) {
        let mut inputs = std::collections::VecDeque::from([(at, input)]);
        let mut touched = BTreeSet::new();
        loop {
            let Some((at, input)) = inputs.pop_front() else {
                let Some(at) = touched.pop_first() else { return };
                let effects = self.step(at, Input::Turn);
                self.sort(at, effects, &mut inputs);
                continue;
            };
            touched.insert(at);
            let effects = self.step(at, input);
            self.sort(at, effects, &mut inputs);
        }
    }

    fn step(&mut self, at: Address, input: Input) -> Vec<Effect> {
        let now = Now { mono_us: self.now_us, wall_ms: self.now_us / 1000 };
        let mut effects = Vec::new();
        self.core(at).shard.step(now, input, &mut effects);
        effects
    }

    fn core(&mut self, at: Address) -> &mut Core {
        let node = self.nodes.get_mut(&at.node).expect("a known node");
        &mut node.process.as_mut().expect("the process runs")[usize::from(at.core.0)]
    }

    fn carry_out(&mut self, at: Address, effects: Vec<Effect>) {
        let mut inputs = std::collections::VecDeque::new();
        self.sort(at, effects, &mut inputs);
        for (at, input) in inputs {
            self.input(at, input);
        }
    }

    /// Carries out effects; what stays within the node and costs nothing goes to `inputs`.
    fn sort(&mut self, at: Address, effects: Vec<Effect>, inputs: &mut std::collections::VecDeque<(Address, Input)>) {
        for effect in effects {
            match effect {
                Effect::Tell { core, note } => {
                    inputs.push_back((Address { node: at.node, core }, Input::Core { from: at.core, note }));
                }
                Effect::Send { to, message, body, .. } if to == at => {
                    let body = body.map(|body| self.hold(at, body));
                    inputs
                        .push_back((at, Input::Peer { from: at, incarnation: Incarnation(1), link: 0, message, body }));
                }
                effect => self.effect(at, effect),
            }
        }
    }

    fn effect(&mut self, at: Address, effect: Effect) {
        let start = self.nodes[&at.node].start;
        let done = match effect {
            Effect::Tell { .. } => unreachable!("sorted out"),
            Effect::Send { to, lane, message, body } => return self.send(at, to, lane, message, body),
            Effect::ClientSend { conn, message, body } => {
                let facts = body.map(|body| self.facts(at, body.buf));
                let event = Event::Reply { conn, reply: Box::new(message), facts };
                return self.tell_client(conn, event);
            }
            Effect::ClientClose { conn } => return self.tell_client(conn, Event::Closed { conn }),
            Effect::Release { buf } => {
                let core = self.core(at);
                let (_, holds) =
                    core.buffers.get_mut(&buf).unwrap_or_else(|| panic!("{at} released {buf:?} too often"));
                *holds -= 1;
                if *holds == 0 {
                    let (facts, _) = core.buffers.remove(&buf).expect("it was there a line above");
                    self.give_credit(buf, facts);
                }
                return;
            }
            Effect::ChunkWrite { ticket, extent, buf } => {
                let facts = self.facts(at, buf);
                self.give_credit(buf, facts);
                Done::ChunkWrite { ticket, extent, facts }
            }
            Effect::StoreCommit { ticket, slots, files } => Done::Commit { ticket, slots, files },
            Effect::ChunkRead { ticket, extent, .. } => Done::ChunkRead { ticket, extent },
            Effect::FileCreate { file } => Done::File { file },
            Effect::LogFlush { ticket, writes } => Done::Flush { ticket, writes },
            Effect::SegmentPrepare { segment, header } => Done::Segment { segment, header },
            Effect::LogRead { ticket, segment, offset, length } => Done::LogRead { ticket, segment, offset, length },
            Effect::VoteWrite { ticket, sector } => Done::Vote { ticket, sector },
            Effect::IdentityWrite { ticket, bytes } => Done::Identity { ticket, bytes },
            Effect::ClusterKnown { .. } | Effect::PeerAddress { .. } => return,
            Effect::Fatal { text } => panic!("{at} gave up: {text}"),
        };
        let wait = self.random.within(50, 400);
        self.after(wait, Event::Done { at, start, done });
    }

    fn finish(&mut self, at: Address, done: Done) {
        let node = self.nodes.get_mut(&at.node).expect("a known node");
        let core = &mut node.cores[usize::from(at.core.0)];
        let input = match done {
            Done::ChunkWrite { ticket, extent, facts } => {
                core.write(extent, facts);
                Input::ChunkWritten { ticket }
            }
            Done::Commit { ticket, slots, files } => {
                core.commit(&slots, &files);
                Input::StoreCommitted { ticket }
            }
            Done::ChunkRead { ticket, extent } => {
                let facts = core.read(extent);
                let result = facts.map(|facts| self.new_body(at, facts)).ok_or(DiskError::Unreadable);
                Input::ChunkRead { ticket, result }
            }
            Done::File { file } => {
                core.tables.insert(file, empty_table());
                Input::FileCreated { file, result: Ok(()) }
            }
            Done::Flush { ticket, writes } => {
                node.group.flush(&writes);
                Input::LogFlushed { ticket }
            }
            Done::Segment { segment, header } => {
                let mut bytes = vec![0; 1 << 20];
                bytes[..512].copy_from_slice(&header[..]);
                node.group.segments.insert(segment, bytes);
                Input::SegmentPrepared { segment, result: Ok(()) }
            }
            Done::LogRead { ticket, segment, offset, length } => {
                let bytes = &node.group.segments[&segment][offset as usize..(offset + length) as usize];
                Input::LogRead { ticket, result: Ok(bytes.to_vec()) }
            }
            Done::Vote { ticket, sector } => {
                node.group.vote = Some([sector.clone(), sector]);
                Input::VoteWritten { ticket }
            }
            Done::Identity { ticket, bytes } => {
                node.group.identity = Some(bytes);
                Input::IdentityWritten { ticket }
            }
        };
        self.input(at, input);
    }

    fn send(&mut self, from: Address, to: Address, lane: Lane, message: PeerMessage, body: Option<BodyRef>) {
        let facts = body.map(|body| self.facts(from, body.buf));
        let start = self.nodes[&from.node].start;
        if !self.is_up(to.node) {
            let told = self.told_unreachable.entry((from.node, to.node)).or_insert(0);
            if self.now_us >= *told + 100_000 {
                *told = self.now_us;
                for core in 0..self.cores {
                    let at = Address { node: from.node, core: CoreId(core) };
                    self.after(1000, Event::Unreachable { at, start, node: to.node });
                }
            }
            return;
        }
        if self.cut.contains(&(from.node, to.node)) {
            return;
        }
        let delay = if from.node == to.node { self.random.within(5, 30) } else { self.random.within(50, 600) };
        let last = self.lanes.entry((from, to, lane)).or_insert(0);
        *last = (self.now_us + delay).max(*last + 1);
        let wait = *last - self.now_us;
        let input = Box::new(Wire { from, from_start: start, message, facts });
        let start = self.nodes[&to.node].start;
        self.after(wait, Event::Input { to, start, input });
    }

    /// The bytes left the ingest's memory: their sender may send as many again.
    fn give_credit(&mut self, buf: BufId, facts: Facts) {
        let Some(conn) = self.uploads.remove(&buf) else { return };
        let Some(state) = self.conns.get_mut(&conn) else { return };
        state.credit += u64::from(facts.length);
        let reply = Box::new(ClientReply::Credit { credit: state.credit });
        self.tell_client(conn, Event::Reply { conn, reply, facts: None });
    }

    fn tell_client(&mut self, conn: ConnId, event: Event) {
        let delay = self.random.within(20, 300);
        let Some(state) = self.conns.get_mut(&conn).filter(|state| state.open) else { return };
        state.last_back_us = (self.now_us + delay).max(state.last_back_us + 1);
        let wait = state.last_back_us - self.now_us;
        self.after(wait, event);
    }

    fn new_body(&mut self, at: Address, facts: Facts) -> Body {
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

    fn facts(&mut self, at: Address, buf: BufId) -> Facts {
        self.core(at).buffers.get(&buf).unwrap_or_else(|| panic!("{at} named {buf:?} without a hold")).0
    }
}

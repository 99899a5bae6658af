//! The harness. See `super`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proto::error::Refusal;
use proto::ids::{ClusterId, LogIndex, NodeId};
use proto::peer::{PeerMessage, RaftMessage};
use raft::eraftpb::MessageType;
use raft::{GetEntriesContext, StateRole, Storage};

use super::disk::Disk;
use crate::consensus::manager::{ProposeError, Proposed, RaftManager};
use crate::consensus::random::Random;
use crate::consensus::{Audience, Desk, ManagerConfig, Request, convert};
use crate::io::{DiskError, Effect, LogWrite, Now, SegmentId, Ticket};
use crate::log::layout::SegmentHeader;
use crate::mutant::Mutant;

pub const CLUSTER: ClusterId = ClusterId(7);
pub const SEGMENT_BYTES: u32 = 8192;
pub const SECTOR: usize = 512;

/// What a disk is asked for.
#[derive(Debug)]
pub enum Op {
    Flush(Ticket, Vec<LogWrite>),
    Vote(Ticket, Box<[u8; 512]>),
    Prepare(SegmentId, Box<[u8; 512]>),
    Read(Ticket, SegmentId, u32, u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OpKind {
    Flush,
    Vote,
    Prepare,
    Read,
}

impl Op {
    pub fn kind(&self) -> OpKind {
        match self {
            Op::Flush(..) => OpKind::Flush,
            Op::Vote(..) => OpKind::Vote,
            Op::Prepare(..) => OpKind::Prepare,
            Op::Read(..) => OpKind::Read,
        }
    }
}

/// What the role decided, in words.
#[derive(Default)]
pub struct Notes(pub Vec<String>);

impl Desk for Notes {
    fn forward(&mut self, to: NodeId, request: Request) {
        self.0.push(format!("forward {} to {to}", request.request));
    }

    fn refuse(&mut self, request: Request, refusal: Refusal, _text: &str) {
        self.0.push(format!("refuse {} {refusal:?}", request.request));
    }

    fn admit(&mut self, request: Request) {
        self.0.push(format!("admit {}", request.request));
    }
}

pub struct Node {
    pub manager: Option<RaftManager>,
    pub disk: Disk,
    pub ops: VecDeque<Op>,
    pub desk: Notes,
    /// Highest index handed out in this life.
    pub handed: u64,
    // Terms of what its disk has: the harness's own account, read back after every flush.
    durable: Vec<u64>,
    /// Number of its links to others: a new one after each restart.
    pub link: u64,
    lives: u64,
}

impl Node {
    pub fn up(&mut self) -> &mut RaftManager {
        self.manager.as_mut().unwrap()
    }
}

#[derive(Clone, Debug)]
pub struct Parcel {
    pub from: u64,
    pub to: u64,
    pub link: u64,
    pub message: RaftMessage,
}

pub struct World {
    pub nodes: BTreeMap<u64, Node>,
    pub wire: VecDeque<Parcel>,
    pub now: Now,
    /// Nodes that nobody hears and that hear nobody.
    pub cut: BTreeSet<u64>,
    /// What `settle` leaves undone.
    pub held: BTreeSet<(u64, OpKind)>,
    /// Draws whether a node has its turn after an input; without, after each. Several inputs a turn is what a busy node
    /// does.
    pub turns: Option<Random>,
    /// What nodes that start from now on do wrong.
    pub mutant: Mutant,
    /// Whose commit notices leave with each turn.
    pub audience: Audience,
    /// Every message that ever left a node.
    pub sent: Vec<Parcel>,
    /// What was ever handed out, by index.
    pub chosen: Vec<(u64, Vec<u8>)>,
    voters: Vec<NodeId>,
    learners: Vec<NodeId>,
    seed: u64,
    links: u64,
    // Who led each term, and its log's terms when last seen.
    leaders: BTreeMap<u64, (u64, Vec<u64>)>,
}

impl World {
    /// Nodes 1 to `voters` vote, the `learners` after them do not.
    pub fn new(voters: u64, learners: u64, seed: u64) -> World {
        World::with_segments(voters, learners, seed, SEGMENT_BYTES)
    }

    /// The same with log segments of that size.
    pub fn with_segments(voters: u64, learners: u64, seed: u64, segment_bytes: u32) -> World {
        World::with_mutant(voters, learners, seed, segment_bytes, Mutant::None)
    }

    /// The same with a wrong decision.
    pub fn with_mutant(voters: u64, learners: u64, seed: u64, segment_bytes: u32, mutant: Mutant) -> World {
        let mut world = World {
            nodes: BTreeMap::new(),
            wire: VecDeque::new(),
            now: Now::default(),
            cut: BTreeSet::new(),
            held: BTreeSet::new(),
            turns: None,
            mutant,
            audience: Audience::All,
            sent: Vec::new(),
            chosen: Vec::new(),
            voters: (1..=voters).map(NodeId).collect(),
            learners: (voters + 1..=voters + learners).map(NodeId).collect(),
            seed,
            links: 0,
            leaders: BTreeMap::new(),
        };
        for node in 1..=voters + learners {
            let blank = Node {
                manager: None,
                disk: Disk::empty(segment_bytes),
                ops: VecDeque::new(),
                desk: Notes::default(),
                handed: 0,
                durable: Vec::new(),
                link: 0,
                lives: 0,
            };
            world.nodes.insert(node, blank);
            world.start(node);
        }
        world
    }

    /// With node 1 as leader.
    pub fn elected(voters: u64, learners: u64) -> World {
        let mut world = World::new(voters, learners, 1);
        world.elect(1);
        world
    }

    pub fn node(&mut self, node: u64) -> &mut Node {
        self.nodes.get_mut(&node).unwrap()
    }

    pub fn is_up(&self, node: u64) -> bool {
        self.nodes[&node].manager.is_some()
    }

    /// Starts a node from its disk.
    pub fn start(&mut self, node: u64) {
        let mut replayed = Vec::new();
        let (log, vote) = self.node(node).disk.recover(NodeId(node), |index, term, data| {
            assert_eq!(index.0, replayed.len() as u64 + 1);
            replayed.push((term.0, data.to_vec()));
        });
        assert!(self.chosen.starts_with(&replayed), "node {node} replays what was not chosen");
        let seed = Random::new(self.seed ^ (node << 32) ^ self.nodes[&node].lives).draw();
        let config = ManagerConfig {
            node: NodeId(node),
            voters: self.voters.clone(),
            learners: self.learners.clone(),
            election_ticks_min: 10,
            election_ticks_max: 20,
            heartbeat_ticks: 2,
            seed,
            mutant: self.mutant,
        };
        let applied = LogIndex(replayed.len() as u64);
        self.links += 1;
        let link = self.links;
        let it = self.node(node);
        it.durable = it.disk.terms();
        assert_eq!(log.last_index().unwrap(), it.durable.len() as u64, "what the log recovers is what the disk has");
        it.manager = Some(RaftManager::new(config, log, vote, applied));
        (it.handed, it.link, it.lives) = (applied.0, link, it.lives + 1);
        it.desk = Notes::default();
        self.turn(node);
    }

    /// Ends a node at once. Of a flush under way the first `sectors` are on disk; of a vote the copies up to `copies`.
    pub fn crash(&mut self, node: u64, sectors: usize, copies: usize) {
        let it = self.node(node);
        it.manager = None;
        for op in std::mem::take(&mut it.ops) {
            match op {
                Op::Flush(_, writes) => it.disk.write(&writes, sectors),
                Op::Vote(_, sector) => it.disk.votes.iter_mut().take(copies).for_each(|copy| *copy = sector.clone()),
                Op::Prepare(..) | Op::Read(..) => {}
            }
        }
        it.durable = it.disk.terms();
    }

    /// Lets a node do what it can, and checks what comes out.
    pub fn turn(&mut self, node: u64) {
        let now = self.now;
        loop {
            let it = self.node(node);
            let mut effects = Vec::new();
            it.manager.as_mut().unwrap().turn(now, &mut it.desk, &mut effects);
            effects.into_iter().for_each(|effect| self.carry_out(node, effect));
            let committed = self.node(node).up().take_committed();
            let Some(last) = committed.last().map(|entry| entry.index) else { break };
            for entry in committed {
                self.check_handed_out(node, entry.index.0, entry.term.0, entry.data());
            }
            self.node(node).up().set_applied(last);
        }
        let mut effects = Vec::new();
        let audience = self.audience.clone();
        self.node(node).up().announce(&audience, &mut effects);
        effects.into_iter().for_each(|effect| self.carry_out(node, effect));
        self.check_leader(node);
    }

    fn maybe_turn(&mut self, node: u64) {
        if self.turns.as_mut().is_none_or(|random| random.within(0, 3) == 0) {
            self.turn(node);
        }
    }

    fn carry_out(&mut self, node: u64, effect: Effect) {
        match effect {
            Effect::Send { to, message: PeerMessage::Raft(message), body: None, .. } => {
                assert_eq!((message.from.0, message.to, to.core.0), (node, to.node, 0));
                self.check_promise(node, &message);
                let parcel = Parcel { from: node, to: to.node.0, link: self.nodes[&node].link, message };
                self.sent.push(parcel.clone());
                self.wire.push_back(parcel);
            }
            Effect::LogFlush { ticket, writes, .. } => self.ask(node, Op::Flush(ticket, writes)),
            Effect::VoteWrite { ticket, sector } => self.ask(node, Op::Vote(ticket, sector)),
            Effect::SegmentPrepare { segment, header } => self.ask(node, Op::Prepare(segment, header)),
            Effect::LogRead { ticket, segment, offset, length } => {
                self.ask(node, Op::Read(ticket, segment, offset, length));
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    fn ask(&mut self, node: u64, op: Op) {
        let kind = op.kind();
        let ops = &mut self.node(node).ops;
        assert!(kind == OpKind::Read || ops.iter().all(|op| op.kind() != kind), "second {kind:?} under way");
        ops.push_back(op);
    }

    /// Finishes the first operation of that kind.
    pub fn finish(&mut self, node: u64, kind: OpKind) {
        self.complete(node, kind);
        self.maybe_turn(node);
    }

    /// The same without a turn.
    pub fn complete(&mut self, node: u64, kind: OpKind) {
        let it = self.node(node);
        let op = it.ops.iter().position(|op| op.kind() == kind).and_then(|at| it.ops.remove(at)).unwrap();
        let manager = it.manager.as_mut().unwrap();
        match op {
            Op::Flush(ticket, writes) => {
                assert!(RaftManager::owns(ticket));
                it.disk.write(&writes, usize::MAX);
                it.durable = it.disk.terms();
                manager.on_log_flushed(ticket);
            }
            Op::Vote(ticket, sector) => {
                assert!(RaftManager::owns(ticket));
                it.disk.votes = [sector.clone(), sector];
                manager.on_vote_written(ticket);
            }
            Op::Prepare(segment, header) => {
                let mut bytes = vec![0; SegmentHeader::decode(&header[..]).unwrap().segment_bytes as usize];
                bytes[..SECTOR].copy_from_slice(&header[..]);
                it.disk.segments.insert(segment, bytes);
                manager.on_segment_prepared(segment, Ok(()));
            }
            Op::Read(ticket, segment, offset, length) => {
                let bytes = &it.disk.segments[&segment][offset as usize..(offset + length) as usize];
                manager.on_log_read(ticket, Ok(bytes.to_vec()));
            }
        }
    }

    /// The disk refuses the segment it is asked for.
    pub fn refuse_segment(&mut self, node: u64) {
        let it = self.node(node);
        let at = it.ops.iter().position(|op| op.kind() == OpKind::Prepare).unwrap();
        let Some(Op::Prepare(segment, _)) = it.ops.remove(at) else { unreachable!() };
        it.up().on_segment_prepared(segment, Err(DiskError::NoSpace));
        self.turn(node);
    }

    /// Gives a message to whom it is for, if that one is up and nobody is cut off.
    pub fn deliver(&mut self, parcel: Parcel) {
        let Parcel { from, to, link, message } = parcel;
        if !self.is_up(to) || self.cut.contains(&from) || self.cut.contains(&to) {
            return;
        }
        let now = self.now;
        self.node(to).up().on_message(now, NodeId(from), link, message);
        self.maybe_turn(to);
    }

    pub fn tick(&mut self, node: u64) {
        self.now.mono_us += 10_000;
        if self.is_up(node) {
            let now = self.now;
            self.node(node).up().on_tick(now);
            self.maybe_turn(node);
        }
    }

    pub fn ids(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    /// Delivers and finishes everything, except what is held, until nothing is left.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut idle = true;
            while let Some(parcel) = self.wire.pop_front() {
                idle = false;
                self.deliver(parcel);
            }
            for node in self.ids() {
                for kind in [OpKind::Vote, OpKind::Flush, OpKind::Prepare, OpKind::Read] {
                    let it = &self.nodes[&node];
                    let waits = it.manager.is_some() && it.ops.iter().any(|op| op.kind() == kind);
                    if waits && !self.held.contains(&(node, kind)) {
                        idle = false;
                        self.finish(node, kind);
                    }
                }
            }
            if idle {
                return;
            }
        }
        panic!("never quiet");
    }

    /// Time passes for all nodes, with everything settled in between.
    pub fn pass(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.ids().into_iter().for_each(|node| self.tick(node));
            self.settle();
        }
    }

    /// Only this node's clock runs, until it leads.
    pub fn elect(&mut self, node: u64) {
        self.settle();
        for _ in 0..100 {
            if self.leads(node) {
                return;
            }
            self.tick(node);
            self.settle();
        }
        panic!("node {node} is not elected");
    }

    pub fn leads(&self, node: u64) -> bool {
        self.nodes[&node].manager.as_ref().is_some_and(|manager| manager.raw.raft.state == StateRole::Leader)
    }

    /// Whoever leads the newest term and serves.
    pub fn leader(&self) -> Option<u64> {
        let standing = |node: &u64| self.nodes[node].manager.as_ref().map(RaftManager::state);
        self.ids()
            .into_iter()
            .filter(|n| standing(n).is_some_and(|s| s.serving))
            .max_by_key(|n| standing(n).unwrap().term)
    }

    pub fn propose(&mut self, node: u64, records: &[&str]) -> Result<Proposed, ProposeError> {
        let batch = records.iter().map(|record| record.as_bytes().to_vec()).collect();
        let proposed = self.node(node).up().propose(batch);
        self.maybe_turn(node);
        proposed
    }

    /// What a node was handed out or replayed, empty entries left out.
    pub fn records(&self, node: u64) -> Vec<String> {
        let handed = self.nodes[&node].handed as usize;
        let records = self.chosen[..handed].iter().filter(|(_, data)| !data.is_empty());
        records.map(|(_, data)| String::from_utf8(data.clone()).unwrap()).collect()
    }

    /// Terms of a node's log as its disk has it.
    pub fn durable(&self, node: u64) -> &[u64] {
        &self.nodes[&node].durable
    }

    /// Terms of a node's log as raft sees it.
    pub fn terms(&self, node: u64) -> Vec<u64> {
        let log = &self.nodes[&node].manager.as_ref().unwrap().raw.raft.raft_log;
        (1..=log.last_index()).map(|index| log.term(index).unwrap()).collect()
    }

    pub fn message(&self, kind: MessageType) -> Vec<&Parcel> {
        self.sent.iter().filter(|parcel| parcel.message.kind == convert::number_of(kind)).collect()
    }

    /// Raft paper, figure 2: what a message promises is on stable storage before it leaves.
    fn check_promise(&self, node: u64, message: &RaftMessage) {
        let it = &self.nodes[&node];
        let vote = it.disk.vote_surely(NodeId(node));
        let kind = convert::kind_of(message.kind).unwrap();
        let granted = !message.reject;
        let term = match kind {
            MessageType::MsgRequestPreVote => message.term.0 - 1,
            MessageType::MsgRequestPreVoteResponse if granted => 0,
            _ => message.term.0,
        };
        assert!(vote.term.0 >= term, "node {node} shows term {term}, {} is durable", vote.term);
        let voted = match kind {
            MessageType::MsgRequestVote => NodeId(node),
            MessageType::MsgRequestVoteResponse if granted => message.to,
            _ => vote.voted,
        };
        assert!(
            vote.term > message.term || vote.voted == voted,
            "node {node} shows a vote that is not durable: {message:?}"
        );
        if kind == MessageType::MsgAppendResponse && granted {
            let upto = message.index.0 as usize;
            assert!(it.durable.len() >= upto, "node {node} acknowledges {upto} of {}", it.durable.len());
            if message.term.0 == it.manager.as_ref().unwrap().raw.raft.term {
                assert_eq!(it.durable[..upto], self.terms(node)[..upto], "node {node} acknowledges others");
            }
        }
    }

    /// Raft paper, figure 3, State Machine Safety; section 5.3: committed is what a majority has, here durably.
    fn check_handed_out(&mut self, node: u64, index: u64, term: u64, data: &[u8]) {
        let it = self.node(node);
        assert_eq!(index, it.handed + 1, "handed out in order, each once");
        it.handed = index;
        let at = index as usize - 1;
        assert_eq!(it.durable.get(at), Some(&term), "node {node} hands out {index} before it has it durably");
        match self.chosen.get(at) {
            Some(chosen) => assert_eq!((chosen.0, &chosen.1[..]), (term, data), "two entries chosen for {index}"),
            None => {
                assert_eq!(at, self.chosen.len());
                self.chosen.push((term, data.to_vec()));
            }
        }
        let have = self.voters.iter().filter(|voter| self.nodes[&voter.0].durable.get(at) == Some(&term)).count();
        assert!(have * 2 > self.voters.len(), "{index} handed out while {have} voters have it durably");
    }

    /// Raft paper, figure 3: Election Safety, Leader Completeness, Leader Append-Only.
    fn check_leader(&mut self, node: u64) {
        if !self.leads(node) {
            return;
        }
        let term = self.nodes[&node].manager.as_ref().unwrap().raw.raft.term;
        let log = self.terms(node);
        let chosen = &self.chosen;
        let (leader, before) = self.leaders.entry(term).or_insert_with(|| {
            let complete = log.len() >= chosen.len() && log.iter().zip(chosen).all(|(term, chosen)| *term == chosen.0);
            assert!(complete, "leader {node} of term {term} lacks what was chosen");
            (node, Vec::new())
        });
        assert_eq!(*leader, node, "second leader of term {term}");
        assert!(log.starts_with(before), "leader {node} of term {term} overwrote its log");
        *before = log;
    }

    /// Raft paper, figure 3, Log Matching: two logs with an entry of the same index and term are the same up to it.
    pub fn check_logs_match(&self) {
        for (a, one) in &self.nodes {
            for (b, other) in self.nodes.range(a + 1..) {
                let common = one.durable.iter().zip(&other.durable);
                let upto = common.enumerate().filter(|(_, (x, y))| x == y).fold(0, |_, (at, _)| at + 1);
                assert_eq!(one.durable[..upto], other.durable[..upto], "logs of {a} and {b}");
            }
        }
    }

    /// The data of entry `index` of a node's log.
    pub fn data(&self, node: u64, index: u64) -> Vec<u8> {
        let log = self.nodes[&node].manager.as_ref().unwrap().raw.store();
        log.entries(index, index + 1, None, GetEntriesContext::empty(false)).unwrap()[0].data.to_vec()
    }
}

//! The consensus group's message handling: nothing that a peer sends may stop the process.
//!
//! An input is a script for one voter of three (and a learner): ticks, messages from the other members as they may come
//! off the wire, turns, completions of its disk in any order, proposals, crashes. The rules of `consensus::validate` are
//! reached through `RaftManager::on_message`, by the only way that messages have.
//!
//! Properties: no panic and no fatal error; what leaves keeps the promise of the Raft paper's figure 2: no term, vote or
//! acknowledgement that is not durable; at most one vote a term; committed entries come once, in order, without gap.

use std::collections::VecDeque;

use logic::consensus::{Desk, ManagerConfig, RaftManager, Request};
use logic::io::{Effect, LogWrite, Now, SegmentId, Ticket};
use logic::log::{LogFlush, RecoverError};
use logic::vote::{Healing, Vote};
use proto::error::Refusal;
use proto::ids::{LogIndex, NodeId, Term};
use proto::peer::{PeerMessage, RaftEntry, RaftMessage};

use crate::log::disk::{Disk, STORE};
use crate::log::history::{self, Content};
use crate::script::Script;

const NODE: NodeId = NodeId(1);
const SEGMENT_BYTES: u32 = 16 << 10;
const STEPS_MAX: usize = 300;
// `MessageType` by its number.
const APPEND: u8 = 3;
const APPEND_RESPONSE: u8 = 4;
const REQUEST_VOTE: u8 = 5;
const REQUEST_VOTE_RESPONSE: u8 = 6;
const HEARTBEAT: u8 = 8;
const HEARTBEAT_RESPONSE: u8 = 9;
const REQUEST_PRE_VOTE: u8 = 17;
const REQUEST_PRE_VOTE_RESPONSE: u8 = 18;
const USUAL: [u8; 10] = [
    APPEND,
    APPEND,
    APPEND_RESPONSE,
    REQUEST_VOTE,
    REQUEST_VOTE_RESPONSE,
    HEARTBEAT,
    HEARTBEAT_RESPONSE,
    REQUEST_PRE_VOTE,
    REQUEST_PRE_VOTE_RESPONSE,
    REQUEST_PRE_VOTE_RESPONSE,
];

/// Runs one input.
pub fn check(data: &[u8]) {
    let mut script = Script::new(data);
    let mut node = Node::new(script.byte());
    for _ in 0..STEPS_MAX {
        if script.is_done() {
            break;
        }
        match script.below(16) {
            0 => (0..=script.byte() % 32).for_each(|_| node.manager.on_tick(node.now)),
            1..=5 => node.hear(&mut script),
            6..=8 => node.turn(),
            9 | 10 => node.complete(&mut script),
            11 => node.settle(),
            12 => node.propose(&mut script),
            13 => node.apply(&mut script),
            14 => node.hear_majority(&mut script),
            _ => node.crash(&mut script),
        }
        node.check();
    }
    node.settle();
}

/// Requests of clients are not what this is about.
struct Nobody;

impl Desk for Nobody {
    fn forward(&mut self, _to: NodeId, _request: Request) {}
    fn refuse(&mut self, _request: Request, _refusal: Refusal, _text: &str) {}
    fn admit(&mut self, _request: Request) {}
}

/// What the disk was asked for.
enum Op {
    Flush(Ticket, Vec<LogWrite>),
    Vote(Ticket, Box<[u8; 512]>),
    Prepare(SegmentId, Box<[u8; 512]>),
    Read(Ticket, SegmentId, u32, u32),
}

struct Node {
    manager: RaftManager,
    seed: u64,
    now: Now,
    disk: Disk,
    votes: [Box<[u8; 512]>; 2],
    ops: VecDeque<Op>,
    /// Entries that are durable.
    durable: Content,
    /// Entries that are durable or being flushed: what this node's log has, as far as can be seen from outside.
    written: Content,
    /// Both copies have it.
    vote: Vote,
    /// The last that was asked for.
    vote_asked: Vote,
    /// Last entry that was handed out.
    handed: u64,
    applied: u64,
    committed: u64,
    link: u64,
    /// The newest term in which a message may have replaced entries: a leader of that term contradicts itself.
    replaced: Term,
}

fn started(
    disk: &Disk,
    votes: &[Box<[u8; 512]>; 2],
    seed: u64,
) -> Result<(RaftManager, Content, Vote, u64), RecoverError> {
    let vote = Vote::choose([&votes[0], &votes[1]]).expect("the copies were written one after the other");
    let vote = vote.unwrap_or(Vote { cluster: STORE.cluster, node: NODE, ..Vote::default() });
    let (log, content) = disk.recover(vote.term.0)?;
    let applied = log.commit();
    let mut config = ManagerConfig::new(NODE, seed);
    config.voters = vec![NODE, NodeId(2), NodeId(3)];
    config.learners = vec![NodeId(4)];
    config.election_ticks_min = 10;
    config.election_ticks_max = 20;
    config.heartbeat_ticks = 2;
    Ok((RaftManager::new(config, log, vote, applied), content, vote, applied.0))
}

impl Node {
    /// One that never took part in anything, or one that has an entry of term 1.
    fn new(seed: u8) -> Node {
        let (disk, votes) = if seed % 8 == 7 {
            (Disk::new(SEGMENT_BYTES), [Box::new([0; 512]), Box::new([0; 512])])
        } else {
            let vote = Vote {
                counter: 1,
                term: Term(1),
                voted: NodeId(2),
                cluster: STORE.cluster,
                node: NODE,
                healing: Healing::Whole,
            };
            (Disk::aged(SEGMENT_BYTES), [vote.encode(), vote.encode()])
        };
        let (manager, content, vote, _) = started(&disk, &votes, seed.into()).expect("it was made a moment ago");
        let mut node = Node {
            manager,
            seed: seed.into(),
            now: Now::default(),
            disk,
            votes,
            ops: VecDeque::new(),
            durable: content.clone(),
            written: content,
            vote,
            vote_asked: vote,
            handed: 0,
            applied: 0,
            committed: 0,
            link: 1,
            replaced: Term(0),
        };
        node.settle();
        node
    }

    fn turn(&mut self) {
        self.now.mono_us += 1000;
        let mut effects = Vec::new();
        self.manager.turn(self.now, &mut Nobody, &mut effects);
        for effect in effects {
            match effect {
                Effect::Send { to, message: PeerMessage::Raft(message), .. } => self.check_sent(to.node, &message),
                Effect::LogFlush { ticket, writes, .. } => {
                    self.ops.push_back(Op::Flush(ticket, writes.clone()));
                    let mut whole = self.disk.clone();
                    whole.write(&writes);
                    self.written.clone_from(&self.durable);
                    apply(&mut self.written, &whole, writes);
                }
                Effect::VoteWrite { ticket, sector } => {
                    let vote = Vote::choose([&sector, &[0; 512]]).expect("whole").expect("not zero");
                    let before = self.vote_asked;
                    assert!(vote.counter > before.counter && vote.term >= before.term, "{vote:?} after {before:?}");
                    let is_second = vote.term == before.term && before.voted.0 != 0 && vote.voted != before.voted;
                    assert!(!is_second, "{vote:?} after {before:?}");
                    self.vote_asked = vote;
                    self.ops.push_back(Op::Vote(ticket, sector));
                }
                Effect::SegmentPrepare { segment, header } => self.ops.push_back(Op::Prepare(segment, header)),
                Effect::LogRead { ticket, segment, offset, length } => {
                    self.ops.push_back(Op::Read(ticket, segment, offset, length));
                }
                Effect::Fatal { text } => panic!("a message of a peer ends the process: {text}"),
                other => panic!("{other:?}"),
            }
        }
    }

    /// The Raft paper, figure 2: on stable storage before responding.
    fn check_sent(&self, to: NodeId, m: &RaftMessage) {
        assert!(m.from == NODE && m.to == to && to != NODE);
        assert_eq!(PeerMessage::Raft(m.clone()).check(), Ok(()));
        let vote = self.vote;
        match m.kind {
            REQUEST_PRE_VOTE | REQUEST_PRE_VOTE_RESPONSE => {}
            _ => assert!(m.term <= vote.term, "{m:?} leaves, durable is {vote:?}"),
        }
        match (m.kind, m.reject) {
            (REQUEST_VOTE, _) if vote.term == m.term => assert_eq!(vote.voted, NODE),
            (REQUEST_VOTE_RESPONSE, false) if vote.term == m.term => assert_eq!(vote.voted, to, "{m:?}"),
            // An older term's leader is none any more, as are its entries where newer ones replaced them.
            (APPEND_RESPONSE, false) if vote.term == m.term && self.replaced < m.term => {
                assert!(m.index.0 <= self.durable.len() as u64, "{m:?} with {} durable entries", self.durable.len());
            }
            _ => {}
        }
    }

    /// One completion.
    fn complete(&mut self, script: &mut Script<'_>) {
        if !self.ops.is_empty()
            && let Some(op) = self.ops.remove(script.below(self.ops.len()))
        {
            self.finish(op);
        }
    }

    fn finish(&mut self, op: Op) {
        match op {
            Op::Flush(ticket, writes) => {
                self.disk.write(&writes);
                apply(&mut self.durable, &self.disk, writes);
                self.manager.on_log_flushed(ticket);
            }
            Op::Vote(ticket, sector) => {
                self.vote = Vote::choose([&sector, &[0; 512]]).expect("whole").expect("not zero");
                self.votes = [sector.clone(), sector];
                self.manager.on_vote_written(ticket);
            }
            Op::Prepare(segment, header) => {
                self.disk.prepare(segment, &header);
                self.manager.on_segment_prepared(segment, Ok(()));
            }
            Op::Read(ticket, segment, offset, length) => {
                let bytes = self.disk.segments[&segment.0][offset as usize..][..length as usize].to_vec();
                self.manager.on_log_read(ticket, Ok(bytes));
            }
        }
    }

    /// Turns and completions until nothing is left to do.
    fn settle(&mut self) {
        loop {
            self.turn();
            self.apply_upto(u64::MAX);
            let Some(op) = self.ops.pop_front() else { break };
            self.finish(op);
        }
        self.turn();
        self.check();
    }

    fn propose(&mut self, script: &mut Script<'_>) {
        let batch: Vec<Vec<u8>> = (0..=script.below(3)).map(|_| vec![b'p'; 1 + script.below(200)]).collect();
        let (count, last) = (batch.len() as u64, self.manager.state().last);
        if let Ok(proposed) = self.manager.propose(batch) {
            assert_eq!((proposed.first.0, self.manager.state().last.0), (last.0 + 1, last.0 + count));
        }
    }

    fn apply(&mut self, script: &mut Script<'_>) {
        let upto = self.applied + u64::from(script.byte());
        self.apply_upto(upto);
    }

    fn apply_upto(&mut self, upto: u64) {
        for committed in self.manager.take_committed() {
            assert_eq!(committed.index.0, self.handed + 1, "committed entries come in order");
            self.handed += 1;
            let (term, data) = &self.durable[self.handed as usize - 1];
            assert_eq!((committed.term.0, committed.data()), (*term, &data[..]), "handed out, and another is durable");
        }
        self.applied = upto.clamp(self.applied, self.handed);
        self.manager.set_applied(LogIndex(self.applied));
    }

    /// The process ends in the middle of what it was doing, and starts again.
    fn crash(&mut self, script: &mut Script<'_>) {
        while let Some(op) = self.ops.pop_front() {
            match op {
                Op::Flush(_, writes) => self.disk.write_some(&writes, || script.flag()),
                Op::Vote(_, sector) => match script.below(3) {
                    0 => {}
                    1 => self.votes[0] = sector,
                    _ => self.votes = [sector.clone(), sector],
                },
                Op::Prepare(segment, header) if script.flag() => self.disk.prepare(segment, &header),
                Op::Prepare(..) | Op::Read(..) => {}
            }
        }
        self.seed += 1;
        // What must be healed by others does not start.
        let Ok((manager, content, vote, applied)) = started(&self.disk, &self.votes, self.seed) else {
            *self = Node::new(script.byte());
            return;
        };
        assert!(vote.counter >= self.vote.counter && content.len() >= applied as usize);
        (self.manager, self.vote, self.vote_asked) = (manager, vote, vote);
        (self.handed, self.applied, self.committed) = (applied, applied, applied);
        (self.durable, self.written) = (content.clone(), content);
        // A new life has new links.
        self.link += 1;
    }

    /// What the others answer when they agree: votes, or acknowledgements of all there is.
    fn hear_majority(&mut self, script: &mut Script<'_>) {
        let state = self.manager.state();
        let (kind, term) = match script.below(3) {
            0 => (REQUEST_PRE_VOTE_RESPONSE, Term(state.term.0 + 1)),
            1 => (REQUEST_VOTE_RESPONSE, state.term),
            _ => (APPEND_RESPONSE, state.term),
        };
        for from in [2, 3] {
            let index = if kind == APPEND_RESPONSE { state.last } else { LogIndex(0) };
            self.deliver(RaftMessage { kind, from: NodeId(from), to: NODE, term, index, ..RaftMessage::default() });
        }
    }

    /// Any message, with positions near those that matter.
    fn hear(&mut self, script: &mut Script<'_>) {
        let (state, how) = (self.manager.state(), script.byte());
        let kind = if how == 0xff { script.byte() } else { USUAL[usize::from(how) % USUAL.len()] };
        let from = NodeId(2 + u64::from(script.byte() % 8).min(4) % 4);
        let term = Term(near(script, state.term.0));
        let index = LogIndex(near(script, if kind == APPEND { self.written.len() as u64 } else { state.last.0 }));
        let log_term = Term(self.term_at(script, index.0));
        let mut message = RaftMessage { kind, from, to: NODE, term, index, log_term, ..RaftMessage::default() };
        let flags = script.byte();
        message.reject = flags & 1 == 1;
        if flags & 2 == 2 {
            message.commit = LogIndex(near(script, state.committed.0.max(index.0)));
        }
        if flags & 4 == 4 {
            message.commit_term = Term(self.term_at(script, message.commit.0));
            message.reject_hint = LogIndex(near(script, state.last.0));
        }
        if flags & 8 == 8 {
            message.context = script.bytes(40).to_vec();
            message.priority = i64::from(script.byte() % 3) - 1;
            message.request_snapshot = LogIndex(u64::from(script.byte() / 128));
        }
        if flags & 16 == 16 {
            let mut index = index.0;
            for _ in 0..=script.byte() % 4 {
                index = index.saturating_add(if flags & 32 == 32 { u64::from(script.byte() % 3) } else { 1 });
                let term = Term(self.term_at(script, index));
                message.entries.push(RaftEntry { term, index: LogIndex(index), data: script.bytes(60).to_vec() });
            }
        }
        self.deliver(message);
    }

    /// Mostly the term of an entry that is there; behind the end one near the term of this node.
    fn term_at(&self, script: &mut Script<'_>, index: u64) -> u64 {
        let how = script.byte();
        match self.written.get((index as usize).wrapping_sub(1)) {
            _ if index == 0 && how < 200 => 0,
            Some((term, _)) if how < 200 => *term,
            _ => near(script, self.manager.state().term.0),
        }
    }

    fn deliver(&mut self, message: RaftMessage) {
        // The codec lets nothing else through.
        if PeerMessage::Raft(message.clone()).check().is_err() {
            return;
        }
        let last = self.manager.state().last;
        let replaces = |entry: &RaftEntry| {
            let here = self.written.get((entry.index.0 as usize).wrapping_sub(1));
            entry.index <= last && here.is_none_or(|(term, _)| *term != entry.term.0)
        };
        if message.entries.iter().any(replaces) {
            self.replaced = self.replaced.max(message.term);
        }
        let from = message.from;
        self.manager.on_message(self.now, from, self.link, message);
    }

    fn check(&mut self) {
        let state = self.manager.state();
        assert!(state.committed.0 >= self.committed && state.committed <= state.last, "{state:?}");
        assert!(state.applied.0 == self.applied && self.applied <= self.handed && self.handed <= state.committed.0);
        self.committed = state.committed.0;
    }
}

/// Adds what a flush wrote, which `disk` has.
fn apply(content: &mut Content, disk: &Disk, writes: Vec<LogWrite>) {
    let round = history::round_of(disk, &writes);
    if let Some(round) = round {
        history::apply(content, disk, &LogFlush { round, drop_from: None, writes });
    }
}

/// A number a little off, or any.
fn near(script: &mut Script<'_>, number: u64) -> u64 {
    match script.byte() {
        same @ 0..=99 => number.saturating_add(u64::from(same % 4) / 3),
        off @ 100..=239 => number.saturating_add(u64::from(off - 100) / 28).saturating_sub(2),
        240..=251 => script.number(64),
        _ => script.number(u64::MAX),
    }
}

/// Elections won and lost, entries taken, replaced and proposed, crashes between.
pub fn seeds() -> Vec<Vec<u8>> {
    let elect: &[u8] = &[0, 31, 6, 14, 0, 11, 14, 1, 11];
    let lead: &[u8] = &[12, 1, 100, 150, 11, 14, 2, 11, 0, 3, 6, 12, 0, 9, 6, 9, 0, 14, 2, 11, 13, 9];
    let follow: &[u8] = &[
        1, 0, 0, 3, 0, 0, 18, 0, 1, 0, 5, 97, 97, 97, 97, 97, 0, 3, 98, 98, 98, 6,
        11, // an append with two entries
        1, 5, 0, 0, 0, 0, 2, 0, 6, // a heartbeat
        1, 3, 1, 3, 0, 0, 0, 6, 9, 0, 11, // another asks for a vote
    ];
    let replace: &[u8] = &[1, 0, 1, 3, 100, 0, 16, 0, 0, 3, 99, 99, 99, 6, 9, 0, 6, 11];
    let crash: &[u8] = &[15, 1, 0, 1, 1, 0, 1, 6, 11];
    let odd: &[u8] = &[1, 255, 2, 0, 0, 0, 0, 0, 2, 7, 0, 252, 254, 0, 0, 0, 28, 3, 1, 2, 3, 2, 1, 0, 0, 6];
    [
        [&[1], elect, lead].concat(),
        [&[2], follow, replace, crash, follow].concat(),
        [&[3], elect, lead, follow, replace, elect, lead, crash, elect, lead].concat(),
        [&[4], follow, odd, elect, odd, lead, odd].concat(),
    ]
    .into()
}

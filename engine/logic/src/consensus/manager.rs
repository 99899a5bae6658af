//! `RaftManager`: leader election and log replication of this node, around the crate `raft`.
//!
//! raft decides; this file drives it in the order that the disk demands, once per turn:
//!
//! ```text
//! inputs (ticks, messages, completions, proposals) ... step raft, note what is durable
//! turn:  release Readies that are durable: tell raft, send what they promised
//!        while raft has a Ready: send a leader's messages, append its entries to the log's memory,
//!                                hand out committed entries, put the rest in line (`durability`)
//!        start what the disk may do now: vote write, flush of the log, next segment, read for a lagging follower
//! ```
//!
//! Promises:
//! - a vote, or an acknowledgement of entries, leaves only when it is durable here (Raft paper, figure 2);
//! - the leader's own flush runs beside replication: an entry is committed when a majority has it, with or without the
//!   leader's disk, and handed out when it is also durable here (Ongaro's thesis, section 10.2.1);
//! - committed entries are handed out once each, in order, without gap;
//! - nothing a peer sends can stop the process (`validate`).

mod ahead;
mod hand_over;
mod heal;
mod propose;
mod rot;
mod snapshot;
mod view;

use std::collections::{BTreeMap, BTreeSet};

use proto::ids::{LogIndex, NodeId, Term};
use proto::peer::RaftMessage;
use raft::eraftpb::{ConfState, Entry, MessageType};
use raft::{ProgressState, RawNode, StateRole};

use crate::consensus::convert;
use crate::consensus::durability::Durability;
use crate::consensus::healing::Patient;
use crate::consensus::notices::{Audience, Notices};
use crate::consensus::outgoing;
use crate::consensus::random::Random;
use crate::consensus::report;
use crate::consensus::role::{self, Desk, Follower, Request, Role, RoleKind};
use crate::consensus::settings::{COMMITTED_ENTRIES_MAX, ManagerConfig, raft_config};
use crate::consensus::standing::Dropped;
use crate::consensus::validate::{self, Facts, Invalid};
use crate::io::{DiskError, Effect, Now, SegmentId, Ticket};
use crate::log::{FetchId, Log};
use crate::mutant::Mutant;
use crate::vote::{Healing, Vote};

use self::hand_over::HandOver;

/// Tickets of the manager have this bit, and nobody else's have it: a completion finds its way by `RaftManager::owns`.
pub const TICKET_SPACE: u64 = 1 << 62;
/// Ticks until a segment that the disk refused is asked for again.
const PREPARE_AGAIN_TICKS: u32 = 20;

/// A committed entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// Its place.
    pub index: LogIndex,
    /// The term in which it was proposed: with the index it names a proposal.
    pub term: Term,
    entry: Entry,
}

impl Committed {
    /// The record; empty for the first entry of a term, which changes nothing.
    pub fn data(&self) -> &[u8] {
        &self.entry.data
    }
}

/// Where proposals went: the batch has the indexes from `first` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposed {
    /// If another term's entry is committed at such an index, this proposal is lost.
    pub term: Term,
    /// Index of the first.
    pub first: LogIndex,
}

/// Why nothing of a batch was proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This node does not lead, or does not serve yet.
    #[error("not the leader")]
    NotLeader,
    /// Too many bytes are proposed and not yet committed.
    #[error("too much is not yet committed")]
    Busy,
}

/// The flush under way.
#[derive(Debug)]
struct Flight {
    ticket: Ticket,
    round: u64,
    // It repairs a torn end from before the start and carries no entry.
    mends: bool,
}

/// Leader election and log replication. See the top of this file.
pub struct RaftManager {
    node: NodeId,
    voters: BTreeSet<NodeId>,
    learners: BTreeSet<NodeId>,
    election_ticks: (u64, u64),
    raw: RawNode<Log>,
    random: Random,
    // The election timeout in ticks, and the term and role for which it was drawn.
    timeout: usize,
    timeout_of: Option<(u64, StateRole)>,
    // Newest link heard from each member.
    links: BTreeMap<NodeId, u64>,
    durability: Durability,
    notices: Notices,
    // A tick has passed: they wait no longer.
    notices_due: bool,
    ticket_last: u64,
    vote_ticket: Option<Ticket>,
    flight: Option<Flight>,
    // Reads for lagging followers; the log bounds how many.
    fetches: BTreeMap<Ticket, FetchId>,
    prepare_again_ticks: u32,
    // The read of the scrub, and how much more of it may begin in this tick.
    scrub_ticket: Option<Ticket>,
    scrub_bytes: u32,
    hand_over: HandOver,
    // Handed out by raft, not yet taken. Consecutive; ends at `handed`.
    committed: Vec<Committed>,
    // applied <= handed <= what raft knows to be committed
    handed: LogIndex,
    applied: LogIndex,
    role: Box<dyn Role>,
    // The leader the role was last told of.
    told: Option<NodeId>,
    dropped: Dropped,
    // Until the log has everything again.
    healing: Option<Patient>,
    // A snapshot of another node is about to take the place of everything.
    is_paused: bool,
    config: ManagerConfig,
    mutant: Mutant,
}

impl RaftManager {
    /// Begins with what was recovered: the log, the vote as found (or that of a member that never voted: counter and
    /// term 0), and the entry up to which the state was rebuilt while recovering, which is the log's commit hint.
    ///
    /// The node begins as follower without leader. Its first `turn` writes the vote to both copies again, since a crash
    /// may have left it in one; no message leaves before that.
    pub fn new(config: ManagerConfig, mut log: Log, vote: Vote, applied: LogIndex) -> Self {
        config.check();
        assert_eq!(vote.node, config.node, "the vote is another node's");
        assert_eq!(applied, log.commit(), "recovery applies all that the log says is committed");
        let (voters, learners) = (config.voter_set(), config.learner_set());
        let conf_state = ConfState {
            voters: voters.iter().map(|node| node.0).collect(),
            learners: learners.iter().map(|node| node.0).collect(),
            ..ConfState::default()
        };
        log.set_initial_state(vote.term, vote.voted, conf_state);
        let nonce = config.seed ^ vote.counter.rotate_left(32);
        let healing = (vote.healing != Healing::Whole).then(|| Patient::new(vote.healing, nonce, config.node, &voters));
        let raw = RawNode::new(&raft_config(&config, applied), log, &report::logger())
            .expect("the configuration was checked, and the log answers");
        RaftManager {
            node: config.node,
            voters,
            learners,
            election_ticks: (config.election_ticks_min as u64, config.election_ticks_max as u64),
            raw,
            random: Random::new(config.seed),
            timeout: config.election_ticks_min,
            timeout_of: None,
            links: BTreeMap::new(),
            durability: Durability::new(vote, config.mutant),
            notices: Notices::default(),
            notices_due: false,
            ticket_last: TICKET_SPACE,
            vote_ticket: None,
            flight: None,
            fetches: BTreeMap::new(),
            prepare_again_ticks: 0,
            scrub_ticket: None,
            scrub_bytes: 0,
            hand_over: HandOver::default(),
            committed: Vec::new(),
            handed: applied,
            applied,
            role: Box::new(Follower::default()),
            told: None,
            dropped: Dropped::default(),
            healing,
            is_paused: false,
            mutant: config.mutant,
            config,
        }
    }

    /// Whether this node leads and has applied an entry of its own term.
    pub fn is_serving(&self) -> bool {
        self.raw.raft.state == StateRole::Leader && self.raw.raft.apply_to_current_term()
    }

    /// Whether a completion belongs to this manager.
    pub fn owns(ticket: Ticket) -> bool {
        ticket.0 & TICKET_SPACE != 0
    }

    /// Whether the disk has no room for more log; then proposals that do not fit are busy until it has.
    pub fn is_full(&self) -> bool {
        self.raw.store().is_full()
    }

    /// One tick of time (`limits::TICK_US`).
    pub fn on_tick(&mut self, _now: Now) {
        if !self.takes_part() {
            return;
        }
        if self.is_full() {
            self.prepare_again_ticks += 1;
            if self.prepare_again_ticks >= PREPARE_AGAIN_TICKS {
                self.prepare_again_ticks = 0;
                self.raw.mut_store().retry_prepare();
            }
        }
        if self.voters.len() == 1 && self.raw.raft.state != StateRole::Leader && !self.settled() {
            // The only voter would lead within this tick, and raft asserts that a new leader's log is durable.
            return;
        }
        self.notices_due = true;
        if self.healing.as_ref().is_some_and(|patient| !patient.may_elect(self.extent(), self.extent())) {
            return; // Time makes a follower campaign, and nothing else.
        }
        let is_unfit = self.is_unfit(); // Others are to lead.
        let raft = &mut self.raw.raft;
        let stand = (raft.term, raft.state);
        if self.timeout_of != Some(stand) {
            let (low, high) = self.election_ticks;
            self.timeout = self.random.within(low, high) as usize;
            self.timeout_of = Some(stand);
        }
        // raft draws its own at each change of role; that one must never come to count.
        let longest = self.election_ticks.1 as usize - 1;
        raft.set_randomized_election_timeout(if is_unfit { longest } else { self.timeout });
        self.raw.tick();
        self.hand_over_if_unfit();
        let raft = &self.raw.raft;
        if raft.state != StateRole::Leader && raft.election_elapsed == 0 {
            // It has just campaigned: two nodes that did at the same time must not meet again and again.
            self.timeout_of = None;
        }
        self.observe();
    }

    /// A message of another node's consensus group. `from` and `link` are those of `Input::Peer`.
    pub fn on_message(&mut self, _now: Now, from: NodeId, link: u64, message: RaftMessage) {
        let newest = self.links.get(&from).copied().unwrap_or(0);
        if link < newest && !self.mutant.is(Mutant::OldLink) {
            self.dropped.stale += 1;
            tracing::debug!(node = %self.node, %from, link, newest, "message of an older link dropped");
            return;
        }
        if !self.takes_part() {
            self.dropped.overloaded += 1;
            return;
        }
        let mut message = message;
        if !self.takes_as_it_is(&message) || !self.takes_while_healing(&mut message) {
            self.dropped.stale += 1;
            return;
        }
        match self.check(from, &message) {
            Ok(()) => {}
            Err(invalid) if invalid.is_ordinary() => {
                self.dropped.stale += 1;
                tracing::debug!(node = %self.node, %from, %invalid, "message dropped");
                return;
            }
            Err(Invalid::BeyondLog { index, last })
                if convert::kind_of(message.kind) == Some(MessageType::MsgHeartbeat) =>
            {
                self.dropped.invalid += 1;
                return self.note_loss(from, (index, last));
            }
            Err(invalid) => {
                self.dropped.invalid += 1;
                tracing::warn!(node = %self.node, %from, %invalid, "message refused");
                return;
            }
        }
        // Only members get here, so this map is bounded.
        self.links.insert(from, link);
        let message = convert::from_wire(message).expect("its kind was checked");
        if let Err(error) = self.raw.step(message) {
            tracing::debug!(node = %self.node, %from, %error, "message not taken by raft");
        }
        self.observe();
    }

    /// A connection to that node was refused, or closed and refused again.
    pub fn report_unreachable(&mut self, node: NodeId) {
        if node != self.node && (self.voters.contains(&node) || self.learners.contains(&node)) {
            self.raw.report_unreachable(node.0);
        }
    }

    /// A request for the leader has come, from a core of this node or from another node. The role decides.
    pub fn on_request(&mut self, now: Now, request: Request, desk: &mut dyn Desk) {
        self.tell_leader(desk);
        self.role.on_request(now, request, desk);
    }

    /// Does what can be done now; see the top of this file. Call it once the inputs at hand were given, and again after
    /// committed entries were taken and applied, until `take_committed` gives none. A leader that has just begun to serve
    /// admits the requests it held: propose what the desk got, and call it once more.
    pub fn turn(&mut self, now: Now, desk: &mut dyn Desk, effects: &mut Vec<Effect>) {
        if self.raw.store().needs_mending() {
            // That the log lost entries is durable before anything of it is changed.
            if self.healing.is_none() || self.durability.vote_durable() {
                self.mend(effects);
            } else {
                self.write_vote(effects);
            }
            return;
        }
        if self.is_paused {
            return;
        }
        self.check_healing();
        loop {
            self.release(effects);
            let room = self.durability.has_room() && self.committed.len() < COMMITTED_ENTRIES_MAX;
            if !room || !self.raw.has_ready() {
                break;
            }
            self.take_ready(effects);
        }
        if std::mem::take(&mut self.notices_due) {
            self.announce(&Audience::All, effects);
        }
        self.ask_disk(effects);
        self.tell_leader(desk);
        self.role.on_tick(now, desk);
    }

    /// As leader, tells these followers now how far is committed. The others learn it from the next append, at the
    /// latest after a tick. Call it when what `take_committed` gave is applied and answered.
    pub fn announce(&mut self, audience: &Audience, effects: &mut Vec<Effect>) {
        outgoing::send(self.notices.take(audience), effects);
    }

    /// Committed entries in order, each once. Bounded: `turn` stops at `COMMITTED_ENTRIES_MAX` plus one Ready.
    pub fn take_committed(&mut self) -> Vec<Committed> {
        std::mem::take(&mut self.committed)
    }

    /// Everything up to `index` was applied.
    pub fn set_applied(&mut self, index: LogIndex) {
        assert!(self.applied <= index && index <= self.handed, "{} to {index} of {}", self.applied, self.handed);
        self.applied = index;
        self.raw.advance_apply_to(index.0);
        self.raw.mut_store().set_applied(index.0);
    }

    /// Completion of a `LogFlush` of this manager.
    pub fn on_log_flushed(&mut self, ticket: Ticket) {
        let flight = self.flight.take().expect("a flush is under way");
        assert_eq!(flight.ticket, ticket, "one flush is under way");
        let flushed = self.raw.mut_store().on_flushed(flight.round);
        if !flight.mends {
            self.durability.flushed(flushed.upto.0);
        }
    }

    /// Completion of a `VoteWrite` of this manager.
    pub fn on_vote_written(&mut self, ticket: Ticket) {
        assert_eq!(self.vote_ticket.take(), Some(ticket), "one vote write is under way");
        self.durability.vote_written();
    }

    /// Completion of a `SegmentPrepare` of this manager.
    pub fn on_segment_prepared(&mut self, segment: SegmentId, result: Result<(), DiskError>) {
        self.prepare_again_ticks = 0;
        self.raw.mut_store().on_prepared(segment, result);
        self.note_room(result);
    }

    /// Completion of a `LogRead` of this manager.
    pub fn on_log_read(&mut self, ticket: Ticket, result: Result<Vec<u8>, DiskError>) {
        let bytes = result.as_deref().map_err(|error| *error);
        if self.scrub_ticket == Some(ticket) {
            return self.on_scrub_read(bytes);
        }
        let fetch = self.fetches.remove(&ticket).expect("the read was asked for");
        // What cannot be read back is remembered by the log; whoever lacks it waits for a snapshot.
        let contexts = self.raw.mut_store().on_fetched(fetch, bytes).unwrap_or_default();
        contexts.into_iter().for_each(|context| self.raw.on_entries_fetched(context));
    }

    /// Not while the torn end of the log is being repaired, and not while the disk is so far behind that nothing more may
    /// wait for it: then neither messages nor time reach raft, and the others go on without this node.
    fn takes_part(&self) -> bool {
        self.durability.has_room() && !self.raw.store().needs_mending() && !self.is_paused
    }

    /// Whether term, vote and the whole log are durable, and raft was told so (`release`).
    fn settled(&self) -> bool {
        let raft = &self.raw.raft;
        self.durability.settled()
            && self.durability.is_vote(Term(raft.term), NodeId(raft.vote))
            && raft.raft_log.persisted == raft.raft_log.last_index()
    }

    fn check(&self, from: NodeId, message: &RaftMessage) -> Result<(), Invalid> {
        let raft = &self.raw.raft;
        let facts = Facts {
            node: self.node,
            voters: &self.voters,
            learners: &self.learners,
            role: raft.state,
            term: Term(raft.term),
            leader: (raft.leader_id != 0).then_some(NodeId(raft.leader_id)),
            last: LogIndex(raft.raft_log.last_index()),
            entry_bytes_max: self.raw.store().payload_bytes_max() as usize,
            settled: self.settled(),
        };
        validate::check(message, from, &facts)
    }

    /// Takes over the role that raft has after a step. At each step, so that no transition is missed.
    fn observe(&mut self) {
        let kind = report::kind_of(self.raw.raft.state);
        while self.role.kind() != kind {
            // The only voter of a group becomes candidate and leader within one step.
            let direct = role::may_become(self.role.kind(), kind);
            let next = if direct { kind } else { RoleKind::Candidate };
            let role = std::mem::replace(&mut self.role, Box::new(Follower::default()));
            self.role = role::change(self.node, role, next);
            self.told = None;
        }
        if self.told.is_some_and(|told| told.0 != self.raw.raft.leader_id) {
            self.role.on_leader_lost();
            self.told = None;
        }
    }

    /// Tells the role of a leader it does not know yet. Of this node itself only once it serves.
    fn tell_leader(&mut self, desk: &mut dyn Desk) {
        let leader = NodeId(self.raw.raft.leader_id);
        if leader.0 == 0 || self.told == Some(leader) || (leader == self.node && !self.is_serving()) {
            return;
        }
        tracing::info!(node = %self.node, %leader, term = self.raw.raft.term, "leader known");
        self.told = Some(leader);
        self.role.on_leader_known(leader, desk);
    }

    /// Tells raft what has become durable, and sends what was promised with it.
    fn release(&mut self, effects: &mut Vec<Effect>) {
        while let Some(released) = self.durability.release() {
            self.raw.on_persist_ready(released.number);
            outgoing::send(released.messages, effects);
        }
    }

    fn take_ready(&mut self, effects: &mut Vec<Effect>) {
        let mut ready = self.raw.ready();
        assert!(ready.snapshot().is_empty(), "raft is given no snapshot");
        if let Some(hard) = ready.hs() {
            self.durability.want_vote(Term(hard.term), NodeId(hard.vote));
        }
        let number = ready.number();
        let at_once = outgoing::prepare(ready.take_messages());
        let mut promised = outgoing::prepare(ready.take_persisted_messages());
        if self.durability.vote_durable() {
            let raft = &self.raw.raft;
            let is_in_step = |node: NodeId| {
                raft.prs().get(node.0).is_some_and(|progress| progress.state == ProgressState::Replicate)
            };
            outgoing::send(self.notices.hold(at_once, is_in_step), effects);
        } else {
            // The only voter of a group leads a term before that term is durable; its learners must not see it yet.
            promised.splice(0..0, at_once);
        }
        let entries = ready.take_entries();
        let commit = self.raw.raft.raft_log.committed;
        if !entries.is_empty() {
            let mark = self.raw.mut_store().append(&entries, commit);
            self.durability.add_entries(mark.0);
        }
        self.raw.mut_store().set_commit(commit);
        self.hand_out(ready.take_committed_entries());
        self.raw.advance_append_async(ready);
        self.durability.wait(number, promised);
    }

    fn hand_out(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            assert_eq!(entry.index, self.handed.0 + 1, "committed entries come without gap");
            self.handed = LogIndex(entry.index);
            self.committed.push(Committed { index: self.handed, term: Term(entry.term), entry });
        }
    }

    /// A torn end must be repaired, durably, before anything else happens.
    fn mend(&mut self, effects: &mut Vec<Effect>) {
        if let Some(flush) = self.raw.mut_store().take_flush() {
            tracing::info!(node = %self.node, "repairing the torn end of the log");
            let ticket = self.next_ticket();
            self.flight = Some(Flight { ticket, round: flush.round, mends: true });
            effects.push(Effect::LogFlush { ticket, drop_from: flush.drop_from, writes: flush.writes });
        }
    }

    /// Starts what the disk may do now.
    fn ask_disk(&mut self, effects: &mut Vec<Effect>) {
        self.write_vote(effects);
        if self.durability.may_flush()
            && let Some(flush) = self.raw.mut_store().take_flush()
        {
            self.durability.start_flush();
            let ticket = self.next_ticket();
            self.flight = Some(Flight { ticket, round: flush.round, mends: false });
            effects.push(Effect::LogFlush { ticket, drop_from: None, writes: flush.writes });
        }
        if let Some((segment, header)) = self.raw.mut_store().take_prepare() {
            effects.push(Effect::SegmentPrepare { segment, header });
        }
        while let Some(fetch) = self.raw.mut_store().take_fetch() {
            let ticket = self.next_ticket();
            self.fetches.insert(ticket, fetch.id);
            let (segment, offset, length) = (fetch.segment, fetch.offset, fetch.length);
            effects.push(Effect::LogRead { ticket, segment, offset, length });
        }
        self.ask_scrub(effects);
    }

    fn write_vote(&mut self, effects: &mut Vec<Effect>) {
        if let Some(vote) = self.durability.start_vote() {
            let ticket = self.next_ticket();
            self.vote_ticket = Some(ticket);
            effects.push(Effect::VoteWrite { ticket, sector: vote.encode() });
        }
    }

    fn next_ticket(&mut self) -> Ticket {
        self.ticket_last += 1;
        Ticket(self.ticket_last)
    }
}

#[cfg(test)]
#[path = "manager_test/mod.rs"]
mod tests;

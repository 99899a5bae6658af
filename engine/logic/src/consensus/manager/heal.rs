//! A log that lost entries, in the life of its node and of the others: who is asked what, what is taken, when it is over.
//! Why it is right: `consensus/healing.rs`.

use proto::ids::{LogIndex, NodeId, Term};
use proto::peer::RaftMessage;
use raft::StateRole;
use raft::eraftpb::MessageType;

use super::RaftManager;
use crate::consensus::convert;
use crate::consensus::healing::{Extent, Patient};
use crate::consensus::standing::Standing;
use crate::limits::POSITION_MAX;
use crate::mutant::Mutant;
use crate::vote::Healing;

impl RaftManager {
    /// Whether a message is for a node whose log lost entries. A leader may still believe it to have them.
    pub(super) fn takes_while_healing(&self, message: &mut RaftMessage) -> bool {
        let Some(patient) = &self.healing else { return true };
        match convert::kind_of(message.kind) {
            Some(MessageType::MsgRequestVote | MessageType::MsgRequestPreVote) => {
                // raft would commit by them what is not here.
                (message.commit, message.commit_term) = (LogIndex(0), Term(0));
                patient.may_elect((message.log_term, message.index), self.extent())
                    || self.mutant.is(Mutant::VoteWhileHealing)
            }
            Some(MessageType::MsgTimeoutNow) => patient.may_elect(self.extent(), self.extent()),
            Some(MessageType::MsgHeartbeat) => message.commit.0 <= self.raw.raft.raft_log.last_index(),
            _ => true,
        }
    }

    /// A leader counts on an entry that this node acknowledged and does not have: its log went back to what it was before, as
    /// when somebody puts an old copy in its place. Nothing on disk tells. What is lost is taken from the others like
    /// anything else that is.
    pub(super) fn note_loss(&mut self, leader: NodeId, (counted, last): (LogIndex, LogIndex)) {
        if self.healing.is_some() {
            return;
        }
        tracing::error!(
            node = %self.node, %leader, counted = counted.0, last = last.0,
            "the log lacks entries that this node had acknowledged: was an old copy of it put back? It takes them from the others, \
             and has no vote until then"
        );
        self.durability.want_healing(Healing::Rot);
        let nonce = self.random.within(1, POSITION_MAX);
        self.healing = Some(Patient::new(Healing::Rot, nonce, self.node, &self.voters));
    }

    /// How far the log goes.
    pub(super) fn extent(&self) -> Extent {
        let log = &self.raw.raft.raft_log;
        (Term(log.last_term()), LogIndex(log.last_index()))
    }

    /// A tick has passed: what to ask the other voters, if this node's log lost entries.
    pub fn heal_ask(&mut self) -> Option<(u64, LogIndex, Vec<NodeId>)> {
        let last = LogIndex(self.raw.raft.raft_log.last_index());
        if self.raw.store().needs_mending() {
            return None;
        }
        let committed = LogIndex(self.raw.raft.raft_log.committed);
        let patient = self.healing.as_mut()?;
        if let Some(what) = patient.report(committed) {
            tracing::info!(node = %self.node, "takes what its log lost, and waits: {what}");
        }
        let nonce = patient.on_tick()?;
        Some((nonce, last, patient.others().collect()))
    }

    /// A member's log lost entries, or begins behind a snapshot now: says how things stand here. As leader it sends from
    /// there what it believed that one had, or what it has no more itself.
    pub fn on_heal_ask(&mut self, from: NodeId, last: LogIndex) -> Option<(Standing, Term)> {
        let is_member = self.voters.contains(&from) || self.learners.contains(&from);
        if !is_member || self.raw.store().needs_mending() {
            return None;
        }
        let raft = &mut self.raw.raft;
        let own_last = raft.raft_log.last_index();
        if raft.state == StateRole::Leader
            && let first = raft.raft_log.first_index()
            && let Some(progress) = raft.mut_prs().get_mut(from.0)
            && (progress.matched > last.0 || progress.next_idx < first)
        {
            tracing::info!(node = %self.node, %from, matched = progress.matched, last = last.0, "sends from where its log ends");
            progress.matched = if progress.matched > last.0 { 0 } else { progress.matched };
            progress.become_probe();
            progress.next_idx = own_last.min(last.0) + 1;
        }
        Some((self.state(), self.extent().0))
    }

    /// A voter answered `heal_ask`.
    pub fn on_heal_answer(&mut self, from: NodeId, nonce: u64, term: Term, extent: (Term, LogIndex), leads: bool) {
        if let Some(patient) = &mut self.healing {
            patient.on_answer(from, nonce, term, extent, leads);
        }
    }

    /// Ends the healing when the log has everything again, durably.
    pub(super) fn check_healing(&mut self) {
        let Some(patient) = &self.healing else { return };
        let raft = &self.raw.raft;
        let leader = (raft.leader_id != 0).then_some(NodeId(raft.leader_id));
        let committed = LogIndex(raft.raft_log.committed.min(raft.raft_log.persisted));
        let is_early = self.mutant.is(Mutant::HealTooEarly) && leader.is_some();
        if patient.is_whole(Term(raft.term), leader, committed) || self.is_serving() || is_early {
            self.durability.want_whole();
        }
        if self.durability.healing() == Healing::Whole && self.durability.vote_durable() {
            tracing::info!(node = %self.node, last = raft.raft_log.last_index(), "the log has everything again");
            self.healing = None;
        }
    }
}

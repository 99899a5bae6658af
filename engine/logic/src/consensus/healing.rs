//! A member whose log lost entries (rot, or a last round of which nobody knows whether it was finished) takes part again only
//! when it has everything that it may have acknowledged.
//!
//! raft runs meanwhile, on what is intact, but muted: no vote is given and no campaign begun, since a vote may rest on an
//! entry that this node acknowledged and does not have any more (Raft paper, section 5.4.1). Entries that a leader sends are
//! taken and acknowledged as always: they are durable here again, and say nothing about others.
//!
//! ```text
//! healing node -> every voter: HealAsk      a leader that believes it to have more begins anew from its last entry
//! voter -> healing node: HealAnswer         its term, its last entry, whether it leads
//! ```
//! The log has everything again when this node knows what the leader of its term had at that answer to be committed: whatever
//! was acknowledged here in that term or before and may count is in that leader's log (Leader Completeness, section 5.4.3;
//! a leader's log only grows), and what is committed here equals it.
//!
//! If no leader can be found without it: what was in a last round that was perhaps never finished is on the disk of some
//! other voter, if it was ever committed, as long as no more than a minority is damaged. So when every voter has answered, it
//! votes for logs that go at least as far as the furthest of them, and campaigns if its own does.

use std::collections::{BTreeMap, BTreeSet};

use proto::ids::{LogIndex, NodeId, Term};

use crate::limits::POSITION_MAX;
use crate::vote::Healing;

/// Ticks between two questions.
const ASK_TICKS: u32 = 4;

/// Ticks between two reports of what it waits for.
const REPORT_TICKS: u32 = 200;

/// How far a log goes: a later term is further, then a higher index (Raft paper, section 5.4.1).
pub(super) type Extent = (Term, LogIndex);

/// What is known while a log is healed.
#[derive(Debug)]
pub(super) struct Patient {
    lost: Healing,
    nonce: u64,
    voters: BTreeSet<NodeId>, // the others
    answers: BTreeMap<NodeId, Extent>,
    leader: Option<(NodeId, Term, LogIndex)>, // who leads, and what it had
    ticks: u32,                               // since it began
}

impl Patient {
    /// Of a node whose log lost that.
    pub fn new(lost: Healing, nonce: u64, node: NodeId, voters: &BTreeSet<NodeId>) -> Patient {
        let voters = voters.iter().copied().filter(|other| *other != node).collect();
        Patient { lost, nonce, voters, answers: BTreeMap::new(), leader: None, ticks: 0 }
    }

    /// A tick has passed: the number of the question to ask the others now, if it is time.
    pub fn on_tick(&mut self) -> Option<u64> {
        let is_due = self.ticks.is_multiple_of(ASK_TICKS);
        self.ticks = self.ticks.wrapping_add(1);
        is_due.then_some(self.nonce)
    }

    /// What it waits for, for people, if it is time to say so: the log has that much committed.
    pub fn report(&self, committed: LogIndex) -> Option<String> {
        if self.ticks == 0 || !self.ticks.is_multiple_of(REPORT_TICKS) {
            return None;
        }
        if let Some((leader, _, last)) = self.leader {
            return Some(format!("{leader} leads and had index {last}, here is what is up to {committed}"));
        }
        let silent: Vec<String> =
            self.voters.iter().filter(|voter| !self.answers.contains_key(voter)).map(ToString::to_string).collect();
        Some(match silent.as_slice() {
            [] => "every voter answered, and none leads: the others must elect one of them".to_owned(),
            silent => format!("no leader is known, and nothing was heard of {}: start what is down", silent.join(", ")),
        })
    }

    /// The other voters.
    pub fn others(&self) -> impl Iterator<Item = NodeId> {
        self.voters.iter().copied()
    }

    /// A voter says how far its log goes.
    pub fn on_answer(&mut self, from: NodeId, nonce: u64, term: Term, extent: Extent, leads: bool) {
        let is_sane = [term.0, extent.0.0, extent.1.0].iter().all(|&number| number <= POSITION_MAX);
        if nonce != self.nonce || !self.voters.contains(&from) || !is_sane {
            return;
        }
        let known = self.answers.entry(from).or_insert(extent);
        *known = (*known).max(extent);
        if leads && self.leader.is_none_or(|(leader, known, _)| term > known || (leader, term) != (from, known)) {
            self.leader = Some((from, term, extent.1));
        }
    }

    /// Whether the log has everything again, if this is what its node knows to be committed in that term of that leader.
    pub fn is_whole(&self, term: Term, leader: Option<NodeId>, committed: LogIndex) -> bool {
        self.leader.is_some_and(|(from, of, last)| of == term && leader == Some(from) && committed >= last)
    }

    /// Whether it may vote for a log, its own included, that goes so far.
    pub fn may_elect(&self, extent: Extent, own: Extent) -> bool {
        self.lost == Healing::Uncertain
            && self.answers.len() == self.voters.len()
            && self.answers.values().chain([&own]).all(|known| *known <= extent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patient(lost: Healing) -> Patient {
        Patient::new(lost, 7, NodeId(1), &[NodeId(1), NodeId(2), NodeId(3)].into())
    }

    fn extent(term: u64, index: u64) -> Extent {
        (Term(term), LogIndex(index))
    }

    #[test]
    fn a_log_is_whole_when_what_its_leader_had_is_committed_here() {
        let mut healing = patient(Healing::Rot);
        assert!(!healing.is_whole(Term(3), Some(NodeId(2)), LogIndex(100)));
        healing.on_answer(NodeId(2), 6, Term(3), extent(3, 9), true);
        assert!(!healing.is_whole(Term(3), Some(NodeId(2)), LogIndex(100)), "an answer to an earlier life");
        healing.on_answer(NodeId(2), 7, Term(3), extent(3, 9), true);
        assert!(!healing.is_whole(Term(3), Some(NodeId(2)), LogIndex(8)));
        assert!(healing.is_whole(Term(3), Some(NodeId(2)), LogIndex(9)));
        assert!(!healing.is_whole(Term(4), Some(NodeId(3)), LogIndex(9)), "another leader must say what it has");
        healing.on_answer(NodeId(3), 7, Term(4), extent(4, 12), true);
        assert!(!healing.is_whole(Term(4), Some(NodeId(3)), LogIndex(11)));
        assert!(healing.is_whole(Term(4), Some(NodeId(3)), LogIndex(12)));
    }

    #[test]
    fn a_later_answer_of_the_same_leader_does_not_move_the_goal() {
        let mut healing = patient(Healing::Rot);
        healing.on_answer(NodeId(2), 7, Term(3), extent(3, 9), true);
        healing.on_answer(NodeId(2), 7, Term(3), extent(3, 90), true);
        assert!(healing.is_whole(Term(3), Some(NodeId(2)), LogIndex(9)));
    }

    #[test]
    fn without_a_leader_an_uncertain_node_votes_once_every_voter_has_answered() {
        let mut healing = patient(Healing::Uncertain);
        let own = extent(2, 5);
        healing.on_answer(NodeId(2), 7, Term(3), extent(2, 8), false);
        assert!(!healing.may_elect(extent(2, 8), own));
        healing.on_answer(NodeId(3), 7, Term(3), extent(2, 4), false);
        assert!(healing.may_elect(extent(2, 8), own) && healing.may_elect(extent(3, 1), own));
        assert!(!healing.may_elect(extent(2, 7), own) && !healing.may_elect(own, own));
        let mut rotten = patient(Healing::Rot);
        rotten.on_answer(NodeId(2), 7, Term(3), extent(2, 8), false);
        rotten.on_answer(NodeId(3), 7, Term(3), extent(2, 4), false);
        assert!(!rotten.may_elect(extent(2, 8), own), "what it lost was durable");
    }

    #[test]
    fn whom_it_waits_for_is_said_now_and_then() {
        let mut healing = patient(Healing::Rot);
        assert_eq!(healing.report(LogIndex(4)), None);
        let _ = (0..REPORT_TICKS).filter_map(|_| healing.on_tick()).count();
        healing.on_answer(NodeId(3), 7, Term(3), extent(2, 4), false);
        let said = healing.report(LogIndex(4)).expect("it is time");
        assert!(said.contains("nothing was heard of n2:"), "{said}");
        healing.on_answer(NodeId(2), 7, Term(3), extent(3, 9), true);
        assert_eq!(healing.report(LogIndex(4)).as_deref(), Some("n2 leads and had index 9, here is what is up to 4"));
        healing.on_tick();
        assert_eq!(healing.report(LogIndex(4)), None);
    }
}

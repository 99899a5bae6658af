//! What must be durable before what: the order between term and vote, the log's entries, and the messages that promise
//! them (Raft paper, section 5 and figure 2: "updated on stable storage before responding to RPCs").
//!
//! ```text
//! Ready n ---- term or vote new? ---> vote write (one under way; a newer value overtakes a waiting one)
//!         ---- entries? ------------> log flush  (one under way; starts only while no vote write is owed, so that no
//!         |                                       entry of a term is on disk before the term itself)
//!         +--> waits in order until its vote and its entries are durable --> raft is told, messages leave
//! ```
//!
//! Invariants: `vote_done <= vote.counter`, `entries_done <= entries_added`; Readies are released in their order.

use std::collections::VecDeque;

use proto::ids::{NodeId, Term};
use proto::peer::RaftMessage;

use crate::consensus::settings::WAITING_MAX;
use crate::mutant::Mutant;
use crate::vote::{Healing, Vote};

/// A Ready that was handed to the disk.
#[derive(Debug)]
struct Waiting {
    number: u64,
    // Durable once `vote_done` and `entries_done` have come this far.
    vote: u64,
    entries: u64,
    messages: Vec<RaftMessage>,
}

/// What was asked for and what is done.
#[derive(Debug)]
pub(super) struct Durability {
    // Ascending by number, vote and entries.
    waiting: VecDeque<Waiting>,
    // As raft has it now; its counter names it.
    vote: Vote,
    vote_done: u64,
    vote_writing: Option<u64>,
    // Marks of the log: each append has a higher one. Not indexes, since an entry may be replaced.
    entries_added: u64,
    entries_done: u64,
    flushing: bool,
    mutant: Mutant,
}

/// A released Ready: everything it promised is durable.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Released {
    pub number: u64,
    pub messages: Vec<RaftMessage>,
}

impl Durability {
    /// With `vote` as found on disk. It is owed again, since a crash may have left it in one copy only, and nothing may
    /// depend on that.
    pub fn new(vote: Vote, mutant: Mutant) -> Self {
        Durability {
            waiting: VecDeque::new(),
            vote: vote.next(vote.term, vote.voted),
            vote_done: vote.counter,
            vote_writing: None,
            entries_added: 0,
            entries_done: 0,
            flushing: false,
            mutant,
        }
    }

    /// Term and vote are these now.
    pub fn want_vote(&mut self, term: Term, voted: NodeId) {
        if (term, voted) != (self.vote.term, self.vote.voted) {
            self.vote = self.vote.next(term, voted);
        }
    }

    /// The log has everything again.
    pub fn want_whole(&mut self) {
        if self.vote.healing != Healing::Whole {
            self.vote = Vote { healing: Healing::Whole, ..self.vote.next(self.vote.term, self.vote.voted) };
        }
    }

    /// The log lost entries: durable before anything is voted again.
    pub fn want_healing(&mut self, lost: Healing) {
        self.vote = Vote { healing: lost, ..self.vote.next(self.vote.term, self.vote.voted) };
    }

    /// Term and vote as they were last wanted.
    pub fn vote(&self) -> Vote {
        self.vote
    }

    /// Whether it is durable that the log has everything, or that it lacks something.
    pub fn healing(&self) -> Healing {
        self.vote.healing
    }

    /// Entries were appended to the log's memory.
    pub fn add_entries(&mut self, mark: u64) {
        assert!(mark > self.entries_added, "mark {mark} after {}", self.entries_added);
        self.entries_added = mark;
    }

    /// Puts a Ready in line behind everything wanted and added so far. Its messages leave with it.
    pub fn wait(&mut self, number: u64, messages: Vec<RaftMessage>) {
        assert!(self.waiting.back().is_none_or(|last| last.number < number));
        assert!(self.waiting.len() < WAITING_MAX, "the caller asks whether there is room");
        self.waiting.push_back(Waiting { number, vote: self.vote.counter, entries: self.entries_added, messages });
    }

    /// The next Ready that is durable, in order.
    pub fn release(&mut self) -> Option<Released> {
        let first = self.waiting.front()?;
        let vote_owed = first.vote > self.vote_done && !self.mutant.is(Mutant::VoteBeforeSync);
        let entries_owed = first.entries > self.entries_done && !self.mutant.is(Mutant::AckBeforeSync);
        if vote_owed || entries_owed {
            return None;
        }
        self.waiting.pop_front().map(|first| Released { number: first.number, messages: first.messages })
    }

    /// The vote to write now, if one is owed and none under way.
    pub fn start_vote(&mut self) -> Option<Vote> {
        if self.vote_writing.is_some() || self.vote_durable() {
            return None;
        }
        self.vote_writing = Some(self.vote.counter);
        Some(self.vote)
    }

    /// The vote under way is durable, both copies.
    pub fn vote_written(&mut self) {
        self.vote_done = self.vote_writing.take().expect("a vote write was under way");
        assert!(self.vote_done <= self.vote.counter);
    }

    /// Whether a flush may start: one at a time, and term and vote first.
    pub fn may_flush(&self) -> bool {
        !self.flushing && self.vote_durable() && self.entries_done < self.entries_added
    }

    /// A flush is under way.
    pub fn start_flush(&mut self) {
        assert!(self.may_flush());
        self.flushing = true;
    }

    /// It is finished, and everything up to `mark` is durable. A long append may need several.
    pub fn flushed(&mut self, mark: u64) {
        assert!(self.flushing, "a flush was under way");
        assert!(self.entries_done <= mark && mark <= self.entries_added, "mark {mark} of {}", self.entries_added);
        self.flushing = false;
        self.entries_done = mark;
    }

    /// Whether these are the term and vote that were last wanted.
    pub fn is_vote(&self, term: Term, voted: NodeId) -> bool {
        (term, voted) == (self.vote.term, self.vote.voted)
    }

    /// Whether term and vote are durable as they are now.
    pub fn vote_durable(&self) -> bool {
        self.vote_done == self.vote.counter
    }

    /// Whether nothing is owed to the disk.
    pub fn settled(&self) -> bool {
        (self.vote_durable() || self.mutant.is(Mutant::VoteBeforeSync)) && self.entries_done == self.entries_added
    }

    /// Whether one more Ready can wait.
    pub fn has_room(&self) -> bool {
        self.waiting.len() < WAITING_MAX
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proto::ids::ClusterId;

    use super::*;

    fn started(term: u64, voted: u64) -> Durability {
        let vote = Vote {
            counter: 9,
            term: Term(term),
            voted: NodeId(voted),
            cluster: ClusterId(1),
            node: NodeId(1),
            healing: Healing::Whole,
        };
        let mut durability = Durability::new(vote, Mutant::None);
        assert!(durability.start_vote().is_some());
        durability.vote_written();
        durability
    }

    fn written(durability: &mut Durability) -> Option<(u64, u64)> {
        durability.start_vote().map(|vote| (vote.term.0, vote.voted.0))
    }

    fn released(durability: &mut Durability) -> Vec<u64> {
        std::iter::from_fn(|| durability.release()).map(|ready| ready.number).collect()
    }

    #[test]
    fn ready_without_anything_to_write_waits_behind_earlier_ones() {
        let mut durability = started(1, 0);
        durability.add_entries(1);
        durability.wait(1, Vec::new());
        durability.wait(2, Vec::new());
        assert_eq!(released(&mut durability), []);
        durability.start_flush();
        durability.flushed(1);
        assert_eq!(released(&mut durability), [1, 2]);
        durability.wait(3, Vec::new());
        assert_eq!(released(&mut durability), [3]);
    }

    #[test]
    fn entries_added_while_a_flush_runs_wait_for_the_next_one() {
        let mut durability = started(1, 0);
        durability.add_entries(1);
        durability.wait(1, Vec::new());
        durability.start_flush();
        durability.add_entries(2);
        durability.wait(2, Vec::new());
        assert!(!durability.may_flush());
        durability.flushed(1);
        assert_eq!(released(&mut durability), [1]);
        assert!(durability.may_flush());
        durability.start_flush();
        durability.flushed(2);
        assert_eq!(released(&mut durability), [2]);
        assert!(durability.settled());
    }

    /// Raft paper, figure 2: currentTerm and votedFor are on stable storage before anything that depends on them.
    #[test]
    fn no_flush_starts_while_term_or_vote_is_owed() {
        let mut durability = started(1, 1);
        durability.want_vote(Term(2), NodeId(0));
        durability.add_entries(1);
        durability.wait(1, Vec::new());
        assert!(!durability.may_flush());
        assert_eq!(written(&mut durability), Some((2, 0)));
        assert!(!durability.may_flush());
        durability.vote_written();
        assert!(durability.may_flush());
        assert_eq!(released(&mut durability), []);
    }

    #[test]
    fn vote_that_changed_while_being_written_is_written_again_before_its_message_leaves() {
        let mut durability = started(4, 0);
        durability.want_vote(Term(5), NodeId(2));
        durability.wait(1, Vec::new());
        assert_eq!(written(&mut durability), Some((5, 2)));
        durability.want_vote(Term(6), NodeId(0));
        durability.want_vote(Term(6), NodeId(3));
        durability.wait(2, Vec::new());
        assert_eq!(written(&mut durability), None);
        durability.vote_written();
        assert_eq!(released(&mut durability), [1]);
        assert!(!durability.vote_durable());
        assert_eq!(written(&mut durability), Some((6, 3)));
        durability.vote_written();
        assert_eq!(released(&mut durability), [2]);
        assert_eq!(written(&mut durability), None);
    }

    #[test]
    fn vote_found_at_start_is_written_to_both_copies_before_anything_else() {
        let vote = Vote {
            counter: 9,
            term: Term(3),
            voted: NodeId(2),
            cluster: ClusterId(1),
            node: NodeId(1),
            healing: Healing::Whole,
        };
        let mut durability = Durability::new(vote, Mutant::None);
        durability.wait(1, Vec::new());
        assert_eq!(released(&mut durability), []);
        assert_eq!(durability.start_vote(), Some(Vote { counter: 10, ..vote }));
        durability.vote_written();
        assert_eq!(released(&mut durability), [1]);
    }

    /// Raft paper, section 5.2: at most one vote in a term.
    #[test]
    #[should_panic(expected = "second vote")]
    fn second_vote_in_one_term_stops_the_process() {
        started(4, 1).want_vote(Term(4), NodeId(2));
    }

    #[test]
    #[should_panic(expected = "term 3 after 4")]
    fn falling_term_stops_the_process() {
        started(4, 1).want_vote(Term(3), NodeId(1));
    }
}

//! The gate before raft: raft 0.7 panics on input that a correct peer never sends, so nothing from the wire is stepped
//! before it passed here. Tests prove for most rules that raft does panic without them.
//!
//! A message that passes still may be stale or useless; raft copes with that. A message that is refused is dropped, which
//! raft takes as a loss on the way.

use std::collections::BTreeSet;

use proto::ids::{LogIndex, NodeId, Term};
use proto::limits::{RAFT_ENTRIES_MAX, RAFT_MESSAGE_BYTES_MAX};
use proto::peer::RaftMessage;
use raft::eraftpb::MessageType;
use raft::{CAMPAIGN_TRANSFER, StateRole};

use super::convert;
use crate::limits::POSITION_START_MAX;

/// Bytes of a heartbeat's context. raft uses it for reads only, with a key of ours of at most this size.
pub const CONTEXT_BYTES_MAX: usize = 32;

/// What this node knows of itself, to judge a message against.
#[derive(Debug)]
pub struct Facts<'a> {
    /// This node.
    pub node: NodeId,
    /// Voters, perhaps this node among them.
    pub voters: &'a BTreeSet<NodeId>,
    /// Learners, perhaps this node among them.
    pub learners: &'a BTreeSet<NodeId>,
    /// raft's role.
    pub role: StateRole,
    /// raft's term.
    pub term: Term,
    /// The leader of that term, if known.
    pub leader: Option<NodeId>,
    /// Last entry of the log.
    pub last: LogIndex,
    /// Bytes of data that the log takes in one entry.
    pub entry_bytes_max: usize,
    /// Whether this node's term, vote and whole log are durable; before that its vote request has not left.
    pub settled: bool,
}

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The message names another sender than its link.
    #[error("says it is from {said}, came from {came}")]
    ForeignSender {
        /// Who the message names.
        said: NodeId,
        /// Whose link it came by.
        came: NodeId,
    },
    /// It is for another node.
    #[error("is for {to}")]
    ForeignTarget {
        /// Whom it names.
        to: NodeId,
    },
    /// The sender is no member, or it is this node.
    #[error("sender {from} is no other member")]
    UnknownSender {
        /// Who.
        from: NodeId,
    },
    /// This kind never travels.
    #[error("kind {kind} is not taken from a peer")]
    Kind {
        /// Its number.
        kind: u8,
    },
    /// A learner sends what only a voter sends.
    #[error("kind {kind} from learner {from}")]
    FromLearner {
        /// Its number.
        kind: u8,
        /// Who.
        from: NodeId,
    },
    /// A term or index of 0 where there is one, or above `POSITION_START_MAX`.
    #[error("position {value} is out of range")]
    Position {
        /// The value.
        value: u64,
    },
    /// Entries in a message of a kind that has none.
    #[error("{count} entries in a message of kind {kind}")]
    UnexpectedEntries {
        /// Its number.
        kind: u8,
        /// How many.
        count: usize,
    },
    /// More entries or bytes than one message may have.
    #[error("{count} entries with {bytes} bytes are too many")]
    TooLarge {
        /// Entries.
        count: usize,
        /// Bytes of their data.
        bytes: usize,
    },
    /// An entry that does not fit into the log of this node.
    #[error("entry {index} has {bytes} bytes")]
    EntryTooLarge {
        /// Which.
        index: LogIndex,
        /// Bytes of its data.
        bytes: usize,
    },
    /// The entries are not consecutive from `index + 1`.
    #[error("entry {found} where {expected} must be")]
    Gap {
        /// What had to be there.
        expected: LogIndex,
        /// What is there.
        found: LogIndex,
    },
    /// A term below that of the entry before, or above that of the message.
    #[error("entry term {found} is not within {low} to {high}")]
    EntryTerm {
        /// Term of the entry before.
        low: Term,
        /// Term of the message.
        high: Term,
        /// What is there.
        found: Term,
    },
    /// Index 0 has term 0, and no other has.
    #[error("entry {index} cannot have term {term}")]
    TermOfIndex {
        /// The index.
        index: LogIndex,
        /// The term.
        term: Term,
    },
    /// A leader commits, or a follower acknowledges, what this node does not have.
    #[error("position {index} is behind the last entry {last}")]
    BeyondLog {
        /// What the message says.
        index: LogIndex,
        /// Last entry here.
        last: LogIndex,
    },
    /// Two leaders in one term.
    #[error("{from} claims to lead {term}, whose leader is {leader}")]
    SecondLeader {
        /// The sender.
        from: NodeId,
        /// The term.
        term: Term,
        /// Whom this node knows.
        leader: NodeId,
    },
    /// Snapshots are not served yet.
    #[error("asks for a snapshot")]
    Snapshot,
    /// A priority: all nodes have the same.
    #[error("priority {priority}")]
    Priority {
        /// The value.
        priority: i64,
    },
    /// A context that is too long, or in a message of a kind that has none.
    #[error("context of {length} bytes")]
    Context {
        /// Bytes.
        length: usize,
    },
    /// A granted vote that this node has not asked for in this term. Late copies are ordinary.
    #[error("vote for {term} was not asked for")]
    VoteNotAsked {
        /// Its term.
        term: Term,
    },
}

impl Invalid {
    /// Whether correct peers on a network that delays and repeats may cause it.
    pub fn is_ordinary(self) -> bool {
        matches!(self, Invalid::VoteNotAsked { .. })
    }
}

/// Judges a message that came by a link from `came`.
pub fn check(message: &RaftMessage, came: NodeId, facts: &Facts<'_>) -> Result<(), Invalid> {
    let kind = convert::kind_of(message.kind).ok_or(Invalid::Kind { kind: message.kind })?;
    check_parties(message, kind, came, facts)?;
    check_numbers(message)?;
    check_attachments(message, kind)?;
    match kind {
        MessageType::MsgAppend => {
            check_leader(message, facts)?;
            check_term_of_index(message.index, message.log_term)?;
            check_entries(message, facts.entry_bytes_max)
        }
        MessageType::MsgTimeoutNow => check_leader(message, facts),
        MessageType::MsgHeartbeat => {
            check_leader(message, facts)?;
            // The leader clamps it to what this node acknowledged. raft: "to_commit out of range".
            // A message of an older term is answered by raft without reading it.
            require(message.term < facts.term || message.commit <= facts.last, || Invalid::BeyondLog {
                index: message.commit,
                last: facts.last,
            })
        }
        MessageType::MsgAppendResponse => {
            // The leader would send on from there, and the follower would panic.
            let counts = facts.role == StateRole::Leader && message.term == facts.term && !message.reject;
            require(!counts || message.index <= facts.last, || Invalid::BeyondLog {
                index: message.index,
                last: facts.last,
            })
        }
        MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => {
            check_term_of_index(message.index, message.log_term)?;
            check_term_of_index(message.commit, message.commit_term)?;
            check_entry_term(Term(0), message.term, message.log_term)?;
            // raft: "term should be set when sending", if a fresh node rejects.
            require(message.priority == 0, || Invalid::Priority { priority: message.priority })
        }
        MessageType::MsgRequestVoteResponse => {
            check_term_of_index(message.commit, message.commit_term)?;
            // raft asserts that a new leader's log is durable.
            let counts = facts.role == StateRole::Candidate && message.term == facts.term && !message.reject;
            require(!counts || facts.settled, || Invalid::VoteNotAsked { term: message.term })
        }
        MessageType::MsgRequestPreVoteResponse => {
            check_term_of_index(message.commit, message.commit_term)?;
            // raft counts a granted pre-vote whatever its term is.
            let counts = facts.role == StateRole::PreCandidate && !message.reject;
            require(!counts || message.term.0 == facts.term.0 + 1, || Invalid::VoteNotAsked { term: message.term })
        }
        _ => Ok(()),
    }
}

fn require(holds: bool, otherwise: impl FnOnce() -> Invalid) -> Result<(), Invalid> {
    if holds { Ok(()) } else { Err(otherwise()) }
}

/// Who may say this to whom.
fn check_parties(message: &RaftMessage, kind: MessageType, came: NodeId, facts: &Facts<'_>) -> Result<(), Invalid> {
    let from = message.from;
    require(from == came, || Invalid::ForeignSender { said: from, came })?;
    require(message.to == facts.node, || Invalid::ForeignTarget { to: message.to })?;
    let voter = facts.voters.contains(&from);
    require(from != facts.node && (voter || facts.learners.contains(&from)), || Invalid::UnknownSender { from })?;
    let voters_only = match kind {
        MessageType::MsgAppend
        | MessageType::MsgHeartbeat
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVoteResponse
        | MessageType::MsgTimeoutNow => true,
        MessageType::MsgAppendResponse | MessageType::MsgHeartbeatResponse => false,
        // Local ones, proposals (a follower would forward them silently), snapshots, a follower's wish to lead and reads by
        // index (neither is used).
        _ => return Err(Invalid::Kind { kind: message.kind }),
    };
    require(voter || !voters_only, || Invalid::FromLearner { kind: message.kind, from })
}

/// raft takes a term of 0 as "a message of this node itself", and adds to numbers without looking for overflow; what it
/// comes to must be readable when it was on disk.
fn check_numbers(message: &RaftMessage) -> Result<(), Invalid> {
    require(message.term.0 != 0, || Invalid::Position { value: 0 })?;
    for value in [
        message.term.0,
        message.log_term.0,
        message.index.0,
        message.commit.0,
        message.commit_term.0,
        message.reject_hint.0,
    ] {
        require(value <= POSITION_START_MAX, || Invalid::Position { value })?;
    }
    Ok(())
}

/// Entries, context and flags only where they belong.
fn check_attachments(message: &RaftMessage, kind: MessageType) -> Result<(), Invalid> {
    require(message.request_snapshot.0 == 0, || Invalid::Snapshot)?;
    let count = message.entries.len();
    require(count == 0 || kind == MessageType::MsgAppend, || Invalid::UnexpectedEntries { kind: message.kind, count })?;
    let bytes = message.entries.iter().map(|entry| entry.data.len()).sum();
    require(count <= RAFT_ENTRIES_MAX && bytes <= RAFT_MESSAGE_BYTES_MAX, || Invalid::TooLarge { count, bytes })?;
    // In a vote request it says "vote although you have a leader", whose wish it is.
    let hands_over = kind == MessageType::MsgRequestVote && message.context == CAMPAIGN_TRANSFER;
    let beats = matches!(kind, MessageType::MsgHeartbeat | MessageType::MsgHeartbeatResponse);
    let length = message.context.len();
    require(length == 0 || hands_over || (beats && length <= CONTEXT_BYTES_MAX), || Invalid::Context { length })
}

/// At most one leader per term (Raft paper, section 5.2).
fn check_leader(message: &RaftMessage, facts: &Facts<'_>) -> Result<(), Invalid> {
    match facts.leader {
        Some(leader) if message.term == facts.term && leader != message.from => {
            Err(Invalid::SecondLeader { from: message.from, term: message.term, leader })
        }
        _ => Ok(()),
    }
}

/// raft says term 0 of whatever it does not have, so that a message with term 0 would match behind the end of the log.
fn check_term_of_index(index: LogIndex, term: Term) -> Result<(), Invalid> {
    require((index.0 == 0) == (term.0 == 0), || Invalid::TermOfIndex { index, term })
}

fn check_entry_term(low: Term, high: Term, found: Term) -> Result<(), Invalid> {
    require(low <= found && found <= high, || Invalid::EntryTerm { low, high, found })
}

/// Consecutive, from `index + 1`, with terms that ascend to at most the leader's (Raft paper, section 5.3).
fn check_entries(message: &RaftMessage, bytes_max: usize) -> Result<(), Invalid> {
    check_entry_term(Term(0), message.term, message.log_term)?;
    let mut before = (message.index, message.log_term);
    for entry in &message.entries {
        let expected = LogIndex(before.0.0 + 1);
        require(entry.index == expected, || Invalid::Gap { expected, found: entry.index })?;
        require(entry.term.0 != 0, || Invalid::TermOfIndex { index: entry.index, term: entry.term })?;
        check_entry_term(before.1, message.term, entry.term)?;
        let bytes = entry.data.len();
        require(bytes <= bytes_max, || Invalid::EntryTooLarge { index: entry.index, bytes })?;
        before = (entry.index, entry.term);
    }
    Ok(())
}

#[cfg(test)]
#[path = "validate_test.rs"]
mod tests;

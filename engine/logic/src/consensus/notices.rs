//! Commit notices: appends without entries, by which a leader only says how far is committed.
//!
//! The next append says the same. So a notice waits until somebody at its node is known to wait for the commit, or an
//! append with entries makes it needless, or a tick has passed. Without this each commit of a leader with little to do
//! costs two more messages and two more wake-ups a follower, at the moment when the next request comes
//! (engine/notes/007 has the figures).
//!
//! Holding a message back is for raft a slow link; leaving out one that a later append repeats is a lost message.

use std::collections::{BTreeMap, BTreeSet};

use proto::ids::NodeId;
use proto::peer::RaftMessage;

use crate::consensus::outgoing::is_append;

/// Whose notices leave.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Audience {
    /// Nobody's: they can wait for a tick.
    #[default]
    Nobody,
    /// Of these nodes.
    Some(BTreeSet<NodeId>),
    /// Of every node.
    All,
}

impl Audience {
    /// That node, too.
    pub fn add(&mut self, node: NodeId) {
        match self {
            Audience::Nobody => *self = Audience::Some(BTreeSet::from([node])),
            Audience::Some(nodes) => {
                nodes.insert(node);
            }
            Audience::All => {}
        }
    }
}

/// The newest notice of each node that was held back. Bounded by the members.
#[derive(Debug, Default)]
pub(super) struct Notices {
    held: BTreeMap<NodeId, RaftMessage>,
}

impl Notices {
    /// Of messages on their way out, gives those that leave now, in order, and holds the notices back. Only those to a
    /// follower that is known to be in step (`is_in_step`): to any other an empty append is a question.
    pub fn hold(&mut self, messages: Vec<RaftMessage>, is_in_step: impl Fn(NodeId) -> bool) -> Vec<RaftMessage> {
        let mut leaving = Vec::with_capacity(messages.len());
        for message in messages {
            let is_notice = is_append(&message) && message.entries.is_empty() && is_in_step(message.to);
            if is_notice {
                self.held.insert(message.to, message);
            } else {
                if is_append(&message) {
                    self.held.remove(&message.to);
                }
                leaving.push(message);
            }
        }
        leaving
    }

    /// Takes what leaves now.
    pub fn take(&mut self, audience: &Audience) -> Vec<RaftMessage> {
        match audience {
            Audience::Nobody => Vec::new(),
            Audience::Some(nodes) => nodes.iter().filter_map(|node| self.held.remove(node)).collect(),
            Audience::All => std::mem::take(&mut self.held).into_values().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::ids::{LogIndex, Term};
    use proto::peer::RaftEntry;
    use raft::eraftpb::MessageType;

    use super::*;
    use crate::consensus::convert;

    fn message(kind: MessageType, to: u64, commit: u64, entries: u64) -> RaftMessage {
        let entries = (1..=entries).map(|index| RaftEntry { index: LogIndex(index), term: Term(1), data: vec![1] });
        let (kind, to) = (convert::number_of(kind), NodeId(to));
        RaftMessage { kind, to, commit: LogIndex(commit), entries: entries.collect(), ..RaftMessage::default() }
    }

    fn seen(messages: &[RaftMessage]) -> Vec<(u64, u64, usize)> {
        messages.iter().map(|message| (message.to.0, message.commit.0, message.entries.len())).collect()
    }

    #[test]
    fn notice_waits_for_its_audience_and_only_the_newest_is_kept() {
        use MessageType::MsgAppend;
        let mut notices = Notices::default();
        let first = vec![message(MsgAppend, 2, 5, 0), message(MsgAppend, 3, 5, 0), message(MsgAppend, 4, 5, 0)];
        assert_eq!(seen(&notices.hold(first, |_| true)), []);
        assert_eq!(seen(&notices.hold(vec![message(MsgAppend, 2, 6, 0)], |_| true)), []);
        assert_eq!(seen(&notices.take(&Audience::Nobody)), []);
        let mut audience = Audience::default();
        for node in [2, 2, 3, 2, 9] {
            audience.add(NodeId(node));
        }
        assert_eq!(seen(&notices.take(&audience)), [(2, 6, 0), (3, 5, 0)]);
        audience = Audience::All;
        audience.add(NodeId(2));
        assert_eq!(seen(&notices.take(&audience)), [(4, 5, 0)]);
        assert_eq!(seen(&notices.take(&Audience::All)), []);
    }

    #[test]
    fn append_with_entries_replaces_the_notice_to_its_node() {
        use MessageType::{MsgAppend, MsgHeartbeat};
        let mut notices = Notices::default();
        notices.hold(vec![message(MsgAppend, 2, 5, 0), message(MsgAppend, 3, 5, 0)], |_| true);
        let next = vec![message(MsgHeartbeat, 3, 5, 0), message(MsgAppend, 2, 6, 2)];
        assert_eq!(seen(&notices.hold(next, |_| true)), [(3, 5, 0), (2, 6, 2)]);
        assert_eq!(seen(&notices.take(&Audience::All)), [(3, 5, 0)]);
    }

    #[test]
    fn empty_append_to_a_follower_out_of_step_leaves_at_once() {
        let mut notices = Notices::default();
        let sent = notices.hold(vec![message(MessageType::MsgAppend, 2, 5, 0)], |_| false);
        assert_eq!(seen(&sent), [(2, 5, 0)]);
    }
}

//! raft's messages on their way out: what is superseded stays, what is too long is cut, the rest goes to core 0 of its node.

use std::collections::BTreeSet;

use proto::ids::{Address, CoreId, NodeId};
use proto::limits::RAFT_ENTRIES_MAX;
use proto::peer::{Lane, PeerMessage, RaftMessage};
use raft::eraftpb::{Message, MessageType};

use crate::consensus::convert;
use crate::io::Effect;

/// Prepares what raft wants to send in one Ready, in order.
///
/// An append without entries only says how far is committed; if a later append to the same node follows at once, that
/// one says it as well. Leaving it out is for raft a message lost on the way.
///
/// raft bounds an append by bytes only; one with too many small entries becomes several, as if raft had sent several.
pub(super) fn prepare(messages: Vec<Message>) -> Vec<RaftMessage> {
    let mut followed = BTreeSet::new();
    let mut prepared = Vec::with_capacity(messages.len());
    for message in messages.into_iter().rev() {
        if message.get_msg_type() != MessageType::MsgAppend {
            prepared.push(convert::to_wire(message));
            continue;
        }
        let last = followed.insert(message.to);
        if last || !message.entries.is_empty() {
            cut(convert::to_wire(message), RAFT_ENTRIES_MAX, &mut prepared);
        }
    }
    prepared.reverse();
    prepared
}

/// Cuts an append so that no part has more than `entries_max` entries; the parts go to `parts`, the last one first.
fn cut(mut message: RaftMessage, entries_max: usize, parts: &mut Vec<RaftMessage>) {
    while message.entries.len() > entries_max {
        let begin = (message.entries.len() - 1) / entries_max * entries_max;
        let entries = message.entries.split_off(begin);
        let before = message.entries.last().expect("begin is at least entries_max");
        let (index, log_term) = (before.index, before.term);
        parts.push(RaftMessage { index, log_term, entries, context: message.context.clone(), ..message });
    }
    parts.push(message);
}

/// Whether it carries entries, or could.
pub(super) fn is_append(message: &RaftMessage) -> bool {
    message.kind == convert::number_of(MessageType::MsgAppend)
}

/// Sends them.
pub(super) fn send(messages: Vec<RaftMessage>, effects: &mut Vec<Effect>) {
    effects.extend(messages.into_iter().map(|message| Effect::Send {
        to: group_address(message.to),
        lane: Lane::Control,
        message: PeerMessage::Raft(message),
        body: None,
    }));
}

/// Where a node's consensus group lives.
pub(super) fn group_address(node: NodeId) -> Address {
    Address { node, core: CoreId(0) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proto::ids::{LogIndex, Term};
    use proto::peer::RaftEntry;

    use super::*;

    fn message(kind: MessageType, to: u64, commit: u64, entries: u64) -> Message {
        let entries = (1..=entries)
            .map(|index| RaftEntry { index: LogIndex(index), term: Term(1 + index / 3), data: vec![1] })
            .collect();
        let to = NodeId(to);
        let kind = convert::number_of(kind);
        convert::from_wire(RaftMessage { kind, to, commit: LogIndex(commit), entries, ..RaftMessage::default() })
            .unwrap()
    }

    #[test]
    fn append_that_only_commits_gives_way_to_a_later_append_to_the_same_node() {
        use MessageType::{MsgAppend, MsgHeartbeat};
        let prepared = prepare(vec![
            message(MsgAppend, 2, 5, 0),
            message(MsgAppend, 3, 5, 0),
            message(MsgHeartbeat, 2, 5, 0),
            message(MsgAppend, 2, 6, 0),
            message(MsgAppend, 2, 6, 2),
            message(MsgHeartbeat, 2, 6, 0),
            message(MsgAppend, 4, 6, 1),
            message(MsgAppend, 4, 7, 0),
        ]);
        let kept: Vec<_> = prepared.iter().map(|m| (m.kind, m.to.0, m.commit.0, m.entries.len())).collect();
        assert_eq!(kept, [(3, 3, 5, 0), (8, 2, 5, 0), (3, 2, 6, 2), (8, 2, 6, 0), (3, 4, 6, 1), (3, 4, 7, 0)]);
    }

    #[test]
    fn append_with_too_many_entries_becomes_several_that_follow_each_other() {
        let whole = convert::to_wire(message(MessageType::MsgAppend, 2, 9, 10));
        for entries_max in 1..=11 {
            let mut parts = Vec::new();
            cut(whole.clone(), entries_max, &mut parts);
            parts.reverse();
            let joined: Vec<RaftEntry> = parts.iter().flat_map(|part| part.entries.clone()).collect();
            assert_eq!(joined, whole.entries);
            for (part, next) in parts.iter().zip(&parts[1..]) {
                assert_eq!(part.entries.len(), entries_max);
                let last = part.entries.last().unwrap();
                assert_eq!((next.index, next.log_term), (last.index, last.term));
            }
            assert_eq!((parts[0].index, parts[0].log_term), (whole.index, whole.log_term));
            assert!(parts.iter().all(|part| part.commit == whole.commit && part.to == whole.to));
        }
    }
}

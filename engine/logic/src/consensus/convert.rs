//! raft's messages and ours: every field that may travel, both ways.
//!
//! What has no counterpart on our wire must have its neutral value in raft's message: snapshots (none are sent yet), the
//! type and context of an entry (only plain entries without context are proposed) and `deprecated_priority` (set only
//! for a positive priority; ours is 0). `to_wire` asserts it. No protobuf is decoded anywhere.

use proto::ids::{LogIndex, NodeId, Term};
use proto::peer::{RaftEntry, RaftMessage};
use raft::eraftpb::{Entry, EntryType, Message, MessageType};

/// `MessageType` by its number.
const KINDS: [MessageType; 19] = [
    MessageType::MsgHup,
    MessageType::MsgBeat,
    MessageType::MsgPropose,
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgUnreachable,
    MessageType::MsgSnapStatus,
    MessageType::MsgCheckQuorum,
    MessageType::MsgTransferLeader,
    MessageType::MsgTimeoutNow,
    MessageType::MsgReadIndex,
    MessageType::MsgReadIndexResp,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];

/// The message type with that number, if raft has one.
pub fn kind_of(number: u8) -> Option<MessageType> {
    KINDS.get(usize::from(number)).copied()
}

/// The number of a message type.
pub fn number_of(kind: MessageType) -> u8 {
    kind as u8
}

/// raft's message as it travels.
pub fn to_wire(mut message: Message) -> RaftMessage {
    assert!(message.get_snapshot().is_empty(), "snapshots are not sent yet");
    assert_eq!(message.deprecated_priority, 0, "the priority is always 0");
    RaftMessage {
        kind: number_of(message.get_msg_type()),
        from: NodeId(message.from),
        to: NodeId(message.to),
        term: Term(message.term),
        log_term: Term(message.log_term),
        index: LogIndex(message.index),
        commit: LogIndex(message.commit),
        commit_term: Term(message.commit_term),
        request_snapshot: LogIndex(message.request_snapshot),
        reject: message.reject,
        reject_hint: LogIndex(message.reject_hint),
        context: message.context.to_vec(),
        priority: message.priority,
        entries: message.take_entries().into_iter().map(entry_to_wire).collect(),
    }
}

fn entry_to_wire(entry: Entry) -> RaftEntry {
    assert_eq!(entry.get_entry_type(), EntryType::EntryNormal, "only plain entries are proposed");
    assert!(entry.context.is_empty(), "entries have no context");
    RaftEntry { term: Term(entry.term), index: LogIndex(entry.index), data: entry.data.into() }
}

/// A message from the wire as raft takes it; `None` if its kind is unknown. Not yet validated.
pub fn from_wire(message: RaftMessage) -> Option<Message> {
    let mut raft = Message::default();
    raft.set_msg_type(kind_of(message.kind)?);
    raft.from = message.from.0;
    raft.to = message.to.0;
    raft.term = message.term.0;
    raft.log_term = message.log_term.0;
    raft.index = message.index.0;
    raft.commit = message.commit.0;
    raft.commit_term = message.commit_term.0;
    raft.request_snapshot = message.request_snapshot.0;
    raft.reject = message.reject;
    raft.reject_hint = message.reject_hint.0;
    raft.context = message.context.into();
    raft.priority = message.priority;
    raft.set_entries(message.entries.into_iter().map(entry_from_wire).collect::<Vec<_>>().into());
    Some(raft)
}

/// A plain entry.
pub fn entry_from_wire(entry: RaftEntry) -> Entry {
    Entry { term: entry.term.0, index: entry.index.0, data: entry.data.into(), ..Entry::default() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn full(kind: u8) -> RaftMessage {
        RaftMessage {
            kind,
            from: NodeId(1),
            to: NodeId(2),
            term: Term(3),
            log_term: Term(4),
            index: LogIndex(5),
            entries: vec![
                RaftEntry { term: Term(6), index: LogIndex(7), data: b"first".to_vec() },
                RaftEntry { term: Term(8), index: LogIndex(9), data: Vec::new() },
            ],
            commit: LogIndex(10),
            commit_term: Term(11),
            request_snapshot: LogIndex(12),
            reject: true,
            reject_hint: LogIndex(13),
            context: b"context".to_vec(),
            priority: -14,
        }
    }

    #[test]
    fn every_field_of_every_kind_survives_the_way_there_and_back() {
        for kind in 0..19 {
            assert_eq!(to_wire(from_wire(full(kind)).unwrap()), full(kind), "kind {kind}");
        }
    }

    #[test]
    fn each_field_lands_in_the_field_of_its_name() {
        let raft = from_wire(full(3)).unwrap();
        assert_eq!(raft.get_msg_type(), MessageType::MsgAppend);
        assert_eq!((raft.from, raft.to, raft.term, raft.log_term, raft.index), (1, 2, 3, 4, 5));
        assert_eq!((raft.entries[0].term, raft.entries[0].index, &raft.entries[0].data[..]), (6, 7, &b"first"[..]));
        assert_eq!((raft.entries[1].term, raft.entries[1].index, raft.entries[1].data.len()), (8, 9, 0));
        assert_eq!((raft.commit, raft.commit_term, raft.request_snapshot), (10, 11, 12));
        assert_eq!((raft.reject, raft.reject_hint, &raft.context[..], raft.priority), (true, 13, &b"context"[..], -14));
    }

    #[test]
    fn numbers_are_those_of_raft_and_unknown_ones_are_refused() {
        for number in 0..19u8 {
            let kind = kind_of(number).unwrap();
            assert_eq!(kind as u8, number);
            assert_eq!(number_of(kind), number);
        }
        for number in 19..=255 {
            assert_eq!(from_wire(RaftMessage { kind: number, ..RaftMessage::default() }), None);
        }
    }
}

//! Proposing records: all of a batch or none.

use proto::ids::{LogIndex, Term};
use raft::eraftpb::{Entry, Message, MessageType};

use super::{ProposeError, Proposed, RaftManager};
use crate::consensus::settings::UNCOMMITTED_BYTES_MAX;

/// More than what the log puts around a record.
const FRAMING_BYTES: u64 = 128;

impl RaftManager {
    /// Proposes records, all of them or none. Call it at most once a turn, with everything that has gathered: each call
    /// is a message to every follower.
    ///
    /// On return the records have their indexes, and are neither durable nor committed. They are committed when
    /// `take_committed` gives an entry of the same index and term; they are lost when it gives one of another term at
    /// one of these indexes.
    pub fn propose(&mut self, batch: Vec<Vec<u8>>) -> Result<Proposed, ProposeError> {
        assert!(!batch.is_empty());
        if !self.is_serving() {
            return Err(ProposeError::NotLeader);
        }
        let raft = &self.raw.raft;
        let proposed = Proposed { term: Term(raft.term), first: LogIndex(raft.raft_log.last_index() + 1) };
        let bytes: u64 = batch.iter().map(|record| record.len() as u64).sum();
        if bytes > self.propose_bytes() || !self.durability.has_room() {
            return Err(ProposeError::Busy);
        }
        let log = self.raw.store();
        if self.hand_over.refused()
            && log.waiting_bytes() + bytes + batch.len() as u64 * FRAMING_BYTES > log.room_bytes()
        {
            self.note_starved();
            return Err(ProposeError::Busy);
        }
        let record_bytes_max = log.payload_bytes_max() as usize;
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.node.0;
        let entries: Vec<Entry> = batch.into_iter().map(|record| proposal(record, record_bytes_max)).collect();
        message.set_entries(entries.into());
        // raft drops the whole batch or none of it.
        self.raw.step(message).map_err(|_| ProposeError::Busy)?;
        Ok(proposed)
    }

    /// Bytes of records that may be proposed now.
    pub fn propose_bytes(&self) -> u64 {
        UNCOMMITTED_BYTES_MAX.saturating_sub(self.raw.raft.uncommitted_size() as u64)
    }
}

fn proposal(record: Vec<u8>, bytes_max: usize) -> Entry {
    assert!(!record.is_empty(), "an empty entry is the first of a term");
    assert!(record.len() <= bytes_max, "record of {} bytes, at most {bytes_max} fit", record.len());
    Entry { data: record.into(), ..Entry::default() }
}

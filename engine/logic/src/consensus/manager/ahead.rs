//! What the log has and nobody has applied yet, for decisions that cannot wait until it is.

use proto::ids::LogIndex;
use proto::peer::RaftMessage;
use raft::GetEntriesContext;
use raft::eraftpb::MessageType;

use super::RaftManager;
use crate::consensus::convert;

impl RaftManager {
    /// Whether what is not applied yet counts for who may have sent this message: votes, and acknowledgements to a leader that
    /// does not serve yet. A leader that serves has applied all that was there before it, and knows what it proposed since.
    pub fn looks_ahead_for(&self, message: &RaftMessage) -> bool {
        let of_leader = [MessageType::MsgAppend, MessageType::MsgHeartbeat];
        !self.is_serving() && convert::kind_of(message.kind).is_some_and(|kind| !of_leader.contains(&kind))
    }

    /// The records behind the last one that was applied, with those that raft has only in memory.
    pub fn ahead(&self) -> Vec<(LogIndex, Vec<u8>)> {
        let log = &self.raw.raft.raft_log;
        let (low, high) = (self.applied.0 + 1, log.last_index() + 1);
        if low >= high {
            return Vec::new();
        }
        let entries = log.slice(low, high, None, GetEntriesContext::empty(false));
        let entries = entries.expect("what is not applied is in memory");
        entries.into_iter().map(|entry| (LogIndex(entry.index), entry.data.to_vec())).collect()
    }
}

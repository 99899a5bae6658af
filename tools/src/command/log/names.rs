//! Which clients the ids in records stand for, as far as the records that gave them are in the log.

use std::collections::BTreeMap;

use proto::ids::{InboxId, LogIndex, SessionId};
use proto::record::{Record, RecordBody};

/// Learned entry by entry, in the order of the log: an entry replaces all from its index on.
#[derive(Debug, Default)]
pub struct Names {
    inboxes: BTreeMap<u64, String>,
    sessions: BTreeMap<u64, String>,
}

impl Names {
    /// Takes note of the next entry of raft; of none twice.
    pub fn learn(&mut self, index: LogIndex, record: Option<&Record>) {
        for names in [&mut self.inboxes, &mut self.sessions] {
            while names.last_key_value().is_some_and(|(last, _)| *last >= index.0) {
                names.pop_last();
            }
        }
        match record.map(|record| &record.body) {
            // A known name keeps its inbox, and this index never becomes the id of one: noting it does no harm.
            Some(RecordBody::Register { name }) => drop(self.inboxes.insert(index.0, name.clone())),
            Some(RecordBody::OpenSession { sender }) => drop(self.sessions.insert(index.0, sender.clone())),
            _ => {}
        }
    }

    /// Whose inbox it is.
    pub fn of_inbox(&self, inbox: InboxId) -> Option<&str> {
        self.inboxes.get(&inbox.0).map(String::as_str)
    }

    /// Who sends in it.
    pub fn of_session(&self, session: SessionId) -> Option<&str> {
        self.sessions.get(&session.0).map(String::as_str)
    }
}

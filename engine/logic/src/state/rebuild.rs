//! Builds the state again from the pieces of a snapshot, which come from a disk or from another node: whatever they are, the
//! result is a state that could be, or an error.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use proto::ids::{LogIndex, SessionId};
use proto::limits::SESSION_WINDOW;
use proto::snapshot::{Head, ImageItem, InboxItem, Piece, SessionItem, UndeliveredItem};

use super::{Inbox, KnownImage, ReadyState, Receivers, Session, State};
use crate::mutant::Mutant;

/// Why pieces are no snapshot of a state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadSnapshot {
    /// The head is missing, or there twice.
    #[error("it does not begin with its head")]
    Head,
    /// Items of one list do not ascend, or lie above the snapshot's index.
    #[error("{list} {found} is out of order")]
    Order {
        /// Which list.
        list: &'static str,
        /// The item.
        found: u64,
    },
    /// Something is spoken of that is not there.
    #[error("{list} {found} is not there")]
    Missing {
        /// Which list.
        list: &'static str,
        /// What is missing.
        found: u64,
    },
    /// A value that no state has.
    #[error("{list} {found} has an impossible value")]
    Value {
        /// Which list.
        list: &'static str,
        /// The item.
        found: u64,
    },
}

/// A state under construction.
#[derive(Debug)]
pub struct Rebuild {
    upto: LogIndex,
    state: State,
    has_head: bool,
}

impl Rebuild {
    /// Of the state after the record at `upto`.
    pub(crate) fn new(upto: LogIndex, mutant: Mutant) -> Rebuild {
        Rebuild { upto, state: State::new(mutant), has_head: false }
    }

    /// Takes the next piece.
    pub fn add(&mut self, piece: Piece) -> Result<(), BadSnapshot> {
        if piece.head.is_some() == self.has_head {
            return Err(BadSnapshot::Head);
        }
        if let Some(head) = piece.head {
            self.add_head(head);
        }
        piece.inboxes.into_iter().try_for_each(|item| self.add_inbox(item))?;
        piece.sessions.into_iter().try_for_each(|item| self.add_session(item))?;
        piece.images.into_iter().try_for_each(|item| self.add_image(item))?;
        piece.undelivered.into_iter().try_for_each(|item| self.add_undelivered(item))
    }

    /// The state; that was all.
    pub fn finish(self) -> Result<State, BadSnapshot> {
        if !self.has_head {
            return Err(BadSnapshot::Head);
        }
        Ok(State { applied: self.upto, ..self.state })
    }

    fn add_head(&mut self, head: Head) {
        self.has_head = true;
        let Head { cluster, copies, image_bytes_max, log_time_ms, ring, rejoined } = head;
        let rejoined = rejoined.into_iter().collect();
        let before = std::mem::take(&mut self.state);
        self.state = State { cluster, copies, image_bytes_max, log_time_ms, ring, rejoined, ..before };
    }

    fn add_inbox(&mut self, item: InboxItem) -> Result<(), BadSnapshot> {
        let (list, found) = ("inbox", item.inbox.0);
        let after = self.state.inboxes.last_key_value().map_or(0, |(id, _)| id.0);
        self.ascends(list, after, found)?;
        let is_sane = item.acked_record <= self.upto && item.acked.0 <= self.upto.0;
        if !is_sane || self.state.clients.insert(item.name.clone(), item.inbox).is_some() {
            return Err(BadSnapshot::Value { list, found });
        }
        let InboxItem { inbox, name, acked, acked_record } = item;
        self.state.inboxes.insert(inbox, Inbox { name, acked, acked_record, waiting: VecDeque::new() });
        Ok(())
    }

    fn add_session(&mut self, item: SessionItem) -> Result<(), BadSnapshot> {
        let after = self.state.sessions.last_key_value().map_or(0, |(id, _)| id.0);
        self.ascends("session", after, item.session.0)?;
        let SessionItem { session, sender, low_water, used_ms } = item;
        self.state.sessions.insert(session, Session { sender, low_water, used_ms, images: BTreeMap::new() });
        Ok(())
    }

    fn add_image(&mut self, item: ImageItem) -> Result<(), BadSnapshot> {
        let (id, sequence) = (item.image.session, item.image.sequence);
        let missing = BadSnapshot::Missing { list: "session", found: id.0 };
        let session = self.state.sessions.get_mut(&id).ok_or(missing)?;
        let after = session.images.last_key_value().map_or(0, |(last, _)| last.0);
        if sequence.0 <= after || sequence < session.low_water || sequence.0 - session.low_water.0 >= SESSION_WINDOW {
            return Err(BadSnapshot::Order { list: "image", found: sequence.0 });
        }
        for &(inbox, index) in &item.ready {
            if !self.state.inboxes.contains_key(&inbox) {
                return Err(BadSnapshot::Missing { list: "inbox", found: inbox.0 });
            }
            if index > self.upto {
                return Err(BadSnapshot::Order { list: "record", found: index.0 });
            }
        }
        session.images.insert(sequence, KnownImage { fingerprint: item.fingerprint, ready: item.ready });
        Ok(())
    }

    fn add_undelivered(&mut self, item: UndeliveredItem) -> Result<(), BadSnapshot> {
        let index = item.index;
        let after = self.state.readies.last_key_value().map_or(0, |(last, _)| last.0);
        self.ascends("record", after, index.0)?;
        let mut left = 0;
        for id in &item.receivers {
            let missing = BadSnapshot::Missing { list: "inbox", found: id.0 };
            let inbox = self.state.inboxes.get_mut(id).ok_or(missing)?;
            if index > inbox.acked_record {
                inbox.waiting.push_back(index);
                left += 1;
            }
        }
        if left == 0 {
            return Err(BadSnapshot::Value { list: "record", found: index.0 });
        }
        let ready = ReadyState {
            image: item.image,
            fingerprint: item.fingerprint,
            sender: self.known_sender(item.image.session, item.sender),
            name: item.name,
            holders: self.state.holder_sets.intern(&item.holders),
            receivers: Receivers::new(&item.receivers),
            left,
        };
        self.state.readies.insert(index, ready);
        Ok(())
    }

    /// The same text as that of its session costs nothing.
    fn known_sender(&self, session: SessionId, sender: Arc<str>) -> Arc<str> {
        let known = self.state.sessions.get(&session).map(|session| &session.sender);
        let last = self.state.readies.last_key_value().map(|(_, ready)| &ready.sender);
        known.into_iter().chain(last).find(|known| **known == sender).cloned().unwrap_or(sender)
    }

    fn ascends(&self, list: &'static str, after: u64, found: u64) -> Result<(), BadSnapshot> {
        if after < found && found <= self.upto.0 { Ok(()) } else { Err(BadSnapshot::Order { list, found }) }
    }
}

/// Everything that a state is: two that were made in different ways can be compared.
#[cfg(test)]
pub(super) fn picture(state: &State) -> String {
    let State {
        cluster,
        copies,
        image_bytes_max,
        ring,
        rejoined,
        clients,
        inboxes,
        sessions,
        readies,
        log_time_ms,
        applied,
        ..
    } = state;
    format!(
        "{cluster:?} {copies} {image_bytes_max} {ring:?} {rejoined:?} {clients:?} {inboxes:?} {sessions:?} {readies:?} \
         {log_time_ms} {applied:?}"
    )
}

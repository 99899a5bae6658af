//! An image's life from the entries of a log, one after the other.
//!
//! Who is acknowledged follows from places in inboxes, and these from every record since the first: so as long as no entry is
//! missing from the beginning on, the records are applied to the replicated state itself, and it says the places. Whatever
//! else there is to say is taken from each record alone, and goes on when the places are not known any more.

use logic::state::{Outcome, State};
use proto::error::Refusal;
use proto::ids::{Holder, ImageId, InboxId, InboxSeq, LogIndex, NodeId};
use proto::record::{Lost, Ready, Record, RecordBody};

use crate::command::log::names::Names;

/// Something that happened to the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub at: At,
    pub what: What,
}

/// The record that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At {
    pub index: u64,
    pub term: u64,
    pub is_committed: bool,
    pub time_ms: u64,
    /// Who has it, among those that were asked.
    pub nodes: Vec<NodeId>,
}

/// A receiver of a ready record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    pub inbox: InboxId,
    pub name: Option<String>,
    /// The image's place in the inbox, if it can be known.
    pub seq: Option<InboxSeq>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    SessionOpened {
        sender: String,
    },
    Ready {
        receivers: Vec<Receiver>,
        holders: Vec<Holder>,
    },
    /// Everybody named in it had the image ready already.
    Repeated {
        receivers: Vec<Receiver>,
    },
    Refused {
        why: Refusal,
    },
    Acked {
        receiver: Receiver,
        upto: InboxSeq,
    },
    /// The first acknowledgement of that inbox behind the ready record; whether it covers the image cannot be told.
    PerhapsAcked {
        receiver: Receiver,
        upto: InboxSeq,
    },
    Freed {
        ready: u64,
        holders: Vec<Holder>,
    },
    /// A holder gave up; the image is damaged if no other is left.
    Lost {
        ready: u64,
        holder: Holder,
        left: Vec<Holder>,
    },
    SessionEnded,
}

/// A ready record and who has not acknowledged it.
struct Open {
    index: u64,
    holders: Vec<Holder>,
    waiting: Vec<Receiver>,
    hinted: Vec<InboxId>, // for whom `PerhapsAcked` was told
}

/// Takes the entries that count, ascending.
pub struct Life {
    image: ImageId,
    names: Names,
    // None: an entry is missing before, so places are not known.
    state: Option<State>,
    last: u64,
    open: Vec<Open>,
    pub events: Vec<Event>,
    /// The first ready record that counts.
    pub ready: Option<Ready>,
    pub sender: Option<String>,
    /// Why not everything is known.
    pub notes: Vec<String>,
}

impl Life {
    pub fn new(image: ImageId) -> Life {
        Life {
            image,
            names: Names::default(),
            state: Some(State::default()),
            last: 0,
            open: Vec::new(),
            events: Vec::new(),
            ready: None,
            sender: None,
            notes: Vec::new(),
        }
    }

    /// The next entry. `record`: none for the first of a term, an error for one that is not understood.
    pub fn on_entry(&mut self, mut at: At, record: Option<&Result<Record, String>>) {
        self.note_gap(at.index);
        let record = match record {
            Some(Err(error)) => {
                self.notes.push(format!("entry {} is not understood ({error}): what it did is not known", at.index));
                self.state = None;
                return;
            }
            Some(Ok(record)) => Some(record),
            None => None,
        };
        let index = LogIndex(at.index);
        self.names.learn(index, record);
        let was_finished = self.is_finished();
        let outcome = match (&mut self.state, record) {
            (Some(state), Some(record)) => Some(state.apply(index, record)),
            (Some(state), None) => {
                state.apply_empty(index);
                None
            }
            (None, _) => None,
        };
        let Some(record) = record else { return };
        at.time_ms = record.time_ms;
        match &record.body {
            RecordBody::OpenSession { sender } if at.index == self.image.session.0 => {
                self.sender = Some(sender.clone());
                self.tell(&at, What::SessionOpened { sender: sender.clone() });
            }
            RecordBody::Ready(ready) if ready.image == self.image => self.on_ready(&at, ready, outcome),
            RecordBody::Acked { upto } => self.on_acked(&at, upto),
            RecordBody::Lost(lost) => self.on_lost(&at, lost, outcome),
            RecordBody::ExpireSessions { .. } if was_finished == Some(false) && self.is_finished() == Some(true) => {
                self.tell(&at, What::SessionEnded);
            }
            _ => {}
        }
    }

    /// Which holders of ready records must still have the bytes, with the record's index.
    pub fn holders(&self) -> impl Iterator<Item = (u64, &Holder)> {
        self.open.iter().flat_map(|open| open.holders.iter().map(|holder| (open.index, holder)))
    }

    /// Whether entries are missing that may have said more of the image.
    pub fn has_gaps(&self) -> bool {
        !self.notes.is_empty()
    }

    fn note_gap(&mut self, index: u64) {
        let before = std::mem::replace(&mut self.last, index);
        if index == before + 1 {
            return;
        }
        self.state = None;
        self.notes.push(match before {
            0 => format!("entries below {index} are gone: what happened before is not in the log"),
            _ => {
                let missing = match (before + 1, index - 1) {
                    (first, last) if first == last => format!("entry {first} is"),
                    (first, last) => format!("entries {first} to {last} are"),
                };
                format!("{missing} in none of the logs: places in inboxes are not known from there on")
            }
        });
    }

    fn is_finished(&self) -> Option<bool> {
        self.state.as_ref().map(|state| state.is_finished(self.image))
    }

    fn tell(&mut self, at: &At, what: What) {
        self.events.push(Event { at: at.clone(), what });
    }

    fn receiver(&self, inbox: InboxId, index: u64) -> Receiver {
        let entries = self.state.as_ref().map(|state| state.entries_after(inbox, InboxSeq(0), usize::MAX));
        let entry = entries.and_then(|entries| entries.into_iter().find(|entry| entry.index.0 == index));
        let name = self.names.of_inbox(inbox).map(str::to_owned);
        Receiver { inbox, name, seq: entry.map(|entry| entry.seq) }
    }

    fn on_ready(&mut self, at: &At, ready: &Ready, outcome: Option<Outcome>) {
        let fresh = match outcome {
            Some(Outcome::Ready(Err(why))) => return self.tell(at, What::Refused { why }),
            Some(Outcome::Ready(Ok(outcome))) => outcome.fresh,
            // Without the state: for whom no record before this one made it ready.
            _ => {
                let known = |inbox: &InboxId| {
                    self.events.iter().any(|event| match &event.what {
                        What::Ready { receivers, .. } => receivers.iter().any(|receiver| receiver.inbox == *inbox),
                        _ => false,
                    })
                };
                ready.receivers.iter().copied().filter(|inbox| !known(inbox)).collect()
            }
        };
        self.ready.get_or_insert_with(|| ready.clone());
        if self.sender.is_none() {
            self.sender = self.names.of_session(ready.image.session).map(str::to_owned);
        }
        if fresh.is_empty() {
            let receivers = ready.receivers.iter().map(|&inbox| self.receiver(inbox, at.index)).collect();
            return self.tell(at, What::Repeated { receivers });
        }
        let receivers: Vec<Receiver> = fresh.iter().map(|&inbox| self.receiver(inbox, at.index)).collect();
        let holders = ready.holders.clone();
        self.open.push(Open {
            index: at.index,
            holders: holders.clone(),
            waiting: receivers.clone(),
            hinted: Vec::new(),
        });
        self.tell(at, What::Ready { receivers, holders });
    }

    fn on_lost(&mut self, at: &At, lost: &Lost, outcome: Option<Outcome>) {
        let changed: Vec<u64> = match outcome {
            Some(Outcome::Lost(changed, _)) => changed.iter().map(|freed| freed.index.0).collect(),
            _ => lost.records.iter().map(|index| index.0).collect(),
        };
        let mut told = Vec::new();
        for open in self.open.iter_mut().filter(|open| changed.contains(&open.index)) {
            if open.holders.contains(&lost.holder) {
                open.holders.retain(|holder| *holder != lost.holder);
                told.push(What::Lost { ready: open.index, holder: lost.holder, left: open.holders.clone() });
            }
        }
        told.into_iter().for_each(|what| self.tell(at, what));
    }

    fn on_acked(&mut self, at: &At, upto: &[(InboxId, InboxSeq)]) {
        let mut told = Vec::new();
        for open in &mut self.open {
            for &(inbox, upto) in upto {
                let Some(place) = open.waiting.iter().position(|receiver| receiver.inbox == inbox) else { continue };
                match open.waiting[place].seq {
                    Some(seq) if upto >= seq => {
                        told.push(What::Acked { receiver: open.waiting.remove(place), upto });
                    }
                    Some(_) => {}
                    None if open.hinted.contains(&inbox) => {}
                    None => {
                        open.hinted.push(inbox);
                        told.push(What::PerhapsAcked { receiver: open.waiting[place].clone(), upto });
                    }
                }
            }
            if open.waiting.is_empty() {
                told.push(What::Freed { ready: open.index, holders: open.holders.clone() });
            }
        }
        self.open.retain(|open| !open.waiting.is_empty());
        told.into_iter().for_each(|what| self.tell(at, what));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "life_test.rs"]
mod tests;

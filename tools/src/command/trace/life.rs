//! An image's life from the entries of a log, one after the other.
//!
//! Who is acknowledged follows from places in inboxes, and these from every record since the first: so as long as no entry is
//! missing from the beginning on, the records are applied to the replicated state itself, and it says the places. Where entries
//! are missing, a snapshot gives the state again. Whatever else there is to say is taken from each record alone, and goes on
//! where the places are not known.

use logic::state::{Outcome, Remembered, State};
use proto::error::Refusal;
use proto::ids::{Fingerprint, Holder, ImageId, InboxId, InboxSeq, LogIndex, NodeId};
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
    /// What a snapshot knows of the image, where the log does not tell what came before.
    Snapshot {
        waiting: Vec<Waiting>,
        /// Who acknowledged, each with the ready record.
        received: Vec<(Receiver, u64)>,
        /// The sender needs no answer any more.
        is_finished: bool,
    },
}

/// A ready record with receivers that have not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub ready: u64,
    pub receivers: Vec<Receiver>,
    pub holders: Vec<Holder>,
}

/// What an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Portrait {
    /// A snapshot knows it only while the image waits for somebody.
    pub name: Option<String>,
    pub fingerprint: Fingerprint,
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
    pub image: ImageId,
    names: Names,
    // None: an entry is missing before, and no snapshot stands for it, so places are not known.
    state: Option<State>,
    last: u64,
    open: Vec<Open>,
    pub events: Vec<Event>,
    /// By the first ready record that counts, or a snapshot.
    pub portrait: Option<Portrait>,
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
            portrait: None,
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

    /// The snapshot behind this entry. `at` says when and where it was made.
    pub fn on_snapshot(&mut self, at: At, state: State) {
        if at.index != self.last {
            let gone = self.gone(at.index + 1);
            self.notes.push(format!("{gone}: a snapshot stands for them"));
        }
        self.last = at.index;
        let Remembered { sender, is_finished, fingerprint, name, waiting, received } = state.remembered(self.image);
        if self.sender.is_none() {
            self.sender = sender.map(|sender| sender.to_string());
        }
        if let (None, Some(fingerprint)) = (&self.portrait, fingerprint) {
            self.portrait = Some(Portrait { name: name.map(|name| name.to_string()), fingerprint });
        }
        let receiver = |inbox, seq| Receiver { inbox, name: state.name_of(inbox).map(str::to_owned), seq };
        let waiting: Vec<Waiting> = waiting
            .into_iter()
            .map(|waiting| Waiting {
                ready: waiting.index.0,
                receivers: waiting.receivers.iter().map(|&(inbox, seq)| receiver(inbox, Some(seq))).collect(),
                holders: waiting.holders,
            })
            .collect();
        let received: Vec<_> = received.into_iter().map(|(inbox, index)| (receiver(inbox, None), index.0)).collect();
        let open = waiting.iter().cloned().map(|Waiting { ready, receivers, holders }| Open {
            index: ready,
            holders,
            waiting: receivers,
            hinted: Vec::new(),
        });
        self.open = open.collect();
        self.state = Some(state);
        if is_finished || !waiting.is_empty() || !received.is_empty() {
            self.tell(&at, What::Snapshot { waiting, received, is_finished });
        }
    }

    /// Whether a snapshot behind this entry says something that the entries told until now do not.
    pub fn asks_for(&self, index: u64) -> bool {
        index > self.last || (index == self.last && self.is_blind())
    }

    /// Whether it is not known what the entries told until now left of the image.
    pub fn is_blind(&self) -> bool {
        self.state.is_none()
    }

    /// Which holders of ready records must still have the bytes, with the record's index.
    pub fn holders(&self) -> impl Iterator<Item = (u64, &Holder)> {
        self.open.iter().flat_map(|open| open.holders.iter().map(|holder| (open.index, holder)))
    }

    fn note_gap(&mut self, index: u64) {
        if index != self.last + 1 {
            let gone = self.gone(index);
            self.notes.push(match self.last {
                0 => format!("{gone}: what happened before is not in the log"),
                _ => format!("{gone}: places in inboxes are not known from there on"),
            });
            self.state = None;
        }
        self.last = index;
    }

    /// That the entries between the last and this one are missing.
    fn gone(&self, index: u64) -> String {
        match (self.last + 1, index - 1) {
            (1, _) => format!("entries below {index} are gone"),
            (first, last) if first == last => format!("entry {first} is in none of the logs"),
            (first, last) => format!("entries {first} to {last} are in none of the logs"),
        }
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
        let name = self.names.of_inbox(inbox).or_else(|| self.state.as_ref()?.name_of(inbox)).map(str::to_owned);
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
        self.portrait
            .get_or_insert_with(|| Portrait { name: Some(ready.name.clone()), fingerprint: ready.fingerprint });
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

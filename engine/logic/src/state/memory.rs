//! What the state knows of one image, for those who look at it from outside.

use std::sync::Arc;

use proto::ids::{Fingerprint, Holder, ImageId, InboxId, InboxSeq, LogIndex};

use super::State;

/// What is left of an image's records in the state.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Remembered {
    /// Who sends in its session; none if the session has ended, or is not opened yet.
    pub sender: Option<Arc<str>>,
    /// Its sender needs no answer for it any more.
    pub is_finished: bool,
    /// Length and checksum, unless nothing but `is_finished` is known.
    pub fingerprint: Option<Fingerprint>,
    /// What it is called; known while a receiver waits for it.
    pub name: Option<Arc<str>>,
    /// Its records with receivers that have not acknowledged, ascending.
    pub waiting: Vec<Waiting>,
    /// Receivers that have acknowledged, as far as its sender may still ask, each with its record.
    pub received: Vec<(InboxId, LogIndex)>,
}

/// A record of the image for which somebody waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The record.
    pub index: LogIndex,
    /// Who has the bytes; nobody, if the image is damaged.
    pub holders: Vec<Holder>,
    /// Who waits, and at which place of the inbox.
    pub receivers: Vec<(InboxId, InboxSeq)>,
}

impl Remembered {
    /// Whether anything was ever recorded of the image.
    pub fn is_known(&self) -> bool {
        self.is_finished || !self.waiting.is_empty() || !self.received.is_empty()
    }
}

impl State {
    /// What is known of this image. Looks at all undelivered images.
    pub fn remembered(&self, image: ImageId) -> Remembered {
        let session = self.sessions.get(&image.session);
        let mut found = Remembered {
            sender: session.map(|session| session.sender.clone()),
            is_finished: session.is_some_and(|session| image.sequence < session.low_water),
            ..Remembered::default()
        };
        for (&index, ready) in self.readies.iter().filter(|(_, ready)| ready.image == image) {
            found.fingerprint = Some(ready.fingerprint);
            found.name = Some(ready.name.clone());
            let inboxes = ready.receivers.as_slice().iter();
            let receivers = inboxes.filter_map(|&inbox| Some((inbox, self.place_of(inbox, index)?))).collect();
            found.waiting.push(Waiting { index, holders: ready.holders.to_vec(), receivers });
        }
        if let Some(known) = session.and_then(|session| session.images.get(&image.sequence)) {
            found.fingerprint = Some(known.fingerprint);
            let received = known.ready.iter().filter(|(inbox, index)| self.place_of(*inbox, *index).is_none());
            found.received = received.copied().collect();
        }
        found
    }

    /// Whose inbox it is.
    pub fn name_of(&self, inbox: InboxId) -> Option<&str> {
        self.inboxes.get(&inbox).map(|inbox| &*inbox.name)
    }

    /// Where the record stands in the inbox, if it was not acknowledged.
    fn place_of(&self, inbox: InboxId, index: LogIndex) -> Option<InboxSeq> {
        let inbox = self.inboxes.get(&inbox)?;
        let place = inbox.waiting.binary_search(&index).ok()?;
        Some(InboxSeq(inbox.acked.0 + 1 + place as u64))
    }
}

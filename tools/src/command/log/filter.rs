//! Which entries `helio log dump` shows. All conditions must hold; what nobody can judge is shown.

use std::str::FromStr;

use logic::log::EntryKind;
use proto::ids::ImageId;
use proto::record::{Record, RecordBody};

use super::entry::{Entry, Kind};
use super::names::Names;
use crate::args::FilterArguments;

/// Indexes from one to another, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IndexRange {
    from: u64,
    upto: u64,
}

impl FromStr for IndexRange {
    type Err = String;

    /// One index, or two with `..` between them, of which one may be missing.
    fn from_str(text: &str) -> Result<IndexRange, String> {
        let shape = || "indexes look like 7, 7..12 (both included), 7.. or ..12".to_owned();
        let number = |digits: &str| digits.parse::<u64>().map_err(|_| shape());
        let range = match text.split_once("..") {
            None => IndexRange { from: number(text)?, upto: number(text)? },
            Some(("", "")) => return Err(shape()),
            Some((from, "")) => IndexRange { from: number(from)?, upto: u64::MAX },
            Some(("", upto)) => IndexRange { from: 0, upto: number(upto)? },
            Some((from, upto)) => IndexRange { from: number(from)?, upto: number(upto)? },
        };
        if range.from > range.upto {
            return Err(format!("{text} ends before it begins; {}", shape()));
        }
        Ok(range)
    }
}

/// Whether an entry is of the client that was asked for.
enum OfClient {
    Yes,
    No,
    /// It has this id, whose name is not in the log.
    Unknown(String),
}

/// The conditions, and what it takes to judge them.
#[derive(Debug, Default)]
pub struct Filter {
    index: Option<IndexRange>,
    term: Option<u64>,
    kinds: Vec<Kind>,
    image: Option<ImageId>,
    client: Option<String>,
    since_ms: Option<u64>,
    until_ms: Option<u64>,
    names: Names,
    note: Option<String>,
    is_noted: bool,
}

impl Filter {
    pub fn new(arguments: &FilterArguments) -> Filter {
        Filter {
            index: arguments.index,
            term: arguments.term,
            kinds: arguments.kind.clone(),
            image: arguments.image,
            client: arguments.client.clone(),
            since_ms: arguments.since,
            until_ms: arguments.until,
            ..Filter::default()
        }
    }

    /// Whether everything passes.
    pub fn is_empty(&self) -> bool {
        let is_anywhere = self.index.is_none() && self.term.is_none() && self.kinds.is_empty() && self.image.is_none();
        is_anywhere && self.client.is_none() && self.since_ms.is_none() && self.until_ms.is_none()
    }

    /// Judges an entry. Every entry must be judged, in the order of the log: names are learned on the way.
    pub fn passes(&mut self, entry: &Entry<'_>) -> bool {
        let header = &entry.found.header;
        if header.kind == EntryKind::Record && self.client.is_some() {
            self.names.learn(header.index, entry.known());
        }
        let is_at = self.index.is_none_or(|range| (range.from..=range.upto).contains(&header.index.0))
            && self.term.is_none_or(|term| term == header.term.0);
        // Nobody knows what a record of another version says: it may be what is looked for.
        is_at && (matches!(entry.record, Some(Err(_))) || (self.says(entry) && self.is_of_client(entry.known())))
    }

    /// What is to be said of what could not be judged, once.
    pub fn take_note(&mut self) -> Option<String> {
        self.note.take()
    }

    fn says(&self, entry: &Entry<'_>) -> bool {
        let time_ms = entry.known().map(|record| record.time_ms);
        let image = match entry.known().map(|record| &record.body) {
            Some(RecordBody::Ready(ready)) => Some(ready.image),
            _ => None,
        };
        (self.kinds.is_empty() || entry.kind().is_some_and(|kind| self.kinds.contains(&kind)))
            && self.image.is_none_or(|wanted| image == Some(wanted))
            && self.since_ms.is_none_or(|since| time_ms.is_some_and(|time| time >= since))
            && self.until_ms.is_none_or(|until| time_ms.is_some_and(|time| time <= until))
    }

    fn is_of_client(&mut self, record: Option<&Record>) -> bool {
        let Some(client) = &self.client else { return true };
        match of_client(client, &self.names, record) {
            OfClient::Yes => true,
            OfClient::No => false,
            OfClient::Unknown(id) => {
                if !self.is_noted {
                    self.is_noted = true;
                    self.note = Some(format!(
                        "{id} got its name in an entry that is not in this log: whether records of it, and of others like \
                         it, concern {client:?} cannot be told, and they are left out"
                    ));
                }
                false
            }
        }
    }
}

fn of_client(client: &str, names: &Names, record: Option<&Record>) -> OfClient {
    let Some(record) = record else { return OfClient::No };
    let (session, inboxes) = match &record.body {
        RecordBody::Register { name } if name == client => return OfClient::Yes,
        RecordBody::OpenSession { sender } if sender == client => return OfClient::Yes,
        RecordBody::Ready(ready) => (Some(ready.image.session), ready.receivers.clone()),
        RecordBody::Acked { upto } => (None, upto.iter().map(|(inbox, _)| *inbox).collect()),
        _ => return OfClient::No,
    };
    let sender = session.map(|session| (session.to_string(), names.of_session(session)));
    let receivers = inboxes.into_iter().map(|inbox| (inbox.to_string(), names.of_inbox(inbox)));
    let mut unknown = None;
    for (id, name) in sender.into_iter().chain(receivers) {
        match name {
            Some(name) if name == client => return OfClient::Yes,
            Some(_) => {}
            None => unknown = unknown.or(Some(id)),
        }
    }
    unknown.map_or(OfClient::No, OfClient::Unknown)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "filter_test.rs"]
mod tests;

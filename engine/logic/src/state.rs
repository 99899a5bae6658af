//! The replicated state: what every node computes from the same records, in the same order, to the same result.
//!
//! It judges each image record again when it is applied, and that judgement is the one that counts (promise P2): the
//! leader's admission only saves work. Nothing here depends on the node it runs on, on time or on chance; log time is
//! carried by the records.
//!
//! Memory. An undelivered image costs one `ReadyState`, its file name, and 8 bytes in each receiver's inbox; lists of holders are
//! shared. A finished one costs only its place in the sender's window (`SESSION_WINDOW`) until the sender's low-water mark
//! passes it. A client costs its name and an `Inbox`.

mod frozen;
mod lives;
mod memory;
mod rebuild;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use proto::error::Refusal;
use proto::ids::{
    ClusterId, Fingerprint, Holder, ImageId, InboxId, InboxSeq, LogIndex, NodeId, RingEpoch, Sequence, SessionId,
};
use proto::limits::SESSION_WINDOW;
use proto::peer::ReadyReceiver;
use proto::record::{Lost, Ready, Record, RecordBody};
use proto::ring::{Member, Ring};

use self::frozen::Frozen;
pub use self::memory::{Remembered, Waiting};
pub use self::rebuild::{BadSnapshot, Rebuild};
use crate::io::InboxEntry;
use crate::mutant::Mutant;

/// A receiver's inbox.
#[derive(Clone, Debug)]
pub struct Inbox {
    name: Arc<str>,
    acked: InboxSeq,             // everything up to here is acknowledged
    acked_record: LogIndex,      // the `Ready` record of that; 0 if none
    waiting: VecDeque<LogIndex>, // the `Ready` records of acked + 1, acked + 2, ...
}

/// A sender's session.
#[derive(Clone, Debug)]
struct Session {
    sender: Arc<str>,
    low_water: Sequence,                    // everything below is finished
    used_ms: u64,                           // log time of the last record
    images: BTreeMap<Sequence, KnownImage>, // all >= low_water, fewer than SESSION_WINDOW
}

/// What dedupe remembers of an image.
#[derive(Clone, Debug)]
struct KnownImage {
    fingerprint: Fingerprint,
    ready: Vec<(InboxId, LogIndex)>,
}

/// A `Ready` record with receivers that have not acknowledged.
#[derive(Clone, Debug)]
struct ReadyState {
    image: ImageId,
    fingerprint: Fingerprint,
    sender: Arc<str>,
    name: Arc<str>,
    holders: Arc<[Holder]>,
    receivers: Receivers, // all of the record that were fresh
    left: u32,            // those of them that have not acknowledged, at least 1
}

/// One costs nothing beside its place.
#[derive(Clone, Debug)]
enum Receivers {
    One(InboxId),
    Many(Box<[InboxId]>),
}

impl Receivers {
    fn new(inboxes: &[InboxId]) -> Receivers {
        match inboxes {
            &[inbox] => Receivers::One(inbox),
            inboxes => Receivers::Many(inboxes.into()),
        }
    }

    fn as_slice(&self) -> &[InboxId] {
        match self {
            Receivers::One(inbox) => std::slice::from_ref(inbox),
            Receivers::Many(inboxes) => inboxes,
        }
    }
}

/// The lists of holders that undelivered images have: there are few, each of them once.
#[derive(Clone, Debug, Default)]
struct HolderSets {
    known: BTreeSet<Arc<[Holder]>>,
    bound: usize, // of `known`, until those that nobody has any more are looked for
}

impl HolderSets {
    fn intern(&mut self, holders: &[Holder]) -> Arc<[Holder]> {
        if let Some(known) = self.known.get(holders) {
            return known.clone();
        }
        if self.known.len() >= self.bound {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.bound = 1024.max(2 * self.known.len());
        }
        let holders: Arc<[Holder]> = holders.into();
        self.known.insert(holders.clone());
        holders
    }
}

/// What applying a record did.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// The cluster has its identity and members.
    Founded,
    /// The client's inbox, new or not.
    Registered(InboxId),
    /// The session exists.
    SessionOpened(SessionId),
    /// The image was judged.
    Ready(Result<ReadyOutcome, Refusal>),
    /// What was acknowledged, clamped, and the records whose last receiver acknowledged.
    Acked(Vec<(InboxId, InboxSeq)>, Vec<Freed>),
    /// A holder is none any more for these records. The inbox of the sender that is told of a damaged image, if there is one.
    Lost(Vec<Freed>, Option<InboxId>),
    /// The ring is another one.
    RingChanged,
    /// Sessions ended, or nothing changed.
    Nothing,
}

/// See `Outcome::Ready`.
#[derive(Debug, PartialEq)]
pub struct ReadyOutcome {
    /// Receivers for whom this record made the image deliverable; none if it was a repetition.
    pub fresh: Vec<InboxId>,
    /// All receivers of the record with the record that made the image ready for them.
    pub ready: Vec<ReadyReceiver>,
}

/// The bytes of this record are not needed any more.
#[derive(Debug, PartialEq, Clone)]
pub struct Freed {
    /// Which image.
    pub image: ImageId,
    /// Its record.
    pub index: LogIndex,
    /// Who may free.
    pub holders: Arc<[Holder]>,
}

/// The replicated state.
#[derive(Clone, Debug, Default)]
pub struct State {
    cluster: ClusterId,
    copies: u8,
    image_bytes_max: u64,
    ring: Ring,
    rejoined: BTreeMap<NodeId, u128>, // with which data directory, by its nonce; those that were taken in again
    clients: BTreeMap<Arc<str>, InboxId>,
    inboxes: BTreeMap<InboxId, Inbox>,
    sessions: BTreeMap<SessionId, Session>,
    readies: BTreeMap<LogIndex, ReadyState>,
    holder_sets: HolderSets,
    log_time_ms: u64, // never falls
    applied: LogIndex,
    frozen: Option<Box<Frozen>>, // while a snapshot is made
    mutant: Mutant,
}

impl State {
    /// The state before the first record.
    pub(crate) fn new(mutant: Mutant) -> State {
        State { mutant, ..State::default() }
    }

    /// Applies the record at `index`, the one after the last applied.
    pub fn apply(&mut self, index: LogIndex, record: &Record) -> Outcome {
        let is_new = index > self.applied || self.mutant.is(Mutant::ApplyTwice);
        assert!(is_new, "record {index:?} applied again or out of order, applied {:?}", self.applied);
        self.applied = index;
        self.log_time_ms = self.log_time_ms.max(record.time_ms);
        match &record.body {
            RecordBody::Genesis { cluster, members, copies, image_bytes_max } => {
                self.found(index, *cluster, members, *copies, *image_bytes_max)
            }
            RecordBody::Register { name } => self.register(index, name),
            RecordBody::OpenSession { sender } => self.open_session(index, sender),
            RecordBody::Ready(ready) => Outcome::Ready(self.make_ready(index, ready)),
            RecordBody::Acked { upto } => self.acknowledge(upto),
            RecordBody::RingChange { .. } => self.change_ring(index, &record.body),
            RecordBody::ExpireSessions { idle_since_ms } => {
                self.expire_sessions(*idle_since_ms);
                Outcome::Nothing
            }
            RecordBody::Probe { .. } => Outcome::Nothing,
            RecordBody::Lost(lost) => self.lose(index, lost),
        }
    }

    /// An entry without a record (the first of a term) was applied.
    pub fn apply_empty(&mut self, index: LogIndex) {
        let is_new = index > self.applied || self.mutant.is(Mutant::ApplyTwice);
        assert!(is_new, "entry {index:?} applied again or out of order, applied {:?}", self.applied);
        self.applied = index;
        if self.mutant.is(Mutant::ForgetAtLeaderChange) {
            self.forget_images();
        }
    }

    /// Judges an image record against this state: which receivers would become ready, or why none can.
    ///
    /// Used by the leader for admission and by every node when applying.
    pub fn judge(
        &self,
        image: ImageId,
        low_water: Sequence,
        fingerprint: Fingerprint,
        receivers: &[InboxId],
    ) -> Result<ReadyOutcome, Refusal> {
        if fingerprint.length == 0 {
            return Err(Refusal::ImageEmpty);
        }
        if fingerprint.length > self.image_bytes_max {
            return Err(Refusal::ImageTooLarge);
        }
        let session = self.sessions.get(&image.session).ok_or(Refusal::SessionUnknown)?;
        if image.sequence < session.low_water || image.sequence < low_water {
            return Err(Refusal::AlreadyFinished);
        }
        if image.sequence.0 - session.low_water.max(low_water).0 >= SESSION_WINDOW {
            return Err(Refusal::OutOfWindow);
        }
        let known = session.images.get(&image.sequence);
        if known.is_some_and(|known| known.fingerprint != fingerprint) {
            return Err(Refusal::DifferentBytes);
        }
        let mut outcome = ReadyOutcome { fresh: Vec::new(), ready: Vec::new() };
        for &inbox in receivers {
            let name = &self.inboxes.get(&inbox).ok_or(Refusal::UnknownReceiver)?.name;
            match known.and_then(|known| known.ready.iter().find(|(other, _)| *other == inbox)) {
                Some(&(_, index)) if self.is_damaged(index) => return Err(Refusal::Damaged),
                Some(&(_, index)) => outcome.ready.push(self.ready_receiver(name, index)),
                None => outcome.fresh.push(inbox),
            }
        }
        Ok(outcome)
    }

    /// The inboxes of these names.
    pub fn inboxes_of(&self, names: &[String]) -> Result<Vec<InboxId>, String> {
        names.iter().map(|name| self.clients.get(name.as_str()).copied().ok_or_else(|| name.clone())).collect()
    }

    /// The names of these inboxes, which exist.
    pub fn names_of(&self, inboxes: &[InboxId]) -> Vec<Arc<str>> {
        inboxes.iter().map(|inbox| Arc::clone(&self.inboxes[inbox].name)).collect()
    }

    /// The inbox of a client and what it acknowledged.
    pub fn inbox_of(&self, name: &str) -> Option<(InboxId, InboxSeq)> {
        let inbox = *self.clients.get(name)?;
        Some((inbox, self.inboxes[&inbox].acked))
    }

    /// At most `count` entries of an inbox after `after`, in order.
    pub fn entries_after(&self, inbox: InboxId, after: InboxSeq, count: usize) -> Vec<InboxEntry> {
        let Some(state) = self.inboxes.get(&inbox) else { return Vec::new() };
        let first = after.max(state.acked).0 + 1;
        let skip = (first - state.acked.0 - 1) as usize;
        state
            .waiting
            .iter()
            .skip(skip)
            .take(count)
            .enumerate()
            .map(|(position, &index)| {
                let ready = &self.readies[&index];
                InboxEntry {
                    seq: InboxSeq(first + position as u64),
                    image: ready.image,
                    fingerprint: ready.fingerprint,
                    sender: ready.sender.clone(),
                    name: ready.name.clone(),
                    holders: ready.holders.to_vec(),
                    index,
                }
            })
            .collect()
    }

    /// Whether any of these acknowledgements would change anything.
    pub fn acks_are_news(&self, upto: &[(InboxId, InboxSeq)]) -> bool {
        upto.iter().any(|(inbox, seq)| self.inboxes.get(inbox).is_some_and(|state| *seq > state.acked))
    }

    /// Acknowledgements as they stand now, clamped to what was assigned.
    pub fn acked(&self, upto: &[(InboxId, InboxSeq)]) -> Vec<(InboxId, InboxSeq)> {
        upto.iter().filter_map(|&(inbox, seq)| Some((inbox, seq.min(self.inboxes.get(&inbox)?.acked)))).collect()
    }

    /// Whether the records prove that no bytes of `image` will be needed again: the sender said that it is finished, or
    /// its session ended, and no record applied so far waits for an acknowledgement.
    ///
    /// That everyone it is ready for acknowledged is no such proof: a record for a further receiver may be on its way.
    pub fn is_finished(&self, image: ImageId) -> bool {
        if image.session.0 > self.applied.0 {
            return false; // This node is behind: the session may still come.
        }
        self.sessions.get(&image.session).is_none_or(|session| image.sequence < session.low_water)
    }

    /// The records with receivers that have not acknowledged: which bytes, and who holds them.
    pub fn live_records(&self) -> impl Iterator<Item = (LogIndex, ImageId, Fingerprint, &[Holder])> {
        self.readies.iter().map(|(&index, ready)| (index, ready.image, ready.fingerprint, &*ready.holders))
    }

    /// The identity; unknown before the first record.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Copies that make an image accepted.
    pub fn copies(&self) -> u8 {
        self.copies
    }

    /// Largest image.
    pub fn image_bytes_max(&self) -> u64 {
        self.image_bytes_max
    }

    /// Members and who is up.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Highest index applied.
    pub fn applied(&self) -> LogIndex {
        self.applied
    }

    /// Registered clients, open sessions, images not yet acknowledged by all.
    pub fn counts(&self) -> (u64, u64, u64) {
        (self.clients.len() as u64, self.sessions.len() as u64, self.readies.len() as u64)
    }

    /// Log time, and the log time at which the session unused for the longest was last used.
    pub fn session_ages(&self) -> (u64, Option<u64>) {
        (self.log_time_ms, self.sessions.values().map(|session| session.used_ms).min())
    }

    /// Only a wrong decision forgets what dedupe needs.
    pub(crate) fn forget_images(&mut self) {
        self.sessions.values_mut().for_each(|session| session.images.clear());
    }

    /// The id that the record at `index` creates.
    fn id_of(&self, index: LogIndex, coarse: Mutant) -> u64 {
        if self.mutant.is(coarse) { index.0 / 8 * 8 + 1 } else { index.0 }
    }

    fn found(
        &mut self,
        index: LogIndex,
        cluster: ClusterId,
        members: &[Member],
        copies: u8,
        image_bytes_max: u64,
    ) -> Outcome {
        if self.cluster != ClusterId::UNKNOWN {
            return Outcome::Nothing; // Two leaders in a row may both have proposed it.
        }
        self.cluster = cluster;
        self.copies = copies;
        self.image_bytes_max = image_bytes_max;
        self.ring = Ring::new(RingEpoch(index.0), members.to_vec());
        Outcome::Founded
    }

    fn register(&mut self, index: LogIndex, name: &str) -> Outcome {
        if let Some(&inbox) = self.clients.get(name) {
            return Outcome::Registered(inbox);
        }
        let inbox = InboxId(self.id_of(index, Mutant::InboxIdTwice));
        let name: Arc<str> = name.into();
        self.clients.insert(name.clone(), inbox);
        self.inboxes
            .insert(inbox, Inbox { name, acked: InboxSeq(0), acked_record: LogIndex(0), waiting: VecDeque::new() });
        Outcome::Registered(inbox)
    }

    fn open_session(&mut self, index: LogIndex, sender: &str) -> Outcome {
        let session = SessionId(self.id_of(index, Mutant::SessionIdTwice));
        let used_ms = self.log_time_ms;
        let state = Session { sender: sender.into(), low_water: Sequence(1), used_ms, images: BTreeMap::new() };
        self.sessions.insert(session, state);
        Outcome::SessionOpened(session)
    }

    fn make_ready(&mut self, index: LogIndex, record: &Ready) -> Result<ReadyOutcome, Refusal> {
        let mut outcome = self.judge(record.image, record.low_water, record.fingerprint, &record.receivers)?;
        if outcome.fresh.is_empty() {
            return Ok(outcome);
        }
        let id = record.image.session;
        let session = self.sessions.get_mut(&id).expect("judge found the session");
        if let Some(frozen) = &mut self.frozen {
            frozen.keep_session(id, session);
        }
        session.used_ms = self.log_time_ms;
        session.low_water = session.low_water.max(record.low_water);
        let finished = session.take_finished();
        if let Some(frozen) = &mut self.frozen {
            frozen.keep_images(id, finished);
        }
        let known = session
            .images
            .entry(record.image.sequence)
            .or_insert_with(|| KnownImage { fingerprint: record.fingerprint, ready: Vec::new() });
        known.ready.extend(outcome.fresh.iter().map(|&inbox| (inbox, index)));
        let state = ReadyState {
            image: record.image,
            fingerprint: record.fingerprint,
            sender: session.sender.clone(),
            name: record.name.as_str().into(),
            holders: self.holder_sets.intern(&record.holders),
            receivers: Receivers::new(&outcome.fresh),
            left: outcome.fresh.len() as u32,
        };
        self.readies.insert(index, state);
        for inbox in &outcome.fresh {
            let inbox = self.inboxes.get_mut(inbox).expect("judge found the inbox");
            inbox.waiting.push_back(index);
            let name = inbox.name.clone();
            let ready = self.ready_receiver(&name, index);
            outcome.ready.push(ready);
        }
        Ok(outcome)
    }

    fn acknowledge(&mut self, upto: &[(InboxId, InboxSeq)]) -> Outcome {
        let mut freed = Vec::new();
        for (inbox, seq) in upto {
            let Some(state) = self.inboxes.get_mut(inbox) else { continue };
            let assigned = InboxSeq(state.acked.0 + state.waiting.len() as u64);
            let target = (*seq).min(assigned);
            if let Some(frozen) = self.frozen.as_mut().filter(|_| state.acked < target) {
                frozen.keep_inbox(*inbox, state);
            }
            while state.acked < target {
                let index = state.waiting.pop_front().expect("target is not beyond what was assigned");
                state.acked.0 += 1;
                state.acked_record = index;
                let ready = self.readies.get_mut(&index).expect("a waiting entry has its record");
                ready.left -= 1;
                if self.mutant.is(Mutant::FreeAtFirstAck) {
                    freed.push(Freed { image: ready.image, index, holders: ready.holders.clone() });
                }
                if ready.left == 0 {
                    let ready = self.readies.remove(&index).expect("it was there a line above");
                    freed.push(Freed { image: ready.image, index, holders: ready.holders.clone() });
                    if let Some(frozen) = &mut self.frozen {
                        frozen.keep_ready(index, ready);
                    }
                }
            }
            if self.mutant.is(Mutant::AckUnclamped) {
                state.acked = state.acked.max(*seq);
            }
        }
        Outcome::Acked(self.acked(upto), freed)
    }

    fn expire_sessions(&mut self, idle_since_ms: u64) {
        for (id, mut session) in self.sessions.extract_if(.., |_, session| session.used_ms < idle_since_ms) {
            if let Some(frozen) = &mut self.frozen {
                frozen.keep_session(id, &session);
                frozen.keep_images(id, std::mem::take(&mut session.images));
            }
        }
    }

    /// Those of the records that name this holder do not any more.
    fn lose(&mut self, index: LogIndex, record: &Lost) -> Outcome {
        let (mut changed, mut damaged) = (Vec::new(), None);
        for lost in &record.records {
            let Some(ready) = self.readies.get_mut(lost) else { continue };
            let is_last = *ready.holders == [record.holder];
            if !ready.holders.contains(&record.holder) || is_last && damaged.is_some() {
                continue;
            }
            if let Some(frozen) = &mut self.frozen {
                frozen.keep_ready(*lost, ready.clone());
            }
            let left: Vec<Holder> = ready.holders.iter().copied().filter(|holder| *holder != record.holder).collect();
            ready.holders = self.holder_sets.intern(&left);
            if is_last {
                damaged = Some(ready.clone());
            }
            changed.push(Freed { image: ready.image, index: *lost, holders: [record.holder].into() });
        }
        let told = damaged.and_then(|ready| self.tell_sender(index, ready));
        Outcome::Lost(changed, told)
    }

    /// Puts a damaged image into the inbox of its sender, if the sender is registered and not a receiver itself.
    fn tell_sender(&mut self, index: LogIndex, damaged: ReadyState) -> Option<InboxId> {
        let inbox = *self.clients.get(&damaged.sender)?;
        if damaged.receivers.as_slice().contains(&inbox) {
            return None;
        }
        self.readies.insert(index, ReadyState { receivers: Receivers::One(inbox), left: 1, ..damaged });
        self.inboxes.get_mut(&inbox).expect("a client has an inbox").waiting.push_back(index);
        Some(inbox)
    }

    /// Whether nobody has the bytes of this record any more.
    fn is_damaged(&self, index: LogIndex) -> bool {
        self.readies.get(&index).is_some_and(|ready| ready.holders.is_empty())
    }

    /// Who has the bytes of this record, if a receiver still waits for them.
    pub fn holders_of(&self, index: LogIndex) -> Option<&[Holder]> {
        self.readies.get(&index).map(|ready| &*ready.holders)
    }

    fn ready_receiver(&self, name: &str, index: LogIndex) -> ReadyReceiver {
        let holders = self.readies.get(&index).map_or(Vec::new(), |ready| ready.holders.to_vec());
        ReadyReceiver { name: name.to_owned(), index, holders }
    }
}

impl Session {
    /// Takes out the images that are finished.
    fn take_finished(&mut self) -> BTreeMap<Sequence, KnownImage> {
        let kept = self.images.split_off(&self.low_water);
        std::mem::replace(&mut self.images, kept)
    }
}

#[cfg(test)]
#[path = "state_test.rs"]
mod tests;

//! The record decoder, and the replicated state that applies records.
//!
//! ```text
//! input  even, bytes    bytes of a log entry
//!        odd, script    records with small numbers, so that they meet: registrations, sessions, images, acknowledgements
//! ```
//! Properties: what is decoded keeps the rules and encodes to the same again; two nodes that apply the same records answer
//! the same (determinism); the state agrees with a small model of it (`Model`): an image enters an inbox once for ever,
//! an inbox has no gap, bytes are freed once, when the last receiver acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use logic::state::{Outcome, State};
use proto::codec::{Encoder, decode_record, encode_record, encode_record_with};
use proto::ids::{
    Address, ClusterId, CoreId, Fingerprint, Holder, ImageId, InboxId, InboxSeq, Incarnation, LogIndex, NodeId,
    Sequence, SessionId,
};
use proto::record::{Lost, Ready, Record, RecordBody};
use proto::samples;

use crate::memory;
use crate::script::Script;

const HEAP_PER_BYTE: usize = 16;
const HEAP_BYTES: usize = 16 << 10;
const RECORDS_MAX: usize = 200;
/// Sequences and low-water marks that inputs have.
const SEQUENCE_MAX: u64 = u64::MAX;

/// Runs one input.
pub fn check(data: &[u8]) {
    let Some((form, rest)) = data.split_first() else { return };
    if form % 2 == 0 {
        check_bytes(rest);
    } else {
        check_script(&mut Script::new(rest));
    }
}

fn check_bytes(bytes: &[u8]) {
    let decoded = memory::within(HEAP_PER_BYTE * bytes.len() + HEAP_BYTES, || decode_record(bytes).ok());
    let Some(record) = decoded else { return };
    assert_eq!(record.check(), Ok(()));
    check_codec(&record);
    if let RecordBody::Ready(ready) = &record.body
        && (ready.low_water.0 > SEQUENCE_MAX || ready.image.sequence.0 > SEQUENCE_MAX)
    {
        return;
    }
    let mut model = Model::default();
    for name in ["gallery", "archive"] {
        model.apply(Record { time_ms: 1, body: RecordBody::Register { name: name.to_owned() } });
    }
    model.apply(record.clone());
    model.apply(record);
}

/// The record as it comes back from the log.
fn check_codec(record: &Record) -> Record {
    let bytes = encode_record(record);
    assert_eq!(encode_record_with(&mut Encoder::new(), record), bytes);
    let again = decode_record(&bytes).expect("what was encoded is decoded");
    assert_eq!(&again, record);
    again
}

fn check_script(script: &mut Script<'_>) {
    let mut model = Model::default();
    for _ in 0..RECORDS_MAX {
        if script.is_done() {
            return;
        }
        if script.byte() == 0xff {
            model.skip();
            continue;
        }
        let record = Record { time_ms: script.number(u64::MAX), body: body(script, &model) };
        if record.check().is_ok() {
            model.apply(check_codec(&record));
        }
    }
}

fn name(script: &mut Script<'_>) -> String {
    ["gallery", "archive", "a", "b", "camera-1", "x.y_z"][script.below(6)].to_owned()
}

fn body(script: &mut Script<'_>, model: &Model) -> RecordBody {
    match script.below(11) {
        0 => RecordBody::Register { name: name(script) },
        1 => RecordBody::OpenSession { sender: name(script) },
        2..=5 => RecordBody::Ready(ready(script, model)),
        6 => {
            let upto = (0..1 + script.below(3)).map(|_| (model.some_inbox(script), InboxSeq(script.number(u64::MAX))));
            RecordBody::Acked { upto: upto.collect() }
        }
        10 => RecordBody::Lost(Lost {
            holder: some_holder(script.byte()),
            records: (0..1 + script.below(3)).map(|_| LogIndex(script.number(40))).collect(),
        }),
        7 => RecordBody::ExpireSessions { idle_since_ms: script.number(u64::MAX) },
        8 => RecordBody::RingChange {
            node: NodeId(script.number(5)),
            incarnation: Incarnation(u32::from(script.byte())),
            cores: u16::from(script.byte()),
            up: script.flag(),
            client_address: if script.flag() { "10.0.0.9:1".to_owned() } else { String::new() },
            peer_address: String::new(),
            rejoin: script.flag().then(|| u128::from(script.number(3))),
        },
        _ => RecordBody::Genesis {
            cluster: ClusterId(u128::from(script.byte())),
            members: samples::ring().members()[..script.below(4)].to_vec(),
            copies: script.byte() % 9,
            image_bytes_max: script.number(1 << 31),
        },
    }
}

fn some_holder(node: u8) -> Holder {
    Holder {
        address: Address { node: NodeId(u64::from(node % 4)), core: CoreId(u16::from(node / 4)) },
        incarnation: Incarnation(1),
    }
}

fn ready(script: &mut Script<'_>, model: &Model) -> Ready {
    Ready {
        image: ImageId { session: model.some_session(script), sequence: Sequence(script.number(SEQUENCE_MAX)) },
        low_water: Sequence(script.number(SEQUENCE_MAX)),
        fingerprint: Fingerprint { length: script.number(1 << 31), checksum: u64::from(script.byte() % 2) },
        name: name(script),
        receivers: (0..1 + script.below(3)).map(|_| model.some_inbox(script)).collect(),
        holders: (0..1 + script.below(2)).map(|_| some_holder(script.byte())).collect(),
    }
}

#[derive(Debug, Default, PartialEq)]
struct Inbox {
    name: String,
    acked: u64,
    /// The record of each image assigned so far, acknowledged or not.
    assigned: Vec<LogIndex>,
}

/// What the records did, told independently and without any bound on memory.
#[derive(Default)]
struct Model {
    states: [State; 2],
    index: u64,
    inboxes: BTreeMap<InboxId, Inbox>,
    sessions: Vec<SessionId>,
    /// Every image that ever entered an inbox.
    entered: BTreeSet<(InboxId, ImageId)>,
    /// Records with receivers that have not acknowledged, and how many.
    waiting: BTreeMap<LogIndex, (ImageId, usize)>,
}

impl Model {
    fn some_inbox(&self, script: &mut Script<'_>) -> InboxId {
        let any = script.byte();
        let known = self.inboxes.keys().nth(usize::from(any) % 8);
        known.copied().unwrap_or(InboxId(u64::from(any)))
    }

    fn some_session(&self, script: &mut Script<'_>) -> SessionId {
        let any = script.byte();
        let known = self.sessions.get(usize::from(any) % 8);
        known.copied().unwrap_or(SessionId(u64::from(any)))
    }

    /// The first entry of a term.
    fn skip(&mut self) {
        self.index += 1;
        self.states.iter_mut().for_each(|state| state.apply_empty(LogIndex(self.index)));
        self.check();
    }

    fn apply(&mut self, record: Record) {
        self.index += 1;
        let index = LogIndex(self.index);
        let judged = match &record.body {
            RecordBody::Ready(r) => Some(self.states[0].judge(r.image, r.low_water, r.fingerprint, &r.receivers)),
            _ => None,
        };
        let before = self.states[0].counts();
        let outcome = self.states[0].apply(index, &record);
        assert_eq!(self.states[1].apply(index, &record), outcome, "two nodes differ");
        match (outcome, &record.body) {
            (Outcome::Ready(Ok(outcome)), RecordBody::Ready(ready)) => {
                let judged = judged.expect("a ready record").expect("apply judges as admission does");
                assert_eq!(judged.fresh, outcome.fresh);
                assert_eq!(outcome.ready.len(), ready.receivers.len(), "each receiver once");
                for inbox in &outcome.fresh {
                    assert!(self.entered.insert((*inbox, ready.image)), "{} twice in {inbox}", ready.image);
                    self.inboxes.get_mut(inbox).expect("judged to exist").assigned.push(index);
                }
                if !outcome.fresh.is_empty() {
                    self.waiting.insert(index, (ready.image, outcome.fresh.len()));
                }
            }
            (Outcome::Ready(Err(refusal)), _) => {
                assert_eq!(judged, Some(Err(refusal)), "apply judges as admission does");
                assert_eq!(self.states[0].counts(), before, "a refused record changes nothing");
            }
            (Outcome::Registered(inbox), RecordBody::Register { name }) => {
                let fresh = Inbox { name: name.clone(), ..Inbox::default() };
                assert_eq!(self.inboxes.entry(inbox).or_insert(fresh).name, *name);
            }
            (Outcome::SessionOpened(session), _) => {
                assert_eq!(session.0, self.index);
                self.sessions.push(session);
            }
            (Outcome::Acked(clamped, freed), RecordBody::Acked { upto }) => {
                let mut expected = self.acknowledge(upto);
                for freed in freed {
                    assert!(expected.remove(&(freed.index, freed.image)), "freed too early or twice: {freed:?}");
                }
                assert!(expected.is_empty(), "not freed: {expected:?}");
                for (inbox, seq) in clamped {
                    assert!(seq.0 <= self.inboxes[&inbox].acked, "acknowledged more than was assigned");
                }
            }
            (Outcome::Lost(changed, told), RecordBody::Lost(lost)) => {
                let mut emptied = 0;
                for freed in &changed {
                    assert!(lost.records.contains(&freed.index) && *freed.holders == [lost.holder]);
                    emptied += usize::from(self.states[0].holders_of(freed.index) == Some(&[]));
                }
                assert!(emptied <= 1, "one record makes at most one image damaged");
                if let Some(inbox) = told {
                    assert_eq!(emptied, 1);
                    let damaged = changed.iter().find(|freed| self.states[0].holders_of(freed.index) == Some(&[]));
                    let image = damaged.expect("one of them is").image;
                    self.inboxes.get_mut(&inbox).expect("a sender that is registered").assigned.push(index);
                    self.waiting.insert(index, (image, 1));
                }
            }
            (outcome, body) => {
                let fits = matches!(
                    (&outcome, body),
                    (Outcome::Founded | Outcome::Nothing, RecordBody::Genesis { .. })
                        | (Outcome::RingChanged, RecordBody::RingChange { .. })
                        | (Outcome::Nothing, RecordBody::ExpireSessions { .. } | RecordBody::Probe { .. })
                );
                assert!(fits, "{outcome:?} of {body:?}");
            }
        }
        self.check();
    }

    /// Gives what must be freed.
    fn acknowledge(&mut self, upto: &[(InboxId, InboxSeq)]) -> BTreeSet<(LogIndex, ImageId)> {
        let mut freed = BTreeSet::new();
        for (inbox, seq) in upto {
            let Some(inbox) = self.inboxes.get_mut(inbox) else { continue };
            while inbox.acked < seq.0.min(inbox.assigned.len() as u64) {
                let index = inbox.assigned[inbox.acked as usize];
                inbox.acked += 1;
                let (image, left) = self.waiting.get_mut(&index).expect("a record waits for each of its receivers");
                *left -= 1;
                if *left == 0 {
                    freed.insert((index, *image));
                    self.waiting.remove(&index);
                }
            }
        }
        freed
    }

    /// The state says what the model says.
    fn check(&self) {
        let state = &self.states[0];
        assert_eq!(state.applied().0, self.index);
        let (clients, sessions, undelivered) = state.counts();
        assert_eq!((clients, undelivered), (self.inboxes.len() as u64, self.waiting.len() as u64));
        assert!(sessions <= self.sessions.len() as u64);
        let live: Vec<(LogIndex, ImageId)> = state.live_records().map(|(index, image, ..)| (index, image)).collect();
        let expected: Vec<(LogIndex, ImageId)> =
            self.waiting.iter().map(|(index, (image, _))| (*index, *image)).collect();
        assert_eq!(live, expected);
        for (id, inbox) in &self.inboxes {
            assert_eq!(state.inbox_of(&inbox.name), Some((*id, InboxSeq(inbox.acked))));
            let entries = state.entries_after(*id, InboxSeq(0), usize::MAX);
            let found: Vec<(u64, LogIndex)> = entries.iter().map(|entry| (entry.seq.0, entry.index)).collect();
            let expected = (inbox.acked + 1..).zip(inbox.assigned[inbox.acked as usize..].iter().copied());
            assert_eq!(found, expected.collect::<Vec<_>>(), "the inbox has a gap");
            let after = inbox.acked + entries.len() as u64 / 2;
            let later = state.entries_after(*id, InboxSeq(after), 2);
            assert!(later.iter().map(|entry| entry.seq.0).eq((after + 1..=inbox.assigned.len() as u64).take(2)));
        }
    }
}

/// A sample of each record, and a script in which images are sent, repeated, acknowledged and forgotten.
pub fn seeds() -> Vec<Vec<u8>> {
    let raw = samples::records().into_iter().map(|record| [&[0], &encode_record(&record)[..]].concat());
    let walk: &[&[u8]] = &[
        &[1],
        &[0, 1, 9, 5, 3, 2, 50],                               // genesis
        &[0, 1, 0, 0, 0, 1, 0, 1, 0, 2, 1, 4],                 // two clients and a session
        &[0, 3, 2, 0, 1, 1, 40, 0, 1, 1, 0, 1, 1, 1, 5],       // an image for both
        &[0, 3, 2, 0, 1, 1, 40, 0, 1, 0, 0, 0, 1],             // again, for one
        &[0, 3, 3, 0, 2, 1, 40, 0, 1, 0, 0, 0, 2],             // the next
        &[0, 3, 3, 0, 2, 1, 40, 1, 1, 0, 0, 0, 2],             // with other bytes
        &[0, 3, 6, 0, 0, 1, 0, 4, 6, 0, 1, 9],                 // acknowledged by one, then by the other
        &[0, 5, 2, 0, 7, 6, 40, 0, 1, 0, 0, 0, 1],             // the low-water mark rises
        &[0, 5, 2, 0, 1, 1, 40, 0, 1, 0, 0, 0, 1],             // a late retry
        &[0, 6, 8, 2, 3, 4, 1, 1, 0xff],                       // the ring changes; a new term
        &[0, 9, 7, 8, 0, 9, 2, 0, 9, 1, 40, 0, 1, 0, 0, 0, 1], // sessions end; an image of one
    ];
    raw.chain([walk.concat()]).collect()
}

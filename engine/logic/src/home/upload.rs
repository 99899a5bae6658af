//! An upload as one core stores it: what is received and durable, the further holders and how they are fed, and when the
//! leader is told.

use proto::checksum::{CRC64_EMPTY, crc64, crc64_combine};
use proto::ids::{Address, Holder, ImageId, Incarnation, LogIndex, NodeId};
use proto::limits::CHUNK_BYTES_MAX;
use proto::peer::{Lane, LeaderRequest, Notice, PeerMessage, Upload};

use crate::context::Context;
use crate::io::BodyRef;
use crate::limits::{HOLDER_WINDOW_BYTES, ORPHAN_US, RESEND_US};
use crate::mutant::Mutant;
use crate::requests::Purpose;
use crate::store::chunks::{Chunks, ReadPurpose};
use crate::store::slot::Slot;

#[derive(Clone, Copy, Debug)]
pub(super) enum Chunk {
    InFlight { length: u32 },
    Durable(Slot),
}

/// What is only needed until the image is ready.
#[derive(Debug)]
pub(super) struct Uploading {
    pub(super) spec: Upload,           // with all receivers that anybody announced here
    pub(super) own: Vec<String>,       // those of them of which this core is the home
    pub(super) unready: Vec<String>,   // those of them whose record is not known here
    pub(super) claimed: Vec<LogIndex>, // records that claimed the bytes, since freed or not
    pub(super) is_home: bool,
    pub(super) sources: Vec<Source>,
    pub(super) received_end: u64,
    pub(super) durable_end: u64,     // <= received_end
    pub(super) durable_sum: u64,     // CRC-64 of the bytes below `durable_end`
    pub(super) promised_blocks: u64, // set aside in the space, not yet written
    pub(super) full: Vec<NodeId>,    // nodes that had no room for it
    pub(super) others: Vec<Other>,   // as home: the further holders
    pub(super) notice: NoticeState,
    pub(super) is_told: bool, // the leader was told of these bytes, and may name this core as holder at any time
    pub(super) is_orphan: bool, // complete for long, and no record: perhaps nobody else tells the leader
    pub(super) complete_us: Option<u64>, // since when all bytes are durable and have the right checksum
}

/// Who announced an upload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) address: Address,
    pub(super) is_ingest: bool, // else a home, which may be the same core
    pub(super) receivers: u64,  // for whom, as announced last (`names_sum`)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoticeState {
    Idle,
    Asked,
    Again { at_us: u64 },
    Ready,
}

/// A further holder, as its home sees it.
#[derive(Debug)]
pub(super) struct Other {
    pub(super) address: Address,
    pub(super) sent_end: u64,
    pub(super) durable_end: u64,
    pub(super) receivers: u64, // for whom it keeps the bytes, as far as it said (`names_sum`)
    pub(super) reading: bool,  // a chunk for it is being read from disk
    pub(super) asked: bool,    // it was silent and has been asked again: it may have begun anew
    pub(super) incarnation: Incarnation,
    pub(super) heard_us: u64,
    pub(super) sent_us: u64,
    pub(super) unread_until_us: u64, // a chunk for it could not be read: no further read before that
}

impl Uploading {
    /// Whether the bytes with that checksum are meant, not others under the same id.
    pub(super) fn is_of(&self, checksum: u64) -> bool {
        self.spec.fingerprint.checksum == checksum
    }

    pub(super) fn has_other(&self, node: NodeId) -> bool {
        self.others.iter().any(|other| other.address.node == node)
    }

    /// Whether that further holder may be named in a record: it has all bytes, and keeps them until every receiver of
    /// this upload has a record.
    pub(super) fn has_whole(&self, other: &Other) -> bool {
        other.durable_end == self.spec.fingerprint.length && other.receivers == names_sum(self.names())
    }

    /// For whom this core sees to it that the image becomes ready: those of whom it is the home; if nobody else seems to,
    /// all.
    pub(super) fn names(&self) -> &[String] {
        if self.is_home && !self.is_orphan { &self.own } else { &self.spec.receivers }
    }

    /// Tells further holders, or asks after what they have.
    fn announce(&self, cx: &mut Context<'_>, to: Address) {
        let (chain, receivers) = (vec![cx.me, to], self.names().to_vec());
        cx.send_on(Lane::Holder, to, PeerMessage::Upload(Upload { chain, receivers, ..self.spec.clone() }));
    }

    /// Somebody announced the image: further receivers are added, and the further holders told of them.
    pub(super) fn add_receivers(&mut self, cx: &mut Context<'_>, source: Source, names: &[String]) {
        self.sources.retain(|other| (other.address, other.is_ingest) != (source.address, source.is_ingest));
        self.sources.push(source);
        let known = names_sum(self.names());
        for name in names {
            if !self.spec.receivers.contains(name) {
                self.spec.receivers.push(name.clone());
                self.unready.push(name.clone());
            }
            if source.is_ingest && !self.own.contains(name) {
                self.own.push(name.clone());
            }
        }
        self.is_home |= source.is_ingest;
        if names_sum(self.names()) == known {
            return;
        }
        if self.notice == NoticeState::Ready {
            self.notice = NoticeState::Idle;
        }
        self.others.iter().for_each(|other| self.announce(cx, other.address));
    }

    pub(super) fn add_other(&mut self, cx: &mut Context<'_>, address: Address) {
        self.announce(cx, address);
        self.others.push(Other {
            address,
            sent_end: 0,
            durable_end: 0,
            receivers: 0,
            reading: false,
            asked: false,
            incarnation: Incarnation::default(),
            heard_us: cx.now.mono_us,
            sent_us: cx.now.mono_us,
            unread_until_us: 0,
        });
    }

    /// Takes further holders until there are as many as make the image accepted. A holder whose home and sender are gone
    /// does it, too: complete bytes are not dropped, so they must come to a record.
    pub(super) fn recruit(&mut self, cx: &mut Context<'_>) {
        let Some(name) = self.names().first() else { return };
        for address in cx.placement(name, usize::MAX) {
            if self.others.len() + 1 >= usize::from(cx.view.copies) {
                return;
            }
            if address.node != cx.me.node && !self.has_other(address.node) {
                self.add_other(cx, address);
            }
        }
    }

    /// Puts the next node on the ring in the place of one that failed. False if there is none to take.
    pub(super) fn replace(&mut self, cx: &mut Context<'_>, lost: NodeId) -> bool {
        let Some(position) = self.others.iter().position(|other| other.address.node == lost) else { return true };
        if self.has_whole(&self.others[position]) {
            return true; // It has the bytes; whether it counts is for the record to say.
        }
        cx.suspects.insert(lost, cx.now);
        let Some(name) = self.names().first() else { return false };
        let candidates = cx.placement(name, usize::MAX);
        let next = candidates.into_iter().find(|&Address { node, .. }| {
            let is_taken = node == cx.me.node || self.has_other(node);
            !is_taken && !self.full.contains(&node) && !cx.suspects.contains(node, cx.now)
        });
        self.others[position].heard_us = cx.now.mono_us; // If there is none, it is asked again.
        let Some(next) = next else { return false };
        let gone = self.others.remove(position);
        let (image, checksum) = (self.spec.image, self.spec.fingerprint.checksum);
        cx.send_on(Lane::Holder, gone.address, PeerMessage::UploadCancel { image, checksum });
        self.add_other(cx, next);
        true
    }

    /// Begins again with holders that did not confirm what was sent.
    pub(super) fn resend(&mut self, cx: &mut Context<'_>) {
        for position in 0..self.others.len() {
            let other = &self.others[position];
            let quiet_us = cx.now.mono_us.saturating_sub(other.heard_us.max(other.sent_us));
            if self.has_whole(other) || quiet_us < RESEND_US || other.reading {
                continue;
            }
            self.announce(cx, other.address);
            let other = &mut self.others[position];
            other.sent_us = cx.now.mono_us;
            other.sent_end = other.durable_end;
            other.asked = true;
        }
    }

    /// Complete bytes are not dropped, so they must come to a record: when nobody else seems to see to that, this core does.
    pub(super) fn look_after(&mut self, cx: &Context<'_>) {
        let is_late = self.complete_us.is_some_and(|since_us| cx.now.mono_us >= since_us + ORPHAN_US);
        if is_late && !self.is_orphan && !self.unready.is_empty() {
            self.is_orphan = true;
            if self.notice == NoticeState::Ready {
                self.notice = NoticeState::Idle;
            }
        }
    }

    /// Tells the leader once enough holders have all bytes; a lone holder tells it when nobody else seems to, or when the records
    /// of all receivers are known: then no further copy is needed, and the leader's word ends the upload.
    pub(super) fn try_notice(&mut self, cx: &mut Context<'_>) {
        if self.complete_us.is_none() || self.notice != NoticeState::Idle || !cx.requests.has_room() {
            return;
        }
        let mut holders = vec![Holder { address: cx.me, incarnation: cx.view.incarnation }];
        holders.extend(
            self.others
                .iter()
                .filter(|other| self.has_whole(other))
                .map(|other| Holder { address: other.address, incarnation: other.incarnation }),
        );
        let spared = usize::from(cx.mutant.is(Mutant::CopyTooFew));
        let enough = holders.len() + spared >= usize::from(cx.view.copies);
        let is_known = self.unready.is_empty();
        if !(self.is_orphan || self.is_home && (enough || is_known)) {
            return;
        }
        (self.notice, self.is_told) = (NoticeState::Asked, true);
        let notice = Notice {
            image: self.spec.image,
            low_water: self.spec.low_water,
            fingerprint: self.spec.fingerprint,
            name: self.spec.name.clone(),
            receivers: self.names().to_vec(),
            holders,
        };
        let purpose = Purpose::Notice { image: self.spec.image, checksum: self.spec.fingerprint.checksum };
        cx.requests.ask(cx.me, cx.now, purpose, LeaderRequest::Notice(notice), cx.out);
    }
}

impl Other {
    pub(super) fn has_window(&self, length: u32) -> bool {
        self.sent_end + u64::from(length) <= self.durable_end + HOLDER_WINDOW_BYTES
    }

    pub(super) fn send(&mut self, cx: &mut Context<'_>, (image, checksum): (ImageId, u64), body: BodyRef) {
        let message = PeerMessage::UploadChunk { image, offset: self.sent_end, checksum, crc32: body.crc32 };
        self.sent_end += u64::from(body.length);
        self.sent_us = cx.now.mono_us;
        cx.send_body(Lane::Holder, self.address, message, body);
    }
}

impl Chunk {
    /// Payload bytes.
    pub(super) fn length(&self) -> u32 {
        match self {
            Chunk::InFlight { length } => *length,
            Chunk::Durable(slot) => slot.length,
        }
    }
}

/// Sends a holder what it lacks, from memory or else from disk, within its window.
pub(super) fn feed(
    cx: &mut Context<'_>,
    store: &mut Chunks,
    upload: (ImageId, u64),
    chunks: &[Chunk],
    other: &mut Other,
) {
    let image = upload.0;
    while !other.reading {
        let offset = other.sent_end;
        let Some(chunk) = chunks.get((offset / CHUNK_BYTES_MAX as u64) as usize) else { return };
        if !offset.is_multiple_of(CHUNK_BYTES_MAX as u64) || !other.has_window(chunk.length()) {
            return;
        }
        if let Some(body) = store.cached(image, offset) {
            other.send(cx, upload, BodyRef { buf: body.buf, length: body.length, crc32: body.crc32 });
        } else if let Chunk::Durable(slot) = chunk
            && cx.now.mono_us >= other.unread_until_us
        {
            other.reading = true;
            store.read(cx, *slot, ReadPurpose::Feed { to: other.address, image, offset });
        } else {
            return; // Neither in memory nor readable yet: its durability, or a tick, brings us back.
        }
    }
}

/// What identifies a list of receivers: CRC-64 of their names, each ended by a zero byte.
pub(super) fn names_sum(names: &[String]) -> u64 {
    names.iter().fold(CRC64_EMPTY, |sum, name| {
        let part = crc64(&[name.as_bytes(), &[0]].concat());
        crc64_combine(sum, part, name.len() as u64 + 1)
    })
}

/// Tells everybody who announced the image what is durable here.
pub(super) fn report(cx: &mut Context<'_>, image: ImageId, upload: &Uploading) {
    report_to(cx, image, upload, |_| true);
}

/// Tells some of them.
pub(super) fn report_to(cx: &mut Context<'_>, image: ImageId, upload: &Uploading, is_told: impl Fn(&Source) -> bool) {
    for source in upload.sources.iter().filter(|source| is_told(source)) {
        let (durable_end, incarnation) = (upload.durable_end, cx.view.incarnation);
        let (checksum, receivers) = (upload.spec.fingerprint.checksum, source.receivers);
        let message = PeerMessage::UploadProgress { image, durable_end, incarnation, checksum, receivers };
        cx.send(source.address, message);
    }
}

#[cfg(test)]
mod tests {
    use proto::error::Refusal;
    use proto::peer::LeaderAnswer;

    use super::super::test_world::home;
    use crate::limits::RESEND_US;

    /// Found by the simulator, seed 3300289: the bytes had rotted meanwhile, so that no further holder could have them.
    #[test]
    fn home_of_an_upload_whose_records_are_all_known_asks_the_leader_without_a_further_holder() {
        let (mut world, _) = home();
        world.pass(3 * RESEND_US);
        assert_eq!(world.take_notices(), [], "too few have the bytes");
        world.claim();
        world.free();
        world.pass(3 * RESEND_US);
        let notices = world.take_notices();
        assert!(!notices.is_empty() && world.uploads() == 1, "{notices:?}");
        let (refusal, text) = (Refusal::AlreadyFinished, "for the test".to_owned());
        world.answer(notices[0], LeaderAnswer::Refused { refusal, text });
        assert_eq!(world.uploads(), 0);
    }
}

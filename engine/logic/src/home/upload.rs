//! An upload as one core stores it: what is received and durable, the further holders and how they are fed, and when the
//! leader is told.

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
    pub(super) spec: Upload,
    pub(super) unready: Vec<String>, // receivers of `spec` whose record is not known here
    pub(super) claimed: Vec<LogIndex>, // records that claimed the bytes, since freed or not
    pub(super) is_home: bool,
    pub(super) sources: Vec<Address>,
    pub(super) received_end: u64,
    pub(super) durable_end: u64,     // <= received_end
    pub(super) durable_sum: u64,     // CRC-64 of the bytes below `durable_end`
    pub(super) promised_blocks: u64, // set aside in the space, not yet written
    pub(super) full: Vec<NodeId>,    // nodes that had no room for it
    pub(super) others: Vec<Other>,   // as home: the further holders
    pub(super) notice: NoticeState,
    pub(super) is_told: bool, // the leader was told of these bytes, and may name this core as holder at any time
    pub(super) complete_us: Option<u64>, // since when all bytes are durable and have the right checksum
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
    pub(super) reading: bool, // a chunk for it is being read from disk
    pub(super) asked: bool,   // it was silent and has been asked again: it may have begun anew
    pub(super) incarnation: Incarnation,
    pub(super) heard_us: u64,
    pub(super) sent_us: u64,
}

impl Uploading {
    pub(super) fn has_other(&self, node: NodeId) -> bool {
        self.others.iter().any(|other| other.address.node == node)
    }

    pub(super) fn add_other(&mut self, cx: &mut Context<'_>, address: Address) {
        let mut chain = vec![cx.me];
        chain.push(address);
        cx.send_on(Lane::Holder, address, PeerMessage::Upload(Upload { chain, ..self.spec.clone() }));
        self.others.push(Other {
            address,
            sent_end: 0,
            durable_end: 0,
            reading: false,
            asked: false,
            incarnation: Incarnation::default(),
            heard_us: cx.now.mono_us,
            sent_us: cx.now.mono_us,
        });
    }

    /// Takes further holders until there are as many as make the image accepted. A holder whose home and sender are gone
    /// does it, too: complete bytes are not dropped, so they must come to a record.
    pub(super) fn recruit(&mut self, cx: &mut Context<'_>) {
        let Some(name) = self.spec.receivers.first() else { return };
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
        if self.others[position].durable_end == self.spec.fingerprint.length {
            return true; // It has the bytes; whether it counts is for the record to say.
        }
        cx.suspects.insert(lost, cx.now);
        let Some(name) = self.spec.receivers.first() else { return false };
        let candidates = cx.placement(name, usize::MAX);
        let next = candidates.into_iter().find(|&Address { node, .. }| {
            let is_taken = node == cx.me.node || self.has_other(node);
            !is_taken && !self.full.contains(&node) && !cx.suspects.contains(node, cx.now)
        });
        self.others[position].heard_us = cx.now.mono_us; // If there is none, it is asked again.
        let Some(next) = next else { return false };
        let gone = self.others.remove(position);
        cx.send_on(Lane::Holder, gone.address, PeerMessage::UploadCancel { image: self.spec.image });
        self.add_other(cx, next);
        true
    }

    /// Begins again with holders that did not confirm what was sent.
    pub(super) fn resend(&mut self, cx: &mut Context<'_>) {
        let length = self.spec.fingerprint.length;
        for other in self.others.iter_mut().filter(|other| other.durable_end < length) {
            let quiet_us = cx.now.mono_us.saturating_sub(other.heard_us.max(other.sent_us));
            if quiet_us >= RESEND_US && !other.reading {
                other.sent_us = cx.now.mono_us;
                other.sent_end = other.durable_end;
                other.asked = true;
                let chain = vec![cx.me, other.address];
                cx.send_on(Lane::Holder, other.address, PeerMessage::Upload(Upload { chain, ..self.spec.clone() }));
            }
        }
    }

    /// Tells the leader once enough holders have all bytes; a lone holder tells it when nobody else seems to.
    pub(super) fn try_notice(&mut self, cx: &mut Context<'_>) {
        let Some(complete_us) = self.complete_us else { return };
        if self.notice != NoticeState::Idle || !cx.requests.has_room() {
            return;
        }
        let length = self.spec.fingerprint.length;
        let mut holders = vec![Holder { address: cx.me, incarnation: cx.view.incarnation }];
        holders.extend(
            self.others
                .iter()
                .filter(|other| other.durable_end == length)
                .map(|other| Holder { address: other.address, incarnation: other.incarnation }),
        );
        let spared = usize::from(cx.mutant.is(Mutant::CopyTooFew));
        let enough = holders.len() + spared >= usize::from(cx.view.copies);
        if !enough && cx.now.mono_us < complete_us + ORPHAN_US {
            return;
        }
        if !self.is_home && cx.now.mono_us < complete_us + ORPHAN_US {
            return;
        }
        (self.notice, self.is_told) = (NoticeState::Asked, true);
        let notice = Notice {
            image: self.spec.image,
            low_water: self.spec.low_water,
            fingerprint: self.spec.fingerprint,
            name: self.spec.name.clone(),
            receivers: self.spec.receivers.clone(),
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
        } else if let Chunk::Durable(slot) = chunk {
            other.reading = true;
            store.read(cx, *slot, ReadPurpose::Feed { to: other.address, image, offset });
        } else {
            return; // Neither in memory nor readable yet: its durability brings us back.
        }
    }
}

pub(super) fn report(cx: &mut Context<'_>, image: ImageId, upload: &Uploading) {
    for &source in &upload.sources {
        let (durable_end, incarnation) = (upload.durable_end, cx.view.incarnation);
        let checksum = upload.spec.fingerprint.checksum;
        cx.send(source, PeerMessage::UploadProgress { image, durable_end, incarnation, checksum });
    }
}

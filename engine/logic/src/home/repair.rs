//! Bytes that records say are here, and are not, or are others than were written: they come again from the other holders.
//!
//! ```text
//! a claim without bytes, a chunk that reads wrong -> the other holders (core 0 knows them) -> Fetch, one chunk at a time
//! checked, written, durable -> it takes the place of what was lost
//! every other holder answered that it has them not -> Lost, a record: this core is no holder any more
//! ```
//! The record is what makes an image damaged, when the last holder is gone; nothing here decides it. Bounds: images under
//! repair by `REPAIRS_MAX`, one chunk of each; those that wait cost their name and their records.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proto::error::Refusal;
use proto::ids::{Address, CoreId, Fingerprint, Holder, ImageId, LogIndex, RequestId};
use proto::limits::{CHUNK_BYTES_MAX, LOST_MAX};
use proto::peer::{LeaderRequest, PeerMessage};
use proto::record::Lost;

use super::Home;
use super::upload::{Chunk, NoticeState};
use crate::context::Context;
use crate::ingest::chunk_length;
use crate::io::{Body, CoreNote};
use crate::limits::{FETCH_AGAIN_US, FETCH_TIMEOUT_US, REPAIR_AFTER_US, REPAIR_LOOKS_MAX, REPAIRS_MAX};
use crate::requests::Purpose;
use crate::store::chunks::ChunkId;
use crate::store::slot::{Slot, blocks_for};

/// Requests of repairs have this bit, those of deliveries never.
const REPAIR_BIT: u64 = 1 << 63;

/// See the top of this file.
#[derive(Debug)]
pub(super) struct Repairs {
    all: BTreeMap<ImageId, Repair>,
    waiting: VecDeque<ImageId>,  // those of them that nothing is done for now; some are gone
    busy: BTreeSet<ImageId>,     // those of them that are worked at
    hopeless: BTreeSet<ImageId>, // those of them that no other holder has
    by_request: BTreeMap<RequestId, ImageId>,
    last_request: u64,
    is_told: bool, // the leader is asked about some that are lost
}

#[derive(Debug)]
struct Repair {
    fingerprint: Fingerprint,
    claims: Vec<LogIndex>, // of a missing image; those of an object are its own
    what: What,
    again_us: u64,                   // not before
    holders: Option<Vec<Address>>,   // the other ones, once core 0 said
    refused: BTreeSet<Address>,      // those of them that said they have not what was asked for
    tried: usize,                    // of `holders`, for the chunk that is next
    asked: Option<(RequestId, u64)>, // a chunk, since when
    storing: Option<u64>,            // a chunk, since when
}

#[derive(Debug)]
enum What {
    /// All of it.
    Image,
    /// These chunks of an object.
    Chunks(BTreeSet<u32>),
}

impl Repairs {
    /// Requests are numbered from a place of chance, so that bytes sent to a former life of this process are nobody's.
    pub fn new(entropy: u64) -> Repairs {
        Repairs {
            all: BTreeMap::new(),
            waiting: VecDeque::new(),
            busy: BTreeSet::new(),
            hopeless: BTreeSet::new(),
            by_request: BTreeMap::new(),
            last_request: entropy >> 1,
            is_told: false,
        }
    }

    /// The repair of an image, begun if there is none.
    fn of(&mut self, image: ImageId, fresh: impl FnOnce() -> Repair) -> &mut Repair {
        match self.all.entry(image) {
            Entry::Vacant(vacant) => {
                self.waiting.push_back(image);
                vacant.insert(fresh())
            }
            Entry::Occupied(found) => found.into_mut(),
        }
    }

    /// Lets an image wait, and begins anew with all holders then.
    fn pause(&mut self, image: ImageId, now_us: u64) {
        let Some(repair) = self.all.get_mut(&image) else { return };
        repair.again_us = now_us + FETCH_AGAIN_US;
        (repair.holders, repair.tried) = (None, 0);
        repair.refused.clear();
        if self.busy.remove(&image) {
            self.waiting.push_back(image);
        }
    }

    fn end(&mut self, image: ImageId) {
        self.busy.remove(&image);
        self.hopeless.remove(&image);
        if let Some(Repair { asked: Some((request, _)), .. }) = self.all.remove(&image) {
            self.by_request.remove(&request);
        }
    }
}

impl Repair {
    fn new(fingerprint: Fingerprint, what: What, now_us: u64) -> Repair {
        Repair {
            fingerprint,
            claims: Vec::new(),
            what,
            again_us: now_us + REPAIR_AFTER_US,
            holders: None,
            refused: BTreeSet::new(),
            tried: 0,
            asked: None,
            storing: None,
        }
    }
}

/// Whether a `Fetched` or `FetchFailed` is for a repair.
pub(crate) fn is_of_repair(request: RequestId) -> bool {
    request.0 & REPAIR_BIT != 0
}

impl Home {
    /// A record names this core as holder of bytes that are not here.
    pub(super) fn lack(&mut self, cx: &Context<'_>, (image, fingerprint): (ImageId, Fingerprint), index: LogIndex) {
        let repair = self.repairs.of(image, || Repair::new(fingerprint, What::Image, cx.now.mono_us));
        if repair.fingerprint == fingerprint && !repair.claims.contains(&index) {
            repair.claims.push(index);
        }
    }

    /// A chunk on disk has other bytes than were written. That of an upload is its sender's to send again.
    pub fn note_rot(&mut self, cx: &Context<'_>, slot: Slot) {
        let Some(object) = self.objects.get(&slot.image).filter(|object| !object.claims.is_empty()) else { return };
        let is_there = matches!(object.chunks.get(slot.chunk as usize), Some(Chunk::Durable(found)) if *found == slot);
        if !is_there {
            return;
        }
        if self.objects.get_mut(&slot.image).is_some_and(|object| object.fall_back(slot)) {
            return self.chunks.free(slot.extent);
        }
        let object = self.objects.get(&slot.image).expect("looked at above");
        let fingerprint = object.fingerprint();
        let fresh = || Repair::new(fingerprint, What::Chunks(BTreeSet::new()), cx.now.mono_us);
        let repair = self.repairs.of(slot.image, fresh);
        if let What::Chunks(chunks) = &mut repair.what {
            chunks.insert(slot.chunk);
        }
    }

    /// A record does not name this core any more, or nobody waits for it.
    pub(super) fn forget_lack(&mut self, image: ImageId, index: LogIndex) {
        if let Some(repair) = self.repairs.all.get_mut(&image) {
            repair.claims.retain(|&claim| claim != index);
        }
    }

    /// Why there is no slot of an image: it is not held, or which record claims what is here is not known yet.
    pub fn why_no_slot(&self, image: ImageId) -> Refusal {
        let may_be_claimed = self.objects.get(&image).is_some_and(|object| object.claims.is_empty());
        if may_be_claimed && !self.repairs.all.contains_key(&image) { Refusal::NotReady } else { Refusal::NotHeld }
    }

    /// Images that wait for bytes of other holders.
    pub fn repairs(&self) -> u64 {
        self.repairs.all.len() as u64
    }

    /// Core 0 knows who has the bytes of a record; nobody if none of its receivers waits any more.
    pub fn on_holders(&mut self, cx: &mut Context<'_>, image: ImageId, holders: &[Holder]) {
        let Some(repair) = self.repairs.all.get_mut(&image).filter(|repair| repair.holders.is_none()) else { return };
        let others = holders.iter().map(|holder| holder.address).filter(|address| *address != cx.me);
        repair.holders = Some(others.collect());
        repair.again_us = cx.now.mono_us;
        self.go_on(cx, image);
    }

    /// A holder sent a chunk.
    pub fn on_repair_fetched(
        &mut self,
        cx: &mut Context<'_>,
        (request, image, offset): (RequestId, ImageId, u64),
        body: Body,
    ) {
        let is_known = self.repairs.by_request.remove(&request) == Some(image);
        let Some(repair) = self.repairs.all.get_mut(&image).filter(|_| is_known) else { return cx.release(body.buf) };
        repair.asked = None;
        let number = (offset / CHUNK_BYTES_MAX as u64) as u32;
        let is_wanted = match (&repair.what, self.objects.get(&image)) {
            (What::Image, Some(object)) if object.upload.is_some() || !object.claims.is_empty() => false,
            (What::Image, object) => {
                object.map_or(0, |object| object.chunks.len()) == number as usize
                    && u64::from(body.length) == chunk_length(repair.fingerprint.length, offset)
            }
            (What::Chunks(_), Some(object)) => match object.chunks.get(number as usize) {
                Some(Chunk::Durable(old)) => {
                    (body.length, body.crc32, body.crc64) == (old.length, old.crc32, old.crc64)
                }
                _ => false,
            },
            (What::Chunks(_), None) => false,
        };
        if !is_wanted || !self.chunks.can_write() {
            cx.release(body.buf);
            repair.tried += 1;
            return self.go_on(cx, image);
        }
        repair.storing = Some(cx.now.mono_us);
        if matches!(repair.what, What::Image) {
            if !self.objects.contains_key(&image) {
                let object = self.new_object(cx.now.mono_us);
                self.objects.insert(image, object);
            }
            let object = self.objects.get_mut(&image).expect("inserted above");
            object.touched_us = cx.now.mono_us;
            object.chunks.push(Chunk::InFlight { length: body.length });
            self.image_bytes += u64::from(body.length);
        }
        let life = self.objects.get(&image).expect("looked at above").life;
        self.chunks.write(cx, ChunkId { image, life, number }, body);
    }

    /// A holder has not the chunk, or not now.
    pub fn on_repair_failed(&mut self, cx: &mut Context<'_>, request: RequestId, refusal: Refusal) {
        let Some(image) = self.repairs.by_request.remove(&request) else { return };
        let Some(repair) = self.repairs.all.get_mut(&image) else { return };
        repair.asked = None;
        let asked = repair.holders.as_ref().and_then(|holders| holders.get(repair.tried)).copied();
        if let Some(address) = asked.filter(|_| refusal == Refusal::NotHeld) {
            repair.refused.insert(address);
        }
        repair.tried += 1;
        self.go_on(cx, image);
    }

    /// A chunk of an image became durable.
    pub(super) fn on_repaired(&mut self, cx: &mut Context<'_>, image: ImageId, number: u32) {
        let Some(repair) = self.repairs.all.get_mut(&image) else { return };
        if repair.storing.take().is_none() {
            return;
        }
        repair.tried = 0;
        repair.refused.clear();
        if let What::Chunks(chunks) = &mut repair.what {
            chunks.remove(&number);
        }
        self.go_on(cx, image);
        self.take_up(cx);
    }

    /// The leader noted what is lost, or could not.
    pub fn on_lost_answer(&mut self) {
        self.repairs.is_told = false;
    }

    /// Goes on with what is late, takes up what waits, and tells the leader what is lost.
    pub(super) fn repair(&mut self, cx: &mut Context<'_>) {
        let busy: Vec<ImageId> = self.repairs.busy.iter().copied().collect();
        for image in busy {
            self.go_on(cx, image);
        }
        self.take_up(cx);
        if self.claims_complete && cx.view.contact {
            self.tell_lost(cx);
        }
    }

    /// Begins with those that wait, as many as may be under way.
    fn take_up(&mut self, cx: &mut Context<'_>) {
        if !self.claims_complete || !cx.view.contact {
            return;
        }
        for _ in 0..self.repairs.waiting.len().min(REPAIR_LOOKS_MAX) {
            if self.repairs.busy.len() >= REPAIRS_MAX {
                break;
            }
            let image = self.repairs.waiting.pop_front().expect("as many as were there");
            match self.repairs.all.get(&image) {
                Some(repair) if cx.now.mono_us < repair.again_us || self.repairs.hopeless.contains(&image) => {
                    self.repairs.waiting.push_back(image);
                }
                Some(_) => {
                    self.repairs.busy.insert(image);
                    self.go_on(cx, image);
                }
                None => {}
            }
        }
    }

    /// Does what is next for an image under repair.
    fn go_on(&mut self, cx: &mut Context<'_>, image: ImageId) {
        let now_us = cx.now.mono_us;
        let Some(repair) = self.repairs.all.get_mut(&image) else { return };
        if let Some((request, since_us)) = repair.asked {
            if now_us < since_us + FETCH_TIMEOUT_US {
                return;
            }
            self.repairs.by_request.remove(&request);
            (repair.asked, repair.tried) = (None, repair.tried + 1);
        }
        if let Some(since_us) = repair.storing {
            if now_us < since_us + FETCH_TIMEOUT_US {
                return;
            }
            repair.storing = None;
            if matches!(repair.what, What::Image) {
                // It found no room, or the disk is slow: what comes of it is of a life that is over.
                self.repairs.pause(image, now_us);
                if self.objects.get(&image).is_some_and(|object| object.upload.is_none() && object.claims.is_empty()) {
                    self.drop_object(cx, image);
                }
                return;
            }
        }
        let object = self.objects.get(&image);
        let has_upload = object.is_some_and(|object| object.upload.is_some());
        let next = match (&repair.what, object) {
            (What::Image, _) if repair.claims.is_empty() => return self.repairs.end(image),
            (What::Image, Some(_)) if has_upload => {
                // Its sender sends it again: if it is whole, it is what the records speak of.
                return self.adopt_upload(cx, image);
            }
            (What::Image, object) => {
                let known = object.map_or(0, |object| object.chunks.len() as u32);
                let offset = u64::from(known) * CHUNK_BYTES_MAX as u64;
                if offset >= repair.fingerprint.length {
                    return self.finish_image(cx, image);
                }
                offset
            }
            (What::Chunks(_), None) => return self.repairs.end(image),
            (What::Chunks(chunks), Some(object)) => match chunks.first() {
                Some(chunk) if !object.claims.is_empty() => u64::from(*chunk) * CHUNK_BYTES_MAX as u64,
                _ => return self.repairs.end(image),
            },
        };
        if now_us < repair.again_us {
            return;
        }
        let blocks = u64::from(blocks_for(chunk_length(repair.fingerprint.length, next) as u32));
        let claim = match object.and_then(|object| object.claims.first()).or(repair.claims.first()) {
            Some(&claim) => claim,
            None => return self.repairs.end(image),
        };
        let Some(holders) = &repair.holders else {
            repair.again_us = now_us + FETCH_AGAIN_US; // The answer makes it go on at once.
            return cx.tell(CoreId(0), CoreNote::HoldersAsk { image, index: claim });
        };
        let Some(&address) = holders.get(repair.tried) else {
            if holders.iter().all(|address| repair.refused.contains(address)) {
                self.repairs.hopeless.insert(image);
            }
            return self.repairs.pause(image, now_us);
        };
        if !self.chunks.can_write() || !self.chunks.space.has_room_for(blocks) {
            return self.repairs.pause(image, now_us);
        }
        self.repairs.last_request += 1;
        let request = RequestId(self.repairs.last_request | REPAIR_BIT);
        repair.asked = Some((request, now_us));
        self.repairs.by_request.insert(request, image);
        cx.send(address, PeerMessage::Fetch { request, image, offset: next });
    }

    /// All chunks of a missing image came.
    fn finish_image(&mut self, cx: &mut Context<'_>, image: ImageId) {
        let object = self.objects.get_mut(&image).expect("it has chunks");
        if object.chunks.iter().any(|chunk| matches!(chunk, Chunk::InFlight { .. })) {
            return;
        }
        let repair = self.repairs.all.get_mut(&image).expect("the caller found it");
        if object.fingerprint() != repair.fingerprint {
            tracing::warn!(%image, "the bytes that came from another holder are not those of the image");
            self.repairs.pause(image, cx.now.mono_us);
            return self.drop_object(cx, image);
        }
        object.claims.clone_from(&repair.claims);
        for slot in std::mem::take(&mut object.before) {
            self.chunks.free(slot.extent);
        }
        tracing::info!(%image, "bytes that this core lacked came from another holder");
        self.repairs.end(image);
        self.objects.rest(&image);
    }

    /// An upload of an image that records name and that is not here.
    fn adopt_upload(&mut self, cx: &mut Context<'_>, image: ImageId) {
        let repair = self.repairs.all.get_mut(&image).expect("the caller found it");
        let object = self.objects.get_mut(&image).expect("the caller found it");
        let upload = object.upload.as_mut().expect("the caller found it");
        if upload.spec.fingerprint != repair.fingerprint || upload.complete_us.is_none() {
            return self.repairs.pause(image, cx.now.mono_us);
        }
        upload.claimed.extend(&repair.claims);
        // For whom those records are, the leader says with its next answer.
        upload.notice = NoticeState::Idle;
        object.claims.extend(&repair.claims);
        self.repairs.end(image);
        self.advance(cx, image);
    }

    /// Tells the leader what nobody has any more; it is asked again until the record is applied.
    fn tell_lost(&mut self, cx: &mut Context<'_>) {
        if self.repairs.is_told || !cx.requests.has_room() {
            return;
        }
        let mut records = Vec::new();
        while let Some(image) = self.repairs.hopeless.first().copied() {
            let repair = self.repairs.all.get_mut(&image).expect("it ends in all lists at once");
            let claims = match repair.what {
                What::Image => repair.claims.clone(),
                What::Chunks(_) => self.objects.get(&image).map_or(Vec::new(), |object| object.claims.clone()),
            };
            if records.len() + claims.len() > LOST_MAX && !records.is_empty() {
                break;
            }
            records.extend(claims.into_iter().take(LOST_MAX));
            // If it changes nothing, somebody may have the bytes after all.
            self.repairs.hopeless.remove(&image);
            repair.again_us = cx.now.mono_us + FETCH_TIMEOUT_US;
        }
        if records.is_empty() {
            return;
        }
        self.repairs.is_told = true;
        let holder = Holder { address: cx.me, incarnation: cx.view.incarnation };
        tracing::warn!(images = records.len(), "no other holder has these bytes: this core gives up being one");
        let body = LeaderRequest::Lost(Lost { holder, records });
        cx.requests.ask(cx.me, cx.now, Purpose::Lost, body, cx.out);
    }
}

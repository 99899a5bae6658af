//! Stage home: stores the bytes of images, as home (first in the chain) or as further holder.
//!
//! ```text
//! ingest --Upload, UploadChunk*--> home: chunk store, and on to the further holders, at their pace
//! holder --UploadProgress--> home        home --UploadProgress--> ingest
//! all bytes durable on `copies` holders: home --Notice--> leader
//! leader --Ready--> home --UploadReady--> ingest
//! record applied: Claim (keep the bytes)       all receivers acknowledged: Free
//! ```
//! Bytes are freed only by `Free`, by the leader's answer that the image is ready elsewhere or refused for good, by proof
//! that the image is finished, or, for uploads that nobody claims and nobody continues, after the idle time. Never because
//! something is merely absent.
//!
//! The homes feed all further holders themselves (a star, not a chain): with the default of two copies it is the same, and
//! one slow holder does not hide behind another.

mod claim;
mod doubt;
mod objects;
mod refusal;
mod repair;
mod rot;
mod scrub;
#[cfg(test)]
mod test_world;
mod upload;

use std::fmt;
use std::sync::Arc;

use proto::checksum::{CRC64_EMPTY, crc64_combine};
use proto::error::Refusal;
use proto::ids::{Address, Fingerprint, Holder, ImageId, Incarnation, LogIndex, NodeId};
use proto::limits::CHUNK_BYTES_MAX;
use proto::peer::{LeaderAnswer, PeerMessage, Upload};

use self::objects::Objects;
use self::refusal::{refuse, upload_of};
use self::repair::Repairs;
pub(crate) use self::repair::is_of_repair;
use self::scrub::Scrub;
use self::upload::{Chunk, NoticeState, Other, Source, Uploading, feed, names_sum, report, report_to};
use crate::context::Context;
use crate::ingest::chunk_length;
use crate::io::{Body, BodyRef, DiskError, FileId, Ticket};
use crate::limits::{FOUND_IDLE_US, HOME_UPLOADS_MAX, NO_ROOM_US, NOTICE_RETRY_US, ORPHAN_US, STALL_US, UNCLAIMED_MAX};
use crate::mutant::Mutant;
use crate::shard::ShardConfig;
use crate::store::chunks::{ChunkId, Chunks};
use crate::store::slot::{Slot, blocks_for};

/// The images of one core's store.
pub(crate) struct Home {
    pub chunks: Chunks,
    objects: Objects,
    uploads: usize,   // objects with an upload
    image_bytes: u64, // payload of the chunks of all objects
    next_life: u64,
    upload_idle_us: u64,
    claims_complete: bool,
    alone_us: u64, // when this core last lacked claims or a leader
    repairs: Repairs,
    scrub: Scrub,
    is_looking: bool, // a chunk in doubt is being read
    no_room: Option<NoRoom>,
}

/// No log had room for the record of an image.
struct NoRoom {
    until_us: u64, // nothing new is begun before that
    text: String,
}

/// An image in the store.
#[derive(Debug)]
struct Object {
    life: u64,
    chunks: Vec<Chunk>,     // by number, without gap
    before: Vec<Slot>, // found at start: of no claim until the same bytes are whole again, or in doubt beside those that count
    claims: Vec<LogIndex>, // records that name this core as holder
    may_be_relied_on: bool, // by homes of which this core does not know: found at start, or given up after they were told of them
    upload: Option<Box<Uploading>>,
    touched_us: u64,
}

/// What a store says of an upload (`PeerMessage::UploadProgress`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    pub durable_end: u64,
    pub incarnation: Incarnation,
    pub receivers: u64,
}

/// The uploads only: the rest is many.
impl fmt::Debug for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uploads = self.objects.open().filter_map(|(image, object)| Some((image, object.upload.as_ref()?)));
        f.debug_map().entries(uploads).finish()
    }
}

impl Home {
    /// Takes over what was found on disk; claims follow.
    pub fn new(chunks: Chunks, mut found: Vec<Slot>, config: &ShardConfig, now_us: u64) -> Home {
        let mut home = Home {
            chunks,
            objects: Objects::default(),
            uploads: 0,
            image_bytes: 0,
            next_life: 1,
            upload_idle_us: config.upload_idle_us,
            claims_complete: false,
            alone_us: now_us,
            repairs: Repairs::new(config.entropy[3]),
            scrub: Scrub::new(config.scrub_pass_us, now_us),
            is_looking: false,
            no_room: None,
        };
        // Of several slots of one chunk the youngest comes last, and counts until a record says which bytes are meant.
        found.sort_unstable_by_key(|slot| (slot.image, slot.chunk, slot.birth));
        let mut objects = Vec::new();
        for slots in found.chunk_by(|one, next| one.image == next.image) {
            let mut object = Object { may_be_relied_on: true, ..home.new_object(now_us) };
            object.chunks.reserve_exact(slots.len());
            for (at, slot) in slots.iter().enumerate() {
                let is_youngest = slots.get(at + 1).is_none_or(|next| next.chunk != slot.chunk);
                if is_youngest && slot.chunk as usize == object.chunks.len() {
                    home.image_bytes += u64::from(slot.length);
                    object.chunks.push(Chunk::Durable(*slot));
                } else {
                    object.before.push(*slot);
                }
            }
            object.shrink();
            objects.push((slots[0].image, object));
        }
        home.objects = Objects::found(objects);
        home
    }

    /// After how long an upload ends that nobody goes on with.
    pub fn upload_idle_us(&self) -> u64 {
        self.upload_idle_us
    }

    /// An ingest or a home announces an image, or asks after it.
    pub fn on_upload(&mut self, cx: &mut Context<'_>, from: Address, spec: Upload) {
        let image = spec.image;
        let is_home = spec.chain.first() == Some(&cx.me);
        tracing::trace!(%image, %from, chain = ?spec.chain, "upload");
        if cx.view.ring.members().is_empty() {
            // Who this node is in the cluster is not known to this core yet: what it holds could not be named.
            let text = "the node has just started; try again".to_owned();
            return refuse(cx, from, upload_of(&spec), Refusal::NotReady, text);
        }
        if is_home && !cx.view.contact {
            let text = "the home has no leader: fewer than a majority of the voters can be reached".to_owned();
            return refuse(cx, from, upload_of(&spec), Refusal::NoLeader, text);
        }
        let other = self.objects.get(&image).and_then(|object| object.upload.as_ref());
        if let Some(other) = other.filter(|other| other.spec.fingerprint != spec.fingerprint)
            && !cx.mutant.is(Mutant::StoreOtherBytes)
        {
            // Which bytes are the image's only a record tells. Bytes that are not whole give way to a new attempt; whole ones
            // are before the leader.
            if other.complete_us.is_some() {
                let text = format!("other bytes are being judged under the id {image}; try again");
                return refuse(cx, from, upload_of(&spec), Refusal::Busy, text);
            }
            // Whoever sends them tries again: they may be those of a record, of which this core was told long ago.
            let text = format!("image {image} was begun again with other bytes; try again");
            self.give_up(cx, image, Refusal::Busy, &text);
        }
        if self.objects.get(&image).is_none_or(|object| object.upload.is_none())
            && let Err((refusal, text)) = self.begin(cx, &spec, is_home)
        {
            return refuse(cx, from, upload_of(&spec), refusal, text);
        }
        let object = self.objects.get_mut(&image).expect("begun above");
        if is_home {
            // Not for a holder: homes that took turns may ask each other for bytes that neither will ever get.
            object.touched_us = cx.now.mono_us;
        }
        let upload = object.upload.as_mut().expect("begun above");
        let source = Source { address: from, is_ingest: is_home, receivers: names_sum(&spec.receivers) };
        upload.add_receivers(cx, source, &spec.receivers);
        if is_home {
            for &address in spec.chain.iter().skip(1) {
                if upload.others.len() + 1 < usize::from(cx.view.copies) && !upload.has_other(address.node) {
                    upload.add_other(cx, address);
                }
            }
        }
        report(cx, image, upload);
        self.advance(cx, image);
    }

    /// Bytes of an upload.
    pub fn on_chunk(
        &mut self,
        cx: &mut Context<'_>,
        from: Address,
        (image, checksum): (ImageId, u64),
        offset: u64,
        body: Body,
    ) {
        let now_us = cx.now.mono_us;
        let Some(object) = self.objects.get_mut(&image) else { return cx.release(body.buf) };
        let Some(upload) = object.upload.as_mut().filter(|upload| upload.is_of(checksum)) else {
            return cx.release(body.buf);
        };
        let expected = chunk_length(upload.spec.fingerprint.length, upload.received_end);
        if offset != upload.received_end || u64::from(body.length) != expected || expected == 0 {
            cx.release(body.buf);
            if offset < upload.durable_end {
                report_to(cx, image, upload, |source| source.address == from);
            }
            return;
        }
        if !self.chunks.can_write() {
            cx.release(body.buf);
            return; // Nothing is confirmed, so the bytes come again.
        }
        object.touched_us = now_us;
        let blocks = u64::from(blocks_for(body.length)).min(upload.promised_blocks);
        upload.promised_blocks -= blocks;
        self.chunks.space.unpromise(blocks);
        upload.received_end += u64::from(body.length);
        self.image_bytes += u64::from(body.length);
        let id = ChunkId { image, life: object.life, number: object.chunks.len() as u32 };
        object.chunks.push(Chunk::InFlight { length: body.length });
        let bytes = BodyRef { buf: body.buf, length: body.length, crc32: body.crc32 };
        for other in &mut upload.others {
            if other.sent_end == offset && other.has_window(bytes.length) {
                other.send(cx, (image, checksum), bytes);
            }
        }
        self.chunks.write(cx, id, body);
    }

    /// A data write is done.
    pub fn on_written(&mut self, cx: &mut Context<'_>, ticket: Ticket) {
        let written = self.chunks.on_written(ticket);
        if cx.mutant.is(Mutant::ConfirmBeforeSync) {
            self.confirm(cx, vec![written]);
        }
    }

    /// A commit is done.
    pub fn on_committed(&mut self, cx: &mut Context<'_>, ticket: Ticket) {
        let chunks = self.chunks.on_committed(ticket);
        if !cx.mutant.is(Mutant::ConfirmBeforeSync) {
            self.confirm(cx, chunks);
        }
    }

    /// Chunks are durable.
    fn confirm(&mut self, cx: &mut Context<'_>, chunks: Vec<(ChunkId, Slot)>) {
        let mut moved = Vec::new();
        for (id, slot) in chunks {
            let Some(object) = self.objects.get_mut(&id.image).filter(|object| object.life == id.life) else {
                self.chunks.free(slot.extent);
                continue;
            };
            if let Chunk::Durable(rotten) =
                std::mem::replace(&mut object.chunks[id.number as usize], Chunk::Durable(slot))
            {
                self.chunks.free(rotten.extent);
            }
            if object.upload.is_none() {
                self.on_repaired(cx, id.image, id.number);
                continue;
            }
            let Some(upload) = object.upload.as_mut() else { continue };
            while let Some(Chunk::Durable(slot)) =
                object.chunks.get((upload.durable_end / CHUNK_BYTES_MAX as u64) as usize)
                && upload.durable_end < upload.received_end
            {
                upload.durable_end += u64::from(slot.length);
                upload.durable_sum = crc64_combine(upload.durable_sum, slot.crc64, u64::from(slot.length));
            }
            if !moved.contains(&id.image) {
                moved.push(id.image);
            }
        }
        for image in moved {
            // Checked before it is reported: what is reported whole counts as a copy.
            self.advance(cx, image);
            if let Some(upload) = self.objects.get(&image).and_then(|object| object.upload.as_ref()) {
                report(cx, image, upload);
            }
        }
    }

    /// A further holder says how much it has.
    pub fn on_progress(
        &mut self,
        cx: &mut Context<'_>,
        from: Address,
        (image, checksum): (ImageId, u64),
        progress: Progress,
    ) {
        let Progress { durable_end, incarnation, receivers } = progress;
        let upload = self.objects.get_mut(&image).and_then(|object| object.upload.as_mut());
        // A holder of other bytes under this id is no holder of these.
        let Some(upload) = upload.filter(|upload| upload.is_of(checksum)) else { return };
        let (length, sum) = (upload.spec.fingerprint.length, names_sum(upload.names()));
        let Some(other) = upload.others.iter_mut().find(|other| other.address == from) else { return };
        other.heard_us = cx.now.mono_us;
        if receivers != sum {
            return; // Said of fewer receivers, or to this core as ingest.
        }
        other.incarnation = incarnation;
        let is_first = std::mem::replace(&mut other.receivers, sum) != sum;
        if (std::mem::take(&mut other.asked) || is_first) && durable_end < other.durable_end {
            // It began anew, without what it had.
            (other.durable_end, other.sent_end) = (durable_end, durable_end);
        }
        other.durable_end = other.durable_end.max(durable_end.min(length));
        other.sent_end = other.sent_end.max(other.durable_end);
        self.advance(cx, image);
    }

    /// The leader judged a notice.
    pub fn on_notice_answer(&mut self, cx: &mut Context<'_>, (image, checksum): (ImageId, u64), answer: LeaderAnswer) {
        let Some(object) = self.objects.get_mut(&image) else { return };
        let Some(upload) = object.upload.as_mut().filter(|upload| upload.is_of(checksum)) else { return };
        match answer {
            LeaderAnswer::Ready { ready } => {
                let names: Vec<String> = ready.iter().map(|receiver| receiver.name.clone()).collect();
                let index = ready.iter().map(|receiver| receiver.index).max().unwrap_or_default();
                let mut holders: Vec<Holder> = Vec::new();
                for holder in ready.iter().flat_map(|receiver| &receiver.holders) {
                    if !holders.contains(holder) {
                        holders.push(*holder);
                    }
                }
                for source in upload.sources.iter().filter(|source| source.is_ingest) {
                    let message = PeerMessage::UploadReady {
                        image,
                        receivers: names.clone(),
                        index,
                        holders: holders.clone(),
                        checksum,
                    };
                    cx.send(source.address, message);
                }
                let all = upload.names().iter().all(|name| names.contains(name));
                upload.notice = if all { NoticeState::Ready } else { NoticeState::Idle };
                if !all {
                    return self.advance(cx, image);
                }
                upload.sources.retain(|source| !source.is_ingest);
                // Of a record that names this core the claim is there or comes; the others do not concern its bytes.
                let claimed = &upload.claimed;
                let claim_comes = |name: &String| {
                    ready.iter().any(|receiver| {
                        receiver.name == *name
                            && receiver.holders.iter().any(|holder| holder.address == cx.me)
                            && !claimed.contains(&receiver.index)
                    })
                };
                upload.unready.retain(|name| !names.contains(name) || claim_comes(name));
                self.try_settle(cx, image);
            }
            LeaderAnswer::TooFewHolders => {
                upload.notice = NoticeState::Again { at_us: cx.now.mono_us + ORPHAN_US };
                upload.recruit(cx);
            }
            LeaderAnswer::Refused { refusal, .. } if refusal.is_transient() => {
                upload.notice = NoticeState::Again { at_us: cx.now.mono_us + NOTICE_RETRY_US };
            }
            LeaderAnswer::Refused { refusal: Refusal::NoSpace, text } => {
                // No log has room. An earlier notice may stand in one all the same, so this is no final word.
                upload.notice = NoticeState::Again { at_us: cx.now.mono_us + NOTICE_RETRY_US };
                upload.tell_senders(cx, Refusal::Busy, &text);
                self.no_room = Some(NoRoom { until_us: cx.now.mono_us + NO_ROOM_US, text });
            }
            LeaderAnswer::Refused { refusal, text } => self.give_up(cx, image, refusal, &text),
            other => tracing::warn!(%image, ?other, "the leader answered a notice with something else"),
        }
    }

    /// All receivers of a record acknowledged.
    pub fn on_free(&mut self, cx: &mut Context<'_>, image: ImageId, index: LogIndex) {
        self.forget_lack(image, index);
        let Some(object) = self.objects.get_mut(&image) else { return };
        object.claims.retain(|&claim| claim != index);
        if object.upload.is_some() {
            self.try_settle(cx, image);
        } else if object.claims.is_empty() && !object.may_be_relied_on {
            self.drop_object(cx, image);
        } // Found bytes: a home may have been told of them for further receivers. They go when the image is finished.
    }

    /// All claims of the records applied at start were told. Returns the images that no record claimed.
    pub fn on_claims_complete(&mut self) -> Vec<ImageId> {
        self.claims_complete = true;
        self.unclaimed()
    }

    /// Whether all claims of the records applied at start were told.
    pub fn is_claims_complete(&self) -> bool {
        self.claims_complete
    }

    /// Images found at start that no record claimed since, at most `UNCLAIMED_MAX`.
    pub fn unclaimed(&self) -> Vec<ImageId> {
        let unclaimed = self.objects.open().filter(|(_, object)| object.claims.is_empty() && object.upload.is_none());
        unclaimed.map(|(&image, _)| image).take(UNCLAIMED_MAX).collect()
    }

    /// The records prove that these are finished.
    pub fn on_finished(&mut self, cx: &mut Context<'_>, images: &[ImageId]) {
        for &image in images {
            let Some(object) = self.objects.get(&image) else { continue };
            if object.claims.is_empty() && object.upload.is_none() {
                self.drop_object(cx, image);
            }
        }
    }

    /// A node cannot be reached: its copies go to the next node at once.
    pub fn on_unreachable(&mut self, cx: &mut Context<'_>, node: NodeId) {
        self.for_uploads(cx, |cx, upload| {
            upload.replace(cx, node);
        });
    }

    /// A chunk file is there or not.
    pub fn on_file_created(&mut self, cx: &mut Context<'_>, file: FileId, result: Result<(), DiskError>) {
        let hopeless = self.chunks.on_file_created(cx, file, result);
        self.refuse_for_space(cx, hopeless);
    }

    /// The chunk of `image` at `offset` as it lies in memory, if a record claims the image here. Without one the bytes may
    /// be others under the same id.
    pub fn cached(&self, image: ImageId, offset: u64) -> Option<Body> {
        let is_claimed = self.objects.get(&image).is_some_and(|object| !object.claims.is_empty());
        if is_claimed { self.chunks.cached(image, offset) } else { None }
    }

    /// The chunk of `image` at `offset` as it lies on disk, if it does, and a record claims the image here.
    pub fn slot(&self, image: ImageId, offset: u64) -> Option<Slot> {
        let object = self.objects.get(&image).filter(|object| !object.claims.is_empty())?;
        match object.chunks.get((offset / CHUNK_BYTES_MAX as u64) as usize)? {
            Chunk::Durable(slot) => Some(*slot),
            Chunk::InFlight { .. } => None,
        }
    }

    /// Uploads, complete images, image bytes.
    pub fn counts(&self) -> (u64, u64, u64) {
        let images = self.objects.claimed();
        (self.uploads as u64, images as u64, self.image_bytes)
    }

    /// Repeats what was lost, replaces what is silent, drops what nobody continues.
    pub fn on_tick(&mut self, cx: &mut Context<'_>) {
        self.objects.rest_all();
        self.repair(cx);
        self.go_on_scrubbing(cx);
        self.look_into_doubt(cx);
        let hopeless = self.chunks.take_hopeless(cx);
        self.refuse_for_space(cx, hopeless);
        let now_us = cx.now.mono_us;
        let view = Arc::clone(cx.view);
        self.for_uploads(cx, |cx, upload| {
            let is_lost = |other: &Other| {
                !view.ring.member(other.address.node).is_some_and(|member| member.up)
                    || (!upload.has_whole(other) && now_us >= other.heard_us + STALL_US)
            };
            let lost: Vec<NodeId> =
                upload.others.iter().filter(|other| is_lost(other)).map(|other| other.address.node).collect();
            for node in lost {
                if !upload.replace(cx, node) {
                    // Nobody else is left: those that had no room may have some by now.
                    upload.full.clear();
                }
            }
            if upload.is_home {
                // There were too few nodes when it began.
                upload.recruit(cx);
            }
            upload.look_after(cx);
            upload.resend(cx);
            if let NoticeState::Again { at_us } = upload.notice
                && now_us >= at_us
            {
                upload.notice = NoticeState::Idle;
            }
        });
        if !self.claims_complete || !cx.view.contact {
            // Without a leader nobody can continue anything, and the record that names the bytes may be on its way.
            self.alone_us = now_us;
            return;
        }
        let idle_us = self.upload_idle_us;
        let alone_us = self.alone_us;
        let idle: Vec<ImageId> = self
            .objects
            .open()
            .filter(|(_, object)| {
                let idle_us = if object.may_be_relied_on { idle_us.max(FOUND_IDLE_US) } else { idle_us };
                object.claims.is_empty() && now_us >= object.touched_us.max(alone_us) + idle_us
            })
            .filter(|(_, object)| {
                let is_copy = object.upload.as_ref().is_some_and(|upload| upload.complete_us.is_some());
                !is_copy || cx.mutant.is(Mutant::DropIdleCopy)
            })
            .map(|(&image, _)| image)
            .collect();
        for image in idle {
            tracing::info!(%image, "dropped an upload that nobody continued");
            self.drop_object(cx, image);
        }
    }

    /// Does what the last change of an upload made possible: feeding holders, completing, asking the leader.
    fn advance(&mut self, cx: &mut Context<'_>, image: ImageId) {
        let Some(object) = self.objects.get_mut(&image) else { return };
        let Some(upload) = object.upload.as_mut() else { return };
        for other in &mut upload.others {
            feed(cx, &mut self.chunks, (image, upload.spec.fingerprint.checksum), &object.chunks, other);
        }
        let fingerprint = upload.spec.fingerprint;
        if upload.durable_end < fingerprint.length {
            return;
        }
        if upload.complete_us.is_none() {
            let checksum = upload.durable_sum;
            if checksum != fingerprint.checksum && !cx.mutant.is(Mutant::SkipImageChecksum) {
                let text = format!(
                    "the bytes of image {image} have checksum {checksum:016x}, announced was {:016x}",
                    fingerprint.checksum
                );
                return self.give_up(cx, image, Refusal::DifferentBytes, &text);
            }
            upload.complete_us = Some(cx.now.mono_us);
            if object.finds(fingerprint) {
                for slot in std::mem::take(&mut object.before) {
                    self.chunks.free(slot.extent);
                }
            } // Else a record may speak of what was found, and not of these.
        }
        let upload = object.upload.as_mut().expect("it was there above");
        upload.try_notice(cx);
    }

    /// Makes an entry for an upload, on top of what is known of the image.
    fn begin(&mut self, cx: &mut Context<'_>, spec: &Upload, is_home: bool) -> Result<(), (Refusal, String)> {
        if self.uploads >= HOME_UPLOADS_MAX {
            return Err((Refusal::Busy, "too many uploads are open at this node; try again".to_owned()));
        }
        let image = spec.image;
        let known = self.objects.get(&image);
        let has_all = known.is_some_and(|object| !object.claims.is_empty());
        let no_room = self.no_room.as_ref().filter(|no_room| cx.now.mono_us < no_room.until_us);
        if let Some(no_room) = no_room.filter(|_| is_home && known.is_none()) {
            return Err((Refusal::NoSpace, no_room.text.clone()));
        }
        let blocks = if has_all { 0 } else { blocks_of_image(spec.fingerprint.length) };
        if !self.chunks.space.has_room_for(blocks) {
            let room = self.chunks.space.room_bytes();
            let text = format!(
                "no space: the image has {} bytes, node {} has room for {room}",
                spec.fingerprint.length, cx.me.node
            );
            return Err((Refusal::NoSpace, text));
        }
        if !self.objects.contains_key(&image) {
            let object = self.new_object(cx.now.mono_us);
            self.objects.insert(image, object);
        }
        let object = self.objects.get_mut(&image).expect("inserted above");
        let mut have = 0;
        if has_all {
            if object.fingerprint() != spec.fingerprint {
                let text = format!("image {image} is known with other bytes; use a new image id");
                return Err((Refusal::DifferentBytes, text));
            }
            have = spec.fingerprint.length;
        } else {
            // Found at start and of no record: not known to be whole. It comes again, and is kept until then.
            self.next_life += 1;
            object.life = self.next_life;
            for chunk in std::mem::take(&mut object.chunks) {
                if let Chunk::Durable(slot) = chunk {
                    self.image_bytes -= u64::from(slot.length);
                    object.before.push(slot);
                }
            }
        }
        self.chunks.space.promise(blocks);
        object.upload = Some(Box::new(Uploading {
            spec: spec.clone(),
            own: if is_home { spec.receivers.clone() } else { Vec::new() },
            unready: spec.receivers.clone(),
            claimed: object.claims.clone(),
            is_home,
            sources: Vec::new(),
            received_end: have,
            durable_end: have,
            durable_sum: CRC64_EMPTY,
            promised_blocks: blocks,
            full: Vec::new(),
            others: Vec::new(),
            notice: NoticeState::Idle,
            is_told: false,
            is_orphan: false,
            complete_us: has_all.then_some(cx.now.mono_us),
        }));
        self.uploads += 1;
        Ok(())
    }

    /// The bytes found at start count after all: those with that fingerprint, or the youngest.
    fn restore(&mut self, cx: &mut Context<'_>, image: ImageId, fingerprint: Option<Fingerprint>) {
        let object = self.objects.get_mut(&image).expect("the caller found it");
        let version = object.version(fingerprint).expect("the caller looked for it");
        object.before.retain(|slot| !version.contains(slot));
        let others = std::mem::replace(&mut object.chunks, version.iter().copied().map(Chunk::Durable).collect());
        self.next_life += 1;
        object.life = self.next_life;
        self.image_bytes += object.chunks.iter().map(|chunk| u64::from(chunk.length())).sum::<u64>();
        for chunk in others {
            self.image_bytes -= u64::from(chunk.length());
            match chunk {
                Chunk::Durable(slot) if version.contains(&slot) => {}
                // Found as well: perhaps a record speaks of these.
                Chunk::Durable(slot) if object.upload.is_none() => object.before.push(slot),
                Chunk::Durable(slot) => self.chunks.free(slot.extent),
                Chunk::InFlight { .. } => {}
            }
        }
        self.chunks.forget(cx, image);
        self.settle(image);
    }

    /// Ends an upload of which nothing is open: every receiver's record is known, and those that name this core claimed
    /// its bytes. Until then nothing frees them: a record that names it may be on its way.
    fn try_settle(&mut self, cx: &mut Context<'_>, image: ImageId) {
        let object = self.objects.get(&image).expect("the caller found it");
        let is_open = object
            .upload
            .as_ref()
            .is_none_or(|upload| !upload.unready.is_empty() || (upload.is_home && upload.notice != NoticeState::Ready));
        if is_open {
            return;
        }
        if !object.claims.is_empty() {
            return self.settle(image);
        }
        let (may_be_relied_on, is_whole) = (object.may_be_relied_on, object.before.is_empty());
        self.cancel_others(cx, image);
        match (may_be_relied_on, is_whole) {
            (false, _) => self.drop_object(cx, image),
            (true, true) => self.settle(image),
            (true, false) => self.restore(cx, image, None),
        }
    }

    /// The upload needs no memory any more.
    fn settle(&mut self, image: ImageId) {
        let object = self.objects.get_mut(&image).expect("the caller found it");
        if let Some(upload) = object.upload.take() {
            self.uploads -= 1;
            self.chunks.space.unpromise(upload.promised_blocks);
        }
    }

    fn drop_object(&mut self, cx: &mut Context<'_>, image: ImageId) {
        self.settle(image);
        let object = self.objects.remove(&image).expect("the caller found it");
        for chunk in object.chunks {
            self.image_bytes -= u64::from(chunk.length());
            if let Chunk::Durable(slot) = chunk {
                self.chunks.free(slot.extent);
            }
        }
        for slot in object.before {
            self.chunks.free(slot.extent);
        }
        self.chunks.forget(cx, image);
    }

    fn new_object(&mut self, now_us: u64) -> Object {
        self.next_life += 1;
        Object {
            life: self.next_life,
            chunks: Vec::new(),
            before: Vec::new(),
            claims: Vec::new(),
            may_be_relied_on: false,
            upload: None,
            touched_us: now_us,
        }
    }

    fn for_uploads(&mut self, cx: &mut Context<'_>, mut change: impl FnMut(&mut Context<'_>, &mut Uploading)) {
        let images: Vec<ImageId> =
            self.objects.open().filter(|(_, object)| object.upload.is_some()).map(|(&image, _)| image).collect();
        for image in images {
            let object = self.objects.get_mut(&image).expect("listed above");
            if let Some(upload) = object.upload.as_mut() {
                change(cx, upload);
            }
            self.advance(cx, image);
        }
    }
}

fn blocks_of_image(length: u64) -> u64 {
    let whole = length / CHUNK_BYTES_MAX as u64;
    let rest = (length % CHUNK_BYTES_MAX as u64) as u32;
    let tail = if rest > 0 { u64::from(blocks_for(rest)) } else { 0 };
    whole * u64::from(blocks_for(CHUNK_BYTES_MAX as u32)) + tail
}

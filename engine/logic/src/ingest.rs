//! Stage ingest: takes images from senders and passes their bytes to the homes of the receivers.
//!
//! ```text
//! client --Begin--> Upload to each home, Intent to the leader (images of several chunks)
//! client --Chunk--> UploadChunk to each home that is not ready
//! home --UploadProgress--> Progress      home --UploadReady--> Accepted once all homes are
//! ```
//! Nothing here is durable and nothing needs to be: if this core dies, the client begins again at another one, and the
//! homes say from where to go on. A home that is unreachable or silent is replaced by the next node on the ring, without
//! waiting for the ring to change; the client is told to go back to what the new home has (`BeginAnswer` again).
//!
//! To the client: each `Begin` is answered by one `BeginAnswer` (or by the end of the upload); any further one means
//! "go back (or ahead) to there".

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::client::{Begin, ChunkHead, ClientReply};
use proto::error::Refusal;
use proto::ids::{Address, Holder, ImageId, LogIndex, NodeId};
use proto::limits::CHUNK_BYTES_MAX;
use proto::peer::{Lane, LeaderAnswer, LeaderRequest, PeerMessage, Upload};

use crate::context::Context;
use crate::io::{Body, BodyRef, ConnId};
use crate::limits::{INGEST_UPLOADS_MAX, RESEND_US, STALL_US};
use crate::requests::Purpose;

/// The uploads that pass through this core.
#[derive(Debug, Default)]
pub(crate) struct Ingest {
    uploads: BTreeMap<ImageId, Passing>,
}

/// One image on its way.
#[derive(Debug)]
struct Passing {
    conn: ConnId,
    begin: Begin,
    parts: Vec<Part>,   // every receiver is in exactly one
    received_end: u64,  // what the client has sent in order
    told_end: u64,      // what the client was told is durable
    answered: bool,     // the first `BeginAnswer` went out
    turn_us: u64,       // since when it is the client's turn to send
    ready: Vec<String>, // receivers of `begin` for whom a record made it ready
    index: LogIndex,
    holders: Vec<Holder>,
}

/// The receivers of one home.
#[derive(Debug)]
struct Part {
    home: Address,
    receivers: Vec<String>,
    durable_end: u64,
    answered: bool, // the home said what it has
    ready: bool,
    asked: bool,   // it was silent and has been asked again
    heard_us: u64, // when it last said anything of this image
}

impl Ingest {
    /// A sender announces an image, or asks after one.
    pub fn on_begin(&mut self, cx: &mut Context<'_>, conn: ConnId, begin: Begin) {
        let image = begin.image;
        if let Some((refusal, text)) = check(cx, &begin) {
            return cx.reply(conn, ClientReply::Refused { image, refusal, text });
        }
        if self.uploads.get(&image).is_some_and(|known| !is_same(&known.begin, &begin)) {
            // Another connection is sending something else under this id: which is right, a record will tell.
            let is_own = self.uploads.get(&image).is_some_and(|known| known.conn == conn);
            let refusal = if is_own { Refusal::DifferentBytes } else { Refusal::Busy };
            let text = format!("image {image} is being sent with other bytes or receivers; use a new image id");
            return cx.reply(conn, ClientReply::Refused { image, refusal, text });
        }
        if !self.uploads.contains_key(&image) && (self.uploads.len() >= INGEST_UPLOADS_MAX || !cx.requests.has_room()) {
            let text = "too many uploads pass through this core; try again".to_owned();
            return cx.reply(conn, ClientReply::Refused { image, refusal: Refusal::Busy, text });
        }
        if begin.fingerprint.length > CHUNK_BYTES_MAX as u64 {
            ask_leader(cx, &begin);
        }
        let Some(parts) = divide(cx, &begin.receivers) else {
            let text = "no node is up that could be home of the receivers; try again".to_owned();
            return cx.reply(conn, ClientReply::Refused { image, refusal: Refusal::NotReady, text });
        };
        tracing::trace!(%image, conn = conn.0, homes = ?parts.iter().map(|part| part.home).collect::<Vec<_>>(), "begin");
        for part in &parts {
            announce(cx, &begin, part);
        }
        let passing = Passing {
            conn,
            begin,
            parts,
            received_end: 0,
            told_end: 0,
            answered: false,
            turn_us: cx.now.mono_us,
            ready: Vec::new(),
            index: LogIndex(0),
            holders: Vec::new(),
        };
        self.uploads.insert(image, passing);
    }

    /// Bytes of an image. Those out of order are dropped: the client was or will be told where to go on.
    pub fn on_chunk(&mut self, cx: &mut Context<'_>, conn: ConnId, head: ChunkHead, body: Body) {
        if let Some(passing) = self.uploads.get_mut(&head.image).filter(|passing| passing.conn == conn)
            && head.offset == passing.received_end
            && u64::from(body.length) == chunk_length(passing.begin.fingerprint.length, head.offset)
        {
            passing.received_end += u64::from(body.length);
            passing.turn_us = cx.now.mono_us;
            let checksum = passing.begin.fingerprint.checksum;
            let (image, offset, crc32) = (head.image, head.offset, body.crc32);
            let message = PeerMessage::UploadChunk { image, offset, checksum, crc32 };
            let bytes = BodyRef { buf: body.buf, length: body.length, crc32: body.crc32 };
            for part in passing.parts.iter_mut().filter(|part| !part.ready) {
                cx.send_body(Lane::Home, part.home, message.clone(), bytes);
            }
        }
        cx.release(body.buf);
    }

    /// A home says how much it has durably.
    pub fn on_progress(&mut self, cx: &mut Context<'_>, from: Address, upload: (ImageId, u64), durable_end: u64) {
        let Some(passing) = self.passing(upload) else { return };
        let length = passing.begin.fingerprint.length;
        let Some(part) = passing.parts.iter_mut().find(|part| part.home == from && !part.ready) else { return };
        part.heard_us = cx.now.mono_us;
        let was_silent = std::mem::replace(&mut part.asked, false);
        let has_lost = was_silent && durable_end < passing.received_end;
        if was_silent && durable_end < part.durable_end && cx.requests.has_room() {
            // It had more: the image is ready, and the news of it got lost, or the home began anew. The leader knows.
            ask_leader(cx, &passing.begin);
        }
        part.durable_end = if has_lost { durable_end } else { part.durable_end.max(durable_end.min(length)) };
        let first_answer = !std::mem::replace(&mut part.answered, true);
        if (first_answer || has_lost) && passing.parts.iter().all(|part| part.answered || part.ready) {
            passing.answer(cx);
        }
        passing.tell_progress(cx);
    }

    /// A home says that the image is ready for its receivers.
    pub fn on_ready(
        &mut self,
        cx: &mut Context<'_>,
        upload: (ImageId, u64),
        receivers: &[String],
        index: LogIndex,
        holders: &[Holder],
    ) {
        let Some(passing) = self.passing(upload) else { return };
        passing.note_ready(receivers, index, holders);
        self.finish_if_ready(cx, upload.0);
    }

    /// The leader admits the image or not.
    pub fn on_intent_answer(&mut self, cx: &mut Context<'_>, upload: (ImageId, u64), answer: LeaderAnswer) {
        let image = upload.0;
        let Some(passing) = self.passing(upload) else { return };
        match answer {
            LeaderAnswer::Admitted { ready } => {
                for receiver in ready {
                    passing.note_ready(&[receiver.name], receiver.index, &receiver.holders);
                }
                self.finish_if_ready(cx, image);
            }
            LeaderAnswer::Refused { refusal, text } => self.refuse(cx, image, refusal, text),
            _ => {}
        }
    }

    /// A home will not store the bytes, or the leader refused the image there.
    pub fn on_refused(
        &mut self,
        cx: &mut Context<'_>,
        from: Address,
        upload: (ImageId, u64),
        refusal: Refusal,
        text: String,
    ) {
        let Some(passing) = self.passing(upload) else { return };
        if !passing.parts.iter().any(|part| part.home == from && !part.ready) {
            return;
        }
        self.refuse(cx, upload.0, refusal, text);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.uploads.len() as u64
    }

    /// The client is gone: what it sent stays with the homes, and it may come back anywhere.
    pub fn on_client_closed(&mut self, conn: ConnId) {
        self.uploads.retain(|_, passing| passing.conn != conn);
    }

    /// A node cannot be reached: its parts go to the next node on the ring at once.
    pub fn on_unreachable(&mut self, cx: &mut Context<'_>, node: NodeId) {
        for passing in self.uploads.values_mut() {
            passing.move_parts(cx, |part| part.home.node == node);
        }
    }

    /// Homes that left the ring or do not answer are replaced; those that are silent are asked again. What no client has sent
    /// anything of for `idle_us` ends: it may have heard by another way that the image was accepted.
    pub fn on_tick(&mut self, cx: &mut Context<'_>, idle_us: u64) {
        let view = Arc::clone(cx.view);
        let is_idle = |passing: &Passing| {
            let is_its_turn = passing.answered && passing.received_end < passing.begin.fingerprint.length;
            is_its_turn && cx.now.mono_us >= passing.turn_us + idle_us
        };
        let idle: Vec<ImageId> =
            self.uploads.iter().filter(|(_, passing)| is_idle(passing)).map(|(&image, _)| image).collect();
        for image in idle {
            self.refuse(cx, image, Refusal::Busy, "nothing came of the image for long; begin again".to_owned());
        }
        for passing in self.uploads.values_mut() {
            let now_us = cx.now.mono_us;
            passing.move_parts(cx, |part| {
                let is_up = view.ring.member(part.home.node).is_some_and(|member| member.up);
                !is_up || now_us >= part.heard_us + STALL_US
            });
            for part in passing.parts.iter_mut().filter(|part| !part.ready && !part.asked) {
                if now_us >= part.heard_us + RESEND_US {
                    part.asked = true;
                    announce(cx, &passing.begin, part);
                }
            }
        }
    }

    /// The image with that checksum on its way: what is said of other bytes under its id is not meant.
    fn passing(&mut self, (image, checksum): (ImageId, u64)) -> Option<&mut Passing> {
        self.uploads.get_mut(&image).filter(|passing| passing.begin.fingerprint.checksum == checksum)
    }

    fn finish_if_ready(&mut self, cx: &mut Context<'_>, image: ImageId) {
        let Some(passing) = self.uploads.get_mut(&image) else { return };
        // Counted by receivers, not by parts: those of a home that is gone may be nobody's for a moment.
        let is_all_ready = passing.begin.receivers.iter().all(|name| passing.ready.contains(name));
        if !is_all_ready {
            if !passing.answered && passing.parts.iter().all(|part| part.answered || part.ready) {
                // The last part that had not answered is ready: the sender waits for the answer of the others.
                passing.answer(cx);
            }
            return;
        }
        let passing = self.uploads.remove(&image).expect("it was there a line above");
        let (index, holders) = (passing.index, passing.holders);
        assert!(index.0 > 0, "image {image} is ready by no record");
        cx.reply(passing.conn, ClientReply::Accepted { image, index, holders });
    }

    fn refuse(&mut self, cx: &mut Context<'_>, image: ImageId, refusal: Refusal, text: String) {
        let Some(passing) = self.uploads.remove(&image) else { return };
        if !refusal.is_transient() {
            let checksum = passing.begin.fingerprint.checksum;
            for part in passing.parts.iter().filter(|part| !part.ready) {
                cx.send_on(Lane::Home, part.home, PeerMessage::UploadCancel { image, checksum });
            }
        }
        cx.reply(passing.conn, ClientReply::Refused { image, refusal, text });
    }
}

impl Passing {
    /// Tells the client from where to send, and expects just that.
    fn answer(&mut self, cx: &mut Context<'_>) {
        let image = self.begin.image;
        let waiting = self.parts.iter().filter(|part| !part.ready).map(|part| part.durable_end);
        let durable_end = waiting.min().unwrap_or(self.begin.fingerprint.length);
        let is_first = !self.answered;
        self.turn_us = cx.now.mono_us;
        tracing::trace!(%image, durable_end, received_end = self.received_end, is_first, "answer");
        self.answered = true;
        if is_first && durable_end <= self.received_end {
            // The client sends ahead of the answer: what it sent was passed on to the same homes.
            return cx.reply(self.conn, ClientReply::BeginAnswer { image, resume_from: durable_end });
        }
        self.received_end = durable_end;
        cx.reply(self.conn, ClientReply::BeginAnswer { image, resume_from: durable_end });
    }

    fn tell_progress(&mut self, cx: &mut Context<'_>) {
        let waiting = self.parts.iter().filter(|part| !part.ready).map(|part| part.durable_end);
        let durable_end = waiting.min().unwrap_or(0);
        if durable_end > self.told_end {
            self.told_end = durable_end;
            cx.reply(self.conn, ClientReply::Progress { image: self.begin.image, durable_end });
        }
    }

    fn note_ready(&mut self, receivers: &[String], index: LogIndex, holders: &[Holder]) {
        self.index = self.index.max(index);
        for holder in holders {
            if !self.holders.contains(holder) {
                self.holders.push(*holder);
            }
        }
        for name in receivers {
            if self.begin.receivers.contains(name) && !self.ready.contains(name) {
                self.ready.push(name.clone());
            }
        }
        for part in self.parts.iter_mut().filter(|part| !part.ready) {
            part.receivers.retain(|name| !receivers.contains(name));
            part.ready = part.receivers.is_empty();
        }
    }

    /// Gives the receivers of the chosen parts to other homes, if there are any.
    fn move_parts(&mut self, cx: &mut Context<'_>, is_lost: impl Fn(&Part) -> bool) {
        let lost: Vec<usize> = (0..self.parts.len())
            .filter(|&position| !self.parts[position].ready && is_lost(&self.parts[position]))
            .collect();
        if lost.is_empty() {
            return;
        }
        lost.iter().for_each(|&position| cx.suspects.insert(self.parts[position].home.node, cx.now));
        let receivers: Vec<String> =
            lost.iter().flat_map(|&position| self.parts[position].receivers.iter().cloned()).collect();
        let Some(parts) = divide(cx, &receivers) else { return }; // Every node is down: they stay where they are.
        tracing::trace!(image = %self.begin.image, parts = lost.len(), "moves to other homes");
        for &position in lost.iter().rev() {
            self.parts.remove(position);
        }
        for part in parts {
            let position = self.parts.iter().position(|other| other.home == part.home && !other.ready);
            let position = position.unwrap_or_else(|| {
                self.parts.push(Part { receivers: Vec::new(), ..part_of(cx, part.home) });
                self.parts.len() - 1
            });
            self.parts[position].receivers.extend(part.receivers);
            // A home that had answered is asked again: its answer is what goes to the client.
            self.parts[position].answered = false;
            announce(cx, &self.begin, &self.parts[position]);
        }
        let had_sent = self.received_end > 0;
        if had_sent && !self.answered {
            // The first answer is owed; the answer of the new homes is then the one that goes back.
            self.answered = true;
            let (image, resume_from) = (self.begin.image, self.told_end);
            cx.reply(self.conn, ClientReply::BeginAnswer { image, resume_from });
        }
    }
}

/// Groups receivers by the shard that is their home now. `None` if there is none: every node is down.
fn divide(cx: &Context<'_>, receivers: &[String]) -> Option<Vec<Part>> {
    let mut parts: Vec<Part> = Vec::new();
    for name in receivers {
        let &home = cx.placement(name, 1).first()?;
        match parts.iter_mut().find(|part| part.home == home) {
            Some(part) => part.receivers.push(name.clone()),
            None => parts.push(Part { receivers: vec![name.clone()], ..part_of(cx, home) }),
        }
    }
    Some(parts)
}

fn part_of(cx: &Context<'_>, home: Address) -> Part {
    let heard_us = cx.now.mono_us;
    Part { home, receivers: Vec::new(), durable_end: 0, answered: false, ready: false, asked: false, heard_us }
}

fn announce(cx: &mut Context<'_>, begin: &Begin, part: &Part) {
    let first = part.receivers.first().expect("a part has a receiver");
    let mut chain = cx.placement(first, usize::from(cx.view.copies));
    chain.retain(|address| address.node != part.home.node);
    chain.insert(0, part.home);
    chain.truncate(usize::from(cx.view.copies).max(1));
    let upload = Upload {
        image: begin.image,
        low_water: begin.low_water,
        fingerprint: begin.fingerprint,
        name: begin.name.clone(),
        receivers: part.receivers.clone(),
        chain,
    };
    cx.send_on(Lane::Home, part.home, PeerMessage::Upload(upload));
}

/// Asks whether the image is admitted, and for whom it is ready.
fn ask_leader(cx: &mut Context<'_>, begin: &Begin) {
    let intent = LeaderRequest::Intent {
        image: begin.image,
        low_water: begin.low_water,
        fingerprint: begin.fingerprint,
        receivers: begin.receivers.clone(),
    };
    cx.requests.ask(
        cx.me,
        cx.now,
        Purpose::Intent { image: begin.image, checksum: begin.fingerprint.checksum },
        intent,
        cx.out,
    );
}

fn check(cx: &Context<'_>, begin: &Begin) -> Option<(Refusal, String)> {
    let view = cx.view;
    if let Some(why) = view.not_ready() {
        return Some((Refusal::NotReady, why.to_owned()));
    }
    if begin.cluster != view.cluster {
        let text = format!("the session is of cluster {}, this is cluster {}", begin.cluster, view.cluster);
        return Some((Refusal::WrongCluster, text));
    }
    if begin.fingerprint.length == 0 {
        return Some((Refusal::ImageEmpty, "an image has at least one byte".to_owned()));
    }
    if begin.fingerprint.length > view.image_bytes_max {
        let text = format!(
            "the image has {} bytes, this cluster takes at most {} (image_bytes_max)",
            begin.fingerprint.length, view.image_bytes_max
        );
        return Some((Refusal::ImageTooLarge, text));
    }
    if !view.contact {
        let text = "no leader: fewer than a majority of the voters can be reached".to_owned();
        return Some((Refusal::NoLeader, text));
    }
    None
}

fn is_same(one: &Begin, other: &Begin) -> bool {
    (one.image, one.fingerprint, &one.receivers) == (other.image, other.fingerprint, &other.receivers)
}

/// Bytes of the chunk at `offset` of an image of `length` bytes.
pub(crate) fn chunk_length(length: u64, offset: u64) -> u64 {
    length.saturating_sub(offset).min(CHUNK_BYTES_MAX as u64)
}

#[cfg(test)]
#[path = "ingest_test.rs"]
mod tests;

//! Stage delivery: pushes images to the receivers that are connected here, in the order of their inboxes.
//!
//! ```text
//! OpenInbox -> InboxSubscribe (core 0) -> InboxOpened      InboxPull -> InboxEntries (as they come)
//! entry -> Head, then its chunks in order: from memory, from this core's store, else fetched from a holder
//! Ack -> leader (batched: one request under way) -> Acked
//! ```
//! Bounds: body bytes by the receiver's credit, images not yet acknowledged by `DELIVERY_WINDOW`, chunks read ahead by
//! `READ_AHEAD_CHUNKS`. A chunk that is not what the log says is never sent: the next holder is asked.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proto::client::{ClientReply, ImageHead};
use proto::error::Refusal;
use proto::ids::{Address, CoreId, Holder, ImageId, InboxId, InboxSeq, LogIndex, RequestId};
use proto::limits::{ACKS_MAX, CHUNK_BYTES_MAX};
use proto::peer::{Lane, LeaderAnswer, LeaderRequest, PeerMessage};
use proto::ring::core_of;

use crate::context::Context;
use crate::home::Home;
use crate::ingest::chunk_length;
use crate::io::{Body, BodyRef, ConnId, CoreNote, InboxEntry};
use crate::limits::{
    DELIVERY_WINDOW, FETCH_AGAIN_US, FETCH_TIMEOUT_US, FETCHES_MAX, NOTICE_RETRY_US, READ_AHEAD_CHUNKS,
};
use crate::mutant::Mutant;
use crate::requests::Purpose;
use crate::store::chunks::{ReadPurpose, Unread};

/// The receivers connected to this core.
#[derive(Debug, Default)]
pub(crate) struct Delivery {
    sessions: BTreeMap<ConnId, Session>,
    by_name: BTreeMap<String, ConnId>, // the newest session of each receiver
    fetches: BTreeMap<RequestId, Fetch>,
    last_fetch: u64,
    acks: BTreeMap<InboxId, InboxSeq>, // to be asked with the next request
    ack_asked: bool,
    ack_again_us: u64, // not before, since the leader refused
}

/// One receiver.
#[derive(Debug)]
struct Session {
    name: String,
    inbox: Option<InboxId>,        // once core 0 answered
    entries: VecDeque<InboxEntry>, // to be sent, in order, the first one perhaps in part
    pulled: InboxSeq,              // the last one asked of core 0 and received
    pulling: bool,
    pulls: u64,                         // so far
    question: Option<(RequestId, u64)>, // of the receiver, on its way, and the pulls before it
    again: Option<RequestId>,           // to be asked once more
    acked: InboxSeq,                    // by the receiver
    credit: u64,                        // body bytes permitted in all
    resume: (InboxSeq, u64),            // an image that the receiver has up to that byte
    sent_bytes: u64,                    // body bytes sent in all
    head_sent: bool,                    // of the first entry
    sent_end: u64,                      // bytes of the first entry that were sent
    reading: BTreeSet<u64>,             // offsets of the first entry that were asked for, here or of a holder
    read: BTreeMap<u64, Body>,          // of the first entry, by offset, each with a hold
    pause_until_us: u64,                // no holder could serve: wait
}

#[derive(Debug)]
struct Fetch {
    conn: ConnId,
    seq: InboxSeq,
    image: ImageId,
    offset: u64,
    holder: usize, // which of the holders was asked
    asked_us: u64,
}

impl Delivery {
    /// Fetches are numbered from a place of chance, so that bytes sent to a former life of this process are nobody's.
    pub fn new(entropy: u64) -> Delivery {
        Delivery { last_fetch: entropy >> 1, ..Delivery::default() }
    }

    /// A receiver wants its inbox.
    ///
    /// `resume` names an image that it has in part, and the first byte that it lacks of it.
    pub fn on_open(&mut self, cx: &mut Context<'_>, conn: ConnId, name: String, credit: u64, resume: (InboxSeq, u64)) {
        if !self.is_home_here(cx, &name) {
            let text = "this node is not the receiver's home now; see the ring";
            return cx.dismiss(conn, Refusal::NotHome, text);
        }
        if let Some(older) = self.by_name.insert(name.clone(), conn) {
            self.end(cx, older);
            cx.dismiss(older, Refusal::Superseded, "a newer session of this inbox took over");
        }
        cx.tell(CoreId(0), CoreNote::InboxSubscribe { name: name.clone(), conn });
        let session = Session {
            name,
            inbox: None,
            entries: VecDeque::new(),
            pulled: InboxSeq(0),
            pulling: false,
            pulls: 0,
            question: None,
            again: None,
            acked: InboxSeq(0),
            credit,
            resume,
            sent_bytes: 0,
            head_sent: false,
            sent_end: 0,
            reading: BTreeSet::new(),
            read: BTreeMap::new(),
            pause_until_us: 0,
        };
        self.sessions.insert(conn, session);
    }

    /// Core 0 knows the inbox or not.
    pub fn on_subscribed(&mut self, cx: &mut Context<'_>, conn: ConnId, result: Result<(InboxId, InboxSeq), Refusal>) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        match result {
            Ok((inbox, acked_upto)) => {
                session.inbox = Some(inbox);
                session.pulled = acked_upto;
                session.acked = acked_upto;
                // It may be the answer to a pull: what was asked for is acknowledged.
                session.pulling = false;
                cx.reply(conn, ClientReply::InboxOpened { inbox, acked_upto });
                session.pull(cx, conn);
            }
            Err(refusal) => {
                let name = &session.name;
                let text = match refusal {
                    Refusal::UnknownReceiver => format!("client '{name}' is not registered; register it first"),
                    _ => format!("whether client '{name}' is registered cannot be told yet; try again"),
                };
                self.end(cx, conn);
                cx.dismiss(conn, refusal, &text);
            }
        }
    }

    /// Core 0 has entries.
    pub fn on_entries(&mut self, cx: &mut Context<'_>, home: &mut Home, conn: ConnId, entries: Vec<InboxEntry>) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        session.pulling = false;
        for entry in entries {
            assert_eq!(entry.seq.0, session.pulled.0 + 1, "an inbox has no gaps");
            session.pulled = entry.seq;
            session.entries.push_back(entry);
        }
        if cx.mutant.is(Mutant::OutOfOrder) && !session.head_sent {
            session.entries.make_contiguous().sort_by_key(|entry| entry.fingerprint.length);
        }
        self.push(cx, home, conn);
    }

    /// The receiver permits more bytes.
    pub fn on_credit(&mut self, cx: &mut Context<'_>, home: &mut Home, conn: ConnId, credit: u64) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        session.credit = session.credit.max(credit);
        self.push(cx, home, conn);
    }

    /// The receiver has everything up to `upto` durably.
    pub fn on_ack(&mut self, cx: &mut Context<'_>, home: &mut Home, conn: ConnId, inbox: InboxId, upto: InboxSeq) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        if session.inbox != Some(inbox) {
            self.end(cx, conn);
            return cx.dismiss(conn, Refusal::BadRequest, "acknowledged an inbox that is not open on this connection");
        }
        // It may be ahead of what was sent here: an earlier connection delivered it. Applying clamps what is too much.
        session.acked = session.acked.max(upto);
        let ack = self.acks.entry(inbox).or_default();
        *ack = (*ack).max(upto);
        self.push(cx, home, conn);
    }

    /// The leader committed acknowledgements, or not.
    pub fn on_ack_answer(&mut self, cx: &mut Context<'_>, asked: LeaderRequest, answer: LeaderAnswer) {
        self.ack_asked = false;
        let LeaderAnswer::Acked { upto } = answer else {
            // Refused for now: asked again with the next ones, after a while.
            self.ack_again_us = cx.now.mono_us + NOTICE_RETRY_US;
            if let LeaderRequest::Ack { upto } = asked {
                for (inbox, seq) in upto {
                    let ack = self.acks.entry(inbox).or_default();
                    *ack = (*ack).max(seq);
                }
            }
            return;
        };
        for (&conn, session) in &self.sessions {
            if let Some(&(inbox, upto)) = upto.iter().find(|(inbox, _)| session.inbox == Some(*inbox)) {
                cx.reply(conn, ClientReply::Acked { inbox, upto });
            }
        }
    }

    /// A receiver asks something behind what it was told: it wants to know whether there is more.
    pub fn on_question(&mut self, conn: ConnId, request: RequestId) {
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.question = Some((request, session.pulls));
        }
    }

    /// The answer comes: whether core 0 was asked for more before the question, and the receiver has heard of all that came of
    /// it. If not, the question is put once more with the next tick.
    pub fn is_answered(&mut self, conn: ConnId, request: RequestId) -> bool {
        let Some(session) = self.sessions.get_mut(&conn) else { return true };
        let Some((_, pulls)) = session.question.take_if(|(asked, _)| *asked == request) else { return true };
        let is_all_told = session.entries.is_empty() && session.pulling;
        let is_answered = pulls == session.pulls && is_all_told;
        session.again = (!is_answered).then_some(request);
        is_answered
    }

    /// The connection is gone.
    pub fn on_client_closed(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        self.end(cx, conn);
    }

    /// The ring, or whether a leader is heard, changed: receivers that belong elsewhere go there.
    pub fn on_view(&mut self, cx: &mut Context<'_>) {
        let elsewhere: Vec<ConnId> = self
            .sessions
            .iter()
            .filter(|(_, session)| !self.is_home_here(cx, &session.name))
            .map(|(&conn, _)| conn)
            .collect();
        for conn in elsewhere {
            self.end(cx, conn);
            cx.dismiss(conn, Refusal::NotHome, "another node is the receiver's home now; see the ring");
        }
    }

    /// A chunk for a receiver was read here.
    pub fn on_read(
        &mut self,
        cx: &mut Context<'_>,
        home: &mut Home,
        (conn, seq, offset): (ConnId, InboxSeq, u64),
        body: Option<Body>,
    ) {
        match body {
            Some(body) => self.on_bytes(cx, home, conn, seq, offset, body),
            None => self.fetch(cx, conn, seq, offset, 0),
        }
    }

    /// A holder sent a chunk.
    pub fn on_fetched(&mut self, cx: &mut Context<'_>, home: &mut Home, place: (RequestId, ImageId, u64), body: Body) {
        let (request, image, offset) = place;
        let is_asked = |fetch: &Fetch| (fetch.image, fetch.offset) == (image, offset);
        if !self.fetches.get(&request).is_some_and(is_asked) {
            return cx.release(body.buf);
        }
        let fetch = self.fetches.remove(&request).expect("looked at above");
        self.on_bytes(cx, home, fetch.conn, fetch.seq, fetch.offset, body);
    }

    /// A holder does not have a chunk: the next one is asked.
    pub fn on_fetch_failed(&mut self, cx: &mut Context<'_>, request: RequestId) {
        if let Some(fetch) = self.fetches.remove(&request) {
            self.fetch(cx, fetch.conn, fetch.seq, fetch.offset, fetch.holder + 1);
        }
    }

    /// Another home asks for a chunk of an image held here.
    pub fn on_fetch(
        &mut self,
        cx: &mut Context<'_>,
        home: &mut Home,
        to: Address,
        request: RequestId,
        image: ImageId,
        offset: u64,
    ) {
        if let Some(body) = home.cached(image, offset) {
            let bytes = BodyRef { buf: body.buf, length: body.length, crc32: body.crc32 };
            return cx.send_body(
                Lane::Fetch,
                to,
                PeerMessage::Fetched { request, image, offset, crc32: body.crc32 },
                bytes,
            );
        }
        match home.slot(image, offset) {
            Some(slot) if home.chunks.fetches() < FETCHES_MAX => {
                home.chunks.read(cx, slot, ReadPurpose::Fetch { to, request, image, offset });
            }
            Some(_) => cx.send(to, PeerMessage::FetchFailed { request, image, refusal: Refusal::Busy }),
            None => {
                let refusal = home.why_no_slot(image);
                cx.send(to, PeerMessage::FetchFailed { request, image, refusal });
            }
        }
    }

    /// A chunk for another home was read here.
    pub fn on_fetch_read(
        &mut self,
        cx: &mut Context<'_>,
        (to, request): (Address, RequestId),
        (image, offset): (ImageId, u64),
        read: Result<Body, Unread>,
    ) {
        let body = match read {
            Ok(body) => body,
            Err(unread) => {
                return cx.send(to, PeerMessage::FetchFailed { request, image, refusal: unread.refusal() });
            }
        };
        let bytes = BodyRef { buf: body.buf, length: body.length, crc32: body.crc32 };
        cx.send_body(Lane::Fetch, to, PeerMessage::Fetched { request, image, offset, crc32: body.crc32 }, bytes);
        cx.release(body.buf);
    }

    /// Fetches without an answer go to the next holder; receivers that had to wait are served again.
    pub fn on_tick(&mut self, cx: &mut Context<'_>, home: &mut Home) {
        let now_us = cx.now.mono_us;
        let late: Vec<RequestId> = self
            .fetches
            .iter()
            .filter(|(_, fetch)| now_us >= fetch.asked_us + FETCH_TIMEOUT_US)
            .map(|(&request, _)| request)
            .collect();
        for request in late {
            self.on_fetch_failed(cx, request);
        }
        for (&conn, session) in &mut self.sessions {
            if let Some(request) = session.again.take() {
                session.question = Some((request, session.pulls));
                cx.tell(CoreId(0), CoreNote::StatusAsk { conn, request });
            }
        }
        let paused: Vec<ConnId> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.pause_until_us != 0 && now_us >= session.pause_until_us)
            .map(|(&conn, _)| conn)
            .collect();
        for conn in paused {
            self.sessions.get_mut(&conn).expect("listed above").pause_until_us = 0;
            self.push(cx, home, conn);
        }
    }

    /// Core 0 says who has the bytes of a record now.
    pub fn on_holders(&mut self, cx: &mut Context<'_>, home: &mut Home, index: LogIndex, holders: &[Holder]) {
        let mut damaged = Vec::new();
        for (&conn, session) in &mut self.sessions {
            if let Some(entry) = session.entries.iter_mut().find(|entry| entry.index == index) {
                entry.holders = holders.to_vec();
                if holders.is_empty() {
                    session.pause_until_us = 0;
                    damaged.push(conn);
                }
            }
        }
        for conn in damaged {
            self.push(cx, home, conn);
        }
    }

    /// Asks the leader to commit what was acknowledged meanwhile.
    pub fn turn(&mut self, cx: &mut Context<'_>) {
        if cx.now.mono_us < self.ack_again_us {
            return;
        }
        if self.ack_asked || self.acks.is_empty() || !cx.requests.has_room() {
            return;
        }
        self.ack_asked = true;
        let upto: Vec<(InboxId, InboxSeq)> =
            self.acks.iter().take(ACKS_MAX).map(|(&inbox, &seq)| (inbox, seq)).collect();
        self.acks.retain(|inbox, _| upto.last().is_some_and(|(last, _)| inbox > last));
        cx.requests.ask(cx.me, cx.now, Purpose::Ack, LeaderRequest::Ack { upto }, cx.out);
    }

    /// Sends a receiver what it may get now, and has the next bytes read.
    fn push(&mut self, cx: &mut Context<'_>, home: &mut Home, conn: ConnId) {
        loop {
            let Some(session) = self.sessions.get_mut(&conn) else { return };
            let Some(inbox) = session.inbox else { return };
            let Some(entry) = session.entries.front() else { return session.pull(cx, conn) };
            if session.pause_until_us != 0 || entry.seq.0 > session.acked.0 + DELIVERY_WINDOW {
                return;
            }
            if entry.seq <= session.acked && !session.head_sent {
                session.next_entry(cx);
                continue;
            }
            let (seq, image, length) = (entry.seq, entry.image, entry.fingerprint.length);
            let is_damaged = entry.holders.is_empty();
            if !session.head_sent || is_damaged {
                session.head_sent = true;
                if session.resume.0 == seq && session.resume.1 < length {
                    session.sent_end = session.resume.1;
                }
                let head = ImageHead {
                    inbox,
                    seq,
                    image,
                    fingerprint: entry.fingerprint,
                    sender: entry.sender.to_string(),
                    name: entry.name.to_string(),
                    index: entry.index,
                    is_damaged,
                };
                cx.reply(conn, ClientReply::Head(head));
            }
            if is_damaged {
                session.next_entry(cx);
                continue;
            }
            while session.sent_end < length {
                let offset = session.sent_end;
                let here = session.read.remove(&offset);
                let cached = here.or_else(|| home.cached(image, offset));
                let expected = chunk_length(length, offset);
                let Some(body) = cached.filter(|body| u64::from(body.length) == expected) else { break };
                if session.sent_bytes + expected > session.credit {
                    if let Some(body) = here {
                        session.read.insert(offset, body);
                    }
                    return;
                }
                let bytes = BodyRef { buf: body.buf, length: body.length, crc32: body.crc32 };
                cx.out.push(crate::io::Effect::ClientSend {
                    conn,
                    message: ClientReply::Chunk { inbox, seq, offset, crc32: body.crc32 },
                    body: Some(bytes),
                });
                if here.is_some() {
                    cx.release(body.buf);
                }
                session.sent_bytes += expected;
                session.sent_end += expected;
                session.reading.remove(&offset);
            }
            if session.sent_end == length {
                session.next_entry(cx);
                if cx.mutant.is(Mutant::AckWhenSent) {
                    self.acks.insert(inbox, seq);
                }
                continue;
            }
            return self.read_ahead(cx, home, conn);
        }
    }

    fn read_ahead(&mut self, cx: &mut Context<'_>, home: &mut Home, conn: ConnId) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        let Some(entry) = session.entries.front() else { return };
        let (seq, image, length) = (entry.seq, entry.image, entry.fingerprint.length);
        let mut missing = Vec::new();
        for ahead in 0..READ_AHEAD_CHUNKS as u64 {
            let offset = session.sent_end + ahead * CHUNK_BYTES_MAX as u64;
            let part = chunk_length(length, offset);
            if part == 0 || session.sent_bytes + (offset - session.sent_end) + part > session.credit {
                break;
            }
            if session.read.contains_key(&offset) || home.cached(image, offset).is_some() {
                continue;
            }
            if session.reading.insert(offset) {
                missing.push((offset, part));
            }
        }
        for (offset, part) in missing {
            match home.slot(image, offset).filter(|slot| u64::from(slot.length) == part) {
                Some(slot) => home.chunks.read(cx, slot, ReadPurpose::Deliver { conn, seq, offset }),
                None => self.fetch(cx, conn, seq, offset, 0),
            }
        }
    }

    fn on_bytes(
        &mut self,
        cx: &mut Context<'_>,
        home: &mut Home,
        conn: ConnId,
        seq: InboxSeq,
        offset: u64,
        body: Body,
    ) {
        let wanted = self.sessions.get_mut(&conn).filter(|session| {
            session.entries.front().is_some_and(|entry| {
                entry.seq == seq && u64::from(body.length) == chunk_length(entry.fingerprint.length, offset)
            }) && offset >= session.sent_end
                && !session.read.contains_key(&offset)
        });
        match wanted {
            Some(session) => {
                session.read.insert(offset, body);
            }
            None => cx.release(body.buf),
        }
        self.push(cx, home, conn);
    }

    /// Asks the next holder that the log names for a chunk that this core does not have.
    fn fetch(&mut self, cx: &mut Context<'_>, conn: ConnId, seq: InboxSeq, offset: u64, holder: usize) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        let Some(entry) = session.entries.front().filter(|entry| entry.seq == seq) else { return };
        let holders: Vec<Address> =
            entry.holders.iter().map(|holder| holder.address).filter(|&address| address != cx.me).collect();
        let is_up = |address: &&Address| cx.view.ring.member(address.node).is_some_and(|member| member.up);
        let order: Vec<Address> =
            holders.iter().filter(is_up).chain(holders.iter().filter(|address| !is_up(address))).copied().collect();
        let (image, index) = (entry.image, entry.index);
        let Some(&address) = order.get(holder) else {
            session.reading.remove(&offset);
            if seq <= session.acked {
                // Acknowledged meanwhile, and freed: nothing more of it is due. On with the next tick.
                session.next_entry(cx);
                session.pause_until_us = cx.now.mono_us;
                return;
            }
            // All were asked. They may come back, or there are others: from the beginning, after a while.
            cx.tell(CoreId(0), CoreNote::HoldersAsk { image, index });
            session.pause_until_us = cx.now.mono_us + FETCH_AGAIN_US;
            return;
        };
        self.last_fetch += 1;
        let request = RequestId(self.last_fetch);
        self.fetches.insert(request, Fetch { conn, seq, image: entry.image, offset, holder, asked_us: cx.now.mono_us });
        cx.send(address, PeerMessage::Fetch { request, image: entry.image, offset });
    }

    /// Ends a session: its holds, its fetches, its subscription.
    fn end(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        let Some(session) = self.sessions.remove(&conn) else { return };
        for body in session.read.values() {
            cx.release(body.buf);
        }
        if self.by_name.get(&session.name) == Some(&conn) {
            self.by_name.remove(&session.name);
        }
        self.fetches.retain(|_, fetch| fetch.conn != conn);
        cx.tell(CoreId(0), CoreNote::InboxUnsubscribe { conn });
    }

    fn is_home_here(&self, cx: &Context<'_>, name: &str) -> bool {
        cx.view.contact
            && cx
                .view
                .ring
                .home(name)
                .is_some_and(|member| member.node == cx.me.node && core_of(name, member.cores) == cx.me.core)
    }
}

impl Session {
    /// Asks core 0 for what comes next, when little is left.
    fn pull(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        if let Some(inbox) = self.inbox
            && !self.pulling
        {
            self.pulling = true;
            self.pulls += 1;
            cx.tell(CoreId(0), CoreNote::InboxPull { inbox, conn, after: self.pulled });
        }
    }

    fn next_entry(&mut self, cx: &mut Context<'_>) {
        for body in std::mem::take(&mut self.read).into_values() {
            cx.release(body.buf);
        }
        self.entries.pop_front();
        self.head_sent = false;
        self.sent_end = 0;
        self.reading.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "delivery_test.rs"]
mod tests;

//! The pure session of a receiver: from the push of its home to the committed acknowledgement.
//!
//! - It goes to the home that the ring names, follows when the home moves, and ends when a newer session took over.
//! - Images come in the order of the inbox, each whole: what was written of one when a link broke stays, and bytes that
//!   come again are skipped. An image is finished only if the checksum combined from its pieces is the sender's.
//! - What was stored once is never given out again, however often it is delivered: it is only acknowledged again.
//!
//! Invariants: `acked_upto <= stored_upto`, and every image up to `stored_upto` is durable with the user (or was
//! acknowledged before); what is given out ascends without gap while one inbox session lives.

mod caught_up;
#[cfg(test)]
mod caught_up_test;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod inbox_test;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod script;
mod words;

use std::collections::BTreeSet;

use proto::checksum::{CRC64_EMPTY, crc64_combine};
use proto::client::{ClientReply, ClientRequest, ImageHead};
use proto::error::Refusal;
use proto::ids::{InboxId, InboxSeq};
use proto::name::{NameError, check_name};

use self::caught_up::CaughtUp;
pub use self::words::{InboxEvent, InboxInput, StoredBefore};
use crate::limits::{
    ACK_GAP_US, HOME_LOOK_US_MAX, INBOX_CREDIT_BYTES, INBOX_CREDIT_STEP_BYTES, INBOX_UNSTORED_MAX, REQUEST_AGAIN_US,
    UNKNOWN_RECEIVER_GRACE_US,
};
use crate::line::{Line, LineEvent};
use crate::session::{Action, BodyFacts, SessionFailure, SessionOptions};
use crate::troubles::Troubles;

/// The pure session of a receiver.
#[derive(Debug)]
pub struct InboxSession {
    line: Line,
    name: String,
    phase: Phase,
    inbox: Option<InboxId>,
    stored_before: StoredBefore,
    stored: BTreeSet<InboxSeq>,   // durable, above stored_upto
    stored_upto: InboxSeq,        // everything up to here is durable
    unstored: BTreeSet<InboxSeq>, // given out whole, not yet reported stored
    partial: Option<Partial>,     // given out in part; may outlive its link
    told_upto: InboxSeq,          // the last acknowledgement sent on this link
    told_at: u64,
    acked_upto: InboxSeq, // committed
    incoming: Option<Incoming>,
    next_seq: InboxSeq, // the next Head on this link
    credit: u64,        // permitted on this link
    received: u64,      // body bytes on this link; <= credit
    unknown_since: Option<u64>,
    astray: u32, // answers of "not home" in a row
    caught_up: CaughtUp,
}

/// How far the connection to the home is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Before `Start`.
    Idle,
    /// No inbox open on a link.
    Closed,
    /// `OpenInbox` was sent.
    Asked { at: u64 },
    /// Deliveries come.
    Open,
    /// Ended.
    Failed,
}

/// An image of which the user has the bytes below `end`.
#[derive(Debug)]
struct Partial {
    head: Box<ImageHead>,
    end: u64,
    crc64: u64, // of the bytes below `end`
}

/// The image whose chunks come on this link.
#[derive(Clone, Copy, Debug)]
struct Incoming {
    seq: InboxSeq,
    length: u64,
    end: u64,    // bytes of it on this link; None of them before the first chunk
    begun: bool, // a chunk came: `end` is where it began, or later
    skip: bool,  // the user has it already
}

type Actions = Vec<Action<InboxEvent>>;

impl InboxSession {
    /// A session of the receiver `name`, not yet started.
    pub fn new(options: SessionOptions, name: &str, stored: StoredBefore) -> Result<InboxSession, NameError> {
        check_name(name)?;
        Ok(InboxSession {
            line: Line::new(&options, true),
            name: name.to_owned(),
            phase: Phase::Idle,
            inbox: None,
            stored_before: stored,
            stored: BTreeSet::new(),
            stored_upto: InboxSeq(0),
            unstored: BTreeSet::new(),
            partial: None,
            told_upto: InboxSeq(0),
            told_at: 0,
            acked_upto: InboxSeq(0),
            incoming: None,
            next_seq: InboxSeq(0),
            credit: 0,
            received: 0,
            unknown_since: None,
            astray: 0,
            caught_up: CaughtUp::new(),
        })
    }

    /// One input, any number of actions, appended to `actions` in the order in which they must be carried out.
    pub fn step(&mut self, now_us: u64, input: InboxInput, actions: &mut Vec<Action<InboxEvent>>) {
        match input {
            InboxInput::Start if self.phase == Phase::Idle => self.phase = Phase::Closed,
            InboxInput::Start | InboxInput::Tick => {}
            InboxInput::Stored(seq) => self.on_stored(seq),
            InboxInput::Lost(seq) => self.on_lost(now_us, seq, actions),
            InboxInput::AskCaughtUp => self.caught_up.want(),
            InboxInput::Link(input) => {
                let event = self.line.on_input(now_us, input, actions);
                self.on_line(now_us, event, actions);
            }
        }
        if matches!(self.phase, Phase::Idle | Phase::Failed) {
            return;
        }
        match self.phase {
            Phase::Asked { at } if now_us.saturating_sub(at) >= REQUEST_AGAIN_US => {
                self.line.note_refusal(Refusal::NotReady, "the node does not open the inbox");
                self.leave(now_us, actions);
            }
            _ => {}
        }
        self.acknowledge(now_us, actions);
        self.permit(actions);
        self.ask_caught_up(now_us, actions);
        let name = self.name.clone();
        let event = self.line.advance(now_us, Some(&name), actions);
        self.on_line(now_us, event, actions);
    }

    /// When `InboxInput::Tick` is due, if at all.
    pub fn wake_at(&self) -> Option<u64> {
        let mut line = self.line.wake_at();
        if let Some(at) = self.caught_up.wake_at()
            && self.is_all_done()
        {
            line = line.min(at);
        }
        match self.phase {
            Phase::Idle | Phase::Failed => None,
            Phase::Asked { at } => Some(line.min(at + REQUEST_AGAIN_US)),
            Phase::Open if self.stored_upto > self.told_upto => Some(line.min(self.told_at + ACK_GAP_US)),
            _ => Some(line),
        }
    }

    /// Everything up to here is durable with the user.
    pub fn stored_upto(&self) -> InboxSeq {
        self.stored_upto
    }

    /// Everything up to here is acknowledged for good.
    pub fn acked_upto(&self) -> InboxSeq {
        self.acked_upto
    }

    /// Whether everything is stored and acknowledged here that was accepted for this receiver, by whatever node, before the
    /// first `InboxInput::AskCaughtUp` that was not answered yet. Costs a record of the log, and is never true while
    /// the home reaches no majority.
    pub fn is_caught_up(&self) -> bool {
        self.caught_up.is_true()
    }

    /// What went wrong last with each node.
    pub fn troubles(&self) -> Troubles {
        self.line.troubles()
    }

    fn on_line(&mut self, now_us: u64, event: LineEvent, actions: &mut Actions) {
        match event {
            LineEvent::Nothing => {}
            LineEvent::Up(_) => self.on_up(now_us, actions),
            LineEvent::Down => self.on_down(),
            LineEvent::Reply(reply, body) => self.on_reply(now_us, reply, body, actions),
            LineEvent::Fatal(failure) => self.fail(failure, actions),
        }
    }

    fn on_up(&mut self, now_us: u64, actions: &mut Actions) {
        if self.line.is_astray(now_us, &self.name) {
            self.line.move_on(now_us, actions);
            return;
        }
        let link = self.line.up().expect("the line just came up").link;
        (self.credit, self.received) = (INBOX_CREDIT_BYTES, 0);
        self.phase = Phase::Asked { at: now_us };
        let (resume_seq, resume_from) =
            self.partial.as_ref().map_or((InboxSeq(0), 0), |partial| (partial.head.seq, partial.end));
        let name = self.name.clone();
        let request = ClientRequest::OpenInbox { name, credit: self.credit, resume_seq, resume_from };
        actions.push(Action::Send { link, request });
    }

    fn on_down(&mut self) {
        self.incoming = None;
        self.phase = Phase::Closed;
        self.caught_up.on_down();
    }

    fn on_reply(&mut self, now_us: u64, reply: ClientReply, body: Option<BodyFacts>, actions: &mut Actions) {
        let open = self.phase == Phase::Open;
        let verdict = match reply {
            ClientReply::InboxOpened { inbox, acked_upto } if matches!(self.phase, Phase::Asked { .. }) => {
                self.on_opened(inbox, acked_upto, actions);
                Ok(())
            }
            ClientReply::Head(head) if open => self.on_head(head, actions),
            ClientReply::Chunk { inbox, seq, offset, .. } if open => {
                self.on_chunk(now_us, inbox, seq, offset, body, actions)
            }
            ClientReply::Acked { inbox, upto } if open && Some(inbox) == self.inbox => {
                if upto > self.acked_upto && upto <= self.stored_upto {
                    self.acked_upto = upto;
                    actions.push(Action::Event(InboxEvent::Acked { upto }));
                }
                Ok(())
            }
            ClientReply::ProbeDone { request, index } => {
                self.caught_up.on_mark(request, index);
                Ok(())
            }
            ClientReply::Status { request, status } => {
                self.caught_up.on_answer(now_us, request, status.applied, self.next_seq);
                Ok(())
            }
            ClientReply::Failure { request, refusal, text, ring } => {
                if let Some(ring) = ring {
                    self.line.take_ring(ring);
                }
                match request {
                    Some(request) if self.caught_up.on_refused(now_us, request) => {
                        self.line.note_refusal(refusal, &text);
                    }
                    _ => self.on_failure(now_us, refusal, text, actions),
                }
                Ok(())
            }
            ClientReply::Head(_) | ClientReply::Chunk { .. } => Err("a delivery before the inbox was opened"),
            // Replies to what this session never asks are a node's mistake, and harmless.
            _ => Ok(()),
        };
        if let Err(text) = verdict {
            self.line.note_refusal(Refusal::BadRequest, text);
            self.leave(now_us, actions);
        }
    }

    fn on_opened(&mut self, inbox: InboxId, acked_upto: InboxSeq, actions: &mut Actions) {
        match self.inbox {
            Some(expected) if expected != inbox => {
                self.fail(SessionFailure::InboxChanged { expected, found: inbox }, actions);
                return;
            }
            Some(_) => {}
            None => {
                let before = std::mem::take(&mut self.stored_before);
                if before.inbox == Some(inbox) {
                    self.stored = before.seqs;
                }
                self.inbox = Some(inbox);
            }
        }
        self.phase = Phase::Open;
        (self.unknown_since, self.astray) = (None, 0);
        self.line.on_success();
        // What is acknowledged is stored somewhere; the home gives it to nobody any more.
        self.stored_upto = self.stored_upto.max(acked_upto);
        self.acked_upto = self.acked_upto.max(acked_upto);
        self.close_ranks();
        if self.partial.as_ref().is_some_and(|partial| partial.head.seq <= self.stored_upto) {
            self.abort(actions);
        }
        self.unstored.retain(|seq| *seq > self.stored_upto);
        self.next_seq = InboxSeq(acked_upto.0 + 1);
        self.told_upto = acked_upto;
        actions.push(Action::Event(InboxEvent::Opened { inbox, acked_upto }));
    }

    fn on_head(&mut self, head: ImageHead, actions: &mut Actions) -> Result<(), &'static str> {
        if Some(head.inbox) != self.inbox {
            return Err("an image of another inbox");
        }
        if head.is_damaged && self.incoming.is_some_and(|incoming| incoming.seq == head.seq) {
            // It became so in the middle.
            self.incoming = None;
            self.next_seq = head.seq;
        }
        // The home passes over what was acknowledged on this link before it came to it.
        let is_next = head.seq == self.next_seq || (head.seq > self.next_seq && head.seq.0 - 1 <= self.told_upto.0);
        if !is_next {
            return Err("an image out of order");
        }
        if self.is_incoming() {
            return Err("an image before the last one was whole");
        }
        if head.fingerprint.length == 0 {
            return Err("an image without bytes");
        }
        self.next_seq = InboxSeq(head.seq.0 + 1);
        self.caught_up.on_head();
        let skip = self.has(head.seq) || self.unstored.contains(&head.seq);
        if head.is_damaged {
            if !skip {
                self.abort(actions);
                self.unstored.insert(head.seq);
                actions.push(Action::Event(InboxEvent::Damaged { head: Box::new(head) }));
            }
            return Ok(());
        }
        let (seq, length) = (head.seq, head.fingerprint.length);
        self.incoming = Some(Incoming { seq, length, end: 0, begun: false, skip });
        if skip || self.partial.as_ref().is_some_and(|partial| *partial.head == head) {
            return Ok(());
        }
        self.abort(actions);
        let head = Box::new(head);
        actions.push(Action::Event(InboxEvent::Begin { head: head.clone() }));
        self.partial = Some(Partial { head, end: 0, crc64: CRC64_EMPTY });
        Ok(())
    }

    fn on_chunk(
        &mut self,
        now_us: u64,
        inbox: InboxId,
        seq: InboxSeq,
        offset: u64,
        body: Option<BodyFacts>,
        actions: &mut Actions,
    ) -> Result<(), &'static str> {
        let (Some(incoming), Some(body)) = (&mut self.incoming, body) else { return Err("a chunk of no image") };
        if Some(inbox) != self.inbox || seq != incoming.seq {
            return Err("a chunk of another image");
        }
        self.received = self.received.saturating_add(body.length);
        if self.received > self.credit {
            return Err("more bytes than permitted");
        }
        // A home that knows how far this receiver is may begin there.
        let held = self.partial.as_ref().filter(|partial| partial.head.seq == seq).map_or(0, |partial| partial.end);
        let in_place = if incoming.begun { offset == incoming.end } else { offset == 0 || offset == held };
        if !in_place || body.length > incoming.length.saturating_sub(offset) {
            return Err("a chunk out of place");
        }
        incoming.begun = true;
        incoming.end = offset + body.length;
        let whole = incoming.end == incoming.length;
        let skip = incoming.skip;
        if whole {
            self.incoming = None;
        }
        if skip {
            return Ok(());
        }
        let partial = self.partial.as_mut().expect("an image that is not skipped has its partial");
        if offset + body.length <= partial.end {
            return Ok(()); // Came before the link broke.
        }
        if offset != partial.end {
            return Err("a chunk across the end of what came before");
        }
        partial.crc64 = crc64_combine(partial.crc64, body.crc64, body.length);
        partial.end += body.length;
        actions.push(Action::Event(InboxEvent::Write { seq, offset }));
        if whole {
            self.on_whole(now_us, actions);
        }
        Ok(())
    }

    /// All bytes of the image are with the user: give it out, or throw it away if they are not the sender's.
    fn on_whole(&mut self, now_us: u64, actions: &mut Actions) {
        let partial = self.partial.take().expect("the caller just wrote its last byte");
        let (seq, expected, found) = (partial.head.seq, partial.head.fingerprint.checksum, partial.crc64);
        assert_eq!(partial.end, partial.head.fingerprint.length, "the last byte of {seq} was written");
        if expected == found {
            self.unstored.insert(seq);
            actions.push(Action::Event(InboxEvent::Finish { seq }));
            return;
        }
        actions.push(Action::Event(InboxEvent::Corrupt { seq, expected, found }));
        actions.push(Action::Event(InboxEvent::Abort { seq }));
        self.line.note_refusal(Refusal::NotHeld, "the image's bytes are not those its sender had");
        self.leave(now_us, actions);
    }

    fn on_stored(&mut self, seq: InboxSeq) {
        if self.unstored.remove(&seq) {
            self.stored.insert(seq);
            self.close_ranks();
        }
    }

    /// The home gives it again to a new connection.
    fn on_lost(&mut self, now_us: u64, seq: InboxSeq, actions: &mut Actions) {
        let partly = self.partial.take_if(|partial| partial.head.seq == seq).is_some();
        let wholly = self.unstored.remove(&seq);
        if (partly || wholly) && self.line.up().is_some() {
            self.line.move_on(now_us, actions);
            self.on_down();
        }
    }

    fn on_failure(&mut self, now_us: u64, refusal: Refusal, text: String, actions: &mut Actions) {
        if refusal == Refusal::NotHome && self.line.is_at_home(&self.name) {
            // By the newest ring it is the home. It takes nobody because it hears no leader.
            self.line.note_refusal(Refusal::NoLeader, "the receiver's home hears no leader");
        } else {
            self.line.note_refusal(refusal, &text);
        }
        match refusal {
            Refusal::Superseded => self.fail(SessionFailure::Superseded { text }, actions),
            Refusal::UnknownReceiver => {
                let since = *self.unknown_since.get_or_insert(now_us);
                if now_us.saturating_sub(since) >= UNKNOWN_RECEIVER_GRACE_US {
                    self.fail(SessionFailure::UnknownReceiver { name: self.name.clone() }, actions);
                } else {
                    self.leave(now_us, actions);
                }
            }
            _ if refusal.is_transient() => {
                let name = self.name.clone();
                // With the newer ring the home may be elsewhere: go there at once. Else wait for it to change.
                if self.line.is_astray(now_us, &name) {
                    self.line.move_on(now_us, actions);
                    self.on_down();
                } else if refusal == Refusal::NotHome {
                    // It is not this node's fault that the home does not answer.
                    self.astray = self.astray.saturating_add(1);
                    let wait_us = self.line.wait_us(self.astray).min(HOME_LOOK_US_MAX);
                    self.line.pause(now_us, wait_us, actions);
                    self.on_down();
                } else {
                    self.leave(now_us, actions);
                }
            }
            _ => {
                let address = self.line.up().map(|up| up.address.clone()).unwrap_or_default();
                self.fail(SessionFailure::Refused { address, refusal, text }, actions);
            }
        }
    }

    /// Acknowledges what became durable: at once after a pause, else with what comes within the gap.
    fn acknowledge(&mut self, now_us: u64, actions: &mut Actions) {
        let (Phase::Open, Some(up), Some(inbox)) = (self.phase, self.line.up(), self.inbox) else { return };
        if self.stored_upto <= self.told_upto || now_us < self.told_at.saturating_add(ACK_GAP_US) {
            return;
        }
        let upto = self.stored_upto;
        actions.push(Action::Send { link: up.link, request: ClientRequest::Ack { inbox, upto } });
        (self.told_upto, self.told_at) = (upto, now_us);
    }

    /// Asks behind everything that was told, once it is all stored and acknowledged on this link.
    fn ask_caught_up(&mut self, now_us: u64, actions: &mut Actions) {
        if let Some(link) = self.line.up().map(|up| up.link)
            && self.is_all_done()
        {
            let question = self.caught_up.ask(now_us, self.next_seq);
            actions.extend(question.map(|request| Action::Send { link, request }));
        }
    }

    /// Whether all that was told on this link is stored and acknowledged.
    fn is_all_done(&self) -> bool {
        self.phase == Phase::Open
            && !self.is_incoming()
            && self.unstored.is_empty()
            && self.stored_upto <= self.told_upto
    }

    /// Whether more is to come of an image. Of one that was stored before and is acknowledged on this link the home need not send
    /// the rest.
    fn is_incoming(&self) -> bool {
        self.incoming.is_some_and(|incoming| !incoming.skip || incoming.seq > self.told_upto)
    }

    /// Raises the credit in steps, unless too many images wait to be stored.
    fn permit(&mut self, actions: &mut Actions) {
        let (Phase::Open, Some(up)) = (self.phase, self.line.up()) else { return };
        let credit = self.received.saturating_add(INBOX_CREDIT_BYTES);
        if self.unstored.len() >= INBOX_UNSTORED_MAX || credit < self.credit + INBOX_CREDIT_STEP_BYTES {
            return;
        }
        self.credit = credit;
        actions.push(Action::Send { link: up.link, request: ClientRequest::InboxCredit { credit } });
    }

    fn leave(&mut self, now_us: u64, actions: &mut Actions) {
        self.line.leave(now_us, actions);
        self.on_down();
    }

    fn fail(&mut self, failure: SessionFailure, actions: &mut Actions) {
        self.abort(actions);
        self.line.stop(actions);
        self.on_down();
        self.phase = Phase::Failed;
        actions.push(Action::Event(InboxEvent::Failed(failure)));
    }

    fn abort(&mut self, actions: &mut Actions) {
        if let Some(partial) = self.partial.take() {
            actions.push(Action::Event(InboxEvent::Abort { seq: partial.head.seq }));
        }
    }

    fn has(&self, seq: InboxSeq) -> bool {
        seq <= self.stored_upto || self.stored.contains(&seq)
    }

    /// Moves `stored_upto` over what became durable without gap.
    fn close_ranks(&mut self) {
        self.stored = self.stored.split_off(&InboxSeq(self.stored_upto.0 + 1));
        while self.stored.remove(&InboxSeq(self.stored_upto.0 + 1)) {
            self.stored_upto = InboxSeq(self.stored_upto.0 + 1);
        }
        assert!(self.acked_upto <= self.stored_upto, "acked {} stored {}", self.acked_upto, self.stored_upto);
    }
}

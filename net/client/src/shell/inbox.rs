//! The blocking receiver.
//!
//! The user's own thread drives the session within its calls; one thread a connection reads ahead, at most the credit.
//! A chunk is read once from the socket (CRC-32 and CRC-64 there) and written from that buffer to where it goes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use proto::client::{ClientReply, ImageHead};
use proto::ids::{ClusterId, InboxId, InboxSeq};
use proto::limits::IMAGE_BYTES_MAX_DEFAULT;

use crate::error::ClientError;
use crate::inbox::{InboxEvent, InboxInput, InboxSession, StoredBefore};
use crate::limits::STASH_FRAMES_MAX;
use crate::session::{Action, BodyFacts, LinkId, LinkInput, SessionFailure};
use crate::shell::options::Options;
use crate::shell::store::{DirectoryStore, StoredFile};
use crate::shell::wire::{Told, Wire};
use crate::troubles::Troubles;

/// An image received whole into memory. Not yet acknowledged: see `Inbox::acknowledge`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// All about it.
    pub head: ImageHead,
    /// Its bytes, equal to those the sender had; none if `ImageHead::is_damaged`.
    pub bytes: Vec<u8>,
}

/// Takes the bytes of one image after another. An error ends the receiving call: the image is not acknowledged, and comes
/// again with the next call.
pub trait ImageSink {
    /// A new image begins; anything unfinished before it is to be thrown away.
    fn begin(&mut self, head: &ImageHead) -> Result<(), ClientError>;
    /// Its next bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError>;
    /// All bytes were written, and are right. On return they are durable.
    fn finish(&mut self) -> Result<(), ClientError>;
    /// Throw away what was written since `begin`, if anything.
    fn abort(&mut self);
    /// No node has this image's bytes any more: none come, and its place counts as received. On return that is durable.
    fn damaged(&mut self, head: &ImageHead) -> Result<(), ClientError>;
}

/// A receiver. Driven by the calls of its user; keeps the inbox open between them. Dropped, it closes the connection; what
/// was stored and not yet acknowledged for good (`flush`) is recognized when it comes again.
///
/// One kind of receiving call for one `Inbox`: with an image under way, a call of another kind makes it begin again.
#[derive(Debug)]
pub struct Inbox {
    wire: Wire<()>,
    session: InboxSession,
    opened: Option<InboxId>,
    cluster: ClusterId,
    failure: Option<SessionFailure>,
    actions: Vec<Action<InboxEvent>>,
    stash: VecDeque<Frame>, // deliveries that came while only acknowledgements were waited for
    writing: Option<(Box<ImageHead>, Mode)>, // begun, neither finished nor aborted
    memory: MemorySink,
    received_bytes: u64,
}

/// Which call began the image under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Memory,
    Given,
    Directory,
}

#[derive(Debug)]
struct Frame {
    link: LinkId,
    reply: ClientReply,
    body: Vec<u8>,
    facts: Option<BodyFacts>,
}

impl Inbox {
    /// Finds the home of `name` and opens its inbox, or says why not. Waits until the options' deadline.
    pub fn open(options: Options, name: &str) -> Result<Inbox, ClientError> {
        Inbox::start(options, name, StoredBefore::default())
    }

    /// As `open`, taking over what `store` holds already, and making it the store of this inbox.
    pub fn open_with(options: Options, name: &str, store: &mut DirectoryStore) -> Result<Inbox, ClientError> {
        let inbox = Inbox::start(options, name, store.stored_before())?;
        store.bind(inbox.cluster(), inbox.inbox())?;
        Ok(inbox)
    }

    fn start(options: Options, name: &str, stored: StoredBefore) -> Result<Inbox, ClientError> {
        let session = InboxSession::new(options.session()?, name, stored)
            .map_err(|reason| ClientError::NameInvalid { name: name.to_owned(), reason })?;
        let mut inbox = Inbox {
            wire: Wire::new(),
            session,
            opened: None,
            cluster: options.cluster,
            failure: None,
            actions: Vec::new(),
            stash: VecDeque::new(),
            writing: None,
            memory: MemorySink::default(),
            received_bytes: 0,
        };
        let until = options.deadline.and_then(|deadline| Instant::now().checked_add(deadline));
        inbox.run(InboxInput::Start)?;
        while inbox.opened.is_none() {
            if until.is_some_and(|until| Instant::now() >= until) {
                let (seconds, troubles) = (options.deadline_seconds(), inbox.session.troubles());
                return Err(ClientError::TimedOut { what: "opening the inbox", seconds, troubles });
            }
            inbox.wait_aside(until)?;
        }
        Ok(inbox)
    }

    /// Which inbox.
    pub fn inbox(&self) -> InboxId {
        self.opened.expect("start returns an inbox that was opened")
    }

    /// Which cluster.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// Everything up to here is acknowledged for good.
    pub fn acked_upto(&self) -> InboxSeq {
        self.session.acked_upto()
    }

    /// The next image, whole in memory; `None` if none was whole within `timeout`. It comes again to the next `Inbox` of
    /// this name unless it is acknowledged.
    pub fn receive(&mut self, timeout: Duration) -> Result<Option<Delivery>, ClientError> {
        let mut memory = std::mem::take(&mut self.memory);
        let finished = self.take_next(&mut memory, Mode::Memory, timeout);
        self.memory = memory;
        Ok(finished?.and_then(|_| self.memory.last.take()))
    }

    /// The next image, streamed into `sink` and acknowledged after `ImageSink::finish`; `None` if none was whole within
    /// `timeout`: then what was written of one stays, and the next call with the same sink goes on there.
    pub fn receive_into(
        &mut self,
        sink: &mut dyn ImageSink,
        timeout: Duration,
    ) -> Result<Option<ImageHead>, ClientError> {
        let Some(head) = self.take_next(sink, Mode::Given, timeout)? else { return Ok(None) };
        self.acknowledge(head.seq)?;
        Ok(Some(head))
    }

    /// The next image as a file of `store`, acknowledged once it is durable.
    pub fn receive_file(
        &mut self,
        store: &mut DirectoryStore,
        timeout: Duration,
    ) -> Result<Option<StoredFile>, ClientError> {
        let Some(head) = self.take_next(store, Mode::Directory, timeout)? else { return Ok(None) };
        self.acknowledge(head.seq)?;
        Ok(store.take_last())
    }

    /// Says that the image of `receive` is durable with the caller and need not come again.
    pub fn acknowledge(&mut self, seq: InboxSeq) -> Result<(), ClientError> {
        self.run(InboxInput::Stored(seq))
    }

    /// Waits until every acknowledgement given so far is committed; false if that took longer than `timeout`.
    pub fn flush(&mut self, timeout: Duration) -> Result<bool, ClientError> {
        let until = Instant::now().checked_add(timeout);
        let upto = self.session.stored_upto();
        while self.session.acked_upto() < upto {
            let late = until.is_some_and(|until| Instant::now() >= until);
            if late || self.stash.len() >= STASH_FRAMES_MAX {
                return Ok(false);
            }
            self.wait_aside(until)?;
        }
        Ok(true)
    }

    /// Whether there is nothing more: everything that was accepted for this receiver before the call, by whatever node, is stored
    /// and acknowledged. False: an image is coming, or no answer within `timeout`, as without a majority. Calls that
    /// follow a false one go on with its question. Costs a record of the log.
    pub fn is_caught_up(&mut self, timeout: Duration) -> Result<bool, ClientError> {
        let until = Instant::now().checked_add(timeout);
        if self.stash.is_empty() {
            self.run(InboxInput::AskCaughtUp)?;
        }
        while self.stash.is_empty() && !self.session.is_caught_up() {
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(false);
            }
            self.wait_aside(until)?;
        }
        Ok(self.stash.is_empty())
    }

    /// Bytes of images that came so far, for those who want to see whether anything moves.
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// What went wrong last with each node.
    pub fn troubles(&self) -> Troubles {
        self.session.troubles()
    }

    /// Drives the session until one image is finished.
    fn take_next(
        &mut self,
        sink: &mut dyn ImageSink,
        mode: Mode,
        timeout: Duration,
    ) -> Result<Option<ImageHead>, ClientError> {
        if let Some((head, _)) = self.writing.take_if(|(_, begun)| *begun != mode) {
            self.memory.abort();
            self.run(InboxInput::Lost(head.seq))?;
        }
        let until = Instant::now().checked_add(timeout);
        let mut place = Place { sink, mode, finished: None };
        loop {
            let frame = match self.stash.pop_front() {
                Some(frame) => {
                    Some(Told::Frame { link: frame.link, reply: frame.reply, body: frame.body, facts: frame.facts })
                }
                None => self.wire.listen(self.session.wake_at(), until),
            };
            match frame {
                None => self.step(InboxInput::Tick, &[], Some(&mut place))?,
                Some(Told::Frame { link, reply, body, facts }) => {
                    self.received_bytes += body.len() as u64;
                    let input = InboxInput::Link(LinkInput::Reply { link, reply, body: facts });
                    let done = self.step(input, &body, Some(&mut place));
                    self.wire.recycle(body);
                    done?;
                }
                Some(other) => self.on_told(other)?,
            }
            if let Some(finished) = place.finished.take() {
                return Ok(Some(finished));
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                return Ok(None);
            }
        }
    }

    /// Drives the session without taking deliveries: those are put aside.
    fn wait_aside(&mut self, until: Option<Instant>) -> Result<(), ClientError> {
        match self.wire.listen(self.session.wake_at(), until) {
            None => self.run(InboxInput::Tick),
            Some(Told::Frame {
                link,
                reply: reply @ (ClientReply::Head(_) | ClientReply::Chunk { .. }),
                body,
                facts,
            }) => {
                self.stash.push_back(Frame { link, reply, body, facts });
                Ok(())
            }
            Some(Told::Frame { link, reply, body, facts }) => {
                self.wire.recycle(body);
                self.run(InboxInput::Link(LinkInput::Reply { link, reply, body: facts }))
            }
            Some(other) => self.on_told(other),
        }
    }

    /// What is no frame.
    fn on_told(&mut self, told: Told<()>) -> Result<(), ClientError> {
        match told {
            Told::Opened { link, writer, welcome } => {
                let cluster = welcome.cluster;
                let Some(input) = self.wire.on_opened(link, writer, welcome) else { return Ok(()) };
                self.cluster = cluster;
                self.run(InboxInput::Link(input))
            }
            Told::Link(input) => self.run(InboxInput::Link(input)),
            Told::Frame { .. } | Told::Command(()) => Ok(()),
        }
    }

    /// A step that brings no bytes of an image.
    fn run(&mut self, input: InboxInput) -> Result<(), ClientError> {
        self.step(input, &[], None)
    }

    fn step(&mut self, input: InboxInput, body: &[u8], mut place: Option<&mut Place<'_>>) -> Result<(), ClientError> {
        let mut actions = std::mem::take(&mut self.actions);
        self.session.step(self.wire.now_us(), input, &mut actions);
        let mut problem = None;
        for action in actions.drain(..) {
            match action {
                Action::Connect { link, address, target, cluster } => self.wire.connect(link, address, target, cluster),
                Action::Close { link } => self.wire.close(link),
                Action::Send { link, request } => self.wire.send(link, &request, &[]),
                Action::Event(event) => {
                    // After a problem the image is given up, so the rest of its events mean nothing.
                    if problem.is_none() {
                        problem = self.on_event(event, body, place.as_deref_mut()).err();
                    }
                }
            }
        }
        self.actions = actions;
        self.wire.flush();
        if let Some((seq, error)) = problem {
            self.writing = None;
            if let Some(place) = place {
                place.sink.abort();
            }
            self.run(InboxInput::Lost(seq))?;
            return Err(error);
        }
        match &self.failure {
            Some(failure) => Err(ClientError::Session(failure.clone())),
            None => Ok(()),
        }
    }

    fn on_event(
        &mut self,
        event: InboxEvent,
        body: &[u8],
        place: Option<&mut Place<'_>>,
    ) -> Result<(), (InboxSeq, ClientError)> {
        match (event, place) {
            (InboxEvent::Opened { inbox, .. }, _) => {
                self.opened = Some(inbox);
                self.stash.clear();
            }
            (InboxEvent::Begin { head }, Some(place)) => {
                place.sink.begin(&head).map_err(|error| (head.seq, error))?;
                self.writing = Some((head, place.mode));
            }
            (InboxEvent::Write { seq, .. }, Some(place)) => place.sink.write(body).map_err(|error| (seq, error))?,
            (InboxEvent::Finish { seq }, Some(place)) => {
                let (head, _) = self.writing.take().expect("a finish follows its begin");
                place.sink.finish().map_err(|error| (seq, error))?;
                place.finished = Some(*head);
            }
            (InboxEvent::Damaged { head }, Some(place)) => {
                tracing::warn!(image = %head.image, seq = %head.seq, "no node has the bytes of this image any more");
                place.sink.damaged(&head).map_err(|error| (head.seq, error))?;
                place.finished = Some(*head);
            }
            (InboxEvent::Abort { .. }, place) => {
                self.writing = None;
                self.memory.abort();
                if let Some(place) = place {
                    place.sink.abort();
                }
            }
            (InboxEvent::Corrupt { seq, expected, found }, _) => {
                tracing::warn!(%seq, expected = %format_args!("{expected:016x}"), found = %format_args!("{found:016x}"),
                    "image arrived with other bytes than were sent; fetching it again");
            }
            (InboxEvent::Acked { upto }, _) => tracing::trace!(%upto, "acknowledged"),
            (InboxEvent::Failed(failure), _) => self.failure = Some(failure),
            (
                event @ (InboxEvent::Begin { .. }
                | InboxEvent::Write { .. }
                | InboxEvent::Finish { .. }
                | InboxEvent::Damaged { .. }),
                None,
            ) => {
                unreachable!("{event:?} comes with a delivery, and those come with a place")
            }
        }
        Ok(())
    }
}

/// Where the deliveries of a call go.
struct Place<'s> {
    sink: &'s mut dyn ImageSink,
    mode: Mode,
    finished: Option<ImageHead>,
}

/// Images whole in memory, for `Inbox::receive`.
#[derive(Debug, Default)]
struct MemorySink {
    current: Option<Delivery>,
    last: Option<Delivery>,
}

impl ImageSink for MemorySink {
    fn begin(&mut self, head: &ImageHead) -> Result<(), ClientError> {
        // What a node says of the length is believed in steps only.
        let room = head.fingerprint.length.min(IMAGE_BYTES_MAX_DEFAULT) as usize;
        self.current = Some(Delivery { head: head.clone(), bytes: Vec::with_capacity(room) });
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.current.as_mut().expect("a write follows its begin").bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), ClientError> {
        self.last = self.current.take();
        Ok(())
    }

    fn abort(&mut self) {
        self.current = None;
    }

    fn damaged(&mut self, head: &ImageHead) -> Result<(), ClientError> {
        self.last = Some(Delivery { head: head.clone(), bytes: Vec::new() });
        Ok(())
    }
}

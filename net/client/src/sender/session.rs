//! The pure session of a sender: from a submitted image to its outcome, whatever node or connection fails on the way.
//!
//! - The session is opened once (a log record). Each image gets the next sequence when its turn comes and keeps it for
//!   ever: a retry at any node says the same again.
//! - `Begin` of a new image and its bytes go out together; what was begun before waits for the answer, which says from
//!   where to go on. Body bytes obey the credit of the link.
//! - A refusal that may pass and a lost link lead to another try, after a wait and if need be at another node; a refusal
//!   for good, or the deadline, ends the image. A session that the cluster does not know any more ends with an error:
//!   never is an image given a second id.
//!
//! Invariants: `low_water <= every sequence in flight < next_sequence <= low_water + SESSION_WINDOW`; `spent <= credit`;
//! an image in flight is in `sendable` exactly if it has a next chunk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proto::client::{Begin, ClientReply, ClientRequest};
use proto::error::Refusal;
use proto::ids::{ImageId, RequestId, Sequence, SessionId};
use proto::limits::{CHUNK_BYTES_MAX, RECEIVERS_MAX, SESSION_WINDOW};
use proto::name::{NameError, check_file_name, check_name};

use crate::limits::{ASK_AFTER_US, IMAGES_SUBMITTED_MAX, REFUSALS_PER_NODE_MAX, REQUEST_AGAIN_US, SENDER_TICK_US};
use crate::line::{Line, LineEvent};
use crate::sender::flight::{Flight, Moved, Stage, low_water};
use crate::sender::{ImageJob, SenderEvent, SenderInput};
use crate::session::{Action, Key, Routing, SessionFailure, SessionOptions, Welcome};
use crate::troubles::Troubles;

/// The pure session of a sender: one connection, one session of the cluster, many images in flight.
#[derive(Debug)]
pub struct SenderSession {
    line: Line,
    routing: Routing,
    sender: String,
    deadline_us: Option<u64>,
    phase: Phase,
    requests: u64,
    waiting: VecDeque<Waiting>,
    flights: BTreeMap<Sequence, Flight>,
    sendable: BTreeSet<Sequence>,
    keys: BTreeMap<Key, Option<Sequence>>, // all unfinished; None while waiting
    next_sequence: Sequence,
    credit: u64,
    spent: u64,
    image_bytes_max: u64,
    accepted_here: u64, // on this link
    accepted_at: u64,
    progressed_at: u64,
    credit_at: u64,
    tick_at: u64,
}

/// An image that has no sequence yet.
#[derive(Debug)]
struct Waiting {
    job: ImageJob,
    since: u64,
}

/// How far the session itself is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Before `Start`.
    Idle,
    /// No session yet; `OpenSession` is due at this time, on any link.
    Closed { ask_at: u64, refusals: u32 },
    /// `OpenSession` was sent on the present link.
    Asked { request: RequestId, at: u64, refusals: u32 },
    /// There.
    Open(SessionId),
    /// Ended.
    Failed,
}

type Actions = Vec<Action<SenderEvent>>;

impl SenderSession {
    /// A session of `sender`, not yet started.
    pub fn new(options: SessionOptions, sender: &str) -> Result<SenderSession, NameError> {
        check_name(sender)?;
        Ok(SenderSession {
            line: Line::new(&options, false),
            routing: options.routing,
            sender: sender.to_owned(),
            deadline_us: options.deadline_us,
            phase: Phase::Idle,
            requests: 0,
            waiting: VecDeque::new(),
            flights: BTreeMap::new(),
            sendable: BTreeSet::new(),
            keys: BTreeMap::new(),
            next_sequence: Sequence(1),
            credit: 0,
            spent: 0,
            image_bytes_max: u64::MAX,
            accepted_here: 0,
            accepted_at: 0,
            progressed_at: 0,
            credit_at: 0,
            tick_at: u64::MAX,
        })
    }

    /// One input, any number of actions, appended to `actions` in the order in which they must be carried out.
    pub fn step(&mut self, now_us: u64, input: SenderInput, actions: &mut Vec<Action<SenderEvent>>) {
        match input {
            SenderInput::Start if self.phase == Phase::Idle => {
                self.phase = Phase::Closed { ask_at: now_us, refusals: 0 };
                self.progressed_at = now_us;
            }
            SenderInput::Start | SenderInput::Tick => {}
            SenderInput::Submit(job) => self.on_submit(now_us, job, actions),
            SenderInput::Withdraw(key) => self.on_withdraw(key),
            SenderInput::Link(input) => {
                let event = self.line.on_input(now_us, input, actions);
                self.on_line(now_us, event, actions);
            }
        }
        if matches!(self.phase, Phase::Idle | Phase::Failed) {
            return;
        }
        if now_us >= self.tick_at {
            self.on_tick(now_us, actions);
        }
        self.open_session(now_us, actions);
        self.change_node(now_us, actions);
        self.pump(now_us, actions);
        let client = self.next_receiver();
        let event = self.line.advance(now_us, client.as_deref(), actions);
        self.on_line(now_us, event, actions);
        self.schedule(now_us);
    }

    /// When `SenderInput::Tick` is due, if at all.
    pub fn wake_at(&self) -> Option<u64> {
        match self.phase {
            Phase::Idle | Phase::Failed => None,
            _ => Some(self.tick_at.min(self.line.wake_at())),
        }
    }

    /// Largest image that the cluster takes; without bound until a node said it.
    pub fn image_bytes_max(&self) -> u64 {
        self.image_bytes_max
    }

    /// Images submitted and not finished.
    pub fn unfinished(&self) -> usize {
        self.keys.len()
    }

    /// The cluster's session, once it is open.
    pub fn session(&self) -> Option<SessionId> {
        match self.phase {
            Phase::Open(session) => Some(session),
            _ => None,
        }
    }

    /// What went wrong last with each node.
    pub fn troubles(&self) -> Troubles {
        self.line.troubles()
    }

    /// For tests and simulators: the invariants that cost a scan.
    pub fn check_invariants(&self) {
        let low = self.low_water();
        assert!(self.spent <= self.credit || self.line.up().is_none(), "spent {} of {}", self.spent, self.credit);
        assert!(self.next_sequence.0 - low.0 <= SESSION_WINDOW, "low {low} next {}", self.next_sequence);
        assert_eq!(self.keys.len(), self.flights.len() + self.waiting.len());
        for (sequence, flight) in &self.flights {
            assert!(*sequence < self.next_sequence);
            assert_eq!(self.keys.get(&flight.job.key), Some(&Some(*sequence)));
            assert_eq!(self.sendable.contains(sequence), flight.next_chunk().is_some(), "{sequence}: {flight:?}");
        }
    }

    fn on_submit(&mut self, now_us: u64, job: ImageJob, actions: &mut Actions) {
        if self.keys.contains_key(&job.key) {
            return; // The first submission under this key stands.
        }
        let refusal = match self.phase {
            Phase::Failed => Some((Refusal::SessionUnknown, "the session has ended: open a new one".to_owned())),
            _ if self.keys.len() >= IMAGES_SUBMITTED_MAX => {
                Some((Refusal::Busy, format!("{IMAGES_SUBMITTED_MAX} images wait already")))
            }
            _ => job_fault(&job),
        };
        if let Some((refusal, text)) = refusal {
            actions.push(Action::Event(SenderEvent::Refused { key: job.key, refusal, text }));
            return;
        }
        self.keys.insert(job.key, None);
        self.waiting.push_back(Waiting { job, since: now_us });
    }

    fn on_withdraw(&mut self, key: Key) {
        match self.keys.get(&key).copied() {
            None => {}
            Some(None) => {
                self.keys.remove(&key);
                self.waiting.retain(|waiting| waiting.job.key != key);
            }
            Some(Some(sequence)) => {
                self.finish(sequence);
            }
        }
    }

    fn on_line(&mut self, now_us: u64, event: LineEvent, actions: &mut Actions) {
        match event {
            LineEvent::Nothing => {}
            LineEvent::Up(welcome) => self.on_up(now_us, &welcome, actions),
            LineEvent::Down => self.on_down(now_us),
            LineEvent::Reply(reply, _) => self.on_reply(now_us, reply, actions),
            LineEvent::Fatal(failure) => self.fail(failure, actions),
        }
    }

    fn on_up(&mut self, now_us: u64, welcome: &Welcome, actions: &mut Actions) {
        (self.credit, self.spent, self.credit_at) = (welcome.credit, 0, now_us);
        self.image_bytes_max = welcome.image_bytes_max;
        self.accepted_here = 0;
        self.accepted_at = now_us;
        let parked = |flight: &Flight| flight.stage() == Stage::Parked;
        let again: Vec<Sequence> =
            self.flights.iter().filter(|(_, flight)| parked(flight)).map(|(sequence, _)| *sequence).collect();
        for sequence in again {
            self.begin_again(now_us, sequence, actions);
        }
    }

    fn on_down(&mut self, now_us: u64) {
        self.sendable.clear();
        for flight in self.flights.values_mut() {
            // One that pauses goes on pausing: it begins on whatever link there is then.
            if matches!(flight.stage(), Stage::Asking | Stage::Sending) {
                flight.become_stage(Stage::Parked, now_us);
            }
        }
        if let Phase::Asked { refusals, .. } = self.phase {
            self.phase = Phase::Closed { ask_at: now_us, refusals };
        }
    }

    fn on_reply(&mut self, now_us: u64, reply: ClientReply, actions: &mut Actions) {
        match reply {
            ClientReply::Credit { credit } => {
                self.credit = self.credit.max(credit);
                self.credit_at = now_us;
            }
            ClientReply::SessionOpened { request, session } => {
                self.on_session_opened(now_us, request, session, actions)
            }
            ClientReply::BeginAnswer { image, resume_from } => {
                self.on_moved(now_us, image, actions, |flight| flight.on_begin_answer(now_us, resume_from));
            }
            ClientReply::Progress { image, durable_end } => {
                self.on_moved(now_us, image, actions, |flight| flight.on_progress(now_us, durable_end));
            }
            ClientReply::Accepted { image, index, holders } => {
                let Some(flight) = self.finish_image(image) else { return };
                self.line.on_success();
                self.accepted_here += 1;
                (self.accepted_at, self.progressed_at) = (now_us, now_us);
                let key = flight.job.key;
                actions.push(Action::Event(SenderEvent::Accepted { key, image, index, holders }));
            }
            ClientReply::Refused { image, refusal, text } => self.on_refused(now_us, image, refusal, text, actions),
            ClientReply::Failure { request, refusal, text, ring } => {
                if let Some(ring) = ring {
                    self.line.take_ring(ring);
                }
                self.line.note_refusal(refusal, &text);
                self.on_failure(now_us, request, refusal, text, actions);
            }
            // Replies to what this session never asks are a node's mistake, and harmless.
            _ => {}
        }
    }

    fn on_session_opened(&mut self, now_us: u64, request: RequestId, session: SessionId, actions: &mut Actions) {
        match self.phase {
            Phase::Asked { request: asked, .. } if asked == request => {}
            _ => return,
        }
        self.phase = Phase::Open(session);
        self.progressed_at = now_us;
        self.line.on_success();
        actions.push(Action::Event(SenderEvent::SessionOpened { session }));
    }

    fn on_moved(
        &mut self,
        now_us: u64,
        image: ImageId,
        actions: &mut Actions,
        change: impl FnOnce(&mut Flight) -> Moved,
    ) {
        if self.session() != Some(image.session) {
            return;
        }
        let Some(flight) = self.flights.get_mut(&image.sequence) else { return };
        let moved = change(flight);
        let key = flight.job.key;
        self.sort(image.sequence);
        match moved {
            Moved::Nothing => {}
            Moved::Durable(durable_end) => {
                self.progressed_at = now_us;
                actions.push(Action::Event(SenderEvent::Progress { key, durable_end }));
            }
            Moved::Impossible => {
                self.line.note_refusal(Refusal::BadRequest, "the node spoke of bytes beyond the image's end");
                self.leave(now_us, actions);
            }
        }
    }

    fn on_refused(&mut self, now_us: u64, image: ImageId, refusal: Refusal, text: String, actions: &mut Actions) {
        if self.session() != Some(image.session) || !self.flights.contains_key(&image.sequence) {
            return;
        }
        let trouble = self.line.note_refusal(refusal, &text);
        if refusal == Refusal::SessionUnknown {
            self.fail(SessionFailure::SessionUnknown { text }, actions);
            return;
        }
        if !self.flights[&image.sequence].may_pass(refusal) {
            let flight = self.finish_image(image).expect("it was there a moment ago");
            actions.push(Action::Event(SenderEvent::Refused { key: flight.job.key, refusal, text }));
            return;
        }
        let flight = self.flights.get_mut(&image.sequence).expect("it was there a moment ago");
        flight.trouble = Some(trouble);
        if matches!(flight.stage(), Stage::Parked | Stage::Pausing { .. }) {
            return; // Of an earlier Begin; the next one is due already.
        }
        flight.refusals = flight.refusals.saturating_add(1);
        let refusals = flight.refusals;
        let until = now_us + self.line.wait_us(refusals);
        flight.become_stage(Stage::Pausing { until }, now_us);
        self.sort(image.sequence);
        let fruitless = now_us.saturating_sub(self.accepted_at) > ASK_AFTER_US || self.accepted_here == 0;
        if refusals.is_multiple_of(REFUSALS_PER_NODE_MAX) && fruitless && self.line.has_other(now_us) {
            self.leave(now_us, actions);
        }
    }

    fn on_failure(
        &mut self,
        now_us: u64,
        request: Option<RequestId>,
        refusal: Refusal,
        text: String,
        actions: &mut Actions,
    ) {
        if request.is_none() {
            self.leave(now_us, actions); // The connection ends.
            return;
        }
        let Phase::Asked { request: asked, refusals, .. } = self.phase else { return };
        if request != Some(asked) {
            return;
        }
        if !refusal.is_transient() {
            let address = self.line.up().map(|up| up.address.clone()).unwrap_or_default();
            self.fail(SessionFailure::Refused { address, refusal, text }, actions);
            return;
        }
        let refusals = refusals.saturating_add(1);
        self.phase = Phase::Closed { ask_at: now_us + self.line.wait_us(refusals), refusals };
        if refusals.is_multiple_of(REFUSALS_PER_NODE_MAX) && self.line.has_other(now_us) {
            self.leave(now_us, actions);
        }
    }

    /// Begins again what pauses long enough, asks after what is silent, gives up what is over its deadline.
    fn on_tick(&mut self, now_us: u64, actions: &mut Actions) {
        self.give_up(now_us, actions);
        if let Phase::Asked { at, refusals, .. } = self.phase
            && now_us.saturating_sub(at) >= REQUEST_AGAIN_US
        {
            self.phase = Phase::Closed { ask_at: now_us, refusals };
            self.line.note_refusal(Refusal::NotReady, "the node does not answer the request for a session");
            if self.line.has_other(now_us) {
                self.leave(now_us, actions);
            }
        }
        if self.line.up().is_none() {
            return;
        }
        let credit_at = self.credit_at;
        let is_due = |flight: &Flight| match flight.stage() {
            Stage::Parked => true,
            Stage::Pausing { until } => until <= now_us,
            Stage::Asking => now_us.saturating_sub(flight.news_at) >= ASK_AFTER_US,
            Stage::Sending => {
                let since = if flight.waits_for_credit() { flight.news_at.max(credit_at) } else { flight.news_at };
                now_us.saturating_sub(since) >= ASK_AFTER_US
            }
        };
        let due: Vec<Sequence> =
            self.flights.iter().filter(|(_, flight)| is_due(flight)).map(|(sequence, _)| *sequence).collect();
        for sequence in due {
            self.begin_again(now_us, sequence, actions);
        }
    }

    fn give_up(&mut self, now_us: u64, actions: &mut Actions) {
        let Some(deadline_us) = self.deadline_us else { return };
        let is_over = |since: u64| now_us.saturating_sub(since) >= deadline_us;
        let moving = self.progressed_at;
        let late: Vec<Sequence> = self
            .flights
            .iter()
            .filter(|(_, flight)| {
                // While bytes wait for their turn, the progress of the others counts.
                let since =
                    if flight.waits_for_credit() { flight.progressed_at.max(moving) } else { flight.progressed_at };
                is_over(since)
            })
            .map(|(sequence, _)| *sequence)
            .collect();
        for sequence in late {
            let flight = self.finish(sequence).expect("it was found a moment ago");
            let mut troubles = self.line.troubles();
            // The node may have served others since it refused this image.
            flight.trouble.into_iter().for_each(|trouble| troubles.note_unless_newer(trouble));
            actions.push(Action::Event(SenderEvent::GaveUp { key: flight.job.key, begun: true, troubles }));
        }
        while self.waiting.front().is_some_and(|waiting| is_over(waiting.since.max(moving))) {
            let waiting = self.waiting.pop_front().expect("it was there a moment ago");
            self.keys.remove(&waiting.job.key);
            let troubles = self.line.troubles();
            actions.push(Action::Event(SenderEvent::GaveUp { key: waiting.job.key, begun: false, troubles }));
        }
    }

    fn open_session(&mut self, now_us: u64, actions: &mut Actions) {
        let (Phase::Closed { ask_at, refusals }, Some(up)) = (self.phase, self.line.up()) else { return };
        if ask_at > now_us {
            return;
        }
        self.requests += 1;
        let request = RequestId(self.requests);
        self.phase = Phase::Asked { request, at: now_us, refusals };
        let request = ClientRequest::OpenSession { request, sender: self.sender.clone() };
        actions.push(Action::Send { link: up.link, request });
    }

    /// Goes to a better node while nothing is in flight and something waits.
    fn change_node(&mut self, now_us: u64, actions: &mut Actions) {
        if self.line.up().is_none() || !self.flights.is_empty() || self.waiting.is_empty() {
            return;
        }
        if self.session().is_none() {
            return;
        }
        let moves = match self.routing {
            Routing::Home => self.next_receiver().is_some_and(|receiver| self.line.is_astray(now_us, &receiver)),
            Routing::Rotate => self.accepted_here > 0 && self.line.has_other(now_us),
            Routing::Any | Routing::Fixed => false,
        };
        if moves {
            self.line.move_on(now_us, actions);
            self.on_down(now_us);
        }
    }

    /// Sends what credit and window allow: the oldest image first, then new ones.
    fn pump(&mut self, now_us: u64, actions: &mut Actions) {
        let (Some(link), Some(session)) = (self.line.up().map(|up| up.link), self.session()) else { return };
        loop {
            let left = self.credit.saturating_sub(self.spent);
            if let Some(sequence) = self.sendable.first().copied() {
                let flight = self.flights.get_mut(&sequence).expect("sendable are in flight");
                let (offset, length) = flight.next_chunk().expect("sendable have a next chunk");
                if length > left {
                    return;
                }
                flight.on_chunk_sent(now_us);
                let (key, image) = (flight.job.key, ImageId { session, sequence });
                let length = u32::try_from(length).expect("a chunk is smaller than 4 GiB");
                actions.push(Action::Event(SenderEvent::SendChunk { link, key, image, offset, length }));
                self.spent += u64::from(length);
                self.sort(sequence);
            } else if !self.begin_next(now_us, left, actions) {
                return;
            }
        }
    }

    /// Gives the next waiting image its sequence and announces it, if window and credit allow; false if not.
    fn begin_next(&mut self, now_us: u64, left: u64, actions: &mut Actions) -> bool {
        let Some(waiting) = self.waiting.front() else { return false };
        let (key, length) = (waiting.job.key, waiting.job.fingerprint.length);
        if length > self.image_bytes_max {
            self.waiting.pop_front();
            self.keys.remove(&key);
            let text = too_large(length, self.image_bytes_max);
            actions.push(Action::Event(SenderEvent::Refused { key, refusal: Refusal::ImageTooLarge, text }));
            return true;
        }
        let window_left = self.next_sequence.0 - self.low_water().0 < SESSION_WINDOW;
        if !window_left || left < length.min(CHUNK_BYTES_MAX as u64) {
            return false;
        }
        let waiting = self.waiting.pop_front().expect("it was there a moment ago");
        let sequence = self.next_sequence;
        self.next_sequence = Sequence(sequence.0 + 1);
        self.keys.insert(key, Some(sequence));
        self.flights.insert(sequence, Flight::new(waiting.job, now_us));
        self.sort(sequence);
        if let Some(session) = self.session() {
            actions.push(Action::Event(SenderEvent::Begun { key, image: ImageId { session, sequence } }));
        }
        self.send_begin(sequence, actions);
        true
    }

    fn begin_again(&mut self, now_us: u64, sequence: Sequence, actions: &mut Actions) {
        let flight = self.flights.get_mut(&sequence).expect("the caller found it in flight");
        flight.become_stage(Stage::Asking, now_us);
        self.sort(sequence);
        self.send_begin(sequence, actions);
    }

    fn send_begin(&self, sequence: Sequence, actions: &mut Actions) {
        let (Some(up), Some(session)) = (self.line.up(), self.session()) else { return };
        let job = &self.flights[&sequence].job;
        let begin = Begin {
            cluster: self.line.cluster(),
            image: ImageId { session, sequence },
            low_water: self.low_water(),
            receivers: job.receivers.clone(),
            fingerprint: job.fingerprint,
            name: job.name.clone(),
        };
        actions.push(Action::Send { link: up.link, request: ClientRequest::Begin(begin) });
    }

    fn leave(&mut self, now_us: u64, actions: &mut Actions) {
        self.line.leave(now_us, actions);
        self.on_down(now_us);
    }

    fn fail(&mut self, failure: SessionFailure, actions: &mut Actions) {
        self.line.stop(actions);
        self.phase = Phase::Failed;
        let troubles = self.line.troubles();
        let flights = std::mem::take(&mut self.flights).into_values().map(|flight| (flight.job.key, true));
        let waiting = std::mem::take(&mut self.waiting).into_iter().map(|waiting| (waiting.job.key, false));
        for (key, begun) in flights.chain(waiting) {
            actions.push(Action::Event(SenderEvent::GaveUp { key, begun, troubles: troubles.clone() }));
        }
        self.keys.clear();
        self.sendable.clear();
        actions.push(Action::Event(SenderEvent::Failed(failure)));
    }

    fn finish_image(&mut self, image: ImageId) -> Option<Flight> {
        if self.session() != Some(image.session) {
            return None;
        }
        self.finish(image.sequence)
    }

    fn finish(&mut self, sequence: Sequence) -> Option<Flight> {
        let flight = self.flights.remove(&sequence)?;
        self.sendable.remove(&sequence);
        self.keys.remove(&flight.job.key);
        Some(flight)
    }

    /// Puts an image where it belongs in `sendable`.
    fn sort(&mut self, sequence: Sequence) {
        let has_next = self.flights.get(&sequence).is_some_and(|flight| flight.next_chunk().is_some());
        if has_next {
            self.sendable.insert(sequence);
        } else {
            self.sendable.remove(&sequence);
        }
    }

    fn schedule(&mut self, now_us: u64) {
        let idle = self.keys.is_empty() && matches!(self.phase, Phase::Open(_));
        if idle {
            self.tick_at = u64::MAX;
        } else if self.tick_at == u64::MAX || self.tick_at <= now_us {
            self.tick_at = now_us + SENDER_TICK_US;
        }
    }

    fn low_water(&self) -> Sequence {
        low_water(self.flights.keys(), self.next_sequence)
    }

    /// The first receiver of the oldest unfinished image, if the routing asks for its home.
    fn next_receiver(&self) -> Option<String> {
        if self.routing != Routing::Home {
            return None;
        }
        let oldest = self.flights.values().next().map(|flight| &flight.job);
        let job = oldest.or_else(|| self.waiting.front().map(|waiting| &waiting.job))?;
        job.receivers.first().cloned()
    }
}

/// Why an image of that length is refused.
pub(crate) fn too_large(length: u64, image_bytes_max: u64) -> String {
    format!("the image has {length} bytes, this cluster takes up to {image_bytes_max}")
}

/// What no cluster would take: found here, so that it is said at once.
fn job_fault(job: &ImageJob) -> Option<(Refusal, String)> {
    if job.fingerprint.length == 0 {
        return Some((Refusal::ImageEmpty, "the image has no bytes".to_owned()));
    }
    if job.receivers.is_empty() || job.receivers.len() > RECEIVERS_MAX {
        let text = format!("{} receivers, an image has 1 to {RECEIVERS_MAX}", job.receivers.len());
        return Some((Refusal::BadRequest, text));
    }
    for (position, receiver) in job.receivers.iter().enumerate() {
        if let Err(error) = check_name(receiver) {
            return Some((Refusal::NameInvalid, format!("receiver {receiver:?}: {error}")));
        }
        if job.receivers[..position].contains(receiver) {
            return Some((Refusal::BadRequest, format!("receiver {receiver:?} is named twice")));
        }
    }
    check_file_name(&job.name).err().map(|error| (Refusal::NameInvalid, format!("file name {:?}: {error}", job.name)))
}

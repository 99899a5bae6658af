//! The blocking sender.
//!
//! One thread drives the session and writes; one thread a connection reads. The user's thread reads an image once for its
//! checksum (`submit`), the driving thread reads it again, a chunk at a time, when credit allows: 1 MiB of memory a sender,
//! however large the images.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use proto::checksum::crc32;
use proto::client::{ChunkHead, ClientRequest};
use proto::error::Refusal;
use proto::ids::{Fingerprint, Holder, ImageId, LogIndex, SessionId};
use proto::limits::CHUNK_BYTES_MAX;

use crate::error::{ClientError, SendError};
use crate::file_name::file_hint;
use crate::limits::{READ_AHEAD_FRAMES_MAX, SHELL_IMAGES_MAX};
use crate::sender::{ImageJob, SenderEvent, SenderInput, SenderSession, too_large};
use crate::session::{Action, Key, LinkId, LinkInput, SessionFailure};
use crate::shell::options::Options;
use crate::shell::source::{FileSource, ImageSource, MemorySource, read_through};
use crate::shell::wire::{Told, Wire};
use crate::troubles::Troubles;

/// Proof of promise P1 for one image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The image's id.
    pub image: ImageId,
    /// Length and checksum.
    pub fingerprint: Fingerprint,
    /// The log record that made it accepted.
    pub index: LogIndex,
    /// Who has the bytes.
    pub holders: Vec<Holder>,
    /// From handing it over to the answer.
    pub elapsed: Duration,
}

/// An image under way. Dropping it does not stop the image.
#[derive(Debug)]
pub struct PendingImage {
    slot: Arc<Slot>,
    length: u64,
}

impl PendingImage {
    /// Waits until the image is accepted or not.
    pub fn wait(self) -> Result<Receipt, SendError> {
        self.wait_with(|_, _| {})
    }

    /// As `wait`, and calls `on_progress` with (durable bytes, all bytes) whenever it changed.
    pub fn wait_with(self, mut on_progress: impl FnMut(u64, u64)) -> Result<Receipt, SendError> {
        let mut told = None;
        loop {
            let mut state = self.slot.lock();
            while state.outcome.is_none() && told == Some(state.durable_end) {
                state = self.slot.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let (outcome, durable_end) = (state.outcome.take(), state.durable_end);
            drop(state);
            if told != Some(durable_end) {
                told = Some(durable_end);
                on_progress(durable_end, self.length);
            }
            if let Some(outcome) = outcome {
                return outcome;
            }
        }
    }

    /// The outcome, if there is one; it is given once.
    pub fn poll(&self) -> Option<Result<Receipt, SendError>> {
        self.slot.lock().outcome.take()
    }

    /// Durable bytes so far, as last reported by the cluster.
    pub fn durable_end(&self) -> u64 {
        self.slot.lock().durable_end
    }
}

/// A sender: one session, driven by a thread of its own. Dropping it ends the connection; what was not accepted by then
/// is not waited for. May be shared by threads.
#[derive(Debug)]
pub struct Sender {
    session: SessionId,
    teller: SyncSender<Told<Command>>,
    shared: Arc<Shared>,
    key_last: AtomicU64,
    thread: Option<JoinHandle<()>>,
}

impl Sender {
    /// Connects and opens a session for `sender`, or says why not. Waits until the options' deadline.
    pub fn connect(options: Options, sender: &str) -> Result<Sender, ClientError> {
        let session = SenderSession::new(options.session()?, sender)
            .map_err(|reason| ClientError::NameInvalid { name: sender.to_owned(), reason })?;
        let wire = Wire::new();
        let teller = wire.teller();
        let shared = Arc::new(Shared::default());
        let deadline_seconds = options.deadline_seconds();
        let driver = Driver {
            wire,
            session,
            shared: shared.clone(),
            running: BTreeMap::new(),
            buffer: Vec::new(),
            actions: Vec::new(),
            failure: None,
            deadline_seconds,
        };
        let thread = std::thread::Builder::new()
            .name("heliograph-sender".to_owned())
            .spawn(move || driver.run())
            .map_err(|_| ClientError::ThreadEnded)?;
        let mut sender =
            Sender { session: SessionId(0), teller, shared, key_last: AtomicU64::new(0), thread: Some(thread) };
        sender.session = sender.shared.wait_opened(options.deadline, deadline_seconds)?;
        Ok(sender)
    }

    /// The session's id.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Sends a file and waits until it is accepted; `on_progress` is told (durable bytes, all bytes).
    pub fn send_file(
        &self,
        path: &Path,
        receivers: &[String],
        on_progress: impl FnMut(u64, u64),
    ) -> Result<Receipt, SendError> {
        let name = path.display().to_string();
        let source = FileSource::open(path).map_err(|error| SendError::Source { name, error })?;
        self.submit(Arc::new(source), &file_hint(path), receivers)?.wait_with(on_progress)
    }

    /// Sends bytes under a file name and waits until they are accepted.
    pub fn send_bytes(&self, bytes: Vec<u8>, name: &str, receivers: &[String]) -> Result<Receipt, SendError> {
        self.submit(Arc::new(MemorySource(Arc::new(bytes))), name, receivers)?.wait()
    }

    /// Hands an image over and returns at once (after reading it once for its checksum): many may be under way. One that is
    /// larger than the cluster takes is not read.
    /// Waits only while `SHELL_IMAGES_MAX` are. That the source changes in between is noticed.
    pub fn submit(
        &self,
        source: Arc<dyn ImageSource>,
        name: &str,
        receivers: &[String],
    ) -> Result<PendingImage, SendError> {
        self.check_length(source.length())?;
        let reading = read_through(&*source).map_err(|error| source_error(name, error))?;
        self.hand_over(source, reading.fingerprint, Some(reading.chunks), name, receivers)
    }

    /// As `submit`, for a source whose fingerprint is known: it is not read an additional time.
    pub fn submit_known(
        &self,
        source: Arc<dyn ImageSource>,
        fingerprint: Fingerprint,
        name: &str,
        receivers: &[String],
    ) -> Result<PendingImage, SendError> {
        self.hand_over(source, fingerprint, None, name, receivers)
    }

    /// Largest image that the cluster takes.
    pub fn image_bytes_max(&self) -> u64 {
        self.shared.lock().image_bytes_max
    }

    fn check_length(&self, length: u64) -> Result<(), SendError> {
        let image_bytes_max = self.image_bytes_max();
        if length <= image_bytes_max {
            return Ok(());
        }
        let text = too_large(length, image_bytes_max);
        Err(SendError::Refused { refusal: Refusal::ImageTooLarge, text })
    }

    fn hand_over(
        &self,
        source: Arc<dyn ImageSource>,
        fingerprint: Fingerprint,
        chunks: Option<Vec<u32>>,
        name: &str,
        receivers: &[String],
    ) -> Result<PendingImage, SendError> {
        self.shared.take_room()?;
        let key = Key(self.key_last.fetch_add(1, Ordering::Relaxed) + 1);
        let slot = Arc::new(Slot { state: Mutex::default(), changed: Condvar::new() });
        let job = ImageJob { key, receivers: receivers.to_vec(), fingerprint, name: name.to_owned() };
        let image =
            Image { source, chunks, name: name.to_owned(), fingerprint, since: Instant::now(), slot: slot.clone() };
        match self.teller.send(Told::Command(Command::Submit(job, image))) {
            Ok(()) => Ok(PendingImage { slot, length: fingerprint.length }),
            Err(_) => Err(self.shared.end_error().into()),
        }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // A driver that has ended needs no telling.
        let _ = self.teller.send(Told::Command(Command::Stop));
        if let Some(thread) = self.thread.take() {
            // A panic of the driver was told to every image by `Driver::drop`.
            let _ = thread.join();
        }
    }
}

#[derive(Debug)]
enum Command {
    Submit(ImageJob, Image),
    Stop,
}

/// What the driver keeps of an image until its outcome.
struct Image {
    source: Arc<dyn ImageSource>,
    chunks: Option<Vec<u32>>, // CRC-32 of each, from the first reading
    name: String,
    fingerprint: Fingerprint,
    since: Instant,
    slot: Arc<Slot>,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image").field("name", &self.name).field("fingerprint", &self.fingerprint).finish()
    }
}

impl Drop for Image {
    /// Nobody waits for ever, wherever the image was when its sender ended.
    fn drop(&mut self) {
        self.slot.finish(Err(ClientError::Closed.into()));
    }
}

/// Where an image's news meet the one who waits for them.
#[derive(Debug)]
struct Slot {
    state: Mutex<SlotState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct SlotState {
    durable_end: u64,
    done: bool,
    outcome: Option<Result<Receipt, SendError>>,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, SlotState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first outcome counts.
    fn finish(&self, outcome: Result<Receipt, SendError>) {
        let mut state = self.lock();
        if !state.done {
            (state.done, state.outcome) = (true, Some(outcome));
            self.changed.notify_all();
        }
    }
}

/// What the sender's user and its thread share.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<SharedState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct SharedState {
    opened: Option<SessionId>,
    under_way: usize, // <= SHELL_IMAGES_MAX
    troubles: Troubles,
    image_bytes_max: u64, // since it was opened
    failure: Option<SessionFailure>,
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, SharedState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut SharedState)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn wait_opened(&self, deadline: Option<Duration>, seconds: u64) -> Result<SessionId, ClientError> {
        let until = deadline.and_then(|deadline| Instant::now().checked_add(deadline));
        let mut state = self.lock();
        loop {
            if let Some(session) = state.opened {
                return Ok(session);
            }
            if state.ended || state.failure.is_some() {
                return Err(end_of(&state));
            }
            let wait = until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
            if wait.is_zero() {
                return Err(ClientError::TimedOut {
                    what: "opening a session",
                    seconds,
                    troubles: state.troubles.clone(),
                });
            }
            let wait = wait.min(Duration::from_secs(3600));
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn take_room(&self) -> Result<(), ClientError> {
        let mut state = self.lock();
        while state.under_way >= SHELL_IMAGES_MAX && !state.ended {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.ended || state.failure.is_some() {
            return Err(end_of(&state));
        }
        state.under_way += 1;
        Ok(())
    }

    fn end_error(&self) -> ClientError {
        end_of(&self.lock())
    }
}

fn end_of(state: &SharedState) -> ClientError {
    match &state.failure {
        Some(failure) => ClientError::Session(failure.clone()),
        None => ClientError::ThreadEnded,
    }
}

/// The thread of a sender.
struct Driver {
    wire: Wire<Command>,
    session: SenderSession,
    shared: Arc<Shared>,
    running: BTreeMap<Key, Image>,
    buffer: Vec<u8>,
    actions: Vec<Action<SenderEvent>>,
    failure: Option<SessionFailure>,
    deadline_seconds: u64,
}

impl Driver {
    fn run(mut self) {
        self.step(SenderInput::Start);
        while self.failure.is_none() {
            let mut told = self.wire.listen(self.session.wake_at(), None);
            if told.is_none() {
                self.step(SenderInput::Tick);
            }
            // What is at hand already is taken together, so that its answers leave together.
            let mut taken = 0;
            while let Some(next) = told.take() {
                if !self.on_told(next) {
                    return;
                }
                taken += 1;
                if taken < READ_AHEAD_FRAMES_MAX {
                    told = self.wire.listen_now();
                }
            }
            self.end_turn();
        }
    }

    /// False when the user wants no more.
    fn on_told(&mut self, told: Told<Command>) -> bool {
        match told {
            Told::Opened { link, writer, welcome } => {
                if let Some(input) = self.wire.on_opened(link, writer, welcome) {
                    self.step(SenderInput::Link(input));
                }
            }
            Told::Frame { link, reply, body, facts } => {
                self.step(SenderInput::Link(LinkInput::Reply { link, reply, body: facts }));
                self.wire.recycle(body);
            }
            Told::Link(input) => self.step(SenderInput::Link(input)),
            Told::Command(Command::Submit(job, image)) => {
                self.running.insert(job.key, image);
                self.step(SenderInput::Submit(job));
            }
            Told::Command(Command::Stop) => return false,
        }
        true
    }

    fn end_turn(&mut self) {
        self.wire.flush();
        if self.session.session().is_none() {
            self.shared.lock().troubles = self.session.troubles();
        }
    }

    fn step(&mut self, input: SenderInput) {
        let mut actions = std::mem::take(&mut self.actions);
        self.session.step(self.wire.now_us(), input, &mut actions);
        // The reason why all images end comes last; they want to know it.
        if let Some(Action::Event(SenderEvent::Failed(failure))) = actions.last() {
            self.failure = Some(failure.clone());
            self.shared.change(|state| state.failure = Some(failure.clone()));
        }
        let mut withdrawn = Vec::new();
        for action in actions.drain(..) {
            match action {
                Action::Connect { link, address, target, cluster } => self.wire.connect(link, address, target, cluster),
                Action::Close { link } => self.wire.close(link),
                Action::Send { link, request } => self.wire.send(link, &request, &[]),
                Action::Event(SenderEvent::SendChunk { link, key, image, offset, length }) => {
                    if let Err(error) = self.send_chunk(link, key, image, offset, length) {
                        self.finish(key, Err(error));
                        withdrawn.push(key);
                    }
                }
                Action::Event(event) => self.on_event(event),
            }
        }
        self.actions = actions;
        for key in withdrawn {
            self.step(SenderInput::Withdraw(key));
        }
    }

    fn send_chunk(
        &mut self,
        link: LinkId,
        key: Key,
        image: ImageId,
        offset: u64,
        length: u32,
    ) -> Result<(), SendError> {
        // An image whose source failed a moment ago, in the same turn.
        let Some(running) = self.running.get(&key) else { return Ok(()) };
        self.buffer.resize(length as usize, 0);
        running.source.read_at(offset, &mut self.buffer).map_err(|error| source_error(&running.name, error))?;
        let crc32 = crc32(&self.buffer);
        let number = (offset / CHUNK_BYTES_MAX as u64) as usize;
        if running.chunks.as_ref().is_some_and(|chunks| chunks.get(number) != Some(&crc32)) {
            return Err(SendError::SourceChanged { name: running.name.clone() });
        }
        let head = ChunkHead { image, offset, crc32 };
        self.wire.send(link, &ClientRequest::Chunk(head), &self.buffer);
        Ok(())
    }

    fn on_event(&mut self, event: SenderEvent) {
        match event {
            SenderEvent::SendChunk { .. } | SenderEvent::Begun { .. } => {}
            SenderEvent::SessionOpened { session } => {
                tracing::debug!(%session, "session opened");
                let image_bytes_max = self.session.image_bytes_max();
                self.shared.change(|state| (state.opened, state.image_bytes_max) = (Some(session), image_bytes_max));
            }
            SenderEvent::Progress { key, durable_end } => {
                if let Some(image) = self.running.get(&key) {
                    image.slot.lock().durable_end = durable_end;
                    image.slot.changed.notify_all();
                }
            }
            SenderEvent::Accepted { key, image, index, holders } => {
                let Some(running) = self.running.get(&key) else { return };
                let (fingerprint, elapsed) = (running.fingerprint, running.since.elapsed());
                running.slot.lock().durable_end = fingerprint.length;
                self.finish(key, Ok(Receipt { image, fingerprint, index, holders, elapsed }));
            }
            SenderEvent::Refused { key, refusal, text } => self.finish(key, Err(SendError::Refused { refusal, text })),
            SenderEvent::GaveUp { key, begun, troubles } => {
                let error = match &self.failure {
                    Some(failure) => ClientError::Session(failure.clone()).into(),
                    None => SendError::Unconfirmed { begun, seconds: self.deadline_seconds, troubles },
                };
                self.finish(key, Err(error));
            }
            SenderEvent::Failed(failure) => tracing::debug!(?failure, "session ended"),
        }
    }

    fn finish(&mut self, key: Key, outcome: Result<Receipt, SendError>) {
        let Some(image) = self.running.remove(&key) else { return };
        self.shared.change(|state| state.under_way -= 1);
        image.slot.finish(outcome);
    }
}

impl Drop for Driver {
    /// Nobody waits for ever, however the thread ended.
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        self.shared.change(|state| state.ended = true);
        // Submissions that were on their way when the session ended.
        while let Some(told) = self.wire.listen_now() {
            if let Told::Command(Command::Submit(job, image)) = told {
                self.running.insert(job.key, image);
            }
        }
        for (_, image) in std::mem::take(&mut self.running) {
            let error = match &self.failure {
                Some(failure) => ClientError::Session(failure.clone()),
                None if panicking => ClientError::ThreadEnded,
                None => ClientError::Closed,
            };
            image.slot.finish(Err(error.into()));
        }
    }
}

fn source_error(name: &str, error: std::io::Error) -> SendError {
    match error.kind() {
        ErrorKind::UnexpectedEof => SendError::SourceChanged { name: name.to_owned() },
        _ => SendError::Source { name: name.to_owned(), error },
    }
}

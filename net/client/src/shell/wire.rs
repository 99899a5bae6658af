//! Carries out what a pure session asks of its connection, with std sockets and one thread per connection.
//!
//! The thread of a link dials, shakes hands and then reads; what it has goes through one bounded channel to the thread
//! that drives the session, which alone writes. A link that was closed may still say something: the session knows by
//! the link's number that it is old.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use proto::checksum::crc64;
use proto::client::{ClientReply, ClientRequest, Target};
use proto::ids::ClusterId;

use crate::limits::{BODIES_SPARE_MAX, CONNECT_US_MAX, READ_AHEAD_FRAMES_MAX};
use crate::session::{BodyFacts, ConnectFailure, LinkId, LinkInput, Welcome};
use crate::shell::connection::{Connection, FrameReader, FrameWriter};

/// What the driver of a session is told: by its links, or by its user.
#[derive(Debug)]
pub(crate) enum Told<C> {
    Opened { link: LinkId, writer: FrameWriter, welcome: Box<Welcome> },
    Frame { link: LinkId, reply: ClientReply, body: Vec<u8>, facts: Option<BodyFacts> },
    Link(LinkInput),
    Command(C),
}

/// Body buffers that are used again, so that each chunk does not cost fresh pages.
type Spare = Arc<Mutex<Vec<Vec<u8>>>>;

/// The connection of one session.
#[derive(Debug)]
pub(crate) struct Wire<C> {
    started: Instant,
    told: Receiver<Told<C>>,
    teller: SyncSender<Told<C>>,
    spare: Spare,
    open: Option<(LinkId, FrameWriter)>,
    dialing: Option<LinkId>,
    broken: Option<LinkInput>, // a failed write, to be told to the session
}

impl<C: Send + 'static> Wire<C> {
    pub(crate) fn new() -> Wire<C> {
        let (teller, told) = sync_channel(READ_AHEAD_FRAMES_MAX);
        let spare = Arc::new(Mutex::new(Vec::new()));
        Wire { started: Instant::now(), told, teller, spare, open: None, dialing: None, broken: None }
    }

    /// Where commands go in.
    pub(crate) fn teller(&self) -> SyncSender<Told<C>> {
        self.teller.clone()
    }

    pub(crate) fn now_us(&self) -> u64 {
        self.started.elapsed().as_micros() as u64
    }

    /// The next thing told, waiting no longer than to `wake_at` (of `now_us`) or `until`.
    pub(crate) fn listen(&mut self, wake_at: Option<u64>, until: Option<Instant>) -> Option<Told<C>> {
        if let Some(broken) = self.broken.take() {
            return Some(Told::Link(broken));
        }
        let now = Instant::now();
        let wake_at = wake_at.and_then(|wake_at| self.started.checked_add(Duration::from_micros(wake_at)));
        let due = [wake_at, until].into_iter().flatten().min();
        let wait = due.map_or(LISTEN_MAX, |due| due.saturating_duration_since(now).min(LISTEN_MAX));
        match self.told.recv_timeout(wait) {
            Ok(told) => Some(told),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => unreachable!("the wire holds a teller itself"),
        }
    }

    /// The next thing told, if there is one at once.
    pub(crate) fn listen_now(&mut self) -> Option<Told<C>> {
        if let Some(broken) = self.broken.take() {
            return Some(Told::Link(broken));
        }
        match self.told.try_recv() {
            Ok(told) => Some(told),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => unreachable!("the wire holds a teller itself"),
        }
    }

    /// Takes over the writer of a new link; what the session is to be told. `None` if it was closed meanwhile.
    pub(crate) fn on_opened(&mut self, link: LinkId, writer: FrameWriter, welcome: Box<Welcome>) -> Option<LinkInput> {
        if self.dialing != Some(link) {
            writer.shut_down();
            return None;
        }
        self.dialing = None;
        self.open = Some((link, writer));
        Some(LinkInput::Connected { link, welcome })
    }

    pub(crate) fn connect(&mut self, link: LinkId, address: String, target: Target, cluster: ClusterId) {
        self.dialing = Some(link);
        let (teller, spare) = (self.teller.clone(), self.spare.clone());
        let run = move || run_link(link, &address, target, cluster, &teller, &spare);
        if let Err(error) = thread::Builder::new().name("heliograph-link".to_owned()).spawn(run) {
            let failure = ConnectFailure::Unreachable { text: format!("no thread for the connection: {error}") };
            self.broken = Some(LinkInput::ConnectFailed { link, failure });
        }
    }

    pub(crate) fn close(&mut self, link: LinkId) {
        if self.dialing == Some(link) {
            self.dialing = None;
        }
        if let Some((_, writer)) = self.open.take_if(|(open, _)| *open == link) {
            // What was said before (an acknowledgement) still leaves, if it can.
            let mut writer = writer;
            let _ = writer.flush();
            writer.shut_down();
        }
    }

    pub(crate) fn send(&mut self, link: LinkId, request: &ClientRequest, body: &[u8]) {
        self.write(link, |writer| writer.send(request, body));
    }

    /// Sends what is buffered.
    pub(crate) fn flush(&mut self) {
        if let Some(link) = self.open.as_ref().map(|(link, _)| *link) {
            self.write(link, FrameWriter::flush);
        }
    }

    /// Gives a body buffer back.
    pub(crate) fn recycle(&self, body: Vec<u8>) {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if body.capacity() > 0 && spare.len() < BODIES_SPARE_MAX {
            spare.push(body);
        }
    }

    fn write(&mut self, link: LinkId, write: impl FnOnce(&mut FrameWriter) -> io::Result<()>) {
        let Some((_, writer)) = self.open.as_mut().filter(|(open, _)| *open == link) else { return };
        if let Err(error) = write(writer) {
            writer.shut_down();
            self.open = None;
            self.broken = Some(LinkInput::Disconnected { link, text: error.to_string() });
        }
    }
}

/// So that no clock mistake can make a driver sleep for ever.
const LISTEN_MAX: Duration = Duration::from_secs(1);

impl<C> Drop for Wire<C> {
    fn drop(&mut self) {
        if let Some((_, writer)) = &mut self.open {
            let _ = writer.flush();
            writer.shut_down();
        }
    }
}

fn run_link<C>(
    link: LinkId,
    address: &str,
    target: Target,
    cluster: ClusterId,
    teller: &SyncSender<Told<C>>,
    spare: &Spare,
) {
    match Connection::open(address, target, cluster, Duration::from_micros(CONNECT_US_MAX)) {
        Ok((connection, welcome)) => {
            let (reader, writer) = connection.split();
            if teller.send(Told::Opened { link, writer, welcome: Box::new(welcome) }).is_ok() {
                let error = read_link(link, reader, teller, spare);
                // A driver that is gone need not know.
                let _ = teller.send(Told::Link(LinkInput::Disconnected { link, text: error.to_string() }));
            }
        }
        Err(failure) => {
            let _ = teller.send(Told::Link(LinkInput::ConnectFailed { link, failure }));
        }
    }
}

/// Reads frames until the connection ends, and says why it did.
fn read_link<C>(link: LinkId, mut reader: FrameReader, teller: &SyncSender<Told<C>>, spare: &Spare) -> io::Error {
    let mut body = Vec::new();
    loop {
        let reply = match reader.receive(&mut body, None) {
            Ok(Some(reply)) => reply,
            Ok(None) => continue,
            Err(error) => return error,
        };
        let mut facts = None;
        let mut taken = Vec::new();
        if !body.is_empty() {
            facts = Some(BodyFacts { length: body.len() as u64, crc64: crc64(&body) });
            let next = spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
            taken = std::mem::replace(&mut body, next);
        }
        if teller.send(Told::Frame { link, reply, body: taken, facts }).is_err() {
            return io::Error::other("the session has ended");
        }
    }
}

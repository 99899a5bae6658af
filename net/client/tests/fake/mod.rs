//! A scripted cluster on loopback: several listeners, one state, and faults on demand. It keeps the client protocol as a
//! node does, so that what the shells do is seen on real sockets.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use proto::checksum::{crc32, crc64};
use proto::client::{Begin, ClientReply, ClientRequest, ImageHead, NodeStatus};
use proto::codec::{Encoder, decode_client_request, encode_client_reply};
use proto::error::Refusal;
use proto::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameLimits};
use proto::ids::{
    Address, ClusterId, CoreId, Holder, ImageId, InboxId, InboxSeq, Incarnation, LogIndex, NodeId, RingEpoch, SessionId,
};
use proto::limits::{CHUNK_BYTES_MAX, UPLOAD_CREDIT_BYTES};
use proto::ring::{Member, Ring};

pub const CLUSTER: ClusterId = ClusterId(0xfa4e);

/// What goes wrong next; each entry once.
#[derive(Debug, Default)]
pub struct Faults {
    /// Cuts the connection after so many body bytes of an upload, in the middle of a chunk.
    pub cut_uploads: VecDeque<u64>,
    /// Cuts the connection after so many chunks of a delivery.
    pub cut_deliveries: VecDeque<u64>,
    /// Answers to the next `Begin`s.
    pub refusals: VecDeque<Refusal>,
    /// Flips a byte of so many delivered chunks, with a checksum that fits.
    pub corrupt_chunks: u32,
    /// Leaves so many uploads complete without an answer.
    pub silent_accepts: u32,
    /// So many acknowledgements are not heard.
    pub lost_acks: u32,
    /// Refuses so many probes as busy.
    pub busy_probes: u32,
    /// Nodes that refuse connections at the greeting.
    pub not_ready: Vec<u64>,
}

#[derive(Debug)]
struct Upload {
    begin: Begin,
    bytes: Vec<u8>,
    accepted: Option<LogIndex>,
}

#[derive(Debug, Default)]
struct InboxState {
    images: Vec<(ImageHead, Arc<Vec<u8>>)>,
    acked: u64,
    reader: u64, // the newest connection that opened it
}

#[derive(Debug, Default)]
struct State {
    faults: Faults,
    index: u64,
    sessions: BTreeMap<SessionId, String>,
    uploads: BTreeMap<ImageId, Upload>,
    names: BTreeMap<String, InboxId>,
    inboxes: BTreeMap<InboxId, InboxState>,
    ring: Ring,
    connections: Vec<(u64, TcpStream)>,
    connection_last: u64,
    begins: Vec<Begin>,
    hellos: Vec<u64>,
    body_bytes: u64,
    stopped: bool,
}

struct World {
    state: Mutex<State>,
    changed: Condvar,
}

impl World {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

/// The cluster; stops when dropped.
pub struct Fake {
    world: Arc<World>,
    threads: Vec<JoinHandle<()>>,
    pub addresses: Vec<String>,
}

impl Fake {
    pub fn start(nodes: u64) -> Fake {
        let world = Arc::new(World { state: Mutex::default(), changed: Condvar::new() });
        let listeners: Vec<TcpListener> = (0..nodes).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<String> = listeners.iter().map(|l| l.local_addr().unwrap().to_string()).collect();
        let mut fake = Fake { world: world.clone(), threads: Vec::new(), addresses };
        world.lock().ring = fake.ring(1, &[]);
        let threads = listeners.into_iter().zip(1..).map(|(listener, node)| {
            let world = world.clone();
            std::thread::spawn(move || listen(&listener, node, &world))
        });
        fake.threads = threads.collect();
        fake
    }

    pub fn ring(&self, epoch: u64, down: &[u64]) -> Ring {
        let members = self.addresses.iter().zip(1..).map(|(address, node)| Member {
            node: NodeId(node),
            incarnation: Incarnation(1),
            cores: 1,
            up: !down.contains(&node),
            voter: true,
            client_address: address.clone(),
            peer_address: String::new(),
        });
        Ring::new(RingEpoch(epoch), members.collect())
    }

    pub fn faults(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.world.lock().faults);
    }

    /// The ring changes, and every receiver whose home moved is sent elsewhere.
    pub fn change_ring(&self, epoch: u64, down: &[u64]) {
        self.world.lock().ring = self.ring(epoch, down);
        self.world.changed.notify_all();
    }

    pub fn register(&self, name: &str) -> InboxId {
        register(&mut self.world.lock(), name)
    }

    /// Puts an image into the inbox of `name` as if it had been sent.
    pub fn deliver(&self, name: &str, file_name: &str, bytes: Vec<u8>) {
        let mut state = self.world.lock();
        let fingerprint = proto::ids::Fingerprint { length: bytes.len() as u64, checksum: crc64(&bytes) };
        let inbox = register(&mut state, name);
        let image = ImageId { session: SessionId(1), sequence: proto::ids::Sequence(1) };
        push(&mut state, inbox, image, fingerprint, "other", file_name, Arc::new(bytes));
        self.world.changed.notify_all();
    }

    pub fn forget_sessions(&self) {
        self.world.lock().sessions.clear();
    }

    pub fn acked(&self, name: &str) -> u64 {
        let state = self.world.lock();
        state.inboxes[&state.names[name]].acked
    }

    /// Images in the inbox of `name`, acknowledged ones included.
    pub fn images(&self, name: &str) -> Vec<Arc<Vec<u8>>> {
        let state = self.world.lock();
        state.inboxes[&state.names[name]].images.iter().map(|(_, bytes)| bytes.clone()).collect()
    }

    pub fn begins(&self) -> Vec<Begin> {
        self.world.lock().begins.clone()
    }

    /// Which nodes were greeted, in order.
    pub fn hellos(&self) -> Vec<u64> {
        self.world.lock().hellos.clone()
    }

    pub fn body_bytes(&self) -> u64 {
        self.world.lock().body_bytes
    }

    pub fn cut_all(&self) {
        for (_, stream) in self.world.lock().connections.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.world.lock().stopped = true;
        self.cut_all();
        self.world.changed.notify_all();
        for address in &self.addresses {
            let _ = TcpStream::connect(address); // Wakes the listener.
        }
        for thread in self.threads.drain(..) {
            let outcome = thread.join();
            assert!(outcome.is_ok() || std::thread::panicking(), "a thread of the fake cluster panicked");
        }
    }
}

fn listen(listener: &TcpListener, node: u64, world: &Arc<World>) {
    let mut threads = Vec::new();
    loop {
        let (stream, _) = listener.accept().unwrap();
        let mut state = world.lock();
        if state.stopped {
            break;
        }
        state.connection_last += 1;
        let number = state.connection_last;
        state.connections.push((number, stream.try_clone().unwrap()));
        drop(state);
        let world = world.clone();
        threads.push(std::thread::spawn(move || {
            let mut connection = Connection::new(stream, node, number, world);
            // The end of a connection is no failure of the fake.
            let _ = connection.run();
            connection.end();
        }));
    }
    for thread in threads {
        thread.join().unwrap();
    }
}

struct Connection {
    stream: TcpStream,
    out: Arc<Mutex<Out>>,
    node: u64,
    number: u64,
    world: Arc<World>,
    credit: u64,
    received: u64,
    cut_at: Option<u64>,
    pusher: Option<JoinHandle<()>>,
    inbox_credit: Arc<Mutex<u64>>,
}

struct Out {
    stream: TcpStream,
    encoder: Encoder,
}

impl Out {
    fn say(&mut self, reply: &ClientReply, body: &[u8]) -> io::Result<()> {
        let mut bytes = Vec::new();
        encode_client_reply(&mut self.encoder, reply, body.len(), &mut bytes);
        bytes.extend_from_slice(body);
        self.stream.write_all(&bytes)
    }
}

impl Connection {
    fn new(stream: TcpStream, node: u64, number: u64, world: Arc<World>) -> Connection {
        let out = Out { stream: stream.try_clone().unwrap(), encoder: Encoder::new() };
        Connection {
            stream,
            out: Arc::new(Mutex::new(out)),
            node,
            number,
            world,
            credit: UPLOAD_CREDIT_BYTES,
            received: 0,
            cut_at: None,
            pusher: None,
            inbox_credit: Arc::default(),
        }
    }

    fn end(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        self.world.lock().connections.retain(|(number, _)| *number != self.number);
        // A pusher that waits sees that its connection is gone.
        self.world.changed.notify_all();
        if let Some(pusher) = self.pusher.take() {
            pusher.join().unwrap();
        }
    }

    fn say(&self, reply: &ClientReply) -> io::Result<()> {
        self.out.lock().unwrap().say(reply, &[])
    }

    fn run(&mut self) -> io::Result<()> {
        self.cut_at = self.world.lock().faults.cut_uploads.pop_front();
        loop {
            let mut bytes = [0; FRAME_HEADER_BYTES];
            self.stream.read_exact(&mut bytes)?;
            let header = FrameHeader::parse(&bytes, FrameLimits::CLIENT_REQUEST).unwrap();
            let mut meta = vec![0; header.meta_bytes()];
            self.stream.read_exact(&mut meta)?;
            let mut body = vec![0; header.body_bytes()];
            if let Some(at) = self.cut_at.filter(|at| self.received + body.len() as u64 > *at) {
                let part = (at - self.received) as usize;
                self.stream.read_exact(&mut body[..part])?;
                return Ok(());
            }
            self.stream.read_exact(&mut body)?;
            let request = decode_client_request(&header, &meta).unwrap();
            if !body.is_empty() {
                header.check_body(&body).unwrap();
            }
            self.on_request(request, body)?;
        }
    }

    fn on_request(&mut self, request: ClientRequest, body: Vec<u8>) -> io::Result<()> {
        match request {
            ClientRequest::Hello { cluster, .. } => self.on_hello(cluster),
            ClientRequest::Register { request, name } => {
                let inbox = register(&mut self.world.lock(), &name);
                self.say(&ClientReply::Registered { request, inbox })
            }
            ClientRequest::OpenSession { request, sender } => {
                let session = {
                    let mut state = self.world.lock();
                    state.index += 1;
                    let session = SessionId(state.index);
                    state.sessions.insert(session, sender);
                    session
                };
                self.say(&ClientReply::SessionOpened { request, session })
            }
            ClientRequest::Begin(begin) => self.on_begin(begin),
            ClientRequest::Chunk(head) => {
                assert_eq!(head.crc32, crc32(&body));
                assert!(head.offset % CHUNK_BYTES_MAX as u64 == 0, "chunks begin at multiples of their size");
                self.on_chunk(head.image, head.offset, body)
            }
            ClientRequest::OpenInbox { name, credit, .. } => self.on_open_inbox(&name, credit),
            ClientRequest::InboxCredit { credit } => {
                *self.inbox_credit.lock().unwrap() = credit;
                self.world.changed.notify_all();
                Ok(())
            }
            ClientRequest::Ack { inbox, upto } => {
                {
                    let mut state = self.world.lock();
                    if state.faults.lost_acks > 0 {
                        state.faults.lost_acks -= 1;
                        return Ok(());
                    }
                    let inbox = state.inboxes.get_mut(&inbox).unwrap();
                    assert!(upto.0 <= inbox.images.len() as u64, "acknowledged what was not there");
                    inbox.acked = inbox.acked.max(upto.0);
                }
                self.say(&ClientReply::Acked { inbox, upto })
            }
            ClientRequest::Probe { request, .. } => {
                let (index, busy) = {
                    let mut state = self.world.lock();
                    state.index += 1;
                    let busy = state.faults.busy_probes > 0;
                    state.faults.busy_probes = state.faults.busy_probes.saturating_sub(1);
                    (LogIndex(state.index), busy)
                };
                if busy {
                    let (refusal, text) = (Refusal::Busy, String::new());
                    return self.say(&ClientReply::Failure { request: Some(request), refusal, text, ring: None });
                }
                self.say(&ClientReply::ProbeDone { request, index })
            }
            ClientRequest::Status { request } => {
                let applied = LogIndex(self.world.lock().index);
                let status = NodeStatus { node: NodeId(self.node), cluster: CLUSTER, applied, ..NodeStatus::default() };
                self.say(&ClientReply::Status { request, status: Box::new(status) })
            }
            ClientRequest::Ping => self.say(&ClientReply::Pong),
        }
    }

    fn on_hello(&mut self, cluster: ClusterId) -> io::Result<()> {
        let (ring, not_ready) = {
            let mut state = self.world.lock();
            state.hellos.push(self.node);
            (state.ring.clone(), state.faults.not_ready.contains(&self.node))
        };
        let refusal = match () {
            () if cluster != ClusterId::UNKNOWN && cluster != CLUSTER => Refusal::WrongCluster,
            () if not_ready => Refusal::NotReady,
            () => {
                return self.say(&ClientReply::Welcome {
                    version: 1,
                    cluster: CLUSTER,
                    node: NodeId(self.node),
                    core: CoreId(0),
                    ring,
                    image_bytes_max: 64 << 20,
                    credit: self.credit,
                });
            }
        };
        self.say(&ClientReply::Failure { request: None, refusal, text: format!("node {}", self.node), ring: None })?;
        Err(io::ErrorKind::Other.into())
    }

    fn on_begin(&mut self, begin: Begin) -> io::Result<()> {
        let image = begin.image;
        let answer = {
            let mut state = self.world.lock();
            state.begins.push(begin.clone());
            let refusal = if let Some(refusal) = state.faults.refusals.pop_front() {
                Some(refusal)
            } else if !state.sessions.contains_key(&image.session) {
                Some(Refusal::SessionUnknown)
            } else if begin.receivers.iter().any(|name| !state.names.contains_key(name)) {
                Some(Refusal::UnknownReceiver)
            } else {
                None
            };
            if let Some(refusal) = refusal {
                ClientReply::Refused { image, refusal, text: "scripted".to_owned() }
            } else {
                let upload = state.uploads.entry(image).or_insert(Upload {
                    begin: begin.clone(),
                    bytes: Vec::new(),
                    accepted: None,
                });
                assert_eq!(upload.begin.fingerprint, begin.fingerprint, "a retry says the same again");
                match upload.accepted {
                    Some(index) => ClientReply::Accepted { image, index, holders: holders() },
                    None => ClientReply::BeginAnswer { image, resume_from: upload.bytes.len() as u64 },
                }
            }
        };
        self.say(&answer)
    }

    fn on_chunk(&mut self, image: ImageId, offset: u64, body: Vec<u8>) -> io::Result<()> {
        let length = body.len() as u64;
        self.received += length;
        assert!(self.received <= self.credit, "{} bytes of {} permitted", self.received, self.credit);
        self.credit += length;
        self.say(&ClientReply::Credit { credit: self.credit })?;
        let mut state = self.world.lock();
        state.body_bytes += length;
        let Some(upload) = state.uploads.get_mut(&image) else { return Ok(()) }; // It was refused.
        if offset != upload.bytes.len() as u64 || upload.accepted.is_some() {
            return Ok(()); // There already.
        }
        upload.bytes.extend_from_slice(&body);
        let durable_end = upload.bytes.len() as u64;
        let whole = durable_end == upload.begin.fingerprint.length;
        let outcome = whole.then(|| accept(&mut state, image));
        drop(state);
        self.world.changed.notify_all();
        self.say(&ClientReply::Progress { image, durable_end })?;
        match outcome {
            Some(Some(reply)) => self.say(&reply),
            _ => Ok(()),
        }
    }

    fn on_open_inbox(&mut self, name: &str, credit: u64) -> io::Result<()> {
        let mut state = self.world.lock();
        let ring = state.ring.clone();
        let refusal = if ring.home(name).unwrap().node != NodeId(self.node) {
            Some(Refusal::NotHome)
        } else if !state.names.contains_key(name) {
            Some(Refusal::UnknownReceiver)
        } else {
            None
        };
        if let Some(refusal) = refusal {
            drop(state);
            let text = "scripted".to_owned();
            self.say(&ClientReply::Failure { request: None, refusal, text, ring: Some(ring) })?;
            return Err(io::ErrorKind::Other.into());
        }
        let inbox = state.names[name];
        let of_name = state.inboxes.get_mut(&inbox).unwrap();
        of_name.reader = self.number;
        let acked = of_name.acked;
        drop(state);
        self.world.changed.notify_all();
        *self.inbox_credit.lock().unwrap() = credit;
        self.say(&ClientReply::InboxOpened { inbox, acked_upto: InboxSeq(acked) })?;
        let pusher = Pusher {
            out: self.out.clone(),
            world: self.world.clone(),
            inbox,
            name: name.to_owned(),
            node: self.node,
            number: self.number,
            credit: self.inbox_credit.clone(),
            sent: 0,
            next: acked,
        };
        self.pusher = Some(std::thread::spawn(move || {
            // The end of a connection is no failure of the fake.
            let _ = pusher.run();
        }));
        Ok(())
    }
}

/// Pushes the images of one inbox to one connection.
struct Pusher {
    out: Arc<Mutex<Out>>,
    world: Arc<World>,
    inbox: InboxId,
    name: String,
    node: u64,
    number: u64,
    credit: Arc<Mutex<u64>>,
    sent: u64,
    next: u64, // images already sent
}

impl Pusher {
    fn run(mut self) -> io::Result<()> {
        let outcome = self.push_all();
        let _ = self.out.lock().unwrap().stream.shutdown(Shutdown::Both);
        outcome
    }

    /// The state, as soon as `ready` holds; an end if the connection has no business here any more.
    fn wait(&self, ready: impl Fn(&State) -> bool) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.world.lock();
        loop {
            let gone = state.stopped || !state.connections.iter().any(|(number, _)| *number == self.number);
            let superseded = state.inboxes[&self.inbox].reader != self.number;
            let moved = state.ring.home(&self.name).unwrap().node != NodeId(self.node);
            if gone {
                return Err(io::ErrorKind::Other.into());
            }
            if superseded || moved {
                let refusal = if moved { Refusal::NotHome } else { Refusal::Superseded };
                let ring = Some(state.ring.clone());
                drop(state);
                let failure = ClientReply::Failure { request: None, refusal, text: "scripted".to_owned(), ring };
                self.out.lock().unwrap().say(&failure, &[])?;
                return Err(io::ErrorKind::Other.into());
            }
            if ready(&state) {
                return Ok(state);
            }
            state = self.world.changed.wait(state).unwrap();
        }
    }

    fn push_all(&mut self) -> io::Result<()> {
        let mut cut = self.world.lock().faults.cut_deliveries.pop_front();
        loop {
            let (head, bytes) = {
                let state = self.wait(|state| state.inboxes[&self.inbox].images.len() as u64 > self.next)?;
                state.inboxes[&self.inbox].images[self.next as usize].clone()
            };
            self.next += 1;
            self.out.lock().unwrap().say(&ClientReply::Head(head.clone()), &[])?;
            for (chunk, number) in bytes.chunks(CHUNK_BYTES_MAX).zip(0u64..) {
                if let Some(left) = &mut cut {
                    if *left == 0 {
                        return Ok(());
                    }
                    *left -= 1;
                }
                let mut state = self.wait(|_| *self.credit.lock().unwrap() >= self.sent + chunk.len() as u64)?;
                let mut chunk = chunk.to_vec();
                if state.faults.corrupt_chunks > 0 {
                    state.faults.corrupt_chunks -= 1;
                    chunk[0] ^= 1;
                }
                drop(state);
                self.sent += chunk.len() as u64;
                let (offset, crc32) = (number * CHUNK_BYTES_MAX as u64, crc32(&chunk));
                let reply = ClientReply::Chunk { inbox: self.inbox, seq: head.seq, offset, crc32 };
                self.out.lock().unwrap().say(&reply, &chunk)?;
            }
        }
    }
}

fn register(state: &mut State, name: &str) -> InboxId {
    if let Some(inbox) = state.names.get(name) {
        return *inbox;
    }
    state.index += 1;
    let inbox = InboxId(state.index);
    state.names.insert(name.to_owned(), inbox);
    state.inboxes.insert(inbox, InboxState::default());
    inbox
}

/// The outcome of an upload that has all its bytes, unless it is to be silent.
fn accept(state: &mut State, image: ImageId) -> Option<ClientReply> {
    let upload = &state.uploads[&image];
    let (begin, bytes) = (upload.begin.clone(), Arc::new(upload.bytes.clone()));
    if crc64(&bytes) != begin.fingerprint.checksum {
        let (refusal, text) = (Refusal::DifferentBytes, "the checksum differs".to_owned());
        return Some(ClientReply::Refused { image, refusal, text });
    }
    state.index += 1;
    let index = LogIndex(state.index);
    state.uploads.get_mut(&image).unwrap().accepted = Some(index);
    let sender = state.sessions[&image.session].clone();
    for receiver in &begin.receivers {
        let inbox = state.names[receiver];
        push(state, inbox, image, begin.fingerprint, &sender, &begin.name, bytes.clone());
    }
    if state.faults.silent_accepts > 0 {
        state.faults.silent_accepts -= 1;
        return None;
    }
    Some(ClientReply::Accepted { image, index, holders: holders() })
}

fn push(
    state: &mut State,
    inbox: InboxId,
    image: ImageId,
    fingerprint: proto::ids::Fingerprint,
    sender: &str,
    name: &str,
    bytes: Arc<Vec<u8>>,
) {
    let index = LogIndex(state.index);
    let images = &mut state.inboxes.get_mut(&inbox).unwrap().images;
    let seq = InboxSeq(images.len() as u64 + 1);
    let (sender, name) = (sender.to_owned(), name.to_owned());
    images.push((ImageHead { inbox, seq, image, fingerprint, sender, name, index, is_damaged: false }, bytes));
}

fn holders() -> Vec<Holder> {
    let at = |node| Holder { address: Address { node: NodeId(node), core: CoreId(0) }, incarnation: Incarnation(1) };
    vec![at(1), at(2)]
}

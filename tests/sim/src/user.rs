//! Users: senders and receivers that run the real client sessions against the world, and check what they get.

use std::collections::{BTreeMap, BTreeSet};

use client::inbox::{InboxEvent, InboxInput, InboxSession, StoredBefore};
use client::sender::{ImageJob, SenderEvent, SenderInput, SenderSession};
use client::session::{
    Action, BodyFacts, ConnectFailure, Key, LinkId, LinkInput, Routing, SessionFailure, SessionOptions, Welcome,
};
use logic::io::ConnId;
use proto::client::{Begin, ChunkHead, ClientReply, ClientRequest, Target};
use proto::error::Refusal;
use proto::ids::{Address, ClusterId, CoreId, Fingerprint, InboxId, InboxSeq, NodeId};
use proto::limits::{CHUNK_BYTES_MAX, PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN, UPLOAD_CREDIT_BYTES};
use proto::ring::core_of;

use crate::disk::Facts;
use crate::world::{Heard, World};

/// A connection of a user, by the session's own name for it.
#[derive(Default)]
struct Links {
    by_conn: BTreeMap<ConnId, (LinkId, bool)>, // whether the handshake is done
    by_link: BTreeMap<LinkId, ConnId>,
}

/// A sender with its images.
pub struct SenderUser {
    name: String,
    routing: Routing,
    session: SenderSession,
    links: Links,
    images: BTreeMap<Key, u64>, // length; the key is the content
    begun: BTreeMap<Key, Begin>,
    changed: BTreeSet<Key>, // images whose file is not what its checksum says
    /// The next image's file changes after its checksum was taken.
    pub changes_next: bool,
    /// What became of images, not yet taken.
    pub outcomes: Vec<Outcome>,
}

/// What became of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Accepted.
    Accepted(u64),
    /// Refused, for that reason.
    Refused(u64, Refusal),
    /// The sender went, or its session did, before it knew: perhaps accepted, perhaps not.
    Unknown(u64),
}

/// A receiver with what it got.
pub struct InboxUser {
    name: String,
    session: InboxSession,
    links: Links,
    current: Option<(InboxSeq, u64, u64)>, // sequence, length, content as told by the name
    /// Stored images in their order, by content.
    pub stored: Vec<u64>,
    inbox: Option<InboxId>,
    heads: BTreeMap<InboxSeq, (String, Fingerprint)>,
    asked_us: Option<u64>, // when it wanted to know whether there is more
}

/// CRC facts of one chunk of a made-up image: no bytes are made, two numbers stand for them.
pub fn chunk_facts(content: u64, offset: u64, length: u32) -> Facts {
    let mut bytes = [0u8; 20];
    bytes[..8].copy_from_slice(&content.to_le_bytes());
    bytes[8..16].copy_from_slice(&offset.to_le_bytes());
    bytes[16..].copy_from_slice(&length.to_le_bytes());
    Facts { length, crc32: proto::checksum::crc32(&bytes), crc64: proto::checksum::crc64(&bytes) }
}

/// The fingerprint of a made-up image.
pub fn fingerprint(content: u64, length: u64) -> Fingerprint {
    let mut whole = proto::checksum::CRC64_EMPTY;
    let mut offset = 0;
    while offset < length {
        let part = (length - offset).min(CHUNK_BYTES_MAX as u64) as u32;
        let facts = chunk_facts(content, offset, part);
        whole = proto::checksum::crc64_combine(whole, facts.crc64, u64::from(part));
        offset += u64::from(part);
    }
    Fingerprint { length, checksum: whole }
}

fn options(world: &mut World, routing: Routing) -> SessionOptions {
    let mut nodes: Vec<String> = world.nodes().iter().map(|node| format!("node{}:1", node.0)).collect();
    let first = world.random.within(0, nodes.len() as u64) as usize;
    nodes.rotate_left(first);
    SessionOptions { nodes, cluster: ClusterId::UNKNOWN, routing, seed: world.random.draw(), deadline_us: None }
}

impl Links {
    fn connect(&mut self, world: &mut World, link: LinkId, address: &str, target: Target, cluster: ClusterId) {
        let node = address.trim_start_matches("node").split(':').next().and_then(|id| id.parse().ok());
        let node = NodeId(node.expect("an address of this world"));
        let cores = world.cores();
        let core = match &target {
            Target::Any => CoreId((world.random.draw() % u64::from(cores)) as u16),
            Target::Core(core) => *core,
            Target::Client(name) => core_of(name, cores),
        };
        let hello = ClientRequest::Hello {
            version_min: PROTOCOL_VERSION_MIN,
            version_max: PROTOCOL_VERSION_MAX,
            cluster,
            target,
            credentials: Vec::new(),
        };
        let conn = world.connect(Address { node, core }, hello);
        self.by_conn.insert(conn, (link, false));
        self.by_link.insert(link, conn);
    }

    fn close(&mut self, world: &mut World, link: LinkId) {
        if let Some(conn) = self.by_link.remove(&link) {
            self.by_conn.remove(&conn);
            world.hang_up(conn);
        }
    }

    /// What a session is told of something heard, if it is its own.
    fn hear(&mut self, heard: &Heard) -> Option<LinkInput> {
        match heard {
            Heard::Reply(conn, reply, facts) => {
                let (link, ready) = self.by_conn.get_mut(conn)?;
                let link = *link;
                if *ready {
                    let body = facts.map(|facts| BodyFacts { length: u64::from(facts.length), crc64: facts.crc64 });
                    return Some(LinkInput::Reply { link, reply: reply.clone(), body });
                }
                *ready = true;
                Some(match Welcome::from_reply(reply.clone()).map_err(|other| *other) {
                    Ok(welcome) => LinkInput::Connected { link, welcome: Box::new(welcome) },
                    Err(ClientReply::Failure { refusal, text, ring, .. }) => {
                        self.forget(*conn);
                        LinkInput::ConnectFailed { link, failure: ConnectFailure::Refused { refusal, text, ring } }
                    }
                    Err(other) => panic!("a handshake was answered by {other:?}"),
                })
            }
            Heard::Closed(conn) => {
                let (link, ready) = *self.by_conn.get(conn)?;
                self.forget(*conn);
                let text = "closed".to_owned();
                Some(if ready {
                    LinkInput::Disconnected { link, text }
                } else {
                    LinkInput::ConnectFailed { link, failure: ConnectFailure::Unreachable { text } }
                })
            }
        }
    }

    /// The user's process is gone, and its sockets with it.
    fn close_all(&mut self, world: &mut World) {
        for conn in std::mem::take(self).by_conn.into_keys() {
            world.hang_up(conn);
        }
    }

    fn forget(&mut self, conn: ConnId) {
        if let Some((link, _)) = self.by_conn.remove(&conn) {
            self.by_link.remove(&link);
        }
    }
}

impl SenderUser {
    /// A sender that begins to connect.
    pub fn new(world: &mut World, name: &str, routing: Routing) -> SenderUser {
        let session = SenderSession::new(options(world, routing), name).expect("a valid name");
        let mut user = SenderUser {
            name: name.to_owned(),
            routing,
            session,
            links: Links::default(),
            images: BTreeMap::new(),
            begun: BTreeMap::new(),
            changed: BTreeSet::new(),
            changes_next: false,
            outcomes: Vec::new(),
        };
        user.step(world, SenderInput::Start);
        user
    }

    /// Sends an image whose content is `content`.
    pub fn submit(&mut self, world: &mut World, content: u64, receivers: &[String], length: u64) {
        let key = Key(content);
        self.images.insert(key, length);
        if std::mem::take(&mut self.changes_next) {
            self.changed.insert(key);
        }
        let (fingerprint, name) = (fingerprint(content, length), format!("{content}.img"));
        let job = ImageJob { key, receivers: receivers.to_vec(), fingerprint, name };
        self.step(world, SenderInput::Submit(job));
    }

    /// The image begun last of those under way, with its content.
    pub fn newest_begin(&self) -> Option<(u64, Begin)> {
        let (key, begin) = self.begun.iter().rfind(|(key, _)| self.images.contains_key(key))?;
        Some((key.0, begin.clone()))
    }

    /// Ends without a word; a successor begins, which knows nothing of what was under way.
    pub fn vanish(&mut self, world: &mut World) {
        self.links.close_all(world);
        self.outcomes.extend(self.images.keys().map(|key| Outcome::Unknown(key.0)));
        self.images.clear();
        self.session = SenderSession::new(options(world, self.routing), &self.name).expect("a valid name");
        self.step(world, SenderInput::Start);
    }

    /// Something happened in the world.
    pub fn hear(&mut self, world: &mut World, heard: &Heard) {
        if let Some(input) = self.links.hear(heard) {
            self.step(world, SenderInput::Link(input));
        }
    }

    /// Time passed.
    pub fn tick(&mut self, world: &mut World) {
        if self.session.wake_at().is_some_and(|at| world.now_us >= at) {
            self.step(world, SenderInput::Tick);
        }
    }

    fn step(&mut self, world: &mut World, input: SenderInput) {
        let mut is_over = false;
        let mut actions = Vec::new();
        self.session.step(world.now_us, input, &mut actions);
        for action in actions {
            match action {
                Action::Connect { link, address, target, cluster } => {
                    self.links.connect(world, link, &address, target, cluster);
                }
                Action::Close { link } => self.links.close(world, link),
                Action::Send { link, request } => {
                    if let ClientRequest::Begin(begin) = &request
                        && let Ok(content) = begin.name.trim_end_matches(".img").parse()
                    {
                        self.begun.insert(Key(content), begin.clone());
                    }
                    if let Some(&conn) = self.links.by_link.get(&link) {
                        world.request(conn, request, None);
                    }
                }
                Action::Event(SenderEvent::SendChunk { link, key, image, offset, length }) => {
                    let Some(&conn) = self.links.by_link.get(&link) else { continue };
                    let content = if self.changed.contains(&key) { key.0 | 1 << 40 } else { key.0 };
                    let facts = chunk_facts(content, offset, length);
                    let chunk = ClientRequest::Chunk(ChunkHead { image, offset, crc32: facts.crc32 });
                    world.request(conn, chunk, Some(facts));
                }
                Action::Event(SenderEvent::Accepted { key, holders, .. }) => {
                    let nodes: BTreeSet<NodeId> = holders.iter().map(|holder| holder.address.node).collect();
                    let copies = world.nodes().len().div_ceil(2);
                    // None left: all was acknowledged. A retry may hear of a record that lost copies since with a whole disk; that
                    // each record names enough when it is committed is checked there.
                    let has_lost_copies = world.checks.lost > 0 || world.rejoined > 0;
                    let is_enough = nodes.is_empty() || nodes.len() >= copies || has_lost_copies;
                    assert!(is_enough, "accepted with fewer than {copies} copies: {holders:?}");
                    self.images.remove(&key);
                    self.outcomes.push(Outcome::Accepted(key.0));
                }
                Action::Event(SenderEvent::Refused { key, refusal, .. }) => {
                    self.images.remove(&key);
                    self.outcomes.push(Outcome::Refused(key.0, refusal));
                }
                // Without a deadline only as its session ends.
                Action::Event(SenderEvent::GaveUp { key, .. }) => {
                    self.images.remove(&key);
                    self.outcomes.push(Outcome::Unknown(key.0));
                }
                Action::Event(SenderEvent::Failed(SessionFailure::SessionUnknown { .. })) => is_over = true,
                // It had not begun. People free space; this one just begins again.
                Action::Event(SenderEvent::Failed(SessionFailure::Refused { refusal: Refusal::NoSpace, .. })) => {
                    is_over = true;
                }
                Action::Event(SenderEvent::Failed(failure)) => panic!("a sender's session failed: {failure:?}"),
                Action::Event(_) => {}
            }
        }
        if is_over {
            self.vanish(world);
        }
    }
}

impl InboxUser {
    /// A receiver that begins to connect.
    pub fn new(world: &mut World, name: &str) -> InboxUser {
        let session = InboxSession::new(options(world, Routing::Any), name, StoredBefore::default());
        let mut user = InboxUser {
            name: name.to_owned(),
            session: session.expect("a valid name"),
            links: Links::default(),
            current: None,
            stored: Vec::new(),
            inbox: None,
            heads: BTreeMap::new(),
            asked_us: None,
        };
        user.step(world, InboxInput::Start, None);
        user
    }

    /// Ends without a word and comes back with what it had stored.
    pub fn vanish(&mut self, world: &mut World) {
        self.links.close_all(world);
        let seqs = (1..=self.stored.len() as u64).map(InboxSeq).collect();
        let stored = StoredBefore { inbox: self.inbox.filter(|_| !self.stored.is_empty()), seqs };
        self.session = InboxSession::new(options(world, Routing::Any), &self.name, stored).expect("a valid name");
        (self.current, self.asked_us) = (None, None);
        self.step(world, InboxInput::Start, None);
    }

    /// Wants to know whether there is more, unless it is finding that out already.
    pub fn ask(&mut self, world: &mut World) {
        if self.asked_us.is_none() {
            self.asked_us = Some(world.now_us);
            self.step(world, InboxInput::AskCaughtUp, None);
        }
    }

    /// If there is nothing more: when it asked. That all accepted before is stored is for the caller to check.
    pub fn take_caught_up(&mut self) -> Option<u64> {
        self.asked_us.take_if(|_| self.session.is_caught_up())
    }

    /// Ends without a word; `vanish` makes it come back.
    pub fn leave(&mut self, world: &mut World) {
        self.links.close_all(world);
    }

    /// Whether everything stored is acknowledged and committed, and what it asked was answered.
    pub fn is_settled(&self) -> bool {
        self.session.acked_upto().0 == self.stored.len() as u64 && self.asked_us.is_none()
    }

    /// Something happened in the world.
    pub fn hear(&mut self, world: &mut World, heard: &Heard) {
        let facts = match heard {
            Heard::Reply(_, _, facts) => *facts,
            Heard::Closed(_) => None,
        };
        if let Some(input) = self.links.hear(heard) {
            self.step(world, InboxInput::Link(input), facts);
        }
    }

    /// Time passed.
    pub fn tick(&mut self, world: &mut World) {
        if self.session.wake_at().is_some_and(|at| world.now_us >= at) {
            self.step(world, InboxInput::Tick, None);
        }
    }

    fn step(&mut self, world: &mut World, input: InboxInput, facts: Option<Facts>) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            let mut actions = Vec::new();
            self.session.step(world.now_us, input, &mut actions);
            for action in actions {
                match action {
                    Action::Connect { link, address, target, cluster } => {
                        self.links.connect(world, link, &address, target, cluster);
                    }
                    Action::Close { link } => self.links.close(world, link),
                    Action::Send { link, request } => {
                        if let Some(&conn) = self.links.by_link.get(&link) {
                            world.request(conn, request, None);
                        }
                    }
                    Action::Event(InboxEvent::Opened { inbox, .. }) => {
                        assert!(self.inbox.is_none_or(|known| known == inbox));
                        self.inbox = Some(inbox);
                    }
                    Action::Event(InboxEvent::Begin { head }) => {
                        let content = head.name.trim_end_matches(".img").parse().expect("a name of this world");
                        self.current = Some((head.seq, head.fingerprint.length, content));
                        self.heads.insert(head.seq, (head.name.clone(), head.fingerprint));
                    }
                    Action::Event(InboxEvent::Write { seq, offset }) => {
                        let (current, length, content) = self.current.expect("bytes follow a head");
                        assert_eq!(current, seq);
                        let facts = facts.expect("a write comes with a body");
                        let part = (length - offset).min(CHUNK_BYTES_MAX as u64) as u32;
                        assert_eq!(facts, chunk_facts(content, offset, part), "wrong bytes were delivered");
                    }
                    Action::Event(InboxEvent::Finish { seq }) => {
                        assert_eq!(seq.0, self.stored.len() as u64 + 1, "an image came twice or out of order");
                        let (name, found) = self.heads[&seq].clone();
                        let content = name.trim_end_matches(".img").parse().expect("a name of this world");
                        assert_eq!(found, fingerprint(content, found.length));
                        self.stored.push(content);
                        inputs.push(InboxInput::Stored(seq));
                    }
                    Action::Event(InboxEvent::Damaged { head }) => {
                        assert_eq!(head.seq.0, self.stored.len() as u64 + 1, "an image came twice or out of order");
                        // That nobody has it any more was checked when the record of it was committed.
                        let content = head.name.trim_end_matches(".img").parse().expect("a name of this world");
                        world.damaged += 1;
                        self.stored.push(content);
                        inputs.push(InboxInput::Stored(head.seq));
                    }
                    Action::Event(InboxEvent::Corrupt { seq, .. }) => panic!("wrong bytes of {seq:?} were delivered"),
                    Action::Event(InboxEvent::Failed(failure)) => panic!("a receiver's session failed: {failure:?}"),
                    Action::Event(InboxEvent::Abort { .. } | InboxEvent::Acked { .. }) => {}
                }
            }
        }
    }
}

fn hello(target: Target) -> ClientRequest {
    ClientRequest::Hello {
        version_min: PROTOCOL_VERSION_MIN,
        version_max: PROTOCOL_VERSION_MAX,
        cluster: ClusterId::UNKNOWN,
        target,
        credentials: Vec::new(),
    }
}

/// Sends an image under another one's id, without listening.
pub fn impostor(world: &mut World, begin: Begin, content: u64) -> ConnId {
    let nodes = world.nodes();
    let node = nodes[world.random.within(0, nodes.len() as u64) as usize];
    let conn = world.connect(Address { node, core: CoreId(0) }, hello(Target::Any));
    let length = begin.fingerprint.length;
    let image = begin.image;
    let (fingerprint, name) = (fingerprint(content, length), format!("{content}.img"));
    world.request(conn, ClientRequest::Begin(Begin { fingerprint, name, ..begin }), None);
    for offset in (0..length.min(UPLOAD_CREDIT_BYTES)).step_by(CHUNK_BYTES_MAX) {
        let part = (length - offset).min(CHUNK_BYTES_MAX as u64) as u32;
        let facts = chunk_facts(content, offset, part);
        world.request(conn, ClientRequest::Chunk(ChunkHead { image, offset, crc32: facts.crc32 }), Some(facts));
    }
    conn
}

/// Opens the inbox of `name` at every node and acknowledges far more than was ever sent to it, without listening.
pub fn ack_ahead(world: &mut World, name: &str, inbox: InboxId) -> Vec<ConnId> {
    let core = core_of(name, world.cores());
    let nodes = world.nodes();
    let open = |node: NodeId| {
        let target = Target::Client(name.to_owned());
        let conn = world.connect(Address { node, core }, hello(target));
        let (resume_seq, resume_from) = (InboxSeq(0), 0);
        world.request(
            conn,
            ClientRequest::OpenInbox { name: name.to_owned(), credit: 0, resume_seq, resume_from },
            None,
        );
        world.request(conn, ClientRequest::Ack { inbox, upto: InboxSeq(1 << 40) }, None);
        conn
    };
    nodes.into_iter().map(open).collect()
}

/// Registers a client by asking, again and again, whichever node answers.
pub fn register(world: &mut World, name: &str) -> InboxId {
    loop {
        let nodes = world.nodes();
        let node = nodes[world.random.within(0, nodes.len() as u64) as usize];
        let conn = world.connect(Address { node, core: CoreId(0) }, hello(Target::Any));
        let request = proto::ids::RequestId(1);
        world.request(conn, ClientRequest::Register { request, name: name.to_owned() }, None);
        let deadline_us = world.now_us + 3_000_000;
        while world.now_us < deadline_us {
            let mut over = false;
            for heard in world.run() {
                match heard {
                    Heard::Reply(from, ClientReply::Registered { inbox, .. }, _) if from == conn => return inbox,
                    Heard::Reply(from, ClientReply::Failure { .. }, _) if from == conn => over = true,
                    Heard::Closed(from) if from == conn => over = true,
                    _ => {}
                }
            }
            if over {
                break;
            }
        }
        world.hang_up(conn);
        let wait_us = world.now_us + 100_000;
        while world.now_us < wait_us {
            world.run();
        }
    }
}

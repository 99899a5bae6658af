//! At least one example of every message and record, and one type for all messages: for tests and fuzzing.
//!
//! Behind the feature `samples`. The values keep every rule of `check`, and differ in every field, so that a codec that
//! mixes up two fields does not survive its round trip.

use std::sync::Arc;

use crate::client::{
    Begin, ChunkHead, ClientReply, ClientRequest, CoreStatus, ImageHead, NodeStatus, RoleKind, Target,
};
use crate::codec::{self, DecodeError, Encoder};
use crate::error::Refusal;
use crate::frame::{FRAME_HEADER_BYTES, FrameError, FrameHeader, FrameLimits, Kind, KindGroup};
use crate::ids::{
    Address, ClusterId, CoreId, Fingerprint, Holder, ImageId, InboxId, InboxSeq, Incarnation, LogIndex, NodeId,
    RequestId, RingEpoch, Sequence, SessionId, Term,
};
use crate::peer::{
    Bootstrap, Lane, LeaderAnswer, LeaderRequest, LinkCredit, Notice, PeerHello, PeerMessage, PeerWelcome, RaftEntry,
    RaftMessage, ReadyReceiver, Upload,
};
use crate::record::{Lost, Ready, Record, RecordBody};
use crate::ring::{Member, Ring};
use crate::snapshot::{Head, ImageItem, InboxItem, Piece, SessionItem, UndeliveredItem};

/// Any message that travels in a frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// From a client.
    Request(ClientRequest),
    /// To a client.
    Reply(ClientReply),
    /// First on a link.
    Hello(PeerHello),
    /// Second on a link.
    Welcome(PeerWelcome),
    /// Back on a link.
    Credit(LinkCredit),
    /// Between cores.
    Peer(PeerMessage),
}

/// Why bytes are not a frame with a message.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// Fewer bytes than the frame has.
    #[error("the frame is cut")]
    Cut,
    /// The header is not one.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The meta is not a message.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// From whom the sample peer messages come.
pub const SOURCE: Address = Address { node: NodeId(1), core: CoreId(2) };
/// To whom the sample peer messages go.
pub const TARGET: Address = Address { node: NodeId(3), core: CoreId(0) };
/// Bytes of the body that sample frames announce, if they have one.
pub const BODY_BYTES: usize = 1000;

impl Message {
    /// One or more of every kind.
    pub fn samples() -> Vec<Message> {
        let mut all: Vec<Message> = Vec::new();
        all.extend(client_requests().into_iter().map(Message::Request));
        all.extend(client_replies().into_iter().map(Message::Reply));
        all.extend(Lane::ALL.map(peer_hello).map(Message::Hello));
        all.extend(peer_welcomes().into_iter().map(Message::Welcome));
        all.push(Message::Credit(LinkCredit { credit: 1 << 40 }));
        all.extend(peer_messages().into_iter().map(Message::Peer));
        all
    }

    /// Header and meta of its frame; the body, of `BODY_BYTES`, would follow.
    pub fn encode(&self, encoder: &mut Encoder) -> Vec<u8> {
        let body_bytes = if self.has_body() { BODY_BYTES } else { 0 };
        let mut out = Vec::new();
        match self {
            Message::Request(request) => codec::encode_client_request(encoder, request, body_bytes, &mut out),
            Message::Reply(reply) => codec::encode_client_reply(encoder, reply, body_bytes, &mut out),
            Message::Hello(hello) => codec::encode_peer_hello(encoder, hello, &mut out),
            Message::Welcome(welcome) => codec::encode_peer_welcome(encoder, welcome, &mut out),
            Message::Credit(credit) => codec::encode_link_credit(encoder, credit, &mut out),
            Message::Peer(message) => {
                codec::encode_peer_message(encoder, SOURCE, TARGET, message, body_bytes, &mut out);
            }
        }
        out
    }

    fn has_body(&self) -> bool {
        matches!(
            self,
            Message::Request(ClientRequest::Chunk(_))
                | Message::Reply(ClientReply::Chunk { .. })
                | Message::Peer(PeerMessage::UploadChunk { .. } | PeerMessage::Fetched { .. })
        )
    }

    /// The message of the frame that `bytes` begin with, whatever its kind.
    pub fn decode(bytes: &[u8]) -> Result<Message, MessageError> {
        let Some((header, rest)) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>() else {
            return Err(MessageError::Cut);
        };
        let header = FrameHeader::parse(header, FrameLimits::PEER)?;
        let Some(meta) = rest.get(..header.meta_bytes()) else { return Err(MessageError::Cut) };
        Ok(Message::decode_meta(&header, meta)?)
    }

    /// The message in a frame with `header` and `meta`, whatever its kind.
    pub fn decode_meta(header: &FrameHeader, meta: &[u8]) -> Result<Message, DecodeError> {
        match (header.kind().group(), header.kind()) {
            (KindGroup::ClientRequest, _) => codec::decode_client_request(header, meta).map(Message::Request),
            (KindGroup::ClientReply, _) => codec::decode_client_reply(header, meta).map(Message::Reply),
            (KindGroup::Link, Kind::LinkHello) => codec::decode_peer_hello(header, meta).map(Message::Hello),
            (KindGroup::Link, Kind::LinkCredit) => codec::decode_link_credit(header, meta).map(Message::Credit),
            (KindGroup::Link, _) => codec::decode_peer_welcome(header, meta).map(Message::Welcome),
            (KindGroup::Peer, _) => codec::decode_peer_message(header, meta).map(Message::Peer),
        }
    }
}

const CLUSTER: ClusterId = ClusterId(0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);
const REQUEST: RequestId = RequestId(77);
const INBOX: InboxId = InboxId(31);
const CHUNK_OFFSET: u64 = 5 << 20;

/// The image that samples are about.
pub const IMAGE: ImageId = ImageId { session: SessionId(4711), sequence: Sequence(12) };
/// Its bytes.
pub const FINGERPRINT: Fingerprint = Fingerprint { length: 7_654_321, checksum: 0xdead_beef_0bad_cafe };

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn holder(node: u64, core: u16, incarnation: u32) -> Holder {
    Holder { address: Address { node: NodeId(node), core: CoreId(core) }, incarnation: Incarnation(incarnation) }
}

fn holders() -> Vec<Holder> {
    vec![holder(2, 1, 1), holder(3, 0, 4)]
}

/// Three members, one of them down.
pub fn ring() -> Ring {
    Ring::new(RingEpoch(99), (1..=3).map(member).collect())
}

fn member(node: u64) -> Member {
    Member {
        node: NodeId(node),
        incarnation: Incarnation(node as u32 + 1),
        cores: node as u16 * 2,
        up: node != 2,
        voter: node != 3,
        client_address: format!("10.0.0.{node}:7401"),
        peer_address: format!("node-{node}.example.net:7402"),
    }
}

/// Samples of every `ClientRequest`.
pub fn client_requests() -> Vec<ClientRequest> {
    let hello = |target, credentials: &[u8]| ClientRequest::Hello {
        version_min: 1,
        version_max: 3,
        cluster: CLUSTER,
        target,
        credentials: credentials.to_vec(),
    };
    vec![
        hello(Target::Any, b""),
        hello(Target::Core(CoreId(7)), b"\0\xff"),
        hello(Target::Client("gallery".to_owned()), b"secret"),
        ClientRequest::Register { request: REQUEST, name: "gallery".to_owned() },
        ClientRequest::OpenSession { request: REQUEST, sender: "camera-1".to_owned() },
        ClientRequest::Begin(Begin {
            cluster: CLUSTER,
            image: IMAGE,
            low_water: Sequence(9),
            receivers: names(&["gallery", "archive", "b"]),
            fingerprint: FINGERPRINT,
            name: "Bäume im Herbst.jpg".to_owned(),
        }),
        ClientRequest::Chunk(ChunkHead { image: IMAGE, offset: CHUNK_OFFSET, crc32: 0x89ab_cdef }),
        ClientRequest::OpenInbox {
            name: "gallery".to_owned(),
            credit: 8 << 20,
            resume_seq: InboxSeq(7),
            resume_from: 3 << 20,
        },
        ClientRequest::InboxCredit { credit: u64::MAX },
        ClientRequest::Ack { inbox: INBOX, upto: InboxSeq(15) },
        ClientRequest::Probe { request: REQUEST, payload: b"payload".to_vec() },
        ClientRequest::Status { request: REQUEST },
        ClientRequest::Ping,
    ]
}

/// Samples of every `ClientReply`.
pub fn client_replies() -> Vec<ClientReply> {
    vec![
        ClientReply::Welcome {
            version: 1,
            cluster: CLUSTER,
            node: NodeId(2),
            core: CoreId(3),
            ring: ring(),
            image_bytes_max: 64 << 20,
            credit: 8 << 20,
        },
        ClientReply::Registered { request: REQUEST, inbox: INBOX },
        ClientReply::SessionOpened { request: REQUEST, session: SessionId(4711) },
        ClientReply::BeginAnswer { image: IMAGE, resume_from: 3 << 20 },
        ClientReply::Progress { image: IMAGE, durable_end: 7_654_321 },
        ClientReply::Accepted { image: IMAGE, index: LogIndex(1234), holders: holders() },
        ClientReply::Refused { image: IMAGE, refusal: Refusal::NoSpace, text: "disk of n2 is full".to_owned() },
        ClientReply::Credit { credit: 99 << 20 },
        ClientReply::InboxOpened { inbox: INBOX, acked_upto: InboxSeq(14) },
        ClientReply::Head(ImageHead {
            inbox: INBOX,
            seq: InboxSeq(15),
            image: IMAGE,
            fingerprint: FINGERPRINT,
            sender: "camera-1".to_owned(),
            name: "a.png".to_owned(),
            index: LogIndex(1234),
            is_damaged: false,
        }),
        ClientReply::Head(ImageHead {
            inbox: INBOX,
            seq: InboxSeq(16),
            image: IMAGE,
            fingerprint: FINGERPRINT,
            sender: "camera-1".to_owned(),
            name: "b.png".to_owned(),
            index: LogIndex(1235),
            is_damaged: true,
        }),
        ClientReply::Chunk { inbox: INBOX, seq: InboxSeq(15), offset: CHUNK_OFFSET, crc32: 0x1234_5678 },
        ClientReply::Acked { inbox: INBOX, upto: InboxSeq(15) },
        ClientReply::ProbeDone { request: REQUEST, index: LogIndex(1235) },
        ClientReply::Status { request: REQUEST, status: Box::new(node_status()) },
        ClientReply::Status { request: REQUEST, status: Box::default() },
        ClientReply::Pong,
        ClientReply::RingChanged { ring: ring() },
        ClientReply::Failure {
            request: Some(REQUEST),
            refusal: Refusal::NotHome,
            text: "go to n3".to_owned(),
            ring: Some(ring()),
        },
        ClientReply::Failure { request: None, refusal: Refusal::Superseded, text: String::new(), ring: None },
    ]
}

/// A leader's status.
pub fn node_status() -> NodeStatus {
    let core = |core: u16| CoreStatus {
        core: CoreId(core),
        connections: 10 + u64::from(core),
        uploads: 20,
        images: 30,
        image_bytes: 40,
        chunk_files: 50,
        room_bytes: 60,
        repairs: 70,
    };
    NodeStatus {
        node: NodeId(1),
        incarnation: Incarnation(2),
        cluster: CLUSTER,
        role: RoleKind::Leader,
        term: Term(3),
        leader: NodeId(4),
        last: LogIndex(5),
        committed: LogIndex(6),
        applied: LogIndex(7),
        ring: ring(),
        clients: 8,
        sessions: 9,
        undelivered: 10,
        intents: 11,
        log_segments: 12,
        log_bytes: 13,
        cores: vec![core(0), core(1)],
        healing: true,
        snapshot_index: LogIndex(14),
        snapshot_bytes: 15,
        snapshot_under_way: true,
        log_rotten: true,
    }
}

/// A hello for that lane.
pub fn peer_hello(lane: Lane) -> PeerHello {
    PeerHello {
        version_min: 1,
        version_max: 2,
        cluster: CLUSTER,
        source: SOURCE,
        incarnation: Incarnation(6),
        start: 0x0102_0304_0506_0708,
        target: TARGET,
        lane,
        credentials: b"token".to_vec(),
    }
}

/// Samples of every `PeerWelcome`.
pub fn peer_welcomes() -> Vec<PeerWelcome> {
    vec![
        PeerWelcome::Welcome { version: 1, cluster: CLUSTER, credit: 16 << 20 },
        PeerWelcome::Refused { refusal: Refusal::NotMember, text: "n9 is no member".to_owned() },
    ]
}

/// Samples of every `PeerMessage`, `LeaderRequest` and `LeaderAnswer`.
pub fn peer_messages() -> Vec<PeerMessage> {
    let mut all = vec![
        PeerMessage::Bootstrap(Bootstrap::Empty { node: NodeId(1), nonce: u128::MAX - 5, members: 0xabcd, cores: 2 }),
        PeerMessage::Bootstrap(Bootstrap::Minted {
            cluster: CLUSTER,
            members: vec![(NodeId(1), 1 << 100, 2), (NodeId(2), 7, 4)],
        }),
        PeerMessage::Bootstrap(Bootstrap::Rejoin {
            node: NodeId(2),
            nonce: u128::MAX - 9,
            replaces: Incarnation(3),
            cores: 4,
            client_address: "10.0.0.2:7401".to_owned(),
            peer_address: "10.0.0.2:7501".to_owned(),
        }),
        PeerMessage::Bootstrap(Bootstrap::Admitted {
            cluster: CLUSTER,
            members: vec![(NodeId(1), 1 << 99, 2), (NodeId(2), 8, 4)],
            incarnation: Incarnation(4),
            nonce: u128::MAX - 10,
            term: Term(13),
        }),
        PeerMessage::Bootstrap(Bootstrap::Deferred { incarnation: Incarnation(3), text: "it is up".to_owned() }),
        PeerMessage::Upload(Upload {
            image: IMAGE,
            low_water: Sequence(9),
            fingerprint: FINGERPRINT,
            name: "a.png".to_owned(),
            receivers: names(&["gallery", "archive"]),
            chain: vec![TARGET, SOURCE],
        }),
        PeerMessage::UploadChunk { image: IMAGE, offset: CHUNK_OFFSET, checksum: u64::MAX - 1, crc32: 0xffff_fffe },
        PeerMessage::UploadProgress {
            image: IMAGE,
            durable_end: 4 << 20,
            incarnation: Incarnation(2),
            checksum: u64::MAX - 2,
            receivers: u64::MAX - 6,
        },
        PeerMessage::UploadRefused {
            image: IMAGE,
            checksum: u64::MAX - 4,
            refusal: Refusal::DifferentBytes,
            text: "other bytes".to_owned(),
        },
        PeerMessage::UploadReady {
            image: IMAGE,
            receivers: names(&["gallery"]),
            index: LogIndex(1234),
            holders: holders(),
            checksum: u64::MAX - 3,
        },
        PeerMessage::UploadCancel { image: IMAGE, checksum: u64::MAX - 5 },
        PeerMessage::Fetch { request: REQUEST, image: IMAGE, offset: 0 },
        PeerMessage::Fetched { request: REQUEST, image: IMAGE, offset: CHUNK_OFFSET, crc32: 0 },
        PeerMessage::HealAsk { nonce: u64::MAX, last: LogIndex(77) },
        PeerMessage::HealAnswer {
            nonce: u64::MAX - 7,
            term: Term(9),
            last_term: Term(8),
            last: LogIndex(1 << 40),
            leads: true,
        },
        PeerMessage::SnapshotOffer { index: LogIndex(1 << 41), term: Term(11) },
        PeerMessage::SnapshotAsk { index: LogIndex(1 << 41), term: Term(11), offset: 1 << 30 },
        PeerMessage::SnapshotPart { index: LogIndex(1 << 41), term: Term(11), offset: 512, data: vec![7; 1024] },
        PeerMessage::SnapshotGone { index: LogIndex(1 << 41), term: Term(11) },
        PeerMessage::FetchFailed { request: REQUEST, image: IMAGE, refusal: Refusal::NotHeld },
    ];
    all.extend(raft_messages().into_iter().map(PeerMessage::Raft));
    all.extend(leader_requests().into_iter().map(|body| PeerMessage::Request {
        origin: SOURCE,
        request: REQUEST,
        hops: 1,
        body,
    }));
    all.extend(leader_answers().into_iter().map(|body| PeerMessage::Answer { request: REQUEST, body }));
    all
}

fn raft_messages() -> Vec<RaftMessage> {
    let entry = |index: u64, data: &[u8]| RaftEntry { term: Term(8), index: LogIndex(index), data: data.to_vec() };
    let append = RaftMessage {
        kind: 3,
        from: NodeId(1),
        to: NodeId(3),
        term: Term(8),
        log_term: Term(7),
        index: LogIndex(1000),
        entries: vec![entry(1001, b""), entry(1002, b"first"), entry(1003, &[0xff; 33])],
        commit: LogIndex(999),
        commit_term: Term(6),
        request_snapshot: LogIndex(5),
        reject: true,
        reject_hint: LogIndex(900),
        context: b"context".to_vec(),
        priority: -3,
    };
    let heartbeat = RaftMessage { kind: 8, from: NodeId(3), to: NodeId(1), term: Term(8), ..RaftMessage::default() };
    vec![append, heartbeat]
}

/// Samples of every `LeaderRequest`.
pub fn leader_requests() -> Vec<LeaderRequest> {
    vec![
        LeaderRequest::Register { name: "gallery".to_owned() },
        LeaderRequest::OpenSession { sender: "camera-1".to_owned() },
        LeaderRequest::Intent {
            image: IMAGE,
            low_water: Sequence(9),
            fingerprint: FINGERPRINT,
            receivers: names(&["gallery", "archive"]),
        },
        LeaderRequest::Notice(Notice {
            image: IMAGE,
            low_water: Sequence(9),
            fingerprint: FINGERPRINT,
            name: "a.png".to_owned(),
            receivers: names(&["gallery"]),
            holders: holders(),
        }),
        LeaderRequest::Ack { upto: vec![(INBOX, InboxSeq(15)), (InboxId(40), InboxSeq(0))] },
        LeaderRequest::Probe { payload: b"payload".to_vec() },
        LeaderRequest::Return {
            node: NodeId(3),
            incarnation: Incarnation(2),
            cores: 4,
            client_address: "10.0.0.3:7401".to_owned(),
            peer_address: "10.0.0.3:7402".to_owned(),
            applied: LogIndex(88),
        },
        LeaderRequest::Unreachable { node: NodeId(2) },
        LeaderRequest::Lost(lost()),
    ]
}

/// Samples of every `LeaderAnswer`.
pub fn leader_answers() -> Vec<LeaderAnswer> {
    let ready = vec![
        ReadyReceiver { name: "gallery".to_owned(), index: LogIndex(1234), holders: holders() },
        ReadyReceiver { name: "archive".to_owned(), index: LogIndex(1235), holders: Vec::new() },
    ];
    vec![
        LeaderAnswer::Registered { inbox: INBOX },
        LeaderAnswer::SessionOpened { session: LogIndex(4711) },
        LeaderAnswer::Admitted { ready: Vec::new() },
        LeaderAnswer::Admitted { ready: ready.clone() },
        LeaderAnswer::Ready { ready },
        LeaderAnswer::TooFewHolders,
        LeaderAnswer::Acked { upto: vec![(INBOX, InboxSeq(15))] },
        LeaderAnswer::Probed { index: LogIndex(1236) },
        LeaderAnswer::Noted,
        LeaderAnswer::Refused { refusal: Refusal::OutOfWindow, text: "1024 above".to_owned() },
    ]
}

fn lost() -> Lost {
    Lost { holder: holders()[0], records: vec![LogIndex(1234), LogIndex(1236)] }
}

/// Samples of every `RecordBody`.
pub fn records() -> Vec<Record> {
    let bodies = vec![
        RecordBody::Genesis {
            cluster: CLUSTER,
            members: (1..=3).map(member).collect(),
            copies: 2,
            image_bytes_max: 64 << 20,
        },
        RecordBody::Register { name: "gallery".to_owned() },
        RecordBody::OpenSession { sender: "camera-1".to_owned() },
        RecordBody::Ready(ready()),
        RecordBody::Acked { upto: vec![(INBOX, InboxSeq(15)), (InboxId(40), InboxSeq(2))] },
        RecordBody::RingChange {
            node: NodeId(2),
            incarnation: Incarnation(3),
            cores: 4,
            up: true,
            client_address: "10.0.0.2:7401".to_owned(),
            peer_address: String::new(),
            rejoin: None,
        },
        RecordBody::RingChange {
            node: NodeId(3),
            incarnation: Incarnation(4),
            cores: 2,
            up: false,
            client_address: String::new(),
            peer_address: "10.0.0.3:7501".to_owned(),
            rejoin: Some(u128::MAX - 7),
        },
        RecordBody::ExpireSessions { idle_since_ms: 1_763_800_000_000 },
        RecordBody::Probe { payload: b"payload".to_vec() },
        RecordBody::Lost(lost()),
    ];
    let with_time = |(position, body)| Record { time_ms: 1_763_803_380_000 + position as u64, body };
    bodies.into_iter().enumerate().map(with_time).collect()
}

/// Pieces of a snapshot.
pub fn pieces() -> Vec<Piece> {
    let head = Head {
        cluster: CLUSTER,
        copies: 2,
        image_bytes_max: 64 << 20,
        log_time_ms: 1_763_803_380_000,
        ring: ring(),
        rejoined: vec![(NodeId(2), u128::MAX - 8)],
    };
    let inbox = InboxItem { inbox: INBOX, name: "gallery".into(), acked: InboxSeq(15), acked_record: LogIndex(900) };
    let sender: Arc<str> = "camera-1".into();
    let (session, low_water) = (IMAGE.session, Sequence(9));
    let session = SessionItem { session, sender: sender.clone(), low_water, used_ms: 1_763_803_370_000 };
    let image = ImageItem { image: IMAGE, fingerprint: FINGERPRINT, ready: vec![(INBOX, LogIndex(1200))] };
    let undelivered = UndeliveredItem {
        index: LogIndex(1200),
        image: IMAGE,
        fingerprint: FINGERPRINT,
        sender,
        name: "IMG_20261122_0923.jp".into(),
        receivers: vec![INBOX],
        holders: holders(),
    };
    vec![
        Piece { head: Some(head), ..Piece::default() },
        Piece { inboxes: vec![inbox], sessions: vec![session], images: vec![image], ..Piece::default() },
        Piece { undelivered: vec![undelivered], ..Piece::default() },
    ]
}

/// A usual `Ready`: one receiver, two holders, a file name of 20 bytes.
pub fn ready() -> Ready {
    Ready {
        image: IMAGE,
        low_water: Sequence(9),
        fingerprint: FINGERPRINT,
        name: "IMG_20261122_0923.jp".to_owned(),
        receivers: vec![INBOX],
        holders: holders(),
    }
}

//! The protocol between the cores of a cluster's nodes.
//!
//! A link is a TCP connection from one core to one core and has a lane. It begins with `PeerHello`, answered by
//! `PeerWelcome`; then frames go one way, from the dialler to the listener, and only credit comes back. Two cores that
//! talk both ways therefore have two connections a lane. Cores of one node use an in-memory mesh for messages without
//! body and a link for chunks.
//!
//! Lanes keep chunk bytes from delaying the log, and from waiting in a circle: bytes of a later lane are only ever
//! waiting for the disk or for a still later one.

use crate::error::Refusal;
use crate::ids::{
    Address, ClusterId, Fingerprint, Holder, ImageId, InboxId, InboxSeq, Incarnation, LogIndex, NodeId, RequestId,
    Sequence, Term,
};
use crate::record::Lost;

/// What a link carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Messages without body.
    Control,
    /// Chunks from an ingest to a home.
    Home,
    /// Chunks from a home to the next holder.
    Holder,
    /// Chunks from a holder to a home that lacks them.
    Fetch,
}

impl Lane {
    /// All lanes, in the order of their number on the wire.
    pub const ALL: [Lane; 4] = [Lane::Control, Lane::Home, Lane::Holder, Lane::Fetch];
}

/// First frame of a link, by the dialler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerHello {
    /// Oldest version it speaks.
    pub version_min: u16,
    /// Newest version it speaks.
    pub version_max: u16,
    /// Its cluster; unknown before bootstrap, when only `Bootstrap` messages are taken.
    pub cluster: ClusterId,
    /// Which core of which node dials.
    pub source: Address,
    /// Its life.
    pub incarnation: Incarnation,
    /// Drawn at each start of the process: tells a restarted peer from a new connection of the same one.
    pub start: u64,
    /// Which node it believes to reach, and which core it wants.
    pub target: Address,
    /// What the link will carry.
    pub lane: Lane,
    /// Room for authentication; empty today.
    pub credentials: Vec<u8>,
}

/// Answer to `PeerHello`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerWelcome {
    /// Frames may flow.
    Welcome {
        /// The version both speak.
        version: u16,
        /// The listener's cluster.
        cluster: ClusterId,
        /// Body bytes permitted since the link began.
        credit: u64,
    },
    /// The link ends.
    Refused {
        /// Why.
        refusal: Refusal,
        /// For people.
        text: String,
    },
}

/// A message from one core to another, of the same node or not.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerMessage {
    /// Before a cluster exists (`logic::bootstrap`).
    Bootstrap(Bootstrap),
    /// The consensus group, core 0 to core 0.
    Raft(RaftMessage),
    /// A request on its way to the leader, core 0 to core 0.
    Request {
        /// Who waits for the answer.
        origin: Address,
        /// Unique at the origin.
        request: RequestId,
        /// How often it may still be passed on; a node that is not the leader passes it on once.
        hops: u8,
        /// What is asked.
        body: LeaderRequest,
    },
    /// The leader's answer, to the origin.
    Answer {
        /// From the request.
        request: RequestId,
        /// What happened.
        body: LeaderAnswer,
    },
    /// Ingest to home, or home to holder: an image begins, or is asked after.
    Upload(Upload),
    /// Bytes of an upload; the body of the frame.
    UploadChunk {
        /// Which image.
        image: ImageId,
        /// Of the first byte.
        offset: u64,
        /// Of the whole image, as in the `Upload`: bytes of others under the same id are not these.
        checksum: u64,
        /// CRC-32 of the body.
        crc32: u32,
    },
    /// Answer to `Upload` and `UploadChunk`, to the core the bytes came from: this much is durable here.
    UploadProgress {
        /// Which image.
        image: ImageId,
        /// Exclusive end of the durable prefix.
        durable_end: u64,
        /// Of the answering store.
        incarnation: Incarnation,
        /// Of the whole image of which it speaks, as in its `Upload`.
        checksum: u64,
        /// For whom the answering store keeps the bytes at the asker's word: CRC-64 of the names in the asker's last
        /// `Upload`, each ended by a zero byte.
        receivers: u64,
    },
    /// Holder or home: the bytes will not be stored.
    UploadRefused {
        /// Which image.
        image: ImageId,
        /// Of the whole image of which it speaks, as in its `Upload`.
        checksum: u64,
        /// Why.
        refusal: Refusal,
        /// For people.
        text: String,
    },
    /// Home to ingest: ready for these receivers.
    UploadReady {
        /// Which image.
        image: ImageId,
        /// Names, as in the `Upload`.
        receivers: Vec<String>,
        /// The record.
        index: LogIndex,
        /// Who has the bytes.
        holders: Vec<Holder>,
        /// Of the whole image of which it speaks, as in its `Upload`.
        checksum: u64,
    },
    /// Ingest to home, home to holder: the upload was refused elsewhere; drop it unless a record names it.
    UploadCancel {
        /// Which image.
        image: ImageId,
        /// Of the whole image of which it speaks, as in its `Upload`.
        checksum: u64,
    },
    /// Home to holder: send a chunk of a complete image.
    Fetch {
        /// Comes back in the answer.
        request: RequestId,
        /// Which image.
        image: ImageId,
        /// Of the first byte; a multiple of the chunk size.
        offset: u64,
    },
    /// Answers `Fetch`; the chunk is the body of the frame.
    Fetched {
        /// From the request.
        request: RequestId,
        /// Which image.
        image: ImageId,
        /// Of the first byte.
        offset: u64,
        /// CRC-32 of the body.
        crc32: u32,
    },
    /// A member whose log lost entries asks the voters what they have. It takes part again only when it has everything that
    /// it may have acknowledged.
    HealAsk {
        /// Comes back in the answer: drawn anew at each start.
        nonce: u64,
        /// Last entry of the asker's log. A leader that believes it to have more begins to send from here.
        last: LogIndex,
    },
    /// Answers `HealAsk`.
    HealAnswer {
        /// From the question.
        nonce: u64,
        /// The answering node's term.
        term: Term,
        /// Term of its last entry.
        last_term: Term,
        /// Its last entry.
        last: LogIndex,
        /// Whether it leads that term.
        leads: bool,
    },
    /// The leader to a member that lacks entries which its log does not have any more: this snapshot has what they did.
    SnapshotOffer {
        /// The last entry whose effect it has.
        index: LogIndex,
        /// Its term.
        term: Term,
    },
    /// Asks for a part of a snapshot.
    SnapshotAsk {
        /// As offered.
        index: LogIndex,
        /// As offered.
        term: Term,
        /// Of its first byte in the file; whole sectors.
        offset: u64,
    },
    /// Answers `SnapshotAsk`.
    SnapshotPart {
        /// From the question.
        index: LogIndex,
        /// From the question.
        term: Term,
        /// From the question.
        offset: u64,
        /// Bytes of the file, at most `SNAPSHOT_PART_BYTES_MAX`; whole sectors. None behind its end.
        data: Vec<u8>,
    },
    /// Answers `SnapshotAsk`: not here, or not any more.
    SnapshotGone {
        /// From the question.
        index: LogIndex,
        /// From the question.
        term: Term,
    },
    /// Answers `Fetch`: not here.
    FetchFailed {
        /// From the request.
        request: RequestId,
        /// Which image.
        image: ImageId,
        /// Why.
        refusal: Refusal,
    },
}

/// See `PeerMessage::Upload`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Which image.
    pub image: ImageId,
    /// Sequences below this are finished for the sender.
    pub low_water: Sequence,
    /// Length and checksum.
    pub fingerprint: Fingerprint,
    /// The file name.
    pub name: String,
    /// Names of the receivers this home is to make it ready for.
    pub receivers: Vec<String>,
    /// The shards that are to hold the bytes, the home first. Who finds itself first is the home, and feeds the others.
    pub chain: Vec<Address>,
}

/// Bootstrap: no member takes part in anything until every initial member said that it is empty too, or the leader has taken
/// it in again under a new incarnation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bootstrap {
    /// "I am empty; this is my durable nonce."
    Empty {
        /// Who says it.
        node: NodeId,
        /// Drawn once for a directory and durable there.
        nonce: u128,
        /// Hash of the initial members as configured: all must agree.
        members: u64,
        /// Its cores.
        cores: u16,
    },
    /// "The cluster exists; it was minted from these nonces." A node whose nonce is among them belongs to it.
    Minted {
        /// The identity.
        cluster: ClusterId,
        /// All initial members with the nonces it was minted from, and their cores then.
        members: Vec<(NodeId, u128, u16)>,
    },
    /// "I am a member whose data directory is gone for good: take me in again." To every member, until it is answered.
    Rejoin {
        /// Who says it.
        node: NodeId,
        /// Of the new directory, durable there. A repetition with the same nonce has no further effect.
        nonce: u128,
        /// The life that ends, as the leader said it; 0 asks for it.
        replaces: Incarnation,
        /// Its cores.
        cores: u16,
        /// Where clients reach it.
        client_address: String,
        /// Where peers reach it.
        peer_address: String,
    },
    /// The leader: "You are taken in." The record that says so is committed and applied.
    Admitted {
        /// The identity.
        cluster: ClusterId,
        /// As in `Minted`.
        members: Vec<(NodeId, u128, u16)>,
        /// The life that begins.
        incarnation: Incarnation,
        /// From the question.
        nonce: u128,
        /// The term that the answering node leads.
        term: Term,
    },
    /// The leader: "Not yet."
    Deferred {
        /// The life that it knows.
        incarnation: Incarnation,
        /// Why, for people; empty if there is only the incarnation to be said.
        text: String,
    },
}

/// What is asked of the leader. Each may be repeated without harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaderRequest {
    /// An inbox for a name.
    Register {
        /// The name.
        name: String,
    },
    /// A session for a sender.
    OpenSession {
        /// The sender's name.
        sender: String,
    },
    /// Admission of an image, beside its data.
    Intent {
        /// Which image.
        image: ImageId,
        /// Sequences below this are finished for the sender.
        low_water: Sequence,
        /// Length and checksum.
        fingerprint: Fingerprint,
        /// All receivers.
        receivers: Vec<String>,
    },
    /// The bytes are durable on these holders.
    Notice(Notice),
    /// Receivers have these images.
    Ack {
        /// Inbox and last sequence.
        upto: Vec<(InboxId, InboxSeq)>,
    },
    /// A record that does nothing.
    Probe {
        /// At most `PROBE_BYTES_MAX`.
        payload: Vec<u8>,
    },
    /// A node that is not on the ring as up asks to be, once it has applied what the leader had committed.
    Return {
        /// Which node.
        node: NodeId,
        /// Its life.
        incarnation: Incarnation,
        /// Its cores.
        cores: u16,
        /// Where clients reach it.
        client_address: String,
        /// Where peers reach it.
        peer_address: String,
        /// What it has applied.
        applied: LogIndex,
    },
    /// A connection to this node closed and was refused again.
    Unreachable {
        /// Which node.
        node: NodeId,
    },
    /// The asking core cannot have the bytes of these records any more.
    Lost(Lost),
}

/// See `LeaderRequest::Notice`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Which image.
    pub image: ImageId,
    /// Sequences below this are finished for the sender.
    pub low_water: Sequence,
    /// Length and checksum as computed from the durable bytes.
    pub fingerprint: Fingerprint,
    /// The file name.
    pub name: String,
    /// Names of receivers.
    pub receivers: Vec<String>,
    /// Who has the bytes.
    pub holders: Vec<Holder>,
}

/// What the leader answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaderAnswer {
    /// To `Register`.
    Registered {
        /// The inbox.
        inbox: InboxId,
    },
    /// To `OpenSession`.
    SessionOpened {
        /// The record's index.
        session: LogIndex,
    },
    /// To `Intent`: go on. `ready` are the receivers that have the image already.
    Admitted {
        /// Receivers for whom the image is ready, with the record and its holders.
        ready: Vec<ReadyReceiver>,
    },
    /// To `Notice`: committed and applied. Receivers for whom it was ready before are listed with their record.
    Ready {
        /// All receivers of the notice.
        ready: Vec<ReadyReceiver>,
    },
    /// To `Notice`: fewer than `copies` holders so far; noted. Tell me of more.
    TooFewHolders,
    /// To `Ack`: committed.
    Acked {
        /// As asked, clamped to what was assigned.
        upto: Vec<(InboxId, InboxSeq)>,
    },
    /// To `Probe`: committed and applied.
    Probed {
        /// Its place.
        index: LogIndex,
    },
    /// To `Return`, `Unreachable` and `Lost`: seen.
    Noted,
    /// No.
    Refused {
        /// Why.
        refusal: Refusal,
        /// For people.
        text: String,
    },
}

/// A receiver for whom an image is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyReceiver {
    /// The receiver's name.
    pub name: String,
    /// The record that made it so.
    pub index: LogIndex,
    /// Who has the bytes; empty once all receivers of that record acknowledged.
    pub holders: Vec<Holder>,
}

/// A raft message, field by field (raft 0.7 `eraftpb::Message`), never protobuf.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RaftMessage {
    /// `MessageType` number.
    pub kind: u8,
    /// Sender.
    pub from: NodeId,
    /// Target.
    pub to: NodeId,
    /// Sender's term.
    pub term: Term,
    /// See raft.
    pub log_term: Term,
    /// See raft.
    pub index: LogIndex,
    /// Entries, consecutive, the first at `index + 1`.
    pub entries: Vec<RaftEntry>,
    /// See raft.
    pub commit: LogIndex,
    /// See raft.
    pub commit_term: Term,
    /// See raft.
    pub request_snapshot: LogIndex,
    /// See raft.
    pub reject: bool,
    /// See raft.
    pub reject_hint: LogIndex,
    /// See raft.
    pub context: Vec<u8>,
    /// See raft.
    pub priority: i64,
}

/// An entry of a raft message.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct RaftEntry {
    /// Term in which it was proposed.
    pub term: Term,
    /// Its place.
    pub index: LogIndex,
    /// An encoded record; empty for the first entry of a term.
    pub data: Vec<u8>,
}

/// Body bytes the listener of a link has permitted since the link began. The only frame from listener to dialler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkCredit {
    /// Never falls.
    pub credit: u64,
}

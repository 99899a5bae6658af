//! The seam between decisions and the world: everything a shard is told (`Input`) and everything it asks for (`Effect`).
//!
//! Rules (ARCHITECTURE.md, "The seam"):
//! 1. `Shard::step(now, input, &mut effects)`: one input, any number of effects, no waiting, no local failure.
//! 2. Effects have no order among themselves, except: log flushes are carried out one after the other; messages from one
//!    core to one core, and frames to one connection, leave in the order of their effects. If B may happen only once A is
//!    durable, logic holds B back until A's completion comes in. Messages to one core are in order only within a lane.
//! 3. Image bytes never come here: a buffer is a `BufId`.
//! 4. Each effect that can fail or finishes later has a completion input.
//!
//! Buffers. A `BufId` in an input hands logic one hold on that buffer; `Effect::Release` gives it back. An effect that
//! names a buffer takes a hold of its own, for as long as the operation runs, so logic may release right after it.
//! A chunk's buffer is laid out as on disk: header sector (filled by whoever received the bytes, `store::header`),
//! payload, zeros up to a whole block.

use std::sync::Arc;

use proto::client::{ClientReply, ClientRequest, CoreStatus};
use proto::error::Refusal;
use proto::ids::{
    Address, ClusterId, CoreId, Fingerprint, Holder, ImageId, InboxId, InboxSeq, Incarnation, LogIndex, NodeId,
};
use proto::peer::{Lane, PeerMessage};

pub use crate::view::View;

/// The time of an input. Within one shard neither part is relied on to be equal to another shard's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Now {
    /// Microseconds since some moment; never runs backwards.
    pub mono_us: u64,
    /// Milliseconds since the Unix epoch; may jump.
    pub wall_ms: u64,
}

macro_rules! number {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(pub u64);
    };
}

number!(
    /// A buffer of the shell, valid while somebody has a hold on it. Never given twice in one process.
    BufId);
number!(
    /// A client connection. Never given twice in one process.
    ConnId);
number!(
    /// Names one disk operation; its completion carries it. Chosen by logic, unique in the shard.
    Ticket);
number!(
    /// A segment of the log: file number, ascending in log order.
    SegmentId);
number!(
    /// A chunk file of one core.
    FileId);

/// Image bytes that came in. The checksums were computed by the shell from the bytes in the buffer; a frame whose own
/// checksum differs never gets here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Body {
    /// Where the bytes are; carries a hold.
    pub buf: BufId,
    /// Payload bytes.
    pub length: u32,
    /// CRC-32 of the payload.
    pub crc32: u32,
    /// CRC-64 of the payload.
    pub crc64: u64,
}

/// Image bytes to send: the payload of a chunk buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyRef {
    /// Where the bytes are.
    pub buf: BufId,
    /// Payload bytes.
    pub length: u32,
    /// CRC-32 of the payload.
    pub crc32: u32,
}

/// Where a chunk lies in a core's store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// Which file.
    pub file: FileId,
    /// First block of its data region, in units of `BLOCK_BYTES` from the beginning of that region.
    pub block: u32,
    /// Whole blocks: header, payload and padding.
    pub blocks: u32,
}

/// How a disk operation failed. A failed write or sync never comes here: it ends the process (promise P6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// No room on the filesystem.
    NoSpace,
    /// The device could not read.
    Unreadable,
    /// The system refused to open or to read: for want of a permission, of memory, of descriptors. This says nothing about what
    /// is there.
    Refused,
}

/// What new chunk files of a core may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes of the filesystem of the data directory.
    pub free_bytes: u64,
    /// Files, for want of descriptors for more.
    pub files: u64,
}

/// What a shard is told.
#[derive(Debug)]
pub enum Input {
    /// A client connection was handed to this core; `hello` is its first message, not yet answered.
    ClientOpened {
        /// The connection.
        conn: ConnId,
        /// Always `ClientRequest::Hello`.
        hello: ClientRequest,
    },
    /// A message of a client, with the body if it has one.
    Client {
        /// The connection.
        conn: ConnId,
        /// What it says.
        message: ClientRequest,
        /// The bytes of `ClientRequest::Chunk`.
        body: Option<Body>,
    },
    /// The connection is gone.
    ClientClosed {
        /// The connection.
        conn: ConnId,
    },
    /// The client reads: some of what was sent left the process; `queued_bytes` are still waiting.
    ClientDrained {
        /// The connection.
        conn: ConnId,
        /// Bytes queued for it now.
        queued_bytes: u64,
    },
    /// A message of another core (or this one).
    Peer {
        /// Who says it.
        from: Address,
        /// Its life, as the link's handshake said.
        incarnation: Incarnation,
        /// Counts the links this process accepted from that shard: messages of an older link come with a smaller number
        /// and are stale. 0 for this node's own cores.
        link: u64,
        /// What it says.
        message: PeerMessage,
        /// Bytes, for the messages that have them.
        body: Option<Body>,
    },
    /// A connection to this node was refused, or closed and refused again.
    PeerUnreachable {
        /// The node.
        node: NodeId,
    },
    /// A note of another core of this node (or this one).
    Core {
        /// Which core.
        from: CoreId,
        /// What it says.
        note: CoreNote,
    },
    /// Completion of `Effect::ChunkWrite`: written, not yet durable.
    ChunkWritten {
        /// Which.
        ticket: Ticket,
    },
    /// Completion of `Effect::StoreCommit`: all chunk writes completed before it was asked for, and its slots, are durable.
    StoreCommitted {
        /// Which.
        ticket: Ticket,
    },
    /// Completion of `Effect::ChunkRead`.
    ChunkRead {
        /// Which.
        ticket: Ticket,
        /// The payload with its checksums as computed from what was read.
        result: Result<Body, DiskError>,
    },
    /// Completion of `Effect::FileCreate`.
    FileCreated {
        /// Which file.
        file: FileId,
        /// Whether it is there now.
        result: Result<(), DiskError>,
    },
    /// Room for new chunk files, measured about once a second.
    Space {
        /// What there is now.
        room: Room,
    },
    /// Completion of `Effect::LogFlush`: its writes are durable.
    LogFlushed {
        /// Which.
        ticket: Ticket,
    },
    /// Completion of `Effect::SegmentPrepare`: preallocated, zeroed, header durable.
    SegmentPrepared {
        /// Which segment.
        segment: SegmentId,
        /// Whether it is there now.
        result: Result<(), DiskError>,
    },
    /// Completion of `Effect::LogRead`.
    LogRead {
        /// Which.
        ticket: Ticket,
        /// The bytes.
        result: Result<Vec<u8>, DiskError>,
    },
    /// Completion of `Effect::VoteWrite`: both copies are durable.
    VoteWritten {
        /// Which.
        ticket: Ticket,
    },
    /// Completion of `Effect::SnapshotWrite`.
    SnapshotWritten {
        /// Which.
        ticket: Ticket,
        /// Whether there was room.
        result: Result<(), DiskError>,
    },
    /// Completion of `Effect::SnapshotFinish`: it is durable under its name.
    SnapshotFinished {
        /// Which.
        ticket: Ticket,
        /// Whether there was room.
        result: Result<(), DiskError>,
    },
    /// Completion of `Effect::SnapshotRead`.
    SnapshotRead {
        /// Which.
        ticket: Ticket,
        /// The bytes; fewer than asked for at the end of the file.
        result: Result<Vec<u8>, DiskError>,
    },
    /// Completion of `Effect::IdentityWrite`.
    IdentityWritten {
        /// Which.
        ticket: Ticket,
    },
    /// Time passes: every `limits::TICK_US`.
    Tick,
    /// The inputs at hand have all been given: time to send what was gathered.
    Turn,
}

/// What a shard asks for.
#[derive(Debug)]
pub enum Effect {
    /// Sends to a client, in order per connection. A connection that is gone is no error.
    ClientSend {
        /// The connection.
        conn: ConnId,
        /// What to say.
        message: ClientReply,
        /// Bytes of `ClientReply::Chunk`.
        body: Option<BodyRef>,
    },
    /// Ends a connection after what was sent to it.
    ClientClose {
        /// The connection.
        conn: ConnId,
    },
    /// Sends to another core, of any node, this one included. May be lost; then whoever needs it asks again.
    Send {
        /// To whom.
        to: Address,
        /// What keeps its order: an upload's announcement goes on the lane of its chunks, so that it is there before them.
        /// Chunks from an ingest: `Home`; from a home to a holder: `Holder`; `Fetched`: `Fetch`; all else: `Control`.
        lane: Lane,
        /// What to say.
        message: PeerMessage,
        /// Bytes, for the messages that have them.
        body: Option<BodyRef>,
    },
    /// Tells another core of this node; never lost, in order.
    Tell {
        /// Which core.
        core: CoreId,
        /// What to say.
        note: CoreNote,
    },
    /// Gives back one hold on a buffer.
    Release {
        /// Which buffer.
        buf: BufId,
    },
    /// Writes a chunk buffer, whole, to its extent.
    ChunkWrite {
        /// For the completion.
        ticket: Ticket,
        /// Where to.
        extent: Extent,
        /// The buffer.
        buf: BufId,
    },
    /// Writes slot sectors, then makes these files durable (one group sync).
    StoreCommit {
        /// For the completion.
        ticket: Ticket,
        /// File, sector number in its slot table, content.
        slots: Vec<(FileId, u32, Box<[u8; 512]>)>,
        /// Files with chunk writes since their last commit.
        files: Vec<FileId>,
    },
    /// Reads a chunk into a new buffer, header included.
    ChunkRead {
        /// For the completion.
        ticket: Ticket,
        /// Where from.
        extent: Extent,
        /// Payload bytes.
        length: u32,
    },
    /// Makes a chunk file: preallocated, header written, slot table zero, durable with its directory.
    FileCreate {
        /// Which file.
        file: FileId,
    },
    /// Writes to the log and makes it durable. At most one is under way.
    LogFlush {
        /// For the completion.
        ticket: Ticket,
        /// Segments from here on are removed first. Only when a log is mended.
        drop_from: Option<SegmentId>,
        /// What to write where. All of it belongs to one flush round.
        writes: Vec<LogWrite>,
    },
    /// Makes a segment ready for writing.
    SegmentPrepare {
        /// Which segment.
        segment: SegmentId,
        /// Its header sector.
        header: Box<[u8; 512]>,
    },
    /// Reads from a segment.
    LogRead {
        /// For the completion.
        ticket: Ticket,
        /// Which segment.
        segment: SegmentId,
        /// From where.
        offset: u32,
        /// How much.
        length: u32,
    },
    /// Segments below this one are not needed any more: recycles or removes them, the first one first.
    SegmentsRetire {
        /// The first one that is.
        end: SegmentId,
    },
    /// Writes a part of a snapshot that is not finished. Writes of one snapshot are carried out one after the other.
    SnapshotWrite {
        /// For the completion.
        ticket: Ticket,
        /// Of the snapshot. The first write of it begins a new file.
        index: LogIndex,
        /// Where to; whole sectors.
        offset: u64,
        /// What; whole sectors.
        bytes: Vec<u8>,
    },
    /// Makes a snapshot durable and gives it its name.
    SnapshotFinish {
        /// For the completion.
        ticket: Ticket,
        /// Which.
        index: LogIndex,
    },
    /// Reads from a snapshot that is finished.
    SnapshotRead {
        /// For the completion.
        ticket: Ticket,
        /// Which.
        index: LogIndex,
        /// From where; whole sectors.
        offset: u64,
        /// At most so much; whole sectors.
        length: u32,
    },
    /// A snapshot is not needed any more, finished or not. It is gone at the latest when its name is needed again.
    SnapshotRemove {
        /// Which.
        index: LogIndex,
    },
    /// Writes term and vote: first copy, sync, second copy, sync.
    VoteWrite {
        /// For the completion.
        ticket: Ticket,
        /// One copy.
        sector: Box<[u8; 512]>,
    },
    /// Replaces the identity file: new file, sync, rename, sync of the directory.
    IdentityWrite {
        /// For the completion.
        ticket: Ticket,
        /// The file's content.
        bytes: Vec<u8>,
    },
    /// The cluster this node belongs to is known now; links made before must be made again.
    ClusterKnown {
        /// Its identity.
        cluster: ClusterId,
        /// This node's life.
        incarnation: Incarnation,
    },
    /// Addresses of peers, from the configuration and the ring.
    PeerAddress {
        /// Which node.
        node: NodeId,
        /// "host:port".
        address: String,
    },
    /// The process must end: a promise could not be kept otherwise.
    Fatal {
        /// For people, with the remedy.
        text: String,
    },
}

/// One write of a log flush.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogWrite {
    /// The file.
    pub file: LogFile,
    /// Byte offset in it.
    pub offset: u32,
    /// The bytes. Not aligned: the device keeps the content of a shared first sector and rewrites it unchanged.
    pub bytes: Vec<u8>,
}

/// The files of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogFile {
    /// A segment.
    Segment(SegmentId),
    /// The ring of round identifiers.
    Rounds,
}

/// What the cores of one node tell each other. Never leaves the node.
#[derive(Clone, Debug)]
pub enum CoreNote {
    /// From core 0: the state that every core needs to route and judge.
    View(Arc<View>),
    /// From core 0: a record names this core as holder of `image`.
    Claim {
        /// Which image.
        image: ImageId,
        /// The record.
        index: LogIndex,
        /// Which bytes it speaks of.
        fingerprint: Fingerprint,
        /// For whom the record made the image ready; none are named for records that came with a snapshot.
        receivers: Vec<Arc<str>>,
    },
    /// From core 0, after start: as many `Claim`s, of records found, in the order of their indexes.
    Claims {
        /// Which image, which bytes, which record.
        claims: Vec<(ImageId, Fingerprint, LogIndex)>,
    },
    /// From core 0: all receivers of that record acknowledged.
    Free {
        /// Which image.
        image: ImageId,
        /// The record.
        index: LogIndex,
    },
    /// From core 0, once after start: every claim of the records before was told.
    ClaimsComplete,
    /// To core 0, once after start: images in my store that no claim named.
    Unclaimed {
        /// Which.
        images: Vec<ImageId>,
    },
    /// To core 0: who has the bytes of that record?
    HoldersAsk {
        /// Of which image it is.
        image: ImageId,
        /// The record.
        index: LogIndex,
    },
    /// From core 0, the answer.
    Holders {
        /// Of which image it is.
        image: ImageId,
        /// The record.
        index: LogIndex,
        /// Nobody if the image is damaged; `None` if no receiver of the record waits for it any more.
        holders: Option<Vec<Holder>>,
    },
    /// From core 0, the answer: the applied records prove that these are finished, and not held here by any record.
    Finished {
        /// Which.
        images: Vec<ImageId>,
    },
    /// To core 0: deliver this inbox to me from now on.
    InboxSubscribe {
        /// The receiver.
        name: String,
        /// Who asks; comes back.
        conn: ConnId,
    },
    /// From core 0: the answer.
    InboxSubscribed {
        /// Who asked.
        conn: ConnId,
        /// The inbox and its committed acknowledgements, or why not.
        result: Result<(InboxId, InboxSeq), Refusal>,
    },
    /// To core 0: give me entries after this one as they come.
    InboxPull {
        /// The inbox.
        inbox: InboxId,
        /// Who asks.
        conn: ConnId,
        /// The last one it has.
        after: InboxSeq,
    },
    /// From core 0: entries in order, without gap, from where the pull asked; at most `limits::INBOX_PULL_ENTRIES`.
    /// Empty never comes: core 0 answers when there is something.
    InboxEntries {
        /// The inbox.
        inbox: InboxId,
        /// Who asked.
        conn: ConnId,
        /// What is next.
        entries: Vec<InboxEntry>,
    },
    /// To core 0: no more.
    InboxUnsubscribe {
        /// Who asked before.
        conn: ConnId,
    },
    /// From core 0: send a report now.
    ReportAsk,
    /// To core 0: for the status of the node. Sent about once a second and when it changed much.
    Report(CoreStatus),
    /// To core 0: a client asks for the node's status.
    StatusAsk {
        /// Who asks.
        conn: ConnId,
        /// Its request.
        request: proto::ids::RequestId,
    },
    /// From core 0: the answer.
    StatusTold {
        /// Who asked.
        conn: ConnId,
        /// Its request.
        request: proto::ids::RequestId,
        /// The node's state.
        status: Box<proto::client::NodeStatus>,
    },
}

/// An image in an inbox, as the home needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxEntry {
    /// Place in the inbox.
    pub seq: InboxSeq,
    /// Which image.
    pub image: ImageId,
    /// Length and checksum.
    pub fingerprint: Fingerprint,
    /// Who sent it.
    pub sender: Arc<str>,
    /// The file name.
    pub name: Arc<str>,
    /// Who has the bytes.
    pub holders: Vec<Holder>,
    /// The record.
    pub index: LogIndex,
}

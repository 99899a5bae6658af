//! The fixed header in front of every frame on the wire.
//!
//! A frame is this header, then the meta (a flatbuffer, see `codec`), then the body (image bytes, as they are). The header
//! says all that is needed to read the rest: the body goes from the socket straight into its buffer. All numbers are
//! little-endian.
//!
//! ```text
//!  0  magic "HELI"       16  CRC-32 of the meta    40  source core   44  reserved, zero (16 bytes)
//!  4  header version     20  CRC-32 of the body    42  target core   60  CRC-32 of the bytes 0..60
//!  6  kind               24  source node
//!  8  bytes of meta      32  target node
//! 12  bytes of body
//! ```
//!
//! Source and target are those of a peer message, so that it can be routed without decoding its meta; in all other kinds
//! they are zero. The CRC-32 of a body stands here and nowhere else; decoded messages that have one took it from here.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::crc32;
use crate::ids::{Address, CoreId, NodeId};
use crate::limits::{CLIENT_META_BYTES_MAX, CORES_MAX, FRAME_BODY_BYTES_MAX, FRAME_META_BYTES_MAX};

/// Bytes of the header.
pub const FRAME_HEADER_BYTES: usize = 64;
/// Version of the header's layout. What messages exist is agreed on in the handshake, not here.
pub const FRAME_VERSION: u16 = 1;

const MAGIC: [u8; 4] = *b"HELI";
const CHECKED_BYTES: usize = FRAME_HEADER_BYTES - 4;

/// The header as it is on the wire.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Layout {
    magic: [u8; 4],
    version: U16,
    kind: U16,
    meta_bytes: U32,
    body_bytes: U32,
    meta_crc32: U32,
    body_crc32: U32,
    source_node: U64,
    target_node: U64,
    source_core: U16,
    target_core: U16,
    reserved: [u8; 16],
    header_crc32: U32,
}

const _: () = assert!(size_of::<Layout>() == FRAME_HEADER_BYTES);
const _: () = assert!(std::mem::offset_of!(Layout, header_crc32) == CHECKED_BYTES);
const _: () = assert!(FRAME_META_BYTES_MAX <= u32::MAX as usize);
const _: () = assert!(FRAME_BODY_BYTES_MAX <= u32::MAX as usize);

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// What a frame is: which message its meta holds. Numbers are part of the format and never used again; the upper
        /// byte is the group.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u16)]
        pub enum Kind {
            $($(#[$doc])* $name = $code,)*
        }

        impl Kind {
            /// All kinds, by number.
            pub const ALL: &[Kind] = &[$(Kind::$name,)*];

            /// The kind with that number, if this build knows it.
            pub fn from_code(code: u16) -> Option<Kind> {
                match code {
                    $($code => Some(Kind::$name),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// `ClientRequest::Hello`.
    RequestHello = 0x0101,
    /// `ClientRequest::Register`.
    RequestRegister = 0x0102,
    /// `ClientRequest::OpenSession`.
    RequestOpenSession = 0x0103,
    /// `ClientRequest::Begin`.
    RequestBegin = 0x0104,
    /// `ClientRequest::Chunk`, with a body.
    RequestChunk = 0x0105,
    /// `ClientRequest::OpenInbox`.
    RequestOpenInbox = 0x0106,
    /// `ClientRequest::InboxCredit`.
    RequestInboxCredit = 0x0107,
    /// `ClientRequest::Ack`.
    RequestAck = 0x0108,
    /// `ClientRequest::Probe`.
    RequestProbe = 0x0109,
    /// `ClientRequest::Status`.
    RequestStatus = 0x010a,
    /// `ClientRequest::Ping`.
    RequestPing = 0x010b,

    /// `ClientReply::Welcome`.
    ReplyWelcome = 0x0201,
    /// `ClientReply::Registered`.
    ReplyRegistered = 0x0202,
    /// `ClientReply::SessionOpened`.
    ReplySessionOpened = 0x0203,
    /// `ClientReply::BeginAnswer`.
    ReplyBeginAnswer = 0x0204,
    /// `ClientReply::Progress`.
    ReplyProgress = 0x0205,
    /// `ClientReply::Accepted`.
    ReplyAccepted = 0x0206,
    /// `ClientReply::Refused`.
    ReplyRefused = 0x0207,
    /// `ClientReply::Credit`.
    ReplyCredit = 0x0208,
    /// `ClientReply::InboxOpened`.
    ReplyInboxOpened = 0x0209,
    /// `ClientReply::Head`.
    ReplyHead = 0x020a,
    /// `ClientReply::Chunk`, with a body.
    ReplyChunk = 0x020b,
    /// `ClientReply::Acked`.
    ReplyAcked = 0x020c,
    /// `ClientReply::ProbeDone`.
    ReplyProbeDone = 0x020d,
    /// `ClientReply::Status`.
    ReplyStatus = 0x020e,
    /// `ClientReply::Pong`.
    ReplyPong = 0x020f,
    /// `ClientReply::RingChanged`.
    ReplyRingChanged = 0x0210,
    /// `ClientReply::Failure`.
    ReplyFailure = 0x0211,

    /// `PeerHello`.
    LinkHello = 0x0301,
    /// `PeerWelcome::Welcome`.
    LinkWelcome = 0x0302,
    /// `PeerWelcome::Refused`.
    LinkRefused = 0x0303,
    /// `LinkCredit`.
    LinkCredit = 0x0304,

    /// `Bootstrap::Empty`.
    PeerBootstrapEmpty = 0x0401,
    /// `Bootstrap::Minted`.
    PeerBootstrapMinted = 0x0402,
    /// `PeerMessage::Raft`.
    PeerRaft = 0x0403,
    /// `PeerMessage::Request`.
    PeerRequest = 0x0404,
    /// `PeerMessage::Answer`.
    PeerAnswer = 0x0405,
    /// `PeerMessage::Upload`.
    PeerUpload = 0x0406,
    /// `PeerMessage::UploadChunk`, with a body.
    PeerUploadChunk = 0x0407,
    /// `PeerMessage::UploadProgress`.
    PeerUploadProgress = 0x0408,
    /// `PeerMessage::UploadRefused`.
    PeerUploadRefused = 0x0409,
    /// `PeerMessage::UploadReady`.
    PeerUploadReady = 0x040a,
    /// `PeerMessage::UploadCancel`.
    PeerUploadCancel = 0x040b,
    /// `PeerMessage::Fetch`.
    PeerFetch = 0x040c,
    /// `PeerMessage::Fetched`, with a body.
    PeerFetched = 0x040d,
    /// `PeerMessage::FetchFailed`.
    PeerFetchFailed = 0x040e,
    /// `PeerMessage::HealAsk`.
    PeerHealAsk = 0x040f,
    /// `PeerMessage::HealAnswer`.
    PeerHealAnswer = 0x0410,
    /// `PeerMessage::SnapshotOffer`.
    PeerSnapshotOffer = 0x0411,
    /// `PeerMessage::SnapshotAsk`.
    PeerSnapshotAsk = 0x0412,
    /// `PeerMessage::SnapshotPart`.
    PeerSnapshotPart = 0x0413,
    /// `PeerMessage::SnapshotGone`.
    PeerSnapshotGone = 0x0414,
    /// `Bootstrap::Rejoin`.
    PeerBootstrapRejoin = 0x0420,
    /// `Bootstrap::Admitted`.
    PeerBootstrapAdmitted = 0x0421,
    /// `Bootstrap::Deferred`.
    PeerBootstrapDeferred = 0x0422,
}

/// Who says messages of a kind to whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum KindGroup {
    /// A client to a node.
    ClientRequest,
    /// A node to a client.
    ClientReply,
    /// The ends of a link about the link itself.
    Link,
    /// One core to another: a `PeerMessage`.
    Peer,
}

impl Kind {
    /// The number on the wire.
    pub fn code(self) -> u16 {
        self as u16
    }

    /// Who says it to whom.
    pub fn group(self) -> KindGroup {
        match self.code() >> 8 {
            1 => KindGroup::ClientRequest,
            2 => KindGroup::ClientReply,
            3 => KindGroup::Link,
            _ => KindGroup::Peer,
        }
    }

    /// Whether a frame of this kind has a body. It then has at least one byte of it, and otherwise none.
    pub fn has_body(self) -> bool {
        matches!(self, Kind::RequestChunk | Kind::ReplyChunk | Kind::PeerUploadChunk | Kind::PeerFetched)
    }
}

/// What the reader of a connection takes, checked before a byte of meta or body is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameLimits {
    /// Bytes of meta.
    pub meta_bytes_max: usize,
    /// Bytes of body.
    pub body_bytes_max: usize,
}

impl FrameLimits {
    /// For the first frame of a connection to a node, from someone not yet known.
    pub const HANDSHAKE: FrameLimits = FrameLimits { meta_bytes_max: 8 << 10, body_bytes_max: 0 };
    /// For what clients say.
    pub const CLIENT_REQUEST: FrameLimits =
        FrameLimits { meta_bytes_max: CLIENT_META_BYTES_MAX, body_bytes_max: FRAME_BODY_BYTES_MAX };
    /// For what nodes say to clients.
    pub const CLIENT_REPLY: FrameLimits =
        FrameLimits { meta_bytes_max: FRAME_META_BYTES_MAX, body_bytes_max: FRAME_BODY_BYTES_MAX };
    /// For what nodes say to each other.
    pub const PEER: FrameLimits =
        FrameLimits { meta_bytes_max: FRAME_META_BYTES_MAX, body_bytes_max: FRAME_BODY_BYTES_MAX };
}

/// Why 64 bytes are not the header of a frame that the reader takes. The connection cannot go on after any of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// The other end speaks something else.
    #[error("not a Heliograph frame: begins with {found:02x?}")]
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// The other end uses another layout of the header.
    #[error("frame header version {found}, this build knows {FRAME_VERSION}")]
    Version {
        /// The version it uses.
        found: u16,
    },
    /// The header was changed on its way.
    #[error("frame header checksum {found:08x}, expected {expected:08x}")]
    Checksum {
        /// As in the header.
        expected: u32,
        /// Computed.
        found: u32,
    },
    /// Bytes that must be zero are not.
    #[error("reserved bytes of the frame header are not zero")]
    Reserved,
    /// No such kind.
    #[error("unknown frame kind {code:#06x}")]
    Kind {
        /// Its number.
        code: u16,
    },
    /// Too much meta.
    #[error("{kind:?} frame with {found} bytes of meta, at most {max}")]
    MetaLength {
        /// The kind.
        kind: Kind,
        /// As in the header.
        found: usize,
        /// What the reader takes.
        max: usize,
    },
    /// Too large a body, or none where there must be one, or one where there must be none.
    #[error("{kind:?} frame with {found} bytes of body, expected {min} to {max}")]
    BodyLength {
        /// The kind.
        kind: Kind,
        /// As in the header.
        found: usize,
        /// 1 if the kind has a body.
        min: usize,
        /// What the reader takes; 0 if the kind has no body.
        max: usize,
    },
    /// A frame without body has no checksum of one.
    #[error("{kind:?} frame without body has a body checksum")]
    BodyChecksumWithoutBody {
        /// The kind.
        kind: Kind,
    },
    /// A peer message without source or target, or another frame with one.
    #[error("{kind:?} frame from {source_address} to {target_address}")]
    Route {
        /// The kind.
        kind: Kind,
        /// As in the header.
        source_address: Address,
        /// As in the header.
        target_address: Address,
    },
}

/// The body of a frame is not what its sender sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("body checksum {found:08x}, expected {expected:08x}")]
pub struct BodyMismatch {
    /// As in the header.
    pub expected: u32,
    /// Computed.
    pub found: u32,
}

/// A header that was checked: of a kind this build knows, within the reader's limits, unchanged on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameHeader {
    kind: Kind,
    meta_bytes: u32,
    body_bytes: u32,
    meta_crc32: u32,
    body_crc32: u32,
    source: Address,
    target: Address,
}

impl FrameHeader {
    /// The header in `bytes`, if it is one and within `limits`.
    pub fn parse(bytes: &[u8; FRAME_HEADER_BYTES], limits: FrameLimits) -> Result<FrameHeader, FrameError> {
        let layout: &Layout = zerocopy::transmute_ref!(bytes);
        if layout.magic != MAGIC {
            return Err(FrameError::Magic { found: layout.magic });
        }
        if layout.version.get() != FRAME_VERSION {
            return Err(FrameError::Version { found: layout.version.get() });
        }
        let (expected, found) = (layout.header_crc32.get(), crc32(&bytes[..CHECKED_BYTES]));
        if expected != found {
            return Err(FrameError::Checksum { expected, found });
        }
        if layout.reserved != [0; 16] {
            return Err(FrameError::Reserved);
        }
        let code = layout.kind.get();
        let Some(kind) = Kind::from_code(code) else { return Err(FrameError::Kind { code }) };
        let header = FrameHeader {
            kind,
            meta_bytes: layout.meta_bytes.get(),
            body_bytes: layout.body_bytes.get(),
            meta_crc32: layout.meta_crc32.get(),
            body_crc32: layout.body_crc32.get(),
            source: Address { node: NodeId(layout.source_node.get()), core: CoreId(layout.source_core.get()) },
            target: Address { node: NodeId(layout.target_node.get()), core: CoreId(layout.target_core.get()) },
        };
        header.check(limits)?;
        Ok(header)
    }

    fn check(&self, limits: FrameLimits) -> Result<(), FrameError> {
        let kind = self.kind;
        if self.meta_bytes() > limits.meta_bytes_max {
            return Err(FrameError::MetaLength { kind, found: self.meta_bytes(), max: limits.meta_bytes_max });
        }
        let (min, max) = if kind.has_body() { (1, limits.body_bytes_max) } else { (0, 0) };
        if self.body_bytes() < min || self.body_bytes() > max {
            return Err(FrameError::BodyLength { kind, found: self.body_bytes(), min, max });
        }
        if !kind.has_body() && self.body_crc32 != 0 {
            return Err(FrameError::BodyChecksumWithoutBody { kind });
        }
        let routed = match kind.group() {
            KindGroup::Peer => is_shard(self.source) && is_shard(self.target),
            _ => self.source == Address::default() && self.target == Address::default(),
        };
        if !routed {
            return Err(FrameError::Route { kind, source_address: self.source, target_address: self.target });
        }
        Ok(())
    }

    /// Which message the meta holds.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Bytes of meta that follow the header.
    pub fn meta_bytes(&self) -> usize {
        self.meta_bytes as usize
    }

    /// Bytes of body that follow the meta.
    pub fn body_bytes(&self) -> usize {
        self.body_bytes as usize
    }

    /// CRC-32 that the meta must have.
    pub fn meta_crc32(&self) -> u32 {
        self.meta_crc32
    }

    /// CRC-32 that the body must have; 0 if there is none.
    pub fn body_crc32(&self) -> u32 {
        self.body_crc32
    }

    /// Who says a peer message; the default address for other kinds.
    pub fn source(&self) -> Address {
        self.source
    }

    /// To whom a peer message goes; the default address for other kinds.
    pub fn target(&self) -> Address {
        self.target
    }

    /// Whether `body` is what the sender sent. Reads every byte of it.
    pub fn check_body(&self, body: &[u8]) -> Result<(), BodyMismatch> {
        let (expected, found) = (self.body_crc32, crc32(body));
        if body.len() != self.body_bytes() || expected != found {
            return Err(BodyMismatch { expected, found });
        }
        Ok(())
    }

    /// The header of a frame with that meta and a body as described.
    pub(crate) fn new(kind: Kind, meta: &[u8], body: BodyHead, source: Address, target: Address) -> FrameHeader {
        assert!(meta.len() <= FRAME_META_BYTES_MAX, "{kind:?} with {} bytes of meta", meta.len());
        assert!(body.bytes <= FRAME_BODY_BYTES_MAX, "{kind:?} with {} bytes of body", body.bytes);
        let header = FrameHeader {
            kind,
            meta_bytes: meta.len() as u32,
            body_bytes: body.bytes as u32,
            meta_crc32: crc32(meta),
            body_crc32: body.crc32,
            source,
            target,
        };
        let checked = header.check(FrameLimits::PEER);
        assert!(checked.is_ok(), "{checked:?}");
        header
    }

    /// The header as it goes out.
    pub(crate) fn to_bytes(self) -> [u8; FRAME_HEADER_BYTES] {
        let mut layout = Layout {
            magic: MAGIC,
            version: U16::new(FRAME_VERSION),
            kind: U16::new(self.kind.code()),
            meta_bytes: U32::new(self.meta_bytes),
            body_bytes: U32::new(self.body_bytes),
            meta_crc32: U32::new(self.meta_crc32),
            body_crc32: U32::new(self.body_crc32),
            source_node: U64::new(self.source.node.0),
            target_node: U64::new(self.target.node.0),
            source_core: U16::new(self.source.core.0),
            target_core: U16::new(self.target.core.0),
            reserved: [0; 16],
            header_crc32: U32::ZERO,
        };
        layout.header_crc32 = U32::new(crc32(&layout.as_bytes()[..CHECKED_BYTES]));
        zerocopy::transmute!(layout)
    }
}

/// What a header says of a body.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct BodyHead {
    pub bytes: usize,
    pub crc32: u32,
}

fn is_shard(address: Address) -> bool {
    address.node.0 > 0 && usize::from(address.core.0) < CORES_MAX
}

#[cfg(test)]
#[path = "frame_test.rs"]
mod tests;

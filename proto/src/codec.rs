//! Turns messages into frames and log records into bytes, and back.
//!
//! ```text
//! encode:  message --check--> flatbuffer in the encoder --> header + meta, appended to `out`; the caller sends the body
//! decode:  meta --checksum--> --flatbuffers verifier--> --owned message--> --check--> message
//! ```
//!
//! Decoding never panics, whatever the bytes are, and what it returns keeps every rule of `check`. Encoding panics on a
//! message that breaks a rule, in log records always and else in debug builds: that is our own mistake.
//!
//! One encoder a core or thread is enough: it keeps its memory, so that encoding a small message does not allocate.

mod leader;
mod link;
mod parts;
mod peer;
mod record;
mod reply;
mod request;
mod snapshot;

pub use link::{
    decode_link_credit, decode_peer_hello, decode_peer_welcome, encode_link_credit, encode_peer_hello,
    encode_peer_welcome,
};
pub use peer::{decode_peer_message, encode_peer_message};
pub use record::{decode_record, encode_record, encode_record_with};
pub use reply::{decode_client_reply, encode_client_reply};
pub use request::{decode_client_request, encode_client_request};
pub use snapshot::{decode_piece, encode_piece};

use flatbuffers::{FlatBufferBuilder, Follow, InvalidFlatbuffer, Verifiable, VerifierOptions, WIPOffset};

use crate::check::CheckError;
use crate::checksum::crc32;
use crate::error::Refusal;
use crate::frame::{BodyHead, FrameHeader, Kind};
use crate::ids::Address;
use crate::limits::NODES_MAX;

/// Tables deep: a reply, a status, its ring, a member; one to spare.
const TABLE_DEPTH_MAX: usize = 5;
/// The members of a ring are the most tables that a message has.
const TABLES_MAX: usize = NODES_MAX + 8;

type Builder = FlatBufferBuilder<'static>;

/// Memory for encoding, used again and again. It keeps the size of the largest message it ever encoded.
pub struct Encoder {
    builder: Builder,
    offsets: Vec<u32>, // of the items of a list under construction
    bytes: Vec<u8>,    // the data of all entries of a raft message
}

impl Default for Encoder {
    fn default() -> Self {
        Encoder::new()
    }
}

impl Encoder {
    /// An encoder with room for small messages.
    pub fn new() -> Encoder {
        Encoder { builder: FlatBufferBuilder::with_capacity(1024), offsets: Vec::new(), bytes: Vec::new() }
    }

    /// Ready for the next message. The bytes of the last one are gone.
    fn start(&mut self) {
        self.builder.reset();
        self.offsets.clear();
        self.bytes.clear();
    }

    /// The finished flatbuffer.
    fn finish<T>(&mut self, root: WIPOffset<T>) -> &[u8] {
        self.builder.finish_minimal(root);
        self.builder.finished_data()
    }

    /// Appends header and meta of a frame between two cores.
    fn finish_frame<T>(
        &mut self,
        (kind, root): (Kind, WIPOffset<T>),
        body: BodyHead,
        (source, target): (Address, Address),
        out: &mut Vec<u8>,
    ) {
        let meta = self.finish(root);
        let header = FrameHeader::new(kind, meta, body, source, target);
        out.extend_from_slice(&header.to_bytes());
        out.extend_from_slice(meta);
    }
}

/// Why the meta of a frame or a log record is not a message that keeps the rules.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The reader asked for another group of messages.
    #[error("a frame of kind {kind:?} has no place here")]
    KindUnexpected {
        /// Its kind.
        kind: Kind,
    },
    /// The caller gave other bytes than the header announces.
    #[error("{found} bytes of meta, the header says {expected}")]
    MetaLength {
        /// As in the header.
        expected: usize,
        /// As given.
        found: usize,
    },
    /// The meta was changed on its way.
    #[error("meta checksum {found:08x}, expected {expected:08x}")]
    MetaChecksum {
        /// As in the header.
        expected: u32,
        /// Computed.
        found: u32,
    },
    /// Not a flatbuffer of the schema. Boxed, since it is large and rare.
    #[error("malformed meta: {0}")]
    Malformed(#[from] Box<InvalidFlatbuffer>),
    /// A code or union type that this build does not know.
    #[error("{field} has the unknown code {code}")]
    CodeUnknown {
        /// Which field.
        field: &'static str,
        /// Its code.
        code: u64,
    },
    /// Two fields that contradict each other.
    #[error("{field} contradicts another field")]
    Contradiction {
        /// One of them.
        field: &'static str,
    },
    /// A rule is broken.
    #[error(transparent)]
    Check(#[from] CheckError),
}

impl DecodeError {
    /// What to answer the sender before its connection ends.
    pub fn refusal(&self) -> Refusal {
        match self {
            DecodeError::Check(CheckError::Name { .. }) => Refusal::NameInvalid,
            _ => Refusal::BadRequest,
        }
    }
}

/// Whether `meta` is that of `header`, unchanged.
fn check_meta(header: &FrameHeader, meta: &[u8]) -> Result<(), DecodeError> {
    if header.meta_bytes() != meta.len() {
        return Err(DecodeError::MetaLength { expected: header.meta_bytes(), found: meta.len() });
    }
    let (expected, found) = (header.meta_crc32(), crc32(meta));
    if expected != found {
        return Err(DecodeError::MetaChecksum { expected, found });
    }
    Ok(())
}

/// The root table of type `T` in `bytes`, verified.
///
/// The verifier counts bytes as often as they are reached, so the bound on that sum also bounds what decoding allocates:
/// a list that names one long string a thousand times is refused. No honest message reaches a byte more than twice.
fn root<'a, T: Follow<'a> + Verifiable + 'a>(bytes: &'a [u8]) -> Result<T::Inner, DecodeError> {
    let options = VerifierOptions {
        max_depth: TABLE_DEPTH_MAX,
        max_tables: TABLES_MAX,
        max_apparent_size: 4 * bytes.len() + 1024,
        ignore_missing_null_terminator: false,
    };
    flatbuffers::root_with_opts::<T>(&options, bytes).map_err(|error| DecodeError::Malformed(Box::new(error)))
}

/// The body of a message that has one.
fn body_of(bytes: usize, crc32: u32) -> BodyHead {
    BodyHead { bytes, crc32 }
}

#[cfg(test)]
#[path = "codec_rules_test.rs"]
mod rules_tests;
#[cfg(test)]
#[path = "codec_test.rs"]
mod tests;

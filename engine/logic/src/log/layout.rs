//! What a segment of the log looks like: its header and the framing of its entries. The only parser of both.
//!
//! ```text
//! segment   0    header, one sector
//!           512  entries, each beginning at a multiple of 8, up to the seal or to the end of what was written
//!
//! header    0    8   magic "HELIOSEG"
//!           8    2   version
//!           10   2   zero
//!           12   4   bytes of the segment
//!           16   8   number of the segment; the first is 1
//!           24   8   signature: from a counter, never used twice in one store
//!           32   16  cluster
//!           48   16  nonce of the store
//!           64   8   flush round known durable when this header was made
//!           72   8   segment, and
//!           80   4   offset: everything in the log before this position was durable then
//!           84   424 zero
//!           508  4   CRC-32 of bytes 0..508
//!
//! entry     0    4   CRC-32 of bytes 4..64, begun with the segment's seed
//!           4    4   bytes of the payload
//!           8    8   signature of the segment
//!           16   8   flush round
//!           24   8   last flush round known durable when this entry was written
//!           32   8   term
//!           40   8   index
//!           48   8   commit hint: this index, at most its own, was known to be committed
//!           56   4   offset at which the round began
//!           60   1   kind: 1 record, 2 seal
//!           61   1   flags: 1 last of its round; 2 the round began in the segment before
//!           62   2   zero
//!           64   n   payload
//!           64+n 4   CRC-32 of the payload, begun with the CRC of the header
//!           ...      zeros up to a multiple of 8
//! ```
//! All integers are little-endian. The seed is a CRC of cluster, nonce, segment and signature, so bytes of another store,
//! another segment or a recycled file never decode here. The payload's CRC continues the header's, so the payload of one
//! entry never passes for that of another. Zeros never decode: a signature and a kind are never 0. No number of 8 bytes
//! that is counted (all but cluster and nonce) is above `POSITION_MAX`.

use std::fmt;

use proto::ids::{ClusterId, LogIndex, Term};
use proto::limits::SECTOR_BYTES;

use crate::io::SegmentId;
use crate::limits::POSITION_MAX;

/// Bytes of the header of a segment: entries begin here.
pub const SEGMENT_HEADER_BYTES: u32 = SECTOR_BYTES as u32;
/// Bytes of an entry before its payload.
pub const ENTRY_HEADER_BYTES: u32 = 64;
/// Entries begin at multiples of this.
pub const ENTRY_ALIGN_BYTES: u32 = 8;
/// Payload of one entry. A record with the most receivers and the longest names is far below.
pub const PAYLOAD_BYTES_MAX: u32 = 256 << 10;
/// Smallest segment that makes sense: header, a few entries, seal.
pub const SEGMENT_BYTES_MIN: u32 = 4096;
/// Segment unless configured otherwise.
pub const SEGMENT_BYTES_DEFAULT: u32 = 64 << 20;
/// The number of the first segment of a store.
pub const SEGMENT_FIRST: SegmentId = SegmentId(1);
/// What a seal takes: kept free at the end of every segment.
pub const SEAL_BYTES: u32 = entry_bytes(0);

const MAGIC: &[u8; 8] = b"HELIOSEG";
const VERSION: u16 = 1;
const CRC_AT: usize = SECTOR_BYTES - 4;
const PAYLOAD_CRC_BYTES: u32 = 4;
const FLAG_LAST: u8 = 1;
const FLAG_CONTINUED: u8 = 2;

const _: () = assert!(SEGMENT_BYTES_MIN.is_multiple_of(SEGMENT_HEADER_BYTES));
const _: () = assert!(SEGMENT_HEADER_BYTES + 2 * SEAL_BYTES < SEGMENT_BYTES_MIN);
const _: () = assert!(SEGMENT_HEADER_BYTES.is_multiple_of(ENTRY_ALIGN_BYTES));
const _: () = assert!(proto::limits::RAFT_MESSAGE_BYTES_MAX > PAYLOAD_BYTES_MAX as usize);

/// What an entry with this payload takes in a segment.
pub const fn entry_bytes(payload_bytes: u32) -> u32 {
    (ENTRY_HEADER_BYTES + payload_bytes + PAYLOAD_CRC_BYTES).next_multiple_of(ENTRY_ALIGN_BYTES)
}

/// A place in the log: ordered as written.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Position {
    /// Which segment.
    pub segment: SegmentId,
    /// Byte offset in it.
    pub offset: u32,
}

impl Position {
    /// Where the first entry of `segment` begins.
    pub fn first(segment: SegmentId) -> Position {
        Position { segment, offset: SEGMENT_HEADER_BYTES }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {} offset {}", self.segment.0, self.offset)
    }
}

/// Whose log it is: a file of another store is never taken for one of this.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StoreId {
    /// The cluster.
    pub cluster: ClusterId,
    /// Drawn once per data directory.
    pub nonce: u128,
}

/// The first sector of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentHeader {
    /// Bytes of the file.
    pub segment_bytes: u32,
    /// Which segment.
    pub segment: SegmentId,
    /// In every entry of this segment, and of no other segment there ever was.
    pub signature: u64,
    /// Whose.
    pub store: StoreId,
    /// Flush round known durable when this header was made; 0 if none.
    pub durable: u64,
    /// Everything in the log before this was durable then.
    pub durable_upto: Position,
}

/// Why a sector is not the header of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HeaderError {
    /// Shorter than a header.
    #[error("the file is shorter than a header")]
    Short,
    /// Nothing was ever written here.
    #[error("the header is zero")]
    Zero,
    /// Not a segment.
    #[error("this is not a log segment")]
    Magic,
    /// Made by another version.
    #[error("format version {found}, this program knows {VERSION}")]
    Version {
        /// What it says.
        found: u16,
    },
    /// Damaged.
    #[error("checksum of the header is {found:08x}, expected {expected:08x}")]
    Checksum {
        /// Computed.
        expected: u32,
        /// In the header.
        found: u32,
    },
    /// The checksum holds but a value makes no sense.
    #[error("the header holds an impossible value")]
    Value,
}

impl SegmentHeader {
    /// The header as it goes to disk.
    pub fn encode(&self) -> Box<[u8; SECTOR_BYTES]> {
        assert!(self.signature != 0 && self.segment.0 != 0, "segment {} signature {}", self.segment.0, self.signature);
        let mut sector = Box::new([0u8; SECTOR_BYTES]);
        sector[0..8].copy_from_slice(MAGIC);
        sector[8..10].copy_from_slice(&VERSION.to_le_bytes());
        sector[12..16].copy_from_slice(&self.segment_bytes.to_le_bytes());
        sector[16..24].copy_from_slice(&self.segment.0.to_le_bytes());
        sector[24..32].copy_from_slice(&self.signature.to_le_bytes());
        sector[32..48].copy_from_slice(&self.store.cluster.0.to_le_bytes());
        sector[48..64].copy_from_slice(&self.store.nonce.to_le_bytes());
        sector[64..72].copy_from_slice(&self.durable.to_le_bytes());
        sector[72..80].copy_from_slice(&self.durable_upto.segment.0.to_le_bytes());
        sector[80..84].copy_from_slice(&self.durable_upto.offset.to_le_bytes());
        let crc = crc32fast::hash(&sector[..CRC_AT]);
        sector[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        sector
    }

    /// Reads the header of the segment `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<SegmentHeader, HeaderError> {
        let Some(sector) = bytes.first_chunk::<SECTOR_BYTES>() else { return Err(HeaderError::Short) };
        if sector.iter().all(|byte| *byte == 0) {
            return Err(HeaderError::Zero);
        }
        if &sector[0..8] != MAGIC {
            return Err(HeaderError::Magic);
        }
        let (expected, found) = (crc32fast::hash(&sector[..CRC_AT]), u32_at(sector, CRC_AT));
        if expected != found {
            return Err(HeaderError::Checksum { expected, found });
        }
        let version = u16::from_le_bytes([sector[8], sector[9]]);
        if version != VERSION {
            return Err(HeaderError::Version { found: version });
        }
        let header = SegmentHeader {
            segment_bytes: u32_at(sector, 12),
            segment: SegmentId(u64_at(sector, 16)),
            signature: u64_at(sector, 24),
            store: StoreId { cluster: ClusterId(u128_at(sector, 32)), nonce: u128_at(sector, 48) },
            durable: u64_at(sector, 64),
            durable_upto: Position { segment: SegmentId(u64_at(sector, 72)), offset: u32_at(sector, 80) },
        };
        let counters = [header.segment.0, header.signature, header.durable, header.durable_upto.segment.0];
        let sane = header.signature != 0
            && header.segment.0 != 0
            && header.segment_bytes >= SEGMENT_BYTES_MIN
            && counters.iter().all(|counter| *counter <= POSITION_MAX);
        if sane { Ok(header) } else { Err(HeaderError::Value) }
    }

    /// What every checksum of this segment's entries begins with.
    fn seed(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.store.cluster.0.to_le_bytes());
        hasher.update(&self.store.nonce.to_le_bytes());
        hasher.update(&self.segment.0.to_le_bytes());
        hasher.update(&self.signature.to_le_bytes());
        hasher.finalize()
    }
}

/// What an entry is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EntryKind {
    /// An entry of raft.
    Record,
    /// The last of its segment; no payload; term and index are those of the record before.
    Seal,
}

/// Everything of an entry but its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryHeader {
    /// What it is.
    pub kind: EntryKind,
    /// Term.
    pub term: Term,
    /// Index.
    pub index: LogIndex,
    /// Flush round it was written in.
    pub round: u64,
    /// Last flush round known durable when it was written.
    pub durable: u64,
    /// Known to be committed when it was written, as far as the log on disk reaches with this entry. At most its index.
    pub commit: LogIndex,
    /// Where its round begins: everything before is proven durable.
    pub round_start: u32,
    /// `round_start` is an offset in the segment before this one.
    pub round_continued: bool,
    /// No entry of this round follows.
    pub round_last: bool,
}

/// An entry as found in a segment, all checksums right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Found<'a> {
    /// Where it begins.
    pub offset: u32,
    /// Where the next one would begin.
    pub next: u32,
    /// Its header.
    pub header: EntryHeader,
    /// Its payload.
    pub payload: &'a [u8],
}

impl Found<'_> {
    /// Where the round of this entry, found in `segment`, begins.
    pub fn round_start(&self, segment: SegmentId) -> Position {
        let segment = if self.header.round_continued { SegmentId(segment.0.saturating_sub(1)) } else { segment };
        Position { segment, offset: self.header.round_start }
    }
}

/// Why there is no entry at an offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Reason {
    /// Nothing was written here.
    #[error("zeros")]
    Zeros,
    /// The segment ends here, or the entry would end outside of it.
    #[error("an entry of {bytes} bytes does not fit")]
    Room {
        /// What the entry would take.
        bytes: u64,
    },
    /// The header is damaged, or is not of this segment.
    #[error("header checksum is {found:08x}, expected {expected:08x}")]
    HeaderChecksum {
        /// Computed.
        expected: u32,
        /// In the entry.
        found: u32,
    },
    /// The header is intact but holds an impossible value.
    #[error("the header holds an impossible value")]
    Value,
    /// The payload is damaged.
    #[error("payload checksum is {found:08x}, expected {expected:08x}")]
    PayloadChecksum {
        /// Computed.
        expected: u32,
        /// In the entry.
        found: u32,
    },
}

/// Appends an entry to `target`, which ends where the entry is to begin.
pub fn encode_entry(segment: &SegmentHeader, header: &EntryHeader, payload: &[u8], target: &mut Vec<u8>) {
    EntryCodec::new(segment).encode(header, payload, target);
}

/// Encodes and decodes the entries of one segment.
#[derive(Clone, Copy, Debug)]
pub struct EntryCodec {
    signature: u64,
    seed: u32,
}

impl EntryCodec {
    /// For the segment with this header.
    pub fn new(segment: &SegmentHeader) -> EntryCodec {
        EntryCodec { signature: segment.signature, seed: segment.seed() }
    }

    /// Appends an entry to `target`, whose end becomes the begin of the entry.
    pub fn encode(&self, header: &EntryHeader, payload: &[u8], target: &mut Vec<u8>) {
        assert!(payload.len() <= PAYLOAD_BYTES_MAX as usize, "payload of {} bytes", payload.len());
        assert!(header.durable < header.round, "durable {} round {}", header.durable, header.round);
        let begin = target.len();
        let (kind, flags) = (
            match header.kind {
                EntryKind::Record => 1u8,
                EntryKind::Seal => 2u8,
            },
            if header.round_last { FLAG_LAST } else { 0 } | if header.round_continued { FLAG_CONTINUED } else { 0 },
        );
        let mut fields = [0u8; ENTRY_HEADER_BYTES as usize];
        fields[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        fields[8..16].copy_from_slice(&self.signature.to_le_bytes());
        fields[16..24].copy_from_slice(&header.round.to_le_bytes());
        fields[24..32].copy_from_slice(&header.durable.to_le_bytes());
        fields[32..40].copy_from_slice(&header.term.0.to_le_bytes());
        fields[40..48].copy_from_slice(&header.index.0.to_le_bytes());
        fields[48..56].copy_from_slice(&header.commit.0.to_le_bytes());
        fields[56..60].copy_from_slice(&header.round_start.to_le_bytes());
        fields[60] = kind;
        fields[61] = flags;
        let crc = crc_from(self.seed, &fields[4..]);
        fields[0..4].copy_from_slice(&crc.to_le_bytes());
        target.extend_from_slice(&fields);
        target.extend_from_slice(payload);
        target.extend_from_slice(&crc_from(crc, payload).to_le_bytes());
        target.resize(begin + entry_bytes(payload.len() as u32) as usize, 0);
    }

    /// Reads the entry at `offset` of `bytes`, a segment or a part of one that was cut at entries.
    pub fn decode<'a>(&self, bytes: &'a [u8], offset: u32) -> Result<Found<'a>, Reason> {
        assert!(offset.is_multiple_of(ENTRY_ALIGN_BYTES), "offset {offset}");
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let Some(fields) = rest.first_chunk::<{ ENTRY_HEADER_BYTES as usize }>() else {
            return Err(Reason::Room { bytes: u64::from(ENTRY_HEADER_BYTES) });
        };
        if fields.iter().all(|byte| *byte == 0) {
            return Err(Reason::Zeros);
        }
        let (expected, found) = (crc_from(self.seed, &fields[4..]), u32_at(fields, 0));
        if expected != found {
            return Err(Reason::HeaderChecksum { expected, found });
        }
        let header = self.decode_header(fields).ok_or(Reason::Value)?;
        let payload_bytes = u32_at(fields, 4);
        if payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(Reason::Value);
        }
        let whole = entry_bytes(payload_bytes);
        let Some(body) = rest.get(ENTRY_HEADER_BYTES as usize..whole as usize) else {
            return Err(Reason::Room { bytes: u64::from(whole) });
        };
        let (payload, tail) = body.split_at(payload_bytes as usize);
        let (expected, found) = (crc_from(found, payload), u32_at(tail, 0));
        if expected != found {
            return Err(Reason::PayloadChecksum { expected, found });
        }
        Ok(Found { offset, next: offset + whole, header, payload })
    }

    /// The values of a header whose checksum is right, if they can be.
    fn decode_header(&self, fields: &[u8; ENTRY_HEADER_BYTES as usize]) -> Option<EntryHeader> {
        let kind = match fields[60] {
            1 => EntryKind::Record,
            2 => EntryKind::Seal,
            _ => return None,
        };
        let flags = fields[61];
        let header = EntryHeader {
            kind,
            term: Term(u64_at(fields, 32)),
            index: LogIndex(u64_at(fields, 40)),
            round: u64_at(fields, 16),
            durable: u64_at(fields, 24),
            commit: LogIndex(u64_at(fields, 48)),
            round_start: u32_at(fields, 56),
            round_continued: flags & FLAG_CONTINUED != 0,
            round_last: flags & FLAG_LAST != 0,
        };
        // The durable round is below the round.
        let counters = [header.term.0, header.index.0, header.round, header.commit.0];
        let sane = u64_at(fields, 8) == self.signature
            && flags & !(FLAG_LAST | FLAG_CONTINUED) == 0
            && header.durable < header.round
            && counters.iter().all(|counter| *counter <= POSITION_MAX)
            && header.round_start >= SEGMENT_HEADER_BYTES
            && header.round_start.is_multiple_of(ENTRY_ALIGN_BYTES);
        sane.then_some(header)
    }
}

/// Reads the entries of one segment, in place.
///
/// For recovery, for catch-up and for the inspector: there is no other way to read a segment.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    header: SegmentHeader,
    codec: EntryCodec,
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads the header of a segment. What is behind the length that the header states is ignored.
    pub fn new(bytes: &'a [u8]) -> Result<Reader<'a>, HeaderError> {
        let header = SegmentHeader::decode(bytes)?;
        let bytes = bytes.get(..header.segment_bytes as usize).unwrap_or(bytes);
        Ok(Reader { header, codec: EntryCodec::new(&header), bytes })
    }

    /// The header.
    pub fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// The bytes of the segment, header included; shorter than the header states if the file is cut short.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The entry at `offset`, which is a multiple of `ENTRY_ALIGN_BYTES`.
    pub fn entry(&self, offset: u32) -> Result<Found<'a>, Reason> {
        self.codec.decode(self.bytes, offset)
    }

    /// The entries from the first one on, in order, up to and including the seal or the first place that is no entry.
    pub fn entries(&self) -> Entries<'a> {
        Entries { reader: *self, offset: SEGMENT_HEADER_BYTES, done: false }
    }

    /// Every intact entry that begins at or behind `offset`, wherever it lies: what is left behind a bad one.
    pub fn resync(&self, offset: u32) -> impl Iterator<Item = Found<'a>> + use<'a> {
        let reader = *self;
        let signature = reader.header.signature.to_le_bytes();
        let mut at = offset.max(SEGMENT_HEADER_BYTES).next_multiple_of(ENTRY_ALIGN_BYTES);
        std::iter::from_fn(move || {
            while (at as usize) + ENTRY_HEADER_BYTES as usize <= reader.bytes.len() {
                let here = at;
                at += ENTRY_ALIGN_BYTES;
                // Eight bytes tell nearly always that there is nothing here.
                let may_be = reader.bytes[here as usize + 8..here as usize + 16] == signature;
                if may_be && let Ok(found) = reader.entry(here) {
                    at = found.next;
                    return Some(found);
                }
            }
            None
        })
    }

    /// End of the last byte that is not zero, at or behind `offset`; `offset` if there is none.
    pub fn used_end(&self, offset: u32) -> u32 {
        let rest = self.bytes.get(offset as usize..).unwrap_or_default();
        let used = rest.rchunks(4096).position(|chunk| chunk.iter().any(|byte| *byte != 0)).map_or(0, |zero_chunks| {
            let upto = rest.len() - zero_chunks * 4096;
            rest[..upto].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
        });
        offset + used as u32
    }
}

/// See `Reader::entries`.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    reader: Reader<'a>,
    offset: u32,
    done: bool,
}

/// A place that is no entry, where one could be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bad {
    /// Where.
    pub offset: u32,
    /// Why.
    pub reason: Reason,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Found<'a>, Bad>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        match self.reader.entry(self.offset) {
            Ok(found) => {
                self.offset = found.next;
                self.done = found.header.kind == EntryKind::Seal;
                Some(Ok(found))
            }
            Err(reason) => {
                self.done = true;
                Some(Err(Bad { offset: self.offset, reason }))
            }
        }
    }
}

fn crc_from(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were asked for"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were asked for"))
}

fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(bytes[at..at + 16].try_into().expect("sixteen bytes were asked for"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn segment() -> SegmentHeader {
        SegmentHeader {
            segment_bytes: 8192,
            segment: SegmentId(3),
            signature: 7,
            store: StoreId { cluster: ClusterId(1 << 99), nonce: 1 << 88 },
            durable: 11,
            durable_upto: Position { segment: SegmentId(2), offset: 4096 },
        }
    }

    fn header(index: u64) -> EntryHeader {
        EntryHeader {
            kind: EntryKind::Record,
            term: Term(4),
            index: LogIndex(index),
            round: 12,
            durable: 11,
            commit: LogIndex(index - 1),
            round_start: 512,
            round_continued: false,
            round_last: index == 3,
        }
    }

    /// A segment with three entries, of 0, 5 and 700 bytes, and a seal.
    fn bytes() -> Vec<u8> {
        let mut bytes = segment().encode().to_vec();
        for (index, length) in [(1, 0), (2, 5), (3, 700)] {
            encode_entry(&segment(), &header(index), &vec![index as u8; length], &mut bytes);
        }
        encode_entry(&segment(), &EntryHeader { kind: EntryKind::Seal, ..header(3) }, &[], &mut bytes);
        bytes.resize(8192, 0);
        bytes
    }

    #[test]
    fn what_was_encoded_is_read_in_order_up_to_the_seal() {
        let bytes = bytes();
        let reader = Reader::new(&bytes).unwrap();
        assert_eq!(reader.header(), &segment());
        let found: Vec<Found<'_>> = reader.entries().collect::<Result<_, _>>().unwrap();
        assert_eq!(found.len(), 4);
        assert_eq!(found[1].header, header(2));
        assert_eq!(found[2].payload, vec![3u8; 700]);
        assert_eq!(found[2].offset, 512 + entry_bytes(0) + entry_bytes(5));
        assert_eq!(found[3].header.kind, EntryKind::Seal);
        assert_eq!(reader.used_end(found[2].next), found[3].offset + ENTRY_HEADER_BYTES + 4 - trailing_zeros(&bytes));
    }

    /// Zero bytes at the end of the seal's payload checksum.
    fn trailing_zeros(bytes: &[u8]) -> u32 {
        let at = (512 + entry_bytes(0) + entry_bytes(5) + entry_bytes(700) + ENTRY_HEADER_BYTES) as usize;
        bytes[at..at + 4].iter().rev().take_while(|byte| **byte == 0).count() as u32
    }

    #[test]
    fn zeros_never_decode() {
        let mut bytes = segment().encode().to_vec();
        bytes.resize(8192, 0);
        let reader = Reader::new(&bytes).unwrap();
        assert_eq!(reader.entries().collect::<Vec<_>>(), [Err(Bad { offset: 512, reason: Reason::Zeros })]);
        assert_eq!(reader.resync(0).count(), 0);
        assert_eq!(Reader::new(&[0; 4096]).unwrap_err(), HeaderError::Zero);
    }

    #[test]
    fn every_flip_in_header_and_payload_is_noticed() {
        let good = bytes();
        let whole = (512 + entry_bytes(0)) as usize;
        for bit in 512 * 8..(512 + 64 + 4) * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Reader::new(&bytes).unwrap().entry(512).is_err(), "bit {bit}");
        }
        for bit in (whole * 8)..(whole + 64 + 5 + 4) * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Reader::new(&bytes).unwrap().entry(whole as u32).is_err(), "bit {bit}");
        }
        for bit in 0..512 * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Reader::new(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn leftovers_of_a_recycled_segment_never_decode() {
        let old = bytes();
        for fresh in [
            SegmentHeader { signature: 8, ..segment() },
            SegmentHeader { segment: SegmentId(4), ..segment() },
            SegmentHeader { store: StoreId { nonce: 1, ..segment().store }, ..segment() },
        ] {
            let mut bytes = old.clone();
            bytes[..512].copy_from_slice(&fresh.encode()[..]);
            let reader = Reader::new(&bytes).unwrap();
            assert!(matches!(reader.entry(512), Err(Reason::HeaderChecksum { .. })));
            assert_eq!(reader.resync(0).count(), 0);
        }
    }

    #[test]
    fn payload_of_one_entry_never_passes_for_that_of_another() {
        // Two entries with the same payload: exchanging it, checksum included, is noticed.
        let mut bytes = segment().encode().to_vec();
        encode_entry(&segment(), &header(1), b"same bytes", &mut bytes);
        encode_entry(&segment(), &header(2), b"same bytes", &mut bytes);
        let (first, second) = (512 + 64, 512 + entry_bytes(10) as usize + 64);
        let moved = bytes[second..second + 14].to_vec();
        bytes[first..first + 14].copy_from_slice(&moved);
        assert!(matches!(Reader::new(&bytes).unwrap().entry(512), Err(Reason::PayloadChecksum { .. })));
    }

    #[test]
    fn resync_finds_every_intact_entry_behind_a_bad_one() {
        let mut bytes = bytes();
        bytes[(512 + entry_bytes(0)) as usize + 20] ^= 0x40;
        let reader = Reader::new(&bytes).unwrap();
        assert_eq!(reader.entries().filter(Result::is_err).count(), 1);
        let found: Vec<_> = reader.resync(512).map(|found| (found.header.kind, found.header.index.0)).collect();
        assert_eq!(found, [(EntryKind::Record, 1), (EntryKind::Record, 3), (EntryKind::Seal, 3)]);
    }

    #[test]
    fn a_segment_cut_anywhere_is_read_without_panic() {
        let bytes = bytes();
        for end in 0..1600 {
            if let Ok(reader) = Reader::new(&bytes[..end]) {
                assert!(reader.entries().count() <= 5);
                assert!(reader.resync(512).count() <= 4);
            }
        }
    }
}

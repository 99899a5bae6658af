//! What a snapshot file looks like. The only parser of it.
//!
//! ```text
//! file     0    header, one sector
//!          512  pieces, each beginning at a multiple of 512; the last one is the end
//!
//! header   0    8   magic "HELIOSNP"
//!          8    2   version
//!          10   6   zero
//!          16   8   index of the last record whose effect it has
//!          24   8   term of that record
//!          32   16  cluster
//!          48   460 zero
//!          508  4   CRC-32 of bytes 0..508
//!
//! piece    0    4   CRC-32 of bytes 4..32+n, begun with the CRC of the header
//!          4    4   bytes of the payload, n
//!          8    8   number of the piece; the first is 0
//!          16   1   kind: 1 part of the state, 2 end
//!          17   15  zero
//!          32   n   payload: a flatbuffer (`proto::codec::encode_piece`); nothing at the end
//!          ...      zeros up to a multiple of 512
//! ```
//! All integers are little-endian. A piece of another snapshot, or in another place, never passes for one of this. The end
//! says that nothing is missing: a file appears under its name only whole, but may be cut off later.

use proto::ids::{ClusterId, LogIndex, Term};
use proto::limits::SECTOR_BYTES;

use crate::limits::POSITION_MAX;
use crate::log::SnapshotMark;

/// Bytes of the header: pieces begin here.
pub const HEADER_BYTES: usize = SECTOR_BYTES;
/// Payload of one piece. One with the most members, or the most and largest items, has less.
pub const PAYLOAD_BYTES_MAX: usize = 2 << 20;

const MAGIC: &[u8; 8] = b"HELIOSNP";
const VERSION: u16 = 1;
const CRC_AT: usize = SECTOR_BYTES - 4;
const PIECE_HEADER_BYTES: usize = 32;
const KIND_PART: u8 = 1;
const KIND_END: u8 = 2;

/// The first sector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SnapshotHeader {
    /// Where it stands in the log.
    pub mark: SnapshotMark,
    /// Whose state.
    pub cluster: ClusterId,
}

/// Why bytes are no snapshot, or no part of one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LayoutError {
    /// Not a snapshot.
    #[error("this is no snapshot")]
    Magic,
    /// Made by another version.
    #[error("format version {found}, this program knows {VERSION}")]
    Version {
        /// What it says.
        found: u16,
    },
    /// The header is damaged.
    #[error("checksum of the header is {found:08x}, expected {expected:08x}")]
    Header {
        /// Computed.
        expected: u32,
        /// In the header.
        found: u32,
    },
    /// A checksum holds but a value makes no sense.
    #[error("piece {number} holds an impossible value")]
    Value {
        /// Which; 0 for the header as well.
        number: u64,
    },
    /// A piece is damaged, or is not that of this place.
    #[error("checksum of piece {number} is {found:08x}, expected {expected:08x}")]
    Piece {
        /// Which.
        number: u64,
        /// Computed.
        expected: u32,
        /// In the piece.
        found: u32,
    },
}

/// What was read of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FoundPiece<'a> {
    /// A flatbuffer; `None` at the end.
    pub payload: Option<&'a [u8]>,
    /// Bytes up to the next piece.
    pub bytes: usize,
}

impl SnapshotHeader {
    /// The header as it goes to disk.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut sector = [0; HEADER_BYTES];
        sector[0..8].copy_from_slice(MAGIC);
        sector[8..10].copy_from_slice(&VERSION.to_le_bytes());
        sector[16..24].copy_from_slice(&self.mark.index.0.to_le_bytes());
        sector[24..32].copy_from_slice(&self.mark.term.0.to_le_bytes());
        sector[32..48].copy_from_slice(&self.cluster.0.to_le_bytes());
        let crc = crc32fast::hash(&sector[..CRC_AT]);
        sector[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        sector
    }

    /// Reads the header of the file `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<SnapshotHeader, LayoutError> {
        let sector = bytes.first_chunk::<HEADER_BYTES>().ok_or(LayoutError::Magic)?;
        if &sector[0..8] != MAGIC {
            return Err(LayoutError::Magic);
        }
        let (expected, found) = (crc32fast::hash(&sector[..CRC_AT]), u32_at(sector, CRC_AT));
        if expected != found {
            return Err(LayoutError::Header { expected, found });
        }
        let version = u16::from_le_bytes([sector[8], sector[9]]);
        if version != VERSION {
            return Err(LayoutError::Version { found: version });
        }
        let (index, term) = (u64_at(sector, 16), u64_at(sector, 24));
        let cluster = ClusterId(u128::from_le_bytes(sector[32..48].try_into().expect("sixteen bytes were asked for")));
        let is_sane = index > 0 && index <= POSITION_MAX && term > 0 && term <= POSITION_MAX;
        let mark = SnapshotMark { index: LogIndex(index), term: Term(term) };
        is_sane.then_some(SnapshotHeader { mark, cluster }).ok_or(LayoutError::Value { number: 0 })
    }

    /// What every checksum of this file's pieces begins with.
    pub fn seed(&self) -> u32 {
        u32_at(&self.encode(), CRC_AT)
    }
}

/// Appends a piece to `target`, padded to whole sectors; the end without payload.
pub fn put_piece(seed: u32, number: u64, payload: Option<&[u8]>, target: &mut Vec<u8>) {
    let (kind, payload) = payload.map_or((KIND_END, &[][..]), |payload| (KIND_PART, payload));
    assert!(payload.len() <= PAYLOAD_BYTES_MAX, "a piece of {} bytes", payload.len());
    let begin = target.len();
    let mut fields = [0; PIECE_HEADER_BYTES];
    fields[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    fields[8..16].copy_from_slice(&number.to_le_bytes());
    fields[16] = kind;
    let crc = checksum(seed, &fields, payload);
    fields[0..4].copy_from_slice(&crc.to_le_bytes());
    target.extend_from_slice(&fields);
    target.extend_from_slice(payload);
    target.resize(begin + (target.len() - begin).next_multiple_of(SECTOR_BYTES), 0);
}

/// Reads the piece `number` at the begin of `bytes`; `None` if more bytes are needed.
pub fn piece_at(seed: u32, number: u64, bytes: &[u8]) -> Result<Option<FoundPiece<'_>>, LayoutError> {
    let Some(fields) = bytes.first_chunk::<PIECE_HEADER_BYTES>() else { return Ok(None) };
    let length = u32_at(fields, 4) as usize;
    if length > PAYLOAD_BYTES_MAX {
        return Err(LayoutError::Value { number });
    }
    let whole = (PIECE_HEADER_BYTES + length).next_multiple_of(SECTOR_BYTES);
    let Some(piece) = bytes.get(..whole) else { return Ok(None) };
    let payload = &piece[PIECE_HEADER_BYTES..PIECE_HEADER_BYTES + length];
    let (expected, found) = (checksum(seed, fields, payload), u32_at(fields, 0));
    if expected != found {
        return Err(LayoutError::Piece { number, expected, found });
    }
    let payload = match fields[16] {
        KIND_PART => Some(payload),
        KIND_END if length == 0 => None,
        _ => return Err(LayoutError::Value { number }),
    };
    if u64_at(fields, 8) != number {
        return Err(LayoutError::Value { number });
    }
    Ok(Some(FoundPiece { payload, bytes: whole }))
}

fn checksum(seed: u32, fields: &[u8; PIECE_HEADER_BYTES], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(&fields[4..]);
    hasher.update(payload);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were asked for"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were asked for"))
}

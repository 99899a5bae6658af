//! The first sector of a chunk file: says whose it is, so that a file put into the wrong place is never taken for data.
//!
//! ```text
//! 0  magic "HELIOCHK"    8 version u32    12 core u16    14 zero    16 file id u64    24 node id u64
//! 32 zero                508 CRC-32 of bytes 0..508
//! ```
//! All little-endian.

use logic::io::FileId;
use proto::ids::{CoreId, NodeId};
use proto::limits::SECTOR_BYTES;

const MAGIC: &[u8; 8] = b"HELIOCHK";
const VERSION: u32 = 1;
const CRC_AT: usize = SECTOR_BYTES - 4;

/// Whose a chunk file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkFileHeader {
    /// The node.
    pub node: NodeId,
    /// The core.
    pub core: CoreId,
    /// Its number.
    pub file: FileId,
}

/// Why a sector is no header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChunkHeaderError {
    /// It is not whole.
    Damaged,
    /// It is whole, and of a version not known here.
    Version {
        /// Which.
        found: u32,
    },
}

impl ChunkFileHeader {
    /// The sector.
    #[must_use]
    pub fn encode(&self) -> Box<[u8; SECTOR_BYTES]> {
        let mut sector = Box::new([0; SECTOR_BYTES]);
        sector[..8].copy_from_slice(MAGIC);
        sector[8..12].copy_from_slice(&VERSION.to_le_bytes());
        sector[12..14].copy_from_slice(&self.core.0.to_le_bytes());
        sector[16..24].copy_from_slice(&self.file.0.to_le_bytes());
        sector[24..32].copy_from_slice(&self.node.0.to_le_bytes());
        let crc = crc32fast::hash(&sector[..CRC_AT]);
        sector[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        sector
    }

    /// Reads a sector back.
    pub fn decode(sector: &[u8; SECTOR_BYTES]) -> Result<ChunkFileHeader, ChunkHeaderError> {
        let crc = u32::from_le_bytes(sector[CRC_AT..].try_into().expect("four bytes"));
        let version = u32::from_le_bytes(sector[8..12].try_into().expect("four bytes"));
        if &sector[..8] != MAGIC || crc != crc32fast::hash(&sector[..CRC_AT]) {
            return Err(ChunkHeaderError::Damaged);
        }
        if version != VERSION {
            return Err(ChunkHeaderError::Version { found: version });
        }
        Ok(ChunkFileHeader {
            core: CoreId(u16::from_le_bytes(sector[12..14].try_into().expect("two bytes"))),
            file: FileId(u64::from_le_bytes(sector[16..24].try_into().expect("eight bytes"))),
            node: NodeId(u64::from_le_bytes(sector[24..32].try_into().expect("eight bytes"))),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_back_and_any_flipped_bit_is_noticed() {
        let header = ChunkFileHeader { node: NodeId(3), core: CoreId(1), file: FileId(42) };
        let sector = header.encode();
        assert_eq!(ChunkFileHeader::decode(&sector), Ok(header));
        for bit in 0..SECTOR_BYTES * 8 {
            let mut bad = sector.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ChunkFileHeader::decode(&bad), Err(ChunkHeaderError::Damaged), "bit {bit}");
        }
        assert_eq!(ChunkFileHeader::decode(&[0; SECTOR_BYTES]), Err(ChunkHeaderError::Damaged));
    }

    #[test]
    fn a_whole_header_of_another_version_is_no_damage() {
        let mut sector = ChunkFileHeader { node: NodeId(3), core: CoreId(1), file: FileId(42) }.encode();
        sector[8] = 2;
        let crc = crc32fast::hash(&sector[..CRC_AT]);
        sector[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(ChunkFileHeader::decode(&sector), Err(ChunkHeaderError::Version { found: 2 }));
    }
}

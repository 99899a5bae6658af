//! The sector in front of a chunk's payload, in memory and on disk.
//!
//! ```text
//! 0  magic "HELIOCH1"        8 session      16 sequence     24 offset
//! 32 payload length u32      36 crc32 u32   40 crc64 u64    48 header crc32 u32   52.. zero
//! ```
//! All little-endian. It says which image the bytes belong to wherever they lie, so that a damaged slot table can be
//! made again from the chunks themselves. The slot, not the header, says that an extent is in use.

use proto::checksum::crc32;
use proto::ids::{ImageId, Sequence, SessionId};
use proto::limits::CHUNK_HEADER_BYTES;

const MAGIC: [u8; 8] = *b"HELIOCH1";
const CRC_AT: usize = 48;

/// What a chunk says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    /// Which image.
    pub image: ImageId,
    /// Of the first byte in the image.
    pub offset: u64,
    /// Payload bytes.
    pub length: u32,
    /// CRC-32 of the payload.
    pub crc32: u32,
    /// CRC-64 of the payload.
    pub crc64: u64,
}

impl ChunkHeader {
    /// Writes the header into the first sector of a chunk's buffer; all of its bytes are set.
    pub fn fill(&self, sector: &mut [u8]) {
        let sector = &mut sector[..CHUNK_HEADER_BYTES];
        sector.fill(0);
        sector[..8].copy_from_slice(&MAGIC);
        sector[8..16].copy_from_slice(&self.image.session.0.to_le_bytes());
        sector[16..24].copy_from_slice(&self.image.sequence.0.to_le_bytes());
        sector[24..32].copy_from_slice(&self.offset.to_le_bytes());
        sector[32..36].copy_from_slice(&self.length.to_le_bytes());
        sector[36..40].copy_from_slice(&self.crc32.to_le_bytes());
        sector[40..48].copy_from_slice(&self.crc64.to_le_bytes());
        let crc = crc32(&sector[..CRC_AT]);
        sector[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads a header back; `None` if the sector does not hold a whole one.
    pub fn parse(sector: &[u8]) -> Option<ChunkHeader> {
        let head = sector.get(..CRC_AT + 4)?;
        let field = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes"));
        let short = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
        if head[..8] != MAGIC || short(CRC_AT) != crc32(&head[..CRC_AT]) {
            return None;
        }
        Some(ChunkHeader {
            image: ImageId { session: SessionId(field(8)), sequence: Sequence(field(16)) },
            offset: field(24),
            length: short(32),
            crc32: short(36),
            crc64: field(40),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{CRC_AT, ChunkHeader};
    use proto::ids::{ImageId, Sequence, SessionId};

    #[test]
    fn header_round_trips_and_no_flipped_bit_passes() {
        let header = ChunkHeader {
            image: ImageId { session: SessionId(7), sequence: Sequence(9) },
            offset: 1 << 20,
            length: 77,
            crc32: 5,
            crc64: 6,
        };
        let mut sector = [0xaa; 600];
        header.fill(&mut sector);
        assert_eq!(ChunkHeader::parse(&sector), Some(header));
        assert!(sector[CRC_AT + 4..512].iter().all(|&byte| byte == 0), "old heap would reach the disk");
        for bit in 0..(CRC_AT + 4) * 8 {
            let mut flipped = sector;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ChunkHeader::parse(&flipped), None, "bit {bit}");
        }
    }
}

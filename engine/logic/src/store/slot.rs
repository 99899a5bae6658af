//! A slot of a chunk file's table: says that an extent is in use, by which chunk, and what its bytes are.
//!
//! ```text
//! 0  magic "SLT1"   4 slot crc32      8 session          16 sequence
//! 24 chunk number   28 payload length 32 block           36 blocks
//! 40 crc32          44 file (low 32)  48 crc64           56 birth
//! ```
//! All little-endian; the CRC is over bytes 8 to 63. `birth` grows with every slot a store writes, so of two slots
//! whose extents overlap the younger one tells the truth; it is never above `POSITION_MAX`. File and block bind a slot to its place.

use proto::checksum::crc32;
use proto::ids::{ImageId, Sequence, SessionId};
use proto::limits::{BLOCK_BYTES, CHUNK_BYTES_MAX, CHUNK_HEADER_BYTES};

use crate::io::{Extent, FileId};
use crate::limits::POSITION_MAX;
use crate::store::layout::{FILE_BLOCKS, SLOT_BYTES};

const MAGIC: [u8; 4] = *b"SLT1";

/// A chunk in its extent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Which image.
    pub image: ImageId,
    /// Which chunk of it, from 0.
    pub chunk: u32,
    /// Payload bytes.
    pub length: u32,
    /// CRC-32 of the payload.
    pub crc32: u32,
    /// CRC-64 of the payload.
    pub crc64: u64,
    /// Where.
    pub extent: Extent,
    /// Larger than that of any slot the store wrote before.
    pub birth: u64,
}

/// Blocks that a chunk of `length` payload bytes takes, header included.
pub fn blocks_for(length: u32) -> u32 {
    (CHUNK_HEADER_BYTES as u32 + length).div_ceil(BLOCK_BYTES as u32)
}

impl Slot {
    /// Whether it says the same of the same chunk's payload.
    pub fn has_bytes_of(&self, other: &Slot) -> bool {
        let bytes = |slot: &Slot| (slot.image, slot.chunk, slot.length, slot.crc32, slot.crc64);
        bytes(self) == bytes(other)
    }

    /// The slot's bytes.
    pub fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0u8; SLOT_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.image.session.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.image.sequence.0.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.chunk.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.length.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.extent.block.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.extent.blocks.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.crc32.to_le_bytes());
        bytes[44..48].copy_from_slice(&(self.extent.file.0 as u32).to_le_bytes());
        bytes[48..56].copy_from_slice(&self.crc64.to_le_bytes());
        bytes[56..64].copy_from_slice(&self.birth.to_le_bytes());
        let crc = crc32(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads the slot at `block` of `file`; `None` for an empty, foreign or damaged one.
    pub fn decode(bytes: &[u8], file: FileId, block: u32) -> Option<Slot> {
        let bytes: &[u8; SLOT_BYTES] = bytes.try_into().ok()?;
        let field = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let short = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        if bytes[..4] != MAGIC || short(4) != crc32(&bytes[8..]) || short(32) != block || short(44) != file.0 as u32 {
            return None;
        }
        let slot = Slot {
            image: ImageId { session: SessionId(field(8)), sequence: Sequence(field(16)) },
            chunk: short(24),
            length: short(28),
            crc32: short(40),
            crc64: field(48),
            extent: Extent { file, block, blocks: short(36) },
            birth: field(56),
        };
        let fits = slot.length >= 1
            && slot.length as usize <= CHUNK_BYTES_MAX
            && slot.extent.blocks == blocks_for(slot.length)
            && slot.birth <= POSITION_MAX
            && block.checked_add(slot.extent.blocks).is_some_and(|end| end <= FILE_BLOCKS);
        fits.then_some(slot)
    }
}

/// How many slots of the table of `file` hold something that can be neither read nor believed. What they spoke of, the node
/// lacks, and takes from other holders.
pub fn damaged_slots(table: &[u8], file: FileId) -> usize {
    let slots = table.chunks_exact(SLOT_BYTES).take(FILE_BLOCKS as usize).enumerate();
    let is_damaged = |&(block, bytes): &(usize, &[u8])| {
        bytes.iter().any(|byte| *byte != 0) && Slot::decode(bytes, file, block as u32).is_none()
    };
    slots.filter(is_damaged).count()
}

#[cfg(test)]
mod tests {
    use super::{SLOT_BYTES, Slot, blocks_for, damaged_slots};
    use crate::io::{Extent, FileId};
    use crate::limits::POSITION_MAX;
    use proto::ids::{ImageId, Sequence, SessionId};

    fn slot() -> Slot {
        Slot {
            image: ImageId { session: SessionId(70), sequence: Sequence(9) },
            chunk: 3,
            length: 5000,
            crc32: 1,
            crc64: 2,
            extent: Extent { file: FileId(4), block: 16, blocks: blocks_for(5000) },
            birth: 99,
        }
    }

    #[test]
    fn slot_round_trips_only_at_its_own_place() {
        let bytes = slot().encode();
        assert_eq!(Slot::decode(&bytes, FileId(4), 16), Some(slot()));
        assert_eq!(Slot::decode(&bytes, FileId(4), 17), None);
        assert_eq!(Slot::decode(&bytes, FileId(5), 16), None);
        assert_eq!(Slot::decode(&[0; 64], FileId(4), 16), None, "zeros are an empty slot");
    }

    #[test]
    fn birth_at_the_end_of_the_number_range_is_damage() {
        let most = Slot { birth: POSITION_MAX, ..slot() };
        assert_eq!(Slot::decode(&most.encode(), FileId(4), 16), Some(most));
        for birth in [POSITION_MAX + 1, u64::MAX] {
            assert_eq!(Slot::decode(&Slot { birth, ..slot() }.encode(), FileId(4), 16), None);
        }
    }

    #[test]
    fn no_flipped_bit_passes() {
        for bit in 0..512 {
            let mut bytes = slot().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Slot::decode(&bytes, FileId(4), 16), None, "bit {bit}");
        }
    }

    #[test]
    fn damaged_slots_are_counted_and_empty_ones_are_none() {
        let file = FileId(9);
        let slot = Slot { extent: Extent { file, block: 1, ..slot().extent }, ..slot() };
        let mut table = vec![0; 3 * SLOT_BYTES];
        table[SLOT_BYTES..2 * SLOT_BYTES].copy_from_slice(&slot.encode());
        assert_eq!(damaged_slots(&table, file), 0);
        table[SLOT_BYTES + 20] ^= 1;
        assert_eq!(damaged_slots(&table, file), 1);
    }
}

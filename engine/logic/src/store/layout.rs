//! Where things lie in a chunk file. (Slots and headers: `slot.rs`, `header.rs`.)
//!
//! ```text
//! 0        file header, one block (its first sector used)
//! 4096     slot table: one 64-byte slot for each block of the data region, 8 slots a sector
//! 1 MiB+4K data region: extents of whole 4096-byte blocks; an extent begins with the chunk's header sector
//! ```
//! The slot of an extent is the one of its first block; all other slots are zero or stale (an older extent's slot inside a
//! newer extent is told by its smaller birth number).

use proto::limits::BLOCK_BYTES;

/// Blocks of the data region of one chunk file.
pub const FILE_BLOCKS: u32 = 16_384;
/// Bytes of one slot.
pub const SLOT_BYTES: usize = 64;
/// Slots in one sector of the table.
pub const SLOTS_PER_SECTOR: u32 = 8;
/// Where the slot table begins.
pub const TABLE_OFFSET: u64 = BLOCK_BYTES as u64;
/// Length of the slot table.
pub const TABLE_BYTES: usize = FILE_BLOCKS as usize * SLOT_BYTES;
/// Where the data region begins.
pub const DATA_OFFSET: u64 = TABLE_OFFSET + TABLE_BYTES as u64;
/// Length of a chunk file.
pub const FILE_BYTES: u64 = DATA_OFFSET + FILE_BLOCKS as u64 * BLOCK_BYTES as u64;

const _: () = assert!(TABLE_BYTES.is_multiple_of(BLOCK_BYTES) && DATA_OFFSET.is_multiple_of(BLOCK_BYTES as u64));
const _: () = assert!(SLOTS_PER_SECTOR as usize * SLOT_BYTES == proto::limits::SECTOR_BYTES);

//! Which blocks of the chunk files are free, and what the slot tables say.
//!
//! First fit within a file, oldest file first, so that young files empty out and blocks which were written before (and
//! need no journal commit) are used again. A file that is not there yet is asked for ahead of need.

use std::collections::{BTreeMap, BTreeSet};

use proto::limits::{BLOCK_BYTES, SECTOR_BYTES};

use crate::io::{DiskError, Extent, FileId, Room};
use crate::limits::POSITION_MAX;
use crate::store::layout::{FILE_BLOCKS, FILE_BYTES, SLOT_BYTES, SLOTS_PER_SECTOR, TABLE_BYTES};
use crate::store::slot::Slot;

/// Below this many free blocks the next file is asked for.
const SPARE_BLOCKS: u32 = FILE_BLOCKS / 4;

/// The blocks of one file.
#[derive(Debug)]
struct File {
    free: BTreeMap<u32, u32>,  // first block -> blocks; no two touch
    free_blocks: u32,          // sum over `free`
    live: BTreeMap<u32, Slot>, // written extents by first block; what a rewrite of a slot sector contains
}

/// Free and used space of one core's store.
#[derive(Debug)]
pub struct Space {
    files: BTreeMap<FileId, File>,
    creating: Option<FileId>,
    lacking: bool, // no file has an extent as large as was asked for, however much is free in pieces
    refused: Option<DiskError>, // why the last creation failed; cleared when it may do better
    next_file: u64,
    next_birth: u64,
    room: Room,
    reserve_bytes: u64,
    log_growth_bytes: u64,          // what log and snapshots may come to take beside what they have
    free_blocks: u64,               // over all files
    promised_blocks: u64,           // to uploads begun, not yet allocated
    dirty: BTreeSet<(FileId, u32)>, // slot sectors to write with the next commit
    stale: BTreeSet<(FileId, u32)>, // slot sectors that still name freed extents; none of them in `dirty`
}

impl Space {
    /// Takes over the files found on disk. Returns the slots in use: of overlapping ones the youngest.
    pub fn recover(tables: &[(FileId, &[u8])], room: Room, reserve_bytes: u64) -> (Space, Vec<Slot>) {
        let mut space = Space {
            files: BTreeMap::new(),
            creating: None,
            lacking: false,
            refused: None,
            next_file: 1,
            next_birth: 1,
            room,
            reserve_bytes,
            log_growth_bytes: 0,
            free_blocks: 0,
            promised_blocks: 0,
            dirty: BTreeSet::new(),
            stale: BTreeSet::new(),
        };
        let mut used = Vec::new();
        for &(file, table) in tables {
            space.add_file(file);
            let mut slots: Vec<Slot> = table
                .chunks_exact(SLOT_BYTES)
                .take(TABLE_BYTES / SLOT_BYTES)
                .enumerate()
                .filter_map(|(block, bytes)| Slot::decode(bytes, file, block as u32))
                .collect();
            slots.sort_by_key(|slot| std::cmp::Reverse(slot.birth));
            for slot in slots {
                space.next_birth = space.next_birth.max(slot.birth + 1);
                if space.take_exactly(slot.extent) {
                    let live = &mut space.files.get_mut(&file).expect("added above").live;
                    live.insert(slot.extent.block, slot);
                    used.push(slot);
                }
            }
        }
        (space, used)
    }

    /// Whether `blocks` more could be promised.
    pub fn has_room_for(&self, blocks: u64) -> bool {
        blocks <= self.room_blocks()
    }

    /// Blocks that could still be promised, files not yet made included.
    pub fn room_blocks(&self) -> u64 {
        let new_files = if self.refused.is_some() { 0 } else { self.new_files() };
        (self.free_blocks + new_files * u64::from(FILE_BLOCKS)).saturating_sub(self.promised_blocks)
    }

    /// Bytes that could still be promised.
    pub fn room_bytes(&self) -> u64 {
        self.room_blocks() * BLOCK_BYTES as u64
    }

    /// Chunk files on disk.
    pub fn file_count(&self) -> u64 {
        self.files.len() as u64
    }

    /// Sets blocks aside for an upload that begins.
    pub fn promise(&mut self, blocks: u64) {
        self.promised_blocks += blocks;
    }

    /// Takes back what was set aside and not allocated.
    pub fn unpromise(&mut self, blocks: u64) {
        assert!(blocks <= self.promised_blocks, "unpromise {blocks} of {}", self.promised_blocks);
        self.promised_blocks -= blocks;
    }

    /// An extent of `blocks`, or `None` until another file is there.
    pub fn allocate(&mut self, blocks: u32) -> Option<Extent> {
        for (&id, file) in &mut self.files {
            if file.free_blocks < blocks {
                continue;
            }
            let Some((&block, &length)) = file.free.iter().find(|&(_, &length)| length >= blocks) else { continue };
            file.free.remove(&block);
            if length > blocks {
                file.free.insert(block + blocks, length - blocks);
            }
            file.free_blocks -= blocks;
            self.free_blocks -= u64::from(blocks);
            return Some(Extent { file: id, block, blocks });
        }
        self.lacking = true;
        None
    }

    /// Gives an extent back. Its slot stays on disk for a while, and proves nothing.
    pub fn free(&mut self, extent: Extent) {
        let file = self.files.get_mut(&extent.file).expect("an extent lies in a file that exists");
        file.live.remove(&extent.block);
        file.give_back(extent);
        let sector = (extent.file, extent.block / SLOTS_PER_SECTOR);
        if !self.dirty.contains(&sector) {
            self.stale.insert(sector);
        }
        self.free_blocks += u64::from(extent.blocks);
    }

    /// A birth number for a new slot.
    pub fn next_birth(&mut self) -> u64 {
        self.next_birth += 1;
        self.next_birth - 1
    }

    /// The chunk's bytes are in its extent: its slot goes to disk with the next commit.
    pub fn note_written(&mut self, slot: Slot) {
        let file = self.files.get_mut(&slot.extent.file).expect("an extent lies in a file that exists");
        assert!(slot.birth <= POSITION_MAX, "birth {}", slot.birth);
        let before = file.live.insert(slot.extent.block, slot);
        assert!(before.is_none(), "two live extents at {:?}", slot.extent);
        let sector = (slot.extent.file, slot.extent.block / SLOTS_PER_SECTOR);
        self.stale.remove(&sector);
        self.dirty.insert(sector);
    }

    /// Has slots of freed extents cleared with the next commit, at most `count` sectors. Most were written anew meanwhile.
    pub fn clear_stale(&mut self, count: usize) {
        for _ in 0..count {
            let Some(sector) = self.stale.pop_first() else { break };
            self.dirty.insert(sector);
        }
    }

    /// Whether a commit has slot sectors to write.
    pub fn has_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// The slot sectors changed since the last call, as they should be on disk.
    pub fn take_dirty(&mut self) -> Vec<(FileId, u32, Box<[u8; SECTOR_BYTES]>)> {
        std::mem::take(&mut self.dirty)
            .into_iter()
            .map(|(id, sector)| {
                let first = sector * SLOTS_PER_SECTOR;
                let mut bytes = Box::new([0u8; SECTOR_BYTES]);
                for (&block, slot) in self.files[&id].live.range(first..first + SLOTS_PER_SECTOR) {
                    let at = (block - first) as usize * SLOT_BYTES;
                    bytes[at..at + SLOT_BYTES].copy_from_slice(&slot.encode());
                }
                (id, sector, bytes)
            })
            .collect()
    }

    /// The file to make now, if one is wanted: at most one at a time.
    pub fn take_wanted_file(&mut self) -> Option<FileId> {
        let enough = !self.lacking && self.free_blocks >= self.promised_blocks + u64::from(SPARE_BLOCKS);
        if self.creating.is_some() || self.refused.is_some() || enough || self.new_files() == 0 {
            return None;
        }
        let file = FileId(self.next_file);
        self.creating = Some(file);
        Some(file)
    }

    /// The file is there, or why it could not be made.
    pub fn on_file_created(&mut self, file: FileId, result: Result<(), DiskError>) {
        assert_eq!(self.creating.take(), Some(file), "a file that nobody asked for");
        self.refused = result.err();
        if result.is_ok() {
            self.lacking = false;
            self.room.files = self.room.files.saturating_sub(1);
            self.add_file(file);
        }
    }

    /// Log and snapshots may come to take so much more.
    pub fn on_log_growth(&mut self, bytes: u64) {
        self.log_growth_bytes = bytes;
    }

    /// Bytes of the filesystem that are never taken: a full node must be able to write what frees.
    fn reserve(&self) -> u64 {
        self.reserve_bytes.max(self.log_growth_bytes)
    }

    /// Room for new files now.
    pub fn on_room(&mut self, room: Room) {
        let had_bytes = std::mem::replace(&mut self.room, room).free_bytes;
        // A creation may fail with less than a file's bytes free, and then it needs more than there were.
        let is_still_full = self.new_files() == 0 || room.free_bytes <= had_bytes;
        self.refused = self.refused.filter(|error| *error == DiskError::NoSpace && is_still_full);
    }

    /// Files that there is room for.
    fn new_files(&self) -> u64 {
        (self.room.free_bytes.saturating_sub(self.reserve()) / FILE_BYTES).min(self.room.files)
    }

    /// Whether waiting for a file is in vain for now.
    pub fn is_full(&self) -> bool {
        self.creating.is_none() && (self.refused.is_some() || self.new_files() == 0)
    }

    fn add_file(&mut self, id: FileId) {
        let free = BTreeMap::from([(0, FILE_BLOCKS)]);
        let before = self.files.insert(id, File { free, free_blocks: FILE_BLOCKS, live: BTreeMap::new() });
        assert!(before.is_none(), "chunk file {id:?} twice");
        self.free_blocks += u64::from(FILE_BLOCKS);
        self.next_file = self.next_file.max(id.0 + 1);
    }

    /// Takes this very extent if all of it is free.
    fn take_exactly(&mut self, extent: Extent) -> bool {
        let file = self.files.get_mut(&extent.file).expect("the caller added the file");
        let Some((&start, &length)) = file.free.range(..=extent.block).next_back() else { return false };
        let end = extent.block + extent.blocks;
        if start + length < end {
            return false;
        }
        file.free.remove(&start);
        if start < extent.block {
            file.free.insert(start, extent.block - start);
        }
        if end < start + length {
            file.free.insert(end, start + length - end);
        }
        file.free_blocks -= extent.blocks;
        self.free_blocks -= u64::from(extent.blocks);
        true
    }
}

impl File {
    fn give_back(&mut self, extent: Extent) {
        let (mut start, mut end) = (extent.block, extent.block + extent.blocks);
        if let Some((&before, &length)) = self.free.range(..start).next_back() {
            assert!(before + length <= start, "freed twice: {extent:?}");
            if before + length == start {
                self.free.remove(&before);
                start = before;
            }
        }
        if let Some((&after, &length)) = self.free.range(extent.block..).next() {
            assert!(after >= end, "freed twice: {extent:?}");
            if after == end {
                self.free.remove(&after);
                end = after + length;
            }
        }
        self.free.insert(start, end - start);
        self.free_blocks += extent.blocks;
        assert!(self.free_blocks <= FILE_BLOCKS);
    }
}

#[cfg(test)]
mod tests {
    use super::Space;
    use crate::io::{DiskError, Extent, FileId, Room};
    use crate::store::layout::{FILE_BLOCKS, FILE_BYTES, SLOT_BYTES, SLOTS_PER_SECTOR, TABLE_BYTES};
    use crate::store::slot::{Slot, blocks_for};
    use proto::ids::{ImageId, Sequence, SessionId};

    fn room(free_bytes: u64) -> Room {
        Room { free_bytes, files: u64::MAX }
    }

    fn empty() -> Space {
        let table = vec![0u8; TABLE_BYTES];
        Space::recover(&[(FileId(1), &table)], room(0), 0).0
    }

    fn slot(extent: Extent, sequence: u64, birth: u64) -> Slot {
        let length = extent.blocks * 4096 - 512;
        assert_eq!(blocks_for(length), extent.blocks);
        let image = ImageId { session: SessionId(1), sequence: Sequence(sequence) };
        Slot { image, chunk: 0, length, crc32: 0, crc64: 0, extent, birth }
    }

    #[test]
    fn blocks_given_back_join_again() {
        let mut space = empty();
        let extents: Vec<Extent> = (0..64).map(|_| space.allocate(FILE_BLOCKS / 64).expect("room")).collect();
        assert_eq!(space.allocate(1), None);
        for &extent in extents.iter().step_by(2).chain(extents.iter().skip(1).step_by(2)) {
            space.free(extent);
        }
        assert_eq!(space.allocate(FILE_BLOCKS), Some(Extent { file: FileId(1), block: 0, blocks: FILE_BLOCKS }));
    }

    #[test]
    fn room_in_small_pieces_does_not_keep_a_large_chunk_waiting() {
        let table = vec![0u8; TABLE_BYTES];
        let mut space = Space::recover(&[(FileId(1), &table)], room(FILE_BYTES), 0).0;
        let extents: Vec<Extent> = (0..FILE_BLOCKS / 64).map(|_| space.allocate(64).expect("room")).collect();
        extents.iter().step_by(2).for_each(|&extent| space.free(extent));
        assert_eq!(space.take_wanted_file(), None, "half of the file is free");
        assert_eq!(space.allocate(65), None, "in pieces of 64 blocks");
        assert_eq!(space.take_wanted_file(), Some(FileId(2)));
        space.on_file_created(FileId(2), Ok(()));
        assert_eq!(space.allocate(65), Some(Extent { file: FileId(2), block: 0, blocks: 65 }));
        assert_eq!(space.take_wanted_file(), None);
    }

    #[test]
    #[should_panic(expected = "freed twice")]
    fn freeing_twice_is_our_mistake() {
        let mut space = empty();
        let extent = space.allocate(4).expect("room");
        space.free(extent);
        space.free(extent);
    }

    #[test]
    fn recovery_believes_the_younger_of_two_overlapping_slots() {
        let old = slot(Extent { file: FileId(1), block: 8, blocks: 4 }, 1, 5);
        let young = slot(Extent { file: FileId(1), block: 6, blocks: 4 }, 2, 9);
        let mut table = vec![0u8; TABLE_BYTES];
        for slot in [old, young] {
            let at = slot.extent.block as usize * SLOT_BYTES;
            table[at..at + SLOT_BYTES].copy_from_slice(&slot.encode());
        }
        let (mut space, used) = Space::recover(&[(FileId(1), &table)], room(0), 0);
        assert_eq!(used, vec![young]);
        assert_eq!(space.next_birth(), 10);
        assert_eq!(space.room_blocks(), u64::from(FILE_BLOCKS) - 4);
    }

    #[test]
    fn slot_sector_holds_its_live_neighbours_and_nothing_stale() {
        let mut space = empty();
        let extents: Vec<Extent> = (0..SLOTS_PER_SECTOR).map(|_| space.allocate(1).expect("room")).collect();
        for (n, &extent) in extents.iter().enumerate() {
            space.note_written(slot(extent, n as u64 + 1, n as u64 + 1));
        }
        assert_eq!(space.take_dirty().len(), 1);
        space.free(extents[3]);
        space.free(extents[0]);
        let again = space.allocate(1).expect("room");
        space.note_written(slot(again, 50, 50));
        let dirty = space.take_dirty();
        let (file, sector, bytes) = &dirty[0];
        let read: Vec<Option<u64>> = (0..SLOTS_PER_SECTOR)
            .map(|n| {
                let at = n as usize * SLOT_BYTES;
                Slot::decode(&bytes[at..at + SLOT_BYTES], *file, sector * SLOTS_PER_SECTOR + n)
                    .map(|slot| slot.image.sequence.0)
            })
            .collect();
        assert_eq!(read, [Some(50), Some(2), Some(3), None, Some(5), Some(6), Some(7), Some(8)]);
    }

    #[test]
    fn slots_of_freed_extents_are_cleared_unless_they_were_written_anew() {
        let mut space = empty();
        let extents: Vec<Extent> = (0..3).map(|_| space.allocate(SLOTS_PER_SECTOR).expect("room")).collect();
        for (n, &extent) in extents.iter().enumerate() {
            space.note_written(slot(extent, n as u64 + 1, n as u64 + 1));
        }
        space.take_dirty();
        space.free(extents[0]);
        space.free(extents[1]);
        let again = space.allocate(SLOTS_PER_SECTOR).expect("room");
        space.note_written(slot(again, 9, 9));
        assert_eq!(space.take_dirty().len(), 1);
        space.clear_stale(10);
        let cleared = space.take_dirty();
        assert_eq!(cleared.iter().map(|(_, sector, _)| *sector).collect::<Vec<_>>(), [1]);
        assert!(cleared[0].2.iter().all(|&byte| byte == 0));
        space.clear_stale(10);
        assert!(!space.has_dirty());
    }

    #[test]
    fn a_full_filesystem_takes_no_promises_beyond_its_files() {
        let (mut space, _) = Space::recover(&[], room(FILE_BYTES * 2 + 5), 0);
        assert!(space.has_room_for(u64::from(FILE_BLOCKS) * 2));
        assert!(!space.has_room_for(u64::from(FILE_BLOCKS) * 2 + 1));
        let file = space.take_wanted_file().expect("an empty store wants a file");
        assert_eq!(space.take_wanted_file(), None, "one at a time");
        space.on_file_created(file, Err(DiskError::NoSpace));
        assert_eq!(space.room_blocks(), 0);
        assert!(space.is_full());
        space.on_room(room(FILE_BYTES * 2 + 5));
        assert_eq!(space.take_wanted_file(), None, "as much as it failed with");
        space.on_room(room(FILE_BYTES * 3));
        assert_eq!(space.take_wanted_file(), Some(file));
    }

    #[test]
    fn without_descriptors_for_more_files_nothing_is_promised_beyond_those_there_are() {
        let two = Room { free_bytes: u64::MAX, files: 2 };
        let (mut space, _) = Space::recover(&[], two, 0);
        assert!(space.has_room_for(u64::from(FILE_BLOCKS) * 2) && !space.has_room_for(u64::from(FILE_BLOCKS) * 2 + 1));
        let first = space.take_wanted_file().expect("an empty store wants a file");
        space.on_file_created(first, Ok(()));
        assert_eq!(space.room_blocks(), u64::from(FILE_BLOCKS) * 2, "one is there, one may be made");
        space.allocate(FILE_BLOCKS).expect("the first file is empty");
        let second = space.take_wanted_file().expect("the first file is full");
        space.on_file_created(second, Err(DiskError::Refused));
        assert!(space.is_full());
        assert_eq!(space.take_wanted_file(), None, "not before it was looked again");
        space.on_room(Room { files: 1, ..two });
        assert_eq!(space.take_wanted_file(), Some(second));
        space.on_file_created(second, Ok(()));
        space.allocate(FILE_BLOCKS).expect("the second file is empty");
        assert_eq!((space.is_full(), space.take_wanted_file(), space.room_blocks()), (true, None, 0));
    }
}

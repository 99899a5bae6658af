//! The index of the chunk store: slots, their table, what is free; and the header of a chunk.
//!
//! An input is a script of a store's life: extents allocated, written, freed, committed, with power cuts in a commit, and
//! the table read back from disk; then damage, with and without a right checksum.
//!
//! Properties: what was committed and not freed is found again, with all its values; nothing is found that was never
//! written; no two extents overlap, and free and used blocks add up; of what a damaged table still says, nothing that was
//! live and intact is lost; the store goes on afterwards.

use std::collections::{BTreeMap, BTreeSet};

use logic::io::{Extent, FileId, Room};
use logic::store::header::ChunkHeader;
use logic::store::layout::{FILE_BLOCKS, FILE_BYTES, SLOT_BYTES, SLOTS_PER_SECTOR};
use logic::store::slot::{Slot, blocks_for};
use logic::store::space::Space;
use proto::ids::{ImageId, Sequence, SessionId};
use proto::limits::{CHUNK_BYTES_MAX, SECTOR_BYTES};

use crate::memory;
use crate::script::Script;
use crate::sector;

/// Of the slot tables only this much is looked at: a store of these inputs stays at the front of its files.
const TABLE_BYTES: usize = 16 << 10;
const TABLE_SLOTS: u32 = (TABLE_BYTES / SLOT_BYTES) as u32;
const HEAP_BYTES: usize = 1 << 20;

type Tables = BTreeMap<FileId, Vec<u8>>;

/// A store and what is known of it.
struct Store {
    space: Space,
    tables: Tables,
    /// Extents handed out and not given back; with their slot once written.
    held: Vec<(Extent, Option<Slot>)>,
    /// As of the last finished commit.
    durable: BTreeSet<(FileId, u32)>,
    /// Every slot that ever went to a table.
    written: Vec<Slot>,
}

/// Runs one input.
pub fn check(data: &[u8]) {
    let mut script = Script::new(data);
    check_header(&mut script);
    let mut tables = Tables::new();
    for file in 1..=1 + script.below(2) as u64 {
        tables.insert(FileId(file), vec![0; TABLE_BYTES]);
    }
    let (space, used) = recover(&tables);
    assert_eq!(used, []);
    let mut store = Store { space, tables, held: Vec::new(), durable: BTreeSet::new(), written: Vec::new() };
    while !script.is_done() {
        match script.below(16) {
            0..=3 => store.allocate(&mut script),
            4..=7 => store.write(&mut script),
            8 | 9 => store.free(&mut script),
            10 | 11 => store.commit(None),
            12 => {
                store.space.clear_stale(script.below(4));
                store.commit(None);
            }
            13 => store.commit(Some(&mut script)),
            14 => store.check_damage(&mut script),
            _ => store.check_forged(&mut script),
        }
    }
    store.commit(None);
    store.restart();
}

fn recover(tables: &Tables) -> (Space, Vec<Slot>) {
    let tables: Vec<(FileId, &[u8])> = tables.iter().map(|(file, table)| (*file, table.as_slice())).collect();
    let room = Room { free_bytes: 3 * FILE_BYTES, files: 2 };
    let (mut space, used) = memory::within(HEAP_BYTES, || Space::recover(&tables, room, FILE_BYTES));
    // What is used is used once, and the rest is free.
    let mut blocks: BTreeMap<FileId, Vec<(u32, u32)>> = BTreeMap::new();
    for slot in &used {
        assert_eq!(slot.extent.blocks, blocks_for(slot.length));
        blocks.entry(slot.extent.file).or_default().push((slot.extent.block, slot.extent.block + slot.extent.blocks));
    }
    for extents in blocks.values_mut() {
        extents.sort_unstable();
        assert!(extents.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{extents:?}");
        assert!(extents.last().is_some_and(|last| last.1 <= FILE_BLOCKS), "{extents:?}");
    }
    let used_blocks: u64 = used.iter().map(|slot| u64::from(slot.extent.blocks)).sum();
    let all = (tables.len() as u64 + 2) * u64::from(FILE_BLOCKS);
    assert_eq!(space.room_blocks(), all - used_blocks);
    assert!(!space.has_dirty() && space.file_count() == tables.len() as u64);
    let birth = space.next_birth();
    assert!(used.iter().all(|slot| slot.birth < birth), "a birth number is given twice");
    (space, used)
}

impl Store {
    fn allocate(&mut self, script: &mut Script<'_>) {
        let most = if script.flag() { 9000 } else { CHUNK_BYTES_MAX };
        let length = 1 + script.below(most) as u32;
        let Some(extent) = self.space.allocate(blocks_for(length)) else { return };
        if extent.block >= TABLE_SLOTS {
            // Its slot would lie behind the part of the table that is looked at.
            self.space.free(extent);
            return;
        }
        let overlaps = |other: &Extent| {
            other.file == extent.file
                && other.block < extent.block + extent.blocks
                && extent.block < other.block + other.blocks
        };
        assert!(!self.held.iter().any(|(other, _)| overlaps(other)), "{extent:?} is in use");
        self.held.push((extent, None));
    }

    fn write(&mut self, script: &mut Script<'_>) {
        let open: Vec<usize> = (0..self.held.len()).filter(|at| self.held[*at].1.is_none()).collect();
        if open.is_empty() {
            return;
        }
        let at = open[script.below(open.len())];
        let extent = self.held[at].0;
        // The longest that takes these blocks.
        let length = (extent.blocks * 4096 - 512).min(CHUNK_BYTES_MAX as u32);
        let slot = Slot {
            image: ImageId { session: SessionId(script.number(u64::MAX)), sequence: Sequence(script.number(u64::MAX)) },
            chunk: script.word(),
            length,
            crc32: script.word(),
            crc64: script.number(u64::MAX),
            extent,
            birth: self.space.next_birth(),
        };
        assert_eq!(blocks_for(length), extent.blocks);
        assert_eq!(Slot::decode(&slot.encode(), extent.file, extent.block), Some(slot));
        self.space.note_written(slot);
        self.held[at].1 = Some(slot);
        self.written.push(slot);
    }

    fn free(&mut self, script: &mut Script<'_>) {
        if self.held.is_empty() {
            return;
        }
        let (extent, _) = self.held.swap_remove(script.below(self.held.len()));
        self.space.free(extent);
        self.durable.remove(&(extent.file, extent.block));
    }

    /// Writes the changed sectors; with a script only those that it chooses, as a power cut does, and then starts again.
    fn commit(&mut self, mut cut: Option<&mut Script<'_>>) {
        let mut whole = true;
        for (file, sector, bytes) in self.space.take_dirty() {
            if cut.as_mut().is_some_and(|script| script.flag()) {
                whole = false;
                continue;
            }
            let at = sector as usize * SECTOR_BYTES;
            if at >= TABLE_BYTES {
                continue;
            }
            let table = self.tables.get_mut(&file).expect("of a file that exists");
            table[at..at + SECTOR_BYTES].copy_from_slice(&bytes[..]);
        }
        if whole {
            self.durable = self.live().map(|slot| (slot.extent.file, slot.extent.block)).collect();
        }
        if cut.is_some() {
            self.restart();
        }
    }

    fn live(&self) -> impl Iterator<Item = Slot> {
        self.held.iter().filter_map(|(_, slot)| *slot)
    }

    /// What the process knew is gone; what is in the tables counts.
    fn restart(&mut self) {
        let (space, used) = recover(&self.tables);
        self.check_found(&used, |_| true);
        self.space = space;
        self.held = used.iter().map(|slot| (slot.extent, Some(*slot))).collect();
        self.durable = used.iter().map(|slot| (slot.extent.file, slot.extent.block)).collect();
    }

    /// All that is durable and intact was found, and nothing that was never written.
    fn check_found(&self, used: &[Slot], is_intact: impl Fn(&Slot) -> bool) {
        for slot in used {
            assert!(self.written.contains(slot), "{slot:?} was never written");
        }
        for slot in self.live().filter(|slot| self.durable.contains(&(slot.extent.file, slot.extent.block))) {
            assert!(!is_intact(&slot) || used.contains(&slot), "{slot:?} is lost");
        }
    }

    /// Rotten, exchanged and cut sectors.
    fn check_damage(&self, script: &mut Script<'_>) {
        let mut tables = self.tables.clone();
        for _ in 0..1 + script.below(4) {
            let files: Vec<FileId> = tables.keys().copied().collect();
            let (source, target) = (files[script.below(files.len())], files[script.below(files.len())]);
            let (from, to) = (sector_at(script), sector_at(script));
            match script.below(4) {
                0 => {
                    let copy = tables[&source][from..from + SECTOR_BYTES].to_vec();
                    tables.get_mut(&target).expect("chosen from it")[to..to + SECTOR_BYTES].copy_from_slice(&copy);
                }
                1 => {
                    let table = tables.get_mut(&target).expect("chosen from it");
                    table.truncate(table.len() - script.below(TABLE_BYTES).min(table.len()));
                    table.resize(TABLE_BYTES, 0);
                }
                _ => {
                    let table = tables.get_mut(&target).expect("chosen from it");
                    sector::damage(script, &mut table[to..to + SECTOR_BYTES]);
                }
            }
        }
        let (mut space, used) = recover(&tables);
        self.check_found(&used, |slot| {
            let at = slot.extent.block as usize * SLOT_BYTES;
            tables[&slot.extent.file][at..at + SLOT_BYTES] == slot.encode()
        });
        if let Some(extent) = space.allocate(1) {
            assert!(!used.iter().any(|slot| {
                let end = slot.extent.block + slot.extent.blocks;
                slot.extent.file == extent.file && (slot.extent.block..end).contains(&extent.block)
            }));
        }
    }

    /// Slots with right checksums that no store wrote: of overlapping ones, of any length, anywhere.
    fn check_forged(&self, script: &mut Script<'_>) {
        let mut tables = self.tables.clone();
        for _ in 0..1 + script.below(6) {
            let at = script.below(TABLE_BYTES / SLOT_BYTES);
            let mut slot = [0; SLOT_BYTES];
            slot[..4].copy_from_slice(b"SLT1");
            slot[8..16].copy_from_slice(&1u64.to_le_bytes());
            let length = script.number(2 << 20) as u32;
            slot[28..32].copy_from_slice(&length.to_le_bytes());
            slot[32..36].copy_from_slice(&(at as u32).to_le_bytes());
            let blocks = if script.flag() { script.number(u64::from(u32::MAX)) as u32 } else { blocks_for(length) };
            slot[36..40].copy_from_slice(&blocks.to_le_bytes());
            slot[44..48].copy_from_slice(&1u32.to_le_bytes());
            slot[56..64].copy_from_slice(&script.number(u64::MAX).to_le_bytes());
            let crc = crc32fast::hash(&slot[8..]);
            slot[4..8].copy_from_slice(&crc.to_le_bytes());
            tables.get_mut(&FileId(1)).expect("there is a first one")[at * SLOT_BYTES..][..SLOT_BYTES]
                .copy_from_slice(&slot);
        }
        let (mut space, used) = recover(&tables);
        // Everything can be given back, and is then one piece.
        used.iter().filter(|slot| slot.extent.file == FileId(1)).for_each(|slot| space.free(slot.extent));
        assert_eq!(space.allocate(FILE_BLOCKS), Some(Extent { file: FileId(1), block: 0, blocks: FILE_BLOCKS }));
    }
}

fn sector_at(script: &mut Script<'_>) -> usize {
    script.below(TABLE_SLOTS as usize / SLOTS_PER_SECTOR as usize) * SECTOR_BYTES
}

fn check_header(script: &mut Script<'_>) {
    let header = ChunkHeader {
        image: ImageId { session: SessionId(script.number(u64::MAX)), sequence: Sequence(script.number(u64::MAX)) },
        offset: script.number(u64::MAX),
        length: script.byte().into(),
        crc32: script.byte().into(),
        crc64: script.byte().into(),
    };
    let mut bytes = [0xaa; SECTOR_BYTES];
    header.fill(&mut bytes);
    assert_eq!(ChunkHeader::parse(&bytes), Some(header));
    let whole = bytes;
    sector::damage(script, &mut bytes);
    let found = ChunkHeader::parse(&bytes);
    assert!(found.is_none() || bytes[..52] == whole[..52], "{found:?} was never written");
}

/// Lives of a store: written and freed, cut, damaged, forged.
pub fn seeds() -> Vec<Vec<u8>> {
    let begin: &[u8] = &[1, 2, 3, 4, 5, 6, 0, 9, 0, 0, 0, 1];
    let written: &[u8] = &[
        0, 1, 7, 9, 0, 0, 1, 1, 9, 0, 0, 2, 0, 0, 0, 1, 0, // three extents, the last one large
        4, 0, 1, 1, 1, 0, 0, 0, 5, 0, 0, 0, 3, 5, 0, 2, 2, 2, 0, 0, 0, 6, 0, 0, 0, 4, // two written
    ];
    let replaced: &[u8] = &[10, 8, 0, 3, 1, 8, 0, 0, 0, 7, 0, 4, 4, 4, 0, 0, 0, 9, 0, 0, 0, 5];
    [
        [begin, written, &[10]].concat(),
        [begin, written, replaced, &[12, 3, 10]].concat(),
        [begin, written, &[13, 1, 0, 1, 0], replaced, &[13, 0, 1]].concat(),
        [begin, written, replaced, &[11, 14, 2, 0, 0, 0, 3, 2, 1, 9, 9, 1, 0, 0, 1, 0, 14, 1, 0, 0, 0, 0, 0, 8]]
            .concat(),
        [begin, written, &[10, 15, 3, 4, 200, 0, 5, 6, 250, 0, 9, 7, 200, 1, 3, 2]].concat(),
        // Births: the largest number, and 2^62.
        [begin, written, &[10, 15, 1, 4, 200, 0, 254, 0, 9, 7, 0, 255, 0, 0, 0, 0x40]].concat(),
    ]
    .into()
}

//! The disk of one simulated node: files of bytes for what logic encodes, facts instead of bytes for image payload.
//!
//! Crash model (blueprint, section 5): the unit is the 512-byte sector; of what was written and not made durable any
//! subset of sectors may be there afterwards.

use std::collections::BTreeMap;

use logic::io::{Extent, FileId, LogFile, LogWrite, SegmentId};
use logic::log::ROUNDS_BYTES;
use logic::shard::GroupStart;
use logic::store::layout::TABLE_BYTES;

use crate::random::Random;

const SECTOR: usize = 512;

/// What the world knows of a chunk's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Payload bytes.
    pub length: u32,
    /// CRC-32 of the payload.
    pub crc32: u32,
    /// CRC-64 of the payload.
    pub crc64: u64,
}

/// One core's chunk files.
#[derive(Debug, Default)]
pub struct CoreDisk {
    /// Slot tables.
    pub tables: BTreeMap<FileId, Vec<u8>>,
    extents: BTreeMap<(FileId, u32), (u32, Facts)>,
    unsynced: BTreeMap<(FileId, u32), (u32, Facts)>,
}

impl CoreDisk {
    /// A chunk write reached the device; it is lost or kept by a crash before the next sync of its file.
    pub fn write(&mut self, extent: Extent, facts: Facts) {
        self.unsynced.insert((extent.file, extent.block), (extent.blocks, facts));
    }

    /// Slot sectors and a sync.
    pub fn commit(&mut self, slots: &[(FileId, u32, Box<[u8; 512]>)], files: &[FileId]) {
        let synced: Vec<(FileId, u32)> =
            self.unsynced.keys().filter(|(file, _)| files.contains(file)).copied().collect();
        for place in synced {
            let (blocks, facts) = self.unsynced.remove(&place).expect("listed above");
            self.settle(place, blocks, facts);
        }
        for (file, sector, bytes) in slots {
            let at = *sector as usize * SECTOR;
            self.tables.get_mut(file).expect("the file was made")[at..at + SECTOR].copy_from_slice(&bytes[..]);
        }
    }

    /// What lies there.
    pub fn read(&self, extent: Extent) -> Option<Facts> {
        let place = (extent.file, extent.block);
        self.unsynced.get(&place).or_else(|| self.extents.get(&place)).map(|&(_, facts)| facts)
    }

    /// The power goes: each unsynced write is there or not.
    pub fn crash(&mut self, random: &mut Random) {
        for (place, (blocks, facts)) in std::mem::take(&mut self.unsynced) {
            if random.chance(50) {
                self.settle(place, blocks, facts);
            }
        }
    }

    fn settle(&mut self, (file, block): (FileId, u32), blocks: u32, facts: Facts) {
        // Whatever overlaps is overwritten.
        let gone: Vec<(FileId, u32)> = self
            .extents
            .range((file, block.saturating_sub(512))..(file, block + blocks))
            .filter(|((_, other), (length, _))| other + length > block)
            .map(|(&place, _)| place)
            .collect();
        for place in gone {
            self.extents.remove(&place);
        }
        self.extents.insert((file, block), (blocks, facts));
    }
}

/// The files of the consensus group.
#[derive(Debug, Default)]
pub struct GroupDisk {
    /// The identity file.
    pub identity: Option<Vec<u8>>,
    /// Both copies of term and vote.
    pub vote: Option<[Box<[u8; 512]>; 2]>,
    /// The segments.
    pub segments: BTreeMap<SegmentId, Vec<u8>>,
    /// The ring of round identifiers.
    pub rounds: Vec<u8>,
}

impl GroupDisk {
    /// What a process finds.
    pub fn start(&self) -> GroupStart<'_> {
        GroupStart {
            identity: self.identity.clone(),
            vote: self.vote.clone(),
            segments: self.segments.iter().map(|(&segment, bytes)| (segment, bytes.as_slice())).collect(),
            rounds: &self.rounds,
        }
    }

    /// Carries out a flush whole.
    pub fn flush(&mut self, writes: &[LogWrite]) {
        self.write(writes, |_| true);
    }

    /// The power goes in the middle of a flush: any subset of its sectors is there.
    pub fn tear(&mut self, writes: &[LogWrite], random: &mut Random) {
        self.write(writes, |_| random.chance(50));
    }

    fn write(&mut self, writes: &[LogWrite], mut is_kept: impl FnMut(usize) -> bool) {
        for write in writes {
            let file = match write.file {
                LogFile::Segment(segment) => self.segments.get_mut(&segment).expect("the segment was prepared"),
                LogFile::Rounds => {
                    self.rounds.resize(ROUNDS_BYTES as usize, 0);
                    &mut self.rounds
                }
            };
            let (start, end) = (write.offset as usize, write.offset as usize + write.bytes.len());
            for sector in start / SECTOR..end.div_ceil(SECTOR) {
                if is_kept(sector) {
                    let (from, to) = (start.max(sector * SECTOR), end.min((sector + 1) * SECTOR));
                    file[from..to].copy_from_slice(&write.bytes[from - start..to - start]);
                }
            }
        }
    }
}

/// An empty slot table.
pub fn empty_table() -> Vec<u8> {
    vec![0; TABLE_BYTES]
}

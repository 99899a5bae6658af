//! The snapshots on a simulated disk.

use std::collections::BTreeMap;

use logic::snapshot::load;
use proto::ids::{ClusterId, LogIndex};

use crate::disk::spoil;
use crate::random::Random;

const SECTOR: usize = 512;

/// A part of a snapshot on its way to the disk.
#[derive(Clone, Debug)]
pub struct SnapshotPart {
    /// Of which.
    pub index: LogIndex,
    /// Where.
    pub offset: u64,
    /// What.
    pub bytes: Vec<u8>,
}

/// Those that are finished, and those that are not and vanish with their process.
#[derive(Debug, Default)]
pub struct SnapshotDisk {
    /// Finished.
    pub whole: BTreeMap<LogIndex, Vec<u8>>,
    unfinished: BTreeMap<LogIndex, Vec<u8>>,
}

impl SnapshotDisk {
    /// Writes a part.
    pub fn write(&mut self, part: SnapshotPart) {
        if part.offset == 0 {
            self.unfinished.insert(part.index, Vec::new());
        }
        // One that was removed meanwhile is not begun again.
        let Some(file) = self.unfinished.get_mut(&part.index) else { return };
        assert_eq!(file.len() as u64, part.offset, "a snapshot is written in order");
        file.extend_from_slice(&part.bytes);
    }

    /// Gives it its name.
    pub fn finish(&mut self, index: LogIndex) {
        if let Some(file) = self.unfinished.remove(&index) {
            self.whole.insert(index, file);
        }
    }

    /// It is gone.
    pub fn remove(&mut self, index: LogIndex) {
        self.unfinished.remove(&index);
        self.whole.remove(&index);
    }

    /// A part of one that is finished.
    pub fn read(&self, index: LogIndex, offset: u64, length: u32) -> Option<Vec<u8>> {
        let file = self.whole.get(&index)?;
        let start = file.len().min(offset as usize);
        Some(file[start..file.len().min(start + length as usize)].to_vec())
    }

    /// The process ended.
    pub fn crash(&mut self) {
        self.unfinished.clear();
    }

    /// The newest that can be read; 0 if none.
    pub fn newest(&self, cluster: ClusterId) -> u64 {
        let is_good = |bytes: &[u8]| load(bytes, cluster).is_ok();
        self.whole.iter().rev().find(|(_, bytes)| is_good(bytes)).map_or(0, |(index, _)| index.0)
    }

    /// How many can be read, and how many cannot.
    pub fn count(&self, cluster: ClusterId) -> (usize, usize) {
        let good = self.whole.values().filter(|bytes| load(bytes, cluster).is_ok()).count();
        (good, self.whole.len() - good)
    }

    /// Garbage in some of them. Whether there was one.
    pub fn rot(&mut self, random: &mut Random) -> bool {
        let mut is_hit = false;
        for bytes in self.whole.values_mut() {
            if random.chance(60) {
                let sector = random.within(0, (bytes.len() / SECTOR) as u64) as usize;
                spoil(&mut bytes[sector * SECTOR..(sector + 1) * SECTOR], random);
                is_hit = true;
            }
        }
        is_hit
    }
}

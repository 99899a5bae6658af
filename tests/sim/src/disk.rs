//! The disk of one simulated node: files of bytes for what logic encodes, facts instead of bytes for image payload.
//!
//! Crash model (blueprint, section 5): the unit is the 512-byte sector; of what was written and not made durable any
//! subset of sectors may be there afterwards. A process that is killed loses less: of a flush, what its way of flushing
//! had given to the kernel is there (`Tear`). Rot is garbage in a sector.

use std::collections::BTreeMap;

use logic::io::{Extent, FileId, LogFile, LogWrite, SegmentId};
use logic::log::layout::SEGMENT_FIRST;
use logic::log::{EntryKind, ROUNDS_BYTES, Reader};
use logic::shard::GroupStart;
use logic::store::layout::{SLOT_BYTES, SLOTS_PER_SECTOR, TABLE_BYTES};
use logic::store::slot::Slot;
use logic::vote::Vote;
use proto::checksum::{CRC64_EMPTY, crc64_combine};
use proto::ids::ImageId;

use crate::random::Random;
use crate::snapshots::SnapshotDisk;

const SECTOR: usize = 512;
/// As many sectors are the end of a log.
const LATE_SECTORS: usize = 4;

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

/// What is left of a flush that was under way when its process ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tear {
    /// The power went: any subset of its sectors.
    Power,
    /// Killed, direct writes: each write whole or not at all.
    KilledDirect,
    /// Killed, stores into a map: the first of its writes, in their order.
    KilledMapped,
    #[default]
    /// All of it or nothing. For a node that must not be damaged, because as many as may be are.
    Whole,
}

/// One core's chunk files.
#[derive(Debug, Default)]
pub struct CoreDisk {
    /// Slot tables.
    pub tables: BTreeMap<FileId, Vec<u8>>,
    slots: BTreeMap<(ImageId, u32), Vec<Slot>>, // as in the tables, by image and chunk
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
            let table = self.tables.get_mut(file).expect("the file was made");
            for slot in slots_in(&table[at..at + SECTOR], *file, *sector) {
                self.slots.entry((slot.image, slot.chunk)).or_default().retain(|other| *other != slot);
            }
            for slot in slots_in(&bytes[..], *file, *sector) {
                self.slots.entry((slot.image, slot.chunk)).or_default().push(slot);
            }
            table[at..at + SECTOR].copy_from_slice(&bytes[..]);
        }
    }

    /// Length and checksum of what is durable of an image, from its first chunk on, whatever a crash may do now: of the
    /// youngest slot of every chunk, and of the oldest. While it is not known which bytes under an id are meant, two
    /// versions are kept.
    pub fn durable_copies(&self, image: ImageId) -> [(u64, u64); 2] {
        [self.durable_copy(image, |slot| slot.birth), self.durable_copy(image, |slot| u64::MAX - slot.birth)]
    }

    fn durable_copy(&self, image: ImageId, rank: fn(&Slot) -> u64) -> (u64, u64) {
        let is_there = |slot: &&Slot| {
            let facts = Facts { length: slot.length, crc32: slot.crc32, crc64: slot.crc64 };
            self.extents.get(&(slot.extent.file, slot.extent.block)).is_some_and(|&(_, found)| found == facts)
        };
        let chunks = (0..).map_while(|chunk| {
            let slots = self.slots.get(&(image, chunk))?;
            slots.iter().filter(is_there).max_by_key(|slot| rank(slot))
        });
        chunks.fold((0, CRC64_EMPTY), |(length, checksum), slot| {
            let part = u64::from(slot.length);
            (length + part, crc64_combine(checksum, slot.crc64, part))
        })
    }

    /// What is known of an image here, for people.
    pub fn describe(&self, image: ImageId) -> String {
        let slots: Vec<&Slot> = self.slots.range((image, 0)..=(image, u32::MAX)).flat_map(|(_, slots)| slots).collect();
        let facts: Vec<_> = slots.iter().map(|slot| self.extents.get(&(slot.extent.file, slot.extent.block))).collect();
        format!("{:?}; slots {slots:?}; on disk {facts:?}", self.durable_copies(image))
    }

    /// What lies there.
    pub fn read(&self, extent: Extent) -> Option<Facts> {
        let place = (extent.file, extent.block);
        self.unsynced.get(&place).or_else(|| self.extents.get(&place)).map(|&(_, facts)| facts)
    }

    /// The process ends. Each unsynced write is there or not if the power goes; if it is only killed, the kernel has all.
    pub fn crash(&mut self, tear: Tear, random: &mut Random) {
        for (place, (blocks, facts)) in std::mem::take(&mut self.unsynced) {
            if tear != Tear::Power || random.chance(50) {
                self.settle(place, blocks, facts);
            }
        }
    }

    /// Garbage in some chunks. Returns how many.
    pub fn rot_chunks(&mut self, random: &mut Random) -> u64 {
        self.rot_some_chunks(random, 30)
    }

    /// As `rot_chunks`, in so many of a hundred.
    pub fn rot_some_chunks(&mut self, random: &mut Random, percent: u64) -> u64 {
        let mut count = 0;
        for (_, facts) in self.extents.values_mut() {
            if !random.chance(percent) {
                continue;
            }
            facts.crc32 ^= 1 << (random.draw() % 32);
            facts.crc64 ^= 1 << (random.draw() % 64);
            count += 1;
        }
        count
    }

    /// Garbage in some sectors of the slot tables. Returns how many.
    pub fn rot_index(&mut self, random: &mut Random) -> u64 {
        let mut count = 0;
        for table in self.tables.values_mut() {
            for sector in table.chunks_mut(SECTOR) {
                let is_used = sector.iter().any(|&byte| byte != 0);
                if is_used && random.chance(20) {
                    spoil(sector, random);
                    count += 1;
                }
            }
        }
        count
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
    /// The snapshots.
    pub snapshots: SnapshotDisk,
    /// How its process ended last.
    pub tear: Tear,
    /// Garbage was put into its log, or into both copies of its vote.
    pub is_damaged: bool,
    rotten_copy: Option<usize>,
}

impl GroupDisk {
    /// What a process finds.
    pub fn start(&self) -> GroupStart<'_> {
        GroupStart {
            identity: self.identity.clone(),
            vote: self.vote.clone(),
            segments: self.segments.iter().map(|(&segment, bytes)| (segment, bytes.as_slice())).collect(),
            rounds: &self.rounds,
            snapshots: self.snapshots.whole.iter().map(|(&index, bytes)| (index, bytes.as_slice())).collect(),
        }
    }

    /// Removes segments that are of no use, the last one first.
    pub fn drop_from(&mut self, first: Option<SegmentId>) {
        self.segments.retain(|segment, _| first.is_none_or(|first| *segment < first));
    }

    /// Removes segments that are not needed any more.
    pub fn retire(&mut self, end: SegmentId) {
        self.segments.retain(|segment, _| *segment >= end);
    }

    /// The process ends while it removes segments in one direction: some of them are gone.
    pub fn tear_removal(&mut self, mut gone: Vec<SegmentId>, random: &mut Random) {
        gone.truncate(random.within(0, gone.len() as u64 + 1) as usize);
        for segment in gone {
            self.segments.remove(&segment);
        }
    }

    /// Carries out a flush whole.
    pub fn flush(&mut self, writes: &[LogWrite]) {
        self.write(writes, |_| true);
    }

    /// The process ends in the middle of a flush.
    pub fn tear(&mut self, writes: &[LogWrite], tear: Tear, random: &mut Random) {
        match tear {
            Tear::Power => self.write(writes, |_| random.chance(50)),
            Tear::KilledDirect => {
                for write in writes.iter().filter(|_| random.chance(50)) {
                    self.write(std::slice::from_ref(write), |_| true);
                }
            }
            Tear::KilledMapped => {
                let kept = random.within(0, writes.len() as u64 + 1) as usize;
                self.write(&writes[..kept], |_| true);
            }
            Tear::Whole if random.chance(50) => self.write(writes, |_| true),
            Tear::Whole => {}
        }
    }

    /// Term and vote are written, both copies.
    pub fn write_vote(&mut self, sector: Box<[u8; 512]>) {
        self.vote = Some([sector.clone(), sector]);
        self.rotten_copy = None;
    }

    /// Term and vote as they can be read.
    pub fn read_vote(&self) -> Option<Vote> {
        let [one, other] = self.vote.as_ref()?;
        Vote::choose([one, other]).ok().flatten()
    }

    /// Garbage in a sector that holds entries, often one of the last. Returns whether there was one.
    pub fn rot_log(&mut self, random: &mut Random) -> bool {
        let (pick, is_late) = (random.draw() as usize, random.chance(50));
        let used: Vec<(SegmentId, usize)> = self
            .segments
            .iter()
            .flat_map(|(&segment, bytes)| {
                let sectors = bytes.chunks(SECTOR).enumerate().skip(1);
                sectors.filter(|(_, sector)| sector.iter().any(|&byte| byte != 0)).map(move |(at, _)| (segment, at))
            })
            .collect();
        let used = if is_late { &used[used.len().saturating_sub(LATE_SECTORS)..] } else { &used[..] };
        let Some(&(segment, sector)) = used.get(pick % used.len().max(1)) else { return false };
        let bytes = self.segments.get_mut(&segment).expect("listed above");
        spoil(&mut bytes[sector * SECTOR..(sector + 1) * SECTOR], random);
        true
    }

    /// Garbage in one copy of term and vote. Returns whether there was one.
    pub fn rot_vote(&mut self, random: &mut Random) -> bool {
        let Some(copies) = &mut self.vote else { return false };
        let copy = random.within(0, 2) as usize;
        spoil(&mut copies[copy][..], random);
        // With both copies bad the node cannot know how it voted.
        self.is_damaged |= self.rotten_copy.is_some_and(|other| other != copy);
        self.rotten_copy = Some(copy);
        true
    }

    /// The entries on disk, by index with their terms, as far as they can be read: those that a snapshot up to `upto` stands
    /// for, as they were chosen, and those behind it. What is bad and below it is passed over.
    pub fn durable(&self, chosen: &BTreeMap<u64, u64>, upto: u64) -> BTreeMap<u64, u64> {
        let mut durable = self.durable_segments(upto);
        let is_behind = durable.first_key_value().is_some_and(|(&first, _)| first == upto + 1);
        if upto > 0 && !is_behind && durable.get(&upto) != chosen.get(&upto) {
            durable.clear(); // Of another history.
        }
        durable.extend(chosen.range(..=upto));
        durable
    }

    fn durable_segments(&self, upto: u64) -> BTreeMap<u64, u64> {
        let mut durable: BTreeMap<u64, u64> = BTreeMap::new();
        let mut leaps = self.segments.first_key_value().is_some_and(|(&first, _)| first != SEGMENT_FIRST);
        for bytes in self.segments.values() {
            let mut offset = SECTOR as u32;
            let reader = Reader::new(bytes).ok();
            loop {
                if leaps {
                    let next = reader
                        .and_then(|reader| reader.resync(offset).find(|found| found.header.kind == EntryKind::Record));
                    match next {
                        None => break, // Perhaps in the next segment.
                        Some(found) if found.header.index.0 > upto + 1 => return durable,
                        Some(found) => offset = found.offset,
                    }
                    durable.clear();
                    leaps = false;
                }
                match reader.map(|reader| reader.entry(offset)) {
                    Some(Ok(found)) => {
                        take_entry(&mut durable, found.header.kind, found.header.index.0, found.header.term.0);
                        offset = found.next;
                        if found.header.kind == EntryKind::Seal {
                            break;
                        }
                    }
                    _ if durable.last_key_value().is_none_or(|(&last, _)| last < upto) => leaps = true,
                    _ => return durable,
                }
            }
        }
        durable
    }

    /// Adds the entries of a flush that was just carried out.
    pub fn add_durable(&self, writes: &[LogWrite], durable: &mut BTreeMap<u64, u64>) {
        for write in writes {
            let LogFile::Segment(segment) = write.file else { continue };
            let Ok(reader) = Reader::new(&self.segments[&segment]) else { continue };
            let end = write.offset + write.bytes.len() as u32;
            let mut offset = write.offset;
            while offset < end
                && let Ok(found) = reader.entry(offset)
            {
                take_entry(durable, found.header.kind, found.header.index.0, found.header.term.0);
                offset = found.next;
            }
        }
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

/// The slots of one sector of a table.
fn slots_in(bytes: &[u8], file: FileId, sector: u32) -> impl Iterator<Item = Slot> {
    let places = bytes.chunks(SLOT_BYTES).zip(sector * SLOTS_PER_SECTOR..);
    places.filter_map(move |(bytes, block)| Slot::decode(bytes, file, block))
}

/// An entry replaces what stood at its index and all behind it.
fn take_entry(durable: &mut BTreeMap<u64, u64>, kind: EntryKind, index: u64, term: u64) {
    if kind == EntryKind::Record {
        durable.split_off(&index);
        durable.insert(index, term);
    }
}

pub(crate) fn spoil(sector: &mut [u8], random: &mut Random) {
    let at = random.within(0, sector.len() as u64) as usize;
    sector[at] ^= 1 + (random.draw() % 255) as u8;
}

/// An empty slot table.
pub fn empty_table() -> Vec<u8> {
    vec![0; TABLE_BYTES]
}

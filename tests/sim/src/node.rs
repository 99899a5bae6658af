//! Nodes: their processes, which start, stand still and end, and their disks, which outlive them.

use std::collections::BTreeMap;

use logic::consensus::Standing;
use logic::io::{BufId, DiskError, Effect, Extent, FileId, Input, LogWrite, Now, Room, SegmentId, Ticket};
use logic::limits::TICK_US;
use logic::shard::{ChunkFileStart, Shard, ShardConfig, ShardStart};
use logic::store::layout::FILE_BYTES;
use proto::ids::{Address, CoreId, LogIndex, NodeId};

use crate::clock::Clock;
use crate::disk::{CoreDisk, Facts, GroupDisk, Tear, empty_table};
use crate::faults::Fault;
use crate::mutants::{Mutant, start_shard};
use crate::rejoin::Lives;
use crate::setup::shard_config;
use crate::snapshots::SnapshotPart;
use crate::world::{Event, World};

const FS_FREE_BYTES: u64 = 16 << 30;
/// A slow disk is slower by this.
const SLOW_FACTOR: u64 = 100;
/// One in so many reads is refused for want of a descriptor, say.
const REFUSED_READS: u64 = 41;
/// Of so many files one cannot be made for want of descriptors.
const REFUSED_FILES: u64 = 8;
/// How soon the room for files is looked at after that.
const SPACE_INTERVAL_US: u64 = 1_000_000;

/// A disk operation under way.
#[derive(Debug)]
pub(crate) enum Done {
    ChunkWrite { ticket: Ticket, extent: Extent, facts: Facts },
    Commit { ticket: Ticket, slots: Vec<(FileId, u32, Box<[u8; 512]>)>, files: Vec<FileId> },
    ChunkRead { ticket: Ticket, extent: Extent },
    File { file: FileId },
    Flush { ticket: Ticket, drop_from: Option<SegmentId>, writes: Vec<LogWrite> },
    Retire { end: SegmentId },
    Snapshot { ticket: Ticket, part: SnapshotPart },
    SnapshotFinish { ticket: Ticket, index: LogIndex },
    SnapshotRead { ticket: Ticket, index: LogIndex, offset: u64, length: u32 },
    Segment { segment: SegmentId, header: Box<[u8; 512]> },
    LogRead { ticket: Ticket, segment: SegmentId, offset: u32, length: u32 },
    Vote { ticket: Ticket, sector: Box<[u8; 512]> },
    Identity { ticket: Ticket, bytes: Vec<u8> },
}

impl Done {
    fn is_sync(&self) -> bool {
        matches!(
            self,
            Done::Commit { .. }
                | Done::Flush { .. }
                | Done::Vote { .. }
                | Done::Identity { .. }
                | Done::SnapshotFinish { .. }
        )
    }
}

/// A node: its disk outlives its process.
pub(crate) struct Node {
    pub cores: Vec<CoreDisk>,
    pub group: GroupDisk,
    pub process: Option<Vec<Core>>,
    /// Counts the processes.
    pub start: u64,
    pub clock: Clock,
    /// Stands still until then.
    pub stopped_until_us: u64,
    /// Entries on disk, by index with their terms.
    pub durable: BTreeMap<u64, u64>,
    /// Refuses to start until the others can heal it.
    pub is_lost: bool,
    heals: bool,              // its log lost entries, and it does not take part until it has them
    owed: BTreeMap<u64, u64>, // entries that its log had and lost, by index with their terms
    has_new_rot: bool,        // in the log, since its process started
    has_rot: bool,            // in chunks or their index
    pub(crate) lives: Lives,
    is_mapped: bool, // its way of flushing
    free_bytes: u64,
    is_full: bool,
    slow_until_us: u64,
    fails_next_sync: bool,
}

/// A core's logic and the buffers it holds.
pub(crate) struct Core {
    pub shard: Shard,
    /// With the number of holds of logic.
    pub buffers: BTreeMap<BufId, (Facts, u32)>,
    /// Its turn was put off.
    pub is_turn_due: bool,
}

impl Node {
    pub fn new(cores: u16, is_mapped: bool) -> Node {
        Node {
            cores: (0..cores).map(|_| CoreDisk::default()).collect(),
            group: GroupDisk::default(),
            process: None,
            start: 0,
            clock: Clock::new(0),
            stopped_until_us: 0,
            durable: BTreeMap::new(),
            is_lost: false,
            heals: false,
            owed: BTreeMap::new(),
            has_new_rot: false,
            has_rot: false,
            lives: Lives::default(),
            is_mapped,
            free_bytes: FS_FREE_BYTES,
            is_full: false,
            slow_until_us: 0,
            fails_next_sync: false,
        }
    }

    /// Bytes free on its filesystem.
    pub fn room(&self) -> u64 {
        if self.is_full { 0 } else { self.free_bytes }
    }

    /// What holds no promise on its disk: the world has damaged it.
    pub fn is_spoiled(&self) -> bool {
        self.has_rot || self.is_lost || self.group.is_damaged
    }

    /// Its log had these entries, and does not have them any more.
    pub(crate) fn owe(&mut self, entries: impl IntoIterator<Item = (u64, u64)>) {
        self.owed.extend(entries);
    }

    fn take_room(&mut self, bytes: u64) -> Result<(), DiskError> {
        if self.room() < bytes {
            return Err(DiskError::NoSpace);
        }
        self.free_bytes -= bytes;
        Ok(())
    }
}

impl World {
    /// Whether the node's process runs.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.nodes[&node].process.is_some()
    }

    /// Nodes that refuse to start until the others can heal them.
    pub fn lost(&self) -> usize {
        self.nodes.values().filter(|node| node.is_lost).count()
    }

    /// Whether the node refuses to start until the others can heal it.
    pub fn is_lost(&self, node: NodeId) -> bool {
        self.nodes[&node].is_lost
    }

    /// Whether any node had garbage in its chunks.
    pub fn has_rot(&self) -> bool {
        self.nodes.values().any(|node| node.has_rot)
    }

    pub(crate) fn up_cores(&self) -> impl Iterator<Item = &Core> {
        self.nodes.values().filter_map(|node| node.process.as_ref()).flatten()
    }

    pub(crate) fn core(&mut self, at: Address) -> &mut Core {
        let node = self.nodes.get_mut(&at.node).expect("a known node");
        &mut node.process.as_mut().expect("the process runs")[usize::from(at.core.0)]
    }

    /// Why a node would refuse to start, if it would.
    pub fn refusal_of(&self, id: NodeId) -> Option<String> {
        let group = &self.nodes[&id].group;
        let start = ShardStart { files: Vec::new(), room: room(FS_FREE_BYTES), group: Some(group.start()) };
        let config = shard_config(&self.plan, Address { node: id, core: CoreId(0) }, &self.members, [0; 4]);
        start_shard(config, start, Now::default(), &mut Vec::new(), self.plan.mutant).err().map(|error| error.text)
    }

    /// How consensus stands at a node, if it runs.
    pub fn standing(&self, id: NodeId) -> Option<Standing> {
        self.nodes[&id].process.as_ref()?[0].shard.standing()
    }

    /// Whether a process that starts with what is on the node's disk now has to heal.
    pub fn would_heal(&self, id: NodeId) -> bool {
        let group = &self.nodes[&id].group;
        let start = ShardStart { files: Vec::new(), room: room(FS_FREE_BYTES), group: Some(group.start()) };
        let config = shard_config(&self.plan, Address { node: id, core: CoreId(0) }, &self.members, [0; 4]);
        let shard = start_shard(config, start, Now::default(), &mut Vec::new(), Mutant::None);
        // A lone one refuses.
        shard.map_or(true, |shard| shard.standing().is_some_and(|standing| standing.healing))
    }

    /// How many of a node's snapshots are good, and how many are not.
    pub fn snapshots_of(&self, id: NodeId) -> (usize, usize) {
        let group = &self.nodes[&id].group;
        group.read_vote().map_or((0, 0), |vote| group.snapshots.count(vote.cluster))
    }

    /// Starts the process of a node. `false` if it refuses because its log or vote is damaged: then the others would have
    /// to heal it. Any other refusal panics.
    pub fn start(&mut self, id: NodeId) -> bool {
        let node = self.nodes.get_mut(&id).expect("a known node");
        assert!(node.process.is_none());
        node.start += 1;
        let start = node.start;
        let mut process = Vec::new();
        let mut effects = Vec::new();
        let now = node.clock.now(self.now_us);
        for core in 0..self.plan.cores {
            let address = Address { node: id, core: CoreId(core) };
            let entropy = [0; 4].map(|_: u64| self.random.draw());
            let config =
                ShardConfig { rejoin: node.lives.rejoins, ..shard_config(&self.plan, address, &self.members, entropy) };
            let tables = &node.cores[usize::from(core)].tables;
            let files = tables
                .iter()
                .map(|(&file, table)| ChunkFileStart { file, header: Box::new([0; 512]), table: table.clone() })
                .collect();
            let group = (core == 0).then(|| node.group.start());
            let shard_start = ShardStart { files, room: room(node.room()), group };
            let mut out = Vec::new();
            match start_shard(config, shard_start, now, &mut out, self.plan.mutant) {
                Ok(shard) => process.push(Core { shard, buffers: BTreeMap::new(), is_turn_due: false }),
                Err(error) if node.group.is_damaged || error.text.contains("may have lost entries") => {
                    self.trace.add(self.now_us, || format!("{id} refuses to start: {}", error.text));
                    node.is_lost = true;
                    return false;
                }
                Err(error) => panic!("{id} does not start: {}", error.text),
            }
            effects.push((address, out));
        }
        let upto = node.newest_snapshot();
        let chosen = self.checks.chosen_upto(upto);
        let durable = node.group.durable(&chosen, upto);
        let heals = process[0].shard.standing().is_some_and(|standing| standing.healing);
        // A snapshot stands for what is below it. Where it took the place of another history, that may be gone as a whole.
        let is_joined = upto == 0 || node.durable.get(&upto) == chosen.get(&upto);
        let before: BTreeMap<u64, u64> =
            node.durable.range(upto + 1..).filter(|_| is_joined).map(|(&index, &term)| (index, term)).collect();
        if !node.lives.is_new && !heals {
            self.checks.started(id, &before, &durable);
        }
        if heals {
            node.owe(before.into_iter().filter(|(index, term)| durable.get(index) != Some(term)));
        }
        if !node.lives.is_new {
            node.durable = durable;
        }
        (node.heals, node.has_new_rot) = (heals, false);
        node.process = Some(process);
        node.group.rounds.resize(logic::log::ROUNDS_BYTES as usize, 0);
        self.trace.add(self.now_us, || format!("{id} starts"));
        self.new_links(id);
        self.start_effects(id, start, effects);
        true
    }

    fn start_effects(&mut self, id: NodeId, start: u64, effects: Vec<(Address, Vec<Effect>)>) {
        for (at, out) in effects {
            self.carry_out(at, out);
        }
        self.after(TICK_US, Event::Tick { node: id, start });
    }

    /// Whether the node's log may be damaged: only as many may be at once as the others can do without.
    pub fn may_damage(&self, id: NodeId) -> bool {
        let is_marked = |node: &Node| {
            node.is_lost
                || node.has_rot
                || node.lives.lacks_copies
                || node.group.is_damaged
                || node.is_torn()
                || node.heals
        };
        let others = self.nodes.iter().filter(|(other, node)| **other != id && is_marked(node)).count();
        others < (self.nodes.len() - 1) / 2
    }

    /// Whether a round under way may be left in pieces, whatever happens to the rounds of others: they settle that between
    /// them, if all can answer.
    fn may_tear(&self, id: NodeId) -> bool {
        self.nodes.iter().all(|(other, node)| *other == id || !(node.is_lost || node.group.is_damaged))
    }

    /// Nodes of which the log was found to lack entries, and which have them again.
    pub(crate) fn note_healing(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a known node");
        let Some(process) = &node.process else { return };
        let heals = process[0].shard.standing().is_some_and(|standing| standing.healing);
        if node.heals && !heals {
            self.checks.healed(id, &std::mem::take(&mut node.owed), &node.durable);
            node.group.is_damaged &= node.has_new_rot;
            self.healed += 1;
        }
        node.heals = heals;
    }

    /// How a node may be damaged when it dies now.
    fn tear(&self, id: NodeId, fault: Fault) -> Tear {
        if !self.may_damage(id) && !self.may_tear(id) {
            return Tear::Whole;
        }
        let node = &self.nodes[&id];
        match fault {
            Fault::Power | Fault::PowerAll | Fault::FailedSync => Tear::Power,
            _ if node.is_mapped => Tear::KilledMapped,
            _ => Tear::KilledDirect,
        }
    }

    /// Rounds of several sectors that are being written.
    pub fn long_rounds(&self) -> usize {
        let is_its =
            |event: &&Event| matches!(event, Event::Done { done: Done::Flush { writes, .. }, .. } if is_long(writes));
        self.events.values().filter(is_its).count()
    }

    /// The process ends, by that fault.
    pub fn crash(&mut self, id: NodeId, fault: Fault) {
        let tear = self.tear(id, fault);
        let node = self.nodes.get_mut(&id).expect("a known node");
        if node.process.take().is_none() {
            return;
        }
        self.trace.add(self.now_us, || format!("{id} ends: {} {tear:?}", fault.name()));
        (node.stopped_until_us, node.fails_next_sync) = (0, false);
        node.group.tear = tear;
        for core in &mut node.cores {
            core.crash(tear, &mut self.random);
        }
        // Disk operations under way end, or not, or in part.
        let is_its = |event: &Event| matches!(event, Event::Done { at, .. } if at.node == id);
        let under_way: Vec<(u64, u64)> =
            self.events.iter().filter(|(_, event)| is_its(event)).map(|(&key, _)| key).collect();
        for key in under_way {
            let Some(Event::Done { at, done, .. }) = self.events.remove(&key) else { continue };
            let core = &mut node.cores[usize::from(at.core.0)];
            let happens = self.random.chance(50);
            match done {
                Done::ChunkWrite { extent, facts, .. } if happens => {
                    core.write(extent, facts);
                    core.crash(tear, &mut self.random);
                }
                Done::Commit { slots, files, .. } => {
                    let kept: Vec<_> = slots.into_iter().filter(|_| self.random.chance(50)).collect();
                    let files = if happens { files } else { Vec::new() };
                    core.commit(&kept, &files);
                }
                Done::File { file } if happens => {
                    core.tables.insert(file, empty_table());
                }
                Done::Flush { writes, drop_from, .. } => {
                    let gone = node.group.segments.keys().rev().copied();
                    let gone = gone.take_while(|segment| drop_from.is_some_and(|first| *segment >= first)).collect();
                    node.group.tear_removal(gone, &mut self.random);
                    self.torn_rounds += u64::from(tear == Tear::Power && is_long(&writes));
                    if drop_from.is_none_or(|first| node.group.segments.keys().all(|segment| *segment < first)) {
                        node.group.tear(&writes, tear, &mut self.random);
                    }
                }
                Done::Retire { end } => {
                    let gone = node.group.segments.keys().copied().take_while(|segment| *segment < end).collect();
                    node.group.tear_removal(gone, &mut self.random);
                }
                Done::SnapshotFinish { index, .. } if happens => node.group.snapshots.finish(index),
                Done::Vote { sector, .. } if happens => {
                    let copies = node.group.vote.get_or_insert_with(|| [Box::new([0; 512]), Box::new([0; 512])]);
                    copies[0] = sector;
                }
                Done::Identity { bytes, .. } if happens => node.group.identity = Some(bytes),
                _ => {}
            }
        }
        node.group.snapshots.crash();
        self.close_conns_of(id);
    }

    /// Garbage where it must not matter: on as many nodes as may have a bad disk. `true` if something was hit.
    pub fn rot(&mut self, id: NodeId, fault: Fault) -> bool {
        let node = self.nodes.get_mut(&id).expect("a known node");
        let random = &mut self.random;
        match fault {
            Fault::ChunkRot | Fault::IndexRot => {
                let rot = if fault == Fault::ChunkRot { CoreDisk::rot_chunks } else { CoreDisk::rot_index };
                let count: u64 = node.cores.iter_mut().map(|core| rot(core, random)).sum();
                node.has_rot |= count > 0;
                count > 0
            }
            Fault::VoteRot => node.group.rot_vote(random),
            Fault::LogRot | Fault::SnapshotRot => {
                let is_hit = match fault {
                    Fault::LogRot => node.group.rot_log(random),
                    _ => node.group.snapshots.rot(random),
                };
                node.group.is_damaged |= is_hit;
                node.has_new_rot |= is_hit;
                is_hit
            }
            other => unreachable!("{other:?} is no rot"),
        }
    }

    /// Garbage in every chunk.
    pub fn rot_all_chunks(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a known node");
        node.cores.iter_mut().for_each(|core| _ = core.rot_some_chunks(&mut self.random, 100));
        node.has_rot = true;
    }

    /// The process stands still for that long.
    pub fn stop(&mut self, id: NodeId, us: u64) {
        let until_us = self.now_us + us;
        let node = self.nodes.get_mut(&id).expect("a known node");
        node.stopped_until_us = node.stopped_until_us.max(until_us);
    }

    /// The disk is slow for that long.
    pub fn slow(&mut self, id: NodeId, us: u64) {
        self.nodes.get_mut(&id).expect("a known node").slow_until_us = self.now_us + us;
    }

    /// The next sync fails.
    pub fn fail_sync(&mut self, id: NodeId) {
        self.nodes.get_mut(&id).expect("a known node").fails_next_sync = true;
    }

    /// The filesystem is full, or not any more.
    pub fn fill(&mut self, id: NodeId, is_full: bool) {
        let node = self.nodes.get_mut(&id).expect("a known node");
        node.is_full = is_full;
        if node.process.is_some() {
            let start = node.start;
            self.after(100, Event::Space { node: id, start });
        }
    }

    /// The wall clock jumps.
    pub fn jump(&mut self, id: NodeId, ms: i64) {
        self.nodes.get_mut(&id).expect("a known node").clock.jump(ms);
    }

    /// The clock is too fast from now on.
    pub fn skew(&mut self, id: NodeId, ppm: i64) {
        self.nodes.get_mut(&id).expect("a known node").clock.skew(self.now_us, ppm);
    }

    /// Ends everything that lasts: clocks are right again, disks quick, processes run.
    pub fn heal_nodes(&mut self) {
        for id in self.nodes() {
            self.skew(id, 0);
            self.fill(id, false);
            let node = self.nodes.get_mut(&id).expect("a known node");
            (node.stopped_until_us, node.slow_until_us, node.fails_next_sync) = (0, 0, false);
        }
    }

    pub(crate) fn begin(&mut self, at: Address, done: Done) {
        let node = &self.nodes[&at.node];
        let factor = if node.slow_until_us > self.now_us { SLOW_FACTOR } else { 1 };
        let start = node.start;
        let wait = self.random.within(50, 400) * factor;
        self.after(wait, Event::Done { at, start, done });
    }

    pub(crate) fn finish(&mut self, at: Address, done: Done) {
        let node = self.nodes.get_mut(&at.node).expect("a known node");
        if node.fails_next_sync && done.is_sync() {
            // Put back: it is under way as the process ends.
            let start = node.start;
            self.after(0, Event::Done { at, start, done });
            self.counts.add(Fault::FailedSync);
            return self.crash(at.node, Fault::FailedSync);
        }
        let core = &mut node.cores[usize::from(at.core.0)];
        let input = match done {
            Done::ChunkWrite { ticket, extent, facts } => {
                core.write(extent, facts);
                Input::ChunkWritten { ticket }
            }
            Done::Commit { ticket, slots, files } => {
                core.commit(&slots, &files);
                Input::StoreCommitted { ticket }
            }
            Done::ChunkRead { ticket, extent } => {
                let facts = core.read(extent).ok_or(DiskError::Unreadable);
                let found = if is_refused(ticket) { Err(DiskError::Refused) } else { facts };
                Input::ChunkRead { ticket, result: found.map(|facts| self.new_body(at, facts)) }
            }
            Done::File { file } => {
                let no_descriptor = self.random.within(0, REFUSED_FILES) == 0;
                let result = if no_descriptor { Err(DiskError::Refused) } else { node.take_room(FILE_BYTES) };
                if result.is_ok() {
                    node.cores[usize::from(at.core.0)].tables.insert(file, empty_table());
                } else {
                    let start = node.start;
                    self.after(SPACE_INTERVAL_US, Event::Space { node: at.node, start });
                }
                Input::FileCreated { file, result }
            }
            Done::Flush { ticket, drop_from, writes } => {
                node.group.drop_from(drop_from);
                node.group.flush(&writes);
                node.group.add_durable(&writes, &mut node.durable);
                if drop_from.is_some() {
                    self.caught_up += u64::from(node.group.segments.is_empty());
                    let upto = node.newest_snapshot();
                    node.durable = node.group.durable(&self.checks.chosen_upto(upto), upto);
                }
                Input::LogFlushed { ticket }
            }
            Done::Retire { end } => return node.group.retire(end),
            Done::Snapshot { ticket, part } => {
                let result = node.take_room(part.bytes.len() as u64);
                if result.is_ok() {
                    node.group.snapshots.write(part);
                }
                Input::SnapshotWritten { ticket, result }
            }
            Done::SnapshotFinish { ticket, index } => {
                self.snapshots += 1;
                node.group.snapshots.finish(index);
                node.durable.extend(self.checks.chosen_upto(index.0));
                Input::SnapshotFinished { ticket, result: Ok(()) }
            }
            Done::SnapshotRead { ticket, index, offset, length } => {
                let found = node.group.snapshots.read(index, offset, length).ok_or(DiskError::Unreadable);
                let result = if is_refused(ticket) { Err(DiskError::Refused) } else { found };
                Input::SnapshotRead { ticket, result }
            }
            Done::Segment { segment, header } => {
                let segment_bytes = self.plan.segment_bytes;
                let result = node.take_room(u64::from(segment_bytes));
                if result.is_ok() {
                    let mut bytes = vec![0; segment_bytes as usize];
                    bytes[..512].copy_from_slice(&header[..]);
                    node.group.segments.insert(segment, bytes);
                }
                Input::SegmentPrepared { segment, result }
            }
            Done::LogRead { ticket, segment, offset, length } => {
                let bytes = node.group.segments.get(&segment);
                let part = bytes.map(|bytes| bytes[offset as usize..(offset + length) as usize].to_vec());
                let found = part.ok_or(DiskError::Unreadable);
                Input::LogRead { ticket, result: if is_refused(ticket) { Err(DiskError::Refused) } else { found } }
            }
            Done::Vote { ticket, sector } => {
                node.group.write_vote(sector);
                Input::VoteWritten { ticket }
            }
            Done::Identity { ticket, bytes } => {
                node.group.identity = Some(bytes);
                Input::IdentityWritten { ticket }
            }
        };
        self.input(at, input);
    }
}

impl Node {
    /// The last record whose effect a snapshot on its disk has that can be read.
    fn newest_snapshot(&self) -> u64 {
        let vote = self.group.read_vote();
        vote.map_or(0, |vote| self.group.snapshots.newest(vote.cluster))
    }

    /// Ended in a way that may have left its last round in pieces, and has not started since.
    fn is_torn(&self) -> bool {
        self.process.is_none() && self.group.tear != Tear::Whole
    }
}

fn room(free_bytes: u64) -> Room {
    Room { free_bytes, files: u64::MAX }
}

fn is_refused(read: Ticket) -> bool {
    read.0.is_multiple_of(REFUSED_READS)
}

/// Whether a round has several sectors, its identifier not counted.
fn is_long(writes: &[LogWrite]) -> bool {
    writes.iter().map(|write| write.bytes.len().div_ceil(512)).sum::<usize>() > 2
}

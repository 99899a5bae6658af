//! Chunks on their way to disk and back.
//!
//! ```text
//! write:  (waiting for a file) -> data write -> written -> commit (slot sectors, then one sync) -> durable
//! read:   pinned extent -> checked against its slot -> whoever asked
//! ```
//! Data writes start at once; commits go one after the other, each for all that was written meanwhile (group sync).
//! A freed extent that is being read is given back only afterwards. One of a write under way cannot be freed: its owner
//! learns of its end from `on_committed`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proto::error::Refusal;
use proto::ids::{Address, ImageId, InboxSeq, RequestId};
use proto::limits::CHUNK_BYTES_MAX;

use crate::context::Context;
use crate::io::{Body, BufId, ConnId, DiskError, Effect, Extent, FileId, Ticket};
use crate::limits::{CLEAR_SLOTS_MAX, CLEAR_SLOTS_US, WAITING_CHUNKS_MAX};
use crate::mutant::Mutant;
use crate::store::cache::Cache;
use crate::store::slot::{Slot, blocks_for};
use crate::store::space::Space;

/// A chunk being stored: of which image, in which life of its entry, at which place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChunkId {
    pub image: ImageId,
    pub life: u64, // an image that was dropped and begun again has another
    pub number: u32,
}

/// Who asked for a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadPurpose {
    /// A receiver's session.
    Deliver { conn: ConnId, seq: InboxSeq, offset: u64 },
    /// Another home that lacks the bytes.
    Fetch { to: Address, request: RequestId, image: ImageId, offset: u64 },
    /// A further holder of an upload.
    Feed { to: Address, image: ImageId, offset: u64 },
    /// Nobody: to see whether it is what was written.
    Scrub { cost: u64 },
    /// Nobody: to see which of several slots has the bytes.
    Look { slot: Slot },
}

/// Why a chunk was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    /// What lies in this slot is not what was written.
    Rotten(Slot),
    /// The system did not let it happen now. This says nothing about the bytes.
    Refused,
}

impl Unread {
    /// What another node is told that asked for it: a copy that only cannot be read now is no lost one.
    pub fn refusal(self) -> Refusal {
        match self {
            Unread::Rotten(_) => Refusal::NotHeld,
            Unread::Refused => Refusal::Busy,
        }
    }
}

/// The chunk store of one core.
#[derive(Debug)]
pub(crate) struct Chunks {
    pub space: Space,
    cache: Cache,
    waiting: VecDeque<(ChunkId, Body)>, // for a file with room
    writing: BTreeMap<Ticket, (ChunkId, Slot)>,
    written: Vec<(ChunkId, Slot)>, // since the last commit was asked for
    commit: Option<(Ticket, Vec<(ChunkId, Slot)>)>,
    reads: BTreeMap<Ticket, (Slot, ReadPurpose)>,
    pins: BTreeMap<(FileId, u32), Pin>, // by first block of the extent
    clear_us: u64,                      // when slots of freed extents are cleared next
}

#[derive(Debug, Default)]
struct Pin {
    readers: u32,
    doomed: Option<Extent>, // freed while being read
}

impl Chunks {
    pub fn new(space: Space, cache_bytes: u64) -> Chunks {
        Chunks {
            space,
            cache: Cache::new(cache_bytes),
            waiting: VecDeque::new(),
            writing: BTreeMap::new(),
            written: Vec::new(),
            commit: None,
            reads: BTreeMap::new(),
            pins: BTreeMap::new(),
            clear_us: 0,
        }
    }

    /// Whether a chunk would be taken now.
    pub fn can_write(&self) -> bool {
        self.waiting.len() < WAITING_CHUNKS_MAX
    }

    /// Stores a chunk and keeps it in the cache; takes over the hold of `body`. `on_committed` tells when it is durable.
    pub fn write(&mut self, cx: &mut Context<'_>, id: ChunkId, body: Body) {
        if self.waiting.is_empty() && self.start(cx, id, body) {
            return;
        }
        assert!(self.waiting.len() < WAITING_CHUNKS_MAX, "the caller asks can_write");
        self.waiting.push_back((id, body));
    }

    /// Forgets chunks of an image that wait for room, and those in the cache.
    pub fn forget(&mut self, cx: &mut Context<'_>, image: ImageId) {
        let mut released = Vec::new();
        self.waiting.retain(|(id, body)| {
            if id.image == image {
                released.push(body.buf);
            }
            id.image != image
        });
        self.cache.remove(image, &mut released);
        release(cx, &released);
    }

    /// A data write is done. What was written is not durable yet.
    pub fn on_written(&mut self, ticket: Ticket) -> (ChunkId, Slot) {
        let (id, slot) = self.writing.remove(&ticket).expect("a completion of what was asked for");
        self.space.note_written(slot);
        self.written.push((id, slot));
        (id, slot)
    }

    /// A commit is done: these chunks are durable.
    pub fn on_committed(&mut self, ticket: Ticket) -> Vec<(ChunkId, Slot)> {
        let (asked, chunks) = self.commit.take().expect("a completion of what was asked for");
        assert_eq!(asked, ticket, "commits go one after the other");
        chunks
    }

    /// A file is there or not; starts what waited for it. Returns the chunks for which there is no room.
    pub fn on_file_created(
        &mut self,
        cx: &mut Context<'_>,
        file: FileId,
        result: Result<(), DiskError>,
    ) -> Vec<ChunkId> {
        self.space.on_file_created(file, result);
        while let Some((id, body)) = self.waiting.pop_front() {
            if !self.start(cx, id, body) {
                self.waiting.push_front((id, body));
                break;
            }
        }
        self.take_hopeless(cx)
    }

    /// Asks for what the inputs so far made due.
    pub fn turn(&mut self, cx: &mut Context<'_>) {
        if let Some(file) = self.space.take_wanted_file() {
            cx.out.push(Effect::FileCreate { file });
        }
        let is_idle = self.commit.is_none() && self.written.is_empty() && self.writing.is_empty();
        if is_idle || cx.now.mono_us >= self.clear_us {
            self.clear_us = cx.now.mono_us + CLEAR_SLOTS_US;
            self.space.clear_stale(CLEAR_SLOTS_MAX);
        }
        if self.commit.is_none() && (!self.written.is_empty() || self.space.has_dirty()) {
            let ticket = cx.tickets.next();
            let chunks = std::mem::take(&mut self.written);
            let files: BTreeSet<FileId> = chunks.iter().map(|(_, slot)| slot.extent.file).collect();
            let slots = self.space.take_dirty();
            let files = files.into_iter().chain(slots.iter().map(|&(file, ..)| file)).collect::<BTreeSet<_>>();
            cx.out.push(Effect::StoreCommit { ticket, slots, files: files.into_iter().collect() });
            self.commit = Some((ticket, chunks));
        }
    }

    /// The chunk of `image` at `offset`, if it is in memory.
    pub fn cached(&self, image: ImageId, offset: u64) -> Option<Body> {
        self.cache.get(image, offset)
    }

    /// Reads a chunk from disk.
    pub fn read(&mut self, cx: &mut Context<'_>, slot: Slot, purpose: ReadPurpose) {
        let ticket = cx.tickets.next();
        self.reads.insert(ticket, (slot, purpose));
        self.pins.entry((slot.extent.file, slot.extent.block)).or_default().readers += 1;
        cx.out.push(Effect::ChunkRead { ticket, extent: slot.extent, length: slot.length });
    }

    /// A read is done. The body comes with its hold.
    pub fn on_read(
        &mut self,
        cx: &mut Context<'_>,
        ticket: Ticket,
        result: Result<Body, DiskError>,
    ) -> (ReadPurpose, Result<Body, Unread>) {
        let (slot, purpose) = self.reads.remove(&ticket).expect("a completion of what was asked for");
        let place = (slot.extent.file, slot.extent.block);
        let pin = self.pins.get_mut(&place).expect("a read pins its extent");
        pin.readers -= 1;
        if pin.readers == 0
            && let Some(extent) = self.pins.remove(&place).expect("it was there a line above").doomed
        {
            self.space.free(extent);
        }
        let body = match result {
            Ok(body) => body,
            Err(DiskError::Refused) if !cx.mutant.is(Mutant::RefusedIsRot) => return (purpose, Err(Unread::Refused)),
            Err(_) => return (purpose, Err(Unread::Rotten(slot))),
        };
        let is_sent_on = !matches!(purpose, ReadPurpose::Feed { .. });
        let is_right = (body.length, body.crc32, body.crc64) == (slot.length, slot.crc32, slot.crc64);
        if is_right || is_sent_on && cx.mutant.is(Mutant::SkipChunkChecksum) {
            return (purpose, Ok(body));
        }
        tracing::error!(image = %slot.image, chunk = slot.chunk, ?slot.extent, "a chunk on disk has other bytes than were written");
        cx.release(body.buf);
        (purpose, Err(Unread::Rotten(slot)))
    }

    /// Bytes of buffers in the cache.
    pub fn cache_bytes(&self) -> u64 {
        self.cache.bytes()
    }

    /// Chunks that wait for a file with room.
    pub fn waiting(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// Reads under way for other homes.
    pub fn fetches(&self) -> usize {
        self.reads.values().filter(|(_, purpose)| matches!(purpose, ReadPurpose::Fetch { .. })).count()
    }

    /// Gives an extent back, after the reads of it that are under way.
    pub fn free(&mut self, extent: Extent) {
        match self.pins.get_mut(&(extent.file, extent.block)) {
            Some(pin) => {
                assert!(pin.doomed.is_none(), "freed twice: {extent:?}");
                pin.doomed = Some(extent);
            }
            None => self.space.free(extent),
        }
    }

    /// Chunks that wait for a file that cannot be made now.
    pub fn take_hopeless(&mut self, cx: &mut Context<'_>) -> Vec<ChunkId> {
        if self.waiting.is_empty() || !self.space.is_full() {
            return Vec::new();
        }
        let waiting = std::mem::take(&mut self.waiting);
        release(cx, &waiting.iter().map(|(_, body)| body.buf).collect::<Vec<_>>());
        waiting.into_iter().map(|(id, _)| id).collect()
    }

    fn start(&mut self, cx: &mut Context<'_>, id: ChunkId, body: Body) -> bool {
        let Some(extent) = self.space.allocate(blocks_for(body.length)) else { return false };
        let slot = Slot {
            image: id.image,
            chunk: id.number,
            length: body.length,
            crc32: body.crc32,
            crc64: body.crc64,
            extent,
            birth: self.space.next_birth(),
        };
        let ticket = cx.tickets.next();
        self.writing.insert(ticket, (id, slot));
        cx.out.push(Effect::ChunkWrite { ticket, extent, buf: body.buf });
        let mut released = Vec::new();
        self.cache.insert(id.image, u64::from(id.number) * CHUNK_BYTES_MAX as u64, body, &mut released);
        release(cx, &released);
        true
    }
}

fn release(cx: &mut Context<'_>, buffers: &[BufId]) {
    for &buf in buffers {
        cx.release(buf);
    }
}

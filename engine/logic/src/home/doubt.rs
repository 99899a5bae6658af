//! Slots of the same bytes, found at a start: which of them has them, only reading tells.
//!
//! A power cut in the middle of a commit may leave a slot whose bytes never reached the disk. It may as well leave one whose
//! extent was freed, because the same bytes were durable elsewhere, and then written over. So neither the younger nor the older
//! slot is to be trusted: both stay until one of them was read right. One read at a time; there are as many such images
//! as uploads were under way when the power went.

use proto::ids::ImageId;

use super::upload::Chunk;
use super::{Home, Object};
use crate::context::Context;
use crate::store::chunks::ReadPurpose;
use crate::store::slot::Slot;

impl Home {
    /// Only one version of an image's bytes is ever named by records: slots found of others are of no use.
    pub(super) fn free_other_versions(&mut self, image: ImageId) {
        let Some(object) = self.objects.get_mut(&image) else { return };
        if object.upload.is_some() || object.claims.is_empty() {
            return;
        }
        let chunks = &object.chunks;
        let is_other = |slot: &mut Slot| !matches!(chunks.get(slot.chunk as usize), Some(Chunk::Durable(chosen)) if chosen.has_bytes_of(slot));
        for slot in object.before.extract_if(.., is_other) {
            self.chunks.free(slot.extent);
        }
    }

    /// Reads the next chunk of which there are several slots.
    pub(super) fn look_into_doubt(&mut self, cx: &mut Context<'_>) {
        if self.is_looking {
            return;
        }
        let doubtful = self.objects.open().filter(|(_, object)| object.upload.is_none() && !object.claims.is_empty());
        let slot = doubtful.filter_map(|(_, object)| object.doubtful()).next();
        if let Some(slot) = slot {
            self.look_at(cx, slot);
        }
    }

    fn look_at(&mut self, cx: &mut Context<'_>, slot: Slot) {
        self.is_looking = true;
        self.chunks.read(cx, slot, ReadPurpose::Look { slot });
    }

    /// It was read. If it was not right, `note_rot` has seen to that.
    pub fn on_look(&mut self, cx: &mut Context<'_>, slot: Slot, is_right: bool) {
        self.is_looking = false;
        let object = self.objects.get_mut(&slot.image).filter(|object| !object.claims.is_empty());
        let counts = object.as_ref().and_then(|object| match object.chunks.get(slot.chunk as usize) {
            Some(Chunk::Durable(counts)) => Some(*counts),
            _ => None,
        });
        match (object, counts) {
            (Some(object), Some(counts)) if is_right && counts == slot => {
                for other in object.before.extract_if(.., |other| other.chunk == slot.chunk) {
                    self.chunks.free(other.extent);
                }
                self.objects.rest(&slot.image);
                self.look_into_doubt(cx);
            }
            (_, Some(counts)) if counts != slot => self.look_at(cx, counts),
            _ => {}
        }
    }
}

impl Object {
    /// The first chunk of which there are several slots: the one that counts now.
    fn doubtful(&self) -> Option<Slot> {
        self.before.iter().find_map(|other| match self.chunks.get(other.chunk as usize) {
            Some(Chunk::Durable(slot)) => Some(*slot),
            _ => None,
        })
    }

    /// Puts another slot of the same bytes in the place of a rotten one. Returns whether there was one.
    pub(super) fn fall_back(&mut self, rotten: Slot) -> bool {
        let Some(at) = self.before.iter().position(|other| other.has_bytes_of(&rotten)) else { return false };
        self.chunks[rotten.chunk as usize] = Chunk::Durable(self.before.swap_remove(at));
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proto::checksum::{crc32, crc64};
    use proto::error::Refusal;
    use proto::ids::{
        Address, CoreId, Fingerprint, ImageId, Incarnation, LogIndex, NodeId, RequestId, Sequence, SessionId,
    };
    use proto::peer::PeerMessage;

    use crate::io::{Body, BufId, CoreNote, DiskError, Effect, Extent, FileId, Input, Now, Room, Ticket};
    use crate::outlook::config;
    use crate::shard::{ChunkFileStart, Shard, ShardConfig, ShardStart};
    use crate::store::layout::{SLOT_BYTES, TABLE_BYTES};
    use crate::store::slot::{Slot, blocks_for};

    const IMAGE: ImageId = ImageId { session: SessionId(7), sequence: Sequence(1) };
    const BYTES: [u8; 5_000] = [9; 5_000];
    const NOW: Now = Now { mono_us: 1, wall_ms: 1 };

    /// A core that finds two slots of the same bytes, of which a record speaks.
    fn core_with_two_slots(first: u32, second: u32) -> (Shard, Vec<Effect>) {
        let length = BYTES.len() as u32;
        let blocks = blocks_for(length);
        let mut table = vec![0u8; TABLE_BYTES];
        for (block, birth) in [(first, 1), (second, 2)] {
            let extent = Extent { file: FileId(1), block, blocks };
            let (crc32, crc64) = (crc32(&BYTES), crc64(&BYTES));
            let slot = Slot { image: IMAGE, chunk: 0, length, crc32, crc64, extent, birth };
            let at = block as usize * SLOT_BYTES;
            table[at..at + SLOT_BYTES].copy_from_slice(&slot.encode());
        }
        let config = ShardConfig { address: Address { node: NodeId(1), core: CoreId(1) }, ..config(NodeId(1), 2) };
        let files = vec![ChunkFileStart { file: FileId(1), header: Box::new([0; 512]), table }];
        let mut effects = Vec::new();
        let start = ShardStart { files, room: Room { free_bytes: 0, files: u64::MAX }, group: None };
        let mut shard = Shard::new(config, start, NOW, &mut effects).expect("nothing to refuse");
        let fingerprint = Fingerprint { length: u64::from(length), checksum: crc64(&BYTES) };
        let claim =
            CoreNote::Claim { image: IMAGE, index: LogIndex(5), fingerprint, receivers: vec![Arc::from("ann")] };
        shard.step(NOW, Input::Core { from: CoreId(0), note: claim }, &mut effects);
        shard.step(NOW, Input::Tick, &mut effects);
        (shard, effects)
    }

    /// The extents read, and the ticket of the last read.
    fn reads(effects: &[Effect]) -> (Vec<u32>, Option<Ticket>) {
        let reads = effects.iter().filter_map(|effect| match effect {
            Effect::ChunkRead { ticket, extent, .. } => Some((extent.block, *ticket)),
            _ => None,
        });
        let (blocks, tickets): (Vec<u32>, Vec<Ticket>) = reads.unzip();
        (blocks, tickets.last().copied())
    }

    fn read(shard: &mut Shard, effects: &mut Vec<Effect>, bytes: &[u8]) {
        let ticket = reads(effects).1.expect("a read is under way");
        effects.clear();
        let (crc32, crc64) = (crc32(bytes), crc64(bytes));
        let body = Body { buf: BufId(1), length: bytes.len() as u32, crc32, crc64 };
        shard.step(NOW, Input::ChunkRead { ticket, result: Ok(body) }, effects);
        shard.step(NOW, Input::Tick, effects);
        shard.step(NOW, Input::Turn, effects);
    }

    /// Whether slots were cleared: those of extents that were given back.
    fn clears(effects: &[Effect]) -> bool {
        effects.iter().any(|effect| matches!(effect, Effect::StoreCommit { slots, .. } if !slots.is_empty()))
    }

    #[test]
    fn younger_slot_whose_bytes_never_reached_the_disk_gives_way() {
        let (mut shard, mut effects) = core_with_two_slots(100, 200);
        assert_eq!(reads(&effects).0, [200], "the younger one is looked at first");
        assert!(!clears(&effects), "neither is given back unread");
        read(&mut shard, &mut effects, b"what lay there before");
        assert_eq!(reads(&effects).0, [100]);
        read(&mut shard, &mut effects, &BYTES);
        assert_eq!(reads(&effects).0, [0; 0], "nothing is in doubt any more");
        assert_eq!(shard.load().repairs, 0, "no other holder is asked");
    }

    #[test]
    fn older_slot_goes_when_the_younger_one_was_read_right() {
        let (mut shard, mut effects) = core_with_two_slots(100, 200);
        read(&mut shard, &mut effects, &BYTES);
        assert!(clears(&effects));
        assert_eq!(reads(&effects).0, [0; 0]);
        assert_eq!(shard.load().repairs, 0);
    }

    fn fail(shard: &mut Shard, effects: &mut Vec<Effect>, error: DiskError) {
        let ticket = reads(effects).1.expect("a read is under way");
        effects.clear();
        shard.step(NOW, Input::ChunkRead { ticket, result: Err(error) }, effects);
        shard.step(NOW, Input::Tick, effects);
    }

    #[test]
    fn read_that_the_system_refused_says_nothing_about_the_bytes() {
        let (mut shard, mut effects) = core_with_two_slots(100, 200);
        for _ in 0..3 {
            fail(&mut shard, &mut effects, DiskError::Refused);
            assert_eq!(reads(&effects).0, [200], "the same one is looked at again");
        }
        read(&mut shard, &mut effects, &BYTES);
        assert!(clears(&effects) && shard.load().repairs == 0);
        // The last holder whom the others ask: it has the bytes, and only cannot give them now.
        let other = Address { node: NodeId(2), core: CoreId(0) };
        for (error, expected) in [(DiskError::Refused, Refusal::Busy), (DiskError::Unreadable, Refusal::NotHeld)] {
            effects.clear();
            let message = PeerMessage::Fetch { request: RequestId(3), image: IMAGE, offset: 0 };
            shard.step(
                NOW,
                Input::Peer { from: other, incarnation: Incarnation(1), link: 0, message, body: None },
                &mut effects,
            );
            fail(&mut shard, &mut effects, error);
            let told = effects.iter().find_map(|effect| match effect {
                Effect::Send { message: PeerMessage::FetchFailed { refusal, .. }, .. } => Some(*refusal),
                _ => None,
            });
            assert_eq!(told, Some(expected));
            assert_eq!(shard.load().repairs, u64::from(expected == Refusal::NotHeld));
        }
    }

    #[test]
    fn image_of_which_no_slot_reads_right_is_repaired() {
        let (mut shard, mut effects) = core_with_two_slots(100, 200);
        read(&mut shard, &mut effects, b"other");
        read(&mut shard, &mut effects, b"others");
        assert_eq!(shard.load().repairs, 1);
    }
}

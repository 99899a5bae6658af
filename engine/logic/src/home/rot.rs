//! What a home does when bytes of an upload cannot be read back for a further holder.
//!
//! Until the leader is told of them nobody relies on them, and the sender still has them: they are forgotten, and
//! the sender goes back to the rotten chunk.

use proto::checksum::{CRC64_EMPTY, crc64_combine};
use proto::ids::{Address, ImageId};
use proto::limits::CHUNK_BYTES_MAX;

use super::Home;
use super::upload::{Chunk, NoticeState, report};
use crate::context::Context;
use crate::io::{Body, BodyRef};
use crate::limits::RESEND_US;
use crate::store::chunks::Unread;
use crate::store::slot::blocks_for;

impl Home {
    /// A chunk for a further holder was read, or cannot be.
    pub fn on_feed_read(
        &mut self,
        cx: &mut Context<'_>,
        to: Address,
        (image, offset): (ImageId, u64),
        read: Result<Body, Unread>,
    ) {
        let upload = self.objects.get_mut(&image).and_then(|object| object.upload.as_mut());
        let checksum = upload.as_ref().map_or(0, |upload| upload.spec.fingerprint.checksum);
        if let Some(other) = upload.and_then(|upload| upload.others.iter_mut().find(|other| other.address == to)) {
            other.reading = false;
            match &read {
                Ok(body) if other.sent_end == offset => {
                    other.send(cx, (image, checksum), BodyRef { buf: body.buf, length: body.length, crc32: body.crc32 })
                }
                Ok(_) => other.sent_us = cx.now.mono_us,
                // Not at once again, if the bytes stay.
                Err(_) => other.unread_until_us = cx.now.mono_us + RESEND_US,
            }
        }
        match read {
            Ok(body) => {
                cx.release(body.buf);
                self.advance(cx, image);
            }
            Err(Unread::Rotten(_)) => self.forget_from(cx, image, offset),
            Err(Unread::Refused) => {}
        }
    }

    /// Forgets the bytes of an upload from the chunk at `offset` on, unless somebody may rely on them.
    fn forget_from(&mut self, cx: &mut Context<'_>, image: ImageId, offset: u64) {
        let Some(object) = self.objects.get_mut(&image) else { return };
        let Some(upload) = object.upload.as_mut() else { return };
        // The leader that was told gathers holders, and a later record may name this one. That copy is rotten then; but as
        // long as the leader refuses, and the sender is there, it can become whole again.
        let is_refused = matches!(upload.notice, NoticeState::Again { .. });
        let may_become_whole = is_refused && upload.sources.iter().any(|source| source.is_ingest);
        if !object.claims.is_empty() || (upload.is_told && !may_become_whole) || upload.durable_end <= offset {
            return;
        }
        tracing::warn!(%image, offset, "a chunk of an upload cannot be read back: its sender is asked to send it again");
        // Writes under way of what is forgotten belong to the life before; below `durable_end` there are none.
        self.next_life += 1;
        object.life = self.next_life;
        for chunk in object.chunks.split_off((offset / CHUNK_BYTES_MAX as u64) as usize) {
            let blocks = u64::from(blocks_for(chunk.length()));
            self.image_bytes -= u64::from(chunk.length());
            upload.promised_blocks += blocks;
            self.chunks.space.promise(blocks);
            if let Chunk::Durable(slot) = chunk {
                self.chunks.free(slot.extent);
            }
        }
        upload.durable_sum = CRC64_EMPTY;
        for chunk in &object.chunks {
            if let Chunk::Durable(slot) = chunk {
                upload.durable_sum = crc64_combine(upload.durable_sum, slot.crc64, u64::from(slot.length));
            }
        }
        (upload.received_end, upload.durable_end, upload.complete_us) = (offset, offset, None);
        for other in &mut upload.others {
            other.sent_end = other.durable_end.max(other.sent_end.min(offset));
        }
        self.chunks.forget(cx, image);
        report(cx, image, upload);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use proto::ids::{Address, CoreId, Fingerprint, ImageId, Incarnation, NodeId, RingEpoch, Sequence, SessionId};
    use proto::peer::{PeerMessage, Upload};
    use proto::ring::{Member, Ring, core_of};

    use crate::io::{Body, BufId, CoreNote, DiskError, Effect, Input, Now, Ticket, View};
    use crate::limits::{RESEND_US, TICK_US};
    use crate::outlook::config;
    use crate::shard::{Shard, ShardConfig, ShardStart};

    const ME: Address = Address { node: NodeId(1), core: CoreId(1) };
    const INGEST: Address = Address { node: NodeId(1), core: CoreId(0) };
    const IMAGE: ImageId = ImageId { session: SessionId(7), sequence: Sequence(1) };
    const SUMS: (u32, u64) = (5, 6);

    struct World {
        shard: Shard,
        now: Now,
    }

    impl World {
        /// Gives the input, and completes what the store asks for but reads; gives the tickets of these.
        fn step(&mut self, input: Input) -> Vec<Ticket> {
            let (mut inputs, mut reads) = (vec![input, Input::Turn], Vec::new());
            while !inputs.is_empty() {
                let mut effects = Vec::new();
                inputs.drain(..).for_each(|input| self.shard.step(self.now, input, &mut effects));
                for effect in effects {
                    match effect {
                        Effect::FileCreate { file, .. } => inputs.push(Input::FileCreated { file, result: Ok(()) }),
                        Effect::ChunkWrite { ticket, .. } => inputs.push(Input::ChunkWritten { ticket }),
                        Effect::StoreCommit { ticket, .. } => inputs.push(Input::StoreCommitted { ticket }),
                        Effect::ChunkRead { ticket, .. } => reads.push(ticket),
                        _ => continue,
                    }
                    inputs.push(Input::Turn);
                }
            }
            reads
        }

        fn peer(&mut self, message: PeerMessage, body: Option<Body>) -> Vec<Ticket> {
            self.step(Input::Peer { from: INGEST, incarnation: Incarnation(1), link: 0, message, body })
        }

        /// Ticks for that long, during which each read fails so; gives how many there were.
        fn fail_reads(&mut self, first: Vec<Ticket>, us: u64, error: DiskError) -> usize {
            let (mut reads, mut count) = (first, 0);
            let end_us = self.now.mono_us + us;
            while self.now.mono_us < end_us {
                for ticket in std::mem::take(&mut reads) {
                    count += 1;
                    reads.extend(self.step(Input::ChunkRead { ticket, result: Err(error) }));
                }
                self.now.mono_us += TICK_US;
                reads.extend(self.step(Input::Tick));
            }
            count
        }
    }

    /// The home of an image, with all its bytes, of which no further holder has any.
    fn home() -> (World, Vec<Ticket>) {
        let member = |node: u64| Member {
            node: NodeId(node),
            incarnation: Incarnation(1),
            cores: 2,
            up: true,
            voter: true,
            client_address: String::new(),
            peer_address: String::new(),
        };
        let ring = Ring::new(RingEpoch(1), vec![member(1), member(2)]);
        let is_ours =
            |name: &String| ring.home(name).is_some_and(|home| home.node == ME.node) && core_of(name, 2) == ME.core;
        let name = (0..).map(|number| format!("gallery-{number}")).find(is_ours).unwrap();
        let config = ShardConfig { address: ME, cache_bytes: 0, ..config(ME.node, 2) };
        let start = ShardStart { files: Vec::new(), free_bytes: 16 << 30, group: None };
        let now = Now { mono_us: 1, wall_ms: 1 };
        let shard = Shard::new(config, start, now, &mut Vec::new()).unwrap();
        let mut world = World { shard, now };
        let view =
            View { ring, leader: NodeId(1), contact: true, copies: 2, image_bytes_max: 1 << 20, ..View::default() };
        world.step(Input::Core { from: CoreId(0), note: CoreNote::View(Arc::new(view)) });
        let (length, checksum) = (1000, SUMS.1);
        let upload = Upload {
            image: IMAGE,
            low_water: Sequence(1),
            fingerprint: Fingerprint { length, checksum },
            name: "a.png".to_owned(),
            receivers: vec![name],
            chain: vec![ME, Address { node: NodeId(2), core: CoreId(0) }],
        };
        world.peer(PeerMessage::Upload(upload), None);
        let chunk = PeerMessage::UploadChunk { image: IMAGE, offset: 0, checksum, crc32: SUMS.0 };
        let body = Body { buf: BufId(1), length: length as u32, crc32: SUMS.0, crc64: SUMS.1 };
        let reads = world.peer(chunk, Some(body));
        (world, reads)
    }

    #[test]
    fn what_cannot_be_read_for_a_further_holder_is_not_read_again_at_each_tick() {
        let (mut world, reads) = home();
        assert!(reads.is_empty(), "they were sent on as they came");
        let count = world.fail_reads(reads, 10 * RESEND_US, DiskError::Refused);
        assert!((5..=10).contains(&count), "{count} reads in ten times the pause");
    }
}

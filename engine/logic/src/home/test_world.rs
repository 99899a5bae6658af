//! A core that stores an image, for tests of this stage: what it asks of its store is done at once.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use proto::error::Refusal;
use proto::ids::{
    Address, CoreId, Fingerprint, ImageId, Incarnation, LogIndex, NodeId, RequestId, RingEpoch, Sequence, SessionId,
};
use proto::peer::{LeaderAnswer, LeaderRequest, PeerMessage, Upload};
use proto::ring::{Member, Ring, core_of};

use crate::io::{Body, BufId, CoreNote, DiskError, Effect, Input, Now, Room, Ticket, View};
use crate::limits::TICK_US;
use crate::outlook::config;
use crate::shard::{Shard, ShardConfig, ShardStart};

/// The core under test.
pub(super) const ME: Address = Address { node: NodeId(1), core: CoreId(1) };
/// Who has the sender's connection.
pub(super) const INGEST: Address = Address { node: NodeId(1), core: CoreId(0) };
const IMAGE: ImageId = ImageId { session: SessionId(7), sequence: Sequence(1) };
const SUMS: (u32, u64) = (5, 6);
const LENGTH: u32 = 1000;
const INDEX: LogIndex = LogIndex(5);
const FINGERPRINT: Fingerprint = Fingerprint { length: LENGTH as u64, checksum: SUMS.1 };

pub(super) struct World {
    shard: Shard,
    now: Now,
    receiver: String,
    notices: Vec<RequestId>,
}

/// The core of another node.
pub(super) fn core_of_node(node: u64) -> Address {
    Address { node: NodeId(node), core: CoreId(0) }
}

impl World {
    /// A core of node 1 of three; a receiver is registered there.
    pub(super) fn new() -> World {
        let config = ShardConfig { address: ME, cache_bytes: 0, ..config(ME.node, 2) };
        let start = ShardStart { files: Vec::new(), room: Room { free_bytes: 16 << 30, files: u64::MAX }, group: None };
        let now = Now { mono_us: 1, wall_ms: 1 };
        let shard = Shard::new(config, start, now, &mut Vec::new()).unwrap();
        let ring = ring(&[1, 2, 3]);
        let is_ours =
            |name: &String| ring.home(name).is_some_and(|home| home.node == ME.node) && core_of(name, 2) == ME.core;
        let receiver = (0..).map(|number| format!("gallery-{number}")).find(is_ours).unwrap();
        let mut world = World { shard, now, receiver, notices: Vec::new() };
        world.see(&[1, 2, 3]);
        world
    }

    /// The ring, as the records applied now tell it: these are up.
    pub(super) fn see(&mut self, up: &[u64]) {
        let view = View {
            ring: ring(up),
            leader: NodeId(1),
            contact: true,
            copies: 2,
            image_bytes_max: 1 << 20,
            ..View::default()
        };
        self.step(Input::Core { from: CoreId(0), note: CoreNote::View(Arc::new(view)) });
    }

    /// Gives the input, and completes what the store asks for but reads; gives the tickets of these.
    pub(super) fn step(&mut self, input: Input) -> Vec<Ticket> {
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
                    Effect::Send { message: PeerMessage::Request { request, body, .. }, .. } => {
                        if matches!(body, LeaderRequest::Notice(_)) {
                            self.notices.push(request);
                        }
                        continue;
                    }
                    _ => continue,
                }
                inputs.push(Input::Turn);
            }
        }
        reads
    }

    pub(super) fn peer(&mut self, from: Address, message: PeerMessage, body: Option<Body>) -> Vec<Ticket> {
        self.step(Input::Peer { from, incarnation: Incarnation(1), link: 0, message, body })
    }

    /// The image is announced, and comes whole.
    pub(super) fn upload(&mut self, from: Address, chain: [Address; 2]) -> Vec<Ticket> {
        let upload = Upload {
            image: IMAGE,
            low_water: Sequence(1),
            fingerprint: FINGERPRINT,
            name: "a.png".to_owned(),
            receivers: vec![self.receiver.clone()],
            chain: chain.to_vec(),
        };
        self.peer(from, PeerMessage::Upload(upload), None);
        let chunk = PeerMessage::UploadChunk { image: IMAGE, offset: 0, checksum: SUMS.1, crc32: SUMS.0 };
        let body = Body { buf: BufId(1), length: LENGTH, crc32: SUMS.0, crc64: SUMS.1 };
        self.peer(from, chunk, Some(body))
    }

    /// A further holder does not take the image.
    pub(super) fn refuse(&mut self, from: Address, refusal: Refusal) {
        let text = "for the test".to_owned();
        self.peer(from, PeerMessage::UploadRefused { image: IMAGE, checksum: SUMS.1, refusal, text }, None);
    }

    /// Uploads that are not ended.
    pub(super) fn uploads(&self) -> u64 {
        self.shard.load().home_uploads
    }

    /// Image bytes that are not given back.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.shard.load().image_bytes
    }

    /// The record that names this core as holder is applied.
    pub(super) fn claim(&mut self) {
        let receivers = vec![Arc::from(self.receiver.as_str())];
        let claim = CoreNote::Claim { image: IMAGE, index: INDEX, fingerprint: FINGERPRINT, receivers };
        self.step(Input::Core { from: CoreId(0), note: claim });
    }

    /// All receivers of the record acknowledged.
    pub(super) fn free(&mut self) {
        self.step(Input::Core { from: CoreId(0), note: CoreNote::Free { image: IMAGE, index: INDEX } });
    }

    /// The notices since this was asked last.
    pub(super) fn take_notices(&mut self) -> Vec<RequestId> {
        std::mem::take(&mut self.notices)
    }

    /// The leader's word on a notice.
    pub(super) fn answer(&mut self, request: RequestId, body: LeaderAnswer) {
        self.peer(INGEST, PeerMessage::Answer { request, body }, None);
    }

    /// Time passes, and no read is answered.
    pub(super) fn pass(&mut self, us: u64) {
        self.fail_reads(Vec::new(), us, DiskError::Refused);
    }

    /// The record that names this core as holder is applied. Whether another home that fetches the bytes then gets them.
    pub(super) fn is_held_for_its_record(&mut self) -> bool {
        self.claim();
        let fetch = PeerMessage::Fetch { request: RequestId(3), image: IMAGE, offset: 0 };
        !self.peer(core_of_node(3), fetch, None).is_empty()
    }

    /// Ticks for that long, during which each read fails so; gives how many there were.
    pub(super) fn fail_reads(&mut self, first: Vec<Ticket>, us: u64, error: DiskError) -> usize {
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

fn ring(up: &[u64]) -> Ring {
    let member = |node: u64| Member {
        node: NodeId(node),
        incarnation: Incarnation(1),
        cores: 2,
        up: up.contains(&node),
        voter: true,
        client_address: String::new(),
        peer_address: String::new(),
    };
    Ring::new(RingEpoch(1), (1..=3).map(member).collect())
}

/// The home of an image, with all its bytes, of which no further holder has any.
pub(super) fn home() -> (World, Vec<Ticket>) {
    let mut world = World::new();
    let reads = world.upload(INGEST, [ME, core_of_node(2)]);
    (world, reads)
}

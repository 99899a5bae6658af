//! What must hold after every step, whatever happens (Raft paper, figure 3; blueprint, sections 2 and 6).
//!
//! - One leader per term.
//! - What one node applies at an index, every node does.
//! - It was on the disks of a majority before the first node applied it.
//! - Nobody applies what was not committed.
//! - Whoever a record names as holder has the bytes when it is committed.
//! - What was on a node's disk is in its log when it starts again, or it refuses.
//! - A node that heals takes part again when it has every committed entry that it had lost.
//! - Nobody takes a message of the group from a link after one from a newer link.
//! - An image is ready by a record that is applied.
//! - A core gives the number of a request to one question only, over all its lives.
//! - No vote, and no acknowledgement of entries, leaves before what it promises is on disk.
//! - Nobody gets a message that no correct peer sends.
//! - A life of a node has one data directory.
//! - Bounds hold.

use std::collections::{BTreeMap, BTreeSet};

use logic::consensus::RoleKind;
use logic::limits::{
    CONNECTIONS_MAX, FETCHES_MAX, GATHERED_MAX, HOME_UPLOADS_MAX, INGEST_UPLOADS_MAX, PENDING_MAX, REQUESTS_MAX,
    WAITING_CHUNKS_MAX,
};
use logic::shard::Shard;
use logic::vote::Vote;
use proto::checksum::{crc32, crc64};
use proto::codec::decode_record;
use proto::ids::{Address, Fingerprint, ImageId, InboxId, Incarnation, LogIndex, NodeId, RequestId};
use proto::limits::CHUNK_BYTES_MAX;
use proto::peer::{LeaderRequest, RaftMessage};
use proto::record::{Ready, RecordBody};

use crate::setup::CACHE_BYTES;
use crate::world::Disks;

/// Numbers of raft's message types.
const APPEND_RESPONSE: u8 = 4;
const VOTE_RESPONSE: u8 = 6;
/// Buffers that one core may hold: its cache and all that is under way.
const BUFFERS_MAX: usize = 4096;

/// See the top of this file. A violation panics.
#[derive(Debug)]
pub struct Checks {
    voters: u64,
    /// Checks made.
    pub made: u64,
    /// Copies of which a record says that they are lost.
    pub lost: u64,
    leaders: BTreeMap<u64, NodeId>,              // by term
    chosen: Vec<(u64, u32)>,                     // term and checksum of the record, from index 1
    seen: BTreeMap<NodeId, (u64, u64)>,          // process, and up to which index it was looked at
    links: BTreeMap<(NodeId, u64, NodeId), u64>, // newest link from which a process took a message, by sender
    ready: BTreeMap<ImageId, BTreeSet<InboxId>>, // receivers for whom records made it ready
    /// Of the records known to be committed, by index: whose bytes, and who has them.
    pub(crate) holders: BTreeMap<u64, (ImageId, Fingerprint, Vec<Address>)>,
    requests: BTreeMap<(Address, RequestId), u64>, // checksum of what was asked
    lives: BTreeMap<(NodeId, Incarnation), u64>,   // which directory
}

impl Checks {
    /// For that many nodes, all voters.
    pub fn new(voters: u64) -> Checks {
        Checks {
            voters,
            made: 0,
            lost: 0,
            leaders: BTreeMap::new(),
            chosen: Vec::new(),
            seen: BTreeMap::new(),
            links: BTreeMap::new(),
            requests: BTreeMap::new(),
            holders: BTreeMap::new(),
            lives: BTreeMap::new(),
            ready: BTreeMap::new(),
        }
    }

    /// Records known to be committed.
    pub fn committed(&self) -> u64 {
        self.chosen.len() as u64
    }

    /// The terms of the records known to be committed, by index up to that one.
    pub fn chosen_upto(&self, index: u64) -> BTreeMap<u64, u64> {
        let upto = self.chosen.len().min(index as usize);
        (1..).zip(self.chosen[..upto].iter().map(|&(term, _)| term)).collect()
    }

    /// Looks at core 0 of a node.
    pub(crate) fn after_step(&mut self, node: NodeId, process: u64, shard: &Shard, disks: &Disks<'_>) {
        let Some(standing) = shard.standing() else { return };
        self.made += 2;
        let dropped = shard.dropped().unwrap_or_default();
        assert!(dropped.invalid == 0, "{node} got a message that no correct peer sends");
        if standing.role == RoleKind::Leader {
            let leader = *self.leaders.entry(standing.term.0).or_insert(node);
            assert_eq!(leader, node, "two leaders of term {}", standing.term.0);
        }
        assert!(standing.applied <= standing.committed, "{node} applied what is not committed: {standing:?}");
        let seen = self.seen.entry(node).or_insert((process, 0));
        if seen.0 != process {
            *seen = (process, 0);
        }
        // Not what it only knows to be committed: raft may still hold the entry, and the log an older one.
        let (from, upto) = (seen.1 + 1, standing.applied.0);
        seen.1 = seen.1.max(upto);
        for index in from..=upto {
            // What is no longer in memory was looked at when it was.
            let Some((term, payload)) = shard.entry(LogIndex(index)) else { continue };
            self.made += 1;
            self.check_entry(node, index, (term.0, payload), disks);
        }
    }

    fn check_entry(&mut self, node: NodeId, index: u64, (term, payload): (u64, &[u8]), disks: &Disks<'_>) {
        let found = (term, crc32(payload));
        let known = self.chosen.len() as u64;
        if index <= known {
            let chosen = self.chosen[index as usize - 1];
            assert_eq!(chosen, found, "{node} applies another record at {index} than was chosen");
            return;
        }
        assert_eq!(index, known + 1, "{node} applies {index}, and nobody applied the one before");
        let holders = disks.logs_with(index, term);
        assert!(
            holders > self.voters / 2,
            "{node} applies {index} of term {term}, which is on {holders} of {} disks",
            self.voters
        );
        self.chosen.push(found);
        match decode_record(payload).map(|record| record.body) {
            Ok(RecordBody::Ready(ready)) => self.check_ready(index, &ready, disks),
            Ok(RecordBody::Lost(lost)) => {
                // No holder gives up what it has.
                self.made += 1;
                self.lost += lost.records.len() as u64;
                let node = lost.holder.address.node;
                for record in &lost.records {
                    if let Some((_, _, holders)) = self.holders.get_mut(&record.0) {
                        holders.retain(|address| *address != lost.holder.address);
                    }
                }
                assert!(
                    disks.is_spoiled(&lost.holder),
                    "{index} says that {node} lost copies, and nothing befell its disk"
                );
            }
            _ => {}
        }
    }

    /// Whoever a record names as holder has the bytes on disk when it is first known to be committed: nobody can have freed
    /// them, since nobody can have received them.
    fn check_ready(&mut self, index: u64, ready: &Ready, disks: &Disks<'_>) {
        let Ready { image, fingerprint, .. } = *ready;
        let known = self.ready.entry(image).or_default();
        let count = known.len();
        known.extend(&ready.receivers);
        if known.len() == count {
            return; // Proposed twice: it changes nothing.
        }
        let nodes: BTreeSet<NodeId> = ready.holders.iter().map(|holder| holder.address.node).collect();
        let copies = self.voters.div_ceil(2);
        assert!(nodes.len() as u64 >= copies, "{index} names fewer than {copies} holders: {:?}", ready.holders);
        let addresses = ready.holders.iter().map(|holder| holder.address).collect();
        self.holders.insert(index, (image, fingerprint, addresses));
        for holder in &ready.holders {
            self.made += 1;
            let is_there = disks.is_spoiled(holder) || disks.has(holder.address, image, fingerprint);
            assert!(
                is_there,
                "{index} names {} as holder of {image}, and it does not have the bytes: {}",
                holder.address,
                disks.describe(holder.address, image)
            );
        }
    }

    /// Looks at the log of a node that has just started: what it had on disk, and may have acknowledged, is still there.
    pub fn started(&mut self, node: NodeId, before: &BTreeMap<u64, u64>, after: &BTreeMap<u64, u64>) {
        self.made += 1;
        // A newer leader's entries may have replaced some in the round that was under way.
        let is_replaced =
            |index: u64, term: u64| after.range(..=index).next_back().is_some_and(|(_, &newer)| newer > term);
        let gone = before.iter().find(|&(index, term)| after.get(index) != Some(term) && !is_replaced(*index, *term));
        assert!(gone.is_none(), "{node} starts without an entry that it had (index, term): {gone:?}");
    }

    /// A node takes part again whose log had lost these: what of it is committed is on its disk.
    pub fn healed(&mut self, node: NodeId, owed: &BTreeMap<u64, u64>, durable: &BTreeMap<u64, u64>) {
        self.made += 1;
        let is_committed =
            |index: u64, term: u64| self.chosen.get(index as usize - 1).is_some_and(|&(chosen, _)| chosen == term);
        let gone = owed.iter().find(|&(&index, &term)| is_committed(index, term) && durable.get(&index) != Some(&term));
        assert!(
            gone.is_none(),
            "{node} takes part again without a committed entry that it had (index, term): {gone:?}"
        );
    }

    /// A message of the group was given to raft: `link` must not be older than one from which it took a message before.
    pub fn taken(&mut self, (node, process): (NodeId, u64), from: NodeId, link: u64) {
        self.made += 1;
        let newest = self.links.entry((node, process, from)).or_insert(link);
        assert!(link >= *newest, "{node} takes a message of link {link} from {from}, after one of link {newest}");
        *newest = link;
    }

    /// A leader tells a home that an image is ready by that record: it has applied it.
    pub fn told_ready(&mut self, leader: Address, index: LogIndex, shard: &Shard) {
        self.made += 1;
        let applied = shard.standing().map_or(LogIndex(0), |standing| standing.applied);
        assert!(
            index <= applied,
            "{leader} tells that an image is ready by record {index}, and has applied up to {applied}"
        );
    }

    /// A core asks the leader for something: the number of a request stands for one question in all its lives.
    pub fn asked(&mut self, core: Address, request: RequestId, body: &LeaderRequest) {
        self.made += 1;
        let sum = crc64(format!("{body:?}").as_bytes());
        let known = *self.requests.entry((core, request)).or_insert(sum);
        assert_eq!(known, sum, "{core} gives number {} to another question: {body:?}", request.0);
    }

    /// Looks at a message of the group as it leaves (Raft paper, figure 2: durable before it is answered). `vote`: as on the
    /// disk of its node, if it can be read; `durable`: the entries there.
    pub fn promise(&mut self, message: &RaftMessage, vote: Option<Vote>, durable: &BTreeMap<u64, u64>) {
        if message.reject {
            return;
        }
        self.made += 1;
        if message.kind == VOTE_RESPONSE
            && let Some(vote) = vote
        {
            let is_kept = vote.term > message.term || (vote.term, vote.voted) == (message.term, message.to);
            assert!(is_kept, "{} votes for {} and has {vote:?} on disk", message.from, message.to);
        }
        if message.kind == APPEND_RESPONSE {
            // They may have been durable, and be replaced by a newer leader's, when their acknowledgement leaves.
            let (last, term) = durable.last_key_value().map_or((0, 0), |(&index, &term)| (index, term));
            let is_kept = last >= message.index.0 || term > message.term.0;
            assert!(is_kept, "{} has {last} entries and acknowledges {message:?}", message.from);
        }
    }

    /// A node takes part in that life, with that directory.
    pub fn lives(&mut self, node: NodeId, incarnation: Incarnation, directory: u64) {
        self.made += 1;
        let known = *self.lives.entry((node, incarnation)).or_insert(directory);
        assert_eq!(known, directory, "{node} takes part as {incarnation} with another directory");
    }

    /// Looks at what a core keeps.
    pub fn bounds(&mut self, node: NodeId, shard: &Shard, buffers: usize) {
        self.made += 1;
        let load = shard.load();
        let bounds = [
            ("connections", load.connections, CONNECTIONS_MAX as u64),
            ("requests", load.requests, REQUESTS_MAX as u64),
            ("uploads passed on", load.ingest_uploads, INGEST_UPLOADS_MAX as u64),
            ("uploads stored", load.home_uploads, HOME_UPLOADS_MAX as u64),
            ("cached bytes", load.cache_bytes, CACHE_BYTES + CHUNK_BYTES_MAX as u64),
            ("chunks that wait for a file", load.waiting_chunks, WAITING_CHUNKS_MAX as u64),
            ("reads for others", load.fetches, FETCHES_MAX as u64),
            ("records under way", load.pending, PENDING_MAX as u64),
            ("intents", load.intents, PENDING_MAX as u64),
            ("gathered notices", load.gathered, GATHERED_MAX as u64),
        ];
        for (what, found, bound) in bounds {
            assert!(found <= bound, "{node} has {found} {what}, at most {bound}");
        }
        assert!(buffers <= BUFFERS_MAX, "{node} holds {buffers} buffers");
    }
}

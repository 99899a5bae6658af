//! What must hold after every step, whatever happens (Raft paper, figure 3; blueprint, sections 2 and 6).
//!
//! - One leader per term.
//! - What one node applies at an index, every node does.
//! - It was on the disks of a majority before the first node applied it.
//! - Nobody applies what was not committed.
//! - No vote, and no acknowledgement of entries, leaves before what it promises is on disk.
//! - Nobody gets a message that no correct peer sends.
//! - Bounds hold.

use std::collections::BTreeMap;

use logic::consensus::RoleKind;
use logic::limits::{
    CONNECTIONS_MAX, FETCHES_MAX, GATHERED_MAX, HOME_UPLOADS_MAX, INGEST_UPLOADS_MAX, PENDING_MAX, REQUESTS_MAX,
    WAITING_CHUNKS_MAX,
};
use logic::shard::Shard;
use logic::vote::Vote;
use proto::ids::{LogIndex, NodeId};
use proto::limits::CHUNK_BYTES_MAX;
use proto::peer::RaftMessage;

use crate::setup::CACHE_BYTES;

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
    leaders: BTreeMap<u64, NodeId>,     // by term
    chosen: Vec<(u64, u32)>,            // term and checksum of the record, from index 1
    seen: BTreeMap<NodeId, (u64, u64)>, // process, and up to which index it was looked at
}

impl Checks {
    /// For that many nodes, all voters.
    pub fn new(voters: u64) -> Checks {
        Checks { voters, made: 0, leaders: BTreeMap::new(), chosen: Vec::new(), seen: BTreeMap::new() }
    }

    /// Records known to be committed.
    pub fn committed(&self) -> u64 {
        self.chosen.len() as u64
    }

    /// Looks at core 0 of a node. `durable`: each node's entries on disk, by index with their terms.
    pub fn after_step(&mut self, node: NodeId, process: u64, shard: &Shard, durable: &[&BTreeMap<u64, u64>]) {
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
            let Some((term, sum)) = shard.entry(LogIndex(index)) else { continue };
            self.made += 1;
            self.check_entry(node, index, (term.0, sum), durable);
        }
    }

    fn check_entry(&mut self, node: NodeId, index: u64, found: (u64, u32), durable: &[&BTreeMap<u64, u64>]) {
        let known = self.chosen.len() as u64;
        if index <= known {
            let chosen = self.chosen[index as usize - 1];
            assert_eq!(chosen, found, "{node} applies another record at {index} than was chosen");
            return;
        }
        assert_eq!(index, known + 1, "{node} applies {index}, and nobody applied the one before");
        let holders = durable.iter().filter(|log| log.get(&index) == Some(&found.0)).count() as u64;
        assert!(
            holders > self.voters / 2,
            "{node} applies {index} of term {}, which is on {holders} of {} disks",
            found.0,
            self.voters
        );
        self.chosen.push(found);
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
            let last = durable.last_key_value().map_or(0, |(&index, _)| index);
            assert!(last >= message.index.0, "{} has {last} entries and acknowledges {message:?}", message.from);
        }
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

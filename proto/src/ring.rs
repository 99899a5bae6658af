//! The ring: which nodes, in which order, are responsible for a client, and which core in a node.
//!
//! Consistent hashing with virtual nodes (Karger et al., "Consistent Hashing and Random Trees", STOC 1997; virtual nodes
//! as in Dynamo, SOSP 2007, section 4.2). Every node and the client library compute the same ring from the same members,
//! so the whole client-to-node table is known everywhere without being sent. The hash is XXH3-64 with the seeds below;
//! changing it or `RING_POINTS_PER_NODE` is a change of format.

use crate::ids::{CoreId, Incarnation, NodeId, RingEpoch};
use crate::limits::RING_POINTS_PER_NODE;

const POINT_SEED: u64 = 0x4845_4c49_4f52_494e; // "HELIORIN"
const NAME_SEED: u64 = 0x4845_4c49_4f4e_414d; // "HELIONAM"
const CORE_SEED: u64 = 0x4845_4c49_4f43_4f52; // "HELIOCOR"

/// A node as the ring sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which node.
    pub node: NodeId,
    /// Its life.
    pub incarnation: Incarnation,
    /// How many cores it has.
    pub cores: u16,
    /// Down nodes stay on the ring but are passed over.
    pub up: bool,
    /// Whether it votes in the consensus group; the others are learners.
    pub voter: bool,
    /// Where clients reach it, "host:port".
    pub client_address: String,
    /// Where peers reach it, "host:port".
    pub peer_address: String,
}

/// The members and their points. Immutable; a change makes a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    epoch: RingEpoch,
    members: Vec<Member>,    // sorted by node id, no id twice
    points: Vec<(u64, u32)>, // (hash, index into members), sorted
    up: usize,               // members that are up
}

impl Ring {
    /// The ring of `members` as of `epoch`. The order of `members` does not matter.
    pub fn new(epoch: RingEpoch, mut members: Vec<Member>) -> Ring {
        members.sort_by_key(|member| member.node);
        members.dedup_by_key(|member| member.node);
        let mut points = Vec::with_capacity(members.len() * RING_POINTS_PER_NODE as usize);
        for (slot, member) in members.iter().enumerate() {
            for point in 0..RING_POINTS_PER_NODE {
                let mut key = [0u8; 12];
                key[..8].copy_from_slice(&member.node.0.to_le_bytes());
                key[8..].copy_from_slice(&point.to_le_bytes());
                points.push((xxhash_rust::xxh3::xxh3_64_with_seed(&key, POINT_SEED), slot as u32));
            }
        }
        points.sort_unstable();
        let up = members.iter().filter(|member| member.up).count();
        Ring { epoch, members, points, up }
    }

    /// The record that made this ring.
    pub fn epoch(&self) -> RingEpoch {
        self.epoch
    }

    /// All members, sorted by node id, down ones included.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// One member.
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.binary_search_by_key(&node, |member| member.node).ok().map(|slot| &self.members[slot])
    }

    /// The nodes that are up, in the order in which they are responsible for `client`: the home first.
    pub fn successors(&self, client: &str) -> Vec<&Member> {
        self.first_successors(client, self.up)
    }

    /// The first `count` of `successors`, or all if there are fewer: costs as much as that many, not as all nodes.
    pub fn first_successors(&self, client: &str, count: usize) -> Vec<&Member> {
        let wanted = count.min(self.up);
        let hash = name_hash(client);
        let start = self.points.partition_point(|&(point, _)| point < hash);
        let mut seen = vec![false; self.members.len()];
        let mut found: Vec<&Member> = Vec::with_capacity(wanted);
        for step in 0..self.points.len() {
            if found.len() == wanted {
                break;
            }
            let (_, slot) = self.points[(start + step) % self.points.len()];
            let member = &self.members[slot as usize];
            if member.up && !std::mem::replace(&mut seen[slot as usize], true) {
                found.push(member);
            }
        }
        found
    }

    /// The node that is home of `client` now. `None` only when no node is up.
    pub fn home(&self, client: &str) -> Option<&Member> {
        let hash = name_hash(client);
        let start = self.points.partition_point(|&(point, _)| point < hash);
        (0..self.points.len())
            .map(|step| &self.members[self.points[(start + step) % self.points.len()].1 as usize])
            .find(|member| member.up)
    }

    /// The share of the hash space for which each node that is up is home, in members' order; sums to 1 if any is up.
    pub fn shares(&self) -> Vec<(NodeId, f64)> {
        let mut shares: Vec<(NodeId, f64)> = self.members.iter().map(|member| (member.node, 0.0)).collect();
        let up: Vec<(u64, u32)> =
            self.points.iter().copied().filter(|&(_, slot)| self.members[slot as usize].up).collect();
        for (position, &(point, slot)) in up.iter().enumerate() {
            let previous = if position == 0 { up[up.len() - 1].0 } else { up[position - 1].0 };
            let width = if up.len() == 1 { u64::MAX } else { point.wrapping_sub(previous) };
            shares[slot as usize].1 += width as f64 / 2f64.powi(64);
        }
        shares
    }
}

/// The core of a node with `cores` cores that owns `client` there.
pub fn core_of(client: &str, cores: u16) -> CoreId {
    assert!(cores > 0, "a node has at least one core");
    // Jump consistent hash (Lamping and Veach, 2014): balanced, and few clients move when the count changes.
    let mut key = xxhash_rust::xxh3::xxh3_64_with_seed(client.as_bytes(), CORE_SEED);
    let (mut chosen, mut next) = (0i64, 0i64);
    while next < i64::from(cores) {
        chosen = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        next = ((chosen + 1) as f64 * ((1u64 << 31) as f64 / ((key >> 33) + 1) as f64)) as i64;
    }
    CoreId(chosen as u16)
}

fn name_hash(client: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64_with_seed(client.as_bytes(), NAME_SEED)
}

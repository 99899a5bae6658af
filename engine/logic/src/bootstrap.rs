//! Bootstrap: how empty nodes become a cluster, exactly once.
//!
//! ```text
//! empty, nonce durable --"I am empty, nonce N"--> every initial member, until answered
//! heard that from all   --> cluster id = hash of all (node, nonce): every member mints the same
//! member                --"minted from these nonces"--> whoever says it is empty
//! empty, hears "minted" --> its own nonce is among them: it belongs to it.  It is not: it was emptied since; it stays out.
//! ```
//! The nonce is drawn once for a data directory and durable before it is told, so a directory that was emptied can never
//! pass for the member it was (blueprint: an emptied node never silently rejoins).

use std::collections::BTreeMap;

use proto::ids::{ClusterId, NodeId};
use proto::peer;

use crate::mutant::Mutant;

/// Seeds of the hash that mints the identity.
const MINT_SEED: u64 = 0x4845_4c49_4f4d_494e; // "HELIOMIN"

/// An initial member that presented itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Founder {
    /// Which node.
    pub node: NodeId,
    /// Of its data directory.
    pub nonce: u128,
    /// Its cores.
    pub cores: u16,
}

/// The outcome: the cluster exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Minted {
    /// Its identity.
    pub cluster: ClusterId,
    /// Its initial members, by node id.
    pub founders: Vec<Founder>,
}

/// An empty node's view of the bootstrap.
#[derive(Debug)]
pub struct Bootstrap {
    me: Founder,
    members: Vec<NodeId>,
    members_hash: u64,
    heard: BTreeMap<NodeId, Founder>,
    warned: bool,
    is_stranger: bool,
    mutant: Mutant,
}

impl Bootstrap {
    /// An empty node with a durable nonce and the configured initial members, itself among them.
    pub fn new(me: Founder, mut members: Vec<NodeId>, mutant: Mutant) -> Bootstrap {
        members.sort_unstable();
        members.dedup();
        assert!(members.contains(&me.node), "checked with the configuration");
        let members_hash = hash_of_members(&members);
        Bootstrap {
            me,
            members,
            members_hash,
            heard: BTreeMap::from([(me.node, me)]),
            warned: false,
            is_stranger: false,
            mutant,
        }
    }

    /// What to tell every other initial member, and whom.
    pub fn greeting(&self) -> (peer::Bootstrap, Vec<NodeId>) {
        let Founder { node, nonce, cores } = self.me;
        let others = self.members.iter().copied().filter(|&other| other != node).collect();
        (peer::Bootstrap::Empty { node, nonce, members: self.members_hash, cores }, others)
    }

    /// A message of another node. `Some` once the cluster exists and this node belongs to it.
    pub fn on_message(&mut self, from: NodeId, message: &peer::Bootstrap) -> Option<Minted> {
        match message {
            peer::Bootstrap::Empty { node, nonce, members, cores } => {
                if *node != from || !self.members.contains(node) || *members != self.members_hash {
                    if !std::mem::replace(&mut self.warned, true) {
                        tracing::warn!(%from, "a node was started with other initial members; make the members equal on all nodes");
                    }
                    return None;
                }
                self.heard.insert(*node, Founder { node: *node, nonce: *nonce, cores: *cores });
                self.mint()
            }
            peer::Bootstrap::Minted { cluster, members } => {
                let founders: Vec<Founder> =
                    members.iter().map(|&(node, nonce, cores)| Founder { node, nonce, cores }).collect();
                let is_true = mint(&founders) == *cluster;
                let was_member = founders.iter().any(|founder| founder.node == self.me.node);
                if is_true && (founders.contains(&self.me) || was_member && self.mutant.is(Mutant::EmptiedRejoins)) {
                    return Some(Minted { cluster: *cluster, founders });
                }
                self.is_stranger |= is_true;
                None
            }
            // Of nodes that belong to a cluster, or did.
            peer::Bootstrap::Rejoin { .. } | peer::Bootstrap::Admitted { .. } | peer::Bootstrap::Deferred { .. } => {
                None
            }
        }
    }

    /// Whether the members have a cluster to which this data directory does not belong.
    pub fn is_stranger(&self) -> bool {
        self.is_stranger
    }

    /// The cluster, if every initial member said that it is empty.
    pub fn mint(&self) -> Option<Minted> {
        if self.heard.len() < self.members.len() {
            return None;
        }
        let founders: Vec<Founder> = self.heard.values().copied().collect();
        Some(Minted { cluster: mint(&founders), founders })
    }
}

/// The identity of a cluster that was minted by these founders.
pub fn cluster_of(minted: &Minted) -> ClusterId {
    mint(&minted.founders)
}

/// The nodes that vote: the first 7, 5, 3 or 1 of the initial members by node id, so that their number is odd.
pub fn voters_of(members: &[NodeId]) -> Vec<NodeId> {
    let mut members = members.to_vec();
    members.sort_unstable();
    let count = match members.len() {
        0..=2 => 1,
        3..=4 => 3,
        5..=6 => 5,
        _ => 7,
    };
    members.truncate(count);
    members
}

fn mint(founders: &[Founder]) -> ClusterId {
    let mut sorted = founders.to_vec();
    sorted.sort_by_key(|founder| founder.node);
    let mut bytes = Vec::with_capacity(sorted.len() * 24);
    for founder in &sorted {
        bytes.extend_from_slice(&founder.node.0.to_le_bytes());
        bytes.extend_from_slice(&founder.nonce.to_le_bytes());
    }
    ClusterId(xxhash_rust::xxh3::xxh3_128_with_seed(&bytes, MINT_SEED).max(1))
}

fn hash_of_members(members: &[NodeId]) -> u64 {
    let bytes: Vec<u8> = members.iter().flat_map(|node| node.0.to_le_bytes()).collect();
    xxhash_rust::xxh3::xxh3_64_with_seed(&bytes, MINT_SEED)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::{Bootstrap, Founder, voters_of};
    use crate::mutant::Mutant;
    use proto::ids::NodeId;
    use proto::peer;

    fn node(id: u64, nonce: u128) -> Bootstrap {
        let members = [1, 2, 3].map(NodeId).to_vec();
        Bootstrap::new(Founder { node: NodeId(id), nonce, cores: 2 }, members, Mutant::None)
    }

    #[test]
    fn every_member_mints_the_same_cluster_and_none_before_all_were_heard() {
        let mut nodes = [node(1, 11), node(2, 22), node(3, 33)];
        let greetings: Vec<_> = nodes.iter().map(|node| node.greeting().0).collect();
        let mut minted = Vec::new();
        for (position, node) in nodes.iter_mut().enumerate() {
            let mut last = None;
            for (from, greeting) in greetings.iter().enumerate().filter(|&(from, _)| from != position) {
                assert_eq!(last, None, "minted before all were heard");
                last = node.on_message(NodeId(from as u64 + 1), greeting);
            }
            minted.push(last.unwrap());
        }
        assert!(minted.iter().all(|other| *other == minted[0]));
    }

    #[test]
    fn a_member_that_missed_the_last_greeting_is_taken_in_and_an_emptied_one_is_not() {
        let (mut one, mut three, mut emptied) = (node(1, 11), node(3, 33), node(3, 44));
        one.on_message(NodeId(2), &node(2, 22).greeting().0);
        let minted = one.on_message(NodeId(3), &three.greeting().0).unwrap();
        let members = minted.founders.iter().map(|founder| (founder.node, founder.nonce, founder.cores)).collect();
        let told = peer::Bootstrap::Minted { cluster: minted.cluster, members };
        assert_eq!(three.on_message(NodeId(1), &told), Some(minted));
        assert_eq!(emptied.on_message(NodeId(1), &told), None);
    }

    #[test]
    fn a_node_with_other_initial_members_is_not_counted() {
        let mut one = node(1, 11);
        let members = [1, 2].map(NodeId).to_vec();
        let stranger = Bootstrap::new(Founder { node: NodeId(2), nonce: 22, cores: 2 }, members, Mutant::None);
        one.on_message(NodeId(2), &stranger.greeting().0);
        assert_eq!(one.on_message(NodeId(3), &node(3, 33).greeting().0), None);
    }

    #[test]
    fn the_number_of_voters_is_odd() {
        let counts: Vec<usize> =
            (1..=9).map(|count| voters_of(&(1..=count).map(NodeId).collect::<Vec<_>>()).len()).collect();
        assert_eq!(counts, [1, 1, 3, 3, 5, 5, 7, 7, 7]);
    }
}

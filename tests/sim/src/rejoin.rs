//! Nodes that lost their directory, and operators who let them be taken in again with a new one.

use std::collections::BTreeMap;

use proto::ids::{Incarnation, NodeId};

use crate::disk::{CoreDisk, GroupDisk};
use crate::faults::Fault;
use crate::node::Node;
use crate::world::World;

/// What the world knows of a node's directories and lives.
#[derive(Debug, Default)]
pub(crate) struct Lives {
    /// Its directories, counted.
    directory: u64,
    /// Its present life, or its last one.
    pub incarnation: Incarnation,
    /// Its log directory, or everything it had, is gone, and it has no other one yet.
    is_emptied: bool,
    /// Its directory is a new one, with which it has not begun yet.
    pub is_new: bool,
    /// It is started so that it asks to be taken in again.
    pub rejoins: bool,
    /// Copies that records name it for are gone.
    pub lacks_copies: bool,
}

impl World {
    /// The node's log directory is gone, or everything it had; so is its process.
    pub fn empty(&mut self, id: NodeId, is_all: bool) {
        self.crash(id, Fault::Emptied);
        let node = self.nodes.get_mut(&id).expect("a known node");
        (node.lives.is_emptied, node.lives.rejoins) = (true, false);
        if is_all {
            node.put_new_directory();
        } else {
            node.group.segments.clear();
            node.group.rounds.clear();
        }
        node.group.is_damaged = true;
    }

    /// The operator gives a node that lost its directory a new one, and lets it ask to be taken in again. `false` if it did
    /// not lose it, or has begun anew since.
    pub fn rejoin(&mut self, id: NodeId) -> bool {
        if !self.nodes[&id].lives.is_emptied {
            return false;
        }
        self.crash(id, Fault::Emptied);
        let node = self.nodes.get_mut(&id).expect("a known node");
        node.put_new_directory();
        (node.lives.is_emptied, node.lives.rejoins) = (false, true);
        node.is_lost = false;
        self.trace.add(self.now_us, || format!("{id} is to rejoin"));
        self.start(id)
    }

    /// A process says that it belongs to a cluster, in that life.
    pub(crate) fn note_life(&mut self, id: NodeId, incarnation: Incarnation) {
        let node = self.nodes.get_mut(&id).expect("a known node");
        self.checks.lives(id, incarnation, node.lives.directory);
        self.rejoined += u64::from(incarnation > node.lives.incarnation.max(Incarnation(1)));
        node.lives.incarnation = incarnation;
    }

    /// A node that has a new directory begins to take part: what it had on disk before is what it may not do without.
    pub(crate) fn note_begin(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a known node");
        let standing = node.process.as_ref().and_then(|process| process[0].shard.standing());
        let Some(standing) = standing.filter(|_| node.lives.is_new) else { return };
        node.lives.is_new = false;
        let before = std::mem::take(&mut node.durable);
        if standing.healing {
            node.owe(before);
        } else {
            self.checks.started(id, &before, &BTreeMap::new());
        }
    }
}

impl Node {
    fn put_new_directory(&mut self) {
        self.group = GroupDisk::default();
        self.group.is_damaged = true;
        self.cores.iter_mut().for_each(|core| *core = CoreDisk::default());
        self.lives.directory += 1;
        (self.lives.is_new, self.lives.lacks_copies) = (true, true);
    }
}

//! What the cores of a node know of the cluster beside what they are asked.

use std::sync::Arc;

use proto::ids::{ClusterId, Incarnation, NodeId};
use proto::ring::Ring;

/// What every core knows of the cluster. Replaced whole by core 0 when any of it changes.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct View {
    /// The cluster; unknown before bootstrap.
    pub cluster: ClusterId,
    /// This node's life.
    pub incarnation: Incarnation,
    /// Members and who is up.
    pub ring: Ring,
    /// Copies of each image's bytes.
    pub copies: u8,
    /// Largest image.
    pub image_bytes_max: u64,
    /// The leader as far as known; node 0 if none.
    pub leader: NodeId,
    /// Whether a leader was heard within the down time. Without, no receiver session and no upload as home.
    pub contact: bool,
    /// Bytes that log and snapshots of this node may come to take beside what they have; about.
    pub log_growth_bytes: u64,
    /// Why this node is not of the cluster and will not be, with the remedy, if that is so.
    pub shut_out: Option<Arc<str>>,
}

impl View {
    /// Why no client is served, if none is.
    pub fn not_ready(&self) -> Option<&str> {
        match &self.shut_out {
            Some(why) => Some(why),
            None if !self.ring.members().is_empty() => None,
            // A member that lost everything it knew.
            None if self.incarnation > Incarnation(0) => {
                Some("this node takes its state from the other nodes; try again")
            }
            None => Some("the cluster is not formed yet; try again"),
        }
    }
}

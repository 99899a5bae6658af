//! One file per subcommand of `helio`.

pub mod demo;
pub mod doctor;
pub mod inbox;
pub mod log;
pub mod node;
pub mod register;
pub mod repair;
pub mod send;
pub mod snapshot;
pub mod status;
pub mod trace;
pub mod verify;

use proto::ids::{Holder, NodeId};

/// The nodes among `holders`, each once, as "n1 n3".
pub fn node_names(holders: &[Holder]) -> String {
    let mut nodes: Vec<NodeId> = holders.iter().map(|holder| holder.address.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(" ")
}

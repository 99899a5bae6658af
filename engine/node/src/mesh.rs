//! What comes from the other cores of this node.

use std::collections::VecDeque;
use std::rc::Rc;

use logic::io::Input;
use proto::ids::CoreId;

use crate::core::{Core, MeshItem};
use crate::{clients, links, route};

/// Takes what the other cores hand over, in the order of each of them, as fast as the shard takes its inputs.
pub(crate) async fn receive(core: Rc<Core>) {
    let mut items = VecDeque::new();
    loop {
        core.seat.receive(&mut items).await;
        for (from, item) in items.drain(..) {
            take(&core, from, item).await;
        }
    }
}

async fn take(core: &Rc<Core>, from: CoreId, item: MeshItem) {
    match item {
        MeshItem::Note(note) => core.inputs.push_when_room(Input::Core { from, note }).await,
        MeshItem::Peer(message) => {
            let input = route::from_own_node(core, from, message, None);
            core.inputs.push_when_room(input).await;
        }
        MeshItem::Client(accepted, hello) => {
            core.connections.spawn("client", clients::serve(core.clone(), *accepted, hello));
        }
        MeshItem::Link(accepted) => core.connections.spawn("link", links::serve(core.clone(), *accepted)),
        MeshItem::Cluster(cluster, incarnation) => core.set_cluster(cluster, incarnation),
        MeshItem::PeerAddress(node, address) => core.set_peer_address(node, &address),
    }
}

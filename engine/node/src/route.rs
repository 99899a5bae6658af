//! Where a message goes: the only file that knows whether a shard is this one, another core of this node, or another node.
//!
//! ```text
//! own core                              an input, at once
//! other core of this node, `Control`    the mesh
//! all else                              a link of that lane: bytes, and what must keep its order with them
//! ```
//! A message may be lost on its way (a full queue, a broken link); logic asks again for whatever it needs an answer to.
//! Bytes are not lost to a full queue: they wait (`waiting`).

use std::rc::Rc;

use link::{OutBody, SendError};

use logic::io::{BodyRef, CoreNote, Input};
use proto::ids::{Address, CoreId};
use proto::peer::{Lane, PeerMessage};

use crate::core::{Core, MeshItem};
use crate::waiting::Held;

/// How a message gets to its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Input,
    Mesh,
    Link,
}

fn way(me: Address, to: Address, lane: Lane, has_body: bool) -> Way {
    if to == me {
        Way::Input
    } else if to.node == me.node && lane == Lane::Control && !has_body {
        Way::Mesh
    } else {
        Way::Link
    }
}

/// `Effect::Send`.
pub(crate) fn send(core: &Core, to: Address, lane: Lane, message: PeerMessage, body: Option<BodyRef>) {
    match way(core.me, to, lane, body.is_some()) {
        Way::Input => {
            let body = body.map(|body| core.buffers.again(body));
            core.inputs.push(from_own_node(core, core.me.core, message, body));
        }
        Way::Mesh if to.core.0 >= core.cores => tracing::debug!(%to, "no such core: dropped a message"),
        Way::Mesh => {
            if core.seat.offer(to.core, MeshItem::Peer(message)).is_err() {
                tracing::debug!(%to, "the other core is behind: dropped a message");
            }
        }
        Way::Link => {
            let held = Held { message, body: body.map(|body| out_body(core, body)) };
            let refused =
                if core.waiting.is_waiting((to, lane)) { Some(held) } else { send_on_link(core, to, lane, held) };
            if let Some(held) = refused
                && !core.waiting.hold((to, lane), held)
            {
                tracing::debug!(%to, ?lane, "too much waits for the link: dropped a message");
            }
        }
    }
}

/// Gives a message to its link. Gives it back if it should wait for room: what has bytes, or accompanies them.
fn send_on_link(core: &Core, to: Address, lane: Lane, held: Held) -> Option<Held> {
    match core.peers.send(to, lane, &held.message, held.body.clone()) {
        Ok(()) => None,
        Err(SendError::Full) if lane != Lane::Control => Some(held),
        Err(error) => {
            tracing::debug!(%to, ?lane, %error, "dropped a message");
            None
        }
    }
}

/// Sends what waited for room as there is room again.
pub(crate) async fn send_waiting(core: Rc<Core>) {
    loop {
        let (to, lane) = core.waiting.roomy().await;
        core.waiting.release((to, lane), |held| send_on_link(&core, to, lane, held));
    }
}

/// `Effect::Tell`.
pub(crate) fn tell(core: &Core, to: CoreId, note: CoreNote) {
    if to == core.me.core {
        core.inputs.push(Input::Core { from: to, note });
    } else {
        assert!(to.0 < core.cores, "core {} of {}", to.0, core.cores);
        core.hand(to, MeshItem::Note(note));
    }
}

/// A message of a shard of this node, as an input of this one.
pub(crate) fn from_own_node(core: &Core, from: CoreId, message: PeerMessage, body: Option<logic::io::Body>) -> Input {
    let from = Address { node: core.me.node, core: from };
    Input::Peer { from, incarnation: core.belonging.get().incarnation, link: 0, message, body }
}

/// The payload of a chunk buffer on its way to a socket; the buffer lives until the last byte is there.
pub(crate) fn out_body(core: &Core, body: BodyRef) -> OutBody {
    let used = core.buffers.use_for(body.buf, "sent");
    assert_eq!(used.length(), body.length, "a body is sent whole");
    OutBody::new(Rc::new(used), body.length)
}

#[cfg(test)]
mod tests {
    use super::{Way, way};
    use proto::ids::{Address, CoreId, NodeId};
    use proto::peer::Lane;

    fn check(to: (u64, u16), lane: Lane, has_body: bool, expected: Way) {
        let address = |(node, core)| Address { node: NodeId(node), core: CoreId(core) };
        assert_eq!(way(address((1, 0)), address(to), lane, has_body), expected, "{to:?} {lane:?} {has_body}");
    }

    #[test]
    fn only_bytes_and_what_accompanies_them_take_a_link_within_a_node() {
        check((1, 0), Lane::Control, false, Way::Input);
        check((1, 0), Lane::Home, true, Way::Input);
        check((1, 1), Lane::Control, false, Way::Mesh);
        check((1, 1), Lane::Home, false, Way::Link);
        check((1, 1), Lane::Holder, true, Way::Link);
        check((2, 0), Lane::Control, false, Way::Link);
        check((2, 1), Lane::Fetch, true, Way::Link);
    }
}

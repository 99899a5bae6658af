//! Links that other shards dialled: judges their handshake, and gives their messages to this core's logic.
//!
//! A link is taken if it is for this node and a core that there is, from a member, and from the same cluster; before
//! either side knows its cluster only `Bootstrap` passes. When this node's cluster becomes known, links made before end,
//! and the other end makes them again.

use std::rc::Rc;

use disk::ChunkBuffer;
use futures_lite::future::or;
use link::{Accepted, IncomingLink, LinkError, LinkMessage};

use logic::io::Input;
use proto::codec::decode_peer_hello;
use proto::error::Refusal;
use proto::ids::{Address, ClusterId, NodeId};
use proto::limits::{LANE_CREDIT_BYTES, PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN};
use proto::peer::{PeerHello, PeerMessage, PeerWelcome};

use crate::core::{Core, MeshItem};
use crate::limits::REFUSALS_TOLD_MAX;
use crate::pools;

/// On core 0: hands a new link to the core that it wants.
pub(crate) async fn place(core: Rc<Core>, accepted: Accepted) {
    let to = match decode_peer_hello(&accepted.header, &accepted.meta) {
        Ok(hello) => hello.target.core,
        Err(error) => return tracing::debug!(peer = %accepted.peer, %error, "closed a connection that is no link"),
    };
    // A core that there is not is refused by the judgement here.
    if to == core.me.core || to.0 >= core.cores {
        serve(core, accepted).await;
    } else {
        core.hand(to, MeshItem::Link(Box::new(accepted)));
    }
}

/// Serves a link on its core until it ends.
pub(crate) async fn serve(core: Rc<Core>, accepted: Accepted) {
    let peer = accepted.peer;
    let ours = core.belonging.get().cluster;
    let judged = |hello: &PeerHello| judge(hello, core.me, ours, core.is_member(hello.source.node));
    let link = match IncomingLink::welcome(accepted, judged).await {
        Ok(link) => link,
        Err(error @ LinkError::Refused { source_address, .. }) => {
            if is_news(&core, source_address.node) {
                return tracing::warn!(%peer, %error, "refused a link");
            }
            return tracing::debug!(%peer, %error, "refused a link");
        }
        Err(error) => return tracing::debug!(%peer, %error, "lost a new link"),
    };
    let hello = link.hello().clone();
    let only_bootstrap = ours == ClusterId::UNKNOWN || hello.cluster == ClusterId::UNKNOWN;
    let pool = core.pools.of_lane(hello.lane);
    let carried = async {
        let (end, stats) = link.run(pool, async |message| take(&core, message, only_bootstrap).await).await;
        tracing::debug!(from = %hello.source, lane = ?hello.lane, ?end, ?stats, "a link ended");
    };
    let outdated = core.belonging_changed.until(|| (core.belonging.get().cluster != ours).then_some(()));
    or(carried, outdated).await;
}

/// Whether a node's link is refused for the first time. It will try again and again, and so may anybody.
fn is_news(core: &Core, node: NodeId) -> bool {
    let mut refused = core.refused.borrow_mut();
    let is_news = !refused.contains(&node) && refused.len() < REFUSALS_TOLD_MAX;
    if is_news {
        refused.push(node);
    }
    is_news
}

async fn take(core: &Core, received: LinkMessage<ChunkBuffer>, only_bootstrap: bool) {
    let LinkMessage { from, incarnation, link, message, body } = received;
    if only_bootstrap && !matches!(message, PeerMessage::Bootstrap(_)) {
        return tracing::debug!(%from, "dropped a message: not both in one cluster yet");
    }
    let place = match &message {
        PeerMessage::UploadChunk { image, offset, .. } | PeerMessage::Fetched { image, offset, .. } => {
            Some((*image, *offset))
        }
        _ => None,
    };
    let body = match (place, body) {
        (Some((image, offset)), Some(mut body)) => {
            pools::fill_header(&mut body, image, offset);
            let (filled, credit) = pools::filled(body);
            Some(core.buffers.add(filled, credit))
        }
        // The frame's kind says whether there is a body, and the message is of that kind.
        _ => None,
    };
    // The cores of one node reach each other in one life: none of their links is ever stale.
    let link = if from.node == core.me.node { 0 } else { link };
    core.inputs.push_when_room(Input::Peer { from, incarnation, link, message, body }).await;
}

fn judge(hello: &PeerHello, me: Address, ours: ClusterId, is_member: bool) -> PeerWelcome {
    let refused = |refusal, text: String| PeerWelcome::Refused { refusal, text };
    let version = hello.version_max.min(PROTOCOL_VERSION_MAX);
    if version < hello.version_min.max(PROTOCOL_VERSION_MIN) {
        let text =
            format!("this node speaks versions {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION_MAX}; upgrade the older");
        return refused(Refusal::VersionUnsupported, text);
    }
    if hello.target != me {
        let text = format!("this is {me}, not {}; correct the address of that node", hello.target);
        return refused(Refusal::NotMember, text);
    }
    if !is_member {
        let text = format!("node {} is no member here; list it on every node", hello.source.node.0);
        return refused(Refusal::NotMember, text);
    }
    if ours != ClusterId::UNKNOWN && hello.cluster != ClusterId::UNKNOWN && hello.cluster != ours {
        let text = format!("this is cluster {ours}, not {}; correct the addresses", hello.cluster);
        return refused(Refusal::WrongCluster, text);
    }
    PeerWelcome::Welcome { version, cluster: ours, credit: LANE_CREDIT_BYTES }
}

#[cfg(test)]
mod tests {
    use super::judge;
    use proto::ids::{Address, ClusterId, CoreId, Incarnation, NodeId};
    use proto::peer::{Lane, PeerHello, PeerWelcome};

    const ME: Address = Address { node: NodeId(1), core: CoreId(0) };
    const OURS: ClusterId = ClusterId(7);

    fn hello() -> PeerHello {
        PeerHello {
            version_min: 1,
            version_max: 9,
            cluster: OURS,
            source: Address { node: NodeId(2), core: CoreId(3) },
            incarnation: Incarnation(1),
            start: 5,
            target: ME,
            lane: Lane::Home,
            credentials: Vec::new(),
        }
    }

    fn check(hello: PeerHello, ours: ClusterId, is_member: bool, expected: &str) {
        let said = match judge(&hello, ME, ours, is_member) {
            PeerWelcome::Welcome { version, cluster, credit } => {
                assert_eq!((version, cluster), (1, ours));
                assert!(credit > 0);
                "welcome".to_owned()
            }
            PeerWelcome::Refused { refusal, .. } => format!("{refusal:?}"),
        };
        assert_eq!(said, expected);
    }

    #[test]
    fn link_is_taken_from_members_of_the_same_cluster_for_this_core_only() {
        check(hello(), OURS, true, "welcome");
        check(hello(), OURS, false, "NotMember");
        check(PeerHello { cluster: ClusterId(8), ..hello() }, OURS, true, "WrongCluster");
        check(PeerHello { cluster: ClusterId(8), ..hello() }, ClusterId::UNKNOWN, true, "welcome");
        check(PeerHello { cluster: ClusterId::UNKNOWN, ..hello() }, OURS, true, "welcome");
        check(PeerHello { version_min: 2, ..hello() }, OURS, true, "VersionUnsupported");
        let other_node = Address { node: NodeId(9), ..ME };
        check(PeerHello { target: other_node, ..hello() }, OURS, true, "NotMember");
        let other_core = Address { core: CoreId(9), ..ME };
        check(PeerHello { target: other_core, ..hello() }, OURS, true, "NotMember");
    }
}

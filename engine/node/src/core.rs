//! All that one core has: its queue of inputs, its buffers, connections, links and files.
//!
//! Tasks share it as `Rc<Core>`. Nothing of it is borrowed across an `.await`; what a task learns goes to the shard as an
//! input.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use disk::{ChunkFiles, LogDevice};
use link::{Accepted, MeshSeat, Peers, Tasks};

use logic::io::CoreNote;
use proto::client::ClientRequest;
use proto::ids::{Address, ClusterId, CoreId, Incarnation, NodeId};
use proto::peer::PeerMessage;

use crate::buffers::Buffers;
use crate::clients::Clients;
use crate::clock::Clock;
use crate::disk_ops::SmallWrites;
use crate::ending::Ending;
use crate::error::NodeError;
use crate::inputs::Inputs;
use crate::pools::Pools;
use crate::snapshots::Snapshots;
use crate::waiting::Waiting;

/// What one core of a node hands to another.
pub(crate) enum MeshItem {
    /// What logic tells.
    Note(CoreNote),
    /// A message without body of a shard of this node.
    Peer(PeerMessage),
    /// A client that wants to be served there.
    Client(Box<Accepted>, ClientRequest),
    /// A peer's link to there.
    Link(Box<Accepted>),
    /// From core 0: the cluster and this node's life.
    Cluster(ClusterId, Incarnation),
    /// From core 0: where peers reach a node.
    PeerAddress(NodeId, Arc<str>),
}

/// The files of the consensus group, on core 0.
pub(crate) struct GroupFiles {
    pub(crate) log: LogDevice,
    pub(crate) small: SmallWrites,
    pub(crate) snapshots: Snapshots,
}

/// Who this node is, as far as its shell needs to know to judge a handshake.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Belonging {
    pub(crate) cluster: ClusterId,
    pub(crate) incarnation: Incarnation,
}

/// One core.
pub(crate) struct Core {
    pub(crate) me: Address,
    pub(crate) cores: u16,
    pub(crate) clock: Clock,
    pub(crate) ending: Ending,
    pub(crate) inputs: Rc<Inputs>,
    pub(crate) buffers: Buffers,
    pub(crate) pools: Pools,
    pub(crate) seat: MeshSeat<MeshItem>,
    pub(crate) clients: Clients,
    pub(crate) peers: Peers,
    pub(crate) waiting: Rc<Waiting>,          // for room in the queues of `peers`
    pub(crate) members: RefCell<Vec<NodeId>>, // those whose links are taken
    pub(crate) belonging: Cell<Belonging>,
    pub(crate) belonging_changed: link::Event,
    pub(crate) refused: RefCell<Vec<NodeId>>, // whose links were refused, as far as the operator was told
    pub(crate) chunks: ChunkFiles,
    pub(crate) group: Option<GroupFiles>,
    /// Connections of clients and links of peers that came over the mesh.
    pub(crate) connections: Tasks,
    /// What runs as long as the core does.
    pub(crate) background: Tasks,
    /// Operations whose loss would leave logic waiting.
    pub(crate) operations: Tasks,
}

impl Core {
    /// Runs an operation of logic. A panic in it ends the node, since logic waits for its completion.
    pub(crate) fn operate(self: &Rc<Core>, what: &'static str, operation: impl Future<Output = ()> + 'static) {
        self.operations.spawn(what, self.ending.clone().unless_it_panics(self.me.core, what, operation));
    }

    /// Runs something for as long as the core lives. A panic in it ends the node.
    pub(crate) fn attend(self: &Rc<Core>, what: &'static str, attendance: impl Future<Output = ()> + 'static) {
        self.background.spawn(what, self.ending.clone().unless_it_panics(self.me.core, what, attendance));
    }

    /// Ends the node because a promise could not be kept otherwise.
    pub(crate) fn fail(&self, text: String) {
        self.ending.fail(NodeError::Fatal { core: self.me.core.0, text });
    }

    /// Hands something to another core that must not be lost.
    pub(crate) fn hand(&self, to: CoreId, item: MeshItem) {
        if self.seat.send(to, item).is_err() && !self.ending.is_due() {
            self.fail(format!("core {} takes nothing any more", to.0));
        }
    }

    /// Whether links of that node are taken.
    pub(crate) fn is_member(&self, node: NodeId) -> bool {
        self.members.borrow().contains(&node)
    }

    /// Where the cores of this node reach each other: its own listener, whatever others call it.
    pub(crate) fn set_own_address(&self, address: &str) {
        self.peers.set_address(self.me.node, address);
    }

    /// Notes where peers reach a node; from now on it counts as a member.
    pub(crate) fn set_peer_address(&self, node: NodeId, address: &str) {
        if node != self.me.node {
            self.peers.set_address(node, address);
        }
        if !self.is_member(node) {
            self.members.borrow_mut().push(node);
        }
    }

    /// The cluster is known now, or the node lives another life: every link is made again under it.
    pub(crate) fn set_cluster(&self, cluster: ClusterId, incarnation: Incarnation) {
        let known = self.belonging.get();
        if known.cluster == cluster && known.incarnation == incarnation {
            return;
        }
        self.belonging.set(Belonging { cluster, incarnation });
        self.peers.reset(cluster, incarnation);
        self.waiting.forget_all();
        self.belonging_changed.notify();
    }
}

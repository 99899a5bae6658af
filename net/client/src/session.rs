//! What all pure sessions share: their options, what they are told about connections, what they ask for.
//!
//! A session has no clock, socket or thread. A shell carries out its actions in their order and tells it what happened:
//!
//! ```text
//! Connect{link,..} -> dial, Hello, read one reply -> LinkInput::Connected | ConnectFailed
//! Send{link,..}    -> encode and write                 every frame read   -> LinkInput::Reply
//! Close{link}      -> close, no answer due             the socket ended   -> LinkInput::Disconnected
//! ```
//!
//! A session has at most one link that is not closed. What comes from an older one is ignored.

use proto::client::{ClientReply, ClientRequest, Target};
use proto::error::Refusal;
use proto::ids::{ClusterId, CoreId, NodeId};
use proto::ring::Ring;

/// A connection as a session names it. Never given twice by one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Chosen by the user of a session to name an image or a request of his; unique among the unfinished ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u64);

/// Which node a sender goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Routing {
    /// The home node and core of the next image's first receiver; any other node if that one does not answer.
    #[default]
    Home,
    /// The given nodes in their order, then those the ring names; stays as long as one works.
    Any,
    /// Only the given nodes, in their order; stays as long as one works.
    Fixed,
    /// As `Any`, but goes on to the next node after each image, whenever nothing is in flight.
    Rotate,
}

/// What a session must know of its surroundings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// Where to begin, "host:port", tried in this order.
    pub nodes: Vec<String>,
    /// The expected cluster, or `ClusterId::UNKNOWN` to take the first that answers (and from then on only that one).
    pub cluster: ClusterId,
    /// Which node to prefer.
    pub routing: Routing,
    /// For jitter; any number, different for each session.
    pub seed: u64,
    /// Microseconds without progress after which an image or a request is given up. `None`: never.
    pub deadline_us: Option<u64>,
}

/// The facts of `ClientReply::Welcome`.
#[derive(Clone, Debug, PartialEq)]
pub struct Welcome {
    /// The version both speak.
    pub version: u16,
    /// The node's cluster.
    pub cluster: ClusterId,
    /// Which node this is.
    pub node: NodeId,
    /// Which core serves the connection.
    pub core: CoreId,
    /// All members.
    pub ring: Ring,
    /// Largest image taken.
    pub image_bytes_max: u64,
    /// Body bytes permitted since the connection began.
    pub credit: u64,
}

impl Welcome {
    /// The facts, if `reply` is a welcome; else the reply as it was.
    pub fn from_reply(reply: ClientReply) -> Result<Welcome, Box<ClientReply>> {
        match reply {
            ClientReply::Welcome { version, cluster, node, core, ring, image_bytes_max, credit } => {
                Ok(Welcome { version, cluster, node, core, ring, image_bytes_max, credit })
            }
            other => Err(Box::new(other)),
        }
    }
}

/// Why a connection did not come about.
#[derive(Clone, Debug, PartialEq)]
pub enum ConnectFailure {
    /// No connection, or it ended during the handshake, or it spoke something else.
    Unreachable {
        /// For people.
        text: String,
    },
    /// The node answered `Failure`.
    Refused {
        /// Why.
        refusal: Refusal,
        /// For people.
        text: String,
        /// The members as far as the node knows.
        ring: Option<Ring>,
    },
}

/// The body of a received frame, as the shell computed it. The frame's own checksum was right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyFacts {
    /// Bytes.
    pub length: u64,
    /// CRC-64 of the bytes.
    pub crc64: u64,
}

/// What a session is told about its connections.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkInput {
    /// Answers `Action::Connect`: the handshake succeeded.
    Connected {
        /// Which.
        link: LinkId,
        /// What the node said.
        welcome: Box<Welcome>,
    },
    /// Answers `Action::Connect`: it did not.
    ConnectFailed {
        /// Which.
        link: LinkId,
        /// Why.
        failure: ConnectFailure,
    },
    /// The connection ended, not by `Action::Close`.
    Disconnected {
        /// Which.
        link: LinkId,
        /// For people.
        text: String,
    },
    /// A frame came in.
    Reply {
        /// On which.
        link: LinkId,
        /// What the node says.
        reply: ClientReply,
        /// For `ClientReply::Chunk`.
        body: Option<BodyFacts>,
    },
}

/// What a session asks for. `E` is what only this kind of session says.
#[derive(Clone, Debug, PartialEq)]
pub enum Action<E> {
    /// Connect and shake hands. Answered by `LinkInput::Connected` or `ConnectFailed`, unless closed before.
    Connect {
        /// The new link.
        link: LinkId,
        /// "host:port".
        address: String,
        /// For `Hello`.
        target: Target,
        /// For `Hello`.
        cluster: ClusterId,
    },
    /// Close the link, or stop connecting. Nothing need be told afterwards.
    Close {
        /// Which.
        link: LinkId,
    },
    /// Send a message without body.
    Send {
        /// On which link.
        link: LinkId,
        /// What to say.
        request: ClientRequest,
    },
    /// See the session.
    Event(E),
}

/// The last thing that went wrong, for errors that end a wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The address concerned.
    pub address: String,
    /// The refusal, if a node refused.
    pub refusal: Option<Refusal>,
    /// For people.
    pub text: String,
}

/// Why a whole session ended. Nothing more comes from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionFailure {
    /// The nodes belong to another cluster than expected.
    WrongCluster {
        /// Which node.
        address: String,
        /// For people.
        text: String,
    },
    /// No common protocol version.
    VersionUnsupported {
        /// Which node.
        address: String,
        /// For people.
        text: String,
    },
    /// The cluster does not know the sending session any more: what was not yet accepted cannot be judged.
    SessionUnknown {
        /// For people.
        text: String,
    },
    /// A newer session of the same inbox took over.
    Superseded {
        /// For people.
        text: String,
    },
    /// No client of that name is registered.
    UnknownReceiver {
        /// The name.
        name: String,
    },
    /// The name has another inbox than before: the cluster was restored, or it is another one.
    InboxChanged {
        /// The inbox so far.
        expected: proto::ids::InboxId,
        /// The inbox now.
        found: proto::ids::InboxId,
    },
    /// Refused for another reason that waiting does not cure.
    Refused {
        /// Which node.
        address: String,
        /// Why.
        refusal: Refusal,
        /// For people.
        text: String,
    },
}

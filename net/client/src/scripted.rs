//! For tests of the pure sessions: what the scripts say about connections, and how actions look as text.

use proto::client::{ClientReply, ClientRequest, Target};
use proto::error::Refusal;
use proto::ids::{ClusterId, CoreId, Incarnation, NodeId, RingEpoch};
use proto::limits::UPLOAD_CREDIT_BYTES;
use proto::ring::{Member, Ring};

use crate::session::{Action, ConnectFailure, LinkId, LinkInput, Routing, SessionOptions, Welcome};

pub(crate) const CLUSTER: ClusterId = ClusterId(0xc1);
pub(crate) const CHUNK: u64 = proto::limits::CHUNK_BYTES_MAX as u64;

/// Nodes 1, 2, 3 at "a", "b", "c", of one core each.
pub(crate) fn options(nodes: &[&str], routing: Routing) -> SessionOptions {
    SessionOptions {
        nodes: nodes.iter().map(|&node| node.to_owned()).collect(),
        cluster: ClusterId::UNKNOWN,
        routing,
        seed: 1,
        deadline_us: Some(60_000_000),
    }
}

/// The ring of nodes 1, 2, 3, of which those in `down` are down.
pub(crate) fn ring(epoch: u64, down: &[u64]) -> Ring {
    let member = |node: u64| Member {
        node: NodeId(node),
        incarnation: Incarnation(1),
        cores: 1,
        up: !down.contains(&node),
        voter: true,
        client_address: ["a", "b", "c"][node as usize - 1].to_owned(),
        peer_address: String::new(),
    };
    Ring::new(RingEpoch(epoch), vec![member(1), member(2), member(3)])
}

/// A client whose home is `node` in the ring of `epoch` 1 with all nodes up.
pub(crate) fn client_of(node: u64) -> String {
    let ring = ring(1, &[]);
    (0..).map(|i| format!("g{i}")).find(|name| ring.home(name).unwrap().node == NodeId(node)).unwrap()
}

pub(crate) fn welcome(node: u64) -> Box<Welcome> {
    Box::new(Welcome {
        version: 1,
        cluster: CLUSTER,
        node: NodeId(node),
        core: CoreId(0),
        ring: ring(1, &[]),
        image_bytes_max: 64 << 20,
        credit: UPLOAD_CREDIT_BYTES,
    })
}

/// Knows the last link that a session asked for, and answers on it.
#[derive(Debug, Default)]
pub(crate) struct Links {
    pub(crate) last: u64,
}

impl Links {
    pub(crate) fn link(&self) -> LinkId {
        LinkId(self.last)
    }

    /// `up NODE`, `fail`, `refuse REASON`, `drop`, `pong`, `ring EPOCH DOWN..`, `failure REASON`; else `None`.
    pub(crate) fn input(&self, words: &[&str]) -> Option<LinkInput> {
        let link = self.link();
        let reply = |reply| Some(LinkInput::Reply { link, reply, body: None });
        match words {
            ["up", node] => Some(LinkInput::Connected { link, welcome: welcome(number(node)) }),
            ["fail"] => {
                let failure = ConnectFailure::Unreachable { text: "refused".to_owned() };
                Some(LinkInput::ConnectFailed { link, failure })
            }
            ["refuse", reason] => {
                let failure = ConnectFailure::Refused { refusal: refusal(reason), text: "no".to_owned(), ring: None };
                Some(LinkInput::ConnectFailed { link, failure })
            }
            ["drop"] => Some(LinkInput::Disconnected { link, text: "reset".to_owned() }),
            ["pong"] => reply(ClientReply::Pong),
            ["ring", epoch, down @ ..] => {
                let down: Vec<u64> = down.iter().map(|node| number(node)).collect();
                reply(ClientReply::RingChanged { ring: ring(number(epoch), &down) })
            }
            ["failure", reason] => reply(ClientReply::Failure {
                request: None,
                refusal: refusal(reason),
                text: "no".to_owned(),
                ring: None,
            }),
            ["moved", epoch, down @ ..] => {
                let down: Vec<u64> = down.iter().map(|node| number(node)).collect();
                let ring = Some(ring(number(epoch), &down));
                let (refusal, text) = (Refusal::NotHome, "no".to_owned());
                reply(ClientReply::Failure { request: None, refusal, text, ring })
            }
            _ => None,
        }
    }

    /// An action as text, if it is not an event.
    pub(crate) fn text<E>(&mut self, action: &Action<E>) -> Option<String> {
        match action {
            Action::Connect { link, address, target, cluster } => {
                assert!(link.0 > self.last, "link numbers ascend");
                self.last = link.0;
                assert!(*cluster == CLUSTER || *cluster == ClusterId::UNKNOWN);
                let target = match target {
                    Target::Any => "any".to_owned(),
                    Target::Core(core) => core.to_string(),
                    Target::Client(name) => name.clone(),
                };
                Some(format!("connect {address} for {target}"))
            }
            Action::Close { link } => {
                assert_eq!(*link, self.link(), "only the last link is open");
                Some("close".to_owned())
            }
            Action::Send { link, request } => {
                assert_eq!(*link, self.link(), "only the last link is open");
                Some(match request {
                    ClientRequest::Begin(begin) => {
                        assert_eq!(begin.cluster, CLUSTER);
                        format!("begin {} low {} to {}", begin.image, begin.low_water, begin.receivers.join(","))
                    }
                    ClientRequest::OpenSession { request, sender } => format!("open session {request} of {sender}"),
                    ClientRequest::OpenInbox { name, resume_from: 0, .. } => format!("open inbox of {name}"),
                    ClientRequest::OpenInbox { name, resume_seq, resume_from, .. } => {
                        format!("open inbox of {name}, {} from {resume_from}", resume_seq.0)
                    }
                    ClientRequest::InboxCredit { credit } => format!("credit {credit}"),
                    ClientRequest::Ack { inbox, upto } => format!("ack {inbox} upto {upto}"),
                    ClientRequest::Register { request, name } => format!("register {request} {name}"),
                    ClientRequest::Status { request } => format!("status {request}"),
                    ClientRequest::Probe { request, payload } => format!("probe {request} +{}", payload.len()),
                    ClientRequest::Ping => "ping".to_owned(),
                    other => format!("{other:?}"),
                })
            }
            Action::Event(_) => None,
        }
    }
}

/// Bytes as text: a multiple of chunks as such.
pub(crate) fn bytes(count: u64) -> String {
    if count > 0 && count.is_multiple_of(CHUNK) { format!("{}M", count / CHUNK) } else { count.to_string() }
}

/// A number; `3M` are three chunks.
pub(crate) fn number(word: &str) -> u64 {
    match word.strip_suffix('M') {
        Some(chunks) => chunks.parse::<u64>().unwrap() * CHUNK,
        None => word.parse().unwrap(),
    }
}

pub(crate) fn refusal(word: &str) -> Refusal {
    *Refusal::ALL.iter().find(|refusal| format!("{refusal:?}") == word).unwrap()
}

/// Compares line by line, so that a difference can be read.
pub(crate) fn compare(found: &str, expected: &str) {
    let clean = |text: &str| {
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>().join("\n")
    };
    let (found, expected) = (clean(found), clean(expected));
    assert!(found == expected, "\n--- found\n{found}\n--- expected\n{expected}\n");
}

//! The links that one core dials: one connection for each shard and lane it talks to.
//!
//! ```text
//! send --> bounded queue --> [dial when there is something to send] --> hello, welcome --> frames, as credit permits
//!                                      ^                                                    |
//!                                      +-- at once after a loss, else after a growing pause <+
//! ```
//! A message may be lost: when its queue is full, when its connection breaks, or when the dial fails. Whoever needs an
//! answer asks again. What waits for a dial that fails is dropped, so that no buffer waits for a dead node and a node that
//! comes back is not greeted with old news.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use glommio::timer::sleep;
use proto::codec::{Encoder, decode_link_credit, encode_peer_message};
use proto::error::Refusal;
use proto::ids::{Address, ClusterId, Incarnation, NodeId};
use proto::limits::{PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN};
use proto::peer::{Lane, PeerHello, PeerMessage};

use crate::connection::ConnectionEnd;
use crate::dial::{DialError, Opened, open};
use crate::limits::{OutboxLimits, REDIAL_PAUSE_MAX, REDIAL_PAUSE_MIN};
use crate::local::Tasks;
use crate::outbox::{OutBody, Outbox, SendError};
use crate::reader::{FrameReader, FreshBuffers, ReadError};

/// What this core says of itself when it dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// This shard.
    pub source: Address,
    /// Its cluster; unknown before bootstrap.
    pub cluster: ClusterId,
    /// The node's life.
    pub incarnation: Incarnation,
    /// Drawn at the start of the process.
    pub start: u64,
}

/// What the owner of the links is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// A link is there.
    Connected {
        /// To whom.
        to: Address,
        /// Which.
        lane: Lane,
    },
    /// A dial failed: refused, timed out, or not answered. Told again for each further dial that fails.
    Unreachable {
        /// Which node.
        node: NodeId,
    },
    /// The node is there and does not want the link.
    Refused {
        /// Which node.
        node: NodeId,
        /// Why.
        refusal: Refusal,
        /// For people.
        text: String,
    },
    /// The queue of a link that had answered `Full` is less than half full again.
    Room {
        /// To whom.
        to: Address,
        /// Which.
        lane: Lane,
    },
}

/// What became of the messages and dials so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerStats {
    /// Messages taken.
    pub taken: u64,
    /// Messages refused because their queue was full.
    pub refused_full: u64,
    /// Messages refused because no address of the node is known.
    pub refused_unknown: u64,
    /// Messages dropped from queues when a connection broke or a dial failed.
    pub dropped: u64,
    /// Links that were made.
    pub connected: u64,
    /// Dials that failed.
    pub dials_failed: u64,
}

/// The outgoing links of one core.
pub struct Peers {
    inner: Rc<Inner>,
    tasks: Tasks,
}

struct Inner {
    identity: Cell<PeerIdentity>,
    addresses: RefCell<HashMap<NodeId, String>>,
    links: RefCell<HashMap<(Address, Lane), Rc<Link>>>,
    encoder: RefCell<Encoder>,
    stats: Cell<PeerStats>,
    on_event: Box<dyn Fn(PeerEvent)>,
}

struct Link {
    to: Address,
    lane: Lane,
    outbox: Outbox,
}

impl Peers {
    /// Links for the shard that `identity` names. `on_event` is called from the links' tasks; it may use these links.
    pub fn new(identity: PeerIdentity, on_event: impl Fn(PeerEvent) + 'static) -> Peers {
        let inner = Inner {
            identity: Cell::new(identity),
            addresses: RefCell::default(),
            links: RefCell::default(),
            encoder: RefCell::new(Encoder::new()),
            stats: Cell::default(),
            on_event: Box::new(on_event),
        };
        Peers { inner: Rc::new(inner), tasks: Tasks::new() }
    }

    /// Where peers reach `node`: "host:port". Used from the next dial on.
    pub fn set_address(&self, node: NodeId, address: &str) {
        self.inner.addresses.borrow_mut().insert(node, address.to_owned());
    }

    /// Sends a message, with its body if it has one; dials if need be. `Full`: nothing was taken, `PeerEvent::Room` will
    /// tell when to try again. `Closed`: no address of that node is known, or all was stopped.
    pub fn send(&self, to: Address, lane: Lane, message: &PeerMessage, body: Option<OutBody>) -> Result<(), SendError> {
        let inner = &self.inner;
        if !inner.addresses.borrow().contains_key(&to.node) {
            inner.count(|stats| stats.refused_unknown += 1);
            return Err(SendError::Closed);
        }
        let link = self.link(to, lane);
        let source = inner.identity.get().source;
        let body_bytes = body.as_ref().map_or(0, |body| body.length() as usize);
        let sent = link.outbox.try_send(body, |out| {
            encode_peer_message(&mut inner.encoder.borrow_mut(), source, to, message, body_bytes, out);
        });
        match sent {
            Ok(()) => inner.count(|stats| stats.taken += 1),
            Err(SendError::Full) => inner.count(|stats| stats.refused_full += 1),
            Err(SendError::Closed) => {}
        }
        sent
    }

    /// Bytes queued for a link, bodies included.
    pub fn queued_bytes(&self, to: Address, lane: Lane) -> u64 {
        self.inner.links.borrow().get(&(to, lane)).map_or(0, |link| link.outbox.queued_bytes())
    }

    /// What became of the messages so far.
    pub fn stats(&self) -> PeerStats {
        self.inner.stats.get()
    }

    /// The node belongs to a cluster now, or lives another life: closes all links, to be made again under this identity.
    /// What is queued is dropped.
    pub fn reset(&self, cluster: ClusterId, incarnation: Incarnation) {
        let identity = PeerIdentity { cluster, incarnation, ..self.inner.identity.get() };
        self.inner.identity.set(identity);
        let links = self.inner.links.take();
        for link in links.into_values() {
            let dropped = link.outbox.queued_frames();
            link.outbox.abort();
            self.inner.count(|stats| stats.dropped += dropped as u64);
        }
    }

    /// Closes all links and ends their tasks. Nothing is sent any more.
    pub async fn stop(&self) {
        self.inner.addresses.borrow_mut().clear();
        let links = self.inner.links.take();
        for link in links.into_values() {
            link.outbox.abort();
        }
        self.tasks.stop().await;
    }

    fn link(&self, to: Address, lane: Lane) -> Rc<Link> {
        if let Some(link) = self.inner.links.borrow().get(&(to, lane)) {
            return Rc::clone(link);
        }
        let limits = match lane {
            Lane::Control => OutboxLimits::CONTROL,
            Lane::Home | Lane::Holder | Lane::Fetch => OutboxLimits::CHUNKS,
        };
        let link = Rc::new(Link { to, lane, outbox: Outbox::new(limits) });
        let inner = Rc::downgrade(&self.inner);
        link.outbox.on_room(move |_| {
            if let Some(inner) = inner.upgrade() {
                (inner.on_event)(PeerEvent::Room { to, lane });
            }
        });
        self.inner.links.borrow_mut().insert((to, lane), Rc::clone(&link));
        self.tasks.spawn("link", keep(Rc::downgrade(&self.inner), Rc::clone(&link)));
        link
    }
}

impl Inner {
    fn count(&self, change: impl FnOnce(&mut PeerStats)) {
        let mut stats = self.stats.get();
        change(&mut stats);
        self.stats.set(stats);
    }

    fn hello(&self, link: &Link) -> PeerHello {
        let identity = self.identity.get();
        PeerHello {
            version_min: PROTOCOL_VERSION_MIN,
            version_max: PROTOCOL_VERSION_MAX,
            cluster: identity.cluster,
            source: identity.source,
            incarnation: identity.incarnation,
            start: identity.start,
            target: link.to,
            lane: link.lane,
            credentials: Vec::new(),
        }
    }

    fn on_dial_failed(&self, link: &Link, error: DialError) {
        let dropped = link.outbox.drop_queued() as u64;
        self.count(|stats| {
            stats.dials_failed += 1;
            stats.dropped += dropped;
        });
        let node = link.to.node;
        tracing::debug!(to = %link.to, lane = ?link.lane, dropped, %error, "no link");
        (self.on_event)(match error {
            DialError::Refused { refusal, text, .. } => PeerEvent::Refused { node, refusal, text },
            DialError::Resolve { .. } | DialError::Connect { .. } | DialError::Welcome { .. } => {
                PeerEvent::Unreachable { node }
            }
        });
    }

    fn on_end(&self, link: &Link, end: &ConnectionEnd) {
        let dropped = link.outbox.drop_queued() as u64;
        self.count(|stats| stats.dropped += dropped);
        tracing::debug!(to = %link.to, lane = ?link.lane, dropped, ?end, "a link ended");
    }
}

/// Dials, carries the link's frames, and dials again, until the link is closed.
async fn keep(inner: Weak<Inner>, link: Rc<Link>) {
    let mut pause = Duration::ZERO;
    let mut was_connected = false;
    loop {
        if !was_connected {
            // After a loss the dial tells whether the node is still there; otherwise it waits for a reason.
            link.outbox.wanted().await;
        }
        if !pause.is_zero() {
            sleep(pause).await;
        }
        if link.outbox.is_closed() {
            return;
        }
        let Some(inner_now) = inner.upgrade() else { return };
        let hello = inner_now.hello(&link);
        let address = inner_now.addresses.borrow().get(&link.to.node).cloned();
        // No hold on the links while waiting: their owner may go.
        drop(inner_now);
        let Some(address) = address else { return };
        let opened = open(&address, &hello).await;
        let Some(inner_now) = inner.upgrade() else { return };
        match opened {
            Err(error) => {
                was_connected = false;
                pause = (pause * 2).clamp(REDIAL_PAUSE_MIN, REDIAL_PAUSE_MAX);
                inner_now.on_dial_failed(&link, error);
            }
            Ok(_) if link.outbox.is_closed() => return,
            Ok(opened) => {
                (was_connected, pause) = (true, Duration::ZERO);
                inner_now.count(|stats| stats.connected += 1);
                (inner_now.on_event)(PeerEvent::Connected { to: link.to, lane: link.lane });
                drop(inner_now);
                let begun = Instant::now();
                let end = carry(opened, &link.outbox).await;
                if begun.elapsed() < REDIAL_PAUSE_MAX {
                    // Whoever welcomes and closes at once is not dialled in a tight loop.
                    pause = REDIAL_PAUSE_MIN;
                }
                if let Some(inner_now) = inner.upgrade() {
                    inner_now.on_end(&link, &end);
                }
            }
        }
    }
}

async fn carry(opened: Opened, outbox: &Outbox) -> ConnectionEnd {
    let Opened { connection, mut reader, credit } = opened;
    outbox.restart(credit);
    connection.carry(outbox, hear_credit(&mut reader, outbox)).await
}

/// Takes the listener's grants until the link ends.
async fn hear_credit(reader: &mut FrameReader, outbox: &Outbox) -> ReadError {
    loop {
        let frame = match reader.next(&FreshBuffers).await {
            Ok(frame) => frame,
            Err(error) => return error,
        };
        match decode_link_credit(&frame.header, frame.meta) {
            Ok(grant) => outbox.limit_credit(grant.credit),
            Err(error) => return error.into(),
        }
    }
}

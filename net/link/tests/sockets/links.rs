//! Links between two nodes: messages, credit, loss, return.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use futures_lite::future;
use glommio::io::DmaBuffer;
use link::{
    Accepted, Bound, ConnectionEnd, FreshBuffers, IncomingLink, LinkMessage, Listener, PeerEvent, PeerIdentity, Peers,
    SendError, Tasks, breathe,
};
use proto::checksum::crc32;
use proto::error::Refusal;
use proto::ids::{Address, ClusterId, Incarnation, NodeId, RequestId};
use proto::limits::{CHUNK_BYTES_MAX, CHUNK_HEADER_BYTES, LANE_CREDIT_BYTES};
use proto::peer::{Lane, LeaderAnswer, PeerHello, PeerMessage, PeerWelcome};

use crate::support::{address, body, image, loopback, pause, payload, run, until};

const CHUNK: u64 = CHUNK_BYTES_MAX as u64;
const HERE: u64 = 1;
const THERE: u64 = 2;

fn identity() -> PeerIdentity {
    PeerIdentity { source: address(HERE, 0), cluster: ClusterId::UNKNOWN, incarnation: Incarnation(4), start: 99 }
}

fn note(request: u64) -> PeerMessage {
    PeerMessage::Answer { request: RequestId(request), body: LeaderAnswer::Noted }
}

fn chunk(place: u64, bytes: &[u8]) -> PeerMessage {
    PeerMessage::UploadChunk { image: image(), offset: place * CHUNK, checksum: 7, crc32: crc32(bytes) }
}

/// A node that takes links and keeps what comes.
struct Taker {
    listener: Rc<Listener>,
    tasks: Tasks,
    taken: Rc<RefCell<Vec<LinkMessage<DmaBuffer>>>>,
    ends: Rc<RefCell<Vec<ConnectionEnd>>>,
}

impl Taker {
    fn start(at: SocketAddr, window: u64, check: impl Fn(&PeerHello) -> Option<Refusal> + 'static) -> Taker {
        Taker::start_as(at, window, ClusterId::UNKNOWN, check)
    }

    /// One that knows its cluster.
    fn start_as(
        at: SocketAddr,
        window: u64,
        cluster: ClusterId,
        check: impl Fn(&PeerHello) -> Option<Refusal> + 'static,
    ) -> Taker {
        let listener = Rc::new(Bound::bind(at).unwrap().adopt(64).unwrap());
        let taker = Taker { listener, tasks: Tasks::new(), taken: Rc::default(), ends: Rc::default() };
        let (taken, ends, check) = (Rc::clone(&taker.taken), Rc::clone(&taker.ends), Rc::new(check));
        let handle = move |accepted: Accepted| {
            let (taken, ends, check) = (Rc::clone(&taken), Rc::clone(&ends), Rc::clone(&check));
            async move {
                let welcome = |hello: &PeerHello| match check(hello) {
                    None => PeerWelcome::Welcome { version: 1, cluster, credit: window },
                    Some(refusal) => PeerWelcome::Refused { refusal, text: "no".to_owned() },
                };
                let Ok(link) = IncomingLink::welcome(accepted, welcome).await else { return };
                let (end, _) = link.run(&FreshBuffers, async |message| taken.borrow_mut().push(message)).await;
                ends.borrow_mut().push(end);
            }
        };
        let listener = Rc::clone(&taker.listener);
        taker.tasks.spawn("listener", async move { listener.run(handle).await });
        taker
    }

    fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    fn count(&self) -> usize {
        self.taken.borrow().len()
    }

    /// Ends the node with all its connections; the port is free afterwards.
    async fn stop(self) {
        self.tasks.stop().await;
        self.listener.stop().await;
    }
}

/// Links to `THERE`, and what was told of them.
fn peers(at: SocketAddr) -> (Peers, Rc<RefCell<Vec<PeerEvent>>>) {
    let events = Rc::new(RefCell::new(Vec::new()));
    let told = Rc::clone(&events);
    let peers = Peers::new(identity(), move |event| told.borrow_mut().push(event));
    peers.set_address(NodeId(THERE), &at.to_string());
    (peers, events)
}

fn there() -> Address {
    address(THERE, 3)
}

#[test]
fn messages_arrive_in_order_with_who_sent_them() {
    run(async {
        let taker = Taker::start(loopback(), 0, |hello| {
            (hello.target != there() || hello.lane != Lane::Control).then_some(Refusal::BadRequest)
        });
        let (peers, events) = peers(taker.address());
        for request in 0..1000 {
            peers.send(there(), Lane::Control, &note(request), None).unwrap();
        }
        until(|| taker.count() == 1000).await;
        for (request, message) in taker.taken.borrow().iter().enumerate() {
            assert_eq!(message.message, note(request as u64));
            assert_eq!((message.from, message.incarnation), (address(HERE, 0), Incarnation(4)));
            assert!(message.link >= 1 && message.body.is_none());
        }
        assert_eq!(*events.borrow(), [PeerEvent::Connected { to: there(), lane: Lane::Control }]);
        peers.stop().await;
        until(|| taker.ends.borrow().len() == 1).await;
        taker.stop().await;
    });
}

#[test]
fn credit_stops_a_sender_and_lets_it_go_on() {
    const WINDOW: usize = 3;
    const CHUNKS: usize = 8;
    run(async {
        let taker = Taker::start(loopback(), WINDOW as u64 * CHUNK, |_| None);
        let (peers, _events) = peers(taker.address());
        let bytes = payload(CHUNK_BYTES_MAX, 5);
        for place in 0..CHUNKS {
            let body = Some(body(&bytes).await);
            peers.send(there(), Lane::Home, &chunk(place as u64, &bytes), body).unwrap();
        }
        until(|| taker.count() == WINDOW).await;
        pause().await;
        assert_eq!(taker.count(), WINDOW, "no more than the window while all bodies are held");
        assert!(peers.queued_bytes(there(), Lane::Home) > (CHUNKS - WINDOW - 1) as u64 * CHUNK);
        // A clone of the guard that outlives the buffer still counts.
        let (guard, dropped) = {
            let first = &mut taker.taken.borrow_mut()[0];
            let body = first.body.take().unwrap();
            (body.credit.clone(), body)
        };
        drop(dropped);
        pause().await;
        assert_eq!(taker.count(), WINDOW);
        drop(guard);
        until(|| taker.count() == WINDOW + 1).await;
        pause().await;
        assert_eq!(taker.count(), WINDOW + 1, "one body freed, one body more");
        until(|| {
            let bodies: Vec<_> =
                taker.taken.borrow_mut().iter_mut().filter_map(|message| message.body.take()).collect();
            assert!(bodies.iter().all(|body| body.buffer.as_bytes()[CHUNK_HEADER_BYTES..][..CHUNK_BYTES_MAX] == bytes));
            drop(bodies);
            taker.count() == CHUNKS
        })
        .await;
        peers.stop().await;
        taker.stop().await;
    });
}

#[test]
fn small_bodies_flow_for_ever_through_the_smallest_window() {
    const BODIES: u64 = 5_000;
    run(async {
        let taker = Taker::start(loopback(), CHUNK, |_| None);
        let (peers, _events) = peers(taker.address());
        let bytes = payload(1_001, 5);
        let shared = body(&bytes).await;
        let freed = Cell::new(0);
        let sending = async {
            for place in 0..BODIES {
                let message = chunk(place % 1000, &bytes);
                while peers.send(there(), Lane::Holder, &message, Some(shared.clone())) == Err(SendError::Full) {
                    breathe().await;
                }
            }
        };
        let freeing = until(|| {
            let taken = taker.taken.take();
            freed.set(freed.get() + taken.len() as u64);
            freed.get() == BODIES
        });
        future::zip(sending, freeing).await;
        peers.stop().await;
        taker.stop().await;
    });
}

#[test]
fn full_queue_refuses_and_tells_of_room() {
    run(async {
        let taker = Taker::start(loopback(), CHUNK, |_| None);
        let (peers, events) = peers(taker.address());
        let bytes = payload(CHUNK_BYTES_MAX, 5);
        let shared = body(&bytes).await;
        let mut sent = 0;
        while peers.send(there(), Lane::Home, &chunk(sent, &bytes), Some(shared.clone())).is_ok() {
            sent += 1;
        }
        assert!((32..=33).contains(&sent), "{sent}");
        assert_eq!(peers.stats().refused_full, 1);
        assert_eq!(peers.send(there(), Lane::Home, &note(1), None), Err(SendError::Full));
        // Another lane has a queue of its own.
        assert_eq!(peers.send(there(), Lane::Control, &note(1), None), Ok(()));
        let room = PeerEvent::Room { to: there(), lane: Lane::Home };
        until(|| {
            taker.taken.borrow_mut().iter_mut().for_each(|message| drop(message.body.take()));
            events.borrow().contains(&room)
        })
        .await;
        assert!(peers.queued_bytes(there(), Lane::Home) < 16 * CHUNK);
        peers.stop().await;
        taker.stop().await;
    });
}

#[test]
fn peer_that_restarts_is_found_again_and_one_that_is_gone_is_reported() {
    run(async {
        let taker = Taker::start(loopback(), 0, |_| None);
        let at = taker.address();
        let (peers, events) = peers(at);
        peers.send(there(), Lane::Control, &note(1), None).unwrap();
        until(|| taker.count() == 1).await;
        let first_link = taker.taken.borrow()[0].link;
        taker.stop().await;
        // Without any further message the loss is noticed, and the dial that follows is refused.
        until(|| events.borrow().len() >= 2).await;
        let unreachable = PeerEvent::Unreachable { node: NodeId(THERE) };
        assert_eq!(events.borrow()[1], unreachable);
        // While it is gone, messages are dropped, counted, and keep no buffer.
        peers.send(there(), Lane::Control, &note(2), None).unwrap();
        until(|| peers.stats().dropped >= 1).await;
        until(|| events.borrow().len() >= 3).await;
        assert_eq!(events.borrow()[2], unreachable);

        let taker = Taker::start(at, 0, |_| None);
        until(|| {
            if peers.queued_bytes(there(), Lane::Control) == 0 {
                let _ = peers.send(there(), Lane::Control, &note(3), None);
            }
            taker.count() >= 1
        })
        .await;
        assert_eq!(taker.taken.borrow()[0].message, note(3));
        assert!(taker.taken.borrow()[0].link > first_link, "a later link has a larger number");
        assert_eq!(peers.stats().connected, 2);
        peers.stop().await;
        taker.stop().await;
    });
}

#[test]
fn refusal_is_told_with_its_reason_and_not_as_unreachable() {
    run(async {
        let taker = Taker::start(loopback(), 0, |_| Some(Refusal::NotMember));
        let (peers, events) = peers(taker.address());
        peers.send(there(), Lane::Control, &note(1), None).unwrap();
        until(|| !events.borrow().is_empty()).await;
        let (node, text) = (NodeId(THERE), "no".to_owned());
        assert_eq!(events.borrow()[0], PeerEvent::Refused { node, refusal: Refusal::NotMember, text });
        assert_eq!(peers.stats().dropped, 1);
        peers.stop().await;
        taker.stop().await;
    });
}

#[test]
fn node_that_answers_for_another_cluster_is_sent_nothing() {
    run(async {
        let taker = Taker::start_as(loopback(), 0, ClusterId(8), |_| None);
        let (peers, events) = peers(taker.address());
        peers.reset(ClusterId(7), Incarnation(4));
        peers.send(there(), Lane::Control, &note(1), None).unwrap();
        until(|| !events.borrow().is_empty()).await;
        let told = events.borrow()[0].clone();
        assert!(matches!(told, PeerEvent::Refused { refusal: Refusal::WrongCluster, .. }), "{told:?}");
        until(|| taker.ends.borrow().len() == 1).await;
        assert_eq!((taker.count(), peers.stats().dropped), (0, 1));
        // The same node once it is known to be of that cluster.
        peers.reset(ClusterId(8), Incarnation(4));
        peers.send(there(), Lane::Control, &note(2), None).unwrap();
        until(|| taker.count() == 1).await;
        assert_eq!(taker.taken.borrow()[0].message, note(2));
        peers.stop().await;
        taker.stop().await;
    });
}

#[test]
fn reset_makes_links_again_under_the_new_identity() {
    run(async {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let hellos = Rc::clone(&seen);
        let taker = Taker::start(loopback(), 0, move |hello| {
            hellos.borrow_mut().push((hello.cluster, hello.incarnation));
            None
        });
        let (peers, _events) = peers(taker.address());
        peers.send(there(), Lane::Control, &note(1), None).unwrap();
        until(|| taker.count() == 1).await;
        peers.reset(ClusterId(77), Incarnation(5));
        peers.send(there(), Lane::Control, &note(2), None).unwrap();
        until(|| taker.count() == 2).await;
        until(|| taker.ends.borrow().len() == 1).await;
        assert_eq!(*seen.borrow(), [(ClusterId::UNKNOWN, Incarnation(4)), (ClusterId(77), Incarnation(5))]);
        assert_eq!(taker.taken.borrow()[1].incarnation, Incarnation(5));
        peers.stop().await;
        taker.stop().await;
    });
}

#[test]
fn node_without_address_is_not_sent_to() {
    run(async {
        let (peers, events) = peers(loopback());
        assert_eq!(peers.send(address(9, 0), Lane::Control, &note(1), None), Err(SendError::Closed));
        assert_eq!(peers.stats().refused_unknown, 1);
        peers.stop().await;
        assert!(events.borrow().is_empty());
    });
}

#[test]
fn body_on_a_lane_without_credit_for_bodies_ends_the_link() {
    run(async {
        let taker = Taker::start(loopback(), 0, |_| None);
        let connection = link::connect(&taker.address().to_string()).await.unwrap();
        let hello = PeerHello {
            version_min: 1,
            version_max: 1,
            cluster: ClusterId::UNKNOWN,
            source: address(HERE, 0),
            incarnation: Incarnation(1),
            start: 1,
            target: there(),
            lane: Lane::Control,
            credentials: Vec::new(),
        };
        let mut bytes = Vec::new();
        let mut encoder = proto::codec::Encoder::new();
        proto::codec::encode_peer_hello(&mut encoder, &hello, &mut bytes);
        let payload = payload(10, 1);
        let message = chunk(0, &payload);
        proto::codec::encode_peer_message(&mut encoder, address(HERE, 0), there(), &message, payload.len(), &mut bytes);
        bytes.extend_from_slice(&payload);
        connection.write_first(&bytes).await.unwrap();
        until(|| taker.ends.borrow().len() == 1).await;
        let end = taker.ends.borrow_mut().pop().unwrap();
        assert!(matches!(end, ConnectionEnd::Read(link::ReadError::Credit(_))), "{end:?}");
        taker.stop().await;
    });
}

#[test]
fn message_for_another_shard_ends_the_link() {
    run(async {
        let taker = Taker::start(loopback(), LANE_CREDIT_BYTES, |_| None);
        let connection = link::connect(&taker.address().to_string()).await.unwrap();
        let mut bytes = Vec::new();
        let mut encoder = proto::codec::Encoder::new();
        let hello = PeerHello {
            version_min: 1,
            version_max: 1,
            cluster: ClusterId::UNKNOWN,
            source: address(HERE, 0),
            incarnation: Incarnation(1),
            start: 1,
            target: there(),
            lane: Lane::Home,
            credentials: Vec::new(),
        };
        proto::codec::encode_peer_hello(&mut encoder, &hello, &mut bytes);
        let other = address(THERE, 4);
        proto::codec::encode_peer_message(&mut encoder, address(HERE, 0), other, &note(1), 0, &mut bytes);
        connection.write_first(&bytes).await.unwrap();
        until(|| taker.ends.borrow().len() == 1).await;
        let end = taker.ends.borrow_mut().pop().unwrap();
        assert!(matches!(end, ConnectionEnd::Read(link::ReadError::Misrouted { .. })), "{end:?}");
        assert_eq!(taker.count(), 0);
        taker.stop().await;
    });
}

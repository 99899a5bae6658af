//! Tests of `ingest`: one core in a ring of two nodes, and a sender's image for a receiver of each.

use std::sync::Arc;

use proto::client::{Begin, ClientReply};
use proto::error::Refusal;
use proto::ids::{
    Address, ClusterId, CoreId, Fingerprint, ImageId, Incarnation, LogIndex, NodeId, RingEpoch, Sequence, SessionId,
};
use proto::peer::{LeaderAnswer, LeaderRequest, PeerMessage};
use proto::ring::{Member, Ring};

use super::Ingest;
use crate::context::{Context, Suspects, Tickets};
use crate::io::{ConnId, Effect, Now, View};
use crate::limits::RESEND_US;
use crate::mutant::Mutant;
use crate::requests::Requests;

const IDLE_US: u64 = 60_000_000;
const IMAGE: ImageId = ImageId { session: SessionId(5), sequence: Sequence(1) };

struct World {
    ingest: Ingest,
    view: Arc<View>,
    now: Now,
    suspects: Suspects,
    requests: Requests,
    tickets: Tickets,
    out: Vec<Effect>,
    names: [String; 2], // a receiver of node 1, and one of node 2
}

fn ring(is_up: bool) -> Ring {
    let member = |node: u64| Member {
        node: NodeId(node),
        incarnation: Incarnation(1),
        cores: 1,
        up: is_up,
        voter: true,
        client_address: String::new(),
        peer_address: String::new(),
    };
    Ring::new(RingEpoch(1), vec![member(1), member(2)])
}

fn home(node: u64) -> Address {
    Address { node: NodeId(node), core: CoreId(0) }
}

impl World {
    fn new() -> World {
        let ring = ring(true);
        let names = [1, 2].map(|node| {
            let mut names = (0..100).map(|number| format!("client{number}"));
            names.find(|name| ring.home(name).is_some_and(|home| home.node == NodeId(node))).unwrap()
        });
        let (cluster, image_bytes_max) = (ClusterId(7), 1000);
        let view = View { cluster, ring, copies: 2, image_bytes_max, contact: true, ..View::default() };
        World {
            ingest: Ingest::default(),
            view: Arc::new(view),
            now: Now { mono_us: 1, wall_ms: 1 },
            suspects: Suspects::default(),
            requests: Requests::default(),
            tickets: Tickets::default(),
            out: Vec::new(),
            names,
        }
    }

    /// Calls the ingest and gives what it asked for.
    fn call(&mut self, call: impl FnOnce(&mut Ingest, &mut Context<'_>)) -> Vec<Effect> {
        let mut cx = Context {
            now: self.now,
            me: home(1),
            view: &self.view,
            suspects: &mut self.suspects,
            requests: &mut self.requests,
            tickets: &mut self.tickets,
            mutant: Mutant::None,
            out: &mut self.out,
        };
        call(&mut self.ingest, &mut cx);
        std::mem::take(&mut self.out)
    }

    fn begin(&mut self) -> Vec<Effect> {
        let begin = Begin {
            cluster: ClusterId(7),
            image: IMAGE,
            low_water: Sequence(1),
            receivers: self.names.to_vec(),
            fingerprint: Fingerprint { length: 10, checksum: 1 },
            name: "a.png".to_owned(),
        };
        self.call(|ingest, cx| ingest.on_begin(cx, ConnId(3), begin))
    }

    fn progress(&mut self, node: u64, durable_end: u64) -> Vec<Effect> {
        self.call(|ingest, cx| ingest.on_progress(cx, home(node), (IMAGE, 1), durable_end))
    }

    fn set_ring(&mut self, is_up: bool) {
        self.view = Arc::new(View { ring: ring(is_up), ..(*self.view).clone() });
    }
}

fn replies(effects: &[Effect]) -> Vec<&ClientReply> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::ClientSend { message, .. } => Some(message),
            _ => None,
        })
        .collect()
}

fn is_answered(effects: &[Effect], from: u64) -> bool {
    replies(effects)
        .iter()
        .any(|reply| matches!(reply, ClientReply::BeginAnswer { resume_from, .. } if *resume_from == from))
}

fn is_accepted(effects: &[Effect]) -> bool {
    replies(effects).iter().any(|reply| matches!(reply, ClientReply::Accepted { .. }))
}

/// A home that had answered took over the receivers of one that died, and nobody told the sender to send: it asked
/// again after six seconds.
#[test]
fn sender_is_answered_when_a_home_that_had_answered_takes_over_receivers() {
    let mut world = World::new();
    world.begin();
    assert!(!is_answered(&world.progress(1, 0), 0), "the other home has not answered");
    world.suspects.insert(NodeId(2), world.now);
    world.call(|ingest, cx| ingest.on_unreachable(cx, NodeId(2)));
    assert!(is_answered(&world.progress(1, 0), 0));
}

/// The only part that had not answered became ready, and the sender's answer was forgotten.
#[test]
fn sender_is_answered_when_the_last_silent_home_is_ready() {
    let mut world = World::new();
    world.begin();
    world.progress(1, 0);
    let names = [world.names[1].clone()];
    let effects = world.call(|ingest, cx| ingest.on_ready(cx, (IMAGE, 1), &names, LogIndex(9), &[]));
    assert!(is_answered(&effects, 0) && !is_accepted(&effects));
}

/// With no node of the ring up there was no home, and no home meant that all were ready: accepted, and lost.
#[test]
fn image_without_any_home_is_not_accepted() {
    let mut world = World::new();
    world.set_ring(false);
    let effects = world.begin();
    assert!(matches!(replies(&effects)[..], [ClientReply::Refused { refusal: Refusal::NotReady, .. }]));
    world.set_ring(true);
    world.begin();
    world.set_ring(false);
    let mut effects = world.call(|ingest, cx| ingest.on_tick(cx, IDLE_US));
    let admitted = LeaderAnswer::Admitted { ready: Vec::new() };
    effects.extend(world.call(|ingest, cx| ingest.on_intent_answer(cx, (IMAGE, 1), admitted)));
    assert!(!is_accepted(&effects), "{effects:?}");
    world.set_ring(true);
    let names = world.names.clone();
    let effects = world.call(|ingest, cx| ingest.on_ready(cx, (IMAGE, 1), &names, LogIndex(9), &[]));
    assert!(is_accepted(&effects), "its receivers were not forgotten");
}

/// The news that an image was ready got lost. Its home, asked again, had nothing any more, and the sender waited for ever.
#[test]
fn home_that_has_less_than_before_makes_the_leader_be_asked() {
    let mut world = World::new();
    world.begin();
    world.progress(1, 0);
    assert!(is_answered(&world.progress(2, 0), 0));
    let chunk = crate::io::Body { buf: crate::io::BufId(1), length: 10, crc32: 0, crc64: 0 };
    let head = proto::client::ChunkHead { image: IMAGE, offset: 0, crc32: 0 };
    world.call(|ingest, cx| ingest.on_chunk(cx, ConnId(3), head, chunk));
    world.progress(1, 10);
    world.progress(2, 10);
    world.now.mono_us += RESEND_US;
    world.call(|ingest, cx| ingest.on_tick(cx, IDLE_US));
    let effects = world.progress(2, 0);
    let is_asked = effects.iter().any(|effect| {
        let Effect::Send { message, .. } = effect else { return false };
        matches!(message, PeerMessage::Request { body: LeaderRequest::Intent { image: IMAGE, .. }, .. })
    });
    assert!(is_asked && is_answered(&effects, 0), "{effects:?}");
}

/// Its sender had heard meanwhile that the image was accepted, and sent nothing more of it: the upload was held for ever, and kept
/// others at the homes alive (found by the simulator, seed 701354).
#[test]
fn upload_that_its_sender_does_not_go_on_with_ends() {
    let mut world = World::new();
    world.begin();
    world.now.mono_us += IDLE_US;
    assert!(
        replies(&world.call(|ingest, cx| ingest.on_tick(cx, IDLE_US))).is_empty(),
        "the homes have not answered yet"
    );
    world.progress(1, 0);
    world.progress(2, 0);
    world.now.mono_us += IDLE_US - 1;
    assert!(replies(&world.call(|ingest, cx| ingest.on_tick(cx, IDLE_US))).is_empty());
    world.now.mono_us += 1;
    let effects = world.call(|ingest, cx| ingest.on_tick(cx, IDLE_US));
    assert!(matches!(replies(&effects)[..], [ClientReply::Refused { refusal: Refusal::Busy, .. }]), "{effects:?}");
    assert_eq!(world.ingest.count(), 0);
}

//! What a home answers to receivers that want to know whether there is more.

use std::sync::Arc;

use proto::client::{ClientReply, ClientRequest, NodeStatus, Target};
use proto::error::Refusal;
use proto::ids::{
    Address, ClusterId, CoreId, Fingerprint, Holder, ImageId, InboxId, InboxSeq, Incarnation, LogIndex, NodeId,
    RequestId, RingEpoch, Sequence, SessionId,
};
use proto::limits::{PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN};
use proto::ring::{Member, Ring, core_of};

use proto::peer::PeerMessage;

use crate::io::{ConnId, CoreNote, Effect, InboxEntry, Input, Now, Room, View};
use crate::outlook::config;
use crate::shard::{Shard, ShardConfig, ShardStart};

const CONN: ConnId = ConnId(1);
/// Another core of the node.
const OTHER: Address = Address { node: NodeId(1), core: CoreId(0) };
const NOW: Now = Now { mono_us: 1, wall_ms: 1 };

/// The second core of the only node.
struct Home {
    shard: Shard,
    effects: Vec<Effect>,
}

impl Home {
    fn step(&mut self, input: Input) {
        self.effects.clear();
        self.shard.step(NOW, input, &mut self.effects);
    }

    fn note(&mut self, note: CoreNote) {
        self.step(Input::Core { from: CoreId(0), note });
    }

    fn client(&mut self, message: ClientRequest) {
        self.step(Input::Client { conn: CONN, message, body: None });
    }

    fn asks_core_0(&self, wanted: impl Fn(&CoreNote) -> bool) -> bool {
        self.effects.iter().any(|effect| matches!(effect, Effect::Tell { note, .. } if wanted(note)))
    }

    fn answers(&self) -> bool {
        let is_status = |reply: &ClientReply| matches!(reply, ClientReply::Status { .. });
        self.effects.iter().any(|effect| matches!(effect, Effect::ClientSend { message, .. } if is_status(message)))
    }
}

/// With an open inbox.
fn home() -> Home {
    let name = (0..).map(|number| format!("gallery-{number}")).find(|name| core_of(name, 2) == CoreId(1)).unwrap();
    let config = ShardConfig { address: Address { node: NodeId(1), core: CoreId(1) }, ..config(NodeId(1), 2) };
    let start = ShardStart { files: Vec::new(), room: Room { free_bytes: 0, files: u64::MAX }, group: None };
    let shard = Shard::new(config, start, NOW, &mut Vec::new()).unwrap();
    let mut home = Home { shard, effects: Vec::new() };
    let member = Member {
        node: NodeId(1),
        incarnation: Incarnation(1),
        cores: 2,
        up: true,
        voter: true,
        client_address: "127.0.0.1:1".to_owned(),
        peer_address: "127.0.0.1:2".to_owned(),
    };
    let ring = Ring::new(RingEpoch(1), vec![member]);
    home.note(CoreNote::View(Arc::new(View { ring, leader: NodeId(1), contact: true, ..View::default() })));
    let hello = ClientRequest::Hello {
        version_min: PROTOCOL_VERSION_MIN,
        version_max: PROTOCOL_VERSION_MAX,
        cluster: ClusterId::UNKNOWN,
        target: Target::Any,
        credentials: Vec::new(),
    };
    home.step(Input::ClientOpened { conn: CONN, hello });
    home.client(ClientRequest::OpenInbox { name, credit: 1 << 20, resume_seq: InboxSeq(0), resume_from: 0 });
    home.note(CoreNote::InboxSubscribed { conn: CONN, result: Ok((InboxId(1), InboxSeq(0))) });
    assert!(home.asks_core_0(|note| matches!(note, CoreNote::InboxPull { .. })));
    home
}

fn told() -> CoreNote {
    CoreNote::StatusTold { conn: CONN, request: RequestId(1), status: Box::new(NodeStatus::default()) }
}

#[test]
fn question_for_more_is_answered_when_core_0_was_asked_for_more_before() {
    let mut home = home();
    home.client(ClientRequest::Status { request: RequestId(1) });
    assert!(home.asks_core_0(|note| matches!(note, CoreNote::StatusAsk { .. })));
    home.note(told());
    assert!(home.answers());
}

#[test]
fn question_for_more_is_put_again_when_more_was_asked_for_after_it() {
    let mut home = home();
    home.client(ClientRequest::Status { request: RequestId(1) });
    // What was pulled is acknowledged: the home pulls what comes behind that.
    home.note(CoreNote::InboxSubscribed { conn: CONN, result: Ok((InboxId(1), InboxSeq(5))) });
    assert!(home.asks_core_0(|note| matches!(note, CoreNote::InboxPull { after: InboxSeq(5), .. })));
    home.note(told());
    assert!(!home.answers(), "what comes behind was not told yet");
    home.step(Input::Tick);
    assert!(home.asks_core_0(|note| matches!(note, CoreNote::StatusAsk { request: RequestId(1), .. })));
    home.note(told());
    assert!(home.answers());
}

fn entry(seq: u64) -> InboxEntry {
    InboxEntry {
        seq: InboxSeq(seq),
        image: ImageId { session: SessionId(7), sequence: Sequence(seq) },
        fingerprint: Fingerprint { length: 10, checksum: 1 },
        sender: Arc::from("camera"),
        name: Arc::from("x.png"),
        holders: vec![Holder { address: OTHER, incarnation: Incarnation(1) }],
        index: LogIndex(seq),
    }
}

/// Found by the simulator, seed 610028: the receiver had the first image already, and was told that there is no more.
#[test]
fn question_for_more_is_not_answered_while_images_wait_behind_one_whose_bytes_are_not_due_any_more() {
    let mut home = home();
    home.note(CoreNote::InboxEntries { inbox: InboxId(1), conn: CONN, entries: vec![entry(1), entry(2)] });
    let fetch = home.effects.iter().find_map(|effect| match effect {
        Effect::Send { to: OTHER, message: PeerMessage::Fetch { request, .. }, .. } => Some(*request),
        _ => None,
    });
    let request = fetch.expect("the bytes are elsewhere");
    home.client(ClientRequest::Ack { inbox: InboxId(1), upto: InboxSeq(1) });
    home.client(ClientRequest::Status { request: RequestId(1) });
    home.note(told());
    assert!(!home.answers(), "the second image waits");
    // It was freed. The next one goes out, and more is asked for behind that.
    let message = PeerMessage::FetchFailed { request, image: entry(1).image, refusal: Refusal::NotHeld };
    let (incarnation, link) = (Incarnation(1), 0);
    home.step(Input::Peer { from: OTHER, incarnation, link, message, body: None });
    home.client(ClientRequest::Status { request: RequestId(1) });
    home.note(told());
    assert!(!home.answers(), "the second image still waits");
    home.step(Input::Tick);
    let is_second = |reply: &ClientReply| matches!(reply, ClientReply::Head(head) if head.seq == InboxSeq(2));
    let sends = |effect: &Effect| matches!(effect, Effect::ClientSend { message, .. } if is_second(message));
    assert!(home.effects.iter().any(sends), "{:?}", home.effects);
}

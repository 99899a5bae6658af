//! What a home answers to receivers that want to know whether there is more.

use std::sync::Arc;

use proto::client::{ClientReply, ClientRequest, NodeStatus, Target};
use proto::ids::{Address, ClusterId, CoreId, InboxId, InboxSeq, Incarnation, NodeId, RequestId, RingEpoch};
use proto::limits::{PROTOCOL_VERSION_MAX, PROTOCOL_VERSION_MIN};
use proto::ring::{Member, Ring, core_of};

use crate::io::{ConnId, CoreNote, Effect, Input, Now, View};
use crate::outlook::config;
use crate::shard::{Shard, ShardConfig, ShardStart};

const CONN: ConnId = ConnId(1);
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
    let start = ShardStart { files: Vec::new(), free_bytes: 0, group: None };
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

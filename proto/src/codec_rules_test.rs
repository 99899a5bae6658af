//! Each rule of `check`, broken on the wire and in the log: the decoder names it.

use std::fmt::{Debug, Display};

use flatbuffers::FlatBufferBuilder;

use super::tests::{header_for, split};
use super::{Encoder, decode_record, encode_record, peer, record, reply, request};
use crate::client::{Begin, ChunkHead, ClientReply, ClientRequest, Target};
use crate::error::Refusal;
use crate::frame::Kind;
use crate::generated;
use crate::ids::{
    Address, CoreId, Fingerprint, ImageId, InboxId, InboxSeq, LogIndex, NodeId, RequestId, Sequence, SessionId,
};
use crate::limits::{
    ACKS_MAX, IMAGE_BYTES_MAX, PROBE_BYTES_MAX, RAFT_ENTRIES_MAX, RAFT_MESSAGE_BYTES_MAX, RECEIVERS_MAX,
};
use crate::peer::{LeaderAnswer, LeaderRequest, PeerMessage, RaftEntry, RaftMessage};
use crate::record::{Ready, Record, RecordBody};
use crate::ring::{Member, Ring};
use crate::samples::{self, BODY_BYTES, IMAGE, Message, SOURCE, TARGET};

/// Encodes `message` although it breaks a rule, and expects that the other end says which.
fn refuse(message: Message, expected: &str) {
    let mut encoder = Encoder::new();
    let mut out = Vec::new();
    let body = |has_body| if has_body { BODY_BYTES } else { 0 };
    match &message {
        Message::Request(m) => request::write(&mut encoder, m, body(matches!(m, ClientRequest::Chunk(_))), &mut out),
        Message::Reply(m) => reply::write(&mut encoder, m, body(matches!(m, ClientReply::Chunk { .. })), &mut out),
        Message::Peer(m) => {
            let body = body(matches!(m, PeerMessage::UploadChunk { .. } | PeerMessage::Fetched { .. }));
            peer::write(&mut encoder, (SOURCE, TARGET), m, body, &mut out);
        }
        other => panic!("{other:?}"),
    }
    check_refused(Message::decode(&out), expected);
}

fn refuse_record(body: RecordBody, expected: &str) {
    let mut encoder = Encoder::new();
    let bytes = record::write(&mut encoder, &Record { time_ms: 1, body }).to_vec();
    check_refused(decode_record(&bytes), expected);
}

fn check_refused<T: Debug, E: Debug + Display>(result: Result<T, E>, expected: &str) {
    let error = result.expect_err(expected);
    assert_eq!(error.to_string(), expected);
}

fn request_refused(request: ClientRequest, expected: &str) {
    refuse(Message::Request(request), expected);
}

pub(super) fn begin(change: impl FnOnce(&mut Begin)) -> ClientRequest {
    let begin = samples::client_requests().into_iter().find_map(|request| match request {
        ClientRequest::Begin(begin) => Some(begin),
        _ => None,
    });
    let mut begin = begin.expect("a sample");
    change(&mut begin);
    ClientRequest::Begin(begin)
}

#[test]
fn broken_rules_of_client_requests_are_named() {
    let hello = |version_min, version_max, target, credentials: usize| ClientRequest::Hello {
        version_min,
        version_max,
        cluster: Default::default(),
        target,
        credentials: vec![0; credentials],
    };
    request_refused(hello(0, 1, Target::Any, 0), "version_min is 0, expected 1 to 1");
    request_refused(hello(3, 2, Target::Any, 0), "version_min is 3, expected 1 to 2");
    request_refused(hello(1, 1, Target::Any, 4097), "credentials has length 4097, expected 0 to 4096");
    request_refused(hello(1, 1, Target::Core(CoreId(256)), 0), "target is 256, expected 0 to 255");
    request_refused(hello(1, 1, Target::Client(String::new()), 0), "target: the name is empty");

    let image = |session, sequence| ImageId { session: SessionId(session), sequence: Sequence(sequence) };
    request_refused(begin(|b| b.image = image(0, 1)), "image.session is 0, expected 1 to 18446744073709551615");
    request_refused(begin(|b| b.image = image(1, 0)), "image.sequence is 0, expected 1 to 18446744073709551615");
    request_refused(begin(|b| b.receivers.clear()), "receivers has length 0, expected 1 to 64");
    let many = |b: &mut Begin| b.receivers = (0..=RECEIVERS_MAX).map(|number| format!("r{number}")).collect();
    request_refused(begin(many), "receivers has length 65, expected 1 to 64");
    request_refused(begin(|b| b.receivers[2] = "gallery".to_owned()), "receivers has the same at 0 and 2");
    let expected = "receivers: the name has '@' at byte 1, which is not allowed there";
    request_refused(begin(|b| b.receivers[1] = "a@b".to_owned()), expected);
    let expected = "name: the name has '/' at byte 3, which is not allowed there";
    request_refused(begin(|b| b.name = "etc/passwd".to_owned()), expected);
    request_refused(begin(|b| b.name = "..".to_owned()), "name: the file name names a directory");

    let chunk = |offset| ClientRequest::Chunk(ChunkHead { image: IMAGE, offset, crc32: 1 });
    request_refused(chunk(1), "offset 1 is not a multiple of the chunk size");
    request_refused(chunk(IMAGE_BYTES_MAX), "offset is 1073741824, expected 0 to 1073741823");
    request_refused(
        ClientRequest::Ack { inbox: InboxId(0), upto: InboxSeq(1) },
        "inbox is 0, expected 1 to 18446744073709551615",
    );
    let payload = vec![0; PROBE_BYTES_MAX + 1];
    let probe = ClientRequest::Probe { request: RequestId(1), payload };
    request_refused(probe, "payload has length 1025, expected 0 to 1024");
}

#[test]
fn empty_or_large_image_can_be_asked_for_so_that_it_can_be_refused_with_its_reason() {
    let mut encoder = Encoder::new();
    for length in [0, u64::MAX] {
        let request = Message::Request(begin(|b| b.fingerprint.length = length));
        assert_eq!(Message::decode(&request.encode(&mut encoder)).expect("a begin"), request);
    }
}

#[test]
fn broken_rules_of_names_are_answered_with_their_own_reason() {
    let mut encoder = Encoder::new();
    let mut out = Vec::new();
    let register = ClientRequest::Register { request: RequestId(1), name: "a b".to_owned() };
    request::write(&mut encoder, &register, 0, &mut out);
    let (header, meta) = split(&out);
    let error = super::decode_client_request(&header, meta).expect_err("a bad name");
    assert_eq!(error.refusal(), Refusal::NameInvalid);
}

#[test]
fn broken_rules_of_client_replies_are_named() {
    let chunk = |seq, offset| ClientReply::Chunk { inbox: InboxId(1), seq: InboxSeq(seq), offset, crc32: 1 };
    refuse(Message::Reply(chunk(0, 0)), "seq is 0, expected 1 to 18446744073709551615");
    refuse(Message::Reply(chunk(1, 12)), "offset 12 is not a multiple of the chunk size");
    let progress = ClientReply::Progress { image: IMAGE, durable_end: IMAGE_BYTES_MAX + 1 };
    refuse(Message::Reply(progress), "durable_end is 1073741825, expected 0 to 1073741824");
    let holders = vec![samples::ready().holders[0]; 2];
    let accepted = ClientReply::Accepted { image: IMAGE, index: LogIndex(1), holders };
    refuse(Message::Reply(accepted), "holders has the same at 0 and 1");
    let members = vec![Member { cores: 0, ..samples::ring().members()[0].clone() }];
    let ring = Ring::new(Default::default(), members);
    refuse(Message::Reply(ClientReply::RingChanged { ring }), "cores is 0, expected 1 to 256");
}

#[test]
fn ring_that_names_a_node_twice_is_refused() {
    // A `Ring` value cannot hold it, so the wire says it by hand.
    use generated::{ids, reply};
    let mut builder = FlatBufferBuilder::new();
    let address = Some(builder.create_string("h:1"));
    let args =
        ids::MemberArgs { node: 5, cores: 1, client_address: address, peer_address: address, ..Default::default() };
    let member = ids::Member::create(&mut builder, &args);
    let members = Some(builder.create_vector(&[member; 2]));
    let ring = Some(ids::Ring::create(&mut builder, &ids::RingArgs { epoch: 1, members }));
    let root = reply::RingChanged::create(&mut builder, &reply::RingChangedArgs { ring });
    builder.finish_minimal(root);
    let meta = builder.finished_data();
    let error = Message::decode_meta(&header_for(Kind::ReplyRingChanged, meta), meta).expect_err("twice");
    assert_eq!(error.to_string(), "members has the same at 0 and 1");
}

pub(super) fn raft(change: impl FnOnce(&mut RaftMessage)) -> Message {
    let message = samples::peer_messages().into_iter().find_map(|message| match message {
        PeerMessage::Raft(raft) => Some(raft),
        _ => None,
    });
    let mut message = message.expect("a sample");
    change(&mut message);
    Message::Peer(PeerMessage::Raft(message))
}

#[test]
fn broken_rules_of_raft_messages_are_named() {
    refuse(raft(|m| m.kind = 19), "kind is 19, expected 0 to 18");
    refuse(raft(|m| m.from = NodeId(0)), "from is 0, expected 1 to 18446744073709551615");
    refuse(raft(|m| m.to = NodeId(0)), "to is 0, expected 1 to 18446744073709551615");
    refuse(raft(|m| m.entries[1].index = LogIndex(1001)), "entry 1 has index 1001, expected 1002");
    refuse(raft(|m| m.index = LogIndex(1001)), "entry 0 has index 1001, expected 1002");
    refuse(raft(|m| m.index = LogIndex(u64::MAX)), "entry 0 has index 1001, expected 18446744073709551615");
    refuse(raft(|m| m.context = vec![0; 257]), "context has length 257, expected 0 to 256");
    let many = |m: &mut RaftMessage| m.entries = vec![RaftEntry::default(); RAFT_ENTRIES_MAX + 1];
    refuse(raft(many), "entries has length 4097, expected 0 to 4096");
    let large = |m: &mut RaftMessage| m.entries[2].data = vec![0; RAFT_MESSAGE_BYTES_MAX];
    refuse(raft(large), "entries.data has length 1048581, expected 0 to 1048576");
}

#[test]
fn raft_entries_that_claim_more_or_less_data_than_there_is_are_refused() {
    for claimed in [0u32, 4, 6, u32::MAX] {
        let mut builder = FlatBufferBuilder::new();
        let data = Some(builder.create_vector(b"hello"));
        let entries = Some(builder.create_vector(&[generated::peer::RaftEntry::new(1, 1, claimed)]));
        let context = Some(builder.create_vector::<u8>(&[]));
        let args = generated::peer::RaftArgs { kind: 3, from: 1, to: 2, entries, data, context, ..Default::default() };
        let root = generated::peer::Raft::create(&mut builder, &args);
        builder.finish_minimal(root);
        let meta = builder.finished_data();
        let error = Message::decode_meta(&header_for(Kind::PeerRaft, meta), meta).expect_err("other lengths");
        assert_eq!(error.to_string(), "entries.data contradicts another field");
    }
}

#[test]
fn broken_rules_of_other_peer_messages_are_named() {
    let ask = |body| Message::Peer(PeerMessage::Request { origin: SOURCE, request: RequestId(1), hops: 0, body });
    let origin = Address { node: NodeId(0), core: CoreId(0) };
    let body = LeaderRequest::Unreachable { node: NodeId(1) };
    let message = PeerMessage::Request { origin, request: RequestId(1), hops: 0, body };
    refuse(Message::Peer(message), "origin is 0, expected 1 to 18446744073709551615");
    refuse(
        ask(LeaderRequest::Register { name: "ä".to_owned() }),
        "name: the name has 'ä' at byte 0, which is not allowed there",
    );
    refuse(ask(LeaderRequest::Ack { upto: Vec::new() }), "upto has length 0, expected 1 to 4096");
    let upto = vec![(InboxId(1), InboxSeq(1)); ACKS_MAX + 1];
    refuse(ask(LeaderRequest::Ack { upto }), "upto has length 4097, expected 1 to 4096");
    let intent = LeaderRequest::Intent {
        image: IMAGE,
        low_water: Sequence(1),
        fingerprint: Fingerprint { length: 0, checksum: 0 },
        receivers: vec!["a".to_owned()],
    };
    refuse(ask(intent), "fingerprint.length is 0, expected 1 to 1073741824");
    for sample in samples::peer_messages() {
        if let PeerMessage::Upload(mut upload) = sample {
            upload.chain = vec![SOURCE; 2];
            refuse(Message::Peer(PeerMessage::Upload(upload.clone())), "chain has the same at 0 and 1");
            upload.chain.clear();
            refuse(Message::Peer(PeerMessage::Upload(upload)), "chain has length 0, expected 1 to 7");
        }
    }
    for sample in samples::leader_answers() {
        if let LeaderAnswer::Ready { mut ready } = sample {
            ready[1].name = ready[0].name.clone();
            let body = LeaderAnswer::Ready { ready };
            refuse(
                Message::Peer(PeerMessage::Answer { request: RequestId(1), body }),
                "ready.name has the same at 0 and 1",
            );
        }
    }
}

#[test]
fn broken_rules_of_records_are_named() {
    let ready = |change: fn(&mut Ready)| {
        let mut ready = samples::ready();
        change(&mut ready);
        RecordBody::Ready(ready)
    };
    refuse_record(ready(|r| r.receivers.clear()), "receivers has length 0, expected 1 to 64");
    refuse_record(ready(|r| r.receivers.push(r.receivers[0])), "receivers has the same at 0 and 1");
    refuse_record(ready(|r| r.receivers[0] = InboxId(0)), "inbox is 0, expected 1 to 18446744073709551615");
    refuse_record(ready(|r| r.holders.clear()), "holders has length 0, expected 1 to 7");
    refuse_record(ready(|r| r.holders = vec![r.holders[0]; 8]), "holders has length 8, expected 1 to 7");
    refuse_record(ready(|r| r.holders.push(r.holders[0])), "holders has the same at 0 and 2");
    refuse_record(ready(|r| r.holders[0].address.node = NodeId(0)), "holders is 0, expected 1 to 18446744073709551615");
    refuse_record(ready(|r| r.fingerprint.length = 0), "fingerprint.length is 0, expected 1 to 1073741824");
    refuse_record(ready(|r| r.name = "x".repeat(256)), "name: the name has 256 bytes, at most 255 are allowed");
    let genesis = |copies, members: &[Member]| RecordBody::Genesis {
        cluster: Default::default(),
        members: members.to_vec(),
        copies,
        image_bytes_max: 1,
    };
    let ring = samples::ring();
    refuse_record(genesis(0, ring.members()), "copies is 0, expected 1 to 7");
    refuse_record(genesis(1, &[]), "members has length 0, expected 1 to 4096");
    refuse_record(
        genesis(1, &[ring.members()[1].clone(), ring.members()[1].clone()]),
        "members has the same at 0 and 1",
    );
    let long = Member { peer_address: "h".repeat(101), ..ring.members()[0].clone() };
    refuse_record(genesis(1, &[long]), "members.peer_address has length 101, expected 0 to 100");
}

#[test]
#[should_panic(expected = "payload has length 1025, expected 0 to 1024")]
fn record_that_every_node_would_refuse_is_never_written() {
    encode_record(&Record { time_ms: 1, body: RecordBody::Probe { payload: vec![0; PROBE_BYTES_MAX + 1] } });
}

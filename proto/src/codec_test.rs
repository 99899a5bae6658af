//! Every message and record survives its round trip, and nothing else survives decoding.

use std::collections::HashSet;

use flatbuffers::FlatBufferBuilder;

use super::rules_tests::{begin, raft};
use super::{DecodeError, Encoder, decode_piece, decode_record, encode_piece, encode_record};
use crate::client::{ClientReply, ClientRequest};
use crate::error::Refusal;
use crate::frame::{BodyHead, FRAME_HEADER_BYTES, FrameHeader, FrameLimits, Kind, KindGroup};
use crate::generated;
use crate::ids::{Address, LogIndex, NodeId};
use crate::limits::{
    FRAME_META_BYTES_MAX, NODES_MAX, RAFT_ENTRIES_MAX, RAFT_MESSAGE_BYTES_MAX, RECEIVERS_MAX, TEXT_BYTES_MAX,
};
use crate::peer::RaftEntry;
use crate::record::{Record, RecordBody};
use crate::ring::{Member, Ring};
use crate::samples::{self, BODY_BYTES, Message, SOURCE, TARGET};

pub(super) fn split(frame: &[u8]) -> (FrameHeader, &[u8]) {
    let (header, meta) = frame.split_first_chunk::<FRAME_HEADER_BYTES>().expect("a header");
    (FrameHeader::parse(header, FrameLimits::PEER).expect("a right header"), meta)
}

/// The header for that kind with a right checksum of `meta`: what an attacker would send.
pub(super) fn header_for(kind: Kind, meta: &[u8]) -> FrameHeader {
    let body = if kind.has_body() { BodyHead { bytes: BODY_BYTES, crc32: 7 } } else { BodyHead::default() };
    match kind.group() {
        KindGroup::Peer => FrameHeader::new(kind, meta, body, SOURCE, TARGET),
        _ => FrameHeader::new(kind, meta, body, Address::default(), Address::default()),
    }
}

/// Whatever decodes keeps the rules and means the same after another round trip.
fn check_meta(encoder: &mut Encoder, kind: Kind, meta: &[u8]) {
    let Ok(message) = Message::decode_meta(&header_for(kind, meta), meta) else { return };
    let again = Message::decode(&message.encode(encoder)).expect("what was decoded can be encoded");
    assert_eq!(again, message);
}

fn check_record(encoder: &mut Encoder, bytes: &[u8]) {
    let Ok(record) = decode_record(bytes) else { return };
    let again = super::encode_record_with(encoder, &record).to_vec();
    assert_eq!(decode_record(&again).expect("what was decoded can be encoded"), record);
}

/// Deterministic noise (xorshift64*).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

fn sample_metas() -> Vec<(Kind, Vec<u8>)> {
    let mut encoder = Encoder::new();
    let split_owned = |message: Message| {
        let frame = message.encode(&mut encoder);
        let (header, meta) = split(&frame);
        (header.kind(), meta.to_vec())
    };
    Message::samples().into_iter().map(split_owned).collect()
}

fn sample_records() -> Vec<Vec<u8>> {
    samples::records().iter().map(encode_record).collect()
}

#[test]
fn every_piece_of_a_snapshot_survives_and_damage_never_panics() {
    let (mut encoder, mut noise) = (Encoder::new(), Noise(11));
    for piece in samples::pieces() {
        let bytes = encode_piece(&mut encoder, &piece).to_vec();
        assert_eq!(decode_piece(&bytes).expect("a piece"), piece);
        for _ in 0..2000 {
            let mut damaged = bytes.clone();
            let at = noise.below(damaged.len());
            damaged[at] ^= 1 + (noise.next() % 255) as u8;
            damaged.truncate(1 + noise.below(2 * bytes.len()));
            if let Ok(piece) = decode_piece(&damaged) {
                let again = encode_piece(&mut encoder, &piece).to_vec();
                assert_eq!(decode_piece(&again).expect("what was decoded can be encoded"), piece);
            }
        }
    }
}

#[test]
fn every_message_survives_the_wire() {
    let mut encoder = Encoder::new();
    for message in Message::samples() {
        let frame = message.encode(&mut encoder);
        let (header, meta) = split(&frame);
        assert_eq!(header.meta_bytes(), meta.len());
        assert_eq!(header.body_bytes(), if header.kind().has_body() { BODY_BYTES } else { 0 });
        if header.kind().group() == KindGroup::Peer {
            assert_eq!((header.source(), header.target()), (SOURCE, TARGET));
        }
        assert_eq!(Message::decode(&frame).expect("a frame"), message);
    }
}

#[test]
fn every_record_survives_the_log() {
    let mut encoder = Encoder::new();
    for record in samples::records() {
        assert_eq!(decode_record(&encode_record(&record)).expect("a record"), record);
        assert_eq!(super::encode_record_with(&mut encoder, &record), encode_record(&record), "memory used again");
    }
}

#[test]
fn samples_are_of_every_kind_and_variant() {
    let kinds: HashSet<Kind> = sample_metas().into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds.len(), Kind::ALL.len());
    fn variants<T>(all: &[T]) -> usize {
        all.iter().map(std::mem::discriminant).collect::<HashSet<_>>().len()
    }
    // The first value of a union is "none".
    let unions = [
        (variants(&samples::leader_requests()), generated::ask::LeaderRequest::ENUM_VALUES.len()),
        (variants(&samples::leader_answers()), generated::answer::LeaderAnswer::ENUM_VALUES.len()),
        (
            variants(&samples::records().into_iter().map(|r| r.body).collect::<Vec<_>>()),
            generated::record::RecordBody::ENUM_VALUES.len(),
        ),
    ];
    for (found, with_none) in unions {
        assert_eq!(found, with_none - 1);
    }
}

#[test]
fn frames_are_appended_behind_what_is_there() {
    let mut encoder = Encoder::new();
    let mut out = b"before".to_vec();
    super::encode_client_request(&mut encoder, &ClientRequest::Ping, 0, &mut out);
    super::encode_client_reply(&mut encoder, &ClientReply::Pong, 0, &mut out);
    let (before, frames) = out.split_at(6);
    assert_eq!(before, b"before");
    let (header, rest) = frames.split_first_chunk::<FRAME_HEADER_BYTES>().expect("a header");
    let header = FrameHeader::parse(header, FrameLimits::HANDSHAKE).expect("a right header");
    assert_eq!(Message::decode(&rest[header.meta_bytes()..]).expect("the second"), Message::Reply(ClientReply::Pong));
}

#[test]
fn usual_ready_record_is_small() {
    let record = Record { time_ms: 1_763_803_380_000, body: RecordBody::Ready(samples::ready()) };
    let bytes = encode_record(&record).len();
    assert_eq!(bytes, 192, "at most 200 are aimed at");
}

#[test]
fn metas_of_the_hot_path_are_small() {
    for (kind, meta) in sample_metas() {
        let bound = match kind {
            Kind::RequestChunk | Kind::ReplyChunk | Kind::PeerUploadChunk => 64,
            Kind::PeerFetched | Kind::RequestAck | Kind::ReplyProgress => 64,
            Kind::PeerUploadProgress => 72,
            _ => continue,
        };
        assert!(meta.len() <= bound, "{kind:?} {}", meta.len());
    }
}

#[test]
fn frame_cut_or_flipped_anywhere_is_refused() {
    let mut encoder = Encoder::new();
    for message in Message::samples() {
        let mut frame = message.encode(&mut encoder);
        for end in 0..frame.len() {
            assert!(Message::decode(&frame[..end]).is_err(), "{message:?} cut at {end}");
        }
        for bit in 0..frame.len() * 8 {
            frame[bit / 8] ^= 1 << (bit % 8);
            assert!(Message::decode(&frame).is_err(), "{message:?} with bit {bit} flipped");
            frame[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn cut_or_flipped_meta_with_a_right_checksum_never_breaks_a_rule() {
    let mut encoder = Encoder::new();
    for (kind, mut meta) in sample_metas() {
        for end in 0..meta.len() {
            check_meta(&mut encoder, kind, &meta[..end]);
        }
        for bit in 0..meta.len() * 8 {
            meta[bit / 8] ^= 1 << (bit % 8);
            check_meta(&mut encoder, kind, &meta);
            meta[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn cut_or_flipped_record_never_breaks_a_rule() {
    let mut encoder = Encoder::new();
    for mut bytes in sample_records() {
        for end in 0..bytes.len() {
            check_record(&mut encoder, &bytes[..end]);
        }
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            check_record(&mut encoder, &bytes);
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

#[test]
fn noise_never_breaks_a_rule() {
    let mut noise = Noise(0x4845_4c49_4f47_5241);
    let mut encoder = Encoder::new();
    for round in 0..4_000 {
        let length = noise.below(200);
        let mut bytes: Vec<u8> = (0..length).map(|_| noise.next() as u8).collect();
        if round % 2 == 0 && length >= 4 {
            // A root offset that leads somewhere, so that noise goes deeper.
            bytes[..4].copy_from_slice(&(noise.below(length) as u32 & !3).to_le_bytes());
        }
        for &kind in Kind::ALL {
            check_meta(&mut encoder, kind, &bytes);
        }
        check_record(&mut encoder, &bytes);
    }
}

#[test]
fn spliced_messages_never_break_a_rule() {
    let mut noise = Noise(7);
    let mut encoder = Encoder::new();
    let metas = sample_metas();
    for _ in 0..20_000 {
        let (kind, meta) = &metas[noise.below(metas.len())];
        let mut bytes = meta.clone();
        for _ in 0..1 + noise.below(4) {
            let at = noise.below(bytes.len());
            match noise.below(4) {
                0 => bytes[at] = noise.next() as u8,
                1 => bytes[at..].iter_mut().take(4).for_each(|byte| *byte = 0xff),
                2 => {
                    let from = noise.below(bytes.len());
                    let length = noise.below(16).min(bytes.len() - from.max(at));
                    bytes.copy_within(from..from + length, at);
                }
                _ => {
                    let (_, other) = &metas[noise.below(metas.len())];
                    let length = noise.below(32).min(other.len()).min(bytes.len() - at);
                    bytes[at..at + length].copy_from_slice(&other[..length]);
                }
            }
        }
        check_meta(&mut encoder, *kind, &bytes);
    }
}

#[test]
fn meta_of_one_kind_under_another_is_refused_or_keeps_the_rules() {
    let mut encoder = Encoder::new();
    for (_, meta) in sample_metas() {
        for &kind in Kind::ALL {
            check_meta(&mut encoder, kind, &meta);
        }
        check_record(&mut encoder, &meta);
    }
}

#[test]
fn table_without_its_required_fields_is_refused() {
    let mut builder = FlatBufferBuilder::new();
    let empty = builder.start_table();
    let empty = builder.end_table(empty);
    builder.finish_minimal(empty);
    let meta = builder.finished_data();
    let accepted: Vec<Kind> =
        Kind::ALL.iter().copied().filter(|&kind| Message::decode_meta(&header_for(kind, meta), meta).is_ok()).collect();
    // Of these every field is a number that may be 0, or there is none.
    let all_zero = [
        Kind::RequestInboxCredit,
        Kind::RequestStatus,
        Kind::RequestPing,
        Kind::ReplyCredit,
        Kind::ReplyProbeDone,
        Kind::ReplyPong,
        Kind::LinkCredit,
        Kind::PeerHealAsk,
        Kind::PeerHealAnswer,
        Kind::PeerSnapshotOffer,
        Kind::PeerSnapshotAsk,
        Kind::PeerSnapshotGone,
    ];
    assert_eq!(accepted, all_zero);
    assert!(decode_record(meta).is_err());
    assert!(decode_record(b"").is_err(), "the empty first entry of a term is no record");
}

#[test]
fn every_decoder_refuses_kinds_of_others() {
    let refused = |result: Result<(), DecodeError>| matches!(result, Err(DecodeError::KindUnexpected { .. }));
    for (kind, meta) in sample_metas() {
        let header = header_for(kind, &meta);
        let group = kind.group();
        let peer = super::decode_peer_message(&header, &meta).map(drop);
        let request = super::decode_client_request(&header, &meta).map(drop);
        let reply = super::decode_client_reply(&header, &meta).map(drop);
        let hello = super::decode_peer_hello(&header, &meta).map(drop);
        let welcome = super::decode_peer_welcome(&header, &meta).map(drop);
        let credit = super::decode_link_credit(&header, &meta).map(drop);
        assert_eq!(refused(peer), group != KindGroup::Peer, "{kind:?}");
        assert_eq!(refused(request), group != KindGroup::ClientRequest, "{kind:?}");
        assert_eq!(refused(reply), group != KindGroup::ClientReply, "{kind:?}");
        assert_eq!(refused(hello), kind != Kind::LinkHello, "{kind:?}");
        assert_eq!(refused(welcome), !matches!(kind, Kind::LinkWelcome | Kind::LinkRefused), "{kind:?}");
        assert_eq!(refused(credit), kind != Kind::LinkCredit, "{kind:?}");
    }
}

#[test]
fn unknown_codes_are_refused() {
    fn check<T>(builder: &mut FlatBufferBuilder<'static>, root: flatbuffers::WIPOffset<T>, kind: Kind, expected: &str) {
        builder.finish_minimal(root);
        let meta = builder.finished_data();
        let error = Message::decode_meta(&header_for(kind, meta), meta).expect_err("an unknown code");
        assert_eq!(error.to_string(), expected);
        assert_eq!(error.refusal(), Refusal::BadRequest);
    }
    use generated::{ask, link, peer, reply, request};
    let b = &mut FlatBufferBuilder::new();

    let text = Some(b.create_string("text"));
    let root = link::Refused::create(b, &link::RefusedArgs { refusal: 200, text });
    check(b, root, Kind::LinkRefused, "refusal has the unknown code 200");

    b.reset();
    let body = Some(ask::Unreachable::create(b, &ask::UnreachableArgs { node: 1 }).as_union_value());
    let origin = generated::ids::Address::new(1, 1);
    let body_type = ask::LeaderRequest(99);
    let args = peer::RequestArgs { origin: Some(&origin), request: 1, hops: 1, body_type, body };
    let root = peer::Request::create(b, &args);
    check(b, root, Kind::PeerRequest, "body has the unknown code 99");

    b.reset();
    let target_client = Some(b.create_string("gallery"));
    let credentials = Some(b.create_vector::<u8>(&[]));
    let cluster = generated::ids::U128::new(1, 2);
    let args = request::HelloArgs {
        version_min: 1,
        version_max: 1,
        cluster: Some(&cluster),
        target_core: Some(1),
        target_client,
        credentials,
    };
    let root = request::Hello::create(b, &args);
    check(b, root, Kind::RequestHello, "target contradicts another field");

    b.reset();
    let members =
        Some(b.create_vector_from_iter(std::iter::empty::<flatbuffers::WIPOffset<generated::ids::Member<'_>>>()));
    let ring = Some(generated::ids::Ring::create(b, &generated::ids::RingArgs { epoch: 1, members }));
    let cores = Some(b.create_vector_from_iter(std::iter::empty::<reply::CoreStatus>()));
    let args = reply::NodeStatusArgs { cluster: Some(&cluster), role: 3, ring, cores, ..Default::default() };
    let status = Some(reply::NodeStatus::create(b, &args));
    let root = reply::Status::create(b, &reply::StatusArgs { request: 1, status });
    check(b, root, Kind::ReplyStatus, "role has the unknown code 3");
}

#[test]
fn list_that_names_one_string_many_times_is_refused_before_it_is_built() {
    use generated::{ids, request};
    let mut builder = FlatBufferBuilder::new();
    let long = builder.create_string(&"x".repeat(20_000));
    let receivers = Some(builder.create_vector(&[long; 1_000]));
    let name = Some(builder.create_string("name"));
    let args = request::BeginArgs {
        cluster: Some(&ids::U128::new(1, 2)),
        image: Some(&ids::ImageId::new(1, 1)),
        low_water: 1,
        receivers,
        fingerprint: Some(&ids::Fingerprint::new(1, 1)),
        name,
    };
    let root = request::Begin::create(&mut builder, &args);
    builder.finish_minimal(root);
    let meta = builder.finished_data();
    let error = Message::decode_meta(&header_for(Kind::RequestBegin, meta), meta).expect_err("too large");
    assert_eq!(error.to_string(), "malformed meta: Apparent size too large.\n");
}

#[test]
fn text_for_people_is_cut_at_a_character() {
    let mut encoder = Encoder::new();
    let text = format!("x{}", "ä".repeat(TEXT_BYTES_MAX));
    let refused = ClientReply::Failure { request: None, refusal: Refusal::Busy, text: text.clone(), ring: None };
    match Message::decode(&Message::Reply(refused).encode(&mut encoder)).expect("a frame") {
        Message::Reply(ClientReply::Failure { text: cut, .. }) => {
            assert_eq!(cut.len(), TEXT_BYTES_MAX - 1);
            assert!(text.starts_with(&cut));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn largest_messages_fit_into_a_frame() {
    let mut encoder = Encoder::new();
    let address = "h".repeat(100);
    let member = |node: u64| Member {
        node: NodeId(node),
        cores: 256,
        client_address: address.clone(),
        peer_address: address.clone(),
        ..samples::ring().members()[0].clone()
    };
    let members: Vec<Member> = (1..=NODES_MAX as u64).map(member).collect();
    let genesis =
        RecordBody::Genesis { cluster: Default::default(), members: members.clone(), copies: 1, image_bytes_max: 1 };
    let record = Record { time_ms: 1, body: genesis };
    let bytes = encode_record(&record);
    assert!(bytes.len() <= RAFT_MESSAGE_BYTES_MAX, "{}", bytes.len());
    assert_eq!(decode_record(&bytes).expect("a record"), record);

    let ring = Message::Reply(ClientReply::RingChanged { ring: Ring::new(Default::default(), members) });
    let frame = ring.encode(&mut encoder);
    assert!(frame.len() <= FRAME_META_BYTES_MAX / 2, "{}", frame.len());
    assert_eq!(Message::decode(&frame).expect("a ring"), ring);

    let bytes_each = RAFT_MESSAGE_BYTES_MAX / RAFT_ENTRIES_MAX;
    let entry = |index| RaftEntry { index: LogIndex(1000 + index), data: vec![7; bytes_each], ..Default::default() };
    let append = raft(|m| m.entries = (1..=RAFT_ENTRIES_MAX as u64).map(entry).collect());
    let frame = append.encode(&mut encoder);
    assert_eq!(Message::decode(&frame).expect("an append"), append);

    let name = |number: usize| format!("{number:0>128}");
    let largest = Message::Request(begin(|b| {
        b.receivers = (0..RECEIVERS_MAX).map(name).collect();
        b.name = "n".repeat(255);
    }));
    let frame = largest.encode(&mut encoder);
    let (header, _) = frame.split_first_chunk::<FRAME_HEADER_BYTES>().expect("a header");
    FrameHeader::parse(header, FrameLimits::CLIENT_REQUEST).expect("within what a node takes from a client");
    assert_eq!(Message::decode(&frame).expect("a begin"), largest);
}

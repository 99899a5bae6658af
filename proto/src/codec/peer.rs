//! What one core says to another.

use flatbuffers::{UnionWIPOffset, WIPOffset};

use super::leader::{put_leader_answer, put_leader_request, take_leader_answer, take_leader_request};
use super::parts::{
    put_bytes, put_holders, put_names, put_text, take_bytes, take_holders, take_names, take_refusal, take_text,
};
use super::{DecodeError, Encoder, body_of, check_meta, root};
use crate::frame::{BodyHead, FrameHeader, Kind};
use crate::generated::{ids, peer as wire};
use crate::ids::{Address, Incarnation, LogIndex, NodeId, RequestId, Sequence, Term};
use crate::peer::{Bootstrap, PeerMessage, RaftEntry, RaftMessage, Upload};

type Root = (Kind, WIPOffset<UnionWIPOffset>);

/// Appends header and meta of the frame for `message` from `source` to `target` to `out`. `body_bytes` is the length of
/// the body that the caller sends behind them: 1 to `FRAME_BODY_BYTES_MAX` for `UploadChunk` and `Fetched`, else 0.
pub fn encode_peer_message(
    encoder: &mut Encoder,
    source: Address,
    target: Address,
    message: &PeerMessage,
    body_bytes: usize,
    out: &mut Vec<u8>,
) {
    debug_assert_eq!(message.check(), Ok(()), "{message:?}");
    write(encoder, (source, target), message, body_bytes, out);
}

/// As `encode_peer_message`, whatever the message is.
pub(super) fn write(
    encoder: &mut Encoder,
    route: (Address, Address),
    message: &PeerMessage,
    body_bytes: usize,
    out: &mut Vec<u8>,
) {
    let body = match message {
        PeerMessage::UploadChunk { crc32, .. } | PeerMessage::Fetched { crc32, .. } => body_of(body_bytes, *crc32),
        _ => BodyHead { bytes: body_bytes, crc32: 0 },
    };
    encoder.start();
    let root = put(encoder, message);
    encoder.finish_frame(root, body, route, out);
}

fn put(encoder: &mut Encoder, message: &PeerMessage) -> Root {
    let b = &mut encoder.builder;
    match message {
        PeerMessage::Bootstrap(bootstrap) => put_bootstrap(encoder, bootstrap),
        PeerMessage::Raft(message) => put_raft(encoder, message),
        PeerMessage::Request { origin, request, hops, body } => {
            let (body_type, body) = put_leader_request(encoder, body);
            let args = wire::RequestArgs {
                origin: Some(&(*origin).into()),
                request: request.0,
                hops: *hops,
                body_type,
                body: Some(body),
            };
            (Kind::PeerRequest, wire::Request::create(&mut encoder.builder, &args).as_union_value())
        }
        PeerMessage::Answer { request, body } => {
            let (body_type, body) = put_leader_answer(encoder, body);
            let args = wire::AnswerArgs { request: request.0, body_type, body: Some(body) };
            (Kind::PeerAnswer, wire::Answer::create(&mut encoder.builder, &args).as_union_value())
        }
        PeerMessage::Upload(upload) => put_upload(encoder, upload),
        PeerMessage::UploadChunk { image, offset, checksum, crc32: _ } => {
            let (offset, checksum) = (*offset, *checksum);
            let args = wire::UploadChunkArgs { image: Some(&(*image).into()), offset, checksum };
            (Kind::PeerUploadChunk, wire::UploadChunk::create(b, &args).as_union_value())
        }
        PeerMessage::UploadProgress { image, durable_end, incarnation, checksum, receivers } => {
            let args = wire::UploadProgressArgs {
                image: Some(&(*image).into()),
                durable_end: *durable_end,
                incarnation: incarnation.0,
                checksum: *checksum,
                receivers: *receivers,
            };
            (Kind::PeerUploadProgress, wire::UploadProgress::create(b, &args).as_union_value())
        }
        PeerMessage::UploadRefused { image, checksum, refusal, text } => {
            let (text, refusal, checksum) = (Some(put_text(b, text)), refusal.code(), *checksum);
            let args = wire::UploadRefusedArgs { image: Some(&(*image).into()), refusal, text, checksum };
            (Kind::PeerUploadRefused, wire::UploadRefused::create(b, &args).as_union_value())
        }
        PeerMessage::UploadReady { image, receivers, index, holders, checksum } => {
            let receivers = Some(put_names(b, &mut encoder.offsets, receivers));
            let holders = Some(put_holders(b, holders));
            let (image, index, checksum) = (Some(&(*image).into()), index.0, *checksum);
            let args = wire::UploadReadyArgs { image, receivers, index, holders, checksum };
            (Kind::PeerUploadReady, wire::UploadReady::create(b, &args).as_union_value())
        }
        PeerMessage::UploadCancel { image, checksum } => {
            let args = wire::UploadCancelArgs { image: Some(&(*image).into()), checksum: *checksum };
            (Kind::PeerUploadCancel, wire::UploadCancel::create(b, &args).as_union_value())
        }
        PeerMessage::Fetch { request, image, offset } => {
            let args = wire::FetchArgs { request: request.0, image: Some(&(*image).into()), offset: *offset };
            (Kind::PeerFetch, wire::Fetch::create(b, &args).as_union_value())
        }
        PeerMessage::Fetched { request, image, offset, crc32: _ } => {
            let args = wire::FetchedArgs { request: request.0, image: Some(&(*image).into()), offset: *offset };
            (Kind::PeerFetched, wire::Fetched::create(b, &args).as_union_value())
        }
        PeerMessage::HealAsk { nonce, last } => {
            let args = wire::HealAskArgs { nonce: *nonce, last: last.0 };
            (Kind::PeerHealAsk, wire::HealAsk::create(b, &args).as_union_value())
        }
        PeerMessage::HealAnswer { nonce, term, last_term, last, leads } => {
            let (nonce, term, last_term, last, leads) = (*nonce, term.0, last_term.0, last.0, *leads);
            let args = wire::HealAnswerArgs { nonce, term, last_term, last, leads };
            (Kind::PeerHealAnswer, wire::HealAnswer::create(b, &args).as_union_value())
        }
        PeerMessage::SnapshotOffer { index, term } => {
            let args = wire::SnapshotOfferArgs { index: index.0, term: term.0 };
            (Kind::PeerSnapshotOffer, wire::SnapshotOffer::create(b, &args).as_union_value())
        }
        PeerMessage::SnapshotAsk { index, term, offset } => {
            let args = wire::SnapshotAskArgs { index: index.0, term: term.0, offset: *offset };
            (Kind::PeerSnapshotAsk, wire::SnapshotAsk::create(b, &args).as_union_value())
        }
        PeerMessage::SnapshotPart { index, term, offset, data } => {
            let data = Some(put_bytes(b, data));
            let args = wire::SnapshotPartArgs { index: index.0, term: term.0, offset: *offset, data };
            (Kind::PeerSnapshotPart, wire::SnapshotPart::create(b, &args).as_union_value())
        }
        PeerMessage::SnapshotGone { index, term } => {
            let args = wire::SnapshotGoneArgs { index: index.0, term: term.0 };
            (Kind::PeerSnapshotGone, wire::SnapshotGone::create(b, &args).as_union_value())
        }
        PeerMessage::FetchFailed { request, image, refusal } => {
            let (request, refusal) = (request.0, refusal.code());
            let args = wire::FetchFailedArgs { request, image: Some(&(*image).into()), refusal };
            (Kind::PeerFetchFailed, wire::FetchFailed::create(b, &args).as_union_value())
        }
    }
}

fn put_bootstrap(encoder: &mut Encoder, bootstrap: &Bootstrap) -> Root {
    let b = &mut encoder.builder;
    match bootstrap {
        Bootstrap::Empty { node, nonce, members, cores } => {
            let nonce = (*nonce).into();
            let args = wire::BootstrapEmptyArgs { node: node.0, nonce: Some(&nonce), members: *members, cores: *cores };
            (Kind::PeerBootstrapEmpty, wire::BootstrapEmpty::create(b, &args).as_union_value())
        }
        Bootstrap::Minted { cluster, members } => {
            let members = Some(b.create_vector_from_iter(members.iter().map(put_minted)));
            let args = wire::BootstrapMintedArgs { cluster: Some(&(*cluster).into()), members };
            (Kind::PeerBootstrapMinted, wire::BootstrapMinted::create(b, &args).as_union_value())
        }
        Bootstrap::Rejoin { node, nonce, replaces, cores, client_address, peer_address } => {
            let client_address = Some(b.create_string(client_address));
            let peer_address = Some(b.create_string(peer_address));
            let (nonce, replaces, cores) = ((*nonce).into(), replaces.0, *cores);
            let nonce = Some(&nonce);
            let args = wire::BootstrapRejoinArgs { node: node.0, nonce, replaces, cores, client_address, peer_address };
            (Kind::PeerBootstrapRejoin, wire::BootstrapRejoin::create(b, &args).as_union_value())
        }
        Bootstrap::Admitted { cluster, members, incarnation, nonce, term } => {
            let members = Some(b.create_vector_from_iter(members.iter().map(put_minted)));
            let args = wire::BootstrapAdmittedArgs {
                cluster: Some(&(*cluster).into()),
                members,
                incarnation: incarnation.0,
                nonce: Some(&(*nonce).into()),
                term: term.0,
            };
            (Kind::PeerBootstrapAdmitted, wire::BootstrapAdmitted::create(b, &args).as_union_value())
        }
        Bootstrap::Deferred { incarnation, text } => {
            let text = Some(put_text(b, text));
            let args = wire::BootstrapDeferredArgs { incarnation: incarnation.0, text };
            (Kind::PeerBootstrapDeferred, wire::BootstrapDeferred::create(b, &args).as_union_value())
        }
    }
}

fn put_minted(&(node, nonce, cores): &(NodeId, u128, u16)) -> wire::MintedMember {
    wire::MintedMember::new(node.0, &nonce.into(), cores)
}

fn take_minted(member: &wire::MintedMember) -> (NodeId, u128, u16) {
    (NodeId(member.node()), member.nonce().into(), member.cores())
}

fn put_raft(encoder: &mut Encoder, message: &RaftMessage) -> Root {
    for entry in &message.entries {
        encoder.bytes.extend_from_slice(&entry.data);
    }
    let b = &mut encoder.builder;
    let data = put_bytes(b, &encoder.bytes);
    let heads = message.entries.iter().map(|entry| {
        // At most RAFT_MESSAGE_BYTES_MAX, which fits.
        wire::RaftEntry::new(entry.term.0, entry.index.0, entry.data.len() as u32)
    });
    let entries = b.create_vector_from_iter(heads);
    let context = put_bytes(b, &message.context);
    let args = wire::RaftArgs {
        kind: message.kind,
        from: message.from.0,
        to: message.to.0,
        term: message.term.0,
        log_term: message.log_term.0,
        index: message.index.0,
        entries: Some(entries),
        data: Some(data),
        commit: message.commit.0,
        commit_term: message.commit_term.0,
        request_snapshot: message.request_snapshot.0,
        reject: message.reject,
        reject_hint: message.reject_hint.0,
        context: Some(context),
        priority: message.priority,
    };
    (Kind::PeerRaft, wire::Raft::create(b, &args).as_union_value())
}

fn put_upload(encoder: &mut Encoder, upload: &Upload) -> Root {
    let b = &mut encoder.builder;
    let receivers = put_names(b, &mut encoder.offsets, &upload.receivers);
    let chain = b.create_vector_from_iter(upload.chain.iter().map(|&address| ids::Address::from(address)));
    let name = b.create_string(&upload.name);
    let args = wire::UploadArgs {
        image: Some(&upload.image.into()),
        low_water: upload.low_water.0,
        fingerprint: Some(&upload.fingerprint.into()),
        name: Some(name),
        receivers: Some(receivers),
        chain: Some(chain),
    };
    (Kind::PeerUpload, wire::Upload::create(b, &args).as_union_value())
}

/// The message in a frame with `header` and `meta`. Who says it to whom stands in the header.
pub fn decode_peer_message(header: &FrameHeader, meta: &[u8]) -> Result<PeerMessage, DecodeError> {
    check_meta(header, meta)?;
    let message = take(header, meta)?;
    message.check()?;
    Ok(message)
}

fn take(header: &FrameHeader, meta: &[u8]) -> Result<PeerMessage, DecodeError> {
    let message = match header.kind() {
        Kind::PeerBootstrapEmpty => {
            let m = root::<wire::BootstrapEmpty<'_>>(meta)?;
            let (node, nonce) = (NodeId(m.node()), m.nonce().into());
            PeerMessage::Bootstrap(Bootstrap::Empty { node, nonce, members: m.members(), cores: m.cores() })
        }
        Kind::PeerBootstrapMinted => {
            let m = root::<wire::BootstrapMinted<'_>>(meta)?;
            let members = m.members().iter().map(take_minted).collect();
            PeerMessage::Bootstrap(Bootstrap::Minted { cluster: m.cluster().into(), members })
        }
        Kind::PeerBootstrapRejoin => {
            let m = root::<wire::BootstrapRejoin<'_>>(meta)?;
            PeerMessage::Bootstrap(Bootstrap::Rejoin {
                node: NodeId(m.node()),
                nonce: m.nonce().into(),
                replaces: Incarnation(m.replaces()),
                cores: m.cores(),
                client_address: m.client_address().to_owned(),
                peer_address: m.peer_address().to_owned(),
            })
        }
        Kind::PeerBootstrapAdmitted => {
            let m = root::<wire::BootstrapAdmitted<'_>>(meta)?;
            PeerMessage::Bootstrap(Bootstrap::Admitted {
                cluster: m.cluster().into(),
                members: m.members().iter().map(take_minted).collect(),
                incarnation: Incarnation(m.incarnation()),
                nonce: m.nonce().into(),
                term: Term(m.term()),
            })
        }
        Kind::PeerBootstrapDeferred => {
            let m = root::<wire::BootstrapDeferred<'_>>(meta)?;
            let (incarnation, text) = (Incarnation(m.incarnation()), take_text(m.text()));
            PeerMessage::Bootstrap(Bootstrap::Deferred { incarnation, text })
        }
        Kind::PeerRaft => PeerMessage::Raft(take_raft(root::<wire::Raft<'_>>(meta)?)?),
        Kind::PeerRequest => {
            let m = root::<wire::Request<'_>>(meta)?;
            let (origin, request) = (m.origin().into(), RequestId(m.request()));
            PeerMessage::Request { origin, request, hops: m.hops(), body: take_leader_request(m)? }
        }
        Kind::PeerAnswer => {
            let m = root::<wire::Answer<'_>>(meta)?;
            PeerMessage::Answer { request: RequestId(m.request()), body: take_leader_answer(m)? }
        }
        Kind::PeerUpload => PeerMessage::Upload(take_upload(root::<wire::Upload<'_>>(meta)?)),
        Kind::PeerUploadChunk => {
            let m = root::<wire::UploadChunk<'_>>(meta)?;
            let (checksum, crc32) = (m.checksum(), header.body_crc32());
            PeerMessage::UploadChunk { image: m.image().into(), offset: m.offset(), checksum, crc32 }
        }
        Kind::PeerUploadProgress => {
            let m = root::<wire::UploadProgress<'_>>(meta)?;
            PeerMessage::UploadProgress {
                image: m.image().into(),
                durable_end: m.durable_end(),
                incarnation: Incarnation(m.incarnation()),
                checksum: m.checksum(),
                receivers: m.receivers(),
            }
        }
        Kind::PeerUploadRefused => {
            let m = root::<wire::UploadRefused<'_>>(meta)?;
            let (checksum, refusal) = (m.checksum(), take_refusal(m.refusal())?);
            PeerMessage::UploadRefused { image: m.image().into(), checksum, refusal, text: take_text(m.text()) }
        }
        Kind::PeerUploadReady => {
            let m = root::<wire::UploadReady<'_>>(meta)?;
            PeerMessage::UploadReady {
                image: m.image().into(),
                receivers: take_names(m.receivers()),
                index: LogIndex(m.index()),
                holders: take_holders(m.holders()),
                checksum: m.checksum(),
            }
        }
        Kind::PeerUploadCancel => {
            let m = root::<wire::UploadCancel<'_>>(meta)?;
            PeerMessage::UploadCancel { image: m.image().into(), checksum: m.checksum() }
        }
        Kind::PeerFetch => {
            let m = root::<wire::Fetch<'_>>(meta)?;
            PeerMessage::Fetch { request: RequestId(m.request()), image: m.image().into(), offset: m.offset() }
        }
        Kind::PeerFetched => {
            let m = root::<wire::Fetched<'_>>(meta)?;
            let (request, crc32) = (RequestId(m.request()), header.body_crc32());
            PeerMessage::Fetched { request, image: m.image().into(), offset: m.offset(), crc32 }
        }
        Kind::PeerHealAsk => {
            let m = root::<wire::HealAsk<'_>>(meta)?;
            PeerMessage::HealAsk { nonce: m.nonce(), last: LogIndex(m.last()) }
        }
        Kind::PeerHealAnswer => {
            let m = root::<wire::HealAnswer<'_>>(meta)?;
            let (term, last_term, last) = (Term(m.term()), Term(m.last_term()), LogIndex(m.last()));
            PeerMessage::HealAnswer { nonce: m.nonce(), term, last_term, last, leads: m.leads() }
        }
        Kind::PeerSnapshotOffer => {
            let m = root::<wire::SnapshotOffer<'_>>(meta)?;
            PeerMessage::SnapshotOffer { index: LogIndex(m.index()), term: Term(m.term()) }
        }
        Kind::PeerSnapshotAsk => {
            let m = root::<wire::SnapshotAsk<'_>>(meta)?;
            PeerMessage::SnapshotAsk { index: LogIndex(m.index()), term: Term(m.term()), offset: m.offset() }
        }
        Kind::PeerSnapshotPart => {
            let m = root::<wire::SnapshotPart<'_>>(meta)?;
            let (index, term, data) = (LogIndex(m.index()), Term(m.term()), take_bytes(m.data()));
            PeerMessage::SnapshotPart { index, term, offset: m.offset(), data }
        }
        Kind::PeerSnapshotGone => {
            let m = root::<wire::SnapshotGone<'_>>(meta)?;
            PeerMessage::SnapshotGone { index: LogIndex(m.index()), term: Term(m.term()) }
        }
        Kind::PeerFetchFailed => {
            let m = root::<wire::FetchFailed<'_>>(meta)?;
            let (request, refusal) = (RequestId(m.request()), take_refusal(m.refusal())?);
            PeerMessage::FetchFailed { request, image: m.image().into(), refusal }
        }
        kind => return Err(DecodeError::KindUnexpected { kind }),
    };
    Ok(message)
}

fn take_raft(m: wire::Raft<'_>) -> Result<RaftMessage, DecodeError> {
    let mut rest = m.data().bytes();
    let mut entries = Vec::with_capacity(m.entries().len());
    for head in m.entries() {
        let Some((data, tail)) = rest.split_at_checked(head.bytes() as usize) else {
            return Err(DecodeError::Contradiction { field: "entries.data" });
        };
        entries.push(RaftEntry { term: Term(head.term()), index: LogIndex(head.index()), data: data.to_vec() });
        rest = tail;
    }
    if !rest.is_empty() {
        return Err(DecodeError::Contradiction { field: "entries.data" });
    }
    Ok(RaftMessage {
        kind: m.kind(),
        from: NodeId(m.from()),
        to: NodeId(m.to()),
        term: Term(m.term()),
        log_term: Term(m.log_term()),
        index: LogIndex(m.index()),
        entries,
        commit: LogIndex(m.commit()),
        commit_term: Term(m.commit_term()),
        request_snapshot: LogIndex(m.request_snapshot()),
        reject: m.reject(),
        reject_hint: LogIndex(m.reject_hint()),
        context: take_bytes(m.context()),
        priority: m.priority(),
    })
}

fn take_upload(m: wire::Upload<'_>) -> Upload {
    Upload {
        image: m.image().into(),
        low_water: Sequence(m.low_water()),
        fingerprint: m.fingerprint().into(),
        name: m.name().to_owned(),
        receivers: take_names(m.receivers()),
        chain: m.chain().iter().map(Address::from).collect(),
    }
}

//! What nodes say to clients.

use flatbuffers::{UnionWIPOffset, WIPOffset};

use super::parts::{put_holders, put_ring, put_text, take_holders, take_refusal, take_ring, take_text};
use super::{DecodeError, Encoder, body_of, check_meta, root};
use crate::client::{ClientReply, CoreStatus, ImageHead, NodeStatus, RoleKind};
use crate::frame::{BodyHead, FrameHeader, Kind};
use crate::generated::reply as wire;
use crate::ids::{Address, CoreId, InboxId, InboxSeq, Incarnation, LogIndex, NodeId, RequestId, SessionId, Term};

type Root = (Kind, WIPOffset<UnionWIPOffset>);

/// Appends header and meta of the frame for `reply` to `out`. `body_bytes` is the length of the body that the caller
/// sends behind them: 1 to `FRAME_BODY_BYTES_MAX` for a chunk, else 0.
pub fn encode_client_reply(encoder: &mut Encoder, reply: &ClientReply, body_bytes: usize, out: &mut Vec<u8>) {
    debug_assert_eq!(reply.check(), Ok(()), "{reply:?}");
    write(encoder, reply, body_bytes, out);
}

/// As `encode_client_reply`, whatever the reply is.
pub(super) fn write(encoder: &mut Encoder, reply: &ClientReply, body_bytes: usize, out: &mut Vec<u8>) {
    let body = match reply {
        ClientReply::Chunk { crc32, .. } => body_of(body_bytes, *crc32),
        _ => BodyHead { bytes: body_bytes, crc32: 0 },
    };
    encoder.start();
    let root = put(encoder, reply);
    encoder.finish_frame(root, body, Default::default(), out);
}

fn put(encoder: &mut Encoder, reply: &ClientReply) -> Root {
    let b = &mut encoder.builder;
    match reply {
        ClientReply::Welcome { version, cluster, node, core, ring, image_bytes_max, credit } => {
            let ring = put_ring(b, &mut encoder.offsets, ring);
            let args = wire::WelcomeArgs {
                version: *version,
                cluster: Some(&(*cluster).into()),
                address: Some(&Address { node: *node, core: *core }.into()),
                ring: Some(ring),
                image_bytes_max: *image_bytes_max,
                credit: *credit,
            };
            (Kind::ReplyWelcome, wire::Welcome::create(b, &args).as_union_value())
        }
        ClientReply::Registered { request, inbox } => {
            let args = wire::RegisteredArgs { request: request.0, inbox: inbox.0 };
            (Kind::ReplyRegistered, wire::Registered::create(b, &args).as_union_value())
        }
        ClientReply::SessionOpened { request, session } => {
            let args = wire::SessionOpenedArgs { request: request.0, session: session.0 };
            (Kind::ReplySessionOpened, wire::SessionOpened::create(b, &args).as_union_value())
        }
        ClientReply::BeginAnswer { image, resume_from } => {
            let args = wire::BeginAnswerArgs { image: Some(&(*image).into()), resume_from: *resume_from };
            (Kind::ReplyBeginAnswer, wire::BeginAnswer::create(b, &args).as_union_value())
        }
        ClientReply::Progress { image, durable_end } => {
            let args = wire::ProgressArgs { image: Some(&(*image).into()), durable_end: *durable_end };
            (Kind::ReplyProgress, wire::Progress::create(b, &args).as_union_value())
        }
        ClientReply::Accepted { image, index, holders } => {
            let holders = Some(put_holders(b, holders));
            let args = wire::AcceptedArgs { image: Some(&(*image).into()), index: index.0, holders };
            (Kind::ReplyAccepted, wire::Accepted::create(b, &args).as_union_value())
        }
        ClientReply::Refused { image, refusal, text } => {
            let text = Some(put_text(b, text));
            let args = wire::RefusedArgs { image: Some(&(*image).into()), refusal: refusal.code(), text };
            (Kind::ReplyRefused, wire::Refused::create(b, &args).as_union_value())
        }
        ClientReply::Credit { credit } => {
            (Kind::ReplyCredit, wire::Credit::create(b, &wire::CreditArgs { credit: *credit }).as_union_value())
        }
        ClientReply::InboxOpened { inbox, acked_upto } => {
            let args = wire::InboxOpenedArgs { inbox: inbox.0, acked_upto: acked_upto.0 };
            (Kind::ReplyInboxOpened, wire::InboxOpened::create(b, &args).as_union_value())
        }
        ClientReply::Head(head) => put_head(encoder, head),
        ClientReply::Chunk { inbox, seq, offset, crc32: _ } => {
            let args = wire::ChunkArgs { place: Some(&(*inbox, *seq).into()), offset: *offset };
            (Kind::ReplyChunk, wire::Chunk::create(b, &args).as_union_value())
        }
        ClientReply::Acked { inbox, upto } => {
            let args = wire::AckedArgs { upto: Some(&(*inbox, *upto).into()) };
            (Kind::ReplyAcked, wire::Acked::create(b, &args).as_union_value())
        }
        ClientReply::ProbeDone { request, index } => {
            let args = wire::ProbeDoneArgs { request: request.0, index: index.0 };
            (Kind::ReplyProbeDone, wire::ProbeDone::create(b, &args).as_union_value())
        }
        ClientReply::Status { request, status } => {
            let status = Some(put_status(encoder, status));
            let args = wire::StatusArgs { request: request.0, status };
            (Kind::ReplyStatus, wire::Status::create(&mut encoder.builder, &args).as_union_value())
        }
        ClientReply::Pong => (Kind::ReplyPong, wire::Pong::create(b, &wire::PongArgs {}).as_union_value()),
        ClientReply::RingChanged { ring } => {
            let ring = Some(put_ring(b, &mut encoder.offsets, ring));
            let root = wire::RingChanged::create(b, &wire::RingChangedArgs { ring });
            (Kind::ReplyRingChanged, root.as_union_value())
        }
        ClientReply::Failure { request, refusal, text, ring } => {
            let text = Some(put_text(b, text));
            let ring = ring.as_ref().map(|ring| put_ring(b, &mut encoder.offsets, ring));
            let args =
                wire::FailureArgs { request: request.map(|request| request.0), refusal: refusal.code(), text, ring };
            (Kind::ReplyFailure, wire::Failure::create(b, &args).as_union_value())
        }
    }
}

fn put_head(encoder: &mut Encoder, head: &ImageHead) -> Root {
    let b = &mut encoder.builder;
    let sender = b.create_string(&head.sender);
    let name = b.create_string(&head.name);
    let args = wire::HeadArgs {
        place: Some(&(head.inbox, head.seq).into()),
        image: Some(&head.image.into()),
        fingerprint: Some(&head.fingerprint.into()),
        sender: Some(sender),
        name: Some(name),
        index: head.index.0,
        damaged: head.is_damaged,
    };
    (Kind::ReplyHead, wire::Head::create(b, &args).as_union_value())
}

fn put_status(encoder: &mut Encoder, status: &NodeStatus) -> WIPOffset<wire::NodeStatus<'static>> {
    let b = &mut encoder.builder;
    let ring = put_ring(b, &mut encoder.offsets, &status.ring);
    let cores = b.create_vector_from_iter(status.cores.iter().map(wire::CoreStatus::from));
    let args = wire::NodeStatusArgs {
        node: status.node.0,
        incarnation: status.incarnation.0,
        cluster: Some(&status.cluster.into()),
        role: match status.role {
            RoleKind::Follower => 0,
            RoleKind::Candidate => 1,
            RoleKind::Leader => 2,
        },
        term: status.term.0,
        leader: status.leader.0,
        last: status.last.0,
        committed: status.committed.0,
        applied: status.applied.0,
        ring: Some(ring),
        clients: status.clients,
        sessions: status.sessions,
        undelivered: status.undelivered,
        intents: status.intents,
        log_segments: status.log_segments,
        log_bytes: status.log_bytes,
        cores: Some(cores),
        healing: status.healing,
        snapshot_index: status.snapshot_index.0,
        snapshot_bytes: status.snapshot_bytes,
        snapshot_under_way: status.snapshot_under_way,
        log_rotten: status.log_rotten,
    };
    wire::NodeStatus::create(b, &args)
}

impl From<&CoreStatus> for wire::CoreStatus {
    fn from(status: &CoreStatus) -> Self {
        wire::CoreStatus::new(
            status.core.0,
            status.connections,
            status.uploads,
            status.images,
            status.image_bytes,
            status.chunk_files,
            status.room_bytes,
            status.repairs,
        )
    }
}

impl From<&wire::CoreStatus> for CoreStatus {
    fn from(status: &wire::CoreStatus) -> Self {
        CoreStatus {
            core: CoreId(status.core()),
            connections: status.connections(),
            uploads: status.uploads(),
            images: status.images(),
            image_bytes: status.image_bytes(),
            chunk_files: status.chunk_files(),
            room_bytes: status.room_bytes(),
            repairs: status.repairs(),
        }
    }
}

/// The reply in a frame with `header` and `meta`.
pub fn decode_client_reply(header: &FrameHeader, meta: &[u8]) -> Result<ClientReply, DecodeError> {
    check_meta(header, meta)?;
    let reply = take(header, meta)?;
    reply.check()?;
    Ok(reply)
}

fn take(header: &FrameHeader, meta: &[u8]) -> Result<ClientReply, DecodeError> {
    let reply = match header.kind() {
        Kind::ReplyWelcome => take_welcome(root::<wire::Welcome<'_>>(meta)?)?,
        Kind::ReplyRegistered => {
            let m = root::<wire::Registered<'_>>(meta)?;
            ClientReply::Registered { request: RequestId(m.request()), inbox: InboxId(m.inbox()) }
        }
        Kind::ReplySessionOpened => {
            let m = root::<wire::SessionOpened<'_>>(meta)?;
            ClientReply::SessionOpened { request: RequestId(m.request()), session: SessionId(m.session()) }
        }
        Kind::ReplyBeginAnswer => {
            let m = root::<wire::BeginAnswer<'_>>(meta)?;
            ClientReply::BeginAnswer { image: m.image().into(), resume_from: m.resume_from() }
        }
        Kind::ReplyProgress => {
            let m = root::<wire::Progress<'_>>(meta)?;
            ClientReply::Progress { image: m.image().into(), durable_end: m.durable_end() }
        }
        Kind::ReplyAccepted => {
            let m = root::<wire::Accepted<'_>>(meta)?;
            let holders = take_holders(m.holders());
            ClientReply::Accepted { image: m.image().into(), index: LogIndex(m.index()), holders }
        }
        Kind::ReplyRefused => {
            let m = root::<wire::Refused<'_>>(meta)?;
            let refusal = take_refusal(m.refusal())?;
            ClientReply::Refused { image: m.image().into(), refusal, text: take_text(m.text()) }
        }
        Kind::ReplyCredit => ClientReply::Credit { credit: root::<wire::Credit<'_>>(meta)?.credit() },
        Kind::ReplyInboxOpened => {
            let m = root::<wire::InboxOpened<'_>>(meta)?;
            ClientReply::InboxOpened { inbox: InboxId(m.inbox()), acked_upto: InboxSeq(m.acked_upto()) }
        }
        Kind::ReplyHead => take_head(root::<wire::Head<'_>>(meta)?),
        Kind::ReplyChunk => {
            let m = root::<wire::Chunk<'_>>(meta)?;
            let (inbox, seq) = m.place().into();
            ClientReply::Chunk { inbox, seq, offset: m.offset(), crc32: header.body_crc32() }
        }
        Kind::ReplyAcked => {
            let (inbox, upto) = root::<wire::Acked<'_>>(meta)?.upto().into();
            ClientReply::Acked { inbox, upto }
        }
        Kind::ReplyProbeDone => {
            let m = root::<wire::ProbeDone<'_>>(meta)?;
            ClientReply::ProbeDone { request: RequestId(m.request()), index: LogIndex(m.index()) }
        }
        Kind::ReplyStatus => {
            let m = root::<wire::Status<'_>>(meta)?;
            let status = Box::new(take_status(m.status())?);
            ClientReply::Status { request: RequestId(m.request()), status }
        }
        Kind::ReplyPong => root::<wire::Pong<'_>>(meta).map(|_| ClientReply::Pong)?,
        Kind::ReplyRingChanged => {
            ClientReply::RingChanged { ring: take_ring(root::<wire::RingChanged<'_>>(meta)?.ring())? }
        }
        Kind::ReplyFailure => {
            let m = root::<wire::Failure<'_>>(meta)?;
            ClientReply::Failure {
                request: m.request().map(RequestId),
                refusal: take_refusal(m.refusal())?,
                text: take_text(m.text()),
                ring: m.ring().map(take_ring).transpose()?,
            }
        }
        kind => return Err(DecodeError::KindUnexpected { kind }),
    };
    Ok(reply)
}

fn take_welcome(m: wire::Welcome<'_>) -> Result<ClientReply, DecodeError> {
    let address = Address::from(m.address());
    Ok(ClientReply::Welcome {
        version: m.version(),
        cluster: m.cluster().into(),
        node: address.node,
        core: address.core,
        ring: take_ring(m.ring())?,
        image_bytes_max: m.image_bytes_max(),
        credit: m.credit(),
    })
}

fn take_head(m: wire::Head<'_>) -> ClientReply {
    let (inbox, seq) = m.place().into();
    ClientReply::Head(ImageHead {
        inbox,
        seq,
        image: m.image().into(),
        fingerprint: m.fingerprint().into(),
        sender: m.sender().to_owned(),
        name: m.name().to_owned(),
        index: LogIndex(m.index()),
        is_damaged: m.damaged(),
    })
}

fn take_status(m: wire::NodeStatus<'_>) -> Result<NodeStatus, DecodeError> {
    Ok(NodeStatus {
        node: NodeId(m.node()),
        incarnation: Incarnation(m.incarnation()),
        cluster: m.cluster().into(),
        role: match m.role() {
            0 => RoleKind::Follower,
            1 => RoleKind::Candidate,
            2 => RoleKind::Leader,
            code => return Err(DecodeError::CodeUnknown { field: "role", code: code.into() }),
        },
        term: Term(m.term()),
        leader: NodeId(m.leader()),
        last: LogIndex(m.last()),
        committed: LogIndex(m.committed()),
        applied: LogIndex(m.applied()),
        ring: take_ring(m.ring())?,
        clients: m.clients(),
        sessions: m.sessions(),
        undelivered: m.undelivered(),
        intents: m.intents(),
        log_segments: m.log_segments(),
        log_bytes: m.log_bytes(),
        cores: m.cores().iter().map(CoreStatus::from).collect(),
        healing: m.healing(),
        snapshot_index: LogIndex(m.snapshot_index()),
        snapshot_bytes: m.snapshot_bytes(),
        snapshot_under_way: m.snapshot_under_way(),
        log_rotten: m.log_rotten(),
    })
}

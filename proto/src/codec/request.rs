//! What clients say.

use flatbuffers::{UnionWIPOffset, WIPOffset};

use super::parts::{put_bytes, put_names, take_bytes, take_names};
use super::{DecodeError, Encoder, body_of, check_meta, root};
use crate::client::{Begin, ChunkHead, ClientRequest, Target};
use crate::frame::{BodyHead, FrameHeader, Kind};
use crate::generated::request as wire;
use crate::ids::{CoreId, InboxId, InboxSeq, RequestId, Sequence};

/// Appends header and meta of the frame for `request` to `out`. `body_bytes` is the length of the body that the caller
/// sends behind them: 1 to `FRAME_BODY_BYTES_MAX` for a chunk, else 0.
pub fn encode_client_request(encoder: &mut Encoder, request: &ClientRequest, body_bytes: usize, out: &mut Vec<u8>) {
    debug_assert_eq!(request.check(), Ok(()), "{request:?}");
    write(encoder, request, body_bytes, out);
}

/// As `encode_client_request`, whatever the request is.
pub(super) fn write(encoder: &mut Encoder, request: &ClientRequest, body_bytes: usize, out: &mut Vec<u8>) {
    let body = match request {
        ClientRequest::Chunk(head) => body_of(body_bytes, head.crc32),
        _ => BodyHead { bytes: body_bytes, crc32: 0 },
    };
    encoder.start();
    let root = put(encoder, request);
    encoder.finish_frame(root, body, Default::default(), out);
}

fn put(encoder: &mut Encoder, request: &ClientRequest) -> (Kind, WIPOffset<UnionWIPOffset>) {
    let b = &mut encoder.builder;
    match request {
        ClientRequest::Hello { version_min, version_max, cluster, target, credentials } => {
            let (target_core, target_client) = match target {
                Target::Any => (None, None),
                Target::Core(core) => (Some(core.0), None),
                Target::Client(name) => (None, Some(b.create_string(name))),
            };
            let credentials = put_bytes(b, credentials);
            let args = wire::HelloArgs {
                version_min: *version_min,
                version_max: *version_max,
                cluster: Some(&(*cluster).into()),
                target_core,
                target_client,
                credentials: Some(credentials),
            };
            (Kind::RequestHello, wire::Hello::create(b, &args).as_union_value())
        }
        ClientRequest::Register { request, name } => {
            let name = Some(b.create_string(name));
            let root = wire::Register::create(b, &wire::RegisterArgs { request: request.0, name });
            (Kind::RequestRegister, root.as_union_value())
        }
        ClientRequest::OpenSession { request, sender } => {
            let sender = Some(b.create_string(sender));
            let root = wire::OpenSession::create(b, &wire::OpenSessionArgs { request: request.0, sender });
            (Kind::RequestOpenSession, root.as_union_value())
        }
        ClientRequest::Begin(begin) => (Kind::RequestBegin, put_begin(encoder, begin)),
        ClientRequest::Chunk(head) => {
            let args = wire::ChunkArgs { image: Some(&head.image.into()), offset: head.offset };
            (Kind::RequestChunk, wire::Chunk::create(b, &args).as_union_value())
        }
        ClientRequest::OpenInbox { name, credit, resume_seq, resume_from } => {
            let name = Some(b.create_string(name));
            let args =
                wire::OpenInboxArgs { name, credit: *credit, resume_seq: resume_seq.0, resume_from: *resume_from };
            let root = wire::OpenInbox::create(b, &args);
            (Kind::RequestOpenInbox, root.as_union_value())
        }
        ClientRequest::InboxCredit { credit } => {
            let root = wire::InboxCredit::create(b, &wire::InboxCreditArgs { credit: *credit });
            (Kind::RequestInboxCredit, root.as_union_value())
        }
        ClientRequest::Ack { inbox, upto } => {
            let root = wire::Ack::create(b, &wire::AckArgs { upto: Some(&(*inbox, *upto).into()) });
            (Kind::RequestAck, root.as_union_value())
        }
        ClientRequest::Probe { request, payload } => {
            let payload = Some(put_bytes(b, payload));
            let root = wire::Probe::create(b, &wire::ProbeArgs { request: request.0, payload });
            (Kind::RequestProbe, root.as_union_value())
        }
        ClientRequest::Status { request } => {
            let root = wire::Status::create(b, &wire::StatusArgs { request: request.0 });
            (Kind::RequestStatus, root.as_union_value())
        }
        ClientRequest::Ping => (Kind::RequestPing, wire::Ping::create(b, &wire::PingArgs {}).as_union_value()),
    }
}

fn put_begin(encoder: &mut Encoder, begin: &Begin) -> WIPOffset<UnionWIPOffset> {
    let b = &mut encoder.builder;
    let receivers = put_names(b, &mut encoder.offsets, &begin.receivers);
    let name = b.create_string(&begin.name);
    let args = wire::BeginArgs {
        cluster: Some(&begin.cluster.into()),
        image: Some(&begin.image.into()),
        low_water: begin.low_water.0,
        receivers: Some(receivers),
        fingerprint: Some(&begin.fingerprint.into()),
        name: Some(name),
    };
    wire::Begin::create(b, &args).as_union_value()
}

/// The request in a frame with `header` and `meta`.
pub fn decode_client_request(header: &FrameHeader, meta: &[u8]) -> Result<ClientRequest, DecodeError> {
    check_meta(header, meta)?;
    let request = take(header, meta)?;
    request.check()?;
    Ok(request)
}

fn take(header: &FrameHeader, meta: &[u8]) -> Result<ClientRequest, DecodeError> {
    let request = match header.kind() {
        Kind::RequestHello => take_hello(root::<wire::Hello<'_>>(meta)?)?,
        Kind::RequestRegister => {
            let m = root::<wire::Register<'_>>(meta)?;
            ClientRequest::Register { request: RequestId(m.request()), name: m.name().to_owned() }
        }
        Kind::RequestOpenSession => {
            let m = root::<wire::OpenSession<'_>>(meta)?;
            ClientRequest::OpenSession { request: RequestId(m.request()), sender: m.sender().to_owned() }
        }
        Kind::RequestBegin => {
            let m = root::<wire::Begin<'_>>(meta)?;
            ClientRequest::Begin(Begin {
                cluster: m.cluster().into(),
                image: m.image().into(),
                low_water: Sequence(m.low_water()),
                receivers: take_names(m.receivers()),
                fingerprint: m.fingerprint().into(),
                name: m.name().to_owned(),
            })
        }
        Kind::RequestChunk => {
            let m = root::<wire::Chunk<'_>>(meta)?;
            let (image, offset) = (m.image().into(), m.offset());
            ClientRequest::Chunk(ChunkHead { image, offset, crc32: header.body_crc32() })
        }
        Kind::RequestOpenInbox => {
            let m = root::<wire::OpenInbox<'_>>(meta)?;
            ClientRequest::OpenInbox {
                name: m.name().to_owned(),
                credit: m.credit(),
                resume_seq: InboxSeq(m.resume_seq()),
                resume_from: m.resume_from(),
            }
        }
        Kind::RequestInboxCredit => {
            ClientRequest::InboxCredit { credit: root::<wire::InboxCredit<'_>>(meta)?.credit() }
        }
        Kind::RequestAck => {
            let (inbox, upto): (InboxId, InboxSeq) = root::<wire::Ack<'_>>(meta)?.upto().into();
            ClientRequest::Ack { inbox, upto }
        }
        Kind::RequestProbe => {
            let m = root::<wire::Probe<'_>>(meta)?;
            ClientRequest::Probe { request: RequestId(m.request()), payload: take_bytes(m.payload()) }
        }
        Kind::RequestStatus => ClientRequest::Status { request: RequestId(root::<wire::Status<'_>>(meta)?.request()) },
        Kind::RequestPing => root::<wire::Ping<'_>>(meta).map(|_| ClientRequest::Ping)?,
        kind => return Err(DecodeError::KindUnexpected { kind }),
    };
    Ok(request)
}

fn take_hello(m: wire::Hello<'_>) -> Result<ClientRequest, DecodeError> {
    let target = match (m.target_core(), m.target_client()) {
        (None, None) => Target::Any,
        (Some(core), None) => Target::Core(CoreId(core)),
        (None, Some(name)) => Target::Client(name.to_owned()),
        (Some(_), Some(_)) => return Err(DecodeError::Contradiction { field: "target" }),
    };
    Ok(ClientRequest::Hello {
        version_min: m.version_min(),
        version_max: m.version_max(),
        cluster: m.cluster().into(),
        target,
        credentials: take_bytes(m.credentials()),
    })
}

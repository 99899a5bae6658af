//! The payload of a log entry.
//!
//! A `Ready` record with one receiver, two holders and a file name of 20 bytes has 192 bytes.

use flatbuffers::{UnionWIPOffset, WIPOffset};

use super::parts::{
    put_bytes, put_holders, put_indexes, put_members, put_places, take_bytes, take_holders, take_indexes, take_members,
    take_places,
};
use super::{DecodeError, Encoder, root};
use crate::generated::record as wire;
use crate::ids::{InboxId, Incarnation, NodeId, Sequence};
use crate::record::{Lost, Ready, Record, RecordBody};

/// The bytes of `record`.
///
/// # Panics
///
/// If the record breaks a rule: once it is in the log every node would have to refuse it.
pub fn encode_record(record: &Record) -> Vec<u8> {
    encode_record_with(&mut Encoder::new(), record).to_vec()
}

/// As `encode_record`, in the memory of `encoder`; the bytes are there until it is used again.
pub fn encode_record_with<'e>(encoder: &'e mut Encoder, record: &Record) -> &'e [u8] {
    if let Err(error) = record.check() {
        panic!("{error} in {record:?}");
    }
    write(encoder, record)
}

/// As `encode_record_with`, whatever the record is.
pub(super) fn write<'e>(encoder: &'e mut Encoder, record: &Record) -> &'e [u8] {
    encoder.start();
    let (body_type, body) = put(encoder, &record.body);
    let args = wire::RecordArgs { time_ms: record.time_ms, body_type, body: Some(body) };
    let root = wire::Record::create(&mut encoder.builder, &args);
    encoder.finish(root)
}

fn put(encoder: &mut Encoder, body: &RecordBody) -> (wire::RecordBody, WIPOffset<UnionWIPOffset>) {
    let b = &mut encoder.builder;
    match body {
        RecordBody::Genesis { cluster, members, copies, image_bytes_max } => {
            let members = put_members(b, &mut encoder.offsets, members);
            let args = wire::GenesisArgs {
                cluster: Some(&(*cluster).into()),
                members: Some(members),
                copies: *copies,
                image_bytes_max: *image_bytes_max,
            };
            (wire::RecordBody::Genesis, wire::Genesis::create(b, &args).as_union_value())
        }
        RecordBody::Register { name } => {
            let name = Some(b.create_string(name));
            let body = wire::Register::create(b, &wire::RegisterArgs { name });
            (wire::RecordBody::Register, body.as_union_value())
        }
        RecordBody::OpenSession { sender } => {
            let sender = Some(b.create_string(sender));
            let body = wire::OpenSession::create(b, &wire::OpenSessionArgs { sender });
            (wire::RecordBody::OpenSession, body.as_union_value())
        }
        RecordBody::Ready(ready) => (wire::RecordBody::Ready, put_ready(encoder, ready)),
        RecordBody::Acked { upto } => {
            let upto = Some(put_places(b, upto));
            (wire::RecordBody::Acked, wire::Acked::create(b, &wire::AckedArgs { upto }).as_union_value())
        }
        RecordBody::RingChange { node, incarnation, cores, up, client_address, peer_address, rejoin } => {
            let client_address = b.create_string(client_address);
            let peer_address = b.create_string(peer_address);
            let rejoin = rejoin.map(Into::into);
            let args = wire::RingChangeArgs {
                node: node.0,
                incarnation: incarnation.0,
                cores: *cores,
                up: *up,
                client_address: Some(client_address),
                peer_address: Some(peer_address),
                rejoin: rejoin.as_ref(),
            };
            (wire::RecordBody::RingChange, wire::RingChange::create(b, &args).as_union_value())
        }
        RecordBody::ExpireSessions { idle_since_ms } => {
            let args = wire::ExpireSessionsArgs { idle_since_ms: *idle_since_ms };
            (wire::RecordBody::ExpireSessions, wire::ExpireSessions::create(b, &args).as_union_value())
        }
        RecordBody::Probe { payload } => {
            let payload = Some(put_bytes(b, payload));
            (wire::RecordBody::Probe, wire::Probe::create(b, &wire::ProbeArgs { payload }).as_union_value())
        }
        RecordBody::Lost(lost) => {
            let records = Some(put_indexes(b, &lost.records));
            let args = wire::LostArgs { holder: Some(&lost.holder.into()), records };
            (wire::RecordBody::Lost, wire::Lost::create(b, &args).as_union_value())
        }
    }
}

fn put_ready(encoder: &mut Encoder, ready: &Ready) -> WIPOffset<UnionWIPOffset> {
    let b = &mut encoder.builder;
    // The lists first: behind a string of odd length each would need padding.
    let receivers = b.create_vector_from_iter(ready.receivers.iter().map(|inbox| inbox.0));
    let holders = put_holders(b, &ready.holders);
    let name = b.create_string(&ready.name);
    let args = wire::ReadyArgs {
        image: Some(&ready.image.into()),
        low_water: ready.low_water.0,
        fingerprint: Some(&ready.fingerprint.into()),
        name: Some(name),
        receivers: Some(receivers),
        holders: Some(holders),
    };
    wire::Ready::create(b, &args).as_union_value()
}

/// The record in `bytes`.
pub fn decode_record(bytes: &[u8]) -> Result<Record, DecodeError> {
    let m = root::<wire::Record<'_>>(bytes)?;
    let record = Record { time_ms: m.time_ms(), body: take(m)? };
    record.check()?;
    Ok(record)
}

fn take(m: wire::Record<'_>) -> Result<RecordBody, DecodeError> {
    let unknown = DecodeError::CodeUnknown { field: "body", code: m.body_type().0.into() };
    let body = match m.body_type() {
        wire::RecordBody::Genesis => {
            let body = m.body_as_genesis().ok_or(unknown)?;
            RecordBody::Genesis {
                cluster: body.cluster().into(),
                members: take_members(body.members()),
                copies: body.copies(),
                image_bytes_max: body.image_bytes_max(),
            }
        }
        wire::RecordBody::Register => {
            RecordBody::Register { name: m.body_as_register().ok_or(unknown)?.name().to_owned() }
        }
        wire::RecordBody::OpenSession => {
            RecordBody::OpenSession { sender: m.body_as_open_session().ok_or(unknown)?.sender().to_owned() }
        }
        wire::RecordBody::Ready => {
            let body = m.body_as_ready().ok_or(unknown)?;
            RecordBody::Ready(Ready {
                image: body.image().into(),
                low_water: Sequence(body.low_water()),
                fingerprint: body.fingerprint().into(),
                name: body.name().to_owned(),
                receivers: body.receivers().iter().map(InboxId).collect(),
                holders: take_holders(body.holders()),
            })
        }
        wire::RecordBody::Acked => RecordBody::Acked { upto: take_places(m.body_as_acked().ok_or(unknown)?.upto()) },
        wire::RecordBody::RingChange => {
            let body = m.body_as_ring_change().ok_or(unknown)?;
            RecordBody::RingChange {
                node: NodeId(body.node()),
                incarnation: Incarnation(body.incarnation()),
                cores: body.cores(),
                up: body.up(),
                client_address: body.client_address().to_owned(),
                peer_address: body.peer_address().to_owned(),
                rejoin: body.rejoin().map(Into::into),
            }
        }
        wire::RecordBody::ExpireSessions => {
            let idle_since_ms = m.body_as_expire_sessions().ok_or(unknown)?.idle_since_ms();
            RecordBody::ExpireSessions { idle_since_ms }
        }
        wire::RecordBody::Probe => {
            RecordBody::Probe { payload: take_bytes(m.body_as_probe().ok_or(unknown)?.payload()) }
        }
        wire::RecordBody::Lost => {
            let body = m.body_as_lost().ok_or(unknown)?;
            RecordBody::Lost(Lost { holder: body.holder().into(), records: take_indexes(body.records()) })
        }
        _ => return Err(unknown),
    };
    Ok(body)
}

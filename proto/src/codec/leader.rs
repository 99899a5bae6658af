//! What is asked of the leader and what it answers: the bodies of the peer messages `Request` and `Answer`.

use flatbuffers::{ForwardsUOffset, UnionWIPOffset, Vector, WIPOffset};

use super::parts::{
    put_bytes, put_holders, put_indexes, put_names, put_places, put_text, take_bytes, take_holders, take_indexes,
    take_names, take_places, take_refusal, take_text,
};
use super::{Builder, DecodeError, Encoder};
use crate::generated::{answer, ask, peer};
use crate::ids::{InboxId, Incarnation, LogIndex, NodeId, Sequence};
use crate::peer::{LeaderAnswer, LeaderRequest, Notice, ReadyReceiver};
use crate::record::Lost;

type Body = WIPOffset<UnionWIPOffset>;
type ReadyList<'a> = Vector<'a, ForwardsUOffset<answer::ReadyReceiver<'a>>>;

pub(super) fn put_leader_request(encoder: &mut Encoder, request: &LeaderRequest) -> (ask::LeaderRequest, Body) {
    let b = &mut encoder.builder;
    match request {
        LeaderRequest::Register { name } => {
            let name = Some(b.create_string(name));
            let body = ask::Register::create(b, &ask::RegisterArgs { name });
            (ask::LeaderRequest::Register, body.as_union_value())
        }
        LeaderRequest::OpenSession { sender } => {
            let sender = Some(b.create_string(sender));
            let body = ask::OpenSession::create(b, &ask::OpenSessionArgs { sender });
            (ask::LeaderRequest::OpenSession, body.as_union_value())
        }
        LeaderRequest::Intent { image, low_water, fingerprint, receivers } => {
            let receivers = put_names(b, &mut encoder.offsets, receivers);
            let args = ask::IntentArgs {
                image: Some(&(*image).into()),
                low_water: low_water.0,
                fingerprint: Some(&(*fingerprint).into()),
                receivers: Some(receivers),
            };
            (ask::LeaderRequest::Intent, ask::Intent::create(b, &args).as_union_value())
        }
        LeaderRequest::Notice(notice) => (ask::LeaderRequest::Notice, put_notice(encoder, notice)),
        LeaderRequest::Ack { upto } => {
            let upto = Some(put_places(b, upto));
            (ask::LeaderRequest::Ack, ask::Ack::create(b, &ask::AckArgs { upto }).as_union_value())
        }
        LeaderRequest::Probe { payload } => {
            let payload = Some(put_bytes(b, payload));
            (ask::LeaderRequest::Probe, ask::Probe::create(b, &ask::ProbeArgs { payload }).as_union_value())
        }
        LeaderRequest::Return { node, incarnation, cores, client_address, peer_address, applied } => {
            let client_address = b.create_string(client_address);
            let peer_address = b.create_string(peer_address);
            let args = ask::ReturnArgs {
                node: node.0,
                incarnation: incarnation.0,
                cores: *cores,
                client_address: Some(client_address),
                peer_address: Some(peer_address),
                applied: applied.0,
            };
            (ask::LeaderRequest::Return, ask::Return::create(b, &args).as_union_value())
        }
        LeaderRequest::Unreachable { node } => {
            let body = ask::Unreachable::create(b, &ask::UnreachableArgs { node: node.0 });
            (ask::LeaderRequest::Unreachable, body.as_union_value())
        }
        LeaderRequest::Lost(lost) => {
            let records = Some(put_indexes(b, &lost.records));
            let args = ask::LostArgs { holder: Some(&lost.holder.into()), records };
            (ask::LeaderRequest::Lost, ask::Lost::create(b, &args).as_union_value())
        }
    }
}

fn put_notice(encoder: &mut Encoder, notice: &Notice) -> Body {
    let b = &mut encoder.builder;
    let name = b.create_string(&notice.name);
    let receivers = put_names(b, &mut encoder.offsets, &notice.receivers);
    let holders = put_holders(b, &notice.holders);
    let args = ask::NoticeArgs {
        image: Some(&notice.image.into()),
        low_water: notice.low_water.0,
        fingerprint: Some(&notice.fingerprint.into()),
        name: Some(name),
        receivers: Some(receivers),
        holders: Some(holders),
    };
    ask::Notice::create(b, &args).as_union_value()
}

pub(super) fn take_leader_request(m: peer::Request<'_>) -> Result<LeaderRequest, DecodeError> {
    let unknown = DecodeError::CodeUnknown { field: "body", code: m.body_type().0.into() };
    let request = match m.body_type() {
        ask::LeaderRequest::Register => {
            let body = m.body_as_register().ok_or(unknown)?;
            LeaderRequest::Register { name: body.name().to_owned() }
        }
        ask::LeaderRequest::OpenSession => {
            let body = m.body_as_open_session().ok_or(unknown)?;
            LeaderRequest::OpenSession { sender: body.sender().to_owned() }
        }
        ask::LeaderRequest::Intent => {
            let body = m.body_as_intent().ok_or(unknown)?;
            LeaderRequest::Intent {
                image: body.image().into(),
                low_water: Sequence(body.low_water()),
                fingerprint: body.fingerprint().into(),
                receivers: take_names(body.receivers()),
            }
        }
        ask::LeaderRequest::Notice => {
            let body = m.body_as_notice().ok_or(unknown)?;
            LeaderRequest::Notice(Notice {
                image: body.image().into(),
                low_water: Sequence(body.low_water()),
                fingerprint: body.fingerprint().into(),
                name: body.name().to_owned(),
                receivers: take_names(body.receivers()),
                holders: take_holders(body.holders()),
            })
        }
        ask::LeaderRequest::Ack => LeaderRequest::Ack { upto: take_places(m.body_as_ack().ok_or(unknown)?.upto()) },
        ask::LeaderRequest::Probe => {
            LeaderRequest::Probe { payload: take_bytes(m.body_as_probe().ok_or(unknown)?.payload()) }
        }
        ask::LeaderRequest::Return => {
            let body = m.body_as_return().ok_or(unknown)?;
            LeaderRequest::Return {
                node: NodeId(body.node()),
                incarnation: Incarnation(body.incarnation()),
                cores: body.cores(),
                client_address: body.client_address().to_owned(),
                peer_address: body.peer_address().to_owned(),
                applied: LogIndex(body.applied()),
            }
        }
        ask::LeaderRequest::Unreachable => {
            LeaderRequest::Unreachable { node: NodeId(m.body_as_unreachable().ok_or(unknown)?.node()) }
        }
        ask::LeaderRequest::Lost => {
            let body = m.body_as_lost().ok_or(unknown)?;
            LeaderRequest::Lost(Lost { holder: body.holder().into(), records: take_indexes(body.records()) })
        }
        _ => return Err(unknown),
    };
    Ok(request)
}

pub(super) fn put_leader_answer(encoder: &mut Encoder, answer: &LeaderAnswer) -> (answer::LeaderAnswer, Body) {
    let b = &mut encoder.builder;
    match answer {
        LeaderAnswer::Registered { inbox } => {
            let body = answer::Registered::create(b, &answer::RegisteredArgs { inbox: inbox.0 });
            (answer::LeaderAnswer::Registered, body.as_union_value())
        }
        LeaderAnswer::SessionOpened { session } => {
            let body = answer::SessionOpened::create(b, &answer::SessionOpenedArgs { session: session.0 });
            (answer::LeaderAnswer::SessionOpened, body.as_union_value())
        }
        LeaderAnswer::Admitted { ready } => {
            let ready = Some(put_ready(b, &mut encoder.offsets, ready));
            let body = answer::Admitted::create(b, &answer::AdmittedArgs { ready });
            (answer::LeaderAnswer::Admitted, body.as_union_value())
        }
        LeaderAnswer::Ready { ready } => {
            let ready = Some(put_ready(b, &mut encoder.offsets, ready));
            let body = answer::Ready::create(b, &answer::ReadyArgs { ready });
            (answer::LeaderAnswer::Ready, body.as_union_value())
        }
        LeaderAnswer::TooFewHolders => {
            let body = answer::TooFewHolders::create(b, &answer::TooFewHoldersArgs {});
            (answer::LeaderAnswer::TooFewHolders, body.as_union_value())
        }
        LeaderAnswer::Acked { upto } => {
            let upto = Some(put_places(b, upto));
            (answer::LeaderAnswer::Acked, answer::Acked::create(b, &answer::AckedArgs { upto }).as_union_value())
        }
        LeaderAnswer::Probed { index } => {
            let body = answer::Probed::create(b, &answer::ProbedArgs { index: index.0 });
            (answer::LeaderAnswer::Probed, body.as_union_value())
        }
        LeaderAnswer::Noted => {
            (answer::LeaderAnswer::Noted, answer::Noted::create(b, &answer::NotedArgs {}).as_union_value())
        }
        LeaderAnswer::Refused { refusal, text } => {
            let text = Some(put_text(b, text));
            let body = answer::Refused::create(b, &answer::RefusedArgs { refusal: refusal.code(), text });
            (answer::LeaderAnswer::Refused, body.as_union_value())
        }
    }
}

fn put_ready(builder: &mut Builder, offsets: &mut Vec<u32>, ready: &[ReadyReceiver]) -> WIPOffset<ReadyList<'static>> {
    offsets.clear();
    for receiver in ready {
        let name = Some(builder.create_string(&receiver.name));
        let holders = Some(put_holders(builder, &receiver.holders));
        let args = answer::ReadyReceiverArgs { name, index: receiver.index.0, holders };
        offsets.push(answer::ReadyReceiver::create(builder, &args).value());
    }
    let items = offsets.iter().map(|&offset| WIPOffset::<answer::ReadyReceiver<'static>>::new(offset));
    let list = builder.create_vector_from_iter(items);
    offsets.clear();
    list
}

fn take_ready(ready: ReadyList<'_>) -> Vec<ReadyReceiver> {
    let take = |receiver: answer::ReadyReceiver<'_>| ReadyReceiver {
        name: receiver.name().to_owned(),
        index: LogIndex(receiver.index()),
        holders: take_holders(receiver.holders()),
    };
    ready.iter().map(take).collect()
}

pub(super) fn take_leader_answer(m: peer::Answer<'_>) -> Result<LeaderAnswer, DecodeError> {
    let unknown = DecodeError::CodeUnknown { field: "body", code: m.body_type().0.into() };
    let answer = match m.body_type() {
        answer::LeaderAnswer::Registered => {
            LeaderAnswer::Registered { inbox: InboxId(m.body_as_registered().ok_or(unknown)?.inbox()) }
        }
        answer::LeaderAnswer::SessionOpened => {
            LeaderAnswer::SessionOpened { session: LogIndex(m.body_as_session_opened().ok_or(unknown)?.session()) }
        }
        answer::LeaderAnswer::Admitted => {
            LeaderAnswer::Admitted { ready: take_ready(m.body_as_admitted().ok_or(unknown)?.ready()) }
        }
        answer::LeaderAnswer::Ready => {
            LeaderAnswer::Ready { ready: take_ready(m.body_as_ready().ok_or(unknown)?.ready()) }
        }
        answer::LeaderAnswer::TooFewHolders => LeaderAnswer::TooFewHolders,
        answer::LeaderAnswer::Acked => {
            LeaderAnswer::Acked { upto: take_places(m.body_as_acked().ok_or(unknown)?.upto()) }
        }
        answer::LeaderAnswer::Probed => {
            LeaderAnswer::Probed { index: LogIndex(m.body_as_probed().ok_or(unknown)?.index()) }
        }
        answer::LeaderAnswer::Noted => LeaderAnswer::Noted,
        answer::LeaderAnswer::Refused => {
            let body = m.body_as_refused().ok_or(unknown)?;
            LeaderAnswer::Refused { refusal: take_refusal(body.refusal())?, text: take_text(body.text()) }
        }
        _ => return Err(unknown),
    };
    Ok(answer)
}

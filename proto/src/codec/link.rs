//! What the two ends of a link say about the link.

use flatbuffers::WIPOffset;

use super::parts::{put_bytes, put_text, take_bytes, take_refusal, take_text};
use super::{DecodeError, Encoder, check_meta, root};
use crate::frame::{BodyHead, FrameHeader, Kind};
use crate::generated::link as wire;
use crate::ids::Incarnation;
use crate::peer::{Lane, LinkCredit, PeerHello, PeerWelcome};

/// Appends the frame for `hello` to `out`.
pub fn encode_peer_hello(encoder: &mut Encoder, hello: &PeerHello, out: &mut Vec<u8>) {
    debug_assert_eq!(hello.check(), Ok(()), "{hello:?}");
    encoder.start();
    let b = &mut encoder.builder;
    let credentials = put_bytes(b, &hello.credentials);
    let args = wire::HelloArgs {
        version_min: hello.version_min,
        version_max: hello.version_max,
        cluster: Some(&hello.cluster.into()),
        source: Some(&hello.source.into()),
        incarnation: hello.incarnation.0,
        start: hello.start,
        target: Some(&hello.target.into()),
        lane: lane_code(hello.lane),
        credentials: Some(credentials),
    };
    let root = wire::Hello::create(b, &args);
    finish(encoder, Kind::LinkHello, root, out);
}

/// The hello in a frame with `header` and `meta`.
pub fn decode_peer_hello(header: &FrameHeader, meta: &[u8]) -> Result<PeerHello, DecodeError> {
    check_meta(header, meta)?;
    let Kind::LinkHello = header.kind() else { return Err(DecodeError::KindUnexpected { kind: header.kind() }) };
    let m = root::<wire::Hello<'_>>(meta)?;
    let hello = PeerHello {
        version_min: m.version_min(),
        version_max: m.version_max(),
        cluster: m.cluster().into(),
        source: m.source().into(),
        incarnation: Incarnation(m.incarnation()),
        start: m.start(),
        target: m.target().into(),
        lane: take_lane(m.lane())?,
        credentials: take_bytes(m.credentials()),
    };
    hello.check()?;
    Ok(hello)
}

/// Appends the frame for `welcome` to `out`.
pub fn encode_peer_welcome(encoder: &mut Encoder, welcome: &PeerWelcome, out: &mut Vec<u8>) {
    debug_assert_eq!(welcome.check(), Ok(()), "{welcome:?}");
    encoder.start();
    let b = &mut encoder.builder;
    match welcome {
        PeerWelcome::Welcome { version, cluster, credit } => {
            let args = wire::WelcomeArgs { version: *version, cluster: Some(&(*cluster).into()), credit: *credit };
            let root = wire::Welcome::create(b, &args);
            finish(encoder, Kind::LinkWelcome, root, out);
        }
        PeerWelcome::Refused { refusal, text } => {
            let text = Some(put_text(b, text));
            let root = wire::Refused::create(b, &wire::RefusedArgs { refusal: refusal.code(), text });
            finish(encoder, Kind::LinkRefused, root, out);
        }
    }
}

/// The answer to a hello in a frame with `header` and `meta`.
pub fn decode_peer_welcome(header: &FrameHeader, meta: &[u8]) -> Result<PeerWelcome, DecodeError> {
    check_meta(header, meta)?;
    let welcome = match header.kind() {
        Kind::LinkWelcome => {
            let m = root::<wire::Welcome<'_>>(meta)?;
            PeerWelcome::Welcome { version: m.version(), cluster: m.cluster().into(), credit: m.credit() }
        }
        Kind::LinkRefused => {
            let m = root::<wire::Refused<'_>>(meta)?;
            PeerWelcome::Refused { refusal: take_refusal(m.refusal())?, text: take_text(m.text()) }
        }
        kind => return Err(DecodeError::KindUnexpected { kind }),
    };
    welcome.check()?;
    Ok(welcome)
}

/// Appends the frame for `credit` to `out`.
pub fn encode_link_credit(encoder: &mut Encoder, credit: &LinkCredit, out: &mut Vec<u8>) {
    encoder.start();
    let root = wire::Credit::create(&mut encoder.builder, &wire::CreditArgs { credit: credit.credit });
    finish(encoder, Kind::LinkCredit, root, out);
}

/// The credit in a frame with `header` and `meta`.
pub fn decode_link_credit(header: &FrameHeader, meta: &[u8]) -> Result<LinkCredit, DecodeError> {
    check_meta(header, meta)?;
    let Kind::LinkCredit = header.kind() else { return Err(DecodeError::KindUnexpected { kind: header.kind() }) };
    Ok(LinkCredit { credit: root::<wire::Credit<'_>>(meta)?.credit() })
}

fn finish<T>(encoder: &mut Encoder, kind: Kind, root: WIPOffset<T>, out: &mut Vec<u8>) {
    encoder.finish_frame((kind, root), BodyHead::default(), Default::default(), out);
}

fn lane_code(lane: Lane) -> u8 {
    match lane {
        Lane::Control => 0,
        Lane::Home => 1,
        Lane::Holder => 2,
        Lane::Fetch => 3,
    }
}

fn take_lane(code: u8) -> Result<Lane, DecodeError> {
    Lane::ALL.get(usize::from(code)).copied().ok_or(DecodeError::CodeUnknown { field: "lane", code: code.into() })
}

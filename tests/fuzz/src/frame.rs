//! The frame decoder: header and meta of every kind of message.
//!
//! ```text
//! input  0xff, bytes          a frame as it comes from a socket; then once more with right checksums
//!        kind, extra, meta    a meta of that kind under a header with right checksums: what an attacker would send
//! ```
//! Properties: what is decoded keeps the rules and is the same after another round trip; one flipped bit or a missing byte
//! anywhere in a frame is noticed; decoding takes memory in proportion to the input.

use proto::codec::Encoder;
use proto::frame::{FRAME_HEADER_BYTES, FrameHeader, FrameLimits, Kind, KindGroup};
use proto::samples::{BODY_BYTES, Message, SOURCE, TARGET};

use crate::memory;

/// A ring has 128 points of 16 bytes for each member, whose table may have some 40 bytes.
const HEAP_PER_BYTE: usize = 256;
const HEAP_BYTES: usize = 64 << 10;
const RAW: u8 = 0xff;
// Of the header on the wire; see `proto::frame`.
const META_CRC_AT: usize = 16;
const HEADER_CRC_AT: usize = FRAME_HEADER_BYTES - 4;

/// Runs one input.
pub fn check(data: &[u8]) {
    match data {
        [RAW, frame @ ..] => check_raw(frame),
        [kind, extra, meta @ ..] => check_meta(Kind::ALL[usize::from(*kind) % Kind::ALL.len()], *extra, meta),
        _ => {}
    }
}

fn decode(frame: &[u8]) -> Option<Message> {
    memory::within(HEAP_PER_BYTE * frame.len() + HEAP_BYTES, || Message::decode(frame).ok())
}

fn check_raw(frame: &[u8]) {
    let _ = decode(frame);
    let Some(header) = frame.first_chunk::<FRAME_HEADER_BYTES>() else { return };
    let mut header = *header;
    seal(&mut header);
    for limits in [FrameLimits::HANDSHAKE, FrameLimits::CLIENT_REQUEST, FrameLimits::CLIENT_REPLY, FrameLimits::PEER] {
        let Ok(parsed) = FrameHeader::parse(&header, limits) else { continue };
        assert!(parsed.meta_bytes() <= limits.meta_bytes_max && parsed.body_bytes() <= limits.body_bytes_max);
        assert_eq!(parsed.body_bytes() > 0, parsed.kind().has_body(), "{parsed:?}");
        assert_eq!(parsed.target().node.0 > 0, parsed.kind().group() == KindGroup::Peer, "{parsed:?}");
    }
    let meta = &frame[FRAME_HEADER_BYTES..];
    header[8..12].copy_from_slice(&(meta.len() as u32).to_le_bytes());
    header[META_CRC_AT..META_CRC_AT + 4].copy_from_slice(&crc32fast::hash(meta).to_le_bytes());
    seal(&mut header);
    if let Some(message) = decode(&[&header[..], meta].concat()) {
        check_message(&message, 0);
    }
}

fn check_meta(kind: Kind, extra: u8, meta: &[u8]) {
    let frame = [&header_for(kind, u32::from(extra), meta)[..], meta].concat();
    if let Some(message) = decode(&frame) {
        assert_eq!(check_message(&message, usize::from(extra)), kind);
    }
}

/// The message survives another round trip, and its frame no damage.
fn check_message(message: &Message, extra: usize) -> Kind {
    let mut encoder = Encoder::new();
    let mut frame = message.encode(&mut encoder);
    assert_eq!(frame, message.encode(&mut encoder), "memory used again");
    assert_eq!(decode(&frame).as_ref(), Some(message));
    let header = frame.first_chunk().and_then(|header| FrameHeader::parse(header, FrameLimits::PEER).ok());
    let header = header.expect("it was decoded a line above");
    assert!(decode(&frame[..frame.len() - 1 - extra % frame.len()]).is_none(), "a cut frame was taken");
    for bit in [extra, extra * 37, frame.len() * 8 - 1 - extra] {
        let bit = bit % (frame.len() * 8);
        frame[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&frame).is_none(), "bit {bit} flipped and taken");
        frame[bit / 8] ^= 1 << (bit % 8);
    }
    header.kind()
}

/// A right header for that meta, whatever the meta is.
fn header_for(kind: Kind, body_crc32: u32, meta: &[u8]) -> [u8; FRAME_HEADER_BYTES] {
    let mut header = [0; FRAME_HEADER_BYTES];
    header[..4].copy_from_slice(b"HELI");
    header[4..6].copy_from_slice(&proto::frame::FRAME_VERSION.to_le_bytes());
    header[6..8].copy_from_slice(&kind.code().to_le_bytes());
    header[8..12].copy_from_slice(&(meta.len() as u32).to_le_bytes());
    header[META_CRC_AT..META_CRC_AT + 4].copy_from_slice(&crc32fast::hash(meta).to_le_bytes());
    if kind.has_body() {
        header[12..16].copy_from_slice(&(BODY_BYTES as u32).to_le_bytes());
        header[20..24].copy_from_slice(&body_crc32.to_le_bytes());
    }
    if kind.group() == KindGroup::Peer {
        header[24..32].copy_from_slice(&SOURCE.node.0.to_le_bytes());
        header[32..40].copy_from_slice(&TARGET.node.0.to_le_bytes());
        header[40..42].copy_from_slice(&SOURCE.core.0.to_le_bytes());
        header[42..44].copy_from_slice(&TARGET.core.0.to_le_bytes());
    }
    seal(&mut header);
    header
}

/// Puts the header's checksum right.
fn seal(header: &mut [u8; FRAME_HEADER_BYTES]) {
    let crc = crc32fast::hash(&header[..HEADER_CRC_AT]);
    header[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
}

/// Each sample message as a meta, and some frames as they come.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut encoder = Encoder::new();
    let frames: Vec<Vec<u8>> = Message::samples().iter().map(|message| message.encode(&mut encoder)).collect();
    let metas = frames.iter().map(|frame| {
        let (header, meta) = frame.split_first_chunk().expect("a frame has a header");
        let header = FrameHeader::parse(header, FrameLimits::PEER).expect("of our own making");
        let kind = Kind::ALL.iter().position(|kind| *kind == header.kind()).expect("all kinds are there");
        [&[kind as u8, 7], meta].concat()
    });
    let raw = frames.iter().step_by(9).map(|frame| [&[RAW], &frame[..]].concat());
    metas.chain(raw).collect()
}

use super::{BodyHead, CHECKED_BYTES, FRAME_HEADER_BYTES, FrameHeader, FrameLimits, Kind, KindGroup};
use crate::checksum::crc32;
use crate::ids::{Address, CoreId, NodeId};
use crate::limits::FRAME_BODY_BYTES_MAX;

const SOURCE: Address = Address { node: NodeId(1), core: CoreId(2) };
const TARGET: Address = Address { node: NodeId(3), core: CoreId(4) };
const NOBODY: Address = Address { node: NodeId(0), core: CoreId(0) };
const LIMITS: FrameLimits = FrameLimits { meta_bytes_max: 100, body_bytes_max: 1000 };

fn chunk_header() -> [u8; FRAME_HEADER_BYTES] {
    let body = BodyHead { bytes: 5, crc32: crc32(b"bytes") };
    FrameHeader::new(Kind::PeerUploadChunk, b"meta", body, SOURCE, TARGET).to_bytes()
}

fn ping_header() -> [u8; FRAME_HEADER_BYTES] {
    FrameHeader::new(Kind::RequestPing, b"", BodyHead::default(), NOBODY, NOBODY).to_bytes()
}

/// Changes `header` by `change`, gives it a right checksum again, and expects the verdict of the parser.
fn check(mut header: [u8; FRAME_HEADER_BYTES], change: impl FnOnce(&mut [u8]), expected: &str) {
    change(&mut header);
    let crc = crc32(&header[..CHECKED_BYTES]);
    header[CHECKED_BYTES..].copy_from_slice(&crc.to_le_bytes());
    let found = FrameHeader::parse(&header, LIMITS).map_or_else(|error| error.to_string(), |_| "ok".to_owned());
    assert_eq!(found, expected);
}

#[test]
fn header_says_what_was_written() {
    let header = FrameHeader::parse(&chunk_header(), LIMITS).expect("a header");
    assert_eq!(header.kind(), Kind::PeerUploadChunk);
    assert_eq!((header.meta_bytes(), header.meta_crc32()), (4, crc32(b"meta")));
    assert_eq!((header.body_bytes(), header.body_crc32()), (5, crc32(b"bytes")));
    assert_eq!((header.source(), header.target()), (SOURCE, TARGET));
    assert_eq!(header.to_bytes(), chunk_header());
}

#[test]
fn layout_of_the_header_is_pinned() {
    let hex: String = chunk_header().iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [
        "48454c49", // magic
        "0100",     // version
        "0704",     // kind
        "04000000", // bytes of meta
        "05000000", // bytes of body
        "LLLLLLLL", // CRC-32 of the meta
        "LLLLLLLL", // CRC-32 of the body
        "0100000000000000",
        "0300000000000000",
        "0200",
        "0400",
        "00000000000000000000000000000000",
        "LLLLLLLL", // CRC-32 of the header
    ];
    let mut position = 0;
    for part in parts {
        let found = &hex[position..position + part.len()];
        assert!(part.starts_with('L') || found == part, "{found} instead of {part} at byte {}", position / 2);
        position += part.len();
    }
    assert_eq!(position, hex.len());
    // What CRC-32 makes of any bytes with their own checksum behind them.
    assert_eq!(crc32(&chunk_header()), 0x2144_df1c);
}

#[test]
fn header_with_any_bit_flipped_is_refused() {
    for header in [chunk_header(), ping_header()] {
        for bit in 0..FRAME_HEADER_BYTES * 8 {
            let mut flipped = header;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(FrameHeader::parse(&flipped, LIMITS).is_err(), "bit {bit}");
        }
    }
}

#[test]
fn foreign_and_broken_headers_are_told_apart() {
    check(chunk_header(), |_| (), "ok");
    check(chunk_header(), |h| h[..4].copy_from_slice(b"GET "), "not a Heliograph frame: begins with [47, 45, 54, 20]");
    check(chunk_header(), |h| h[4] = 2, "frame header version 2, this build knows 1");
    check(chunk_header(), |h| h[44] = 1, "reserved bytes of the frame header are not zero");
    check(chunk_header(), |h| h[59] = 1, "reserved bytes of the frame header are not zero");
    check(chunk_header(), |h| h[6..8].copy_from_slice(&[0xff, 4]), "unknown frame kind 0x04ff");
    check(chunk_header(), |h| h[6..8].copy_from_slice(&[0, 0]), "unknown frame kind 0x0000");
    let mut torn = chunk_header();
    torn[63] ^= 0x80;
    let error = FrameHeader::parse(&torn, LIMITS).expect_err("a wrong checksum").to_string();
    assert!(error.starts_with("frame header checksum"), "{error}");
}

#[test]
fn lengths_are_bounded_before_anything_is_read() {
    check(chunk_header(), |h| h[8] = 100, "ok");
    check(chunk_header(), |h| h[8] = 101, "PeerUploadChunk frame with 101 bytes of meta, at most 100");
    check(chunk_header(), |h| h[11] = 0xff, "PeerUploadChunk frame with 4278190084 bytes of meta, at most 100");
    let set_body = |bytes: u32| move |h: &mut [u8]| h[12..16].copy_from_slice(&bytes.to_le_bytes());
    check(chunk_header(), set_body(1000), "ok");
    check(chunk_header(), set_body(1001), "PeerUploadChunk frame with 1001 bytes of body, expected 1 to 1000");
    check(chunk_header(), set_body(0), "PeerUploadChunk frame with 0 bytes of body, expected 1 to 1000");
    check(ping_header(), set_body(1), "RequestPing frame with 1 bytes of body, expected 0 to 0");
    check(ping_header(), |h| h[20] = 1, "RequestPing frame without body has a body checksum");
}

#[test]
fn peer_messages_and_nothing_else_have_source_and_target() {
    check(chunk_header(), |h| h[24] = 0, "PeerUploadChunk frame from n0c2 to n3c4");
    check(chunk_header(), |h| h[32] = 0, "PeerUploadChunk frame from n1c2 to n0c4");
    check(chunk_header(), |h| h[41] = 1, "PeerUploadChunk frame from n1c258 to n3c4");
    check(ping_header(), |h| h[24] = 1, "RequestPing frame from n1c0 to n0c0");
    check(ping_header(), |h| h[42] = 1, "RequestPing frame from n0c0 to n0c1");
}

#[test]
fn changed_body_is_seen() {
    let header = FrameHeader::parse(&chunk_header(), LIMITS).expect("a header");
    assert_eq!(header.check_body(b"bytes"), Ok(()));
    for other in [b"bytez".as_slice(), b"byte", b""] {
        assert!(header.check_body(other).is_err(), "{other:?}");
    }
}

#[test]
fn numbers_of_kinds_are_distinct_and_lead_back() {
    for (position, &kind) in Kind::ALL.iter().enumerate() {
        assert_eq!(Kind::from_code(kind.code()), Some(kind));
        assert!(!Kind::ALL[..position].contains(&kind));
        let group = match kind.code() >> 8 {
            1 => KindGroup::ClientRequest,
            2 => KindGroup::ClientReply,
            3 => KindGroup::Link,
            4 => KindGroup::Peer,
            other => panic!("{kind:?} is in group {other}"),
        };
        assert_eq!(kind.group(), group);
    }
    let known = (0..=u16::MAX).filter(|&code| Kind::from_code(code).is_some()).count();
    assert_eq!(known, Kind::ALL.len());
}

#[test]
#[should_panic(expected = "PeerUploadChunk with 1048577 bytes of body")]
fn too_large_body_is_our_own_mistake() {
    let body = BodyHead { bytes: FRAME_BODY_BYTES_MAX + 1, crc32: 0 };
    FrameHeader::new(Kind::PeerUploadChunk, b"", body, SOURCE, TARGET);
}

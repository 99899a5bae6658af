//! Frames with bodies: whole, in order, in their buffers, not copied.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

use futures_lite::future;
use glommio::io::DmaBuffer;
use link::{
    BufferSource, Connection, ConnectionEnd, FreshBuffers, OutBody, Outbox, OutboxLimits, ReadError, ReadStats,
};
use proto::checksum::{crc32, crc64};
use proto::client::ClientRequest;
use proto::codec::decode_client_request;
use proto::frame::FrameLimits;
use proto::limits::{CHUNK_BYTES_MAX, CHUNK_HEADER_BYTES};

use crate::support::{body, chunk, encode, ends, payload, run};

const CHUNK: u64 = CHUNK_BYTES_MAX as u64;

/// Every border on the way: sector, block, read-ahead, piece, chunk.
const SIZES: [usize; 19] = [
    1,
    2,
    191,
    511,
    512,
    513,
    3_583,
    3_584,
    3_585,
    4_096,
    65_535,
    65_536,
    65_537,
    262_143,
    262_144,
    262_145,
    CHUNK_BYTES_MAX - 1,
    CHUNK_BYTES_MAX,
    3,
];

fn send(outbox: &Outbox, request: &ClientRequest, body: Option<OutBody>) {
    let bytes = body.as_ref().map_or(0, |body| body.length() as usize);
    let sent = outbox.try_send(body, |out| out.extend_from_slice(&encode(request, bytes)));
    assert_eq!(sent, Ok(()));
}

/// Reads until the other end closes; gives each request with its body.
async fn read_all<S: BufferSource>(
    connection: Connection,
    buffers: S,
    mut take: impl FnMut(ClientRequest, Option<link::ReceivedBody<S::Buffer>>),
) -> ReadStats {
    let mut reader = connection.reader(FrameLimits::CLIENT_REQUEST);
    loop {
        match reader.next(&buffers).await {
            Ok(frame) => take(decode_client_request(&frame.header, frame.meta).unwrap(), frame.body),
            Err(ReadError::Closed) => return reader.stats(),
            Err(error) => panic!("{error}"),
        }
    }
}

async fn both<A, B>(a: impl Future<Output = A>, b: impl Future<Output = B>) -> (A, B) {
    future::zip(a, b).await
}

#[test]
fn bodies_of_every_size_arrive_whole_between_small_frames() {
    run(async {
        let (dialled, accepted) = ends();
        let outbox = Outbox::new(OutboxLimits::CLIENT);
        for (place, size) in SIZES.into_iter().enumerate() {
            let bytes = payload(size, place as u64);
            send(&outbox, &chunk(place as u64 * CHUNK, &bytes), Some(body(&bytes).await));
            for _ in 0..place % 3 {
                send(&outbox, &ClientRequest::Ping, None);
            }
        }
        outbox.close();
        let mut place = 0;
        let mut pings = 0;
        let reading = read_all(accepted, FreshBuffers, |request, body| match request {
            ClientRequest::Ping => pings += 1,
            ClientRequest::Chunk(head) => {
                let (body, expected) = (body.unwrap(), payload(SIZES[place], place as u64));
                let end = CHUNK_HEADER_BYTES + expected.len();
                assert_eq!(head.offset, place as u64 * CHUNK);
                assert_eq!(head.crc32, body.crc32);
                assert_eq!((body.crc32, body.crc64), (crc32(&expected), crc64(&expected)), "size {}", expected.len());
                assert_eq!(body.length as usize, expected.len());
                assert!(body.buffer.as_bytes()[CHUNK_HEADER_BYTES..end] == expected[..], "size {}", expected.len());
                assert!(body.buffer.as_bytes()[..CHUNK_HEADER_BYTES].iter().all(|&byte| byte == 0));
                assert!(body.buffer.as_bytes()[end..].iter().all(|&byte| byte == 0));
                place += 1;
            }
            other => panic!("{other:?}"),
        });
        let (end, stats) = both(dialled.serve(&outbox, future::pending()), reading).await;
        assert!(matches!(end, ConnectionEnd::Finished), "{end:?}");
        assert_eq!(place, SIZES.len());
        assert_eq!(stats.frames, (place + pings) as u64);
        assert_eq!(stats.body_bytes, SIZES.iter().sum::<usize>() as u64);
        assert_eq!((outbox.queued_bytes(), outbox.queued_frames()), (0, 0));
    });
}

/// Remembers where each buffer it gave lies.
#[derive(Clone, Default)]
struct Watched(Rc<RefCell<Vec<usize>>>);

impl BufferSource for Watched {
    type Buffer = DmaBuffer;

    async fn take(&self, payload_bytes: usize) -> DmaBuffer {
        let buffer = FreshBuffers.take(payload_bytes).await;
        self.0.borrow_mut().push(buffer.as_ptr() as usize);
        buffer
    }
}

#[test]
fn relay_sends_each_body_from_the_buffer_it_was_received_into() {
    const CHUNKS: usize = 20;
    run(async {
        let (first, relay_in) = ends();
        let (relay_out, last) = ends();
        let (sent, passed_on) = (Outbox::new(OutboxLimits::CHUNKS), Outbox::new(OutboxLimits::CHUNKS));
        let bytes = payload(CHUNK_BYTES_MAX, 1);
        for place in 0..CHUNKS {
            send(&sent, &chunk(place as u64 * CHUNK, &bytes), Some(body(&bytes).await));
        }
        sent.close();
        let given = Watched::default();
        let mut forwarded = Vec::new();
        let relay = async {
            let stats = read_all(relay_in, given.clone(), |request, received| {
                let received = received.unwrap();
                let buffer = Rc::new(received.buffer);
                forwarded.push(buffer.as_ptr() as usize);
                send(&passed_on, &request, Some(OutBody::new(buffer, received.length)));
            });
            let stats = stats.await;
            passed_on.close();
            stats
        };
        let mut arrived = 0;
        let reading = read_all(last, FreshBuffers, |_, received| {
            let received = received.unwrap();
            assert!(received.buffer.as_bytes()[CHUNK_HEADER_BYTES..][..CHUNK_BYTES_MAX] == bytes[..]);
            arrived += 1;
        });
        let sending = both(first.serve(&sent, future::pending()), relay_out.serve(&passed_on, future::pending()));
        let (_, (stats, _)) = both(sending, both(relay, reading)).await;
        assert_eq!(arrived, CHUNKS);
        assert_eq!(*given.0.borrow(), forwarded, "the buffer given is the buffer passed on");
        // Only what came together with the very first header may have been copied, and a few bytes of each later body.
        let copied_max = (64 << 10) + CHUNKS as u64 * 256;
        assert!(stats.body_bytes_copied <= copied_max, "{stats:?}");
        assert_eq!(stats.body_bytes, CHUNKS as u64 * CHUNK);
    });
}

#[test]
fn body_that_was_changed_on_its_way_ends_the_connection() {
    run(async {
        let (dialled, accepted) = ends();
        let bytes = payload(5_000, 3);
        let mut frame = crate::support::chunk_frame(0, &bytes);
        let last = frame.len() - 1;
        frame[last] ^= 1;
        dialled.write_first(&frame).await.unwrap();
        let mut reader = accepted.reader(FrameLimits::CLIENT_REQUEST);
        let error = reader.next(&FreshBuffers).await.err().unwrap();
        assert!(matches!(error, ReadError::Body(_)), "{error:?}");
    });
}

#[test]
fn message_with_the_largest_meta_arrives() {
    use proto::codec::{Encoder, decode_peer_message, encode_peer_message};
    use proto::ids::{LogIndex, NodeId, Term};
    use proto::peer::{PeerMessage, RaftEntry, RaftMessage};

    run(async {
        let entry = |index| RaftEntry { term: Term(1), index: LogIndex(index), data: payload(250, index) };
        let message = PeerMessage::Raft(RaftMessage {
            kind: 3,
            from: NodeId(1),
            to: NodeId(2),
            term: Term(1),
            entries: (1..=4000).map(entry).collect(),
            ..RaftMessage::default()
        });
        let (from, to) = (crate::support::address(1, 0), crate::support::address(2, 0));
        let (dialled, accepted) = ends();
        let outbox = Outbox::new(OutboxLimits::CONTROL);
        let mut encoder = Encoder::new();
        for _ in 0..3 {
            outbox.try_send(None, |out| encode_peer_message(&mut encoder, from, to, &message, 0, out)).unwrap();
        }
        outbox.close();
        let reading = async {
            let mut reader = accepted.reader(FrameLimits::PEER);
            for _ in 0..3 {
                let frame = reader.next(&FreshBuffers).await.unwrap();
                assert!(frame.meta.len() > 1 << 20);
                assert!(decode_peer_message(&frame.header, frame.meta).unwrap() == message);
            }
            drop((reader, accepted));
        };
        both(dialled.serve(&outbox, future::pending()), reading).await;
    });
}

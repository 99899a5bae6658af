//! What all of these tests need: an executor, two ends of a connection, frames of every kind.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use glommio::io::DmaBuffer;
use glommio::timer::sleep;
use link::{Bound, BufferSource, Connection, FreshBuffers, Listener, OutBody, within};
use proto::checksum::crc32;
use proto::client::{ChunkHead, ClientRequest, Target};
use proto::codec::{Encoder, encode_client_request};
use proto::ids::{Address, ClusterId, CoreId, ImageId, NodeId, Sequence, SessionId};
use proto::limits::CHUNK_HEADER_BYTES;

/// Far longer than anything here takes: a test that hangs fails instead.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `future` on an executor of this thread, but not for ever.
pub fn run<T>(future: impl Future<Output = T>) -> T {
    executor::run("test", async { within(PATIENCE, future).await.expect("the test hangs") }).unwrap()
}

pub fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

pub fn listener(connections_max: usize) -> Listener {
    Bound::bind(loopback()).unwrap().adopt(connections_max).unwrap()
}

pub fn address(node: u64, core: u16) -> Address {
    Address { node: NodeId(node), core: CoreId(core) }
}

pub fn hello() -> ClientRequest {
    ClientRequest::Hello {
        version_min: 1,
        version_max: 1,
        cluster: ClusterId::UNKNOWN,
        target: Target::Any,
        credentials: Vec::new(),
    }
}

pub fn image() -> ImageId {
    ImageId { session: SessionId(7), sequence: Sequence(1) }
}

pub fn chunk(offset: u64, payload: &[u8]) -> ClientRequest {
    ClientRequest::Chunk(ChunkHead { image: image(), offset, crc32: crc32(payload) })
}

/// Header and meta of a request that announces `body_bytes`.
pub fn encode(request: &ClientRequest, body_bytes: usize) -> Vec<u8> {
    let mut out = Vec::new();
    encode_client_request(&mut Encoder::new(), request, body_bytes, &mut out);
    out
}

/// A whole chunk frame.
pub fn chunk_frame(offset: u64, payload: &[u8]) -> Vec<u8> {
    let mut frame = encode(&chunk(offset, payload), payload.len());
    frame.extend_from_slice(payload);
    frame
}

/// Bytes that differ from place to place.
pub fn payload(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

/// A chunk buffer with that payload.
pub async fn buffer(payload: &[u8]) -> Rc<DmaBuffer> {
    let mut buffer = FreshBuffers.take(payload.len()).await;
    buffer.as_bytes_mut()[CHUNK_HEADER_BYTES..CHUNK_HEADER_BYTES + payload.len()].copy_from_slice(payload);
    Rc::new(buffer)
}

pub async fn body(payload: &[u8]) -> OutBody {
    OutBody::new(buffer(payload).await, payload.len() as u32)
}

/// Looks every millisecond whether something has happened.
pub async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        sleep(Duration::from_millis(1)).await;
    }
}

/// Time for something to happen that must not.
pub async fn pause() {
    sleep(Duration::from_millis(30)).await;
}

/// Two ends of one connection, both on this core.
pub fn ends() -> (Connection, Connection) {
    let (dialled, accepted) = sockets();
    let adopt = |socket: TcpStream| {
        let peer = socket.peer_addr().unwrap();
        Connection::from_fd(OwnedFd::from(socket), peer).unwrap()
    };
    (adopt(dialled), adopt(accepted))
}

/// Two ends of one connection, not on any core.
pub fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(loopback()).unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (dialled, listener.accept().unwrap().0)
}

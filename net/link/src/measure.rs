//! What links and the mesh reach on this machine, without disk and without logic: the ceiling for everything above.
//!
//! Two executors on two threads, real sockets on loopback. `examples/loopback.rs` prints all of it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use glommio::io::DmaBuffer;
use proto::checksum::crc32;
use proto::client::ClientRequest;
use proto::codec::{Encoder, encode_client_request};
use proto::frame::FrameLimits;
use proto::ids::{Address, ClusterId, CoreId, ImageId, Incarnation, NodeId, Sequence, SessionId};
use proto::limits::{CHUNK_BYTES_MAX, CHUNK_HEADER_BYTES, LANE_CREDIT_BYTES};
use proto::peer::{Lane, PeerMessage, PeerWelcome};

use crate::connection::Connection;
use crate::dial::connect;
use crate::incoming::{IncomingLink, LinkMessage};
use crate::limits::OutboxLimits;
use crate::listen::{Accepted, Bound, ListenError};
use crate::local::{Event, Tasks};
use crate::mesh::{MeshSeat, mesh};
use crate::outbox::{OutBody, Outbox, SendError};
use crate::peers::{PeerEvent, PeerIdentity, Peers};
use crate::reader::{BufferSource, FreshBuffers, ReadError};

const SENDER: Address = Address { node: NodeId(1), core: CoreId(0) };
const RECEIVER: Address = Address { node: NodeId(2), core: CoreId(0) };

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// No executor.
    #[error(transparent)]
    Start(#[from] executor::StartError),
    /// No port.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// An executor ended early.
    #[error("an executor ended early")]
    Ended,
}

/// How long it takes to send `frames` chunk frames with bodies of 1 MiB over a link, from the first to the last one
/// received, both checksums computed. Multiply by `CHUNK_BYTES_MAX` for bytes.
pub fn link_bodies(frames: u64) -> Result<Duration, MeasureError> {
    let bound = bind()?;
    let address = bound.address();
    let receiver = executor::spawn("receiver", move || receive_bodies(bound, frames))?;
    let sender = executor::spawn("sender", move || send_bodies(address, frames))?;
    let took = receiver.join().map_err(|_| MeasureError::Ended)??;
    sender.join().map_err(|_| MeasureError::Ended)?;
    Ok(took)
}

/// Round trips of a small frame (64 bytes of header and a few of meta) between two executors, one after the other.
pub fn frame_round_trips(count: usize) -> Result<Vec<Duration>, MeasureError> {
    let bound = bind()?;
    let address = bound.address();
    let echo = executor::spawn("echo", move || echo_frames(bound))?;
    let asker = executor::spawn("asker", move || ask_frames(address, count))?;
    let trips = asker.join().map_err(|_| MeasureError::Ended)?;
    echo.join().map_err(|_| MeasureError::Ended)??;
    trips.ok_or(MeasureError::Ended)
}

/// Round trips through the mesh between two cores, one after the other.
pub fn mesh_round_trips(count: usize) -> Result<Vec<Duration>, MeasureError> {
    let mut seats = mesh::<u64>(2);
    let (Some(there), Some(here)) = (seats.pop(), seats.pop()) else { return Err(MeasureError::Ended) };
    // Each seat is given back, so that none is gone while the other still sends.
    let other = executor::spawn("other", move || async move {
        let mut items = VecDeque::new();
        let mut left = count;
        while left > 0 {
            left -= there.receive(&mut items).await;
            for (from, item) in items.drain(..) {
                let _ = there.send(from, item);
            }
        }
        there
    })?;
    let asker = executor::spawn("asker", move || async move {
        let mut items = VecDeque::new();
        let mut trips = Vec::with_capacity(count);
        for item in 0..count as u64 {
            let begun = Instant::now();
            let _ = here.send(CoreId(1), item);
            here.receive(&mut items).await;
            items.clear();
            trips.push(begun.elapsed());
        }
        (trips, here)
    })?;
    let (trips, _seat) = asker.join().map_err(|_| MeasureError::Ended)?;
    other.join().map_err(|_| MeasureError::Ended)?;
    Ok(trips)
}

/// How long it takes one core to receive `items` from another, in batches as they come.
pub fn mesh_one_way(items: u64) -> Result<Duration, MeasureError> {
    let mut seats = mesh::<u64>(2);
    let (Some(there), Some(here)) = (seats.pop(), seats.pop()) else { return Err(MeasureError::Ended) };
    let sender = executor::spawn("sender", move || send_items(here, items))?;
    let receiver = executor::spawn("receiver", move || async move {
        let begun = Instant::now();
        let mut batch = VecDeque::new();
        let mut received = 0;
        while received < items {
            received += there.receive(&mut batch).await as u64;
            batch.clear();
        }
        (begun.elapsed(), there)
    })?;
    let (took, _seat) = receiver.join().map_err(|_| MeasureError::Ended)?;
    sender.join().map_err(|_| MeasureError::Ended)?;
    Ok(took)
}

async fn send_items(seat: MeshSeat<u64>, items: u64) -> MeshSeat<u64> {
    const BATCH: u64 = 1024;
    for item in 0..items {
        while seat.offer(CoreId(1), item).is_err() {
            crate::local::breathe().await;
        }
        if item % BATCH == 0 {
            crate::local::breathe().await;
        }
    }
    seat
}

fn bind() -> Result<Bound, ListenError> {
    Bound::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
}

/// Buffers that are used again, as a node's are.
#[derive(Clone, Default)]
struct Recycled(Rc<RefCell<Vec<DmaBuffer>>>);

impl BufferSource for Recycled {
    type Buffer = DmaBuffer;

    async fn take(&self, payload_bytes: usize) -> DmaBuffer {
        let kept = self.0.borrow_mut().pop();
        match kept {
            Some(buffer) => buffer,
            None => FreshBuffers.take(payload_bytes).await,
        }
    }
}

async fn receive_bodies(bound: Bound, frames: u64) -> Result<Duration, MeasureError> {
    let listener = Rc::new(bound.adopt(2)?);
    let (done, received) = (Rc::new(Event::new()), Rc::new(Cell::new(0)));
    let begun = Rc::new(Cell::new(None));
    let buffers = Recycled::default();
    let tasks = Tasks::new();
    let (told, counted, first) = (Rc::clone(&done), Rc::clone(&received), Rc::clone(&begun));
    let serve = move |accepted: Accepted| {
        let (told, counted, first, buffers) =
            (Rc::clone(&told), Rc::clone(&counted), Rc::clone(&first), buffers.clone());
        async move {
            let welcome = PeerWelcome::Welcome { version: 1, cluster: ClusterId::UNKNOWN, credit: LANE_CREDIT_BYTES };
            let Ok(link) = IncomingLink::welcome(accepted, |_| welcome).await else { return };
            let take = async |message: LinkMessage<DmaBuffer>| {
                if first.get().is_none() {
                    first.set(Some(Instant::now()));
                }
                if let Some(body) = message.body {
                    buffers.0.borrow_mut().push(body.buffer);
                }
                counted.set(counted.get() + 1);
                told.notify();
            };
            link.run(&buffers, take).await;
        }
    };
    let accepting = Rc::clone(&listener);
    tasks.spawn("listener", async move { accepting.run(serve).await });
    done.until(|| (received.get() >= frames).then_some(())).await;
    let took = begun.get().map(|begun: Instant| begun.elapsed()).ok_or(MeasureError::Ended)?;
    tasks.stop().await;
    listener.stop().await;
    Ok(took)
}

async fn send_bodies(address: SocketAddr, frames: u64) {
    let changed = Rc::new(Event::new());
    let told = Rc::clone(&changed);
    let gone = Rc::new(Cell::new(false));
    let lost = Rc::clone(&gone);
    let identity = PeerIdentity { source: SENDER, cluster: ClusterId::UNKNOWN, incarnation: Incarnation(1), start: 1 };
    let peers = Peers::new(identity, move |event| {
        lost.set(lost.get() | matches!(event, PeerEvent::Unreachable { .. }));
        told.notify();
    });
    peers.set_address(RECEIVER.node, &address.to_string());
    let mut buffer = FreshBuffers.take(CHUNK_BYTES_MAX).await;
    buffer.as_bytes_mut()[CHUNK_HEADER_BYTES..CHUNK_HEADER_BYTES + CHUNK_BYTES_MAX].fill(0x5a);
    let image = ImageId { session: SessionId(1), sequence: Sequence(1) };
    let payload = &buffer.as_bytes()[CHUNK_HEADER_BYTES..CHUNK_HEADER_BYTES + CHUNK_BYTES_MAX];
    let message = PeerMessage::UploadChunk { image, offset: 0, checksum: 0, crc32: crc32(payload) };
    let body = OutBody::new(Rc::new(buffer), CHUNK_BYTES_MAX as u32);
    for _ in 0..frames {
        let send = || match peers.send(RECEIVER, Lane::Home, &message, Some(body.clone())) {
            Err(SendError::Full) if !gone.get() => None,
            Ok(()) | Err(_) => Some(()),
        };
        changed.until(send).await;
    }
    // The receiver ends when it has all.
    changed.until(|| gone.get().then_some(())).await;
    peers.stop().await;
}

async fn echo_frames(bound: Bound) -> Result<(), MeasureError> {
    let listener = Rc::new(bound.adopt(2)?);
    let ended = Rc::new(Event::new());
    let has_ended = Rc::new(Cell::new(false));
    let (told, end) = (Rc::clone(&ended), Rc::clone(&has_ended));
    let tasks = Tasks::new();
    let serve = move |accepted: Accepted| {
        let (told, end) = (Rc::clone(&told), Rc::clone(&end));
        async move {
            if let Ok(connection) = accepted.into_connection() {
                echo(connection).await;
            }
            end.set(true);
            told.notify();
        }
    };
    let accepting = Rc::clone(&listener);
    tasks.spawn("listener", async move { accepting.run(serve).await });
    ended.until(|| has_ended.get().then_some(())).await;
    tasks.stop().await;
    listener.stop().await;
    Ok(())
}

async fn echo(connection: Connection) {
    let outbox = Outbox::new(OutboxLimits::CLIENT);
    let mut reader = connection.reader(FrameLimits::CLIENT_REQUEST);
    let ping = ping();
    let reading = async {
        loop {
            match reader.next(&FreshBuffers).await {
                Err(error) => return error,
                Ok(_) => {
                    let _ = outbox.try_send(None, |out| out.extend_from_slice(&ping));
                }
            }
        }
    };
    connection.serve(&outbox, reading).await;
}

async fn ask_frames(address: SocketAddr, count: usize) -> Option<Vec<Duration>> {
    let connection = connect(&address.to_string()).await.ok()?;
    let outbox = Outbox::new(OutboxLimits::CLIENT);
    let mut reader = connection.reader(FrameLimits::CLIENT_REQUEST);
    let ping = ping();
    connection.write_first(&ping).await.ok()?;
    let mut trips = Vec::with_capacity(count);
    let asking = async {
        while trips.len() < count {
            let begun = Instant::now();
            let _ = outbox.try_send(None, |out| out.extend_from_slice(&ping));
            if let Err(error) = reader.next(&FreshBuffers).await {
                return error;
            }
            trips.push(begun.elapsed());
        }
        ReadError::Closed
    };
    connection.serve(&outbox, asking).await;
    (trips.len() == count).then_some(trips)
}

fn ping() -> Vec<u8> {
    let mut frame = Vec::new();
    encode_client_request(&mut Encoder::new(), &ClientRequest::Ping, 0, &mut frame);
    frame
}

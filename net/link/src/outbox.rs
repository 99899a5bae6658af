//! The bounded queue of one connection's outgoing frames, and the loop that writes them.
//!
//! ```text
//! small frames --encoded--> the last segment (up to 256 KiB together) --one writev--> socket
//! a frame with body --header and meta in a segment of its own, the body stays where it is--> same writev, 256 KiB a call
//! ```
//! No byte of a body is copied; its holder is dropped as soon as the last byte is in the socket (or the queue is given
//! up). Frames leave in the order in which they were taken. If the other end grants credit, a frame with a body waits
//! until its credit has come, and all behind it wait with it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use proto::frame::FRAME_HEADER_BYTES;
use proto::limits::CHUNK_HEADER_BYTES;

use crate::limits::{BREATH_BYTES, OutboxLimits, PIECE_BYTES, WRITE_TIMEOUT};
use crate::local::{Deadline, Event, breathe};
use crate::stream::Stream;

/// Pieces of memory given to one call.
const SLICES_MAX: usize = 16;
/// Memory of written segments kept for the next ones.
const SPARE_SEGMENTS_MAX: usize = 2;

/// Image bytes to send, where they are. Clones share them.
#[derive(Clone)]
pub struct OutBody {
    holder: Rc<dyn AsRef<[u8]>>,
    length: u32,
}

impl OutBody {
    /// The `length` bytes behind the header sector of `holder`, a buffer laid out as a chunk. `holder` lives until they
    /// are sent, so what hangs on its drop (memory, credit) follows.
    pub fn new(holder: Rc<dyn AsRef<[u8]>>, length: u32) -> OutBody {
        let bytes = (*holder).as_ref().len();
        assert!(bytes >= CHUNK_HEADER_BYTES + length as usize, "a payload of {length} in {bytes} bytes");
        OutBody { holder, length }
    }

    /// Payload bytes.
    pub fn length(&self) -> u32 {
        self.length
    }

    fn payload(&self) -> &[u8] {
        &(*self.holder).as_ref()[CHUNK_HEADER_BYTES..CHUNK_HEADER_BYTES + self.length as usize]
    }
}

/// Why a frame was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SendError {
    /// The queue is at its bound: try again when it has drained.
    #[error("the queue is full")]
    Full,
    /// The connection is closed or closing.
    #[error("the connection is closed")]
    Closed,
}

/// Why writing ended early.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The other end does not read.
    #[error("the other end read nothing for {0:?}")]
    TimedOut(Duration),
    /// The connection failed.
    #[error("cannot write: {0}")]
    Io(#[from] io::Error),
}

/// What to do when the queue has drained.
type DrainHook = Rc<dyn Fn(u64)>;

/// The queue of one connection. Clones share it.
#[derive(Clone)]
pub struct Outbox {
    inner: Rc<Inner>,
}

struct Inner {
    limits: OutboxLimits,
    queue: RefCell<VecDeque<Segment>>,
    spare: RefCell<Vec<Vec<u8>>>,
    bytes: Cell<u64>, // of all frames not written whole, as they were when taken, less what is written
    frames: Cell<usize>, // not written whole
    state: Cell<State>,
    credit: Cell<u64>,       // body bytes permitted in all
    bodies_begun: Cell<u64>, // body bytes given to the socket or about to be; <= credit
    changed: Event,          // for the writer that has nothing to write
    aborted: Event,          // for the writer in the middle of a frame
    drained: Event,          // for those who wait for room
    drain_hook: RefCell<Option<(u64, DrainHook)>>,
    room_hook: RefCell<Option<DrainHook>>,
    refused: Cell<bool>, // a frame, since there was room last
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Takes frames.
    Open,
    /// Takes none, writes what it has.
    Closing,
    /// Has nothing and takes nothing.
    Closed,
}

/// Some whole frames without body, or one with.
struct Segment {
    bytes: Vec<u8>,
    body: Option<OutBody>,
    frames: usize,
    written: usize,
}

impl Segment {
    fn length(&self) -> usize {
        self.bytes.len() + self.body_bytes()
    }

    fn body_bytes(&self) -> usize {
        self.body.as_ref().map_or(0, |body| body.length as usize)
    }
}

/// What the writer does next.
enum Step {
    Write,
    End(WriteEnd),
}

/// How writing ended without an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WriteEnd {
    /// Closed, and everything is written.
    Finished,
    /// Aborted, perhaps within a frame.
    Aborted,
}

impl Outbox {
    /// An empty queue. Without a call of `limit_credit`, bodies need no credit.
    pub fn new(limits: OutboxLimits) -> Outbox {
        let inner = Inner {
            limits,
            queue: RefCell::default(),
            spare: RefCell::default(),
            bytes: Cell::new(0),
            frames: Cell::new(0),
            state: Cell::new(State::Open),
            credit: Cell::new(u64::MAX),
            bodies_begun: Cell::new(0),
            changed: Event::new(),
            aborted: Event::new(),
            drained: Event::new(),
            drain_hook: RefCell::new(None),
            room_hook: RefCell::new(None),
            refused: Cell::new(false),
        };
        Outbox { inner: Rc::new(inner) }
    }

    /// Takes one frame: `encode` appends its header and meta (and must not use this outbox), `body` follows.
    ///
    /// On return the frame is queued; it leaves behind all taken before. `Full` and `Closed` leave no trace.
    pub fn try_send(&self, body: Option<OutBody>, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), SendError> {
        let inner = &*self.inner;
        if inner.state.get() != State::Open {
            return Err(SendError::Closed);
        }
        if inner.bytes.get() >= inner.limits.bytes || inner.frames.get() >= inner.limits.frames {
            inner.refused.set(true);
            return Err(SendError::Full);
        }
        let added = {
            let mut queue = inner.queue.borrow_mut();
            let joins = |last: &Segment| last.body.is_none() && last.bytes.len() < PIECE_BYTES;
            if body.is_some() || !queue.back().is_some_and(joins) {
                let bytes = inner.spare.borrow_mut().pop().unwrap_or_default();
                queue.push_back(Segment { bytes, body: None, frames: 0, written: 0 });
            }
            let segment = queue.back_mut().expect("there is one now");
            let before = segment.length();
            encode(&mut segment.bytes);
            assert!(segment.bytes.len() >= before + FRAME_HEADER_BYTES, "not a frame");
            segment.body = body;
            segment.frames += 1;
            segment.length() - before
        };
        inner.bytes.set(inner.bytes.get() + added as u64);
        inner.frames.set(inner.frames.get() + 1);
        inner.changed.notify();
        Ok(())
    }

    /// Bytes that wait, bodies included.
    pub fn queued_bytes(&self) -> u64 {
        self.inner.bytes.get()
    }

    /// Frames that wait or are being written.
    pub fn queued_frames(&self) -> usize {
        self.inner.frames.get()
    }

    /// Whether no more frames are taken.
    pub fn is_closed(&self) -> bool {
        self.inner.state.get() != State::Open
    }

    /// The other end has permitted `total` body bytes since the connection began. Never lowers what it permitted before,
    /// except that the first call replaces "no limit".
    pub fn limit_credit(&self, total: u64) {
        let credit = &self.inner.credit;
        if credit.get() == u64::MAX || total > credit.get() {
            credit.set(total);
            self.inner.changed.notify();
        }
    }

    /// Body bytes still permitted to those frames that are not begun.
    pub fn credit_left(&self) -> u64 {
        self.inner.credit.get().saturating_sub(self.inner.bodies_begun.get())
    }

    /// Ends the connection after what is queued. (A frame that still lacks credit holds up the end; `abort` does not wait.)
    pub fn close(&self) {
        if self.inner.state.get() == State::Open {
            self.inner.state.set(State::Closing);
        }
        self.inner.changed.notify();
        self.inner.drained.notify();
    }

    /// Drops what is queued and ends the connection.
    pub fn abort(&self) {
        self.inner.state.set(State::Closed);
        self.inner.give_up();
        self.inner.changed.notify();
        self.inner.aborted.notify();
        self.inner.drained.notify();
    }

    /// Drops what is queued, and begins the accounts of a new connection: nothing sent, `credit` permitted.
    pub(crate) fn restart(&self, credit: u64) {
        self.inner.bodies_begun.set(0);
        self.inner.credit.set(credit);
        self.inner.changed.notify();
    }

    /// Drops what is queued; returns how many frames that were.
    pub(crate) fn drop_queued(&self) -> usize {
        let (before, frames) = (self.inner.bytes.get(), self.inner.frames.get());
        self.inner.give_up();
        self.inner.after_drain(before);
        frames
    }

    /// Waits until there is something to write or the queue is closed.
    pub(crate) async fn wanted(&self) {
        self.inner.changed.until(|| (self.inner.frames.get() > 0 || self.is_closed()).then_some(())).await;
    }

    /// Waits until fewer than `mark` bytes are queued, or the queue is closed.
    pub async fn drained_below(&self, mark: u64) {
        self.inner.drained.until(|| (self.inner.bytes.get() < mark || self.is_closed()).then_some(())).await;
    }

    /// Has `hook` called with the bytes still queued, each time they fall below `mark`. It may use this outbox.
    pub fn on_drained(&self, mark: u64, hook: impl Fn(u64) + 'static) {
        *self.inner.drain_hook.borrow_mut() = Some((mark, Rc::new(hook)));
    }

    /// Has `hook` called with the bytes still queued when, after a frame was refused as `Full`, the queue is less than
    /// half full again. It may use this outbox.
    pub fn on_room(&self, hook: impl Fn(u64) + 'static) {
        *self.inner.room_hook.borrow_mut() = Some(Rc::new(hook));
    }

    /// Writes frames until the queue is closed and empty.
    pub(crate) async fn write_to(&self, stream: &Stream) -> Result<WriteEnd, WriteError> {
        let inner = &*self.inner;
        let mut batch = VecDeque::new();
        let mut busy_bytes = 0;
        loop {
            match inner.changed.until(|| inner.next_step()).await {
                Step::End(end) => return Ok(end),
                Step::Write => inner.take_batch(&mut batch),
            }
            while !batch.is_empty() {
                let (written, waited) = inner.write_some(stream, &batch).await?;
                if inner.state.get() == State::Closed {
                    return Ok(WriteEnd::Aborted);
                }
                inner.on_written(&mut batch, written);
                busy_bytes = if waited { 0 } else { busy_bytes + written };
                if busy_bytes >= BREATH_BYTES {
                    busy_bytes = 0;
                    breathe().await;
                }
            }
        }
    }
}

impl Inner {
    fn next_step(&self) -> Option<Step> {
        match (self.queue.borrow().front(), self.state.get()) {
            (_, State::Closed) => Some(Step::End(WriteEnd::Aborted)),
            (None, State::Closing) => Some(Step::End(WriteEnd::Finished)),
            (None, State::Open) => None,
            (Some(first), State::Open | State::Closing) => self.has_credit(first).then_some(Step::Write),
        }
    }

    fn has_credit(&self, segment: &Segment) -> bool {
        self.bodies_begun.get() + segment.body_bytes() as u64 <= self.credit.get()
    }

    /// Moves what may be written now, and is worth one call, from the queue to `batch`.
    fn take_batch(&self, batch: &mut VecDeque<Segment>) {
        let mut queue = self.queue.borrow_mut();
        let mut bytes = 0;
        while bytes < PIECE_BYTES && batch.len() < SLICES_MAX / 2 {
            if !queue.front().is_some_and(|first| self.has_credit(first)) {
                break;
            }
            let segment = queue.pop_front().expect("there is a first");
            self.bodies_begun.set(self.bodies_begun.get() + segment.body_bytes() as u64);
            bytes += segment.length();
            batch.push_back(segment);
        }
    }

    /// Writes a piece of the batch; tells how much (0 if aborted meanwhile), and whether it had to wait.
    async fn write_some(&self, stream: &Stream, batch: &VecDeque<Segment>) -> Result<(usize, bool), WriteError> {
        let mut deadline = None;
        let mut waited = false;
        let written = poll_fn(|context| {
            if self.state.get() == State::Closed {
                return Poll::Ready(Ok(0));
            }
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = gather(batch, &mut slices);
            match stream.poll_write(context, &slices[..count]) {
                Poll::Ready(Ok(0)) => Poll::Ready(Err(WriteError::Io(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(written) => Poll::Ready(written.map_err(WriteError::Io)),
                Poll::Pending => {
                    waited = true;
                    self.aborted.register(context);
                    let deadline = deadline.get_or_insert_with(|| Deadline::after(WRITE_TIMEOUT));
                    deadline.poll(context).map(|()| Err(WriteError::TimedOut(WRITE_TIMEOUT)))
                }
            }
        })
        .await?;
        Ok((written, waited))
    }

    fn on_written(&self, batch: &mut VecDeque<Segment>, mut written: usize) {
        let before = self.bytes.get();
        self.bytes.set(before.saturating_sub(written as u64));
        while let Some(first) = batch.front_mut() {
            let taken = written.min(first.length() - first.written);
            first.written += taken;
            written -= taken;
            if first.written < first.length() {
                break;
            }
            let segment = batch.pop_front().expect("there is a first");
            self.frames.set(self.frames.get().saturating_sub(segment.frames));
            self.keep(segment.bytes);
            // The body's holder is dropped here, outside of any borrow.
        }
        self.after_drain(before);
    }

    fn after_drain(&self, before: u64) {
        self.drained.notify();
        let bytes = self.bytes.get();
        let hook = self.drain_hook.borrow().clone();
        if let Some((mark, hook)) = hook
            && before >= mark
            && bytes < mark
        {
            hook(bytes);
        }
        let has_room = bytes < self.limits.bytes / 2 && self.frames.get() < self.limits.frames / 2;
        if self.refused.get() && has_room {
            self.refused.set(false);
            let hook = self.room_hook.borrow().clone();
            if let Some(hook) = hook {
                hook(bytes);
            }
        }
    }

    fn keep(&self, mut bytes: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_SEGMENTS_MAX && bytes.capacity() <= 2 * PIECE_BYTES {
            bytes.clear();
            spare.push(bytes);
        }
    }

    fn give_up(&self) {
        let queue = self.queue.take();
        self.bytes.set(0);
        self.frames.set(0);
        drop(queue);
    }
}

/// The next bytes of the batch, at most `PIECE_BYTES`; returns how many slices they are.
fn gather<'a>(batch: &'a VecDeque<Segment>, slices: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
    let (mut count, mut room) = (0, PIECE_BYTES);
    for segment in batch {
        let head_written = segment.written.min(segment.bytes.len());
        let body = segment.body.as_ref().map_or(&[][..], OutBody::payload);
        for part in [&segment.bytes[head_written..], &body[segment.written - head_written..]] {
            let part = &part[..part.len().min(room)];
            if part.is_empty() {
                continue;
            }
            if count == SLICES_MAX {
                return count;
            }
            slices[count] = IoSlice::new(part);
            count += 1;
            room -= part.len();
        }
    }
    count
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::VecDeque;
    use std::io::IoSlice;
    use std::rc::Rc;

    use proto::limits::CHUNK_HEADER_BYTES;

    use super::{OutBody, SLICES_MAX, Segment, gather};
    use crate::limits::PIECE_BYTES;

    fn segment(head: usize, body: usize, written: usize) -> Segment {
        let holder = vec![7u8; CHUNK_HEADER_BYTES + body];
        let body = (body > 0).then(|| OutBody::new(Rc::new(holder), body as u32));
        Segment { bytes: vec![1; head], body, frames: 1, written }
    }

    fn lengths(batch: &VecDeque<Segment>) -> Vec<usize> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = gather(batch, &mut slices);
        slices[..count].iter().map(|slice| slice.len()).collect()
    }

    #[test]
    fn body_is_written_from_where_it_lies() {
        let holder: Rc<Vec<u8>> = Rc::new(vec![7; CHUNK_HEADER_BYTES + (1 << 20)]);
        let payload = &raw const holder[CHUNK_HEADER_BYTES];
        let body = OutBody::new(Rc::clone(&holder) as Rc<dyn AsRef<[u8]>>, 1 << 20);
        let mut batch = VecDeque::from([Segment { bytes: vec![1; 100], body: Some(body), frames: 1, written: 0 }]);
        for written in [0, 40, 100, 100 + PIECE_BYTES, (1 << 20) + 99] {
            batch[0].written = written;
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let count = gather(&batch, &mut slices);
            let body_written = written.saturating_sub(100);
            assert_eq!(slices[count - 1].as_ptr(), payload.wrapping_add(body_written), "after {written}");
        }
    }

    #[test]
    fn call_has_at_most_a_piece_and_a_bounded_number_of_slices() {
        let batch = VecDeque::from([segment(100, 0, 0), segment(100, 1 << 20, 0)]);
        assert_eq!(lengths(&batch), [100, 100, PIECE_BYTES - 200]);
        let batch = VecDeque::from([segment(100, 1 << 20, (1 << 20) + 90), segment(50, 0, 0)]);
        assert_eq!(lengths(&batch), [10, 50]);
        let many: VecDeque<Segment> = (0..20).map(|_| segment(100, 1, 0)).collect();
        assert_eq!(lengths(&many).len(), SLICES_MAX);
    }
}

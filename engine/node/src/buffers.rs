//! Which chunk buffers are alive, by the numbers that logic knows them by, and for whom.
//!
//! ```text
//! add ------> holds = 1 (an input gives logic its hold)        each operation that runs: uses += 1, by a BufferUse
//! Effect::Release: holds -= 1                                  its end, or its cancellation: uses -= 1, by Drop
//! holds = 0 and uses = 0: the buffer goes back to its pool, its number is never used again
//! ```
//! Credit. A buffer that came over a connection keeps the sender's credit taken. It is given back when the buffer is freed,
//! or as soon as its bytes were written to disk and no operation uses it: what logic keeps then is its cache, which
//! has a bound of its own (`cache_bytes`) and must not stop the sender.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use disk::ChunkBuffer;
use link::CreditGuard;

use logic::io::{Body, BodyRef, BufId};

/// The buffers of one core. Clones share the table.
#[derive(Clone, Default)]
pub(crate) struct Buffers {
    table: Rc<Table>,
}

#[derive(Default)]
struct Table {
    entries: RefCell<HashMap<BufId, Entry>>,
    next: Cell<u64>,
}

struct Entry {
    chunk: Rc<ChunkBuffer>,
    length: u32,
    crc64: u64,
    holds: u32,   // of logic
    uses: u32,    // by operations; holds + uses > 0
    stored: bool, // written to disk once
    credit: Option<CreditGuard>,
}

/// A buffer with its header, payload and padding in place.
pub(crate) struct Filled {
    pub(crate) chunk: ChunkBuffer,
    /// Payload bytes.
    pub(crate) length: u32,
    /// Of the payload.
    pub(crate) crc32: u32,
    /// Of the payload.
    pub(crate) crc64: u64,
}

/// What there is now, for logs and tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BufferCounts {
    /// Buffers.
    pub(crate) buffers: usize,
    /// Payload bytes in them.
    pub(crate) bytes: u64,
    /// Buffers that still keep their sender's credit.
    pub(crate) with_credit: usize,
}

impl Buffers {
    pub(crate) fn new() -> Buffers {
        Buffers::default()
    }

    /// Takes a filled buffer; logic gets one hold on it, in the body that is returned.
    pub(crate) fn add(&self, filled: Filled, credit: Option<CreditGuard>) -> Body {
        let Filled { chunk, length, crc32, crc64 } = filled;
        let buf = BufId(self.table.next.get() + 1);
        self.table.next.set(buf.0);
        trace(buf, &chunk, "held");
        let entry = Entry { chunk: Rc::new(chunk), length, crc64, holds: 1, uses: 0, stored: false, credit };
        let before = self.table.entries.borrow_mut().insert(buf, entry);
        assert!(before.is_none(), "{buf:?} given twice");
        Body { buf, length, crc32, crc64 }
    }

    /// One more hold of logic: what it sends to itself comes back to it.
    pub(crate) fn again(&self, body: BodyRef) -> Body {
        let (length, crc64) = self.table.with(body.buf, |entry| {
            entry.holds += 1;
            (entry.length, entry.crc64)
        });
        assert_eq!(length, body.length, "a body is sent whole");
        Body { buf: body.buf, length, crc32: body.crc32, crc64 }
    }

    /// One hold of logic less.
    pub(crate) fn release(&self, buf: BufId) {
        self.table.with(buf, |entry| {
            assert!(entry.holds > 0, "{buf:?} released more often than held");
            entry.holds -= 1;
        });
    }

    /// Keeps the buffer for an operation, until the value is dropped.
    pub(crate) fn use_for(&self, buf: BufId, operation: &'static str) -> BufferUse {
        let (chunk, length) = self.table.with(buf, |entry| {
            entry.uses += 1;
            (entry.chunk.clone(), entry.length)
        });
        trace(buf, &chunk, operation);
        BufferUse { table: self.table.clone(), buf, chunk, length }
    }

    pub(crate) fn counts(&self) -> BufferCounts {
        let entries = self.table.entries.borrow();
        BufferCounts {
            buffers: entries.len(),
            bytes: entries.values().map(|entry| u64::from(entry.length)).sum(),
            with_credit: entries.values().filter(|entry| entry.credit.is_some()).count(),
        }
    }
}

impl Table {
    /// Changes an entry, then frees what may be freed. Credit and buffer are dropped after the borrow has ended, since
    /// their `Drop` wakes tasks.
    fn with<T>(&self, buf: BufId, change: impl FnOnce(&mut Entry) -> T) -> T {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.get_mut(&buf).expect("logic names only buffers that it holds");
        let value = change(entry);
        let credit = if entry.stored && entry.uses == 0 { entry.credit.take() } else { None };
        let freed = if entry.holds == 0 && entry.uses == 0 { entries.remove(&buf) } else { None };
        drop(entries);
        drop(credit);
        drop(freed);
        value
    }
}

/// Shows where the bytes of a chunk are at each step of the walk: they never move.
fn trace(buf: BufId, chunk: &ChunkBuffer, step: &'static str) {
    tracing::trace!(target: "node::walk", step, address = ?chunk.bytes().as_ptr(), buf = buf.0);
}

/// A buffer in use by an operation.
pub(crate) struct BufferUse {
    table: Rc<Table>,
    buf: BufId,
    chunk: Rc<ChunkBuffer>,
    length: u32,
}

impl BufferUse {
    pub(crate) fn chunk(&self) -> &Rc<ChunkBuffer> {
        &self.chunk
    }

    pub(crate) fn length(&self) -> u32 {
        self.length
    }

    /// The bytes are on disk (not yet durable): the sender may send more once nothing uses the buffer.
    pub(crate) fn set_stored(&self) {
        self.table.with(self.buf, |entry| entry.stored = true);
    }
}

/// Header, payload and padding.
impl AsRef<[u8]> for BufferUse {
    fn as_ref(&self) -> &[u8] {
        self.chunk.bytes()
    }
}

impl Drop for BufferUse {
    fn drop(&mut self) {
        self.table.with(self.buf, |entry| {
            assert!(entry.uses > 0, "{:?} has no use to end", self.buf);
            entry.uses -= 1;
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use disk::BufferPool;
    use link::CreditMeter;

    use logic::io::BodyRef;

    use super::{BufferCounts, Buffers, Filled};

    const WINDOW: u64 = 8 << 20;

    fn on_executor(test: impl FnOnce(BufferPool, CreditMeter, Buffers)) {
        executor::run("buffers", async { test(BufferPool::new(WINDOW), CreditMeter::new(WINDOW), Buffers::new()) })
            .unwrap();
    }

    fn filled(pool: &BufferPool, length: u32) -> Filled {
        Filled { chunk: pool.try_take(length as usize).unwrap(), length, crc32: 7, crc64: 9 }
    }

    #[test]
    fn buffer_lives_until_logic_and_every_operation_let_go() {
        on_executor(|pool, meter, buffers| {
            let body = buffers.add(filled(&pool, 1000), Some(meter.on_body(1000).unwrap()));
            let sending = buffers.use_for(body.buf, "sent");
            let again = buffers.again(BodyRef { buf: body.buf, length: 1000, crc32: 7 });
            assert_eq!(again, body, "a loop to the own core keeps buffer and checksums");
            buffers.release(body.buf);
            buffers.release(body.buf);
            assert_eq!(buffers.counts(), BufferCounts { buffers: 1, bytes: 1000, with_credit: 1 });
            assert_eq!(meter.held(), 1000);
            drop(sending);
            assert_eq!(buffers.counts(), BufferCounts::default());
            assert_eq!((meter.held(), pool.used_bytes()), (0, 0));
        });
    }

    #[test]
    fn cached_buffer_gives_its_credit_back_when_stored_and_unused() {
        on_executor(|pool, meter, buffers| {
            let buf = buffers.add(filled(&pool, 5), Some(meter.on_body(5).unwrap())).buf;
            let (writing, sending) = (buffers.use_for(buf, "stored"), buffers.use_for(buf, "sent"));
            writing.set_stored();
            drop(writing);
            assert_eq!(meter.held(), 5, "still on its way to the next holder");
            drop(sending);
            assert_eq!(meter.held(), 0);
            assert_eq!(buffers.counts(), BufferCounts { buffers: 1, bytes: 5, with_credit: 0 });
            buffers.release(buf);
            assert_eq!(pool.used_bytes(), 0);
        });
    }

    #[test]
    fn number_of_a_freed_buffer_is_never_given_again() {
        on_executor(|pool, _, buffers| {
            let first = buffers.add(filled(&pool, 1), None).buf;
            buffers.release(first);
            let second = buffers.add(filled(&pool, 1), None).buf;
            assert_ne!(first, second);
            let twice = std::panic::AssertUnwindSafe(|| buffers.release(first));
            assert!(std::panic::catch_unwind(twice).is_err());
            buffers.release(second);
        });
    }
}

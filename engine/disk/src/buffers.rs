//! Chunk buffers: aligned memory that goes from a socket to the disk and from there (or the disk) to sockets, uncopied.
//!
//! Layout as on disk: header sector (512 bytes), payload, zeros up to a whole block of 4096 bytes.
//!
//! Invariants:
//! - `used_bytes` counts every buffer of `take` and of chunk reads until it is dropped.
//! - Buffers of `take` together never exceed the budget: a taker waits, and with it the socket it would read from.
//!   Buffers of reads are counted but never wait, so that uploads cannot starve deliveries; logic bounds its reads.
//! - The padding behind the payload is zero when a buffer is handed out: old heap never goes to disk.
//! - Only full-size buffers are kept for reuse; a small image takes a small buffer.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

use glommio::allocate_dma_buffer_global;
use glommio::io::DmaBuffer;
use proto::limits::{BLOCK_BYTES, CHUNK_BYTES_MAX, CHUNK_HEADER_BYTES, DMA_BUFFER_BYTES};

use crate::budget::{Budget, Permit};

/// Full-size buffers kept for reuse on one core: enough for the chunks in flight of a busy sender and receiver.
const KEPT_BUFFERS_MAX: usize = 32;

/// Whole blocks that a chunk with this payload takes, in memory and on disk.
#[must_use]
pub fn blocks_of(payload_bytes: usize) -> u32 {
    assert!(payload_bytes <= CHUNK_BYTES_MAX, "payload of {payload_bytes} bytes");
    u32::try_from((CHUNK_HEADER_BYTES + payload_bytes).div_ceil(BLOCK_BYTES)).expect("at most 257 blocks")
}

/// The chunk buffers of one core. Clones share the pool; belongs to one executor.
#[derive(Clone)]
pub struct BufferPool {
    inner: Rc<Pool>,
}

struct Pool {
    budget_bytes: u64,
    room: Budget,
    read_bytes: Cell<u64>,
    kept: RefCell<Vec<DmaBuffer>>,
}

impl BufferPool {
    /// A pool whose taken buffers never exceed `budget_bytes` (at least one full buffer).
    #[must_use]
    pub fn new(budget_bytes: u64) -> BufferPool {
        let budget_bytes = budget_bytes.max(DMA_BUFFER_BYTES as u64);
        BufferPool {
            inner: Rc::new(Pool {
                budget_bytes,
                room: Budget::new(budget_bytes / BLOCK_BYTES as u64),
                read_bytes: Cell::new(0),
                kept: RefCell::new(Vec::new()),
            }),
        }
    }

    /// A buffer for a chunk of `payload_bytes` (at most `CHUNK_BYTES_MAX`). Waits, in order, while the budget is used up.
    ///
    /// Header and padding are zero; the payload holds whatever was there, fill all of it.
    pub async fn take(&self, payload_bytes: usize) -> ChunkBuffer {
        let blocks = blocks_of(payload_bytes);
        let permit = self.inner.room.acquire(u64::from(blocks)).await;
        self.fill(blocks, payload_bytes, permit)
    }

    /// As `take`, but `None` instead of waiting.
    #[must_use]
    pub fn try_take(&self, payload_bytes: usize) -> Option<ChunkBuffer> {
        let blocks = blocks_of(payload_bytes);
        let permit = self.inner.room.try_acquire(u64::from(blocks))?;
        Some(self.fill(blocks, payload_bytes, permit))
    }

    /// Bytes of buffers that are out now, those of reads included.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        let taken_blocks = self.inner.budget_bytes / BLOCK_BYTES as u64 - self.inner.room.free();
        taken_blocks * BLOCK_BYTES as u64 + self.inner.read_bytes.get()
    }

    /// What the buffers of `take` never exceed.
    #[must_use]
    pub fn budget_bytes(&self) -> u64 {
        self.inner.budget_bytes
    }

    fn fill(&self, blocks: u32, payload_bytes: usize, permit: Permit) -> ChunkBuffer {
        let bytes = blocks as usize * BLOCK_BYTES;
        let kept = if bytes == DMA_BUFFER_BYTES { self.inner.kept.borrow_mut().pop() } else { None };
        // From the system's allocator, not from the registered memory of the ring: that is small and for small I/O.
        let mut dma = kept.unwrap_or_else(|| allocate_dma_buffer_global(bytes));
        assert_eq!(dma.len(), bytes);
        dma.as_bytes_mut()[..CHUNK_HEADER_BYTES].fill(0);
        dma.as_bytes_mut()[CHUNK_HEADER_BYTES + payload_bytes..].fill(0);
        ChunkBuffer { dma: Some(Rc::new(dma)), origin: Origin::Taken(permit), pool: self.inner.clone() }
    }

    /// Takes what a read gave. Counted until dropped; read-only.
    pub(crate) fn adopt_read(&self, dma: DmaBuffer) -> ChunkBuffer {
        let bytes = dma.len() as u64;
        self.inner.read_bytes.set(self.inner.read_bytes.get() + bytes);
        ChunkBuffer { dma: Some(Rc::new(dma)), origin: Origin::Read(bytes), pool: self.inner.clone() }
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool").field("used", &self.used_bytes()).field("budget", &self.budget_bytes()).finish()
    }
}

/// One chunk in memory: header sector, payload, zeros up to a whole block. Gives its memory back on drop.
///
/// Fill it while it is yours alone, then share it as `Rc<ChunkBuffer>`.
pub struct ChunkBuffer {
    // Some until dropped. More than one holder only while an operation of the kernel or of a socket runs.
    dma: Option<Rc<DmaBuffer>>,
    origin: Origin,
    pool: Rc<Pool>,
}

enum Origin {
    /// Writable, counted by its permit.
    Taken(#[allow(dead_code, reason = "held for its Drop")] Permit),
    /// From a read of this many bytes; glommio does not let it be written.
    Read(u64),
}

impl ChunkBuffer {
    /// All bytes: header, payload and padding; whole blocks.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.dma().as_bytes()
    }

    /// All bytes, to fill. Panics for a buffer that came from a read, and while `dma` is shared.
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        assert!(matches!(self.origin, Origin::Taken(_)), "buffers of reads are read-only");
        let dma = self.dma.as_mut().expect("present until dropped");
        Rc::get_mut(dma).expect("filled before it is shared").as_bytes_mut()
    }

    /// The header sector.
    #[must_use]
    pub fn header(&self) -> &[u8] {
        &self.bytes()[..CHUNK_HEADER_BYTES]
    }

    /// The payload of that length.
    #[must_use]
    pub fn payload(&self, payload_bytes: usize) -> &[u8] {
        &self.bytes()[CHUNK_HEADER_BYTES..CHUNK_HEADER_BYTES + payload_bytes]
    }

    /// Whole blocks.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        u32::try_from(self.bytes().len() / BLOCK_BYTES).expect("at most 257 blocks")
    }

    /// The memory itself, for writing it to sockets and files without a copy.
    #[must_use]
    pub fn dma(&self) -> &Rc<DmaBuffer> {
        self.dma.as_ref().expect("present until dropped")
    }
}

impl AsRef<[u8]> for ChunkBuffer {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}

impl AsMut<[u8]> for ChunkBuffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self.bytes_mut()
    }
}

impl fmt::Debug for ChunkBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkBuffer")
            .field("address", &self.dma().as_ptr())
            .field("bytes", &self.bytes().len())
            .finish()
    }
}

impl Drop for ChunkBuffer {
    fn drop(&mut self) {
        let dma = self.dma.take().expect("dropped once");
        match self.origin {
            Origin::Read(bytes) => self.pool.read_bytes.set(self.pool.read_bytes.get() - bytes),
            Origin::Taken(_) => {
                // Whoever still shares it (a cancelled write that the kernel has not ended) frees it instead.
                let Ok(dma) = Rc::try_unwrap(dma) else { return };
                let mut kept = self.pool.kept.borrow_mut();
                if dma.len() == DMA_BUFFER_BYTES && kept.len() < KEPT_BUFFERS_MAX {
                    kept.push(dma);
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn small_chunks_take_small_buffers_and_no_old_bytes_are_left_in_the_padding() {
        executor::run("buffers", async {
            let pool = BufferPool::new(4 << 20);
            for (payload, blocks) in [(0, 1), (1, 1), (3584, 1), (3585, 2), (65_536, 17), (CHUNK_BYTES_MAX, 257)] {
                let mut buffer = pool.take(payload).await;
                assert_eq!(buffer.blocks(), blocks, "payload of {payload}");
                assert_eq!(pool.used_bytes(), u64::from(blocks) * BLOCK_BYTES as u64);
                assert_eq!(buffer.bytes().as_ptr() as usize % BLOCK_BYTES, 0);
                assert!(buffer.header().iter().all(|byte| *byte == 0));
                assert!(buffer.bytes()[CHUNK_HEADER_BYTES + payload..].iter().all(|byte| *byte == 0));
                buffer.bytes_mut().fill(0xff);
            }
            assert_eq!(pool.used_bytes(), 0);
        })
        .unwrap();
    }

    #[test]
    fn a_full_buffer_is_used_again_with_clean_header_and_padding() {
        executor::run("buffers", async {
            let pool = BufferPool::new(4 << 20);
            let mut first = pool.take(CHUNK_BYTES_MAX).await;
            first.bytes_mut().fill(0xff);
            let address = first.bytes().as_ptr();
            drop(first);
            // The last block is shared by the padding of this one.
            let second = pool.take(CHUNK_BYTES_MAX - 100).await;
            assert_eq!(second.bytes().as_ptr(), address);
            assert!(second.header().iter().all(|byte| *byte == 0));
            assert!(second.bytes()[CHUNK_HEADER_BYTES + CHUNK_BYTES_MAX - 100..].iter().all(|byte| *byte == 0));
        })
        .unwrap();
    }

    #[test]
    fn a_taker_waits_for_room_and_buffers_still_in_use_elsewhere_are_not_used_again() {
        executor::run("buffers", async {
            let pool = BufferPool::new(0);
            assert_eq!(pool.budget_bytes(), DMA_BUFFER_BYTES as u64, "one buffer always fits");
            let first = pool.take(CHUNK_BYTES_MAX).await;
            let elsewhere = first.dma().clone();
            assert!(pool.try_take(1).is_none());
            let waiting = pool.clone();
            let taker = glommio::spawn_local(async move { waiting.take(CHUNK_BYTES_MAX).await });
            drop(first);
            let second = taker.await;
            assert_ne!(second.bytes().as_ptr(), elsewhere.as_ptr());
        })
        .unwrap();
    }
}

//! The memory of one core for bytes on their way, by where they come from.
//!
//! Each origin is bounded by itself, so that bytes of one kind never wait for room that is taken by another: chunks from
//! clients wait for homes, those for homes wait for holders, and those for holders only for the disk.

use disk::{BufferPool, ChunkBuffer};
use link::{BufferSource, ReceivedBody};

use logic::store::header::ChunkHeader;
use proto::ids::ImageId;
use proto::peer::Lane;

use crate::buffers::Filled;
use crate::limits::{CLIENT_BUFFER_BYTES, LANE_BUFFER_BYTES};

/// The pools of one core.
pub(crate) struct Pools {
    client: Source,
    home: Source,
    holder: Source,
    fetch: Source,
    read: BufferPool,
}

/// A pool as connections see it: while it is used up, they are not read.
#[derive(Clone)]
pub(crate) struct Source(BufferPool);

impl BufferSource for Source {
    type Buffer = ChunkBuffer;

    async fn take(&self, payload_bytes: usize) -> ChunkBuffer {
        self.0.take(payload_bytes).await
    }
}

impl Pools {
    /// What logic keeps in its cache stays in the pool it came from, so each has room for all of the cache.
    pub(crate) fn new(cache_bytes: u64) -> Pools {
        let lane = || Source(BufferPool::new(LANE_BUFFER_BYTES + cache_bytes));
        Pools {
            client: Source(BufferPool::new(CLIENT_BUFFER_BYTES + cache_bytes)),
            home: lane(),
            holder: lane(),
            fetch: lane(),
            read: BufferPool::new(LANE_BUFFER_BYTES),
        }
    }

    /// For what clients send.
    pub(crate) fn of_clients(&self) -> &Source {
        &self.client
    }

    /// For what comes over a link. (There are no bodies on `Control`; a peer that sends one anyway is served as a home's.)
    pub(crate) fn of_lane(&self, lane: Lane) -> &Source {
        match lane {
            Lane::Control | Lane::Home => &self.home,
            Lane::Holder => &self.holder,
            Lane::Fetch => &self.fetch,
        }
    }

    /// For what is read from the disk: bounded by logic, which asks for it.
    pub(crate) fn of_reads(&self) -> &BufferPool {
        &self.read
    }
}

/// Completes a received body to a chunk: writes the header that it has on disk and in memory.
pub(crate) fn fill_header(body: &mut ReceivedBody<ChunkBuffer>, image: ImageId, offset: u64) {
    let header = ChunkHeader { image, offset, length: body.length, crc32: body.crc32, crc64: body.crc64 };
    header.fill(body.buffer.bytes_mut());
}

/// The body as the table of buffers takes it.
pub(crate) fn filled(body: ReceivedBody<ChunkBuffer>) -> (Filled, Option<link::CreditGuard>) {
    let ReceivedBody { buffer, length, crc32, crc64, credit } = body;
    (Filled { chunk: buffer, length, crc32, crc64 }, credit)
}

//! Recent chunks in memory, so that a connected receiver and the next holder are served without reading the disk.
//!
//! First in, first out: an image is wanted soon after it came, or much later. Each entry has one hold on its buffer.

use std::collections::BTreeMap;

use proto::ids::ImageId;
use proto::limits::BLOCK_BYTES;

use crate::io::{Body, BufId};
use crate::store::slot::blocks_for;

/// The chunks kept in memory by one core.
#[derive(Debug)]
pub struct Cache {
    chunks: BTreeMap<(ImageId, u64), (u64, Body)>, // (image, offset) -> (age, body)
    ages: BTreeMap<u64, (ImageId, u64)>,           // the same entries, oldest first
    next_age: u64,
    bytes: u64, // sum over `chunks`
    bytes_max: u64,
}

impl Cache {
    /// An empty cache that keeps at most `bytes_max` of buffers.
    pub fn new(bytes_max: u64) -> Cache {
        Cache { chunks: BTreeMap::new(), ages: BTreeMap::new(), next_age: 0, bytes: 0, bytes_max }
    }

    /// Keeps a chunk; takes over the caller's hold. What must be released instead goes to `released`.
    pub fn insert(&mut self, image: ImageId, offset: u64, body: Body, released: &mut Vec<BufId>) {
        self.remove_one(image, offset, released);
        self.chunks.insert((image, offset), (self.next_age, body));
        self.ages.insert(self.next_age, (image, offset));
        self.next_age += 1;
        self.bytes += size(&body);
        while self.bytes > self.bytes_max {
            let (_, &(image, offset)) = self.ages.first_key_value().expect("bytes are counted per entry");
            self.remove_one(image, offset, released);
        }
    }

    /// A chunk, if it is here.
    pub fn get(&self, image: ImageId, offset: u64) -> Option<Body> {
        self.chunks.get(&(image, offset)).map(|&(_, body)| body)
    }

    /// Bytes of buffers kept.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Forgets all chunks of an image.
    pub fn remove(&mut self, image: ImageId, released: &mut Vec<BufId>) {
        let offsets: Vec<u64> =
            self.chunks.range((image, 0)..=(image, u64::MAX)).map(|(&(_, offset), _)| offset).collect();
        for offset in offsets {
            self.remove_one(image, offset, released);
        }
    }

    fn remove_one(&mut self, image: ImageId, offset: u64, released: &mut Vec<BufId>) {
        if let Some((age, body)) = self.chunks.remove(&(image, offset)) {
            self.ages.remove(&age);
            self.bytes -= size(&body);
            released.push(body.buf);
        }
    }
}

fn size(body: &Body) -> u64 {
    u64::from(blocks_for(body.length)) * BLOCK_BYTES as u64
}

#[cfg(test)]
mod tests {
    use super::Cache;
    use crate::io::{Body, BufId};
    use proto::ids::{ImageId, Sequence, SessionId};

    fn image(sequence: u64) -> ImageId {
        ImageId { session: SessionId(1), sequence: Sequence(sequence) }
    }

    fn body(buf: u64) -> Body {
        Body { buf: BufId(buf), length: 4096 - 512, crc32: 0, crc64: 0 }
    }

    #[test]
    fn each_hold_comes_back_once_and_the_bound_is_kept() {
        let (mut cache, mut released) = (Cache::new(3 * 4096), Vec::new());
        for n in 1..=4 {
            cache.insert(image(n), 0, body(n), &mut released);
        }
        assert_eq!(released, [BufId(1)]);
        assert_eq!((cache.get(image(1), 0), cache.get(image(4), 0)), (None, Some(body(4))));
        cache.insert(image(4), 0, body(9), &mut released);
        cache.remove(image(3), &mut released);
        cache.remove(image(3), &mut released);
        assert_eq!(released, [BufId(1), BufId(4), BufId(3)]);
    }

    #[test]
    fn a_cache_of_nothing_gives_every_hold_back_at_once() {
        let (mut cache, mut released) = (Cache::new(0), Vec::new());
        cache.insert(image(1), 0, body(7), &mut released);
        assert_eq!(released, [BufId(7)]);
    }
}

//! The two checksums of image bytes: CRC-32 for each chunk on every hop and on disk, CRC-64 for the whole image.
//!
//! They are different polynomials, so that an error which slips through one is still seen by the other. Both are of
//! the CRC family, hence the checksum of a whole image follows from those of its chunks without reading a byte again:
//! a node that restarts in the middle of an upload goes on from the checksums in its chunk headers.

use crc_fast::CrcAlgorithm::Crc64Nvme;

/// CRC-32 (ISO-HDLC, as in gzip) of `bytes`.
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// CRC-64/NVME of `bytes`.
pub fn crc64(bytes: &[u8]) -> u64 {
    crc_fast::checksum(Crc64Nvme, bytes)
}

/// CRC-64/NVME of the bytes of `head` followed by the `tail_length` bytes of `tail`.
///
/// Costs some tens of microseconds unless `head` is that of no bytes: once a chunk, not once a piece.
pub fn crc64_combine(head: u64, tail: u64, tail_length: u64) -> u64 {
    if head == CRC64_EMPTY {
        return tail; // The head is carried over by a linear map, and 0 stays 0.
    }
    crc_fast::checksum_combine(Crc64Nvme, head, tail, tail_length)
}

/// CRC-64/NVME of no bytes: where combining begins.
pub const CRC64_EMPTY: u64 = 0;

/// Both checksums of bytes that come in pieces. (Combining the checksums of small pieces instead costs tens of
/// microseconds each time.)
pub struct Sums {
    crc32: crc32fast::Hasher,
    crc64: crc_fast::Digest,
}

impl Default for Sums {
    fn default() -> Self {
        Sums::new()
    }
}

impl Sums {
    /// Of no bytes.
    pub fn new() -> Sums {
        Sums { crc32: crc32fast::Hasher::new(), crc64: crc_fast::Digest::new(Crc64Nvme) }
    }

    /// Adds the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.crc32.update(piece);
        self.crc64.update(piece);
    }

    /// CRC-32 and CRC-64 of all pieces.
    pub fn finish(self) -> (u32, u64) {
        (self.crc32.finalize(), self.crc64.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::{CRC64_EMPTY, Sums, crc32, crc64, crc64_combine};

    #[test]
    fn sums_of_pieces_are_those_of_the_whole() {
        let bytes: Vec<u8> = (0..10_000u32).map(|i| (i * 31 % 251) as u8).collect();
        for piece in [1, 15, 512, 9_999, 10_000] {
            let mut sums = Sums::new();
            bytes.chunks(piece).for_each(|piece| sums.update(piece));
            assert_eq!(sums.finish(), (crc32(&bytes), crc64(&bytes)), "pieces of {piece}");
        }
        assert_eq!(Sums::new().finish(), (crc32(b""), crc64(b"")));
    }

    #[test]
    fn check_values_of_the_catalogue_hold() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc64(b"123456789"), 0xae8b_1486_0a79_9888);
        assert_eq!(crc64(b""), CRC64_EMPTY);
    }

    #[test]
    fn checksum_of_an_image_follows_from_its_chunks() {
        let image: Vec<u8> = (0..10_000u32).map(|i| (i * 31 % 251) as u8).collect();
        for chunk in [1, 7, 512, 4096, 9_999, 10_000] {
            let combined = image
                .chunks(chunk)
                .fold(CRC64_EMPTY, |whole, part| crc64_combine(whole, crc64(part), part.len() as u64));
            assert_eq!(combined, crc64(&image), "chunks of {chunk}");
        }
    }
}

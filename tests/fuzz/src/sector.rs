//! Damage of sectors, with and without a right checksum.

use proto::limits::SECTOR_BYTES;

use crate::script::Script;

/// Kinds of damage.
pub const DAMAGES: u8 = 4;

/// Damages one sector (of 512 bytes) as a disk may.
pub fn damage(script: &mut Script<'_>, sector: &mut [u8]) {
    assert_eq!(sector.len(), SECTOR_BYTES);
    match script.byte() % DAMAGES {
        0 => {
            let bit = script.below(SECTOR_BYTES * 8);
            sector[bit / 8] ^= 1 << (bit % 8);
        }
        1 => sector.fill(0),
        2 => {
            let (first, step) = (script.byte(), script.byte() | 1);
            (0..)
                .zip(sector)
                .for_each(|(at, byte)| *byte = first.wrapping_add(step.wrapping_mul(at as u8)) ^ (at >> 5) as u8);
        }
        _ => {
            let (from, to) = (script.below(SECTOR_BYTES), script.below(SECTOR_BYTES));
            let count = script.below(SECTOR_BYTES).min(SECTOR_BYTES - from.max(to));
            sector.copy_within(from..from + count, to);
        }
    }
}

/// Puts right the checksum in the last four bytes, as votes, segment headers and round identifiers have it.
pub fn seal(sector: &mut [u8]) {
    let crc = crc32fast::hash(&sector[..SECTOR_BYTES - 4]);
    sector[SECTOR_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
}

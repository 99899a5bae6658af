//! The ring of round identifiers: one small record per flush round, in another place than the entries.
//!
//! It is written in the same flush as the entries of its round. When entries are bad and nothing proves that they were
//! durable, its absence proves that the round never was (torn), its presence that nothing is certain.
//!
//! ```text
//! file      ROUNDS_SLOTS sectors; the record of round r is in sector r % ROUNDS_SLOTS
//!
//! record    0    8   magic "HELIORND"
//!           8    2   version
//!           10   6   zero
//!           16   8   round; the first is 1
//!           24   8   last flush round known durable when it was written
//!           32   8   segment, and
//!           40   4   offset at which the round's entries begin
//!           44   4   zero
//!           48   8   segment, and
//!           56   4   offset at which they end
//!           60   4   zero
//!           64   8   signature of the segment in which they end
//!           72   16  cluster
//!           88   16  nonce of the store
//!           104  404 zero
//!           508  4   CRC-32 of bytes 0..508
//! ```
//! All integers are little-endian. A record that begins where it ends is void: the round was torn, nothing of it was kept, and
//! its number is passed over. So once the ring went round, no slot is zero. No round, segment or signature is above
//! `POSITION_MAX`.

use proto::ids::ClusterId;
use proto::limits::SECTOR_BYTES;

use crate::io::SegmentId;
use crate::limits::POSITION_MAX;
use crate::log::layout::{Position, StoreId};

/// Records in the ring. Only the newest few matter; more make it likelier that a rotten sector is an old one.
pub const ROUNDS_SLOTS: u64 = 1024;
/// Bytes of the file. It is made whole, with zeros, before the first flush.
pub const ROUNDS_BYTES: u32 = (ROUNDS_SLOTS as u32) * SECTOR_BYTES as u32;

const MAGIC: &[u8; 8] = b"HELIORND";
const VERSION: u16 = 1;
const CRC_AT: usize = SECTOR_BYTES - 4;

/// The identifier of one flush round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoundRecord {
    /// Which round.
    pub round: u64,
    /// Last round known durable when it was written.
    pub durable: u64,
    /// Where its entries begin: everything before is proven durable.
    pub start: Position,
    /// Where they end.
    pub end: Position,
    /// Signature of the segment in which they end.
    pub signature: u64,
}

/// What a sector of the ring holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// Never written.
    Zero,
    /// An intact record of this store.
    Record(RoundRecord),
    /// Neither.
    Unreadable,
}

/// What the ring says about one round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Identifier {
    /// Its slot is readable and holds something older or nothing yet, or says that the round is void.
    Absent,
    /// Its record is there.
    Present(RoundRecord),
    /// Its slot cannot be read.
    Unreadable,
}

impl RoundRecord {
    /// The record as it goes to disk.
    pub fn encode(&self, store: StoreId) -> [u8; SECTOR_BYTES] {
        assert!(self.durable < self.round, "round {} durable {}", self.round, self.durable);
        assert!(self.start <= self.end, "round {} from {} to {}", self.round, self.start, self.end);
        let mut sector = [0u8; SECTOR_BYTES];
        sector[0..8].copy_from_slice(MAGIC);
        sector[8..10].copy_from_slice(&VERSION.to_le_bytes());
        sector[16..24].copy_from_slice(&self.round.to_le_bytes());
        sector[24..32].copy_from_slice(&self.durable.to_le_bytes());
        sector[32..40].copy_from_slice(&self.start.segment.0.to_le_bytes());
        sector[40..44].copy_from_slice(&self.start.offset.to_le_bytes());
        sector[48..56].copy_from_slice(&self.end.segment.0.to_le_bytes());
        sector[56..60].copy_from_slice(&self.end.offset.to_le_bytes());
        sector[64..72].copy_from_slice(&self.signature.to_le_bytes());
        sector[72..88].copy_from_slice(&store.cluster.0.to_le_bytes());
        sector[88..104].copy_from_slice(&store.nonce.to_le_bytes());
        let crc = crc32fast::hash(&sector[..CRC_AT]);
        sector[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        sector
    }

    /// Reads one sector.
    fn decode(sector: &[u8; SECTOR_BYTES]) -> Option<(RoundRecord, StoreId)> {
        let u64_at = |at: usize| u64::from_le_bytes(sector[at..at + 8].try_into().expect("eight bytes were asked for"));
        let u32_at = |at: usize| u32::from_le_bytes(sector[at..at + 4].try_into().expect("four bytes were asked for"));
        let u128_at =
            |at: usize| u128::from_le_bytes(sector[at..at + 16].try_into().expect("sixteen bytes were asked for"));
        let intact = &sector[0..8] == MAGIC
            && u16::from_le_bytes([sector[8], sector[9]]) == VERSION
            && crc32fast::hash(&sector[..CRC_AT]) == u32_at(CRC_AT);
        if !intact {
            return None;
        }
        let record = RoundRecord {
            round: u64_at(16),
            durable: u64_at(24),
            start: Position { segment: SegmentId(u64_at(32)), offset: u32_at(40) },
            end: Position { segment: SegmentId(u64_at(48)), offset: u32_at(56) },
            signature: u64_at(64),
        };
        let store = StoreId { cluster: ClusterId(u128_at(72)), nonce: u128_at(88) };
        // The durable round is below the round, and the start not behind the end.
        let counters = [record.round, record.end.segment.0, record.signature];
        let sane = record.round > 0
            && record.durable < record.round
            && record.start <= record.end
            && counters.iter().all(|counter| *counter <= POSITION_MAX);
        sane.then_some((record, store))
    }

    /// Whether the round was torn and nothing of it was kept.
    pub fn is_void(&self) -> bool {
        self.start == self.end
    }

    /// Where the record belongs in the file.
    pub fn offset(&self) -> u32 {
        slot_of(self.round) as u32 * SECTOR_BYTES as u32
    }
}

/// The ring as found on disk, in place.
#[derive(Clone, Copy, Debug)]
pub struct Rounds<'a> {
    bytes: &'a [u8],
    store: StoreId,
}

impl<'a> Rounds<'a> {
    /// The ring in `bytes`; a file that is too short has unreadable slots at its end.
    pub fn new(bytes: &'a [u8], store: StoreId) -> Rounds<'a> {
        Rounds { bytes, store }
    }

    /// Whether there is no file.
    pub fn is_missing(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether a slot that was certainly written holds nothing: the rounds before `round`, the last one of the log, left their
    /// identifiers in it. Then other slots that hold nothing do not tell that nothing was written.
    pub fn has_holes(&self, round: u64) -> bool {
        (round.saturating_sub(ROUNDS_SLOTS - 1).max(1)..round).any(|earlier| self.slot(slot_of(earlier)) == Slot::Zero)
    }

    /// Slots that can be neither read nor believed, with the newest round up to `round_max` that has its place there, if any.
    pub fn spoiled(&self, round_max: u64) -> impl Iterator<Item = (u64, Option<u64>)> + use<'a> {
        let rounds = *self;
        (0..ROUNDS_SLOTS).filter_map(move |slot| {
            let behind = (slot_of(round_max) + ROUNDS_SLOTS - slot) % ROUNDS_SLOTS;
            let newest = round_max.checked_sub(behind).filter(|newest| *newest > 0);
            let is_spoiled = match rounds.slot(slot) {
                Slot::Record(_) => false,
                Slot::Zero => newest.is_some(),
                // Of a ring that is gone another one is made, with zeros.
                Slot::Unreadable => newest.is_some() || !rounds.is_missing(),
            };
            is_spoiled.then_some((slot, newest))
        })
    }

    /// Whether every slot can be read and speaks of no entries.
    pub fn is_void(&self) -> bool {
        (0..ROUNDS_SLOTS).all(|slot| match self.slot(slot) {
            Slot::Zero => true,
            Slot::Record(record) => record.is_void(),
            Slot::Unreadable => false,
        })
    }

    /// The record of `round`, if it is there.
    pub fn record(&self, round: u64) -> Option<RoundRecord> {
        match self.slot(slot_of(round)) {
            Slot::Record(record) if record.round == round => Some(record),
            _ => None,
        }
    }

    /// Whether the slot of `round` holds nothing.
    pub fn is_empty(&self, round: u64) -> bool {
        self.slot(slot_of(round)) == Slot::Zero
    }

    /// What the sector `slot` holds.
    pub fn slot(&self, slot: u64) -> Slot {
        let sector = usize::try_from(slot)
            .ok()
            .and_then(|slot| self.bytes.get(slot * SECTOR_BYTES..))
            .and_then(|rest| rest.first_chunk::<SECTOR_BYTES>());
        let Some(sector) = sector else { return Slot::Unreadable };
        if sector.iter().all(|byte| *byte == 0) {
            return Slot::Zero;
        }
        match RoundRecord::decode(sector) {
            Some((record, store)) if store == self.store && slot_of(record.round) == slot => Slot::Record(record),
            _ => Slot::Unreadable,
        }
    }

    /// All intact records, in the order of the file.
    pub fn records(&self) -> impl Iterator<Item = RoundRecord> + use<'a> {
        let rounds = *self;
        (0..ROUNDS_SLOTS).filter_map(move |slot| match rounds.slot(slot) {
            Slot::Record(record) => Some(record),
            Slot::Zero | Slot::Unreadable => None,
        })
    }

    /// What the ring says about `round`.
    pub fn identifier(&self, round: u64) -> Identifier {
        assert!(round > 0, "rounds are counted from 1");
        match self.slot(slot_of(round)) {
            Slot::Record(record) if record.round == round && record.is_void() => Identifier::Absent,
            Slot::Record(record) if record.round >= round => Identifier::Present(record),
            Slot::Record(_) => Identifier::Absent,
            // Once the ring went round, a slot that holds nothing lost what it had.
            Slot::Zero if round <= ROUNDS_SLOTS => Identifier::Absent,
            Slot::Zero | Slot::Unreadable => Identifier::Unreadable,
        }
    }
}

fn slot_of(round: u64) -> u64 {
    round % ROUNDS_SLOTS
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const STORE: StoreId = StoreId { cluster: ClusterId(5), nonce: 6 };

    fn record(round: u64) -> RoundRecord {
        let at = |offset| Position { segment: SegmentId(2), offset };
        RoundRecord { round, durable: round - 1, start: at(512), end: at(1024), signature: 3 }
    }

    fn ring(rounds: impl IntoIterator<Item = u64>) -> Vec<u8> {
        let mut bytes = vec![0; ROUNDS_BYTES as usize];
        for record in rounds.into_iter().map(record) {
            bytes[record.offset() as usize..][..SECTOR_BYTES].copy_from_slice(&record.encode(STORE));
        }
        bytes
    }

    #[test]
    fn newer_round_takes_the_place_of_the_one_a_whole_turn_before() {
        let bytes = ring(1..=1030);
        let rounds = Rounds::new(&bytes, STORE);
        assert_eq!(rounds.identifier(1030), Identifier::Present(record(1030)));
        assert_eq!(rounds.identifier(1031), Identifier::Absent);
        assert_eq!(rounds.records().count() as u64, ROUNDS_SLOTS);
        // Overwritten by a later one: it was there.
        assert_eq!(rounds.identifier(6), Identifier::Present(record(1030)));
    }

    #[test]
    fn slot_never_written_is_absent_only_in_the_first_turn() {
        let bytes = ring([]);
        let rounds = Rounds::new(&bytes, STORE);
        assert_eq!(rounds.identifier(1), Identifier::Absent);
        assert_eq!(rounds.identifier(ROUNDS_SLOTS), Identifier::Absent);
        assert_eq!(rounds.identifier(ROUNDS_SLOTS + 1), Identifier::Unreadable);
    }

    #[test]
    fn void_round_is_absent() {
        let mut bytes = ring(1..=9);
        let void = RoundRecord { start: record(10).end, ..record(10) };
        bytes[void.offset() as usize..][..SECTOR_BYTES].copy_from_slice(&void.encode(STORE));
        let rounds = Rounds::new(&bytes, STORE);
        assert_eq!(rounds.identifier(10), Identifier::Absent);
        assert_eq!(rounds.slot(10), Slot::Record(void));
    }

    #[test]
    fn damaged_foreign_misplaced_and_missing_slots_are_unreadable() {
        for bit in 0..SECTOR_BYTES * 8 {
            let mut bytes = ring([7]);
            bytes[7 * SECTOR_BYTES + bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Rounds::new(&bytes, STORE).identifier(7), Identifier::Unreadable, "bit {bit}");
        }
        let bytes = ring([7]);
        let foreign = StoreId { nonce: 9, ..STORE };
        assert_eq!(Rounds::new(&bytes, foreign).identifier(7), Identifier::Unreadable);
        let mut moved = ring([]);
        moved[8 * SECTOR_BYTES..9 * SECTOR_BYTES].copy_from_slice(&record(7).encode(STORE));
        assert_eq!(Rounds::new(&moved, STORE).identifier(8), Identifier::Unreadable);
        assert_eq!(Rounds::new(&bytes[..7 * SECTOR_BYTES + 511], STORE).identifier(7), Identifier::Unreadable);
        assert!(Rounds::new(&[], STORE).is_missing());
    }
}

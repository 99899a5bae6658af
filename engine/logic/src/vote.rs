//! Term and vote: two copies of one sector, outside the log. The only parser of that sector.
//!
//! ```text
//! 0    8   magic "HELIOVOT"
//! 8    2   format version
//! 10   6   zero
//! 16   8   counter: the copy with the larger one is the later
//! 24   8   term
//! 32   8   node voted for in that term; 0 if none
//! 40   8   node whose vote it is
//! 48   16  cluster
//! 64   1   whether the log lost entries and is being healed (`Healing`)
//! 65   443 zero
//! 508  4   CRC-32 of bytes 0..508
//! ```
//! All integers are little-endian. A change is written to the first copy, synced, written to the second copy, synced; only
//! then is it acted upon. So at every moment at least one copy is whole, and the later whole copy counts. A copy with a
//! counter or term above `POSITION_MAX` is not whole.

use proto::ids::{ClusterId, NodeId, Term};
use proto::limits::SECTOR_BYTES;

use crate::limits::POSITION_MAX;

const MAGIC: &[u8; 8] = b"HELIOVOT";
const VERSION: u16 = 1;
const CRC_AT: usize = SECTOR_BYTES - 4;

/// One state of term and vote.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Vote {
    /// Counts the changes; the first is 1.
    pub counter: u64,
    /// The current term.
    pub term: Term,
    /// Who got this node's vote in that term; node 0 if nobody.
    pub voted: NodeId,
    /// The cluster.
    pub cluster: ClusterId,
    /// Whose vote it is.
    pub node: NodeId,
    /// Whether the log lacks entries that this node may have acknowledged. Durable before anything of the log is changed.
    pub healing: Healing,
}

/// What a log lost, until it has everything again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[repr(u8)]
pub enum Healing {
    /// Nothing.
    #[default]
    Whole = 0,
    /// Its last round, which was perhaps acknowledged.
    Uncertain = 1,
    /// Entries that were durable.
    Rot = 2,
}

/// Neither copy can be read: the node may have voted and does not know for whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "both copies of term and vote are damaged: this node may have voted and cannot know for whom; \
     restore the directory as it was. If that cannot be, start the node with --rejoin: then it is taken in again"
)]
pub struct Amnesia;

/// What a copy holds.
enum Copy {
    Zero,
    Whole(Vote),
    Bad,
}

impl Vote {
    /// The state after a change of term or vote.
    pub fn next(&self, term: Term, voted: NodeId) -> Vote {
        assert!(term >= self.term, "term {} after {}", term.0, self.term.0);
        let first_in_term = term > self.term || self.voted == NodeId(0);
        assert!(first_in_term || voted == self.voted, "second vote {voted} after {} in {term}", self.voted);
        Vote { counter: self.counter + 1, term, voted, ..*self }
    }

    /// One copy as it goes to disk.
    pub fn encode(&self) -> Box<[u8; SECTOR_BYTES]> {
        let mut sector = Box::new([0u8; SECTOR_BYTES]);
        sector[0..8].copy_from_slice(MAGIC);
        sector[8..10].copy_from_slice(&VERSION.to_le_bytes());
        sector[16..24].copy_from_slice(&self.counter.to_le_bytes());
        sector[24..32].copy_from_slice(&self.term.0.to_le_bytes());
        sector[32..40].copy_from_slice(&self.voted.0.to_le_bytes());
        sector[40..48].copy_from_slice(&self.node.0.to_le_bytes());
        sector[48..64].copy_from_slice(&self.cluster.0.to_le_bytes());
        sector[64] = self.healing as u8;
        let crc = crc32fast::hash(&sector[..CRC_AT]);
        sector[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        sector
    }

    /// The state that counts of two copies: the later whole one. `None` if neither was ever written.
    ///
    /// One copy zero and the other bad is amnesia too: the first copy is written before the second, so a bad first copy
    /// beside a zero second one may have held a vote.
    pub fn choose(copies: [&[u8; SECTOR_BYTES]; 2]) -> Result<Option<Vote>, Amnesia> {
        match copies.map(Vote::read) {
            [Copy::Zero, Copy::Zero] => Ok(None),
            [Copy::Whole(a), Copy::Whole(b)] => Ok(Some(if b.counter > a.counter { b } else { a })),
            [Copy::Whole(vote), _] | [_, Copy::Whole(vote)] => Ok(Some(vote)),
            [Copy::Bad, _] | [_, Copy::Bad] => Err(Amnesia),
        }
    }

    fn read(sector: &[u8; SECTOR_BYTES]) -> Copy {
        if sector.iter().all(|byte| *byte == 0) {
            return Copy::Zero;
        }
        let u64_at = |at: usize| u64::from_le_bytes(sector[at..at + 8].try_into().expect("eight bytes were asked for"));
        let crc = u32::from_le_bytes(sector[CRC_AT..].try_into().expect("the CRC is the last four bytes"));
        let whole = &sector[0..8] == MAGIC
            && u16::from_le_bytes([sector[8], sector[9]]) == VERSION
            && crc32fast::hash(&sector[..CRC_AT]) == crc;
        if !whole {
            return Copy::Bad;
        }
        let (counter, term) = (u64_at(16), u64_at(24));
        let healing = match sector[64] {
            0 => Healing::Whole,
            1 => Healing::Uncertain,
            2 => Healing::Rot,
            _ => return Copy::Bad,
        };
        if counter > POSITION_MAX || term > POSITION_MAX {
            return Copy::Bad;
        }
        Copy::Whole(Vote {
            counter,
            term: Term(term),
            voted: NodeId(u64_at(32)),
            healing,
            node: NodeId(u64_at(40)),
            cluster: ClusterId(u128::from_le_bytes(sector[48..64].try_into().expect("sixteen bytes were asked for"))),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ZERO: [u8; SECTOR_BYTES] = [0; SECTOR_BYTES];

    fn vote(counter: u64, term: u64) -> Vote {
        Vote {
            counter,
            term: Term(term),
            voted: NodeId(2),
            cluster: ClusterId(77),
            node: NodeId(1),
            healing: Healing::Rot,
        }
    }

    fn bad() -> [u8; SECTOR_BYTES] {
        let mut sector = *vote(9, 9).encode();
        sector[24] ^= 1;
        sector
    }

    #[test]
    fn later_whole_copy_counts() {
        let (old, new) = (vote(4, 7), vote(5, 8));
        assert_eq!(Vote::choose([&old.encode(), &new.encode()]), Ok(Some(new)));
        assert_eq!(Vote::choose([&new.encode(), &old.encode()]), Ok(Some(new)));
        assert_eq!(Vote::choose([&new.encode(), &ZERO]), Ok(Some(new)));
        assert_eq!(Vote::choose([&bad(), &old.encode()]), Ok(Some(old)));
        assert_eq!(Vote::choose([&old.encode(), &bad()]), Ok(Some(old)));
    }

    #[test]
    fn never_written_is_none_and_both_bad_is_amnesia() {
        assert_eq!(Vote::choose([&ZERO, &ZERO]), Ok(None));
        assert_eq!(Vote::choose([&bad(), &bad()]), Err(Amnesia));
        assert_eq!(Vote::choose([&bad(), &ZERO]), Err(Amnesia));
        assert_eq!(Vote::choose([&ZERO, &bad()]), Err(Amnesia));
    }

    #[test]
    fn every_single_flip_is_noticed() {
        let (sector, other) = (vote(5, 8).encode(), vote(4, 7));
        for bit in 0..SECTOR_BYTES * 8 {
            let mut flipped = *sector;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Vote::choose([&flipped, &other.encode()]), Ok(Some(other)), "bit {bit}");
        }
    }

    #[test]
    fn counter_or_term_at_the_end_of_the_number_range_is_bad() {
        let (good, most) = (vote(1, 1), vote(POSITION_MAX, POSITION_MAX));
        assert_eq!(Vote::choose([&good.encode(), &most.encode()]), Ok(Some(most)));
        for huge in [POSITION_MAX + 1, u64::MAX] {
            for bad in [Vote { counter: huge, ..most }, Vote { term: Term(huge), ..most }] {
                assert_eq!(Vote::choose([&good.encode(), &bad.encode()]), Ok(Some(good)), "{bad:?}");
                assert_eq!(Vote::choose([&bad.encode(), &bad.encode()]), Err(Amnesia), "{bad:?}");
            }
        }
    }

    #[test]
    fn next_counts_up_and_keeps_who_it_is() {
        let first = vote(1, 3);
        let second = first.next(Term(4), NodeId(0));
        assert_eq!(second, Vote { counter: 2, term: Term(4), voted: NodeId(0), ..first });
        assert_eq!(second.next(Term(4), NodeId(3)).voted, NodeId(3));
    }

    #[test]
    #[should_panic(expected = "second vote")]
    fn second_vote_in_one_term_is_refused() {
        let _ = vote(1, 3).next(Term(3), NodeId(3));
    }
}

//! The vote file: which of two copies counts.
//!
//! An input is a script: votes that follow each other, each written to the first copy and then to the second, with power
//! cuts between and within sectors' writes; then damage.
//!
//! Properties: after any cut the vote is the old or the new one, and the new one once its second copy was begun; damage of
//! one copy yields the other or the truth, never an invented vote; two bad copies are amnesia; what was encoded is decoded.

use logic::vote::Vote;
use proto::ids::{ClusterId, NodeId, Term};
use proto::limits::SECTOR_BYTES;

use crate::script::Script;
use crate::sector;

const ZERO: [u8; SECTOR_BYTES] = [0; SECTOR_BYTES];

/// Runs one input.
pub fn check(data: &[u8]) {
    let mut script = Script::new(data);
    let mut copies = [ZERO; 2];
    let mut vote = Vote { cluster: ClusterId(0xc1), node: NodeId(1), ..Vote::default() };
    let mut written: Vec<Vote> = Vec::new();
    for _ in 0..script.byte() % 8 {
        let step = script.number(1 << 40);
        // A vote is never taken back, and none follows in the same term.
        let voted = if step == 0 && vote.voted.0 != 0 { vote.voted } else { NodeId(script.number(8)) };
        let next = vote.next(Term(vote.term.0 + step), voted);
        assert_eq!(next.counter, vote.counter + 1);
        let sector = *next.encode();
        assert_eq!(Vote::choose([&sector, &ZERO]), Ok(Some(next)));
        assert_eq!(Vote::choose([&ZERO, &sector]), Ok(Some(next)));
        let before = (vote.counter > 0).then_some(vote);
        assert_eq!(Vote::choose([&copies[0], &copies[1]]), Ok(before));
        copies[0] = sector;
        assert_eq!(Vote::choose([&copies[0], &copies[1]]), Ok(Some(next)), "cut after the first copy");
        copies[1] = sector;
        assert_eq!(Vote::choose([&copies[0], &copies[1]]), Ok(Some(next)));
        written.push(next);
        vote = next;
    }
    check_damage(&mut script, copies, &written);
    check_forged(&mut script, vote);
}

/// Damage without knowledge of checksums.
fn check_damage(script: &mut Script<'_>, copies: [[u8; SECTOR_BYTES]; 2], written: &[Vote]) {
    let (mut damaged, mut is_bad) = (copies, [false; 2]);
    for _ in 0..script.byte() % 4 {
        let copy = script.below(2);
        let before = damaged[copy];
        sector::damage(script, &mut damaged[copy]);
        is_bad[copy] |= damaged[copy] != before;
    }
    match Vote::choose([&damaged[0], &damaged[1]]) {
        Ok(Some(vote)) => {
            assert!(written.contains(&vote), "{vote:?} was never written");
            assert_eq!(Some(&vote), written.last(), "both copies had the last one");
        }
        // Only if nothing was there, or both were overwritten by zeros.
        Ok(None) => assert!(damaged == [ZERO; 2], "a vote was forgotten"),
        Err(_) => assert!(is_bad[0] || is_bad[1], "amnesia without damage"),
    }
    if !written.is_empty() && is_bad != [true; 2] {
        assert_eq!(Vote::choose([&damaged[0], &damaged[1]]), Ok(written.last().copied()));
    }
}

/// Any bytes under a right checksum.
fn check_forged(script: &mut Script<'_>, vote: Vote) {
    let mut copies = [*vote.encode(), *vote.encode()];
    for copy in &mut copies {
        for _ in 0..script.byte() % 4 {
            let at = script.below(64);
            copy[at] = script.byte();
        }
        sector::seal(copy);
    }
    let Ok(Some(chosen)) = Vote::choose([&copies[0], &copies[1]]) else { return };
    let again = Vote::choose([&chosen.encode(), &ZERO]);
    assert_eq!(again, Ok(Some(chosen)));
    let other = Vote::choose([&copies[1], &copies[0]]).expect("the order of the copies decides nothing but a tie");
    assert_eq!(other.map(|vote| vote.counter), Some(chosen.counter));
}

/// No vote, one, several; damage of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![vec![0], vec![3, 1, 2, 0, 2, 5, 0]];
    for damage in 0..sector::DAMAGES {
        seeds.push([&[2, 1, 1, 1, 3, 2, 0, damage, 9, 9, 9, 1, damage][..], &[7; 40], &[2, 16, 200, 24, 1]].concat());
    }
    seeds
}

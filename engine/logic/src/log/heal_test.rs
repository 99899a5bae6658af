//! Logs that lost entries, taken as far as they are intact, and what they go on with.

use raft::Storage;

use crate::log::disk_model::{Content, Disk, Random, append_flushed, start};
use crate::log::log::Log;
use crate::log::recover::Judgement;
use crate::vote::Healing;

/// Several segments, each with several entries of their own lengths.
fn several_segments() -> (Disk, Content) {
    let (mut disk, mut log) = start(4096);
    while disk.segments.len() < 6 {
        let bytes = 50 + log.last_index().unwrap() as usize * 37 % 400;
        append_flushed(&mut disk, &mut log, 1, bytes);
    }
    let content = disk.recover().unwrap().1;
    (disk, content)
}

/// Mends, goes on, and is clean at the next start.
fn goes_on(mut disk: Disk, mut log: Log, kept: &Content) {
    disk.settle(&mut log);
    for _ in 0..12 {
        append_flushed(&mut disk, &mut log, 2, 400);
    }
    let (again, content) = disk.recover().unwrap();
    assert_eq!(again.judgement(), Judgement::Clean);
    assert_eq!(content.len(), kept.len() + 12);
    assert_eq!(&content[..kept.len()], &kept[..]);
}

#[test]
fn log_is_taken_up_to_the_first_bad_place_wherever_that_is_and_goes_on_from_there() {
    let (disk, whole) = several_segments();
    let (mut random, mut shorter) = (Random::new(3), 0);
    let ids: Vec<u64> = disk.segments.keys().copied().collect();
    for turn in 0..600 {
        let mut damaged = disk.clone();
        let id = ids[random.below(ids.len() as u64) as usize];
        match turn % 4 {
            0 => drop(damaged.segments.remove(&id)),
            1 => damaged.segments.get_mut(&id).unwrap()[random.below(512) as usize] ^= 1 << random.below(8),
            2 => damaged.segments.get_mut(&id).unwrap().truncate(random.below(4096) as usize),
            _ => damaged.segments.get_mut(&id).unwrap()[random.below(4096) as usize] ^= 1 << random.below(8),
        }
        // What `LogFiles::open` does with a spare that cannot be used.
        let is_spare = id == *ids.last().unwrap();
        if is_spare && damaged.recover_with(u64::MAX, &[], Healing::Whole).is_ok() {
            damaged.segments.remove(&id);
        }
        let (log, kept) = damaged.recover_with(u64::MAX, &[], Healing::Rot).unwrap();
        assert_eq!(kept[..], whole[..kept.len()], "turn {turn}");
        assert!(kept.len() == whole.len() || log.lost() != Healing::Whole, "turn {turn}: {:?}", log.judgement());
        shorter += usize::from(kept.len() < whole.len());
        goes_on(damaged, log, &kept);
    }
    assert!(shorter > 200, "{shorter}");
}

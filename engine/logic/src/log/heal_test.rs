//! Logs that lost entries, taken as far as they are intact.

use proto::ids::Term;

use crate::io::SegmentId;
use crate::log::disk_model::{append_flushed, start};
use crate::log::log::Log;
use crate::log::recover::{RecoverError, RecoverInput};
use crate::vote::Healing;

/// A log that ends in a segment that is not there is not cut: it was, and the process ended.
#[test]
fn log_whose_last_segment_in_use_is_gone_is_refused_by_a_node_that_heals_too() {
    let (mut disk, mut log) = start(4096);
    while disk.segments.len() < 4 {
        append_flushed(&mut disk, &mut log, 1, 500);
    }
    let used: Vec<u64> = disk.segments.keys().copied().collect();
    for keep in 1..used.len() {
        let mut less = disk.clone();
        less.segments.retain(|id, _| *id < used[keep]);
        let segments: Vec<_> = less.segments.iter().map(|(id, bytes)| (SegmentId(*id), bytes.as_slice())).collect();
        let (rounds, vote_term, config) = (&less.rounds[..], Term(u64::MAX), less.config());
        let input = RecoverInput { segments: &segments, rounds, vote_term, config, heals: Healing::Rot };
        let outcome = Log::recover(input, |_, _, _| {}).map(|log| log.judgement());
        assert!(keep + 1 == used.len() || matches!(outcome, Err(RecoverError::Rot(_))), "{keep}: {outcome:?}");
    }
}

//! The snapshots of all data directories, in the order in which they stand in the log.

use std::collections::VecDeque;

use proto::ids::LogIndex;

use super::life::{At, Life};
use super::witness::Witness;

/// Those that were not yet passed.
pub struct Snapshots {
    left: VecDeque<(LogIndex, Vec<usize>)>, // ascending, each with the witnesses that have it
    /// What is damaged of those that were read, with the witness.
    pub faults: Vec<(usize, String)>,
}

impl Snapshots {
    /// All that there are. Reads none of them.
    pub fn of(witnesses: &[Witness]) -> Snapshots {
        let mut all: Vec<(LogIndex, usize)> = witnesses
            .iter()
            .enumerate()
            .flat_map(|(at, witness)| witness.snapshots.iter().map(move |index| (*index, at)))
            .collect();
        all.sort_unstable();
        let groups = all.chunk_by(|one, other| one.0 == other.0);
        let left = groups.map(|group| (group[0].0, group.iter().map(|(_, at)| *at).collect())).collect();
        Snapshots { left, faults: Vec::new() }
    }

    /// Tells those before this entry that say something new.
    pub fn tell_below(&mut self, index: u64, witnesses: &[Witness], life: &mut Life) {
        while self.left.front().is_some_and(|(at, _)| at.0 < index) {
            let Some((at, having)) = self.left.pop_front() else { return };
            if life.asks_for(at.0) {
                self.tell(at, &having, witnesses, life);
            }
        }
    }

    /// Tells the first one that is whole, of those that nodes made at the same entry.
    fn tell(&mut self, index: LogIndex, having: &[usize], witnesses: &[Witness], life: &mut Life) {
        let nodes = having.iter().map(|at| witnesses[*at].node).collect();
        for &at in having {
            match witnesses[at].snapshot(index) {
                Ok(Some((mark, state))) => {
                    let (time_ms, _) = state.session_ages();
                    let at = At { index: index.0, term: mark.term.0, is_committed: true, time_ms, nodes };
                    return life.on_snapshot(at, state);
                }
                Ok(None) => {}
                Err(error) => self.faults.push((at, format!("snapshot {index}: {error}"))),
            }
        }
    }
}

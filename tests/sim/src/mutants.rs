//! Wrong decisions planted into logic: a simulator that does not catch them is worth nothing.

use logic::io::{Effect, Now};
pub use logic::mutant::Mutant;
use logic::shard::{Shard, ShardConfig, ShardStart, StartError};

use crate::faults::{Fault, Mask};
use crate::scenario::Limits;
use crate::shrink::{Failure, try_run, try_with};

/// Seeds within which each mutant must be caught.
pub const SEEDS_MAX: u64 = 400;

/// A mutant that was caught.
#[derive(Clone, Debug)]
pub struct Caught {
    /// By which seed.
    pub seed: u64,
    /// After how many seeds.
    pub seeds: u64,
    /// How.
    pub failure: Failure,
}

/// The mutant of that name.
pub fn by_name(name: &str) -> Option<Mutant> {
    Mutant::ALL.into_iter().find(|mutant| mutant.name() == name)
}

/// The faults without which a mutant would seldom do any harm: its seeds have them in every phase.
pub fn focus(mutant: Mutant) -> Mask {
    Mask::of(match mutant {
        Mutant::GatherDifferentBytes => &[Fault::Twins],
        Mutant::AckUnclamped => &[Fault::AckAhead],
        Mutant::TruncateRot | Mutant::TruncateUncertain | Mutant::VoteWhileHealing | Mutant::HealTooEarly => {
            &[Fault::LogRot, Fault::Kill]
        }
        Mutant::LeapOverRot => &[Fault::LogRot, Fault::SnapshotRot, Fault::Kill],
        Mutant::SnapshotTorn | Mutant::SnapshotForgetsImages | Mutant::InstallForgetsClaims => {
            &[Fault::Kill, Fault::Isolate, Fault::Overload]
        }
        Mutant::EmptiedVotes | Mutant::EmptiedRejoins | Mutant::RejoinVotes | Mutant::RejoinKeepsLife => {
            &[Fault::Emptied]
        }
        Mutant::RejoinBeforeCommit => &[Fault::Emptied, Fault::Isolate],
        Mutant::DropIdleCopy => &[Fault::Clog],
        _ => &[],
    })
}

/// Runs seeds from `from` on until one catches the mutant, at most `seeds_max`.
pub fn hunt(mutant: Mutant, from: u64, seeds_max: u64) -> Option<Caught> {
    (from..from + seeds_max).enumerate().find_map(|(count, seed)| {
        let limits = Limits { mutant, focus: focus(mutant), ..Limits::FULL };
        let failure = match mutant {
            Mutant::ScrubForgetsRot => try_with(seed, limits, |run| run.log_of_leader_rots()).err()?,
            // With luck its victim waits for no longer than a whole run may take.
            Mutant::StoreOtherBytes => try_with(seed, limits, |run| run.outlast_rival()).err()?,
            _ => try_run(seed, limits).err()?,
        };
        Some(Caught { seed, seeds: count as u64 + 1, failure })
    })
}

/// Starts a core that takes one decision wrongly.
pub(crate) fn start_shard(
    config: ShardConfig,
    start: ShardStart<'_>,
    now: Now,
    effects: &mut Vec<Effect>,
    mutant: Mutant,
) -> Result<Shard, StartError> {
    Shard::with_mutant(config, start, now, effects, mutant)
}

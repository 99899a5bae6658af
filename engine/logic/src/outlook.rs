//! What a node will do with its consensus group's files at its next start: the start's own code, run for its answer.

use proto::ids::{Address, CoreId};

use crate::group::Group;
use crate::identity::Identity;
use crate::io::{Now, Ticket};
use crate::limits::TICK_US;
use crate::log::{Finding, Judgement, SEGMENT_BYTES_DEFAULT};
use crate::mutant::Mutant;
use crate::shard::{GroupStart, ShardConfig};
use crate::vote::Healing;

/// What a node will do at its next start, as far as identity, vote and log decide it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// There is no identity yet: it waits for the other initial members.
    Begins,
    /// It serves.
    Serves,
    /// It drops a last round that was never finished, hence never acknowledged, and serves.
    Drops(Finding),
    /// It keeps what is intact, and takes what it lost from the others before it votes again. Without a finding it had
    /// begun that before.
    Heals(Healing, Option<Finding>),
    /// It refuses, and changes nothing.
    Refuses(String),
}

/// Judges the files as the start does. Reads only.
pub fn outlook(start: &GroupStart<'_>) -> Outlook {
    let identity = match start.identity.as_deref().map(Identity::decode) {
        None => None,
        Some(Ok(identity)) => Some(identity),
        Some(Err(error)) => return Outlook::Refuses(error.to_string()),
    };
    let (node, cores) = identity.map_or((proto::ids::NodeId(1), 1), |identity| (identity.node, identity.cores));
    let config = ShardConfig {
        address: Address { node, core: CoreId(0) },
        cores,
        entropy: [1; 4],
        members: Vec::new(),
        copies: 0,
        image_bytes_max: 1 << 20,
        segment_bytes: SEGMENT_BYTES_DEFAULT,
        cache_bytes: 1 << 20,
        reserve_bytes: 0,
        upload_idle_us: TICK_US,
        session_idle_ms: 1,
        scrub_pass_us: 0,
    };
    match Group::new(config, start, Now::default(), Ticket(1), &mut Vec::new(), Mutant::None) {
        Ok(group) => group.outlook(),
        Err(error) => Outlook::Refuses(error.text),
    }
}

/// The outlook of a log that was judged so, with that in the vote file.
pub(crate) fn of_log(judgement: Judgement, healing: Healing) -> Outlook {
    match (judgement, healing) {
        (Judgement::Uncertain(finding) | Judgement::Rot(finding), healing) => Outlook::Heals(healing, Some(finding)),
        (Judgement::Clean | Judgement::Torn(_), Healing::Uncertain | Healing::Rot) => Outlook::Heals(healing, None),
        (Judgement::Torn(finding), Healing::Whole) => Outlook::Drops(finding),
        (Judgement::Clean, Healing::Whole) => Outlook::Serves,
    }
}

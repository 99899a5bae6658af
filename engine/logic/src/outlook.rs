//! What a node will do with its consensus group's files at its next start: the start's own code, run for its answer. The
//! start says it in the same words.

use std::fmt;

use proto::ids::{Address, CoreId, Incarnation, LogIndex, NodeId};

use crate::group::Group;
use crate::identity::{Identity, IdentityError, IdentityState};
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

impl Outlook {
    /// One word, for scripts.
    pub fn name(&self) -> &'static str {
        match self {
            Outlook::Begins => "empty",
            Outlook::Serves => "clean",
            Outlook::Drops(_) => "torn",
            Outlook::Heals(Healing::Rot, _) => "rot",
            Outlook::Heals(..) => "uncertain",
            Outlook::Refuses(_) => "refuses",
        }
    }

    /// What in the log it follows from.
    pub fn evidence(&self) -> Option<&Finding> {
        match self {
            Outlook::Drops(finding) | Outlook::Heals(_, Some(finding)) => Some(finding),
            _ => None,
        }
    }
}

/// What it is, and what the node will do.
impl fmt::Display for Outlook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heals =
            "the node will start with what is intact, and take what it lost from the others before it votes again";
        match self {
            Outlook::Begins => f.write_str("empty: the node will wait for the other initial members"),
            Outlook::Serves => f.write_str("clean: the node will start"),
            Outlook::Drops(_) => f.write_str(
                "torn: the last round was never finished, hence never acknowledged; the node will drop it and start",
            ),
            Outlook::Heals(Healing::Rot, _) => {
                write!(f, "rot: entries that were durable are damaged or missing; {heals}")
            }
            Outlook::Heals(..) => {
                write!(f, "uncertain: the last round may have been acknowledged and is not whole; {heals}")
            }
            Outlook::Refuses(text) => write!(f, "the node will refuse to start: {text}"),
        }
    }
}

/// What the next start makes of the files of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forecast {
    /// What the node will do.
    pub outlook: Outlook,
    /// Snapshots that it will not use because they are damaged, ascending. Unknown of one that refuses.
    pub unusable_snapshots: Vec<LogIndex>,
}

/// Judges the files as the start of `node` with `cores` does. Reads only.
pub fn forecast(node: NodeId, cores: u16, start: &GroupStart<'_>) -> Forecast {
    match Group::new(config(node, cores), start, Now::default(), Ticket(1), &mut Vec::new(), Mutant::None) {
        Ok(group) => group.forecast(),
        Err(error) => Forecast { outlook: Outlook::Refuses(error.text), unusable_snapshots: Vec::new() },
    }
}

/// What `--rejoin` makes of the files: a directory without memory of its log or votes is set aside, and the node asks to be
/// taken in again with a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejoin {
    /// It asks: nothing is there, or it asked before and was not answered.
    Asks,
    /// What is there is of no use any more, and this is why: it is set aside first.
    SetsAside(String),
    /// It was taken in again before, as this one, and its directory can be used: it starts as always.
    Admitted(Incarnation),
    /// It refuses, and changes nothing.
    Refuses(String),
}

/// Judges the files as a start with `--rejoin` does. Reads only.
pub fn rejoin(start: &GroupStart<'_>) -> Rejoin {
    let is_empty = start.segments.is_empty() && start.rounds.is_empty();
    let identity = match start.identity.as_deref().map(Identity::decode) {
        None if is_empty && start.vote.is_none() && start.snapshots.is_empty() => return Rejoin::Asks,
        None => return Rejoin::SetsAside("the identity is gone".to_owned()),
        Some(Ok(identity)) => identity,
        Some(Err(error @ IdentityError::Version { .. })) => return Rejoin::Refuses(error.to_string()),
        Some(Err(error)) => return Rejoin::SetsAside(error.to_string()),
    };
    let membership = match &identity.state {
        IdentityState::Empty if start.segments.is_empty() && !is_empty => return Rejoin::Asks,
        IdentityState::Empty => return Rejoin::SetsAside("the log is not that of a node that asks".to_owned()),
        IdentityState::Member(membership) => membership,
    };
    if membership.voters == [identity.node] {
        let text = "a lone voter has nobody who could take it in again: restore the directory as it was";
        return Rejoin::Refuses(text.to_owned());
    }
    let config = config(identity.node, identity.cores);
    match Group::new(config, start, Now::default(), Ticket(1), &mut Vec::new(), Mutant::None) {
        Ok(_) if membership.incarnation > Incarnation(1) => Rejoin::Admitted(membership.incarnation),
        Ok(_) => {
            let text =
                "the data directory can be used as it is, and nothing was changed: start the node without --rejoin";
            Rejoin::Refuses(text.to_owned())
        }
        Err(error) if error.is_amnesia => Rejoin::SetsAside(error.text),
        Err(error) => Rejoin::Refuses(error.text),
    }
}

/// As little as files are judged by.
pub(crate) fn config(node: NodeId, cores: u16) -> ShardConfig {
    ShardConfig {
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
        rejoin: false,
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

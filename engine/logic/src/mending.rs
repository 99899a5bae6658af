//! What a start does to a node's log and vote before the node takes part in anything: the group's own turns, without time and
//! without anybody else. For whoever carries that out apart from a start, or only wants to know it.

use std::sync::Arc;

use proto::ids::{Address, CoreId, NodeId};

use crate::context::{Context, Suspects, Tickets};
use crate::group::Group;
use crate::io::{Effect, Input, Now, Ticket, View};
use crate::mutant::Mutant;
use crate::outlook::{Outlook, config};
use crate::requests::Requests;
use crate::shard::{GroupStart, StartError};

/// Turns of a start until its files are mended: the vote, the log, and one that finds nothing more.
const TURNS_MAX: u32 = 8;

/// A start that goes no further than its files.
pub struct Mending {
    group: Group,
    me: Address,
    is_vote_due: bool, // its copies differ, or do not say yet that the log lost entries
    turns: u32,
}

impl Mending {
    /// Judges the files as the start of `node` with `cores` does. Changes nothing. `Err`: the node refuses to start.
    pub fn new(node: NodeId, cores: u16, start: &GroupStart<'_>) -> Result<Mending, StartError> {
        let me = Address { node, core: CoreId(0) };
        let group = Group::new(config(node, cores), start, Now::default(), Ticket(1), &mut Vec::new(), Mutant::None)?;
        let outlook = group.forecast().outlook;
        let is_member = outlook != Outlook::Begins;
        let loses = matches!(outlook, Outlook::Heals(_, Some(_)));
        let is_vote_due = is_member && (loses || start.vote.as_ref().is_some_and(|[one, other]| one != other));
        Ok(Mending { group, me, is_vote_due, turns: 0 })
    }

    /// The next change: `Effect::VoteWrite` or `Effect::LogFlush`. Each is durable, and `done` told, before the next is asked for.
    pub fn take_next(&mut self) -> Option<Effect> {
        while self.group.needs_mending() || self.is_vote_due {
            assert!(self.turns < TURNS_MAX, "a start mends its files in {TURNS_MAX} turns");
            self.turns += 1;
            let mut effects = Vec::new();
            self.with_group(&mut effects, |group, cx| group.turn(cx));
            let is_change = |effect: &Effect| matches!(effect, Effect::VoteWrite { .. } | Effect::LogFlush { .. });
            let next = effects.into_iter().find(is_change);
            self.is_vote_due &= !matches!(next, Some(Effect::VoteWrite { .. }));
            if next.is_some() {
                return next;
            }
        }
        None
    }

    /// The change that was asked for is durable: its completion.
    pub fn done(&mut self, input: Input) {
        self.with_group(&mut Vec::new(), |group, cx| group.on_completion(cx, input));
    }

    fn with_group(&mut self, out: &mut Vec<Effect>, act: impl FnOnce(&mut Group, &mut Context<'_>)) {
        let (view, mut suspects) = (Arc::<View>::default(), Suspects::default());
        let (mut requests, mut tickets) = (Requests::new(1), Tickets::default());
        let mut cx = Context {
            now: Now::default(),
            me: self.me,
            view: &view,
            suspects: &mut suspects,
            requests: &mut requests,
            tickets: &mut tickets,
            mutant: Mutant::None,
            out,
        };
        act(&mut self.group, &mut cx);
    }
}

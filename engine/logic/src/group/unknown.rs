//! Receivers whose name this node does not know. It may lag: whether a name is registered, it knows only when it has applied all
//! that was committed when it was asked. So a mark is set in the log, an empty `Probe` for all that wait (a read through the
//! log, as in section 6.4 of Ongaro's thesis, without its shortcuts).

use proto::error::Refusal;
use proto::ids::{CoreId, LogIndex};
use proto::peer::{LeaderAnswer, LeaderRequest};

use super::running::Running;
use crate::context::Context;
use crate::io::{ConnId, CoreNote};
use crate::limits::UNKNOWN_MAX;
use crate::requests::Purpose;

/// A subscription that waits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Subscriber {
    pub core: CoreId,
    pub conn: ConnId,
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    Due,
    Asked,
    At(LogIndex),
}

/// See the top of this file.
#[derive(Debug, Default)]
pub(super) struct Unknown {
    waiting: Vec<(Mark, Subscriber)>,
}

impl Unknown {
    /// One more waits. False: there is no room.
    fn wait(&mut self, subscriber: Subscriber) -> bool {
        let has_room = self.waiting.len() < UNKNOWN_MAX;
        if has_room {
            self.waiting.push((Mark::Due, subscriber));
        }
        has_room
    }

    fn forget(&mut self, conn: ConnId) {
        self.waiting.retain(|(_, subscriber)| subscriber.conn != conn);
    }

    /// Whether a mark is to be asked for now: for all to whom none was promised. One is under way at a time.
    fn begin(&mut self) -> bool {
        let has = |wanted| self.waiting.iter().any(|(mark, _)| *mark == wanted);
        let is_due = has(Mark::Due) && !has(Mark::Asked);
        if is_due {
            self.change(Mark::Due, Mark::Asked);
        }
        is_due
    }

    fn change(&mut self, from: Mark, to: Mark) {
        self.waiting.iter_mut().filter(|(mark, _)| *mark == from).for_each(|(mark, _)| *mark = to);
    }

    /// Those whose mark was refused.
    fn take_asked(&mut self) -> Vec<Subscriber> {
        self.waiting.extract_if(.., |(mark, _)| *mark == Mark::Asked).map(|(_, subscriber)| subscriber).collect()
    }

    /// Those who can be told now: all up to there is applied.
    fn take_ripe(&mut self, applied: LogIndex) -> Vec<Subscriber> {
        let is_ripe = |mark: &Mark| matches!(mark, Mark::At(index) if *index <= applied);
        self.waiting.extract_if(.., |(mark, _)| is_ripe(mark)).map(|(_, subscriber)| subscriber).collect()
    }
}

impl Running {
    /// A receiver wants its inbox.
    pub(super) fn on_subscribe(&mut self, cx: &mut Context<'_>, subscriber: Subscriber) {
        let is_known = self.state.inbox_of(&subscriber.name).is_some();
        let (core, conn) = (subscriber.core, subscriber.conn);
        if is_known {
            self.subscriptions.on_subscribe(&self.state, core, &subscriber.name, conn, cx.out);
        } else if self.unknown.wait(subscriber) {
            self.go_on_with_unknown(cx);
        } else {
            cx.tell(core, CoreNote::InboxSubscribed { conn, result: Err(Refusal::NotReady) });
        }
    }

    /// The connection is gone.
    pub(super) fn on_unsubscribe(&mut self, conn: ConnId) {
        self.unknown.forget(conn);
        self.subscriptions.on_unsubscribe(conn);
    }

    /// The mark is set, or the leader refused it for now.
    pub(super) fn on_mark(&mut self, cx: &mut Context<'_>, answer: &LeaderAnswer) {
        if let LeaderAnswer::Probed { index } = answer {
            self.unknown.change(Mark::Asked, Mark::At(*index));
        } else {
            for Subscriber { core, conn, .. } in self.unknown.take_asked() {
                cx.tell(core, CoreNote::InboxSubscribed { conn, result: Err(Refusal::NotReady) });
            }
        }
        self.go_on_with_unknown(cx);
    }

    /// Asks for a mark if one is due, and tells those who can be told.
    pub(super) fn go_on_with_unknown(&mut self, cx: &mut Context<'_>) {
        if cx.requests.has_room() && self.unknown.begin() {
            let probe = LeaderRequest::Probe { payload: Vec::new() };
            cx.requests.ask(cx.me, cx.now, Purpose::Mark, probe, cx.out);
        }
        for Subscriber { core, conn, name } in self.unknown.take_ripe(self.state.applied()) {
            self.subscriptions.on_subscribe(&self.state, core, &name, conn, cx.out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscriber(conn: u64) -> Subscriber {
        Subscriber { core: CoreId(1), conn: ConnId(conn), name: format!("gallery{conn}") }
    }

    #[test]
    fn nobody_is_told_before_all_is_applied_that_was_committed_when_it_asked() {
        let mut unknown = Unknown::default();
        assert!(unknown.wait(subscriber(1)) && unknown.begin());
        assert!(unknown.wait(subscriber(2)) && !unknown.begin(), "one mark is under way");
        unknown.change(Mark::Asked, Mark::At(LogIndex(7)));
        assert_eq!(unknown.take_ripe(LogIndex(6)), []);
        assert!(unknown.begin(), "the second came behind the first mark");
        assert_eq!(unknown.take_ripe(LogIndex(9)), [subscriber(1)]);
        assert!(unknown.wait(subscriber(3)));
        assert_eq!(unknown.take_asked(), [subscriber(2)], "it is told to try again");
        assert!(unknown.begin());
        unknown.forget(ConnId(3));
        unknown.change(Mark::Asked, Mark::At(LogIndex(8)));
        assert_eq!(unknown.take_ripe(LogIndex(9)), []);
    }

    #[test]
    fn only_so_many_wait() {
        let mut unknown = Unknown::default();
        assert!((0..UNKNOWN_MAX as u64).all(|conn| unknown.wait(subscriber(conn))));
        assert!(!unknown.wait(subscriber(u64::MAX)));
    }
}

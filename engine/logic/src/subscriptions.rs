//! Which core delivers which inbox, and how far it has been told (core 0).

use std::collections::BTreeMap;

use proto::error::Refusal;
use proto::ids::{CoreId, InboxId, InboxSeq};

use crate::io::{ConnId, CoreNote, Effect};
use crate::limits::INBOX_PULL_ENTRIES;
use crate::state::State;

/// The receivers connected to this node. At most one subscription a client connection.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    by_conn: BTreeMap<ConnId, Subscription>,
    by_inbox: BTreeMap<InboxId, Vec<ConnId>>,
}

#[derive(Debug)]
struct Subscription {
    core: CoreId,
    inbox: InboxId,
    waits_after: Option<InboxSeq>, // a pull that found nothing
}

impl Subscriptions {
    pub fn on_subscribe(&mut self, state: &State, core: CoreId, name: &str, conn: ConnId, out: &mut Vec<Effect>) {
        let result = state.inbox_of(name).ok_or(Refusal::UnknownReceiver);
        if let Ok((inbox, _)) = result {
            self.by_conn.insert(conn, Subscription { core, inbox, waits_after: None });
            self.by_inbox.entry(inbox).or_default().push(conn);
        }
        out.push(Effect::Tell { core, note: CoreNote::InboxSubscribed { conn, result } });
    }

    pub fn on_unsubscribe(&mut self, conn: ConnId) {
        let Some(subscription) = self.by_conn.remove(&conn) else { return };
        if let Some(conns) = self.by_inbox.get_mut(&subscription.inbox) {
            conns.retain(|&other| other != conn);
            if conns.is_empty() {
                self.by_inbox.remove(&subscription.inbox);
            }
        }
    }

    pub fn on_pull(&mut self, state: &State, conn: ConnId, after: InboxSeq, out: &mut Vec<Effect>) {
        let Some(subscription) = self.by_conn.get_mut(&conn) else { return };
        subscription.waits_after = Some(after);
        serve(state, conn, subscription, out);
    }

    /// The state is another one: any inbox may have new entries.
    pub fn on_anew(&mut self, state: &State, out: &mut Vec<Effect>) {
        for (conn, subscription) in &mut self.by_conn {
            serve(state, *conn, subscription, out);
        }
    }

    /// These inboxes have new entries.
    pub fn on_fresh(&mut self, state: &State, inboxes: &[InboxId], out: &mut Vec<Effect>) {
        for conn in inboxes.iter().filter_map(|inbox| self.by_inbox.get(inbox)).flatten() {
            let subscription = self.by_conn.get_mut(conn).expect("both maps change together");
            serve(state, *conn, subscription, out);
        }
    }
}

fn serve(state: &State, conn: ConnId, subscription: &mut Subscription, out: &mut Vec<Effect>) {
    let Some(after) = subscription.waits_after else { return };
    let inbox = subscription.inbox;
    let entries = state.entries_after(inbox, after, INBOX_PULL_ENTRIES);
    // Acknowledgements of an earlier connection may be applied after this one was told where it stands; what it lacks
    // was acknowledged by the same receiver, so it is gone. The session begins again from there.
    let Some(first) = entries.first() else { return };
    let note = if first.seq.0 == after.0 + 1 {
        CoreNote::InboxEntries { inbox, conn, entries }
    } else {
        CoreNote::InboxSubscribed { conn, result: Ok((inbox, InboxSeq(first.seq.0 - 1))) }
    };
    subscription.waits_after = None;
    out.push(Effect::Tell { core: subscription.core, note });
}

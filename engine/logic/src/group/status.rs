//! How a node is, for clients that ask: what its cores report, and how consensus stands.

use std::collections::BTreeSet;

use proto::client::{NodeStatus, RoleKind};
use proto::ids::{CoreId, LogIndex, RequestId};

use super::{Group, Phase};
use crate::consensus;
use crate::context::Context;
use crate::identity::IdentityState;
use crate::io::{ConnId, CoreNote};

/// A client that waits for the node's status.
pub(super) struct StatusAsked {
    pub core: CoreId,
    pub conn: ConnId,
    pub request: RequestId,
    pub missing: BTreeSet<CoreId>, // cores that have not reported since
}

impl Group {
    /// A core has reported: answers whoever waited for it last.
    pub(super) fn on_report(&mut self, cx: &mut Context<'_>, from: CoreId) {
        for asked in &mut self.status_asked {
            asked.missing.remove(&from);
        }
        let (done, open) =
            std::mem::take(&mut self.status_asked).into_iter().partition(|asked| asked.missing.is_empty());
        self.status_asked = open;
        let done: Vec<StatusAsked> = done;
        for asked in done {
            self.tell_status(cx, asked.core, asked.conn, asked.request);
        }
    }

    fn tell_status(&self, cx: &mut Context<'_>, to: CoreId, conn: ConnId, request: RequestId) {
        let mut status = NodeStatus {
            node: self.config.address.node,
            cores: self.reports.values().copied().collect(),
            ..NodeStatus::default()
        };
        if let (Phase::Running(running), IdentityState::Member(membership)) = (&self.phase, &self.identity.state) {
            let (standing, log) = (running.manager.state(), running.manager.log_stats());
            let (clients, sessions, undelivered) = running.state.counts();
            let (snapshot_bytes, is_making) = running.snapshots.standing();
            status = NodeStatus {
                incarnation: membership.incarnation,
                cluster: membership.cluster,
                role: match standing.role {
                    consensus::RoleKind::Follower => RoleKind::Follower,
                    consensus::RoleKind::Candidate => RoleKind::Candidate,
                    consensus::RoleKind::Leader => RoleKind::Leader,
                },
                term: standing.term,
                leader: standing.leader.unwrap_or_default(),
                last: standing.last,
                committed: standing.committed,
                applied: running.state.applied(),
                ring: running.state.ring().clone(),
                clients,
                sessions,
                undelivered,
                intents: running.admission.intents(),
                log_segments: log.segments,
                log_bytes: log.entry_bytes,
                healing: standing.healing,
                snapshot_index: running.snapshots.newest().map_or(LogIndex(0), |kept| kept.mark.index),
                snapshot_bytes,
                snapshot_under_way: is_making || running.incoming.is_some(),
                log_rotten: standing.rotten,
                ..status
            };
        }
        cx.tell(to, CoreNote::StatusTold { conn, request, status: Box::new(status) });
    }
}

//! What the other cores, and nodes that do not belong, are told of the cluster.

use std::sync::Arc;

use proto::ids::{Address, CoreId, Incarnation, NodeId};
use proto::peer::{self, PeerMessage};

use super::{Group, Phase, group_of, rejoin};
use crate::consensus;
use crate::context::Context;
use crate::identity::IdentityState;
use crate::io::{CoreNote, Effect};
use crate::limits::DOWN_US;
use crate::shard::ShardConfig;
use crate::state::State;
use crate::view::View;

/// What is said of a directory that none of the founders had.
pub(super) const STRANGER: &str = "the cluster exists, and this node's data directory is not of it: it was emptied or is new. If the node's own \
                        directory is gone for good, start it with --rejoin: then it is taken in again";

impl Group {
    /// To a directory that another one has taken the place of.
    pub(super) fn tell_replaced(&self, cx: &mut Context<'_>, to: Address) {
        let member = self.running().and_then(|running| running.state.ring().member(to.node));
        let Some(incarnation) = member.map(|member| member.incarnation) else { return };
        let text = "another directory has taken the place of this one".to_owned();
        cx.send(group_of(to.node), PeerMessage::Bootstrap(peer::Bootstrap::Deferred { incarnation, text }));
    }

    /// Nobody listens to this node any more: it takes no part, but no message of another node ends a process.
    pub(super) fn on_replaced(&mut self, cx: &mut Context<'_>, from: NodeId, incarnation: Incarnation) {
        if incarnation > self.identity.incarnation() && !std::mem::replace(&mut self.is_replaced_told, true) {
            let text = rejoin::text_of_replaced(self.identity.node, incarnation, self.identity.incarnation());
            tracing::error!(%from, "{text}");
            self.shut_out(cx, text.into());
        }
    }

    /// From now on clients are told that they must go elsewhere.
    pub(super) fn shut_out(&mut self, cx: &mut Context<'_>, why: Arc<str>) {
        self.view = Arc::new(View { shut_out: Some(why), ..(*self.view).clone() });
        self.hand_out_view(cx);
    }

    pub(super) fn tell_minted(&self, cx: &mut Context<'_>, to: Address) {
        let IdentityState::Member(membership) = &self.identity.state else { return };
        let members = membership.members.iter().map(|member| (member.node, member.nonce, member.cores)).collect();
        let told = peer::Bootstrap::Minted { cluster: membership.cluster, members };
        cx.send(to, PeerMessage::Bootstrap(told));
    }

    /// Tells every core what changed of what it needs to know.
    pub(super) fn tell_view(&mut self, cx: &mut Context<'_>) {
        let (Phase::Running(running), IdentityState::Member(membership)) = (&self.phase, &self.identity.state) else {
            return;
        };
        if !self.are_options_told && !running.state.ring().members().is_empty() {
            self.are_options_told = true;
            tell_other_options(&self.config, &running.state);
        }
        let standing = running.manager.state();
        let leader = standing.leader.unwrap_or_default();
        let heard_us = self.heard_us.get(&leader).copied().unwrap_or(0);
        let contact = standing.role == consensus::RoleKind::Leader
            || (standing.leader.is_some() && cx.now.mono_us < heard_us + DOWN_US);
        let is_same_ring = self.view.ring.epoch() == running.state.ring().epoch();
        let log_growth_bytes = running.log_growth_bytes(&self.config);
        let seen = (self.view.leader, self.view.contact, self.view.log_growth_bytes);
        if is_same_ring && seen == (leader, contact, log_growth_bytes) {
            return;
        }
        self.view = Arc::new(View {
            cluster: running.state.cluster(),
            incarnation: membership.incarnation,
            ring: running.state.ring().clone(),
            copies: running.state.copies(),
            image_bytes_max: running.state.image_bytes_max(),
            leader,
            contact,
            log_growth_bytes,
            shut_out: self.view.shut_out.clone(),
        });
        if !is_same_ring {
            for member in self.view.ring.members().iter().filter(|member| member.node != cx.me.node) {
                let (node, address) = (member.node, member.peer_address.clone());
                cx.out.push(Effect::PeerAddress { node, address });
            }
        }
        self.hand_out_view(cx);
    }

    fn hand_out_view(&self, cx: &mut Context<'_>) {
        for core in 0..self.config.cores {
            cx.tell(CoreId(core), CoreNote::View(Arc::clone(&self.view)));
        }
    }
}

/// Options that count only when the cluster forms: whoever configures others later is told that nothing comes of it.
fn tell_other_options(config: &ShardConfig, state: &State) {
    let tell = |option: &str, configured: u64, cluster: u64| {
        if configured != cluster {
            tracing::warn!(
                option,
                configured,
                cluster,
                "counts only when a cluster forms: the cluster keeps its value"
            );
        }
    };
    if config.copies != 0 {
        tell("copies", config.copies.into(), state.copies().into());
    }
    tell("image_bytes_max", config.image_bytes_max, state.image_bytes_max());
}

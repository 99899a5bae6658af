//! Carries out what logic asks for. Nothing here waits: what takes time runs as a task and comes back as an input.

use std::rc::Rc;
use std::sync::Arc;

use logic::io::Effect;
use proto::ids::CoreId;

use crate::core::{Core, MeshItem};
use crate::snapshots::SnapshotTask;
use crate::{clients, disk_ops, route, snapshots};

/// Carries out and removes all of `effects`. If one of them is fatal nothing else is done: whatever they would confirm
/// could rest on what failed.
pub(crate) fn carry_out(core: &Rc<Core>, effects: &mut Vec<Effect>) {
    let fatal = effects.iter().find_map(|effect| match effect {
        Effect::Fatal { text } => Some(text.clone()),
        _ => None,
    });
    if let Some(text) = fatal {
        core.fail(text);
    }
    if core.ending.is_due() {
        effects.clear();
        return;
    }
    for effect in effects.drain(..) {
        carry_out_one(core, effect);
    }
}

fn carry_out_one(core: &Rc<Core>, effect: Effect) {
    match effect {
        Effect::ClientSend { conn, message, body } => clients::send(core, conn, &message, body),
        Effect::ClientClose { conn } => core.clients.close(conn),
        Effect::Send { to, lane, message, body } => route::send(core, to, lane, message, body),
        Effect::Tell { core: to, note } => route::tell(core, to, note),
        Effect::Release { buf } => core.buffers.release(buf),
        Effect::ChunkWrite { ticket, extent, buf } => disk_ops::chunk_write(core, ticket, extent, buf),
        Effect::StoreCommit { ticket, slots, files } => disk_ops::store_commit(core, ticket, slots, files),
        Effect::ChunkRead { ticket, extent, length } => disk_ops::chunk_read(core, ticket, extent, length),
        Effect::FileCreate { file } => disk_ops::file_create(core, file),
        Effect::LogFlush { ticket, drop_from, writes } => disk_ops::log_flush(core, ticket, drop_from, writes),
        Effect::SegmentPrepare { segment, header } => disk_ops::segment_prepare(core, segment, header),
        Effect::LogRead { ticket, segment, offset, length } => {
            disk_ops::log_read(core, ticket, segment, offset, length)
        }
        Effect::SegmentsRetire { end } => disk_ops::segments_retire(core, end),
        Effect::SnapshotWrite { ticket, index, offset, bytes } => {
            snapshots::ask(core, SnapshotTask::Write { ticket, index, offset, bytes });
        }
        Effect::SnapshotFinish { ticket, index } => snapshots::ask(core, SnapshotTask::Finish { ticket, index }),
        Effect::SnapshotRemove { index } => snapshots::ask(core, SnapshotTask::Remove { index }),
        Effect::SnapshotRead { ticket, index, offset, length } => {
            snapshots::read(core, ticket, (index, offset, length));
        }
        Effect::VoteWrite { ticket, sector } => disk_ops::vote_write(core, ticket, sector),
        Effect::IdentityWrite { ticket, bytes } => disk_ops::identity_write(core, ticket, bytes),
        Effect::ClusterKnown { cluster, incarnation } => {
            core.set_cluster(cluster, incarnation);
            tell_others(core, || MeshItem::Cluster(cluster, incarnation));
        }
        Effect::PeerAddress { node, address } => {
            core.set_peer_address(node, &address);
            let address: Arc<str> = address.into();
            tell_others(core, || MeshItem::PeerAddress(node, address.clone()));
        }
        Effect::Fatal { text } => unreachable!("found above: {text}"),
    }
}

/// What core 0 knows of the cluster the other cores' links need to know as well.
fn tell_others(core: &Core, item: impl Fn() -> MeshItem) {
    if core.me.core == CoreId(0) {
        (1..core.cores).for_each(|other| core.hand(CoreId(other), item()));
    }
}

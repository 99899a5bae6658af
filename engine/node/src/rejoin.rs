//! A start with `--rejoin`: what of the data directory can be used, before any core looks at it.

use disk::{DataDir, LogFiles, SnapshotMaps, small_files};
use logic::bootstrap::voters_of;
use logic::outlook::{Rejoin, rejoin};
use logic::shard::GroupStart;
use proto::ids::NodeId;

use crate::config::NodeConfig;
use crate::error::NodeError;

/// Opens the directory of a node that is to be taken in again. What has no memory of its log or votes any more is set aside;
/// what can be used is left as it is, and refused unless it came to be in this way.
pub(crate) fn open(config: &NodeConfig, cores: u16) -> Result<DataDir, NodeError> {
    let members: Vec<NodeId> = config.members_or_self().iter().map(|member| NodeId(member.node)).collect();
    if voters_of(&members) == [config.node_id()] {
        let text = "--rejoin: this node is the only voter, so nobody could take it in again: restore its data directory as it was";
        return Err(NodeError::Data { text: text.to_owned() });
    }
    let (dir, missing) = DataDir::open_incomplete(&config.data, config.node_id(), cores).map_err(NodeError::of_dir)?;
    let judged = match missing {
        Some(missing) => Rejoin::SetsAside(missing.to_string()),
        None => judge(&dir)?,
    };
    let data = config.data.display();
    match judged {
        // There may be chunk files without anything else.
        Rejoin::Asks if !dir.view().identity_path().exists() => set_aside(&dir, "the identity is gone")?,
        Rejoin::Asks => {}
        Rejoin::SetsAside(why) => set_aside(&dir, &why)?,
        Rejoin::Admitted(incarnation) => {
            tracing::info!(%incarnation, "was taken in again with this data directory: --rejoin has no effect, leave it out");
        }
        Rejoin::Refuses(text) => return Err(NodeError::Recovery { text: format!("{data}: --rejoin: {text}") }),
    }
    Ok(dir)
}

fn set_aside(dir: &DataDir, why: &str) -> Result<(), NodeError> {
    if let Some(folder) = dir.set_aside().map_err(NodeError::of_dir)? {
        tracing::warn!(folder = %folder.display(), "the data directory is set aside, and a new one begun: {why}");
    }
    Ok(())
}

fn judge(dir: &DataDir) -> Result<Rejoin, NodeError> {
    let view = dir.view();
    let unread = |error: &dyn std::error::Error| NodeError::Data {
        text: format!("{}: cannot be read: {error}; correct its permissions", view.path().display()),
    };
    let log = LogFiles::inspect(view).map_err(|error| unread(&error))?;
    let snapshots = SnapshotMaps::inspect(view).map_err(|error| unread(&error))?;
    Ok(rejoin(&GroupStart {
        identity: small_files::read_identity(view).map_err(|error| unread(&error))?,
        vote: small_files::read_vote(view).map_err(|error| unread(&error))?,
        segments: log.segments(),
        rounds: log.rounds(),
        snapshots: snapshots.contents(),
    }))
}

//! The files of the consensus group as a start finds them, and as it would: read by one code for both.

use std::io;
use std::path::{Path, PathBuf};

use disk::log_files::LogOpenError;
use disk::small_files::{self, VoteSector};
use disk::{DataDir, DataDirView, LogFiles, Repair, SnapshotMaps};

use logic::identity::Identity;
use logic::shard::GroupStart;

use crate::error::NodeError;

/// What core 0 reads beside its chunk files.
pub(crate) struct GroupFound {
    pub(crate) log: LogFiles,
    pub(crate) snapshots: SnapshotMaps,
    identity: Option<Vec<u8>>,
    vote: Option<[VoteSector; 2]>,
}

impl GroupFound {
    /// Reads, and makes durable what it read. Blocking.
    pub(crate) fn open(dir: &DataDir) -> Result<GroupFound, NodeError> {
        GroupFound::read(dir.view(), LogFiles::open(dir), SnapshotMaps::open(dir))
    }

    /// As `open`, but changes nothing. Blocking.
    pub(crate) fn inspect(dir: &DataDirView) -> Result<GroupFound, NodeError> {
        GroupFound::read(dir, LogFiles::inspect(dir), SnapshotMaps::inspect(dir))
    }

    fn read(
        dir: &DataDirView,
        log: Result<LogFiles, LogOpenError>,
        snapshots: io::Result<SnapshotMaps>,
    ) -> Result<GroupFound, NodeError> {
        let log = log.map_err(|error| NodeError::Data { text: error.to_string() })?;
        let snapshots = snapshots.map_err(|error| NodeError::Data {
            text: format!(
                "{}: cannot read the snapshots: {error}; correct its permissions, or what else keeps it from being read. \
                 Nothing was changed",
                dir.snapshots_dir().display()
            ),
        })?;
        let path = dir.identity_path();
        let identity = small_files::read_identity(dir).map_err(unread(path.clone()))?;
        if let Some(bytes) = &identity {
            check_identity(dir, &path, bytes)?;
        }
        let vote = small_files::read_vote(dir).map_err(unread(dir.vote_path()))?;
        Ok(GroupFound { log, snapshots, identity, vote })
    }

    /// As logic is told.
    pub(crate) fn start(&self) -> GroupStart<'_> {
        GroupStart {
            identity: self.identity.clone(),
            vote: self.vote.clone(),
            segments: self.log.segments(),
            rounds: self.log.rounds(),
            snapshots: self.snapshots.contents(),
        }
    }

    /// What is to be mended.
    pub(crate) fn repairs(&self) -> &[Repair] {
        self.log.repairs()
    }
}

fn unread(path: PathBuf) -> impl FnOnce(io::Error) -> NodeError {
    move |error| NodeError::Data {
        text: format!("{}: cannot be read: {error}; correct its permissions, or restore it as it was", path.display()),
    }
}

/// The marker is text without a checksum: the identity is the better witness.
fn check_identity(dir: &DataDirView, path: &Path, bytes: &[u8]) -> Result<(), NodeError> {
    let identity = Identity::decode(bytes).map_err(|error| NodeError::Recovery {
        text: format!(
            "{}: {error}; restore this file as it was. If that cannot be, start the node with --rejoin: then it is taken in \
             again. The other nodes go on without this one, as long as most run",
            path.display()
        ),
    })?;
    if (identity.node, identity.cores) == (dir.node(), dir.cores()) {
        return Ok(());
    }
    Err(NodeError::Recovery {
        text: format!(
            "{}: is that of node {} with {} cores, the marker of the directory says node {} with {}: restore the one that is \
             wrong",
            path.display(),
            identity.node.0,
            identity.cores,
            dir.node().0,
            dir.cores()
        ),
    })
}

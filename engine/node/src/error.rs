//! Why a node did not start, or ended. One line each, with the remedy; the kind decides the exit code of `helio node`.

use disk::DirError;

use crate::config::ConfigError;

/// Why `run` returned without being stopped.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The configuration cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The machine lacks something: io_uring, locked memory, a filesystem that can O_DIRECT.
    #[error("{text}")]
    Machine {
        /// What, and the remedy.
        text: String,
    },
    /// An address cannot be listened on.
    #[error("cannot listen for {role}: {text}")]
    Listen {
        /// "clients" or "peers".
        role: &'static str,
        /// Why, and the remedy.
        text: String,
    },
    /// Another process uses the data directory.
    #[error("{text}")]
    DataInUse {
        /// Which directory and process, and the remedy.
        text: String,
    },
    /// The data directory cannot be used: not ours, of another node or of other cores, unreadable.
    #[error("{text}")]
    Data {
        /// What, and the remedy.
        text: String,
    },
    /// What is on disk does not allow to start: the log would need healing, or the vote is lost.
    #[error("{text}")]
    Recovery {
        /// What, and the remedy.
        text: String,
    },
    /// A promise could not be kept any more: a failed write or sync, or a broken invariant.
    #[error("core {core} ended the node: {text}")]
    Fatal {
        /// Which core.
        core: u16,
        /// What, and the remedy.
        text: String,
    },
    /// A core did not end within `STOP_SECONDS_MAX` of being asked to.
    #[error("core {core} did not stop within {seconds} s; kill the process (nothing accepted is lost by it)")]
    Stuck {
        /// Which core.
        core: u16,
        /// How long it was given.
        seconds: u64,
    },
}

/// The causes that `helio node` gives exit codes of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The operator's configuration.
    Config,
    /// The machine.
    Machine,
    /// A port is taken or cannot be bound.
    Listen,
    /// The data directory is in use, not ours, or unreadable.
    Data,
    /// The log or the vote on disk does not allow to start.
    Recovery,
    /// The node ended itself.
    Fatal,
}

impl NodeError {
    /// Of a data directory that cannot be opened.
    pub(crate) fn of_dir(error: DirError) -> NodeError {
        let text = error.to_string();
        match error {
            DirError::InUse { .. } => NodeError::DataInUse { text },
            _ => NodeError::Data { text },
        }
    }

    /// Which cause it is.
    pub fn kind(&self) -> ErrorKind {
        match self {
            NodeError::Config(_) => ErrorKind::Config,
            NodeError::Machine { .. } => ErrorKind::Machine,
            NodeError::Listen { .. } => ErrorKind::Listen,
            NodeError::DataInUse { .. } | NodeError::Data { .. } => ErrorKind::Data,
            NodeError::Recovery { .. } => ErrorKind::Recovery,
            NodeError::Fatal { .. } | NodeError::Stuck { .. } => ErrorKind::Fatal,
        }
    }
}

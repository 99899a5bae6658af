//! What an operator says about a node: a TOML file, flags of the command line, or both.
//!
//! Every field has a default except the node's id and its data directory. A key that does not exist is an error that names
//! it and its line, since a misspelt limit that is silently ignored is worse than a node that does not start. After
//! `NodeConfig::check` the rest of the node relies on what it says here.
//!
//! ```toml
//! node = 1
//! data = "/var/lib/heliograph"
//! client = "127.0.0.1:7400"
//! peer = "127.0.0.1:7500"
//! [[members]] # the same list on every node
//! node = 1
//! client = "127.0.0.1:7400"
//! peer = "127.0.0.1:7500"
//! ```

use std::collections::HashSet;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use proto::ids::NodeId;
use proto::limits::{
    ADDRESS_BYTES_MAX, CHUNK_BYTES_MAX, CORES_MAX, HOLDERS_MAX, IMAGE_BYTES_MAX, IMAGE_BYTES_MAX_DEFAULT, NODES_MAX,
};

/// Where clients reach a node unless told otherwise. Loopback: there is no authentication yet.
pub const CLIENT_ADDRESS_DEFAULT: &str = "127.0.0.1:7400";
/// Where peers reach a node unless told otherwise.
pub const PEER_ADDRESS_DEFAULT: &str = "127.0.0.1:7500";
/// Cores of a node unless told otherwise, if the machine has as many. Core 0 alone carries the consensus group, and four
/// cores outrun any one disk measured so far; each core costs memory for its buffers and one more link to every shard.
pub const CORES_DEFAULT_MAX: u16 = 4;
/// Smallest segment of the log: smaller ones would roll over in the middle of one large batch.
pub const SEGMENT_BYTES_MIN: u32 = 1 << 20;
/// Largest segment of the log: offsets in it are 32 bits wide, and it is mapped whole.
pub const SEGMENT_BYTES_MAX: u32 = 1 << 30;
/// Segment of the log unless told otherwise.
pub const SEGMENT_BYTES_DEFAULT: u32 = 64 << 20;
/// Memory of one core for recent chunks unless told otherwise: receivers that are connected are served from it.
pub const CACHE_BYTES_DEFAULT: u64 = 64 << 20;
/// Largest cache of one core: beyond it the system's memory is at stake, not the node's speed.
pub const CACHE_BYTES_MAX: u64 = 64 << 30;
/// Part of the filesystem that images never take unless told otherwise: four segments of the log.
pub const RESERVE_BYTES_DEFAULT: u64 = 4 * SEGMENT_BYTES_DEFAULT as u64;
/// Incomplete uploads without progress are dropped after this, unless told otherwise.
pub const UPLOAD_IDLE_SECONDS_DEFAULT: u64 = 3600;
/// Sessions end after this long without use, unless told otherwise: seven days.
pub const SESSION_IDLE_SECONDS_DEFAULT: u64 = 7 * 24 * 3600;
/// Default of `NodeConfig::scrub_seconds`.
pub const SCRUB_SECONDS_DEFAULT: u64 = 24 * 3600;
/// Longest idle time that can be set: ten years, so that no sum of times overflows.
pub const IDLE_SECONDS_MAX: u64 = 10 * 366 * 24 * 3600;
/// Client connections of a node unless told otherwise.
pub const CONNECTIONS_MAX_DEFAULT: u32 = 4096;
/// Most client connections that can be set: ports and descriptors of one process.
pub const CONNECTIONS_MAX_BOUND: u32 = 1 << 20;

const _: () = assert!(CACHE_BYTES_DEFAULT >= CHUNK_BYTES_MAX as u64 && SEGMENT_BYTES_DEFAULT >= SEGMENT_BYTES_MIN);

/// How the log's tail becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlushChoice {
    /// What measured better: `direct` (engine/notes).
    #[default]
    Auto,
    /// Into the map, then fdatasync, by a thread of the log.
    Mmap,
    /// By O_DIRECT and O_DSYNC writes on the executor.
    Direct,
}

/// One initial member of the cluster. The list must be the same on every node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemberConfig {
    /// Its id, at least 1.
    pub node: u64,
    /// Where clients reach it, "host:port".
    pub client: String,
    /// Where the other nodes reach it, "host:port".
    pub peer: String,
}

/// What a node needs to know to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// This node's id, at least 1, unique in the cluster and the same for the life of the data directory.
    pub node: u64,
    /// The data directory.
    pub data: PathBuf,
    /// Where to listen for clients.
    #[serde(default = "client_address_default")]
    pub client: String,
    /// Where to listen for other nodes.
    #[serde(default = "peer_address_default")]
    pub peer: String,
    /// The initial members, this node among them. Empty: a cluster of this node alone.
    #[serde(default)]
    pub members: Vec<MemberConfig>,
    /// Cores to use; 0: as many as the machine has, at most `CORES_DEFAULT_MAX`.
    #[serde(default)]
    pub cores: u16,
    /// Copies of each image for acceptance; 0: one more than the voters that may fail. Counts at bootstrap only.
    #[serde(default)]
    pub copies: u8,
    /// Largest image. Counts at bootstrap only.
    #[serde(default = "image_bytes_max_default")]
    pub image_bytes_max: u64,
    /// Bytes of one log segment.
    #[serde(default = "segment_bytes_default")]
    pub segment_bytes: u32,
    /// Bytes of recent chunks that each core keeps in memory.
    #[serde(default = "cache_bytes_default")]
    pub cache_bytes: u64,
    /// Bytes of the filesystem that images never take.
    #[serde(default = "reserve_bytes_default")]
    pub reserve_bytes: u64,
    /// How the log becomes durable.
    #[serde(default)]
    pub flush: FlushChoice,
    /// Incomplete uploads without progress for this long may be dropped.
    #[serde(default = "upload_idle_default")]
    pub upload_idle_seconds: u64,
    /// Sessions unused for this long end.
    #[serde(default = "session_idle_default")]
    pub session_idle_seconds: u64,
    /// All stored image bytes, the log and the snapshots are read again this often, at the soonest; 0 for never.
    #[serde(default = "scrub_default")]
    pub scrub_seconds: u64,
    /// Client connections at a time; more are closed as they come.
    #[serde(default = "connections_max_default")]
    pub connections_max: u32,
    /// The node's data directory is gone for good: it asks to be taken in again with a new one. Said at a start, never in a file.
    #[serde(skip)]
    pub rejoin: bool,
}

fn client_address_default() -> String {
    CLIENT_ADDRESS_DEFAULT.to_owned()
}

fn peer_address_default() -> String {
    PEER_ADDRESS_DEFAULT.to_owned()
}

fn image_bytes_max_default() -> u64 {
    IMAGE_BYTES_MAX_DEFAULT
}

fn segment_bytes_default() -> u32 {
    SEGMENT_BYTES_DEFAULT
}

fn cache_bytes_default() -> u64 {
    CACHE_BYTES_DEFAULT
}

fn reserve_bytes_default() -> u64 {
    RESERVE_BYTES_DEFAULT
}

fn upload_idle_default() -> u64 {
    UPLOAD_IDLE_SECONDS_DEFAULT
}

fn session_idle_default() -> u64 {
    SESSION_IDLE_SECONDS_DEFAULT
}

fn scrub_default() -> u64 {
    SCRUB_SECONDS_DEFAULT
}

fn connections_max_default() -> u32 {
    CONNECTIONS_MAX_DEFAULT
}

/// What is wrong with a configuration, in one line, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {path}: {error}; check the path and its permissions")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// The system's words.
        error: String,
    },
    /// The file is not TOML of this shape: a syntax error, a wrong type, or an unknown key.
    #[error("{origin} line {line}: {message}")]
    Syntax {
        /// Which file.
        origin: String,
        /// Counted from 1.
        line: usize,
        /// The parser's words, in one line.
        message: String,
    },
    /// A value that cannot be.
    #[error("{key} = {found}: {rule}")]
    Value {
        /// Which key.
        key: &'static str,
        /// What it says.
        found: String,
        /// What it may be.
        rule: String,
    },
}

impl NodeConfig {
    /// All defaults, for a node alone in its cluster. Flags of a command line start from here if there is no file.
    pub fn new(node: u64, data: impl Into<PathBuf>) -> NodeConfig {
        NodeConfig {
            node,
            data: data.into(),
            client: client_address_default(),
            peer: peer_address_default(),
            members: Vec::new(),
            cores: 0,
            copies: 0,
            image_bytes_max: IMAGE_BYTES_MAX_DEFAULT,
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            cache_bytes: CACHE_BYTES_DEFAULT,
            reserve_bytes: RESERVE_BYTES_DEFAULT,
            flush: FlushChoice::default(),
            upload_idle_seconds: UPLOAD_IDLE_SECONDS_DEFAULT,
            session_idle_seconds: SESSION_IDLE_SECONDS_DEFAULT,
            scrub_seconds: SCRUB_SECONDS_DEFAULT,
            connections_max: CONNECTIONS_MAX_DEFAULT,
            rejoin: false,
        }
    }

    /// Reads a TOML file. Not yet checked: flags may change it first.
    pub fn load(path: &Path) -> Result<NodeConfig, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: path.to_owned(), error: error.to_string() })?;
        NodeConfig::parse(&text, &path.display().to_string())
    }

    /// Reads TOML; `origin` names it in errors.
    pub fn parse(text: &str, origin: &str) -> Result<NodeConfig, ConfigError> {
        toml::from_str(text).map_err(|error| ConfigError::Syntax {
            origin: origin.to_owned(),
            line: error.span().map_or(1, |span| line_of(text, span.start)),
            message: error.message().split_whitespace().collect::<Vec<_>>().join(" "),
        })
    }

    /// Whether the node could run with this. Says the first thing that is wrong.
    pub fn check(&self) -> Result<(), ConfigError> {
        check_node("node", self.node)?;
        if self.data.as_os_str().is_empty() {
            return Err(value("data", "", "name the directory that holds this node's data"));
        }
        check_address("client", &self.client)?;
        check_address("peer", &self.peer)?;
        if self.client == self.peer && !self.client.ends_with(":0") {
            return Err(value("peer", &self.peer, "is the client address too; give each its own port"));
        }
        self.check_members()?;
        within("cores", u64::from(self.cores), 0, CORES_MAX as u64)?;
        let members = self.members.len().max(1);
        within("copies", u64::from(self.copies), 0, HOLDERS_MAX.min(members) as u64)?;
        within("image_bytes_max", self.image_bytes_max, 1, IMAGE_BYTES_MAX)?;
        within("segment_bytes", self.segment_bytes.into(), SEGMENT_BYTES_MIN.into(), SEGMENT_BYTES_MAX.into())?;
        if !self.segment_bytes.is_multiple_of(SEGMENT_BYTES_MIN) {
            return Err(value("segment_bytes", self.segment_bytes, "must be a multiple of 1048576 (1 MiB)"));
        }
        within("cache_bytes", self.cache_bytes, 0, CACHE_BYTES_MAX)?;
        within("upload_idle_seconds", self.upload_idle_seconds, 1, IDLE_SECONDS_MAX)?;
        within("session_idle_seconds", self.session_idle_seconds, 1, IDLE_SECONDS_MAX)?;
        within("scrub_seconds", self.scrub_seconds, 0, IDLE_SECONDS_MAX)?;
        within("connections_max", self.connections_max.into(), 1, CONNECTIONS_MAX_BOUND.into())
    }

    fn check_members(&self) -> Result<(), ConfigError> {
        if self.members.is_empty() {
            return Ok(());
        }
        within("members", self.members.len() as u64, 1, NODES_MAX as u64)?;
        let mut seen: HashSet<&str> = HashSet::new();
        let mut nodes: HashSet<u64> = HashSet::new();
        for member in &self.members {
            check_node("members.node", member.node)?;
            if !nodes.insert(member.node) {
                return Err(value("members.node", member.node, "is there twice; each node has its own id"));
            }
            for (key, address) in [("members.client", &member.client), ("members.peer", &member.peer)] {
                check_address(key, address)?;
                if !seen.insert(address) {
                    return Err(value(key, address, "is there twice; each listener has its own address"));
                }
            }
        }
        if !nodes.contains(&self.node) {
            return Err(value("node", self.node, "is not among the members; add it there, the same on every node"));
        }
        Ok(())
    }

    /// The node's id.
    pub fn node_id(&self) -> NodeId {
        NodeId(self.node)
    }

    /// The initial members, sorted by id: as configured, or this node alone.
    pub fn members_or_self(&self) -> Vec<MemberConfig> {
        if self.members.is_empty() {
            return vec![MemberConfig { node: self.node, client: self.client.clone(), peer: self.peer.clone() }];
        }
        let mut members = self.members.clone();
        members.sort_by_key(|member| member.node);
        members
    }

    /// How many cores the node uses on this machine.
    pub fn cores_or_default(&self) -> u16 {
        if self.cores > 0 {
            return self.cores;
        }
        let available = std::thread::available_parallelism().map_or(1, |count| count.get());
        u16::try_from(available).unwrap_or(u16::MAX).min(CORES_DEFAULT_MAX)
    }

    /// The listening addresses that other machines can reach. Nobody who connects is asked who they are, so each deserves
    /// a warning.
    pub fn open_addresses(&self) -> Vec<&str> {
        let is_open =
            |address: &&str| resolve(address).is_ok_and(|found| found.iter().any(|socket| !socket.ip().is_loopback()));
        [self.client.as_str(), self.peer.as_str()].into_iter().filter(is_open).collect()
    }
}

/// The socket addresses of "host:port".
pub(crate) fn resolve(address: &str) -> std::io::Result<Vec<SocketAddr>> {
    address.to_socket_addrs().map(Iterator::collect)
}

fn line_of(text: &str, position: usize) -> usize {
    1 + text.as_bytes().iter().take(position).filter(|&&byte| byte == b'\n').count()
}

fn value(key: &'static str, found: impl ToString, rule: &str) -> ConfigError {
    ConfigError::Value { key, found: found.to_string(), rule: rule.to_owned() }
}

fn within(key: &'static str, found: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if found < min || found > max {
        return Err(value(key, found, &format!("must be {min} to {max}")));
    }
    Ok(())
}

fn check_node(key: &'static str, node: u64) -> Result<(), ConfigError> {
    if node == 0 {
        return Err(value(key, node, "must be at least 1"));
    }
    Ok(())
}

fn check_address(key: &'static str, address: &str) -> Result<(), ConfigError> {
    let rule = "must be \"host:port\", for example \"127.0.0.1:7400\"";
    let Some((host, port)) = address.rsplit_once(':') else { return Err(value(key, address, rule)) };
    if host.is_empty() || port.parse::<u16>().is_err() || address.len() > ADDRESS_BYTES_MAX {
        return Err(value(key, address, rule));
    }
    Ok(())
}

#[cfg(test)]
#[path = "config_test.rs"]
mod tests;

//! The command line of `helio`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use proto::ids::ImageId;

use crate::command::log::{IndexRange, Kind};
use crate::exit::EXIT_CODES;
use crate::moment;

const EXAMPLES: &str = "\
Examples:
  helio demo
  helio node --id 1 --data d1 --member 1=127.0.0.1:7401,127.0.0.1:7501 \\
             --member 2=127.0.0.1:7402,127.0.0.1:7502 --member 3=127.0.0.1:7403,127.0.0.1:7503
  export HELIO_NODES=127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403
  helio register gallery
  helio send cat.png --from camera --to gallery
  helio inbox gallery --out pictures --follow
  helio status
";

/// Heliograph sends images: hand one to any node, and the named receiver gets it, whatever single machine dies on the way.
#[derive(Parser, Debug)]
#[command(name = "helio", version, max_term_width = 110, after_help = format!("{EXAMPLES}\n{EXIT_CODES}"))]
pub struct Arguments {
    /// What to log, e.g. `info`, `debug`, `node=debug,raft=info`. Logs go to standard error.
    #[arg(long, global = true, env = "RUST_LOG", value_name = "FILTER", hide_env_values = true)]
    pub log: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a node until SIGTERM or SIGINT
    Node(Box<NodeArguments>),
    /// Give names an inbox
    Register(RegisterArguments),
    /// Send images
    Send(SendArguments),
    /// Receive images
    Inbox(InboxArguments),
    /// Ask nodes how they are
    Status(StatusArguments),
    /// Look into the log files of a node, also while it writes them
    #[command(subcommand)]
    Log(LogCommand),
    /// Look into the snapshots of a node
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// Tell an image's life from the data directories of nodes, running or not
    Trace(TraceArguments),
    /// Check whether this machine can run a node, and say the remedy if not
    Doctor(DoctorArguments),
    /// See it work: starts three nodes on this machine, kills one of them, and compares every byte
    Demo(DemoArguments),
}

/// How to reach a cluster.
#[derive(Args, Debug, Clone)]
pub struct Nodes {
    /// Nodes to ask, "host:port" of their client addresses. Any one is enough; more let the others die.
    #[arg(long, env = "HELIO_NODES", value_delimiter = ',', default_value = node::config::CLIENT_ADDRESS_DEFAULT, value_name = "HOST:PORT,...")]
    pub nodes: Vec<String>,
    /// Take only the cluster with this id (32 hex digits, from `helio status`).
    #[arg(long, value_name = "ID")]
    pub cluster: Option<String>,
    /// Give up after this long.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub timeout: u64,
}

/// How the log becomes durable.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// What measured better.
    Auto,
    /// Mapped, then fdatasync.
    Mmap,
    /// O_DIRECT and O_DSYNC.
    Direct,
}

const NODE_KEYS: &str = "\
Configuration file (--config), TOML. Each flag is a key there, with _ for -, but --id is `node`, and --member is one [[members]] \
with `node`, `client` and `peer`. Flags win over the file. Sizes are bytes in the file; a flag also takes K, M, G. An unknown key \
is an error.

  key                   default           unit     what
  node                  required                   this node's id, at least 1; stays for its data
  data                  required                   the data directory
  client                \"127.0.0.1:7400\"           where to listen for clients
  peer                  \"127.0.0.1:7500\"           where to listen for other nodes
  members               []                         the initial nodes, the same on each
  cores                 0                          0: the machine's, at most 4; stays for its data
  copies                0                          0: one more than may fail; see below
  image_bytes_max       67108864          bytes    largest image, at most 1 GiB; see below
  segment_bytes         67108864          bytes    of a log file
  cache_bytes           67108864          bytes    of recent images in memory, for each core
  reserve_bytes         268435456         bytes    of the filesystem, never taken by images
  flush                 \"auto\"                     how the log is synced: auto, direct, mmap
  upload_idle_seconds   3600              seconds  until an upload without progress is dropped
  session_idle_seconds  604800            seconds  until an unused session of a sender ends
  scrub_seconds         86400             seconds  between two readings of all on disk; 0: never
  connections_max       4096                       of clients at a time

`copies` (nodes that must have the bytes) and `image_bytes_max` count only when the cluster forms: it keeps them.

A server listens on loopback unless told otherwise: there is no authentication yet, so put no open port where others are.";

/// `helio node`.
#[derive(Args, Debug)]
#[command(after_help = NODE_KEYS)]
pub struct NodeArguments {
    /// Configuration, TOML.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// This node's id, at least 1.
    #[arg(long, value_name = "N", required_unless_present = "config")]
    pub id: Option<u64>,
    /// The data directory.
    #[arg(long, value_name = "DIR", required_unless_present = "config")]
    pub data: Option<PathBuf>,
    /// Where to listen for clients [default: as this node's --member says, else 127.0.0.1:7400]
    #[arg(long, value_name = "HOST:PORT")]
    pub client: Option<String>,
    /// Where to listen for other nodes [default: as this node's --member says, else 127.0.0.1:7500]
    #[arg(long, value_name = "HOST:PORT")]
    pub peer: Option<String>,
    /// An initial member; once for each, this node included, the same on every node. None: a cluster of one.
    #[arg(long = "member", value_name = "ID=CLIENT,PEER", value_parser = parse_member)]
    pub members: Vec<node::MemberConfig>,
    /// Cores to use [default: as many as the machine has, at most 4]
    #[arg(long, value_name = "N")]
    pub cores: Option<u16>,
    /// Copies of each image that make it accepted [default: one more than the nodes that may fail]
    #[arg(long, value_name = "N")]
    pub copies: Option<u8>,
    /// Largest image, in bytes or with K, M, G [default: 64M]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub image_bytes_max: Option<u64>,
    /// Size of a log segment [default: 64M]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub segment_bytes: Option<u64>,
    /// Recent image bytes each core keeps in memory [default: 64M]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub cache_bytes: Option<u64>,
    /// Part of the filesystem that images never take [default: 256M]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub reserve_bytes: Option<u64>,
    /// How the log becomes durable [default: auto]
    #[arg(long)]
    pub flush: Option<Flush>,
    /// Incomplete uploads without progress are dropped after this [default: 3600]
    #[arg(long, value_name = "SECONDS")]
    pub upload_idle_seconds: Option<u64>,
    /// A sender's session ends after this long without use [default: 604800]
    #[arg(long, value_name = "SECONDS")]
    pub session_idle_seconds: Option<u64>,
    /// All stored bytes are read again this often, at the soonest; 0 for never [default: 86400]
    #[arg(long, value_name = "SECONDS")]
    pub scrub_seconds: Option<u64>,
    /// Client connections at a time [default: 4096]
    #[arg(long, value_name = "N")]
    pub connections_max: Option<u32>,
    /// The data directory of this member is gone for good: ask the leader to take the node in again with a new one. What
    /// is left of the old one is set aside in it as before-rejoin-N; it must never be used again.
    #[arg(long)]
    pub rejoin: bool,
    /// End when standard input closes: the program that started the node has gone.
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}

/// `helio register`.
#[derive(Args, Debug)]
pub struct RegisterArguments {
    /// Names, 1 to 128 bytes each.
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
    /// Where.
    #[command(flatten)]
    pub nodes: Nodes,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `helio send`.
#[derive(Args, Debug)]
#[command(after_help = "\
Accepted means: a majority of the nodes has the record and at least `copies` nodes have the bytes, all synced to disk.
Exit code 0 only if every file was accepted. An interrupted `send` may be repeated, but then it is a new image.

Example:
  helio send *.jpg --from camera --to gallery,archive")]
pub struct SendArguments {
    /// Files to send, in this order.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Receivers.
    #[arg(long, required = true, value_delimiter = ',', value_name = "NAME,...")]
    pub to: Vec<String>,
    /// Who sends, as told to receivers.
    #[arg(long, value_name = "NAME", default_value = "helio")]
    pub from: String,
    /// Images under way at a time. With more than 1, one may overtake the other on its way into the inbox.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub in_flight: usize,
    /// Where.
    #[command(flatten)]
    pub nodes: Nodes,
    /// Print one JSON object a file.
    #[arg(long)]
    pub json: bool,
}

/// `helio inbox`.
#[derive(Args, Debug)]
#[command(after_help = "\
Each image is written under its place in the inbox and a safe form of its own name (000000000001-cat.png), synced, and only \
then acknowledged; the cluster then frees it. Without --follow the command ends when the inbox is empty, and fails (exit \
code 4) when nothing moves for --timeout and the home does not say that it is.

DIR also gets a file .heliograph-inbox, which says whose images these are (cluster and inbox): a later run goes on behind \
them, takes none twice, and refuses to mix two inboxes. Keep it as long as images are received there. What is coming just \
now is in .heliograph-partial.

Example:
  helio inbox gallery --out pictures --follow")]
pub struct InboxArguments {
    /// The receiver.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Go on until interrupted.
    #[arg(long)]
    pub follow: bool,
    /// Where the files go; made if missing.
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub out: PathBuf,
    /// Without --follow: ends when nothing came for this long and there is nothing more. All that was accepted before it asked
    /// for that, at whatever node, is there then.
    #[arg(long, default_value_t = 0.25, value_name = "SECONDS")]
    pub wait: f64,
    /// Where.
    #[command(flatten)]
    pub nodes: Nodes,
    /// Print one JSON object an image.
    #[arg(long)]
    pub json: bool,
}

/// `helio status`.
#[derive(Args, Debug)]
#[command(after_help = "Exit code 0 if a majority of the voters answered.")]
pub struct StatusArguments {
    /// Where.
    #[command(flatten)]
    pub nodes: Nodes,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `helio snapshot`.
#[derive(Subcommand, Debug)]
pub enum SnapshotCommand {
    /// Index, term, clients, sessions and undelivered images, and whether it is whole
    Inspect(SnapshotArguments),
}

/// `helio snapshot inspect`.
#[derive(Args, Debug)]
pub struct SnapshotArguments {
    /// A snapshot, or a data directory for all of its snapshots; of a running node, too. Nothing is written.
    #[arg(value_name = "FILE-or-DIR")]
    pub path: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `helio log`.
#[derive(Subcommand, Debug)]
pub enum LogCommand {
    /// Every entry, or those that pass the filters: segment, offset, term, index, kind, decoded record
    Dump(Box<DumpArguments>),
    /// Entries and bytes by kind, bytes per Ready record, range of indexes, flush rounds
    Stat(LogArguments),
    /// What is damaged, why, and what the node will do at its next start
    Verify(VerifyArguments),
    /// Do to the files of a stopped node what the node itself would do at its next start
    Repair(RepairArguments),
}

/// `helio log repair`.
#[derive(Args, Debug)]
#[command(after_help = "\
What a start does by itself, without starting: files that were never finished are removed, chunk files and a ring of round \
identifiers that were cut off get their length, a last round that was never finished is cut off and zeroed, and so is what is \
damaged, once it is noted that entries are lost. Those come from the other nodes when the node runs. Snapshots that cannot be \
read stay: the node removes them when it has made others. Without --yes nothing is written, and the exit code is that of `log \
verify`; with it 0. A directory that the node would refuse is refused (14), and so is that of a running node (5).")]
pub struct RepairArguments {
    /// The data directory of a stopped node.
    #[arg(value_name = "DIR")]
    pub path: PathBuf,
    /// Do it. Without, it is only said.
    #[arg(long)]
    pub yes: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `helio log verify`.
#[derive(Args, Debug)]
pub struct VerifyArguments {
    /// The data directory of a stopped node, or a copy of it. Nothing is written. Of a running node the last round may look
    /// torn. All that the start reads is judged, by its own code: marker, identity, vote, log, snapshots, headers and slot
    /// tables of chunk files; the bytes of images are not read.
    #[arg(value_name = "DIR")]
    pub path: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `helio log stat`.
#[derive(Args, Debug)]
pub struct LogArguments {
    /// A segment, the folder with the segments, or a data directory. Best of a stopped node; of a running one the last
    /// entries may be missing.
    #[arg(value_name = "FILE-or-DIR")]
    pub path: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `helio log dump`.
#[derive(Args, Debug)]
#[command(after_help = "\
An entry is shown if it passes every filter that is given. Damaged places are always shown, and so are entries of a newer \
version, whose record this program does not understand. Nothing is written.

The entries stand as they were written. One that was replaced, after a change of leader, is followed by another with the \
same index: the later one counts. Committed is what has an index up to a later `commit`.

--follow needs the data directory (or its folder `log`) and goes on over new segments until Ctrl-C. An entry that the node is \
just writing is shown when it is whole. If the node cuts its log because it heals, a line on standard error says where.

Examples:
  helio log dump d1 --kind ready,acked --since 2026-11-22T18:00:00Z
  helio log dump d1 --image s4.1
  helio log dump d1 --client gallery --follow --json")]
pub struct DumpArguments {
    /// A segment, the folder with the segments, or a data directory. Of a running node the last entry may look damaged, as it
    /// is just being written.
    #[arg(value_name = "FILE-or-DIR")]
    pub path: PathBuf,
    /// What to show.
    #[command(flatten)]
    pub filter: FilterArguments,
    /// Go on with what a running node writes, until interrupted or until nobody reads the output.
    #[arg(long)]
    pub follow: bool,
    /// Print JSON, one object an entry.
    #[arg(long)]
    pub json: bool,
}

/// Which entries of a log are shown.
#[derive(Args, Debug)]
pub struct FilterArguments {
    /// Only these indexes: 7, 7..12 (both included), 7.. or ..12
    #[arg(long, value_name = "FROM..TO")]
    pub index: Option<IndexRange>,
    /// Only entries of this term.
    #[arg(long, value_name = "T")]
    pub term: Option<u64>,
    /// Only these kinds, as they are printed: register, session, ready, acked, ring, genesis, expire, probe, lost, term (the
    /// first entry of a term), seal (the last of a segment).
    #[arg(long, value_name = "KIND,...", value_delimiter = ',', hide_possible_values = true)]
    pub kind: Vec<Kind>,
    /// Only the records that made this image ready: its id as `helio send` prints it, e.g. s4.1. `helio trace` tells its whole
    /// life.
    #[arg(long, value_name = "SESSION.SEQUENCE")]
    pub image: Option<ImageId>,
    /// Only records of this client, as sender or receiver. Records hold ids; their names are taken from the entries `register`
    /// and `session` of the same log. If these are not in it, a line on standard error says so.
    #[arg(long, value_name = "NAME")]
    pub client: Option<String>,
    /// Only records from this moment on, by the clock of the leader that wrote them: 2026-11-22T18:00:00Z, or seconds or
    /// milliseconds since 1970. Entries without record (empty, seal) have no time.
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    pub since: Option<u64>,
    /// Only records up to this moment, itself included.
    #[arg(long, value_name = "TIME", value_parser = moment::parse)]
    pub until: Option<u64>,
}

/// `helio trace`.
#[derive(Args, Debug)]
#[command(after_help = "\
For each event a line: the leader's clock, index and term of its record, and the nodes among the given ones that have it.
  session   who began to send
  ready     the image is accepted: for whom, as which place of their inboxes, who has its bytes
  acked     a receiver has it; the record may acknowledge later images as well
  freed     every receiver of a ready record has it: its holders may free the bytes
  refused   a ready record that came to nothing, e.g. other bytes under a known id
When it was delivered is not recorded on disk, and neither are the images that are on their way to being accepted. A record \
that may not be committed yet is marked with \"?\".

Then for each directory: which entries it has and lacks, and the chunks of the image that its slot tables name now. A slot \
may stay for a while after its bytes were freed. The chunks themselves are not read.

Places in inboxes are counted from entry 1 on. Where none of the logs begins there, or all of them lack an entry, the places \
behind it are not known, and one line says so. Data directories of running nodes, of stopped ones and copies may be mixed; \
nothing is written.

Exit code 0 if a record or a chunk of the image was found anywhere, 15 if not.

Examples:
  helio trace s4.1 --data d1 d2 d3
  helio trace s4.1 --data /srv/heliograph --json")]
pub struct TraceArguments {
    /// The image: its id as `helio send` and `helio inbox` print it, e.g. s4.1.
    #[arg(value_name = "IMAGE_ID")]
    pub image: ImageId,
    /// Data directories of nodes of one cluster. The more, the more is known.
    #[arg(long, required = true, num_args = 1.., value_name = "DIR")]
    pub data: Vec<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// `helio doctor`.
#[derive(Args, Debug)]
pub struct DoctorArguments {
    /// The data directory that a node would use.
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub data: PathBuf,
    /// Cores that a node would use [default: as many as the machine has, at most 4]
    #[arg(long, value_name = "N")]
    pub cores: Option<u16>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `helio demo`.
#[derive(Args, Debug)]
pub struct DemoArguments {
    /// Send the files of this folder instead of the built-in photographs.
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,
    /// At most this many images.
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub images_count: usize,
    /// Where the nodes keep their data meanwhile [default: the system's folder for temporary files]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave the nodes' data and logs, and say where they are.
    #[arg(long)]
    pub keep: bool,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    pub json: bool,
}

fn parse_member(text: &str) -> Result<node::MemberConfig, String> {
    let shape = "expected ID=CLIENT,PEER, for example 1=127.0.0.1:7401,127.0.0.1:7501";
    let (node, addresses) = text.split_once('=').ok_or(shape)?;
    let (client, peer) = addresses.split_once(',').ok_or(shape)?;
    let node = node.trim().parse().map_err(|_| shape)?;
    Ok(node::MemberConfig { node, client: client.trim().to_owned(), peer: peer.trim().to_owned() })
}

/// Bytes, as a number with or without K, M or G (powers of 1024).
fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.trim_end_matches(['i', 'B']) {
        plain if plain.ends_with(['k', 'K']) => (&plain[..plain.len() - 1], 10),
        plain if plain.ends_with(['m', 'M']) => (&plain[..plain.len() - 1], 20),
        plain if plain.ends_with(['g', 'G']) => (&plain[..plain.len() - 1], 30),
        plain => (plain, 0),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is no size; examples: 1048576, 512K, 64M, 1G"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text} is too large"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use clap::CommandFactory;
    use serde_json::{Value, json};

    use super::{Arguments, NODE_KEYS, parse_member, parse_size};

    /// Every key of the configuration file with its default.
    fn keys() -> BTreeMap<String, Value> {
        let config = serde_json::to_value(node::NodeConfig::new(1, "/srv/heliograph")).unwrap();
        config.as_object().unwrap().clone().into_iter().collect()
    }

    #[test]
    fn every_key_is_a_flag_and_stands_in_the_help_with_its_default() {
        let mut told = BTreeMap::new();
        let table = NODE_KEYS.lines().skip_while(|line| !line.starts_with("  key ")).skip(1);
        for line in table.take_while(|line| line.starts_with("  ")).filter(|line| !line.starts_with("    ")) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let default = if words[1] == "required" { Value::Null } else { serde_json::from_str(words[1]).unwrap() };
            let unit = [("_bytes", "bytes"), ("_seconds", "seconds")].iter().find(|(part, _)| words[0].contains(part));
            assert!(unit.is_none_or(|(_, unit)| words[2] == *unit), "no unit: {line}");
            told.insert(words[0].to_owned(), default);
        }
        let mut expected = keys();
        for required in ["node", "data"] {
            expected.insert(required.to_owned(), Value::Null);
        }
        assert_eq!(told, expected);
        let mut command = Arguments::command();
        command.build();
        let node = command.find_subcommand("node").unwrap();
        let flags: Vec<&str> = node.get_arguments().filter_map(|argument| argument.get_long()).collect();
        for key in keys().keys() {
            let flag = match key.as_str() {
                "node" => "id".to_owned(),
                "members" => "member".to_owned(),
                other => other.replace('_', "-"),
            };
            assert!(flags.contains(&flag.as_str()), "--{flag} is not among {flags:?}");
        }
    }

    #[test]
    fn table_of_keys_is_not_wrapped_where_the_width_is_unknown() {
        for line in NODE_KEYS.lines().filter(|line| line.starts_with("  ")) {
            assert!(line.len() <= 100, "{} characters: {line}", line.len());
        }
    }

    #[test]
    fn configuration_of_the_readme_has_every_key_with_its_default() {
        let readme = include_str!("../../README.md");
        let block = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let mut told: BTreeMap<String, Value> = toml::from_str(block).unwrap();
        let members = told.insert("members".to_owned(), json!([])).unwrap();
        assert_eq!(members.as_array().unwrap().len(), 1);
        assert_eq!(told, keys());
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn sizes_and_members_are_read_or_refused() {
        assert_eq!(parse_size("4096"), Ok(4096));
        assert_eq!(parse_size("64M"), Ok(64 << 20));
        assert_eq!(parse_size("2KiB"), Ok(2048));
        assert!(parse_size("many").is_err());
        assert!(parse_size("99999999999G").is_err());
        let member = parse_member("2=a:1,b:2").unwrap();
        assert_eq!((member.node, member.client.as_str(), member.peer.as_str()), (2, "a:1", "b:2"));
        assert!(parse_member("a:1,b:2").is_err());
        assert!(parse_member("1=a:1").is_err());
    }
}

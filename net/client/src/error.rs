//! What the blocking shells answer when something did not work: the facts, and one line with the remedy.

use std::path::PathBuf;

use proto::error::Refusal;
use proto::ids::{ClusterId, InboxId};
use proto::name::NameError;

use crate::session::{SessionFailure, Trouble};
use crate::troubles::Troubles;

/// Why a call of the client failed. `Display` is one line for people, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No address was given.
    #[error("no node given: name at least one as host:port")]
    NoNodes,
    /// A name that no client can have.
    #[error("the name {name:?} cannot be a client's: {reason}")]
    NameInvalid {
        /// The name.
        name: String,
        /// The rule it breaks.
        reason: NameError,
    },
    /// The session as a whole ended.
    #[error("{}", failure_line(.0))]
    Session(SessionFailure),
    /// Nothing happened until the deadline.
    #[error("{what} was not done within {seconds} s{}", troubles_line(.troubles))]
    TimedOut {
        /// What was wanted.
        what: &'static str,
        /// How long it waited.
        seconds: u64,
        /// What went wrong with whom.
        troubles: Troubles,
    },
    /// A node refused for good.
    #[error("{}", refusal_line(*.refusal, .text))]
    Refused {
        /// Why.
        refusal: Refusal,
        /// For people, from the node.
        text: String,
    },
    /// One connection failed (only calls that are bound to one connection say so).
    #[error("connection to {address}: {text}")]
    Connection {
        /// Which node.
        address: String,
        /// What happened.
        text: String,
    },
    /// A local file could not be read or written.
    #[error("{path}: {error}", path = path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A directory holds images of another inbox.
    #[error(
        "{path} holds images of inbox {found} of cluster {found_cluster}, not of inbox {expected} of cluster \
         {expected_cluster}: choose another directory",
        path = path.display()
    )]
    DirectoryOfOtherInbox {
        /// The directory.
        path: PathBuf,
        /// The inbox it belongs to.
        found: InboxId,
        /// The cluster of that inbox.
        found_cluster: ClusterId,
        /// The inbox that was opened.
        expected: InboxId,
        /// Its cluster.
        expected_cluster: ClusterId,
    },
    /// The sender was dropped before the image was accepted; it may still become accepted.
    #[error("the sender was closed before the image was accepted; it may still become accepted")]
    Closed,
    /// The background thread of a shell could not be started, or is gone, which is an error of this library.
    #[error("the sender's thread could not be started or ended unexpectedly; please report this")]
    ThreadEnded,
}

/// Why one image was not accepted. `Display` is one line for people, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Not accepted, and it will not be.
    #[error("{}", refusal_line(*.refusal, .text))]
    Refused {
        /// Why.
        refusal: Refusal,
        /// For people, from the node.
        text: String,
    },
    /// No confirmation until the deadline: if it was begun, it may still be accepted later.
    #[error(
        "not accepted within {seconds} s{}{}",
        troubles_line(.troubles),
        if *.begun { "; it may still become accepted" } else { "" }
    )]
    Unconfirmed {
        /// Whether a node was ever told of it.
        begun: bool,
        /// How long it waited without progress.
        seconds: u64,
        /// What went wrong with whom.
        troubles: Troubles,
    },
    /// The bytes could not be read.
    #[error("{name}: {error}")]
    Source {
        /// The file or source.
        name: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// The bytes changed between computing the checksum and sending them.
    #[error("{name} changed while it was being sent: send it again when nobody writes to it")]
    SourceChanged {
        /// The file or source.
        name: String,
    },
    /// The session ended before.
    #[error(transparent)]
    Client(#[from] ClientError),
}

/// The likely cause with its remedy, then what each node said.
fn troubles_line(troubles: &Troubles) -> String {
    let list = troubles.list();
    let cause = match (troubles.cause(), list) {
        (_, []) => return String::new(),
        (None, [Trouble { address, text, .. }]) => {
            return format!(": {address}: {} (is the node running, and is this its client address?)", plain(text));
        }
        (Some(refusal), [Trouble { refusal: Some(said), text, .. }]) if refusal == *said => {
            return format!(": {}", refusal_line(refusal, text));
        }
        (Some(refusal), _) => refusal_line(refusal, ""),
        (None, _) => "no node answers: are they running, and are these their client addresses?".to_owned(),
    };
    let mut told: Vec<String> = list.iter().take(TROUBLES_SHOWN_MAX).map(trouble_words).collect();
    told.sort_unstable();
    let more = list.len() - told.len();
    let more = if more > 0 { format!(", and {more} more") } else { String::new() };
    format!(": {cause} [{}{more}]", told.join(", "))
}

/// What one node said, or what came of trying to reach it.
fn trouble_words(trouble: &Trouble) -> String {
    let said = match trouble.refusal {
        Some(refusal) if trouble.text.is_empty() => refusal_words(refusal).0.to_owned(),
        _ => plain(&trouble.text),
    };
    format!("{}: {said}", trouble.address)
}

/// What a refusal means for people, the node's own words, and what to do.
fn refusal_line(refusal: Refusal, text: &str) -> String {
    let (meaning, remedy) = refusal_words(refusal);
    let text = plain(text);
    if text.is_empty() { format!("{meaning}: {remedy}") } else { format!("{meaning} ({text}): {remedy}") }
}

/// Text from the network goes to a terminal: one line, nothing that controls it.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(TEXT_CHARACTERS_MAX).collect()
}

/// What a refusal means, and what to do.
fn refusal_words(refusal: Refusal) -> (&'static str, &'static str) {
    match refusal {
        Refusal::UnknownReceiver => ("unknown receiver", "register the name first, or correct it"),
        Refusal::ImageTooLarge => ("image too large", "send a smaller one, or raise image_bytes_max of the cluster"),
        Refusal::ImageEmpty => ("image empty", "an image has at least one byte"),
        Refusal::NoSpace => ("no space", "free disk space on the nodes, or let receivers fetch what waits for them"),
        Refusal::Busy => ("the cluster is busy", "try again later"),
        Refusal::NoLeader => ("no majority of the nodes is reachable", "start the nodes that are down"),
        Refusal::WrongCluster => ("wrong cluster", "check the node's address and the cluster id"),
        Refusal::BadRequest => ("bad request", "use a client of the same version as the nodes"),
        Refusal::DifferentBytes => ("other bytes under a known image id", "send it as a new image"),
        Refusal::SessionUnknown => {
            ("the sending session is not known any more", "ask the receiver what arrived, then send the rest anew")
        }
        Refusal::OutOfWindow => ("too many images in flight", "wait for earlier ones"),
        Refusal::AlreadyFinished => ("the image was finished before", "nothing is left to do for it"),
        Refusal::VersionUnsupported => ("no common protocol version", "upgrade the older of client and node"),
        Refusal::NotHome => ("not the receiver's home now", "try again in a moment"),
        Refusal::NameInvalid => ("invalid name", "use letters, digits, '.', '_' and '-'"),
        Refusal::NotReady => ("the node is not ready", "wait until the cluster is formed, or look at the node's log"),
        Refusal::Superseded => ("a newer session of the same inbox took over", "run one receiver for each name"),
        Refusal::NotHeld => ("the bytes are not there now", "start the nodes that hold them"),
        Refusal::Damaged => ("accepted before, and lost: no node has its bytes any more", "send it as a new image"),
        Refusal::NotMember => ("the other end is no member", "check the node's address"),
    }
}

fn failure_line(failure: &SessionFailure) -> String {
    match failure {
        SessionFailure::WrongCluster { address, text } => {
            format!("{address}: {}", refusal_line(Refusal::WrongCluster, text))
        }
        SessionFailure::VersionUnsupported { address, text } => {
            format!("{address}: {}", refusal_line(Refusal::VersionUnsupported, text))
        }
        SessionFailure::SessionUnknown { text } => refusal_line(Refusal::SessionUnknown, text),
        SessionFailure::Superseded { text } => refusal_line(Refusal::Superseded, text),
        SessionFailure::UnknownReceiver { name } => format!("no client {name:?} is registered: register it first"),
        SessionFailure::InboxChanged { expected, found } => format!(
            "the name has inbox {found} now and had {expected} before: the cluster was made anew; start the receiver again"
        ),
        SessionFailure::Refused { refusal, text, .. } => refusal_line(*refusal, text),
    }
}

/// Nodes whose last words one line shows.
const TROUBLES_SHOWN_MAX: usize = 7;
/// Characters of a node's text that are shown.
const TEXT_CHARACTERS_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use proto::error::Refusal;

    use super::{ClientError, SendError};
    use crate::session::{SessionFailure, Trouble};

    fn check(error: impl std::fmt::Display, expected: &str) {
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn error_is_one_line_with_the_remedy() {
        check(ClientError::NoNodes, "no node given: name at least one as host:port");
        check(
            SendError::Refused { refusal: Refusal::UnknownReceiver, text: "\"nobody\"\n\x1b[2J".to_owned() },
            "unknown receiver (\"nobody\"  [2J): register the name first, or correct it",
        );
        let trouble =
            |refusal, text: &str| Trouble { address: "127.0.0.1:9".to_owned(), refusal, text: text.to_owned() };
        let only = |refusal, text: &str| [trouble(refusal, text)].into_iter().collect();
        check(
            SendError::Unconfirmed { begun: true, seconds: 60, troubles: only(Some(Refusal::NoLeader), "1 of 3 up") },
            "not accepted within 60 s: no majority of the nodes is reachable (1 of 3 up): start the nodes that are down; \
             it may still become accepted",
        );
        check(
            ClientError::TimedOut { what: "opening a session", seconds: 5, troubles: only(None, "connection refused") },
            "opening a session was not done within 5 s: 127.0.0.1:9: connection refused (is the node running, and is \
             this its client address?)",
        );
        check(
            ClientError::Session(SessionFailure::WrongCluster { address: "h:1".to_owned(), text: String::new() }),
            "h:1: wrong cluster: check the node's address and the cluster id",
        );
    }

    #[test]
    fn what_each_node_said_stands_behind_the_cause() {
        let trouble = |address: &str, refusal, text: &str| Trouble {
            address: address.to_owned(),
            refusal,
            text: text.to_owned(),
        };
        let timed_out = |list: &[Trouble]| ClientError::TimedOut {
            what: "opening a session",
            seconds: 5,
            troubles: list.iter().rev().cloned().collect(),
        };
        let (down, busy) = (trouble("a:1", None, "refused"), trouble("b:1", Some(Refusal::Busy), ""));
        let silent = trouble("c:1", Some(Refusal::NoLeader), "no\tanswer");
        check(
            timed_out(&[down.clone(), busy, silent.clone()]),
            "opening a session was not done within 5 s: the cluster is busy: try again later [a:1: refused, b:1: the \
             cluster is busy, c:1: no answer]",
        );
        check(
            timed_out(&[down.clone(), silent]),
            "opening a session was not done within 5 s: no majority of the nodes is reachable: start the nodes that are \
             down [a:1: refused, c:1: no answer]",
        );
        let many: Vec<Trouble> = (0..9).map(|number| trouble(&format!("n{number}"), None, "refused")).collect();
        check(
            timed_out(&many),
            "opening a session was not done within 5 s: no node answers: are they running, and are these their client \
             addresses? [n0: refused, n1: refused, n2: refused, n3: refused, n4: refused, n5: refused, n6: refused, and 2 \
             more]",
        );
        check(timed_out(&[]), "opening a session was not done within 5 s");
    }

    #[test]
    fn every_refusal_has_a_line_of_its_own() {
        let lines: std::collections::BTreeSet<String> =
            Refusal::ALL.iter().map(|refusal| super::refusal_line(*refusal, "")).collect();
        assert_eq!(lines.len(), Refusal::ALL.len());
    }
}

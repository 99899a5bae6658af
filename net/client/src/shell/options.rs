//! What a program tells the client: where, which cluster, how long.

use std::time::Duration;

use proto::ids::ClusterId;

use crate::error::ClientError;
use crate::limits::DEADLINE_DEFAULT_US;
use crate::session::{Routing, SessionOptions};

/// Where and how to connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Nodes to begin with, "host:port". The others are learned from the ring.
    pub nodes: Vec<String>,
    /// The cluster expected, or `ClusterId::UNKNOWN` to take the first that answers.
    pub cluster: ClusterId,
    /// Which node to prefer for sending.
    pub routing: Routing,
    /// Time without progress after which a call gives up. `None`: never.
    pub deadline: Option<Duration>,
}

impl Options {
    /// Options with these nodes, any cluster, routing to the home, and the default deadline of 60 s.
    pub fn new<S: Into<String>>(nodes: impl IntoIterator<Item = S>) -> Options {
        Options {
            nodes: nodes.into_iter().map(Into::into).collect(),
            cluster: ClusterId::UNKNOWN,
            routing: Routing::Home,
            deadline: Some(Duration::from_micros(DEADLINE_DEFAULT_US)),
        }
    }

    /// The same for a pure session.
    pub(crate) fn session(&self) -> Result<SessionOptions, ClientError> {
        if self.nodes.is_empty() {
            return Err(ClientError::NoNodes);
        }
        Ok(SessionOptions {
            nodes: self.nodes.clone(),
            cluster: self.cluster,
            routing: self.routing,
            // Only for jitter: without randomness the sessions of one moment merely wait alike.
            seed: getrandom::u64().unwrap_or(0),
            deadline_us: self.deadline.map(|deadline| u64::try_from(deadline.as_micros()).unwrap_or(u64::MAX)),
        })
    }

    /// For errors.
    pub(crate) fn deadline_seconds(&self) -> u64 {
        self.deadline.map_or(0, |deadline| deadline.as_secs())
    }
}

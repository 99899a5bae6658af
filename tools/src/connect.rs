//! From the command line to the client library, and from its errors to exit codes.

use std::time::Duration;

use client::session::SessionFailure;
use client::{ClientError, Options, SendError};
use proto::error::Refusal;
use proto::ids::ClusterId;

use crate::args::Nodes;
use crate::exit::{Cause, Failure};

/// Client options as the command line says.
pub fn options(nodes: &Nodes) -> Result<Options, Failure> {
    let mut options = Options::new(nodes.nodes.iter().map(|node| node.trim()).filter(|node| !node.is_empty()));
    options.deadline = Some(Duration::from_secs(nodes.timeout.max(1)));
    if let Some(text) = &nodes.cluster {
        let id = u128::from_str_radix(text, 16).ok().filter(|&id| id != 0 && text.len() == 32);
        let Some(id) = id else {
            return Err(Failure::new(
                Cause::Usage,
                format!("--cluster {text}: expected 32 hex digits, as `helio status` prints them"),
            ));
        };
        options.cluster = ClusterId(id);
    }
    Ok(options)
}

/// Of a call that failed.
pub fn failure(error: &ClientError) -> Failure {
    Failure::new(cause_of(error), error)
}

/// Of an image that was not accepted.
pub fn send_failure(error: &SendError) -> Failure {
    let cause = match error {
        SendError::Refused { refusal, .. } => cause_of_refusal(*refusal),
        SendError::Unconfirmed { troubles, .. } => troubles.cause().map_or(Cause::Unreachable, cause_of_refusal),
        SendError::Source { .. } | SendError::SourceChanged { .. } => Cause::File,
        SendError::Client(error) => cause_of(error),
    };
    Failure::new(cause, error)
}

fn cause_of(error: &ClientError) -> Cause {
    match error {
        ClientError::NoNodes | ClientError::NameInvalid { .. } => Cause::Usage,
        ClientError::Session(failure) => match failure {
            SessionFailure::Refused { refusal, .. } => cause_of_refusal(*refusal),
            SessionFailure::WrongCluster { .. }
            | SessionFailure::VersionUnsupported { .. }
            | SessionFailure::SessionUnknown { .. }
            | SessionFailure::Superseded { .. }
            | SessionFailure::UnknownReceiver { .. }
            | SessionFailure::InboxChanged { .. } => Cause::Refused,
        },
        ClientError::TimedOut { troubles, .. } => troubles.cause().map_or(Cause::Unreachable, cause_of_refusal),
        ClientError::Refused { refusal, .. } => cause_of_refusal(*refusal),
        ClientError::Connection { .. } => Cause::Unreachable,
        ClientError::File { .. } | ClientError::DirectoryOfOtherInbox { .. } => Cause::File,
        ClientError::Closed | ClientError::ThreadEnded => Cause::Failed,
    }
}

fn cause_of_refusal(refusal: Refusal) -> Cause {
    match refusal {
        Refusal::NoSpace | Refusal::Busy => Cause::NoRoom,
        Refusal::NoLeader | Refusal::NotReady | Refusal::NotHome => Cause::Unreachable,
        Refusal::NameInvalid => Cause::Usage,
        _ => Cause::Refused,
    }
}

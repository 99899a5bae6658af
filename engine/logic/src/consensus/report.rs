//! What raft says about itself, passed on to `tracing`: its warnings as they are, its information as debug lines, and
//! nothing below, because raft formats each message it sends.

use std::fmt::{self, Write};

use raft::StateRole;
use slog::{Drain, KV, Key, Level, Logger, Never, OwnedKVList, Record, Serializer};

use super::role::RoleKind;

/// A logger for raft that writes to `tracing`.
pub fn logger() -> Logger {
    Logger::root(ToTracing, slog::o!())
}

/// Our name of raft's role.
pub fn kind_of(role: StateRole) -> RoleKind {
    match role {
        StateRole::Follower => RoleKind::Follower,
        StateRole::PreCandidate | StateRole::Candidate => RoleKind::Candidate,
        StateRole::Leader => RoleKind::Leader,
    }
}

struct ToTracing;

impl Drain for ToTracing {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        match record.level() {
            Level::Critical | Level::Error if tracing::enabled!(tracing::Level::ERROR) => {
                tracing::error!("raft: {}", line(record, values));
            }
            Level::Warning if tracing::enabled!(tracing::Level::WARN) => {
                tracing::warn!("raft: {}", line(record, values));
            }
            Level::Info if tracing::enabled!(tracing::Level::DEBUG) => {
                tracing::debug!("raft: {}", line(record, values));
            }
            _ => {}
        }
        Ok(())
    }

    fn is_enabled(&self, level: Level) -> bool {
        level.is_at_least(Level::Info)
    }
}

/// The message with its values behind it.
fn line(record: &Record<'_>, values: &OwnedKVList) -> String {
    let mut line = Line(record.msg().to_string());
    let told = record.kv().serialize(record, &mut line).and_then(|()| values.serialize(record, &mut line));
    if told.is_err() {
        line.0.push_str(" (values not printable)");
    }
    line.0
}

struct Line(String);

impl Serializer for Line {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        write!(self.0, " {key}={value}").map_err(slog::Error::from)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn line_has_the_message_and_all_values() {
        let owned = OwnedKVList::from(slog::o!("raft_id" => 3));
        let text = line(
            &slog::record!(Level::Info, "", &format_args!("became {}", "leader"), slog::b!("term" => 7, "log" => "a")),
            &owned,
        );
        assert!(text.starts_with("became leader"), "{text}");
        for value in ["term=7", "log=a", "raft_id=3"] {
            assert!(text.contains(value), "{text} lacks {value}");
        }
    }

    #[test]
    fn what_raft_says_at_each_message_is_not_even_formatted() {
        assert!(!ToTracing.is_enabled(Level::Debug));
        assert!(!ToTracing.is_enabled(Level::Trace));
        assert!(ToTracing.is_enabled(Level::Warning));
    }
}

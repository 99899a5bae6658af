//! Exit codes: one per cause, so that scripts need not read texts. The same list is in `helio --help` and the README.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// Why a command did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Cause {
    /// What was to be shown does not hold, or anything that has no code of its own.
    Failed = 1,
    /// The command line or the configuration is wrong. clap ends with the same code.
    Usage = 2,
    /// The cluster refused: unknown receiver, image too large or empty, wrong cluster, bad name.
    Refused = 3,
    /// No node can be reached, or the nodes have no majority.
    Unreachable = 4,
    /// The data directory is in use, not ours, damaged, or needs what this version cannot do.
    Data = 5,
    /// A port is taken or cannot be bound.
    Port = 6,
    /// The machine lacks something: io_uring, locked memory, a filesystem with O_DIRECT.
    Machine = 7,
    /// The node ended itself because a promise could not be kept otherwise, e.g. after a failed sync.
    Fatal = 8,
    /// The disks of the cluster have no room, or its queues are full.
    NoRoom = 9,
    /// A file of yours is missing, empty, or cannot be read or written.
    File = 10,
    /// `log verify`: the last round was never finished.
    Torn = 11,
    /// `log verify`: entries are missing that may have been acknowledged.
    Uncertain = 12,
    /// `log verify`: entries that were durable are missing or damaged; `snapshot inspect`: a snapshot is.
    Rot = 13,
    /// `log verify`: the node would refuse to start.
    Refuses = 14,
    /// `trace`: no directory knows the image.
    Untraced = 15,
    /// `inbox`: an image came without bytes, because no node has them any more.
    Damaged = 16,
}

/// For `helio --help`.
pub const EXIT_CODES: &str = "\
Exit codes:
   0  done; for `send`: all images accepted
   1  failed in a way that has no code of its own
   2  wrong command line or configuration
   3  refused by the cluster: unknown receiver, too large, wrong cluster
   4  no node reachable, or no majority
   5  data directory in use, not ours, or damaged
   6  port taken
   7  machine unsuitable (`helio doctor` says why)
   8  the node ended itself to keep a promise, e.g. after a failed sync
   9  no space on the cluster's disks, or its queues are full
  10  a local file is missing, empty, or cannot be read or written
`log verify`, and `log repair` without --yes, by the worst that was found:
  11  the last round was never finished: the node drops it
  12  entries are missing that may have been acknowledged: the node heals
  13  entries that were durable are missing or damaged: the node heals; `snapshot inspect`: a snapshot is damaged
  14  the node would refuse to start
`trace`:
  15  the image is in none of the data directories
`inbox`:
  16  images were received, and some of them lost: no node has their bytes any more";

/// Prints a line. That nobody reads it any more is no failure; that it cannot be written ends the command.
pub fn say(text: fmt::Arguments<'_>) {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("helio: cannot print: {error}");
            std::process::exit(Cause::Failed as i32);
        }
        _ => {}
    }
}

/// A command that failed: one line for people, with the remedy, and the cause for scripts.
#[derive(Debug)]
pub struct Failure {
    /// Decides the exit code.
    pub cause: Cause,
    /// One line.
    pub text: String,
}

impl Failure {
    /// Line breaks in `text` become spaces: every error is one line.
    pub fn new(cause: Cause, text: impl fmt::Display) -> Failure {
        Failure { cause, text: text.to_string().split_whitespace().collect::<Vec<_>>().join(" ") }
    }

    /// A failure that was printed already.
    pub fn said(cause: Cause) -> Failure {
        Failure { cause, text: String::new() }
    }

    /// Prints the line to standard error and gives the exit code.
    pub fn report(&self) -> ExitCode {
        if !self.text.is_empty() {
            eprintln!("helio: {}", self.text);
        }
        ExitCode::from(self.cause as u8)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::{Cause, EXIT_CODES, Failure};

    #[test]
    fn every_cause_is_listed_with_its_code_and_an_error_is_one_line() {
        for cause in [
            Cause::Failed,
            Cause::Usage,
            Cause::Refused,
            Cause::Unreachable,
            Cause::Data,
            Cause::Port,
            Cause::Machine,
            Cause::Fatal,
            Cause::NoRoom,
            Cause::File,
            Cause::Torn,
            Cause::Uncertain,
            Cause::Rot,
            Cause::Refuses,
            Cause::Untraced,
        ] {
            let start = format!("  {:>2}  ", cause as u8);
            assert!(EXIT_CODES.lines().any(|line| line.starts_with(&start)), "{cause:?} has no line");
        }
        assert_eq!(Failure::new(Cause::Failed, "a\n  b").text, "a b");
    }
}

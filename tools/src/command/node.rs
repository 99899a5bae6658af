//! `helio node`: configuration from a file and flags, signals, and the exit code of how it ended.

use std::io::Read;
use std::thread;

use disk::DataDir;
use node::{ErrorKind, FlushChoice, NodeConfig, NodeError, StopHandle};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::args::{Flush, NodeArguments};
use crate::exit::{Cause, Failure};

/// Runs until stopped.
pub fn run(arguments: NodeArguments) -> Result<(), Failure> {
    let exit_with_parent = arguments.exit_with_parent;
    let config = configuration(arguments).map_err(|error| failure(&error))?;
    let stop = StopHandle::new();
    for signal in [SIGINT, SIGTERM] {
        // A second signal while the node is still stopping ends it at once.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, stop.flag())
            .and_then(|_| signal_hook::flag::register(signal, stop.flag()))
            .map_err(|error| Failure::new(Cause::Failed, format!("cannot handle signal {signal}: {error}")))?;
    }
    if exit_with_parent {
        end_with_parent();
    }
    let data = config.data.clone();
    node::run(config, stop).map_err(|error| match (&error, DataDir::in_use(&data)) {
        // Most likely the same node, started twice: the directory is the better reason.
        (NodeError::Listen { .. }, Some(in_use)) => Failure::new(Cause::Data, format!("{in_use} (and {error})")),
        _ => failure(&error),
    })
}

fn configuration(arguments: NodeArguments) -> Result<NodeConfig, NodeError> {
    let mut config = match &arguments.config {
        Some(path) => NodeConfig::load(path)?,
        None => NodeConfig::new(0, ""),
    };
    if let Some(id) = arguments.id {
        config.node = id;
    }
    if let Some(data) = arguments.data {
        config.data = data;
    }
    if !arguments.members.is_empty() {
        config.members = arguments.members;
        if let Some(own) = config.members.iter().find(|member| member.node == config.node).cloned() {
            config.client = own.client;
            config.peer = own.peer;
        }
    }
    replace(&mut config.client, arguments.client);
    replace(&mut config.peer, arguments.peer);
    replace(&mut config.cores, arguments.cores);
    replace(&mut config.copies, arguments.copies);
    replace(&mut config.image_bytes_max, arguments.image_bytes_max);
    replace(&mut config.cache_bytes, arguments.cache_bytes);
    replace(&mut config.reserve_bytes, arguments.reserve_bytes);
    replace(&mut config.upload_idle_seconds, arguments.upload_idle_seconds);
    replace(&mut config.session_idle_seconds, arguments.session_idle_seconds);
    replace(&mut config.scrub_seconds, arguments.scrub_seconds);
    replace(&mut config.connections_max, arguments.connections_max);
    // What does not fit is too large anyway, and `check` says so.
    replace(&mut config.segment_bytes, arguments.segment_bytes.map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX)));
    replace(
        &mut config.flush,
        arguments.flush.map(|flush| match flush {
            Flush::Auto => FlushChoice::Auto,
            Flush::Mmap => FlushChoice::Mmap,
            Flush::Direct => FlushChoice::Direct,
        }),
    );
    config.rejoin = arguments.rejoin;
    config.check()?;
    // What is said about the directory later makes sense only with the whole path.
    if let Ok(absolute) = std::path::absolute(&config.data) {
        config.data = absolute;
    }
    Ok(config)
}

fn replace<T>(field: &mut T, by: Option<T>) {
    if let Some(value) = by {
        *field = value;
    }
}

fn failure(error: &NodeError) -> Failure {
    let cause = match error.kind() {
        ErrorKind::Config => Cause::Usage,
        ErrorKind::Machine => Cause::Machine,
        ErrorKind::Listen => Cause::Port,
        ErrorKind::Data | ErrorKind::Recovery => Cause::Data,
        ErrorKind::Fatal => Cause::Fatal,
    };
    Failure::new(cause, error)
}

/// Standard input is a pipe of whoever started the node and never carries a byte: its end is the starter's end. The node
/// goes as by a crash, since nobody is left to wait for a clean stop.
fn end_with_parent() {
    thread::spawn(|| {
        let mut byte = [0u8; 1];
        while matches!(std::io::stdin().read(&mut byte), Ok(1)) {}
        std::process::exit(Cause::Failed as i32);
    });
}

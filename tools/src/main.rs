//! `helio`: runs nodes, sends and receives images, shows how a cluster is.

/// As `println!`, for whom whoever reads the output may have had enough of it.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::exit::say(format_args!($($text)*))
    };
}

mod args;
mod command;
mod connect;
mod exit;
mod moment;
mod table;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::args::{Arguments, Command};
use crate::exit::{Cause, Failure};

/// What is logged unless told otherwise: a node says what it does, the other commands only what goes wrong.
const NODE_LOG: &str = "info";
const COMMAND_LOG: &str = "warn";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let log = arguments.log.as_deref().unwrap_or(match arguments.command {
        Command::Node(_) => NODE_LOG,
        _ => COMMAND_LOG,
    });
    match start_logging(log).and_then(|()| run(arguments.command, arguments.log.as_deref())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn start_logging(filter: &str) -> Result<(), Failure> {
    let parsed = EnvFilter::try_new(filter)
        .map_err(|error| Failure::new(Cause::Usage, format!("--log {filter}: {error}; example: info,link=debug")))?;
    tracing_subscriber::fmt()
        .with_env_filter(parsed)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    Ok(())
}

/// `log` is what was asked for, if anything.
fn run(command: Command, log: Option<&str>) -> Result<(), Failure> {
    match command {
        Command::Node(arguments) => command::node::run(*arguments),
        Command::Register(arguments) => command::register::run(&arguments),
        Command::Send(arguments) => command::send::run(&arguments),
        Command::Inbox(arguments) => command::inbox::run(&arguments),
        Command::Status(arguments) => command::status::run(&arguments),
        Command::Log(which) => command::log::run(&which),
        Command::Snapshot(which) => command::snapshot::run(&which),
        Command::Trace(arguments) => command::trace::run(&arguments),
        Command::Doctor(arguments) => command::doctor::run(&arguments),
        Command::Demo(arguments) => command::demo::run(&arguments, log),
    }
}

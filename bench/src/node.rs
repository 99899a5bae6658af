//! A node of the cluster under test: this very executable, started again.

use std::io::Read;
use std::thread;

use ::node::{NodeConfig, StopHandle};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::{NodeArguments, failed};

/// Runs until stopped, or until standard input closes.
pub fn run(arguments: &NodeArguments) -> Result<(), String> {
    let filter = tracing_subscriber::EnvFilter::try_new(&arguments.log).map_err(failed("--log"))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let config = NodeConfig::load(&arguments.config).map_err(|error| error.to_string())?;
    let stop = StopHandle::new();
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, stop.flag()).map_err(failed("signal"))?;
    }
    if arguments.exit_with_parent {
        thread::spawn(|| {
            let mut byte = [0u8; 1];
            while matches!(std::io::stdin().read(&mut byte), Ok(1)) {}
            std::process::exit(1);
        });
    }
    ::node::run(config, stop).map_err(|error| error.to_string())
}

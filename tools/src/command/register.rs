//! `helio register`.

use client::Client;
use serde_json::json;

use crate::args::RegisterArguments;
use crate::connect;
use crate::exit::Failure;

/// Registers the names one after the other; a known one keeps its inbox.
pub fn run(arguments: &RegisterArguments) -> Result<(), Failure> {
    let mut client = Client::new(connect::options(&arguments.nodes)?).map_err(|error| connect::failure(&error))?;
    for name in &arguments.names {
        let inbox = client.register(name).map_err(|error| connect::failure(&error))?;
        if arguments.json {
            say!("{}", json!({ "name": name, "inbox": inbox.0 }));
        } else {
            say!("{name}: inbox {inbox}");
        }
    }
    Ok(())
}

//! `helio log repair`: does to a stopped node's files what the node itself would do to them at its start, and nothing else, by
//! the code of the start (`node::repair`).

use std::io::{self, Write};

use disk::DataDir;
use logic::outlook::Outlook;
use node::forecast;
use serde_json::json;

use super::verify::cause;
use crate::args::RepairArguments;
use crate::exit::{Cause, Failure};

/// Says what is to be done, or does it.
pub fn run(arguments: &RepairArguments) -> Result<(), Failure> {
    let RepairArguments { path, yes, json } = arguments;
    if let Some(in_use) = DataDir::in_use(path) {
        return Err(Failure::new(Cause::Data, in_use));
    }
    let outlook = || Ok(forecast(path).map_err(|error| Failure::new(Cause::File, error))?.outlook);
    let before = outlook()?;
    if let Outlook::Refuses(_) = before {
        return Err(Failure::new(Cause::Refuses, format!("{}: {before}", path.display())));
    }
    let steps = if *yes { node::repair::repair(path) } else { node::repair::plan(path) };
    let steps = steps.map_err(|error| Failure::new(Cause::Data, error))?;
    let now = if *yes { outlook()? } else { before };
    super::log::printed(print(&steps, &now, *yes, *json))?;
    match cause(&now).filter(|_| !yes) {
        None => Ok(()),
        Some(cause) => Err(Failure::new(cause, format!("{}: {now}", path.display()))),
    }
}

fn print(steps: &[String], outlook: &Outlook, is_done: bool, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        let value = json!({
            "steps": steps, "done": is_done, "judgement": outlook.name(), "next_start": outlook.to_string(),
        });
        return writeln!(out, "{value:#}");
    }
    match (steps.is_empty(), is_done) {
        (true, _) => writeln!(out, "nothing to repair")?,
        (false, true) => writeln!(out, "done:")?,
        (false, false) => writeln!(out, "the node would do this at its next start, and --yes does it now:")?,
    }
    for step in steps {
        writeln!(out, "  {step}")?;
    }
    writeln!(out, "{outlook}")
}

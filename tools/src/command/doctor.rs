//! `helio doctor`: what a node would find out about this machine when it starts, without starting one.

use std::thread::available_parallelism;

use disk::descriptors;
use disk::machine::{self, Severity};
use node::NodeConfig;
use node::config::RESERVE_BYTES_DEFAULT;
use serde_json::json;

use crate::args::DoctorArguments;
use crate::exit::{Cause, Failure};
use crate::table::{counted, grouped};

/// Prints every finding; fails if a node could not start.
pub fn run(arguments: &DoctorArguments) -> Result<(), Failure> {
    let machine_cores = available_parallelism().map_or(1, |cores| cores.get());
    let data = std::path::absolute(&arguments.data).unwrap_or_else(|_| arguments.data.clone());
    let mut config = NodeConfig::new(1, &data);
    config.cores = arguments.cores.unwrap_or(0);
    config.check().map_err(|error| Failure::new(Cause::Usage, error))?;
    let cores = config.cores_or_default();
    // As a node does; what cannot be raised is judged.
    let _ = descriptors::raise();
    let findings = machine::check(&data, cores, RESERVE_BYTES_DEFAULT, config.connections_max);
    let refusals = findings.iter().filter(|finding| finding.severity == Severity::Refusal).count();
    let memlock = machine::memlock_limit().ok();
    let descriptors = descriptors::limit().ok();
    let free = data.ancestors().find_map(|ancestor| machine::free_bytes(ancestor).ok());
    if arguments.json {
        let findings: Vec<_> = findings
            .iter()
            .map(|finding| json!({ "refusal": finding.severity == Severity::Refusal, "text": finding.to_string() }))
            .collect();
        let report = json!({ "cores": cores, "cpus": machine_cores, "memlock_bytes": memlock, "open_files_max": descriptors, "free_bytes": free, "findings": findings,
            "can_run": refusals == 0 });
        say!("{report:#}");
    } else {
        let bytes = |value: Option<u64>| match value {
            Some(u64::MAX) => "no limit".to_owned(),
            Some(value) => format!("{} bytes", grouped(value)),
            None => "unknown".to_owned(),
        };
        let files = match descriptors {
            Some(u64::MAX) => "no limit".to_owned(),
            Some(value) => grouped(value),
            None => "unknown".to_owned(),
        };
        let (memlock, free) = (bytes(memlock), bytes(free));
        say!("cores {cores} of {machine_cores} CPUs, locked memory {memlock}, open files {files}, free disk {free}");
        for finding in &findings {
            let word = if finding.severity == Severity::Refusal { "NO" } else { "warning" };
            say!("{word}: {finding}");
        }
        if refusals == 0 {
            say!("a node with {} can run here", counted(u64::from(cores), "core"));
        }
    }
    match refusals {
        0 => Ok(()),
        1 => Err(Failure::new(Cause::Machine, "a node cannot run here, for the reason above")),
        many => Err(Failure::new(Cause::Machine, format!("a node cannot run here, for the {many} reasons above"))),
    }
}

//! `helio doctor`: what a node would find out about this machine when it starts, without starting one.

use std::thread::available_parallelism;

use disk::machine::{self, Severity};
use node::config::{CORES_DEFAULT_MAX, RESERVE_BYTES_DEFAULT};
use serde_json::json;

use crate::args::DoctorArguments;
use crate::exit::{Cause, Failure};
use crate::table::grouped;

/// Prints every finding; fails if a node could not start.
pub fn run(arguments: &DoctorArguments) -> Result<(), Failure> {
    let machine_cores = available_parallelism().map_or(1, |cores| cores.get());
    let cores = arguments.cores.unwrap_or(u16::try_from(machine_cores).unwrap_or(u16::MAX).min(CORES_DEFAULT_MAX));
    let data = std::path::absolute(&arguments.data).unwrap_or_else(|_| arguments.data.clone());
    let findings = machine::check(&data, cores, RESERVE_BYTES_DEFAULT);
    let refusals = findings.iter().filter(|finding| finding.severity == Severity::Refusal).count();
    let memlock = machine::memlock_limit().ok();
    let free = data.ancestors().find_map(|ancestor| machine::free_bytes(ancestor).ok());
    if arguments.json {
        let findings: Vec<_> = findings
            .iter()
            .map(|finding| json!({ "refusal": finding.severity == Severity::Refusal, "text": finding.to_string() }))
            .collect();
        let report = json!({ "cores": cores, "memlock_bytes": memlock, "free_bytes": free, "findings": findings,
            "can_run": refusals == 0 });
        println!("{report:#}");
    } else {
        let bytes = |value: Option<u64>| match value {
            Some(u64::MAX) => "no limit".to_owned(),
            Some(value) => format!("{} bytes", grouped(value)),
            None => "unknown".to_owned(),
        };
        println!("cores {cores}, locked memory {}, free disk {}", bytes(memlock), bytes(free));
        for finding in &findings {
            let word = if finding.severity == Severity::Refusal { "NO" } else { "warning" };
            println!("{word}: {finding}");
        }
        if refusals == 0 {
            println!("a node with {cores} cores can run here");
        }
    }
    match refusals {
        0 => Ok(()),
        1 => Err(Failure::new(Cause::Machine, "a node cannot run here, for the reason above")),
        many => Err(Failure::new(Cause::Machine, format!("a node cannot run here, for the {many} reasons above"))),
    }
}

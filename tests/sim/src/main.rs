//! `sim`: runs seeds of the simulator and prints what they did. See `--help`.

use std::process::ExitCode;

use sim::scenario::{Done, run};

const HELP: &str = "\
Deterministic simulation of a Heliograph cluster: nodes, disks, links and clients in one thread.

Usage: sim [--seeds N] [--from SEED] [--seed SEED]

  --seeds N    run N seeds (default 100)
  --from SEED  the first of them (default 1)
  --seed SEED  run this one only

A violation panics with its seed; run it again with --seed. The same seed and program print the same hash.";

fn main() -> ExitCode {
    let (mut seeds, mut from) = (100, 1);
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        if flag == "--help" || flag == "-h" {
            println!("{HELP}");
            return ExitCode::SUCCESS;
        }
        let value = args.next().and_then(|value| value.parse::<u64>().ok());
        match (flag.as_str(), value) {
            ("--seeds", Some(value)) => seeds = value,
            ("--from", Some(value)) => from = value,
            ("--seed", Some(value)) => (seeds, from) = (1, value),
            _ => {
                eprintln!("sim: {flag}: unknown, or its number is missing; see --help");
                return ExitCode::from(2);
            }
        }
    }
    println!("seeds {from} to {}", from + seeds - 1);
    let mut sum = Done::default();
    for seed in from..from + seeds {
        let done = run(seed);
        sum.images += done.images;
        sum.deliveries += done.deliveries;
        sum.crashes += done.crashes;
        sum.cuts += done.cuts;
        sum.uncertain += done.uncertain;
        sum.simulated_us += done.simulated_us;
        sum.hash = sum.hash.rotate_left(7) ^ done.hash;
    }
    println!(
        "{seeds} seeds: {} images, {} deliveries checked, {} crashes, {} cut links, {} nodes left for healing, \
         {:.1} simulated minutes; lost 0, twice 0, out of order 0, wrong bytes 0; hash {:016x}",
        sum.images,
        sum.deliveries,
        sum.crashes,
        sum.cuts,
        sum.uncertain,
        sum.simulated_us as f64 / 60e6,
        sum.hash
    );
    ExitCode::SUCCESS
}

//! Measures both flush methods of the log beside the floor of this disk: `cargo run --release -p disk --example flush -- DIR`.
//!
//! What `bench disk` prints for users in more detail; this one needs nothing but this crate.

use std::path::PathBuf;
use std::time::Duration;

use disk::FlushMethod;
use disk::baseline::{Samples, bandwidth, flush_floor, log_flushes};

/// Rounds over all of it: a disk has moods, and one run may meet a bad one.
const ROUNDS: usize = 3;

fn print(name: &str, samples: &Samples, note: &str) {
    let at = |percent| samples.percentile(percent).as_micros();
    let count = samples.ascending().len();
    println!("{name:24} {:8} {:8} {:8} {:8}  {count:8} {note}", at(50.0), at(99.0), at(99.9), at(100.0));
}

fn main() -> std::io::Result<()> {
    let dir = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("."), PathBuf::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load {load}");
    println!("{:24} {:>8} {:>8} {:>8} {:>8}  {:>8}", "microseconds", "p50", "p99", "p99.9", "max", "count");
    for _ in 0..ROUNDS {
        print("pwritev2 4 KiB", &flush_floor(&dir, 5000)?, "");
        for batch in [1, 64, 256] {
            for method in [FlushMethod::Direct, FlushMethod::Mmap] {
                let run = log_flushes(&dir, method, batch, 200, Duration::from_secs(3))?;
                let note = format!("{:.0} records/s", run.records_per_second);
                print(&format!("{method}, {batch} a flush"), &run.flushes, &note);
            }
        }
    }
    let rates = bandwidth(&dir, 512 << 20, 4)?;
    println!("write {:.0} MB/s, read {:.0} MB/s", rates.write / 1e6, rates.read / 1e6);
    Ok(())
}

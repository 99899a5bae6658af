//! Writes the seeds of a target where `tests/fuzz/run --seeds` wants them.

use std::path::PathBuf;
use std::process;

/// Names the folder for the seeds.
const VARIABLE: &str = "FUZZ_SEEDS";

/// If asked, writes `seeds` into files and ends the process.
pub fn write_if_asked(seeds: impl FnOnce() -> Vec<Vec<u8>>) {
    let Some(folder) = std::env::var_os(VARIABLE).map(PathBuf::from) else { return };
    for (at, seed) in seeds().iter().enumerate() {
        if let Err(error) = std::fs::write(folder.join(format!("seed-{at:03}")), seed) {
            eprintln!("{}: {error}", folder.display());
            process::exit(1);
        }
    }
    process::exit(0);
}

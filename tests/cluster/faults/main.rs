//! The process faults: real nodes die, stand still, lose each other, their disks and their power, and every image is checked.
//!
//! ```text
//! cargo test --release -p tools --test faults -- --full      at least 20,000 images, at most 30 minutes on 2 cores
//! cargo test --release -p tools --test faults -- --short     the same faults, fewer of each, some minutes
//! ```
//!
//! As root everything runs; as an ordinary user what needs root is told as "not run" with the reason. `--seed` repeats the
//! choices of a run (not the timing of the machine), `--only PART` runs one part, `--keep` leaves the files. Exit code 0
//! only if nothing was lost, doubled, changed, reordered or given up.
//!
//! Without any of these arguments nothing is run, so that `cargo test --workspace` stays short.

mod case;
mod clients;
mod full;
mod ground;
mod kills;
mod load;
mod partitions;
mod power;
mod report;
mod rot;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use clap::{Parser, ValueEnum};
use cluster::{Problem, problem};

use crate::case::{Case, Outcome, Rights};
use crate::report::Part;
use cluster::random::Random;

/// The executable under test.
pub const HELIO: &str = env!("CARGO_BIN_EXE_helio");
/// Fewer do not count as a full run.
const IMAGES_MIN_FULL: usize = 20_000;
const EXIT_USAGE: u8 = 2;
/// Of each node, when a part failed.
const LOG_TAIL_LINES: usize = 15;

/// Breaks a cluster of real nodes in every way and checks each image.
#[derive(Parser, Debug)]
#[command(name = "faults")]
struct Arguments {
    /// All faults, at least 20,000 images.
    #[arg(long)]
    full: bool,
    /// The same faults, fewer of each.
    #[arg(long, conflicts_with = "full")]
    short: bool,
    /// Repeats the choices of the run that printed it.
    #[arg(long)]
    seed: Option<u64>,
    /// Only these parts.
    #[arg(long, value_enum)]
    only: Vec<PartName>,
    /// Leaves the files of the run, and says where.
    #[arg(long)]
    keep: bool,
    /// For the program itself: it runs where it was to run.
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
    /// For the program itself.
    #[arg(long, hide = true, default_value = "none")]
    rights: String,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum PartName {
    Kills,
    Pauses,
    Partitions,
    FullDisks,
    PowerCuts,
    FailedFlushes,
    SlowReceivers,
    Connections,
    KilledClients,
    Rot,
}

type Run = fn(&mut Case) -> Result<(), Problem>;

const PARTS: [(PartName, &str, Run); 10] = [
    (PartName::Kills, "kills", kills::kills),
    (PartName::Pauses, "pauses", kills::pauses),
    (PartName::Partitions, "partitions", partitions::partitions),
    (PartName::FullDisks, "full-disks", full::full_disks),
    (PartName::PowerCuts, "power-cuts", power::cuts),
    (PartName::FailedFlushes, "failed-flushes", power::failed_flushes),
    (PartName::SlowReceivers, "slow-receivers", clients::slow_receivers),
    (PartName::Connections, "connections", clients::connections),
    (PartName::KilledClients, "killed-clients", clients::killed_clients),
    (PartName::Rot, "rot", rot::rot),
];

fn main() -> ExitCode {
    let ours = ["--full", "--short", "--seed", "--only", "--keep", "--inside", "--help", "-h"];
    if !std::env::args().skip(1).any(|argument| ours.iter().any(|own| argument.split('=').next() == Some(own))) {
        // `cargo test` runs every test program, perhaps with arguments for its own kind.
        println!("\nnot run: the process faults are asked for by name:");
        println!("    cargo test --release -p tools --test faults -- --short   (or --full, --help)\n");
        println!("test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s\n");
        return ExitCode::SUCCESS;
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // What cannot be printed need not be told.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let outcome = if arguments.inside.is_some() { inner(arguments) } else { outer(arguments) };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(Problem(text)) => {
            eprintln!("faults: {text}");
            ExitCode::FAILURE
        }
    }
}

/// Chooses the seed, makes the folder, and runs the inner half.
fn outer(arguments: Arguments) -> Result<bool, Problem> {
    let seed = arguments.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    let (rights, reason) = ground::rights();
    let folder = tempfile::Builder::new().prefix("heliograph-faults-").tempdir().map_err(problem("no folder"))?;
    let form = if arguments.full { "--full" } else { "--short" };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let rights_text = match rights {
        Rights::Root => "root",
        Rights::User => "user",
        Rights::None => "none",
    };
    println!("faults {form} --seed {seed}: {cpus} CPUs, rights {rights_text}");
    if rights < Rights::Root {
        println!("not everything can run here: {reason}");
    }
    let mut inner = vec![form.to_owned(), format!("--seed={seed}"), format!("--rights={rights_text}")];
    inner.push(format!("--inside={}", folder.path().display()));
    if arguments.keep {
        inner.push("--keep".to_owned());
    }
    for part in &arguments.only {
        inner.push(format!("--only={}", part.to_possible_value().expect("every part has a name").get_name()));
    }
    let status = ground::run_inside(rights, &inner)?;
    if arguments.keep {
        println!("files are in {}", folder.keep().display());
    } else {
        match folder.close() {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Problem(format!("cannot remove the folder of the run: {error}")));
            }
            _ => {}
        }
    }
    Ok(status.success())
}

/// Runs the parts.
fn inner(arguments: Arguments) -> Result<bool, Problem> {
    let rights = match arguments.rights.as_str() {
        "root" => Rights::Root,
        "user" => Rights::User,
        _ => Rights::None,
    };
    let folder = arguments.inside.expect("only then it is the inner half");
    let seed = arguments.seed.expect("the outer half gives it");
    let interrupt = ground::arrive(rights)?;
    let mut parts = Vec::new();
    for (part, name, run) in PARTS {
        if !arguments.only.is_empty() && !arguments.only.contains(&part) {
            continue;
        }
        let case = Case {
            name,
            is_full: arguments.full,
            rights,
            folder: folder.join(name),
            random: Random::new(seed, name),
            interrupt: interrupt.clone(),
            outcome: Outcome::default(),
        };
        let part = run_part(case, run, arguments.keep)?;
        part.print();
        parts.push(part);
        if is_set(&interrupt) {
            println!("interrupted");
            break;
        }
    }
    if !arguments.keep {
        // The outer half does it too; but it may be the one that died.
        let _ = std::fs::remove_dir_all(&folder);
    }
    if is_set(&interrupt) {
        return Ok(false);
    }
    let images_min = if arguments.full && arguments.only.is_empty() { IMAGES_MIN_FULL } else { 0 };
    Ok(report::summary(&parts, seed, images_min))
}

fn run_part(mut case: Case, run: Run, is_kept: bool) -> Result<Part, Problem> {
    std::fs::create_dir_all(&case.folder).map_err(problem("cannot make the folder of a part"))?;
    let start = Instant::now();
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&mut case)));
    let problem = match caught {
        Ok(Ok(())) => None,
        Ok(Err(problem)) => Some(problem),
        Err(_) => Some(Problem("panicked, see above".into())),
    };
    if problem.is_some() && !is_set(&case.interrupt) {
        show_logs(&case.folder);
    }
    // The next part needs the room. What cannot be removed now goes with the folder of the run.
    if !is_kept {
        let _ = std::fs::remove_dir_all(&case.folder);
    }
    Ok(Part { name: case.name, time: start.elapsed(), outcome: case.outcome, problem })
}

/// The last lines of every node of a part that failed.
fn show_logs(folder: &Path) {
    let Ok(clusters) = std::fs::read_dir(folder) else { return };
    let files = clusters.flatten().filter_map(|cluster| std::fs::read_dir(cluster.path()).ok()).flatten().flatten();
    let mut logs: Vec<PathBuf> = files.map(|file| file.path()).collect();
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.sort();
    for path in logs {
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        println!("--- {}", path.display());
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].iter().for_each(|line| println!("    {line}"));
    }
}

fn is_set(flag: &Arc<AtomicBool>) -> bool {
    flag.load(Ordering::Acquire)
}

//! Random damages to the data directories of nodes that were killed under load.
//!
//! ```text
//! cargo test --release -p tools --test damages -- --full       10,000 damages and 300 rounds, about 20 minutes on 2 cores
//! cargo test -p tools --test damages -- --count 500 --rounds 0
//! HELIO_DAMAGES=10000 cargo test -p tools --test damages
//! ```
//!
//! First: one block of one file is flipped, zeroed, cut off, duplicated or swapped; `helio log verify` says what the node
//! will do; the node is started and must do just that (`trial`). Then: of a cluster of three under load, killed as a whole,
//! one node is damaged at a time, and every accepted image must arrive (`rounds`).
//!
//! `--seed` repeats the draws; the directories come from living nodes and differ. So a directory that was judged wrongly is
//! kept, and `--again DIR` tries it alone.

mod damage;
mod rounds;
mod table;
mod template;
mod trial;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use cluster::random::Random;
use cluster::{Problem, problem};

use crate::damage::Damage;
use crate::table::Table;
use crate::template::Template;
use crate::trial::Bench;

/// The executable under test.
pub const HELIO: &str = env!("CARGO_BIN_EXE_helio");
/// Trials under way at once. Each is two processes, one after the other.
const WORKERS: usize = 2;
/// After so many wrong ones the rest tells nothing new.
const WRONG_MAX: usize = 10;
const EXIT_USAGE: u8 = 2;
/// Damages and rounds of a plain `cargo test`, and of `--full`.
const SHORT: (u64, u64) = (60, 1);
const FULL: (u64, u64) = (10_000, 300);
/// What a filesystem in memory must have free to be used: chunk files of three nodes, and copies.
const MEMORY_BYTES_MIN: u64 = 4 << 30;

/// Damages data directories and compares what the inspector says with what the node does.
#[derive(Parser, Debug)]
#[command(name = "damages")]
struct Arguments {
    /// 10,000 damages, 300 rounds.
    #[arg(long)]
    full: bool,
    /// So many damages.
    #[arg(long, env = "HELIO_DAMAGES")]
    count: Option<u64>,
    /// So many rounds of the cluster.
    #[arg(long)]
    rounds: Option<u64>,
    /// Repeats the draws of the run that printed it.
    #[arg(long)]
    seed: Option<u64>,
    /// Tries a directory that was kept, as it is.
    #[arg(long, value_name = "DIR")]
    again: Option<PathBuf>,
    /// Nodes of the cluster that such a directory is of.
    #[arg(long, default_value_t = 3)]
    nodes: u64,
}

fn main() -> ExitCode {
    if is_for_other_tests() {
        println!("\nrunning 0 tests\n\ntest result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out\n");
        return ExitCode::SUCCESS;
    }
    let arguments = match Arguments::try_parse_from(ours()) {
        Ok(arguments) => arguments,
        Err(error) => {
            // What cannot be printed need not be told.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let outcome = match &arguments.again {
        Some(directory) => again(directory, &arguments),
        None => run(&arguments),
    };
    let is_good = match outcome {
        Ok(is_good) => is_good,
        Err(Problem(text)) => {
            println!("damages: {text}");
            false
        }
    };
    let (word, passed, failed) = if is_good { ("ok", 1, 0) } else { ("FAILED", 0, 1) };
    println!("\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out\n");
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `cargo test NAME` runs every test program with the name.
fn is_for_other_tests() -> bool {
    let mut arguments = std::env::args().skip(1).peekable();
    let is_name = arguments.peek().is_some_and(|first| !first.starts_with('-') && !"damages".contains(first.as_str()));
    is_name || arguments.any(|argument| argument == "--list")
}

/// The arguments without those of the usual test programs.
fn ours() -> Vec<String> {
    let theirs = ["--nocapture", "--quiet", "-q", "--test-threads", "--show-output", "damages"];
    let is_ours = |argument: &String| !theirs.iter().any(|their| argument.split('=').next() == Some(their));
    std::env::args().take(1).chain(std::env::args().skip(1).filter(is_ours)).collect()
}

fn run(arguments: &Arguments) -> Result<bool, Problem> {
    let (count, rounds) = if arguments.full { FULL } else { SHORT };
    let (count, rounds) = (arguments.count.unwrap_or(count), arguments.rounds.unwrap_or(rounds));
    let seed = arguments.seed.unwrap_or_else(|| RandomState::new().build_hasher().finish());
    let folder = folder()?;
    println!("\ndamages --seed {seed} --count {count} --rounds {rounds}, in {}", folder.path().display());
    let mut is_good = true;
    if count > 0 {
        is_good &= trials(folder.path(), seed, count)?;
    }
    if rounds > 0 {
        is_good &= rounds::run(folder.path(), &mut Random::new(seed, "rounds"), rounds)?;
    }
    Ok(is_good)
}

/// In memory if there is room: the syncs of ten thousand starts take long on a disk.
fn folder() -> Result<tempfile::TempDir, Problem> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("heliograph-damages-");
    let memory = Path::new("/dev/shm");
    let is_refused = |found: &disk::machine::Finding| found.severity == disk::machine::Severity::Refusal;
    if disk::machine::free_bytes(memory).is_ok_and(|free| free >= MEMORY_BYTES_MIN)
        && let Ok(folder) = builder.tempdir_in(memory)
        && !disk::machine::check(folder.path(), 1, 0, 1).iter().any(is_refused)
    {
        return Ok(folder);
    }
    builder.tempdir().map_err(problem("no folder"))
}

/// The first part.
fn trials(folder: &Path, seed: u64, count: u64) -> Result<bool, Problem> {
    let start = Instant::now();
    let (mut random, moments) = (Random::new(seed, "templates"), if count > 1000 { 4 } else { 1 });
    let mut templates = template::make(folder, &mut random, 3, moments)?;
    // A lone voter has nobody to take anything from.
    templates.extend(template::make(folder, &mut random, 1, moments)?);
    println!("{} directories of killed nodes after {:.1} s", templates.len(), start.elapsed().as_secs_f64());
    let next = AtomicU64::new(0);
    let (table, wrong) = (Mutex::new(Table::default()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| {
                let (templates, next, table, wrong) = (&templates, &next, &table, &wrong);
                scope.spawn(move || {
                    let bench = Bench::new(folder.join(format!("trial-{worker}")))?;
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count || wrong.lock().is_ok_and(|wrong| wrong.len() >= WRONG_MAX) {
                            return Ok(());
                        }
                        try_one(&bench, templates, seed, number, table, wrong)?;
                    }
                })
            })
            .collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| Err(Problem("a thread of the trials panicked".to_owned())))
        })
    })?;
    let table = table.into_inner().map_err(problem("the table"))?;
    let wrong: Vec<String> = wrong.into_inner().map_err(problem("the list"))?;
    table.print();
    println!(
        "{} of {} damages: the node did what `helio log verify` had said; {:.0} s",
        table.total() - wrong.len(),
        table.total(),
        start.elapsed().as_secs_f64()
    );
    Ok(wrong.is_empty() && table.total() as u64 == count)
}

fn try_one(
    bench: &Bench,
    templates: &[Template],
    seed: u64,
    number: u64,
    table: &Mutex<Table>,
    wrong: &Mutex<Vec<String>>,
) -> Result<(), Problem> {
    let mut random = Random::new(seed.wrapping_add(number), "damage");
    let template = &templates[random.between(0, templates.len() as u64 - 1) as usize];
    let damage = Damage::draw(&mut random, template);
    bench.lay_out(template, &damage)?;
    let outcome = bench.run((template.node, template.nodes), &mut random, damage.file_kind)?;
    table.lock().map_err(problem("the table"))?.add(&damage, &outcome);
    if let Some(text) = outcome.wrong {
        bench.lay_out(template, &damage)?;
        let kept =
            tempfile::Builder::new().prefix("heliograph-damaged-").tempdir().map_err(problem("no folder"))?.keep();
        Template::capture((template.node, template.nodes), &bench.data())?.lay_out(&kept)?;
        let (node, nodes) = (template.node, template.nodes);
        let text = format!(
            "{number} (node {node} of {nodes}): {damage}: {text}; try `--again {} --nodes {nodes}`",
            kept.display()
        );
        println!("WRONG: {text}");
        wrong.lock().map_err(problem("the list"))?.push(text);
    }
    Ok(())
}

/// A directory that was kept.
fn again(directory: &Path, arguments: &Arguments) -> Result<bool, Problem> {
    let folder = folder()?;
    let view = disk::DataDirView::open(directory).map_err(problem("it is damaged further than that"))?;
    let bench = Bench::new(folder.path().join("trial"))?;
    let who = (view.node().0, arguments.nodes);
    Template::capture(who, directory)?.lay_out(&bench.data())?;
    let outcome = bench.run(who, &mut Random::new(arguments.seed.unwrap_or(1), "again"), template::FileKind::Other)?;
    println!("{}", outcome.said);
    println!("{}", outcome.wrong.as_deref().unwrap_or("the node did what `helio log verify` had said"));
    Ok(outcome.wrong.is_none())
}

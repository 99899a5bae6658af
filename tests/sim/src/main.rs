//! `sim`: runs seeds of the simulator and prints what they did. See `--help`.

use std::io::{IsTerminal, Write, stderr};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use sim::faults::{Fault, Mask};
use sim::mutants::{self, Caught, Mutant};
use sim::scenario::{Done, Limits, PHASES_MAX};
use sim::shrink::{Failure, command, shrink, try_run};

/// Violations after which no further seeds are begun.
const FAILURES_MAX: usize = 5;
/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(5);

/// Deterministic simulation of Heliograph clusters: nodes, disks, links and clients in one thread, one seed a run.
///
/// A violation is made small, fewer kinds of faults and less time, and printed with the messages around it and the command
/// that repeats it. The same seed and program give the same hash. Exit code 1 if anything was violated, or a mutant not
/// caught.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Seeds to run
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// Run this seed only
    #[arg(long)]
    seed: Option<u64>,
    /// Plant each mutant in turn and run seeds until it is caught
    #[arg(long)]
    mutants: bool,
    /// Plant this one
    #[arg(long, value_parser = mutant)]
    mutant: Option<Mutant>,
    /// Faults that may be drawn, by name, separated by commas; "none" for none
    #[arg(long, value_parser = mask, default_value = "all")]
    faults: Mask,
    /// Faults that every phase has, if they may be drawn; "none" for those that the mutant needs
    #[arg(long, value_parser = mask, default_value = "none")]
    focus: Mask,
    /// Phases of faults in a run, at most
    #[arg(long, default_value_t = PHASES_MAX)]
    phases: u64,
    /// Threads; 0 for one a CPU
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// Print everything that happens in a run that fails; without it the last of it
    #[arg(long)]
    trace: bool,
    /// Print each seed's hash
    #[arg(long)]
    hashes: bool,
}

fn mutant(name: &str) -> Result<Mutant, String> {
    mutants::by_name(name).ok_or_else(|| {
        let names: Vec<_> = Mutant::ALL.into_iter().map(Mutant::name).collect();
        format!("there are: {}", names.join(", "))
    })
}

fn mask(names: &str) -> Result<Mask, String> {
    match names {
        "all" => return Ok(Mask::ALL),
        "none" | "" => return Ok(Mask::NONE),
        _ => {}
    }
    let all: Vec<_> = Fault::ALL.into_iter().map(Fault::name).collect();
    let find = |name: &str| Fault::ALL.into_iter().find(|fault| fault.name() == name);
    let faults: Option<Vec<Fault>> = names.split(',').map(find).collect();
    faults.map(|faults| Mask::of(&faults)).ok_or_else(|| format!("there are: {}", all.join(", ")))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let jobs = match arguments.jobs {
        0 => thread::available_parallelism().map_or(1, usize::from),
        jobs => jobs,
    };
    if arguments.mutants { hunt_all(&arguments, jobs) } else { run_all(&arguments, jobs) }
}

fn run_all(arguments: &Arguments, jobs: usize) -> ExitCode {
    let (from, seeds) = arguments.seed.map_or((arguments.from, arguments.seeds), |seed| (seed, 1));
    let mutant = arguments.mutant.unwrap_or_default();
    let limits = Limits {
        mask: arguments.faults,
        focus: if arguments.focus == Mask::NONE { mutants::focus(mutant) } else { arguments.focus },
        phases: arguments.phases,
        mutant,
        trace_lines: if arguments.trace { usize::MAX } else { 0 },
    };
    println!("seeds {from} to {}", from + seeds - 1);
    let started = Instant::now();
    let results: Vec<(u64, Result<Done, Failure>)> = in_parallel(from, seeds, jobs, |seed| try_run(seed, limits));
    let (mut sum, mut failures) = (Done::default(), 0);
    for (seed, result) in &results {
        match result {
            Ok(done) => {
                if arguments.hashes {
                    println!("seed {seed}: {:016x}", done.hash);
                }
                add(&mut sum, done);
            }
            Err(failure) => {
                failures += 1;
                tell(*seed, limits, failure);
            }
        }
    }
    summary(&sum, results.len() as u64, failures, started.elapsed());
    if failures == 0 && results.len() as u64 == seeds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs the seeds in threads; results in the order of the seeds. After some violations no more are begun.
fn in_parallel<T: Send>(
    from: u64,
    seeds: u64,
    jobs: usize,
    run: impl Fn(u64) -> Result<T, Failure> + Sync,
) -> Vec<(u64, Result<T, Failure>)> {
    let (next, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let results = Mutex::new(Vec::new());
    let started = Instant::now();
    let progress = Mutex::new(started);
    let work = || loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= seeds || failed.load(Ordering::Relaxed) >= FAILURES_MAX as u64 {
            return;
        }
        let seed = from + number;
        let result = run(seed);
        if result.is_err() {
            failed.fetch_add(1, Ordering::Relaxed);
        }
        results.lock().expect("no thread panics with it").push((seed, result));
        let mut last = progress.lock().expect("no thread panics with it");
        if last.elapsed() >= PROGRESS && stderr().is_terminal() {
            *last = Instant::now();
            let _ = write!(stderr(), "\r{number} of {seeds} seeds, {:.0} s ", started.elapsed().as_secs_f64());
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(work);
        }
    });
    let mut results = results.into_inner().expect("no thread panics with it");
    results.sort_by_key(|(seed, _)| *seed);
    results
}

fn add(sum: &mut Done, done: &Done) {
    sum.images += done.images;
    sum.told += done.told;
    sum.deliveries += done.deliveries;
    sum.records += done.records;
    sum.checks += done.checks;
    sum.faults.merge(&done.faults);
    sum.lost += done.lost;
    sum.healed += done.healed;
    sum.lost_copies += done.lost_copies;
    sum.damaged += done.damaged;
    sum.rejoined += done.rejoined;
    sum.snapshots += done.snapshots;
    sum.caught_up += done.caught_up;
    sum.simulated_us += done.simulated_us;
    sum.hash = sum.hash.rotate_left(7) ^ done.hash;
}

fn summary(sum: &Done, seeds: u64, failures: u64, took: Duration) {
    let faults: Vec<String> =
        Fault::ALL.into_iter().map(|fault| format!("{} {}", fault.name(), sum.faults.of(fault))).collect();
    println!("faults: {}", faults.join(", "));
    println!(
        "{seeds} seeds in {:.0} s: {:.2} simulated hours, {} images, {} deliveries checked, {} times told that there is no more, {} records committed, {} checks, \
         {} snapshots, {} logs begun behind one of another node, {} logs healed, {} nodes taken in again, {} copies given up, {} images damaged, {} nodes beyond that; {failures} violations; hash {:016x}",
        took.as_secs_f64(),
        sum.simulated_us as f64 / 3.6e9,
        sum.images,
        sum.deliveries,
        sum.told,
        sum.records,
        sum.checks,
        sum.snapshots,
        sum.caught_up,
        sum.healed,
        sum.rejoined,
        sum.lost_copies,
        sum.damaged,
        sum.lost,
        sum.hash
    );
}

/// Says what was violated, made small.
fn tell(seed: u64, limits: Limits, failure: &Failure) {
    if limits.trace_lines > 0 {
        failure.trace.iter().for_each(|line| println!("{line}"));
        return println!("seed {seed}: {}", failure.text);
    }
    println!("\nseed {seed}: {}", failure.text);
    let Some(small) = shrink(seed, limits) else {
        println!("it does not fail again: the simulator is not deterministic, which is a defect of its own");
        return;
    };
    println!("--- made small in {} runs ---", small.runs);
    small.failure.trace.iter().for_each(|line| println!("{line}"));
    println!("seed {seed}, faults {}, {} phases: {}", small.limits.mask, small.limits.phases, small.failure.text);
    println!("repeat: {}\n", command(seed, small.limits));
}

fn hunt_all(arguments: &Arguments, jobs: usize) -> ExitCode {
    let seeds_max = mutants::SEEDS_MAX;
    println!("{} mutants, each to be caught within {seeds_max} seeds from {}", Mutant::ALL.len(), arguments.from);
    let mutants: Vec<Mutant> = arguments.mutant.map_or(Mutant::ALL.to_vec(), |mutant| vec![mutant]);
    let started = Instant::now();
    println!("{:32} {:>12}  how", "mutant", "caught after");
    let missed = AtomicU64::new(0);
    in_parallel(0, mutants.len() as u64, jobs, |number| {
        let mutant = mutants[number as usize];
        match mutants::hunt(mutant, arguments.from, seeds_max) {
            Some(Caught { seeds, failure, .. }) => {
                let how = failure.text.lines().next().unwrap_or_default().chars().take(110).collect::<String>();
                println!("{:32} {seeds:>6} seeds  {how}", mutant.name());
            }
            None => {
                missed.fetch_add(1, Ordering::Relaxed);
                println!("{:32} NOT CAUGHT", mutant.name());
            }
        }
        Ok(())
    });
    let missed = missed.into_inner() as usize;
    println!("{} of {} caught, in {:.0} s", mutants.len() - missed, mutants.len(), started.elapsed().as_secs_f64());
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

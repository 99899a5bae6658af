//! `bench backlog`: what a large state costs. Fills a cluster with small images that nobody has received, then measures what
//! a snapshot of them does to commits, how soon a node that was away is level again, and how soon all of them start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use client::{Client, Inbox, MemorySource, Options, PendingImage, ProbeLoad, ProbePlan, Routing, Sender};
use cluster::{Cluster, Setup};
use hdrhistogram::Histogram;
use proto::client::{NodeStatus, Target};

use crate::load::Snapshot;
use crate::numbers::{at_us, histogram, record, round, table};
use crate::{BacklogArguments, failed};

/// Questions to the cluster are given up after this.
const PATIENCE: Duration = Duration::from_secs(120);
/// Images that one sender has under way.
const WINDOW: usize = 512;
/// Between two looks at whether a snapshot is being made.
const LOOK: Duration = Duration::from_millis(20);
/// Probes in flight, as the bars say.
const IN_FLIGHT: usize = 64;
/// Bars: the most that a snapshot may do to p99, seconds until a start serves, seconds until a node that missed as many
/// records as there are images is level again, segments of the log when everything was received.
const BAR_FACTOR: f64 = 2.0;
const BAR_START: f64 = 3.0;
const BAR_LEVEL: f64 = 60.0;
const BAR_SEGMENTS: u64 = 4;

/// Measures and prints.
pub fn run(arguments: &BacklogArguments) -> Result<(), String> {
    let mut setup = Setup::new(std::env::current_exe().map_err(failed("own executable"))?);
    setup.settings = vec![format!("cores = {}", arguments.cores)];
    setup.parent = Some(arguments.dir.clone());
    setup.log = "warn".to_owned();
    let mut cluster = Cluster::start(setup).map_err(text)?;
    cluster.wait_ready(PATIENCE).map_err(text)?;
    let names: Vec<String> = (1..=arguments.receivers.max(1)).map(|number| format!("receiver-{number}")).collect();
    let mut client = Client::new(options(&cluster)).map_err(text)?;
    names.iter().try_for_each(|name| client.register(name).map(drop)).map_err(text)?;
    fill(&cluster, arguments, &names)?;
    describe(&mut cluster)?;
    if arguments.receive {
        for turn in 1..=arguments.turns.max(1) {
            if turn > 1 {
                fill(&cluster, arguments, &names)?;
                describe(&mut cluster)?;
            }
            drain(&cluster, arguments, &names)?;
            let segments = describe(&mut cluster)?;
            let is_met = if segments <= BAR_SEGMENTS { "met" } else { "NOT met" };
            println!("bar: {segments} segments of the log <= {BAR_SEGMENTS}: {is_met}");
        }
    } else {
        commits(&mut cluster, arguments)?;
        away(&mut cluster, arguments)?;
        starts(&mut cluster)?;
    }
    cluster.check_alive().map_err(text)?;
    cluster.stop_all().map_err(text)?;
    Ok(())
}

fn text<E: std::fmt::Display>(error: E) -> String {
    error.to_string()
}

fn options(cluster: &Cluster) -> Options {
    cluster.options(Routing::Home, PATIENCE)
}

fn processes(cluster: &mut Cluster) -> Vec<u32> {
    let mut processes = vec![std::process::id()];
    processes.extend(cluster.running().into_iter().map(|number| cluster.process(number).id()));
    processes
}

/// Counts up to `all` on the terminal until dropped.
struct Progress {
    is_over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Progress {
    fn of(what: &'static str, all: u64, count: &Arc<AtomicU64>) -> Progress {
        let (is_over, count) = (Arc::new(AtomicBool::new(false)), count.clone());
        let told = is_over.clone();
        let thread = thread::spawn(move || {
            let started = Instant::now();
            while !told.load(Ordering::Relaxed) {
                thread::park_timeout(Duration::from_secs(5));
                let done = count.load(Ordering::Relaxed);
                let rate = done as f64 / started.elapsed().as_secs_f64();
                eprintln!("{what}: {done} of {all}, {rate:.0}/s");
            }
        });
        Progress { is_over, thread: Some(thread) }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// Sends all images and waits until they are accepted.
fn fill(cluster: &Cluster, arguments: &BacklogArguments, names: &[String]) -> Result<(), String> {
    let count = Arc::new(AtomicU64::new(0));
    let progress = Progress::of("accepted", arguments.images, &count);
    let started = Instant::now();
    let senders = arguments.senders.max(1);
    let work = |number: u64| {
        let (options, count, names) = (options(cluster), count.clone(), names.to_vec());
        let images = arguments.images / senders + u64::from(number < arguments.images % senders);
        let bytes = Arc::new(vec![number as u8; arguments.size.max(1)]);
        thread::spawn(move || -> Result<(), String> {
            let sender = Sender::connect(options, &format!("sender-{number}")).map_err(text)?;
            let mut pending: std::collections::VecDeque<PendingImage> = std::collections::VecDeque::new();
            for image in 0..images {
                if pending.len() >= WINDOW {
                    pending.pop_front().expect("it is full").wait().map_err(text)?;
                    count.fetch_add(1, Ordering::Relaxed);
                }
                let name = &names[((number + image) % names.len() as u64) as usize];
                let source = Arc::new(MemorySource(bytes.clone()));
                let submitted = sender.submit(source, &format!("{image:08}.jpg"), std::slice::from_ref(name));
                pending.push_back(submitted.map_err(text)?);
            }
            for image in pending {
                image.wait().map_err(text)?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        })
    };
    let threads: Vec<_> = (0..senders).map(work).collect();
    for thread in threads {
        thread.join().map_err(|_| "a sender panicked".to_owned())??;
    }
    drop(progress);
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{} images of {} bytes accepted in {seconds:.0} s: {:.0}/s",
        arguments.images,
        arguments.size,
        arguments.images as f64 / seconds
    );
    Ok(())
}

/// Receives and acknowledges everything.
fn drain(cluster: &Cluster, arguments: &BacklogArguments, names: &[String]) -> Result<(), String> {
    let count = Arc::new(AtomicU64::new(0));
    let progress = Progress::of("received", arguments.images, &count);
    let started = Instant::now();
    let all = arguments.images;
    let lanes = 8.min(names.len());
    let work = |lane: usize| {
        let (options, count) = (options(cluster), count.clone());
        let names: Vec<String> = names.iter().skip(lane).step_by(lanes).cloned().collect();
        thread::spawn(move || -> Result<(), String> {
            for name in names {
                let mut inbox = Inbox::open(options.clone(), &name).map_err(text)?;
                loop {
                    let Some(delivery) = inbox.receive(Duration::from_millis(500)).map_err(text)? else {
                        if inbox.is_caught_up(PATIENCE).map_err(text)? {
                            break;
                        }
                        continue;
                    };
                    inbox.acknowledge(delivery.head.seq).map_err(text)?;
                    count.fetch_add(1, Ordering::Relaxed);
                }
                inbox.flush(PATIENCE).map_err(text)?;
            }
            Ok(())
        })
    };
    let threads: Vec<_> = (0..lanes).map(work).collect();
    for thread in threads {
        thread.join().map_err(|_| "a receiver panicked".to_owned())??;
    }
    drop(progress);
    let (received, seconds) = (count.load(Ordering::Relaxed), started.elapsed().as_secs_f64());
    println!("{received} of {all} received and acknowledged in {seconds:.0} s: {:.0}/s", received as f64 / seconds);
    if received != all { Err(format!("{received} of {all} images were received")) } else { Ok(()) }
}

/// Memory and files of every node. Returns the segments of the longest log.
fn describe(cluster: &mut Cluster) -> Result<u64, String> {
    let head = ["node", "undelivered", "memory MB", "log segments", "log MB", "snapshots", "snapshots MB"];
    let (mut rows, mut segments) = (Vec::new(), 0);
    for number in cluster.running() {
        let status = cluster.status(number).map_err(text)?;
        let folder = cluster.data_path(number);
        let (log, snapshots) = (files(&folder.join("log"), "seg"), files(&folder.join("snapshots"), "snap"));
        segments = log.0.max(segments);
        rows.push(vec![
            number.to_string(),
            status.undelivered.to_string(),
            resident_mb(cluster.process(number).id()).to_string(),
            log.0.to_string(),
            (log.1 >> 20).to_string(),
            snapshots.0.to_string(),
            (snapshots.1 >> 20).to_string(),
        ]);
    }
    println!("{}", table(&head, &rows));
    Ok(segments)
}

/// How many there are and their bytes.
fn files(folder: &std::path::Path, extension: &str) -> (u64, u64) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let its = entries.filter(|entry| entry.path().extension().is_some_and(|found| found == extension));
    its.filter_map(|entry| entry.metadata().ok()).fold((0, 0), |sum, found| (sum.0 + 1, sum.1 + found.len()))
}

fn resident_mb(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) >> 10
}

/// Commits while snapshots come and go: what they do to the latency.
fn commits(cluster: &mut Cluster, arguments: &BacklogArguments) -> Result<(), String> {
    let leader = cluster.wait_leader(PATIENCE).map_err(text)?.0;
    let (over, addresses) = (Arc::new(AtomicBool::new(false)), cluster.client_addresses());
    let (is_over, begin) = (over.clone(), Instant::now());
    // When a snapshot was being made on any node, by looks.
    let looks = thread::spawn(move || {
        let mut looks: Vec<(Duration, bool)> = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            let is_making = addresses.iter().any(|address| {
                client::status_of(address, proto::ids::ClusterId::UNKNOWN, PATIENCE)
                    .is_ok_and(|status: NodeStatus| status.snapshot_under_way)
            });
            looks.push((begin.elapsed(), is_making));
            thread::sleep(LOOK);
        }
        looks
    });
    let mut options = Options::new([cluster.address(leader).client.clone()]);
    (options.routing, options.deadline) = (Routing::Fixed, Some(PATIENCE));
    let mut load = ProbeLoad::connect(&options, Target::Any).map_err(text)?;
    let duration = Duration::from_secs_f64(arguments.seconds.clamp(1.0, 3600.0));
    let plan = ProbePlan { in_flight: IN_FLIGHT, payload_bytes: 150, duration, count_max: None };
    let own = processes(cluster);
    let (before, started) = (Snapshot::now(&own), begin.elapsed());
    let mut samples = Vec::new();
    let report = load.run(&plan, |sample| samples.push((started + sample.at, sample.latency))).map_err(text)?;
    let machine = before.until(Snapshot::now(&own));
    over.store(true, Ordering::Relaxed);
    let looks = looks.join().map_err(|_| "the looks panicked".to_owned())?;
    let (mut quiet, mut busy) = (histogram(), histogram());
    for (at, latency) in samples {
        let next = looks.partition_point(|(look, _)| *look < at);
        let around = &looks[next.saturating_sub(1)..looks.len().min(next + 1)];
        // Between two looks that differ it is not known.
        match (around.iter().all(|look| look.1), around.iter().any(|look| look.1)) {
            (true, _) => record(&mut busy, latency),
            (false, false) => record(&mut quiet, latency),
            (false, true) => {}
        }
    }
    let row = |name: &str, found: &Histogram<u64>| {
        let mut row = vec![name.to_owned(), found.len().to_string()];
        row.extend([50.0, 99.0, 99.9].map(|percentile| format!("{:.0}", at_us(found, percentile))));
        row.push(format!("{:.0}", found.max() as f64 / 1e3));
        row
    };
    println!(
        "commits at {IN_FLIGHT} in flight, {:.0}/s; own CPU {}%, others {}; latencies in microseconds",
        report.committed as f64 / report.elapsed.as_secs_f64(),
        round(machine.ours * 100.0),
        machine.others_percent()
    );
    let head = ["", "commits", "p50", "p99", "p99.9", "max"];
    println!("{}", table(&head, &[row("no snapshot", &quiet), row("during snapshots", &busy)]));
    if quiet.is_empty() || busy.is_empty() {
        println!("bar: no comparison: commits with and without a snapshot are needed; more --seconds");
        return Ok(());
    }
    let (with, without) = (at_us(&busy, 99.0), at_us(&quiet, 99.0));
    let is_met = if with <= BAR_FACTOR * without { "met" } else { "NOT met" };
    println!("bar: p99 during a snapshot {with:.0} us <= {BAR_FACTOR} x {without:.0} us: {is_met}");
    Ok(())
}

/// A node misses as many records as there are images, and comes back under load.
fn away(cluster: &mut Cluster, arguments: &BacklogArguments) -> Result<(), String> {
    let leader = cluster.wait_leader(PATIENCE).map_err(text)?.0;
    let numbers = cluster.numbers();
    let victim = numbers.into_iter().find(|number| *number != leader).expect("three nodes");
    cluster.kill(victim).map_err(text)?;
    let mut options = Options::new([cluster.address(leader).client.clone()]);
    (options.routing, options.deadline) = (Routing::Fixed, Some(PATIENCE));
    let mut load = ProbeLoad::connect(&options, Target::Any).map_err(text)?;
    let missed = ProbePlan {
        in_flight: 256,
        payload_bytes: 150,
        duration: Duration::from_secs(3600),
        count_max: Some(arguments.images),
    };
    load.run(&missed, |_| {}).map_err(text)?;
    let before = Snapshot::now(&processes(cluster));
    let begin = Instant::now();
    cluster.start_node(victim).map_err(text)?;
    let over = Arc::new(AtomicBool::new(false));
    let is_over = over.clone();
    let under_load = thread::spawn(move || -> Result<u64, String> {
        let mut committed = 0;
        while !is_over.load(Ordering::Relaxed) {
            let plan =
                ProbePlan { in_flight: 16, payload_bytes: 150, duration: Duration::from_millis(200), count_max: None };
            committed += load.run(&plan, |_| {}).map_err(text)?.committed;
        }
        Ok(committed)
    });
    let level = loop {
        let here = cluster.status(victim).map_or(0, |status| status.applied.0);
        let there = cluster.status(leader).map_err(text)?.applied.0;
        if here + 10_000 > there && here > 0 {
            break begin.elapsed().as_secs_f64();
        }
        if begin.elapsed() > 4 * PATIENCE {
            return Err(format!("node {victim} is not level again: {here} of {there}"));
        }
        thread::sleep(Duration::from_millis(50));
    };
    over.store(true, Ordering::Relaxed);
    let committed = under_load.join().map_err(|_| "the load panicked".to_owned())??;
    let machine = before.until(Snapshot::now(&processes(cluster)));
    let is_met = if level <= BAR_LEVEL { "met" } else { "NOT met" };
    println!(
        "bar: node {victim} missed {} records and is level after {level:.1} s <= {BAR_LEVEL:.0} s, beside {:.0} commits/s: {is_met} \
         (own CPU {}%, others {})",
        arguments.images,
        committed as f64 / level,
        round(machine.ours * 100.0),
        machine.others_percent()
    );
    Ok(())
}

/// All nodes end and start again: until each says how it is, and until there is a leader.
fn starts(cluster: &mut Cluster) -> Result<(), String> {
    cluster.stop_all().map_err(text)?;
    let mut slowest = 0.0f64;
    for number in cluster.numbers() {
        let (before, begin) = (Snapshot::now(&processes(cluster)), Instant::now());
        cluster.start_node(number).map_err(text)?;
        while cluster.status(number).is_err() {
            if begin.elapsed() > PATIENCE {
                return Err(format!("node {number} does not start: {}", cluster.log_tail(number, 3)));
            }
            thread::sleep(Duration::from_millis(10));
        }
        let seconds = begin.elapsed().as_secs_f64();
        let machine = before.until(Snapshot::now(&processes(cluster)));
        let (own, others) = (round(machine.ours * 100.0), machine.others_percent());
        println!("node {number} serves {seconds:.2} s after its start (own CPU {own}%, others {others})");
        slowest = slowest.max(seconds);
    }
    cluster.wait_ready(PATIENCE).map_err(text)?;
    let is_met = if slowest <= BAR_START { "met" } else { "NOT met" };
    println!("bar: the slowest start took {slowest:.2} s <= {BAR_START:.0} s: {is_met}");
    Ok(())
}

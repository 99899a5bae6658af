//! `bench commit`: how long until a small record is committed and applied, and how many a second.
//!
//! A probe takes the way of a send request, without chunk or inbox: to the leader (through a follower with `--via any`),
//! appended, replicated, synced on a majority, applied, answered. Beside it stand the two physical costs that no design
//! can avoid, measured in the same run: one flush, and one round trip to the client and one to a follower.

use std::time::Duration;

use client::{Client, Options, ProbeLoad, ProbePlan, Routing};
use cluster::{Cluster, Setup};
use hdrhistogram::Histogram;
use proto::client::{NodeStatus, Target};
use proto::limits::PROBE_BYTES_MAX;
use serde_json::{Value, json};

use crate::load::{Load, Snapshot};
use crate::numbers::{PERCENTILES, at_us, histogram, percentiles_json, record, round, table};
use crate::{CommitArguments, Flush, Via, failed, loopback};

/// Blocking flushes of the baseline, before and after the steps.
const FLOOR_COUNT: usize = 1000;
/// Round trips of the baseline, before and after.
const ROUND_TRIP_TIME: Duration = Duration::from_millis(700);
/// Questions to the cluster are given up after this.
const PATIENCE: Duration = Duration::from_secs(20);
/// The first bars: p50 at 1 in flight against the physical costs, and commits a second at 64.
const BAR_FACTOR: f64 = 2.0;
const BAR_RATE: f64 = 20_000.0;
const BAR_RATE_IN_FLIGHT: usize = 64;

/// The physical costs, p50 in microseconds.
#[derive(Clone, Copy)]
struct Costs {
    // A 4 KiB append and its fdatasync.
    flush: f64,
    // A 4 KiB write past the page cache.
    direct: f64,
    round_trip: f64,
}

/// The physical costs before and after the steps.
#[derive(Clone, Copy)]
struct Baseline {
    before: Costs,
    after: Costs,
}

struct Step {
    in_flight: usize,
    latencies: Histogram<u64>,
    per_second: f64,
    refused: u64,
    load: Load,
}

/// The cluster under test.
struct Subject {
    // Dropping it ends the nodes.
    started: Option<Cluster>,
    address: String,
    leader: u64,
    processes: Vec<u32>,
}

/// Measures and prints.
pub fn run(arguments: &CommitArguments) -> Result<(), String> {
    if arguments.size > PROBE_BYTES_MAX {
        return Err(format!("--size {}: at most {PROBE_BYTES_MAX}", arguments.size));
    }
    let first = baseline(arguments)?;
    let mut subject = subject(arguments)?;
    let steps: Vec<Step> =
        arguments.in_flight.iter().map(|&in_flight| step(arguments, &subject, in_flight)).collect::<Result<_, _>>()?;
    if let Some(cluster) = &mut subject.started {
        cluster.check_alive().map_err(|problem| problem.to_string())?;
        cluster.stop_all().map_err(|problem| problem.to_string())?;
    }
    let last = baseline(arguments)?;
    let baseline = Baseline { before: first, after: last };
    let report = Report { arguments, leader: subject.leader, baseline, steps };
    if arguments.json {
        println!("{:#}", report.json());
    } else {
        report.print();
    }
    Ok(())
}

fn baseline(arguments: &CommitArguments) -> Result<Costs, String> {
    let p50 = |samples: ::disk::baseline::Samples| samples.percentile(50.0).as_secs_f64() * 1e6;
    let dir = &arguments.dir;
    let flush = ::disk::baseline::fdatasync_latency(dir, FLOOR_COUNT).map_err(failed("fdatasync baseline"))?;
    let direct = ::disk::baseline::flush_floor(dir, FLOOR_COUNT).map_err(failed("flush baseline"))?;
    let trips = loopback::round_trips(ROUND_TRIP_TIME).map_err(failed("loopback baseline"))?;
    Ok(Costs { flush: p50(flush), direct: p50(direct), round_trip: at_us(&trips, 50.0) })
}

fn subject(arguments: &CommitArguments) -> Result<Subject, String> {
    if arguments.nodes.is_empty() { start(arguments) } else { running(arguments) }
}

fn start(arguments: &CommitArguments) -> Result<Subject, String> {
    let program = std::env::current_exe().map_err(failed("own executable"))?;
    let mut setup = Setup::new(program);
    let flush = match arguments.flush {
        Flush::Auto => "auto",
        Flush::Mmap => "mmap",
        Flush::Direct => "direct",
    };
    setup.settings = vec![format!("cores = {}", arguments.cores), format!("flush = {flush:?}")];
    setup.parent = Some(arguments.dir.clone());
    setup.log = "warn".to_owned();
    let mut cluster = Cluster::start(setup).map_err(|problem| problem.to_string())?;
    let leader = cluster.wait_leader(PATIENCE).map_err(|problem| problem.to_string())?.0;
    let via = match arguments.via {
        Via::Leader => leader,
        Via::Any => cluster.numbers().into_iter().find(|&number| number != leader).unwrap_or(leader),
    };
    let mut processes = vec![std::process::id()];
    processes.extend(cluster.numbers().into_iter().map(|number| cluster.process(number).id()));
    let address = cluster.address(via).client.clone();
    Ok(Subject { started: Some(cluster), address, leader, processes })
}

fn running(arguments: &CommitArguments) -> Result<Subject, String> {
    let mut options = Options::new(arguments.nodes.iter().cloned());
    options.deadline = Some(PATIENCE);
    let status: NodeStatus =
        Client::new(options).and_then(|mut client| client.status()).map_err(|error| error.to_string())?;
    let leader = status.leader;
    let Some(member) = status.ring.member(leader) else {
        return Err("the cluster has no leader now; try again".into());
    };
    let address = match arguments.via {
        Via::Leader => member.client_address.clone(),
        Via::Any => {
            let other = arguments.nodes.iter().find(|address| **address != member.client_address);
            other.unwrap_or(&member.client_address).clone()
        }
    };
    // The nodes may be anywhere: their work counts as that of others.
    Ok(Subject { started: None, address, leader: leader.0, processes: vec![std::process::id()] })
}

fn step(arguments: &CommitArguments, subject: &Subject, in_flight: usize) -> Result<Step, String> {
    let mut options = Options::new([subject.address.clone()]);
    options.routing = Routing::Fixed;
    options.deadline = Some(PATIENCE);
    let mut load = ProbeLoad::connect(&options, Target::Any).map_err(|error| error.to_string())?;
    let duration = Duration::from_secs_f64(arguments.seconds.clamp(0.05, 3600.0));
    let plan = ProbePlan { in_flight, payload_bytes: arguments.size, duration: duration / 4, count_max: None };
    load.run(&plan, |_| {}).map_err(|error| error.to_string())?;

    let plan = ProbePlan { duration, ..plan };
    let mut latencies = histogram();
    let before = Snapshot::now(&subject.processes);
    let report = load.run(&plan, |sample| record(&mut latencies, sample.latency)).map_err(|error| error.to_string())?;
    let load = before.until(Snapshot::now(&subject.processes));
    let per_second = report.committed as f64 / report.elapsed.as_secs_f64().max(1e-9);
    Ok(Step { in_flight, latencies, per_second, refused: report.refused, load })
}

struct Report<'a> {
    arguments: &'a CommitArguments,
    leader: u64,
    baseline: Baseline,
    steps: Vec<Step>,
}

impl Baseline {
    fn both(&self, cost: impl Fn(&Costs) -> f64) -> [f64; 2] {
        [cost(&self.before), cost(&self.after)]
    }

    fn least(&self, cost: impl Fn(&Costs) -> f64) -> f64 {
        cost(&self.before).min(cost(&self.after))
    }
}

/// A bar: what was wanted, what was measured, whether it is met.
struct Bar {
    text: String,
    limit: f64,
    found: f64,
    is_met: bool,
}

impl Report<'_> {
    fn bars(&self) -> Vec<Bar> {
        // The smaller of the two: what disturbs a baseline makes it larger, and the bar with it.
        let (flush, trip) = (self.baseline.least(|costs| costs.flush), self.baseline.least(|costs| costs.round_trip));
        let mut bars = Vec::new();
        if let Some(step) = self.steps.iter().find(|step| step.in_flight == 1) {
            let (limit, found) = (BAR_FACTOR * (flush + 2.0 * trip), at_us(&step.latencies, 50.0));
            let text = format!(
                "1 in flight: p50 {found:.0} us <= {BAR_FACTOR} x (flush {flush:.0} + 2 x round trip {trip:.0}) = {limit:.0} us"
            );
            bars.push(Bar { text, limit, found, is_met: found <= limit });
        }
        if let Some(step) = self.steps.iter().find(|step| step.in_flight == BAR_RATE_IN_FLIGHT) {
            let found = step.per_second;
            let text = format!("{BAR_RATE_IN_FLIGHT} in flight: {found:.0} commits/s >= {BAR_RATE:.0}");
            bars.push(Bar { text, limit: BAR_RATE, found, is_met: found >= BAR_RATE });
        }
        bars
    }

    fn via(&self) -> &'static str {
        match self.arguments.via {
            Via::Leader => "leader",
            Via::Any => "any",
        }
    }

    fn json(&self) -> Value {
        let steps = self.steps.iter().map(|step| {
            json!({ "in_flight": step.in_flight, "commits_per_second": round(step.per_second), "refused": step.refused,
                "latency": percentiles_json(&step.latencies), "load": step.load.json() })
        });
        let bars = self.bars().into_iter().map(
            |bar| json!({ "text": bar.text, "limit": round(bar.limit), "found": round(bar.found), "met": bar.is_met }),
        );
        json!({
            "size": self.arguments.size, "via": self.via(), "leader": self.leader, "seconds": self.arguments.seconds,
            "started_nodes": self.arguments.nodes.is_empty(),
            "baseline": {
                "fdatasync_p50_us": self.baseline.both(|costs| costs.flush).map(round),
                "direct_write_p50_us": self.baseline.both(|costs| costs.direct).map(round),
                "round_trip_p50_us": self.baseline.both(|costs| costs.round_trip).map(round),
            },
            "steps": steps.collect::<Vec<_>>(), "bars": bars.collect::<Vec<_>>(),
        })
    }

    fn print(&self) {
        println!(
            "commit of {} bytes via {}, leader n{}; latencies in microseconds",
            self.arguments.size,
            self.via(),
            self.leader
        );
        let head = ["in flight", "commits/s", "p50", "p90", "p99", "p99.9", "max", "refused", "own CPU", "others"];
        let rows: Vec<Vec<String>> = self
            .steps
            .iter()
            .map(|step| {
                let mut row = vec![step.in_flight.to_string(), format!("{:.0}", step.per_second)];
                row.extend(PERCENTILES.map(|(_, percentile)| format!("{:.0}", at_us(&step.latencies, percentile))));
                row.push(format!("{:.0}", step.latencies.max() as f64 / 1e3));
                row.push(step.refused.to_string());
                row.push(format!("{}%", round(step.load.ours * 100.0)));
                row.push(step.load.others_percent());
                row
            })
            .collect();
        println!("{}", table(&head, &rows));
        let Baseline { before, after } = self.baseline;
        println!(
            "baseline before and after: flush p50 {:.0} and {:.0} us (4 KiB append + fdatasync), {:.0} and {:.0} us (4 KiB pwritev2, O_DIRECT, RWF_DSYNC), loopback round trip {:.0} and {:.0} us",
            before.flush, after.flush, before.direct, after.direct, before.round_trip, after.round_trip
        );
        for bar in self.bars() {
            println!("bar: {}: {}", bar.text, if bar.is_met { "met" } else { "NOT met" });
        }
        if self.steps.iter().any(|step| step.load.others > 0.2) {
            println!("others took more than 20% of the CPUs: measure again on a quiet machine");
        }
    }
}

//! `helio demo`: three node processes of this very executable, every photograph sent through changing nodes, the leader
//! killed half-way, every byte compared.
//!
//! One receiver (`gallery`) is connected all the time; the other (`archive`) comes only after the killed node is back, so
//! its images were waiting on disks meanwhile. Both get every image.

mod images;
mod live;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use client::{Client, MemorySource, Options, PendingImage, Receipt, Routing, Sender};
use cluster::{Cluster, Ledger, Problem, Received, Setup};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::args::DemoArguments;
use crate::command::node_names;
use crate::exit::{Cause, Failure};
use crate::table::{Table, counted, grouped};

use images::Photograph;
use live::LiveInbox;

/// Receivers: the first is connected all the time, the second at the end.
const RECEIVERS: [&str; 2] = ["gallery", "archive"];
const SENDER: &str = "camera";
/// Without news for this long, a step of the demo has failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a wait looks whether something happened.
const POLL: Duration = Duration::from_millis(1);
/// Settings of the nodes: small, so that nothing but loopback and a little disk is needed.
const NODE_SETTINGS: [&str; 4] =
    ["cores = 1", "segment_bytes = 4194304", "cache_bytes = 16777216", "reserve_bytes = 67108864"];

/// The demo; fails unless every image arrived exactly once, intact and in order.
///
/// `log` is what the nodes log.
pub fn run(arguments: &DemoArguments, log: Option<&str>) -> Result<(), Failure> {
    let start = Instant::now();
    let photographs = images::load(arguments)?;
    let interrupt = interrupt()?;
    let mut cluster =
        prepare(arguments, log, interrupt.clone()).map_err(|problem| Failure::new(Cause::Failed, problem))?;
    let outcome = Demo::new(&mut cluster, &photographs, interrupt.clone()).run();
    match outcome {
        Ok(result) => {
            result.print(arguments, &photographs, start.elapsed());
            if arguments.keep {
                eprintln!("the nodes' data and logs are in {}", cluster.keep_folder().display());
            }
            Ok(())
        }
        Err(_) if interrupt.load(Ordering::Acquire) => {
            Err(Failure::new(Cause::Failed, "interrupted; the nodes are ended and their files removed"))
        }
        Err(problem) => {
            let folder = cluster.keep_folder();
            Err(Failure::new(Cause::Failed, format!("{problem}; the nodes' logs are in {}", folder.display())))
        }
    }
}

fn interrupt() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, flag.clone())
            .map_err(|error| Failure::new(Cause::Failed, format!("cannot handle signal {signal}: {error}")))?;
    }
    Ok(flag)
}

fn prepare(arguments: &DemoArguments, log: Option<&str>, interrupt: Arc<AtomicBool>) -> Result<Cluster, Problem> {
    let program: PathBuf = std::env::current_exe().map_err(cluster::problem("cannot find the own executable"))?;
    let mut setup = Setup::new(program);
    setup.settings = NODE_SETTINGS.map(str::to_owned).to_vec();
    setup.parent = arguments.dir.clone();
    setup.interrupt = interrupt;
    if let Some(log) = log {
        setup.log = log.to_owned();
    }
    Cluster::prepare(setup)
}

/// A photograph on its way.
struct Flying {
    photograph: usize,
    number: usize,
    pending: PendingImage,
}

/// What became of one photograph.
struct Accepted {
    receipt: Receipt,
    via: u64,
}

struct Demo<'a> {
    cluster: &'a mut Cluster,
    photographs: &'a [Photograph],
    interrupt: Arc<AtomicBool>,
    ledger: Ledger,
    accepted: Vec<Option<Accepted>>,
    // By node number less one: opened when first needed. The last one may go anywhere.
    senders: Vec<Option<Sender>>,
    anywhere: Vec<Sender>,
}

struct Outcome {
    accepted: Vec<Accepted>,
    delivered: Vec<Duration>,
    leader_killed: u64,
    leader_next: u64,
    pause: Duration,
    flying: usize,
}

impl<'a> Demo<'a> {
    fn new(cluster: &'a mut Cluster, photographs: &'a [Photograph], interrupt: Arc<AtomicBool>) -> Demo<'a> {
        let nodes = cluster.numbers().len();
        Demo {
            cluster,
            photographs,
            interrupt,
            ledger: Ledger::new(),
            accepted: photographs.iter().map(|_| None).collect(),
            senders: (0..nodes).map(|_| None).collect(),
            anywhere: Vec::new(),
        }
    }

    fn run(mut self) -> Result<Outcome, Problem> {
        let folder = self.cluster.folder().display().to_string();
        eprintln!("starting three nodes in {folder}");
        self.cluster.start_all()?;
        let leader = self.cluster.wait_ready(cluster::nodes::READY_PATIENCE)?.0;
        for number in self.cluster.numbers() {
            let role = if number == leader { "leader" } else { "follower" };
            let (process, address) = (self.cluster.process(number).id(), self.cluster.address(number).client.clone());
            eprintln!("  n{number}  process {process}  {address}  {role}");
        }
        self.register()?;
        let gallery = LiveInbox::open(self.options_any(), RECEIVERS[0])?;

        let half = self.photographs.len() / 2;
        for photograph in 0..half {
            let via = self.node_for(photograph);
            self.send(photograph, via)?;
        }
        let last = (half + 2).min(self.photographs.len());
        let (next, pause) = self.kill_leader(leader, half..last)?;
        for photograph in last..self.photographs.len() {
            let via = self.node_for(photograph);
            self.send(photograph, via)?;
        }
        eprintln!("starting n{leader} again");
        self.cluster.start_node(leader)?;
        self.cluster.wait_ready(PATIENCE * 2)?;

        let live = gallery.finish(self.photographs.len(), PATIENCE)?;
        eprintln!("{} has all {}; now {} connects", RECEIVERS[0], live.len(), RECEIVERS[1]);
        let archived = cluster::receive(self.options_any(), RECEIVERS[1], self.photographs.len(), PATIENCE)?;
        self.ledger.check(RECEIVERS[0], &live)?;
        self.ledger.check(RECEIVERS[1], &archived)?;
        let delivered = self.delivery_times(&live);
        let accepted = self.accepted.into_iter().map(|accepted| accepted.expect("the ledger checked all")).collect();
        Ok(Outcome { accepted, delivered, leader_killed: leader, leader_next: next, pause, flying: last - half })
    }

    fn register(&mut self) -> Result<(), Problem> {
        let mut client = Client::new(self.options_any()).map_err(cluster::problem("client"))?;
        for name in RECEIVERS {
            let inbox = client.register(name).map_err(cluster::problem(format!("registering {name}")))?;
            eprintln!("registered {name} (inbox {inbox})");
        }
        Ok(())
    }

    fn options_any(&self) -> Options {
        self.cluster.options(Routing::Any, PATIENCE)
    }

    /// The nodes take turns; one that is down is passed over.
    fn node_for(&self, photograph: usize) -> u64 {
        let running = self.cluster.running();
        running[photograph % running.len()]
    }

    /// Sends one photograph through one node, and no other, and waits until it is accepted.
    fn send(&mut self, photograph: usize, via: u64) -> Result<(), Problem> {
        let flying = self.hand_over(photograph, via)?;
        self.wait(flying, via)
    }

    fn hand_over(&mut self, photograph: usize, via: u64) -> Result<Flying, Problem> {
        let slot = via as usize - 1;
        if self.senders[slot].is_none() {
            let sender = Sender::connect(self.cluster.options_of(via, PATIENCE), SENDER);
            self.senders[slot] = Some(sender.map_err(cluster::problem(format!("sender at n{via}")))?);
        }
        let sender = self.senders[slot].as_ref().expect("opened above");
        submit(sender, &mut self.ledger, self.photographs, photograph)
    }

    fn wait(&mut self, flying: Flying, via: u64) -> Result<(), Problem> {
        let name = &self.photographs[flying.photograph].name;
        let start = Instant::now();
        let receipt = loop {
            if let Some(outcome) = flying.pending.poll() {
                break outcome.map_err(cluster::problem(format!("sending {name}")))?;
            }
            if self.interrupt.load(Ordering::Acquire) || start.elapsed() > PATIENCE * 2 {
                return Err(Problem(format!("{name} was not accepted within {:?}", PATIENCE * 2)));
            }
            std::thread::sleep(POLL);
        };
        self.ledger.accepted(flying.number);
        let (ms, bytes) = (receipt.elapsed.as_secs_f64() * 1e3, receipt.fingerprint.length);
        eprintln!("accepted {name} via n{via}: {} in {ms:.1} ms", counted(bytes, "byte"));
        self.accepted[flying.photograph] = Some(Accepted { receipt, via });
        Ok(())
    }

    /// Kills the leader while photographs are on their way: one through the leader itself, one through a follower.
    fn kill_leader(&mut self, leader: u64, flying: std::ops::Range<usize>) -> Result<(u64, Duration), Problem> {
        let follower = self.cluster.running().into_iter().find(|&number| number != leader).expect("three nodes");
        let mut under: Vec<(Flying, u64)> = Vec::new();
        for (at, photograph) in flying.enumerate() {
            let via = if at == 0 { leader } else { follower };
            if at == 0 {
                // It begins at the leader, and goes elsewhere by itself when that dies.
                let mut options = self.options_any();
                options.nodes.sort_by_key(|address| *address != self.cluster.address(leader).client);
                let sender = Sender::connect(options, SENDER).map_err(cluster::problem("sender at the leader"))?;
                under.push((submit(&sender, &mut self.ledger, self.photographs, photograph)?, via));
                self.anywhere.push(sender);
            } else {
                under.push((self.hand_over(photograph, via)?, via));
            }
        }
        let killed = Instant::now();
        self.cluster.kill(leader)?;
        let flying = counted(under.len() as u64, "image");
        eprintln!("killed n{leader}, the leader, with {flying} on the way (SIGKILL)");
        self.senders[leader as usize - 1] = None;
        let next = self.cluster.wait_leader(PATIENCE)?.0;
        let pause = killed.elapsed();
        eprintln!("n{next} leads now, {:.0} ms later", pause.as_secs_f64() * 1e3);
        under.into_iter().try_for_each(|(flying, via)| self.wait(flying, via))?;
        Ok((next, pause))
    }

    /// From handing over to the live receiver having it whole, by photograph.
    fn delivery_times(&self, live: &[Received]) -> Vec<Duration> {
        let time_of = |photograph: &Photograph| {
            let sent = self.ledger.sent().iter().find(|sent| sent.name == photograph.name).expect("all were sent");
            let received = live.iter().find(|image| image.name == photograph.name).expect("the ledger checked it");
            received.at.saturating_duration_since(sent.begun)
        };
        self.photographs.iter().map(time_of).collect()
    }
}

fn submit(
    sender: &Sender,
    ledger: &mut Ledger,
    photographs: &[Photograph],
    photograph: usize,
) -> Result<Flying, Problem> {
    let Photograph { name, bytes } = &photographs[photograph];
    let receivers = RECEIVERS.map(str::to_owned);
    let number = ledger.begin(name, &receivers, bytes.clone());
    let source = Arc::new(MemorySource(bytes.clone()));
    let pending = sender.submit(source, name, &receivers).map_err(cluster::problem(format!("sending {name}")))?;
    Ok(Flying { photograph, number, pending })
}

impl Outcome {
    fn print(&self, arguments: &DemoArguments, photographs: &[Photograph], elapsed: Duration) {
        let bytes: u64 = photographs.iter().map(|photograph| photograph.bytes.len() as u64).sum();
        if arguments.json {
            self.print_json(photographs, elapsed);
            return;
        }
        let mut table =
            Table::new(&["image", "bytes", "via", "accepted in ms", "delivered in ms", "log index", "holders"]);
        for ((photograph, accepted), delivered) in photographs.iter().zip(&self.accepted).zip(&self.delivered) {
            table.row(vec![
                photograph.name.clone(),
                grouped(photograph.bytes.len() as u64),
                format!("n{}", accepted.via),
                format!("{:.1}", accepted.receipt.elapsed.as_secs_f64() * 1e3),
                format!("{:.1}", delivered.as_secs_f64() * 1e3),
                accepted.receipt.index.to_string(),
                node_names(&accepted.receipt.holders),
            ]);
        }
        say!("{}", table.render());
        say!(
            "{}, {}, arrived at {} exactly once, intact and in order; n{} was killed as leader with {} on the \
             way, n{} led after {:.0} ms; {:.1} s in all",
            counted(photographs.len() as u64, "image"),
            counted(bytes, "byte"),
            counted(RECEIVERS.len() as u64, "receiver"),
            self.leader_killed,
            self.flying,
            self.leader_next,
            self.pause.as_secs_f64() * 1e3,
            elapsed.as_secs_f64()
        );
    }

    fn print_json(&self, photographs: &[Photograph], elapsed: Duration) {
        let images: Vec<_> = photographs
            .iter()
            .zip(&self.accepted)
            .zip(&self.delivered)
            .map(|((photograph, accepted), delivered)| {
                json!({ "image": photograph.name, "bytes": photograph.bytes.len(), "via": accepted.via,
                    "accepted_ms": accepted.receipt.elapsed.as_secs_f64() * 1e3,
                    "delivered_ms": delivered.as_secs_f64() * 1e3, "index": accepted.receipt.index.0,
                    "holders": accepted.receipt.holders.iter().map(|holder| holder.address.node.0).collect::<Vec<_>>() })
            })
            .collect();
        say!(
            "{}",
            json!({ "images": images, "receivers": RECEIVERS, "exactly_once": true, "leader_killed": self.leader_killed,
                "leader_next": self.leader_next, "leaderless_ms": self.pause.as_secs_f64() * 1e3,
                "in_flight_at_kill": self.flying, "seconds": elapsed.as_secs_f64() })
        );
    }
}

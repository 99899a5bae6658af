//! Rounds of a cluster of three: killed under load, one node damaged, started again; every accepted image must arrive.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use client::{Client, MemorySource, PendingImage, Routing, Sender};
use cluster::ledger::{Findings, bytes_of, receive_some};
use cluster::random::Random;
use cluster::{Cluster, Ledger, Problem, Setup, problem};

use crate::HELIO;
use crate::damage::Damage;
use crate::template::{PATIENCE, Template};
use crate::trial::verify;

const IMAGES: u64 = 24;
/// Waited for before the kill; the others are under way.
const SETTLED: usize = 16;

/// Runs them on one cluster: each begins where the last one ended, with all nodes whole.
pub fn run(folder: &Path, random: &mut Random, rounds: u64) -> Result<bool, Problem> {
    let start = Instant::now();
    let mut setup = Setup::new(HELIO);
    setup.parent = Some(folder.to_owned());
    let mut cluster = Cluster::start(setup)?;
    let (mut accepted, mut stayed_out, mut found) = (0, 0, Findings::default());
    for round in 0..rounds {
        let mut report = Report::default();
        let outcome = run_one(&mut cluster, random, round, &mut report);
        accepted += report.accepted;
        stayed_out += u64::from(report.is_refused);
        let is_wrong = outcome.is_err() || report.findings.wrong() > 0;
        found.add(report.findings);
        if is_wrong {
            let text = outcome.err().map(|problem| problem.0).or(found.first.clone()).unwrap_or_default();
            println!("WRONG: round {round}, {}: {text}", report.damage);
            println!("the nodes' files are in {}", cluster.keep_folder().display());
            return Ok(false);
        }
    }
    println!(
        "{rounds} rounds of three nodes, one of them damaged ({stayed_out} times it refused to start): {accepted} images \
         accepted, {} arrived, {} lost, {} wrong; {:.0} s",
        found.received,
        found.lost,
        found.wrong() - found.lost,
        start.elapsed().as_secs_f64()
    );
    Ok(true)
}

#[derive(Default)]
struct Report {
    accepted: usize,
    is_refused: bool,
    findings: Findings,
    damage: String,
}

fn run_one(cluster: &mut Cluster, random: &mut Random, round: u64, report: &mut Report) -> Result<(), Problem> {
    // Receivers of its own: what was under way at the last kill may come to those of the last round.
    let receivers = [format!("gallery-{round}"), format!("archive-{round}")];
    let mut ledger = Ledger::new();
    load(cluster, random, &receivers, &mut ledger)?;
    report.accepted = ledger.sent().iter().filter(|sent| sent.accepted.is_some()).count();
    let victim = random.one(&cluster.numbers());
    let data = cluster.data_path(victim);
    let before = Template::capture((victim, cluster.numbers().len() as u64), &data)?;
    let damage = Damage::draw(random, &before);
    report.damage = format!("node {victim}: {damage}");
    damage.apply(&data).map_err(problem(&damage))?;
    report.is_refused = verify(&data)?.judgement() == "refuses";
    if report.is_refused {
        cluster.numbers().into_iter().filter(|number| *number != victim).try_for_each(|n| cluster.start_node(n))?;
    } else {
        cluster.start_all()?;
    }
    let mut is_restored = !report.is_refused;
    let restore = |cluster: &mut Cluster| {
        // The remedy that the node names.
        for file in before.files.iter().filter(|file| damage.paths().any(|path| path == file.path)) {
            file.lay_out(&data).map_err(problem("cannot restore a file"))?;
        }
        cluster.start_node(victim)?;
        cluster.wait_ready(PATIENCE).map(drop)
    };
    if let Err(problem) = cluster.wait_ready(PATIENCE) {
        // The kill may have left another log uncertain: that node votes only when every voter has answered (note 009).
        let heals =
            cluster.running().into_iter().any(|number| cluster.status(number).is_ok_and(|status| status.healing));
        if is_restored || !heals {
            return Err(problem);
        }
        println!("round {round}: a log is uncertain, and node {victim} is needed to go on");
        restore(cluster)?;
        is_restored = true;
    }
    for name in &receivers {
        let options = cluster.options(Routing::Any, PATIENCE);
        let received = receive_some(options, name, ledger.due(name), PATIENCE)?;
        report.findings.add(ledger.judge(name, &received));
    }
    if !is_restored {
        restore(cluster)?;
    }
    cluster.wait_for("the log to be whole", PATIENCE, |cluster| match cluster.status(victim)? {
        status if status.healing => Err(Problem("it heals".to_owned())),
        _ => Ok(()),
    })
}

/// Images for the receivers, all nodes killed while some of them are under way.
fn load(cluster: &mut Cluster, random: &mut Random, receivers: &[String], ledger: &mut Ledger) -> Result<(), Problem> {
    let options = cluster.options(Routing::Any, PATIENCE);
    let mut client = Client::new(options.clone()).map_err(problem("client"))?;
    for name in receivers {
        client.register(name).map_err(problem("registering"))?;
    }
    let sender = Sender::connect(options, "camera").map_err(problem("sender"))?;
    let mut pending: Vec<(usize, PendingImage)> = Vec::new();
    for image in 0..IMAGES {
        let length = if random.percent(6) { random.between(1_100_000, 1_500_000) } else { random.between(1, 40_000) };
        let bytes = bytes_of(random.number(), length as usize);
        let receivers =
            if random.percent(20) { receivers.to_vec() } else { vec![receivers[image as usize % 2].clone()] };
        let name = format!("{}-{image}", receivers[0]);
        let number = ledger.begin(&name, &receivers, bytes.clone());
        let submitted = sender.submit(Arc::new(MemorySource(bytes)), &name, &receivers);
        pending.push((number, submitted.map_err(problem("submitting"))?));
    }
    let under_way = pending.split_off(SETTLED);
    for (number, image) in pending {
        let receipt = image.wait().map_err(problem("sending"))?;
        ledger.accepted_as(number, receipt.image);
    }
    cluster.kill_together(&cluster.numbers())?;
    for (number, image) in under_way {
        if let Some(Ok(receipt)) = image.poll() {
            ledger.accepted_as(number, receipt.image);
        }
    }
    Ok(())
}

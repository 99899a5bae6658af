//! The disk of the nodes is full, again and again: senders are told, nothing accepted is lost, and what receivers fetch
//! makes room again.

use std::sync::Arc;

use client::{MemorySource, Routing, SendError, Sender};
use cluster::drive::Mounted;
use cluster::ledger::bytes_of;
use cluster::network::run;
use cluster::{Ledger, Problem, Received, problem};
use proto::error::Refusal;

use crate::case::{Case, Rights};
use crate::load::{PATIENCE, Tally, register};
use cluster::random::Random;

/// All three nodes share it.
const FILESYSTEM_MIB: u64 = 640;
const IMAGE_BYTES: usize = 3 << 20;
/// More than fit.
const IMAGES_MAX: usize = 400;
/// The disk counts as full when this many images in a row found no room.
const REFUSED_IN_A_ROW: usize = 3;
const RECEIVERS: [&str; 3] = ["receiver-1", "receiver-2", "receiver-3"];

/// See the module.
pub fn full_disks(case: &mut Case) -> Result<(), Problem> {
    if case.rights < Rights::User {
        let reason = "needs a small filesystem: run as root, or allow user namespaces";
        case.outcome.not_run.push(format!("full disk: {reason}"));
        return Ok(());
    }
    let point = case.path("small");
    std::fs::create_dir_all(&point).map_err(problem("cannot make a folder"))?;
    let target = point.to_string_lossy().into_owned();
    // As an ordinary user in memory.
    let kind = if case.rights == Rights::Root { "ext4" } else { "tmpfs" };
    if kind == "ext4" {
        let image = case.path("small.img");
        std::fs::File::create(&image)
            .and_then(|file| file.set_len(FILESYSTEM_MIB << 20))
            .map_err(problem("cannot make the image of the small filesystem"))?;
        let image = image.to_string_lossy().into_owned();
        run("mkfs.ext4", &["-q", "-F", "-m", "0", "-N", "4096", &image])?;
        run("mount", &["-t", "ext4", "-o", "loop", &image, &target])?;
    } else {
        run("mount", &["-t", "tmpfs", "-o", &format!("size={FILESYSTEM_MIB}m"), "heliograph", &target])?;
    }
    let _small = Mounted::at(&point);
    let mut setup = case.setup(3, Vec::new());
    setup.parent = Some(point);
    let mut cluster = case.start(setup)?;
    register(&cluster, &RECEIVERS.map(str::to_owned))?;
    let mut ledger = Ledger::new();
    let mut received: Vec<Vec<Received>> = RECEIVERS.map(|_| Vec::new()).to_vec();
    let mut tally = Tally::default();
    for round in 0..case.scale(5, 1) {
        let before = tally.accepted;
        let sender =
            Sender::connect(cluster.options(Routing::Home, PATIENCE / 6), "camera").map_err(problem("sender"))?;
        fill(case, &sender, &mut ledger, round, &mut tally)?;
        if tally.accepted < before + 4 {
            return Err(Problem(format!("round {round}: only {} images fitted", tally.accepted - before)));
        }
        case.count(&format!("full disk ({kind})"));
        // The nodes live, and come back from a kill with the disk full.
        cluster.check_alive()?;
        let victim = case.random.one(&cluster.numbers());
        if cluster.is_whole() {
            cluster.kill(victim)?;
            cluster.start_node(victim)?;
            case.count("kill -9 with the disk full");
            case.wait_back(&mut cluster, "kill -9")?;
        }
        for (name, received) in RECEIVERS.iter().zip(&mut received) {
            case.check_interrupt()?;
            let due = ledger.judge(name, received).lost;
            let options = cluster.options(Routing::Any, PATIENCE);
            received.extend(cluster::ledger::receive_some(options, name, due, PATIENCE)?);
        }
    }
    for (name, received) in RECEIVERS.iter().zip(&received) {
        tally.findings.add(ledger.judge(name, received));
    }
    case.outcome.add(tally);
    cluster.check_alive()
}

/// Sends until nothing fits any more.
fn fill(case: &mut Case, sender: &Sender, ledger: &mut Ledger, round: usize, tally: &mut Tally) -> Result<(), Problem> {
    // As many draws as fit must not change what comes after.
    let mut random = Random::new(case.random.number(), "full disk");
    let mut in_a_row = 0;
    for image in 0..IMAGES_MAX {
        case.check_interrupt()?;
        let name = format!("full-{round}-{image}");
        let receivers = [random.one(&RECEIVERS).to_owned()];
        let bytes = bytes_of(random.number(), IMAGE_BYTES - random.between(0, 100_000) as usize);
        let number = ledger.begin(&name, &receivers, bytes.clone());
        let outcome =
            sender.submit(Arc::new(MemorySource(bytes)), &name, &receivers).and_then(|pending| pending.wait());
        match outcome {
            Ok(receipt) => {
                ledger.accepted_as(number, receipt.image);
                tally.accepted += 1;
                in_a_row = 0;
            }
            Err(SendError::Refused { refusal: Refusal::NoSpace, .. }) => in_a_row += 1,
            Err(error) => tally.unsettled.push(format!("{name}: {error}")),
        }
        if in_a_row == REFUSED_IN_A_ROW {
            return Ok(());
        }
    }
    Err(Problem(format!("{IMAGES_MAX} images and the disk is not full")))
}

//! Clients that are many, slow, or die.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use client::shell::connection::Connection;
use client::{Inbox, MemorySource, Routing, Sender};
use cluster::ledger::bytes_of;
use cluster::{Cluster, Ledger, Problem, Process, Received, problem};
use proto::client::{ClientReply, ClientRequest, Target};
use proto::ids::{ClusterId, ImageId, InboxSeq};

use crate::HELIO;
use crate::case::Case;
use crate::load::{PATIENCE, Plan, Tally, register};

/// Of a handshake or a sign of life.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);
/// Descriptors for one busy client, and for all else.
const FILES_PER_CLIENT: u64 = 4;
const FILES_APART: u64 = 512;

/// Idle connections to all nodes beside busy senders, while nodes die and stand still.
pub fn connections(case: &mut Case) -> Result<(), Problem> {
    let (idle, busy) = case.scale((2_000, 200), (400, 40));
    let needed = idle as u64 + busy as u64 * FILES_PER_CLIENT + FILES_APART;
    if let Err(limit) = cluster::process::allow_files(needed) {
        let remedy = format!("needs {needed} open files, {limit} are allowed: ulimit -Hn {needed}");
        case.outcome.not_run.push(format!("{idle} idle and {busy} busy connections: {remedy}"));
        return Ok(());
    }
    let mut cluster = case.cluster()?;
    let mut idlers: Vec<(u64, Connection)> = Vec::new();
    for at in 0..idle {
        case.check_interrupt()?;
        let number = 1 + at as u64 % 3;
        idlers.push((number, open(&cluster, number)?));
    }
    case.outcome.seen.push(("idle connection".to_owned(), idle as u64));
    case.outcome.seen.push(("busy connection".to_owned(), busy as u64));
    let plan = Plan { senders: busy, window: 2, receivers: 12, pace: 120, bytes_max: 1 << 20 };
    let load = case.load(&cluster, plan)?;
    for round in 0..case.scale(4, 1) {
        load.wait_accepted(busy, "with many connections")?;
        let victim = case.random.one(&cluster.numbers());
        if round % 2 == 0 {
            cluster.kill(victim)?;
            load.wait_accepted(busy / 2, "with many connections and one node down")?;
            cluster.start_node(victim)?;
            case.count("kill -9 with all connections");
        } else {
            cluster.process(victim).pause().map_err(problem("SIGSTOP"))?;
            case.pass(1_500, 3_000)?;
            cluster.process(victim).resume().map_err(problem("SIGCONT"))?;
            case.count("SIGSTOP with all connections");
        }
        case.wait_back(&mut cluster, "kill -9")?;
        for (number, connection) in idlers.iter_mut().filter(|(number, _)| cluster.is_running(*number)) {
            case.check_interrupt()?;
            if round % 2 == 0 && *number == victim {
                *connection = open(&cluster, *number)?;
            } else {
                ping(connection).map_err(problem(format!("an idle connection to node {number}")))?;
            }
        }
    }
    case.outcome.add(load.finish(case.scale(3_000, 200))?);
    cluster.check_alive()
}

fn open(cluster: &Cluster, number: u64) -> Result<Connection, Problem> {
    let address = &cluster.address(number).client;
    Connection::open(address, Target::Any, ClusterId::UNKNOWN, ANSWER_PATIENCE)
        .map(|(connection, _)| connection)
        .map_err(|failure| Problem(format!("connecting to node {number}: {failure:?}")))
}

fn ping(connection: &mut Connection) -> Result<(), Problem> {
    connection.send(&ClientRequest::Ping, &[]).and_then(|()| connection.flush()).map_err(problem("ping"))?;
    let mut body = Vec::new();
    loop {
        match connection.receive(&mut body, Some(ANSWER_PATIENCE)).map_err(problem("no answer"))? {
            Some(ClientReply::Pong) => return Ok(()),
            // News of the ring.
            Some(_) => {}
            None => return Err(Problem(format!("no answer within {ANSWER_PATIENCE:?}"))),
        }
    }
}

/// One receiver takes its time for each image, one opens its inbox and never reads: the others get theirs all the same,
/// and the nodes keep no more for them than their bound.
pub fn slow_receivers(case: &mut Case) -> Result<(), Problem> {
    // Resident memory of a node, with a cache of 8 MiB and one core. What the stalled receiver lacks is many times that.
    const MEMORY_BYTES_MAX: u64 = 400 << 20;
    let mut cluster = case.cluster()?;
    let names = ["slow".to_owned(), "stalled".to_owned()];
    register(&cluster, &names)?;
    let load = case.load(&cluster, Plan::usual(50))?;
    let mut ledger = Ledger::new();
    let mut slow = Inbox::open(cluster.options(Routing::Any, PATIENCE), "slow").map_err(problem("inbox slow"))?;
    let mut stalled = Some(open_stalled(&cluster)?);
    case.count("receiver that never reads");
    case.count("receiver that takes its time");
    let sender = Sender::connect(cluster.options(Routing::Rotate, PATIENCE), "patient").map_err(problem("sender"))?;
    let mut taken = Vec::new();
    for image in 0..case.scale(220, 30) {
        case.check_interrupt()?;
        let name = format!("slow-{image}");
        let bytes = bytes_of(case.random.number(), case.random.between(500_000, 1_500_000) as usize);
        let number = ledger.begin(&name, &names, bytes.clone());
        let sent = sender.submit(Arc::new(MemorySource(bytes)), &name, &names).and_then(|pending| pending.wait());
        let receipt = sent.map_err(problem(format!("sending {name} to slow receivers")))?;
        ledger.accepted_as(number, receipt.image);
        load.wait_accepted(2, "beside slow receivers")?;
        if image % 4 == 0 {
            case.pass(50, 150)?;
            taken.extend(take(&mut slow, Duration::from_millis(500))?);
        }
    }
    let mut memory = 0;
    for number in cluster.numbers() {
        memory = memory.max(resident_bytes(cluster.process(number).id())?);
    }
    case.outcome.notes.push(format!("largest node beside slow receivers: {} MiB of memory", memory >> 20));
    if memory > MEMORY_BYTES_MAX {
        return Err(Problem(format!("a node takes {memory} bytes of memory beside slow receivers")));
    }
    // It goes, and another takes its inbox.
    drop(stalled.take());
    let mut tally = Tally { accepted: ledger.sent().len(), ..Tally::default() };
    while ledger.judge("slow", &taken).lost > 0 {
        match take(&mut slow, PATIENCE)? {
            Some(received) => taken.push(received),
            None => break,
        }
    }
    tally.findings.add(ledger.judge("slow", &taken));
    let options = cluster.options(Routing::Any, PATIENCE);
    let received = cluster::ledger::receive_some(options, "stalled", ledger.due("stalled"), PATIENCE)?;
    tally.findings.add(ledger.judge("stalled", &received));
    case.outcome.add(tally);
    case.outcome.add(load.finish(case.scale(1_500, 150))?);
    cluster.check_alive()
}

fn take(inbox: &mut Inbox, patience: Duration) -> Result<Option<Received>, Problem> {
    let Some(delivery) = inbox.receive(patience).map_err(problem("inbox slow"))? else { return Ok(None) };
    let head = delivery.head;
    inbox.acknowledge(head.seq).map_err(problem("inbox slow"))?;
    let at = Instant::now();
    Ok(Some(Received { seq: head.seq, image: head.image, name: head.name, bytes: delivery.bytes, at }))
}

/// Opens the inbox at its home with all the credit there is, and then does nothing.
fn open_stalled(cluster: &Cluster) -> Result<Connection, Problem> {
    for number in cluster.numbers() {
        let mut connection = open(cluster, number)?;
        let request = ClientRequest::OpenInbox {
            name: "stalled".to_owned(),
            credit: u64::MAX / 2,
            resume_seq: InboxSeq(0),
            resume_from: 0,
        };
        connection.send(&request, &[]).and_then(|()| connection.flush()).map_err(problem("opening an inbox"))?;
        let mut body = Vec::new();
        if let Ok(Some(ClientReply::InboxOpened { .. })) = connection.receive(&mut body, Some(ANSWER_PATIENCE)) {
            return Ok(connection);
        }
    }
    Err(Problem("no node opens the inbox \"stalled\"".into()))
}

fn resident_bytes(process: u32) -> Result<u64, Problem> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).map_err(problem("memory of a node"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|number| number.parse::<u64>().ok());
    kibibytes.map(|number| number << 10).ok_or_else(|| Problem(format!("no VmRSS in {status:?}")))
}

/// `helio send` and `helio inbox` die in the middle of chunks. What a sender left unfinished comes whole or not at all, and
/// its bytes are freed; what a receiver left unfinished comes again, and no file is there twice or in part.
pub fn killed_clients(case: &mut Case) -> Result<(), Problem> {
    const UPLOAD_IDLE: &str = "upload_idle_seconds = 3";
    let mut setup = case.setup(3, Vec::new());
    setup.settings.push(UPLOAD_IDLE.to_owned());
    let mut cluster = case.start(setup)?;
    register(&cluster, &["gallery".to_owned()])?;
    let (sent, out) = (case.path("sent"), case.path("received"));
    for folder in [&sent, &out] {
        fs::create_dir_all(folder).map_err(problem("cannot make a folder"))?;
    }
    let log = case.path("clients.log");
    let mut ledger = Ledger::new();
    let mut tally = Tally::default();
    for round in 0..case.scale(80, 8) {
        case.check_interrupt()?;
        let name = format!("image-{round}.png");
        let length = case.random.between(6 << 20, 24 << 20) as usize;
        let bytes = bytes_of(case.random.number(), length);
        let path = sent.join(&name);
        fs::write(&path, bytes.as_slice()).map_err(problem("cannot write an image"))?;
        let number = ledger.begin(&name, &["gallery".to_owned()], bytes);
        let mut sending = command(&cluster, &["send", "--from", "camera", "--to", "gallery"]);
        let mut sending = Process::start(sending.arg(&path), &log).map_err(problem("helio send"))?;
        let mut receiving = command(&cluster, &["inbox", "gallery", "--follow", "--out"]);
        let mut receiving = Process::start(receiving.arg(&out), &log).map_err(problem("helio inbox"))?;
        case.pass(5, case.scale(150, 250))?;
        match sending.ended().map_err(problem("helio send"))? {
            Some(status) if status.success() => accept(&mut ledger, number, &mut tally),
            Some(status) => return Err(Problem(format!("helio send {name}: {status}; see {}", log.display()))),
            None if round % 4 == 3 => {
                // This one may finish, so that there is something to receive in any case.
                let status = sending.wait(PATIENCE).map_err(problem("helio send"))?;
                if !status.is_some_and(|status| status.success()) {
                    return Err(Problem(format!("helio send {name}: {status:?}; see {}", log.display())));
                }
                accept(&mut ledger, number, &mut tally);
            }
            None => {
                sending.kill().map_err(problem("helio send"))?;
                case.count("kill -9 of a sender inside an image");
            }
        }
        if let Some(status) = receiving.ended().map_err(problem("helio inbox"))? {
            return Err(Problem(format!("helio inbox ended by itself: {status}; see {}", log.display())));
        }
        receiving.kill().map_err(problem("helio inbox"))?;
        case.count("kill -9 of a receiver");
        fs::remove_file(&path).map_err(problem("cannot remove an image"))?;
    }
    // The last one lives until nothing comes any more.
    let last = command(&cluster, &["inbox", "gallery", "--wait", "3", "--out"]).arg(&out).output();
    let last = last.map_err(problem("helio inbox"))?;
    if !last.status.success() {
        return Err(Problem(format!("helio inbox: {}: {}", last.status, String::from_utf8_lossy(&last.stderr).trim())));
    }
    tally.findings = ledger.judge("gallery", &read_folder(&out)?);
    case.outcome.add(tally);
    cluster.wait_for("bytes of unfinished images are freed", PATIENCE, |cluster| {
        for number in cluster.numbers() {
            let held: u64 = cluster.status(number)?.cores.iter().map(|core| core.image_bytes).sum();
            if held > 0 {
                return Err(Problem(format!("node {number} holds {held} bytes")));
            }
        }
        Ok(())
    })?;
    cluster.check_alive()
}

fn accept(ledger: &mut Ledger, number: usize, tally: &mut Tally) {
    ledger.accepted(number);
    tally.accepted += 1;
}

fn command(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = Command::new(HELIO);
    command.args(arguments).env("HELIO_NODES", cluster.client_addresses().join(",")).env_remove("RUST_LOG");
    command.stdout(Stdio::null());
    command
}

/// What the files of `helio inbox` say, in the order of their names: "000000000012-image-3.png".
fn read_folder(folder: &Path) -> Result<Vec<Received>, Problem> {
    let mut received = Vec::new();
    for entry in fs::read_dir(folder).map_err(problem("the received files"))? {
        let path = entry.map_err(problem("the received files"))?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if file.starts_with('.') {
            continue;
        }
        let parts = file.split_once('-').and_then(|(place, name)| Some((place.parse().ok()?, name.to_owned())));
        let (place, name) = parts.ok_or_else(|| Problem(format!("a file {file:?} among the received ones")))?;
        let bytes = fs::read(&path).map_err(problem(format!("reading {}", path.display())))?;
        let (seq, image, at) = (InboxSeq(place), ImageId::default(), Instant::now());
        received.push(Received { seq, image, name, bytes, at });
    }
    received.sort_by_key(|received| received.seq);
    Ok(received)
}

//! The inspector looks at nodes' directories from outside: chosen entries of a log, a log while it grows, an image's life.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use client::{ProbeLoad, ProbePlan, Receipt, Routing, Sender};
use cluster::{Cluster, Ledger, Process};
use proto::client::Target;
use proto::ids::ImageId;
use serde_json::Value;

use crate::setup::{HELIO, PATIENCE, cluster, helio, receive_and_check, register, send, wait_settled};

/// Sent in each round while the log is followed.
const IMAGES: usize = 20;

/// The objects that a command printed, one a line.
fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Segment and offset of each entry.
fn places(text: &str) -> Vec<(u64, u64)> {
    let place = |entry: &Value| (entry["segment"].as_u64().unwrap(), entry["offset"].as_u64().unwrap());
    lines(text).iter().map(place).collect()
}

/// The images of records that made one ready.
fn images(text: &str) -> BTreeSet<String> {
    lines(text).iter().map(|entry| entry["record"]["body"]["image"].as_str().unwrap().to_owned()).collect()
}

fn data(cluster: &Cluster, number: u64) -> String {
    cluster.data_path(number).to_str().unwrap().to_owned()
}

/// Entries of kind and image of a dump of node 1 with these filters.
fn dump(cluster: &Cluster, filters: &[&str]) -> Vec<Value> {
    let data = data(cluster, 1);
    lines(&helio("", &[&["log", "dump", &data, "--json"], filters].concat()).ok().stdout)
}

/// The command line is wrong, and the text says what is right.
fn is_usage_error(arguments: &[&str], part: &str) {
    let ran = helio("", arguments);
    assert!(ran.code == 2 && ran.stderr.contains(part), "expected {part:?}: {ran:?}");
}

#[test]
fn a_dump_shows_what_was_asked_for() {
    let mut cluster = cluster();
    register(&cluster, &["gallery", "archive"]);
    let mut ledger = Ledger::new();
    let sender = Sender::connect(cluster.options(Routing::Home, PATIENCE), "camera").unwrap();
    let first = send(&sender, &mut ledger, "first.png", &["gallery"], 5000);
    let second = send(&sender, &mut ledger, "second.png", &["archive"], 5000);
    wait_settled(&mut cluster);
    let all = dump(&cluster, &[]);
    let ready = dump(&cluster, &["--kind", "ready"]);
    assert_eq!(ready.len(), 2, "{all:#?}");
    let image = first.image.to_string();
    let of_image = dump(&cluster, &["--image", &image]);
    assert_eq!((of_image.len(), &of_image[0]["record"]["body"]["name"]), (1, &Value::from("first.png")));
    let at = second.index.0.to_string();
    assert_eq!(dump(&cluster, &["--index", &at]).len(), 1);
    let since = format!("{at}..");
    assert!(dump(&cluster, &["--index", &since]).iter().all(|entry| entry["index"].as_u64() >= Some(second.index.0)));
    // The moment of the second record divides them.
    let moment = ready[1]["record"]["time_ms"].to_string();
    assert!(dump(&cluster, &["--kind", "ready", "--since", &moment]).contains(&ready[1]));
    let names = |client: &str| -> Vec<String> {
        let ready = dump(&cluster, &["--kind", "ready", "--client", client]);
        ready.iter().map(|entry| entry["record"]["body"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("gallery"), ["first.png"]);
    assert_eq!(names("camera"), ["first.png", "second.png"]);
    assert_eq!(names("nobody"), [""; 0]);
    let path = data(&cluster, 1);
    is_usage_error(&["log", "dump", &path, "--since", "noon"], "2026-11-22T18:00:00Z");
    is_usage_error(&["log", "dump", &path, "--index", "9..3"], "ends before it begins");
    cluster.check_alive().unwrap();
}

/// `helio log dump --follow` of a node's directory, its output in a file; gone with its value.
struct Following {
    process: Process,
    out: std::path::PathBuf,
}

impl Following {
    fn start(data: &str, out: &Path, arguments: &[&str]) -> Following {
        let mut command = Command::new(HELIO);
        command.args(["log", "dump", data, "--follow", "--json"]).args(arguments).env_remove("RUST_LOG");
        Following { process: Process::start(&mut command, out).unwrap(), out: out.to_owned() }
    }

    /// What was shown so far, whole lines.
    fn shown(&self) -> String {
        let text = fs::read_to_string(&self.out).unwrap();
        text[..text.rfind('\n').map_or(0, |end| end + 1)].to_owned()
    }

    /// SIGINT; gives the exit code.
    fn interrupt(mut self) -> (i32, String) {
        self.process.interrupt().unwrap();
        let status = self.process.wait(PATIENCE).unwrap().expect("it ends");
        (status.code().unwrap_or(-1), fs::read_to_string(&self.out).unwrap())
    }
}

#[test]
fn a_followed_log_shows_each_entry_once_across_segments_and_restarts() {
    let mut cluster = cluster();
    register(&cluster, &["gallery", "archive"]);
    let mut ledger = Ledger::new();
    let sender = Sender::connect(cluster.options(Routing::Home, PATIENCE), "scanner").unwrap();
    let kept = send(&sender, &mut ledger, "kept.png", &["archive"], 70_000);
    drop(sender);
    let followed: Vec<(u64, Following)> = cluster
        .numbers()
        .into_iter()
        .map(|number| {
            let out = cluster.folder().join(format!("followed{number}"));
            (number, Following::start(&data(&cluster, number), &out, &[]))
        })
        .collect();
    let ready = Following::start(&data(&cluster, 2), &cluster.folder().join("ready"), &["--kind", "ready"]);
    for round in 0..3 {
        let sender = Sender::connect(cluster.options(Routing::Any, PATIENCE), "camera").unwrap();
        for image in 0..IMAGES {
            send(&sender, &mut ledger, &format!("image-{round}-{image}"), &["gallery"], 700);
        }
        drop(sender);
        wait_until("the images are followed", || images(&ready.shown()).len() >= (round + 1) * IMAGES);
        // Fills more than a segment, in steps of less than the log that is kept: who lags by one misses nothing.
        for _ in 0..4 {
            let (in_flight, payload_bytes, duration) = (64, 1024, PATIENCE);
            let plan = ProbePlan { in_flight, payload_bytes, duration, count_max: Some(300) };
            let mut load = ProbeLoad::connect(&cluster.options(Routing::Any, PATIENCE), Target::Any).unwrap();
            load.run(&plan, |_| {}).unwrap();
            wait_settled(&mut cluster);
            for (number, following) in &followed {
                let upto = cluster.status(*number).unwrap().committed.0;
                wait_until(&format!("node {number} is followed up to {upto}"), || {
                    last_index(&following.shown()) >= upto
                });
            }
        }
        if round == 1 {
            // The first is killed, and cuts a torn round if it was in the middle of one.
            cluster.kill(1).unwrap();
            cluster.start_node(1).unwrap();
            cluster.wait_ready(PATIENCE).unwrap();
        }
    }
    let sender = Sender::connect(cluster.options(Routing::Any, PATIENCE), "camera").unwrap();
    let late = send(&sender, &mut ledger, "image-late", &["gallery"], 700).image;
    drop(sender);
    receive_and_check(&cluster, &ledger, "gallery");
    wait_settled(&mut cluster);
    // An idle cluster writes nothing more: what a dump of the stopped node shows must come, and nothing else.
    for (number, status) in cluster.stop_all().unwrap() {
        assert!(status.success(), "node {number}: {status}");
    }
    for (number, following) in followed {
        let dumped = helio("", &["log", "dump", &data(&cluster, number), "--json"]).ok().stdout;
        let segments = places(&dumped).last().unwrap().0;
        assert!(segments >= 3, "only {segments} segments were filled");
        let last = dumped.lines().last().unwrap();
        wait_until(&format!("node {number} is followed to its end"), || following.shown().lines().last() == Some(last));
        let (code, shown) = following.interrupt();
        assert_eq!(code, 0, "{shown}");
        // What is behind snapshots was recycled meanwhile.
        assert!(shown.ends_with(&dumped), "node {number}: shown\n{shown}\ndumped\n{dumped}");
        let (places, entries) = (places(&shown), lines(&shown));
        assert!(places.is_sorted_by(|one, next| one < next), "node {number}: {places:?}");
        let indexes: Vec<u64> = entries.iter().map(|entry| entry["index"].as_u64().unwrap()).collect();
        assert!(indexes[0] == 1 && indexes.windows(2).all(|pair| pair[1] <= pair[0] + 1), "node {number}: {indexes:?}");
    }
    // A notice that is repeated while its record is on its way makes a second one, which changes nothing.
    let count = 3 * IMAGES + 2;
    wait_until("the images are followed", || images(&ready.shown()).len() >= count);
    let (code, shown) = ready.interrupt();
    assert_eq!((code, images(&shown).len()), (0, count), "{shown}");
    assert!(lines(&shown).iter().all(|entry| entry["kind"] == "ready"), "{shown}");
    a_log_whose_begin_is_gone_is_told_with_a_snapshot(&cluster, late, &kept);
}

/// Of the last entry of a dump; 0 if there is none.
fn last_index(dump: &str) -> u64 {
    dump.lines().last().map_or(0, |line| lines(line)[0]["index"].as_u64().unwrap())
}

/// `late` was received, and its record is in the log; `kept` was not, and its record is in a snapshot only.
fn a_log_whose_begin_is_gone_is_told_with_a_snapshot(cluster: &Cluster, late: ImageId, kept: &Receipt) {
    let all: Vec<String> = cluster.numbers().into_iter().map(|number| data(cluster, number)).collect();
    let ran = helio("", &["log", "dump", &all[0], "--client", "gallery", "--kind", "ready"]).ok();
    assert_eq!(ran.stderr.matches("got its name in an entry that is not in this log").count(), 1, "{ran:?}");
    let told = trace(&late.to_string(), &all);
    let note = told["notes"][0].as_str().unwrap();
    assert!(note.starts_with("entries below ") && note.contains("what happened before is not in the log"), "{told:#}");
    assert_eq!(events(&told, "freed").len(), 1, "{told:#}");

    let told = trace(&kept.image.to_string(), &all);
    let snapshot = events(&told, "snapshot")[0];
    assert!(events(&told, "ready").is_empty(), "{told:#}");
    let waiting = &snapshot["waiting"][0];
    assert_eq!((&waiting["ready"], waiting["holders"].as_array().unwrap().len()), (&kept.index.0.into(), 2));
    let receiver = &waiting["receivers"][0];
    assert_eq!((&receiver["name"], &receiver["seq"]), (&"archive".into(), &1.into()), "{told:#}");
    assert_eq!(
        (&told["name"], &told["bytes"], &told["sender"]),
        (&"kept.png".into(), &70_000.into(), &"scanner".into())
    );
    for directory in told["directories"].as_array().unwrap() {
        assert!(!directory["lacks"].to_string().contains("as holder"), "{told:#}");
    }
    // Bad snapshots are said to be bad, and without them nothing is left of the record.
    for number in cluster.numbers() {
        for snapshot in fs::read_dir(cluster.data_path(number).join("snapshots")).unwrap() {
            let file = File::options().write(true).open(snapshot.unwrap().path()).unwrap();
            file.write_all_at(&[0xee; 40], 700).unwrap();
        }
    }
    let told = trace(&kept.image.to_string(), &all);
    assert!(events(&told, "snapshot").is_empty(), "{told:#}");
    assert!(told["directories"][0]["lacks"].to_string().contains("snapshot"), "{told:#}");
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        std::thread::yield_now();
    }
}

#[test]
fn following_ends_when_nobody_reads_it_any_more() {
    let cluster = cluster();
    let mut command = Command::new(HELIO);
    command.args(["log", "dump", &data(&cluster, 1), "--follow"]).stdout(Stdio::piped()).env_remove("RUST_LOG");
    let mut child: Child = command.spawn().unwrap();
    drop(child.stdout.take());
    let mut code = None;
    wait_until("it ends", || {
        code = child.try_wait().unwrap();
        code.is_some()
    });
    assert!(code.unwrap().success(), "{code:?}");
    // A single segment has no next one.
    let segment = cluster.data_path(1).join("log").join("0000000000000001.seg");
    helio("", &["log", "dump", segment.to_str().unwrap(), "--follow"]).fails(2, "name the data directory");
    let absent = cluster.folder().join("absent");
    helio("", &["log", "dump", absent.to_str().unwrap(), "--follow"]).fails(10, "does not exist");
}

/// Asserts on the JSON of `helio trace` over these directories.
fn trace(image: &str, data: &[String]) -> Value {
    let data: Vec<&str> = data.iter().map(String::as_str).collect();
    let ran = helio("", &[&["trace", image, "--json", "--data"], &data[..]].concat()).ok();
    serde_json::from_str(&ran.stdout).unwrap()
}

/// The events of a trace, of one kind.
fn events<'a>(trace: &'a Value, kind: &str) -> Vec<&'a Value> {
    trace["events"].as_array().unwrap().iter().filter(|event| event["event"] == kind).collect()
}

#[test]
fn an_image_is_traced_from_its_session_to_its_end() {
    let mut cluster = cluster();
    register(&cluster, &["gallery", "archive"]);
    let mut ledger = Ledger::new();
    let sender = Sender::connect(cluster.options(Routing::Home, PATIENCE), "camera").unwrap();
    send(&sender, &mut ledger, "before.png", &["gallery"], 5000);
    let length = (2 << 20) + 17;
    let receipt = send(&sender, &mut ledger, "cat.png", &["gallery"], length);
    let image = receipt.image.to_string();
    let all: Vec<String> = cluster.numbers().into_iter().map(|number| data(&cluster, number)).collect();
    wait_settled(&mut cluster);

    // While the nodes run: accepted, not yet received, and its holders have all of it.
    let told = trace(&image, &all);
    assert_eq!((&told["found"], &told["name"], &told["sender"]), (&true.into(), &"cat.png".into(), &"camera".into()));
    assert_eq!(events(&told, "session")[0]["index"], receipt.image.session.0, "{told:#}");
    let ready = events(&told, "ready")[0];
    assert_eq!((&ready["index"], &ready["receivers"][0]["name"]), (&receipt.index.0.into(), &"gallery".into()));
    assert_eq!(ready["receivers"][0]["seq"], 2, "{told:#}");
    assert!(events(&told, "acked").is_empty() && events(&told, "freed").is_empty(), "{told:#}");
    for holder in &receipt.holders {
        let node = holder.address.node.0;
        let directory = &told["directories"][node as usize - 1];
        assert_eq!((&directory["node"], &directory["lacks"]), (&node.into(), &Value::Array(Vec::new())), "{told:#}");
        assert_eq!(directory["cores"][0]["bytes"], length, "{told:#}");
        check_chunks(&directory["cores"][0]["chunks"]);
    }

    receive_and_check(&cluster, &ledger, "gallery");
    // The cluster writes another record, which says that the acknowledgement is committed.
    send(&sender, &mut ledger, "after.png", &["archive"], 700);
    wait_settled(&mut cluster);
    cluster.stop_all().unwrap();
    let told = trace(&image, &all);
    let (acked, freed) = (events(&told, "acked"), events(&told, "freed"));
    assert_eq!((acked.len(), freed.len()), (1, 1), "{told:#}");
    assert_eq!((&acked[0]["receiver"]["name"], acked[0]["upto"].as_u64() >= Some(2)), (&"gallery".into(), true));
    assert_eq!((&freed[0]["ready"], &acked[0]["committed"]), (&receipt.index.0.into(), &true.into()), "{told:#}");
    let text = helio("", &["trace", &image, "--data", &all[0]]).ok().stdout;
    assert!(text.contains("gallery") && text.contains("freed") && text.contains("ready for"), "{text}");
    a_damaged_log_says_what_it_lacks(&cluster, &image, receipt.index.0, &all);
    let (unknown, folder) = (format!("{}.77", receipt.image.session), cluster.folder().to_str().unwrap().to_owned());
    helio("", &["trace", &unknown, "--data", &all[0], &all[1]]).fails(15, "check the id");
    is_usage_error(&["trace", "cat.png", "--data", &all[0]], "s4.1");
    helio("", &["trace", &image, "--data", &folder]).fails(10, "name one, or a copy");
}

/// The chunk's header lies where the trace says, and names the image.
fn check_chunks(chunks: &Value) {
    for chunk in chunks.as_array().unwrap() {
        let bytes = fs::read(chunk["file"].as_str().unwrap()).unwrap();
        let at = chunk["offset"].as_u64().unwrap() as usize;
        assert_eq!(&bytes[at..at + 8], b"HELIOCH1", "{chunk}");
    }
}

/// The record is overwritten in the first node's log: the others tell it, and it says what it lacks.
fn a_damaged_log_says_what_it_lacks(cluster: &Cluster, image: &str, index: u64, all: &[String]) {
    let at = &dump(cluster, &["--index", &index.to_string()])[0];
    let segment = format!("{:016}.seg", at["segment"].as_u64().unwrap());
    let path = cluster.data_path(1).join("log").join(segment);
    let file = File::options().write(true).open(path).unwrap();
    file.write_all_at(&[0xee; 40], at["offset"].as_u64().unwrap()).unwrap();
    let told = trace(image, all);
    let nodes: Vec<u64> =
        events(&told, "ready")[0]["nodes"].as_array().unwrap().iter().filter_map(Value::as_u64).collect();
    assert_eq!(nodes, [2, 3], "{told:#}");
    assert_eq!(events(&told, "freed").len(), 1, "{told:#}");
    let lacks = told["directories"][0]["lacks"].to_string();
    assert!(lacks.contains("damaged at segment") && lacks.contains(&format!("lacks entries {index},")), "{lacks}");
    let alone = helio("", &["trace", image, "--data", &all[0]]).fails(15, "further nodes").stdout;
    assert!(alone.contains(&format!("entry {index} is in none of the logs")), "{alone}");
    let shown = dump(cluster, &["--index", "1"]);
    assert!(shown.iter().any(|entry| entry["bad"].is_string()), "damage is always shown: {shown:?}");
}

#[test]
fn looking_does_not_change_a_directory() {
    let mut cluster = cluster();
    register(&cluster, &["gallery"]);
    let mut ledger = Ledger::new();
    let sender = Sender::connect(cluster.options(Routing::Home, PATIENCE), "camera").unwrap();
    let receipt = send(&sender, &mut ledger, "cat.png", &["gallery"], 5000);
    drop(sender);
    cluster.stop_all().unwrap();
    let data = data(&cluster, 1);
    let before = snapshot(Path::new(&data));
    helio("", &["log", "dump", &data, "--client", "gallery"]).ok();
    helio("", &["trace", &receipt.image.to_string(), "--data", &data]).ok();
    let following = Following::start(&data, &cluster.folder().join("followed"), &[]);
    wait_until("something is shown", || !following.shown().is_empty());
    assert_eq!(following.interrupt().0, 0);
    assert!(snapshot(Path::new(&data)) == before, "something changed");
}

/// Every file below `folder` with its bytes and when it was changed.
fn snapshot(folder: &Path) -> Vec<(std::path::PathBuf, std::time::SystemTime, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(snapshot(&path)),
            false => found.push((path.clone(), path.metadata().unwrap().modified().unwrap(), fs::read(&path).unwrap())),
        }
    }
    found.sort();
    found
}

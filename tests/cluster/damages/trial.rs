//! One directory: what `helio log verify` says, what `helio node` does, and whether that is the same.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use client::{ClientError, status_of};
use cluster::address::{free_ports, own_address};
use cluster::random::Random;
use cluster::{Problem, Process, problem};
use proto::error::Refusal;
use proto::ids::ClusterId;
use serde_json::Value;

use crate::HELIO;
use crate::damage::Damage;
use crate::template::{FileKind, Template};

/// A start that takes longer hangs.
const START_PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(1);
/// Exit codes of `helio log verify`, by its judgement.
const CODES: [(&str, i32); 6] =
    [("empty", 0), ("clean", 0), ("torn", 11), ("uncertain", 12), ("rot", 13), ("refuses", 14)];
/// Exit code of a node that refuses its directory.
const REFUSED: i32 = 5;

/// What became of a directory.
#[derive(Debug)]
pub struct Outcome {
    /// As `helio log verify` said.
    pub judgement: String,
    pub is_repaired: bool,
    /// All that was said, for people.
    pub said: String,
    /// What is not as it should be.
    pub wrong: Option<String>,
}

/// Where directories are tried, one after the other.
pub struct Bench {
    folder: PathBuf,
    ip: String,
    nobody: Vec<u16>,
}

impl Bench {
    pub fn new(folder: PathBuf) -> Result<Bench, Problem> {
        fs::create_dir_all(&folder).map_err(problem("cannot make a folder"))?;
        let ip = own_address();
        let nobody = free_ports(ip, 6).map_err(problem("no ports"))?;
        Ok(Bench { folder, ip: ip.to_string(), nobody })
    }

    /// Where the directory is.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// A fresh directory with this damage.
    pub fn lay_out(&self, template: &Template, damage: &Damage) -> Result<(), Problem> {
        let data = self.data();
        if data.exists() {
            fs::remove_dir_all(&data).map_err(problem("cannot remove the last directory"))?;
        }
        template.lay_out(&data)?;
        damage.apply(&data).map_err(problem(damage))
    }

    /// Looks, starts node `who.0` of `who.1`, ends it, and looks again.
    pub fn run(&self, who: (u64, u64), random: &mut Random, damaged: FileKind) -> Result<Outcome, Problem> {
        let mut foreseen = verify(&self.data())?;
        // A start that was killed may have removed what proves it.
        let is_state_lost = foreseen.is_state_lost();
        let is_lone = who.1 == 1;
        let mut wrong = None;
        if random.percent(30) {
            // In the middle of its repairs, or of its first writes.
            let seen = self.start(who, Ending::Early(Duration::from_micros(random.between(1_000, 25_000))), false)?;
            let after = verify(&self.data())?;
            wrong = compare_early(&foreseen, &after, &seen, is_lone)
                .map(|wrong| format!("after an early kill: {wrong}: {}; before: {}", after.text, foreseen.text));
            foreseen = after;
        } else if random.percent(30) {
            let (code, text) = repair(&self.data())?;
            let after = verify(&self.data())?;
            wrong = compare_repaired(&foreseen, code, &after, is_lone).map(|wrong| {
                format!("after `log repair --yes`: {wrong}: {text}{}; before: {}", after.text, foreseen.text)
            });
            foreseen = after;
        }
        let ending = if random.percent(50) { Ending::Kill } else { Ending::Stop };
        let seen = self.start(who, ending, is_state_lost)?;
        let after = verify(&self.data())?;
        let wrong = wrong
            .or_else(|| compare(&foreseen, &seen, damaged, is_lone))
            .or_else(|| {
                compare_after(&foreseen, &after, is_lone)
                    .map(|wrong| format!("after the start: {wrong}: {}", after.text))
            })
            .map(|wrong| format!("{wrong}; `log verify` said: {}; the node said: {}", foreseen.summary(), seen.log));
        Ok(Outcome {
            judgement: foreseen.judgement().to_owned(),
            is_repaired: !foreseen.repairs().is_empty(),
            said: format!("{}\n{}", foreseen.text, seen.log),
            wrong,
        })
    }

    /// Starts the node alone: the others are nobody.
    fn start(&self, who: (u64, u64), ending: Ending, is_state_lost: bool) -> Result<Seen, Problem> {
        let config = self.folder.join("node.toml");
        fs::write(&config, self.config(who)).map_err(problem("cannot write a configuration"))?;
        let log = self.folder.join("node.log");
        if log.exists() {
            fs::remove_file(&log).map_err(problem("cannot remove the last log"))?;
        }
        let mut command = Command::new(HELIO);
        command.env_remove("RUST_LOG").args(["node", "--exit-with-parent", "--config"]).arg(&config);
        let mut process = Process::start(&mut command, &log).map_err(problem("cannot start a node"))?;
        let begun = Instant::now();
        let mut seen = Seen::default();
        if let Ending::Early(after) = ending {
            thread::sleep(after);
            process.kill().map_err(problem("cannot kill a node"))?;
            seen.log = fs::read_to_string(&log).map_err(problem("a node's log"))?;
            return Ok(seen);
        }
        loop {
            let ended = process.ended().map_err(problem("a node"))?;
            seen.log = fs::read_to_string(&log).map_err(problem("a node's log"))?;
            if let Some(status) = ended {
                seen.code = status.code().or(Some(-1));
                return Ok(seen);
            }
            // Complete only with its end of line.
            let listening = seen.log.lines().find(|line| line.contains("listening") && seen.log.ends_with('\n'));
            if let Some(address) = listening.and_then(|line| line.split("clients=").nth(1)?.split(' ').next()) {
                seen.is_healing = is_healing(address, is_state_lost);
                break;
            }
            if begun.elapsed() > START_PATIENCE {
                seen.trouble = Some(format!("it neither serves nor ends within {START_PATIENCE:?}"));
                return Ok(seen);
            }
            thread::sleep(POLL);
        }
        if let Some(status) = process.ended().map_err(problem("a node"))? {
            seen.trouble = Some(format!("it ended by itself: {status}"));
        } else if ending == Ending::Kill {
            process.kill().map_err(problem("cannot kill a node"))?;
        } else {
            process.terminate().map_err(problem("cannot stop a node"))?;
            match process.wait(START_PATIENCE).map_err(problem("a node"))? {
                Some(status) if status.success() => {}
                other => seen.trouble = Some(format!("it does not stop well: {other:?}")),
            }
        }
        seen.log = fs::read_to_string(&log).map_err(problem("a node's log"))?;
        Ok(seen)
    }

    fn config(&self, (node, nodes): (u64, u64)) -> String {
        let (ip, data) = (&self.ip, self.data());
        let mut text = format!("node = {node}\ndata = {data:?}\nclient = \"{ip}:0\"\npeer = \"{ip}:0\"\n");
        text.push_str("cores = 1\nsegment_bytes = 1048576\ncache_bytes = 8388608\nreserve_bytes = 67108864\n");
        for (member, ports) in self.nobody.chunks(2).take(nodes as usize).enumerate() {
            let (number, client, peer) = (member + 1, ports[0], ports[1]);
            text.push_str(&format!(
                "[[members]]\nnode = {number}\nclient = \"{ip}:{client}\"\npeer = \"{ip}:{peer}\"\n"
            ));
        }
        text
    }
}

/// What a node says about its log when it is asked. One that lost its state takes no clients: it does not know the members.
fn is_healing(address: &str, is_state_lost: bool) -> Result<bool, String> {
    let begun = Instant::now();
    loop {
        match status_of(address, ClusterId::UNKNOWN, START_PATIENCE) {
            Ok(status) => return Ok(status.healing),
            Err(ClientError::Refused { refusal: Refusal::NotReady, .. }) if is_state_lost => return Ok(true),
            // Not yet.
            Err(ClientError::Refused { .. }) if begun.elapsed() < START_PATIENCE => thread::sleep(POLL),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// How a start ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// SIGKILL so long after its begin, however far it is.
    Early(Duration),
    /// SIGKILL once it serves.
    Kill,
    /// SIGTERM once it serves.
    Stop,
}

/// What a node did.
#[derive(Debug)]
struct Seen {
    log: String,
    /// If it ended by itself.
    code: Option<i32>,
    is_healing: Result<bool, String>,
    trouble: Option<String>,
}

impl Default for Seen {
    fn default() -> Seen {
        Seen { log: String::new(), code: None, is_healing: Err("it was not asked".to_owned()), trouble: None }
    }
}

impl Seen {
    fn repairs(&self) -> BTreeSet<&str> {
        self.log.lines().filter_map(|line| line.split("repaired: ").nth(1)).collect()
    }
}

/// What the inspector said.
pub struct Foreseen {
    code: i32,
    value: Value,
    text: String,
}

/// Runs the inspector.
pub fn verify(data: &Path) -> Result<Foreseen, Problem> {
    let mut command = Command::new(HELIO);
    command.args(["log", "verify", "--json"]).arg(data).env_remove("RUST_LOG");
    let output = command.output().map_err(problem("cannot run helio"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    Ok(Foreseen { code: output.status.code().unwrap_or(-1), value, text })
}

/// Has `helio log repair` do what a start would. Exit code and output.
fn repair(data: &Path) -> Result<(i32, String), Problem> {
    let mut command = Command::new(HELIO);
    command.args(["log", "repair", "--yes"]).arg(data).env_remove("RUST_LOG");
    let output = command.output().map_err(problem("cannot run helio"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    Ok((output.status.code().unwrap_or(-1), text))
}

impl Foreseen {
    /// One word.
    pub fn judgement(&self) -> &str {
        self.value["judgement"].as_str().unwrap_or("nothing")
    }

    fn next_start(&self) -> &str {
        self.value["next_start"].as_str().unwrap_or_default()
    }

    fn repairs(&self) -> BTreeSet<&str> {
        self.value["repairs"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
    }

    fn unusable_snapshots(&self) -> Vec<u64> {
        let snapshots = self.value["snapshots"].as_array().into_iter().flatten();
        let unusable = snapshots.filter(|snapshot| snapshot["usable"] == false);
        unusable.filter_map(|snapshot| snapshot["index"].as_u64()).collect()
    }

    /// Neither a snapshot nor an entry is left.
    fn is_state_lost(&self) -> bool {
        let snapshots = self.value["snapshots"].as_array().map_or(0, Vec::len);
        let evidence = self.value["evidence"].as_str().unwrap_or_default();
        evidence.contains("(intact up to index 0,") && self.unusable_snapshots().len() == snapshots
    }

    fn summary(&self) -> String {
        match self.value.is_null() {
            true => self.text.clone(),
            false => {
                format!("{} evidence {} repairs {}", self.next_start(), self.value["evidence"], self.value["repairs"])
            }
        }
    }
}

/// What is not as it was said.
fn compare(foreseen: &Foreseen, seen: &Seen, damaged: FileKind, is_lone: bool) -> Option<String> {
    if foreseen.text.contains("panicked") || seen.log.contains("panicked") {
        return Some("a panic".to_owned());
    }
    if let Some(trouble) = &seen.trouble {
        return Some(trouble.clone());
    }
    let known = CODES.iter().find(|(judgement, _)| *judgement == foreseen.judgement());
    if known.is_none_or(|(_, code)| *code != foreseen.code) {
        return Some(format!("`log verify` ended with {} and {:?}", foreseen.code, foreseen.judgement()));
    }
    if foreseen.judgement() == "refuses" {
        // The marker says who the node is; the node knows better.
        let text = foreseen.next_start().trim_start_matches("the node will refuse to start: ").split_whitespace();
        let is_same = damaged == FileKind::Marker || seen.log.contains(&text.collect::<Vec<_>>().join(" "));
        return match seen.code {
            Some(REFUSED) if is_same => None,
            Some(REFUSED) => Some("the node refuses for another reason".to_owned()),
            other => Some(format!("the node was to refuse, and did not: {other:?}")),
        };
    }
    if let Some(code) = seen.code {
        return Some(format!("the node was to start, and ended with {code}"));
    }
    let mut found = format!("found {} unusable_snapshots={:?}", foreseen.next_start(), foreseen.unusable_snapshots());
    if let Some(evidence) = foreseen.value["evidence"].as_str() {
        found.push_str(&format!(" evidence={evidence}"));
    }
    if !seen.log.lines().any(|line| line.ends_with(&found)) {
        return Some(format!("the node was to say {found:?}"));
    }
    if foreseen.repairs() != seen.repairs() {
        return Some("other repairs".to_owned());
    }
    let heals = matches!(foreseen.judgement(), "rot" | "uncertain");
    if heals && is_lone && seen.is_healing == Ok(false) {
        return None; // It has been whole since it leads itself.
    }
    (seen.is_healing != Ok(heals)).then(|| format!("asked whether its log heals it said {:?}", seen.is_healing))
}

/// What must hold of the directory after the start that was foreseen.
fn compare_after(foreseen: &Foreseen, after: &Foreseen, is_lone: bool) -> Option<String> {
    if foreseen.judgement() == "refuses" {
        return (foreseen.value != after.value).then(|| "a node that refuses changed something".to_owned());
    }
    if !after.repairs().is_empty() {
        return Some("what was to be repaired is not".to_owned());
    }
    let expected = may_follow(foreseen.judgement(), is_lone);
    (!expected.contains(&after.judgement())).then(|| format!("expected {expected:?}, found {:?}", after.judgement()))
}

/// What must hold of the directory after `log repair --yes`.
fn compare_repaired(foreseen: &Foreseen, code: i32, after: &Foreseen, is_lone: bool) -> Option<String> {
    let expected = if foreseen.judgement() == "refuses" { foreseen.code } else { 0 };
    if code != expected {
        return Some(format!("it ended with {code}"));
    }
    if after.judgement() == "torn" {
        return Some("a last round that was never finished is still there".to_owned());
    }
    compare_after(foreseen, after, is_lone)
}

/// What must hold of the directory after a start that was killed at any moment.
fn compare_early(foreseen: &Foreseen, after: &Foreseen, seen: &Seen, is_lone: bool) -> Option<String> {
    if seen.log.contains("panicked") {
        return Some("a panic".to_owned());
    }
    if foreseen.judgement() == "refuses" {
        return (foreseen.value != after.value).then(|| "a node that refuses changed something".to_owned());
    }
    // Of a log that heals, segments were removed perhaps: the last one is another.
    let heals = matches!(foreseen.judgement(), "rot" | "uncertain");
    if !heals && !without_lengths(&after.repairs()).is_subset(&without_lengths(&foreseen.repairs())) {
        return Some("there is more to repair".to_owned());
    }
    let expected = may_follow(foreseen.judgement(), is_lone);
    (!expected.contains(&after.judgement())).then(|| format!("expected {expected:?}, found {:?}", after.judgement()))
}

/// A kill in the middle of a repair leaves a file at any length between the one that was found and its own.
fn without_lengths(repairs: &BTreeSet<&str>) -> BTreeSet<String> {
    let without = |repair: &&str| match repair.split_once(" at ").zip(repair.split_once(" bytes")) {
        Some(((before, _), (_, behind))) => format!("{before}{behind}"),
        None => (*repair).to_owned(),
    };
    repairs.iter().map(without).collect()
}

/// Judgements of a directory after its node ran, wherever it was killed.
fn may_follow(judgement: &str, is_lone: bool) -> &'static [&'static str] {
    match judgement {
        // It leads itself, and may be killed in the middle of a round.
        "clean" | "torn" | "uncertain" if is_lone => &["clean", "torn", "uncertain"],
        "clean" => &["clean"],
        // Killed before it was dropped.
        "torn" => &["torn", "clean"],
        "uncertain" => &["uncertain"],
        "rot" => &["rot"],
        _ => &["empty"],
    }
}

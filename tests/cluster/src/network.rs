//! A network of its own for each node: what one sends another passes a router, where it can be lost, either way alone.
//!
//! ```text
//! node 1 (10.86.1.2) --veth--  10.86.1.1 |
//! node 2 (10.86.2.2) --veth--  10.86.2.1 | router: the network namespace of this process, clients and checker
//! node 3 (10.86.3.2) --veth--  10.86.3.1 |
//! ```
//!
//! A cut from A to B is a rule of the router, `from A to B blackhole`: packets vanish without a word, those from B to A
//! pass. What is sent from this process passes always: clients reach every node, and so does the check.
//!
//! This process must be alone in its network namespace, with the rights of root there (`unshare --net`, as a user
//! `unshare --user --map-root-user --net`). A node's namespace lives as long as its holder, a child of this process that
//! waits for the end of its input: so nothing is left behind, however this process ends.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command, Stdio};

use crate::nodes::Place;
use crate::{Problem, problem};

/// Cuts have rules of this preference and above; those of the system are at 0 and 32766.
const PREFERENCE: u64 = 1_000;
/// Nodes of one network: each has a rule for each other one.
const NODES_MAX: u64 = 50;

/// The networks of all nodes. Dropping it ends them, and with them the way to whatever still runs there.
#[derive(Debug)]
pub struct Network {
    // By node number less one.
    holders: Vec<Child>,
    // From, to.
    cuts: BTreeSet<(u64, u64)>,
}

impl Network {
    /// Makes a network for each of `nodes` nodes, joined by this process's own one.
    pub fn make(nodes: u64) -> Result<Network, Problem> {
        assert!(nodes <= NODES_MAX, "{nodes} nodes");
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").map_err(problem("cannot make this network forward packets"))?;
        let mut network = Network { holders: Vec::new(), cuts: BTreeSet::new() };
        for number in 1..=nodes {
            network.holders.push(hold_namespace()?);
            network.join(number)?;
        }
        Ok(network)
    }

    fn join(&self, number: u64) -> Result<(), Problem> {
        let holder = self.holder(number).to_string();
        let (outer, inner) = (format!("helio{number}"), format!("node{number}"));
        let (ip, router) = (ip(number), Ipv4Addr::new(10, 86, number as u8, 1));
        run("ip", &["link", "add", &outer, "type", "veth", "peer", "name", &inner, "netns", &holder])?;
        run("ip", &["addr", "add", &format!("{router}/24"), "dev", &outer])?;
        run("ip", &["link", "set", &outer, "up"])?;
        let inside = |arguments: &[&str]| {
            let prefix = self.prefix(number);
            let all: Vec<&str> = prefix[1..].iter().map(String::as_str).chain(arguments.iter().copied()).collect();
            run(&prefix[0], &all)
        };
        inside(&["ip", "link", "set", "lo", "up"])?;
        inside(&["ip", "addr", "add", &format!("{ip}/24"), "dev", &inner])?;
        inside(&["ip", "link", "set", &inner, "up"])?;
        inside(&["ip", "route", "add", "default", "via", &router.to_string()])
    }

    fn holder(&self, number: u64) -> u32 {
        self.holders[number as usize - 1].id()
    }

    fn prefix(&self, number: u64) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net=/proc/{}/ns/net", self.holder(number))]
    }

    /// Where each node runs.
    pub fn places(&self) -> Vec<Place> {
        let place = |number| Place { prefix: self.prefix(number), ip: Some(IpAddr::V4(ip(number))), data: None };
        (1..=self.holders.len() as u64).map(place).collect()
    }

    /// From now on nothing that node `from` sends reaches node `to`.
    pub fn cut(&mut self, from: u64, to: u64) -> Result<(), Problem> {
        assert!(from != to, "node {from} reaches itself");
        if self.cuts.insert((from, to)) {
            let preference = preference(from, to);
            let (from, to) = (ip(from).to_string(), ip(to).to_string());
            run("ip", &["rule", "add", "pref", &preference, "from", &from, "to", &to, "blackhole"])?;
        }
        Ok(())
    }

    /// Nothing passes between any of `some` and any of `others`, either way.
    pub fn part(&mut self, some: &[u64], others: &[u64]) -> Result<(), Problem> {
        for &one in some {
            for &other in others {
                self.cut(one, other)?;
                self.cut(other, one)?;
            }
        }
        Ok(())
    }

    /// Everything passes again.
    pub fn heal(&mut self) -> Result<(), Problem> {
        while let Some((from, to)) = self.cuts.pop_first() {
            run("ip", &["rule", "del", "pref", &preference(from, to)])?;
        }
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // Rules and links go with this process's network; but another one may be made in it before.
        let _ = self.heal();
        for number in 1..=self.holders.len() {
            let _ = run("ip", &["link", "del", &format!("helio{number}")]);
        }
        for holder in &mut self.holders {
            // Both fail only for a child that is gone already.
            let _ = holder.kill();
            let _ = holder.wait();
        }
    }
}

fn ip(number: u64) -> Ipv4Addr {
    Ipv4Addr::new(10, 86, number as u8, 2)
}

fn preference(from: u64, to: u64) -> String {
    (PREFERENCE + from * (NODES_MAX + 1) + to).to_string()
}

/// A child in a new network namespace; on return it is there.
fn hold_namespace() -> Result<Child, Problem> {
    let mut holder = Command::new("unshare")
        .args(["--net", "sh", "-c", "echo here && exec cat"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(problem("cannot run unshare (package util-linux)"))?;
    let mut line = String::new();
    let output = holder.stdout.take().expect("piped above");
    match BufReader::new(output).read_line(&mut line) {
        Ok(_) if line == "here\n" => Ok(holder),
        _ => {
            let status = holder.wait().map_err(problem("unshare --net"))?;
            Err(Problem(format!("cannot make a network namespace: unshare --net: {status}")))
        }
    }
}

/// Runs a command of the system to its end.
pub fn run(program: &str, arguments: &[&str]) -> Result<(), Problem> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(problem(format!("cannot run {program}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Problem(format!("{program} {}: {}: {}", arguments.join(" "), output.status, said.trim())))
}

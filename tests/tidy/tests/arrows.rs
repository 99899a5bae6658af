//! The arrows between the crates (ARCHITECTURE.md): all I/O in crates that cannot decide, all decisions in a crate that
//! cannot do I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;
use tidy::source;

/// Each crate of the workspace and the crates of the workspace it may name, for whatever kind of dependency.
const ARROWS: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("executor", &[]),
    ("logic", &["proto"]),
    ("disk", &["logic", "proto", "executor"]),
    ("link", &["proto", "executor"]),
    ("client", &["proto"]),
    ("node", &["proto", "logic", "disk", "link", "client", "executor"]),
    ("cluster", &["client", "proto"]),
    ("sim", &["logic", "client", "proto"]),
    ("tidy", &[]),
    ("tools", &["node", "client", "disk", "logic", "proto", "executor", "cluster"]),
    ("bench", &["node", "client", "disk", "logic", "proto", "executor", "cluster"]),
];

/// Crates that must never reach the runtime, by any way: what decides, what simulates, what others link into programs.
const WITHOUT_GLOMMIO: &[&str] = &["proto", "logic", "client", "sim", "cluster"];

/// What cargo knows of the workspace on the platform that the tests were built for. Of other platforms' crates a fresh
/// machine has not downloaded anything.
fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--locked", "--format-version", "1"])
        .args(["--filter-platform", &platform(), "--manifest-path"])
        .arg(source::root().join("Cargo.toml"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

/// The triple of the machine that builds, as `cargo -vV` says it.
fn platform() -> String {
    let output = Command::new(env!("CARGO")).arg("-vV").output().expect("cargo runs");
    let text = String::from_utf8(output.stdout).expect("cargo prints text");
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.unwrap_or_else(|| panic!("no host in {text}")).to_owned()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} in {value}"))
}

fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("{key} in {value}"))
}

/// Packages of the workspace: id and name.
fn members(metadata: &Value) -> BTreeMap<String, String> {
    let ids: BTreeSet<&str> = array(metadata, "workspace_members").iter().filter_map(Value::as_str).collect();
    array(metadata, "packages")
        .iter()
        .filter(|package| ids.contains(text(package, "id")))
        .map(|package| (text(package, "id").to_owned(), text(package, "name").to_owned()))
        .collect()
}

#[test]
fn crates_name_only_the_crates_they_may() {
    let metadata = metadata();
    let members = members(&metadata);
    let names: BTreeSet<&str> = members.values().map(String::as_str).collect();
    let known: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, known, "a crate of the workspace without arrows, or arrows without a crate");
    for package in array(&metadata, "packages") {
        if !members.contains_key(text(package, "id")) {
            continue;
        }
        let name = text(package, "name");
        let (_, allowed) = ARROWS.iter().find(|(other, _)| *other == name).expect("compared above");
        for dependency in array(package, "dependencies") {
            let target = text(dependency, "name");
            let is_ours = dependency["path"].is_string();
            assert!(!is_ours || allowed.contains(&target), "{name} -> {target}: an arrow that may not be");
        }
    }
}

#[test]
fn what_decides_and_what_simulates_cannot_reach_the_runtime() {
    let metadata = metadata();
    let members = members(&metadata);
    let nodes: BTreeMap<&str, Vec<&str>> = array(&metadata["resolve"], "nodes")
        .iter()
        .map(|node| {
            // Dependencies of tests count: the simulator is tests.
            (text(node, "id"), array(node, "deps").iter().map(|dep| text(dep, "pkg")).collect())
        })
        .collect();
    let glommio: BTreeSet<&str> = array(&metadata, "packages")
        .iter()
        .filter(|package| text(package, "name").starts_with("glommio"))
        .map(|package| text(package, "id"))
        .collect();
    assert!(!glommio.is_empty(), "the workspace uses glommio");
    for (id, name) in &members {
        let mut reached: BTreeSet<&str> = BTreeSet::new();
        let mut open = vec![id.as_str()];
        while let Some(next) = open.pop() {
            if reached.insert(next) {
                open.extend(nodes.get(next).into_iter().flatten());
            }
        }
        let reaches = reached.iter().any(|id| glommio.contains(id));
        if WITHOUT_GLOMMIO.contains(&name.as_str()) {
            assert!(!reaches, "{name} reaches glommio");
        }
        if name == "node" {
            assert!(reaches, "this test sees no arrow to glommio at all");
        }
    }
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let metadata = metadata();
    for package in array(&metadata, "packages").iter().filter(|package| package["source"].is_null()) {
        let manifest = std::fs::read_to_string(text(package, "manifest_path")).expect("a manifest can be read");
        assert!(manifest.contains("[lints]\nworkspace = true"), "{} has its own lints", text(package, "name"));
        assert!(
            package["publish"].as_array().is_some_and(Vec::is_empty),
            "{} could be published",
            text(package, "name")
        );
    }
}

#[test]
fn cargo_run_finds_helio() {
    let root = std::fs::read_to_string(source::root().join("Cargo.toml")).expect("the root manifest can be read");
    assert!(root.contains("default-members = [\"tools\"]"), "default-members must be [\"tools\"]");
    let metadata = metadata();
    let tools = array(&metadata, "packages").iter().find(|package| text(package, "name") == "tools");
    let binaries: Vec<&str> = array(tools.expect("a package tools"), "targets")
        .iter()
        .filter(|target| array(target, "kind").iter().any(|kind| kind == "bin"))
        .map(|target| text(target, "name"))
        .collect();
    assert_eq!(binaries, ["helio"]);
}

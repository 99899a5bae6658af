//! Table of configurations and what is said about them.

#![allow(clippy::unwrap_used)]

use super::{ConfigError, FlushChoice, MemberConfig, NodeConfig};

const SMALLEST: &str = "node = 1\ndata = \"/tmp/a\"\n";

/// Parses and checks; "ok" or the error as the operator sees it, which must be one line.
fn check(text: &str, expected: &str) {
    let verdict = NodeConfig::parse(text, "node.toml").and_then(|config| config.check());
    let said = verdict.map_or_else(|error| error.to_string(), |()| "ok".to_owned());
    assert!(!said.contains('\n'), "more than one line: {said}");
    assert!(said.starts_with(expected), "said {said:?}, expected {expected:?} for\n{text}");
}

fn with(line: &str) -> String {
    format!("{SMALLEST}{line}\n")
}

#[test]
fn unknown_key_is_named_with_its_line() {
    check(&with("cache_byte = 5"), "node.toml line 3: unknown field `cache_byte`");
    check(
        &with("[[members]]\nnode = 1\nclient = \"a:1\"\npeer = \"a:2\"\nweight = 3"),
        "node.toml line 7: unknown field `weight`",
    );
}

#[test]
fn syntax_and_types_are_refused_with_their_line() {
    check("node = 1\ndata = \n", "node.toml line 2:");
    check("node = \"one\"\ndata = \"/tmp/a\"", "node.toml line 1: invalid type: string \"one\"");
    check("node = -1\ndata = \"/tmp/a\"", "node.toml line 1: invalid value: integer `-1`");
    check("data = \"/tmp/a\"", "node.toml line 1: missing field `node`");
    check(&with("flush = \"never\""), "node.toml line 3: unknown variant `never`");
    check("node = 1\nnode = 2\ndata = \"/tmp/a\"", "node.toml line 2: duplicate key");
}

#[test]
fn values_have_bounds_and_a_remedy() {
    check(SMALLEST, "ok");
    check("node = 0\ndata = \"/tmp/a\"", "node = 0: must be at least 1");
    check("node = 1\ndata = \"\"", "data = : name the directory");
    check(&with("client = \"localhost\""), "client = localhost: must be \"host:port\"");
    check(&with("client = \":1\""), "client = :1: must be \"host:port\"");
    check(&with("client = \"[::1]:7400\""), "ok");
    check(&with("peer = \"a:70000\""), "peer = a:70000: must be \"host:port\"");
    check(&with("peer = \"127.0.0.1:7400\""), "peer = 127.0.0.1:7400: is the client address too");
    check(&with("cores = 257"), "cores = 257: must be 0 to 256");
    check(&with("copies = 2"), "copies = 2: must be 0 to 1");
    check(&with("image_bytes_max = 0"), "image_bytes_max = 0: must be 1 to 1073741824");
    check(&with("image_bytes_max = 1073741825"), "image_bytes_max = 1073741825: must be 1 to");
    check(&with("segment_bytes = 1000"), "segment_bytes = 1000: must be 1048576 to");
    check(&with("segment_bytes = 1048577"), "segment_bytes = 1048577: must be a multiple");
    check(&with("segment_bytes = 1048576"), "ok");
    check(&with("upload_idle_seconds = 0"), "upload_idle_seconds = 0: must be 1 to");
    check(&with("connections_max = 0"), "connections_max = 0: must be 1 to");
}

#[test]
fn members_are_distinct_and_name_this_node() {
    let member = |node: u64, client: &str, peer: &str| {
        format!("[[members]]\nnode = {node}\nclient = \"{client}\"\npeer = \"{peer}\"\n")
    };
    let pair = |other: String| with(&format!("{}{other}", member(1, "a:1", "a:2")));
    check(&pair(member(2, "b:1", "b:2")), "ok");
    check(&pair(member(1, "b:1", "b:2")), "members.node = 1: is there twice");
    check(&pair(member(2, "a:1", "b:2")), "members.client = a:1: is there twice");
    check(&pair(member(2, "b:1", "a:1")), "members.peer = a:1: is there twice");
    check(&pair(member(0, "b:1", "b:2")), "members.node = 0: must be at least 1");
    check(&with(&member(2, "b:1", "b:2")), "node = 1: is not among the members");
}

#[test]
fn every_key_can_be_set_and_is_read_back() {
    let mut config = NodeConfig::new(2, "/srv/heliograph");
    config.members = vec![
        MemberConfig { node: 2, client: "h2:7400".into(), peer: "h2:7500".into() },
        MemberConfig { node: 1, client: "h1:7400".into(), peer: "h1:7500".into() },
    ];
    config.flush = FlushChoice::Mmap;
    config.copies = 2;
    config.cores = 3;
    config.check().unwrap();
    let text = "node = 2\ndata = \"/srv/heliograph\"\nclient = \"127.0.0.1:7400\"\npeer = \"127.0.0.1:7500\"\ncores = 3\n\
        copies = 2\nimage_bytes_max = 67108864\nsegment_bytes = 67108864\ncache_bytes = 67108864\n\
        reserve_bytes = 268435456\nflush = \"mmap\"\nupload_idle_seconds = 3600\nsession_idle_seconds = 604800\n\
        connections_max = 4096\n[[members]]\nnode = 2\nclient = \"h2:7400\"\npeer = \"h2:7500\"\n[[members]]\nnode = 1\n\
        client = \"h1:7400\"\npeer = \"h1:7500\"\n";
    assert_eq!(NodeConfig::parse(text, "node.toml").unwrap(), config);
    let sorted: Vec<u64> = config.members_or_self().iter().map(|member| member.node).collect();
    assert_eq!(sorted, [1, 2]);
}

#[test]
fn only_addresses_that_others_can_reach_are_open() {
    let mut config = NodeConfig::new(1, "/tmp/a");
    assert!(config.open_addresses().is_empty());
    config.peer = "0.0.0.0:7500".into();
    assert_eq!(config.open_addresses(), ["0.0.0.0:7500"]);
}

#[test]
fn missing_file_is_named() {
    let error = NodeConfig::load(std::path::Path::new("/nonexistent/node.toml")).unwrap_err();
    assert!(matches!(error, ConfigError::Unreadable { .. }), "{error}");
    assert!(error.to_string().contains("/nonexistent/node.toml"));
}

//! What the sources may and may not contain.

use tidy::source::{self, Source, has_word, root, sources};

/// Lines beyond which a file probably has a second noun inside.
const FILE_LINES_MAX: usize = 600;
/// Files that are longer, each looked at and found to be about one thing; and the length beyond which it must be looked at
/// again.
const FILES_LONGER: &[(&str, usize)] = &[
    ("engine/logic/src/home.rs", 750),
    ("engine/logic/src/log/layout.rs", 700),
    ("engine/logic/src/log/recover_test.rs", 700),
    ("net/client/src/sender/sender_test.rs", 800),
    ("net/client/src/sender/session.rs", 650),
    ("net/client/tests/fake/mod.rs", 650),
];

/// Folders and files that may contain `unsafe`. Generated code is always allowed.
const UNSAFE_ALLOWED: &[&str] = &["engine/disk/src/", "net/link/src/"];
/// Within `net/link`, only this many files.
const UNSAFE_LINK_FILES: usize = 1;

/// What `logic` must not name: clocks, files, sockets, threads, async, maps with random order.
const LOGIC_FORBIDDEN: &[&str] = &[
    "std::time",
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "std::env",
    "std::io::Read",
    "Instant",
    "SystemTime",
    "async",
    "await",
    "HashMap",
    "HashSet",
    "RandomState",
    "getrandom",
    "thread_local",
    "Mutex",
    "RwLock",
    "sleep",
];

fn all() -> Vec<Source> {
    let found = sources("");
    assert!(found.len() > 40, "only {} Rust files found", found.len());
    found
}

fn complain(findings: Vec<String>) {
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

#[test]
fn logic_has_no_clock_file_socket_thread_async_or_random_order() {
    let mut findings = Vec::new();
    for file in sources("engine/logic/src") {
        // Tests of logic may use what they like, except async.
        for (at, line) in file.code_without_tests().lines().enumerate() {
            for word in LOGIC_FORBIDDEN.iter().filter(|word| has_word(line, word)) {
                findings.push(format!("{}:{}: {word}: {}", file.path, at + 1, line.trim()));
            }
        }
    }
    complain(findings);
}

#[test]
fn batch_append_is_never_set() {
    // With it raft 0.7.0 commits without a quorum on links that reorder. clippy does not see it in a struct literal.
    let mut findings = Vec::new();
    for file in all().iter().filter(|file| !file.path.starts_with("tests/tidy/")) {
        for (at, line) in file.lines_with("batch_append") {
            let is_off = line.replace(' ', "").contains("batch_append:false");
            // The one place of the mutant that the simulator must catch.
            let is_mutant = file.path == "engine/logic/src/consensus/settings.rs"
                && line.contains("config.mutant.is(Mutant::BatchAppend)");
            if !is_off && !is_mutant {
                findings.push(format!("{}:{at}: {}", file.path, line.trim()));
            }
        }
    }
    complain(findings);
}

#[test]
fn executors_are_built_in_one_place() {
    let mut findings = Vec::new();
    for file in all().iter().filter(|file| !file.path.starts_with("engine/executor/")) {
        for word in ["LocalExecutorBuilder", "LocalExecutorPoolBuilder", "LocalExecutor"] {
            findings.extend(file.lines_with(word).map(|(at, line)| format!("{}:{at}: {}", file.path, line.trim())));
        }
    }
    complain(findings);
    let builder = sources("engine/executor/src");
    assert!(builder.iter().any(|file| file.lines_with("preempt_timer").next().is_some()), "the builder sets the timer");
}

#[test]
fn unsafe_is_where_it_may_be_and_says_why() {
    let mut findings = Vec::new();
    let mut link_files = Vec::new();
    for file in all().iter().filter(|file| !file.is_generated()) {
        let mut found = false;
        for (at, line) in file.lines_with("unsafe") {
            found = true;
            if !UNSAFE_ALLOWED.iter().any(|allowed| file.path.starts_with(allowed)) {
                findings.push(format!("{}:{at}: unsafe is not allowed here: {}", file.path, line.trim()));
            }
            let lines: Vec<&str> = file.text.lines().collect();
            let above = &lines[at.saturating_sub(12)..at];
            if !above.iter().any(|line| line.contains("SAFETY:") || line.contains("# Safety")) {
                findings.push(format!("{}:{at}: no SAFETY comment above: {}", file.path, line.trim()));
            }
        }
        if found && file.path.starts_with("net/link/") {
            link_files.push(file.path.clone());
        }
    }
    if link_files.len() > UNSAFE_LINK_FILES {
        findings.push(format!("unsafe in more than one file of net/link: {}", link_files.join(", ")));
    }
    complain(findings);
}

#[test]
fn nothing_is_left_for_later_without_a_condition() {
    let mut findings = Vec::new();
    for file in all().iter().filter(|file| !file.is_generated() && !file.path.starts_with("tests/tidy/")) {
        for (at, line) in file.text.lines().enumerate() {
            if has_word(line, "FIXME") {
                findings.push(format!("{}:{}: FIXME", file.path, at + 1));
            }
            // A TODO says when it must be done: `TODO(once there are snapshots): ...` or `TODO when ...`.
            let has_condition = ["TODO(", "TODO when ", "TODO once ", "TODO if ", "TODO before "]
                .iter()
                .any(|start| line.contains(start));
            if has_word(line, "TODO") && !has_condition {
                findings.push(format!("{}:{}: TODO without its condition", file.path, at + 1));
            }
        }
        for word in ["todo!", "unimplemented!", "dbg!"] {
            for (at, line) in file.code.lines().enumerate().filter(|(_, line)| line.contains(word)) {
                findings.push(format!("{}:{}: {}", file.path, at + 1, line.trim()));
            }
        }
        for (at, line) in file.code.lines().enumerate().filter(|(_, line)| line.contains("#[ignore")) {
            findings.push(format!("{}:{}: an ignored test: {}", file.path, at + 1, line.trim()));
        }
    }
    complain(findings);
}

#[test]
fn files_stay_readable() {
    let mut findings = Vec::new();
    for file in all().iter().filter(|file| !file.is_generated()) {
        let lines = file.text.lines().count();
        let longer = FILES_LONGER.iter().find(|(path, _)| *path == file.path);
        let max = longer.map_or(FILE_LINES_MAX, |(_, max)| *max);
        if lines > max {
            findings.push(format!("{}: {lines} lines, at most {max}; is there a second noun inside?", file.path));
        }
        if lines <= FILE_LINES_MAX && longer.is_some() {
            findings.push(format!("{}: {lines} lines now; take it from the list of longer files", file.path));
        }
    }
    complain(findings);
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut findings = Vec::new();
    // A test beside its file has the purpose of that file.
    for file in all().iter().filter(|file| !file.is_generated() && !file.path.ends_with("_test.rs")) {
        if !file.text.starts_with("//!") {
            findings.push(format!("{}: does not begin with //!", file.path));
        }
    }
    complain(findings);
}

#[test]
fn documents_and_licence_exist() {
    for name in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE", "deny.toml", "engine/FORMATS.md", ".ci/run"]
    {
        let text = std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(text.len() > 200, "{name} says nothing");
    }
}

#[test]
fn blanking_knows_comments_strings_and_lifetimes() {
    let text = "let a = \"// unsafe\"; // unsafe\nfn f<'a>(c: char) { c == '\"'; /* unsafe /* x */ */ unsafe {} }\nr#\"unsafe\"#;";
    let code = source::blank(text);
    assert_eq!(code.lines().count(), 3);
    assert_eq!(code.matches("unsafe").count(), 1, "{code}");
    assert!(code.lines().nth(1).expect("a second line").contains("fn f<'a>(c: char)"), "{code}");
}

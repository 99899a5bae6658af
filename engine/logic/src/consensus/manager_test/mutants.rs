//! Wrong decisions of consensus are noticed by the same random runs in which the right ones hold.

use super::faults::run;
use crate::mutant::Mutant;

/// Seeds until one notices it, at most; and what that one says.
fn noticed(mutant: Mutant, seeds: u64) -> Option<(u64, String)> {
    (0..seeds).find_map(|seed| {
        let error = std::panic::catch_unwind(|| run(seed, mutant)).err()?;
        let text = error.downcast_ref::<String>().cloned();
        Some((seed, text.or(error.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()))
    })
}

fn check(mutant: Mutant, expected: &[&str]) {
    let (seed, text) = noticed(mutant, 100).unwrap_or_else(|| panic!("nobody notices {}", mutant.name()));
    println!("{}: seed {seed}: {text}", mutant.name());
    assert!(expected.iter().any(|expected| text.contains(expected)), "{}: {text}", mutant.name());
}

#[test]
fn acknowledgement_before_the_flush_is_noticed() {
    check(Mutant::AckBeforeSync, &["acknowledges"]);
}

#[test]
fn vote_before_it_is_durable_is_noticed() {
    check(Mutant::VoteBeforeSync, &["a vote that is not durable", "is durable"]);
}

#[test]
fn batched_appends_are_noticed() {
    check(Mutant::BatchAppend, &["refused what a correct peer sent"]);
}

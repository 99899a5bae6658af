//! What was tried and what became of it, in words and numbers.

use std::time::Duration;

use cluster::Problem;
use cluster::ledger::Findings;

use crate::case::Outcome;

/// A part that was run.
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// How long it took.
    pub time: Duration,
    /// What it did and found.
    pub outcome: Outcome,
    /// Why it did not come to its end, if so.
    pub problem: Option<Problem>,
}

impl Part {
    /// Whether nothing is wrong. Not run is not wrong, and is told.
    pub fn is_good(&self) -> bool {
        self.problem.is_none() && self.outcome.findings.wrong() == 0 && self.outcome.unsettled.is_empty()
    }

    /// Prints what it did.
    pub fn print(&self) {
        let Outcome { faults, seen, accepted, findings, unsettled, notes, not_run } = &self.outcome;
        println!("{} ({:.0} s)", self.name, self.time.as_secs_f64());
        for (fault, count) in faults {
            println!("  {count:>5} x {fault}");
        }
        for (what, count) in seen {
            println!("  {count:>5} . {what}");
        }
        if *accepted > 0 {
            println!("  {accepted} images accepted, {} arrived; {}", findings.received, counts(findings));
        }
        for note in notes {
            println!("  {note}");
        }
        for text in unsettled.iter().take(5) {
            println!("  NOT ACCEPTED: {text}");
        }
        if unsettled.len() > 5 {
            println!("  NOT ACCEPTED: and {} more", unsettled.len() - 5);
        }
        if let Some(first) = &findings.first {
            println!("  WRONG: {first}");
        }
        for text in not_run {
            println!("  not run: {text}");
        }
        if let Some(Problem(text)) = &self.problem {
            println!("  FAILED: {text}");
        }
    }
}

fn counts(findings: &Findings) -> String {
    let Findings { lost, twice, out_of_order, wrong_bytes, wrong_ids, gaps, strange, .. } = findings;
    format!(
        "lost {lost}, duplicates {twice}, out of order {out_of_order}, wrong bytes {wrong_bytes}, wrong ids {wrong_ids}, gaps \
         {gaps}, never sent {strange}"
    )
}

/// Prints the sums and gives whether all is good: no part failed, and at least `images_min` images were judged.
pub fn summary(parts: &[Part], seed: u64, images_min: usize) -> bool {
    let mut all = Outcome::default();
    for part in parts {
        all.accepted += part.outcome.accepted;
        all.findings.add(part.outcome.findings.clone());
        all.not_run.extend(part.outcome.not_run.iter().cloned());
        all.unsettled.extend(part.outcome.unsettled.iter().cloned());
    }
    let faults: u64 = parts.iter().flat_map(|part| &part.outcome.faults).map(|(_, count)| count).sum();
    let seconds: f64 = parts.iter().map(|part| part.time.as_secs_f64()).sum();
    println!();
    println!("part               faults   images  arrived  seconds");
    for part in parts {
        let count: u64 = part.outcome.faults.iter().map(|(_, count)| count).sum();
        let end = if part.is_good() { "" } else { "  FAILED" };
        let (name, accepted) = (part.name, part.outcome.accepted);
        let (received, time) = (part.outcome.findings.received, part.time.as_secs_f64());
        println!("{name:<18} {count:>6} {accepted:>8} {received:>8} {time:>8.0}{end}");
    }
    println!("{:<18} {faults:>6} {:>8} {:>8} {seconds:>8.0}", "all", all.accepted, all.findings.received);
    println!();
    for text in &all.not_run {
        println!("not run: {text}");
    }
    if !all.unsettled.is_empty() {
        println!("{} images not accepted though a majority was there or came back", all.unsettled.len());
    }
    let failed: Vec<&str> = parts.iter().filter(|part| !part.is_good()).map(|part| part.name).collect();
    let is_enough = all.accepted >= images_min;
    if !is_enough {
        println!("too few: {} images judged, at least {images_min} are asked for", all.accepted);
    }
    let is_good = failed.is_empty() && is_enough;
    println!(
        "{}: {} images under {faults} faults: {}; seed {seed}, {seconds:.0} s{}",
        if is_good { "good" } else { "FAILED" },
        all.accepted,
        counts(&all.findings),
        if failed.is_empty() { String::new() } else { format!("; failed: {}", failed.join(", ")) },
    );
    is_good
}

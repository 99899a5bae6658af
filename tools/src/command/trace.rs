//! `helio trace`: an image's life, put together from the data directories of some nodes.

mod life;
mod merge;
mod print;
mod snapshots;
mod witness;

use self::life::{At, Life, What};
use self::merge::{Log, Ranges, merge};
use self::snapshots::Snapshots;
use self::witness::Witness;
use crate::args::TraceArguments;
use crate::command::log::printed;
use crate::exit::{Cause, Failure};

/// All that was found out.
struct Report {
    life: Life,
    directories: Vec<Directory>,
    /// First and last entry that any log has.
    indexes: Option<(u64, u64)>,
}

/// One data directory, beside the others.
struct Directory {
    witness: Witness,
    /// Entries that others have, and this one has not.
    lacks: Ranges,
    /// Entries of its own that do not count.
    differs: Ranges,
    /// Of these, those that it knows to be committed, which cannot be.
    denies: Ranges,
}

/// Reads, tells, and fails if nobody knows the image.
pub fn run(arguments: &TraceArguments) -> Result<(), Failure> {
    let witnesses: Vec<Witness> =
        arguments.data.iter().map(|path| Witness::read(path, arguments.image)).collect::<Result<_, _>>()?;
    check_cluster(&witnesses)?;
    let report = examine(arguments, witnesses);
    printed(print::print(arguments, &report))?;
    if report.is_found() {
        return Ok(());
    }
    let entries = report.indexes.map_or("no entries".to_owned(), |(first, last)| format!("entries {first} to {last}"));
    let snapshots = if report.life.is_blind() { ", and no snapshot that goes with them" } else { "" };
    Err(Failure::new(
        Cause::Untraced,
        format!(
            "{}: in none of the {} data directories, whose logs have {entries}{snapshots}: check the id, or name those of further nodes",
            arguments.image,
            arguments.data.len()
        ),
    ))
}

fn check_cluster(witnesses: &[Witness]) -> Result<(), Failure> {
    let mut known = witnesses.iter().filter_map(|witness| Some((witness, witness.cluster?)));
    let Some((first, cluster)) = known.next() else { return Ok(()) };
    match known.find(|(_, other)| *other != cluster) {
        None => Ok(()),
        Some((other, found)) => Err(Failure::new(
            Cause::Usage,
            format!(
                "{} is of cluster {cluster}, {} of {found}: name data directories of one cluster",
                first.path.display(),
                other.path.display()
            ),
        )),
    }
}

fn examine(arguments: &TraceArguments, mut witnesses: Vec<Witness>) -> Report {
    let mut life = Life::new(arguments.image);
    let mut lacks = vec![Ranges::default(); witnesses.len()];
    let (mut differs, mut denies) = (lacks.clone(), lacks.clone());
    let mut indexes: Option<(u64, u64)> = None;
    let mut snapshots = Snapshots::of(&witnesses);
    let logs = logs(&witnesses);
    for entry in merge(&logs) {
        snapshots.tell_below(entry.index, &witnesses, &mut life);
        indexes = Some((indexes.map_or(entry.index, |(first, _)| first), entry.index));
        for log in 0..witnesses.len() {
            if entry.differs.contains(&log) {
                differs[log].push(entry.index);
                if entry.index <= witnesses[log].commit {
                    denies[log].push(entry.index);
                }
            } else if entry.has.iter().all(|(other, _)| *other != log) {
                lacks[log].push(entry.index);
            }
        }
        let mut nodes: Vec<_> = entry.has.iter().map(|(log, _)| witnesses[*log].node).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let &(log, place) = entry.has.first().expect("somebody has it");
        let record = witnesses[log].record(&witnesses[log].places[place]);
        let (index, term, is_committed) = (entry.index, entry.term, entry.is_committed);
        life.on_entry(At { index, term, is_committed, time_ms: 0, nodes }, record.as_ref());
    }
    snapshots.tell_below(u64::MAX, &witnesses, &mut life);
    drop(logs);
    snapshots.faults.into_iter().for_each(|(at, fault)| witnesses[at].fault(fault));
    let directories = witnesses
        .into_iter()
        .zip(lacks)
        .zip(differs.into_iter().zip(denies))
        .map(|((witness, lacks), (differs, denies))| Directory { witness, lacks, differs, denies })
        .collect();
    Report { life, directories, indexes }
}

fn logs(witnesses: &[Witness]) -> Vec<Log<'_>> {
    let entries = |witness: &'_ Witness, at: usize| witness.places.get(at).map(|place| (place.index, place.term));
    witnesses
        .iter()
        .map(|witness| Log { entries: Box::new(move |at| entries(witness, at)), commit: witness.commit })
        .collect()
}

impl Report {
    /// Whether any record or slot is the image's own; its session alone is not.
    fn is_found(&self) -> bool {
        let is_told =
            self.life.events.iter().any(|event| !matches!(event.what, What::SessionOpened { .. } | What::SessionEnded));
        let mut cores = self.directories.iter().flat_map(|directory| &directory.witness.cores);
        is_told || cores.any(|core| !core.chunks.is_empty())
    }
}

//! What became of the damages, by kind of file and by kind of damage.

use std::collections::BTreeMap;

use crate::damage::Damage;
use crate::trial::Outcome;

/// As `helio log verify` says; a clean start that mended something first has a column of its own.
const COLUMNS: [&str; 7] = ["clean", "repaired", "torn", "uncertain", "rot", "refuses", "wrong"];

#[derive(Debug, Default)]
pub struct Table {
    by_file: BTreeMap<&'static str, [usize; COLUMNS.len()]>,
    by_damage: BTreeMap<&'static str, [usize; COLUMNS.len()]>,
    total: usize,
}

impl Table {
    pub fn add(&mut self, damage: &Damage, outcome: &Outcome) {
        let name = match (&outcome.wrong, outcome.judgement.as_str()) {
            (Some(_), _) => "wrong",
            (None, "clean") if outcome.is_repaired => "repaired",
            (None, judgement) => judgement,
        };
        let column = COLUMNS.iter().position(|column| *column == name).unwrap_or(COLUMNS.len() - 1);
        self.by_file.entry(damage.file_kind.name()).or_default()[column] += 1;
        self.by_damage.entry(damage.kind.name()).or_default()[column] += 1;
        self.total += 1;
    }

    pub fn total(&self) -> usize {
        self.total
    }

    pub fn print(&self) {
        for (title, rows) in [("damaged file", &self.by_file), ("damage", &self.by_damage)] {
            print!("{title:<16}");
            COLUMNS.iter().for_each(|column| print!("{column:>10}"));
            println!("{:>10}", "all");
            for (name, counts) in rows {
                print!("{name:<16}");
                counts.iter().for_each(|count| print!("{count:>10}"));
                println!("{:>10}", counts.iter().sum::<usize>());
            }
        }
    }
}

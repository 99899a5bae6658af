//! Several logs of one cluster as one: for each index the entry that counts, and who has it.

/// An index and a term name an entry: two logs that have both have the same entry there.
pub type Position = (u64, u64);

/// One of the logs: its entries, ascending by index, and up to which index they are known to be committed.
pub struct Log<'a> {
    pub entries: Box<dyn Fn(usize) -> Option<Position> + 'a>,
    pub commit: u64,
}

/// An entry of the one log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merged {
    pub index: u64,
    pub term: u64,
    /// Some log knows that it is committed.
    pub is_committed: bool,
    /// The logs that have it, each with its place in that log.
    pub has: Vec<(usize, usize)>,
    /// Logs that have another entry at this index: it was replaced, or will be.
    pub differs: Vec<usize>,
}

/// The entries that at least one of the logs has, ascending by index. What is known to be committed counts, else what has
/// the highest term.
pub fn merge<'a>(logs: &'a [Log<'a>]) -> impl Iterator<Item = Merged> + 'a {
    let mut at = vec![0usize; logs.len()];
    std::iter::from_fn(move || {
        let heads: Vec<Option<Position>> = logs.iter().zip(&at).map(|(log, &at)| (log.entries)(at)).collect();
        let index = heads.iter().flatten().map(|&(index, _)| index).min()?;
        let here = || {
            heads
                .iter()
                .enumerate()
                .filter_map(|(log, head)| head.filter(|head| head.0 == index).map(|head| (log, head.1)))
        };
        let committed = here().find(|&(log, _)| index <= logs[log].commit).map(|(_, term)| term);
        let term = committed.or_else(|| here().map(|(_, term)| term).max())?;
        let mut merged =
            Merged { index, term, is_committed: committed.is_some(), has: Vec::new(), differs: Vec::new() };
        for (log, other) in here() {
            match other == term {
                true => merged.has.push((log, at[log])),
                false => merged.differs.push(log),
            }
        }
        for (log, _) in here() {
            at[log] += 1;
        }
        Some(merged)
    })
}

/// Ranges of indexes, both ends included, collected in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(pub Vec<(u64, u64)>);

impl Ranges {
    /// Adds one that is above all before.
    pub fn push(&mut self, index: u64) {
        match self.0.last_mut() {
            Some((_, last)) if *last + 1 == index => *last = index,
            _ => self.0.push((index, index)),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// "4, 7 to 9, and 3 more".
    pub fn text(&self) -> String {
        const SHOWN_MAX: usize = 6;
        let range = |&(first, last): &(u64, u64)| match first == last {
            true => first.to_string(),
            false => format!("{first} to {last}"),
        };
        let mut parts: Vec<String> = self.0.iter().take(SHOWN_MAX).map(range).collect();
        if self.0.len() > SHOWN_MAX {
            parts.push(format!("and {} more ranges", self.0.len() - SHOWN_MAX));
        }
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::{Log, Merged, Position, Ranges, merge};

    fn merged(logs: &[(&'static [Position], u64)]) -> Vec<Merged> {
        let logs: Vec<Log<'_>> = logs
            .iter()
            .map(|&(entries, commit)| Log { entries: Box::new(move |at| entries.get(at).copied()), commit })
            .collect();
        merge(&logs).collect()
    }

    #[test]
    fn logs_of_different_lengths_and_with_holes_make_one() {
        let all = merged(&[(&[(1, 1), (2, 1), (3, 1)], 2), (&[(2, 1)], 1), (&[(3, 1), (5, 2)], 3)]);
        let told: Vec<_> =
            all.iter().map(|entry| (entry.index, entry.term, entry.is_committed, entry.has.clone())).collect();
        assert_eq!(
            told,
            [
                (1, 1, true, vec![(0, 0)]),
                (2, 1, true, vec![(0, 1), (1, 0)]),
                (3, 1, true, vec![(0, 2), (2, 0)]),
                (5, 2, false, vec![(2, 1)]),
            ]
        );
        assert!(all.iter().all(|entry| entry.differs.is_empty()));
    }

    #[test]
    fn what_is_committed_counts_and_else_the_highest_term() {
        let all = merged(&[(&[(1, 1), (2, 3), (3, 3)], 1), (&[(1, 1), (2, 2), (3, 4)], 2)]);
        assert_eq!((all[1].term, all[1].is_committed, &all[1].differs[..]), (2, true, &[0][..]));
        assert_eq!((all[2].term, all[2].is_committed, &all[2].differs[..]), (4, false, &[0][..]));
    }

    #[test]
    fn ranges_are_told_shortly() {
        let mut ranges = Ranges::default();
        for index in [1, 2, 3, 7, 9, 10] {
            ranges.push(index);
        }
        assert_eq!(ranges.text(), "1 to 3, 7, 9 to 10");
        (0..20).for_each(|n| ranges.push(20 + 2 * n));
        assert!(ranges.text().ends_with("and 17 more ranges"), "{}", ranges.text());
    }
}

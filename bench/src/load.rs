//! How busy the machine was meanwhile, and with what: a latency measured beside other work says little.

use std::fs;

use serde_json::{Value, json};

use crate::numbers::round;

/// CPU time so far, in the kernel's ticks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Snapshot {
    // Of all CPUs together; idle and waiting for the disk count as not busy.
    total: u64,
    busy: u64,
    // Of our processes.
    ours: u64,
}

/// What happened between two snapshots, as shares of all CPU time of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Taken by our processes.
    pub ours: f64,
    /// Taken by others.
    pub others: f64,
    /// Mean length of the run queue over the last minute.
    pub loadavg: f64,
}

impl Snapshot {
    /// Of the machine now; `ours` are this process and the nodes, as far as they are on this machine.
    pub fn now(ours: &[u32]) -> Snapshot {
        let (total, busy) = fs::read_to_string("/proc/stat").ok().and_then(|text| machine(&text)).unwrap_or_default();
        let ours = ours
            .iter()
            .filter_map(|process| fs::read_to_string(format!("/proc/{process}/stat")).ok())
            .filter_map(|text| process_ticks(&text))
            .sum();
        Snapshot { total, busy, ours }
    }

    /// What happened since `self`.
    pub fn until(&self, later: Snapshot) -> Load {
        let total = later.total.saturating_sub(self.total).max(1) as f64;
        let ours = later.ours.saturating_sub(self.ours) as f64 / total;
        let busy = later.busy.saturating_sub(self.busy) as f64 / total;
        Load { ours: ours.min(1.0), others: (busy - ours).clamp(0.0, 1.0), loadavg: loadavg() }
    }
}

impl Load {
    /// For `--json`.
    pub fn json(&self) -> Value {
        json!({ "own_cpu_share": self.ours, "other_cpu_share": self.others, "loadavg_1": self.loadavg })
    }

    /// For the table.
    pub fn others_percent(&self) -> String {
        format!("{}%", round(self.others * 100.0))
    }
}

fn loadavg() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(0.0)
}

/// Total and busy of the first line: user nice system idle iowait irq softirq steal ...; guest time is in user already.
fn machine(text: &str) -> Option<(u64, u64)> {
    let fields: Vec<u64> =
        text.lines().next()?.split_whitespace().skip(1).take(8).map_while(|f| f.parse().ok()).collect();
    let total = fields.iter().sum();
    let idle = fields.get(3)? + fields.get(4)?;
    Some((total, total - idle))
}

/// utime and stime: fields 14 and 15, counted behind the name, which may itself contain spaces and parentheses.
fn process_ticks(text: &str) -> Option<u64> {
    let rest = &text[text.rfind(')')? + 1..];
    let mut fields = rest.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::{Snapshot, machine, process_ticks};

    #[test]
    fn proc_files_are_understood() {
        assert_eq!(machine("cpu  10 1 5 100 4 1 2 3 0 0\ncpu0 1 2 3"), Some((126, 22)));
        let text = "42 (a (strange) name) S 1 42 42 0 -1 4194560 1 2 3 4 70 7 0 0 20 0 1 0";
        assert_eq!(process_ticks(text), Some(77));
        assert_eq!(process_ticks("nothing"), None);
    }

    #[test]
    fn own_work_counts_as_ours() {
        let own = [std::process::id()];
        let before = Snapshot::now(&own);
        let start = std::time::Instant::now();
        let mut sum = 0u64;
        while start.elapsed() < std::time::Duration::from_millis(150) {
            sum = sum.wrapping_mul(31).wrapping_add(1);
        }
        let load = before.until(Snapshot::now(&own));
        assert!(load.ours > 0.0 && load.ours <= 1.0 && sum != 1, "{load:?}");
    }
}

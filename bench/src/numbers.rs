//! Histograms of durations, and how numbers are printed.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Longest duration told apart: one minute.
const NANOS_MAX: u64 = 60_000_000_000;
/// Three digits are kept.
const DIGITS: u8 = 3;

/// An empty histogram of nanoseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, NANOS_MAX, DIGITS).expect("the bounds are constants")
}

/// Adds one; longer than the longest counts as the longest.
pub fn record(histogram: &mut Histogram<u64>, duration: Duration) {
    histogram.saturating_record(u64::try_from(duration.as_nanos()).unwrap_or(NANOS_MAX));
}

/// The percentiles that everything is judged by.
pub const PERCENTILES: [(&str, f64); 4] = [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9)];

/// Microseconds at a percentile.
pub fn at_us(histogram: &Histogram<u64>, percentile: f64) -> f64 {
    histogram.value_at_percentile(percentile) as f64 / 1e3
}

/// All percentiles and the greatest, in microseconds.
pub fn percentiles_json(histogram: &Histogram<u64>) -> Value {
    let mut value = serde_json::Map::new();
    for (name, percentile) in PERCENTILES {
        value.insert(format!("{name}_us"), json!(round(at_us(histogram, percentile))));
    }
    value.insert("max_us".into(), json!(round(histogram.max() as f64 / 1e3)));
    value.insert("count".into(), json!(histogram.len()));
    Value::Object(value)
}

/// One digit behind the point is all that a measurement is good for.
pub fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Lines of cells at the right edge of columns; the first column at the left.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let cells = cells.iter().enumerate().map(|(column, cell)| match column {
            0 => format!("{cell:<0$}", widths[column]),
            _ => format!("{cell:>0$}", widths[column]),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let body = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    std::iter::once(line(head.to_vec())).chain(body).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{at_us, histogram, record};

    #[test]
    fn percentiles_are_those_of_what_was_recorded() {
        let mut found = histogram();
        for micros in 1..=1000 {
            record(&mut found, Duration::from_micros(micros));
        }
        assert!((at_us(&found, 50.0) - 500.0).abs() < 1.0, "{}", at_us(&found, 50.0));
        assert!((at_us(&found, 99.0) - 990.0).abs() < 2.0, "{}", at_us(&found, 99.0));
        record(&mut found, Duration::from_secs(3600));
        assert!(found.max() >= 59_000_000_000, "{}", found.max());
    }
}

//! `bench disk`: the physical limits, each measured with as little between as possible, and the log's two flush methods.

use std::path::Path;
use std::time::{Duration, Instant};

use ::disk::FlushMethod;
use ::disk::baseline::{self, Bandwidth, FlushRun, Samples};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::load::{Load, Snapshot};
use crate::numbers::{self, at_us, percentiles_json, round, table};
use crate::{DiskArguments, failed, loopback};

/// Bytes moved to measure bandwidth.
const BANDWIDTH_BYTES: u64 = 512 << 20;
/// Transfers in flight meanwhile.
const BANDWIDTH_IN_FLIGHT: usize = 4;
/// Blocking flushes of the floor.
const FLOOR_COUNT: usize = 3000;
/// What one flush of the log carries, and the bytes of a record.
const BATCHES: [usize; 3] = [1, 64, 256];
const RECORD_BYTES: usize = 200;
/// Bytes whose checksum is taken again and again: they fit into the cache, and they do not.
const CRC_BYTES: [(&str, usize); 2] = [("in cache (1 MiB)", 1 << 20), ("from memory (256 MiB)", 256 << 20)];

struct Limits {
    fdatasync: Samples,
    floor: Samples,
    bandwidth: Bandwidth,
    loopback_rate: f64,
    round_trips: Histogram<u64>,
    // Name, CRC-32 and CRC-64 in bytes a second.
    checksums: Vec<(&'static str, f64, f64)>,
    flushes: Vec<FlushRun>,
    load: Load,
}

/// Measures and prints.
pub fn run(arguments: &DiskArguments) -> Result<(), String> {
    let limits = measure(&arguments.dir, Duration::from_secs_f64(arguments.seconds.clamp(0.05, 600.0)))?;
    if arguments.json {
        println!("{:#}", limits.json());
    } else {
        limits.print();
    }
    Ok(())
}

fn measure(dir: &Path, time: Duration) -> Result<Limits, String> {
    let own = [std::process::id()];
    let before = Snapshot::now(&own);
    let mut flushes = Vec::new();
    for method in [FlushMethod::Direct, FlushMethod::Mmap] {
        for batch in BATCHES {
            flushes.push(baseline::log_flushes(dir, method, batch, RECORD_BYTES, time).map_err(failed("log flushes"))?);
        }
    }
    Ok(Limits {
        fdatasync: baseline::fdatasync_latency(dir, FLOOR_COUNT).map_err(failed("fdatasync"))?,
        floor: baseline::flush_floor(dir, FLOOR_COUNT).map_err(failed("flush floor"))?,
        bandwidth: baseline::bandwidth(dir, BANDWIDTH_BYTES, BANDWIDTH_IN_FLIGHT).map_err(failed("bandwidth"))?,
        loopback_rate: loopback::stream_rate(time).map_err(failed("loopback"))?,
        round_trips: loopback::round_trips(time).map_err(failed("loopback"))?,
        checksums: CRC_BYTES.iter().map(|&(name, bytes)| checksum(name, bytes, time / 4)).collect(),
        flushes,
        load: before.until(Snapshot::now(&own)),
    })
}

fn checksum(name: &'static str, bytes: usize, time: Duration) -> (&'static str, f64, f64) {
    let bytes: Vec<u8> = (0..bytes).map(|at| (at * 31) as u8).collect();
    let rate = |sum: &dyn Fn(&[u8]) -> u64| {
        let start = Instant::now();
        let (mut count, mut found) = (0u64, 0u64);
        while count == 0 || start.elapsed() < time {
            found ^= sum(std::hint::black_box(&bytes));
            count += 1;
        }
        std::hint::black_box(found);
        (count * bytes.len() as u64) as f64 / start.elapsed().as_secs_f64()
    };
    let crc32 = rate(&|bytes| u64::from(proto::checksum::crc32(bytes)));
    let crc64 = rate(&proto::checksum::crc64);
    (name, crc32, crc64)
}

fn micros(samples: &Samples, percent: f64) -> f64 {
    round(samples.percentile(percent).as_secs_f64() * 1e6)
}

fn megabytes(rate: f64) -> f64 {
    (rate / 1e6).round()
}

fn method_name(method: FlushMethod) -> &'static str {
    match method {
        FlushMethod::Direct => "direct",
        FlushMethod::Mmap => "mmap",
    }
}

fn samples_json(samples: &Samples) -> Value {
    let mut value = serde_json::Map::new();
    for (name, percentile) in numbers::PERCENTILES {
        value.insert(format!("{name}_us"), json!(micros(samples, percentile)));
    }
    value.insert("max_us".into(), json!(micros(samples, 100.0)));
    value.insert("count".into(), json!(samples.ascending().len()));
    Value::Object(value)
}

fn samples_cells(samples: &Samples) -> Vec<String> {
    [50.0, 90.0, 99.0, 99.9, 100.0].map(|percent| format!("{:.1}", micros(samples, percent))).to_vec()
}

impl Limits {
    fn json(&self) -> Value {
        json!({
            "fdatasync": samples_json(&self.fdatasync),
            "flush_floor": samples_json(&self.floor),
            "direct_write_mb_s": megabytes(self.bandwidth.write),
            "direct_read_mb_s": megabytes(self.bandwidth.read),
            "loopback_mb_s": megabytes(self.loopback_rate),
            "loopback_round_trip": percentiles_json(&self.round_trips),
            "checksums": self.checksums.iter().map(|(name, crc32, crc64)| json!({
                "bytes": name, "crc32_gb_s": round(crc32 / 1e9), "crc64_gb_s": round(crc64 / 1e9) })).collect::<Vec<_>>(),
            "log_flushes": self.flushes.iter().map(|run| json!({
                "method": method_name(run.method), "batch": run.batch, "record_bytes": RECORD_BYTES,
                "records_per_second": run.records_per_second.round(), "flush": samples_json(&run.flushes) })).collect::<Vec<_>>(),
            "load": self.load.json(),
        })
    }

    fn print(&self) {
        let head = ["microseconds", "p50", "p90", "p99", "p99.9", "max", "records/s"];
        let mut rows = vec![
            [vec!["4 KiB append + fdatasync".into()], samples_cells(&self.fdatasync), vec!["-".into()]].concat(),
            [vec!["4 KiB pwritev2, O_DIRECT, RWF_DSYNC".into()], samples_cells(&self.floor), vec!["-".into()]].concat(),
        ];
        for run in &self.flushes {
            let name = format!("log {}, {} records a flush", method_name(run.method), run.batch);
            let rate = format!("{:.0}", run.records_per_second);
            rows.push([vec![name], samples_cells(&run.flushes), vec![rate]].concat());
        }
        let trips: Vec<String> =
            [50.0, 90.0, 99.0, 99.9, 100.0].map(|percent| format!("{:.1}", at_us(&self.round_trips, percent))).to_vec();
        rows.push([vec!["loopback round trip, 1 byte".into()], trips, vec!["-".into()]].concat());
        println!("{}", table(&head, &rows));
        let Bandwidth { write, read } = self.bandwidth;
        println!(
            "O_DIRECT, 1 MiB, {BANDWIDTH_IN_FLIGHT} in flight: write {} MB/s, read {} MB/s",
            megabytes(write),
            megabytes(read)
        );
        println!("loopback, one stream: {} MB/s", megabytes(self.loopback_rate));
        for (name, crc32, crc64) in &self.checksums {
            println!("checksums {name}: CRC-32 {:.1} GB/s, CRC-64 {:.1} GB/s", crc32 / 1e9, crc64 / 1e9);
        }
        println!("meanwhile others took {} of the CPUs, load {}", self.load.others_percent(), self.load.loadavg);
    }
}

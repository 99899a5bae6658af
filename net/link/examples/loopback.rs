//! Prints what links and the mesh reach on this machine, beside glommio's own channel between cores.
//!
//! `cargo run --release -p link --example loopback [bodies] [frames] [mesh] [channel]`

use std::error::Error;
use std::time::{Duration, Instant};

use glommio::channels::shared_channel;
use link::measure::{frame_round_trips, link_bodies, mesh_one_way, mesh_round_trips};

const BODIES: u64 = 4_000;
const TRIPS: usize = 20_000;
const ITEMS: u64 = 2_000_000;
/// Items between two looks at I/O.
const BATCH: u64 = 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    if wants("bodies") {
        print_rate("1 MiB frames over a link", "MiB", BODIES as f64, link_bodies(BODIES)?);
    }
    if wants("frames") {
        print_trips("small frame, round trip", frame_round_trips(TRIPS)?);
    }
    if wants("mesh") {
        print_trips("mesh, round trip", mesh_round_trips(TRIPS)?);
        print_rate("mesh, one way", "million", ITEMS as f64 / 1e6, mesh_one_way(ITEMS)?);
    }
    if wants("channel") {
        print_trips("shared_channel, round trip", channel_round_trips(TRIPS)?);
        print_rate("shared_channel, one way", "million", ITEMS as f64 / 1e6, channel_one_way(ITEMS)?);
    }
    Ok(())
}

fn print_rate(name: &str, unit: &str, count: f64, took: Duration) {
    println!("{name:<29} {:>9.1} {unit}/s", count / took.as_secs_f64());
}

fn print_trips(name: &str, mut trips: Vec<Duration>) {
    trips.sort_unstable();
    let at = |part: f64| trips[((trips.len() - 1) as f64 * part) as usize];
    println!("{name:<29} {:>9.1?} p50, {:.1?} p99, {:.1?} max", at(0.5), at(0.99), at(1.0));
}

fn channel_round_trips(count: usize) -> Result<Vec<Duration>, Box<dyn Error>> {
    let (to_other, at_other) = shared_channel::new_bounded::<u64>(1024);
    let (to_asker, at_asker) = shared_channel::new_bounded::<u64>(1024);
    let other = executor::spawn("other", move || async move {
        let (receiver, sender) = (at_other.connect().await, to_asker.connect().await);
        while let Some(item) = receiver.recv().await {
            let _ = sender.try_send(item);
        }
    })?;
    let asker = executor::spawn("asker", move || async move {
        let (sender, receiver) = (to_other.connect().await, at_asker.connect().await);
        let mut trips = Vec::with_capacity(count);
        for item in 0..count as u64 {
            let begun = Instant::now();
            let _ = sender.try_send(item);
            receiver.recv().await;
            trips.push(begun.elapsed());
        }
        trips
    })?;
    let trips = asker.join().map_err(|_| "the asker panicked")?;
    other.join().map_err(|_| "the other end panicked")?;
    Ok(trips)
}

fn channel_one_way(items: u64) -> Result<Duration, Box<dyn Error>> {
    let (sender, receiver) = shared_channel::new_bounded::<u64>(16 << 10);
    let sending = executor::spawn("sender", move || async move {
        let sender = sender.connect().await;
        for item in 0..items {
            let _ = sender.send(item).await;
            if item % BATCH == 0 {
                link::breathe().await;
            }
        }
    })?;
    let receiving = executor::spawn("receiver", move || async move {
        let receiver = receiver.connect().await;
        let begun = Instant::now();
        while receiver.recv().await.is_some() {}
        begun.elapsed()
    })?;
    let took = receiving.join().map_err(|_| "the receiver panicked")?;
    sending.join().map_err(|_| "the sender panicked")?;
    Ok(took)
}

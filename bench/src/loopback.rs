//! What loopback TCP does between two plain threads: the floor under every message between processes of this machine.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::numbers::{histogram, record};

/// Bytes of one write of the stream.
const WRITE_BYTES: usize = 1 << 20;
/// Round trips before those that count.
const WARM_UP: usize = 200;
/// Bound of the round trips measured.
const ROUND_TRIPS_MAX: usize = 200_000;

/// Round trips of one byte, in nanoseconds, for about `duration`.
pub fn round_trips(duration: Duration) -> io::Result<Histogram<u64>> {
    let (mut near, mut far) = pair()?;
    let echo = thread::spawn(move || -> io::Result<()> {
        let mut byte = [0u8; 1];
        while far.read(&mut byte)? == 1 {
            far.write_all(&byte)?;
        }
        Ok(())
    });
    let mut found = histogram();
    let mut byte = [7u8; 1];
    let mut start = Instant::now();
    for count in 0..WARM_UP + ROUND_TRIPS_MAX {
        if count == WARM_UP {
            start = Instant::now();
        }
        let sent = Instant::now();
        near.write_all(&byte)?;
        near.read_exact(&mut byte)?;
        if count >= WARM_UP {
            record(&mut found, sent.elapsed());
            if start.elapsed() > duration {
                break;
            }
        }
    }
    drop(near);
    join(echo)?;
    Ok(found)
}

/// Bytes a second of one stream, for about `duration`.
pub fn stream_rate(duration: Duration) -> io::Result<f64> {
    let (mut near, mut far) = pair()?;
    let sink = thread::spawn(move || -> io::Result<u64> {
        let mut buffer = vec![0u8; WRITE_BYTES];
        let mut total = 0;
        loop {
            match far.read(&mut buffer)? {
                0 => return Ok(total),
                count => total += count as u64,
            }
        }
    });
    let bytes = vec![7u8; WRITE_BYTES];
    let start = Instant::now();
    while start.elapsed() < duration {
        near.write_all(&bytes)?;
    }
    drop(near);
    let total = join(sink)?;
    Ok(total as f64 / start.elapsed().as_secs_f64())
}

fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

fn join<T>(thread: thread::JoinHandle<io::Result<T>>) -> io::Result<T> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the other thread ended unexpectedly")))
}

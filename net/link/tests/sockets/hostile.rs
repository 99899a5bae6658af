//! Connections that do not keep the rules end with a typed error; the listener and everyone else live on.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_lite::future;
use link::{Accepted, FreshBuffers, Listener, ReadError};
use proto::frame::{FRAME_HEADER_BYTES, FrameLimits};

use crate::support::{chunk_frame, encode, ends, hello, listener, payload, run, until};

/// What the reader says to `bytes` followed by the end.
async fn error_of(bytes: &[u8]) -> ReadError {
    let (dialled, accepted) = ends();
    dialled.write_first(bytes).await.unwrap();
    drop(dialled);
    let mut reader = accepted.reader(FrameLimits::CLIENT_REQUEST);
    loop {
        match reader.next(&FreshBuffers).await {
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

#[test]
fn every_truncation_of_a_frame_with_body_is_told_as_such() {
    run(async {
        let frame = chunk_frame(0, &payload(600, 1));
        assert!(matches!(error_of(&[]).await, ReadError::Closed));
        for end in 1..frame.len() {
            let error = error_of(&frame[..end]).await;
            assert!(matches!(error, ReadError::Truncated), "{end} of {} bytes: {error:?}", frame.len());
        }
        assert!(matches!(error_of(&frame).await, ReadError::Closed));
    });
}

#[test]
fn every_flipped_bit_of_a_header_or_body_is_found() {
    run(async {
        let body = payload(40, 1);
        let frame = chunk_frame(0, &body);
        let body_at = frame.len() - body.len();
        for place in (0..FRAME_HEADER_BYTES).chain(body_at..frame.len()) {
            let mut frame = frame.clone();
            frame[place] ^= 1 << (place % 8);
            let error = error_of(&frame).await;
            let right = match place {
                place if place >= body_at => matches!(error, ReadError::Body(_)),
                _ => matches!(error, ReadError::Frame(_)),
            };
            assert!(right, "byte {place}: {error:?}");
        }
    });
}

/// Serves until `client`, on a thread of its own, has returned; counts the first frames that were whole.
fn with_listener(client: impl FnOnce(SocketAddr) + Send + 'static) -> usize {
    run(async {
        let listener = listener(64);
        let whole = Rc::new(Cell::new(0));
        let counted = Rc::clone(&whole);
        let address = listener.address();
        let client = std::thread::spawn(move || client(address));
        let serving = async {
            listener
                .run(move |_accepted: Accepted| {
                    counted.set(counted.get() + 1);
                    future::ready(())
                })
                .await;
        };
        future::or(serving, until(|| client.is_finished())).await;
        client.join().unwrap();
        drain(&listener).await;
        whole.get()
    })
}

async fn drain(listener: &Listener) {
    listener.stop().await;
    assert_eq!(listener.connections(), 0, "every connection gave its slot back");
}

/// Sends `bytes`, then nothing more, and waits until the other end has closed.
fn send_and_wait(address: SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    // The listener may close before it has everything: that is its right.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty());
}

#[test]
fn listener_outlives_garbage_and_every_truncation_of_a_hello() {
    let whole = with_listener(|address| {
        let frame = encode(&hello(), 0);
        for end in 0..frame.len() {
            send_and_wait(address, &frame[..end]);
        }
        for seed in 0..100 {
            send_and_wait(address, &payload(1 + seed as usize * 997, seed));
        }
        // The right beginning does not help.
        let mut bytes = frame.clone();
        bytes[10] ^= 255;
        send_and_wait(address, &bytes);
        send_and_wait(address, &frame);
    });
    assert_eq!(whole, 1, "only the whole hello was handed on");
}

#[test]
fn ten_megabytes_of_noise_are_not_read() {
    let whole = with_listener(|address| send_and_wait(address, &payload(10 << 20, 1)));
    assert_eq!(whole, 0);
}

#[test]
fn handshake_that_stalls_is_ended_in_time() {
    let whole = with_listener(|address| {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(&encode(&hello(), 0)[..70]).unwrap();
        let _ = stream.read(&mut [0]);
        let lasted = begun.elapsed();
        assert!(lasted >= link::limits::HANDSHAKE_TIMEOUT, "{lasted:?}");
        assert!(lasted < 4 * link::limits::HANDSHAKE_TIMEOUT, "{lasted:?}");
    });
    assert_eq!(whole, 0);
}

#[test]
fn frame_that_stalls_is_ended_but_silence_between_frames_is_not() {
    const TIMEOUT: Duration = Duration::from_millis(100);
    run(async {
        let (dialled, accepted) = ends();
        let frame = chunk_frame(0, &payload(600, 1));
        let mut reader = accepted.reader(FrameLimits::CLIENT_REQUEST).with_frame_timeout(TIMEOUT);
        for _ in 0..2 {
            // Three times as long as a frame may take.
            let silence = glommio::timer::sleep(3 * TIMEOUT);
            let sending = async {
                silence.await;
                dialled.write_first(&frame).await.unwrap();
            };
            let (frame, ()) = future::zip(reader.next(&FreshBuffers), sending).await;
            assert!(frame.is_ok());
        }
        for end in [1, FRAME_HEADER_BYTES, frame.len() - 601, frame.len() - 1] {
            let (dialled, accepted) = ends();
            let mut reader = accepted.reader(FrameLimits::CLIENT_REQUEST).with_frame_timeout(TIMEOUT);
            dialled.write_first(&frame[..end]).await.unwrap();
            let error = reader.next(&FreshBuffers).await.err().unwrap();
            assert!(matches!(error, ReadError::TimedOut(TIMEOUT)), "{end}: {error:?}");
        }
    });
}

//! Ports, connections, and their way to the core they belong to.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;
use std::sync::mpsc;
use std::thread;

use futures_lite::future;
use link::{Accepted, Bound, FreshBuffers, ListenError, Outbox, OutboxLimits, ReadError, breathe, mesh};
use proto::client::ClientRequest;
use proto::codec::decode_client_request;
use proto::frame::FrameLimits;
use proto::ids::CoreId;
use proto::limits::CHUNK_BYTES_MAX;

use crate::support::{PATIENCE, chunk_frame, encode, hello, listener, loopback, pause, payload, run, until};

#[test]
fn port_that_is_taken_is_told_with_the_remedy() {
    let first = Bound::bind(loopback()).unwrap();
    let error = Bound::bind(first.address()).err().unwrap();
    assert!(matches!(error, ListenError::PortTaken { address } if address == first.address()));
    let text = error.to_string();
    assert!(text.contains(&first.address().to_string()) && text.contains("configure another port"), "{text}");
    // Served or not makes no difference, and after its end the port is free at once.
    let address = first.address();
    run(async {
        let listener = first.adopt(1).unwrap();
        assert!(matches!(Bound::bind(address), Err(ListenError::PortTaken { .. })));
        drop(listener);
        for _ in 0..1000 {
            if Bound::bind(address).is_ok() {
                return;
            }
            breathe().await;
        }
        panic!("the port stays taken");
    });
}

#[test]
fn foreign_address_is_told() {
    let error = Bound::bind("192.0.2.1:0".parse().unwrap()).err().unwrap();
    assert!(matches!(error, ListenError::NotOurs { .. }), "{error:?}");
}

#[test]
fn connections_beyond_the_bound_are_closed_and_their_slots_come_back() {
    run(async {
        let listener = listener(2);
        let address = listener.address();
        let held = Rc::new(RefCell::new(Vec::new()));
        let holding = Rc::clone(&held);
        let serving = listener.run(move |accepted: Accepted| {
            holding.borrow_mut().push(accepted);
            future::ready(())
        });
        let (told, client_told) = mpsc::channel();
        let (client_tells, tells) = mpsc::channel();
        let client = thread::spawn(move || {
            let dial = || {
                let mut stream = TcpStream::connect(address).unwrap();
                let _ = stream.write_all(&encode(&hello(), 0));
                stream
            };
            let kept = [dial(), dial()];
            client_told.recv().unwrap(); // Both are held.
            client_tells.send(dial().read(&mut [0]).unwrap_or(0)).unwrap();
            client_told.recv().unwrap(); // One was dropped.
            let third = dial();
            client_told.recv().unwrap(); // The third is held instead.
            drop((kept, third));
        });
        let controlling = async {
            until(|| held.borrow().len() == 2).await;
            told.send(()).unwrap();
            let mut read = None;
            until(|| {
                read = tells.try_recv().ok();
                read.is_some()
            })
            .await;
            assert_eq!(read, Some(0), "the one too many was closed without a word");
            assert_eq!((held.borrow().len(), listener.connections()), (2, 2));
            let dropped = held.borrow_mut().pop();
            drop(dropped);
            told.send(()).unwrap();
            until(|| held.borrow().len() == 2).await;
            told.send(()).unwrap();
            until(|| client.is_finished()).await;
        };
        future::or(serving, controlling).await;
        client.join().unwrap();
        held.borrow_mut().clear();
        listener.stop().await;
        assert_eq!(listener.connections(), 0);
    });
}

#[test]
fn panic_in_a_handler_ends_only_its_connection() {
    run(async {
        let listener = listener(8);
        let address = listener.address();
        let serving = listener.run(|accepted: Accepted| async move {
            let number = accepted.number;
            let connection = accepted.into_connection().unwrap();
            let mut reader = connection.reader(FrameLimits::CLIENT_REQUEST);
            let frame = reader.next(&FreshBuffers).await.unwrap();
            let request = decode_client_request(&frame.header, frame.meta).unwrap();
            assert!(request == ClientRequest::Ping, "connection {number}: meant to panic");
            connection.write_first(b"fine").await.unwrap();
        });
        let client = thread::spawn(move || {
            let ask = |second: &[u8]| {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.write_all(&encode(&hello(), 0)).unwrap();
                stream.write_all(second).unwrap();
                stream.shutdown(Shutdown::Write).unwrap();
                let mut answer = Vec::new();
                let _ = stream.read_to_end(&mut answer);
                answer
            };
            let ping = encode(&ClientRequest::Ping, 0);
            [ask(&encode(&hello(), 0)), ask(&ping), ask(b"rubbish"), ask(&ping)]
        });
        future::or(serving, until(|| client.is_finished())).await;
        let answers = client.join().unwrap();
        assert_eq!(answers.map(|answer| answer == b"fine"), [false, true, false, true]);
        listener.stop().await;
    });
}

/// The whole of a stream is written before the connection is handed over, so that much lies in the kernel by then.
#[test]
fn connection_moves_to_another_core_without_losing_a_byte() {
    const FRAMES: usize = 12;
    let mut seats = mesh::<Option<Box<Accepted>>>(2);
    let (there, here) = (seats.pop().unwrap(), seats.pop().unwrap());

    let other = executor::spawn("other", move || async move {
        let mut items = std::collections::VecDeque::new();
        let mut sums = Vec::new();
        loop {
            there.receive(&mut items).await;
            for (_, item) in items.drain(..) {
                let Some(accepted) = item else { return sums };
                let connection = accepted.into_connection().unwrap();
                let mut reader = connection.reader(FrameLimits::CLIENT_REQUEST);
                let error = loop {
                    match reader.next(&FreshBuffers).await {
                        Ok(frame) => sums.push(frame.body.map(|body| body.crc32)),
                        Err(error) => break error,
                    }
                };
                assert!(matches!(error, ReadError::Closed), "{error:?}");
                let outbox = Outbox::new(OutboxLimits::CLIENT);
                outbox.try_send(None, |out| out.extend_from_slice(&encode(&ClientRequest::Ping, 0))).unwrap();
                outbox.close();
                connection.serve(&outbox, future::pending()).await;
            }
        }
    })
    .unwrap();

    let expected = run(async move {
        let listener = listener(8);
        let address = listener.address();
        let here = Rc::new(here);
        let seat = Rc::clone(&here);
        let client = thread::spawn(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut bytes = encode(&hello(), 0);
            let mut sums = Vec::new();
            for place in 0..FRAMES {
                let payload = payload(if place % 2 == 0 { 40_000 } else { CHUNK_BYTES_MAX }, place as u64);
                sums.push(Some(proto::checksum::crc32(&payload)));
                bytes.extend_from_slice(&chunk_frame(0, &payload));
            }
            stream.write_all(&bytes).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, encode(&ClientRequest::Ping, 0));
            sums
        });
        let serving = listener.run(move |accepted: Accepted| {
            let seat = Rc::clone(&seat);
            async move {
                // More of the stream arrives meanwhile.
                pause().await;
                assert!(seat.send(CoreId(1), Some(Box::new(accepted))).is_ok());
            }
        });
        future::or(serving, until(|| client.is_finished())).await;
        listener.stop().await;
        assert!(here.send(CoreId(1), None).is_ok());
        client.join().unwrap()
    });
    assert_eq!(other.join().unwrap(), expected);
}

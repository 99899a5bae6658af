//! The queue of a connection: its bounds, its end, its credit.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use futures_lite::future;
use link::{ConnectionEnd, FreshBuffers, OutBody, Outbox, OutboxLimits, ReadError, SendError};
use proto::client::ClientRequest;
use proto::frame::FrameLimits;
use proto::limits::CHUNK_BYTES_MAX;

use crate::support::{body, buffer, chunk, encode, ends, pause, payload, run, until};

fn ping(outbox: &Outbox) -> Result<(), SendError> {
    outbox.try_send(None, |out| out.extend_from_slice(&encode(&ClientRequest::Ping, 0)))
}

fn send_chunk(outbox: &Outbox, bytes: &[u8], body: OutBody) -> Result<(), SendError> {
    outbox.try_send(Some(body), |out| out.extend_from_slice(&encode(&chunk(0, bytes), bytes.len())))
}

#[test]
fn queue_is_bounded_in_frames_and_in_bytes() {
    run(async {
        let outbox = Outbox::new(OutboxLimits { bytes: 1 << 20, frames: 3 });
        for _ in 0..3 {
            assert_eq!(ping(&outbox), Ok(()));
        }
        assert_eq!(ping(&outbox), Err(SendError::Full));
        assert_eq!(outbox.queued_frames(), 3);

        let outbox = Outbox::new(OutboxLimits { bytes: 1 << 20, frames: 1000 });
        let bytes = payload(CHUNK_BYTES_MAX, 1);
        let shared = buffer(&bytes).await;
        let length = bytes.len() as u32;
        assert_eq!(send_chunk(&outbox, &bytes, OutBody::new(Rc::clone(&shared) as _, length)), Ok(()));
        assert_eq!(send_chunk(&outbox, &bytes, OutBody::new(Rc::clone(&shared) as _, length)), Err(SendError::Full));
        assert_eq!(ping(&outbox), Err(SendError::Full));
        assert_eq!(Rc::strong_count(&shared), 2, "a refused body is not kept");
        outbox.abort();
        assert_eq!(Rc::strong_count(&shared), 1, "an aborted queue keeps nothing");
        assert_eq!(ping(&outbox), Err(SendError::Closed));
    });
}

#[test]
fn closed_queue_is_written_whole_even_to_an_end_that_also_sends() {
    run(async {
        let (here, there) = ends();
        let outbox = Outbox::new(OutboxLimits::CLIENT);
        let bytes = payload(CHUNK_BYTES_MAX, 1);
        send_chunk(&outbox, &bytes, body(&bytes).await).unwrap();
        for _ in 0..100 {
            ping(&outbox).unwrap();
        }
        outbox.close();
        assert_eq!(ping(&outbox), Err(SendError::Closed));
        // Bytes that this end will never read: closing on top of them must not reset the connection while what it sent is
        // still on its way, for the other end reads late.
        there.write_first(&[7; 100_000]).await.unwrap();
        let reading = async {
            until(|| outbox.queued_bytes() == 0).await;
            pause().await;
            let mut reader = there.reader(FrameLimits::CLIENT_REQUEST);
            for _ in 0..101 {
                reader.next(&FreshBuffers).await.unwrap();
            }
            let end = reader.next(&FreshBuffers).await.err().unwrap();
            assert!(matches!(end, ReadError::Closed), "{end:?}");
            drop((reader, there));
        };
        let (end, ()) = future::zip(here.serve(&outbox, future::pending()), reading).await;
        assert!(matches!(end, ConnectionEnd::Finished), "{end:?}");
    });
}

#[test]
fn abort_ends_a_writer_that_is_stuck_within_a_frame() {
    run(async {
        let (here, there) = ends();
        let outbox = Outbox::new(OutboxLimits::CHUNKS);
        let bytes = payload(CHUNK_BYTES_MAX, 1);
        let shared = buffer(&bytes).await;
        // More than the kernel keeps: the other end does not read.
        for _ in 0..32 {
            send_chunk(&outbox, &bytes, OutBody::new(Rc::clone(&shared) as _, bytes.len() as u32)).unwrap();
        }
        let aborting = async {
            let mut before = u64::MAX;
            while outbox.queued_bytes() < before {
                before = outbox.queued_bytes();
                pause().await;
            }
            assert!(outbox.queued_bytes() > 0);
            outbox.abort();
        };
        let (end, ()) = future::zip(here.serve(&outbox, future::pending()), aborting).await;
        assert!(matches!(end, ConnectionEnd::Aborted), "{end:?}");
        assert_eq!(Rc::strong_count(&shared), 1);
        drop(there);
    });
}

#[test]
fn bodies_wait_for_credit_and_all_behind_them_wait_too() {
    run(async {
        let (here, there) = ends();
        let outbox = Outbox::new(OutboxLimits::CHUNKS);
        outbox.limit_credit(2_500);
        let bytes = payload(1_000, 1);
        for _ in 0..4 {
            send_chunk(&outbox, &bytes, body(&bytes).await).unwrap();
            ping(&outbox).unwrap();
        }
        let read = Rc::new(Cell::new(0));
        let reading = async {
            let mut reader = there.reader(FrameLimits::CLIENT_REQUEST);
            loop {
                match reader.next(&FreshBuffers).await {
                    Ok(_) => read.set(read.get() + 1),
                    Err(error) => break error,
                }
            }
        };
        let controlling = async {
            // Two chunks with their pings may go.
            until(|| read.get() == 4).await;
            pause().await;
            assert_eq!((read.get(), outbox.queued_frames(), outbox.credit_left()), (4, 4, 500));
            outbox.limit_credit(3_000);
            until(|| read.get() == 6).await;
            assert_eq!(outbox.credit_left(), 0);
            outbox.limit_credit(1_000); // Credit never falls.
            outbox.limit_credit(4_000);
            outbox.close();
        };
        let serving = here.serve(&outbox, future::pending());
        future::zip(future::zip(serving, controlling), reading).await;
        assert_eq!(read.get(), 8);
    });
}

#[test]
fn owner_is_told_when_the_queue_drains_and_when_there_is_room_again() {
    run(async {
        let (here, there) = ends();
        let outbox = Outbox::new(OutboxLimits { bytes: 1 << 20, frames: 10 });
        let (drained, room) = (Rc::new(RefCell::new(Vec::new())), Rc::new(RefCell::new(Vec::new())));
        let told = Rc::clone(&drained);
        outbox.on_drained(500, move |bytes| told.borrow_mut().push(bytes));
        let told = Rc::clone(&room);
        outbox.on_room(move |bytes| told.borrow_mut().push(bytes));
        while ping(&outbox).is_ok() {}
        assert!(outbox.queued_bytes() >= 500);
        let waiting = async {
            outbox.drained_below(1).await;
            outbox.close();
        };
        let reading = async {
            let mut reader = there.reader(FrameLimits::CLIENT_REQUEST);
            while reader.next(&FreshBuffers).await.is_ok() {}
            drop((reader, there));
        };
        future::zip(future::zip(here.serve(&outbox, future::pending()), waiting), reading).await;
        assert_eq!((&*drained.borrow(), &*room.borrow()), (&vec![0], &vec![0]));
    });
}

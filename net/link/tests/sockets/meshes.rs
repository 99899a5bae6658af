//! Messages between cores.

use std::collections::VecDeque;
use std::rc::Rc;

use link::limits::MESH_ITEMS_MAX;
use link::{MeshError, mesh};
use proto::ids::CoreId;

use crate::support::run;

#[test]
fn items_of_each_pair_of_cores_arrive_in_order() {
    const ITEMS: u64 = 20_000;
    const CORES: u16 = 3;
    let handles: Vec<_> = mesh::<u64>(CORES)
        .into_iter()
        .map(|seat| {
            executor::spawn("core", move || async move {
                let seat = Rc::new(seat);
                let sending = Rc::clone(&seat);
                let sender = glommio::spawn_local(async move {
                    for item in 0..ITEMS {
                        for core in 0..CORES {
                            sending.send(CoreId(core), item).unwrap();
                        }
                        if item % 64 == 0 {
                            link::breathe().await;
                        }
                    }
                });
                let mut next = [0; CORES as usize];
                let mut items = VecDeque::new();
                while next.iter().sum::<u64>() < ITEMS * u64::from(CORES) {
                    seat.receive(&mut items).await;
                    for (from, item) in items.drain(..) {
                        assert_eq!(item, next[usize::from(from.0)], "from {from}");
                        next[usize::from(from.0)] += 1;
                    }
                }
                sender.await;
                Rc::into_inner(seat).unwrap()
            })
        })
        .map(|handle| handle.unwrap())
        .collect();
    // The seats live until all have ended, so that nobody sends to one that is gone.
    let seats: Vec<_> = handles.into_iter().map(|handle| handle.join().unwrap()).collect();
    assert_eq!(seats.len(), usize::from(CORES));
}

#[test]
fn full_and_closed_give_the_item_back() {
    let mut seats = mesh::<u32>(2);
    let (there, here) = (seats.pop().unwrap(), seats.pop().unwrap());
    for _ in 0..MESH_ITEMS_MAX {
        here.offer(CoreId(1), 1).unwrap();
    }
    assert_eq!(here.offer(CoreId(1), 2), Err(MeshError::Full(2)));
    here.send(CoreId(1), 3).unwrap();
    let mut items = VecDeque::new();
    assert_eq!(there.take(&mut items), MESH_ITEMS_MAX + 1);
    assert_eq!(items.back(), Some(&(CoreId(0), 3)));
    here.offer(CoreId(1), 4).unwrap();
    drop(there);
    assert_eq!(here.send(CoreId(1), 5), Err(MeshError::Closed(5)));
}

#[test]
fn core_may_send_to_itself() {
    run(async {
        let seat = mesh::<u32>(1).pop().unwrap();
        seat.send(CoreId(0), 1).unwrap();
        let mut items = VecDeque::new();
        assert_eq!(seat.receive(&mut items).await, 1);
        assert_eq!(items, [(CoreId(0), 1)]);
    });
}

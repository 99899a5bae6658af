//! The walk of images through whole worlds.
#![allow(clippy::unwrap_used)]

use client::session::Routing;
use proto::ids::NodeId;
use sim::user::{InboxUser, SenderUser, register};
use sim::world::World;

const CORES: u16 = 2;

struct Run {
    world: World,
    senders: Vec<SenderUser>,
    inboxes: Vec<InboxUser>,
}

impl Run {
    fn new(seed: u64, nodes: u64) -> Run {
        let mut world = World::new(seed, nodes, CORES);
        register(&mut world, "gallery");
        register(&mut world, "archive");
        let senders = vec![
            SenderUser::new(&mut world, CORES, "cam", Routing::Home),
            SenderUser::new(&mut world, CORES, "phone", Routing::Any),
        ];
        let inboxes = ["gallery", "archive"].map(|name| InboxUser::new(&mut world, CORES, name)).into();
        Run { world, senders, inboxes }
    }

    fn step(&mut self) {
        let heard = self.world.run();
        for user in &mut self.senders {
            heard.iter().for_each(|heard| user.hear(&mut self.world, heard));
            user.tick(&mut self.world);
        }
        for user in &mut self.inboxes {
            heard.iter().for_each(|heard| user.hear(&mut self.world, heard));
            user.tick(&mut self.world);
        }
    }

    fn until(&mut self, seconds: u64, what: &str, mut is_done: impl FnMut(&Run) -> bool) {
        let deadline_us = self.world.now_us + seconds * 1_000_000;
        while !is_done(self) {
            if self.world.now_us >= deadline_us {
                panic!("{what}: not within {seconds} s: {}\n{}", self.report(), self.world.describe());
            }
            self.step();
        }
    }

    fn report(&self) -> String {
        let senders: Vec<_> =
            self.senders.iter().map(|user| (user.unfinished(), user.accepted.len(), &user.failed)).collect();
        let inboxes: Vec<_> = self.inboxes.iter().map(|user| (user.stored.len(), user.is_settled())).collect();
        format!("unfinished, accepted, failed {senders:?}; stored, settled {inboxes:?}")
    }

    fn submit(&mut self, key: u64) {
        let length = match key % 5 {
            0 => 1,
            1 => 70_000,
            2 => 1 << 20,
            3 => (1 << 20) + 1,
            _ => 5 << 20,
        };
        let receivers: &[&str] = match key % 3 {
            0 => &["gallery"],
            1 => &["archive"],
            _ => &["gallery", "archive"],
        };
        self.senders[(key % 2) as usize].submit(&mut self.world, key, receivers, length);
    }

    fn all_delivered(&self, images: u64) -> bool {
        let galleries = (0..images).filter(|key| key % 3 != 1).count();
        let archives = (0..images).filter(|key| key % 3 != 0).count();
        self.senders.iter().all(|user| user.unfinished() == 0)
            && self.inboxes[0].stored.len() == galleries
            && self.inboxes[1].stored.len() == archives
            && self.inboxes.iter().all(|user| user.is_settled())
    }
}

#[test]
fn images_of_all_sizes_cross_a_healthy_cluster() {
    for seed in 1..=10 {
        let mut run = Run::new(seed, 3);
        for key in 0..30 {
            run.submit(key);
        }
        run.until(60, &format!("seed {seed}"), |run| run.all_delivered(30));
        assert!(run.senders.iter().all(|user| user.failed.is_empty()), "{}", run.report());
    }
}

#[test]
fn a_cluster_of_one_works() {
    let mut run = Run::new(7, 1);
    for key in 0..30 {
        run.submit(key);
    }
    run.until(60, "one node", |run| run.all_delivered(30));
}

#[test]
fn no_image_is_lost_while_nodes_die_and_come_back() {
    for seed in 100..130 {
        let mut run = Run::new(seed, 3);
        let mut key = 0;
        for _ in 0..6 {
            let node = NodeId(run.world.random.within(1, 4));
            for _ in 0..5 {
                run.submit(key);
                key += 1;
            }
            let pause_us = run.world.now_us + run.world.random.within(1_000, 300_000);
            while run.world.now_us < pause_us {
                run.step();
            }
            run.world.crash(node);
            let pause_us = run.world.now_us + run.world.random.within(1_000, 3_000_000);
            while run.world.now_us < pause_us {
                run.step();
            }
            if !run.world.start(node) {
                break; // Its log needs healing by the others: it stays down.
            }
        }
        run.until(120, &format!("seed {seed}"), |run| run.all_delivered(key));
        assert!(run.senders.iter().all(|user| user.failed.is_empty()), "{}", run.report());
    }
}

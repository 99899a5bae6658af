//! What users wanted and what became of it; the promises as the users see them.

use std::collections::BTreeMap;

use proto::error::Refusal;

use crate::user::{InboxUser, Outcome};

/// Something a user wants delivered. It may take several images until one is accepted.
#[derive(Clone, Debug)]
pub(crate) struct Want {
    pub sender: usize,
    pub receivers: Vec<usize>,
    pub length: u64,
}

#[derive(Debug)]
struct Image {
    want: usize,
    submitted_us: u64,
    accepted_us: Option<u64>,
    refused: Option<Refusal>,
    rival: Option<u64>, // the image whose id it has
}

/// See the top of this file.
#[derive(Debug, Default)]
pub(crate) struct Book {
    pub wants: Vec<Want>,
    fulfilled: Vec<bool>,
    images: BTreeMap<u64, Image>, // by content
    retries: Vec<(u64, usize)>,   // when, which want
}

impl Book {
    /// A new want, not yet sent.
    pub fn want(&mut self, want: Want) -> usize {
        self.wants.push(want);
        self.fulfilled.push(false);
        self.wants.len() - 1
    }

    /// An image for it is submitted. Returns its content.
    pub fn submit(&mut self, want: usize, now_us: u64) -> u64 {
        let content = self.images.len() as u64;
        self.images
            .insert(content, Image { want, submitted_us: now_us, accepted_us: None, refused: None, rival: None });
        content
    }

    /// Other bytes under the id of that image. At most one of both may be delivered. Returns their content.
    pub fn rival(&mut self, of: u64, now_us: u64) -> u64 {
        let content = self.images.len() as u64;
        let want = self.images[&of].want;
        let rival = Some(of);
        self.images.insert(content, Image { want, submitted_us: now_us, accepted_us: None, refused: None, rival });
        content
    }

    /// An image of somebody who does not listen, for the receivers of that one. Returns its content.
    pub fn stray(&mut self, like: u64, now_us: u64) -> u64 {
        self.submit(self.images[&like].want, now_us)
    }

    /// What became of an image. A want that it did not fulfil is tried again after `pause_us`.
    pub fn note(&mut self, outcome: &Outcome, now_us: u64, pause_us: u64) {
        let content = match outcome {
            Outcome::Accepted(content) | Outcome::Refused(content, _) | Outcome::Unknown(content) => content,
        };
        let image = self.images.get_mut(content).expect("it was submitted");
        match outcome {
            Outcome::Accepted(_) => {
                assert!(image.accepted_us.is_none() && image.refused.is_none(), "{content} has two outcomes");
                image.accepted_us = Some(now_us);
                self.fulfilled[image.want] = true;
            }
            Outcome::Refused(_, refusal) => {
                assert!(image.accepted_us.is_none() && image.refused.is_none(), "{content} has two outcomes");
                image.refused = Some(*refusal);
                self.retries.push((now_us + pause_us, image.want));
            }
            Outcome::Unknown(_) => self.retries.push((now_us + pause_us, image.want)),
        }
    }

    /// Wants to be tried again now.
    pub fn take_retries(&mut self, now_us: u64) -> Vec<usize> {
        let (due, later) = std::mem::take(&mut self.retries).into_iter().partition(|&(at_us, _)| at_us <= now_us);
        self.retries = later;
        let due: Vec<(u64, usize)> = due;
        due.into_iter().map(|(_, want)| want).collect()
    }

    /// Images submitted.
    pub fn images(&self) -> u64 {
        self.images.len() as u64
    }

    /// Whether every want has an accepted image, and every accepted image is where it belongs.
    pub fn is_settled(&self, inboxes: &[InboxUser]) -> bool {
        self.fulfilled.iter().all(|&is| is) && self.missing(inboxes).is_none()
    }

    /// An accepted image that a receiver lacks.
    pub fn missing(&self, inboxes: &[InboxUser]) -> Option<(u64, usize)> {
        let accepted = self.images.iter().filter(|(_, image)| image.accepted_us.is_some());
        accepted
            .flat_map(|(&content, image)| self.wants[image.want].receivers.iter().map(move |&inbox| (content, inbox)))
            .find(|(content, inbox)| !inboxes[*inbox].stored.contains(content))
    }

    /// The receiver was told that there is nothing more: it has all that was accepted before it asked.
    pub fn check_caught_up(&self, inbox: usize, user: &InboxUser, asked_us: u64) {
        for (content, image) in &self.images {
            let is_due = self.wants[image.want].receivers.contains(&inbox)
                && image.accepted_us.is_some_and(|accepted_us| accepted_us <= asked_us);
            assert!(
                !is_due || user.stored.contains(content),
                "receiver {inbox} asked at {asked_us} us and was told that there is no more, but lacks image {content}, \
                 accepted at {:?} us",
                image.accepted_us
            );
        }
    }

    /// Wants without an accepted image.
    pub fn open(&self) -> usize {
        self.fulfilled.iter().filter(|&&is| !is).count()
    }

    /// Promise P2 for one receiver: each image once, only images meant for it and not refused, and what was accepted
    /// before another was begun comes first. Returns the deliveries looked at.
    pub fn check_inbox(&self, inbox: usize, user: &InboxUser) -> u64 {
        let mut begun_us = 0;
        let mut seen = std::collections::BTreeSet::new();
        for &content in &user.stored {
            assert!(seen.insert(content), "receiver {inbox} got image {content} twice");
            let image = self.images.get(&content).unwrap_or_else(|| panic!("image {content} was never sent"));
            let has_rival = image.rival.is_some_and(|of| user.stored.contains(&of));
            assert!(!has_rival, "receiver {inbox} got two images of one id: {content} and {:?}", image.rival);
            let want = &self.wants[image.want];
            assert!(want.receivers.contains(&inbox), "image {content} was not for receiver {inbox}");
            // Of a node without room a whole copy may be left that nobody could cancel. What is damaged was accepted.
            let is_final = image.refused.is_some_and(|refusal| !matches!(refusal, Refusal::NoSpace | Refusal::Damaged));
            let is_refused = is_final && want.receivers.len() == 1;
            assert!(!is_refused, "image {content} was refused ({:?}) and delivered", image.refused);
            if let Some(accepted_us) = image.accepted_us {
                assert!(
                    accepted_us >= begun_us,
                    "receiver {inbox} got image {content}, accepted at {accepted_us} us, after one begun at {begun_us} us"
                );
            }
            begun_us = begun_us.max(image.submitted_us);
        }
        user.stored.len() as u64
    }
}

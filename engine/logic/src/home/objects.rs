//! The images of a store: those that need looking after, and the many that rest.
//!
//! An image rests when records claim its bytes and no upload is under way: nothing happens to it until somebody asks for it or
//! its claims end. Whoever changes one wakes it; with the next tick it rests again. So what is done at each tick costs
//! as much as there is to do, however many images are stored.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;

use proto::ids::{Fingerprint, ImageId, LogIndex};

use super::Object;

/// See the top of this file. Each image is in one of both.
#[derive(Debug, Default)]
pub(super) struct Objects {
    open: BTreeMap<ImageId, Object>,
    resting: BTreeMap<ImageId, Object>,
}

impl Objects {
    /// Those found at start, ascending: much faster than one by one.
    pub fn found(objects: Vec<(ImageId, Object)>) -> Objects {
        Objects { open: objects.into_iter().collect(), resting: BTreeMap::new() }
    }

    /// A record claims an image of which nothing is known but the bytes found at start, these: from now on it rests. False, and
    /// nothing done, of any other. There are as many as are stored, and a start waits for them.
    pub fn claim_found(&mut self, image: ImageId, fingerprint: Fingerprint, index: LogIndex) -> bool {
        let Entry::Occupied(entry) = self.open.entry(image) else { return false };
        let object = entry.get();
        let is_plain = object.upload.is_none() && object.before.is_empty() && object.claims.is_empty();
        if !is_plain || object.fingerprint() != fingerprint {
            return false;
        }
        let object = Object { claims: vec![index], ..entry.remove() };
        self.resting.insert(image, object);
        true
    }

    pub fn get(&self, image: &ImageId) -> Option<&Object> {
        self.open.get(image).or_else(|| self.resting.get(image))
    }

    /// Wakes it.
    pub fn get_mut(&mut self, image: &ImageId) -> Option<&mut Object> {
        if let Some(object) = self.resting.remove(image) {
            self.open.insert(*image, object);
        }
        self.open.get_mut(image)
    }

    pub fn contains_key(&self, image: &ImageId) -> bool {
        self.open.contains_key(image) || self.resting.contains_key(image)
    }

    pub fn insert(&mut self, image: ImageId, object: Object) {
        assert!(!self.resting.contains_key(&image), "{image} is there");
        self.open.insert(image, object);
    }

    pub fn remove(&mut self, image: &ImageId) -> Option<Object> {
        self.open.remove(image).or_else(|| self.resting.remove(image))
    }

    /// Those that do not rest: every one with an upload or without a claim is among them.
    pub fn open(&self) -> impl Iterator<Item = (&ImageId, &Object)> {
        self.open.iter()
    }

    /// Those that records claim.
    pub fn claimed(&self) -> usize {
        self.resting.len() + self.open.values().filter(|object| !object.claims.is_empty()).count()
    }

    /// The next image behind that one which records claim and nothing is done with.
    pub fn claimed_after(&self, image: ImageId) -> Option<ImageId> {
        self.resting.range((Bound::Excluded(image), Bound::Unbounded)).next().map(|(image, _)| *image)
    }

    /// Lets it rest if nothing is to be done.
    pub fn rest(&mut self, image: &ImageId) {
        if self.open.get(image).is_some_and(Object::may_rest) {
            let mut object = self.open.remove(image).expect("it was there a line above");
            object.shrink();
            self.resting.insert(*image, object);
        }
    }

    /// Lets all rest of which nothing is to be done.
    pub fn rest_all(&mut self) {
        let idle: Vec<ImageId> =
            self.open.iter().filter(|(_, object)| object.may_rest()).map(|(&image, _)| image).collect();
        idle.iter().for_each(|image| self.rest(image));
    }
}

impl Object {
    fn may_rest(&self) -> bool {
        self.upload.is_none() && self.before.is_empty() && !self.claims.is_empty()
    }

    /// There are many that rest.
    pub(super) fn shrink(&mut self) {
        self.chunks.shrink_to_fit();
        self.before.shrink_to_fit();
        self.claims.shrink_to_fit();
    }
}

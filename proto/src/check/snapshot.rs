//! The rules of a snapshot's pieces: of each item by itself. What holds between items is for whoever puts them together.

use super::{
    CheckError, client_name, distinct, distinct_nodes, file_name, fingerprint, holders, image, inbox, length, members,
    range,
};
use crate::limits::{HOLDERS_MAX, IMAGE_BYTES_MAX, NODES_MAX, RECEIVERS_MAX};
use crate::snapshot::{Head, ImageItem, InboxItem, PIECE_ITEMS_MAX, Piece, SessionItem, UndeliveredItem};

impl Piece {
    /// Items of all its lists.
    pub fn items(&self) -> usize {
        self.inboxes.len() + self.sessions.len() + self.images.len() + self.undelivered.len()
    }

    /// Whether each item keeps the rules.
    pub fn check(&self) -> Result<(), CheckError> {
        length("items", self.items(), 0, PIECE_ITEMS_MAX)?;
        self.head.iter().try_for_each(Head::check)?;
        self.inboxes.iter().try_for_each(InboxItem::check)?;
        self.sessions.iter().try_for_each(SessionItem::check)?;
        self.images.iter().try_for_each(ImageItem::check)?;
        self.undelivered.iter().try_for_each(UndeliveredItem::check)
    }
}

impl Head {
    fn check(&self) -> Result<(), CheckError> {
        members(self.ring.members(), 1)?;
        length("rejoined", self.rejoined.len(), 0, NODES_MAX)?;
        distinct_nodes("rejoined", self.rejoined.iter().map(|&(id, _)| id))?;
        range("copies", u64::from(self.copies), 1, HOLDERS_MAX as u64)?;
        range("image_bytes_max", self.image_bytes_max, 1, IMAGE_BYTES_MAX)
    }
}

impl InboxItem {
    fn check(&self) -> Result<(), CheckError> {
        inbox(self.inbox)?;
        client_name("inboxes.name", &self.name)
    }
}

impl SessionItem {
    fn check(&self) -> Result<(), CheckError> {
        range("sessions.session", self.session.0, 1, u64::MAX)?;
        range("sessions.low_water", self.low_water.0, 1, u64::MAX)?;
        client_name("sessions.sender", &self.sender)
    }
}

impl ImageItem {
    fn check(&self) -> Result<(), CheckError> {
        image(self.image)?;
        fingerprint(self.fingerprint)?;
        length("images.ready", self.ready.len(), 1, usize::MAX)?;
        self.ready.iter().try_for_each(|&(id, _)| inbox(id))
    }
}

impl UndeliveredItem {
    fn check(&self) -> Result<(), CheckError> {
        image(self.image)?;
        fingerprint(self.fingerprint)?;
        client_name("undelivered.sender", &self.sender)?;
        file_name(&self.name)?;
        length("undelivered.receivers", self.receivers.len(), 1, RECEIVERS_MAX)?;
        self.receivers.iter().try_for_each(|&id| inbox(id))?;
        distinct("undelivered.receivers", &self.receivers)?;
        // Without any the image is damaged.
        holders(&self.holders, 0, HOLDERS_MAX)
    }
}

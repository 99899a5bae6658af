//! The rules of log records.

use super::{
    CheckError, acknowledgements, address_text, client_name, cores, distinct, file_name, fingerprint, holders, image,
    inbox, length, members, node, range, shard,
};
use crate::limits::{HOLDERS_MAX, IMAGE_BYTES_MAX, LOST_MAX, PROBE_BYTES_MAX, RECEIVERS_MAX};
use crate::record::{Lost, Ready, Record, RecordBody};

impl Record {
    /// Whether the record keeps the rules.
    pub fn check(&self) -> Result<(), CheckError> {
        self.body.check()
    }
}

impl RecordBody {
    /// Whether the record keeps the rules.
    pub fn check(&self) -> Result<(), CheckError> {
        match self {
            RecordBody::Genesis { cluster: _, members: all, copies, image_bytes_max } => {
                members(all, 1)?;
                range("copies", u64::from(*copies), 1, HOLDERS_MAX as u64)?;
                range("image_bytes_max", *image_bytes_max, 1, IMAGE_BYTES_MAX)
            }
            RecordBody::Register { name } => client_name("name", name),
            RecordBody::OpenSession { sender } => client_name("sender", sender),
            RecordBody::Ready(ready) => ready.check(),
            RecordBody::Acked { upto } => acknowledgements(upto, 1),
            RecordBody::RingChange {
                node: id,
                incarnation,
                cores: count,
                client_address,
                peer_address,
                rejoin,
                ..
            } => {
                node("node", *id)?;
                cores(*count)?;
                if rejoin.is_some() {
                    range("incarnation", incarnation.0.into(), 2, u32::MAX.into())?;
                }
                address_text("client_address", client_address)?;
                address_text("peer_address", peer_address)
            }
            RecordBody::ExpireSessions { .. } => Ok(()),
            RecordBody::Probe { payload } => length("payload", payload.len(), 0, PROBE_BYTES_MAX),
            RecordBody::Lost(lost) => lost.check(),
        }
    }
}

impl Lost {
    pub(super) fn check(&self) -> Result<(), CheckError> {
        shard("holder", self.holder.address)?;
        length("records", self.records.len(), 1, LOST_MAX)?;
        distinct("records", &self.records)
    }
}

impl Ready {
    fn check(&self) -> Result<(), CheckError> {
        image(self.image)?;
        fingerprint(self.fingerprint)?;
        file_name(&self.name)?;
        length("receivers", self.receivers.len(), 1, RECEIVERS_MAX)?;
        self.receivers.iter().try_for_each(|&id| inbox(id))?;
        distinct("receivers", &self.receivers)?;
        holders(&self.holders, 1, HOLDERS_MAX)
    }
}

//! The rules of the peer protocol's messages.

use super::{
    CheckError, acknowledgements, address_text, at_least_one, chunk_offset, client_name, cores, distinct,
    distinct_nodes, file_name, fingerprint, holders, image, image_end, inbox, length, node, range, receiver_names,
    sector_offset, shard,
};
use crate::ids::NodeId;
use crate::limits::{
    CREDENTIALS_BYTES_MAX, HOLDERS_MAX, NODES_MAX, PROBE_BYTES_MAX, RAFT_CONTEXT_BYTES_MAX, RAFT_ENTRIES_MAX,
    RAFT_MESSAGE_BYTES_MAX, RECEIVERS_MAX, SNAPSHOT_PART_BYTES_MAX,
};
use crate::peer::{
    Bootstrap, LeaderAnswer, LeaderRequest, Notice, PeerHello, PeerMessage, PeerWelcome, RaftMessage, ReadyReceiver,
    Upload,
};

/// `eraftpb::MessageType::MsgAppend`.
const RAFT_KIND_APPEND: u8 = 3;
/// `eraftpb::MessageType::MsgRequestPreVoteResponse`, the last one.
const RAFT_KIND_MAX: u8 = 18;

impl PeerHello {
    /// Whether the message keeps the rules.
    pub fn check(&self) -> Result<(), CheckError> {
        range("version_min", u64::from(self.version_min), 1, u64::from(self.version_max))?;
        length("credentials", self.credentials.len(), 0, CREDENTIALS_BYTES_MAX)?;
        shard("source", self.source)?;
        shard("target", self.target)
    }
}

impl PeerWelcome {
    /// Whether the message keeps the rules.
    pub fn check(&self) -> Result<(), CheckError> {
        match self {
            PeerWelcome::Welcome { version, .. } => range("version", u64::from(*version), 1, u64::from(u16::MAX)),
            PeerWelcome::Refused { .. } => Ok(()),
        }
    }
}

impl PeerMessage {
    /// Whether the message keeps the rules.
    pub fn check(&self) -> Result<(), CheckError> {
        match self {
            PeerMessage::Bootstrap(bootstrap) => bootstrap.check(),
            PeerMessage::Raft(message) => message.check(),
            PeerMessage::Request { origin, request: _, hops: _, body } => {
                shard("origin", *origin)?;
                body.check()
            }
            PeerMessage::Answer { request: _, body } => body.check(),
            PeerMessage::Upload(upload) => upload.check(),
            PeerMessage::UploadChunk { image: id, offset, checksum: _, crc32: _ }
            | PeerMessage::Fetch { request: _, image: id, offset }
            | PeerMessage::Fetched { request: _, image: id, offset, crc32: _ } => {
                image(*id)?;
                chunk_offset(*offset)
            }
            PeerMessage::UploadProgress { image: id, durable_end, .. } => {
                image(*id)?;
                image_end("durable_end", *durable_end)
            }
            PeerMessage::UploadReady { image: id, receivers, index: _, holders: all, checksum: _ } => {
                image(*id)?;
                receiver_names(receivers)?;
                holders(all, 0, HOLDERS_MAX)
            }
            PeerMessage::HealAsk { .. } | PeerMessage::HealAnswer { .. } => Ok(()),
            PeerMessage::SnapshotPart { data, offset, .. } => {
                length("data", data.len(), 0, SNAPSHOT_PART_BYTES_MAX)?;
                sector_offset(*offset)?;
                sector_offset(data.len() as u64)
            }
            PeerMessage::SnapshotAsk { offset, .. } => sector_offset(*offset),
            PeerMessage::SnapshotOffer { .. } | PeerMessage::SnapshotGone { .. } => Ok(()),
            PeerMessage::UploadRefused { image: id, .. }
            | PeerMessage::UploadCancel { image: id, .. }
            | PeerMessage::FetchFailed { image: id, .. } => image(*id),
        }
    }
}

impl Bootstrap {
    fn check(&self) -> Result<(), CheckError> {
        match self {
            Bootstrap::Empty { node: id, cores: count, .. } => {
                node("node", *id)?;
                cores(*count)
            }
            Bootstrap::Minted { cluster: _, members } => minted(members),
            Bootstrap::Rejoin { node: id, cores: count, client_address, peer_address, .. } => {
                node("node", *id)?;
                cores(*count)?;
                address_text("client_address", client_address)?;
                address_text("peer_address", peer_address)
            }
            Bootstrap::Admitted { members, incarnation, .. } => {
                at_least_one("incarnation", incarnation.0.into())?;
                minted(members)
            }
            Bootstrap::Deferred { .. } => Ok(()),
        }
    }
}

fn minted(members: &[(NodeId, u128, u16)]) -> Result<(), CheckError> {
    length("members", members.len(), 1, NODES_MAX)?;
    for &(id, _, count) in members {
        node("members", id)?;
        cores(count)?;
    }
    distinct_nodes("members", members.iter().map(|&(id, _, _)| id))
}

impl RaftMessage {
    /// Only what makes it a message at all, and what would let raft panic on its entries; whether it may come from that
    /// peer now is not for here.
    fn check(&self) -> Result<(), CheckError> {
        range("kind", u64::from(self.kind), 0, u64::from(RAFT_KIND_MAX))?;
        node("from", self.from)?;
        node("to", self.to)?;
        length("context", self.context.len(), 0, RAFT_CONTEXT_BYTES_MAX)?;
        length("entries", self.entries.len(), 0, RAFT_ENTRIES_MAX)?;
        let bytes = self.entries.iter().map(|entry| entry.data.len()).sum();
        length("entries.data", bytes, 0, RAFT_MESSAGE_BYTES_MAX)?;
        if self.kind != RAFT_KIND_APPEND {
            return Ok(());
        }
        for (position, entry) in self.entries.iter().enumerate() {
            let expected = self.index.0.saturating_add(1).saturating_add(position as u64);
            if entry.index.0 != expected {
                return Err(CheckError::Entries { position, expected, found: entry.index.0 });
            }
        }
        Ok(())
    }
}

impl Upload {
    fn check(&self) -> Result<(), CheckError> {
        image(self.image)?;
        fingerprint(self.fingerprint)?;
        file_name(&self.name)?;
        receiver_names(&self.receivers)?;
        length("chain", self.chain.len(), 1, HOLDERS_MAX)?;
        self.chain.iter().try_for_each(|&address| shard("chain", address))?;
        distinct("chain", &self.chain)
    }
}

impl LeaderRequest {
    /// Whether the message keeps the rules.
    pub fn check(&self) -> Result<(), CheckError> {
        match self {
            LeaderRequest::Register { name } => client_name("name", name),
            LeaderRequest::OpenSession { sender } => client_name("sender", sender),
            LeaderRequest::Intent { image: id, low_water: _, fingerprint: bytes, receivers } => {
                image(*id)?;
                fingerprint(*bytes)?;
                receiver_names(receivers)
            }
            LeaderRequest::Notice(notice) => notice.check(),
            LeaderRequest::Ack { upto } => acknowledgements(upto, 1),
            LeaderRequest::Probe { payload } => length("payload", payload.len(), 0, PROBE_BYTES_MAX),
            LeaderRequest::Return { node: id, cores: count, client_address, peer_address, .. } => {
                node("node", *id)?;
                cores(*count)?;
                address_text("client_address", client_address)?;
                address_text("peer_address", peer_address)
            }
            LeaderRequest::Unreachable { node: id } => node("node", *id),
            LeaderRequest::Lost(lost) => lost.check(),
        }
    }
}

impl Notice {
    fn check(&self) -> Result<(), CheckError> {
        image(self.image)?;
        fingerprint(self.fingerprint)?;
        file_name(&self.name)?;
        receiver_names(&self.receivers)?;
        holders(&self.holders, 1, HOLDERS_MAX)
    }
}

impl LeaderAnswer {
    /// Whether the message keeps the rules.
    pub fn check(&self) -> Result<(), CheckError> {
        match self {
            LeaderAnswer::Registered { inbox: id } => inbox(*id),
            LeaderAnswer::SessionOpened { session } => at_least_one("session", session.0),
            LeaderAnswer::Admitted { ready } | LeaderAnswer::Ready { ready } => ready_receivers(ready),
            LeaderAnswer::Acked { upto } => acknowledgements(upto, 0),
            LeaderAnswer::TooFewHolders
            | LeaderAnswer::Probed { .. }
            | LeaderAnswer::Noted
            | LeaderAnswer::Refused { .. } => Ok(()),
        }
    }
}

fn ready_receivers(ready: &[ReadyReceiver]) -> Result<(), CheckError> {
    length("ready", ready.len(), 0, RECEIVERS_MAX)?;
    for (second, receiver) in ready.iter().enumerate() {
        client_name("ready.name", &receiver.name)?;
        holders(&receiver.holders, 0, HOLDERS_MAX)?;
        if let Some(first) = ready[..second].iter().position(|other| other.name == receiver.name) {
            return Err(CheckError::Twice { field: "ready.name", first, second });
        }
    }
    Ok(())
}

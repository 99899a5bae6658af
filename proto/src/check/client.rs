//! The rules of the client protocol's messages.

use super::{
    CheckError, at_least_one, chunk_offset, client_name, core, file_name, fingerprint, holders, image, image_end,
    inbox, length, members, node, range, receiver_names,
};
use crate::client::{Begin, ClientReply, ClientRequest, ImageHead, NodeStatus, Target};
use crate::limits::{CORES_MAX, CREDENTIALS_BYTES_MAX, HOLDERS_MAX, PROBE_BYTES_MAX, RECEIVERS_MAX};

impl ClientRequest {
    /// Whether the message keeps the rules.
    pub fn check(&self) -> Result<(), CheckError> {
        match self {
            ClientRequest::Hello { version_min, version_max, cluster: _, target, credentials } => {
                range("version_min", u64::from(*version_min), 1, u64::from(*version_max))?;
                length("credentials", credentials.len(), 0, CREDENTIALS_BYTES_MAX)?;
                target.check()
            }
            ClientRequest::Register { request: _, name } => client_name("name", name),
            ClientRequest::OpenSession { request: _, sender } => client_name("sender", sender),
            ClientRequest::Begin(begin) => begin.check(),
            ClientRequest::Chunk(head) => image(head.image).and_then(|()| chunk_offset(head.offset)),
            ClientRequest::OpenInbox { name, credit: _, resume_seq: _, resume_from } => {
                client_name("name", name)?;
                chunk_offset(*resume_from)
            }
            ClientRequest::Ack { inbox: id, upto: _ } => inbox(*id),
            ClientRequest::Probe { request: _, payload } => length("payload", payload.len(), 0, PROBE_BYTES_MAX),
            ClientRequest::InboxCredit { .. } | ClientRequest::Status { .. } | ClientRequest::Ping => Ok(()),
        }
    }
}

impl Target {
    fn check(&self) -> Result<(), CheckError> {
        match self {
            Target::Any => Ok(()),
            Target::Core(id) => core("target", *id),
            Target::Client(name) => client_name("target", name),
        }
    }
}

impl Begin {
    /// The length is free here: an empty or too large image is refused with a reason of its own, by the node that knows
    /// how large an image its cluster takes.
    fn check(&self) -> Result<(), CheckError> {
        image(self.image)?;
        receiver_names(&self.receivers)?;
        file_name(&self.name)
    }
}

impl ClientReply {
    /// Whether the message keeps the rules.
    pub fn check(&self) -> Result<(), CheckError> {
        match self {
            ClientReply::Welcome { version, node: id, core: core_id, ring, .. } => {
                range("version", u64::from(*version), 1, u64::from(u16::MAX))?;
                node("node", *id)?;
                core("core", *core_id)?;
                members(ring.members(), 0)
            }
            ClientReply::Registered { request: _, inbox: id } => inbox(*id),
            ClientReply::SessionOpened { request: _, session } => at_least_one("session", session.0),
            ClientReply::BeginAnswer { image: id, resume_from } => {
                image(*id)?;
                image_end("resume_from", *resume_from)
            }
            ClientReply::Progress { image: id, durable_end } => {
                image(*id)?;
                image_end("durable_end", *durable_end)
            }
            ClientReply::Accepted { image: id, index: _, holders: all } => {
                image(*id)?;
                holders(all, 0, RECEIVERS_MAX * HOLDERS_MAX)
            }
            ClientReply::Refused { image: id, refusal: _, text: _ } => image(*id),
            ClientReply::InboxOpened { inbox: id, acked_upto: _ } => inbox(*id),
            ClientReply::Head(head) => head.check(),
            ClientReply::Chunk { inbox: id, seq, offset, crc32: _ } => {
                inbox(*id)?;
                at_least_one("seq", seq.0)?;
                chunk_offset(*offset)
            }
            ClientReply::Acked { inbox: id, upto: _ } => inbox(*id),
            ClientReply::Status { request: _, status } => status.check(),
            ClientReply::RingChanged { ring } => members(ring.members(), 0),
            ClientReply::Failure { ring, .. } => ring.as_ref().map_or(Ok(()), |ring| members(ring.members(), 0)),
            ClientReply::Credit { .. } | ClientReply::ProbeDone { .. } | ClientReply::Pong => Ok(()),
        }
    }
}

impl ImageHead {
    fn check(&self) -> Result<(), CheckError> {
        inbox(self.inbox)?;
        at_least_one("seq", self.seq.0)?;
        image(self.image)?;
        fingerprint(self.fingerprint)?;
        client_name("sender", &self.sender)?;
        file_name(&self.name)
    }
}

impl NodeStatus {
    /// Whether the message keeps the rules.
    pub fn check(&self) -> Result<(), CheckError> {
        members(self.ring.members(), 0)?;
        length("cores", self.cores.len(), 0, CORES_MAX)?;
        self.cores.iter().try_for_each(|status| core("cores.core", status.core))
    }
}

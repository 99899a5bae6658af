//! One entry of the log as the inspector shows it: its record decoded once, as a line or as JSON.

use clap::ValueEnum;
use logic::log::{EntryKind, Found, SegmentHeader};
use proto::codec::decode_record;
use proto::ids::{InboxId, InboxSeq};
use proto::record::{Record, RecordBody};
use serde_json::{Value, json};

/// What an entry is, for `--kind`. The other names are those that the entries are printed with.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A client got an inbox.
    Register,
    /// A sender's session began.
    #[value(alias = "session")]
    OpenSession,
    /// An image was accepted.
    Ready,
    /// Receivers acknowledged.
    Acked,
    /// A node is passed over, or counts again.
    #[value(alias = "ring")]
    RingChange,
    /// The cluster was founded.
    Genesis,
    /// Unused sessions ended.
    #[value(alias = "expire")]
    ExpireSessions,
    /// Measures the way of a record.
    Probe,
    /// A holder has no copy any more.
    Lost,
    /// The first entry of a term: no record.
    #[value(alias = "term")]
    Empty,
    /// The last entry of a segment.
    Seal,
}

/// An entry whose checksums are right.
pub struct Entry<'a> {
    pub segment: &'a SegmentHeader,
    pub found: &'a Found<'a>,
    /// None: a seal, or the first entry of a term. An error: another version wrote it.
    pub record: Option<Result<Record, String>>,
}

impl<'a> Entry<'a> {
    pub fn new(segment: &'a SegmentHeader, found: &'a Found<'a>) -> Entry<'a> {
        let is_record = found.header.kind == EntryKind::Record && !found.payload.is_empty();
        let record = is_record.then(|| decode_record(found.payload).map_err(|error| error.to_string()));
        Entry { segment, found, record }
    }

    /// None: nobody here knows what it says.
    pub fn kind(&self) -> Option<Kind> {
        match (self.found.header.kind, &self.record) {
            (EntryKind::Seal, _) => Some(Kind::Seal),
            (EntryKind::Record, None) => Some(Kind::Empty),
            (EntryKind::Record, Some(Err(_))) => None,
            (EntryKind::Record, Some(Ok(record))) => Some(match record.body {
                RecordBody::Genesis { .. } => Kind::Genesis,
                RecordBody::Register { .. } => Kind::Register,
                RecordBody::OpenSession { .. } => Kind::OpenSession,
                RecordBody::Ready(_) => Kind::Ready,
                RecordBody::Acked { .. } => Kind::Acked,
                RecordBody::RingChange { .. } => Kind::RingChange,
                RecordBody::ExpireSessions { .. } => Kind::ExpireSessions,
                RecordBody::Probe { .. } => Kind::Probe,
                RecordBody::Lost(_) => Kind::Lost,
            }),
        }
    }

    /// The word that stands for the kind in all that is printed.
    pub fn kind_name(&self) -> &'static str {
        match self.kind() {
            Some(Kind::Genesis) => "genesis",
            Some(Kind::Register) => "register",
            Some(Kind::OpenSession) => "session",
            Some(Kind::Ready) => "ready",
            Some(Kind::Acked) => "acked",
            Some(Kind::RingChange) => "ring",
            Some(Kind::ExpireSessions) => "expire",
            Some(Kind::Probe) => "probe",
            Some(Kind::Lost) => "lost",
            Some(Kind::Empty) => "term",
            Some(Kind::Seal) => "seal",
            None => "unknown",
        }
    }

    /// The record, if there is one and it is understood.
    pub fn known(&self) -> Option<&Record> {
        self.record.as_ref().and_then(|record| record.as_ref().ok())
    }

    pub fn line(&self) -> String {
        let (header, found) = (&self.found.header, self.found);
        let last = if header.round_last { "." } else { "" };
        format!(
            "{:>5} {:>10}  term {:<3} index {:<8} round {}{last:1} commit {:<8} {:>5} B  {}",
            self.segment.segment.0,
            found.offset,
            header.term.0,
            header.index,
            header.round,
            header.commit,
            found.next - found.offset,
            self.describe()
        )
    }

    pub fn json(&self) -> Value {
        let (header, found) = (&self.found.header, self.found);
        json!({
            "segment": self.segment.segment.0,
            "offset": found.offset,
            "bytes": found.next - found.offset,
            "payload_bytes": found.payload.len(),
            "term": header.term.0,
            "index": header.index.0,
            "round": header.round,
            "round_last": header.round_last,
            "durable_round": header.durable,
            "commit": header.commit.0,
            "kind": self.kind_name(),
            "record": self.record_json(),
        })
    }

    fn describe(&self) -> String {
        let record = match &self.record {
            None if self.found.header.kind == EntryKind::Seal => return "seal".into(),
            None => return "term begins".into(),
            Some(Err(error)) => return format!("unknown record: {error}"),
            Some(Ok(record)) => record,
        };
        let index = self.found.header.index;
        let what = match &record.body {
            RecordBody::Genesis { cluster, members, copies, image_bytes_max } => {
                let members = list(members, |member| member.node.to_string());
                format!(
                    "genesis of {cluster}: members {members}, copies {copies}, images up to {image_bytes_max} bytes"
                )
            }
            RecordBody::Register { name } => format!("register {name:?} as b{index}"),
            RecordBody::OpenSession { sender } => format!("session s{index} of {sender:?}"),
            RecordBody::Ready(ready) => {
                let receivers = list(&ready.receivers, InboxId::to_string);
                let holders = list(&ready.holders, |holder| holder.address.to_string());
                let (length, checksum) = (ready.fingerprint.length, ready.fingerprint.checksum);
                format!(
                    "ready {} {:?} {length} bytes {checksum:016x} for {receivers} on {holders}, low water {}",
                    ready.image, ready.name, ready.low_water
                )
            }
            RecordBody::Acked { upto } => format!("acked {}", list(upto, acknowledged)),
            RecordBody::RingChange { node, incarnation, up, rejoin, .. } => {
                let begins = if rejoin.is_some() { " begins with a new data directory" } else { "" };
                format!("ring: {node} {incarnation}{begins} {}", if *up { "up" } else { "down" })
            }
            RecordBody::ExpireSessions { idle_since_ms } => format!("expire sessions idle since {idle_since_ms} ms"),
            RecordBody::Probe { payload } => format!("probe of {} bytes", payload.len()),
            RecordBody::Lost(lost) => {
                format!(
                    "{} lost the bytes of {}",
                    lost.holder.address,
                    list(&lost.records, |index| index.0.to_string())
                )
            }
        };
        format!("{what}, at {} ms", record.time_ms)
    }

    fn record_json(&self) -> Value {
        let record = match &self.record {
            None => return Value::Null,
            Some(Err(error)) => return json!({ "error": error }),
            Some(Ok(record)) => record,
        };
        let body = match &record.body {
            RecordBody::Genesis { cluster, members, copies, image_bytes_max } => json!({
                "cluster": cluster.to_string(), "copies": copies, "image_bytes_max": image_bytes_max,
                "members": members.iter().map(|member| json!({ "node": member.node.0, "cores": member.cores,
                    "client": member.client_address, "peer": member.peer_address })).collect::<Vec<_>>(),
            }),
            RecordBody::Register { name } => json!({ "name": name }),
            RecordBody::OpenSession { sender } => json!({ "sender": sender }),
            RecordBody::Ready(ready) => json!({
                "image": ready.image.to_string(), "name": ready.name, "low_water": ready.low_water.0,
                "length": ready.fingerprint.length, "checksum": format!("{:016x}", ready.fingerprint.checksum),
                "receivers": ready.receivers.iter().map(|inbox| inbox.0).collect::<Vec<_>>(),
                "holders": ready.holders.iter().map(|holder| holder.address.node.0).collect::<Vec<_>>(),
            }),
            RecordBody::Acked { upto } => json!({
                "upto": upto.iter().map(|(inbox, seq)| json!({ "inbox": inbox.0, "seq": seq.0 })).collect::<Vec<_>>(),
            }),
            RecordBody::RingChange { node, incarnation, cores, up, client_address, peer_address, rejoin } => json!({
                "node": node.0, "incarnation": incarnation.0, "cores": cores, "up": up, "client": client_address,
                "peer": peer_address, "rejoin": rejoin.map(|nonce| format!("{nonce:032x}")),
            }),
            RecordBody::ExpireSessions { idle_since_ms } => json!({ "idle_since_ms": idle_since_ms }),
            RecordBody::Probe { payload } => json!({ "payload_bytes": payload.len() }),
            RecordBody::Lost(lost) => json!({
                "node": lost.holder.address.node.0, "core": lost.holder.address.core.0,
                "incarnation": lost.holder.incarnation.0,
                "records": lost.records.iter().map(|index| index.0).collect::<Vec<_>>(),
            }),
        };
        json!({ "time_ms": record.time_ms, "body": body })
    }
}

fn list<T>(items: &[T], text: impl Fn(&T) -> String) -> String {
    items.iter().map(text).collect::<Vec<_>>().join(" ")
}

fn acknowledged(&(inbox, upto): &(InboxId, InboxSeq)) -> String {
    format!("{inbox} upto {upto}")
}

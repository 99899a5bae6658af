//! Scripts against the inbox session. A line of a script is `MS INPUT`; the text is what the session did.
//!
//! Image `S` of a script has length `S` chunks and a checksum that follows from its chunks' checksums, each of which is
//! `seq * 1000 + number`.

use std::collections::BTreeSet;

use proto::checksum::{CRC64_EMPTY, crc64_combine};
use proto::client::{ClientReply, ImageHead, NodeStatus};
use proto::error::Refusal;
use proto::ids::{Fingerprint, ImageId, InboxId, InboxSeq, LogIndex, RequestId, Sequence, SessionId};

use crate::inbox::{InboxEvent, InboxInput, InboxSession, StoredBefore};
use crate::scripted::{CHUNK, Links, bytes, client_of, number, options};
use crate::session::{Action, BodyFacts, LinkInput, Routing};

const INBOX: InboxId = InboxId(4);

fn crc(seq: u64, part: u64) -> u64 {
    seq * 1000 + part
}

fn head(seq: u64) -> ImageHead {
    let checksum = (0..seq).fold(CRC64_EMPTY, |whole, part| crc64_combine(whole, crc(seq, part), CHUNK));
    ImageHead {
        inbox: INBOX,
        seq: InboxSeq(seq),
        image: ImageId { session: SessionId(1), sequence: Sequence(seq) },
        fingerprint: Fingerprint { length: seq * CHUNK, checksum },
        sender: "sender".to_owned(),
        name: "x".to_owned(),
        index: LogIndex(seq + 100),
        is_damaged: false,
    }
}

pub(super) struct Script {
    pub(super) session: InboxSession,
    pub(super) links: Links,
    pub(super) name: String,
    pub(super) text: String,
}

impl Script {
    /// A receiver whose home is node 1, not yet started.
    pub(super) fn new(stored: &[u64]) -> Script {
        let name = client_of(1);
        let inbox = (!stored.is_empty()).then_some(INBOX);
        let stored = StoredBefore { inbox, seqs: stored.iter().copied().map(InboxSeq).collect::<BTreeSet<_>>() };
        let session = InboxSession::new(options(&["a", "b"], Routing::Home), &name, stored).unwrap();
        Script { session, links: Links::default(), name, text: String::new() }
    }

    /// With the inbox open at its home and nothing acknowledged.
    pub(super) fn open() -> Script {
        let mut script = Script::new(&[]);
        script.run("0 start\n 0 up 1\n 0 opened 0");
        script.text.clear();
        script
    }

    pub(super) fn run(&mut self, lines: &str) {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let now_us = words[0].parse::<u64>().unwrap() * 1000;
            let mut actions = Vec::new();
            self.session.step(now_us, self.input(&words[1..]), &mut actions);
            for action in &actions {
                let line = self.links.text(action).unwrap_or_else(|| event(action));
                self.text.push_str(&line.replace(&self.name, "ME"));
                self.text.push('\n');
            }
        }
    }

    fn input(&self, words: &[&str]) -> InboxInput {
        if let Some(input) = self.links.input(words) {
            return InboxInput::Link(input);
        }
        let mut body = None;
        let seq = |word: &str| InboxSeq(number(word));
        let reply = match words {
            ["start"] => return InboxInput::Start,
            ["tick"] => return InboxInput::Tick,
            ["stored", word] => return InboxInput::Stored(seq(word)),
            ["lost", word] => return InboxInput::Lost(seq(word)),
            ["ask"] => return InboxInput::AskCaughtUp,
            ["marked", request, index] => {
                ClientReply::ProbeDone { request: RequestId(number(request)), index: LogIndex(number(index)) }
            }
            ["no-mark", request] => ClientReply::Failure {
                request: Some(RequestId(number(request))),
                refusal: Refusal::NoLeader,
                text: "no".to_owned(),
                ring: None,
            },
            ["status", request, applied] => {
                let status = NodeStatus { applied: LogIndex(number(applied)), ..NodeStatus::default() };
                ClientReply::Status { request: RequestId(number(request)), status: Box::new(status) }
            }
            ["opened", upto] => ClientReply::InboxOpened { inbox: INBOX, acked_upto: seq(upto) },
            ["opened-other"] => ClientReply::InboxOpened { inbox: InboxId(9), acked_upto: InboxSeq(0) },
            ["damaged", word] => ClientReply::Head(ImageHead { is_damaged: true, ..head(number(word)) }),
            ["head", word] => ClientReply::Head(head(number(word))),
            ["chunk", word, part] | ["bad-chunk", word, part] => {
                let (number_of, part) = (number(word), number(part));
                let wrong = u64::from(words[0] == "bad-chunk");
                body = Some(BodyFacts { length: CHUNK, crc64: crc(number_of, part) + wrong });
                ClientReply::Chunk { inbox: INBOX, seq: seq(word), offset: part * CHUNK, crc32: 0 }
            }
            ["acked", word] => ClientReply::Acked { inbox: INBOX, upto: seq(word) },
            ["unknown"] => ClientReply::Failure {
                request: None,
                refusal: Refusal::UnknownReceiver,
                text: "no".to_owned(),
                ring: None,
            },
            other => panic!("{other:?}"),
        };
        InboxInput::Link(LinkInput::Reply { link: self.links.link(), reply, body })
    }
}

fn event(action: &Action<InboxEvent>) -> String {
    let Action::Event(event) = action else { unreachable!() };
    match event {
        InboxEvent::Opened { inbox, acked_upto } => format!("! opened {inbox} acked {acked_upto}"),
        InboxEvent::Begin { head } => format!("! begin {}", head.seq),
        InboxEvent::Write { seq, offset } => format!("! write {seq} @{}", bytes(*offset)),
        InboxEvent::Finish { seq } => format!("! finish {seq}"),
        InboxEvent::Abort { seq } => format!("! abort {seq}"),
        InboxEvent::Damaged { head } => format!("! damaged {}", head.seq),
        InboxEvent::Corrupt { seq, .. } => format!("! corrupt {seq}"),
        InboxEvent::Acked { upto } => format!("! acked {upto}"),
        InboxEvent::Failed(failure) => {
            format!("! failed {}", format!("{failure:?}").split_whitespace().next().unwrap())
        }
    }
}

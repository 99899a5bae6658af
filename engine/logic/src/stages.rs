//! The stages of the walk on one core: who takes which input.

use proto::client::{ClientReply, ClientRequest, CoreStatus};
use proto::error::Refusal;
use proto::ids::{Address, CoreId, Incarnation, NodeId};
use proto::peer::{LeaderRequest, PeerMessage};

use crate::clients::Clients;
use crate::context::Context;
use crate::delivery::Delivery;
use crate::group::Group;
use crate::home::{Home, Progress, is_of_repair};
use crate::ingest::Ingest;
use crate::io::{Body, ConnId, CoreNote, DiskError, Input, Ticket, View};
use crate::limits::REPORT_US;
use crate::mutant::Mutant;
use crate::requests::Purpose;
use crate::store::chunks::{ReadPurpose, Unread};

/// The stages of the walk, as far as this core takes part in them.
pub struct Stages {
    pub clients: Clients,
    pub ingest: Ingest,
    pub home: Home,
    pub delivery: Delivery,
    pub group: Option<Group>, // core 0 only
    pub report_us: u64,       // when the next report to core 0 is due
}

impl Stages {
    /// Gives an input to the stage whose matter it is.
    pub fn step(&mut self, cx: &mut Context<'_>, input: Input) {
        match input {
            Input::ClientOpened { conn, hello } => self.clients.on_opened(cx, conn, &hello),
            Input::Client { conn, message, body } => self.on_client(cx, conn, message, body),
            Input::ClientClosed { conn } => self.on_client_closed(cx, conn),
            Input::ClientDrained { .. } => {}
            Input::Peer { from, incarnation, link, message, body } => {
                self.on_peer(cx, (from, incarnation), link, message, body);
            }
            Input::PeerUnreachable { node } => self.on_unreachable(cx, node),
            Input::Core { from, note } => self.on_note(cx, from, note),
            Input::ChunkWritten { ticket } => self.home.on_written(cx, ticket),
            Input::StoreCommitted { ticket } => self.home.on_committed(cx, ticket),
            Input::ChunkRead { ticket, result } => self.on_chunk_read(cx, ticket, result),
            Input::FileCreated { file, result } => self.home.on_file_created(cx, file, result),
            Input::Space { room } => self.home.chunks.space.on_room(room),
            Input::LogFlushed { .. }
            | Input::SegmentPrepared { .. }
            | Input::LogRead { .. }
            | Input::VoteWritten { .. }
            | Input::SnapshotWritten { .. }
            | Input::SnapshotFinished { .. }
            | Input::SnapshotRead { .. }
            | Input::IdentityWritten { .. } => {
                self.group.as_mut().expect("only core 0 has a log").on_completion(cx, input);
            }
            Input::Tick => self.on_tick(cx),
            Input::Turn => {
                self.delivery.turn(cx);
                self.home.chunks.turn(cx);
                if let Some(group) = &mut self.group {
                    group.turn(cx);
                }
            }
        }
    }

    fn on_client(&mut self, cx: &mut Context<'_>, conn: ConnId, message: ClientRequest, body: Option<Body>) {
        if !self.clients.knows(conn) {
            // What was under way when the connection was dismissed.
            if let Some(body) = body {
                cx.release(body.buf);
            }
            return;
        }
        match message {
            ClientRequest::Hello { .. } => {
                self.on_client_closed(cx, conn);
                cx.dismiss(conn, Refusal::BadRequest, "a connection has one hello");
            }
            ClientRequest::Register { request, name } => {
                self.clients.ask(cx, conn, request, LeaderRequest::Register { name });
            }
            ClientRequest::OpenSession { request, sender } => {
                self.clients.ask(cx, conn, request, LeaderRequest::OpenSession { sender });
            }
            ClientRequest::Probe { request, payload } => {
                self.clients.ask(cx, conn, request, LeaderRequest::Probe { payload });
            }
            ClientRequest::Status { request } => {
                self.delivery.on_question(conn, request);
                self.clients.ask_status(cx, conn, request);
            }
            ClientRequest::Ping => cx.reply(conn, ClientReply::Pong),
            ClientRequest::Begin(begin) => self.ingest.on_begin(cx, conn, begin),
            ClientRequest::Chunk(head) => {
                let body = body.expect("the shell gives a chunk its body");
                self.ingest.on_chunk(cx, conn, head, body);
            }
            ClientRequest::OpenInbox { name, credit, resume_seq, resume_from } => {
                self.delivery.on_open(cx, conn, name, credit, (resume_seq, resume_from));
            }
            ClientRequest::InboxCredit { credit } => self.delivery.on_credit(cx, &mut self.home, conn, credit),
            ClientRequest::Ack { inbox, upto } => self.delivery.on_ack(cx, &mut self.home, conn, inbox, upto),
        }
    }

    fn on_client_closed(&mut self, cx: &mut Context<'_>, conn: ConnId) {
        self.clients.on_closed(conn);
        self.ingest.on_client_closed(conn);
        self.delivery.on_client_closed(cx, conn);
        cx.requests.forget_client(conn);
    }

    fn on_peer(
        &mut self,
        cx: &mut Context<'_>,
        (from, incarnation): (Address, Incarnation),
        link: u64,
        message: PeerMessage,
        body: Option<Body>,
    ) {
        cx.suspects.remove(from.node);
        let Stages { clients, ingest, home, delivery, group, .. } = self;
        match message {
            PeerMessage::Bootstrap(_)
            | PeerMessage::Raft(_)
            | PeerMessage::Request { .. }
            | PeerMessage::HealAsk { .. }
            | PeerMessage::HealAnswer { .. }
            | PeerMessage::SnapshotOffer { .. }
            | PeerMessage::SnapshotAsk { .. }
            | PeerMessage::SnapshotPart { .. }
            | PeerMessage::SnapshotGone { .. } => {
                if let Some(group) = group {
                    group.on_peer(cx, (from, incarnation), link, message);
                }
            }
            PeerMessage::Answer { request, body } => {
                let Some((purpose, asked)) = cx.requests.take(request) else { return };
                match purpose {
                    Purpose::Client { conn, request } => clients.on_answer(cx, conn, request, body),
                    Purpose::Intent { image, checksum } => ingest.on_intent_answer(cx, (image, checksum), body),
                    Purpose::Notice { image, checksum } => home.on_notice_answer(cx, (image, checksum), body),
                    Purpose::Ack => delivery.on_ack_answer(cx, asked, body),
                    Purpose::Mark => {
                        if let Some(group) = group {
                            group.on_mark(cx, &body);
                        }
                    }
                    Purpose::Return => {}
                    Purpose::Lost => home.on_lost_answer(),
                }
            }
            PeerMessage::Upload(upload) => home.on_upload(cx, from, upload),
            PeerMessage::UploadChunk { image, offset, checksum, .. } => {
                let body = body.expect("the shell gives a chunk its body");
                home.on_chunk(cx, from, (image, checksum), offset, body);
            }
            PeerMessage::UploadProgress { image, durable_end, incarnation, checksum, receivers } => {
                home.on_progress(cx, from, (image, checksum), Progress { durable_end, incarnation, receivers });
                ingest.on_progress(cx, from, (image, checksum), durable_end);
            }
            PeerMessage::UploadRefused { image, checksum, refusal, text } => {
                home.on_refused(cx, from, (image, checksum), refusal);
                ingest.on_refused(cx, from, (image, checksum), refusal, text);
            }
            PeerMessage::UploadReady { image, receivers, index, holders, checksum } => {
                ingest.on_ready(cx, (image, checksum), &receivers, index, &holders);
            }
            PeerMessage::UploadCancel { image, checksum } => home.on_cancel(cx, (image, checksum)),
            PeerMessage::Fetch { request, image, offset } => delivery.on_fetch(cx, home, from, request, image, offset),
            PeerMessage::Fetched { request, image, offset, .. } => {
                let body = body.expect("the shell gives a chunk its body");
                if is_of_repair(request) {
                    home.on_repair_fetched(cx, (request, image, offset), body);
                } else {
                    delivery.on_fetched(cx, home, (request, image, offset), body);
                }
            }
            PeerMessage::FetchFailed { request, refusal, .. } if is_of_repair(request) => {
                home.on_repair_failed(cx, request, refusal);
            }
            PeerMessage::FetchFailed { request, .. } => delivery.on_fetch_failed(cx, request),
        }
    }

    fn on_unreachable(&mut self, cx: &mut Context<'_>, node: NodeId) {
        cx.suspects.insert(node, cx.now);
        self.ingest.on_unreachable(cx, node);
        self.home.on_unreachable(cx, node);
        if let Some(group) = &mut self.group {
            group.on_unreachable(cx, node);
        }
    }

    /// The view of the group is a newer one.
    pub fn on_view(&mut self, cx: &mut Context<'_>, older: &View) {
        self.home.chunks.space.on_log_growth(cx.view.log_growth_bytes);
        if cx.view.leader != older.leader && cx.view.leader != NodeId(0) {
            cx.requests.on_leader(cx.me, cx.now, cx.out);
        }
        self.clients.on_view(cx);
        self.delivery.on_view(cx);
    }

    fn on_note(&mut self, cx: &mut Context<'_>, from: CoreId, note: CoreNote) {
        match note {
            CoreNote::View(_) => unreachable!("taken by Shard::step"),
            CoreNote::Claim { image, index, fingerprint, receivers } => {
                self.home.on_claim(cx, (image, fingerprint), index, &receivers);
            }
            CoreNote::Claims { claims } => {
                for (image, fingerprint, index) in claims {
                    self.home.on_claim(cx, (image, fingerprint), index, &[]);
                }
            }
            CoreNote::Free { image, index } => self.home.on_free(cx, image, index),
            CoreNote::ClaimsComplete => {
                let images = self.home.on_claims_complete();
                if cx.mutant.is(Mutant::FreeUnclaimed) {
                    self.home.on_finished(cx, &images);
                }
                self.ask_finished(cx, images);
            }
            CoreNote::Finished { images } => self.home.on_finished(cx, &images),
            CoreNote::Holders { image, index, holders } => {
                self.home.on_holders(cx, image, holders.as_deref().unwrap_or_default());
                if let Some(holders) = holders {
                    self.delivery.on_holders(cx, &mut self.home, index, &holders);
                }
            }
            CoreNote::InboxSubscribed { conn, result } => self.delivery.on_subscribed(cx, conn, result),
            CoreNote::InboxEntries { conn, entries, .. } => {
                self.delivery.on_entries(cx, &mut self.home, conn, entries);
            }
            CoreNote::StatusTold { conn, request, status } => {
                if self.clients.knows(conn) && self.delivery.is_answered(conn, request) {
                    cx.reply(conn, ClientReply::Status { request, status });
                }
            }
            CoreNote::ReportAsk => self.report(cx),
            CoreNote::Unclaimed { .. }
            | CoreNote::HoldersAsk { .. }
            | CoreNote::InboxSubscribe { .. }
            | CoreNote::InboxPull { .. }
            | CoreNote::InboxUnsubscribe { .. }
            | CoreNote::Report(_)
            | CoreNote::StatusAsk { .. } => {
                self.group.as_mut().expect("sent to core 0 only").on_note(cx, from, note);
            }
        }
    }

    fn on_chunk_read(&mut self, cx: &mut Context<'_>, ticket: Ticket, result: Result<Body, DiskError>) {
        let (purpose, read) = self.home.chunks.on_read(cx, ticket, result);
        if let Err(Unread::Rotten(slot)) = read {
            self.home.note_rot(cx, slot);
        }
        match purpose {
            ReadPurpose::Scrub { cost } => {
                self.home.on_scrub_read(cost);
                read.into_iter().for_each(|body| cx.release(body.buf));
            }
            ReadPurpose::Look { slot } => {
                self.home.on_look(cx, slot, read.is_ok());
                read.into_iter().for_each(|body| cx.release(body.buf));
            }
            ReadPurpose::Deliver { conn, seq, offset } => {
                self.delivery.on_read(cx, &mut self.home, (conn, seq, offset), read.ok());
            }
            ReadPurpose::Fetch { to, request, image, offset } => {
                self.delivery.on_fetch_read(cx, (to, request), (image, offset), read);
            }
            ReadPurpose::Feed { to, image, offset } => self.home.on_feed_read(cx, to, (image, offset), read),
        }
    }

    fn on_tick(&mut self, cx: &mut Context<'_>) {
        for (conn, request) in cx.requests.on_tick(cx.me, cx.now, cx.out) {
            self.clients.on_late(cx, conn, request);
        }
        self.ingest.on_tick(cx, self.home.upload_idle_us());
        self.home.on_tick(cx);
        self.delivery.on_tick(cx, &mut self.home);
        if let Some(group) = &mut self.group {
            group.on_tick(cx);
        }
        if cx.now.mono_us >= self.report_us {
            self.report_us = cx.now.mono_us + REPORT_US;
            self.report(cx);
        }
    }

    /// Tells core 0 how this core is, and asks after what no record has claimed.
    fn report(&mut self, cx: &mut Context<'_>) {
        let (uploads, images, image_bytes) = self.home.counts();
        let space = &self.home.chunks.space;
        let report = CoreStatus {
            core: cx.me.core,
            connections: self.clients.count(),
            uploads,
            images,
            image_bytes,
            chunk_files: space.file_count(),
            room_bytes: space.room_bytes(),
            repairs: self.home.repairs(),
        };
        cx.tell(CoreId(0), CoreNote::Report(report));
        if self.home.is_claims_complete() {
            let images = self.home.unclaimed();
            self.ask_finished(cx, images);
        }
    }

    fn ask_finished(&mut self, cx: &mut Context<'_>, images: Vec<proto::ids::ImageId>) {
        if !images.is_empty() {
            cx.tell(CoreId(0), CoreNote::Unclaimed { images });
        }
    }
}

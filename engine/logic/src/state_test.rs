#![allow(clippy::unwrap_used)]

use proto::error::Refusal;
use proto::ids::{
    Address, ClusterId, CoreId, Fingerprint, Holder, ImageId, InboxId, InboxSeq, Incarnation, LogIndex, NodeId,
    Sequence, SessionId,
};
use proto::limits::SESSION_WINDOW;
use proto::record::{Ready, Record, RecordBody};

use super::{Outcome, State};

struct Feed {
    state: State,
    index: u64,
    time_ms: u64,
}

impl Feed {
    fn new() -> Feed {
        let mut feed = Feed { state: State::default(), index: 0, time_ms: 1000 };
        feed.apply(RecordBody::Genesis { cluster: ClusterId(7), members: vec![], copies: 2, image_bytes_max: 1000 });
        feed
    }

    fn apply(&mut self, body: RecordBody) -> Outcome {
        self.index += 1;
        self.state.apply(LogIndex(self.index), &Record { time_ms: self.time_ms, body })
    }

    fn register(&mut self, name: &str) -> InboxId {
        match self.apply(RecordBody::Register { name: name.into() }) {
            Outcome::Registered(inbox) => inbox,
            other => panic!("{other:?}"),
        }
    }

    fn session(&mut self) -> SessionId {
        match self.apply(RecordBody::OpenSession { sender: "cam".into() }) {
            Outcome::SessionOpened(session) => session,
            other => panic!("{other:?}"),
        }
    }

    fn ready(
        &mut self,
        session: SessionId,
        sequence: u64,
        low_water: u64,
        receivers: &[InboxId],
    ) -> Result<usize, Refusal> {
        self.ready_bytes(session, sequence, low_water, receivers, 1)
    }

    fn ready_bytes(
        &mut self,
        session: SessionId,
        sequence: u64,
        low_water: u64,
        receivers: &[InboxId],
        checksum: u64,
    ) -> Result<usize, Refusal> {
        let outcome = self.apply(RecordBody::Ready(Ready {
            image: ImageId { session, sequence: Sequence(sequence) },
            low_water: Sequence(low_water),
            fingerprint: Fingerprint { length: 10, checksum },
            name: "a.png".into(),
            receivers: receivers.to_vec(),
            holders: holders(),
        }));
        match outcome {
            Outcome::Ready(result) => result.map(|outcome| {
                assert_eq!(outcome.ready.len(), receivers.len());
                outcome.fresh.len()
            }),
            other => panic!("{other:?}"),
        }
    }

    fn inbox(&self, inbox: InboxId) -> Vec<(u64, u64)> {
        let entries = self.state.entries_after(inbox, InboxSeq(0), 100);
        entries.iter().map(|entry| (entry.seq.0, entry.image.sequence.0)).collect()
    }
}

fn holders() -> Vec<Holder> {
    [1, 2]
        .map(|node| Holder { address: Address { node: NodeId(node), core: CoreId(0) }, incarnation: Incarnation(1) })
        .to_vec()
}

#[test]
fn a_retry_never_makes_a_second_inbox_entry() {
    let mut feed = Feed::new();
    let (gallery, session) = (feed.register("gallery"), feed.session());
    assert_eq!(feed.ready(session, 1, 1, &[gallery]), Ok(1));
    assert_eq!(feed.ready(session, 1, 1, &[gallery]), Ok(0));
    feed.apply(RecordBody::Acked { upto: vec![(gallery, InboxSeq(1))] });
    assert_eq!(feed.ready(session, 1, 1, &[gallery]), Ok(0), "also after the acknowledgement");
    assert_eq!(feed.inbox(gallery), []);
    assert_eq!(feed.ready(session, 2, 2, &[gallery]), Ok(1));
    assert_eq!(feed.ready(session, 1, 1, &[gallery]), Err(Refusal::AlreadyFinished));
    assert_eq!(feed.inbox(gallery), [(2, 2)]);
}

#[test]
fn a_retry_with_a_further_receiver_is_ready_for_that_one_only() {
    let mut feed = Feed::new();
    let (a, b, session) = (feed.register("a"), feed.register("b"), feed.session());
    assert_eq!(feed.ready(session, 1, 1, &[a]), Ok(1));
    assert_eq!(feed.ready(session, 1, 1, &[a, b]), Ok(1));
    assert_eq!((feed.inbox(a), feed.inbox(b)), (vec![(1, 1)], vec![(1, 1)]));
}

#[test]
fn other_bytes_under_a_known_id_are_refused() {
    let mut feed = Feed::new();
    let (a, b, session) = (feed.register("a"), feed.register("b"), feed.session());
    assert_eq!(feed.ready(session, 1, 1, &[a]), Ok(1));
    assert_eq!(feed.ready_bytes(session, 1, 1, &[b], 2), Err(Refusal::DifferentBytes));
    assert_eq!(feed.inbox(b), []);
}

#[test]
fn a_retry_that_cannot_be_judged_gets_an_error() {
    let mut feed = Feed::new();
    let (a, session) = (feed.register("a"), feed.session());
    assert_eq!(feed.ready(SessionId(99), 1, 1, &[a]), Err(Refusal::SessionUnknown));
    assert_eq!(feed.ready(session, SESSION_WINDOW, 1, &[a]), Ok(1));
    assert_eq!(feed.ready(session, SESSION_WINDOW + 1, 1, &[a]), Err(Refusal::OutOfWindow));
    feed.time_ms = 9000;
    feed.apply(RecordBody::ExpireSessions { idle_since_ms: 8000 });
    assert_eq!(feed.ready(session, 2, 1, &[a]), Err(Refusal::SessionUnknown));
}

#[test]
fn an_unknown_receiver_refuses_the_whole_record() {
    let mut feed = Feed::new();
    let (a, session) = (feed.register("a"), feed.session());
    assert_eq!(feed.ready(session, 1, 1, &[a, InboxId(77)]), Err(Refusal::UnknownReceiver));
    assert_eq!(feed.inbox(a), []);
}

#[test]
fn bytes_are_freed_with_the_last_receivers_acknowledgement_and_not_before() {
    let mut feed = Feed::new();
    let (a, b, session) = (feed.register("a"), feed.register("b"), feed.session());
    feed.ready(session, 1, 1, &[a, b]).unwrap();
    let image = ImageId { session, sequence: Sequence(1) };
    let index = LogIndex(feed.index);
    match feed.apply(RecordBody::Acked { upto: vec![(a, InboxSeq(1))] }) {
        Outcome::Acked(acked, freed) => assert_eq!((acked, freed), (vec![(a, InboxSeq(1))], vec![])),
        other => panic!("{other:?}"),
    }
    match feed.apply(RecordBody::Acked { upto: vec![(b, InboxSeq(1))] }) {
        Outcome::Acked(_, freed) => assert_eq!((freed[0].image, freed[0].index, freed.len()), (image, index, 1)),
        other => panic!("{other:?}"),
    }
    assert!(!feed.state.is_finished(image), "a record for a further receiver may be on its way");
    feed.ready(session, 2, 2, &[a]).unwrap();
    assert!(feed.state.is_finished(image), "the sender moved on");
}

#[test]
fn an_acknowledgement_is_clamped_to_what_was_assigned() {
    let mut feed = Feed::new();
    let (a, session) = (feed.register("a"), feed.session());
    feed.ready(session, 1, 1, &[a]).unwrap();
    match feed.apply(RecordBody::Acked { upto: vec![(a, InboxSeq(50))] }) {
        Outcome::Acked(acked, _) => assert_eq!(acked, vec![(a, InboxSeq(1))]),
        other => panic!("{other:?}"),
    }
    feed.ready(session, 2, 2, &[a]).unwrap();
    assert_eq!(feed.inbox(a), [(2, 2)], "the next image is not acknowledged beforehand");
}

#[test]
fn what_a_node_has_not_heard_of_is_not_finished() {
    let mut feed = Feed::new();
    let image = |session, sequence| ImageId { session: SessionId(session), sequence: Sequence(sequence) };
    let session = feed.session();
    assert!(!feed.state.is_finished(image(session.0, 1)), "never ready");
    assert!(!feed.state.is_finished(image(1000, 1)), "a session beyond what is applied");
    assert!(feed.state.is_finished(image(1, 1)), "an index that is no session, or one that ended");
}

#[test]
fn a_known_name_keeps_its_inbox() {
    let mut feed = Feed::new();
    let a = feed.register("a");
    feed.register("b");
    assert_eq!(feed.register("a"), a);
    assert_eq!(feed.state.inbox_of("a"), Some((a, InboxSeq(0))));
}

#[test]
fn marks_at_the_end_of_the_number_range_are_judged_and_do_not_overflow() {
    let mut state = State::default();
    state.apply(LogIndex(1), &Record { time_ms: 1, body: RecordBody::OpenSession { sender: "cam".to_owned() } });
    let genesis = RecordBody::Genesis { cluster: ClusterId(1), members: Vec::new(), copies: 1, image_bytes_max: 100 };
    state.apply(LogIndex(2), &Record { time_ms: 1, body: genesis });
    let image = ImageId { session: SessionId(1), sequence: Sequence(u64::MAX) };
    assert!(state.judge(image, Sequence(u64::MAX), Fingerprint { length: 1, checksum: 0 }, &[]).is_ok());
}

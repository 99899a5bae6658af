//! Scripts against the sender session. A line of a script is `MS INPUT`; the text is what the session did.

use proto::client::{ClientReply, ImageHead};
use proto::ids::{Fingerprint, Holder, ImageId, LogIndex, RequestId, Sequence, SessionId};
use proto::limits::SESSION_WINDOW;

use crate::scripted::{Links, bytes, client_of, compare, number, options, refusal};
use crate::sender::{ImageJob, SenderEvent, SenderInput, SenderSession};
use crate::session::{Action, Key, LinkInput, Routing, SessionOptions};

const SESSION: SessionId = SessionId(7);

struct Script {
    session: SenderSession,
    links: Links,
    request: u64,
    text: String,
}

impl Script {
    fn new(options: SessionOptions) -> Script {
        let session = SenderSession::new(options, "sender").unwrap();
        Script { session, links: Links::default(), request: 0, text: String::new() }
    }

    /// With an open session at node 1.
    fn open(routing: Routing) -> Script {
        let mut script = Script::new(options(&["a", "b", "c"], routing));
        script.run("0 start\n 0 up 1\n 0 opened");
        script.text.clear();
        script
    }

    fn run(&mut self, lines: &str) {
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let now_us = words[0].parse::<u64>().unwrap() * 1000;
            let input = self.input(&words[1..]);
            self.step(now_us, input);
        }
    }

    fn step(&mut self, now_us: u64, input: SenderInput) {
        let mut actions = Vec::new();
        self.session.step(now_us, input, &mut actions);
        self.session.check_invariants();
        for action in &actions {
            let line = match self.links.text(action) {
                Some(line) => line,
                None => self.event(action),
            };
            if line.starts_with("open session") {
                self.request += 1;
            }
            self.text.push_str(&line);
            self.text.push('\n');
        }
    }

    fn event(&self, action: &Action<SenderEvent>) -> String {
        let Action::Event(event) = action else { unreachable!() };
        match event {
            SenderEvent::SendChunk { link, image, offset, length, .. } => {
                assert_eq!(*link, self.links.link());
                format!("chunk {image} @{} +{}", bytes(*offset), bytes(u64::from(*length)))
            }
            SenderEvent::SessionOpened { session } => format!("! session {session}"),
            SenderEvent::Begun { key, image } => format!("! {} is {image}", key.0),
            SenderEvent::Progress { key, durable_end } => format!("! {} durable {}", key.0, bytes(*durable_end)),
            SenderEvent::Accepted { key, index, .. } => format!("! {} accepted at {index}", key.0),
            SenderEvent::Refused { key, refusal, .. } => format!("! {} refused {refusal:?}", key.0),
            SenderEvent::GaveUp { key, begun, troubles } => {
                let last = troubles.last().map(|t| t.refusal.map_or(t.text.clone(), |r| format!("{r:?}")));
                format!("! {} given up, begun {begun}, last {}", key.0, last.unwrap_or_default())
            }
            SenderEvent::Failed(failure) => {
                let text = format!("{failure:?}");
                format!("! failed {}", text.split_whitespace().next().unwrap())
            }
        }
    }

    fn input(&self, words: &[&str]) -> SenderInput {
        if let Some(input) = self.links.input(words) {
            return SenderInput::Link(input);
        }
        let image = |word: &str| ImageId { session: SESSION, sequence: Sequence(number(word)) };
        let reply = match words {
            ["start"] => return SenderInput::Start,
            ["tick"] => return SenderInput::Tick,
            ["withdraw", key] => return SenderInput::Withdraw(Key(number(key))),
            ["submit", key, length, receivers @ ..] => {
                return SenderInput::Submit(ImageJob {
                    key: Key(number(key)),
                    receivers: receivers.iter().map(|&name| name.to_owned()).collect(),
                    fingerprint: Fingerprint { length: number(length), checksum: 1 },
                    name: "x.jpg".to_owned(),
                });
            }
            ["opened"] => ClientReply::SessionOpened { request: RequestId(self.request), session: SESSION },
            ["closed", reason] => ClientReply::Failure {
                request: Some(RequestId(self.request)),
                refusal: refusal(reason),
                text: "no".to_owned(),
                ring: None,
            },
            ["answer", sequence, from] => {
                ClientReply::BeginAnswer { image: image(sequence), resume_from: number(from) }
            }
            ["progress", sequence, end] => ClientReply::Progress { image: image(sequence), durable_end: number(end) },
            ["accepted", sequence] => {
                ClientReply::Accepted { image: image(sequence), index: LogIndex(99), holders: Vec::<Holder>::new() }
            }
            ["refused", sequence, reason] => {
                ClientReply::Refused { image: image(sequence), refusal: refusal(reason), text: "no".to_owned() }
            }
            ["credit", total] => ClientReply::Credit { credit: number(total) },
            ["nonsense"] => ClientReply::Head(ImageHead {
                inbox: Default::default(),
                seq: Default::default(),
                image: image("1"),
                fingerprint: Fingerprint::default(),
                sender: String::new(),
                name: String::new(),
                index: LogIndex(0),
                is_damaged: false,
            }),
            other => panic!("{other:?}"),
        };
        SenderInput::Link(LinkInput::Reply { link: self.links.link(), reply, body: None })
    }
}

fn check(mut script: Script, lines: &str, expected: &str) {
    script.run(lines);
    compare(&script.text, expected);
}

#[test]
fn image_is_announced_and_sent_at_once_and_accepted() {
    check(
        Script::new(options(&["a"], Routing::Any)),
        "0 submit 5 2500000 gallery
         0 start
         1 up 1
         2 opened
         3 answer 1 0
         4 progress 1 1M
         5 progress 1 2500000
         6 accepted 1",
        "connect a for any
         open session q1 of sender
         ! session s7
         ! 5 is s7.1
         begin s7.1 low 1 to gallery
         chunk s7.1 @0 +1M
         chunk s7.1 @1M +1M
         chunk s7.1 @2M +402848
         ! 5 durable 1M
         ! 5 durable 2500000
         ! 5 accepted at 99",
    );
}

#[test]
fn bytes_obey_the_credit_of_the_link() {
    check(
        Script::open(Routing::Any),
        "1 submit 1 10M gallery
         2 credit 9M
         2 credit 1M
         3 submit 2 5 gallery
         4 credit 10M
         5 credit 11M",
        "! 1 is s7.1
         begin s7.1 low 1 to gallery
         chunk s7.1 @0 +1M
         chunk s7.1 @1M +1M
         chunk s7.1 @2M +1M
         chunk s7.1 @3M +1M
         chunk s7.1 @4M +1M
         chunk s7.1 @5M +1M
         chunk s7.1 @6M +1M
         chunk s7.1 @7M +1M
         chunk s7.1 @8M +1M
         chunk s7.1 @9M +1M
         ! 2 is s7.2
         begin s7.2 low 1 to gallery
         chunk s7.2 @0 +5",
    );
}

#[test]
fn after_a_lost_link_every_image_resumes_where_the_cluster_says() {
    check(
        Script::open(Routing::Any),
        "1 submit 1 3M gallery
         1 submit 2 2M other
         2 drop
         3 up 2
         4 answer 2 2M
         5 answer 1 1M
         6 accepted 2
         7 accepted 1
         8 submit 3 1 gallery",
        "! 1 is s7.1
         begin s7.1 low 1 to gallery
         chunk s7.1 @0 +1M
         chunk s7.1 @1M +1M
         chunk s7.1 @2M +1M
         ! 2 is s7.2
         begin s7.2 low 1 to other
         chunk s7.2 @0 +1M
         chunk s7.2 @1M +1M
         connect b for any
         begin s7.1 low 1 to gallery
         begin s7.2 low 1 to other
         ! 2 durable 2M
         ! 1 durable 1M
         chunk s7.1 @1M +1M
         chunk s7.1 @2M +1M
         ! 2 accepted at 99
         ! 1 accepted at 99
         ! 3 is s7.3
         begin s7.3 low 3 to gallery
         chunk s7.3 @0 +1",
    );
}

#[test]
fn first_answer_does_not_rewind_but_a_later_lower_one_does() {
    check(
        Script::open(Routing::Any),
        "1 submit 1 2M gallery
         2 answer 1 0
         3 progress 1 1M
         4 answer 1 0
         5 answer 1 1048577",
        "! 1 is s7.1
         begin s7.1 low 1 to gallery
         chunk s7.1 @0 +1M
         chunk s7.1 @1M +1M
         ! 1 durable 1M
         ! 1 durable 0
         chunk s7.1 @0 +1M
         chunk s7.1 @1M +1M
         ! 1 durable 1M
         chunk s7.1 @1M +1M",
    );
}

#[test]
fn first_answer_skips_what_the_cluster_has() {
    check(
        Script::open(Routing::Any),
        "1 submit 1 20M gallery
         2 answer 1 19M
         3 credit 30M",
        "! 1 is s7.1
         begin s7.1 low 1 to gallery
         chunk s7.1 @0 +1M
         chunk s7.1 @1M +1M
         chunk s7.1 @2M +1M
         chunk s7.1 @3M +1M
         chunk s7.1 @4M +1M
         chunk s7.1 @5M +1M
         chunk s7.1 @6M +1M
         chunk s7.1 @7M +1M
         ! 1 durable 19M
         chunk s7.1 @19M +1M",
    );
}

#[test]
fn answer_beyond_the_end_ends_the_link() {
    check(
        Script::open(Routing::Any),
        "1 submit 1 5 gallery
         2 answer 1 6",
        "! 1 is s7.1
         begin s7.1 low 1 to gallery
         chunk s7.1 @0 +5
         close
         connect b for any",
    );
}

#[test]
fn low_water_is_the_lowest_unfinished_whatever_finishes_first() {
    check(
        Script::open(Routing::Any),
        "1 submit 1 1 gallery
         1 submit 2 1 gallery
         1 submit 3 1 gallery
         2 accepted 2
         3 submit 4 1 gallery
         4 refused 1 DifferentBytes
         5 submit 5 1 gallery
         6 accepted 3
         6 accepted 3
         7 submit 6 1 gallery",
        "! 1 is s7.1
         begin s7.1 low 1 to gallery
         chunk s7.1 @0 +1
         ! 2 is s7.2
         begin s7.2 low 1 to gallery
         chunk s7.2 @0 +1
         ! 3 is s7.3
         begin s7.3 low 1 to gallery
         chunk s7.3 @0 +1
         ! 2 accepted at 99
         ! 4 is s7.4
         begin s7.4 low 1 to gallery
         chunk s7.4 @0 +1
         ! 1 refused DifferentBytes
         ! 5 is s7.5
         begin s7.5 low 3 to gallery
         chunk s7.5 @0 +1
         ! 3 accepted at 99
         ! 6 is s7.6
         begin s7.6 low 4 to gallery
         chunk s7.6 @0 +1",
    );
}

#[test]
fn window_bounds_what_is_in_flight() {
    let mut script = Script::open(Routing::Any);
    for key in 1..=SESSION_WINDOW + 10 {
        script.run(&format!("1 submit {key} 1 gallery"));
    }
    let begun = script.text.matches("begin").count() as u64;
    assert_eq!(begun, SESSION_WINDOW);
    script.text.clear();
    script.run("2 accepted 2");
    compare(&script.text, "! 2 accepted at 99");
    script.text.clear();
    script.run("3 accepted 1");
    compare(
        &script.text,
        "! 1 accepted at 99
         ! 1025 is s7.1025
         begin s7.1025 low 3 to gallery
         chunk s7.1025 @0 +1
         ! 1026 is s7.1026
         begin s7.1026 low 3 to gallery
         chunk s7.1026 @0 +1",
    );
    assert_eq!(script.session.unfinished(), SESSION_WINDOW as usize + 8);
}

#[test]
fn refusal_that_may_pass_is_followed_by_a_later_begin_of_the_same_image() {
    check(
        Script::open(Routing::Any),
        "1 submit 1 2M gallery
         2 refused 1 Busy
         5 tick
         6 tick
         60 tick
         61 answer 1 1M
         62 accepted 1",
        "! 1 is s7.1
         begin s7.1 low 1 to gallery
         chunk s7.1 @0 +1M
         chunk s7.1 @1M +1M
         begin s7.1 low 1 to gallery
         ! 1 durable 1M
         chunk s7.1 @1M +1M
         ! 1 accepted at 99",
    );
}

#[test]
fn node_that_keeps_refusing_is_left_for_another() {
    check(
        Script::open(Routing::Any),
        "1 submit 1 1 gallery
         2 refused 1 NoLeader
         100 tick
         101 refused 1 NoLeader
         200 tick
         201 refused 1 NoLeader
         202 up 2
         400 tick
         401 answer 1 0",
        "! 1 is s7.1
         begin s7.1 low 1 to gallery
         chunk s7.1 @0 +1
         begin s7.1 low 1 to gallery
         begin s7.1 low 1 to gallery
         close
         connect b for any
         begin s7.1 low 1 to gallery
         chunk s7.1 @0 +1",
    );
}

#[test]
fn refused_for_good_is_said_at_once() {
    for reason in ["UnknownReceiver", "ImageTooLarge", "NoSpace", "AlreadyFinished", "OutOfWindow"] {
        check(
            Script::open(Routing::Any),
            &format!("1 submit 1 1 gallery\n 2 refused 1 {reason}\n 900 tick"),
            &format!(
                "! 1 is s7.1
                 begin s7.1 low 1 to gallery
                 chunk s7.1 @0 +1
                 ! 1 refused {reason}"
            ),
        );
    }
}

#[test]
fn no_space_is_no_last_word_when_an_earlier_attempt_may_have_come_to_something() {
    check(
        Script::open(Routing::Any),
        "1 submit 1 1 gallery
         2 refused 1 Busy
         400 tick
         401 refused 1 NoSpace
         900 tick
         901 accepted 1",
        "! 1 is s7.1
         begin s7.1 low 1 to gallery
         chunk s7.1 @0 +1
         begin s7.1 low 1 to gallery
         begin s7.1 low 1 to gallery
         ! 1 accepted at 99",
    );
}

#[test]
fn what_no_cluster_takes_is_refused_without_asking() {
    let many: Vec<String> = (0..65).map(|i| format!("r{i}")).collect();
    check(
        Script::open(Routing::Any),
        &format!(
            "1 submit 1 0 gallery
             1 submit 2 5
             1 submit 3 5 a a
             1 submit 4 5 gallery@other
             1 submit 5 99999999999 gallery
             1 submit 6 5 {}",
            many.join(" ")
        ),
        "! 1 refused ImageEmpty
         ! 2 refused BadRequest
         ! 3 refused BadRequest
         ! 4 refused NameInvalid
         ! 5 refused ImageTooLarge
         ! 6 refused BadRequest",
    );
}

#[test]
fn unknown_session_ends_everything_and_no_image_gets_a_second_id() {
    check(
        Script::open(Routing::Any),
        "1 submit 1 1 gallery
         1 submit 2 9M gallery
         1 submit 3 9M gallery
         2 refused 1 SessionUnknown
         3 submit 4 1 gallery
         99 tick",
        "! 1 is s7.1
         begin s7.1 low 1 to gallery
         chunk s7.1 @0 +1
         ! 2 is s7.2
         begin s7.2 low 1 to gallery
         chunk s7.2 @0 +1M
         chunk s7.2 @1M +1M
         chunk s7.2 @2M +1M
         chunk s7.2 @3M +1M
         chunk s7.2 @4M +1M
         chunk s7.2 @5M +1M
         chunk s7.2 @6M +1M
         close
         ! 1 given up, begun true, last SessionUnknown
         ! 2 given up, begun true, last SessionUnknown
         ! 3 given up, begun false, last SessionUnknown
         ! failed SessionUnknown
         ! 4 refused SessionUnknown",
    );
}

#[test]
fn image_without_progress_is_given_up_with_the_last_reason() {
    let mut script = Script::open(Routing::Fixed);
    script.run("1 submit 1 1 gallery\n 2 refused 1 NoLeader");
    let mut now_ms = 3;
    while script.session.unfinished() > 0 {
        assert!(now_ms < 61_000);
        now_ms += 10;
        let at = script.text.len();
        script.run(&format!("{now_ms} tick"));
        let new = script.text[at..].to_owned();
        if new.contains("begin") {
            script.run(&format!("{now_ms} refused 1 NoLeader"));
        }
        if new.contains("ping") {
            script.run(&format!("{now_ms} pong"));
        }
        if let Some(connect) = script.text[at..].lines().find(|line| line.starts_with("connect")) {
            let node = ["a", "b", "c"].iter().position(|name| connect.contains(&format!(" {name} "))).unwrap() + 1;
            script.run(&format!("{now_ms} up {node}"));
        }
    }
    assert!(script.text.contains("! 1 given up, begun true, last NoLeader"), "{}", script.text);
    assert!(now_ms > 60_000, "{now_ms}");
    let begins = script.text.matches("begin s7.1 ").count();
    assert!((40..200).contains(&begins), "back-off is capped at a second: {begins} tries in a minute");
}

#[test]
fn deadline_counts_from_the_last_progress_and_waiting_ones_share_it() {
    let mut script = Script::open(Routing::Any);
    script.run("1 submit 1 60M gallery\n 1 submit 2 1M gallery");
    for second in 1..50 {
        script.run(&format!("{second}000 progress 1 {second}M\n {second}000 credit {}M", 8 + second));
    }
    for second in 50..109 {
        script.run(&format!("{second}000 pong"));
    }
    assert!(!script.text.contains("given up"), "{}", script.text);
    script.run("109010 tick");
    assert!(script.text.contains("! 1 given up, begun true"), "{}", script.text);
    assert!(!script.text.contains("connect"), "{}", script.text);
}

#[test]
fn silent_image_is_asked_after() {
    check(
        Script::open(Routing::Any),
        "1 submit 1 1 gallery
         2 answer 1 0
         1900 pong
         3800 pong
         5700 pong
         6000 pong
         6012 tick
         6013 answer 1 1
         6014 accepted 1",
        "! 1 is s7.1
         begin s7.1 low 1 to gallery
         chunk s7.1 @0 +1
         begin s7.1 low 1 to gallery
         ! 1 durable 1
         ! 1 accepted at 99",
    );
}

#[test]
fn silent_node_is_asked_for_a_sign_of_life_and_then_left() {
    check(
        Script::open(Routing::Any),
        "1999 tick
         2000 tick
         2001 pong
         4001 tick
         10000 tick
         10001 tick
         10001 tick",
        "ping
         ping
         close
         connect b for any",
    );
}

#[test]
fn nodes_are_tried_in_turn_with_growing_waits() {
    let mut script = Script::new(options(&["a", "b"], Routing::Fixed));
    script.run("0 start");
    let mut starts = vec![0];
    for now_ms in 1..10_000 {
        let at = script.text.len();
        script.run(&format!("{now_ms} {}", if script.text.ends_with("any\n") { "fail" } else { "tick" }));
        if script.text[at..].contains("connect") {
            starts.push(now_ms);
            script.text.push_str("- any\n");
        }
    }
    // Two nodes, each at most once a half second once the wait is at its cap, and first waits are short.
    assert!((10..60).contains(&starts.len()), "{starts:?}");
    assert!(starts[3] < 100 && starts.windows(2).all(|pair| pair[1] - pair[0] <= 1000), "{starts:?}");
}

#[test]
fn session_is_asked_for_again_until_it_opens() {
    check(
        Script::new(options(&["a", "b"], Routing::Any)),
        "0 start
         0 up 1
         1 closed NoLeader
         2 tick
         50 tick
         51 drop
         52 up 2
         53 opened",
        "connect a for any
         open session q1 of sender
         open session q2 of sender
         connect b for any
         open session q3 of sender
         ! session s7",
    );
    check(
        Script::new(options(&["a", "b"], Routing::Any)),
        "0 start
         0 up 1
         1 closed NameInvalid",
        "connect a for any
         open session q1 of sender
         close
         ! failed Refused",
    );
}

#[test]
fn wrong_cluster_at_first_is_an_error_and_later_a_bad_node() {
    check(
        Script::new(options(&["a", "b"], Routing::Any)),
        "0 start\n 1 refuse WrongCluster",
        "connect a for any
         ! failed WrongCluster",
    );
    check(
        Script::open(Routing::Any),
        "1 drop
         2 refuse WrongCluster
         3 up 3",
        "connect b for any
         connect c for any",
    );
}

#[test]
fn sender_goes_to_the_home_of_its_receiver_and_falls_back() {
    let receiver = client_of(3);
    check(
        Script::open(Routing::Home),
        &format!(
            "1 submit 1 1 {receiver}
             2 fail
             3 up 1
             4 accepted 1
             500 submit 2 1 {receiver}
             501 up 3"
        ),
        &format!(
            "close
             connect c for {receiver}
             connect a for {receiver}
             ! 1 is s7.1
             begin s7.1 low 1 to {receiver}
             chunk s7.1 @0 +1
             ! 1 accepted at 99
             close
             connect c for {receiver}
             ! 2 is s7.2
             begin s7.2 low 2 to {receiver}
             chunk s7.2 @0 +1"
        ),
    );
}

#[test]
fn home_that_cannot_be_reached_is_not_tried_at_every_image() {
    let receiver = client_of(3);
    let mut script = Script::open(Routing::Home);
    for image in 1..=20 {
        script.run(&format!("{image}000 submit {image} 1 {receiver}"));
        while let Some(address) = script.text.lines().last().and_then(|line| line.strip_prefix("connect ")) {
            let up = if address.starts_with('c') { "fail" } else { "up 1" };
            script.run(&format!("{image}001 {up}"));
        }
        script.run(&format!("{image}002 accepted {image}"));
    }
    assert_eq!(script.text.matches("connect c").count(), 3, "{}", script.text);
    script.run(&format!("50000 pong\n 50000 submit 30 1 {receiver}"));
    assert_eq!(script.text.matches("connect c").count(), 4, "{}", script.text);
}

#[test]
fn rotating_sender_changes_the_node_between_images() {
    check(
        Script::open(Routing::Rotate),
        "1 submit 1 1 gallery
         1 submit 2 1 gallery
         2 accepted 1
         3 accepted 2
         4 submit 3 1 gallery
         5 up 2",
        "! 1 is s7.1
         begin s7.1 low 1 to gallery
         chunk s7.1 @0 +1
         ! 2 is s7.2
         begin s7.2 low 1 to gallery
         chunk s7.2 @0 +1
         ! 1 accepted at 99
         ! 2 accepted at 99
         close
         connect b for any
         ! 3 is s7.3
         begin s7.3 low 3 to gallery
         chunk s7.3 @0 +1",
    );
}

#[test]
fn withdrawn_image_is_not_spoken_of_again() {
    check(
        Script::open(Routing::Any),
        "1 submit 1 9M gallery
         1 submit 2 9M gallery
         2 withdraw 1
         2 withdraw 2
         3 credit 99M
         4 accepted 1
         5 nonsense
         6 submit 3 1 gallery",
        "! 1 is s7.1
         begin s7.1 low 1 to gallery
         chunk s7.1 @0 +1M
         chunk s7.1 @1M +1M
         chunk s7.1 @2M +1M
         chunk s7.1 @3M +1M
         chunk s7.1 @4M +1M
         chunk s7.1 @5M +1M
         chunk s7.1 @6M +1M
         chunk s7.1 @7M +1M
         ! 3 is s7.2
         begin s7.2 low 2 to gallery
         chunk s7.2 @0 +1",
    );
}

#[test]
fn replies_of_an_older_link_mean_nothing() {
    let mut script = Script::open(Routing::Any);
    script.run("1 submit 1 1 gallery");
    let old = script.input(&["accepted", "1"]);
    script.run("2 drop\n 3 up 2");
    script.text.clear();
    script.step(4000, old);
    compare(&script.text, "");
    assert_eq!(script.session.unfinished(), 1);
}

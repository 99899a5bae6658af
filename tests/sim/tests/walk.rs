//! The walk of images through whole worlds.

use sim::faults::{Fault, Mask};
use sim::mutants::Mutant;
use sim::scenario::{Limits, Run, plan, run};
use sim::world::Plan;

fn healthy(seed: u64, nodes: u64) -> Run {
    Run::new(Plan {
        segment_bytes: 1 << 20,
        seed,
        nodes,
        cores: 2,
        is_busy: seed.is_multiple_of(2),
        upload_idle_us: 60_000_000,
        mutant: Mutant::None,
        trace_lines: 0,
    })
}

#[test]
fn images_of_all_sizes_cross_a_healthy_cluster() {
    for seed in 1..=10 {
        let mut run = healthy(seed, 3);
        run.submit(30);
        run.settle();
    }
}

#[test]
fn a_cluster_of_one_works() {
    let mut run = healthy(7, 1);
    run.submit(30);
    run.settle();
}

#[test]
fn no_image_is_lost_whatever_breaks() {
    for seed in 100..115 {
        run(seed, Limits::FULL);
    }
}

#[test]
fn images_under_way_are_accepted_soon_after_the_leader_died() {
    for seed in 1..=30 {
        healthy(seed, 3).kill_leader();
    }
}

#[test]
fn the_same_seed_does_the_same() {
    assert_eq!(run(42, Limits::FULL), run(42, Limits::FULL));
}

/// With its log gone, but identity and vote in place, a node began a new log and elected another that lacked accepted images.
#[test]
fn a_member_without_its_log_refuses_to_start() {
    let mut run = healthy(5, 3);
    run.submit(3);
    run.settle();
    let node = run.world.nodes()[1];
    run.world.empty(node, false);
    assert!(run.world.refusal_of(node).is_some_and(|text| text.contains("nothing in log")));
}

/// Runs a seed with these faults only.
fn with(seed: u64, faults: &[Fault], phases: u64) {
    run(seed, Limits { mask: Mask::of(faults), phases, ..Limits::FULL });
}

/// A home that was done, and whose last word to the ingest was lost, began the image anew; the sender waited for ever.
#[test]
fn lost_news_of_a_ready_image_are_asked_for() {
    for seed in [5, 7, 12, 13, 19, 29] {
        with(seed, &[Fault::Loss], 12);
    }
}

/// Two homes that took turns asked each other for bytes that neither had, and so kept the upload alive for ever.
#[test]
fn homes_do_not_keep_each_others_empty_uploads_alive() {
    with(36, &[Fault::Kill], 3);
    with(25, &[Fault::Kill, Fault::IndexRot], 9);
}

/// A home read a rotten chunk for a further holder again and again and never got the image accepted.
#[test]
fn a_rotten_chunk_of_an_upload_is_sent_again() {
    with(70, &[Fault::ChunkRot, Fault::OneWay, Fault::Isolate, Fault::Stop, Fault::SlowDisk, Fault::LinkBreak], 5);
    for seed in 1..20 {
        with(seed, &[Fault::ChunkRot, Fault::SlowDisk, Fault::Stop], 6);
    }
}

/// A holder of other bytes under the same id counted as a holder of the image, and its bytes went to the receiver.
#[test]
fn other_bytes_under_the_same_id_are_never_delivered() {
    let faults = [Fault::OtherBytes, Fault::Loss, Fault::Kill, Fault::FullDisk, Fault::ClientBreak, Fault::LinkBreak];
    for seed in [23, 31, 30, 41, 159] {
        with(seed, &faults, 4);
        with(seed, &faults[..3], 4);
    }
}

#[test]
fn a_node_that_lost_its_log_or_everything_is_taken_in_again_when_its_operator_says_so() {
    for (seed, is_all) in (1..=10).flat_map(|seed| [(seed, true), (seed, false)]) {
        let mut run = healthy(seed, 3 + seed % 2 * 2);
        run.submit(8);
        run.settle();
        let node = run.world.nodes()[1];
        run.world.empty(node, is_all);
        run.submit(4);
        run.pass(1_000_000 + seed * 100_000);
        assert!(run.world.rejoin(node) && !run.world.rejoin(node), "seed {seed}");
        run.submit(4);
        run.settle();
        assert_eq!((run.world.rejoined, run.world.healed), (1, 1), "seed {seed}");
    }
}

/// A node that lost everything greeted the others, which took that for life: it stayed home of its receivers for ever.
#[test]
fn a_node_that_lost_everything_is_passed_over() {
    for seed in 1..=6 {
        let mut run = healthy(seed, 3);
        run.submit(10);
        run.settle();
        let node = run.world.nodes()[(seed % 3) as usize];
        run.world.empty(node, true);
        assert!(run.world.start(node), "at once, so that its silence is not noticed");
        run.submit(10);
        run.settle();
    }
}

/// With every node of the ring down for a moment an ingest had no home for the receivers, took that for all being ready,
/// and told the sender that its image was accepted.
#[test]
fn an_image_without_any_home_is_not_accepted() {
    run(257, Limits::FULL);
}

/// A refusal of other bytes under the same id, meant for whoever sent those, went to the sender of an image that was then
/// delivered: refusals and cancels named no checksum.
#[test]
fn a_refusal_of_other_bytes_is_not_taken_for_ones_own() {
    run(1239, Limits::FULL);
    for seed in 1..=12 {
        with(seed, &[Fault::OtherBytes, Fault::Twins, Fault::Loss, Fault::Isolate, Fault::Kill], 5);
    }
}

/// Records named holders that had dropped the bytes. A holder for two homes kept them for the receivers of the one only: it
/// had restarted and heard of the other no more; or the home had taken over further receivers and had not told it.
#[test]
fn whoever_a_record_names_as_holder_has_the_bytes() {
    with(
        39,
        &[Fault::Loss, Fault::Duplicate, Fault::Reorder, Fault::Clog, Fault::Isolate, Fault::Kill, Fault::FullDisk],
        3,
    );
    with(171, &[Fault::Loss, Fault::Reorder, Fault::Clog, Fault::Stop, Fault::Overload], 2);
    with(67, &[Fault::Loss, Fault::Reorder, Fault::Power, Fault::Stop, Fault::ClientBreak, Fault::ClientGone], 2);
    for seed in [26, 99, 109, 111, 134] {
        run(seed, Limits::FULL);
    }
}

/// Bytes of which the leader had been told rotted, and were forgotten: the record that named them came later.
#[test]
fn rotten_bytes_of_which_the_leader_was_told_stay() {
    run(511, Limits::FULL);
}

/// A home that got no room for a further copy dropped the bytes, of which it had told another home as its holder.
#[test]
fn bytes_that_others_count_on_stay_when_there_is_no_room_for_a_further_copy() {
    use Fault::{
        ChunkRot, ClientBreak, ClockSkew, FullDisk, Kill, LinkBreak, Loss, OtherBytes, Overload, PowerAll, Stop,
    };
    let faults =
        [Loss, LinkBreak, Kill, PowerAll, Stop, FullDisk, ChunkRot, ClockSkew, OtherBytes, Overload, ClientBreak];
    with(1166, &faults, 6);
    run(1166, Limits::FULL);
}

/// The sender of an image that had been delivered long ago, as the news of that got lost, heard that its bytes were other ones.
#[test]
fn bytes_given_up_for_others_are_not_refused_for_good() {
    use Fault::{ClockJump, Clog, Duplicate, LinkBreak, OneWay, OtherBytes, SlowDisk};
    with(381, &[Duplicate, Clog, LinkBreak, OneWay, SlowDisk, ClockJump, OtherBytes], 2);
    run(381, Limits::FULL);
}

/// A home asked for what its receiver had acknowledged on an older connection, was told so, and asked for nothing more.
#[test]
fn an_inbox_goes_on_after_acknowledgements_of_an_older_connection() {
    use Fault::{ClockSkew, Clog, Duplicate, Kill, LinkBreak, LogRot, Loss, OtherBytes, Overload, Reorder};
    with(1864, &[Loss, Duplicate, Reorder, Clog, LinkBreak, Kill, LogRot, ClockSkew, OtherBytes, Overload], 3);
    run(1864, Limits::FULL);
}

/// The leader refused acknowledgements for want of room in its log; its own core asked again at once, for ever.
#[test]
fn acknowledgements_wait_while_the_log_has_no_room() {
    run(1969, Limits::FULL);
}

/// A leader read entries for a follower up to the end of a stretch that was being written.
#[test]
fn entries_are_read_only_as_far_as_they_are_written() {
    use Fault::{ClientGone, Duplicate, Kill, LinkBreak, Reorder, SlowDisk};
    with(296, &[Duplicate, Reorder, LinkBreak, Kill, SlowDisk, ClientGone], 2);
    run(1142, Limits::FULL);
}

/// A holder that restarted with an image's bytes took other ones under its id; with the next start it would have had only those.
#[test]
fn a_start_that_finds_two_versions_of_an_image_keeps_both_until_a_record_names_one() {
    use Fault::{Power, PowerAll, SnapshotRot, Twins, VoteRot};
    let faults = Fault::ALL.into_iter().filter(|fault| ![Power, PowerAll, SnapshotRot, VoteRot, Twins].contains(fault));
    with(60_420_067, &faults.collect::<Vec<_>>(), 11);
}

/// The leader's log had no room for an image of which another home had counted a copy here; it went after an idle time of a second.
#[test]
fn a_copy_that_another_home_counts_stays_when_its_own_home_gives_up() {
    use Fault::{
        ClientBreak, ClientGone, ClockSkew, Clog, Duplicate, FullDisk, Isolate, Kill, LinkBreak, Loss, Overload,
        Reorder, SlowDisk, Stop,
    };
    let faults = [
        Loss,
        Duplicate,
        Reorder,
        Clog,
        LinkBreak,
        Isolate,
        Kill,
        Stop,
        SlowDisk,
        FullDisk,
        ClockSkew,
        Overload,
        ClientBreak,
        ClientGone,
    ];
    with(9697, &faults, 8);
}

/// A record that comes with a snapshot does not say for whom it was: a home that had the leader's answer before asks again, and
/// holds nothing for ever.
#[test]
fn a_claim_that_comes_with_a_snapshot_behind_the_answer_ends_the_upload() {
    use sim::faults::Fault::{
        AckAhead, ChangedFile, ChunkRot, ClientBreak, ClientGone, ClockJump, ClockSkew, Clog, Duplicate, FullDisk,
        Kill, LinkBreak, Loss, OneWay, Overload, SlowDisk, SnapshotRot, Stop,
    };
    let faults = [
        Loss,
        Duplicate,
        Clog,
        LinkBreak,
        OneWay,
        Kill,
        Stop,
        SlowDisk,
        FullDisk,
        SnapshotRot,
        ChunkRot,
        ClockJump,
        ClockSkew,
        ChangedFile,
        AckAhead,
        Overload,
        ClientBreak,
        ClientGone,
    ];
    with(501_026, &faults, 8);
}

/// A holder had no room, and the one in its place lost its directory: nobody asked the first one again, which had room by then.
#[test]
fn a_node_without_room_is_asked_again_when_no_other_is_left() {
    use Fault::{
        ChangedFile, ClientBreak, ClockSkew, Clog, Emptied, FullDisk, Isolate, LinkBreak, Loss, Overload, Power,
        SlowDisk, Stop,
    };
    let faults = [
        Loss,
        Clog,
        LinkBreak,
        Isolate,
        Power,
        Stop,
        SlowDisk,
        FullDisk,
        ClockSkew,
        Emptied,
        ChangedFile,
        Overload,
        ClientBreak,
    ];
    with(900_452, &faults, 4);
}

/// Whoever begins the next image of a sender with other bytes, and goes no further, does not keep that sender waiting.
#[test]
fn other_bytes_that_stop_half_way_keep_nobody_waiting() {
    for seed in 1..=8 {
        healthy(seed, 3).outlast_rival();
    }
}

/// What clusters of five and of three, of one to three cores, do is planned by the seed.
#[test]
fn seeds_differ_in_the_size_of_their_cluster() {
    let sizes: std::collections::BTreeSet<(u64, u16)> =
        (0..24).map(|seed| plan(seed, Limits::FULL)).map(|plan| (plan.nodes, plan.cores)).collect();
    assert_eq!(sizes.len(), 6);
}

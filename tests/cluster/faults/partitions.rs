//! The network between the nodes is cut: two sides, one way only, everybody alone. Five nodes in networks of their own;
//! clients reach all of them all the while, also those that cannot do anything for them.

use std::time::Duration;

use cluster::network::Network;
use cluster::{Cluster, Problem};
use proto::client::RoleKind;

use crate::case::{Case, Rights};
use crate::load::{PATIENCE, Plan};

const NODES: u64 = 5;

/// How the network is cut. `leader` first, then the others in drawn order.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// Two followers from the rest: the leader keeps its majority.
    Minority,
    /// The leader with one follower: the other three choose another.
    LeaderInMinority,
    /// The leader from everybody.
    LeaderAlone,
    /// Nobody hears what the leader says; it hears all.
    LeaderMute,
    /// The leader hears nobody; all hear it.
    LeaderDeaf,
    /// What the leader says does not reach one follower.
    OneWayToOne,
    /// What one follower says reaches nobody.
    FollowerMute,
    /// A follower and the leader do not reach each other; the rest reaches all.
    OnePair,
    /// Everybody from everybody: no majority anywhere.
    Apart,
}

const CUTS: [(Cut, &str); 9] = [
    (Cut::Minority, "minority of two without the leader"),
    (Cut::LeaderInMinority, "majority without its leader"),
    (Cut::LeaderAlone, "leader alone"),
    (Cut::LeaderMute, "one way: nobody hears the leader"),
    (Cut::LeaderDeaf, "one way: the leader hears nobody"),
    (Cut::OneWayToOne, "one way: a follower does not hear the leader"),
    (Cut::FollowerMute, "one way: nobody hears a follower"),
    (Cut::OnePair, "leader and a follower only"),
    (Cut::Apart, "all apart"),
];

impl Cut {
    /// `leader` leads; the order of the others is drawn.
    fn make(self, network: &mut Network, leader: u64, others: &[u64]) -> Result<(), Problem> {
        match self {
            Cut::Minority => network.part(&others[..2], &[&others[2..], &[leader]].concat()),
            Cut::LeaderInMinority => network.part(&[leader, others[0]], &others[1..]),
            Cut::LeaderAlone => network.part(&[leader], others),
            Cut::LeaderMute => others.iter().try_for_each(|&other| network.cut(leader, other)),
            Cut::LeaderDeaf => others.iter().try_for_each(|&other| network.cut(other, leader)),
            Cut::OneWayToOne => network.cut(leader, others[0]),
            Cut::FollowerMute => {
                let deaf = others[1..].iter().chain([&leader]);
                deaf.copied().try_for_each(|other| network.cut(others[0], other))
            }
            Cut::OnePair => network.part(&[leader], &others[..1]),
            Cut::Apart => {
                network.part(&[leader], others)?;
                (1..others.len()).try_for_each(|at| network.part(&others[..at], &others[at..=at]))
            }
        }
    }

    fn has_majority(self) -> bool {
        !matches!(self, Cut::Apart)
    }

    /// Whether the leader of before can be it no longer.
    fn ends_leader(self) -> bool {
        matches!(self, Cut::LeaderInMinority | Cut::LeaderAlone | Cut::LeaderMute | Cut::LeaderDeaf | Cut::Apart)
    }
}

/// See the module.
pub fn partitions(case: &mut Case) -> Result<(), Problem> {
    if case.rights < Rights::User {
        let remedy = "needs network namespaces: run as root, or allow user namespaces (sysctl \
                      kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0), and install \
                      iproute2 and util-linux";
        case.outcome.not_run.push(format!("partitions: {remedy}"));
        return Ok(());
    }
    let mut rounds: Vec<(Cut, &str)> = CUTS.repeat(case.scale(4, 1));
    if !case.is_full {
        // Those of the words: minority, majority, leader alone, one way.
        rounds.retain(|(cut, _)| {
            matches!(cut, Cut::Minority | Cut::LeaderInMinority | Cut::LeaderAlone | Cut::LeaderMute | Cut::OneWayToOne)
        });
    }
    case.random.shuffle(&mut rounds);
    let images = case.scale(5_000, 200);
    let mut network = Network::make(NODES)?;
    let mut cluster = case.start(case.setup(NODES, network.places()))?;
    let load = case.load(&cluster, Plan::usual(60))?;
    for (cut, name) in rounds {
        load.wait_accepted(case.random.between(1, 40) as usize, "before a partition")?;
        let leader = cluster.wait_ready(PATIENCE)?.0;
        let mut others = cluster.numbers();
        others.retain(|&number| number != leader);
        case.random.shuffle(&mut others);
        cut.make(&mut network, leader, &others)?;
        case.count(name);
        if cut.ends_leader() {
            wait_deposed(&mut cluster, leader, name)?;
        }
        case.pass(500, 3_000)?;
        if cut.has_majority() {
            load.wait_accepted(10, name)?;
        }
        network.heal()?;
        cluster.wait_ready(PATIENCE).map_err(|Problem(text)| Problem(format!("after \"{name}\": {text}")))?;
    }
    case.outcome.add(load.finish(images)?);
    cluster.check_alive()
}

/// The leader must know that it is none any more: only then the cut has had its effect.
fn wait_deposed(cluster: &mut Cluster, leader: u64, cut: &str) -> Result<(), Problem> {
    cluster.wait_for(&format!("{cut}: the leader steps down"), Duration::from_secs(60), |cluster| {
        match cluster.status(leader)?.role {
            RoleKind::Leader => Err(Problem(format!("node {leader} says that it leads"))),
            _ => Ok(()),
        }
    })
}

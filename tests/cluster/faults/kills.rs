//! Processes die by SIGKILL or stand still by SIGSTOP, in loops, under load.

use cluster::{Cluster, Problem};

use crate::case::Case;
use crate::load::{Load, PATIENCE, Plan};

/// Whom a fault hits.
#[derive(Clone, Copy, Debug)]
enum Whom {
    Any,
    Leader,
    Follower,
    Two,
    All,
}

impl Whom {
    fn of(self, cluster: &mut Cluster, case: &mut Case) -> Result<Vec<u64>, Problem> {
        let mut numbers = cluster.numbers();
        Ok(match self {
            Whom::Any => vec![case.random.one(&numbers)],
            Whom::Leader => vec![cluster.wait_leader(PATIENCE)?.0],
            Whom::Follower => {
                let leader = cluster.wait_leader(PATIENCE)?.0;
                numbers.retain(|&number| number != leader);
                vec![case.random.one(&numbers)]
            }
            Whom::Two => {
                case.random.shuffle(&mut numbers);
                numbers.truncate(2);
                numbers
            }
            Whom::All => numbers,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Whom::Any => "any one node",
            Whom::Leader => "the leader",
            Whom::Follower => "a follower",
            Whom::Two => "two of three",
            Whom::All => "all nodes at once",
        }
    }
}

fn schedule(case: &mut Case, of: &[(Whom, usize)]) -> Vec<Whom> {
    let mut rounds: Vec<Whom> = of.iter().flat_map(|&(whom, count)| std::iter::repeat_n(whom, count)).collect();
    case.random.shuffle(&mut rounds);
    rounds
}

/// SIGKILL. What was under way at the node is lost with it; sometimes it stays away for longer than the down time.
pub fn kills(case: &mut Case) -> Result<(), Problem> {
    let counts = case.scale([30, 30, 16, 20], [2, 2, 1, 1]);
    let rounds = [(Whom::Any, counts[0]), (Whom::Leader, counts[1]), (Whom::Two, counts[2]), (Whom::All, counts[3])];
    let rounds = schedule(case, &rounds);
    let images: usize = case.scale(10_000, 300);
    let mut rounds = rounds.into_iter().peekable();
    while rounds.peek().is_some() {
        // A cluster that is no longer whole (`Case::wait_back`) is judged and followed by a new one.
        let mut cluster = case.cluster()?;
        let load = case.load(&cluster, Plan::usual(80))?;
        while let Some(whom) = rounds.next_if(|_| cluster.is_whole()) {
            kill(case, &mut cluster, &load, whom)?;
        }
        let left = if rounds.peek().is_none() { images.saturating_sub(case.outcome.accepted) } else { 0 };
        case.settle(load, left)?;
        cluster.check_alive()?;
    }
    Ok(())
}

fn kill(case: &mut Case, cluster: &mut Cluster, load: &Load, whom: Whom) -> Result<(), Problem> {
    load.wait_accepted(case.random.between(1, 40) as usize, "before a kill")?;
    let victims = whom.of(cluster, case)?;
    cluster.kill_together(&victims)?;
    case.count(&format!("kill -9 of {}", whom.name()));
    if case.random.percent(50) {
        case.pass(1, 2_000)?;
    }
    if victims.len() == 1 && case.random.percent(50) {
        // The others do without it.
        load.wait_accepted(5, "with one node of three down")?;
    }
    for victim in victims {
        cluster.start_node(victim)?;
        if case.random.percent(20) {
            // Not even started properly.
            case.pass(0, 200)?;
            cluster.kill(victim)?;
            case.count("kill -9 while starting");
            cluster.start_node(victim)?;
        }
    }
    case.wait_back(cluster, "kill -9")
}

/// SIGSTOP for longer than an election: to the others the node is gone, and then it is back with what it believed before.
pub fn pauses(case: &mut Case) -> Result<(), Problem> {
    let counts = case.scale([8, 12, 6, 6], [1, 1, 1, 1]);
    let rounds =
        [(Whom::Follower, counts[0]), (Whom::Leader, counts[1]), (Whom::Two, counts[2]), (Whom::All, counts[3])];
    let rounds = schedule(case, &rounds);
    let images = case.scale(5_000, 200);
    let mut cluster = case.cluster()?;
    let load = case.load(&cluster, Plan::usual(80))?;
    for whom in rounds {
        load.wait_accepted(case.random.between(1, 40) as usize, "before a pause")?;
        let victims = whom.of(&mut cluster, case)?;
        for &victim in &victims {
            cluster.process(victim).pause().map_err(cluster::problem("SIGSTOP"))?;
        }
        case.count(&format!("SIGSTOP of {}", whom.name()));
        case.pass(1_500, 4_000)?;
        if victims.len() == 1 {
            load.wait_accepted(5, "with one node of three standing still")?;
        }
        for &victim in &victims {
            cluster.process(victim).resume().map_err(cluster::problem("SIGCONT"))?;
        }
        cluster.wait_ready(PATIENCE)?;
    }
    case.outcome.add(load.finish(images)?);
    cluster.check_alive()
}

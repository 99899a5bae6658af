//! One core from its files to its end: recovers, waits until every core has, serves, and says goodbye.

mod found;
mod missing;

pub(crate) use self::found::GroupFound;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::thread;
use std::time::Duration;

use disk::log_device::FlushMethod;
use disk::{ChunkFiles, DataDir, DataDirView, LogDevice, Repair, SmallFiles, SnapshotFiles};
use glommio::timer::sleep;
use link::{Bound, Listener, MeshSeat, PeerEvent, PeerIdentity, Peers, Tasks, breathe, within};

use logic::io::{Effect, FileId, Input, Now, Room};
use logic::outlook::Forecast;
use logic::shard::{ChunkFileStart, RecoveredGroup, RecoveredStore, Shard, ShardConfig};
use proto::error::Refusal;
use proto::ids::{ClusterId, CoreId, Incarnation, NodeId};

use crate::buffers::Buffers;
use crate::clients::{self, Clients};
use crate::clock::Clock;
use crate::core::{Belonging, Core, GroupFiles, MeshItem};
use crate::disk_ops::{self, SmallWrites};
use crate::ending::Ending;
use crate::error::NodeError;
use crate::inputs::Inputs;
use crate::limits::{CANCEL_TURNS, FAREWELL, OPERATIONS_END};
use crate::pools::Pools;
use crate::snapshots::Snapshots;
use crate::waiting::Waiting;
use crate::{links, mesh, route, shard_loop, snapshots};

/// What a core's thread is given.
pub(crate) struct CoreStart {
    pub(crate) config: ShardConfig,
    pub(crate) dir: Arc<DataDir>,
    pub(crate) flush: FlushMethod,
    pub(crate) clock: Clock,
    pub(crate) ending: Ending,
    pub(crate) seat: MeshSeat<MeshItem>,
    /// Drawn at the start of the process.
    pub(crate) start: u64,
    /// Where the cores of this node reach each other.
    pub(crate) own_peer_address: String,
    /// On core 0.
    pub(crate) listeners: Option<CoreListeners>,
    /// To say that this core has recovered, or why not.
    pub(crate) ready: Sender<Result<(), NodeError>>,
    /// Hears when all have; ends without a word if one has not.
    pub(crate) go: Receiver<()>,
}

/// What core 0 listens on.
pub(crate) struct CoreListeners {
    pub(crate) client: Bound,
    pub(crate) peer: Bound,
    /// Connections at a time.
    pub(crate) clients_max: usize,
    /// Links at a time.
    pub(crate) peers_max: usize,
}

/// Runs a core until the node ends.
pub(crate) async fn run_core(start: CoreStart) {
    let CoreStart { config, dir, flush, clock, ending, seat, start, own_peer_address, listeners, ready, go } = start;
    let me = config.address;
    let mut effects = Vec::new();
    let pools = Pools::new(config.cache_bytes);
    let recovered = recover(&config, &dir, flush, clock, &pools, &mut effects).await;
    let (mut shard, files) = match recovered {
        Ok(recovered) => recovered,
        Err(error) => return drop(ready.send(Err(error))),
    };
    // Nothing runs on this executor yet: waiting here keeps nobody.
    let told = ready.send(Ok(()));
    // With the last of these gone, the starting thread notices a core that panicked before it said anything.
    drop(ready);
    if told.is_err() || go.recv().is_err() {
        return;
    }
    let inputs = Rc::new(Inputs::new());
    let identity = PeerIdentity { source: me, cluster: ClusterId::UNKNOWN, incarnation: Incarnation::default(), start };
    let waiting = Rc::new(Waiting::default());
    let reached = missing::Reached::default();
    let peers = Peers::new(identity, peer_events(me.node, inputs.clone(), waiting.clone(), reached.clone()));
    let core = Rc::new(Core {
        me,
        cores: config.cores,
        clock,
        ending,
        inputs,
        buffers: Buffers::new(),
        pools,
        seat,
        clients: Clients::default(),
        peers,
        waiting,
        members: RefCell::default(),
        belonging: Cell::new(Belonging { cluster: ClusterId::UNKNOWN, incarnation: Incarnation::default() }),
        belonging_changed: link::Event::new(),
        refused: RefCell::default(),
        chunks: files.chunks,
        group: files.group,
        connections: Tasks::new(),
        background: Tasks::new(),
        operations: Tasks::new(),
    });
    for member in &config.members {
        core.set_peer_address(member.node, &member.peer_address);
    }
    core.set_own_address(&own_peer_address);
    attend(&core, files.small);
    if me.core == CoreId(0) {
        core.attend("missing", missing::tell(core.clone(), config.members, reached, config.rejoin));
    }
    let listening = listeners.map(|listeners| listen(&core, listeners)).transpose();
    match listening {
        Ok(listening) => {
            shard_loop::run(&core, &mut shard, effects).await;
            end(&core, listening).await;
        }
        Err(error) => {
            core.ending.fail(error);
            end(&core, None).await;
        }
    }
}

struct Recovered {
    chunks: ChunkFiles,
    group: Option<GroupFiles>,
    small: Option<SmallFiles>,
}

async fn recover(
    config: &ShardConfig,
    dir: &DataDir,
    flush: FlushMethod,
    clock: Clock,
    pools: &Pools,
    effects: &mut Vec<Effect>,
) -> Result<(Shard, Recovered), NodeError> {
    let core = config.address.core;
    let now = clock.now();
    let (store, group) = thread::scope(|scope| {
        // Both take a second or more when a million images wait.
        let store = scope.spawn(|| StoreFound::open(config, dir, now));
        let group = (core == CoreId(0)).then(|| open_group(config, dir, now, effects)).transpose();
        (store.join().unwrap_or_else(|panic| resume_unwind(panic)), group)
    });
    let (StoreFound { store, mut repairs, broken }, group) = (store?, group?);
    let (found, group) = group.unzip();
    repairs.extend(found.iter().flat_map(GroupFound::repairs).cloned());
    let shard = Shard::of(config, store, group);
    // Whoever refuses changes nothing: the files are mended only now.
    ChunkFiles::mend(dir, core, &broken).map_err(|error| NodeError::Data { text: error.to_string() })?;
    repairs.iter().for_each(|repair| tracing::warn!("repaired: {repair}"));
    if let Some(forecast) = shard.forecast() {
        tell_outlook(&forecast);
    }
    let chunks = ChunkFiles::start(dir, core, pools.of_reads().clone()).await.map_err(|error| NodeError::Data {
        text: format!("{}: cannot open the chunk files: {error}", dir.view().core_dir(core).display()),
    })?;
    let mut recovered = Recovered { chunks, group: None, small: None };
    if let Some(found) = found {
        let device =
            LogDevice::start(flush, found.log, config.segment_bytes).await.map_err(|error| NodeError::Data {
                text: format!("{}: cannot open the log for writing: {error}", dir.view().log_dir().display()),
            })?;
        recovered.group = Some(GroupFiles {
            log: device,
            small: SmallWrites::default(),
            snapshots: Snapshots::new(SnapshotFiles::new(dir)),
        });
        recovered.small = Some(SmallFiles::new(dir));
    }
    Ok((shard, recovered))
}

/// The chunk files of a core as found.
struct StoreFound {
    store: RecoveredStore,
    repairs: Vec<Repair>,
    broken: Vec<FileId>,
}

impl StoreFound {
    /// Blocking.
    fn open(config: &ShardConfig, dir: &DataDir, now: Now) -> Result<StoreFound, NodeError> {
        let core = config.address.core;
        let found = ChunkFiles::load(dir, core).map_err(|error| NodeError::Data { text: error.to_string() })?;
        let repairs = found.iter().flat_map(|file| file.repairs.clone()).collect();
        let broken = found.iter().filter(|file| !file.repairs.is_empty()).map(|file| file.start.file).collect();
        let files: Vec<ChunkFileStart> = found.into_iter().map(|file| file.start).collect();
        let store = RecoveredStore::new(config, &files, room(dir.view(), files.len() as u64)?, now);
        Ok(StoreFound { store, repairs, broken })
    }
}

/// Blocking.
fn open_group(
    config: &ShardConfig,
    dir: &DataDir,
    now: Now,
    effects: &mut Vec<Effect>,
) -> Result<(GroupFound, RecoveredGroup), NodeError> {
    let found = GroupFound::open(dir)?;
    let group = RecoveredGroup::new(config, &found.start(), now, effects)
        .map_err(|error| NodeError::Recovery { text: format!("{}: {}", dir.view().path().display(), error.text) })?;
    Ok((found, group))
}

/// In the words of `helio log verify`.
fn tell_outlook(Forecast { outlook, unusable_snapshots }: &Forecast) {
    let unusable_snapshots: Vec<u64> = unusable_snapshots.iter().map(|index| index.0).collect();
    match outlook.evidence() {
        Some(evidence) => tracing::info!(?unusable_snapshots, %evidence, "found {outlook}"),
        None => tracing::info!(?unusable_snapshots, "found {outlook}"),
    }
}

fn room(dir: &DataDirView, files: u64) -> Result<Room, NodeError> {
    disk::chunk_files::room(dir, files).map_err(|error| NodeError::Data {
        text: format!("{}: free space cannot be read: {error}", dir.path().display()),
    })
}

/// Tells logic of nodes that cannot be reached, and the operator, once, of those that do not want us.
fn peer_events(own: NodeId, inputs: Rc<Inputs>, waiting: Rc<Waiting>, reached: missing::Reached) -> impl Fn(PeerEvent) {
    let refused: RefCell<HashMap<NodeId, Refusal>> = RefCell::default();
    move |event| match event {
        PeerEvent::Connected { to, .. } => {
            refused.borrow_mut().remove(&to.node);
            reached.borrow_mut().insert(to.node);
        }
        PeerEvent::Room { to, lane } => waiting.on_room((to, lane)),
        PeerEvent::Unreachable { node } => {
            waiting.forget(node);
            reached.borrow_mut().remove(&node);
            if node != own {
                inputs.push(Input::PeerUnreachable { node });
            }
        }
        PeerEvent::Refused { node, refusal, text } => {
            waiting.forget(node);
            reached.borrow_mut().remove(&node);
            if refused.borrow_mut().insert(node, refusal) != Some(refusal) {
                tracing::warn!(%node, ?refusal, text, "a node refuses links of this one");
            }
            if node != own {
                inputs.push(Input::PeerUnreachable { node });
            }
        }
    }
}

/// Starts what runs as long as the core does.
fn attend(core: &Rc<Core>, small: Option<SmallFiles>) {
    core.attend("tick", shard_loop::tick(core.clone()));
    core.attend("mesh", mesh::receive(core.clone()));
    core.attend("waiting", route::send_waiting(core.clone()));
    core.attend("space", disk_ops::watch_space(core.clone()));
    if let Some(small) = small {
        core.attend("small files", disk_ops::write_small_files(core.clone(), small));
        core.attend("snapshots", snapshots::carry_out(core.clone()));
    }
}

/// The listeners of core 0, accepting.
struct Listening {
    client: Rc<Listener>,
    peer: Rc<Listener>,
}

fn listen(core: &Rc<Core>, listeners: CoreListeners) -> Result<Listening, NodeError> {
    let refused = |role| move |error: link::ListenError| NodeError::Listen { role, text: error.to_string() };
    let client = Rc::new(listeners.client.adopt(listeners.clients_max).map_err(refused("clients"))?);
    let peer = Rc::new(listeners.peer.adopt(listeners.peers_max).map_err(refused("peers"))?);
    tracing::info!(node = core.me.node.0, clients = %client.address(), peers = %peer.address(), "listening");
    let (accepting, own) = (client.clone(), core.clone());
    core.attend("client listener", async move {
        accepting.run(move |accepted| clients::place(own.clone(), accepted)).await;
    });
    let (accepting, own) = (peer.clone(), core.clone());
    core.attend("peer listener", async move {
        accepting.run(move |accepted| links::place(own.clone(), accepted)).await;
    });
    Ok(Listening { client, peer })
}

/// Ends everything of this core: no task, socket or file operation is left when it returns.
async fn end(core: &Rc<Core>, listening: Option<Listening>) {
    core.background.stop().await;
    core.clients.close_all();
    within(FAREWELL, until(|| core.clients.count() == 0)).await;
    if let Some(listening) = listening {
        listening.client.stop().await;
        listening.peer.stop().await;
        drop(listening);
    }
    core.connections.stop().await;
    core.peers.stop().await;
    core.waiting.forget_all();
    // What the kernel has begun it may still write; the directory is given back only after that.
    within(OPERATIONS_END, until(|| core.operations.running() == 0)).await;
    core.operations.stop().await;
    snapshots::close(core).await;
    // Whoever waited for it may be gone.
    within(OPERATIONS_END, until(|| executor::blocking_under_way() == 0)).await;
    // Each look of the executor at its rings ends some of what was cancelled. Until then the kernel keeps the sockets, and
    // a ring that is thrown away keeps them for a while longer.
    for _ in 0..CANCEL_TURNS {
        breathe().await;
    }
    tracing::debug!(core = core.me.core.0, buffers = ?core.buffers.counts(), "core ended");
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        sleep(Duration::from_millis(2)).await;
    }
}

//! One core's whole logic: takes inputs, gives effects.

use std::fmt;
use std::sync::Arc;

use proto::ids::{Address, CoreId, LogIndex, NodeId, Term};

use crate::clients::Clients;
use crate::consensus::{Dropped, Standing};
use crate::context::{Context, Suspects, Tickets};
use crate::delivery::Delivery;
use crate::group::Group;
use crate::home::Home;
use crate::ingest::Ingest;
use crate::io::{CoreNote, Effect, FileId, Input, Now, Room, SegmentId, View};
use crate::mutant::Mutant;
use crate::outlook::Forecast;
use crate::requests::Requests;
use crate::stages::Stages;
use crate::store::chunks::Chunks;
use crate::store::space::Space;

/// An initial member as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialMember {
    /// Which node.
    pub node: NodeId,
    /// Where clients reach it.
    pub client_address: String,
    /// Where peers reach it.
    pub peer_address: String,
}

/// What a shard is told about itself once.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// This shard.
    pub address: Address,
    /// Cores of this node.
    pub cores: u16,
    /// For drawing election timeouts, nonces and first numbers, anew at each start. From the system's entropy; from the seed in the simulator.
    pub entropy: [u64; 4],
    /// The initial members, this node among them, the same on every node.
    pub members: Vec<InitialMember>,
    /// Copies of each image for acceptance; 0 for f + 1. Only read at bootstrap.
    pub copies: u8,
    /// Largest image. Only read at bootstrap.
    pub image_bytes_max: u64,
    /// Bytes of a log segment.
    pub segment_bytes: u32,
    /// Bytes of recent chunks this core keeps in memory to serve receivers.
    pub cache_bytes: u64,
    /// Bytes of the filesystem that chunk files never take: room for the log.
    pub reserve_bytes: u64,
    /// Incomplete uploads without any progress for this long may be dropped.
    pub upload_idle_us: u64,
    /// Sessions unused for this long (log time) end.
    pub session_idle_ms: u64,
    /// All stored chunks, the log and the snapshots are read again every so often, at the soonest; 0 for never.
    pub scrub_pass_us: u64,
    /// A node without cluster asks to be taken in again under a new incarnation, instead of waiting for the initial members.
    pub rejoin: bool,
}

/// What is on disk when the process starts.
#[derive(Debug)]
pub struct ShardStart<'a> {
    /// The chunk files of this core: their ids, and their header sector and slot table as read.
    pub files: Vec<ChunkFileStart>,
    /// What new chunk files may take.
    pub room: Room,
    /// What core 0 has beside that; `None` on every other core.
    pub group: Option<GroupStart<'a>>,
}

/// A chunk file as found.
#[derive(Debug)]
pub struct ChunkFileStart {
    /// Which file.
    pub file: FileId,
    /// First sector.
    pub header: Box<[u8; 512]>,
    /// `layout::TABLE_BYTES` bytes.
    pub table: Vec<u8>,
}

/// The files of the consensus group as found.
#[derive(Debug)]
pub struct GroupStart<'a> {
    /// Content of the identity file, if there is one.
    pub identity: Option<Vec<u8>>,
    /// The two copies of term and vote; `None` if the file does not exist.
    pub vote: Option<[Box<[u8; 512]>; 2]>,
    /// The segments in ascending order, mapped.
    pub segments: Vec<(SegmentId, &'a [u8])>,
    /// The file of round identifiers; empty if it does not exist.
    pub rounds: &'a [u8],
    /// The snapshots by index, ascending, whole.
    pub snapshots: Vec<(LogIndex, &'a [u8])>,
}

/// Why a node refuses to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartError {
    /// What is wrong, with facts and the remedy.
    pub text: String,
    /// Whether the node's memory of its log or votes is gone, so that being taken in again (`ShardConfig::rejoin`) is a remedy.
    pub is_amnesia: bool,
}

impl StartError {
    pub(crate) fn new(text: impl ToString) -> StartError {
        StartError { text: text.to_string(), is_amnesia: false }
    }

    pub(crate) fn amnesia(text: impl ToString) -> StartError {
        StartError { text: text.to_string(), is_amnesia: true }
    }
}

/// One core's logic.
pub struct Shard {
    me: Address,
    view: Arc<View>,
    suspects: Suspects,
    requests: Requests,
    tickets: Tickets,
    mutant: Mutant,
    stages: Stages,
}

/// What one core holds. For the simulator, which compares it with `limits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Load {
    /// Client connections (`CONNECTIONS_MAX`).
    pub connections: u64,
    /// Requests that wait for the leader (`REQUESTS_MAX`).
    pub requests: u64,
    /// Uploads passed on as ingest (`INGEST_UPLOADS_MAX`).
    pub ingest_uploads: u64,
    /// Uploads stored as home or holder (`HOME_UPLOADS_MAX`).
    pub home_uploads: u64,
    /// Image bytes in the store, or on their way into it.
    pub image_bytes: u64,
    /// Bytes of buffers in the cache (`ShardConfig::cache_bytes`).
    pub cache_bytes: u64,
    /// Chunks waiting for a chunk file (`WAITING_CHUNKS_MAX`).
    pub waiting_chunks: u64,
    /// Reads for other homes (`FETCHES_MAX`).
    pub fetches: u64,
    /// Images whose bytes come again from other holders.
    pub repairs: u64,
    /// As leader: records under way (`PENDING_MAX`).
    pub pending: u64,
    /// As leader: images admitted and not yet ready (`PENDING_MAX`).
    pub intents: u64,
    /// As leader: notices of too few holders (`GATHERED_MAX`).
    pub gathered: u64,
}

/// The store of a core as its chunk files tell. Whoever has a thread to spare recovers it beside the group.
pub struct RecoveredStore {
    home: Home,
}

impl RecoveredStore {
    /// Of files with `room` for more.
    pub fn new(config: &ShardConfig, files: &[ChunkFileStart], room: Room, now: Now) -> RecoveredStore {
        let tables: Vec<(FileId, &[u8])> = files.iter().map(|file| (file.file, file.table.as_slice())).collect();
        let (space, slots) = Space::recover(&tables, room, config.reserve_bytes);
        let chunks = Chunks::new(space, config.cache_bytes);
        RecoveredStore { home: Home::new(chunks, slots, config, now.mono_us) }
    }
}

/// The consensus group as its files tell.
pub struct RecoveredGroup {
    group: Group,
    tickets: Tickets,
}

impl RecoveredGroup {
    /// Of these files. `effects` receives what is to be done as soon as the shard is there.
    pub fn new(
        config: &ShardConfig,
        start: &GroupStart<'_>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Result<RecoveredGroup, StartError> {
        RecoveredGroup::recover(config, start, now, effects, Mutant::None)
    }

    fn recover(
        config: &ShardConfig,
        start: &GroupStart<'_>,
        now: Now,
        effects: &mut Vec<Effect>,
        mutant: Mutant,
    ) -> Result<RecoveredGroup, StartError> {
        let mut tickets = Tickets::default();
        let group = Group::new(config.clone(), start, now, tickets.next(), effects, mutant)?;
        Ok(RecoveredGroup { group, tickets })
    }
}

impl Shard {
    /// Recovers from what is on disk. `effects` receives what is to be done at once.
    pub fn new(
        config: ShardConfig,
        start: ShardStart<'_>,
        now: Now,
        effects: &mut Vec<Effect>,
    ) -> Result<Shard, StartError> {
        Shard::recover(config, start, now, effects, Mutant::None)
    }

    /// As `new`, but takes one wrong decision wherever it comes up. For the simulator.
    #[cfg(feature = "mutants")]
    pub fn with_mutant(
        config: ShardConfig,
        start: ShardStart<'_>,
        now: Now,
        effects: &mut Vec<Effect>,
        mutant: Mutant,
    ) -> Result<Shard, StartError> {
        Shard::recover(config, start, now, effects, mutant)
    }

    fn recover(
        config: ShardConfig,
        start: ShardStart<'_>,
        now: Now,
        effects: &mut Vec<Effect>,
        mutant: Mutant,
    ) -> Result<Shard, StartError> {
        let group = match &start.group {
            Some(group) => Some(RecoveredGroup::recover(&config, group, now, effects, mutant)?),
            None => None,
        };
        let store = RecoveredStore::new(&config, &start.files, start.room, now);
        Ok(Shard::assemble(&config, store, group, mutant))
    }

    /// Of what was recovered apart.
    pub fn of(config: &ShardConfig, store: RecoveredStore, group: Option<RecoveredGroup>) -> Shard {
        Shard::assemble(config, store, group, Mutant::None)
    }

    fn assemble(config: &ShardConfig, store: RecoveredStore, group: Option<RecoveredGroup>, mutant: Mutant) -> Shard {
        let me = config.address;
        assert_eq!(me.core == CoreId(0), group.is_some(), "core 0, and no other, has the group");
        let first = if mutant.is(Mutant::RequestIdAgain) { 0 } else { config.entropy[3] };
        let (group, tickets) = match group {
            Some(RecoveredGroup { group, tickets }) => (Some(group), tickets),
            None => (None, Tickets::default()),
        };
        let stages = Stages {
            clients: Clients::default(),
            ingest: Ingest::default(),
            home: store.home,
            delivery: Delivery::new(first),
            group,
            report_us: 0,
        };
        Shard {
            me,
            view: Arc::default(),
            suspects: Suspects::default(),
            requests: Requests::new(first),
            tickets,
            mutant,
            stages,
        }
    }

    /// The leader that this core knows; node 0 if none.
    pub fn leader(&self) -> NodeId {
        self.view.leader
    }

    /// What is under way here: uploads passed on, uploads stored, requests to the leader, image bytes in the store. For the
    /// simulator, which checks that nothing is held for ever.
    pub fn under_way(&self) -> [u64; 4] {
        let (uploads, _, image_bytes) = self.stages.home.counts();
        [self.stages.ingest.count(), uploads, self.requests.count(), image_bytes]
    }

    /// What this core holds. For the simulator, which checks every bound.
    pub fn load(&self) -> Load {
        let (home_uploads, _, image_bytes) = self.stages.home.counts();
        let load = Load {
            connections: self.stages.clients.count(),
            requests: self.requests.count(),
            ingest_uploads: self.stages.ingest.count(),
            home_uploads,
            image_bytes,
            cache_bytes: self.stages.home.chunks.cache_bytes(),
            waiting_chunks: self.stages.home.chunks.waiting(),
            fetches: self.stages.home.chunks.fetches() as u64,
            repairs: self.stages.home.repairs(),
            ..Load::default()
        };
        match &self.stages.group {
            Some(group) => group.load(load),
            None => load,
        }
    }

    /// How consensus stands: on core 0 of a member. For the simulator, which checks the rules of Raft.
    pub fn standing(&self) -> Option<Standing> {
        self.stages.group.as_ref()?.standing()
    }

    /// What was found at start, and what follows from it: on core 0, before the first step.
    pub fn forecast(&self) -> Option<Forecast> {
        self.stages.group.as_ref().map(Group::forecast)
    }

    /// Term and payload of the log's entry at `index`, on core 0 of a member, if it is still in memory. For the simulator,
    /// which checks that what is committed is the same everywhere, and true.
    pub fn entry(&self, index: LogIndex) -> Option<(Term, &[u8])> {
        self.stages.group.as_ref()?.entry(index)
    }

    /// Messages of peers that were not given to raft, on core 0 of a member. For the simulator: a correct peer sends none
    /// that is invalid.
    pub fn dropped(&self) -> Option<Dropped> {
        self.stages.group.as_ref()?.dropped()
    }

    /// Takes one input. Never waits, never fails; appends to `effects`.
    pub fn step(&mut self, now: Now, input: Input, effects: &mut Vec<Effect>) {
        let mut older = None;
        if let Input::Core { note: CoreNote::View(view), .. } = &input {
            older = Some(std::mem::replace(&mut self.view, Arc::clone(view)));
        }
        let mut cx = Context {
            now,
            me: self.me,
            view: &self.view,
            suspects: &mut self.suspects,
            requests: &mut self.requests,
            tickets: &mut self.tickets,
            mutant: self.mutant,
            out: effects,
        };
        match older {
            Some(older) => self.stages.on_view(&mut cx, &older),
            None => self.stages.step(&mut cx, input),
        }
    }
}

/// What is under way, for the traces of the simulator.
impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard")
            .field("me", &self.me)
            .field("leader", &self.view.leader)
            .field("contact", &self.view.contact)
            .field("requests", &self.requests)
            .field("ingest", &self.stages.ingest)
            .field("home", &self.stages.home)
            .field("delivery", &self.stages.delivery)
            .finish_non_exhaustive()
    }
}

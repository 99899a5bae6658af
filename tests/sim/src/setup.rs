//! How the nodes of a world are configured: small, so that segments roll over and caches overflow within a run.

use logic::shard::{InitialMember, ShardConfig};
use proto::ids::Address;

use crate::world::Plan;

/// Bytes of a log segment: one that lasts for a run, or one that is full soon, so that snapshots are made.
pub const SEGMENT_BYTES: [u32; 2] = [1 << 20, 16 << 10];

/// A session that is not used for so long ends.
pub const SESSION_IDLE_MS: u64 = 7 * 24 * 3_600_000;

/// Bytes of recent chunks a core keeps.
pub const CACHE_BYTES: u64 = 4 << 20;

/// All stored chunks, the log and the snapshots are read again this often.
const SCRUB_PASS_US: u64 = 10_000_000;

/// The configuration of one core.
pub fn shard_config(plan: &Plan, address: Address, members: &[InitialMember], entropy: [u64; 4]) -> ShardConfig {
    ShardConfig {
        address,
        cores: plan.cores,
        entropy,
        members: members.to_vec(),
        copies: 0,
        image_bytes_max: 64 << 20,
        segment_bytes: plan.segment_bytes,
        cache_bytes: CACHE_BYTES,
        reserve_bytes: 1 << 20,
        upload_idle_us: plan.upload_idle_us,
        session_idle_ms: SESSION_IDLE_MS,
        scrub_pass_us: SCRUB_PASS_US,
        rejoin: false,
    }
}

//! Bounds of what a shard keeps and does. The bounds of the protocols are in `proto::limits`.

/// Time between two `Input::Tick`.
pub const TICK_US: u64 = 50_000;
/// Silence after which a node is marked down, and after which a node without leader stops serving as home.
pub const DOWN_US: u64 = 600_000;
/// Inbox entries handed to a delivering core at once.
pub const INBOX_PULL_ENTRIES: usize = 64;

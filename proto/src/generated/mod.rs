//! Written by `schema/generate`; only this file is by hand. Private to the crate: nothing but `codec` may use it.

mod client_generated;
mod ids_generated;
mod peer_generated;
mod record_generated;
mod snapshot_generated;

pub use client_generated::{reply, request};
pub use ids_generated::ids;
pub use peer_generated::{answer, ask, link, peer};
pub use record_generated::record;
pub use snapshot_generated::snapshot;

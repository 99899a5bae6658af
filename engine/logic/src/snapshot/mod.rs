//! Snapshots of the replicated state: their file, and how one is read. Who makes, keeps and sends them: `group`.

pub mod layout;
mod load;

pub use layout::{LayoutError, SnapshotHeader};
pub(crate) use load::load_with;
pub use load::{Checking, LoadError, Loading, load};

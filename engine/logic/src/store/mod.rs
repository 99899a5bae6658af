//! The chunk store of one core: where chunks lie, which image they belong to, when their space is free again.

pub mod cache;
pub(crate) mod chunks;
pub mod header;
pub mod layout;
pub mod slot;
pub mod space;

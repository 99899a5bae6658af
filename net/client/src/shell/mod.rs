//! Blocking shells: std sockets and threads around the pure sessions.

pub mod client;
pub mod connection;
pub mod inbox;
pub mod options;
pub mod probe;
pub mod sender;
pub mod source;
pub mod store;
mod wire;

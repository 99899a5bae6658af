//! The sockets of `link` against each other, and against what does not keep the rules: real connections on loopback,
//! ports chosen by the kernel.
#![allow(clippy::unwrap_used, missing_docs)]

mod bodies;
mod hostile;
mod links;
mod listening;
mod meshes;
mod outboxes;
mod support;

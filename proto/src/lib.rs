//! What Heliograph says: identities, limits, and the messages of the client, peer and log protocols.
//!
//! Nothing here does I/O. Every message is an owned Rust value; `frame` turns bytes into a checked header, and the
//! codecs turn the flatbuffers meta of a frame into such a value or into an error, whatever the bytes are.
//! The body of a frame (image bytes) is never touched here: it stays where it was received.

pub mod check;
pub mod checksum;
pub mod client;
pub mod codec;
pub mod error;
pub mod frame;
pub mod ids;
pub mod limits;
pub mod name;
pub mod peer;
pub mod record;
pub mod ring;
#[cfg(any(test, feature = "samples"))]
pub mod samples;
pub mod snapshot;

// The only place of this crate with unsafe code; every buffer passes the verifier first.
#[allow(unsafe_code, missing_docs, unused, rust_2018_idioms, unused_qualifications, clippy::all, clippy::unwrap_used)]
#[allow(clippy::wildcard_imports)]
#[rustfmt::skip]
mod generated;

#[cfg(test)]
mod ring_test;
#[cfg(test)]
mod schema_test;

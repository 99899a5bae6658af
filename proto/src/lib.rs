//! What Heliograph says: identities, limits, and the messages of the client, peer and log protocols.
//!
//! Nothing here does I/O. Every message is an owned Rust value; `frame` turns bytes into a checked header, and the
//! codecs turn the flatbuffers meta of a frame into such a value or into an error, whatever the bytes are.
//! The body of a frame (image bytes) is never touched here: it stays where it was received.

pub mod checksum;
pub mod client;
pub mod error;
pub mod ids;
pub mod limits;
pub mod peer;
pub mod record;
pub mod ring;

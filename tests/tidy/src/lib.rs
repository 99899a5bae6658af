//! Checks of the tree itself: who may depend on whom, what each crate must never contain, which documents must exist.
//!
//! The checks are in `tests/`; they read the sources as text (`source` knows comments, strings and test modules) and
//! `cargo metadata --offline`; they build nothing and write nothing.

pub mod source;

//! Checks of the tree itself: who may depend on whom, what each crate must never contain, which documents must exist.
//!
//! Everything is in `tests/`; this library is empty. The checks read the sources as text (comments, strings and test
//! modules are known by `tests/source`) and `cargo metadata --offline`; they build nothing and write nothing.

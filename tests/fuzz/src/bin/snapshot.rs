//! See `fuzz::snapshot`.

#![no_main]

fuzz::target!(snapshot);

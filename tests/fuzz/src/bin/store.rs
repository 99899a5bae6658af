//! See `fuzz::store`.

#![no_main]

fuzz::target!(store);

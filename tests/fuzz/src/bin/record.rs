//! See `fuzz::record`.

#![no_main]

fuzz::target!(record);

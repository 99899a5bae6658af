//! See `fuzz::log`.

#![no_main]

fuzz::target!(log);

//! See `fuzz::frame`.

#![no_main]

fuzz::target!(frame);

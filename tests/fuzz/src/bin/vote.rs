//! See `fuzz::vote`.

#![no_main]

fuzz::target!(vote);

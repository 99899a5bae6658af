//! See `fuzz::identity`.

#![no_main]

fuzz::target!(identity);

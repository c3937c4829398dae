//! The session worker as a small program of its own.
#![forbid(unsafe_code)]

fn main() {}

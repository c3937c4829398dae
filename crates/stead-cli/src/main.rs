//! The `stead` command.
#![forbid(unsafe_code)]

fn main() {}

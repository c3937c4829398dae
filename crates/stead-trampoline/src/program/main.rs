//! The trampoline itself. It is executed by a server's child with the server's rights, takes on the
//! client's credentials, and executes the client's program. Everything that it does is told to it by its
//! arguments; its environment is the program's, passed through and never looked at.
//!
//! No libc, no allocation, no thread, no writable global: what cannot go wrong need not be checked.
#![no_std]
#![no_main]

#[path = "../kernel.rs"]
mod kernel;
#[path = "../report.rs"]
#[allow(dead_code)] // the host reads what this writes
mod report;
#[path = "../syscall.rs"]
#[macro_use]
#[allow(dead_code)] // the server's child makes calls of its own
mod syscall;
#[path = "../wire.rs"]
#[allow(dead_code)] // the host writes what this reads
mod wire;

mod defaults;
mod execute;
mod file;
mod runtime;
mod score;
mod steps;
mod supervise;
mod switch;

use steps::{At, Failure, Spec, Vector};

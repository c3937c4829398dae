//! The trampoline: a static program of a few KiB that takes on a client's credentials, checks them, and
//! executes the client's program.
//!
//! A server with many threads cannot change its credentials to create a process, and a child that shares
//! the server's memory must not: the client could stop it, and the change would clear the server's
//! dumpable flag. So the server's child executes this program first. It is still the server's in its
//! rights, in memory of its own, without libc, and single-threaded; it does everything that must happen
//! between `clone` and `execve`, and reports the step that failed.
//!
//! This library is the host's half: [`spec`] says what the program shall do, [`report`] what came of it,
//! [`IMAGE`] is the program itself.

pub mod kernel;
pub mod report;
pub mod spec;
pub mod syscall;

pub mod wire;

/// The program, an ELF executable for the machine that this crate is built for.
pub static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stead-trampoline"));

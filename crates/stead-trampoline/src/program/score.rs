//! The out-of-memory score adjustment, and that the client cannot choose one that protects it.
//!
//! Everybody may lower its own as far as the least that somebody with CAP_SYS_RESOURCE gave it (`oom_score_adj_min` of
//! `struct signal_struct`, which shows nowhere): the least of a server that its unit protects is what the unit says. Who has
//! that capability gives a new least with each write; without, it stays the server's, and the client would write the
//! server's score back.

use crate::file;
use crate::syscall::{Capabilities, Result, capabilities, errno, set_capabilities};

const CAP_SYS_RESOURCE: u64 = 1 << 24;
/// `OOM_SCORE_ADJ_MIN`.
const LEAST: i64 = -1000;

/// Sets it, and tries whether one below it, and below 0, can be had without a privilege: that must fail. (What is above 0
/// only offers the process up before others, and binds where the server has CAP_SYS_RESOURCE.) Says whether it would have
/// failed before, so that none of this server's processes can have one below 0.
pub fn bind(value: i64) -> Result<bool> {
    let opened = file::open(c"/proc/self/oom_score_adj", file::BOTH)?;
    let outcome = bind_open(opened, value);
    file::close(opened);
    outcome
}

fn bind_open(opened: u32, value: i64) -> Result<bool> {
    let beyond = value.min(0) - 1;
    let was_bound = beyond < LEAST || cannot_be(opened, beyond)?;
    file::write_number(opened, value)?;
    if !was_bound && !cannot_be(opened, beyond)? {
        return Err(errno::EPERM);
    }
    Ok(was_bound && value >= 0)
}

/// Whether somebody without privileges is refused this score.
fn cannot_be(opened: u32, value: i64) -> Result<bool> {
    let now = capabilities()?;
    set_capabilities(Capabilities { effective: now.effective & !CAP_SYS_RESOURCE, ..now })?;
    let written = file::write_number(opened, value);
    set_capabilities(now)?;
    match written {
        Ok(()) => Ok(false),
        Err(errno::EACCES) => Ok(true),
        Err(other) => Err(other),
    }
}

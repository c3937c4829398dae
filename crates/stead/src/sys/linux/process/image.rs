//! The trampoline's image: what the child executes.
//!
//! An installed file where there is one, which every system can execute; otherwise a sealed memfd, which
//! nobody can change, and which needs nothing installed. Both hold exactly the bytes that this library was
//! built with, so the two halves always speak the same version.
#![forbid(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use rustix::fs::{
    Access, AtFlags, FileType, MemfdFlags, Mode, OFlags, SealFlags, accessat, fcntl_add_seals, fstat,
    memfd_create,
};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use stead_trampoline::IMAGE;

use super::low_slot;
use super::report::{LaunchFault, prepare};
use crate::process::Stage;

/// Where an installed trampoline is looked for.
const INSTALLED: [&str; 2] = ["/usr/libexec/stead/stead-trampoline", "/usr/lib/stead/stead-trampoline"];

/// Of a fault in [`Stage::Prepare`]: the system executes no memfd (`vm.memfd_noexec`), and there is no
/// installed trampoline.
pub(super) const NOWHERE_TO_EXECUTE: u32 = 1;

/// The image, made at first use and kept; its descriptor is as low as could be had then.
pub(super) fn image() -> Result<BorrowedFd<'static>, LaunchFault> {
    static KEPT: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(kept) = KEPT.get() {
        return Ok(kept.as_fd());
    }
    let made = INSTALLED.iter().find_map(|path| installed(path)).map_or_else(sealed, Ok)?;
    // Never one of the standard numbers, which every child gets anew.
    let made = fcntl_dupfd_cloexec(made, 3).map_err(prepare)?;
    low_slot::reserve();
    Ok(KEPT.get_or_init(|| made).as_fd())
}

/// Keeps every low number of the descriptor table for this process's own.
pub(crate) fn occupy_low_descriptors() -> crate::Result<()> {
    // The lowest are for what each child needs.
    let occupied = image().and_then(|_| low_slot::occupy().map_err(prepare));
    occupied.map_err(|fault| fault.into_error("occupying the low descriptors", "", ""))
}

/// The file at `path`, if nobody but root can have written it and it is the very same program.
fn installed(path: &str) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    let status = fstat(&file).ok()?;
    let writable_by_others = status.st_mode & 0o022 != 0;
    let regular = FileType::from_raw_mode(status.st_mode) == FileType::RegularFile;
    if !regular || status.st_uid != 0 || writable_by_others {
        return None;
    }
    // Also says no where the file system is mounted noexec.
    accessat(rustix::fs::CWD, path, Access::EXEC_OK, AtFlags::EACCESS).ok()?;
    if usize::try_from(status.st_size) != Ok(IMAGE.len()) {
        return None;
    }
    let file = File::from(file);
    let mut bytes = vec![0; IMAGE.len()];
    file.read_exact_at(&mut bytes, 0).ok()?;
    (bytes == IMAGE).then(|| file.into())
}

fn sealed() -> Result<OwnedFd, LaunchFault> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memfd = match memfd_create("stead-trampoline", flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 every memfd could be executed, and the flag was unknown.
        Err(Errno::INVAL) => memfd_create("stead-trampoline", flags),
        made => made,
    };
    let denied = |errno| LaunchFault { stage: Stage::Prepare, errno, detail: NOWHERE_TO_EXECUTE };
    let memfd = File::from(memfd.map_err(|errno| match errno {
        Errno::ACCESS => denied(errno),
        other => prepare(other),
    })?);
    memfd.write_all_at(IMAGE, 0).map_err(|error| prepare(errno_of(&error)))?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&memfd, seals).map_err(prepare)?;
    // No right to write is left, and a memfd keeps none behind: the seal is the proof.
    Ok(memfd.into())
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

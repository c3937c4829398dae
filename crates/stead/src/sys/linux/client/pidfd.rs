//! What a pidfd tells of its process, now.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use stead_trampoline::system_call;

use crate::sys::proc;

/// The ids of a process as they are now: real, effective, saved, file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ids {
    pub(crate) pid: u32,
    pub(crate) uids: [u32; 4],
    pub(crate) gids: [u32; 4],
}

/// `struct pidfd_info` as of Linux 6.13 (include/uapi/linux/pidfd.h).
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    pid: u32,
    tgid: u32,
    parent: u32,
    real_uid: u32,
    real_gid: u32,
    effective_uid: u32,
    effective_gid: u32,
    saved_uid: u32,
    saved_gid: u32,
    file_system_uid: u32,
    file_system_gid: u32,
    exit_code: i32,
}

const PIDFD_INFO_PID: u64 = 1;
const PIDFD_INFO_CREDS: u64 = 2;

/// `_IOWR(0xFF, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: libc::Ioctl =
    ((3 << 30) | (size_of::<PidfdInfo>() << 16) | (0xFF << 8) | 0xB) as libc::Ioctl;

/// Whether the process has ended, reaped or not.
pub(crate) fn has_ended(pidfd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut watched = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    // Any event means the end: POLLIN from its exit on, POLLHUP once it is reaped (Linux 6.9).
    let ready = rustix::io::retry_on_intr(|| poll(&mut watched, Some(&Timespec::default())))?;
    Ok(ready != 0)
}

/// The ids of the process now; `None` when it has ended.
///
/// `pid` is what it was called when the pidfd was had; without PIDFD_GET_INFO (Linux 6.13) it is the way to
/// its status, which counts only if the process is still there afterwards.
pub(crate) fn ids(pidfd: BorrowedFd<'_>, pid: Option<u32>) -> io::Result<Option<Ids>> {
    let found = match info(pidfd) {
        Ok(found) => found,
        Err(error) => match error.raw_os_error() {
            Some(libc::ESRCH) => return Ok(None),
            // What kernels and filters without it answer.
            Some(libc::ENOTTY | libc::EINVAL | libc::EPERM | libc::ENOSYS) => {
                match pid.map_or_else(|| pid_of(pidfd), Ok).and_then(ids_of) {
                    Ok(found) => found,
                    // No pidfd at all, whose readiness would mean nothing.
                    Err(error) if error.raw_os_error() == Some(libc::EBADF) => return Err(error),
                    Err(_) if has_ended(pidfd)? => return Ok(None),
                    Err(error) => return Err(error),
                }
            }
            _ => return Err(error),
        },
    };
    Ok((!has_ended(pidfd)?).then_some(found))
}

fn info(pidfd: BorrowedFd<'_>) -> io::Result<Ids> {
    let wanted = PIDFD_INFO_PID | PIDFD_INFO_CREDS;
    let mut info = PidfdInfo { mask: wanted, ..PidfdInfo::default() };
    // SAFETY: the request's number carries the size of `PidfdInfo`, of which the kernel fills no more; every
    // bit pattern is a valid `PidfdInfo`. A descriptor that is no pidfd answers ENOTTY or EINVAL, for no
    // other driver has this magic number with this size.
    unsafe { system_call!(IOCTL, pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut info) }
        .map_err(io::Error::from_raw_os_error)?;
    if info.mask & wanted != wanted {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    Ok(Ids {
        pid: info.tgid,
        uids: [info.real_uid, info.effective_uid, info.saved_uid, info.file_system_uid],
        gids: [info.real_gid, info.effective_gid, info.saved_gid, info.file_system_gid],
    })
}

/// The ids of the process that is called so now, by its status.
pub(crate) fn ids_of(pid: u32) -> io::Result<Ids> {
    let path = format!("/proc/{pid}/status");
    let text = proc::read_at(rustix::fs::CWD, &path)?;
    let status = proc::parse_status(&text).ok_or_else(|| proc::malformed(&path))?;
    Ok(Ids { pid, uids: status.uids, gids: status.gids })
}

/// The pid of a pidfd's process, from its fdinfo.
fn pid_of(pidfd: BorrowedFd<'_>) -> io::Result<u32> {
    let path = format!("/proc/thread-self/fdinfo/{}", pidfd.as_raw_fd());
    let text = proc::read_at(rustix::fs::CWD, &path)?;
    let pid = proc::parse_fdinfo(&text, b"Pid").ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?;
    // -1: ended and reaped; 0: not visible from here.
    u32::try_from(pid).ok().filter(|pid| *pid != 0).ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
}

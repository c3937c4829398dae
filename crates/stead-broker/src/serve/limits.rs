//! Limits by their names, those of the service, and those of a caller.

use stead::os::linux::Limit;
use stead_protocol::{Failure, ProcessLimit};

use super::caller::Caller;
use super::failure::system;
use rustix::process::Resource;

/// Each limit, the kernel's, and its name in `/proc/PID/limits`.
const LIMITS: [(Limit, Resource, &str); 16] = [
    (Limit::CpuTime, Resource::Cpu, "Max cpu time"),
    (Limit::FileSize, Resource::Fsize, "Max file size"),
    (Limit::Data, Resource::Data, "Max data size"),
    (Limit::Stack, Resource::Stack, "Max stack size"),
    (Limit::Core, Resource::Core, "Max core file size"),
    (Limit::ResidentSet, Resource::Rss, "Max resident set"),
    (Limit::Processes, Resource::Nproc, "Max processes"),
    (Limit::OpenFiles, Resource::Nofile, "Max open files"),
    (Limit::LockedMemory, Resource::Memlock, "Max locked memory"),
    (Limit::AddressSpace, Resource::As, "Max address space"),
    (Limit::Locks, Resource::Locks, "Max file locks"),
    (Limit::PendingSignals, Resource::Sigpending, "Max pending signals"),
    (Limit::MessageQueues, Resource::Msgqueue, "Max msgqueue size"),
    (Limit::Nice, Resource::Nice, "Max nice priority"),
    (Limit::RealtimePriority, Resource::Rtprio, "Max realtime priority"),
    (Limit::RealtimeTime, Resource::Rttime, "Max realtime timeout"),
];

/// Descriptors that the service may have open where its hard limit lets it: a few for each connection and process.
const ROOM: u64 = 65_536;

/// Lets the service have more descriptors than the usual 1024 of a unit, which is for programs that use select(2).
pub(super) fn make_room() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let most = limit.maximum.map_or(ROOM, |hard| hard.min(ROOM));
    if limit.current.is_some_and(|soft| soft < most) {
        let raised = rustix::process::Rlimit { current: Some(most), ..limit };
        if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "the limit of descriptors could not be raised");
        }
    }
}

/// A limit that is asked for, soft and hard; or why there is none.
pub(super) fn asked(asked: &ProcessLimit) -> Result<(Limit, u64, u64), String> {
    let limit = by_name(&asked.name).ok_or_else(|| format!("there is no limit {:?}", asked.name))?;
    Ok((limit, asked.soft.unwrap_or(Limit::UNLIMITED), asked.hard.unwrap_or(Limit::UNLIMITED)))
}

/// The limit of this name in the manual page.
fn by_name(name: &str) -> Option<Limit> {
    LIMITS.iter().find(|(limit, ..)| limit.name() == name).map(|(limit, ..)| *limit)
}

/// The service's own hard limit.
pub(super) fn own(limit: Limit) -> u64 {
    let found = LIMITS.iter().find(|(one, ..)| *one == limit);
    found
        .and_then(|(_, resource, _)| rustix::process::getrlimit(*resource).maximum)
        .unwrap_or(Limit::UNLIMITED)
}

/// The caller's limits, none above the service's own: soft and hard.
pub(super) fn of_caller(caller: &Caller) -> Result<Vec<(Limit, u64, u64)>, Failure> {
    const DOING: &str = "reading the caller's limits";
    let gone = || system(DOING, "read", std::io::Error::other("the caller has ended"));
    let text = std::fs::read_to_string(format!("/proc/{}/limits", caller.pid))
        .map_err(|error| system(DOING, "read", error))?;
    // The number was the caller's if the caller is still there.
    let pidfd = caller.pidfd().ok_or_else(gone)?;
    let mut watched = [rustix::event::PollFd::from_borrowed_fd(pidfd, rustix::event::PollFlags::IN)];
    let ended = rustix::event::poll(&mut watched, Some(&rustix::event::Timespec::default()));
    if ended.map_err(|errno| system(DOING, "poll", errno))? != 0 {
        return Err(gone());
    }
    let malformed = || system(DOING, "read", std::io::Error::other("/proc says what no kernel says"));
    parse(&text).ok_or_else(malformed)
}

fn parse(text: &str) -> Option<Vec<(Limit, u64, u64)>> {
    LIMITS
        .iter()
        .map(|(limit, _, name)| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            let mut words = line.split_ascii_whitespace();
            let mut number = || match words.next()? {
                "unlimited" => Some(Limit::UNLIMITED),
                digits => digits.parse().ok(),
            };
            let (soft, hard) = (number()?, number()?);
            let most = own(*limit);
            Some((*limit, soft.min(most), hard.min(most)))
        })
        .collect()
}

/// Any table of limits: none that is read is above the service's own.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(data: &[u8]) {
    for (limit, soft, hard) in parse(&String::from_utf8_lossy(data)).unwrap_or_default() {
        assert!(soft <= own(limit) && hard <= own(limit), "{limit:?}: {soft} {hard}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_table_is_read() {
        let limits = parse(&std::fs::read_to_string("/proc/self/limits").unwrap()).unwrap();
        assert_eq!(limits.len(), LIMITS.len());
        for (limit, soft, hard) in limits {
            assert_eq!(hard, own(limit), "{limit:?}");
            assert!(soft <= hard, "{limit:?}");
        }
    }
}

//! What a process has for as long as its tree lives: its access to a desktop, and its user's profile. It is given back
//! by a thread of its own, whether or not anybody waits for the process.

use std::collections::BTreeMap;
use std::io;
use std::os::windows::io::{AsRawHandle, FromRawHandle, OwnedHandle};
use std::ptr::null_mut;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use windows_sys::Win32::Foundation::INVALID_HANDLE_VALUE;
use windows_sys::Win32::System::IO::{
    CreateIoCompletionPort, GetQueuedCompletionStatus, PostQueuedCompletionStatus,
};
use windows_sys::Win32::System::SystemServices::JOB_OBJECT_MSG_ACTIVE_PROCESS_ZERO;
use windows_sys::Win32::System::Threading::INFINITE;

use super::job::Job;
use super::profile::Profile;
use crate::desktop::AccessLease;

/// How often the processes are counted: the message that a job has none left is not guaranteed to come
/// ([JOBOBJECT_ASSOCIATE_COMPLETION_PORT](https://learn.microsoft.com/windows/win32/api/winnt/ns-winnt-jobobject_associate_completion_port)).
const PAUSE: Duration = Duration::from_secs(1);

/// How long somebody who has seen the process end waits for its job to have seen it too.
const SETTLING: Duration = Duration::from_millis(100);

/// What is given back, in this order.
#[derive(Debug, Default)]
pub(super) struct Leased {
    pub(super) lease: Option<AccessLease>,
    pub(super) profile: Option<Profile>,
}

/// The same, shared by the child and the thread: whoever finds the tree empty first gives it back.
#[derive(Debug, Clone, Default)]
pub(super) struct Keeper(Option<Arc<Kept>>);

#[derive(Debug)]
struct Kept {
    job: Job,
    leased: Mutex<Option<Leased>>,
}

impl Kept {
    /// What is to be given back, if the tree is empty; nothing in it where somebody gives that back already.
    fn taken_if_empty(&self) -> Option<Leased> {
        // A job that does not tell is one that cannot be waited for.
        if self.job.processes().is_ok_and(|count| count > 0) {
            return None;
        }
        Some(self.leased.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default())
    }
}

impl Keeper {
    /// Keeps it until `job`, in which a process is already, has none left.
    pub(super) fn new(job: &Job, leased: Leased) -> io::Result<Self> {
        if leased.lease.is_none() && leased.profile.is_none() {
            return Ok(Self(None));
        }
        let kept = Arc::new(Kept { job: job.try_clone()?, leased: Mutex::new(Some(leased)) });
        watch(&kept)?;
        Ok(Self(Some(kept)))
    }

    /// Gives it back at once where the process that has just ended was the last of its tree.
    pub(super) fn ended(&mut self) {
        let Some(kept) = &self.0 else { return };
        let until = Instant::now() + SETTLING;
        let taken = loop {
            if let Some(taken) = kept.taken_if_empty() {
                break taken;
            }
            if Instant::now() > until {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        drop(taken);
        self.0 = None;
    }
}

/// The thread's side.
struct Watch {
    port: OwnedHandle,
    all: Mutex<BTreeMap<usize, Arc<Kept>>>,
}

fn watch(kept: &Arc<Kept>) -> io::Result<()> {
    static WATCH: OnceLock<Watch> = OnceLock::new();
    static STARTED: Mutex<bool> = Mutex::new(false);
    let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
    if !*started {
        let port = new_port()?;
        let watch = WATCH.get_or_init(|| Watch { port, all: Mutex::default() });
        std::thread::Builder::new().name("stead-leases".into()).spawn(move || run(watch))?;
        *started = true;
    }
    drop(started);
    let Some(watch) = WATCH.get() else { return Err(io::ErrorKind::NotConnected.into()) };
    let key = {
        let mut all = watch.all.lock().unwrap_or_else(PoisonError::into_inner);
        let key = all.last_key_value().map_or(1, |(last, _)| last + 1);
        all.insert(key, Arc::clone(kept));
        key
    };
    // Without the message it is still counted.
    let _ = kept.job.tell(watch.port.as_raw_handle(), key);
    // The thread may be waiting without a limit.
    // SAFETY: the port is open; no structure goes with the message.
    let posted = unsafe { PostQueuedCompletionStatus(watch.port.as_raw_handle(), 0, 0, null_mut()) };
    if posted == 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn new_port() -> io::Result<OwnedHandle> {
    // SAFETY: no file and no port are given: a new port.
    let raw = unsafe { CreateIoCompletionPort(INVALID_HANDLE_VALUE, null_mut(), 0, 1) };
    if raw.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so the handle is new and nobody else's.
    Ok(unsafe { OwnedHandle::from_raw_handle(raw) })
}

/// Which trees are counted.
#[derive(Debug, PartialEq, Eq)]
enum Due {
    None,
    One(usize),
    All,
}

/// A job tells of each process that begins and ends, and a tree can begin and end them quickly: only the last one's
/// end is a reason to count, and all are counted once in a while.
fn due(message: u32, key: usize, since: Duration) -> Due {
    match message {
        _ if since >= PAUSE => Due::All,
        JOB_OBJECT_MSG_ACTIVE_PROCESS_ZERO if key != 0 => Due::One(key),
        _ => Due::None,
    }
}

/// Never ends: a server that has leased once may do so again.
fn run(watch: &Watch) {
    let mut counted = Instant::now();
    loop {
        let idle = watch.all.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        let (mut message, mut key, mut overlapped) = (0, 0, null_mut());
        // SAFETY: the port is open; the three are written only by this call. What a job sends goes with a number in
        // the place of a pointer, which nobody follows.
        unsafe {
            GetQueuedCompletionStatus(
                watch.port.as_raw_handle(),
                &raw mut message,
                &raw mut key,
                &raw mut overlapped,
                if idle { INFINITE } else { milliseconds(PAUSE.saturating_sub(counted.elapsed())) },
            );
        }
        let due = due(message, key, counted.elapsed());
        if due == Due::None {
            continue;
        }
        if due == Due::All {
            counted = Instant::now();
        }
        let those: Vec<(usize, Arc<Kept>)> = {
            let all = watch.all.lock().unwrap_or_else(PoisonError::into_inner);
            let those = all.iter().filter(|(key, _)| due == Due::All || due == Due::One(**key));
            those.map(|(key, kept)| (*key, Arc::clone(kept))).collect()
        };
        for (key, kept) in those {
            let Some(leased) = kept.taken_if_empty() else { continue };
            watch.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            if leased.lease.is_some() || leased.profile.is_some() {
                // A profile on another machine, or a session that does not answer, holds up no other's. Where there
                // is no thread to be had, it is given back here: what was to run there is dropped.
                let thread = std::thread::Builder::new().name("stead-lease".into());
                let _ = thread.spawn(move || drop(leased));
            }
        }
    }
}

/// Not less than one, by which time it is over.
fn milliseconds(patience: Duration) -> u32 {
    u32::try_from(patience.as_millis()).unwrap_or(INFINITE - 1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use windows_sys::Win32::System::SystemServices::JOB_OBJECT_MSG_NEW_PROCESS;

    #[test]
    fn a_tree_that_begins_and_ends_processes_has_no_tree_counted_for_each() {
        let (soon, late) = (Duration::from_millis(3), PAUSE);
        assert_eq!(due(JOB_OBJECT_MSG_NEW_PROCESS, 7, soon), Due::None);
        assert_eq!(due(0, 0, soon), Due::None, "nothing came, or another lease did");
        assert_eq!(due(JOB_OBJECT_MSG_ACTIVE_PROCESS_ZERO, 7, soon), Due::One(7));
        for message in [0, JOB_OBJECT_MSG_NEW_PROCESS, JOB_OBJECT_MSG_ACTIVE_PROCESS_ZERO] {
            assert_eq!(due(message, 7, late), Due::All, "{message}");
        }
        assert_eq!([milliseconds(Duration::ZERO), milliseconds(PAUSE)], [1, 1000]);
    }
}

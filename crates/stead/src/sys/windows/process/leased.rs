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
use windows_sys::Win32::System::Threading::INFINITE;

use super::job::Job;
use super::profile::Profile;
use crate::desktop::AccessLease;

/// How often the processes are counted: the message that a job has none left is not guaranteed to come
/// ([JOBOBJECT_ASSOCIATE_COMPLETION_PORT](https://learn.microsoft.com/windows/win32/api/winnt/ns-winnt-jobobject_associate_completion_port)).
const PAUSE: u32 = 1000;

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
    /// Gives it back if the tree is empty.
    fn give_back_if_empty(&self) -> bool {
        // A job that does not tell is one that cannot be waited for.
        if self.job.processes().is_ok_and(|count| count > 0) {
            return false;
        }
        let leased = self.leased.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(leased);
        true
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
        while !kept.give_back_if_empty() {
            if Instant::now() > until {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
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

/// Never ends: a server that has leased once may do so again.
fn run(watch: &Watch) {
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
                if idle { INFINITE } else { PAUSE },
            );
        }
        let all: Vec<(usize, Arc<Kept>)> = {
            let all = watch.all.lock().unwrap_or_else(PoisonError::into_inner);
            all.iter().map(|(key, kept)| (*key, Arc::clone(kept))).collect()
        };
        for (key, kept) in all {
            if kept.give_back_if_empty() {
                watch.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            }
        }
    }
}

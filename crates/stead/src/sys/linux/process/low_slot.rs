//! A low way into the child for descriptors that are high in the server's table.
//!
//! The child starts with the server's descriptor table and leaves it behind with `close_range`, which
//! copies everything below the highest number that the child needs: with 15,000 open descriptors that is
//! 1.6 ms. So descriptors above [`LOW`] are sent through a socket whose number is low.
//!
//! What is copied is closed again when the child executes, and closing is asking: a file system of a client's (FUSE) need
//! not answer, and the child waits, uninterruptibly (`fuse_flush` in fs/fuse/file.c). A server that is handed descriptors
//! by clients therefore [occupies](occupy) the low numbers before: then nothing of theirs is ever copied.
#![forbid(unsafe_code)]

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::io::{DupFlags, Errno, dup3};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg,
    socketpair,
};

/// Numbers below this are copied faster than anything could be sent.
pub(super) const LOW: i32 = 64;

/// Most descriptors in one message (`SCM_MAX_FD`, net/core/scm.c).
pub(super) const MOST_IN_ONE: usize = 253;

/// Slots kept: as many children as can be on their way at once without another being made.
const KEPT: usize = 8;

/// A pair of sockets: descriptors are sent by the server and received by its child.
#[derive(Debug)]
pub(super) struct Slot {
    send: OwnedFd,
    receive: OwnedFd,
    /// The process that made it. After a fork the pair is shared, and one could receive what the other
    /// sent.
    owner: u32,
    /// Something was sent that nobody received, and a new pair could not be had.
    stale: bool,
}

static POOL: Mutex<Vec<Slot>> = Mutex::new(Vec::new());

/// A slot was put back.
static PUT_BACK: Condvar = Condvar::new();

/// Every low number is this process's own: a new slot would be a high one.
static OCCUPIED: AtomicBool = AtomicBool::new(false);

/// How long a child waits for another's slot: those on their way are so for some hundred microseconds.
const PATIENCE: Duration = Duration::from_secs(1);

impl Slot {
    /// One from the pool, or a new one.
    pub(super) fn take() -> Result<Self, Errno> {
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        if OCCUPIED.load(Ordering::Relaxed) {
            let waited = PUT_BACK.wait_timeout_while(pool, PATIENCE, |pool| pool.is_empty());
            pool = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let here = std::process::id();
        // Those that were inherited by a fork are closed, here and not there.
        pool.retain(|slot| slot.owner == here);
        // The lowest is the cheapest.
        pool.sort_unstable_by_key(|slot| std::cmp::Reverse(slot.receive.as_raw_fd()));
        let Some(mut slot) = pool.pop() else { return Self::another() };
        if slot.stale
            && let Err(errno) = slot.renew()
        {
            pool.push(slot);
            return Err(errno);
        }
        Ok(slot)
    }

    /// A new one. With a high number the child would copy what is below it, which may be anybody's.
    fn another() -> Result<Self, Errno> {
        let slot = Self::new()?;
        let high = OCCUPIED.load(Ordering::Relaxed) && slot.number() >= LOW;
        if high { Err(Errno::AGAIN) } else { Ok(slot) }
    }

    fn new() -> Result<Self, Errno> {
        let (receive, send) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok(Self { send, receive, owner: std::process::id(), stale: false })
    }

    /// Puts it back. What was sent and not `received` would reach the next child: then it becomes a new one, at the
    /// same numbers, of which nobody else gets one meanwhile; at the latest when it is taken again.
    pub(super) fn put_back(mut self, received: bool) {
        self.stale = !received && self.renew().is_err();
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.len() < KEPT {
            pool.push(self);
        }
        drop(pool);
        PUT_BACK.notify_one();
    }

    fn renew(&mut self) -> Result<(), Errno> {
        let new = Self::new()?;
        dup3(&new.send, &mut self.send, DupFlags::CLOEXEC)?;
        dup3(&new.receive, &mut self.receive, DupFlags::CLOEXEC)?;
        self.stale = false;
        Ok(())
    }

    /// The number that the child receives from.
    pub(super) fn number(&self) -> i32 {
        self.receive.as_raw_fd()
    }

    /// Sends descriptors; the child receives them in this order, at most [`MOST_IN_ONE`] in a message.
    pub(super) fn send(&self, descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        for some in descriptors.chunks(MOST_IN_ONE) {
            let mut room = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_IN_ONE))];
            let mut control = SendAncillaryBuffer::new(&mut room);
            let pushed = control.push(SendAncillaryMessage::ScmRights(some));
            debug_assert!(pushed, "the buffer has room for {MOST_IN_ONE}");
            // Never waits: a message of one byte in an empty socket.
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            if sendmsg(&self.send, &[IoSlice::new(b"d")], &mut control, flags)? != 1 {
                return Err(Errno::IO);
            }
        }
        Ok(())
    }
}

/// Fills the pool while low numbers may still be free: a server opens most of its descriptors later.
pub(super) fn reserve() {
    const RESERVED: usize = 4;
    let made: Vec<Slot> = (0..RESERVED).map_while(|_| Slot::new().ok()).collect();
    for slot in made {
        slot.put_back(true);
    }
}

/// Takes every low number that is free, for as long as the process lives: half a dozen slots more, and the null device.
pub(super) fn occupy() -> Result<(), Errno> {
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    while pool.len() < KEPT {
        pool.push(Slot::new()?);
    }
    drop(pool);
    loop {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let null = rustix::fs::open("/dev/null", flags, Mode::empty())?;
        if null.as_raw_fd() >= LOW {
            break;
        }
        // Its number is what it is for.
        std::mem::forget(null);
    }
    OCCUPIED.store(true, Ordering::Relaxed);
    Ok(())
}

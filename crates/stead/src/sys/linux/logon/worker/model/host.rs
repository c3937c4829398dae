//! What the worker's loop asks of the system, asked of the model.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::Uid;
use zeroize::Zeroizing;

use super::kernel::OF_PAM;
use super::world::{Event, World, descriptor, raw, world};
use crate::process::Stage;
use crate::sys::logon::message::{Reply, Request};
use crate::sys::logon::wire::Frame;
use crate::sys::process::{Launch, LaunchFault, Started};

pub(super) fn fails() -> io::Error {
    io::Error::from_raw_os_error(libc::EMFILE)
}

/// A call that changes something; one that lies changes nothing.
fn change(act: impl FnOnce(&mut World)) -> io::Result<()> {
    world(|world| match world.turn() {
        Some(Event::Fails) => Err(fails()),
        Some(Event::Lies) => Ok(()),
        _ => {
            act(world);
            Ok(())
        }
    })
}

pub(super) fn become_subreaper() -> io::Result<()> {
    change(World::becomes_subreaper)
}

pub(super) fn signals() -> io::Result<OwnedFd> {
    change(|_| ()).map(|()| descriptor())
}

pub(super) fn next_signal(_signals: &OwnedFd) -> Option<i32> {
    world(|world| {
        world.turn();
        world.next_signal()
    })
}

pub(super) fn give_signals_back() {
    world(World::turn);
}

pub(super) fn fix_ignored_signals() {
    world(World::turn);
}

pub(super) fn listen(_path: &CStr, _server: Uid) -> io::Result<OwnedFd> {
    change(|world| world.listening = true).map(|()| descriptor())
}

pub(super) fn unlink(_path: &CStr, _server: Uid) {
    world(|world| {
        world.turn();
        world.listening = false;
    });
}

pub(super) fn wait<const N: usize>(
    sources: [Option<BorrowedFd<'_>>; N],
    timeout: Option<Duration>,
) -> [bool; N] {
    let numbers: Vec<_> = sources.iter().map(|source| source.map(|one| one.as_raw_fd())).collect();
    let numbers = numbers.try_into().expect("the loop waits for four things");
    let ready = world(|world| {
        world.done();
        world.nobody_was_told_too_early();
        if world.turn() == Some(Event::Fails) {
            return [false; 4];
        }
        let ready = world.ready(numbers);
        if ready.contains(&true) {
            return ready;
        }
        match timeout {
            Some(time) => world.clock += time,
            None => world.goes_on(),
        }
        ready
    });
    std::array::from_fn(|index| ready[index])
}

pub(super) fn accept(_listener: &OwnedFd) -> io::Result<(OwnedFd, Uid)> {
    world(|world| {
        let failed = world.turn() == Some(Event::Fails);
        let (uid, says) = world.accept().filter(|_| !failed).ok_or_else(fails)?;
        let socket = descriptor();
        world.connect(raw(&socket), says, None);
        Ok((socket, Uid::from_raw(uid)))
    })
}

pub(super) fn be_patient(_socket: &OwnedFd, _time: Option<Duration>) -> io::Result<()> {
    change(|_| ())
}

pub(super) fn send(socket: &OwnedFd, reply: &Reply) -> io::Result<()> {
    world(|world| {
        let event = world.turn();
        if event == Some(Event::Fails) || world.is_hung_up(raw(socket)) {
            world.done();
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        world.told(reply.clone());
        Ok(())
    })
}

pub(super) fn receive(socket: &OwnedFd) -> io::Result<Option<Frame>> {
    world(|world| {
        let event = world.turn();
        let Some(request) = world.hears(raw(socket)) else { return Ok(None) };
        let (kind, body) = request.encode();
        let descriptors: Vec<OwnedFd> = match &request {
            Request::Launch(launch) => {
                let told = launch.watched.then(|| world.watch());
                launch.targets.iter().map(|_| descriptor()).chain(told).collect()
            }
            Request::Attach => vec![descriptor()],
            _ => Vec::new(),
        };
        if let (Request::Attach, Some(process)) = (&request, descriptors.first()) {
            world.has_process(raw(socket), raw(process));
        }
        match event {
            Some(Event::Fails) => Err(fails()),
            Some(Event::Lies) => {
                Ok(Some(Frame { kind: u8::MAX, body: Zeroizing::default(), descriptors, truncated: false }))
            }
            _ => {
                world.understood(&request);
                Ok(Some(Frame { kind, body, descriptors, truncated: false }))
            }
        }
    })
}

pub(super) fn receive_or_tell(socket: &OwnedFd) -> io::Result<Option<Frame>> {
    receive(socket)
}

pub(super) fn has_children() -> bool {
    world(|world| {
        world.turn();
        !world.children().is_empty()
    })
}

pub(super) fn collect_any() -> Option<(i32, i32)> {
    world(|world| {
        world.turn();
        world.collect()
    })
}

pub(super) fn slim() {
    world(World::turn);
}

pub(super) fn launch(launch: &Launch) -> Result<Started, LaunchFault> {
    assert_eq!(launch.spec.limits, [OF_PAM], "every process has the limits that PAM set");
    world(|world| {
        let event = world.turn();
        if event == Some(Event::Fails) {
            return Err(LaunchFault { stage: Stage::Clone, errno: Errno::AGAIN, detail: 0 });
        }
        let pid = world.launches(launch.spec.credentials.clone(), event == Some(Event::Lies));
        Ok(Started { pid, pidfd: descriptor() })
    })
}

pub(super) fn now() -> Instant {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    *BEGAN + world(|world| world.clock)
}

pub(super) fn pause(time: Duration) {
    world(|world| {
        world.turn();
        world.clock += time;
    });
}

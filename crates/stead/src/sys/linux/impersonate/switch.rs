//! The switch to a client's ids and back, each step checked, the whole read back.
#![forbid(unsafe_code)]

use std::cell::Cell;
use std::rc::Rc;

use super::thread::{
    Capabilities, Fault, Ids, Triple, control, parent_death_signal, raw_gids, read_groups, set_effective_gid,
    set_effective_uid, set_fsgid, set_fsuid, set_gids, set_groups, set_uids,
};
use crate::sys::token::SecurityContext;

/// `SECBIT_NO_SETUID_FIXUP` of linux/securebits.h.
const NO_SETUID_FIXUP: u64 = 1 << 2;

/// What the calling thread is before it impersonates, to be put back exactly.
#[derive(Debug, PartialEq)]
pub(super) struct Server {
    pub(super) ids: Ids,
    parent_death_signal: i32,
    /// In the kernel's order.
    pub(super) groups: Vec<u32>,
    /// Whether the kernel was seen to make the process undumpable by itself.
    dumpable_cleared: Cell<bool>,
}

impl Server {
    /// Reads the calling thread; the one that was read `before` serves again where it is the same, so that
    /// nothing is allocated.
    pub(super) fn read(before: Option<Rc<Self>>, groups: &mut Vec<u32>) -> Result<Rc<Self>, Fault> {
        let ids = Ids::read()?;
        let parent_death_signal = parent_death_signal()?;
        read_groups(groups)?;
        match before {
            Some(same)
                if same.ids == ids
                    && same.parent_death_signal == parent_death_signal
                    && same.groups == *groups =>
            {
                Ok(same)
            }
            _ => Ok(Rc::new(Self {
                ids,
                parent_death_signal,
                groups: groups.clone(),
                dumpable_cleared: Cell::new(false),
            })),
        }
    }

    /// Whether the kernel would take the thread's permitted capabilities for good when its effective uid
    /// changes between its own and `client`'s: it does so when one of real, effective and saved uid was 0 and
    /// none is any more (`cap_emulate_setxuid` in security/commoncap.c).
    fn would_lose_capabilities(&self, client: u32) -> bool {
        let own = self.ids.uid;
        own.real != 0 && own.saved != 0 && (own.effective == 0) != (client == 0)
    }

    /// Takes the client's ids on. On an error the thread may be half switched: [`Server::put_back`] mends it.
    pub(super) fn take_on(
        &self,
        client: &SecurityContext,
        switched: &mut Switched,
        groups: &mut Vec<u32>,
    ) -> Result<(), Fault> {
        // Before all else, while CAP_SETPCAP counts. Only for a server that is not root with a client that
        // is, and the other way round: the kernel's emulation of root by uid is turned off on this thread,
        // else coming back would cost all capabilities.
        if self.would_lose_capabilities(client.uid.as_raw()) {
            let present = securebits()?;
            if present & NO_SETUID_FIXUP == 0 {
                control(libc::PR_SET_SECUREBITS, present | NO_SETUID_FIXUP, "prctl(PR_SET_SECUREBITS)")?;
                switched.securebits = Some(present);
            }
        }

        // Groups and gid need CAP_SETGID, which goes with the uid: so the uid is last. Only the effective ids:
        // a real or saved uid of the client's lets it send signals to this thread, and thereby stop or kill
        // the whole server (kill_ok_by_cred in kernel/signal.c).
        set_groups(raw_gids(client.groups.as_slice()))?;
        set_effective_gid(client.gid.as_raw())?;
        set_effective_uid(client.uid.as_raw())?;

        // The kernel cleared the effective capabilities if the effective uid left 0, and only then: a server
        // with capabilities but another uid keeps all of them, and so does root acting for root. The
        // permitted ones stay: they are the way back.
        let own = &self.ids;
        let mut ids = Ids::read_after(own.uid.effective, own.gid.effective, Capabilities::read()?)?;
        if ids.capabilities.effective != 0 {
            Capabilities { effective: 0, ..self.ids.capabilities }.set()?;
            ids = Ids::read()?;
        }
        self.compare(&ids, client, groups)?;

        // Each change of ids makes the process undumpable, which keeps the client's debuggers out of it
        // (commit_creds in kernel/cred.c).
        if !self.dumpable_cleared.get() || self.ids.uid.effective == client.uid.as_raw() {
            self.clear_dumpable()?;
        }
        Ok(())
    }

    /// Makes sure of what the kernel does by itself: not so with `fs.suid_dumpable = 1`, and not where the
    /// server has the very ids of the client.
    #[cold]
    fn clear_dumpable(&self) -> Result<(), Fault> {
        let dumpable = control(libc::PR_GET_DUMPABLE, 0, "prctl(PR_GET_DUMPABLE)")? == 1;
        if dumpable {
            control(libc::PR_SET_DUMPABLE, 0, "prctl(PR_SET_DUMPABLE)")?;
        }
        // Asked again each time where it was found set.
        self.dumpable_cleared.set(!dumpable);
        Ok(())
    }

    /// Whether the calling thread still is what [`Server::take_on`] made of it.
    pub(super) fn still(&self, client: &SecurityContext, groups: &mut Vec<u32>) -> Result<(), Fault> {
        self.compare(&Ids::read()?, client, groups)
    }

    /// Compares what was read of the calling thread with the server under the client's effective ids.
    fn compare(&self, ids: &Ids, client: &SecurityContext, groups: &mut Vec<u32>) -> Result<(), Fault> {
        let (uid, gid) = (client.uid.as_raw(), client.gid.as_raw());
        if ids.uid != (Triple { effective: uid, ..self.ids.uid }) || ids.fsuid != uid {
            return Err(Fault::Differs("uid"));
        }
        if ids.gid != (Triple { effective: gid, ..self.ids.gid }) || ids.fsgid != gid {
            return Err(Fault::Differs("gid"));
        }
        if ids.capabilities != (Capabilities { effective: 0, ..self.ids.capabilities }) {
            return Err(Fault::Differs("capabilities"));
        }
        read_groups(groups)?;
        let wanted = raw_gids(client.groups.as_slice());
        if groups != wanted {
            // The kernel sorts by its own ids, which a user namespace may map in another order.
            groups.sort_unstable();
            if groups != wanted {
                return Err(Fault::Differs("groups"));
            }
        }
        Ok(())
    }

    /// Puts the server's ids back, from any state that [`Server::take_on`] can leave.
    ///
    /// A step that fails is no reason to leave out the next. What is read back at the end decides: nothing
    /// else could tell that the thread is the server's again.
    pub(super) fn put_back(
        &self,
        client: &SecurityContext,
        switched: &Switched,
        groups: &mut Vec<u32>,
    ) -> Result<(), Fault> {
        let own = &self.ids;
        let mut first = None;
        let mut step = |result: Result<(), Fault>| {
            if let Err(fault) = result {
                first.get_or_insert(fault);
            }
        };

        // The uid first: for root it brings the effective capabilities back, which all else needs. All three
        // ids by value, so that a foreign change of real or saved uid is undone too where it can be.
        // It needs no capability where the old effective uid is the real or the saved one; else they go first.
        if own.uid.effective != own.uid.real && own.uid.effective != own.uid.saved {
            step(own.capabilities.set());
        }
        step(set_uids(own.uid));
        let mut capabilities = Capabilities::read()?;
        if capabilities != own.capabilities {
            step(own.capabilities.set());
            capabilities = Capabilities::read()?;
        }
        // Then groups and gid, by CAP_SETGID. The uid is the server's already, so that nothing the client
        // owns is touched by a thread with capabilities.
        step(set_groups(&self.groups));
        step(set_gids(own.gid));
        // A thread can have file system ids of its own (setfsuid); they follow the effective ones above.
        if own.fsuid != own.uid.effective {
            set_fsuid(own.fsuid);
        }
        if own.fsgid != own.gid.effective {
            set_fsgid(own.fsgid);
        }
        if let Some(before) = switched.securebits {
            step(control(libc::PR_SET_SECUREBITS, before, "prctl(PR_SET_SECUREBITS)").map(drop));
            if securebits()? != before {
                return Err(first.unwrap_or(Fault::Differs("securebits")));
            }
        }
        // Every change of ids clears it (commit_creds).
        if let Ok(signal @ 1..) = u64::try_from(self.parent_death_signal) {
            step(control(libc::PR_SET_PDEATHSIG, signal, "prctl(PR_SET_PDEATHSIG)").map(drop));
        }

        let mut ids = Ids::read_after(client.uid.as_raw(), client.gid.as_raw(), capabilities)?;
        // File system ids of its own do not follow the effective ones.
        if own.fsuid != own.uid.effective || own.fsgid != own.gid.effective {
            ids = Ids::read()?;
        }
        let same = ids == *own;
        read_groups(groups)?;
        if same && *groups == self.groups {
            return Ok(());
        }
        Err(first.unwrap_or(Fault::Differs(if same { "groups" } else { "ids" })))
    }
}

/// What the switch changed besides ids, groups and capabilities.
#[derive(Debug, Default)]
pub(super) struct Switched {
    /// The securebits before, where they had to change.
    securebits: Option<u64>,
}

fn securebits() -> Result<u64, Fault> {
    let bits = control(libc::PR_GET_SECUREBITS, 0, "prctl(PR_GET_SECUREBITS)")?;
    u64::try_from(bits).map_err(|_| Fault::Differs("securebits"))
}

//! The phases of a logon, in the order of login programs.
//!
//! authenticate, acct_mgmt, (change of an expired password,) groups, setcred, open_session. The groups
//! are set before setcred, because modules such as pam_group add to them there; what is there afterwards is
//! the truth (login(1) of util-linux and sshd's do_setusercontext keep this order).
//!
//! What it says to the system and to PAM is in modules beside it: this file is also compiled against models of
//! both (`model`).
#![forbid(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::asker::Asker;
use super::pam::{Call, Item, Pam, PamFault, StartFault};
use super::{kernel, keyring, stated, system};
use crate::sys::account::AccountEntry;
use crate::sys::logon::message::{Failure, Open, Phase, Snapshot, Why};
use crate::sys::logon::pam_code;
use crate::sys::token::{CapabilitySet, CapabilitySets, Gid, SecurityContext, Uid};

/// An open PAM session; it is closed in order when it is dropped, at the latest.
pub(super) struct Session {
    transaction: Transaction,
    pub(super) snapshot: Snapshot,
    /// Where it listens when it is detached.
    pub(super) socket: Option<CString>,
    /// Children that PAM modules left running; they are not the session's processes.
    pub(super) of_pam: Vec<i32>,
    /// Limits that its processes have and the worker has not: number, soft and hard.
    pub(super) limits: Vec<(u32, u64, u64)>,
}

/// What the last phases returned.
pub(super) struct Closed {
    pub(super) close: i32,
    pub(super) delete: i32,
    pub(super) text: String,
}

/// PAM, started for whoever logs on.
pub(super) struct Ready {
    pam: Pam<Asker>,
    first_keyring: Option<keyring::Serial>,
}

/// A transaction; whatever was begun is undone in order when it is dropped, also where something panics.
struct Transaction {
    pam: Pam<Asker>,
    established: bool,
    opened: bool,
}

impl Ready {
    pub(super) fn start(service: &CStr, socket: &Rc<OwnedFd>) -> Result<Self, Failure> {
        let first_keyring = keyring::current();
        let asker = Asker { socket: Rc::clone(socket), secret: None, conversation: false, unanswered: None };
        let pam = Pam::start(service, asker).map_err(|fault| match fault {
            StartFault::Library(text) => stated(Phase::Start, Why::Library, text),
            StartFault::Pam(fault) => from_pam(Phase::Start, fault),
        })?;
        Ok(Self { pam, first_keyring })
    }
}

/// Logs on, by a PAM that was started before or is started now.
pub(super) fn log_on(mut open: Open, socket: &Rc<OwnedFd>, ready: Option<Ready>) -> Result<Session, Failure> {
    let requested = look_up(&open)?;
    if let Some(entry) = &requested {
        check_identity(entry)?;
    } else if !open.authenticate {
        return Err(stated(Phase::Account, Why::AccountUnknown, open.user.to_string_lossy()));
    }
    let ready = ready.map_or_else(|| Ready::start(&open.service, socket), Ok)?;
    let Ready { mut pam, first_keyring } = ready;
    let answers = pam.answers();
    (answers.secret, answers.conversation) = (open.secret.take(), open.conversation);
    if !open.empty_password {
        pam.refuse_empty_passwords();
    }
    let mut transaction = Transaction { pam, established: false, opened: false };
    let own_limits = kernel::limits();
    let (entry, logon_gid) = transaction.advance(&open, requested, socket)?;
    keyring::give_to(first_keyring, &entry);
    let snapshot = take_snapshot(&transaction.pam, open.id, entry, logon_gid)?;
    // A daemon that were not known for a module's would be ended with the session.
    let of_pam =
        super::tree::children().map_err(|error| system(Phase::Snapshot, "/proc/self/task", &error))?;
    let limits = kernel::take_limits(&own_limits);
    Ok(Session { transaction, snapshot, socket: open.socket, of_pam, limits })
}

impl Transaction {
    fn advance(
        &mut self,
        open: &Open,
        requested: Option<AccountEntry>,
        server: &OwnedFd,
    ) -> Result<(AccountEntry, Option<u32>), Failure> {
        let start = |fault| from_pam(Phase::Start, fault);
        self.pam.set(Item::User, &open.user).map_err(start)?;
        let items = [
            (Item::Tty, &open.tty),
            (Item::RemoteHost, &open.remote_host),
            (Item::RemoteUser, &open.remote_user),
        ];
        for (item, value) in items {
            if let Some(value) = value {
                self.pam.set(item, value).map_err(start)?;
            }
        }
        for variable in &open.environment {
            self.pam.put_environment(variable).map_err(start)?;
        }

        if open.authenticate {
            self.phase(Phase::Authenticate, Call::Authenticate, server)?;
        }
        // The secret was for authentication; what did not ask for it shall not have it later.
        self.pam.answers().secret = None;
        let entry = self.who_it_is(open, requested)?;

        match self.phase(Phase::Account, Call::Account, server) {
            Err(failure) if failure.code == pam_code::NEW_AUTHTOK_REQD && open.conversation => {
                self.phase(Phase::ChangePassword, Call::ChangeExpired, server)?;
            }
            other => other?,
        }
        self.must_be(&entry, Phase::Account)?;

        take_groups(&entry)?;
        self.phase(Phase::Establish, Call::Establish, server)?;
        self.established = true;
        self.must_be(&entry, Phase::Establish)?;

        self.phase(Phase::OpenSession, Call::OpenSession, server)?;
        self.opened = true;
        self.must_be(&entry, Phase::OpenSession)?;

        let logon_gid = match &open.logon_gid {
            None => None,
            Some(request) => {
                let gid = kernel::new_logon_gid(request)
                    .map_err(|text| stated(Phase::LogonGid, Why::Stated, text))?;
                add_group(gid)?;
                Some(gid)
            }
        };
        // Login programs keep the user's gid; here the worker's own comes back below, in the snapshot.
        Ok((entry, logon_gid))
    }

    /// One phase of PAM; afterwards the server must still be there.
    fn phase(&mut self, phase: Phase, call: Call, server: &OwnedFd) -> Result<(), Failure> {
        let result = self.pam.call(call);
        if result.is_ok() {
            // Counts as begun even if the server has gone meanwhile, so that it is undone.
            match call {
                Call::Establish => self.established = true,
                Call::OpenSession => self.opened = true,
                _ => {}
            }
        }
        let unanswered = self.pam.answers().unanswered.take();
        match (result, unanswered) {
            (Err(_), Some(prompt)) => return Err(stated(phase, Why::Unanswered, prompt)),
            (Err(fault), None) => return Err(from_pam(phase, fault)),
            (Ok(()), _) => {}
        }
        if kernel::server_is_gone(server) {
            return Err(stated(phase, Why::Stated, "the server has gone"));
        }
        Ok(())
    }

    /// Who PAM_USER is after authentication: a module may have put the name into another form, but not
    /// another account into its place (CVE-2015-6563).
    fn who_it_is(&self, open: &Open, requested: Option<AccountEntry>) -> Result<AccountEntry, Failure> {
        let phase = Phase::Authenticate;
        let user = self.pam.user().ok_or_else(|| stated(phase, Why::OtherUser, "nobody"))?;
        let now = kernel::account(&user, false)
            .map_err(|error| system(phase, "getpwnam_r", &error))?
            .filter(|entry| entry.name == user || !open.exact_name);
        match (requested, now) {
            (Some(before), Some(now)) if before.uid == now.uid => {
                check_identity(&now)?;
                Ok(now)
            }
            (None, Some(now)) if !open.exact_name || open.user == user => {
                check_identity(&now)?;
                Ok(now)
            }
            (None, None) => Err(stated(phase, Why::AccountUnknown, user.to_string_lossy())),
            _ => Err(stated(phase, Why::OtherUser, user.to_string_lossy())),
        }
    }

    /// After that no phase may change it at all.
    fn must_be(&self, entry: &AccountEntry, phase: Phase) -> Result<(), Failure> {
        let user = self.pam.user();
        let same = user.as_deref().is_some_and(|user| {
            user == entry.name.as_c_str()
                || kernel::account(user, false).is_ok_and(|now| now.as_ref() == Some(entry))
        });
        if same {
            Ok(())
        } else {
            let user = user.unwrap_or_default();
            Err(stated(phase, Why::OtherUser, user.to_string_lossy()))
        }
    }

    /// Undoes what was begun and has not been undone.
    fn close(&mut self) -> Closed {
        // Nobody is asked any more.
        self.pam.answers().conversation = false;
        let mut closed = Closed { close: pam_code::SUCCESS, delete: pam_code::SUCCESS, text: String::new() };
        if mem::take(&mut self.opened)
            && let Err(fault) = self.pam.call(Call::CloseSession)
        {
            closed.close = fault.code;
            closed.text = fault.text;
        }
        if mem::take(&mut self.established)
            && let Err(fault) = self.pam.call(Call::Delete)
        {
            closed.delete = fault.code;
            if closed.text.is_empty() {
                closed.text = fault.text;
            }
        }
        closed
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let _ = self.close();
    }
}

impl Session {
    /// Ends the PAM session in order.
    pub(super) fn close(mut self) -> Closed {
        self.transaction.close()
    }
}

fn look_up(open: &Open) -> Result<Option<AccountEntry>, Failure> {
    kernel::account(&open.user, open.exact_name).map_err(|error| system(Phase::Start, "getpwnam_r", &error))
}

/// No identity is taken on that is none: -1 never leaves the account database, and the overflow ids stand
/// for "not mapped" (CVE-2019-14287).
fn check_identity(entry: &AccountEntry) -> Result<(), Failure> {
    let (overflow_uid, overflow_gid) = kernel::overflow_ids();
    let fail = |text: String| Err(stated(Phase::Account, Why::NoIdentity, text));
    if entry.uid.as_raw() == overflow_uid {
        return fail(format!("the account's uid is the overflow id {}", entry.uid));
    }
    if entry.gid.as_raw() == overflow_gid {
        return fail(format!("the account's gid is the overflow id {}", entry.gid));
    }
    Ok(())
}

/// The account's gid and its groups, and nothing of the server's: what is there afterwards is looked at.
///
/// Not initgroups(3): of more groups than the kernel takes it leaves the last ones out, and says nothing.
fn take_groups(entry: &AccountEntry) -> Result<(), Failure> {
    let fail = |call: &str, error: io::Error| system(Phase::Groups, call, &error);
    let groups = kernel::groups_of(entry).map_err(|error| fail("getgrouplist", error))?;
    kernel::set_gid(entry.gid).map_err(|error| fail("setresgid", error))?;
    kernel::set_groups(&groups).map_err(|error| fail("setgroups", error))?;
    if kernel::groups().map_err(|error| fail("getgroups", error))? != groups {
        return Err(stated(Phase::Groups, Why::Stated, "the groups are not those that were set"));
    }
    Ok(())
}

fn add_group(gid: u32) -> Result<(), Failure> {
    let fail = |call: &str, error: io::Error| system(Phase::LogonGid, call, &error);
    let before = kernel::groups().map_err(|error| fail("getgroups", error))?;
    let wanted = before.as_slice().iter().copied().chain(Gid::new(gid)).collect();
    kernel::set_groups(&wanted).map_err(|error| fail("setgroups", error))?;
    if kernel::groups().map_err(|error| fail("getgroups", error))? != wanted {
        return Err(stated(Phase::LogonGid, Why::Stated, "the groups are not those that were set"));
    }
    Ok(())
}

fn take_snapshot(
    pam: &Pam<Asker>,
    id: u64,
    account: AccountEntry,
    logon_gid: Option<u32>,
) -> Result<Snapshot, Failure> {
    let own = kernel::context().map_err(|error| stated(Phase::Snapshot, Why::Stated, error.to_string()))?;
    if own.gid != account.gid {
        let text = format!("a PAM module made the gid {}, the account's is {}", own.gid, account.gid);
        return Err(stated(Phase::Snapshot, Why::Stated, text));
    }
    let exec_label =
        kernel::take_exec_label().map_err(|error| stated(Phase::Snapshot, Why::Stated, error.to_string()))?;
    let all = own.capabilities;
    let held = if account.uid == Uid::ROOT { all.permitted } else { CapabilitySet::EMPTY };
    Ok(Snapshot {
        id,
        context: SecurityContext {
            uid: account.uid,
            gid: account.gid,
            capabilities: CapabilitySets {
                permitted: held,
                effective: held,
                inheritable: CapabilitySet::EMPTY,
                ambient: CapabilitySet::EMPTY,
                bounding: all.bounding,
            },
            label: None,
            ..own
        },
        account,
        environment: pam.environment(),
        umask: kernel::umask(),
        exec_label,
        logon_gid,
        audit_session: kernel::audit_session(),
        processes: Vec::new(),
    })
}

fn from_pam(phase: Phase, fault: PamFault) -> Failure {
    Failure { phase, why: Why::Pam, code: fault.code, text: fault.text }
}

//! The one place where credentials change. Every change is checked and read back; regaining what was
//! given up is tried and must fail. The process takes on exactly what the spec says, or ends.

use core::mem::MaybeUninit;

use crate::report::{Step, part};
use crate::syscall::{self, Capabilities, capabilities, errno, prctl, process_control, set_capabilities};
use crate::wire::{self, Header, flag};
use crate::{At, Failure, Spec};

const CAP_SETGID: u64 = 1 << 6;
const CAP_SETUID: u64 = 1 << 7;
const CAP_SETPCAP: u64 = 1 << 8;
/// `SECBIT_KEEP_CAPS`: permitted capabilities survive the change of uid; execve clears it.
const KEEP_CAPS: u32 = 1 << 4;
/// `SECBIT_NOROOT`: uid 0 means nothing to execve.
const NOROOT: u32 = 1;
/// "Leave unchanged" for the set*id calls, and so never an id (CVE-2019-14287).
const UNCHANGED: u32 = u32::MAX;

/// Takes on the spec's credentials.
pub fn take_on(spec: &Spec) -> Result<(), Failure> {
    let header = &spec.header;
    if header.uid == UNCHANGED || header.gid == UNCHANGED {
        return Err(errno::EINVAL).at(Step::Arguments, 0);
    }
    let wanted = Capabilities {
        permitted: header.permitted,
        effective: header.effective,
        inheritable: header.inheritable,
    };
    let old = Old {
        uids: uids().at(Step::UserId, 0)?,
        gids: gids().at(Step::GroupId, 0)?,
        capabilities: capabilities().at(Step::Capabilities, 0)?,
    };

    // From now on no process of the client's may trace this one or open its descriptors, whatever the
    // system does for changed ids (fs.suid_dumpable); execve of the program ends it.
    process_control(prctl::SET_DUMPABLE, 0, 0).at(Step::Shield, 0)?;
    let securebits = process_control(prctl::GET_SECUREBITS, 0, 0).at(Step::SecureBits, 0)? as u32;
    // While CAP_SETPCAP is there.
    bound(header, &old, securebits)?;
    // Only a token with capabilities of its own, or with other securebits, needs the server's to
    // outlive the change of uid for a moment.
    let keeps = wanted != Capabilities::default() || securebits != header.securebits;
    if keeps && securebits & KEEP_CAPS == 0 {
        process_control(prctl::SET_KEEPCAPS, 1, 0).at(Step::SecureBits, 0)?;
    }

    // Groups before the gid before the uid: each needs a right that the next may take away.
    set_groups(spec)?;
    let (uid, gid) = (header.uid, header.gid);
    // SAFETY: no memory involved; the raw call acts on this thread, the only one.
    unsafe { system_call!(SETRESGID, gid, gid, gid) }.at(Step::GroupId, 0)?;
    // SAFETY: as above. RLIMIT_NPROC does not make it fail on kernels since 3.1: execve does.
    unsafe { system_call!(SETRESUID, uid, uid, uid) }.at(Step::UserId, 0)?;

    if keeps {
        // SETPCAP for the securebits, for the length of these lines.
        let passing = Capabilities {
            permitted: wanted.permitted | (old.capabilities.permitted & CAP_SETPCAP),
            effective: wanted.effective | (old.capabilities.permitted & CAP_SETPCAP),
            inheritable: wanted.inheritable,
        };
        set_capabilities(passing).at(Step::Capabilities, 0)?;
        raise_ambient(header.ambient)?;
        // Keeping capabilities needs no right to end; the other bits take CAP_SETPCAP.
        let keep = usize::from(header.securebits & KEEP_CAPS != 0);
        process_control(prctl::SET_KEEPCAPS, keep, 0).at(Step::SecureBits, 0)?;
        if process_control(prctl::GET_SECUREBITS, 0, 0).at(Step::SecureBits, 0)? as u32 != header.securebits {
            process_control(prctl::SET_SECUREBITS, header.securebits as usize, 0).at(Step::SecureBits, 0)?;
        }
    }
    // Always, and not left to the change of uid: a server that is not uid 0 keeps all of them over it.
    // What is neither permitted nor inheritable is not ambient either: the kernel sees to that.
    set_capabilities(wanted).at(Step::Capabilities, 0)?;
    if header.flags & flag::NO_NEW_PRIVS != 0 {
        process_control(prctl::SET_NO_NEW_PRIVS, 1, 0).at(Step::NoNewPrivileges, 0)?;
    }

    read_back(spec, wanted)?;
    regain(header, &old)
}

/// What the process was.
struct Old {
    uids: [u32; 3],
    gids: [u32; 3],
    capabilities: Capabilities,
}

fn uids() -> syscall::Result<[u32; 3]> {
    let mut ids = [UNCHANGED; 3];
    let [real, effective, saved] = &mut ids;
    // SAFETY: room for an id behind each pointer.
    unsafe { system_call!(GETRESUID, &raw mut *real, &raw mut *effective, &raw mut *saved) }?;
    Ok(ids)
}

fn gids() -> syscall::Result<[u32; 3]> {
    let mut ids = [UNCHANGED; 3];
    let [real, effective, saved] = &mut ids;
    // SAFETY: room for an id behind each pointer.
    unsafe { system_call!(GETRESGID, &raw mut *real, &raw mut *effective, &raw mut *saved) }?;
    Ok(ids)
}

/// Makes the bounding set this one. It can only shrink: what the token has and the process has not is
/// an error, for the process would be less than the token.
fn bound(header: &Header, old: &Old, securebits: u32) -> Result<(), Failure> {
    let wanted = header.bounding;
    let last = header.last_capability;
    if last >= u64::BITS || (wanted >> last) >> 1 != 0 {
        // The kernel does not know it, and would pass it over in the sets that capset is given.
        return Err(errno::EINVAL).at(Step::BoundingSet, 63u32.saturating_sub(wanted.leading_zeros()));
    }
    let all_there = shows_all(wanted, old, securebits) || has_all(wanted, old.capabilities);
    for capability in 0..=last {
        let wants = wanted >> capability & 1 != 0;
        if wants && all_there {
            continue;
        }
        let asked = || process_control(prctl::CAPBSET_READ, capability as usize, 0);
        let has = asked().at(Step::BoundingSet, capability)? != 0;
        if wants && !has {
            return Err(errno::EPERM).at(Step::BoundingSet, capability);
        }
        if has && !wants {
            process_control(prctl::CAPBSET_DROP, capability as usize, 0).at(Step::BoundingSet, capability)?;
            if asked() != Ok(0) {
                return Err(errno::EPERM).at(Step::ReadBack, part::BOUNDING_SET);
            }
        }
    }
    Ok(())
}

/// Whether what this program was executed with shows that the bounding set has all of these: execve permits root the
/// bounding set, what is inheritable, and nothing else (security/commoncap.c, handle_privileged_root).
fn shows_all(wanted: u64, old: &Old, securebits: u32) -> bool {
    let of_root = old.uids.iter().take(2).any(|uid| *uid == 0) && securebits & NOROOT == 0;
    of_root && old.capabilities.inheritable == 0 && wanted & !old.capabilities.permitted == 0
}

/// Whether the bounding set has all of these, asked for all at once: with CAP_SETPCAP a thread can make
/// inheritable what its bounding set has, and nothing else (security/commoncap.c, cap_capset); except those that
/// the kernel does not know at all. One by one they are forty system calls. "No" may also mean that this way of
/// asking is not open.
fn has_all(wanted: u64, now: Capabilities) -> bool {
    let none = set_capabilities(Capabilities { inheritable: 0, ..now });
    none.is_ok() && set_capabilities(Capabilities { inheritable: wanted, ..now }).is_ok()
}

fn raise_ambient(wanted: u64) -> Result<(), Failure> {
    process_control(prctl::CAP_AMBIENT, prctl::CAP_AMBIENT_CLEAR_ALL, 0).at(Step::Ambient, 0)?;
    for capability in (0..64u32).filter(|capability| wanted >> capability & 1 != 0) {
        process_control(prctl::CAP_AMBIENT, prctl::CAP_AMBIENT_RAISE, capability as usize)
            .at(Step::Ambient, capability)?;
    }
    Ok(())
}

/// Room for groups: the few of most accounts on the stack, more in memory of their own. (A large array
/// on the stack would be touched page by page, and a limit on the stack may be in force already.)
struct Room {
    few: [MaybeUninit<u32>; Self::FEW],
    many: *mut u32,
    capacity: usize,
}

impl Room {
    const FEW: usize = 256;

    fn new(count: usize) -> syscall::Result<Self> {
        const READ_WRITE: usize = 3;
        const PRIVATE_ANONYMOUS: usize = 0x22;
        let few = [MaybeUninit::uninit(); Self::FEW];
        if count <= Self::FEW {
            return Ok(Self { few, many: core::ptr::null_mut(), capacity: Self::FEW });
        }
        let nowhere = -1_isize as usize;
        // SAFETY: new memory, where the kernel likes; never given back.
        let many = unsafe { system_call!(MMAP, 0, count * 4, READ_WRITE, PRIVATE_ANONYMOUS, nowhere, 0) }?;
        Ok(Self { few, many: many as *mut u32, capacity: count })
    }

    fn pointer(&mut self) -> *mut u32 {
        if self.many.is_null() { self.few.as_mut_ptr().cast() } else { self.many }
    }
}

/// The groups as the kernel takes them: strictly ascending, so that none is there twice.
fn fill(spec: &Spec, room: &mut Room) -> Option<usize> {
    let start = room.pointer();
    let mut count = 0;
    let mut last = None;
    spec.groups.each(wire::SHORT, |numbers| {
        let group = numbers.u32()?;
        if group == UNCHANGED || last >= Some(group) || count >= room.capacity {
            return None;
        }
        // SAFETY: within the room, as just compared.
        unsafe { start.add(count).write(group) };
        last = Some(group);
        count += 1;
        Some(())
    })?;
    Some(count)
}

fn set_groups(spec: &Spec) -> Result<(), Failure> {
    let mut room = Room::new(spec.groups.count() as usize).at(Step::Groups, 0)?;
    let count = fill(spec, &mut room).ok_or(errno::EINVAL).at(Step::Arguments, 0)?;
    // SAFETY: `count` groups have been written. A gid outside a container's map is EINVAL: an error, for
    // a group is never dropped silently (CVE-2014-8989).
    match unsafe { system_call!(SETGROUPS, count, room.pointer()) } {
        Ok(_) => Ok(()),
        // Who may not change them may keep them, where they are the ones: a process as oneself takes no right.
        Err(errno::EPERM) if groups_are(spec) => Ok(()),
        Err(errno) => Err(errno).at(Step::Groups, 0),
    }
}

/// Compares as sets: the kernel sorts by its own ids, which a container's map may order otherwise.
fn groups_are(spec: &Spec) -> bool {
    let count = spec.groups.count() as usize;
    let Ok(mut room) = Room::new(count) else { return false };
    let start = room.pointer();
    // More than there is room for is EINVAL, and not what was set.
    // SAFETY: room for as many as are asked for; `count` is less than the room where that is 0, which
    // would only ask how many there are.
    let found = unsafe { system_call!(GETGROUPS, room.capacity, start) };
    if found != Ok(count) {
        return false;
    }
    // SAFETY: the kernel has written that many.
    let found = unsafe { core::slice::from_raw_parts(start, count) };
    // In the same order nearly always; otherwise each is looked for. Those wanted are all different, so
    // as many that hold each of them are the same set.
    let mut index = 0;
    spec.groups
        .each(wire::SHORT, |numbers| {
            let group = numbers.u32()?;
            let here = found.get(index) == Some(&group) || found.contains(&group);
            index += 1;
            here.then_some(())
        })
        .is_some()
}

/// Reads everything back. The bounding set was read while it was set.
fn read_back(spec: &Spec, wanted: Capabilities) -> Result<(), Failure> {
    let header = &spec.header;
    let require = |right: bool, part: u32| {
        if right { Ok(()) } else { Err(errno::EPERM).at(Step::ReadBack, part) }
    };
    require(uids() == Ok([header.uid; 3]), part::USER_ID)?;
    require(gids() == Ok([header.gid; 3]), part::GROUP_ID)?;
    require(groups_are(spec), part::GROUPS)?;
    require(capabilities() == Ok(wanted), part::CAPABILITIES)?;
    // Nothing else can be ambient (capabilities(7)).
    let possible = wanted.permitted & wanted.inheritable;
    require(header.ambient & !possible == 0, part::AMBIENT)?;
    for capability in (0..64u32).filter(|capability| possible >> capability & 1 != 0) {
        let is = process_control(prctl::CAP_AMBIENT, prctl::CAP_AMBIENT_IS_SET, capability as usize);
        require(is == Ok((header.ambient >> capability & 1) as usize), part::AMBIENT)?;
    }
    // KEEP_CAPS is execve's to clear, and the token's process shall not have it.
    let securebits = process_control(prctl::GET_SECUREBITS, 0, 0);
    require(securebits == Ok(header.securebits as usize), part::SECUREBITS)?;
    let no_new_privs = usize::from(header.flags & flag::NO_NEW_PRIVS != 0);
    require(process_control(prctl::GET_NO_NEW_PRIVS, 0, 0) == Ok(no_new_privs), part::NO_NEW_PRIVS)
}

/// Tries to become the server again. Whatever succeeds was not given up, unless the token itself has
/// that right; then there is nothing to try.
fn regain(header: &Header, old: &Old) -> Result<(), Failure> {
    let refused = |outcome: syscall::Result, part: u32| match outcome {
        Ok(_) => Err(errno::EPERM).at(Step::Regain, part),
        Err(_) => Ok(()),
    };
    let may = |right: u64| header.permitted & right != 0;
    let [real, effective, saved] = old.uids;
    if old.uids != [header.uid; 3] && !may(CAP_SETUID) {
        // SAFETY: no memory involved.
        refused(unsafe { system_call!(SETRESUID, real, effective, saved) }, part::USER_ID)?;
    }
    let [real, effective, saved] = old.gids;
    if !may(CAP_SETGID) {
        if old.gids != [header.gid; 3] {
            // SAFETY: no memory involved.
            refused(unsafe { system_call!(SETRESGID, real, effective, saved) }, part::GROUP_ID)?;
        }
        // SAFETY: no groups are read when their number is 0.
        refused(unsafe { system_call!(SETGROUPS, 0, 0) }, part::GROUPS)?;
    }
    if old.capabilities.permitted & !header.permitted != 0 {
        refused(set_capabilities(old.capabilities).map(|()| 0), part::CAPABILITIES)?;
    }
    Ok(())
}

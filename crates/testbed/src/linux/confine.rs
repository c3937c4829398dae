//! Confining a process in the ways that real clients and containers are: for tests of what is refused, and of what
//! happens when the kernel refuses a call.

use crate::linux::sys;
use rustix::thread::{CapabilitySet, UnshareFlags};
use std::io;

/// Capabilities that Docker leaves to a container's root.
pub const DOCKER_CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// Calls that Docker's default seccomp profile denies to a container with those capabilities.
const DOCKER_DENIED: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_get_mempolicy,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mbind,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_move_pages,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_set_mempolicy,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// A seccomp filter under construction: everything is allowed that is not denied.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    denied: Vec<(libc::c_long, i32)>,
    /// Call, argument, its lower half, errno.
    denied_where: Vec<(libc::c_long, u32, u32, i32)>,
    killed: Vec<libc::c_long>,
    deny_namespace_clone: bool,
}

impl Filter {
    /// A filter that allows everything: it confines nothing, and yet is one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets a system call fail with this errno.
    #[must_use]
    pub fn deny(mut self, call: libc::c_long, errno: i32) -> Self {
        self.denied.push((call, errno));
        self
    }

    /// Lets a system call fail with this errno where the lower half of an argument (from 0) has this value.
    #[must_use]
    pub fn deny_where(mut self, call: libc::c_long, argument: u32, value: u32, errno: i32) -> Self {
        self.denied_where.push((call, argument, value, errno));
        self
    }

    /// Ends the process that makes a system call, at that call.
    #[must_use]
    pub fn kill(mut self, call: libc::c_long) -> Self {
        self.killed.push(call);
        self
    }

    /// Has not what Linux before 6.5 has not: a pidfd of who is at the other end of a socket.
    #[must_use]
    pub fn without_peerpidfd() -> Self {
        const SO_PEERPIDFD: u32 = 77;
        Self::new().deny_where(libc::SYS_getsockopt, 2, SO_PEERPIDFD, libc::ENOPROTOOPT)
    }

    /// Has not what Linux before 6.4 has not: the auxiliary vector from prctl(2).
    #[must_use]
    pub fn without_auxiliary_vector() -> Self {
        const PR_GET_AUXV: u32 = 0x4155_5856;
        Self::new().deny_where(libc::SYS_prctl, 0, PR_GET_AUXV, libc::EINVAL)
    }

    /// What Docker's default profile denies to a container without further capabilities.
    #[must_use]
    pub fn docker() -> Self {
        let mut filter = Self { deny_namespace_clone: true, ..Self::default() };
        filter.denied.extend(DOCKER_DENIED.iter().map(|call| (*call, libc::EPERM)));
        // So that glibc falls back to clone, whose flags a filter can see.
        filter.deny(libc::SYS_clone3, libc::ENOSYS)
    }

    /// Puts the filter on the calling thread and what it starts.
    ///
    /// In a container that lacks CAP_SYS_ADMIN this ends the test as skipped, unless the thread has no_new_privs: to set
    /// that for the filter's sake would change what is tested.
    ///
    /// # Errors
    ///
    /// What the kernel says.
    pub fn install_on_this_thread(&self) -> io::Result<()> {
        let result = sys::install_seccomp(&self.program());
        match &result {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && in_a_container() => {
                crate::skip_test("needs CAP_SYS_ADMIN for a seccomp filter, which this container lacks")
            }
            _ => result,
        }
    }

    /// Puts the filter on a program that is to be started.
    pub fn install_on<'a>(&self, command: &'a mut std::process::Command) -> &'a mut std::process::Command {
        sys::before_exec_with_seccomp(command, self.program())
    }

    /// The filter as classic BPF over `struct seccomp_data`: number at offset 0, architecture at 4, the lower half of
    /// argument N at 16 + 8 N.
    fn program(&self) -> Vec<libc::sock_filter> {
        const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
        const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
        const ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
        const RETURN: u16 = 0x06; // BPF_RET | BPF_K
        const NAMESPACES: libc::c_int = libc::CLONE_NEWNS
            | libc::CLONE_NEWCGROUP
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUSER
            | libc::CLONE_NEWPID
            | libc::CLONE_NEWNET;
        let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
        let errno = |number: i32| libc::SECCOMP_RET_ERRNO | number.cast_unsigned();
        let number = |call: libc::c_long| u32::try_from(call).unwrap_or(u32::MAX);
        let mut program = vec![step(LOAD, 0, 0, 0)];
        for (call, denied) in &self.denied {
            program.push(step(EQUAL, 0, 1, number(*call)));
            program.push(step(RETURN, 0, 0, errno(*denied)));
        }
        for (call, argument, value, denied) in &self.denied_where {
            program.push(step(EQUAL, 0, 4, number(*call)));
            program.push(step(LOAD, 0, 0, 16 + 8 * argument));
            program.push(step(EQUAL, 0, 1, *value));
            program.push(step(RETURN, 0, 0, errno(*denied)));
            program.push(step(LOAD, 0, 0, 0));
        }
        for call in &self.killed {
            program.push(step(EQUAL, 0, 1, number(*call)));
            program.push(step(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS));
        }
        if self.deny_namespace_clone {
            program.push(step(EQUAL, 0, 3, number(libc::SYS_clone)));
            program.push(step(LOAD, 0, 0, 16));
            program.push(step(ANY_BIT, 0, 1, NAMESPACES.cast_unsigned()));
            program.push(step(RETURN, 0, 0, errno(libc::EPERM)));
        }
        program.push(step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
        program
    }
}

fn in_a_container() -> bool {
    crate::Bed::current().is_some_and(|bed| bed.mode() == crate::Mode::Container)
}

/// The first of these capabilities (`"setuid"`, ..) that this process could not give to a program.
pub(crate) fn lacking<'a>(capabilities: &[&'a str]) -> Option<&'a str> {
    let permitted = rustix::thread::capabilities(None).map(|sets| sets.permitted);
    let permitted = permitted.unwrap_or(CapabilitySet::empty());
    capabilities.iter().copied().find(|name| {
        let known = CapabilitySet::from_name(&name.to_ascii_uppercase());
        known.is_some_and(|capability| !permitted.contains(capability))
    })
}

/// Whether this process may do what `capability` (`"sys_resource"`, ..) is for: it has it in effect, and, where the kernel
/// asks for it in the initial user namespace alone, is there.
pub fn may(capability: &str) -> bool {
    let effective = rustix::thread::capabilities(None).map(|sets| sets.effective);
    let asked = CapabilitySet::from_name(&capability.to_ascii_uppercase());
    let has = asked.zip(effective.ok()).is_some_and(|(asked, effective)| effective.contains(asked));
    has && (!INITIAL_ONLY.contains(&capability) || in_the_initial_user_namespace())
}

/// Whether nothing here could ever have this capability: it is not in the bounding set, as in a container that was not
/// given it.
pub fn is_out_of_reach(capability: &str) -> bool {
    let asked = CapabilitySet::from_name(&capability.to_ascii_uppercase());
    asked.is_some_and(|asked| rustix::thread::capability_is_in_bounding_set(asked).is_ok_and(|there| !there))
}

/// What is not there without which nobody can tell how a client of another user is confined, from its connection.
pub fn blind_to_clients() -> Option<&'static str> {
    if is_out_of_reach("sys_ptrace") {
        return Some("CAP_SYS_PTRACE");
    }
    (!sys::has_peer_pidfd()).then_some("SO_PEERPIDFD (Linux 6.5)")
}

/// Ends a test as skipped where a client is no more than its ids, as it is for a kernel before 6.5.
pub fn need_pinned_clients() {
    if !sys::has_peer_pidfd() {
        crate::skip_test("needs SO_PEERPIDFD (Linux 6.5)");
    }
}

/// How the library's errors name this capability where it is missing (`"sys_resource"`: `CAP_SYS_RESOURCE`, and more in a
/// user namespace).
pub fn missing_name(capability: &str) -> String {
    let elsewhere = INITIAL_ONLY.contains(&capability) && !in_the_initial_user_namespace();
    let what = if elsewhere { " in the initial user namespace" } else { "" };
    format!("CAP_{}{what}", capability.to_ascii_uppercase())
}

/// Those of the library's capabilities that count in the initial user namespace only (capabilities(7)).
const INITIAL_ONLY: &[&str] = &["sys_resource", "sys_nice", "audit_control"];

fn in_the_initial_user_namespace() -> bool {
    std::fs::read_link("/proc/thread-self/ns/user").is_ok_and(|link| link.as_os_str() == "user:[4026531837]")
}

/// Takes every capability but these out of the bounding set.
///
/// # Errors
///
/// Without CAP_SETPCAP.
pub fn limit_bounding_set(keep: CapabilitySet) -> io::Result<()> {
    for bit in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if keep.contains(capability) {
            continue;
        }
        match rustix::thread::capability_is_in_bounding_set(capability) {
            Ok(true) => rustix::thread::remove_capability_from_bounding_set(capability)?,
            Ok(false) => {}
            // Beyond the last one that the kernel knows.
            Err(_) => break,
        }
    }
    Ok(())
}

/// Gives up every capability of the calling thread.
///
/// # Errors
///
/// Never, on a kernel that has capabilities.
pub fn drop_capabilities() -> io::Result<()> {
    // The ambient set follows, as it is held within the permitted one.
    let none = rustix::thread::CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    Ok(rustix::thread::set_capabilities(None, none)?)
}

/// Leaves a namespace for a fresh one: `user`, `mnt`, `pid` (of children), `net`, `ipc`, `uts`, `cgroup`, `time` (of
/// children).
///
/// # Errors
///
/// Where the kernel does not allow it: all but `user` need CAP_SYS_ADMIN.
pub fn leave_namespace(name: &str) -> io::Result<()> {
    let flag = match name {
        "user" => UnshareFlags::NEWUSER,
        "mnt" => UnshareFlags::NEWNS,
        "pid" => UnshareFlags::NEWPID,
        "net" => UnshareFlags::NEWNET,
        "ipc" => UnshareFlags::NEWIPC,
        "uts" => UnshareFlags::NEWUTS,
        "cgroup" => UnshareFlags::NEWCGROUP,
        "time" => UnshareFlags::NEWTIME,
        other => return Err(io::Error::other(format!("no namespace is called {other}"))),
    };
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    sys::unshare(flag)?;
    if name == "user" {
        // The same numbers inside, so that nothing but the namespace differs.
        std::fs::write("/proc/self/setgroups", "deny")?;
        std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
        std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    }
    Ok(())
}

/// Does something on a thread that has a table of descriptors of its own. What it opens there must not leave it.
///
/// # Panics
///
/// Where the kernel does not allow it.
pub fn with_descriptors_of_its_own<R: Send>(act: impl FnOnce() -> R + Send) -> R {
    let apart = || {
        sys::unshare(UnshareFlags::FILES).expect("unshare");
        act()
    };
    std::thread::scope(|scope| scope.spawn(apart).join())
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Hides the bed, but for its account files, so that another can be made within it.
///
/// # Errors
///
/// Without CAP_SYS_ADMIN.
#[doc(hidden)]
pub fn empty_run() -> io::Result<()> {
    crate::linux::enter::empty_run()
}

/// Takes on root's real and saved ids, where root's effective one is there already.
///
/// # Errors
///
/// Without CAP_SETUID and CAP_SETGID.
#[doc(hidden)]
pub fn become_root() -> io::Result<()> {
    crate::linux::enter::become_root()
}

/// As process 1 of a PID namespace: its own /proc, and an end when the process that made it ends.
///
/// # Errors
///
/// Without CAP_SYS_ADMIN.
#[doc(hidden)]
pub fn fresh_proc() -> io::Result<()> {
    crate::linux::enter::fresh_proc()
}

/// Hides the bed: fresh account files without its users and services, and an empty /run, as in an ordinary container.
///
/// # Errors
///
/// Without CAP_SYS_ADMIN.
#[doc(hidden)]
pub fn fresh_files() -> io::Result<()> {
    crate::linux::enter::fresh_files()
}

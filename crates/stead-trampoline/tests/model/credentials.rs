//! Credentials as the kernel keeps them, and its rules for changing them (kernel/sys.c,
//! security/commoncap.c).

use crate::syscall::{Capabilities, Result, errno};

/// The last capability that this kernel knows.
pub const LAST: u32 = 40;
/// All that it knows.
pub const ALL: u64 = (1 << (LAST + 1)) - 1;

pub const SETGID: u64 = 1 << 6;
pub const SETUID: u64 = 1 << 7;
pub const SETPCAP: u64 = 1 << 8;
pub const SYS_RESOURCE: u64 = 1 << 24;
pub const AUDIT_CONTROL: u64 = 1 << 30;

const NO_SETUID_FIXUP: u32 = 1 << 2;
const KEEP_CAPS: u32 = 1 << 4;
const KEEP_CAPS_LOCKED: u32 = 1 << 5;
const NO_AMBIENT_RAISE: u32 = 1 << 6;
/// Every second bit locks the one before it.
const LOCKS: u32 = 0xaa;

/// The credentials of one thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub uids: [u32; 3],
    pub gids: [u32; 3],
    pub groups: Vec<u32>,
    pub capabilities: Capabilities,
    pub bounding: u64,
    pub ambient: u64,
    pub securebits: u32,
    pub no_new_privs: bool,
}

impl Credentials {
    pub fn has(&self, capability: u64) -> bool {
        self.capabilities.effective & capability != 0
    }

    /// Whether all of this is within `other`: the same ids and groups, no capability more, no freer bits.
    pub fn within(&self, other: &Self) -> bool {
        let subset = |mine: u64, others: u64| mine & !others == 0;
        (&self.uids, &self.gids, &self.groups) == (&other.uids, &other.gids, &other.groups)
            && subset(self.capabilities.permitted, other.capabilities.permitted)
            && subset(self.capabilities.effective, other.capabilities.effective)
            && subset(self.capabilities.inheritable, other.capabilities.inheritable)
            && subset(self.bounding, other.bounding)
            && subset(self.ambient, other.ambient)
            && self.securebits == other.securebits
            && self.no_new_privs == other.no_new_privs
    }

    pub fn set_uids(&mut self, wanted: [u32; 3]) -> Result {
        if !self.has(SETUID) && wanted.iter().any(|id| !self.uids.contains(id)) {
            return Err(errno::EPERM);
        }
        let old = std::mem::replace(&mut self.uids, wanted);
        if self.securebits & NO_SETUID_FIXUP != 0 {
            return Ok(0);
        }
        // cap_emulate_setxuid
        if old.contains(&0) && !wanted.contains(&0) {
            if self.securebits & KEEP_CAPS == 0 {
                self.capabilities.permitted = 0;
                self.capabilities.effective = 0;
            }
            self.ambient = 0;
        }
        match (old[1], wanted[1]) {
            (0, new) if new != 0 => self.capabilities.effective = 0,
            (old, 0) if old != 0 => self.capabilities.effective = self.capabilities.permitted,
            _ => {}
        }
        Ok(0)
    }

    pub fn set_gids(&mut self, wanted: [u32; 3]) -> Result {
        if !self.has(SETGID) && wanted.iter().any(|id| !self.gids.contains(id)) {
            return Err(errno::EPERM);
        }
        self.gids = wanted;
        Ok(0)
    }

    pub fn set_groups(&mut self, groups: &[u32]) -> Result {
        if !self.has(SETGID) {
            return Err(errno::EPERM);
        }
        self.groups = groups.to_vec();
        self.groups.sort_unstable();
        Ok(0)
    }

    /// cap_capset; what the kernel does not know is taken out, and nothing said (mk_kernel_cap).
    pub fn set_capabilities(&mut self, wanted: Capabilities) -> Result {
        let now = self.capabilities;
        let permitted = wanted.permitted & ALL;
        let effective = wanted.effective & ALL;
        let inheritable = wanted.inheritable & ALL;
        let subset = |mine: u64, others: u64| mine & !others == 0;
        let allowed = (self.has(SETPCAP) || subset(inheritable, now.inheritable | now.permitted))
            && subset(inheritable, now.inheritable | self.bounding)
            && subset(permitted, now.permitted)
            && subset(effective, permitted);
        if !allowed {
            return Err(errno::EPERM);
        }
        self.capabilities = Capabilities { permitted, effective, inheritable };
        self.ambient &= permitted & inheritable;
        Ok(0)
    }

    pub fn drop_from_bounding(&mut self, capability: usize) -> Result {
        match u32::try_from(capability) {
            _ if !self.has(SETPCAP) => Err(errno::EPERM),
            Ok(capability) if capability <= LAST => {
                self.bounding &= !(1 << capability);
                Ok(0)
            }
            _ => Err(errno::EINVAL),
        }
    }

    pub fn keep_capabilities(&mut self, keep: bool) -> Result {
        if self.securebits & KEEP_CAPS_LOCKED != 0 {
            return Err(errno::EPERM);
        }
        self.securebits = self.securebits & !KEEP_CAPS | if keep { KEEP_CAPS } else { 0 };
        Ok(0)
    }

    pub fn set_securebits(&mut self, wanted: u32) -> Result {
        let locked = (self.securebits & LOCKS) >> 1;
        let refused = !self.has(SETPCAP)
            || locked & (self.securebits ^ wanted) != 0
            || self.securebits & LOCKS & !wanted != 0;
        if refused {
            return Err(errno::EPERM);
        }
        self.securebits = wanted;
        Ok(0)
    }

    pub fn raise_ambient(&mut self, capability: usize) -> Result {
        let bit = 1u64.checked_shl(u32::try_from(capability).unwrap_or(u32::MAX)).unwrap_or(0) & ALL;
        let allowed = self.capabilities.permitted & self.capabilities.inheritable & bit != 0
            && self.securebits & NO_AMBIENT_RAISE == 0;
        if !allowed {
            return Err(errno::EPERM);
        }
        self.ambient |= bit;
        Ok(0)
    }
}

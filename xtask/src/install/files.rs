//! The files that are installed as they are in `packaging/` and `docs/`.

use std::path::Path;

/// Below the prefix; `@serve@` is replaced.
pub(super) const DATA: &[(&str, &str)] = &[
    ("lib/systemd/system/stead.service", include_str!("../../../packaging/systemd/stead.service")),
    ("lib/systemd/system/stead.socket", include_str!("../../../packaging/systemd/stead.socket")),
    ("lib/sysusers.d/stead.conf", include_str!("../../../packaging/sysusers.d/stead.conf")),
    ("lib/tmpfiles.d/stead.conf", include_str!("../../../packaging/tmpfiles.d/stead.conf")),
    // What the errors and the units send their readers to.
    ("share/doc/stead/command.md", include_str!("../../../docs/command.md")),
    ("share/doc/stead/desktop.md", include_str!("../../../docs/desktop.md")),
    ("share/doc/stead/linux.md", include_str!("../../../docs/linux.md")),
    ("share/doc/stead/policy.md", include_str!("../../../docs/policy.md")),
    ("share/doc/stead/security.md", include_str!("../../../docs/security.md")),
    ("share/doc/stead/service.md", include_str!("../../../docs/service.md")),
];

/// Below /etc: an administrator's own are never overwritten.
pub(super) const CONFIGURATION: &[(&str, &str)] = &[
    ("stead/policy.toml", include_str!("../../../packaging/policy.toml")),
    ("logrotate.d/stead", include_str!("../../../packaging/logrotate.d/stead")),
];

const COMMON: &[(&str, &str)] = &[
    ("pam.d/stead-interactive", include_str!("../../../packaging/pam.d/common/stead-interactive")),
    ("pam.d/stead-network", include_str!("../../../packaging/pam.d/common/stead-network")),
    ("pam.d/stead-batch", include_str!("../../../packaging/pam.d/common/stead-batch")),
    ("pam.d/stead-service", include_str!("../../../packaging/pam.d/common/stead-service")),
];

const SYSTEM_AUTH: &[(&str, &str)] = &[
    ("pam.d/stead-interactive", include_str!("../../../packaging/pam.d/system-auth/stead-interactive")),
    ("pam.d/stead-network", include_str!("../../../packaging/pam.d/system-auth/stead-network")),
    ("pam.d/stead-batch", include_str!("../../../packaging/pam.d/system-auth/stead-batch")),
    ("pam.d/stead-service", include_str!("../../../packaging/pam.d/system-auth/stead-service")),
];

/// What a system's own PAM services include.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavour {
    /// `common-auth` and its like: Debian, Ubuntu.
    Common,
    /// `system-auth`: Fedora, Arch, Gentoo.
    SystemAuth,
    /// Something else: none are installed.
    None,
}

impl Flavour {
    /// What there is on this machine.
    pub(super) fn of_this_machine() -> Self {
        let there = |name| Path::new("/etc/pam.d").join(name).exists();
        if there("common-session-noninteractive") {
            Self::Common
        } else if there("system-auth") {
            Self::SystemAuth
        } else {
            Self::None
        }
    }

    pub(super) fn files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Common => COMMON,
            Self::SystemAuth => SYSTEM_AUTH,
            Self::None => &[],
        }
    }
}

//! The machine's disk, with its kernel beside it.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::build;

/// What the tests and the package need; the kernel, and what boots it.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,libpam-systemd,libpam-modules,libpam-runtime,procps,logrotate,\
                        linux-image-amd64,initramfs-tools,apparmor,kmod,udev,util-linux,acl,attr,uidmap,tmux,zstd";
const GUEST: &str = include_str!("guest.sh");
const UNIT: &str = include_str!("guest.service");
const PROFILE: &str = include_str!("apparmor-profile");
/// All that the disk takes of the first file system; the rest of the initial one would be unpacked for nothing.
const MODULES: &str = "virtio_pci\nvirtio_blk\next4\n";
const GIB: u64 = 1 << 30;

/// A release of Debian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// 12: Linux 6.1, systemd 252.
    Bookworm,
    /// 13: Linux 6.12, systemd 257.
    Trixie,
}

impl Release {
    fn name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }
}

impl std::str::FromStr for Release {
    type Err = io::Error;

    fn from_str(name: &str) -> io::Result<Self> {
        [Self::Bookworm, Self::Trixie]
            .into_iter()
            .find(|release| release.name() == name)
            .ok_or_else(|| io::Error::other("a machine is a bookworm or a trixie"))
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Debian {}", self.name())
    }
}

/// The folder with `disk`, `vmlinuz` and `initrd.img`, which are made where there are none yet.
pub(super) fn made(release: Release) -> io::Result<PathBuf> {
    let folder = build::target()?.join("machine").join(release.name());
    if folder.join("disk").exists() {
        return Ok(folder);
    }
    eprintln!("making the disk of a {release} in {}", folder.display());
    fs::create_dir_all(&folder)?;
    let written = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).map(|()| path)
    };
    let (unit, guest) = (written("unit", UNIT)?, written("guest", GUEST)?);
    let (modules, profile) = (written("modules", MODULES)?, written("profile", PROFILE)?);
    let disk = folder.join("disk.part");
    fs::File::create(&disk)?.set_len(4 * GIB)?;
    // Without root mmdebstrap writes it as a user of a namespace of its own.
    let private = fs::Permissions::from_mode(0o600);
    let as_root = rustix::process::geteuid().is_root();
    let writable = if as_root { private.clone() } else { fs::Permissions::from_mode(0o666) };
    fs::set_permissions(&disk, writable)?;
    let mut make = Command::new("mmdebstrap");
    make.args(["--quiet", "--variant=minbase", "--format=null", &format!("--include={PACKAGES}")]);
    let upload = |what: &Path, to: &str| format!("upload {} {to}", what.display());
    let download =
        |what: &str| format!("download {what} {}", folder.join(what.trim_start_matches('/')).display());
    let essential = [
        "mkdir -p \"$1\"/etc/initramfs-tools/conf.d".to_owned(),
        "echo MODULES=list > \"$1\"/etc/initramfs-tools/conf.d/stead".to_owned(),
        upload(&modules, "/etc/initramfs-tools/modules"),
    ];
    let customize = [
        upload(&unit, "/etc/systemd/system/stead-machine.service"),
        upload(&guest, "/usr/local/sbin/stead-machine"),
        upload(&profile, "/etc/apparmor.d/stead-test-label"),
        "chroot \"$1\" systemctl --quiet enable stead-machine.service".to_owned(),
        download("/vmlinuz"),
        download("/initrd.img"),
        // Kept there until mmdebstrap has ended: nothing that is installed in the machine would be started.
        "rm -f \"$1\"/usr/sbin/policy-rc.d".to_owned(),
        // Seen by a mount of its own, for /proc and /sys are mounted there now.
        format!(
            "unshare --mount sh -ec 'mount --bind \"$1\" \"$1\"/mnt; /sbin/mke2fs -q -F -t ext4 -d \"$1\"/mnt {}' sh \"$1\"",
            disk.display()
        ),
    ];
    make.args(essential.map(|hook| format!("--essential-hook={hook}")));
    make.args(customize.map(|hook| format!("--customize-hook={hook}")));
    let output = make.arg(release.name()).arg("-").output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            io::Error::other("needs mmdebstrap (apt-get install mmdebstrap e2fsprogs)")
        }
        _ => error,
    })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("mmdebstrap: {}\n{said}", output.status)));
    }
    // Who writes it is root in the machine that is started from it.
    fs::set_permissions(&disk, private)?;
    fs::rename(disk, folder.join("disk"))?;
    Ok(folder)
}

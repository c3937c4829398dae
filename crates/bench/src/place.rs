//! An /etc of this process's own, in which the peers may become any user and our PAM services are the packaged ones: the
//! testbed's have modules that only tests need.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use rustix::mount::MountPropagationFlags;
use rustix::thread::UnshareFlags;
use testbed::{Bed, Mode};

use crate::Outcome;

macro_rules! packaged {
    ($($name:literal),*) => {
        [$((
            $name,
            include_str!(concat!("../../../packaging/pam.d/common/", $name)),
            include_str!(concat!("../../../packaging/pam.d/system-auth/", $name)),
        )),*]
    };
}

/// The services by name, for Debian and its kin, and for the others.
const PAM_SERVICES: [(&str, &str, &str); 4] =
    packaged!["stead-interactive", "stead-network", "stead-batch", "stead-service"];

/// Puts a copy of the bed's /etc over it, for this process and those that it starts. To be called while there is one
/// thread. Where no mounts may be made, the bed's own is used as it is.
///
/// # Errors
///
/// When the copy cannot be made.
pub(crate) fn furnish(bed: &Bed) -> Outcome {
    // SAFETY: a mount namespace changes nothing that this process has in memory, and no thread shares its descriptors.
    let own_mounts = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) };
    if bed.mode() == Mode::Container || own_mounts.is_err() {
        println!("no mounts can be made here: PAM services, sudo and doas are used as they are configured");
        return Ok(());
    }
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let etc = bed.scratch("etc");
    if !Command::new("cp").arg("-a").arg("/etc/.").arg(&etc).status()?.success() {
        return Err("/etc could not be copied".into());
    }
    let debian = etc.join("pam.d/common-auth").exists();
    for (name, common, system_auth) in PAM_SERVICES {
        let mut service = if debian { common } else { system_auth }.to_owned();
        if !bed.can_set_login_uid() {
            service = service.replace("required  pam_loginuid.so", "optional  pam_loginuid.so");
        }
        write(&etc.join("pam.d").join(name), &service, 0o644)?;
    }
    write(&etc.join("doas.conf"), "permit nopass root\n", 0o600)?;
    if etc.join("sudoers.d").is_dir() {
        write(&etc.join("sudoers.d/stead-bench"), "root ALL=(ALL:ALL) NOPASSWD: ALL\n", 0o440)?;
    }
    rustix::mount::mount_bind(&etc, "/etc")?;
    Ok(())
}

fn write(file: &Path, text: &str, mode: u32) -> Outcome {
    fs::write(file, text)?;
    fs::set_permissions(file, fs::Permissions::from_mode(mode))?;
    Ok(())
}

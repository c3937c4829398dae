//! What logging accounts on takes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Area, Finding, State};

const SERVICES: [&str; 4] = ["stead-interactive", "stead-network", "stead-batch", "stead-service"];
const SERVICE_FOLDERS: [&str; 4] = ["/etc/pam.d", "/usr/lib/pam.d", "/usr/etc/pam.d", "/usr/share/pam.d"];
const LIBRARY_FOLDERS: [&str; 4] = ["/lib", "/usr/lib", "/lib64", "/usr/lib64"];
const WORKERS: [&str; 2] = ["/usr/libexec/stead/stead-session", "/usr/lib/stead/stead-session"];

pub fn area(by_itself: bool) -> Area {
    let mut findings = vec![library()];
    findings.extend(SERVICES.map(service));
    findings.push(worker(by_itself));
    findings.push(folder("/run/stead"));
    findings.push(folder("/var/lib/stead"));
    Area { name: "Logon", findings }
}

fn library() -> Finding {
    const NAME: &str = "libpam.so.0";
    let below = |folder: &str| {
        let plain = Path::new(folder).join(NAME);
        let nested =
            fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path().join(NAME));
        std::iter::once(plain).chain(nested).find(|path| path.exists())
    };
    match LIBRARY_FOLDERS.iter().find_map(|folder| below(folder)) {
        Some(path) => Finding::good("PAM", path.display().to_string()),
        None => Finding::missing("PAM", format!("there is no {NAME}"))
            .mend("install libpam0g (Debian), pam (Fedora)"),
    }
}

fn service(name: &'static str) -> Finding {
    let what = format!("PAM service {name}");
    let found = SERVICE_FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists());
    match found {
        Some(path) => Finding::good(&what, path.display().to_string()),
        None => Finding::missing(&what, "it has no file: that logon type cannot be used")
            .mend(format!("create /etc/pam.d/{name}: docs/linux.md has it ready to copy")),
    }
}

fn worker(by_itself: bool) -> Finding {
    let what = "session worker";
    if let Some(path) = WORKERS.iter().find(|path| Path::new(path).exists()) {
        return Finding::good(what, (*path).to_owned());
    }
    match stead::os::linux::session_worker() {
        Ok(path) => Finding::good(what, path.display().to_string()),
        Err(error) => {
            let state = if by_itself { State::Missing } else { State::Note };
            Finding::new(what, state, crate::ending::said(&error))
        }
    }
}

/// Root's, and closed to others; made when it is first needed.
fn folder(path: &str) -> Finding {
    let Ok(status) = fs::symlink_metadata(path) else {
        return Finding::good(path, "not there yet: made when it is needed");
    };
    let whose = status.uid();
    if !status.is_dir() {
        return Finding::missing(path, "it is no directory").mend(format!("rm {path}"));
    }
    if status.mode() & 0o022 != 0 {
        return Finding::missing(path, format!("others can write it (mode {:o})", status.mode() & 0o7777))
            .mend(format!("chmod go-w {path}"));
    }
    if whose != 0 {
        return Finding::note(
            path,
            format!("it belongs to uid {whose}: only that user's servers can use it"),
        );
    }
    Finding::good(path, "root's")
}

//! The service: whether it runs, whether it answers, and by which policy.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use stead_broker::policy::{DEFAULT_FOLDER, Policy};
use stead_protocol::Status;
use stead_protocol::client::CallError;

use super::{Area, Finding};
use crate::output;

/// It answers at once, or it does not.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where systemd looks for units (systemd.unit(5)), in its order.
const UNITS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// What was seen of the service.
pub struct Seen {
    path: PathBuf,
    status: Result<Status, CallError>,
}

impl Seen {
    pub fn look() -> Self {
        let path = crate::service::path();
        let status = crate::service::status(&path, PATIENCE);
        Self { path, status }
    }

    /// Whether it runs and answers.
    pub fn is_there(&self) -> bool {
        self.status.is_ok()
    }

    /// Its process, whose confinement every client's process inherits.
    pub fn pid(&self) -> Option<u32> {
        self.status.as_ref().ok().map(|status| status.pid)
    }

    /// `not_wanted`: programs are run without it, so that its absence is no fault.
    pub fn area(&self, not_wanted: bool) -> Area {
        let mut findings = vec![self.reached(not_wanted)];
        if let Ok(status) = &self.status {
            let own = env!("CARGO_PKG_VERSION");
            findings.push(if status.version == own {
                Finding::good("version", own)
            } else {
                Finding::note("version", format!("the service is {}, this command {own}", status.version))
                    .mend("restart the service after an upgrade; its processes live on")
            });
            if let Some(part) = &status.confined {
                let found = format!("this process is confined more than the service: {part}");
                findings.push(
                    Finding::note("caller", found)
                        .mend("the service creates for it only what a rule names it for"),
                );
            }
        }
        findings.push(policy(Path::new(DEFAULT_FOLDER)));
        findings.push(units());
        Area { name: "Service", findings }
    }

    fn reached(&self, not_wanted: bool) -> Finding {
        let what = "service";
        let path = self.path.display();
        match &self.status {
            Ok(status) => Finding::good(
                what,
                format!(
                    "answers at {path}: {}, {}",
                    output::count(status.sessions, "session"),
                    output::count(status.processes, "process")
                ),
            ),
            Err(CallError::Connection(error)) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    Finding::note(what, format!("none runs: nobody listens at {path}"))
                        .mend("systemctl enable --now stead.socket, or run `stead serve` as root")
                }
                _ if not_wanted => Finding::note(what, format!("{path}: {error}")),
                _ => Finding::missing(what, format!("{path}: {error}")).mend("journalctl -u stead tells why"),
            },
            Err(other) => Finding::missing(what, format!("{path}: {other}")).mend("restart the service"),
        }
    }
}

fn policy(folder: &Path) -> Finding {
    match Policy::load(folder) {
        Ok(policy) if policy.files().is_empty() => {
            Finding::good("policy", "there is none: everyone may create processes as itself")
        }
        Ok(policy) => {
            let (allow, deny) = policy.rule_counts();
            Finding::good("policy", crate::policy::rules(allow, deny))
        }
        // Not everybody may read it; the service can.
        Err(_)
            if std::fs::read_dir(folder)
                .is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied) =>
        {
            Finding::note("policy", format!("{} cannot be read by this user", folder.display()))
        }
        Err(errors) => {
            let first = errors.as_slice().first().map(ToString::to_string).unwrap_or_default();
            Finding::missing("policy", first).mend("`stead policy check` lists everything that is wrong")
        }
    }
}

fn units() -> Finding {
    if !Path::new("/run/systemd/system").exists() {
        return Finding::note("units", "systemd does not run here: start `stead serve` by other means");
    }
    let find =
        |name: &str| UNITS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists());
    match find("stead.service") {
        Some(path) => Finding::good("units", path.display().to_string()),
        None => Finding::note("units", "stead.service is not installed")
            .mend("cargo xtask install, or the package"),
    }
}

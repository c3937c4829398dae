//! The control: what the usual tools make of a process for a user.

use crate::linux::accounts::User;
use crate::linux::bed::Bed;
use crate::linux::probe::Probe;
use std::process::{Command, Stdio};

pub(crate) fn setpriv(bed: &Bed, user: &User) -> Probe {
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={}", user.uid)).arg(format!("--regid={}", user.gid)).args([
        "--init-groups",
        "--inh-caps=-all",
        "--",
    ]);
    run(command.arg(bed.bin("probe")))
}

pub(crate) fn runuser(bed: &Bed, user: &User) -> Probe {
    run(Command::new("runuser").args(["-u", &user.name, "--"]).arg(bed.bin("probe")))
}

fn run(command: &mut Command) -> Probe {
    let output = crate::linux::sys::with_default_signals(command)
        .current_dir("/")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?} ended with {}", output.status);
    Probe::parse(&output.stdout)
}

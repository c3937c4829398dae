//! Folders of `/tmp` that go away with what uses them; those of a run that was killed, with the next one.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Removed with all in it.
pub struct Folder(PathBuf);

impl Folder {
    /// `/tmp/stead-KIND-PID`, with this mode.
    pub fn new(kind: &str, mode: u32) -> io::Result<Self> {
        let (all, name) = (std::env::temp_dir(), format!("stead-{kind}-"));
        sweep(&all, &name)?;
        let path = all.join(format!("{name}{}", std::process::id()));
        fs::DirBuilder::new().mode(mode).create(&path)?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} stays behind: {error}", self.0.display());
        }
    }
}

/// Removes this user's folders of processes that are no more.
fn sweep(all: &Path, name: &str) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    for entry in fs::read_dir(all)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let pid = file_name.to_str().and_then(|file| file.strip_prefix(name)?.parse::<u32>().ok());
        let gone = pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists());
        if gone && entry.metadata().is_ok_and(|folder| folder.is_dir() && folder.uid() == own) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// A command that does not outlive this program, whatever ends it (`PR_SET_PDEATHSIG`).
pub fn ends_with_us(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_runs_folder_goes_with_the_next_run_and_nobody_elses_does() {
        let all = std::env::temp_dir().join(format!("stead-scratch-test-{}", std::process::id()));
        let own = std::process::id().to_string();
        // No process has so high a number (PID_MAX_LIMIT).
        for name in
            ["stead-x-4194305", &format!("stead-x-{own}"), "stead-x-", "stead-x-4194305b", "stead-y-4194305"]
        {
            fs::create_dir_all(all.join(name).join("inside")).unwrap();
        }
        sweep(&all, "stead-x-").unwrap();
        let mut left: Vec<_> = fs::read_dir(&all).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["stead-x-", "stead-x-4194305b", &format!("stead-x-{own}"), "stead-y-4194305"]);
        fs::remove_dir_all(all).unwrap();
    }

    #[test]
    fn a_command_ends_with_the_thread_that_started_it() {
        let child = std::thread::spawn(|| {
            let child = ends_with_us("sleep").arg("600").spawn().unwrap();
            // It has been executed once `setpriv` is another program.
            while !fs::read_to_string(format!("/proc/{}/comm", child.id())).unwrap().starts_with("sleep") {
                std::thread::yield_now();
            }
            child
        });
        assert!(!child.join().unwrap().wait().unwrap().success());
    }
}

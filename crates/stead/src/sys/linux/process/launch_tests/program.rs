//! Finding the program, and saying why it cannot be executed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use stead_trampoline::report::why;

use super::*;
use crate::error::{ErrorKind, ProgramFault};
use crate::process::Stage;

/// A directory of files that the client may reach, removed with it.
struct Files(PathBuf);

impl Files {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("stead-launch-{}-{name}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn fault(program: ProgramSearch) -> LaunchFault {
    output(Spec { program, ..spec("") }, &["program"]).unwrap_err()
}

fn why_not(path: &str) -> (Errno, u32) {
    let fault = fault(program_at(path));
    assert_eq!(fault.stage, Stage::Execute, "{path}: {fault:?}");
    (fault.errno, fault.detail)
}

#[test]
fn each_way_in_which_a_program_cannot_be_executed_has_its_own_name() {
    require_root!();
    let files = Files::new("programs");
    let in_it = |name: &str| files.0.join(name).to_str().unwrap().to_owned();
    assert_eq!(why_not(&in_it("missing")), (Errno::NOENT, why::NOT_FOUND));
    assert_eq!(why_not(&in_it("missing/deeper")), (Errno::NOENT, why::NOT_FOUND));
    assert_eq!(why_not("/usr/bin"), (Errno::ACCESS, why::DIRECTORY));
    assert_eq!(why_not("/dev/null"), (Errno::ACCESS, why::NOT_REGULAR));
    let script = "#!/bin/sh\n";
    assert_eq!(why_not(&files.file("plain", script, 0o644)), (Errno::ACCESS, why::NOT_PERMITTED));
    assert_eq!(why_not(&files.file("roots", script, 0o700)), (Errno::ACCESS, why::NOT_PERMITTED));
    let lost = files.file("lost", "#!/nowhere/interpreter\n", 0o755);
    assert_eq!(why_not(&lost), (Errno::NOENT, why::INTERPRETER_MISSING));
    let denied = files.file("denied", &format!("#!{}\n", in_it("plain")), 0o755);
    assert_eq!(why_not(&denied), (Errno::ACCESS, why::INTERPRETER_DENIED));
    let text = files.file("text", "just text\n", 0o755);
    assert_eq!(why_not(&text), (Errno::NOEXEC, why::BAD_FORMAT));
    let busy = files.file("busy", script, 0o755);
    let open = File::options().append(true).open(&busy).unwrap();
    // Scripts may be written while they are executed, programs may not.
    fs::copy("/bin/true", &busy).unwrap();
    assert_eq!(why_not(&busy), (Errno::TXTBSY, why::BUSY));
    drop(open);
}

#[test]
fn the_search_goes_on_where_execvpe_goes_on_and_never_to_a_shell() {
    require_root!();
    let files = Files::new("search");
    let denied = files.file("denied", "#!/bin/sh\n", 0o644);
    let text = files.file("text", "echo from a shell\n", 0o755);
    let list = |paths: &[&str]| ProgramSearch::Candidates(paths.iter().map(|one| string(one)).collect());
    let found = list(&["/nowhere/echo", "/etc/passwd/echo", &denied, "/bin/echo"]);
    let text_of = output(Spec { program: found, ..spec("") }, &["echo", "found"]).unwrap();
    assert_eq!(text_of, "found\n");
    let remembered = fault(list(&["/nowhere/echo", &denied, "/nowhere/else"]));
    assert_eq!((remembered.errno, remembered.detail), (Errno::ACCESS, why::NOT_PERMITTED));
    let stopped = fault(list(&[&text, "/bin/echo"]));
    assert_eq!((stopped.errno, stopped.detail), (Errno::NOEXEC, why::BAD_FORMAT));
    let nothing = fault(list(&[]));
    assert_eq!((nothing.errno, nothing.detail), (Errno::NOENT, why::NOT_FOUND));
}

#[test]
fn a_pinned_program_is_executed_and_a_pinned_script_is_refused() {
    require_root!();
    let files = Files::new("pinned");
    let script = files.file("script", "#!/bin/sh\necho ran\n", 0o755);
    let private = files.file("private", "#!/bin/sh\necho ran\n", 0o700);
    let pin = |path: &Path, flags: i32| {
        use std::os::unix::fs::OpenOptionsExt;
        let file = File::options().read(true).custom_flags(flags).open(path).unwrap();
        let (mut what, output) = prepared(spec(""), &["echo", "pinned"]);
        what.spec.program = ProgramSearch::Descriptor(5);
        what.descriptors.push((file.into(), 5));
        (what, output)
    };
    for flags in [0, libc::O_PATH] {
        let (what, mut output) = pin(Path::new("/bin/echo"), flags);
        let started = start(what).unwrap();
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        assert_eq!(text, "pinned\n");
        collect(&started);
        for path in [&script, &private] {
            let fault = start(pin(Path::new(path), flags).0).unwrap_err();
            assert_eq!((fault.stage, fault.detail), (Stage::Execute, why::PINNED_SCRIPT));
        }
    }
}

#[test]
fn a_program_that_only_root_may_execute_is_refused_though_the_server_opened_it() {
    require_root!();
    let files = Files::new("roots");
    let path = files.0.join("true");
    fs::copy("/bin/true", &path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
    let (mut what, _output) = prepared(spec(""), &["true"]);
    what.spec.program = ProgramSearch::Descriptor(5);
    what.descriptors.push((File::open(&path).unwrap().into(), 5));
    let fault = start(what).unwrap_err();
    assert_eq!((fault.errno, fault.detail), (Errno::ACCESS, why::NOT_PERMITTED));
}

#[test]
fn the_directory_is_entered_as_the_client() {
    require_root!();
    let files = Files::new("directory");
    fs::set_permissions(&files.0, Permissions::from_mode(0o700)).unwrap();
    let directory = string(files.0.to_str().unwrap());
    let fault = output(Spec { directory, ..spec("/bin/echo") }, &["echo"]).unwrap_err();
    assert_eq!((fault.stage, fault.errno), (Stage::Directory, Errno::ACCESS));
    let error = fault.into_error("creating a process", "echo", "/private");
    assert_eq!(*error.kind(), ErrorKind::DirectoryUnusable { directory: "/private".into() });
}

#[test]
fn the_process_limit_is_found_at_execve_and_named() {
    require_root!();
    const NPROC: u32 = 6;
    // The kernel counts what the user had before the new process became his (kernel/sys.c,
    // flag_nproc_exceeded): with none, even a limit of 0 is not exceeded.
    let (one, its_output) = prepared(spec("/bin/sleep"), &["sleep", "1000"]);
    let one = start(one).unwrap();
    let mut what = spec("/bin/echo");
    what.limits = vec![(NPROC, 0, 0)];
    let result = output(what, &["echo"]);
    rustix::process::pidfd_send_signal(&one.pidfd, rustix::process::Signal::KILL).unwrap();
    collect(&one);
    drop(its_output);
    let fault = result.unwrap_err();
    assert_eq!((fault.stage, fault.errno, fault.detail), (Stage::Execute, Errno::AGAIN, why::PROCESS_LIMIT));
    let error = fault.into_error("creating a process", "echo", "/");
    assert!(matches!(error.kind(), ErrorKind::LimitReached { limit } if limit.contains("RLIMIT_NPROC")));
}

#[test]
fn arguments_that_are_too_long_are_named() {
    require_root!();
    let long = "x".repeat(131_072);
    let fault = output(spec("/bin/echo"), &["echo", &long]).unwrap_err();
    let error = fault.into_error("creating a process", "echo", "/");
    let why = ProgramFault::ArgumentsTooLong;
    assert_eq!(*error.kind(), ErrorKind::ProgramUnusable { program: "echo".into(), why });
}

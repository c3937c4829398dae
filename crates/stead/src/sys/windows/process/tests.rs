use std::io::{Read, Write};
use std::os::windows::io::AsHandle;
use std::time::Duration;

use windows_sys::Win32::Foundation::LocalFree;
use windows_sys::Win32::UI::Shell::CommandLineToArgvW;

use crate::error::{ErrorKind, ProgramFault};
use crate::os::windows::{ChildExt, CommandExt};
use crate::process::{Command, Stdio};
use crate::token::Token;

/// How the system itself reads a command line.
pub(super) fn command_line_to_argv(line: &[u16]) -> Vec<Vec<u16>> {
    let mut count = 0;
    // SAFETY: the line ends with NUL; the answer is an array of `count` strings that end with NUL, freed once.
    unsafe {
        let list = CommandLineToArgvW(line.as_ptr(), &raw mut count);
        assert!(!list.is_null());
        let all = (0..usize::try_from(count).unwrap()).map(|index| {
            let text = *list.add(index);
            let length = (0..line.len()).take_while(|at| *text.add(*at) != 0).count();
            std::slice::from_raw_parts(text, length).to_vec()
        });
        let all = all.collect();
        LocalFree(list.cast());
        all
    }
}

fn own() -> Token<crate::Primary> {
    Token::current().unwrap()
}

fn cmd(tail: &str) -> Command {
    let mut command = Command::new("cmd");
    command.raw_tail(tail).current_dir(r"C:\");
    command
}

#[test]
fn output_and_exit_code_come_back() {
    let output = cmd("/c echo hello& echo trouble 1>&2& exit 7").output_as(&own()).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "hello");
    assert_eq!(String::from_utf8_lossy(&output.stderr).trim(), "trouble");
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn what_is_written_to_it_the_process_reads() {
    let mut child = cmd("/c more").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn_as(&own()).unwrap();
    child.stdin.take().unwrap().write_all(b"from the server\r\n").unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.contains("from the server"), "{text:?}");
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_environment_is_the_tokens_and_what_was_added() {
    let output =
        cmd("/c echo %STEAD_ADDED% [%STEAD_OWN%]").env("STEAD_ADDED", "yes").output_as(&own()).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "yes [%STEAD_OWN%]");
}

#[test]
fn a_suspended_process_runs_when_it_is_resumed_and_not_before() {
    let mut child = cmd("/c exit 3").suspended(true).spawn_as(&own()).unwrap();
    assert!(child.is_suspended());
    assert!(child.wait_timeout(Duration::from_millis(200)).unwrap().is_none());
    assert!(matches!(child.wait().unwrap_err().kind(), ErrorKind::InvalidInput { .. }));
    child.resume().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn a_suspended_process_whose_child_is_dropped_ends() {
    let child = cmd("/c exit 3").suspended(true).spawn_as(&own()).unwrap();
    let process = child.as_handle().try_clone_to_owned().unwrap();
    drop(child);
    let mut code = 0;
    // SAFETY: the handle is open; `code` is written only by this call.
    unsafe {
        use std::os::windows::io::AsRawHandle;
        use windows_sys::Win32::System::Threading::{GetExitCodeProcess, WaitForSingleObject};
        assert_eq!(WaitForSingleObject(process.as_raw_handle(), 10_000), 0);
        assert_ne!(GetExitCodeProcess(process.as_raw_handle(), &raw mut code), 0);
    }
    assert_eq!(code, 1);
}

#[test]
fn kill_tree_ends_what_the_process_created() {
    let mut child = cmd("/c start /b cmd /c pause & pause").stdin(Stdio::piped()).spawn_as(&own()).unwrap();
    let patience = std::time::Instant::now() + Duration::from_secs(20);
    while child.processes().unwrap() < 2 && std::time::Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(child.processes().unwrap() >= 2);
    child.kill_tree().unwrap();
    child.wait().unwrap();
    let patience = std::time::Instant::now() + Duration::from_secs(20);
    while child.processes().unwrap() > 0 && std::time::Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(child.processes().unwrap(), 0);
}

#[test]
fn kill_ends_the_process_and_may_be_said_twice() {
    let mut child = cmd("/c pause").stdin(Stdio::piped()).spawn_as(&own()).unwrap();
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    child.kill().unwrap();
}

#[test]
fn what_cannot_be_run_is_named() {
    let run = |program: &str| Command::new(program).current_dir(r"C:\").spawn_as(&own()).unwrap_err();
    assert!(matches!(run("no-such-program").kind(), ErrorKind::ProgramNotFound { .. }));
    let batch = ProgramFault::BatchFile;
    assert!(matches!(run(r"C:\x.bat. ").kind(), ErrorKind::ProgramUnusable { why, .. } if *why == batch));
    let text = std::env::temp_dir().join(format!("stead-text-{}.exe", std::process::id()));
    std::fs::write(&text, "no program").unwrap();
    let refused = Command::new(&text).current_dir(r"C:\").spawn_as(&own()).unwrap_err();
    std::fs::remove_file(&text).unwrap();
    let format = ProgramFault::BadFormat;
    assert!(matches!(refused.kind(), ErrorKind::ProgramUnusable { why, .. } if *why == format), "{refused}");
    let refused = cmd("/c exit").current_dir(r"C:\no\such\directory").spawn_as(&own()).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::DirectoryUnusable { .. }), "{refused}");
}

#[test]
fn nul_characters_are_refused_before_anything_is_done() {
    for command in [
        Command::new("cmd").arg("a\0b"),
        Command::new("cmd").env("A\0", "x"),
        Command::new("cmd").env("A", "x\0"),
        Command::new("cmd").env("", "x"),
        Command::new("cmd").env("A=B", "x"),
        &mut Command::new("c\0d"),
        Command::new("cmd").raw_tail("\0"),
        Command::new("cmd").current_dir("a\0b"),
        Command::new("cmd").current_dir("relative"),
    ] {
        let refused = command.spawn_as(&own()).unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::InvalidInput { .. }), "{refused}");
    }
}

#[test]
fn an_early_end_is_explained() {
    use std::os::windows::process::ExitStatusExt;
    let status = std::process::ExitStatus::from_raw(0xC000_0142);
    assert!(crate::Child::explain(status).unwrap().contains("desktop"));
    assert_eq!(crate::Child::explain(std::process::ExitStatus::from_raw(0)), None);
}

//! What commands on Windows can be asked for besides: batch files, consoles, profiles, deadlines; and the same calls
//! for tokio.
#![cfg(windows)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod windows_support;

use std::path::PathBuf;
use std::time::Duration;
use stead::os::windows::{ChildExt, CommandExt, Console, Dacl, TokenExt};
use stead::{Command, ErrorKind, Impersonation, Stdio, Token};
use testbed::windows::{Mint, Seen, WinProbe, program};
use windows_support::{minted, own};

/// A directory of the test's own, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("stead-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_batch_file_runs_where_it_is_asked_for_with_a_raw_tail_and_no_arguments() {
    let scratch = Scratch::new("batch opt-in");
    let batch = scratch.0.join("say it.bat");
    std::fs::write(&batch, "@echo off\r\necho [%1] [%2]\r\nexit /b 7\r\n").unwrap();
    let mut command = Command::new(&batch);
    command.current_dir("C:\\").raw_tail("one \"two three\"");
    let refused = command.output_as(&own()).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::ProgramUnusable { .. }), "{refused}");
    let output = command.allow_batch_file(true).output_as(&own()).unwrap();
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert_eq!((said.as_str(), output.status.code()), ("[one] [\"two three\"]", Some(7)));
    let refused = command.arg("x").output_as(&own()).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::InvalidInput { .. }), "{refused}");
    let strange = scratch.0.join("100%.bat");
    std::fs::copy(&batch, &strange).unwrap();
    let mut command = Command::new(strange);
    let refused = command.allow_batch_file(true).current_dir("C:\\").output_as(&own()).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::InvalidInput { .. }), "{refused}");
}

#[test]
fn a_process_can_have_a_console_of_its_own_with_its_streams_or_ours() {
    for console in [Console::NoWindow, Console::New, Console::Hidden] {
        let mut command = Command::new(program("winprobe"));
        command.console(console).current_dir("C:\\");
        let output = command.output_as(&own()).unwrap();
        assert_eq!(WinProbe::parse(&output.stdout).user, Seen::own().unwrap().user, "{console:?}");
        // No stream is set: no handle goes with it at all.
        assert!(command.arg("--quick").status_as(&own()).unwrap().success(), "{console:?}");
    }
}

#[test]
fn the_pipes_of_a_process_are_the_servers_alone() {
    let mut command = Command::new(program("winprobe"));
    command.arg("--hold").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn_as(&own()).unwrap();
    let lists = [
        Dacl::of(child.stdin.as_ref().unwrap()).unwrap().unwrap(),
        Dacl::of(child.stdout.as_ref().unwrap()).unwrap().unwrap(),
    ];
    for list in lists {
        let [entry] = list.entries() else { panic!("{list}") };
        assert_eq!((entry.sid(), entry.mask()), (Some(&own().user_sid()), 0x0012_019b), "{list}");
    }
    child.kill().unwrap();
}

#[test]
fn what_is_not_created_in_time_never_runs() {
    let scratch = Scratch::new("deadline");
    let mark = scratch.0.join("mark");
    let mut command = Command::new("cmd");
    command.raw_tail(format!("/c echo ran> {}", mark.display())).current_dir("C:\\");
    for _ in 0..5 {
        let late = command.deadline(Duration::ZERO).spawn_as(&own()).unwrap_err();
        assert!(matches!(late.kind(), ErrorKind::DeadlinePassed { .. }), "{late}");
    }
    std::thread::sleep(Duration::from_secs(2));
    assert!(!mark.exists());
    assert!(command.deadline(Duration::from_secs(30)).status_as(&own()).unwrap().success());
    assert!(mark.exists());
}

#[test]
fn a_user_without_a_profile_has_no_directory_to_begin_in_and_the_thread_stays_who_it_was() {
    let token = testbed::minted!(minted());
    let other = testbed::minted!(Mint::new("S-1-5-21-1-1-1-1234").impersonation());
    let other = Token::<Impersonation>::try_from(other).unwrap();
    let mut command = Command::new(program("winprobe"));
    let environment = other
        .impersonate(|_| {
            let refused = command.env_remove("USERPROFILE").output_as(&token);
            if let Err(refused) = refused {
                assert!(matches!(refused.kind(), ErrorKind::InvalidInput { .. }), "{refused}");
                assert!(refused.to_string().contains("USERPROFILE"), "{refused}");
            }
            let output = command.current_dir("C:\\").output_as(&token).unwrap();
            assert_eq!(Seen::thread().unwrap().user, "S-1-5-21-1-1-1-1234");
            WinProbe::parse(&output.stdout).environment
        })
        .unwrap();
    assert!(!environment.keys().any(|name| name.eq_ignore_ascii_case("USERPROFILE")), "{environment:?}");
}

/// Wine says that it loads the profile of anybody.
#[test]
fn a_profile_that_is_not_there_after_it_was_loaded_is_an_error() {
    let token = testbed::minted!(minted());
    let mut command = Command::new(program("winprobe"));
    let refused = command.load_profile(true).current_dir("C:\\").output_as(&token).unwrap_err();
    assert!(
        matches!(refused.kind(), ErrorKind::AccountUnknown { .. } | ErrorKind::System { .. }),
        "nobody knows a name for this user: {refused}"
    );
}

#[test]
fn a_profile_is_loaded_for_as_long_as_the_tree_lives() {
    testbed::skip_under_wine!("LoadUserProfileW says TRUE and loads nothing");
    let mut command = Command::new(program("winprobe"));
    match command.load_profile(true).output_as(&own()) {
        Ok(output) => assert!(WinProbe::parse(&output.stdout).environment.contains_key("USERPROFILE")),
        Err(error) => assert!(
            matches!(error.kind(), ErrorKind::PrivilegeMissing { missing, .. } if missing.starts_with("Se")),
            "{error}"
        ),
    }
}

#[test]
fn the_job_is_counted_until_it_is_empty() {
    let mut command = Command::new("cmd");
    command.raw_tail("/c start /b cmd /c pause & exit 0").stdin(Stdio::piped()).current_dir("C:\\");
    let mut child = command.spawn_as(&own()).unwrap();
    let input = child.stdin.take();
    child.wait().unwrap();
    // The one that it started; under Wine a console is a process too, and in the job.
    assert!(child.processes().unwrap() >= 1);
    drop(input);
    let patience = std::time::Instant::now() + Duration::from_secs(20);
    while child.processes().unwrap() > 0 {
        assert!(std::time::Instant::now() < patience);
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(feature = "tokio")]
mod with_tokio {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn many_processes_run_and_are_waited_for_on_one_thread() {
        runtime().block_on(async {
            let token = own();
            let all: Vec<_> = (0..8)
                .map(|number| {
                    let token = token.clone();
                    tokio::spawn(async move {
                        let mut command = Command::new(program("winprobe"));
                        command.args(["--exit", &number.to_string()]);
                        command.output_as_async(&token).await.unwrap()
                    })
                })
                .collect();
            for (number, task) in (0..).zip(all) {
                let output = task.await.unwrap();
                assert_eq!(output.status.code(), Some(number));
                assert_eq!(WinProbe::parse(&output.stdout).user, Seen::own().unwrap().user);
            }
        });
    }

    #[test]
    fn a_wait_that_is_dropped_loses_nothing() {
        runtime().block_on(async {
            let mut command = Command::new(program("winprobe"));
            command.args(["--hold", "--exit", "7"]).stdin(Stdio::piped()).stdout(Stdio::null());
            let mut child = command.spawn_as_async(&own()).await.unwrap();
            let input = child.stdin.take();
            for _ in 0..3 {
                let waited = tokio::time::timeout(Duration::from_millis(50), child.wait_async()).await;
                assert!(waited.is_err(), "it still reads its input");
            }
            drop(input);
            let waited = tokio::time::timeout(Duration::from_secs(20), child.wait_async()).await;
            assert_eq!(waited.unwrap().unwrap().code(), Some(7));
        });
    }

    #[test]
    fn more_than_a_pipe_holds_comes_out_of_both_at_once() {
        if testbed::windows::wine().is_some_and(|version| version.starts_with("8.")) {
            testbed::skip!("under Wine 8, whose cmd.exe does not run the loop that writes");
        }
        runtime().block_on(async {
            let line = "x".repeat(100);
            let mut command = Command::new("cmd");
            command.current_dir("C:\\");
            command.raw_tail(format!("/q /c for /l %i in (1,1,3000) do (echo {line}& echo {line} 1>&2)"));
            let output = command.output_as_async(&own()).await.unwrap();
            assert!(output.status.success(), "{output:?}");
            assert!(output.stdout.len() >= 300_000 && output.stderr.len() >= 300_000);
        });
    }
}

//! `stead run` on a terminal: keys, sizes, stopping and going on, as with the program itself; driven by tmux.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::path::Path;

use support::*;
use testbed::{Bed, until};

macro_rules! require_tmux {
    ($($also:literal),*) => {{
        for program in ["tmux", "bash", $($also),*] {
            if !on_path(program) {
                testbed::skip!("needs {program}");
            }
        }
    }};
}

/// The program by itself, and by the command in each way; the first is the control.
const WAYS: [&str; 4] = [
    "",
    "stead run --embedded -- ",
    "stead run --embedded --pty -- ",
    "stead run --embedded --as alice --s4u -- ",
];

fn pids_named(name: &str) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let arguments = std::fs::read(entry.path().join("cmdline")).ok()?;
        let first = arguments.split(|byte| *byte == 0).next()?;
        (Path::new(std::str::from_utf8(first).ok()?).file_name()? == name).then_some(pid)
    });
    pids.collect()
}

/// A copy of a program under a name that no other test's process has.
fn own_copy(bed: &Bed, program: &str, name: &str) -> String {
    let path = bed.scratch("copy").join(name);
    let output = printed(std::process::Command::new("sh").args(["-c", &format!("command -v {program}")]));
    std::fs::copy(output.trim(), &path).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn ctrl_c_ends_the_program_and_the_shell_sees_what_it_would_see() {
    let bed = testbed::require!();
    require_tmux!();
    let sleep = own_copy(bed, "sleep", "sleep-until-ctrl-c");
    let screen = Screen::start(bed);
    for way in WAYS {
        screen.line("clear");
        screen.line(&format!("{way}{sleep} 600"));
        until("it runs", || pids_named("sleep-until-ctrl-c").len() == 1);
        let pid = pids_named("sleep-until-ctrl-c")[0];
        // The shell's own copy of itself, before it executes, has the name too.
        until("it sleeps", || state(pid) == Some('S'));
        screen.press(&["C-c"]);
        until("it is gone", || !lives(pid));
        screen.until("the shell asks", |text| text.ends_with("prompt>"));
        assert_eq!(screen.status(), "130", "{way}");
        // A loop ends with it, because the command died of the signal.
        screen.line(&format!("while :; do {way}{sleep} 600; done"));
        until("it runs", || pids_named("sleep-until-ctrl-c").len() == 1);
        until("it sleeps", || state(pids_named("sleep-until-ctrl-c")[0]) == Some('S'));
        screen.press(&["C-c"]);
        screen.until("the loop has ended", |text| text.ends_with("prompt>"));
        until("nothing is left", || pids_named("sleep-until-ctrl-c").is_empty());
    }
}

#[test]
fn ctrl_z_stops_the_program_and_the_command_and_fg_lets_both_go_on() {
    let bed = testbed::require!();
    require_tmux!();
    let cat = own_copy(bed, "cat", "cat-that-stops");
    let screen = Screen::start(bed);
    for way in WAYS {
        screen.line("clear");
        screen.line(&format!("{way}{cat}"));
        until("it runs", || pids_named("cat-that-stops").len() == 1);
        let pid = pids_named("cat-that-stops")[0];
        screen.line("first");
        screen.until("it answers", |text| text.matches("first").count() == 2);
        screen.press(&["C-z"]);
        screen.until("the shell is in front", |text| text.contains("Stopped") && text.ends_with("prompt>"));
        assert_eq!(state(pid), Some('T'), "{way}");
        screen.line("fg");
        until("it goes on", || state(pid) != Some('T'));
        screen.line("second");
        screen.until("it answers again", |text| text.matches("second").count() == 2);
        screen.press(&["C-d"]);
        screen.until("it has ended", |text| text.ends_with("prompt>"));
        assert_eq!(screen.status(), "0", "{way}");
    }
}

/// Opens a file in vim, edits it, stops and goes on, resizes and writes it; the screens on the way.
fn edit(screen: &Screen, way: &str, file: &str) -> Vec<String> {
    let mut screens = Vec::new();
    screen.line("clear");
    screen.line(&format!("{way}vim -u NONE -N --cmd 'set ruler nomore' {file}"));
    screens.push(screen.until("vim is there", |text| text.contains("0,0-1") && text.contains("All")));
    screen.press(&["-l", "ia line\ttyped"]);
    screen.press(&["Escape"]);
    screen.press(&["-l", "yypp"]);
    screens.push(
        screen.until("there are three", |text| text.matches("typed").count() == 3 && text.contains("3,1")),
    );
    screen.press(&["C-z"]);
    screen.until("it is stopped", |text| text.contains("Stopped") && text.ends_with("prompt>"));
    screen.line("fg");
    screens
        .push(screen.until("it is back", |text| text.matches("typed").count() == 3 && text.contains("3,1")));
    screen.resize(100, 30);
    screens.push(
        screen.until("it fills the new size", |text| text.lines().count() == 30 && text.contains("3,1")),
    );
    screen.press(&["-l", ":%s/typed/written/ | wq"]);
    screen.press(&["Enter"]);
    screen.until("it has ended", |text| text.ends_with("prompt>"));
    screens.push(screen.status());
    screens.push(screen.run("stty -a"));
    screen.resize(150, 24);
    screens
}

#[test]
fn vim_behaves_as_it_does_without_stead() {
    let bed = testbed::require!();
    require_tmux!("vim");
    let folder = bed.scratch("vim");
    let screen = Screen::start(bed);
    let file = |number: usize| folder.join(format!("file{number}")).to_str().unwrap().to_owned();
    let mut control = Vec::new();
    for (number, way) in ["", "stead run --embedded --pty -- "].into_iter().enumerate() {
        let path = file(number);
        let screens: Vec<String> =
            edit(&screen, way, &path).into_iter().map(|text| text.replace(&path, "FILE")).collect();
        let written = std::fs::read_to_string(&path).unwrap();
        assert_eq!(written, "a line\twritten\n".repeat(3));
        if control.is_empty() {
            control = screens;
        } else {
            assert_eq!(screens, control, "{way}");
        }
    }
}

#[test]
fn another_users_program_has_a_terminal_of_its_own_with_the_modes_and_size_of_ours() {
    let bed = testbed::require!();
    require_tmux!();
    let screen = Screen::start(bed);
    screen.line("stty erase ^H -ixon");
    let ours = screen.run("tty; stty -a");
    let theirs = screen.run("stead run --embedded --as alice --s4u -- sh -c 'tty; stty -a'");
    let split =
        |text: &str| text.split_once('\n').map(|(tty, modes)| (tty.to_owned(), modes.to_owned())).unwrap();
    assert_ne!(split(&ours).0, split(&theirs).0, "never our own terminal");
    assert_eq!(split(&ours).1, split(&theirs).1);
    assert!(theirs.contains("rows 24; columns 150") && theirs.contains("erase = ^H"), "{theirs}");
    // Ours is as it was.
    assert_eq!(screen.run("tty; stty -a"), ours);
    // With --no-pty it is ours, as with sudo and no use_pty.
    let inherited = screen.run("stead run --embedded --no-pty --as alice --s4u -- readlink /proc/self/fd/0");
    assert_eq!(inherited, split(&ours).0);
}

#[test]
fn a_shell_of_another_user_has_job_control() {
    let bed = testbed::require!();
    require_tmux!();
    let screen = Screen::start(bed);
    screen.line("stead run --embedded --as alice --s4u --env PS1='inner> ' -- bash --norc --noprofile -i");
    screen.until("the inner shell asks", |text| text.ends_with("inner>"));
    screen.line("id -un; sleep 600");
    screen.until("it is alice", |text| text.contains("\nalice"));
    screen.press(&["C-z"]);
    screen.until("the inner shell is in front", |text| text.contains("Stopped") && text.ends_with("inner>"));
    // Whether and when a shell says that a job was killed is its own affair; that the process is gone is not.
    screen.line("p=$(jobs -p); kill -KILL %1; while kill -0 $p; do sleep 0.1; done 2>/dev/null; echo gone");
    screen.until("it is gone", |text| text.contains("\ngone") && text.ends_with("inner>"));
    screen.line("exit 9");
    screen.until("the outer shell asks", |text| text.ends_with("prompt>"));
    assert_eq!(screen.status(), "9");
}

#[test]
fn a_password_is_asked_for_on_the_terminal_and_never_shown() {
    let bed = testbed::require!();
    require_tmux!();
    let alice = bed.user("alice");
    let screen = Screen::start(bed);
    // The streams lead elsewhere; the terminal is asked all the same.
    screen.line("clear; stead run --embedded --as alice -- id -un </dev/null | cat");
    screen.until("it asks", |text| text.ends_with("Password:"));
    screen.press(&["-l", &alice.password]);
    screen.press(&["Enter"]);
    let shown = screen.until("the program has run", |text| text.ends_with("prompt>"));
    assert!(shown.contains("alice\n") && !shown.contains(&alice.password), "{shown}");
    // Ctrl-C at the question ends the command, and the terminal shows again what is typed.
    let before = screen.run("stty -a");
    screen.line("clear; stead run --embedded --as alice -- id");
    screen.until("it asks", |text| text.ends_with("Password:"));
    screen.press(&["-l", "half of it"]);
    screen.press(&["C-c"]);
    screen.until("the shell asks", |text| text.ends_with("prompt>"));
    assert_eq!(screen.status(), "130");
    assert_eq!(screen.run("stty -a"), before);
    // So does a signal from elsewhere.
    screen.line("clear; stead run --embedded --as alice -- id");
    screen.until("it asks", |text| text.ends_with("Password:"));
    let asking = pids_named("stead").into_iter().find(|pid| {
        // Other tests run commands as alice at the same time, but not this one.
        let arguments = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.ends_with("--as\0alice\0--\0id\0")
    });
    let kill = std::process::Command::new("kill").arg(asking.unwrap().to_string()).status();
    assert!(kill.unwrap().success());
    screen.until("the shell asks", |text| text.ends_with("prompt>"));
    assert_eq!(screen.status(), "143");
    assert_eq!(screen.run("stty -a"), before);
}

#[test]
fn in_the_background_it_leaves_the_terminal_alone() {
    let bed = testbed::require!();
    require_tmux!();
    let screen = Screen::start(bed);
    let before = screen.run("stty -a");
    screen.line("clear");
    screen.line("stead run --embedded --as alice --s4u -- sh -c 'sleep 1; echo from behind' &");
    screen.line("echo in front");
    screen.until("both are heard", |text| text.contains("\nin front") && text.contains("from behind"));
    screen.line("wait");
    assert_eq!(screen.run("stty -a"), before);
}

#[test]
fn with_pty_and_no_terminal_the_program_has_one_all_the_same() {
    let bed = testbed::require!();
    let script = "test -t 0 && test -t 1 && echo on a terminal; cat";
    let output = fed(&mut stead(bed, &["run", "--embedded", "--pty", "--", "sh", "-c", script]), "a line\n");
    let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    assert!(output.status.success(), "{output:?}");
    assert!(text.contains("on a terminal\n") && text.contains("a line\n"), "{text:?}");
    // All of much is carried.
    let output = fed(&mut stead(bed, &["run", "--embedded", "--pty", "--", "seq", "100000"]), "");
    let text = String::from_utf8_lossy(&output.stdout).replace('\r', "");
    let expected = printed(std::process::Command::new("seq").arg("100000"));
    // The end of the input was typed as a key, and shown as keys are.
    assert!(
        text.ends_with(&expected) || text.replace("^D\u{8}\u{8}", "") == expected,
        "{} bytes",
        text.len()
    );
}

#[test]
fn a_signal_ends_a_program_of_which_nobody_reads_what_it_shows() {
    use std::os::unix::process::ExitStatusExt;
    let bed = testbed::require!();
    for (name, number) in [("TERM", 15), ("INT", 2), ("HUP", 1)] {
        let mut command = stead(bed, &["run", "--embedded", "--pty", "--", "yes", "that nobody reads"]);
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let output = child.stdout.take().unwrap();
        let held = || rustix::io::ioctl_fionread(&output).unwrap();
        until("the pipe is full", || {
            let before = held();
            std::thread::sleep(std::time::Duration::from_millis(300));
            before > 0 && held() == before
        });
        let kill =
            std::process::Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        let mut status = None;
        until("it has ended", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        assert_eq!(status.and_then(|status| status.signal()), Some(number));
    }
}

/// The seconds of processor time that a command takes, of its own.
fn processor_time(command: &str) -> f64 {
    // The shell's `times`: of itself, and in the second line of its children that it has waited for.
    let output = printed(std::process::Command::new("bash").args(["-c", &format!("{command}; times")]));
    let children = output.lines().last().unwrap().split(' ').map(|part| {
        let (minutes, seconds) = part.trim_end_matches('s').split_once('m').unwrap();
        minutes.parse::<f64>().unwrap() * 60.0 + seconds.parse::<f64>().unwrap()
    });
    children.sum()
}

#[test]
fn an_end_of_what_is_not_read_or_shown_at_the_moment_takes_no_processor_time() {
    let bed = testbed::require!();
    if !on_path("bash") {
        testbed::skip!("needs bash");
    }
    let run = format!("STEAD_SERVICE={NO_SERVICE} {} run --embedded --pty --", bed.bin("stead").display());
    let idle = processor_time(&format!("sleep 5 | {run} sleep 3"));
    for way in [
        // The input has ended, its reader has gone, and it waits behind what the program does not read.
        format!("echo | {run} sleep 3"),
        format!("sleep 5 | {run} sleep 3 | true"),
        format!("head -c 300000 /dev/zero | tr '\\0' '\\n' | {run} sh -c 'stty -echo; sleep 3'"),
    ] {
        let taken = processor_time(&way);
        assert!(taken < idle + 0.5, "{way}: {taken} s, and {idle} s where nothing has ended");
    }
}

#[test]
fn an_input_that_does_not_end_with_a_line_ends_on_a_terminal_too() {
    let bed = testbed::require!();
    let counted = |input: &str| {
        let script = "stty -echo; echo ready; exec wc -c";
        let output = fed(
            std::process::Command::new("timeout").arg("60").arg(bed.bin("stead")).args([
                "run",
                "--embedded",
                "--pty",
                "--",
                "sh",
                "-c",
                script,
            ]),
            input,
        );
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{:?}: {text}", output.status);
        text.trim_end().rsplit('\n').next().unwrap().trim().parse::<usize>().unwrap()
    };
    for (input, length) in [
        (String::new(), 0),
        ("abc".to_owned(), 3),
        ("abc\n".to_owned(), 4),
        ("a".repeat(1000), 1000),
        ("a".repeat(4095), 4095),
        ("a".repeat(100_000), 100_000),
        (format!("{}\nb", "a".repeat(10_000)), 10_002),
    ] {
        assert_eq!(counted(&input), length);
    }
}

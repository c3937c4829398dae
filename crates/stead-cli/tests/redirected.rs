//! `stead run` as another user, with some of the streams on a terminal and others elsewhere; driven by tmux.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use support::*;
use testbed::{Bed, until};

macro_rules! require {
    ($($program:literal),*) => {{
        let bed = testbed::require!();
        for program in ["tmux", "bash", $($program),*] {
            if !on_path(program) {
                testbed::skip!("needs {program}");
            }
        }
        bed
    }};
}

const RUN: &str = "stead run --embedded --as alice --s4u --";

/// A folder in which everybody may write.
fn open_folder(bed: &Bed, name: &str) -> PathBuf {
    let folder = bed.scratch(name);
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o777)).unwrap();
    folder
}

fn text(path: &std::path::Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The pids of the processes of which this is a part of the command line, the shell's and the command's own excepted.
fn programs(argument: &str) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let arguments = String::from_utf8(std::fs::read(entry.path().join("cmdline")).ok()?).ok()?;
        let words: Vec<&str> = arguments.split('\0').collect();
        (words.first() == Some(&"sleep") && words.contains(&argument)).then_some(pid)
    });
    pids.collect()
}

/// A program that holds the terminal of the command could hand it to any process of its user's, which reads there what is
/// typed later.
#[test]
fn no_stream_of_another_users_program_is_the_commands_terminal_whatever_is_redirected() {
    let bed = require!();
    let folder = open_folder(bed, "streams");
    let (seen, other) = (folder.join("seen"), folder.join("other"));
    let screen = Screen::start(bed);
    let ours = screen.run("tty");
    assert!(ours.starts_with("/dev/pts/"), "{ours}");
    let look = format!(
        "s=$(for n in 0 1 2; do readlink /proc/$$/fd/$n; done; tty < /dev/tty); echo \"$s\" > {0}.new; mv {0}.new {0}",
        seen.display()
    );
    let (input, output) = ("</dev/null", format!(">{}", other.display()));
    let errors = "2>/dev/null";
    // The streams that are a terminal; around the command, what leads the others elsewhere.
    for (on, before, after) in [
        ([true, true, true], "", String::new()),
        ([true, false, true], "", output.clone()),
        ([true, true, false], "", errors.to_owned()),
        ([false, true, true], "", input.to_owned()),
        ([false, false, true], "", format!("{input} {output}")),
        ([false, true, false], "", format!("{input} {errors}")),
        ([true, false, false], "", format!("{output} {errors}")),
        ([true, false, true], "", "| cat".to_owned()),
        ([true, false, false], "", "2>&1 | cat".to_owned()),
        ([false, true, true], "echo |", String::new()),
        ([false, false, true], "echo |", "| cat".to_owned()),
    ] {
        let _ = std::fs::remove_file(&seen);
        screen.run(&format!("{before} {RUN} sh -c '{look}' {after}"));
        let seen = text(&seen);
        let streams: Vec<&str> = seen.lines().collect();
        assert_eq!(streams.len(), 4, "{before} .. {after}: {seen}");
        for (number, is_terminal) in on.into_iter().enumerate() {
            assert_ne!(streams[number], ours, "{before} .. {after}: {seen}");
            // Where one is a terminal, it is the program's own, which controls it.
            let own = streams[number].starts_with("/dev/pts/");
            assert_eq!(own, is_terminal, "{before} .. {after}: {seen}");
            assert!(!own || streams[number] == streams[on.iter().position(|on| *on).unwrap()], "{seen}");
        }
        assert_eq!(streams[3], "/dev/tty", "{before} .. {after}");
    }
    // With none there is nothing to be kept apart; with --no-pty it is the program's by the caller's word.
    screen.run(&format!("{RUN} sh -c '{look}' {input} {output} {errors}"));
    assert!(text(&seen).starts_with("/dev/null\n") && !text(&seen).contains("/dev/pts/"), "{}", text(&seen));
    let no_pty = RUN.replace("run", "run --no-pty");
    screen.run(&format!("{no_pty} sh -c '{look}' {output}"));
    assert!(text(&seen).starts_with(&ours), "{}", text(&seen));
}

#[test]
fn what_is_redirected_is_carried_unchanged_and_the_rest_is_shown() {
    let bed = require!();
    let folder = open_folder(bed, "unchanged");
    let (first, second) = (folder.join("first"), folder.join("second"));
    let screen = Screen::start(bed);
    screen.run(&format!("cd {}", folder.display()));
    let (out, errors) = ("first", "second");
    let said = "sh -c 'echo to the output; echo to the errors >&2; exit 5'";
    assert_eq!(screen.run(&format!("{RUN} {said} > {out}; echo status $?")), "to the errors\nstatus 5");
    assert_eq!(text(&first), "to the output\n");
    assert_eq!(screen.run(&format!("{RUN} {said} 2> {errors}; echo status $?")), "to the output\nstatus 5");
    assert_eq!(text(&second), "to the errors\n");
    assert_eq!(screen.run(&format!("{RUN} tr a-z A-Z < {out}")), "TO THE OUTPUT");
    assert_eq!(screen.run(&format!("printf 'x\\ny' | {RUN} od -An -c | cat")), "   x  \\n   y");
    // A program that closes its streams, and one of which nobody reads what it writes, end as ever.
    let script = "exec 0<&- 1>&- 2>&-; exit 3";
    assert_eq!(screen.run(&format!("{RUN} sh -c '{script}' > {out}; echo status $?")), "status 3");
    assert_eq!(
        screen.run(&format!("{RUN} yes | head -n 1; echo status ${{PIPESTATUS[0]}}")),
        "y\nstatus 141"
    );
}

/// The kernel keeps whom a terminal controls, and who is not in front of it, from reading it.
#[test]
fn in_the_background_no_program_reads_what_is_typed_for_the_shell_and_in_front_it_can_ask_on_its_terminal() {
    let bed = require!();
    let folder = open_folder(bed, "ears");
    let screen = Screen::start(bed);
    for (number, way) in ["stead run --embedded --", RUN].into_iter().enumerate() {
        let heard = folder.join(format!("heard{number}"));
        screen.line("clear");
        screen.line(&format!("{way} sh -c 'touch {0}; cat > {0}' &", heard.display()));
        until("it runs", || heard.exists());
        for typed in ["one", "two", "three", "four"] {
            screen.line(&format!("echo $((1+1)){typed}"));
            screen.until("the shell obeys", |text| text.contains(&format!("\n2{typed}\nprompt>")));
        }
        screen.line("fg");
        screen.line("for the program");
        until("it is heard", || text(&heard) == "for the program\n");
        screen.press(&["C-d"]);
        screen.until("the shell asks", |text| text.ends_with("prompt>"));
        assert_eq!(screen.run(&format!("{way} sh -c 'echo asked > /dev/tty'")), "asked");
    }
}

#[test]
fn a_pager_on_either_side_has_the_keys() {
    let bed = require!("less");
    let screen = Screen::start(bed);
    let lines = "seq -f 'line %g' 200";
    for way in [format!("{RUN} {lines} | less"), format!("{lines} | {RUN} less")] {
        for _ in 0..3 {
            screen.line("clear");
            screen.line(&way);
            screen.until("the first lines are shown", |text| text.contains("line 23") && text.ends_with(':'));
            screen.press(&["G"]);
            screen.until("the last lines are shown", |text| text.contains("line 200\n"));
            screen.press(&["g"]);
            screen.until("the first lines are shown", |text| text.starts_with("line 1\n"));
            screen.press(&["q"]);
            screen.until("the shell asks", |text| text.ends_with("prompt>"));
        }
    }
    // And the terminal is as it was.
    assert!(screen.run("stty -a").contains(" icanon") && screen.run("stty -a").contains(" echo "));
}

#[test]
fn a_program_that_asks_has_the_keys_though_its_output_leads_elsewhere() {
    let bed = require!();
    let screen = Screen::start(bed);
    let before = screen.run("stty -a");
    for script in ["read answer; echo got $answer", "read answer < /dev/tty; echo got $answer"] {
        screen.line("clear");
        screen.line(&format!("{RUN} sh -c 'echo question >&2; {script}' | cat"));
        screen.until("it asks", |text| text.ends_with("question"));
        screen.line("the answer");
        screen.until("it has the answer", |text| {
            text.contains("got the answer\n") && text.ends_with("prompt>")
        });
    }
    assert_eq!(screen.run("stty -a"), before);
}

#[test]
fn what_is_typed_is_left_to_the_shell_where_the_program_does_not_ask_for_it() {
    let bed = require!();
    let folder = open_folder(bed, "ahead");
    let screen = Screen::start(bed);
    screen.line("clear");
    screen.line(&format!("{RUN} sh -c 'touch {0}; sleep 2' > /dev/null", folder.join("runs").display()));
    until("it runs", || folder.join("runs").exists());
    screen.line("echo typed ahead");
    screen.until("the shell obeys", |text| text.contains("\ntyped ahead\nprompt>"));
}

#[test]
fn keys_stop_go_on_and_end_a_program_whose_output_leads_elsewhere() {
    let bed = require!();
    let screen = Screen::start(bed);
    for (end, seconds) in [("> /dev/null", "6001"), ("| cat", "6002")] {
        screen.line("clear");
        screen.line(&format!("{RUN} sleep {seconds} {end}"));
        until("it runs", || programs(seconds).len() == 1);
        let pid = programs(seconds)[0];
        until("it sleeps", || state(pid) == Some('S'));
        screen.press(&["C-z"]);
        screen.until("the shell is in front", |text| text.contains("Stopped") && text.ends_with("prompt>"));
        until("it is stopped", || state(pid) == Some('T'));
        screen.line("fg");
        until("it goes on", || state(pid) == Some('S'));
        screen.press(&["C-c"]);
        until("it is gone", || !lives(pid));
        screen.until("the shell asks", |text| text.ends_with("prompt>"));
    }
    // Once it has the keys, they stop all of the pipeline, as they would without the command between.
    screen.line("clear");
    screen.line(&format!("{RUN} cat | cat"));
    screen.line("first");
    // What is typed before it asks, the terminal that it is typed on shows, too.
    screen.until("it answers", |text| text.matches("first").count() >= 2);
    screen.press(&["C-z"]);
    screen.until("the shell is in front", |text| text.contains("Stopped") && text.ends_with("prompt>"));
    screen.line("fg");
    screen.line("second");
    screen.until("it answers again", |text| text.matches("second").count() == 2);
    screen.press(&["C-d"]);
    screen.until("it has ended", |text| text.ends_with("prompt>"));
    assert_eq!(screen.status(), "0");
}

#[test]
fn a_program_whose_output_leads_elsewhere_is_told_the_size_of_the_terminal() {
    let bed = require!();
    let folder = open_folder(bed, "size");
    let screen = Screen::start(bed);
    let seen = folder.join("seen");
    let script = "trap \"stty size < /dev/tty\" WINCH; stty size < /dev/tty; while :; do sleep 0.05; done";
    screen.line(&format!("{RUN} sh -c '{script}' > {}", seen.display()));
    until("it has told its size", || text(&seen) == "24 150\n");
    screen.resize(90, 31);
    until("it has told the new one", || text(&seen) == "24 150\n31 90\n");
    screen.press(&["C-c"]);
    screen.until("the shell asks", |text| text.ends_with("prompt>"));
}

#[test]
fn in_the_background_and_without_a_controlling_terminal_it_runs_all_the_same() {
    let bed = require!();
    let folder = open_folder(bed, "behind");
    let screen = Screen::start(bed);
    let before = screen.run("stty -a");
    let file = folder.join("out");
    screen.line("clear");
    screen.line(&format!(
        "{RUN} sh -c 'sleep 1; echo said; printf \"from %s\\n\" behind >&2' > {} &",
        file.display()
    ));
    screen.line("echo in front; wait");
    screen.until("both are heard", |text| text.contains("\nin front") && text.contains("from behind"));
    assert_eq!(text(&file), "said\n");
    assert_eq!(screen.run("stty -a"), before);
    // Its streams alone are a terminal.
    let shown = screen.run(&format!("setsid --wait {RUN} sh -c 'echo said; tty <&1' < /dev/null"));
    assert!(shown.starts_with("said\n/dev/pts/"), "{shown}");
    assert_eq!(screen.run("stty -a"), before);
}

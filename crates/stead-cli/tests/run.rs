//! `stead run`: as whom, with what, and with which end. The controls are the programs run without it.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use support::*;
use testbed::{Bed, Probe, until};

fn seen(output: &std::process::Output) -> Probe {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Probe::parse(&output.stdout)
}

fn probe(bed: &Bed) -> String {
    bed.bin("probe").to_str().unwrap().to_owned()
}

#[test]
fn as_oneself_the_program_has_ones_own_ids() {
    let bed = testbed::require!();
    let alice = bed.user("alice");
    let control = bed.control_setpriv("alice");
    let probe = probe(bed);
    let output = stead_by(bed, alice, &["run", "--", &probe]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let by_stead = seen(&output);
    assert_eq!((by_stead.uid, by_stead.gid), (control.uid, control.gid));
    assert_eq!(by_stead.groups, control.groups);
    assert!(said.contains("no service is running"), "{said}");
    // Asked for, it need not be told.
    let output = stead_by(bed, alice, &["run", "--embedded", "--", &probe]).output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(seen(&output).uid, control.uid);
}

#[test]
fn with_a_password_on_a_descriptor_the_program_is_the_users() {
    let bed = testbed::require!();
    let alice = bed.user("alice");
    let arguments = ["run", "--embedded", "--as", "alice", "--password-fd", "0", "--", &probe(bed)];
    let output = fed(&mut stead(bed, &arguments), &format!("{}\nnot a part of it", alice.password));
    let by_stead = seen(&output);
    assert_eq!(by_stead.uid.real, alice.uid);
    assert_eq!(by_stead.gid.real, alice.gid);
    assert!(alice.groups.iter().all(|gid| by_stead.groups.contains(gid)), "{:?}", by_stead.groups);

    let output = fed(&mut stead(bed, &arguments), "wrong\n");
    assert_eq!(output.status.code(), Some(125));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("the credentials were not accepted") && output.stdout.is_empty(), "{said}");
}

#[test]
fn a_password_is_read_from_no_descriptor_of_the_commands_own() {
    let bed = testbed::require!();
    for number in ["3", "4", "5", "6", "7", "8", "9", "4294967295"] {
        let mut command = Command::new("timeout");
        command.arg("60").arg(bed.bin("stead"));
        command.args(["run", "--embedded", "--as", "alice", "--password-fd", number, "--", "id"]);
        let output = command.env("STEAD_SERVICE", NO_SERVICE).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(125), "{number}: {said}");
        assert!(said.contains(&format!("from descriptor {number}: ")) && said.lines().count() == 1, "{said}");
    }
}

#[test]
fn without_a_password_by_s4u_and_as_every_logon_type() {
    let bed = testbed::require!();
    let bob = bed.user("bob");
    for kind in ["interactive", "network", "network-cleartext", "batch", "service"] {
        let script = "id -u; echo $STEAD_PAM_SERVICE; pwd";
        let arguments =
            ["run", "--embedded", "--as", "bob", "--s4u", "--logon", kind, "--", "sh", "-c", script];
        let printed = printed(&mut stead(bed, &arguments));
        let service = format!("stead-{}", kind.split('-').next().unwrap());
        assert_eq!(printed, format!("{}\n{service}\n{}\n", bob.uid, bob.home.display()));
    }
}

#[test]
fn who_holds_no_privilege_and_has_no_service_is_told_what_to_do() {
    let bed = testbed::require!();
    let svc = bed.user("svc");
    let output = stead_by(bed, svc, &["run", "--as", "alice", "--s4u", "--", "id"]).output().unwrap();
    assert_eq!(output.status.code(), Some(125));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(NO_SERVICE) && said.contains("run this as root"), "{said}");
    // So with what only the service knows.
    for arguments in [&["ps"][..], &["kill", "1"], &["logoff", "1"], &["monitor"]] {
        let output = stead_by(bed, svc, arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("no service listens at {NO_SERVICE}")), "{said}");
    }
    assert_eq!(printed(&mut stead_by(bed, svc, &["sessions"])), "no sessions\n");
}

#[test]
fn what_is_wrong_is_said_in_the_words_of_the_command() {
    let bed = testbed::require!();
    let closed = bed.scratch("closed");
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    let closed = closed.to_str().unwrap();
    let as_bob = ["run", "--embedded", "--as", "bob", "--s4u"];
    for (rest, code, expected) in [
        (&["--cwd", closed, "--", "id"][..], 125, "--cwd"),
        (&["--", "no-such-program-anywhere"], 127, "--env PATH="),
        // Without a gid for the session, that is what is wrong first.
        (
            &["--desktop", "/dev/null", "--", "id"],
            125,
            if has_logon_gids() { "desktop" } else { "logon gid 1879048192 is not mapped" },
        ),
    ] {
        let arguments: Vec<&str> = as_bob.iter().chain(rest).copied().collect();
        let output = stead(bed, &arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(expected) && !said.contains("::") && said.lines().count() == 1, "{said}");
    }
    // Where nobody can be asked that is the reason, and the only line.
    let mut command = Command::new("setsid");
    command.args(["--wait", "--"]).arg(bed.bin("stead")).args([
        "run",
        "--embedded",
        "--as",
        "bob",
        "--",
        "id",
    ]);
    let output = command.env("STEAD_SERVICE", NO_SERVICE).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(said.contains("no terminal") && said.contains("--password-fd"), "{said}");
    assert!(said.lines().count() == 1 && !said.contains("not accepted"), "{said}");
}

#[test]
fn the_exit_status_is_the_programs_or_that_of_env() {
    let bed = testbed::require!();
    let folder = bed.scratch("programs");
    let plain = folder.join("plain");
    std::fs::write(&plain, "nothing").unwrap();
    let plain = plain.to_str().unwrap();
    for program in [
        &["sh", "-c", "exit 0"][..],
        &["sh", "-c", "exit 7"],
        &["sh", "-c", "exit 255"],
        &["sh", "-c", "kill -TERM $$"],
        &["sh", "-c", "kill -INT $$"],
        &["sh", "-c", "kill -KILL $$"],
        &["sh", "-c", "kill -SEGV $$"],
        &["sh", "-c", "kill -PIPE $$"],
        &["sh", "-c", "kill -USR1 $$"],
        &["/no/such/program"],
        &["no-such-program-anywhere"],
        &[plain],
        &["/etc"],
    ] {
        let arguments: Vec<&str> = ["run", "--embedded", "--"].iter().chain(program).copied().collect();
        // A folder that may not be entered (root's own, in a user namespace) makes it 126 for env.
        let status = |mut command: Command| {
            command.env("PATH", "/usr/bin:/bin").stderr(Stdio::null()).status().unwrap()
        };
        let ours = status(stead(bed, &arguments));
        let mut control = Command::new("env");
        control.arg("--").args(program);
        let control = status(control);
        assert_eq!((ours.code(), ours.signal()), (control.code(), control.signal()), "{program:?}");
    }
    // A realtime signal has no name; it is 128 and its number, as in a shell.
    let ours = stead(bed, &["run", "--embedded", "--", "sh", "-c", "kill -40 $$"]).status().unwrap();
    assert_eq!(ours.code(), Some(168));
    // What is wrong with stead's own part is 125.
    for wrong in [&["run", "--no-such-option", "id"][..], &["run"], &["run", "--limit", "files=1", "id"]] {
        let ours = stead(bed, wrong).stderr(Stdio::null()).status().unwrap();
        assert_eq!(ours.code(), Some(125), "{wrong:?}");
        let control = Command::new("env").args(["--no-such-option"]).stderr(Stdio::null()).status().unwrap();
        assert_eq!(control.code(), Some(125));
    }
}

#[test]
fn a_pipe_that_nobody_reads_ends_it_as_it_ends_the_program() {
    let bed = testbed::require!();
    let pipe = |prefix: &str| {
        let script = format!("{prefix} yes | head -n 3; echo ${{PIPESTATUS[0]}}");
        printed(Command::new("bash").args(["-c", &script]).env("STEAD_SERVICE", NO_SERVICE))
    };
    let stead = bed.bin("stead");
    let control = pipe("env");
    assert_eq!(control, "y\ny\ny\n141\n");
    assert_eq!(pipe(&format!("{} run --embedded --", stead.display())), control);
    assert_eq!(pipe(&format!("{} run --embedded --as alice --s4u --", stead.display())), control);
    // And its own output.
    let script = format!("{} run --help | true; echo ${{PIPESTATUS[0]}}", stead.display());
    let printed = printed(Command::new("bash").args(["-c", &script]));
    assert!(matches!(printed.trim(), "0" | "141"), "{printed}");
}

#[test]
fn limits_variables_and_the_directory_reach_the_program() {
    let bed = testbed::require!();
    let script = "ulimit -Sn; ulimit -Hn; echo $ONE; echo ${TWO-unset}; echo ${THREE-unset}; pwd; echo $HOME";
    let mut command = stead(
        bed,
        &[
            "run",
            "--embedded",
            "--as",
            "bob",
            "--s4u",
            "--limit",
            "nofile=100:200",
            "--env",
            "ONE=1 = one",
            "--env",
            "TWO",
            "--cwd",
            "/usr",
            "--",
            "sh",
            "-c",
            script,
        ],
    );
    let printed = printed(command.env("TWO", "mine").env("THREE", "not passed on"));
    let home = bed.user("bob").home.display().to_string();
    assert_eq!(
        printed.lines().collect::<Vec<_>>(),
        ["100", "200", "1 = one", "mine", "unset", "/usr", &home]
    );
}

#[test]
fn a_relative_directory_is_the_callers() {
    let bed = testbed::require!();
    let folder = bed.scratch("callers");
    std::fs::create_dir(folder.join("inner")).unwrap();
    for path in [&folder, &folder.join("inner")] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    for who in [&[][..], &["--as", "bob", "--s4u"]] {
        for (name, expected) in
            [(".", folder.clone()), ("inner", folder.join("inner")), ("inner/..", folder.clone())]
        {
            let arguments = [&["run", "--embedded"], who, &["--cwd", name, "--", "pwd", "-P"]].concat();
            let printed = printed(stead(bed, &arguments).current_dir(&folder));
            assert_eq!(printed.trim_end(), expected.to_str().unwrap(), "{arguments:?}");
        }
    }
}

#[test]
fn what_the_program_leaves_running_ends_with_its_logon_session() {
    let bed = testbed::require!();
    let script = "sleep 600 >/dev/null 2>&1 & echo $!";
    let printed =
        printed(&mut stead(bed, &["run", "--embedded", "--as", "bob", "--s4u", "--", "sh", "-c", script]));
    let pid: u32 = printed.trim().parse().unwrap();
    assert!(!lives(pid), "the session was closed before the command ended");
}

#[test]
fn a_signal_for_the_command_reaches_the_program() {
    let bed = testbed::require!();
    for (name, number) in [
        ("TERM", 15),
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("USR1", 10),
        ("USR2", 12),
        ("ALRM", 14),
        ("XCPU", 24),
        ("XFSZ", 25),
        ("VTALRM", 26),
        ("PROF", 27),
    ] {
        let script = "echo $$; exec sleep 600";
        let mut command =
            stead(bed, &["run", "--embedded", "--as", "bob", "--s4u", "--", "sh", "-c", script]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let program: u32 = line.trim().parse().unwrap();
        until("the shell has become the program", || {
            std::fs::read_to_string(format!("/proc/{program}/comm")).is_ok_and(|name| name == "sleep\n")
        });
        let kill = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status();
        assert!(kill.unwrap().success());
        let status = child.wait().unwrap();
        assert_eq!(status.signal(), Some(number), "{status}");
        assert!(!status.core_dumped() && !lives(program));
    }
}

#[test]
fn a_program_that_has_become_somebody_elses_is_waited_for_though_no_signal_reaches_it() {
    let bed = testbed::require!();
    if !on_path("setpriv") || !on_path("bash") {
        testbed::skip!("needs setpriv and bash");
    }
    // As pkexec and sudo are: a program of root's that becomes root altogether.
    let folder = bed.scratch("becomes-root");
    let program = folder.join("setpriv");
    std::fs::copy(printed(Command::new("sh").args(["-c", "command -v setpriv"])).trim(), &program).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o4755)).unwrap();
    let becomes = format!("{} --reuid 0 --regid 0 --clear-groups", program.display());
    let run = format!("{} run --embedded --", bed.bin("stead").display());
    if stead_by(bed, bed.user("alice"), &["run", "--embedded", "--"])
        .args(becomes.split(' '))
        .args(["id", "-u"])
        .output()
        .is_ok_and(|output| output.stdout != b"0\n")
    {
        testbed::skip!("needs a file system on which set-user-ID programs are that");
    }
    // Not INT and QUIT: a shell lets what it starts in the background ignore those.
    for (signal, is_told) in [("WINCH", false), ("CONT", false), ("TERM", true), ("HUP", true)] {
        let script = format!(
            "{run} {becomes} sh -c 'echo ready; read line; echo $line; exit 7' < <(sleep 2; echo done) > >(cat) &
             sleep 1; kill -{signal} $!; wait $!; echo status $?"
        );
        let alice = bed.user("alice");
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={}", alice.uid)).arg(format!("--regid={}", alice.gid));
        command.args(["--init-groups", "--inh-caps=-all", "--", "bash", "-c", &script]);
        let output = command.stdin(Stdio::null()).current_dir("/").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines: Vec<&str> = shown.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["done", "ready", "status 7"], "{signal}: {said}");
        assert_eq!(said.contains(&format!("SIG{signal} cannot be passed on")), is_told, "{signal}: {said}");
    }
}

#[test]
fn under_nohup_a_hangup_ends_neither_the_command_nor_the_program() {
    let bed = testbed::require!();
    let mut command = Command::new("nohup");
    command.arg(bed.bin("stead")).args([
        "run",
        "--embedded",
        "--",
        "sh",
        "-c",
        "echo ready; read line; echo $line",
    ]);
    command
        .env("STEAD_SERVICE", NO_SERVICE)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    assert!(Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap().success());
    child.stdin.take().unwrap().write_all(b"still here\n").unwrap();
    line.clear();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "still here\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn with_a_desktop_the_logon_session_is_let_onto_it() {
    let bed = testbed::require!();
    if !has_logon_gids() {
        testbed::skip!("needs logon gids, which are not mapped in this user namespace");
    }
    let display = testbed::display::Display::start(bed, &testbed::display::Options::default());
    let name = display.name();
    let script = "test -r \"$XAUTHORITY\" && echo $DISPLAY";
    let arguments =
        ["run", "--embedded", "--as", "alice", "--s4u", "--desktop", &name, "--", "sh", "-c", script];
    let output = stead(bed, &arguments).env("XAUTHORITY", display.authority()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{name}\n"));
}

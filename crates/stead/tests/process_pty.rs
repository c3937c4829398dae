//! Terminals of a process's own.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod process_support;

use std::io::{Read, Write};

use process_support::*;
use stead::os::linux::{ChildExt, CommandExt, Signal};
use stead::{Child, Command, PtySize, Stdio};
use testbed::until;

/// Everything that is written to the terminal until nobody has it open.
fn said(child: &mut Child) -> String {
    let mut said = Vec::new();
    child.pty.as_mut().unwrap().read_to_end(&mut said).unwrap();
    String::from_utf8_lossy(&said).replace('\r', "")
}

#[test]
fn the_terminal_is_the_clients_own_and_can_be_opened_again() {
    let bed = testbed::require!();
    let alice = bed.user("alice");
    let script = "stat -c '%u %a' $(tty); echo reopened > $(tty); echo controlling > /dev/tty; stty size";
    let size = PtySize { rows: 33, columns: 99, ..PtySize::default() };
    let mut child = shell(script).pty(size).spawn_as(&token(bed, "alice")).unwrap();
    let said = said(&mut child);
    assert!(child.wait().unwrap().success(), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0] == format!("{} 620", alice.uid) || lines[0] == format!("{} 600", alice.uid), "{said}");
    assert_eq!(lines[1..], ["reopened", "controlling", "33 99"]);
}

#[test]
fn what_is_typed_reaches_the_process_and_the_interrupt_key_its_group() {
    let bed = testbed::require!();
    let script = "read line; echo got $line; trap 'echo interrupted; exit 3' INT; echo ready; while :; do sleep 0.05; done";
    let mut child = shell(script).pty(PtySize::default()).spawn_as(&token(bed, "alice")).unwrap();
    let mut pty = child.pty.as_ref().unwrap().try_clone().unwrap();
    pty.write_all(b"some words\n").unwrap();
    let mut so_far = String::new();
    let mut buffer = [0; 200];
    while !so_far.contains("ready") {
        let length = pty.read(&mut buffer).unwrap();
        assert_ne!(length, 0, "{so_far}");
        so_far.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    assert!(so_far.contains("got some words"), "{so_far}");
    pty.write_all(&[3]).unwrap();
    drop(pty);
    assert!(said(&mut child).contains("interrupted"));
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn the_size_can_be_changed_and_the_process_is_told() {
    let bed = testbed::require!();
    let script = "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.05; done";
    let mut child = shell(script).pty(PtySize::default()).spawn_as(&token(bed, "alice")).unwrap();
    let mut ready = [0; 5];
    child.pty.as_mut().unwrap().read_exact(&mut ready).unwrap();
    child.pty.as_ref().unwrap().resize(PtySize { rows: 7, columns: 11, ..PtySize::default() }).unwrap();
    assert!(said(&mut child).contains("7 11"));
    assert!(child.wait().unwrap().success());
}

#[test]
fn closing_the_servers_end_hangs_the_process_up() {
    let bed = testbed::require!();
    let mut child =
        Command::new("sleep").arg("1000").pty(PtySize::default()).spawn_as(&token(bed, "alice")).unwrap();
    drop(child.pty.take());
    let status = child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(Signal::HUP.as_raw()));
}

#[test]
fn streams_may_lead_elsewhere_beside_a_terminal() {
    let bed = testbed::require!();
    let mut command = shell("echo to the pipe; echo to the terminal > /dev/tty; tty >&2");
    command.pty(PtySize::default()).stdout(Stdio::piped());
    let mut child = command.spawn_as(&token(bed, "alice")).unwrap();
    let mut piped = String::new();
    child.stdout.take().unwrap().read_to_string(&mut piped).unwrap();
    assert_eq!(piped, "to the pipe\n");
    let said = said(&mut child);
    assert!(said.contains("to the terminal") && said.contains("/dev/pts/"), "{said}");
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_terminal_controls_the_process_whichever_of_its_streams_it_is() {
    let bed = testbed::require!();
    let alice = token(bed, "alice");
    for job_control in [false, true] {
        for on in 0..3 {
            let mut command = shell("echo controlling > /dev/tty; tty < /dev/tty > /dev/tty");
            command.pty(PtySize::default()).job_control(job_control);
            for elsewhere in (0..3).filter(|number| *number != on) {
                match elsewhere {
                    0 => command.stdin(Stdio::null()),
                    1 => command.stdout(Stdio::null()),
                    _ => command.stderr(Stdio::null()),
                };
            }
            let mut child = command.spawn_as(&alice).unwrap();
            let said = said(&mut child);
            assert!(said.starts_with("controlling\n"), "{on}, {job_control}: {said:?}");
            assert!(child.wait().unwrap().success());
        }
    }
    let mut none = shell("true");
    none.pty(PtySize::default()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let error = none.spawn_as(&alice).unwrap_err();
    assert!(matches!(error.kind(), stead::ErrorKind::InvalidInput { .. }), "{error}");
}

#[test]
fn a_program_of_a_pipeline_is_put_in_front_of_its_terminal_when_it_asks_for_it() {
    let bed = testbed::require!();
    for asks in ["read line < /dev/tty", "stty -echo < /dev/tty; read line < /dev/tty"] {
        let mut command = shell(&format!("echo begun; read go; {asks}; echo read $line"));
        command.pty(PtySize::default()).job_control(true).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn_as(&token(bed, "alice")).unwrap();
        let terminal = child.pty.take().unwrap();
        let mut lines = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
        let program = child_of(child.id()).unwrap();
        assert_eq!((line.as_str(), in_front(&terminal)), ("begun\n", child.id()));
        // Stopped and continued it is where it was.
        child.signal(Signal::TSTP).unwrap();
        until("both are stopped", || is_stopped(program) && is_stopped(child.id()));
        child.signal(Signal::CONT).unwrap();
        until("both go on", || !is_stopped(program) && !is_stopped(child.id()));
        assert_eq!(in_front(&terminal), child.id());
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        until("it is in front", || in_front(&terminal) == program);
        (&terminal).write_all(b"typed\n").unwrap();
        line.clear();
        std::io::BufRead::read_line(&mut lines, &mut line).unwrap();
        assert_eq!(line, "read typed\n", "{asks}");
        assert!(child.wait().unwrap().success());
    }
}

/// CVE-2017-5226, CVE-2016-2779, CVE-2005-4890: a program of the client's types a command into the terminal
/// of its server.
#[test]
fn a_process_cannot_type_into_the_terminal_of_its_server() {
    let bed = testbed::require!();
    if std::process::Command::new("perl").arg("-e1").status().is_err() {
        testbed::skip!("needs perl, for its ioctl");
    }
    // TIOCSTI is 0x5412, TIOCLINUX 0x541C. The terminal is the server's standard input, inherited on purpose.
    let script = "my $c = 'x'; print ioctl(STDIN, 0x5412, $c) ? 'typed' : \"refused: $!\", ' ', \
                  open(my $t, '<', '/dev/tty') ? 'controlling' : 'none';";
    let test = exact(module_path!(), "a_process_cannot_type_into_the_terminal_of_its_server");
    // A terminal for the server: script(1) would do, our own does too.
    if std::env::var_os("STEAD_TEST_SERVER").is_none() {
        let mut server = Command::new(bed.this_program());
        server
            .args(["--exact", &test, "--nocapture", "--test-threads=1"])
            .env("STEAD_TEST_SERVER", "1")
            .current_dir("/")
            .pty(PtySize::default());
        let mut child = server.spawn_as(&stead::Token::current().unwrap()).unwrap();
        let said = said(&mut child);
        let status = child.wait().unwrap();
        testbed::skip_if_skipped(said.as_bytes());
        assert!(status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    assert!(rustix::termios::isatty(std::io::stdin()), "this server has a terminal");
    let mut command = Command::new("perl");
    command.args(["-e", script]).stdin(Stdio::inherit());
    let said = text(command.output_as(&token(bed, "mallory")).unwrap());
    assert!(said.starts_with("refused: ") && said.ends_with(" none"), "{said}");
}

#[test]
fn a_signal_reaches_a_process_on_a_terminal() {
    let bed = testbed::require!();
    let child = Command::new("sleep").arg("1000").pty(PtySize::default()).spawn_as(&token(bed, "bob"));
    let mut child = child.unwrap();
    child.signal(Signal::KILL).unwrap();
    assert!(!child.wait().unwrap().success());
}

/// Whether the process is stopped.
fn is_stopped(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')))
}

/// The process group in front of the terminal.
fn in_front(terminal: &stead::Pty) -> u32 {
    rustix::termios::tcgetpgrp(terminal).unwrap().as_raw_nonzero().get().unsigned_abs()
}

/// The child that a process has.
fn child_of(pid: u32) -> Option<u32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    list.split_ascii_whitespace().next()?.parse().ok()
}

#[test]
fn with_job_control_a_key_stops_the_program_and_a_signal_lets_it_go_on() {
    let bed = testbed::require!();
    let mut command = Command::new("cat");
    command.pty(PtySize::default()).job_control(true);
    let mut child = command.spawn_as(&token(bed, "alice")).unwrap();
    let mut terminal = child.pty.take().unwrap();
    let program = child_of(child.id()).expect("the program is a child of the session's leader");
    assert_eq!(in_front(&terminal), program);
    for identity in ["Uid:", "Gid:", "Groups:", "CapPrm:", "CapBnd:", "NoNewPrivs:"] {
        let line = |pid: u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            status.lines().find(|line| line.starts_with(identity)).map(str::to_owned)
        };
        assert_eq!(line(child.id()), line(program), "the parent is the client, no more");
    }
    terminal.write_all(b"\x1a").unwrap();
    until("both are stopped", || is_stopped(program) && is_stopped(child.id()));
    assert_eq!(in_front(&terminal), child.id());
    child.signal(Signal::CONT).unwrap();
    until("the program is in front again", || in_front(&terminal) == program && !is_stopped(program));
    terminal.write_all(b"once more\n\x04").unwrap();
    let mut shown = String::new();
    terminal.read_to_string(&mut shown).unwrap();
    assert_eq!(shown.matches("once more").count(), 2, "typed and repeated: {shown:?}");
    assert!(child.wait().unwrap().success());
}

/// The control: what the kernel does to a process whose parent is in another session.
#[test]
fn without_job_control_the_kernel_ignores_the_key() {
    let bed = testbed::require!();
    let mut child = Command::new("cat").pty(PtySize::default()).spawn_as(&token(bed, "alice")).unwrap();
    let mut terminal = child.pty.take().unwrap();
    terminal.write_all(b"\x1aonce more\n\x04").unwrap();
    let mut shown = String::new();
    terminal.read_to_string(&mut shown).unwrap();
    assert!(shown.contains("once more"), "{shown:?}");
    assert!(child.wait().unwrap().success());
}

#[test]
fn with_job_control_the_process_ends_as_its_program_does() {
    use std::os::unix::process::ExitStatusExt;
    let bed = testbed::require!();
    let alice = token(bed, "alice");
    let end = |script: &str| {
        let mut command = shell(script);
        command.pty(PtySize::default()).job_control(true);
        let mut child = command.spawn_as(&alice).unwrap();
        child.wait().unwrap()
    };
    assert_eq!(end("exit 7").code(), Some(7));
    assert_eq!(end("kill -TERM $$").signal(), Some(Signal::TERM.as_raw()));
    assert_eq!(end("kill -SEGV $$").signal(), Some(11));
    // A signal for the process reaches the program.
    let mut command = shell("trap 'exit 3' USR1; echo ready; while :; do sleep 0.1; done");
    command.pty(PtySize::default()).job_control(true);
    let mut child = command.spawn_as(&alice).unwrap();
    let mut ready = [0; 5];
    child.pty.as_mut().unwrap().read_exact(&mut ready).unwrap();
    child.signal(Signal::USR1).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    // And what cannot be executed is told as ever.
    let mut missing = Command::new("/no/such/program");
    missing.pty(PtySize::default()).job_control(true);
    let error = missing.spawn_as(&alice).unwrap_err();
    assert!(matches!(error.kind(), stead::ErrorKind::ProgramNotFound { .. }), "{error}");
}

#[test]
fn a_signal_for_the_group_reaches_what_the_program_has_started() {
    let bed = testbed::require!();
    let mut command = shell("sleep 600 & echo $!; wait");
    command.stdout(Stdio::piped());
    let mut child = command.spawn_as(&token(bed, "bob")).unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
        .unwrap();
    let sleeper: u32 = line.trim().parse().unwrap();
    child.signal_group(Signal::TERM).unwrap();
    assert!(!child.wait().unwrap().success());
    until("the group is gone", || !alive(sleeper));
}

//! What a process may do to whoever waits for it: its parent, and who ends its tree.

use crate::linux::sys;
use rustix::process::{Pid, Signal, getpid, kill_process, setsid};
use rustix::thread::gettid;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::channel;
use std::thread;

/// The tricks, as `testbed-client` has them.
pub const HELP: &str = "\
tricks: traced-thread ends|stays     a second thread makes the parent its tracer and ends; then the program ends, or stays
        traced-stop                  the first thread does so, and stops
        traced-by-own                one of its own session traces it
        traced-by-another            one of another session traces its second thread, which ends
        lets-trace                   any process of its user may trace it
        trace PID                    traces that process
        siblings N                   makes N children of its parent, each of which ends at once
        many N                       has N children, all of which stay
each says `ready` when it is done
";

/// Plays one of them.
///
/// # Errors
///
/// What the kernel does not let it do, and what is no trick.
pub fn play(trick: &str, rest: &[&str]) -> io::Result<ExitCode> {
    let number = || rest.first().and_then(|number| number.parse::<i32>().ok()).ok_or_else(unknown);
    match trick {
        "traced-thread" => {
            let traced = thread::spawn(sys::be_traced);
            traced.join().map_err(|_| io::Error::other("the thread panicked"))??;
            say("ready")?;
            if rest.first() == Some(&"ends") {
                return Ok(ExitCode::SUCCESS);
            }
        }
        "traced-stop" => {
            sys::be_traced()?;
            say("ready")?;
            kill_process(getpid(), Signal::USR1)?;
        }
        "traced-by-own" => {
            sys::let_all_trace();
            let tracer = traced_by("trace", getpid())?;
            say(&format!("ready {tracer}"))?;
        }
        "traced-by-another" => {
            sys::let_all_trace();
            let (tell, told) = channel();
            let (go, gone) = channel::<()>();
            let second = thread::spawn(move || {
                let _ = tell.send(gettid());
                let _ = gone.recv();
            });
            let tracer = traced_by("trace-apart", told.recv().map_err(io::Error::other)?)?;
            drop(go);
            let _ = second.join();
            say(&format!("ready {tracer}"))?;
        }
        "lets-trace" => {
            sys::let_all_trace();
            say("ready")?;
        }
        "trace" => {
            sys::trace(number()?)?;
            say("ready")?;
        }
        "trace-apart" => {
            setsid()?;
            sys::trace(number()?)?;
            say("ready")?;
        }
        "siblings" => {
            for _ in 0..number()? {
                if sys::copied(true)? {
                    return Ok(ExitCode::SUCCESS);
                }
            }
            say("ready")?;
        }
        "many" => {
            for _ in 0..number()? {
                if sys::copied(false)? {
                    stay();
                }
            }
            say("ready")?;
        }
        _ => return Err(unknown()),
    }
    stay()
}

/// Another process of this program traces the thread; its number.
fn traced_by(how: &str, thread: Pid) -> io::Result<u32> {
    let mut tracer = Command::new("/proc/self/exe")
        .args([OsStr::new("trick"), how.as_ref(), thread.to_string().as_ref()])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    if let Some(output) = tracer.stdout.take() {
        BufReader::new(output).read_line(&mut line)?;
    }
    if line.trim() == "ready" { Ok(tracer.id()) } else { Err(io::Error::other(line)) }
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn stay() -> ! {
    loop {
        thread::park();
    }
}

fn unknown() -> io::Error {
    io::Error::other("no such trick")
}

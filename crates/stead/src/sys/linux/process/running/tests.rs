use super::*;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

#[test]
fn a_start_that_failed_leaves_nothing_of_its_tree_running() {
    // As with job control: the first process is stopped, its program runs.
    for stage in [Stage::Deadline, Stage::Ended] {
        let script = "sleep 1000 > /dev/null & echo $!; kill -STOP $$";
        let mut command = Command::new("setsid");
        let mut leader = command.args(["sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(leader.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pidfd = |pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        let program = pidfd(Pid::from_raw(line.trim().parse().unwrap()).unwrap());
        let pid = Pid::from_child(&leader);
        let names = Names { doing: String::new(), program: String::new(), directory: String::new() };
        let mut running = Running::new(pid, pidfd(pid), Parent::Server, None, names);
        let _ = running.failed(LaunchFault { stage, errno: Errno::TIMEDOUT, detail: 0 });
        assert_eq!(status::ended_by(program.as_fd(), Some(reaping())), Ok(true), "{stage:?}");
        assert!(leader.wait().is_err(), "it is reaped");
    }
}

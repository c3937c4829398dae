//! `bench spawn`: what creating a process as another user costs, from the call until it is reaped.

use std::ffi::CString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use stead::{Command, Primary, Token};

use crate::Outcome;
use crate::floor;
use crate::measure::Method;
use crate::report::{Bench, Scenario};
use crate::server::{self, OpenDescriptors, ResidentMemory};

/// The user that the processes become; a uid needs no account.
const UID: u32 = 64_321;

/// Every method, for a small server, a large one, and one with many descriptors.
pub(crate) fn run(bench: &mut Bench) -> Outcome {
    let tiny = bench.bed.scratch("programs").join("tiny");
    floor::write_tiny(&tiny)?;
    let token = server::token_of_user(UID, 17)?;
    // The first spawn prepares the trampoline, as a server's first one does.
    Command::new(&tiny).current_dir("/").status_as(&token)?;

    methods(bench, "small", &tiny, &token)?;
    methods(bench, "small", Path::new("/bin/true"), &token)?;
    {
        let memory = ResidentMemory::up_to_gib(4)?;
        methods(bench, &format!("{} GiB resident", memory.gib()), &tiny, &token)?;
    }
    let descriptors = OpenDescriptors::up_to(15_000)?;
    methods(bench, &format!("{} descriptors", descriptors.len()), &tiny, &token)
}

/// Creates `program` by every method in turn.
fn methods(bench: &mut Bench, server: &str, program: &Path, token: &Token<Primary>) -> Outcome {
    let name = CString::new(program.as_os_str().as_encoded_bytes())?;
    let mut stack = vec![0; 64 * 1024];
    let mut ours = Command::new(program);
    ours.current_dir("/").env_clear();
    let std_command = || {
        let mut command = std::process::Command::new(program);
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let scenario = Scenario {
        part: "spawn",
        name: format!("{}, server: {server}", program.file_name().unwrap_or_default().display()),
        rounds: 500,
        time: Duration::from_secs(20),
    };
    bench.measure(
        &scenario,
        vec![
            Method::new("vfork, no switch", || floor::spawn_and_wait(&name, &mut stack)),
            Method::new("posix_spawn, no switch", || std_command().status().map(drop)),
            Method::new("stead", || ours.status_as(token).map(drop).map_err(io::Error::other)),
            Method::new("std .uid().gid()", || std_command().uid(UID).gid(UID).status().map(drop))
                .note("groups lost"),
        ],
    )
}

//! `bench impersonate`: what acting as a client costs, there and back, beside the bare system calls.

use std::io;
use std::time::Duration;

use crate::Outcome;
use crate::credentials::{Credentials, libc_wrappers, read_back};
use crate::measure::Method;
use crate::report::{Bench, Scenario};
use crate::server::{self, IdleThreads};

/// The user that is impersonated; a uid needs no account.
const UID: u32 = 64_321;

/// So many there-and-backs are one measurement: a single one is short beside the clock.
const BATCH: u32 = 50;

/// With few groups and with many, with few threads and with many.
pub(crate) fn run(bench: &mut Bench) -> Outcome {
    for groups in [0, 16, 64, 1000] {
        beside_bare_calls(bench, groups, 1, BATCH)?;
    }
    for threads in [16, 128] {
        let _idle = IdleThreads::start(threads - 1)?;
        // The wrappers take milliseconds with so many.
        beside_bare_calls(bench, 16, threads, 5)?;
    }
    Ok(())
}

fn beside_bare_calls(bench: &mut Bench, groups: u32, threads: usize, batch: u32) -> Outcome {
    let token = server::token_of_user(UID, groups)?;
    let theirs = Credentials { uid: UID, gid: UID, groups: (0..groups).map(|index| UID + index).collect() };
    let own = Credentials { uid: 0, gid: 0, groups: Vec::new() };
    let scenario = Scenario {
        part: "impersonate",
        name: format!("there and back, {groups} groups, threads in the process: {threads}"),
        rounds: 500,
        time: Duration::from_secs(15),
    };
    let bare = || {
        theirs.take_on()?;
        own.put_back()
    };
    let checked = || {
        read_back()?;
        theirs.take_on()?;
        read_back()?;
        own.put_back()?;
        read_back()
    };
    let wrappers = || {
        libc_wrappers(&theirs)?;
        libc_wrappers(&own)
    };
    bench.measure(
        &scenario,
        vec![
            Method::batch("bare calls, unchecked", batch, bare),
            Method::batch("bare calls, read before, between, after", batch, checked),
            Method::batch("stead", batch, || token.impersonate(|_| ()).map_err(io::Error::other)),
            Method::batch("libc wrappers, unchecked", batch, wrappers).note("all threads change"),
        ],
    )
}

//! `bench impersonate`: what acting as a client costs, there and back, beside the bare system calls.

use std::io;
use std::time::Duration;

use rustix::fs::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::Outcome;
use crate::measure::Method;
use crate::report::{Bench, Scenario};
use crate::server;

/// The user that is impersonated; a uid needs no account.
const UID: u32 = 64_321;

/// So many there-and-backs are one measurement: a single one is short beside the clock.
const BATCH: u32 = 50;

/// With few groups and with many.
pub(crate) fn run(bench: &mut Bench) -> Outcome {
    for groups in [1, 16, 64, 1000] {
        let token = server::token_of_user(UID, groups)?;
        let theirs: Vec<Gid> = (0..groups).map(|index| Gid::from_raw(UID + index)).collect();
        let (user, group) = (Some(Uid::from_raw(UID)), Some(Gid::from_raw(UID)));
        let (root_user, root_group) = (Some(Uid::ROOT), Some(Gid::ROOT));
        let scenario = Scenario {
            part: "impersonate",
            name: format!("there and back, {groups} groups"),
            rounds: 500,
            time: Duration::from_secs(20),
        };
        let bare = || {
            set_thread_groups(&theirs)?;
            set_thread_res_gid(None, group, None)?;
            set_thread_res_uid(None, user, None)?;
            set_thread_res_uid(None, root_user, None)?;
            set_thread_res_gid(None, root_group, None)?;
            set_thread_groups(&[])?;
            Ok(())
        };
        bench.measure(
            &scenario,
            vec![
                Method::batch("bare calls, unchecked", BATCH, bare),
                Method::batch("stead", BATCH, || token.impersonate(|_| ()).map_err(io::Error::other)),
                Method::batch("stead, and a file opened", BATCH, || {
                    let file = token.impersonate(|me| me.open("/etc/passwd")).and_then(|file| file);
                    file.map(drop).map_err(io::Error::other)
                }),
            ],
        )?;
    }
    Ok(())
}

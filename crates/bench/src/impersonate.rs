//! `stead-bench impersonate`: what acting as a client costs, there and back, beside the bare system calls.

use std::io;
use std::time::Duration;

use rustix::fs::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde_json::json;

use crate::measure::interleaved;
use crate::server;

/// So many there-and-backs are one measurement: a single one is short beside the clock.
const BATCH: u32 = 50;

/// With few groups and with many.
pub(crate) fn run(rounds: usize, uid: u32, as_json: bool) -> Result<(), Box<dyn std::error::Error>> {
    for groups in [1, 16, 64, 1000] {
        let token = server::token_of_user(uid, groups)?;
        let theirs: Vec<Gid> = (0..groups).map(|index| Gid::from_raw(uid + index)).collect();
        let (user, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)));
        let (root_user, root_group) = (Some(Uid::ROOT), Some(Gid::ROOT));
        let repeat = |act: &mut dyn FnMut() -> io::Result<()>| (0..BATCH).try_for_each(|_| act());
        let figures = interleaved(
            rounds,
            &mut [
                ("floor: bare calls, unchecked", &mut || {
                    repeat(&mut || {
                        set_thread_groups(&theirs)?;
                        set_thread_res_gid(None, group, None)?;
                        set_thread_res_uid(None, user, None)?;
                        set_thread_res_uid(None, root_user, None)?;
                        set_thread_res_gid(None, root_group, None)?;
                        set_thread_groups(&[])?;
                        Ok(())
                    })
                }),
                ("stead", &mut || repeat(&mut || token.impersonate(|_| ()).map_err(io::Error::other))),
                ("stead, and a file opened", &mut || {
                    repeat(&mut || {
                        let file = token.impersonate(|me| me.open("/etc/passwd")).and_then(|file| file);
                        file.map(drop).map_err(io::Error::other)
                    })
                }),
            ],
        )?;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(BATCH);
        let floor = each(figures[0].1.median);
        if !as_json {
            println!("\nthere and back, {groups} groups");
            println!("  {:<32} {:>10} {:>10} {:>9}", "method", "median us", "p99 us", "x floor");
        }
        for (method, of) in &figures {
            let (median, p99) = (each(of.median), each(of.p99));
            let ratio = median / floor;
            if as_json {
                let line = json!({ "bench": "impersonate", "groups": groups, "method": method,
                    "median_us": median, "p99_us": p99, "ratio": ratio });
                println!("{line}");
            } else {
                println!("  {method:<32} {median:>10.2} {p99:>10.2} {ratio:>9.2}");
            }
        }
    }
    Ok(())
}

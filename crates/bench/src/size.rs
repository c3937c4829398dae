//! `bench size`: the same for servers that have much memory, many descriptors, many threads.

use std::time::Duration;

use crate::Outcome;
use crate::measure::Effort;
use crate::report::{Bench, Scenario};
use crate::server::{IdleThreads, OpenDescriptors, Pages, ResidentMemory};
use crate::target::{Identities, Target};
use crate::ways::{self, Ours};

pub(crate) fn run(bench: &mut Bench) -> Outcome {
    let bed = bench.bed;
    let user = bed.user("alice");
    let identities = Identities::new(bed, user)?;
    let ours = Ours::new(bed, user)?;
    let all = ways::in_one_server(user, &ours);
    let sizes: &[usize] = match bench.effort {
        Effort::Full => &[1, 4, 12],
        Effort::Quick => &[1, 4],
        Effort::Fewest => &[1],
    };
    let ways = ways::verified(bench, &scenario("small"), &identities, &all);
    let tiny = Target::tiny(bed)?;

    ways::measure(bench, &scenario("small"), &ways, &tiny)?;
    for pages in [Pages::Small, Pages::Huge] {
        for gib in sizes {
            let memory = match ResidentMemory::of_gib(*gib, pages)? {
                Ok(memory) => memory,
                Err(why) => {
                    bench.missing(&scenario(&format!("{gib} GiB, {}", pages.name())), "all", &why);
                    continue;
                }
            };
            let name = format!("{} GiB, {}", memory.gib(), pages.name());
            ways::measure(bench, &scenario(&name), &ways, &tiny)?;
        }
    }
    for count in [1_000, 15_000] {
        let descriptors = OpenDescriptors::up_to(count)?;
        let name = format!("{} descriptors", descriptors.len());
        ways::measure(bench, &scenario(&name), &ways, &tiny)?;
    }
    for count in [16, 128] {
        let threads = IdleThreads::start(count)?;
        ways::measure(bench, &scenario(&format!("{count} threads")), &ways, &tiny)?;
        drop(threads);
    }
    Ok(())
}

fn scenario(server: &str) -> Scenario {
    Scenario {
        part: "size",
        name: format!("a tiny static program, server: {server}"),
        rounds: 200,
        time: Duration::from_secs(12),
    }
}

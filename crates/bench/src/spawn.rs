//! `bench spawn`: what creating a process as another user costs, from the call until it is reaped.

use std::time::Duration;

use crate::Outcome;
use crate::report::{Bench, Scenario};
use crate::target::{Identities, Target};
use crate::ways::{self, Ours};

/// Every way, for the smallest program and for an ordinary one.
pub(crate) fn run(bench: &mut Bench) -> Outcome {
    let bed = bench.bed;
    let user = bed.user("alice");
    let identities = Identities::new(bed, user)?;
    let ours = Ours::new(bed, user)?;
    let mut all = ways::others(user);
    let rest = all.split_off(1);
    all.push(ways::bound(user));
    all.extend(ours.ways());
    all.extend(rest);
    for (name, target) in [("a tiny static program", Target::tiny(bed)?), ("/bin/true", Target::ordinary())] {
        let scenario = Scenario {
            part: "spawn",
            name: format!("{name}, {} groups", user.groups.len()),
            rounds: 2000,
            time: Duration::from_secs(30),
        };
        let ways = ways::verified(bench, &scenario, &identities, &all);
        ways::measure(bench, &scenario, &ways, &target)?;
    }
    Ok(())
}

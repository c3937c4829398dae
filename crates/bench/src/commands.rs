//! `bench commands`: whole commands that run a program as another user, from the execution of the command until its end.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use testbed::{Bed, User};

use crate::Outcome;
use crate::floor::Execution;
use crate::machine;
use crate::report::{Bench, Scenario};
use crate::service::TheService;
use crate::target::{Becomes, Identities, Target, switch_to};
use crate::ways::{self, Way, timed};

/// Each runs /bin/true.
pub(crate) fn run(bench: &mut Bench) -> Outcome {
    let bed = bench.bed;
    let user = bed.user("alice");
    let identities = Identities::new(bed, user)?;
    let service = TheService::start(bed)?;
    let mut all = vec![
        Way::new(ways::FLOOR, Becomes::User, |target: &Target| {
            let mut execution = Execution::new(target.words(), &[], Some(switch_to(user)))?;
            Ok(timed(move || execution.vfork()))
        })
        .note("no command"),
    ];
    all.extend(ours(bed, user, &service.socket));
    all.extend(peers(user));
    let scenario = Scenario {
        part: "commands",
        name: format!("/bin/true by a command of root's, {} groups", user.groups.len()),
        rounds: 300,
        time: Duration::from_secs(40),
    };
    let ways = ways::verified(bench, &scenario, &identities, &all);
    ways::measure(bench, &scenario, &ways, &Target::ordinary())
}

fn ours<'a>(bed: &Bed, user: &'a User, socket: &Path) -> Vec<Way<'a>> {
    let stead = bed.bin("stead");
    let run = |name, options: &[&str]| {
        let mut words: Vec<OsString> = vec![stead.clone().into(), "run".into()];
        words.extend(options.iter().map(Into::into));
        words.extend(["--as".into(), user.name.clone().into(), "--s4u".into()]);
        words.extend(["--logon".into(), "batch".into(), "--".into()]);
        let environment = environment(Some(socket));
        Way::new(name, Becomes::User, move |target| {
            let words = words.iter().cloned().chain(target.words());
            let mut execution = Execution::new(words, &environment, None)?;
            Ok(timed(move || execution.vfork()))
        })
    };
    // Executed by the user, it asks the service for a process of the user's own.
    let oneself: Vec<OsString> = vec![stead.clone().into(), "run".into(), "--".into()];
    let variables = environment(Some(socket));
    vec![
        run("stead run", &[]).note("through the service, a PAM session"),
        run("stead run --embedded", &["--embedded"]).note("a PAM session"),
        Way::new("stead run, by the user", Becomes::User, move |target| {
            let words = oneself.iter().cloned().chain(target.words());
            let mut execution = Execution::new(words, &variables, Some(switch_to(user)))?;
            Ok(timed(move || execution.vfork()))
        })
        .note("through the service, as oneself"),
    ]
}

fn peers(user: &User) -> Vec<Way<'static>> {
    let (name, uid, gid) = (&user.name, user.uid, user.gid);
    let groups: Vec<String> = user.all_groups().iter().map(u32::to_string).collect();
    let ids = format!(":{uid}:{gid}:{}", groups.join(":"));
    let (reuid, regid) = (format!("--reuid={uid}"), format!("--regid={gid}"));
    vec![
        peer("setpriv", &[&reuid, &regid, "--init-groups", "--"]),
        peer("chpst", &["-u", &ids]).note("groups listed by hand"),
        peer("s6-setuidgid", &[name]),
        peer("gosu", &[name]),
        peer("runuser", &["-u", name, "--"]).note("a PAM session"),
        peer("su", &[name, "-c"]).note("a PAM session, by a shell"),
        peer("sudo", &["-u", name, "--"]).note("a PAM session"),
        peer("doas", &["-u", name, "--"]).note("a PAM session"),
    ]
}

fn peer(name: &'static str, words: &[&str]) -> Way<'static> {
    let words: Vec<OsString> = words.iter().map(Into::into).collect();
    Way::new(name, Becomes::User, move |target| {
        let path = machine::find(name).ok_or_else(|| format!("{name} is not installed"))?;
        let mut all = vec![path.into_os_string()];
        all.extend(words.iter().cloned());
        if name == "su" {
            // Its shell takes one word; none of these needs quoting.
            let target: Vec<OsString> = target.words().collect();
            all.push(target.join(" ".as_ref()));
        } else {
            all.extend(target.words());
        }
        let mut execution = Execution::new(all, &environment(None), None)?;
        Ok(timed(move || execution.vfork()))
    })
}

/// What root has in its environment anyhow.
fn environment(socket: Option<&Path>) -> Vec<String> {
    let mut variables = vec![
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        "HOME=/root".to_owned(),
        "SHELL=/bin/sh".to_owned(),
    ];
    variables.extend(socket.map(|socket| format!("STEAD_SERVICE={}", PathBuf::from(socket).display())));
    variables
}

//! "As itself" takes no rule: so nothing may come of it that its caller's process could not do without the service.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod service_support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use service_support::{
    Service, be_told, call, everything, output, own, part, refusal, s4u, say, shell, sleeper,
};
use stead_protocol::{FailureKind, GetProcess, GetStatus, OpenFile, RestrictToken, Text};
use testbed::Bed;

const FILE: &str = "STEAD_TEST_FILE";
const PROGRAM: &str = "STEAD_TEST_PROGRAM";
const PROCESS: &str = "STEAD_TEST_PROCESS";
const ALONE: &str = "STEAD_TEST_ALONE";

/// CVE-2000-0506: only who has CAP_SETPCAP may take a capability from what a set-user-ID program gets, or who gives up
/// that there are such programs.
#[test]
fn who_gives_up_capabilities_gives_up_setuid_programs_too() {
    let bed = testbed::require!();
    let program = bed.setuid_program();
    let variables = [(PROGRAM, program.to_str().unwrap())];
    Service::start(bed, "").caller_with(bed, "alice", "role_takes_cap_setuid_from_itself", &variables);
}

#[test]
fn role_takes_cap_setuid_from_itself() {
    let Some(mut service) = part() else { return };
    let whole = own(&mut service);
    let took = RestrictToken { token: whole.token, without_capabilities: 1 << 7, ..Default::default() };
    let less = call(&mut service, &took, &[]).0;
    assert!(less.context.no_new_privs);
    let script = format!(
        "{} confine -- grep -E '^(Uid|NoNewPrivs)' /proc/self/status",
        std::env::var(PROGRAM).unwrap()
    );
    let uid = whole.context.uid;
    // The control: it is root's where nothing was taken.
    assert_eq!(
        output(&mut service, shell(whole.token, &script)).0,
        format!("Uid:\t{uid}\t0\t0\t0\nNoNewPrivs:\t0\n")
    );
    let became = output(&mut service, shell(less.token, &script)).0;
    assert_eq!(became, format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\nNoNewPrivs:\t1\n"));
}

/// CVE-2014-8989: what is shut to a group is open to who drops it.
#[test]
fn nobody_drops_a_group_that_a_file_is_shut_to() {
    let bed = testbed::require!();
    let file = bed.scratch("shut").join("to-a-group");
    std::fs::write(&file, "for everybody else").unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o604)).unwrap();
    let given = std::process::Command::new("chgrp").arg("stead-shared").arg(&file).status().unwrap();
    assert!(given.success());
    let variables = [(FILE, file.to_str().unwrap())];
    Service::start(bed, "").caller_with(bed, "alice", "role_drops_the_group_of_a_file", &variables);
    // A rule over oneself gives it, as to anybody else.
    let rule = "[[allow]]\ncallers = { users = [\"alice\"] }\nclients = { users = [\"alice\"] }\nprograms = \"any\"\n\
                privileges = [\"assign-primary-token\", \"impersonate\"]\n";
    Service::start(bed, rule).caller_with(bed, "alice", "role_drops_a_group_by_a_rule", &variables);
    // And a rule that denies the group still does.
    let denied = format!("{rule}[[deny]]\nclients = {{ groups = [\"stead-shared\"] }}\n");
    let service = Service::start(bed, &denied);
    service.caller_with(bed, "alice", "role_drops_the_group_of_a_file", &variables);
}

/// The file, and a token of one's own without its group.
fn shut(service: &mut stead_protocol::client::Connection) -> (String, u64) {
    let path = std::env::var(FILE).unwrap();
    let whole = own(service).token;
    let group = std::fs::metadata(&path).unwrap().gid();
    let took = RestrictToken { token: whole, without_groups: vec![group], ..Default::default() };
    (path, call(service, &took, &[]).0.token)
}

#[test]
fn role_drops_the_group_of_a_file() {
    let Some(mut service) = part() else { return };
    let (path, less) = shut(&mut service);
    let refused = refusal(&mut service, &shell(less, &format!("cat {path}")), &[]);
    assert!(matches!(refused, FailureKind::PolicyDenied { .. }), "{refused:?}");
    let open = OpenFile { token: less, path: Text::from(&*path), read: true, ..OpenFile::default() };
    let refused = refusal(&mut service, &open, &[]);
    assert!(matches!(refused, FailureKind::PolicyDenied { .. }), "{refused:?}");
}

#[test]
fn role_drops_a_group_by_a_rule() {
    let Some(mut service) = part() else { return };
    let (path, less) = shut(&mut service);
    assert_eq!(output(&mut service, shell(less, &format!("cat {path}"))).0, "for everybody else");
}

/// By a pidfd a process in a sandbox could take the descriptors of one outside, which it cannot even name.
#[test]
fn a_confined_process_gets_no_pidfd_of_its_users_free_ones() {
    let bed = testbed::require!();
    let service = Service::start(bed, "");
    let mut outside =
        service.part_by(bed.as_user("alice", &[], bed.this_program()), "role_has_a_process", &[]);
    let id = outside.says();
    let variables = [(PROCESS, id.as_str())];
    let ids = bed.user("alice");
    let confined = |options: &[&str]| {
        let mut command = bed.confined(options, "setpriv");
        let [uid, gid] =
            [("--reuid", ids.uid), ("--regid", ids.gid)].map(|(option, id)| format!("{option}={id}"));
        command.args([&*uid, &*gid, "--init-groups", "--inh-caps=-all", "--"]).arg(bed.this_program());
        command
    };
    service.succeed(confined(&["--no-new-privs"]), "role_gets_a_description_alone", &variables);
    // The control: it is the confinement that makes the difference.
    service.succeed(confined(&[]), "role_gets_a_pidfd", &variables);
    outside.tell();
    outside.wait();
}

#[test]
fn role_has_a_process() {
    let Some(mut service) = part() else { return };
    let token = own(&mut service).token;
    let id = call(&mut service, &sleeper(token), &[]).0.process.id;
    say(&id);
    be_told();
    call(&mut service, &stead_protocol::KillTree { process: id }, &[]);
}

#[test]
fn role_gets_a_description_alone() {
    let Some(mut service) = part() else { return };
    let process = std::env::var(PROCESS).unwrap();
    let (described, mut with) = call(&mut service, &GetProcess { process: process.clone() }, &[]);
    assert_eq!((described.id, described.running), (process, true));
    assert!(with.take(0).is_err());
}

#[test]
fn role_gets_a_pidfd() {
    let Some(mut service) = part() else { return };
    call(&mut service, &GetProcess { process: std::env::var(PROCESS).unwrap() }, &[]).1.take(0).unwrap();
}

/// A `[[deny]]` rule by group would not be about who is taken for nobody's account.
#[test]
fn who_cannot_be_looked_up_is_refused_and_not_taken_for_a_user_without_groups() {
    let bed = testbed::require!();
    let made = std::process::Command::new("unshare").args(["-m", "--", "true"]).status();
    if !made.is_ok_and(|status| status.success()) {
        testbed::skip!("no mounts of one's own can be made here");
    }
    let mut alone = std::process::Command::new("unshare");
    alone.args(["-m", "--"]).arg(bed.this_program()).env(ALONE, "");
    alone.args(["--exact", "role_loses_its_accounts", "--nocapture", "--test-threads=1"]);
    let output = alone.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn role_loses_its_accounts() {
    if std::env::var_os(ALONE).is_none() {
        return;
    }
    let service = Service::start(Bed::current().unwrap(), &everything(&["root"], &["alice"]));
    let mut known = service.connect();
    call(&mut known, &GetStatus {}, &[]);
    // As where a directory's daemon does not run: the last source of accounts says ENOENT.
    let hidden = std::process::Command::new("mount").args(["-t", "tmpfs", "none", "/etc"]).status();
    assert!(hidden.unwrap().success());
    std::fs::write("/etc/nsswitch.conf", "passwd: files\ngroup: files\n").unwrap();
    let refused = refusal(&mut service.connect(), &GetStatus {}, &[]);
    assert!(matches!(&refused, FailureKind::System { call } if call == "getpwuid_r"), "{refused:?}");
    // Whom it knows already it serves, but for those who are to be looked up.
    call(&mut known, &GetStatus {}, &[]);
    let refused = refusal(&mut known, &s4u("alice"), &[]);
    assert!(matches!(&refused, FailureKind::System { call } if call == "getpwnam_r"), "{refused:?}");
}

//! The command and the service, as real programs: who may run what through it, and what can be seen and ended.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use support::*;
use testbed::{Bed, Probe, until};

/// The portal `svc` may log alice on without a password, and create her processes; nobody else anything.
const POLICY: &str = r#"
[[allow]]
callers = { users = ["svc"] }
clients = { users = ["alice"] }
privileges = ["tcb", "logon", "assign-primary-token", "increase-quota"]
logon-types = ["interactive", "batch"]
programs = "any"
limits = { open-files = 600000 }
"#;

/// `stead serve`, as root.
struct Service {
    child: Child,
    folder: PathBuf,
}

impl Service {
    fn start(bed: &Bed) -> Self {
        Self::start_with(bed, Stdio::inherit())
    }

    /// What it has to say goes there.
    fn start_with(bed: &Bed, log: Stdio) -> Self {
        let folder = bed.scratch("service");
        std::fs::create_dir(folder.join("policy")).unwrap();
        std::fs::write(folder.join("policy/policy.toml"), POLICY).unwrap();
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let (socket, policy, state, audit) = (path("socket"), path("policy"), path("state"), path("audit"));
        let arguments =
            ["serve", "--socket", &socket, "--policy", &policy, "--state", &state, "--audit", &audit];
        let child = stead(bed, &arguments).stderr(log).spawn().unwrap();
        let mut service = Self { child, folder };
        until("the service listens", || {
            assert_eq!(service.child.try_wait().unwrap(), None, "it has ended");
            std::os::unix::net::UnixStream::connect(service.socket()).is_ok()
        });
        service
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// The command, asking this service.
    fn root(&self, bed: &Bed, arguments: &[&str]) -> Command {
        let mut command = stead(bed, arguments);
        command.env("STEAD_SERVICE", self.socket());
        command
    }

    /// The same by a user without privileges.
    fn user(&self, bed: &Bed, name: &str, arguments: &[&str]) -> Command {
        let mut command = stead_by(bed, bed.user(name), arguments);
        command.env("STEAD_SERVICE", self.socket());
        command
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Ends the test where the service cannot see who its callers are, as in an ordinary container.
fn needs_to_see_callers() {
    if !testbed::confine::may("sys_ptrace") {
        testbed::skip_test(
            "the service serves nobody whose confinement it cannot read: needs CAP_SYS_PTRACE",
        );
    }
}

#[test]
fn a_user_without_privileges_runs_what_the_policy_allows() {
    let bed = testbed::require!();
    needs_to_see_callers();
    let service = Service::start(bed);
    let probe = bed.bin("probe").to_str().unwrap().to_owned();
    let seen = |command: &mut Command| Probe::parse(printed(command).as_bytes());

    // As oneself, without any rule.
    let bob = bed.user("bob");
    let by_bob = seen(&mut service.user(bed, "bob", &["run", "--", &probe]));
    assert_eq!((by_bob.uid.real, by_bob.gid.real), (bob.uid, bob.gid));
    // As another, by the rule: without a password, and with hers.
    let alice = bed.user("alice");
    let by_svc = seen(&mut service.user(bed, "svc", &["run", "--as", "alice", "--s4u", "--", &probe]));
    assert_eq!((by_svc.uid.real, by_svc.gid.real), (alice.uid, alice.gid));
    assert!(alice.groups.iter().all(|gid| by_svc.groups.contains(gid)));
    let arguments = ["run", "--as", "alice", "--logon", "batch", "--password-fd", "0", "--", "id", "-un"];
    let output = fed(&mut service.user(bed, "svc", &arguments), &format!("{}\n", alice.password));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "alice\n", "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");

    // What no rule allows is refused, alike for a user that exists and one that does not.
    let said =
        |name: &str| refused(&mut service.user(bed, "svc", &["run", "--as", name, "--s4u", "--", "id"]));
    assert_eq!(
        said("bob").replace("bob", "X"),
        said("nobody-of-that-name").replace("nobody-of-that-name", "X")
    );
    let by_bob = refused(&mut service.user(bed, "bob", &["run", "--as", "alice", "--s4u", "--", "id"]));
    assert!(by_bob.contains("policy"), "{by_bob}");
}

#[test]
fn a_process_is_told_in_which_session_of_the_service_it_is() {
    let bed = testbed::require!();
    needs_to_see_callers();
    let service = Service::start(bed);
    let stead = bed.bin("stead").to_str().unwrap().to_owned();
    let place = format!("STEAD_SERVICE={}", service.socket().display());
    // A process that the service did not create itself, and one that was not logged on.
    let script = format!("{stead} whoami --json; {stead} sessions --json");
    let arguments = ["run", "--as", "alice", "--s4u", "--env", &place, "--", "sh", "-c", &script];
    let text = printed(&mut service.user(bed, "svc", &arguments));
    let values: Vec<Value> =
        serde_json::Deserializer::from_str(&text).into_iter().map(Result::unwrap).collect();
    let [seen, sessions] = &values[..] else { panic!("{text}") };
    assert_eq!(seen["logon_session"], sessions[0]["id"], "{text}");
    assert!(seen["logon_session"].is_string(), "{text}");
    let seen = json(&mut service.user(bed, "svc", &["whoami", "--json"]));
    assert_eq!(seen["logon_session"], Value::Null);
}

#[test]
fn an_empty_list_says_that_it_is() {
    let bed = testbed::require!();
    let service = Service::start(bed);
    assert_eq!(printed(&mut service.user(bed, "bob", &["sessions"])), "no sessions\n");
    assert_eq!(printed(&mut service.user(bed, "bob", &["ps", "--all"])), "no processes\n");
    assert_eq!(json(&mut service.user(bed, "bob", &["ps", "--json"])), Value::Array(Vec::new()));
    let shown = service.root(bed, &["doctor"]).output().unwrap();
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("0 sessions, 0 processes"), "{shown}");
}

#[test]
fn a_name_that_would_reorder_the_list_is_shown_with_escapes() {
    let bed = testbed::require!();
    needs_to_see_callers();
    let service = Service::start(bed);
    let program = bed.scratch("program").join("re\u{202e}troper\u{1b}[2J");
    std::os::unix::fs::symlink("/bin/sleep", &program).unwrap();
    let mut run = service.user(bed, "bob", &["run", "--", program.to_str().unwrap(), "600"]).spawn().unwrap();
    let ps = || printed(&mut service.user(bed, "bob", &["ps"]));
    until("it runs", || ps().contains("troper"));
    let shown = ps();
    assert!(shown.contains("re\\u{202e}troper\\u{1b}[2J"), "{shown}");
    run.kill().unwrap();
    run.wait().unwrap();
    let id = json(&mut service.user(bed, "bob", &["ps", "--json"]))[0]["id"].as_str().unwrap().to_owned();
    printed(&mut service.user(bed, "bob", &["kill", "--tree", &id]));
}

#[test]
fn a_policy_that_cannot_be_read_anew_is_told_line_by_line() {
    let bed = testbed::require!();
    let folder = bed.scratch("log");
    let log = folder.join("log");
    let service = Service::start_with(bed, std::fs::File::create(&log).unwrap().into());
    // It answers, and so takes signals.
    printed(&mut service.root(bed, &["sessions"]));
    let broken = "[[allow]]\nprivilege = [\"tcb\"]\n[[alow]]\n";
    std::fs::write(service.folder.join("policy/policy.toml"), broken).unwrap();
    let hangup = Command::new("kill").args(["-HUP", &service.child.id().to_string()]).status();
    assert!(hangup.unwrap().success());
    let read = || std::fs::read_to_string(&log).unwrap();
    until("the last error is told", || read().contains("policy.toml:3:3: "));
    let told = read();
    assert!(told.contains(&format!("listening at {}\n", service.socket().display())), "{told}");
    assert!(told.contains("the policy stays as it was") && !told.contains("\\n"), "{told}");
    assert!(told.lines().any(|line| line.contains("policy.toml:2:1: ") && !line.contains(":3:3:")), "{told}");
}

#[test]
fn the_exit_status_comes_through_the_service_as_it_is() {
    let bed = testbed::require!();
    let service = Service::start(bed);
    let end = |program: &[&str]| {
        let arguments: Vec<&str> =
            ["run", "--as", "alice", "--s4u", "--"].iter().chain(program).copied().collect();
        let status = service.user(bed, "svc", &arguments).stderr(Stdio::null()).status().unwrap();
        (status.code(), status.signal())
    };
    assert_eq!(end(&["sh", "-c", "exit 7"]), (Some(7), None));
    assert_eq!(end(&["sh", "-c", "kill -TERM $$"]), (None, Some(15)));
    assert_eq!(end(&["/no/such/program"]), (Some(127), None));
    // What the policy does not give to root either it can do without the service, and is told so.
    let said = refused(&mut service.root(bed, &["run", "--as", "alice", "--s4u", "--", "id"]));
    assert!(said.contains("does not give you tcb over \"alice\"") && said.contains("--embedded"), "{said}");
    assert_eq!(end(&["/etc"]), (Some(126), None));
}

#[test]
fn keys_stop_interrupt_and_resize_what_runs_through_the_service() {
    let bed = testbed::require!();
    for program in ["tmux", "vim", "bash"] {
        if !on_path(program) {
            testbed::skip!("needs {program}");
        }
    }
    let service = Service::start(bed);
    let screen = Screen::start(bed);
    let svc = bed.user("svc");
    let user = format!("--reuid={} --regid={} --init-groups --inh-caps=-all", svc.uid, svc.gid);
    // A caller without privileges, which could not signal alice's processes itself.
    screen.line(&format!(
        "export STEAD_SERVICE={}; s() {{ setpriv {user} stead run \"$@\"; }}",
        service.socket().display()
    ));
    screen.line("clear");
    screen.line("s --as alice --s4u -- sh -c 'sleep 600'");
    until("it runs", || !sleepers().is_empty());
    screen.press(&["C-c"]);
    screen.until("the shell asks", |text| text.ends_with("prompt>"));
    assert_eq!(screen.status(), "130");
    assert!(sleepers().is_empty());
    // Without a terminal of its own the signal is the command's to pass on, and the service's to send.
    screen.line("clear");
    screen.line("s --no-pty --as alice --s4u -- sh -c 'sleep 600'");
    until("it runs", || !sleepers().is_empty());
    screen.press(&["C-z"]);
    screen.until("it is stopped", |text| text.contains("Stopped") && text.ends_with("prompt>"));
    assert!(sleepers().iter().all(|pid| state(*pid) == Some('T')));
    screen.line("fg");
    until("it goes on", || sleepers().iter().all(|pid| state(*pid) != Some('T')));
    screen.press(&["C-c"]);
    screen.until("the shell asks", |text| text.ends_with("prompt>"));
    assert!(sleepers().is_empty());

    screen.line("clear");
    screen.line("s --as alice --s4u -- vim -u NONE -N --cmd 'set ruler'");
    screen.until("vim is there", |text| text.contains("0,0-1"));
    screen.press(&["-l", "ithrough the service"]);
    screen.press(&["Escape", "C-z"]);
    screen.until("it is stopped", |text| text.contains("Stopped") && text.ends_with("prompt>"));
    screen.line("fg");
    screen.until("it is back", |text| text.starts_with("through the service"));
    screen.resize(90, 20);
    screen.until("it fills the new size", |text| text.lines().count() == 20 && text.starts_with("through"));
    screen.press(&["-l", ":cq 5"]);
    screen.press(&["Enter"]);
    screen.until("the shell asks", |text| text.ends_with("prompt>"));
    assert_eq!(screen.status(), "5");
}

/// Alice's processes that sleep.
fn sleepers() -> Vec<u32> {
    let list = Command::new("ps").args(["-u", "alice", "-o", "pid=,args="]).output().unwrap();
    let text = String::from_utf8_lossy(&list.stdout).into_owned();
    let sleeps =
        text.lines().filter(|line| line.trim_end().ends_with("sleep 600") && !line.contains("sh -c"));
    sleeps.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
}

#[test]
fn sessions_and_processes_are_listed_signalled_and_ended() {
    let bed = testbed::require!(alone);
    let service = Service::start(bed);
    let script = "echo ready; exec sleep 600";
    let arguments = ["run", "--as", "alice", "--s4u", "--logon", "batch", "--", "sh", "-c", script];
    let start = || {
        let mut run = service.user(bed, "svc", &arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(run.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        run
    };
    let mut run = start();
    let list =
        |what: &str| json(&mut service.user(bed, "svc", &[what, "--json"])).as_array().unwrap().clone();
    let (sessions, processes) = (list("sessions"), list("ps"));
    assert_eq!((sessions.len(), processes.len()), (1, 1), "{sessions:?} {processes:?}");
    assert_eq!(sessions[0]["user_name"], "alice");
    assert_eq!(sessions[0]["owner"], bed.user("svc").uid);
    assert_eq!(processes[0]["session"], sessions[0]["id"]);
    let pid = u32::try_from(processes[0]["pid"].as_u64().unwrap()).unwrap();
    assert_eq!(status_field(pid, "Uid").split('\t').next(), Some(bed.user("alice").uid.to_string().as_str()));
    let table = printed(&mut service.user(bed, "svc", &["ps"]));
    assert!(table.contains("alice (47001)") && table.contains(&pid.to_string()), "{table}");
    // Others see nothing of it, and end nothing of it.
    assert_eq!(json(&mut service.user(bed, "bob", &["ps", "--json"])), Value::Array(Vec::new()));
    assert!(!service.user(bed, "bob", &["kill", &pid.to_string()]).status().unwrap().success());
    let id = processes[0]["id"].as_str().unwrap().to_owned();
    assert!(!service.user(bed, "bob", &["kill", &id]).status().unwrap().success());
    assert!(lives(pid));
    // Whoever asked for it ends it, by its pid or by its name.
    printed(&mut service.user(bed, "svc", &["kill", "--signal", "USR1", &pid.to_string()]));
    assert_eq!(run.wait().unwrap().signal(), Some(10));

    let mut run = start();
    let id = list("ps")[0]["id"].as_str().unwrap().to_owned();
    printed(&mut service.user(bed, "svc", &["kill", "--tree", &id]));
    assert_eq!(run.wait().unwrap().signal(), Some(9));

    let mut run = start();
    let id = list("sessions")[0]["id"].as_str().unwrap().to_owned();
    assert!(!service.user(bed, "bob", &["logoff", &id]).status().unwrap().success());
    printed(&mut service.user(bed, "svc", &["logoff", &id]));
    assert_eq!(run.wait().unwrap().signal(), Some(9));
    until("the session is closed", || list("sessions").is_empty());
}

#[test]
fn monitor_shows_what_the_service_does_as_it_does_it() {
    let bed = testbed::require!();
    let service = Service::start(bed);
    let start: Value =
        serde_json::from_str(&told(bed, &service, &["--json"], |line| line.contains("\"process-start\"")))
            .unwrap();
    let (svc, alice) = (bed.user("svc").uid, bed.user("alice").uid);
    assert_eq!(start["event"], "process-start", "{start}");
    assert_eq!(start["client"]["uid"], alice, "{start}");
    assert_eq!(start["caller"]["uid"], svc);
    assert!(start["program"].as_str().unwrap().ends_with("true"), "{start}");
    // For people users have their names, also where the record has the number alone.
    let start = told(bed, &service, &[], |line| line.contains(" process-start ok: "));
    assert!(start.contains(&format!("svc ({svc}) as alice ({alice}), true")), "{start}");
}

/// The first such line of `stead monitor`, while alice's processes are created again and again: until the monitor
/// listens nothing is told.
fn told(bed: &Bed, service: &Service, options: &[&str], wanted: fn(&str) -> bool) -> String {
    let arguments: Vec<&str> = ["monitor"].iter().chain(options).copied().collect();
    let mut monitor = service.root(bed, &arguments).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(monitor.stdout.take().unwrap()).lines();
    let found = AtomicBool::new(false);
    let line = std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..1000 {
                if found.load(Ordering::Relaxed) {
                    return;
                }
                printed(&mut service.user(bed, "svc", &["run", "--as", "alice", "--s4u", "--", "true"]));
            }
            panic!("the monitor tells nothing of it");
        });
        let line = lines.map_while(Result::ok).find(|line| wanted(line));
        found.store(true, Ordering::Relaxed);
        line
    });
    monitor.kill().unwrap();
    monitor.wait().unwrap();
    line.expect("the monitor tells of the process")
}

#[test]
fn the_policy_is_checked_explained_and_asked_for() {
    let bed = testbed::require!();
    let service = Service::start(bed);
    let policy = service.folder.join("policy").to_str().unwrap().to_owned();
    let said = printed(&mut stead(bed, &["policy", "check", &policy]));
    assert!(said.contains("policy.toml: 1 rule to allow, 0 to deny"), "{said}");
    let ask = |client: &str, rest: &[&str]| {
        let mut arguments = vec!["policy", "explain", "--caller", "svc", "--client", client];
        arguments.extend(["--privilege", "tcb", "--logon", "batch"]);
        arguments.extend(rest);
        let output = service.root(bed, &arguments).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for rest in [&["--policy", &policy][..], &["--loaded"]] {
        let (code, text) = ask("alice", rest);
        assert!(
            code == Some(0) && text.starts_with("tcb: allowed by ") && text.contains("policy.toml:2"),
            "{text}"
        );
        let (code, text) = ask("bob", rest);
        assert!(code == Some(1) && text.starts_with("tcb: denied"), "{text}");
    }
    // 1 is an answer; what cannot be answered is 2.
    let ask = |arguments: &[&str]| {
        let output = service.root(bed, &[&["policy", "explain", "--privilege"], arguments].concat()).output();
        output.unwrap().status.code()
    };
    assert_eq!(ask(&["tcb", "--policy", &policy, "--caller", "nobody-of-that-name"]), Some(2));
    assert_eq!(ask(&["no-such-privilege", "--policy", &policy]), Some(2));
    // Without a logon type it is the interactive one, whoever answers.
    for rest in [&["--policy", &policy][..], &["--loaded"]] {
        let alice = ["tcb", "--caller", "svc", "--client", "alice"];
        assert_eq!(ask(&[&alice[..], rest].concat()), Some(0), "{rest:?}");
    }
    let anothers = ["policy", "explain", "--loaded", "--privilege", "tcb", "--caller", "bob"];
    let refused = service.user(bed, "alice", &anothers).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("access to \"what another caller may do\" was denied"), "{said}");
    // Whoever answers, to all that is asked.
    for rest in [&["--policy", &policy][..], &["--loaded"]] {
        for (limit, code) in [("nofile=600000", Some(0)), ("nofile=600001", Some(1))] {
            let asked = ["increase-quota", "--caller", "svc", "--client", "alice", "--limit", limit];
            assert_eq!(ask(&[&asked[..], rest].concat()), code, "{limit} {rest:?}");
        }
        for option in [["--program", "/bin/sh"], ["--desktop", "own"], ["--limit", "nofile=1"]] {
            let asked = ["tcb", "--caller", "svc", "--client", "alice"];
            assert_eq!(ask(&[&asked[..], &option, rest].concat()), Some(2), "{option:?} {rest:?}");
        }
    }
    let broken = service.folder.join("broken.toml");
    std::fs::write(&broken, "[[allow]]\ncallers = { users = [\"svc\"] }\nprivilege = [\"tcb\"]\n").unwrap();
    let output = stead(bed, &["policy", "check", broken.to_str().unwrap()]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(&format!("{}:3:1: ", broken.display())), "{text}");
    // The service does not begin with it, and says where.
    std::fs::copy(&broken, service.folder.join("policy/policy.toml")).unwrap();
    let state = service.folder.join("other").to_str().unwrap().to_owned();
    let socket = service.folder.join("other-socket").to_str().unwrap().to_owned();
    let arguments = ["serve", "--socket", &socket, "--policy", &policy, "--state", &state];
    let output = stead(bed, &arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("policy.toml:3:1"), "{output:?}");
}

/// What a script prints in a user namespace of `user`'s whose ids are `map`; it has the command, and a folder of its own.
fn in_user_namespace(bed: &Bed, user: &str, map: &str, script: &str) -> String {
    let (uid, gid) = if user == "root" { (0, 0) } else { (bed.user(user).uid, bed.user(user).gid) };
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).args([
        "--clear-groups",
        "unshare",
        "--user",
        "--mount",
    ]);
    command.args(["sh", "-ec", &format!("read -r go; {script}"), "sh"]).arg(bed.bin("stead"));
    command.arg(bed.scratch("namespace")).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let process = format!("/proc/{}", child.id());
    let namespace = |process: &str| std::fs::read_link(format!("{process}/ns/user")).ok();
    until("it is in its namespace", || {
        namespace(&process) != namespace("/proc/self") || child.try_wait().unwrap().is_some()
    });
    for file in ["uid_map", "gid_map"] {
        // Where it cannot be written the script says what it could not do.
        let _ = std::fs::write(format!("{process}/{file}"), map);
    }
    let _ = child.stdin.take().unwrap().write_all(b"go\n");
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    if errors.contains("unshare:") || errors.contains("mount:") {
        testbed::skip_test(errors.trim());
    }
    String::from_utf8(output.stdout).unwrap() + &errors
}

#[test]
fn in_a_user_namespace_the_root_directory_may_be_an_outsiders_but_not_nobodys_and_no_other_folder() {
    let bed = testbed::require!();
    if bed.mode() != testbed::Mode::Namespaces {
        testbed::skip!("needs root outside of every container, who gives a namespace any ids");
    }
    let map = format!("0 {} 1", bed.user("mallory").uid);
    let script = "mount -t tmpfs -o mode=0755 tmpfs /mnt; mkdir /mnt/policy; stat -c %u /; \
                  echo '[quotas]' > /mnt/policy/policy.toml; \"$1\" policy check /mnt/policy";
    let said = in_user_namespace(bed, "mallory", &map, script);
    assert!(said.starts_with("65534\n/mnt/policy/policy.toml: "), "{said}");
    // Somebody's who is not known there, but not the root directory.
    let said = in_user_namespace(bed, "mallory", &map, "\"$1\" policy check \"$2\" || true");
    assert!(said.contains(": belongs to uid 65534 and not to root"), "{said}");
    // A user's who has the very id that stands for no id.
    let script = "mount -t tmpfs -o mode=0755 tmpfs \"$2\"; cd \"$2\"; mkdir host policy; mount --rbind / host; \
                  for name in bin sbin lib lib64 usr etc run proc; do ln -s host/$name $name; done; \
                  chown 65534 .; chroot . \"$1\" policy check /policy || true";
    let said = in_user_namespace(bed, "root", "0 0 65536", script);
    assert!(said.contains("/: belongs to uid 65534 and not to root"), "{said}");
}

#[test]
fn doctor_sees_the_service_and_what_its_processes_would_inherit() {
    let bed = testbed::require!();
    let service = Service::start(bed);
    let seen = json_of_doctor(&mut service.user(bed, "bob", &["doctor", "--json"]));
    let of = |what: &str| {
        seen.iter().find(|one| one["what"] == what).unwrap_or_else(|| panic!("{what}: {seen:?}"))
    };
    assert_eq!(of("service")["state"], "ok");
    assert_eq!(of("version")["state"], "ok");
    assert_eq!(of("privileges")["state"], "ok", "the service's are enough");
}

fn json_of_doctor(command: &mut Command) -> Vec<Value> {
    let output = command.output().unwrap();
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    value["findings"].as_array().unwrap().clone()
}

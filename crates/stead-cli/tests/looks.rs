//! `whoami`, `token`, `privileges`, `doctor`, the pages and completions: against what the system says itself.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::process::{Command, Stdio};

use serde_json::Value;
use support::*;
use testbed::until;

#[test]
fn whoami_says_what_proc_and_id_say() {
    let bed = testbed::require!();
    for name in ["alice", "bob", "svc"] {
        let user = bed.user(name);
        let seen = json(&mut stead_by(bed, user, &["whoami", "--json"]));
        let id = |option: &str| {
            let mut command = Command::new("setpriv");
            command.arg(format!("--reuid={}", user.uid)).arg(format!("--regid={}", user.gid));
            printed(command.args(["--init-groups", "--inh-caps=-all", "--", "id", option])).trim().to_owned()
        };
        assert_eq!(seen["uid"].to_string(), id("-u"));
        assert_eq!(seen["gid"].to_string(), id("-g"));
        assert_eq!(seen["names"]["user"], name);
        let mut groups: Vec<String> = id("-G").split(' ').map(str::to_owned).collect();
        groups.sort();
        let mut ours: Vec<String> = seen["groups"].as_array().unwrap().iter().map(Value::to_string).collect();
        if !ours.contains(&seen["gid"].to_string()) {
            ours.push(seen["gid"].to_string());
        }
        ours.sort();
        assert_eq!(ours, groups);
        for group in id("-Gn").split(' ') {
            assert!(seen["names"]["groups"].as_object().unwrap().values().any(|one| one == group), "{group}");
        }
        assert_eq!(seen["capabilities"]["effective"], Value::Array(Vec::new()));
        assert_eq!(seen["no_new_privs"], false);
        // The table says the same, and on no terminal it has no colours.
        let table = printed(&mut stead_by(bed, user, &["whoami"]));
        assert!(
            table.contains(name) && table.contains(&user.uid.to_string()) && !table.contains('\x1b'),
            "{table}"
        );
    }
}

#[test]
fn the_token_of_a_process_is_what_its_status_says_however_it_is_confined() {
    let bed = testbed::require!();
    let alice = bed.user("alice");
    for confinement in [&[][..], &["--no-new-privs"], &["--bounding-set=-all"]] {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={}", alice.uid)).arg(format!("--regid={}", alice.gid));
        command.args(["--init-groups", "--inh-caps=-all"]).args(confinement).args(["--", "sleep", "600"]);
        let mut child = command.spawn().unwrap();
        let pid = child.id();
        until("it sleeps as alice", || {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
        });
        let seen = json(&mut stead(bed, &["token", "--json", &pid.to_string()]));
        assert_eq!(seen["uid"].to_string(), status_field(pid, "Uid").split('\t').next().unwrap());
        let groups: Vec<String> = seen["groups"].as_array().unwrap().iter().map(Value::to_string).collect();
        assert_eq!(groups.join(" "), status_field(pid, "Groups"));
        assert_eq!(seen["no_new_privs"], status_field(pid, "NoNewPrivs") == "1");
        let bounding = u64::from_str_radix(&status_field(pid, "CapBnd"), 16).unwrap();
        assert_eq!(seen["capabilities"]["bounding"].as_array().unwrap().is_empty(), bounding == 0);
        assert_eq!(seen["level"], "identification", "to be looked at, not to be acted with");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let gone = stead(bed, &["token", "2147483647"]).output().unwrap();
    assert_eq!(gone.status.code(), Some(1));
}

#[test]
fn privileges_are_those_of_the_process() {
    let bed = testbed::require!();
    let of = |command: &mut Command| {
        let list = json(command);
        let held = |name: &str| {
            list.as_array().unwrap().iter().find(|one| one["privilege"] == name).unwrap()["held"].clone()
        };
        [held("assign-primary-token"), held("impersonate")]
    };
    assert_eq!(of(&mut stead(bed, &["privileges", "--json"])), [true, true]);
    assert_eq!(of(&mut stead_by(bed, bed.user("svc"), &["privileges", "--json"])), [false, false]);
}

/// What doctor says of one thing.
fn doctor(command: &mut Command, what: &str) -> (Option<i32>, Value) {
    let output = command.output().unwrap();
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    let found = value["findings"].as_array().unwrap().iter().find(|one| one["what"] == what);
    (output.status.code(), found.cloned().unwrap_or_else(|| panic!("{what}: {value}")))
}

#[test]
fn doctor_names_what_was_taken_away_and_how_to_mend_it() {
    let bed = testbed::require!(alone);
    let check = |what: &str| doctor(&mut stead(bed, &["doctor", "--json"]), what);
    let (before, service) = check("PAM service stead-batch");
    assert_eq!(service["state"], "ok", "{service}");

    std::fs::rename("/etc/pam.d/stead-batch", "/etc/pam.d/stead-batch.away").unwrap();
    let (code, service) = check("PAM service stead-batch");
    std::fs::rename("/etc/pam.d/stead-batch.away", "/etc/pam.d/stead-batch").unwrap();
    assert_eq!((code, service["state"].as_str()), (Some(1), Some("missing")));
    assert!(service["mend"].as_str().unwrap().contains("/etc/pam.d/stead-batch"), "{service}");
    assert_eq!(check("PAM service stead-batch").0, before);
}

#[test]
fn doctor_names_the_privilege_and_the_confinement_of_the_process_itself() {
    let bed = testbed::require!();
    let by = |options: &[&str], what: &str| {
        let mut command = Command::new("setpriv");
        command.args(options).arg("--").arg(bed.bin("stead")).args(["doctor", "--json"]);
        doctor(command.env("STEAD_SERVICE", NO_SERVICE), what)
    };
    let (code, privilege) = by(&["--bounding-set=-setuid", "--inh-caps=-setuid"], "assign-primary-token");
    assert_eq!((code, privilege["state"].as_str()), (Some(1), Some("missing")), "{privilege}");
    assert!(privilege["mend"].as_str().unwrap().contains("CAP_SETUID"), "{privilege}");
    let (code, confinement) = by(&["--no-new-privs"], "no_new_privs");
    assert_eq!((code, confinement["state"].as_str()), (Some(1), Some("missing")), "{confinement}");
    // For people it is the same, in words.
    let output = stead_by(bed, bed.user("svc"), &["doctor"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("missing") && text.contains("CAP_SETUID") && text.contains("-> "), "{text}");
}

#[test]
fn completions_are_scripts_that_their_shells_can_read() {
    let bed = testbed::require!();
    for shell in ["bash", "zsh", "fish"] {
        let script = printed(&mut stead(bed, &["completions", shell]));
        assert!(script.contains("whoami") && script.contains("password-fd"), "{shell}");
        if !on_path(shell) {
            continue;
        }
        let output = fed(Command::new(shell).arg("-n"), &script);
        assert!(output.status.success() && output.stderr.is_empty(), "{shell}: {output:?}");
    }
    // And bash offers what there is.
    let script = printed(&mut stead(bed, &["completions", "bash"]));
    let ask = format!(
        "{script}\nCOMP_WORDS=(stead who); COMP_CWORD=1; _stead stead who stead; echo \"${{COMPREPLY[@]}}\""
    );
    assert_eq!(printed(Command::new("bash").args(["-c", &ask])).trim(), "whoami");
}

#[test]
fn the_manual_has_a_page_for_each_subcommand_without_a_warning() {
    let bed = testbed::require!();
    let folder = bed.scratch("man");
    printed(&mut stead(bed, &["man", folder.to_str().unwrap()]));
    let mut pages: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    pages.sort();
    for page in ["stead.1", "stead-run.1", "stead-serve.1", "stead-doctor.1", "stead-policy-explain.1"] {
        assert!(pages.iter().any(|one| one == page), "{page}: {pages:?}");
    }
    assert!(printed(&mut stead(bed, &["man"])).contains("stead\\-run(1)"));
    // A subcommand's page by its words, though there be a directory of that name.
    std::fs::create_dir(folder.join("run")).unwrap();
    for (words, page) in [(&["man", "run"][..], "run"), (&["man", "policy", "explain"], "policy-explain")] {
        let shown = printed(stead(bed, words).current_dir(&folder));
        assert_eq!(shown, std::fs::read_to_string(folder.join(format!("stead-{page}.1"))).unwrap());
    }
    std::fs::remove_dir(folder.join("run")).unwrap();
    for (words, expected) in [
        (&["man", "runn"][..], "there is no subcommand \"runn\""),
        (&["man", "run", "explain"], "there is no subcommand \"run explain\""),
        (&["man", "/no/such/directory"], "there is no such directory"),
    ] {
        let output = stead(bed, words).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains(expected), "{said}");
    }
    if !on_path("groff") {
        testbed::skip!("needs groff");
    }
    for page in pages {
        let mut command = Command::new("groff");
        command.args(["-man", "-Tutf8", "-ww", "-z"]).arg(folder.join(&page)).stdin(Stdio::null());
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.is_empty(), "{page}: {said}");
    }
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let bed = testbed::require!();
    let on_terminal = |variable: Option<&str>| {
        let mut arguments = vec!["run", "--embedded", "--pty"];
        let set = variable.map(|value| format!("NO_COLOR={value}"));
        if let Some(set) = &set {
            arguments.extend(["--env", set]);
        }
        let own = bed.bin("stead");
        arguments.extend(["--env", "TERM=xterm", "--", own.to_str().unwrap(), "whoami"]);
        printed(&mut stead(bed, &arguments))
    };
    assert!(on_terminal(None).contains("\x1b[1m"));
    assert!(!on_terminal(Some("1")).contains("\x1b["));
    assert!(!printed(&mut stead(bed, &["whoami"])).contains("\x1b["));
}

/// Characters that move the cursor, name what is another's, or reorder a line.
const HOSTILE: &str = "a\x1b[31m\u{9b}31m\u{202e}\nb";

/// Nothing but lines of shown characters.
fn assert_shown(output: &std::process::Output) -> String {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let hidden = |one: char| (one.is_control() && one != '\n') || one == '\u{202e}';
    assert!(!text.chars().any(hidden), "{text:?}");
    text
}

/// A directory, which is taken away again where it was not there.
struct Made(Option<std::path::PathBuf>);

impl Made {
    fn directory(path: &str) -> Self {
        let parent = std::path::Path::new(path).parent().unwrap();
        std::fs::create_dir_all(parent).unwrap();
        Self(std::fs::create_dir(path).is_ok().then(|| path.into()))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let _ = self.0.take().map(std::fs::remove_dir_all);
    }
}

/// An empty file, for a while.
struct File(std::path::PathBuf);

impl File {
    fn made(folder: &str, name: &str) -> Self {
        let path = std::path::Path::new(folder).join(name);
        std::fs::write(&path, "").unwrap();
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_desktop_that_somebody_named_for_the_terminal_of_who_looks_is_shown_with_escapes() {
    let bed = testbed::require!(alone);
    let (folder, displays) = (format!("/run/user/{}", bed.user("alice").uid), "/tmp/.X11-unix");
    let _made = [Made::directory(&folder), Made::directory(displays)];
    let _socket = File::made(&folder, &format!("wayland-{HOSTILE}"));
    let _displays = ["X+77", "X00077", "X99999", "X77.0", "X077"].map(|name| File::made(displays, name));
    for arguments in [&["desktop"][..], &["desktop", "--json"], &["doctor"], &["doctor", "--json"]] {
        let text = assert_shown(&stead(bed, arguments).output().unwrap());
        let escape = if arguments.contains(&"--json") {
            "wayland-a\\u001b[31m\\u009b"
        } else {
            "wayland-a\\u{1b}[31m\\u{9b}"
        };
        assert!(text.contains(escape), "{text}");
        // What no display is called is none.
        for none in [":+77", ":00077", ":99999", ":77.0", ":077"] {
            assert!(!text.contains(none), "{none}: {text}");
        }
        assert!(
            arguments != ["desktop"]
                || text.lines().any(|line| line.starts_with(&folder) && line.ends_with("\\nb"))
        );
    }
}

#[test]
fn names_in_json_and_in_the_policys_mistakes_are_shown_with_escapes_and_are_the_same_names() {
    let bed = testbed::require!();
    let folder = bed.scratch("policy").join(HOSTILE);
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("policy.toml");
    let check = |arguments: &[&str]| {
        assert_shown(&stead(bed, &["policy", "check"]).args(arguments).output().unwrap())
    };
    let (place, path) = (folder.to_str().unwrap(), file.to_str().unwrap());
    assert_eq!(check(&[place]).lines().count(), 1, "there is none");
    std::fs::write(&file, "").unwrap();
    assert_eq!(check(&[place]).lines().count(), 1);
    assert_eq!(check(&[path]).lines().count(), 1);
    std::fs::write(&file, "[[allow]]\n\"x\\u001b[31m\\n\\u009b\" = 1\n").unwrap();
    let wrong = check(&[path]);
    assert!(wrong.lines().all(|line| line.contains("policy.toml:")), "{wrong}");
    let errors: Value = serde_json::from_str(&check(&[path, "--json"])).unwrap();
    assert_eq!(errors[0]["file"], path);
    assert!(errors.as_array().unwrap().iter().any(|one| one["message"].as_str().unwrap().contains('x')));
}

#[test]
fn doctor_finds_the_service_where_it_was_installed() {
    let bed = testbed::require!(alone);
    let _systemd = Made::directory("/run/systemd/system");
    let unit = File::made("/run/systemd/system", "stead.service");
    let (_, found) = doctor(&mut stead(bed, &["doctor", "--json"]), "units");
    assert_eq!((found["state"].as_str(), found["found"].as_str()), (Some("ok"), unit.0.to_str()), "{found}");
}

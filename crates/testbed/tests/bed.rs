//! The bed is what the other tests take it for.

#![cfg(target_os = "linux")]
use std::fs;

#[test]
fn users_exist_inside_with_their_groups() {
    let bed = testbed::require!();
    let alice = bed.user("alice");
    assert_eq!(alice.groups.len(), 17);
    let id = std::process::Command::new("id").args(["-G", "alice"]).output().unwrap();
    let mut told: Vec<u32> =
        String::from_utf8(id.stdout).unwrap().split_whitespace().map(|id| id.parse().unwrap()).collect();
    told.sort_unstable();
    assert_eq!(told, alice.all_groups());
}

#[test]
fn the_control_equals_what_id_says_for_every_user() {
    let bed = testbed::require!();
    for user in bed.users() {
        for control in [bed.control_setpriv(&user.name), bed.control_runuser(&user.name)] {
            assert_eq!(control.uid.real, user.uid);
            assert_eq!(control.uid.saved, user.uid);
            assert_eq!(control.gid.effective, user.gid);
            assert_eq!(control.effective_groups(), user.all_groups(), "{}", user.name);
            assert_eq!(control.capabilities.effective, 0);
            assert_eq!(control.capabilities.permitted, 0);
        }
    }
}

#[test]
fn a_process_shows_no_trace_of_the_runtime_in_its_probe() {
    let bed = testbed::require!();
    let seen = bed.control_setpriv("alice");
    assert_eq!(seen.signals.caught, 0);
    assert_eq!(seen.signals.ignored, 0);
    assert_eq!(seen.signals.blocked, 0);
    assert_eq!(seen.descriptors.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn homes_belong_to_their_users_and_grace_has_none() {
    use std::os::unix::fs::MetadataExt;
    let bed = testbed::require!();
    for user in bed.users() {
        let Ok(home) = fs::metadata(&user.home) else {
            assert_eq!(user.name, "grace");
            continue;
        };
        assert_eq!((home.uid(), home.gid(), home.mode() & 0o777), (user.uid, user.gid, 0o700));
    }
}

/// Whoever ran the build may have made the test program unreadable to others, so servers that are not root run a copy.
#[test]
fn a_copy_of_this_program_can_be_run_by_a_server_that_is_not_root() {
    let bed = testbed::require!();
    let output = bed.as_user("svc", &["setuid", "setgid", "kill"], bed.bin("probe")).output().unwrap();
    let seen = testbed::Probe::parse(&output.stdout);
    let wanted = 1 << 5 | 1 << 6 | 1 << 7;
    assert_eq!(seen.capabilities.ambient, wanted);
    assert_eq!(seen.capabilities.effective, wanted);
    assert_eq!(seen.uid.effective, bed.user("svc").uid);
    let listed = bed.as_user("svc", &[], bed.this_program()).arg("--list").output().unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).contains("not_root: test"));
}

#[test]
fn every_pam_module_that_a_service_of_the_bed_names_is_installed() {
    testbed::require!();
    let installed: Vec<String> = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"]
        .into_iter()
        .flat_map(|library| {
            let multiarch = fs::read_dir(library).into_iter().flatten().map(|entry| entry.unwrap().path());
            multiarch.chain([library.into()]).collect::<Vec<std::path::PathBuf>>()
        })
        .filter_map(|directory| fs::read_dir(directory.join("security")).ok())
        .flat_map(|modules| modules.map(|module| module.unwrap().file_name().into_string().unwrap()))
        .collect();
    for service in fs::read_dir("/etc/pam.d").unwrap().map(|service| service.unwrap().path()) {
        if !service.file_name().unwrap().to_string_lossy().starts_with("stead-") {
            continue;
        }
        let text = fs::read_to_string(&service).unwrap();
        for module in text
            .split_whitespace()
            .filter(|word| word.starts_with("pam_") && word.strip_suffix(".so").is_some())
        {
            assert!(installed.iter().any(|name| name == module), "{}: {module}", service.display());
        }
    }
}

#[test]
fn the_account_files_are_the_beds_own() {
    let bed = testbed::require!();
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    for user in bed.users() {
        assert!(passwd.lines().any(|line| line.starts_with(&format!("{}:x:{}:", user.name, user.uid))));
    }
    if bed.mode() != testbed::Mode::Container {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        for directory in ["/etc", "/run", "/var/log", "/var/lib"] {
            assert!(mounts.contains(&format!("tmpfs {directory} tmpfs")), "{directory}");
        }
    }
    assert!(!std::path::Path::new("/run/dbus").exists());
}

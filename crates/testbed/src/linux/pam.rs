//! The bed's PAM services: stock modules with effects that tests can tell apart.

use crate::linux::accounts::GRANTED_GROUP;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// Marks every file and line of ours in a container's own /etc.
pub(crate) const MARK: &str = "# stead-testbed: throw-away";

/// Services that log users on, with the umask that each sets. Some systems' module (Debian 13's) is built to give the user's
/// own group what the user has, and make 007 of 027, where it is not told otherwise.
const LOGON_SERVICES: &[(&str, u32)] = &[
    ("stead-interactive", 0o027),
    ("stead-network", 0o077),
    ("stead-batch", 0o037),
    ("stead-service", 0o023),
    ("stead-s4u", 0o026),
    ("stead-otp", 0o027),
];

/// What `/proc/PID/limits` calls them, the name in limits.conf, its unit in bytes or 1, soft and hard.
const ALICE_LIMITS: &[(&str, &str, u64, u64, u64)] = &[
    ("Max open files", "nofile", 1, 731, 977),
    ("Max processes", "nproc", 1, 811, 907),
    ("Max locked memory", "memlock", 1024, 61, 67),
    ("Max msgqueue size", "msgqueue", 1, 409_600, 409_600),
    // In minutes.
    ("Max cpu time", "cpu", 60, 59, 61),
    ("Max file size", "fsize", 1024, 1 << 20, 1 << 20),
];

const BOB_LIMITS: &[(&str, &str, u64, u64, u64)] =
    &[("Max open files", "nofile", 1, 523, 541), ("Max processes", "nproc", 1, 613, 617)];

pub(crate) const ALICE_NICE: i32 = 3;

pub(crate) fn umask(service: &str) -> u32 {
    LOGON_SERVICES.iter().find(|(name, _)| *name == service).map_or(0o022, |(_, umask)| *umask)
}

pub(crate) fn nice(user: &str) -> i32 {
    if user == "alice" { ALICE_NICE } else { 0 }
}

pub(crate) fn limits(user: &str) -> Vec<(&'static str, u64, u64)> {
    let table = match user {
        "alice" => ALICE_LIMITS,
        "bob" => BOB_LIMITS,
        _ => return Vec::new(),
    };
    table.iter().map(|(name, _, unit, soft, hard)| (*name, soft * unit, hard * unit)).collect()
}

pub(crate) fn environment(service: &str) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::from([
        ("STEAD_BED".to_owned(), "from-pam-env-conf".to_owned()),
        ("STEAD_PAM_SERVICE".to_owned(), service.to_owned()),
    ]);
    if service == "stead-batch" {
        variables.insert("PATH".to_owned(), "/run/stead-testbed/bin:/usr/bin:/bin".to_owned());
    }
    variables
}

/// A file of the PAM configuration: its path below `/etc`, and its text.
pub(crate) struct File {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// All files, but `group.conf`, which modules read from one place only.
pub(crate) fn files(root: &Path, login_uid: bool) -> Vec<File> {
    let bin = root.join("bin");
    let bin = bin.display();
    let log = format!("pam_exec.so quiet {bin}/pam-log");
    let mut files = Vec::new();
    let mut add = |path: String, text: String| files.push(File { path, text: format!("{MARK}\n{text}") });

    for (service, umask) in LOGON_SERVICES {
        add(
            format!("security/stead-testbed.{service}.env"),
            environment(service).iter().filter(|(name, _)| *name != "STEAD_BED").fold(
                String::new(),
                |mut text, (name, value)| {
                    let _ = writeln!(text, "{name}={value}");
                    text
                },
            ),
        );
        let otp = if *service == "stead-otp" {
            // pam_ftp is the stock module that always asks, and keeps the answer for the next one: it asks
            // "Password required for NAME." after pam_unix's "Password: ".
            format!(
                "auth optional pam_echo.so One-time code, please.\n\
                 auth [default=ignore] pam_ftp.so\n\
                 auth [success=1 default=ignore] pam_exec.so quiet expose_authtok {bin}/pam-check-otp\n\
                 auth requisite pam_deny.so\n"
            )
        } else {
            String::new()
        };
        let auth = if *service == "stead-s4u" {
            // A service for servers that authenticated by other means: no password opens it. pam_deny answers
            // authenticate with auth_err and setcred with cred_err.
            "auth [auth_err=die cred_err=ignore default=die] pam_deny.so\n\
             auth required pam_permit.so\n\
             auth optional pam_group.so\n"
                .to_owned()
        } else {
            format!(
                "auth requisite pam_unix.so nodelay\n{otp}auth optional pam_group.so\nauth optional {log}\n"
            )
        };
        let login_uid = if login_uid { "required" } else { "optional" };
        add(
            format!("pam.d/{service}"),
            format!(
                "{auth}\
                 account required pam_unix.so\n\
                 account optional {log}\n\
                 password required pam_unix.so sha512\n\
                 password optional {log}\n\
                 session {login_uid} pam_loginuid.so\n\
                 session optional pam_keyinit.so force revoke\n\
                 session required pam_limits.so conf=/etc/security/stead-testbed.limits.conf\n\
                 session required pam_umask.so umask=0{umask:03o} nousergroups\n\
                 session required pam_env.so conffile=/etc/security/stead-testbed.pam_env.conf \
                 envfile=/etc/security/stead-testbed.{service}.env\n\
                 session optional pam_unix.so\n\
                 session optional {log}\n"
            ),
        );
    }

    // Services in which one phase fails and all others succeed.
    let stack = |auth: &str, account: &str, session: &str| {
        format!(
            "auth {auth}\naccount {account}\naccount optional {log}\npassword required pam_permit.so\n\
             session {session}\nsession optional {log}\n"
        )
    };
    let unix = "requisite pam_unix.so nodelay";
    let permit = "required pam_permit.so";
    let deny = "requisite pam_deny.so";
    // As distributions ship theirs.
    add("pam.d/stead-nullok".into(), stack("required pam_unix.so nullok nodelay", permit, permit));
    add("pam.d/stead-fail-auth".into(), stack(deny, permit, permit));
    add("pam.d/stead-fail-account".into(), stack(unix, deny, permit));
    add(
        "pam.d/stead-fail-setcred".into(),
        stack("required pam_debug.so auth=success cred=cred_err", permit, permit),
    );
    add("pam.d/stead-fail-session".into(), stack(unix, permit, deny));
    add(
        "pam.d/stead-fail-close".into(),
        stack(unix, permit, "required pam_debug.so open_session=success close_session=session_err"),
    );

    // A module that takes long in one phase, for deadlines and for kills in the middle.
    let sleep = format!("required pam_exec.so quiet {bin}/pam-sleep");
    add("pam.d/stead-slow".into(), format!("auth {sleep}\n{}", stack(unix, permit, permit)));
    add("pam.d/stead-slow-account".into(), stack(unix, &sleep, permit));
    add("pam.d/stead-slow-session".into(), stack(unix, permit, &format!("{sleep} open_session")));
    add("pam.d/stead-slow-close".into(), stack(unix, permit, &format!("{sleep} close_session")));

    // pam_ftp takes alice for the first of the list: PAM_USER is bob afterwards (CVE-2015-6563 is what comes of
    // not looking).
    add(
        "pam.d/stead-renames".into(),
        stack("required pam_ftp.so users=bob,alice ignore\nauth required pam_permit.so", permit, permit),
    );

    add("security/stead-testbed.pam_env.conf".into(), "STEAD_BED DEFAULT=from-pam-env-conf\n".to_owned());
    let mut limits = String::new();
    for (user, table) in [("alice", ALICE_LIMITS), ("bob", BOB_LIMITS)] {
        for (_, item, _, soft, hard) in table {
            let _ = writeln!(limits, "{user} soft {item} {soft}\n{user} hard {item} {hard}");
        }
    }
    let _ = writeln!(limits, "alice - priority {ALICE_NICE}");
    add("security/stead-testbed.limits.conf".into(), limits);
    for file in files.iter_mut().filter(|file| file.path == "pam.d/stead-service") {
        file.text += &by_host(root);
    }
    files.push(desktop_env());
    files
}

fn desktop_env() -> File {
    let desktop = OF_A_DESKTOP.iter().fold(String::new(), |text, name| text + name + "=from-pam\n");
    let text = format!("{MARK}\n{desktop}STEAD_OWN=stays\n");
    File { path: "security/stead-testbed.desktop.env".into(), text }
}

/// For callers that may not name the service: sessions from some hosts are not opened, close in disorder, or have what
/// modules of a seat set.
fn by_host(root: &Path) -> String {
    format!(
        "session requisite pam_exec.so quiet {}/bin/pam-refuse\n\
         session [success=ignore default=1] pam_succeed_if.so quiet rhost = {AT_A_DESKTOP}\n\
         session required pam_env.so conffile=/dev/null envfile=/etc/security/stead-testbed.desktop.env\n",
        root.display()
    )
}

/// A session of the service `stead-service` from this host has the variables of a desktop, set by PAM.
pub const AT_A_DESKTOP: &str = "at-a-desktop.example";

/// Those variables. What else such a session has of PAM is `STEAD_OWN=stays`.
pub const OF_A_DESKTOP: &[&str] = &[
    "DISPLAY",
    "XAUTHORITY",
    "WAYLAND_DISPLAY",
    "WAYLAND_SOCKET",
    "XDG_SESSION_TYPE",
    "XDG_SEAT",
    "XDG_VTNR",
    "XDG_RUNTIME_DIR",
    "DBUS_SESSION_BUS_ADDRESS",
];

/// The line for `group.conf`: alice gets one group more, in one service.
pub(crate) fn group_conf_line() -> String {
    format!("stead-interactive;*;alice;Al0000-2400;stead-granted {MARK} {GRANTED_GROUP}\n")
}

/// The scripts that `pam_exec` runs: file name below `bin`, and text.
pub(crate) fn scripts(root: &Path) -> Vec<(&'static str, String)> {
    let log = root.join("log/pam.log");
    vec![
        (
            "pam-log",
            format!(
                "#!/bin/sh\nprintf '%s\\t%s\\t%s\\t%s\\t%s\\t%s\\t%s\\n' \"$PAM_TYPE\" \"$PAM_SERVICE\" \
                 \"$PAM_USER\" \"$PAM_TTY\" \"$PAM_RHOST\" \"$PAM_RUSER\" \"$PPID\" >>{}\n",
                log.display()
            ),
        ),
        ("pam-check-otp", "#!/bin/sh\nIFS= read -r code\n[ \"$code\" = 246810 ]\n".to_owned()),
        (
            "pam-refuse",
            "#!/bin/sh\ncase $PAM_TYPE:$PAM_RHOST in\n\
             close_session:refuses-to-close.example | open_session:refuses-to-open.example) exit 1 ;;\nesac\n"
                .to_owned(),
        ),
        (
            // With an argument it sleeps in that phase only.
            "pam-sleep",
            "#!/bin/sh\n[ -n \"$1\" ] && [ \"$1\" != \"$PAM_TYPE\" ] && exit 0\nexec /bin/sleep 600\n"
                .to_owned(),
        ),
    ]
}

//! The library's own tests of files as the client, opened by the service's helpers.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod through_support;

#[path = "../../stead/tests/impersonate_files.rs"]
mod impersonate_files;

use stead::{ErrorKind, Impersonation, Token};
use testbed::Bed;
use through_support::{Connected, connect_and_stay, listener, the_service, without_privileges_of_its_own};

/// The token of a client that `setpriv` made, and that connected to this program: by way of the service.
fn minted(setpriv: &[&str]) -> Token<Impersonation> {
    let bed = Bed::current().unwrap();
    let (listener, path) = listener(&bed.scratch("server"));
    let prefix = [&["setpriv"], setpriv, &["--inh-caps=-all", "--"]].concat();
    let client = Connected::by(&prefix, bed, &listener, &path);
    let client_of = the_service(bed).connect().client_of(&client.stream, &listener);
    client_of.and_then(|client| client.token()).unwrap_or_else(|error| panic!("{error}"))
}

fn token_of_user(bed: &Bed, name: &str) -> Token<Impersonation> {
    let user = bed.user(name);
    minted(&[&format!("--reuid={}", user.uid), &format!("--regid={}", user.gid), "--init-groups"])
}

/// What procfs shows of its reader would be the helper's own: its memory, its descriptors, its directory.
#[test]
fn what_procfs_shows_of_the_helper_is_refused() {
    let bed = testbed::require!();
    let link = bed.scratch("links").join("link");
    std::os::unix::fs::symlink("/proc/self/maps", &link).unwrap();
    let of_the_reader = [
        "/proc/self/maps",
        "/proc/self/environ",
        "/proc/self/mem",
        "/proc/thread-self/status",
        "/proc/self/root/etc/passwd",
        "/proc/self/cwd",
        "/proc/self/exe",
        "/proc/self/fd/0",
        "/dev/stdin",
        "/proc/1/../self/maps",
        "/proc",
        link.to_str().unwrap(),
    ];
    let alice = token_of_user(bed, "alice");
    alice
        .impersonate(|me| {
            for path in of_the_reader {
                let refused = me.open(path).unwrap_err();
                assert!(matches!(refused.kind(), ErrorKind::AccessDenied { .. }), "{path}: {refused}");
            }
            me.open("/etc/passwd").unwrap();
        })
        .unwrap();
}

#[test]
fn role_that_connects() {
    connect_and_stay();
}

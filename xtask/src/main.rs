//! `cargo xtask demo | test | bench | ..`.

#[cfg(target_os = "linux")]
mod bench;
mod build;
mod check;
#[cfg(target_os = "linux")]
mod demo;
mod fuzz;
#[cfg(target_os = "linux")]
mod install;
#[cfg(target_os = "linux")]
mod machine;
#[cfg(windows)]
mod native;
mod runner;
#[cfg(target_os = "linux")]
mod scratch;
#[cfg(target_os = "linux")]
mod shell;
#[cfg(target_os = "linux")]
mod test;
mod unsafe_code;
#[cfg(target_os = "linux")]
mod windows;

use std::process::ExitCode;

const HELP: &str = "\
usage: cargo xtask COMMAND

  test              build everything and run every test, in the testbed, and the Windows side where its tools are
                    there already; the last line counts them
  test FILTER       the tests of the Linux side with this in their names
  test --linux [FILTER]
                    the Linux side alone
  test --in PLACE   the same in a `user-namespace` as an ordinary user makes, or in an ordinary `container`; by root
  test --in machine [--release bookworm|trixie] [FILTER]
                    the same in a Debian with a kernel of its own, which has cgroup controllers and AppArmor; takes QEMU and
                    mmdebstrap, and many minutes: say which tests
  test --windows [FILTER]
                    the Windows side, under Wine; installs what that takes
  demo [--json]     run both procedures with real clients, in the testbed
  bench [PART..] [--quick] [--json FILE]
                    measure what stead costs beside its floor and its peers: spawn, commands, size, threads, impersonate ..,
                    or all; docs/bench.md has them
  bench plot FILE   draw the results that --json wrote; those of docs/bench.json fill README's table, too
  fuzz [TARGET] [--minutes N]
                    give the decoders whatever breaks them, each for 10 minutes; takes nightly Rust and cargo-fuzz
  check [miri | asan | deny ..]
                    Miri on the pure parts, the address sanitizer on the unsafe ones, cargo-deny on what is used; takes
                    nightly Rust and cargo-deny, and skips what is not there
  unsafe [--short]  list the unsafe code, and fail if any stands outside of sys/ and the trampoline
  install [--prefix DIR] [--sysconfdir DIR] [--destdir DIR]
                    the command, the session worker, units, PAM services, policy, manual pages, completions; /usr/local
                    unless told otherwise; what is configured already stays as it is
  deb [--programs DIR] [--try [--in machine] [--release bookworm|trixie]]
                    a Debian package of the same; takes cargo-deb. To try it takes root and mmdebstrap: it is installed in a
                    Debian of its own, with a live systemd; in a machine as for `test`, with a kernel of its own, too
  shell [COMMAND]   run a command, or a shell, as root of the testbed, the examples on its PATH; says who its users are

In the testbed there are throw-away users, PAM services and homes that exist nowhere else. It is made for each run, by
root or in a user namespace, and nothing of it stays behind.
";

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    {
        stead::init(); // the demo is its own session worker
        testbed::run_stage_if_asked();
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rest = arguments.get(1..).unwrap_or_default();
    let result = match arguments.first().map(String::as_str) {
        #[cfg(target_os = "linux")]
        Some("test") => test::run(rest),
        #[cfg(windows)]
        Some("test") => native::run(rest),
        #[cfg(target_os = "linux")]
        Some("demo") => demo::run(rest),
        #[cfg(target_os = "linux")]
        Some("bench") => bench::run(rest),
        #[cfg(target_os = "linux")]
        Some("shell") => shell::run(rest),
        #[cfg(target_os = "linux")]
        Some("install") => install::run(rest),
        #[cfg(target_os = "linux")]
        Some("deb") => install::deb(rest),
        Some("check") => check::run(rest),
        Some("fuzz") => fuzz::run(rest),
        Some("unsafe") => unsafe_code::run(rest),
        None | Some("help" | "-h" | "--help") => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Some(other) => {
            eprint!("xtask: no command {other}\n\n{HELP}");
            return ExitCode::from(64);
        }
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

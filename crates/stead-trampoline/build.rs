//! Compiles the trampoline with the compiler of this build, for the target of this build.
//!
//! It is a program without std and libc, so nothing but the target's libcore is needed, and no target of
//! its own. It cannot be an ordinary binary of the workspace: panic strategy, relocation model and
//! linker arguments would then have to be those of every program that uses the library.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    for path in ["build.rs", "src/program", "src/kernel.rs", "src/report.rs", "src/syscall.rs", "src/wire.rs"]
    {
        println!("cargo::rerun-if-changed={path}");
    }
    let target = variable("TARGET");
    let machine = variable("CARGO_CFG_TARGET_ARCH");
    if !matches!(machine.as_str(), "x86_64" | "aarch64") || variable("CARGO_CFG_TARGET_OS") != "linux" {
        println!("cargo::error=the trampoline is written for Linux on x86_64 and aarch64, not for {target}");
        return;
    }
    let program = Path::new(&variable("OUT_DIR")).join("stead-trampoline");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc
        .args(["--crate-name", "stead_trampoline_program", "--crate-type", "bin", "--edition", "2024"])
        .args(["--target", &target, "--cap-lints", "warn"])
        .args(["-C", "panic=abort", "-C", "opt-level=s", "-C", "codegen-units=1", "-C", "lto=fat"])
        // No relocation to be done at its start, and nobody to do it.
        .args(["-C", "relocation-model=static", "-C", "relro-level=off", "-C", "target-feature=+crt-static"])
        .args(["-C", "force-unwind-tables=no", "-C", "strip=symbols", "-C", "overflow-checks=no"]);

    // What both kinds of linker understand; the script says why there is one segment only.
    let script = Path::new(&variable("CARGO_MANIFEST_DIR")).join("src/program/link.ld");
    let script = script.display();
    let plain = ["-nostdlib", "-static", "--build-id=none", "--gc-sections", "--no-eh-frame-hdr"];
    let (chosen, arguments) = match linker(&target) {
        Some(Linker::Plain(name)) => {
            rustc.args(["-C", "linker-flavor=ld.lld"]);
            (Some(name), [plain.map(str::to_owned).to_vec(), vec![format!("-T{script}")]].concat())
        }
        other => {
            let passed_on = format!("-Wl,{},-T,{script}", plain[2..].join(","));
            let own = ["-nostartfiles", "-nostdlib", "-static"].map(str::to_owned).to_vec();
            (other.map(Linker::name), [own, vec![passed_on]].concat())
        }
    };
    if let Some(name) = chosen {
        rustc.arg("-C").arg(format!("linker={name}"));
    }
    for argument in arguments {
        rustc.arg("-C").arg(format!("link-arg={argument}"));
    }
    rustc.arg("-o").arg(&program).arg("src/program/main.rs");
    match rustc.output() {
        Ok(output) => {
            // Lines of their own: what a build script writes plainly is not shown.
            let kind = if output.status.success() { "warning" } else { "error" };
            for line in String::from_utf8_lossy(&output.stderr).lines() {
                println!("cargo::{kind}={line}");
            }
            if !output.status.success() {
                println!("cargo::error=the trampoline did not compile: {rustc:?}");
            }
        }
        Err(error) => println!("cargo::error=cannot run the compiler: {error}: {rustc:?}"),
    }
}

enum Linker {
    /// Cargo was told to use it: a compiler that links.
    Compiler(String),
    /// The one that comes with rustc.
    Plain(String),
}

impl Linker {
    fn name(self) -> String {
        match self {
            Self::Compiler(name) | Self::Plain(name) => name,
        }
    }
}

/// The configured linker (`CARGO_TARGET_*_LINKER`, `target.*.linker`); in a cross build without one, the
/// linker that comes with rustc, for the host's compiler links for the host. Otherwise rustc knows.
fn linker(target: &str) -> Option<Linker> {
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    let configured = env::var("RUSTC_LINKER").ok().map(Linker::Compiler);
    configured.or_else(|| (variable("HOST") != target).then(|| Linker::Plain("rust-lld".to_owned())))
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}

//! Links the unwinder into the program (the worker, and the command), where the linker has it, in place of the library libgcc_s.
//!
//! That library is loaded and initialised each time that the program starts. It asks the processor what it is, and in a virtual
//! machine each such question is the hypervisor's to answer: a tenth of what the start of a small program takes.

use std::env;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=RUSTC_LINKER");
    let target = |what: &str| env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    if target("OS") != "linux" || target("ENV") != "gnu" {
        return;
    }
    let linker = env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into());
    // It answers with the name alone where it has none.
    let answer = Command::new(linker).arg("-print-file-name=libgcc_eh.a").output();
    if answer.is_ok_and(|answer| answer.stdout.starts_with(b"/")) {
        println!("cargo:rustc-link-lib=static:-bundle=gcc_eh");
    }
}

//! Building with cargo, and finding what was built.

use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program that cargo built.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Program {
    /// The target's name.
    pub name: String,
    /// The package's name.
    pub package: String,
    /// `lib`, `bin`, `test`, `example` or `bench`.
    pub kind: String,
    /// Whether it is a test harness.
    pub harness: bool,
    /// Where it lies.
    pub path: PathBuf,
    /// Its package's directory.
    pub directory: PathBuf,
}

/// The checkout's directory.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where cargo builds: this program is in a folder of it.
pub fn target() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.ancestors().nth(2).ok_or_else(|| io::Error::other("this program has no folder"))?;
    Ok(folder.to_owned())
}

/// `cargo`, in the checkout.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Runs cargo with these arguments and gives the programs it built.
pub fn build(arguments: &[&str]) -> io::Result<Vec<Program>> {
    let mut command = cargo();
    command.args(arguments);
    programs_of(command)
}

/// Runs this command of cargo's and gives the programs it built.
pub fn programs_of(mut command: Command) -> io::Result<Vec<Program>> {
    let output = command
        .arg("--message-format=json-render-diagnostics")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        let arguments: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
        return Err(io::Error::other(format!("cargo {} failed", arguments.join(" "))));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(program).collect())
}

fn program(line: &str) -> Option<Program> {
    let message: serde_json::Value = serde_json::from_str(line).ok()?;
    let path = message.get("executable")?.as_str()?;
    let target = message.get("target")?;
    // "path+file:///x/crates/testbed#0.1.0", or "..crates/other#name@0.1.0" where the names differ.
    let id = message.get("package_id")?.as_str()?;
    let (before, after) = id.rsplit_once('#')?;
    let package = match after.split_once('@') {
        Some((name, _)) => name,
        None => before.rsplit('/').next()?,
    };
    Some(Program {
        name: target.get("name")?.as_str()?.to_owned(),
        package: package.to_owned(),
        kind: target.get("kind")?.get(0)?.as_str()?.to_owned(),
        harness: message.get("profile")?.get("test")?.as_bool()?,
        path: PathBuf::from(path),
        directory: Path::new(message.get("manifest_path")?.as_str()?).parent()?.to_owned(),
    })
}

/// The helper programs and examples that go into the bed, built now; or those in the directory that
/// `STEAD_PROGRAMS` names, where there is no cargo.
#[cfg(target_os = "linux")]
pub fn programs() -> io::Result<Vec<(String, PathBuf)>> {
    let Some(directory) = std::env::var_os("STEAD_PROGRAMS") else {
        return Ok(for_the_bed(&build(&["build", "--workspace", "--bins", "--examples", "--all-features"])?));
    };
    std::fs::read_dir(directory)?
        .map(|entry| entry.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())))
        .collect()
}

/// The helper programs and examples that go into the bed, out of what was built.
#[cfg(target_os = "linux")]
pub fn for_the_bed(built: &[Program]) -> Vec<(String, PathBuf)> {
    built
        .iter()
        .filter(|program| !program.harness && matches!(program.kind.as_str(), "bin" | "example"))
        .map(|program| (program.name.clone(), program.path.clone()))
        .collect()
}

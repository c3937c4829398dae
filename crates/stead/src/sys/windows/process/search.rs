//! Which file a program's name means; called with the client's identity on the thread.
#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::windows::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf, Prefix};

use super::environment::Environment;
use crate::error::{ErrorKind, ProgramFault};

/// The absolute path of `program`: itself, relative to the new process's directory, or in an absolute directory of
/// the new environment's PATH. Never the server's directory, nor the system's own search, which begins with it.
///
/// A name without an extension means the `.exe`, as for std. A batch file is refused unless the server asked for one.
pub(super) fn find(
    program: &OsStr,
    directory: &Path,
    environment: &Environment,
    batch: bool,
) -> Result<PathBuf, ErrorKind> {
    let name = || program.to_string_lossy().into_owned();
    let candidates = candidates(program, directory, environment)?;
    let mut denied = false;
    for candidate in candidates {
        if !batch && is_batch_file(&candidate) {
            let program = candidate.display().to_string();
            return Err(ErrorKind::ProgramUnusable { program, why: ProgramFault::BatchFile });
        }
        match std::fs::metadata(&candidate) {
            Ok(found) if found.is_file() => return Ok(candidate),
            Ok(_) => {}
            Err(error) => denied |= error.kind() == std::io::ErrorKind::PermissionDenied,
        }
    }
    Err(if denied {
        ErrorKind::ProgramUnusable { program: name(), why: ProgramFault::NotPermitted }
    } else {
        ErrorKind::ProgramNotFound { program: name() }
    })
}

fn candidates(
    program: &OsStr,
    directory: &Path,
    environment: &Environment,
) -> Result<Vec<PathBuf>, ErrorKind> {
    let invalid = |what: &str| {
        let what = format!("{:?} {what}", program.to_string_lossy()).into();
        Err(ErrorKind::InvalidInput { what })
    };
    let units: Vec<u16> = program.encode_wide().collect();
    if units.is_empty() {
        return invalid("is no program");
    }
    // No file name holds them, and a quote would end the program's name on the command line.
    if units.iter().any(|unit| *unit < 32 || *unit == u16::from(b'"')) {
        return invalid("is no name of a file");
    }
    let path = Path::new(program);
    let separators = [u16::from(b'\\'), u16::from(b'/')];
    let named = !units.iter().any(|unit| separators.contains(unit) || *unit == u16::from(b':'));
    if !named && has_stream(path) {
        return invalid("names a stream of a file, or a directory of a drive");
    }
    let mut whole = Vec::new();
    if named {
        let search = environment.get("PATH").unwrap_or_default();
        for directory in directories(search) {
            push(&mut whole, directory.join(program));
        }
    } else if path.is_absolute() {
        push(&mut whole, path.to_owned());
    } else if path.has_root() {
        return invalid("names no drive");
    } else {
        push(&mut whole, directory.join(path));
    }
    Ok(whole)
}

/// With `.exe` where the last part has no extension.
fn push(whole: &mut Vec<PathBuf>, path: PathBuf) {
    if path.extension().is_some() {
        whole.push(path);
    } else {
        let mut with = path.into_os_string();
        with.push(".exe");
        whole.push(with.into());
    }
}

/// Colons elsewhere than after the drive: alternate data streams, and `C:program`.
fn has_stream(path: &Path) -> bool {
    let drive_without_root = matches!(
        path.components().next(),
        Some(Component::Prefix(prefix)) if matches!(prefix.kind(), Prefix::Disk(_)) && !path.is_absolute()
    );
    drive_without_root
        || path.components().any(|component| match component {
            Component::Normal(part) => part.encode_wide().any(|unit| unit == u16::from(b':')),
            _ => false,
        })
}

/// The absolute directories of a PATH.
fn directories(search: &OsStr) -> Vec<PathBuf> {
    std::env::split_paths(search).filter(|directory| directory.is_absolute()).collect()
}

/// Batch files are read by cmd.exe, for which no quoting is safe (CVE-2024-24576). Windows drops dots and blanks at
/// the end of a file's name, so that `x.bat. .` is one too (CVE-2024-43402).
pub(super) fn is_batch_file(path: &Path) -> bool {
    let units: Vec<u16> = path.as_os_str().encode_wide().collect();
    let kept = units.iter().rposition(|unit| ![u16::from(b'.'), u16::from(b' ')].contains(unit));
    let stripped = OsString::from_wide(&units[..kept.map_or(0, |last| last + 1)]);
    let extension = Path::new(&stripped).extension().map(OsStr::to_ascii_lowercase);
    extension.is_some_and(|extension| extension == "bat" || extension == "cmd")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::EnvironmentChanges;

    fn environment(path: &str) -> Environment {
        let mut changes = EnvironmentChanges::default();
        changes.set("Path".into(), path.into());
        let mut environment = Environment::default();
        environment.change(&changes);
        environment
    }

    #[test]
    fn only_absolute_directories_of_the_new_path_are_searched() {
        let environment = environment(r#".;C:\a;;bin;"C:\b c";\x;C:rel;\\host\share"#);
        let found = candidates(OsStr::new("tool"), Path::new(r"C:\home"), &environment).unwrap();
        let expected = [r"C:\a\tool.exe", r"C:\b c\tool.exe", r"\\host\share\tool.exe"];
        assert_eq!(found, expected.map(PathBuf::from));
        let found = candidates(OsStr::new(r".\tool"), Path::new(r"C:\home"), &environment).unwrap();
        assert_eq!(found, [PathBuf::from(r"C:\home\.\tool.exe")]);
    }

    #[test]
    fn batch_files_are_refused_whatever_stands_after_their_names() {
        for name in [r"C:\x.bat", r"C:\x.CMD", r"C:\x.bat. .", r"C:\x.cmd   ", r"C:\x.bat..."] {
            let refused = find(OsStr::new(name), Path::new(r"C:\"), &environment(""), false).unwrap_err();
            let why = ProgramFault::BatchFile;
            assert!(
                matches!(refused, ErrorKind::ProgramUnusable { why: found, .. } if found == why),
                "{name}"
            );
        }
    }

    #[test]
    fn what_is_no_plain_file_name_is_refused() {
        for name in
            ["", "a\"b", r"\tool.exe", "C:tool.exe", r"C:\tool.exe:stream", r"C:\x.bat::$DATA", "a\nb"]
        {
            let refused = find(OsStr::new(name), Path::new(r"C:\"), &environment(""), false).unwrap_err();
            assert!(matches!(refused, ErrorKind::InvalidInput { .. }), "{name:?}: {refused:?}");
        }
    }

    #[test]
    fn a_program_of_the_system_is_found_and_one_that_is_not_there_is_not() {
        let root = std::env::var("SystemRoot").unwrap();
        let environment = environment(&format!(r"{root}\system32"));
        let found = find(OsStr::new("cmd"), Path::new(r"C:\"), &environment, false).unwrap();
        assert!(found.is_absolute());
        let refused =
            find(OsStr::new("no-such-program"), Path::new(r"C:\"), &environment, false).unwrap_err();
        assert!(matches!(refused, ErrorKind::ProgramNotFound { .. }));
    }
}

//! What an error says to people.

use super::{Error, ErrorKind};

fn not_found(program: &str) -> Error {
    let kind = ErrorKind::ProgramNotFound { program: program.into() };
    Error::new("creating the process as alice", kind)
}

#[test]
fn a_program_looked_for_by_name_is_told_in_whose_path() {
    assert!(not_found("report").to_string().contains("PATH of the client's environment, not the server's"));
    assert_eq!(not_found("/opt/report").remedy(), None, "a path was looked for nowhere else");
}

#[test]
fn what_main_prints_of_an_error_is_what_display_says() {
    let error = Error::new("opening notes.txt", ErrorKind::NotFound { object: "notes.txt".into() });
    assert_eq!(error.to_string(), r#"opening notes.txt: there is no "notes.txt""#);
    assert_eq!(format!("{error:?}"), error.to_string());
}

#[test]
fn debug_escapes_control_characters_as_display_does() {
    let error = Error::new("opening \u{1b}[2J\nroot: ok", ErrorKind::NotFound { object: "\u{1b}\n".into() });
    assert!(!format!("{error}{error:?}").contains(char::is_control), "{error:?}");
}

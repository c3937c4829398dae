//! Which desktop a person sits before: as the administrator has written down, else as logind tells.
#![forbid(unsafe_code)]

use std::ffi::{CString, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::Place;
use super::x11::Screen;
use crate::desktop::InteractiveSession;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::logind::{self, Session, Silence};
use crate::sys::token::Uid;

const DOING: &str = "finding the interactive desktop";
/// One line: the name of the desktop at this machine's own screen, as `Desktop::by_name` takes it.
const CONFIGURATION: &str = "/etc/stead/console-desktop";
const LONGEST_CONFIGURATION: u64 = 4096;

/// The desktop of a session at a seat.
pub(crate) fn interactive(which: &InteractiveSession) -> Result<Place> {
    if *which == InteractiveSession::Console
        && let Some(name) = configured(Path::new(CONFIGURATION), 0)?
    {
        return Place::by_name(&name);
    }
    let asked = match which {
        InteractiveSession::Console => logind::active_of_seat(c"seat0"),
        InteractiveSession::Active => return only(&of_a_person(which, |one| one.active)?, which),
        InteractiveSession::OfUser(uid) => return only(&of_a_person(which, |one| one.uid == *uid)?, which),
        InteractiveSession::Id(id) => CString::new(id.as_bytes()).map_or(Ok(None), |id| logind::session(&id)),
    };
    let session = asked.map_err(|silence| failed(silence, which))?;
    desktop_of(&session.ok_or_else(|| nobody(which))?)
}

/// Those before a screen; the login screen and sessions over the network are not.
fn of_a_person(which: &InteractiveSession, condition: impl Fn(&Session) -> bool) -> Result<Vec<Session>> {
    let all = logind::sessions().map_err(|silence| failed(silence, which))?;
    let at_a_screen = |one: &Session| {
        let screen = matches!(one.kind.as_str(), "x11" | "wayland") || one.vt.is_some();
        one.class == "user" && screen && !one.closing
    };
    Ok(all.into_iter().filter(|one| at_a_screen(one) && condition(one)).collect())
}

fn only(found: &[Session], which: &InteractiveSession) -> Result<Place> {
    match found {
        [] => Err(nobody(which)),
        [one] => desktop_of(one),
        several => {
            let ids: Vec<&str> = several.iter().map(|one| one.id.as_str()).collect();
            let what = format!(
                "there is more than one {}: name one of {} by InteractiveSession::Id",
                described(which),
                ids.join(", ")
            );
            Err(Error::new(DOING, ErrorKind::InvalidInput { what: what.into() }))
        }
    }
}

fn described(which: &InteractiveSession) -> String {
    match which {
        InteractiveSession::Console => "active session of seat0".to_owned(),
        InteractiveSession::Active => "active session".to_owned(),
        InteractiveSession::OfUser(uid) => format!("session of the user {uid}"),
        InteractiveSession::Id(id) => format!("session {id:?}"),
    }
}

fn nobody(which: &InteractiveSession) -> Error {
    let object = match which {
        InteractiveSession::Console => {
            format!("{} (and {CONFIGURATION}, which could name its desktop, is not there)", described(which))
        }
        which => described(which),
    };
    Error::new(DOING, ErrorKind::NotFound { object })
}

fn failed(silence: Silence, which: &InteractiveSession) -> Error {
    match silence {
        Silence::Absent => Error::new(
            DOING,
            ErrorKind::DesktopAccess {
                object: described(which),
                why: "logind, which could tell, does not run here".into(),
                mend: Some(
                    match which {
                        InteractiveSession::Console => {
                            format!(
                                "name the desktop in {CONFIGURATION} (\":0\", \"/run/user/1000/wayland-0\")"
                            )
                        }
                        _ => "name the desktop itself with Desktop::by_name".to_owned(),
                    }
                    .into(),
                ),
            },
        ),
        Silence::Failed(call, error) => Error::system(DOING, call, error),
    }
}

/// What a session's person looks at.
fn desktop_of(session: &Session) -> Result<Place> {
    let object = format!("desktop of the session {} of uid {}", session.id, session.uid);
    if session.class != "user" {
        let why = format!("nobody is logged on there: it is a {}", session.class).into();
        return Err(Error::new(DOING, ErrorKind::DesktopAccess { object, why, mend: None }));
    }
    // Another may be before that screen by now.
    if session.closing {
        let why = "its user has logged out".into();
        return Err(Error::new(DOING, ErrorKind::DesktopAccess { object, why, mend: None }));
    }
    let name: OsString = match session.kind.as_str() {
        "wayland" => compositor_of(session.uid)?.into(),
        "x11" => session.display.clone().ok_or_else(|| not_found(&object))?.into(),
        "tty" => match (session.vt, &session.tty) {
            (Some(number), _) => format!("/dev/tty{number}").into(),
            (None, Some(tty)) => format!("/dev/{tty}").into(),
            (None, None) => return Err(not_found(&object)),
        },
        _ => return Err(not_found(&object)),
    };
    // What logind says of a session's type and display is what its user told it (SetType, SetDisplay in
    // org.freedesktop.login1(5)), and of its terminal what was so when it began.
    Ok(match Place::by_name(&name)? {
        Place::X11(mut display) => {
            display.owner = Some(session.uid);
            display.screen = Some(Screen { vt: session.vt });
            Place::X11(display)
        }
        Place::Terminal(terminal) => Place::Terminal(terminal.of(session.uid)),
        place @ Place::Wayland(_) => place,
    })
}

fn not_found(object: &str) -> Error {
    Error::new(DOING, ErrorKind::NotFound { object: object.to_owned() })
}

/// The one Wayland socket that somebody listens on in the user's runtime directory: logind knows no name for it.
fn compositor_of(uid: Uid) -> Result<PathBuf> {
    let directory = PathBuf::from(format!("/run/user/{uid}"));
    let listening = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let mut found: Vec<PathBuf> = std::fs::read_dir(&directory)
        .map_err(|error| Error::system(DOING, "readdir", error))?
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("wayland-"));
            let socket =
                entry.metadata().is_ok_and(|meta| meta.file_type().is_socket() && meta.uid() == uid.as_raw());
            socket && number.is_some_and(|number| number.bytes().all(|digit| digit.is_ascii_digit()))
        })
        .map(|entry| entry.path())
        .filter(|path| path.to_str().is_some_and(|path| listens(&listening, path)))
        .collect();
    match (found.pop(), found.is_empty()) {
        (Some(socket), true) => Ok(socket),
        (None, _) => {
            Err(not_found(&format!("Wayland socket that a compositor listens on in {}", directory.display())))
        }
        (Some(_), false) => {
            let what = format!(
                "there is more than one Wayland socket in {}: name one with Desktop::by_name",
                directory.display()
            );
            Err(Error::new(DOING, ErrorKind::InvalidInput { what: what.into() }))
        }
    }
}

/// Whether `/proc/net/unix` (proc(5)) has a listening socket of this name: `__SO_ACCEPTCON` among its flags.
fn listens(table: &str, path: &str) -> bool {
    const ACCEPTS: u32 = 0x1_0000;
    table.lines().any(|line| {
        let mut columns = line.split_ascii_whitespace();
        let flags = columns.nth(3).and_then(|flags| u32::from_str_radix(flags, 16).ok()).unwrap_or(0);
        flags & ACCEPTS != 0 && columns.nth(3) == Some(path)
    })
}

/// The configured name; an error where somebody else than `owner` (root) could have written it.
fn configured(path: &Path, owner: u32) -> Result<Option<OsString>> {
    let system = |error| Error::system(DOING, "open /etc/stead/console-desktop", error);
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let opened = std::fs::File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(system(error)),
    };
    let meta = file.metadata().map_err(system)?;
    if meta.uid() != owner || meta.mode() & 0o022 != 0 || !meta.is_file() {
        let what = format!("{} must be a file of root's that nobody else can write", path.display());
        return Err(Error::new(DOING, ErrorKind::InvalidInput { what: what.into() }));
    }
    let mut text = Vec::new();
    file.take(LONGEST_CONFIGURATION).read_to_end(&mut text).map_err(system)?;
    let mut lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let name = lines.find(|line| !line.is_empty() && !line.starts_with(b"#"));
    let what = || format!("{} names no desktop", path.display()).into();
    let nothing = || Error::new(DOING, ErrorKind::InvalidInput { what: what() });
    name.map(|name| Some(OsString::from_vec(name.to_vec()))).ok_or_else(nothing)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 1838 /run/user/1000/wayland-0
0000000000000000: 00000003 00000000 00000000 0001 03 2006 /run/user/1000/wayland-1
0000000000000000: 00000002 00000000 00010000 0001 01 1839
";

    #[test]
    fn a_socket_that_nobody_listens_on_is_no_compositors() {
        assert!(listens(TABLE, "/run/user/1000/wayland-0"));
        assert!(!listens(TABLE, "/run/user/1000/wayland-1"), "one that is connected");
        assert!(!listens(TABLE, "/run/user/1000/wayland-2"));
        assert!(!listens("", ""));
    }

    #[test]
    fn the_configuration_is_one_line_that_nobody_else_can_write() {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("stead-console-desktop-{}", std::process::id()));
        let own = rustix::process::geteuid().as_raw();
        assert_eq!(configured(&path, own).unwrap(), None);
        std::fs::write(&path, "# the kiosk\n\n  :7  \n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert_eq!(configured(&path, own).unwrap(), Some(":7".into()));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o664)).unwrap();
        let refused = [configured(&path, own), configured(&path, own + 1)];
        std::fs::write(&path, "# nothing\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let empty = configured(&path, own);
        std::fs::remove_file(&path).unwrap();
        for refused in refused.into_iter().chain([empty]) {
            let error = refused.unwrap_err();
            assert!(error.to_string().contains("stead-console-desktop"), "{error}");
        }
    }

    fn session(kind: &str, class: &str) -> Session {
        Session {
            id: "c1".into(),
            uid: Uid::new(1000).unwrap(),
            kind: kind.into(),
            class: class.into(),
            display: None,
            tty: None,
            vt: Some(3),
            active: true,
            closing: false,
        }
    }

    #[test]
    fn a_session_whose_user_has_logged_out_has_no_desktop_any_more() {
        for kind in ["tty", "x11", "wayland"] {
            let closing = Session { closing: true, display: Some(":0".into()), ..session(kind, "user") };
            let refused = desktop_of(&closing).unwrap_err();
            assert!(refused.to_string().contains("logged out"), "{refused}");
        }
    }

    #[test]
    fn the_session_says_which_desktop_it_is() {
        assert_eq!(desktop_of(&session("tty", "user")).unwrap().to_string(), "/dev/tty3");
        let refused = desktop_of(&session("wayland", "greeter")).unwrap_err();
        assert!(refused.to_string().contains("it is a greeter"), "{refused}");
        let on_x = Session { display: Some(":0".into()), ..session("x11", "user") };
        let Place::X11(display) = desktop_of(&on_x).unwrap() else { panic!("an X display") };
        assert_eq!((display.to_string(), display.owner), (":0".into(), Some(on_x.uid)));
        assert_eq!(display.screen, Some(Screen { vt: Some(3) }));
        let refused = desktop_of(&session("x11", "user")).unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::NotFound { .. }), "{refused}");
        let both = vec![session("tty", "user"), session("tty", "user")];
        let refused = only(&both, &InteractiveSession::Active).unwrap_err();
        assert!(refused.to_string().contains("c1, c1"), "{refused}");
    }
}

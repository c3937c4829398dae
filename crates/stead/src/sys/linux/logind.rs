//! Who sits where, as logind tells it through its own library.
//!
//! sd-login(3) is the documented face of what logind knows, and is there wherever logind is (systemd itself needs
//! libsystemd): it is loaded when it is asked for, so that a machine without it needs nothing. The same question over
//! D-Bus takes a client library of forty crates and a bus that runs; the files below /run/systemd are private to it.
//!
//! Reference: [sd-login(3)](https://www.freedesktop.org/software/systemd/man/latest/sd-login.html).

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::io;
use std::ptr;
use std::sync::OnceLock;

use crate::sys::linux::library::symbol;
use crate::sys::token::Uid;

/// `uid_t`.
type RawUid = u32;
type Active = unsafe extern "C" fn(*const c_char, *mut *mut c_char, *mut RawUid) -> c_int;
type All = unsafe extern "C" fn(*mut *mut *mut c_char) -> c_int;
type Is = unsafe extern "C" fn(*const c_char) -> c_int;
type Id = unsafe extern "C" fn(*const c_char, *mut RawUid) -> c_int;
type Number = unsafe extern "C" fn(*const c_char, *mut c_uint) -> c_int;
type Text = unsafe extern "C" fn(*const c_char, *mut *mut c_char) -> c_int;

struct Library {
    seat_get_active: Active,
    get_sessions: All,
    session_is_active: Is,
    session_get_uid: Id,
    session_get_vt: Number,
    session_get_type: Text,
    session_get_class: Text,
    session_get_display: Text,
    session_get_tty: Text,
    session_get_state: Text,
}

/// What logind knows of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) uid: Uid,
    /// `x11`, `wayland`, `tty`, `unspecified`, ..
    pub(crate) kind: String,
    /// `user`, `greeter`, `lock-screen`, ..
    pub(crate) class: String,
    /// `:0`.
    pub(crate) display: Option<String>,
    /// `tty3`.
    pub(crate) tty: Option<String>,
    /// The number of its virtual terminal.
    pub(crate) vt: Option<u32>,
    pub(crate) active: bool,
    /// Its user has logged out, and left a process behind.
    pub(crate) closing: bool,
}

/// Why logind does not tell.
#[derive(Debug)]
pub(crate) enum Silence {
    /// It is not here, or does not run.
    Absent,
    /// What the library said.
    Failed(&'static str, io::Error),
}

/// The active session of a seat; none where nobody is there.
pub(crate) fn active_of_seat(seat: &CStr) -> Result<Option<Session>, Silence> {
    let library = library()?;
    let mut id = ptr::null_mut();
    // SAFETY: the seat is NUL-terminated; a new string is written to `id` or nothing; the uid is not asked for.
    let result = unsafe { (library.seat_get_active)(seat.as_ptr(), &raw mut id, ptr::null_mut()) };
    match told("sd_seat_get_active", result)? {
        None => Ok(None),
        Some(_) => match owned(id) {
            Some(id) => session(&id),
            None => Ok(None),
        },
    }
}

/// All sessions; one that ends meanwhile is left out.
pub(crate) fn sessions() -> Result<Vec<Session>, Silence> {
    let library = library()?;
    let mut list: *mut *mut c_char = ptr::null_mut();
    // SAFETY: on success a new NULL-terminated array of new strings is written to `list`.
    let result = unsafe { (library.get_sessions)(&raw mut list) };
    if told("sd_get_sessions", result)?.is_none() || list.is_null() {
        return Ok(Vec::new());
    }
    let mut ids = Vec::new();
    let mut next = list;
    loop {
        // SAFETY: `next` is at most at the terminating NULL.
        let id = unsafe { *next };
        if id.is_null() {
            break;
        }
        ids.extend(owned(id));
        // SAFETY: not at the end yet, as just seen.
        next = unsafe { next.add(1) };
    }
    // SAFETY: malloc'ed by the library for its caller, its strings are freed already.
    unsafe { libc::free(list.cast::<c_void>()) };
    ids.iter().filter_map(|id| session(id).transpose()).collect()
}

/// A session by logind's name for it; none where there is no such session.
pub(crate) fn session(id: &CStr) -> Result<Option<Session>, Silence> {
    let library = library()?;
    let mut uid = RawUid::MAX;
    // SAFETY: the name is NUL-terminated, the uid is written by the call alone.
    let result = unsafe { (library.session_get_uid)(id.as_ptr(), &raw mut uid) };
    let uid = told("sd_session_get_uid", result)?.and_then(|_| Uid::new(uid));
    let Some(uid) = uid else { return Ok(None) };
    let text = |call: Text, name| -> Result<Option<String>, Silence> {
        let mut value = ptr::null_mut();
        // SAFETY: as above: a new string is written to `value`, or nothing.
        let result = unsafe { call(id.as_ptr(), &raw mut value) };
        let said = told(name, result)?;
        let value = owned(value);
        Ok(said.and(value).and_then(|text| text.into_string().ok()))
    };
    let mut vt = 0;
    // SAFETY: the number is written by the call alone.
    let vt_known = unsafe { (library.session_get_vt)(id.as_ptr(), &raw mut vt) };
    // SAFETY: the name is NUL-terminated.
    let active = unsafe { (library.session_is_active)(id.as_ptr()) };
    Ok(Some(Session {
        id: id.to_string_lossy().into_owned(),
        uid,
        kind: text(library.session_get_type, "sd_session_get_type")?.unwrap_or_default(),
        class: text(library.session_get_class, "sd_session_get_class")?.unwrap_or_default(),
        display: text(library.session_get_display, "sd_session_get_display")?,
        tty: text(library.session_get_tty, "sd_session_get_tty")?,
        vt: (vt_known >= 0 && vt > 0).then_some(vt),
        active: told("sd_session_is_active", active)? == Some(1),
        closing: text(library.session_get_state, "sd_session_get_state")?.as_deref() == Some("closing"),
    }))
}

/// A return value of sd-login: negative errnos; what is not there, or is not known of this session, is none.
fn told(call: &'static str, result: c_int) -> Result<Option<c_int>, Silence> {
    match -result {
        ..=0 => Ok(Some(result)),
        libc::ENXIO | libc::ENODATA | libc::ENOENT => Ok(None),
        errno => Err(Silence::Failed(call, io::Error::from_raw_os_error(errno))),
    }
}

/// Takes over a string of the library's; none for NULL.
fn owned(text: *mut c_char) -> Option<CString> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the library's strings are NUL-terminated.
    let copy = unsafe { CStr::from_ptr(text) }.to_owned();
    // SAFETY: malloc'ed by the library for its caller, and not used after this.
    unsafe { libc::free(text.cast::<c_void>()) };
    Some(copy)
}

fn library() -> Result<&'static Library, Silence> {
    static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();
    // sd_booted(3) tests for the same directory; logind makes this one when it starts.
    if !std::path::Path::new("/run/systemd/seats").is_dir() {
        return Err(Silence::Absent);
    }
    LIBRARY.get_or_init(load).as_ref().ok_or(Silence::Absent)
}

fn load() -> Option<Library> {
    // SAFETY: loading a system library runs its initialisers; libsystemd's have no preconditions.
    let library = unsafe { libc::dlopen(c"libsystemd.so.0".as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if library.is_null() {
        return None;
    }
    Some(Library {
        seat_get_active: symbol!(library, Active, c"sd_seat_get_active")?,
        get_sessions: symbol!(library, All, c"sd_get_sessions")?,
        session_is_active: symbol!(library, Is, c"sd_session_is_active")?,
        session_get_uid: symbol!(library, Id, c"sd_session_get_uid")?,
        session_get_vt: symbol!(library, Number, c"sd_session_get_vt")?,
        session_get_type: symbol!(library, Text, c"sd_session_get_type")?,
        session_get_class: symbol!(library, Text, c"sd_session_get_class")?,
        session_get_display: symbol!(library, Text, c"sd_session_get_display")?,
        session_get_tty: symbol!(library, Text, c"sd_session_get_tty")?,
        session_get_state: symbol!(library, Text, c"sd_session_get_state")?,
    })
}

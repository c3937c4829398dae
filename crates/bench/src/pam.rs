//! PAM as a program written for it uses it: the floor of a logon.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::ptr;

const ESTABLISH: c_int = 2;
const DELETE: c_int = 4;

#[repr(C)]
struct Response {
    text: *mut c_char,
    code: c_int,
}

type Converse = extern "C" fn(c_int, *const *const c_void, *mut *mut Response, *mut c_void) -> c_int;

#[repr(C)]
struct Conversation {
    converse: Converse,
    password: *mut c_void,
}

type Start =
    unsafe extern "C" fn(*const c_char, *const c_char, *const Conversation, *mut *mut c_void) -> c_int;
type Phase = unsafe extern "C" fn(*mut c_void, c_int) -> c_int;

/// Answers whatever is asked with the password.
extern "C" fn converse(
    count: c_int,
    _messages: *const *const c_void,
    responses: *mut *mut Response,
    password: *mut c_void,
) -> c_int {
    const BUFFER_ERROR: c_int = 5;
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: PAM frees with free(3) what it is given here: an array of responses and their texts. The
    // password is the NUL-terminated string that the conversation was made with.
    unsafe {
        let all = libc::calloc(count, size_of::<Response>()).cast::<Response>();
        if all.is_null() {
            return BUFFER_ERROR;
        }
        for index in 0..count {
            (*all.add(index)).text = libc::strdup(password.cast::<c_char>());
        }
        *responses = all;
    }
    0
}

/// Logs a user on and off again in a child, by every phase that a logon has, and waits for the child's end. Without a
/// password the user is not asked for one.
pub(crate) fn log_on_and_off(service: &str, user: &str, password: Option<&str>) -> io::Result<()> {
    let (service, user) = (CString::new(service)?, CString::new(user)?);
    let password = password.map(CString::new).transpose()?;
    // SAFETY: the only other threads of this process wait, and hold no lock.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    if pid == 0 {
        // As whatever logs users on does; where the kernel shares the processors among sessions, it counts.
        // SAFETY: the call takes nothing.
        unsafe { libc::setsid() };
        let done = in_child(&service, &user, password.as_deref());
        // SAFETY: ends this process, which is the child.
        unsafe { libc::_exit(i32::from(done.is_none())) };
    }
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result; the child is ours and not yet reaped.
    if unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    if status == 0 { Ok(()) } else { Err(io::Error::other("PAM refused the user")) }
}

fn in_child(service: &CStr, user: &CStr, password: Option<&CStr>) -> Option<()> {
    // SAFETY: loading a system library; it is never unloaded.
    let library = unsafe { libc::dlopen(c"libpam.so.0".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    let symbol = |name: &CStr| {
        // SAFETY: the handle is a library's or NULL, which dlsym takes for all that are loaded.
        let address = unsafe { libc::dlsym(library, name.as_ptr()) };
        (!address.is_null()).then_some(address)
    };
    let phase = |name: &CStr| {
        // SAFETY: the functions that are asked for here are declared so in security/pam_appl.h.
        symbol(name).map(|address| unsafe { std::mem::transmute::<*mut c_void, Phase>(address) })
    };
    // SAFETY: as above.
    let start = unsafe { std::mem::transmute::<*mut c_void, Start>(symbol(c"pam_start")?) };
    let conversation = Conversation {
        converse,
        password: password.unwrap_or_default().as_ptr().cast::<c_void>().cast_mut(),
    };
    let mut handle = ptr::null_mut();
    // SAFETY: the strings and the conversation outlive the handle, which ends with this function.
    if unsafe { start(service.as_ptr(), user.as_ptr(), &raw const conversation, &raw mut handle) } != 0 {
        return None;
    }
    let first = if password.is_some() { phase(c"pam_authenticate") } else { None };
    let phases = [
        first.map(|authenticate| (authenticate, 0)),
        Some((phase(c"pam_acct_mgmt")?, 0)),
        Some((phase(c"pam_setcred")?, ESTABLISH)),
        Some((phase(c"pam_open_session")?, 0)),
        Some((phase(c"pam_close_session")?, 0)),
        Some((phase(c"pam_setcred")?, DELETE)),
        Some((phase(c"pam_end")?, 0)),
    ];
    for (act, flags) in phases.into_iter().flatten() {
        // SAFETY: the handle is that of pam_start; pam_end is the last that is called with it.
        if unsafe { act(handle, flags) } != 0 {
            return None;
        }
    }
    Some(())
}

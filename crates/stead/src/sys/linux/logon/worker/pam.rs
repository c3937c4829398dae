//! libpam, loaded when the worker needs it, and its conversation.
//!
//! Loaded, not linked: neither headers nor a `-dev` package are needed to build, and a server that never
//! logs anybody on does without libpam. It is never unloaded, for its modules may have left threads or
//! handlers behind.
//!
//! Reference: [pam(3)](https://man7.org/linux/man-pages/man3/pam.3.html).

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;

use super::super::message::SecretBytes;
use crate::sys::linux::library::symbol;

const SUCCESS: c_int = 0;
const BUF_ERR: c_int = 5;
const CONV_ERR: c_int = 19;

const ITEM_USER: c_int = 2;
const ITEM_TTY: c_int = 3;
const ITEM_RHOST: c_int = 4;
const ITEM_RUSER: c_int = 8;

const ESTABLISH_CRED: c_int = 0x2;
const DELETE_CRED: c_int = 0x4;
const CHANGE_EXPIRED_AUTHTOK: c_int = 0x20;
const DISALLOW_NULL_AUTHTOK: c_int = 0x1;

const PROMPT_ECHO_OFF: c_int = 1;
const PROMPT_ECHO_ON: c_int = 2;
const ERROR_MSG: c_int = 3;
const TEXT_INFO: c_int = 4;
/// PAM_MAX_NUM_MSG.
const MOST_MESSAGES: usize = 32;
/// PAM_MAX_MSG_SIZE is 512; modules are not held to it.
const LONGEST_MESSAGE: usize = 4096;

#[repr(C)]
struct PamMessage {
    style: c_int,
    text: *const c_char,
}

#[repr(C)]
struct PamResponse {
    text: *mut c_char,
    return_code: c_int,
}

type Converse = extern "C" fn(c_int, *mut *const PamMessage, *mut *mut PamResponse, *mut c_void) -> c_int;

#[repr(C)]
struct PamConversation {
    converse: Converse,
    data: *mut c_void,
}

/// `pam_handle_t`.
#[repr(C)]
struct Opaque {
    _private: [u8; 0],
}
type Raw = *mut Opaque;
type WithFlags = unsafe extern "C" fn(Raw, c_int) -> c_int;

type Start = unsafe extern "C" fn(*const c_char, *const c_char, *const PamConversation, *mut Raw) -> c_int;
type SetItem = unsafe extern "C" fn(Raw, c_int, *const c_void) -> c_int;
type GetItem = unsafe extern "C" fn(Raw, c_int, *mut *const c_void) -> c_int;
type PutEnv = unsafe extern "C" fn(Raw, *const c_char) -> c_int;
type GetEnvList = unsafe extern "C" fn(Raw) -> *mut *mut c_char;
type StrError = unsafe extern "C" fn(Raw, c_int) -> *const c_char;

struct Library {
    start: Start,
    end: WithFlags,
    authenticate: WithFlags,
    acct_mgmt: WithFlags,
    chauthtok: WithFlags,
    setcred: WithFlags,
    open_session: WithFlags,
    close_session: WithFlags,
    set_item: SetItem,
    get_item: GetItem,
    putenv: PutEnv,
    getenvlist: GetEnvList,
    strerror: StrError,
}

fn load() -> Result<Library, String> {
    let why = || {
        // SAFETY: dlerror gives NULL or a NUL-terminated text that lives until the next call.
        let text = unsafe { libc::dlerror() };
        if text.is_null() {
            return "libpam.so.0 cannot be loaded".to_owned();
        }
        // SAFETY: as above; copied at once.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    };
    // GLOBAL: where modules are not linked to libpam they find its functions only so.
    // SAFETY: loading a system library runs its initialisers; libpam's have no preconditions.
    let library = unsafe { libc::dlopen(c"libpam.so.0".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if library.is_null() {
        return Err(why());
    }
    Ok(Library {
        start: symbol!(library, Start, c"pam_start").ok_or_else(why)?,
        end: symbol!(library, WithFlags, c"pam_end").ok_or_else(why)?,
        authenticate: symbol!(library, WithFlags, c"pam_authenticate").ok_or_else(why)?,
        acct_mgmt: symbol!(library, WithFlags, c"pam_acct_mgmt").ok_or_else(why)?,
        chauthtok: symbol!(library, WithFlags, c"pam_chauthtok").ok_or_else(why)?,
        setcred: symbol!(library, WithFlags, c"pam_setcred").ok_or_else(why)?,
        open_session: symbol!(library, WithFlags, c"pam_open_session").ok_or_else(why)?,
        close_session: symbol!(library, WithFlags, c"pam_close_session").ok_or_else(why)?,
        set_item: symbol!(library, SetItem, c"pam_set_item").ok_or_else(why)?,
        get_item: symbol!(library, GetItem, c"pam_get_item").ok_or_else(why)?,
        putenv: symbol!(library, PutEnv, c"pam_putenv").ok_or_else(why)?,
        getenvlist: symbol!(library, GetEnvList, c"pam_getenvlist").ok_or_else(why)?,
        strerror: symbol!(library, StrError, c"pam_strerror").ok_or_else(why)?,
    })
}

/// Modules stay loaded as libpam does, until the process ends: unloading one after the other takes longer than all that they
/// do when a session is closed, and somebody waits for that.
fn keep_loaded() {
    unsafe extern "C" fn note(object: *mut libc::dl_phdr_info, _size: usize, names: *mut c_void) -> c_int {
        // SAFETY: `dl_iterate_phdr` passes a description that is valid for this call, and `names` as it was given it.
        let (object, names) = unsafe { (&*object, &mut *names.cast::<Vec<CString>>()) };
        if !object.dlpi_name.is_null() {
            // SAFETY: the name of a loaded object is NUL-terminated.
            names.push(unsafe { CStr::from_ptr(object.dlpi_name) }.to_owned());
        }
        0
    }
    let mut names: Vec<CString> = Vec::new();
    // SAFETY: `note` is as the function wants it, and `names` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut names).cast()) };
    for name in names.iter().filter(|name| !name.is_empty()) {
        // dlopen(3): with NOLOAD, NODELETE is promoted on an object that is there already.
        let flags = libc::RTLD_NOW | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
        // SAFETY: nothing is loaded, so that no initialiser runs.
        unsafe { libc::dlopen(name.as_ptr(), flags) };
    }
}

/// Who answers what modules ask.
pub(super) trait Answers {
    /// The answer to a prompt; `None` refuses.
    fn prompt(&mut self, text: &[u8], echo: bool) -> Option<SecretBytes>;
    /// A text for whoever logs on.
    fn inform(&mut self, text: &[u8], error: bool);
}

/// What PAM returned when it was not success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PamFault {
    pub(super) code: i32,
    pub(super) text: String,
}

/// One PAM transaction.
pub(super) struct Pam<A: Answers> {
    library: Library,
    handle: Raw,
    /// libpam keeps both addresses, so they are owned through raw pointers until the end.
    answers: *mut A,
    conversation: *mut PamConversation,
    /// The flags of the phases in which a password may be asked for.
    of_passwords: c_int,
    last: c_int,
}

/// The phases of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    Authenticate,
    Account,
    ChangeExpired,
    Establish,
    OpenSession,
    CloseSession,
    Delete,
}

/// Items that the server states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item {
    User = ITEM_USER as isize,
    Tty = ITEM_TTY as isize,
    RemoteHost = ITEM_RHOST as isize,
    RemoteUser = ITEM_RUSER as isize,
}

/// Why there is no transaction.
pub(super) enum StartFault {
    /// libpam cannot be loaded.
    Library(String),
    Pam(PamFault),
}

impl<A: Answers> Pam<A> {
    /// `pam_start`, of a user that is set later.
    pub(super) fn start(service: &CStr, answers: A) -> Result<Self, StartFault> {
        let library = load().map_err(StartFault::Library)?;
        let answers = Box::into_raw(Box::new(answers));
        let conversation =
            Box::into_raw(Box::new(PamConversation { converse: converse::<A>, data: answers.cast() }));
        let mut handle: Raw = ptr::null_mut();
        // SAFETY: the service is NUL-terminated, and libpam takes no user for one that is set later; the
        // conversation and its data stay where they are until `drop` has called pam_end.
        let result = unsafe { (library.start)(service.as_ptr(), ptr::null(), conversation, &raw mut handle) };
        let pam = Self { library, handle, answers, conversation, of_passwords: 0, last: result };
        match pam.fault(result) {
            Some(fault) => Err(StartFault::Pam(fault)),
            None if pam.handle.is_null() => {
                Err(StartFault::Pam(PamFault { code: BUF_ERR, text: "no handle".to_owned() }))
            }
            None => {
                keep_loaded();
                Ok(pam)
            }
        }
    }

    /// From now on nobody is let in by an empty password, whatever the service's modules would do (`nullok`).
    pub(super) fn refuse_empty_passwords(&mut self) {
        self.of_passwords = DISALLOW_NULL_AUTHTOK;
    }

    /// One phase.
    pub(super) fn call(&mut self, call: Call) -> Result<(), PamFault> {
        let library = &self.library;
        let (function, flags) = match call {
            Call::Authenticate => (library.authenticate, self.of_passwords),
            Call::Account => (library.acct_mgmt, self.of_passwords),
            Call::ChangeExpired => (library.chauthtok, CHANGE_EXPIRED_AUTHTOK),
            Call::Establish => (library.setcred, ESTABLISH_CRED),
            Call::OpenSession => (library.open_session, 0),
            Call::CloseSession => (library.close_session, 0),
            Call::Delete => (library.setcred, DELETE_CRED),
        };
        // SAFETY: the handle is that of pam_start, and pam_end has not been called; nothing else refers to
        // `answers` while modules call back.
        self.last = unsafe { function(self.handle, flags) };
        self.fault(self.last).map_or(Ok(()), Err)
    }

    /// PAM_USER as it now is.
    pub(super) fn user(&self) -> Option<CString> {
        let mut item: *const c_void = ptr::null();
        // SAFETY: the handle is live; PAM_USER is a NUL-terminated string that PAM owns.
        let result = unsafe { (self.library.get_item)(self.handle, ITEM_USER, &raw mut item) };
        if result != SUCCESS || item.is_null() {
            return None;
        }
        // SAFETY: as above; copied before anything else is called.
        Some(unsafe { CStr::from_ptr(item.cast()) }.to_owned())
    }

    pub(super) fn set(&mut self, item: Item, value: &CStr) -> Result<(), PamFault> {
        // SAFETY: the handle is live; libpam copies the string.
        let result = unsafe { (self.library.set_item)(self.handle, item as c_int, value.as_ptr().cast()) };
        self.fault(result).map_or(Ok(()), Err)
    }

    /// `pam_putenv` of `NAME=value`.
    pub(super) fn put_environment(&mut self, variable: &CStr) -> Result<(), PamFault> {
        // SAFETY: the handle is live; libpam copies the string.
        let result = unsafe { (self.library.putenv)(self.handle, variable.as_ptr()) };
        self.fault(result).map_or(Ok(()), Err)
    }

    /// `pam_getenvlist`.
    pub(super) fn environment(&self) -> Vec<CString> {
        // SAFETY: the handle is live; the list and its strings are malloc'ed and the caller's.
        let list = unsafe { (self.library.getenvlist)(self.handle) };
        let mut variables = Vec::new();
        if list.is_null() {
            return variables;
        }
        for index in 0.. {
            // SAFETY: the list ends with NULL, and the loop there.
            let variable = unsafe { *list.add(index) };
            if variable.is_null() {
                break;
            }
            // SAFETY: a NUL-terminated string of the list.
            variables.push(unsafe { CStr::from_ptr(variable) }.to_owned());
            // SAFETY: malloc'ed by libpam, given to the caller, not used again.
            unsafe { libc::free(variable.cast()) };
        }
        // SAFETY: as above.
        unsafe { libc::free(list.cast()) };
        variables
    }

    /// Who answers, between the phases.
    pub(super) fn answers(&mut self) -> &mut A {
        // SAFETY: a live box that only `self` owns; no module runs while this borrow of `self` lasts.
        unsafe { &mut *self.answers }
    }

    fn fault(&self, result: c_int) -> Option<PamFault> {
        if result == SUCCESS {
            return None;
        }
        // SAFETY: pam_strerror takes any handle and code, and gives NULL or a static text.
        let text = unsafe { (self.library.strerror)(self.handle, result) };
        let text = if text.is_null() {
            format!("PAM error {result}")
        } else {
            // SAFETY: as above.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
        };
        Some(PamFault { code: result, text })
    }
}

impl<A: Answers> Drop for Pam<A> {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            // SAFETY: the handle is live and not used again.
            unsafe { (self.library.end)(self.handle, self.last) };
        }
        // SAFETY: both came from Box::into_raw in `start`; libpam does not know them any more.
        drop(unsafe { Box::from_raw(self.conversation) });
        // SAFETY: as above.
        drop(unsafe { Box::from_raw(self.answers) });
    }
}

/// The conversation function (`pam_conv(3)`).
///
/// A panic ends the conversation and not this process, which has what PAM began to undo.
extern "C" fn converse<A: Answers>(
    count: c_int,
    messages: *mut *const PamMessage,
    responses: *mut *mut PamResponse,
    data: *mut c_void,
) -> c_int {
    std::panic::catch_unwind(|| converse_with::<A>(count, messages, responses, data)).unwrap_or(CONV_ERR)
}

fn converse_with<A: Answers>(
    count: c_int,
    messages: *mut *const PamMessage,
    responses: *mut *mut PamResponse,
    data: *mut c_void,
) -> c_int {
    let Ok(count) = usize::try_from(count) else { return CONV_ERR };
    if count == 0 || count > MOST_MESSAGES || messages.is_null() || responses.is_null() || data.is_null() {
        return CONV_ERR;
    }
    // SAFETY: `data` is the `A` that `start` gave; PAM calls back on this one thread, inside `call`, where
    // nothing else refers to it.
    let answers = unsafe { &mut *data.cast::<A>() };
    // SAFETY: plain allocation; zeroed, so that every text is NULL and every code 0.
    let array: *mut PamResponse = unsafe { libc::calloc(count, size_of::<PamResponse>()) }.cast();
    if array.is_null() {
        return BUF_ERR;
    }
    for index in 0..count {
        // Linux-PAM gives an array of pointers, each to a message; Solaris, a pointer to an array.
        // SAFETY: PAM promises `count` pointers to messages; NULL is looked for.
        let Some(message) = (unsafe { (*messages.add(index)).as_ref() }) else {
            release(array, count);
            return CONV_ERR;
        };
        let text = if message.text.is_null() {
            &[][..]
        } else {
            // SAFETY: a NUL-terminated text that lives for the call.
            let text = unsafe { CStr::from_ptr(message.text) }.to_bytes();
            &text[..text.len().min(LONGEST_MESSAGE)]
        };
        let answer = match message.style {
            PROMPT_ECHO_OFF | PROMPT_ECHO_ON => answers.prompt(text, message.style == PROMPT_ECHO_ON),
            ERROR_MSG | TEXT_INFO => {
                answers.inform(text, message.style == ERROR_MSG);
                continue;
            }
            _ => None,
        };
        // SAFETY: `index` is below `count`, the array's length.
        let response = unsafe { &mut *array.add(index) };
        response.text = answer.map_or(ptr::null_mut(), |answer| duplicate(&answer));
        if response.text.is_null() {
            release(array, count);
            return CONV_ERR;
        }
    }
    // SAFETY: not NULL, as was checked; the module frees the array.
    unsafe { *responses = array };
    SUCCESS
}

/// A malloc'ed, NUL-terminated copy, which the module wipes and frees.
fn duplicate(answer: &[u8]) -> *mut c_char {
    if answer.contains(&0) {
        return ptr::null_mut();
    }
    // SAFETY: plain allocation of one byte more than the answer.
    let copy: *mut u8 = unsafe { libc::malloc(answer.len() + 1) }.cast();
    if !copy.is_null() {
        // SAFETY: the copy has room for the answer and its NUL, and overlaps nothing.
        unsafe {
            ptr::copy_nonoverlapping(answer.as_ptr(), copy, answer.len());
            copy.add(answer.len()).write(0);
        }
    }
    copy.cast()
}

/// Wipes and frees the responses of a conversation that failed.
fn release(array: *mut PamResponse, count: usize) {
    for index in 0..count {
        // SAFETY: within the array of `count` responses that calloc gave.
        let text = unsafe { (*array.add(index)).text };
        if !text.is_null() {
            // SAFETY: made by `duplicate`: NUL-terminated, malloc'ed, and not used again.
            unsafe {
                libc::explicit_bzero(text.cast(), libc::strlen(text));
                libc::free(text.cast());
            }
        }
    }
    // SAFETY: calloc's, not used again.
    unsafe { libc::free(array.cast()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Panics;

    impl Answers for Panics {
        fn prompt(&mut self, _text: &[u8], _echo: bool) -> Option<SecretBytes> {
            std::panic::resume_unwind(Box::new("the conversation panics"))
        }

        fn inform(&mut self, _text: &[u8], _error: bool) {}
    }

    #[test]
    fn a_panic_in_the_conversation_fails_the_prompt_and_the_process_goes_on() {
        let message = PamMessage { style: PROMPT_ECHO_OFF, text: c"Password: ".as_ptr() };
        let mut messages: [*const PamMessage; 1] = [&raw const message];
        let mut responses = ptr::null_mut();
        let mut answers = Panics;
        let data: *mut Panics = &raw mut answers;
        let code = converse::<Panics>(1, messages.as_mut_ptr(), &raw mut responses, data.cast());
        assert_eq!(code, CONV_ERR);
        assert!(responses.is_null());
    }
}

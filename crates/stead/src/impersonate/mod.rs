//! Acting as a client on one thread: open its files and connect to its sockets with its rights.
//!
//! [`Token::impersonate`] puts the client's identity on the calling thread for the length of a closure, and puts
//! back what was there before. No other thread changes. The closure's [`Impersonating`] handle opens, connects and
//! asks as the client.
//!
//! ```no_run
//! use std::io::Read;
//!
//! # fn example(token: stead::Token<stead::Impersonation>) -> Result<(), Box<dyn std::error::Error>> {
//! let mut notes = token.impersonate(|me| me.open("notes.txt"))??;
//! let mut text = String::new();
//! notes.read_to_string(&mut text)?; // as the server again; the right was checked when the file was opened
//! # Ok(()) }
//! ```
//!
//! # What it governs
//!
//! Opening files and connecting sockets: what the kernel decides by the *effective* ids of the thread. On Linux
//! they become the client's (uid, gid, exactly its groups), and all of the thread's capabilities are turned off.
//! Every change is read back before the closure runs, and again after; a server whose own identity cannot be put
//! back aborts, for it would run on as somebody else. There and back takes 1.3 to 1.7 times what the bare system calls
//! take that change the ids, for each is followed by reading what became of it; with 16 groups that is some 15 µs.
//! What opens many files as one client does so in one closure. `cargo xtask bench impersonate files` measures both.
//!
//! The first impersonation makes the process undumpable for good (`PR_SET_DUMPABLE` in
//! [prctl(2)](https://man7.org/linux/man-pages/man2/prctl.2.html)): its core is not written any more, and other
//! processes of the client cannot debug it. That is on purpose; do not set it again.
//!
//! # What it does not govern
//!
//! Each line is a test in `tests/impersonate_limits.rs`.
//!
//! * Signals: a signal sent from the closure is the server's, by its real uid.
//! * Debugging, [`prlimit`](https://man7.org/linux/man-pages/man2/prlimit.2.html) and other calls about
//!   processes: they go by the real ids, which stay the server's.
//! * Keyrings: the thread, process and session keyrings are still the server's.
//! * Programs started in the closure by other means than this library, `std::process::Command` among them: they
//!   have the server's real uid, with which bash and Python make themselves the server again. This library's
//!   own `Command` is safe there, as anywhere: it acts as the server, and its child is the token's.
//! * Threads started in the closure have the client's ids for as long as they live: they
//!   are not the thread that is put back.
//! * Futures made in the closure run where they are awaited, as whoever is there. With the `tokio` feature,
//!   `impersonate_async` runs a closure on a thread of its own and awaits its result.
//! * `std::fs` in the closure acts as the client too, but `/proc/self` is the server's whoever asks, and is
//!   reached by magic links in paths that the client chooses. The handle's methods refuse both.
//! * A process is confined by more than ids: `no_new_privs`, seccomp, namespaces and the security label of the
//!   client's process do not come over with its ids. [`Client`] refuses a client that is confined more than the
//!   server.
//!
//! Nor does it shield the server from what it reads: the closure runs in the server's memory, and what the client
//! chose to put in a file is to be parsed with that in mind. A signal handler of the server that happens to run on
//! the thread meanwhile runs as the client.
#![forbid(unsafe_code)]

#[cfg(feature = "tokio")]
mod asynchronous;
mod files;

pub use files::{Access, Names, OpenOptions};

use std::fmt;
use std::marker::PhantomData;

use crate::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::sys;
use crate::token::{Impersonation, ImpersonationLevel, Token, TokenKind};

/// The calling thread while it impersonates.
///
/// It exists only inside the closure of [`Token::impersonate`], on that thread. Its methods act as the client.
///
/// A relative path starts at the client's home directory; the server's own working directory plays no part.
/// No path passes through the magic links of procfs (`/proc/self/fd/3`, `/proc/self/root`), nor ends in procfs:
/// what stands there is the server's, and the kernel would show it. Descriptors are close-on-exec. Opening
/// and connecting never wait for the client; walking a path on a file system that the client itself serves
/// (FUSE mounted with `allow_other`) can, without end: where clients may mount such, use the `tokio` feature's
/// `impersonate_async` with a timeout, which costs a thread and not the server.
///
/// # Errors
///
/// All that reach files: [`ErrorKind::AccessDenied`] where the client may not, and for procfs;
/// [`ErrorKind::NotFound`]; [`ErrorKind::KernelTooOld`] without `openat2` (Linux 5.6);
/// [`ErrorKind::ImpersonationChanged`] where another impersonation was begun on top and is still on the thread;
/// [`ErrorKind::InvalidInput`] for a special file, for a path that is empty or holds a NUL, and for a relative
/// one where the client has no home directory; [`ErrorKind::System`] for the rest.
///
/// # It stays where it is
///
/// The handle cannot leave the closure:
///
/// ```compile_fail,E0521
/// fn escape(token: &stead::Token<stead::Primary>) {
///     let mut kept: Option<&mut stead::Impersonating<'_>> = None;
///     let _ = token.impersonate(|me| kept = Some(me));
/// }
/// ```
///
/// nor as its result, nor inside a future that would run later, as the server:
///
/// ```compile_fail
/// fn escape(token: &stead::Token<stead::Primary>) {
///     let _ = token.impersonate(|me| me);
/// }
/// ```
/// ```compile_fail
/// fn later(token: &stead::Token<stead::Primary>) {
///     let _future = token.impersonate(|me| async move { me.open("notes.txt") });
/// }
/// ```
///
/// nor reach another thread, which would act as the server:
///
/// ```compile_fail,E0277
/// fn elsewhere(token: &stead::Token<stead::Primary>) {
///     let _ = token.impersonate(|me| {
///         std::thread::scope(|scope| {
///             scope.spawn(|| me.open("notes.txt"));
///         });
///     });
/// }
/// ```
///
/// nor be used while a nested impersonation is on the thread:
///
/// ```compile_fail,E0502
/// fn nested(token: &stead::Token<stead::Primary>, other: &stead::Token<stead::Primary>) {
///     let _ = token.impersonate(|me| me.impersonate(other, |_inner| me.open("notes.txt")));
/// }
/// ```
#[doc(alias = "ImpersonateLoggedOnUser")]
pub struct Impersonating<'a> {
    token: &'a Token<Impersonation>,
    /// Bound to the thread, and of no other lifetime than its own.
    thread: PhantomData<*mut &'a ()>,
}

impl<K: TokenKind> Token<K> {
    /// Runs `act` as the client on the calling thread, and puts back what was there before.
    ///
    /// Where the thread impersonates already, that impersonation is on it again after. A panic of `act` goes on
    /// when the thread is the server again. No other thread is touched. What this governs and what not is
    /// told in [`impersonate`](crate::impersonate).
    ///
    /// # Errors
    ///
    /// Then `act` has not run. [`ErrorKind::LevelTooLow`] below [`ImpersonationLevel::Impersonation`];
    /// [`ErrorKind::PrivilegeMissing`] without [`Privilege::Impersonate`](crate::Privilege) enabled;
    /// [`ErrorKind::InvalidInput`] for ids that the server's user namespace does not have;
    /// [`ErrorKind::System`] when a call fails.
    ///
    /// # Aborts
    ///
    /// When the thread's former identity cannot be put back: it would run on as somebody else.
    ///
    /// References: [ImpersonateLoggedOnUser](https://learn.microsoft.com/windows/win32/api/securitybaseapi/nf-securitybaseapi-impersonateloggedonuser),
    /// [credentials(7)](https://man7.org/linux/man-pages/man7/credentials.7.html).
    ///
    /// ```no_run
    /// # fn example(token: stead::Token<stead::Impersonation>) -> stead::Result<()> {
    /// let length = token.impersonate(|me| me.metadata("notes.txt"))??.len();
    /// # Ok(()) }
    /// ```
    #[doc(alias = "ImpersonateLoggedOnUser")]
    #[doc(alias = "RevertToSelf")]
    #[doc(alias = "SetThreadToken")]
    pub fn impersonate<R>(&self, act: impl FnOnce(&mut Impersonating<'_>) -> R) -> Result<R> {
        const NEEDED: ImpersonationLevel = ImpersonationLevel::Impersonation;
        self.require_level(NEEDED, "impersonating")?;
        let token = self.duplicate(self.level())?;
        sys::impersonate::impersonate(&token, || {
            act(&mut Impersonating { token: &token, thread: PhantomData })
        })
    }
}

impl Client {
    /// Runs `act` as the client on the calling thread: [`Client::token`], then [`Token::impersonate`].
    ///
    /// # Errors
    ///
    /// Those of both; then `act` has not run.
    ///
    /// Reference: [ImpersonateNamedPipeClient](https://learn.microsoft.com/windows/win32/api/namedpipeapi/nf-namedpipeapi-impersonatenamedpipeclient).
    ///
    /// ```no_run
    /// # fn example(client: stead::Client) -> stead::Result<()> {
    /// use stead::Token;
    ///
    /// let primary = client.impersonate(|me| Token::open_thread(me)?.to_primary())??;
    /// # Ok(()) }
    /// ```
    #[doc(alias = "ImpersonateNamedPipeClient")]
    #[doc(alias = "RpcImpersonateClient")]
    #[doc(alias = "RevertToSelf")]
    pub fn impersonate<R>(&self, act: impl FnOnce(&mut Impersonating<'_>) -> R) -> Result<R> {
        // How the client is confined is read with the server's rights, also inside another impersonation.
        sys::impersonate::as_server(|| self.token())?.impersonate(act)
    }
}

impl Token<Impersonation> {
    /// The token that is on the thread, after the kernel's ids of the thread were compared with it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::ImpersonationChanged`] where a call past this library has changed the thread.
    ///
    /// Reference: [OpenThreadToken](https://learn.microsoft.com/windows/win32/api/processthreadsapi/nf-processthreadsapi-openthreadtoken).
    ///
    /// ```no_run
    /// # fn example(token: stead::Token<stead::Impersonation>) -> stead::Result<()> {
    /// use stead::Token;
    ///
    /// let primary = token.impersonate(|me| Token::open_thread(me)?.to_primary())??;
    /// # Ok(()) }
    /// ```
    #[doc(alias = "OpenThreadToken")]
    pub fn open_thread(me: &Impersonating<'_>) -> Result<Self> {
        me.require_on_thread()?;
        sys::impersonate::verified()
    }
}

/// The token that is on the calling thread, for code that was not handed the [`Impersonating`].
///
/// # Errors
///
/// [`ErrorKind::NotImpersonating`] on a thread without; [`ErrorKind::ImpersonationChanged`] as
/// [`Token::open_thread`].
///
/// ```
/// assert!(stead::impersonate::current().is_err());
/// ```
#[doc(alias = "OpenThreadToken")]
#[doc(alias = "GetCurrentThreadToken")]
pub fn current() -> Result<Token<Impersonation>> {
    sys::impersonate::verified()
}

impl Impersonating<'_> {
    /// Runs `act` as another client, and goes on as this one after.
    ///
    /// # Errors
    ///
    /// As [`Token::impersonate`].
    #[doc(alias = "ImpersonateLoggedOnUser")]
    pub fn impersonate<K: TokenKind, R>(
        &mut self,
        other: &Token<K>,
        act: impl FnOnce(&mut Impersonating<'_>) -> R,
    ) -> Result<R> {
        other.impersonate(act)
    }

    /// The handle of an outer impersonation can be named in the closure of one begun on another token; it
    /// must not act there, for it would act as somebody else.
    fn require_on_thread(&self) -> Result<()> {
        if sys::impersonate::is_on_thread(self.token) {
            return Ok(());
        }
        let what = "another impersonation is on the thread".into();
        Err(Error::new("acting as a client", ErrorKind::ImpersonationChanged { what }))
    }

    /// The token that is on the thread.
    pub fn token(&self) -> &Token<Impersonation> {
        self.token
    }
}

impl fmt::Debug for Impersonating<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Impersonating").field(self.token).finish()
    }
}

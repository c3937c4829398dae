//! Impersonation: a client's effective ids on the calling thread, for the length of a closure.
//!
//! What is on the thread is known to the thread alone ([`THREAD`]); it is a stack in effect, whose frames are
//! the calls of [`impersonate`] and [`as_server`]: each puts back what it found. Every change goes through the
//! server's own ids, so that a nested impersonation is never derived from the one around it.

pub(crate) mod files;
mod switch;
pub(crate) mod thread;

use std::cell::RefCell;
use std::mem;
use std::rc::Rc;
use std::sync::Arc;

use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Result};
use crate::privilege::Privilege;
use crate::sys::token::{Capability, CapabilitySet};
use crate::token::{Impersonation, Token};
use switch::{Server, Switched};
use thread::Fault;

thread_local! {
    static THREAD: RefCell<Thread> = const { RefCell::new(Thread { layer: None, server: None, groups: Vec::new() }) };
}

/// What this library knows of the calling thread.
struct Thread {
    /// The impersonation that is on the thread now.
    layer: Option<Layer>,
    /// The server as it was last read, kept so that the next impersonation allocates nothing.
    server: Option<Rc<Server>>,
    /// For reading groups back.
    groups: Vec<u32>,
}

/// One impersonation on the thread.
struct Layer {
    token: Token<Impersonation>,
    /// None for a token that another process holds: it acts, and the thread stays the server's.
    on_thread: Option<OnThread>,
}

/// The thread with a client's ids on it.
struct OnThread {
    server: Rc<Server>,
    switched: Switched,
}

/// Runs `act` with the client's effective ids on the calling thread, and puts back what was there.
///
/// `act` runs as exactly `token`, or not at all. Aborts the process if the server's ids cannot be put back.
pub(crate) fn impersonate<R>(token: &Token<Impersonation>, act: impl FnOnce() -> R) -> Result<R> {
    as_server(|| {
        Layer::begin(token)?;
        // Dropped when `act` returns, and also when it unwinds.
        let _end = End;
        Ok(act())
    })
}

/// Runs `act` with the server's own ids: where the calling thread impersonates, the impersonation is taken
/// off before and put on again after, verified; elsewhere there is nothing to do.
///
/// Aborts the process if either cannot be done.
pub(crate) fn as_server<R>(act: impl FnOnce() -> R) -> R {
    let Some(layer) = take_layer() else { return act() };
    let _again = Again(Some(layer.leave()));
    act()
}

/// Ends the impersonation that is on the thread.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        if let Some(layer) = take_layer() {
            layer.leave();
        }
    }
}

/// Puts an interrupted impersonation on again.
struct Again(Option<Layer>);

impl Drop for Again {
    fn drop(&mut self) {
        if let Some(layer) = self.0.take() {
            layer.enter_again();
        }
    }
}

/// The token that is on the calling thread.
pub(crate) fn current() -> Option<Token<Impersonation>> {
    THREAD.try_with(|thread| thread.borrow().layer.as_ref().map(|layer| layer.token.clone())).ok().flatten()
}

/// The same, after the kernel's ids of the thread were compared with it.
pub(crate) fn verified() -> Result<Token<Impersonation>> {
    const DOING: &str = "opening the thread's token";
    let not_impersonating = || Error::new(DOING, ErrorKind::NotImpersonating);
    THREAD
        .try_with(|thread| {
            let Thread { layer, groups, .. } = &mut *thread.borrow_mut();
            let layer = layer.as_ref().ok_or_else(not_impersonating)?;
            let Some(on_thread) = &layer.on_thread else { return Ok(layer.token.clone()) };
            match on_thread.server.still(&layer.token.data().context, groups) {
                Ok(()) => Ok(layer.token.clone()),
                Err(Fault::Differs(what)) => {
                    Err(Error::new(DOING, ErrorKind::ImpersonationChanged { what: what.into() }))
                }
                Err(Fault::Call { call, errno }) => Err(Error::system(DOING, call, errno)),
            }
        })
        .unwrap_or_else(|_| Err(not_impersonating()))
}

/// Whether the impersonation that is on the calling thread is `token`'s.
pub(crate) fn is_on_thread(token: &Token<Impersonation>) -> bool {
    let same = |layer: &Layer| Arc::ptr_eq(layer.token.data(), token.data());
    THREAD.try_with(|thread| thread.borrow().layer.as_ref().is_some_and(same)).unwrap_or(false)
}

fn take_layer() -> Option<Layer> {
    // A thread that is past its thread-locals impersonates nobody: the closures have all returned.
    THREAD.try_with(|thread| thread.borrow_mut().layer.take()).ok().flatten()
}

impl Layer {
    /// From the server's own ids, as they are now, to `token`'s.
    fn begin(token: &Token<Impersonation>) -> Result<()> {
        THREAD
            .try_with(|thread| {
                let Thread { layer, server: kept, groups } = &mut *thread.borrow_mut();
                if token.data().elsewhere.0.is_some() {
                    *layer = Some(Self { token: token.clone(), on_thread: None });
                    return Ok(());
                }
                let server = Server::read(kept.take(), groups).map_err(|fault| error(token, fault))?;
                *kept = Some(Rc::clone(&server));
                require(server.ids.capabilities.effective, server.ids.capabilities.permitted)?;
                let mut switched = Switched::default();
                match server.take_on(&token.data().context, &mut switched, groups) {
                    Ok(()) => {
                        let on_thread = Some(OnThread { server, switched });
                        *layer = Some(Self { token: token.clone(), on_thread });
                        Ok(())
                    }
                    Err(fault) => {
                        if let Err(worse) = server.put_back(&token.data().context, &switched, groups) {
                            abort("the server's own identity after a failed impersonation", worse);
                        }
                        Err(error(token, fault))
                    }
                }
            })
            .unwrap_or_else(|_| {
                let kind = ErrorKind::InvalidInput { what: "the thread is ending".into() };
                Err(Error::new(DOING, kind))
            })
    }

    /// Puts the server's ids back.
    fn leave(self) -> Self {
        let Some(on_thread) = &self.on_thread else { return self };
        let client = &self.token.data().context;
        let result = with_groups(|groups| on_thread.server.put_back(client, &on_thread.switched, groups));
        if let Err(fault) = result {
            abort("the server's own identity", fault);
        }
        self
    }

    /// The other way again.
    fn enter_again(mut self) {
        if let Some(OnThread { server, switched }) = &mut self.on_thread {
            *switched = Switched::default();
            let context = &self.token.data().context;
            let result = with_groups(|groups| server.take_on(context, switched, groups));
            if let Err(fault) = result {
                abort("the impersonation that was interrupted", fault);
            }
        }
        let put = THREAD.try_with(|thread| thread.borrow_mut().layer = Some(self));
        if put.is_err() {
            abort("the impersonation that was interrupted", Fault::Differs("the thread"));
        }
    }
}

/// Lends the thread's buffer, or a new one where its thread-locals are gone.
fn with_groups<R>(act: impl FnOnce(&mut Vec<u32>) -> R) -> R {
    let mut groups = THREAD.try_with(|thread| mem::take(&mut thread.borrow_mut().groups)).unwrap_or_default();
    let result = act(&mut groups);
    let _ = THREAD.try_with(|thread| thread.borrow_mut().groups = groups);
    result
}

const DOING: &str = "impersonating";

fn doing(token: &Token<Impersonation>) -> String {
    format!("{DOING} uid {}", token.data().context.uid)
}

/// What impersonation needs of the server, asked before anything is changed.
fn require(effective: u64, permitted: u64) -> Result<()> {
    let needed = CapabilitySet::EMPTY.with(Capability::Setuid).with(Capability::Setgid);
    if CapabilitySet::from_bits(effective).contains_all(needed) {
        return Ok(());
    }
    Err(missing(CapabilitySet::from_bits(needed.bits() & !effective), permitted))
}

fn missing(missing: CapabilitySet, permitted: u64) -> Error {
    let kind = ErrorKind::PrivilegeMissing {
        privilege: Privilege::Impersonate,
        missing: missing.to_string().into(),
        held: CapabilitySet::from_bits(permitted).contains_all(missing),
        enabled: false,
    };
    Error::new(DOING, kind)
}

fn error(token: &Token<Impersonation>, fault: Fault) -> Error {
    match fault {
        Fault::Call { call: "prctl(PR_SET_SECUREBITS)", errno: Errno::PERM } => {
            missing(CapabilitySet::EMPTY.with(Capability::Setpcap), 0).with_source(Errno::PERM)
        }
        Fault::Call { call: call @ ("setgroups" | "setresgid" | "setresuid"), errno: Errno::INVAL } => {
            let what = format!("{call}: an id of the client's has no place in the server's user namespace");
            Error::new(doing(token), ErrorKind::InvalidInput { what: what.into() }).with_source(Errno::INVAL)
        }
        Fault::Call { call, errno } => Error::system(doing(token), call, errno),
        Fault::Differs(what) => {
            Error::new(doing(token), ErrorKind::ImpersonationChanged { what: what.into() })
        }
    }
}

/// The thread has an identity that is neither wholly the server's nor wholly a client's: nothing may run on.
pub(crate) fn abort(what: &str, fault: Fault) -> ! {
    // No lock, no allocation that could fail: whoever reads the server's log must see this.
    let message = format!("stead: cannot put back {what} ({fault}); aborting\n");
    let _ = rustix::io::write(rustix::stdio::stderr(), message.as_bytes());
    std::process::abort()
}

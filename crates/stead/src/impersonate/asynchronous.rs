//! Impersonation for asynchronous servers: never on a thread of the runtime.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tokio::sync::oneshot;

use super::Impersonating;
use crate::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::impersonate::as_server;
use crate::token::{Token, TokenKind};

impl<K: TokenKind + 'static> Token<K> {
    /// Runs `act` as the client on a thread of its own, and waits for its result without holding the runtime.
    ///
    /// A thread of the runtime never changes its identity: what else it runs would run as the client. The thread
    /// starts when the future is first polled. Where the future is dropped before its end (a timeout), the closure
    /// goes on and its result is lost. A panic of the closure goes on where the future is awaited.
    ///
    /// # Errors
    ///
    /// As [`Token::impersonate`], and [`ErrorKind::LimitReached`] where no thread can be started.
    ///
    /// ```no_run
    /// # async fn example(token: stead::Token<stead::Impersonation>) -> stead::Result<()> {
    /// let notes = token.impersonate_async(|me| me.open("notes.txt")).await??;
    /// # Ok(()) }
    /// ```
    #[doc(alias = "ImpersonateLoggedOnUser")]
    pub fn impersonate_async<R, F>(&self, act: F) -> impl Future<Output = Result<R>> + Send + use<K, R, F>
    where
        F: FnOnce(&mut Impersonating<'_>) -> R + Send + 'static,
        R: Send + 'static,
    {
        let token = self.clone();
        on_a_thread(move || token.impersonate(act))
    }
}

impl Client {
    /// Runs `act` as the client on a thread of its own: [`Client::token`] there, then [`Token::impersonate`].
    ///
    /// The client's process is looked at when the future is polled, and by that thread too: what a busy client makes
    /// the server read holds up no task.
    ///
    /// # Errors
    ///
    /// Those of both; then `act` has not run.
    ///
    /// ```no_run
    /// # async fn example(client: stead::Client) -> stead::Result<()> {
    /// let notes = client.impersonate_async(|me| me.open("notes.txt")).await??;
    /// # Ok(()) }
    /// ```
    #[doc(alias = "ImpersonateNamedPipeClient")]
    pub fn impersonate_async<R, F>(&self, act: F) -> impl Future<Output = Result<R>> + Send + use<R, F>
    where
        F: FnOnce(&mut Impersonating<'_>) -> R + Send + 'static,
        R: Send + 'static,
    {
        let client = self.shared();
        on_a_thread(move || client.token()?.impersonate(act))
    }
}

async fn on_a_thread<R: Send + 'static>(work: impl FnOnce() -> Result<R> + Send + 'static) -> Result<R> {
    const DOING: &str = "impersonating on a thread of its own";
    let (answer, answered) = oneshot::channel();
    let work = move || {
        // Nobody waits where the future was dropped.
        let _ = answer.send(catch_unwind(AssertUnwindSafe(work)));
    };
    // A thread inherits the identity of the one that starts it.
    let started = as_server(|| std::thread::Builder::new().name("stead-client".into()).spawn(work));
    started.map_err(|source| {
        Error::new(DOING, ErrorKind::LimitReached { limit: "threads".into() }).with_source(source)
    })?;
    match answered.await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => {
            Err(Error::system(DOING, "clone", std::io::Error::other("the thread ended without an answer")))
        }
    }
}

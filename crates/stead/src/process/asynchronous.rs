//! The same for asynchronous servers: what can block is done on tokio's threads for that, the rest by its
//! reactor.
//!
//! An identity is never changed on a runtime's worker thread; creating a process does not need to.
#![forbid(unsafe_code)]

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::process::{ExitStatus, Output};
use std::task::Poll;

use tokio::task::spawn_blocking;

use super::spawn::{Capture, no_child};
use super::{Child, Command};
use crate::error::{Error, Result};
use crate::sys;
use crate::sys::OwnedObject;
use crate::sys::process::asynchronous;
use crate::token::{Primary, Token};

/// # With the `tokio` feature
///
/// These need a tokio runtime with its I/O driver enabled. Dropping one of the futures leaves the process
/// running, as dropping a [`Child`] does.
impl Command {
    /// [`spawn_as`](Self::spawn_as) without blocking the runtime.
    ///
    /// ```no_run
    /// # async fn run(token: stead::Token<stead::Primary>) -> stead::Result<()> {
    /// let mut child = stead::Command::new("report").spawn_as_async(&token).await?;
    /// println!("{}", child.wait_async().await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`spawn_as`](Self::spawn_as).
    #[doc(alias = "CreateProcessAsUser")]
    pub async fn spawn_as_async(&self, token: &Token<Primary>) -> Result<Child> {
        self.spawn_async(token, Capture::No).await
    }

    /// [`output_as`](Self::output_as) without blocking the runtime.
    ///
    /// # Errors
    /// Those of [`output_as`](Self::output_as).
    pub async fn output_as_async(&self, token: &Token<Primary>) -> Result<Output> {
        no_child(self)?;
        self.spawn_async(token, Capture::Yes).await?.wait_with_output_async().await
    }

    /// [`status_as`](Self::status_as) without blocking the runtime.
    ///
    /// # Errors
    /// Those of [`status_as`](Self::status_as).
    pub async fn status_as_async(&self, token: &Token<Primary>) -> Result<ExitStatus> {
        no_child(self)?;
        self.spawn_async(token, Capture::No).await?.wait_async().await
    }

    async fn spawn_async(&self, token: &Token<Primary>, capture: Capture) -> Result<Child> {
        // The account database may be behind a network; the token remembers what it said.
        let same = token.clone();
        blocking(move || same.account().map(drop)).await?;
        // A desktop may take its time, too. The plan then shares what is leased already.
        let (desktop, same) = (self.desktop.clone(), token.clone());
        let lease = blocking(move || desktop.lease_for(&same)).await?;
        let plan = sys::impersonate::as_server(|| sys::process::Plan::new(self, token, capture));
        blocking(move || {
            let child = plan.and_then(|plan| plan.start().map(Child::from_parts));
            // Only here: if nothing was started it is the last, and giving it back may take its time.
            drop(lease);
            child
        })
        .await
    }
}

/// # With the `tokio` feature
impl Child {
    /// [`wait`](Self::wait) without blocking the runtime; dropping the future loses nothing.
    ///
    /// # Errors
    /// Those of [`wait`](Self::wait).
    #[doc(alias = "RegisterWaitForSingleObject")]
    pub async fn wait_async(&mut self) -> Result<ExitStatus> {
        drop(self.stdin.take());
        self.not_suspended()?;
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            let ended = asynchronous::ended(&self.running).await;
            ended.map_err(|error| Error::system("waiting for a process", asynchronous::WAITING, error))?;
        }
    }

    /// [`wait_with_output`](Self::wait_with_output) without blocking the runtime.
    ///
    /// # Errors
    /// Those of [`wait_with_output`](Self::wait_with_output).
    pub async fn wait_with_output_async(mut self) -> Result<Output> {
        drop(self.stdin.take());
        self.not_suspended()?;
        let stdout = read_to_end(self.stdout.take().map(OwnedObject::from));
        let stderr = read_to_end(self.stderr.take().map(OwnedObject::from));
        let (stdout, stderr) = both(stdout, stderr).await;
        let failed = |error| Error::system("reading a process's output", "read", error);
        let (stdout, stderr) = (stdout.map_err(failed)?, stderr.map_err(failed)?);
        Ok(Output { status: self.wait_async().await?, stdout, stderr })
    }
}

async fn blocking<R: Send + 'static>(work: impl FnOnce() -> Result<R> + Send + 'static) -> Result<R> {
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::system(
                "creating a process",
                "spawn_blocking",
                io::Error::other("the runtime ends"),
            )),
        },
    }
}

/// What comes out of a pipe until its end.
async fn read_to_end(pipe: Option<OwnedObject>) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let Some(pipe) = pipe else { return Ok(all) };
    let pipe = asynchronous::reader(pipe)?;
    let mut buffer = vec![0; 64 << 10];
    loop {
        pipe.readable().await?;
        match pipe.try_read(&mut buffer) {
            Ok(0) => return Ok(all),
            Ok(length) => all.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Its writers are gone: how Windows says that it is at its end.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(all),
            Err(error) => return Err(error),
        }
    }
}

/// Both at once: a process that fills one pipe must not wait for the reader of the other.
async fn both<A, B>(first: impl Future<Output = A>, second: impl Future<Output = B>) -> (A, B) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut one, mut other) = (None, None);
    poll_fn(|context| {
        if one.is_none()
            && let Poll::Ready(result) = first.as_mut().poll(context)
        {
            one = Some(result);
        }
        if other.is_none()
            && let Poll::Ready(result) = second.as_mut().poll(context)
        {
            other = Some(result);
        }
        match (one.take(), other.take()) {
            (Some(one), Some(other)) => Poll::Ready((one, other)),
            (first, second) => {
                (one, other) = (first, second);
                Poll::Pending
            }
        }
    })
    .await
}

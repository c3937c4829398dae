//! Calls that the system may not end: bounded, each on a thread of its own.
#![forbid(unsafe_code)]

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};

/// How much time a logon has left; what is spent outside its calls does not count.
#[derive(Debug)]
pub(super) struct Clock(Duration);

impl Clock {
    pub(super) fn new(limit: Duration) -> Self {
        Self(limit)
    }

    /// Runs `call` until it ends or the time is up. Then it goes on, for nothing can end it, and what it gives is
    /// dropped there: a token is closed.
    ///
    /// The thread is the server: threads start with the process's own token, whoever is on this one.
    pub(super) fn run<T: Send + 'static>(
        &mut self,
        doing: impl Fn() -> String,
        call: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let before = Instant::now();
        let (answer, answered) = sync_channel(1);
        let run = move || drop(answer.send(call()));
        let thread = thread::Builder::new().name("stead-logon".into()).spawn(run).map_err(|source| {
            Error::new(doing(), ErrorKind::LimitReached { limit: "threads".into() }).with_source(source)
        })?;
        let result = answered.recv_timeout(self.0);
        self.0 = self.0.saturating_sub(before.elapsed());
        match result {
            Ok(result) => {
                let _ = thread.join();
                result
            }
            Err(RecvTimeoutError::Timeout) => {
                let waiting_for = "the system to check the logon".into();
                Err(Error::new(doing(), ErrorKind::DeadlinePassed { waiting_for }))
            }
            Err(RecvTimeoutError::Disconnected) => match thread.join() {
                Err(panic) => std::panic::resume_unwind(panic),
                Ok(()) => Err(Error::system(doing(), "LogonUserW", std::io::Error::other("no answer came"))),
            },
        }
    }
}

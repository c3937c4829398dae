//! Logon sessions: the server's side of a session worker, and the worker itself.

/// The server's hold on a session worker; the session ends some time after the last one is dropped.
pub(crate) struct SessionHandle;

//! Commands and the processes that they start.
#![forbid(unsafe_code)]

#[cfg(feature = "tokio")]
mod asynchronous;
mod child;
mod command;
mod spawn;
mod stage;
mod stdio;

pub use child::{Child, Containment};
pub use command::Command;
pub(crate) use command::{EnvironmentChanges, Program};
pub(crate) use spawn::Capture;
pub use stage::Stage;
pub use stdio::Stdio;
pub(crate) use stdio::Stream;
#[cfg(unix)]
pub use stdio::{Pty, PtySize};

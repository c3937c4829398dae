//! What only Windows has: SIDs, token handles, integrity levels, jobs, and the extension traits that show them.

mod desktop;
mod local;
mod logon;
mod process;
mod token;

pub use crate::desktop::InteractiveSession as TerminalSession;
pub use crate::sys::dacl::{Ace, AceKind, Dacl};
pub use crate::sys::desktop::DesktopRight;
pub use crate::sys::process::{Console, JobLimits};
pub use crate::sys::sid::Sid;
pub use crate::sys::token::{Elevation, Group, SecurityContext, TokenPrivilege};
pub use desktop::{DesktopDacls, DesktopExt};
pub use local::ConnectOptionsExt;
pub use process::{ChildExt, CommandExt, Priority};
pub use token::{RestrictionExt, TokenExt};

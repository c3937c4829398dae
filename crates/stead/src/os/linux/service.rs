//! What only Linux has of the service.
#![forbid(unsafe_code)]

use std::path::Path;

use crate::error::Result;
use crate::service::Service;
use crate::sys::token::Uid;

/// Whose the service must be, in Linux's terms.
///
/// ```no_run
/// # fn main() -> stead::Result<()> {
/// use stead::Service;
/// use stead::os::linux::{ServiceExt, Uid};
/// # let uid = Uid::ROOT;
/// let service = Service::connect_to_that_of("/run/portal/stead.sock", uid)?;
/// # Ok(()) }
/// ```
pub trait ServiceExt: Sized + sealed::Sealed {
    /// The service that listens at `path`, if it runs as `uid`: the effective uid, as of listen(2), of the process
    /// that listens. A socket that a service manager listens at for the service has the manager's.
    ///
    /// # Errors
    ///
    /// As [`Service::connect`].
    fn connect_to_that_of(path: impl AsRef<Path>, uid: Uid) -> Result<Self>;
}

impl ServiceExt for Service {
    fn connect_to_that_of(path: impl AsRef<Path>, uid: Uid) -> Result<Self> {
        crate::sys::service::Service::connect(path.as_ref(), uid).map(Self)
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::service::Service {}
}

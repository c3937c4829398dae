//! Where clients connect.

use std::io;

use super::{Address, ListenOptions, Stream};
use crate::error::Result;
use crate::sys::local;

/// Where clients connect.
///
/// On Linux, dropped, it takes its socket out of the file system, if it is still the one that it put there. On
/// Windows it is the first instance of its pipe, and always one more than there are connections: between two clients
/// the name is not free for anybody else.
///
/// ```no_run
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use stead::local::{Address, Listener};
/// let listener = Listener::bind(&Address::name("report")?)?;
/// for stream in listener.incoming() {
///     println!("{:?}", stream?);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[doc(alias = "CreateNamedPipe")]
pub struct Listener(pub(crate) local::Listener);

impl Listener {
    /// Listens at `address` for the server's own user.
    ///
    /// # Errors
    ///
    /// As [`ListenOptions::bind`].
    #[doc(alias = "CreateNamedPipe")]
    pub fn bind(address: &Address) -> Result<Self> {
        ListenOptions::default().bind(address)
    }

    /// Waits for the next client to connect.
    ///
    /// # Errors
    ///
    /// Those of accept(2); one for want of descriptors may pass. On Windows those of ConnectNamedPipe, and of
    /// CreateNamedPipeW for the next client's instance; the client that came is then kept for the next call.
    #[doc(alias = "ConnectNamedPipe")]
    pub fn accept(&self) -> io::Result<Stream> {
        self.0.accept().map(Stream)
    }

    /// Every next client, for ever.
    ///
    /// # Errors
    ///
    /// Each is that of one [`accept`](Self::accept); the next may succeed.
    pub fn incoming(&self) -> impl Iterator<Item = io::Result<Stream>> + '_ {
        std::iter::repeat_with(|| self.accept())
    }

    /// Whether [`accept`](Self::accept) fails instead of waiting.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        self.0.set_nonblocking(nonblocking)
    }
}

//! A Wayland client for tests: connects, asks for the registry, says what it found, and stays until its standard input
//! ends.
//!
//! It speaks the protocol itself, so that where it connects, and why it could not, is known exactly.
#![forbid(unsafe_code)]

#[cfg(not(unix))]
fn main() {}

#[cfg(unix)]
fn main() -> std::process::ExitCode {
    match unix::run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            println!("refused: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(unix)]
mod unix {
    use std::io::{self, Read, Write};
    use std::os::unix::net::UnixStream;
    use std::path::PathBuf;

    /// The objects of the protocol that it uses: the display is always 1, the others are ours to number.
    const DISPLAY: u32 = 1;
    const REGISTRY: u32 = 2;
    const CALLBACK: u32 = 3;
    /// `wl_display.sync` and `wl_display.get_registry`, in the order of wayland.xml.
    const SYNC: u32 = 0;
    const GET_REGISTRY: u32 = 1;

    pub(crate) fn run() -> io::Result<()> {
        let mut arguments = std::env::args_os().skip(1);
        let path = if let Some(path) = arguments.next() {
            PathBuf::from(path)
        } else {
            // As libwayland does it.
            let display = std::env::var_os("WAYLAND_DISPLAY")
                .ok_or_else(|| io::Error::other("there is no WAYLAND_DISPLAY"))?;
            PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR").unwrap_or_default()).join(display)
        };
        let mut socket = UnixStream::connect(path)?;
        let mut requests = request(GET_REGISTRY, REGISTRY);
        requests.extend(request(SYNC, CALLBACK));
        socket.write_all(&requests)?;
        let mut globals = 0;
        loop {
            let mut header = [0; 8];
            socket.read_exact(&mut header)?;
            let word =
                |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
            let (object, length) = (word(0), word(4) >> 16);
            let mut body = vec![0; (length as usize).saturating_sub(header.len())];
            socket.read_exact(&mut body)?;
            match object {
                REGISTRY => globals += 1,
                CALLBACK => break,
                _ => return Err(io::Error::other("the compositor reports an error of the protocol")),
            }
        }
        println!("connected: {globals} globals");
        io::stdout().flush()?;
        io::stdin().read_to_end(&mut Vec::new())?;
        Ok(())
    }

    /// A request of the display's that makes a new object.
    fn request(opcode: u32, new: u32) -> Vec<u8> {
        let length = 12;
        [DISPLAY, length << 16 | opcode, new].iter().flat_map(|word| word.to_ne_bytes()).collect()
    }
}

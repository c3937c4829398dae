//! A window with a few lines in it: what a client's program shows on a desktop.

use std::error::Error;

use x11rb::connection::Connection;
use x11rb::protocol::xproto::{
    ChangeGCAux, ConnectionExt, CreateGCAux, CreateWindowAux, Rectangle, WindowClass,
};
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;

/// The colour of the window's upper edge: red, green, blue.
pub const EDGE: [u8; 3] = [0x33, 0x66, 0xcc];
const WIDTH: u16 = 520;
const LINE: u16 = 20;

/// A window on the display that the environment names; it is there until this is dropped.
#[derive(Debug)]
pub struct Window {
    _connection: RustConnection,
}

/// Whether the X server that the environment names lets this process in.
///
/// # Errors
///
/// Why not.
pub fn try_to_connect() -> Result<(), Box<dyn Error>> {
    x11rb::connect(None)?.0.sync()?;
    Ok(())
}

impl Window {
    /// Shows it; it is on the screen when this returns.
    ///
    /// # Errors
    ///
    /// When the X server refuses.
    pub fn show(lines: &[String]) -> Result<Self, Box<dyn Error>> {
        let (connection, screen) = x11rb::connect(None)?;
        let root = connection.setup().roots.get(screen).ok_or("no screen")?.root;
        let (window, ink, font) =
            (connection.generate_id()?, connection.generate_id()?, connection.generate_id()?);
        let height = LINE * (u16::try_from(lines.len())? + 2);
        let look = CreateWindowAux::new().background_pixel(0x00ff_ffff);
        connection
            .create_window(24, window, root, 60, 60, WIDTH, height, 0, WindowClass::INPUT_OUTPUT, 0, &look)?
            .check()?;
        connection.map_window(window)?.check()?;
        connection.open_font(font, b"fixed")?.check()?;
        let edge = EDGE.iter().fold(0, |colour, part| colour << 8 | u32::from(*part));
        connection.create_gc(ink, window, &CreateGCAux::new().foreground(edge).font(font))?.check()?;
        let bar = Rectangle { x: 0, y: 0, width: WIDTH, height: LINE };
        connection.poly_fill_rectangle(window, ink, &[bar])?;
        connection.change_gc(ink, &ChangeGCAux::new().foreground(0).background(0x00ff_ffff))?;
        for (number, line) in (2..).zip(lines) {
            let text: Vec<u8> = line.bytes().filter(u8::is_ascii).take(84).collect();
            connection.image_text8(window, ink, 12, number * LINE.cast_signed(), &text)?;
        }
        // What was asked before is on the screen when this is answered.
        connection.sync()?;
        Ok(Self { _connection: connection })
    }
}

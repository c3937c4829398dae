//! An X client that trusts nothing but its environment, as any other does.
//!
//! `testbed-xclient try` connects and ends; `testbed-xclient show RRGGBB` shows a window of that colour, says `shown`, and
//! ends with its standard input; `look` reads the pixels of the whole screen; `admit` lets nobody (the user) in by the host
//! list. A refusal is said on the standard error, with status 1.

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(target_os = "linux")]
fn run() -> Result<(), Box<dyn std::error::Error>> {
    use std::io::Read;
    use x11rb::connection::Connection;
    use x11rb::protocol::xproto::{
        ConnectionExt, CreateWindowAux, Family, HostMode, ImageFormat, WindowClass,
    };
    use x11rb::wrapper::ConnectionExt as _;

    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_default();
    let (connection, screen) = x11rb::connect(None)?;
    let root = connection.setup().roots.get(screen).ok_or("no screen")?.root;
    match what.as_str() {
        "try" => connection.sync()?,
        "look" => drop(connection.get_image(ImageFormat::Z_PIXMAP, root, 0, 0, 640, 480, u32::MAX)?.reply()?),
        "admit" => {
            let user = b"localuser\0nobody";
            connection.change_hosts(HostMode::INSERT, Family::SERVER_INTERPRETED, user)?.check()?;
        }
        "show" => {
            let colour = u32::from_str_radix(&arguments.next().unwrap_or_default(), 16)?;
            let window = connection.generate_id()?;
            let look = CreateWindowAux::new().background_pixel(colour);
            connection
                .create_window(24, window, root, 40, 30, 200, 150, 0, WindowClass::INPUT_OUTPUT, 0, &look)?
                .check()?;
            connection.map_window(window)?.check()?;
            // What was asked before is on the screen when this is answered.
            connection.sync()?;
            println!("shown");
            std::io::stdin().read_to_end(&mut Vec::new())?;
        }
        other => return Err(format!("{other:?}: try, look, admit or show RRGGBB").into()),
    }
    Ok(())
}

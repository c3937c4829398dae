//! Procedure 2 of the reference page: impersonate the client of a pipe, create its process.
//!
//! `impersonate_run serve ADDRESS PROGRAM [ARGUMENT ..]` runs the program as whoever connects;
//! `impersonate_run connect ADDRESS NOTE` is such a client: it sends the path of a file of its own.
//!
//! In `cargo xtask shell`:
//!
//! ```sh
//! impersonate_run serve /run/demo.sock id &
//! runuser -u alice -- impersonate_run connect /run/demo.sock notes.txt
//! ```

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};

use stead::local::{Address, ConnectOptions, ListenOptions, Stream};
use stead::{Command, Desktop, ImpersonationLevel, Token};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(role), Some(address)) = (arguments.next(), arguments.next()) else {
        return Err("usage: impersonate_run serve|connect ADDRESS ..".into());
    };
    let address = Address::path(address);
    let rest: Vec<String> = arguments.collect();
    match role.as_str() {
        "serve" => {
            let listener = ListenOptions::new().open_to_all().bind(&address)?;
            loop {
                // One client's trouble is not the server's: say it, and go on.
                let mut stream = listener.accept()?;
                if let Err(error) = serve(&mut stream, &rest) {
                    eprintln!("{error}");
                    let _ = writeln!(stream, "{error}");
                }
            }
        }
        "connect" => connect(&address, rest.first().map_or("", String::as_str)),
        _ => Err("the first argument is serve or connect".into()),
    }
}

fn serve(stream: &mut Stream, command: &[String]) -> Result<(), Box<dyn Error>> {
    let mut note = String::new();
    BufReader::new(&mut *stream).read_line(&mut note)?;
    let [program, arguments @ ..] = command else { return Err("no program to run".into()) };

    // ImpersonateNamedPipeClient .. RevertToSelf
    let token = stream.client()?.impersonate(|me| -> stead::Result<_> {
        // What is opened here is opened with the client's rights.
        let mut text = String::new();
        if me.open(note.trim_end()).is_ok_and(|mut file| file.read_to_string(&mut text).is_ok()) {
            println!("the client's note says: {}", text.trim_end());
        }
        Token::open_thread(me)?.to_primary() // OpenThreadToken, DuplicateTokenEx
    })??;

    // CreateProcessAsUser; non-interactive, also where the client sits before a screen
    let output = Command::new(program).args(arguments).desktop(Desktop::none()).output_as(&token)?;
    stream.write_all(&output.stdout)?;
    Ok(())
}

fn connect(address: &Address, note: &str) -> Result<(), Box<dyn Error>> {
    let options = ConnectOptions::new().level(ImpersonationLevel::Impersonation);
    let mut stream = Stream::connect_with(address, &options)?;
    writeln!(stream, "{note}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    print!("{answer}");
    Ok(())
}

//! Real X servers for the tests and the demo: Xvfb with access control on, and nobody in its host list.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use x11rb::connection::Connection;
use x11rb::protocol::xproto::{ConnectionExt, Family, HostMode, ImageFormat};
use x11rb::rust_connection::{DefaultStream, RustConnection};

use crate::Bed;

/// An X server of one test, which ends with this.
#[derive(Debug)]
pub struct Display {
    process: Child,
    number: u16,
    authority: PathBuf,
    cookie: Vec<u8>,
}

/// How an X server is started.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether it forgets everything when its last client has left, as it does unless it is told not to.
    pub resets: bool,
    /// Whether it goes without the SECURITY extension.
    pub without_security: bool,
    /// The user as whom it runs; root if none is named.
    pub user: Option<String>,
    /// The number of the display, if it matters.
    pub number: Option<u16>,
}

impl Display {
    /// Starts an X server, and waits until it listens.
    ///
    /// # Panics
    ///
    /// When it does not start. Where there is no Xvfb the test is skipped.
    pub fn start(bed: &Bed, options: &Options) -> Self {
        if !Path::new("/usr/bin/Xvfb").exists() {
            crate::skip_test("needs an X server: apt-get install xvfb");
        }
        // Made by root, so that a server of a user's finds it as it should be.
        let sockets = Path::new("/tmp/.X11-unix");
        if fs::create_dir(sockets).is_ok() {
            let _ = fs::set_permissions(sockets, fs::Permissions::from_mode(0o1777));
        }
        let cookie = random_cookie();
        let folder = bed.scratch("display");
        let authority = folder.join("authority");
        write_authority(&authority, &cookie);
        let mut command = match &options.user {
            None => Command::new("Xvfb"),
            Some(user) => {
                let theirs = folder.join("theirs");
                fs::create_dir(&theirs).expect("a folder of the X server's own");
                let file = theirs.join("authority");
                write_authority(&file, &cookie);
                let user = bed.user(user);
                for path in [&theirs, &file] {
                    std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid)).expect("it is the user's");
                }
                let mut command = bed.as_user(&user.name, &[], "Xvfb");
                command.arg("-auth").arg(file);
                command
            }
        };
        if options.user.is_none() {
            command.arg("-auth").arg(&authority);
        }
        command.arg(format!(":{}", options.number.unwrap_or_else(free_number)));
        command.args([
            "-displayfd",
            "1",
            "-screen",
            "0",
            "640x480x24",
            "-nolisten",
            "tcp",
            "-nolisten",
            "local",
        ]);
        if !options.resets {
            command.arg("-noreset");
        }
        let extension = if options.without_security { "-extension" } else { "+extension" };
        command.args([extension, "SECURITY"]);
        command.env_remove("DISPLAY").env_remove("XAUTHORITY").current_dir("/");
        // Started by one that keeps ending signals pending, it would never hear the one that ends it.
        let mut process = crate::linux::sys::with_default_signals(&mut command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut line = String::new();
        if let Some(output) = process.stdout.take() {
            // It says its number when it listens.
            let _ = BufReader::new(output).read_line(&mut line);
        }
        let Ok(number) = line.trim().parse() else { panic!("Xvfb did not start: {line:?}") };
        Self { process, number, authority, cookie }
    }

    /// `:1`
    pub fn name(&self) -> String {
        format!(":{}", self.number)
    }

    /// The number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// The authority file that lets root in as a trusted client; root's own.
    pub fn authority(&self) -> &Path {
        &self.authority
    }

    /// Makes the X server answer nobody, as one that hangs or has been grabbed.
    ///
    /// # Panics
    ///
    /// If it is not there any more.
    pub fn pause(&self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("it is ours");
    }

    /// Lets it go on.
    ///
    /// # Panics
    ///
    /// If it is not there any more.
    pub fn resume(&self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("it is ours");
    }

    /// Ends the X server as a crash would.
    ///
    /// # Panics
    ///
    /// If it is not there any more.
    pub fn kill(&mut self) {
        self.process.kill().expect("it is ours");
        self.clean_up();
    }

    /// What it would have taken away itself.
    fn clean_up(&mut self) {
        let _ = self.process.wait();
        let _ = fs::remove_file(format!("/tmp/.X11-unix/X{}", self.number));
        let _ = fs::remove_file(format!("/tmp/.X{}-lock", self.number));
    }

    /// A connection as the X server's own administrator.
    ///
    /// # Panics
    ///
    /// If it is refused.
    pub fn connect(&self) -> RustConnection {
        let socket = std::os::unix::net::UnixStream::connect(format!("/tmp/.X11-unix/X{}", self.number));
        let (stream, _) =
            DefaultStream::from_unix_stream(socket.expect("the X server listens")).expect("a stream");
        let name = b"MIT-MAGIC-COOKIE-1".to_vec();
        RustConnection::connect_to_stream_with_auth_info(stream, 0, name, self.cookie.clone())
            .expect("the X server knows its own cookie")
    }

    /// The host list, each entry as family and address; and whether access control is on.
    ///
    /// # Panics
    ///
    /// If the X server does not answer.
    pub fn hosts(&self) -> (bool, Vec<(u8, Vec<u8>)>) {
        let reply = self.connect().list_hosts().expect("sent").reply().expect("answered");
        let mut hosts: Vec<_> =
            reply.hosts.into_iter().map(|host| (u8::from(host.family), host.address)).collect();
        hosts.sort();
        (reply.mode == x11rb::protocol::xproto::AccessControl::ENABLE, hosts)
    }

    /// Adds a user to the host list, as somebody who has nothing to do with us would.
    ///
    /// # Panics
    ///
    /// If the X server does not answer.
    pub fn admit(&self, user: &str) {
        let address = format!("localuser\0{user}");
        let connection = self.connect();
        connection
            .change_hosts(HostMode::INSERT, Family::SERVER_INTERPRETED, address.as_bytes())
            .expect("sent")
            .check()
            .expect("done");
    }

    /// What is on the screen.
    ///
    /// # Panics
    ///
    /// If the X server does not answer.
    pub fn screenshot(&self) -> Screenshot {
        let connection = self.connect();
        let screen = &connection.setup().roots[0];
        let (width, height) = (screen.width_in_pixels, screen.height_in_pixels);
        let image = connection
            .get_image(ImageFormat::Z_PIXMAP, screen.root, 0, 0, width, height, u32::MAX)
            .expect("sent")
            .reply()
            .expect("answered");
        // 24 bits of colour in 32, blue first, as Xvfb has them on a little-endian machine.
        let pixels = image.data.chunks_exact(4).map(|pixel| [pixel[2], pixel[1], pixel[0]]).collect();
        Screenshot { width: u32::from(width), height: u32::from(height), pixels }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        // Asked to, it takes its socket and its lock away; also where a test has paused it.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::CONT);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        for _ in 0..100 {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // It was started with the signal blocked, and does not hear it.
        if self.process.kill().is_ok() {
            self.clean_up();
        }
    }
}

/// A picture of a screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screenshot {
    width: u32,
    height: u32,
    pixels: Vec<[u8; 3]>,
}

impl Screenshot {
    /// How many pixels have this colour.
    pub fn count(&self, colour: [u8; 3]) -> usize {
        self.pixels.iter().filter(|pixel| **pixel == colour).count()
    }

    /// The picture as PNG.
    ///
    /// # Panics
    ///
    /// If it cannot be encoded, which it can.
    pub fn png(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let mut writer = encoder.write_header().expect("a header");
        writer.write_image_data(&self.pixels.concat()).expect("as many pixels as it should have");
        writer.finish().expect("an end");
        bytes
    }

    /// Keeps the picture in this file, and says so.
    pub fn keep(&self, path: &Path) {
        let written =
            path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(path, self.png()));
        match written {
            Ok(()) => println!("screenshot: {}", path.display()),
            // Where the target directory is an ordinary user's, root of the bed may not write it.
            Err(error) => println!("no screenshot kept: {}: {error}", path.display()),
        }
    }
}

/// The number of a display that nobody has. Left to themselves, two X servers that start at once take the same.
fn free_number() -> u16 {
    loop {
        let random = random_cookie();
        let number = 100 + u16::from_ne_bytes([random[0], random[1]]) % 50_000;
        if !Path::new(&format!("/tmp/.X11-unix/X{number}")).exists() {
            return number;
        }
    }
}

fn random_cookie() -> Vec<u8> {
    let mut cookie = vec![0; 16];
    fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut cookie))
        .expect("random bytes");
    cookie
}

/// An authority file for any display.
fn write_authority(path: &Path, cookie: &[u8]) {
    let mut bytes = 65535_u16.to_be_bytes().to_vec();
    for part in [b"", b"", &b"MIT-MAGIC-COOKIE-1"[..], cookie] {
        bytes.extend(u16::try_from(part.len()).unwrap_or(0).to_be_bytes());
        bytes.extend(part);
    }
    fs::write(path, bytes).expect("an authority file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("it is ours");
}

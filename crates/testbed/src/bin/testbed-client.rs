//! A client for tests: connects to a Unix socket, confined as asked for, and does what it is told.

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    linux::main()
}

#[cfg(target_os = "linux")]
mod linux {
    use rustix::thread::CapabilitySet;
    use std::ffi::OsString;
    use std::io::{self, BufRead, BufReader, Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;
    use std::os::unix::process::CommandExt;
    use std::process::{Command, ExitCode};
    use testbed::confine::{self, Filter};

    const HELP: &str = "\
usage: testbed-client connect PATH [OPTION..]     connect, say `connected PID`, send a line, obey
       testbed-client confine [OPTION..] -- PROGRAM [ARGUMENT..]
       testbed-client wait                        until the standard input ends
       testbed-client trick NAME [ARGUMENT..]     what a process may do to whoever waits for it

confinement: --no-new-privs --no-new-privs-thread --seccomp --seccomp-thread
             --userns --mntns --pidns --netns --ipcns --utsns --cgroupns --timens
             --chroot DIRECTORY --drop-bounding --docker --fresh-files --empty-run --keep-capabilities
after connecting: --exec-after PROGRAM --exit-after --fork-after --silent
commands on the standard input: send TEXT | receive | probe | confine OPTION.. | exec PROGRAM [ARGUMENT..] |
             relay | stop | exit [N]
";

    #[derive(Default)]
    #[allow(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
    struct After {
        exec: Option<OsString>,
        exit: bool,
        fork: bool,
        silent: bool,
        keep_capabilities: bool,
        /// The namespace is only that of children: a child must do the rest.
        child: bool,
    }

    pub(crate) fn main() -> ExitCode {
        let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
        if arguments.is_empty() {
            print!("{HELP}{}", testbed::tricks::HELP);
            return ExitCode::SUCCESS;
        }
        let result = match arguments.remove(0).to_str() {
            Some("connect") if !arguments.is_empty() => connect(arguments),
            Some("confine") => run_confined(&arguments),
            Some("trick") => {
                let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
                testbed::tricks::play(words.first().unwrap_or(&""), words.get(1..).unwrap_or_default())
            }
            Some("wait") => io::stdin().read_to_end(&mut Vec::new()).map(|_| ExitCode::SUCCESS),
            _ => {
                print!("{HELP}");
                Ok(ExitCode::from(64))
            }
        };
        result.unwrap_or_else(|error| {
            println!("error: {error}");
            eprintln!("testbed-client: {error}");
            ExitCode::from(71)
        })
    }

    /// Applies the options in their order.
    fn apply(options: &[OsString]) -> io::Result<After> {
        let mut after = After::default();
        let mut options = options.iter();
        while let Some(option) = options.next() {
            let name = option.to_str().unwrap_or_default();
            one(name, &mut options, &mut after)
                .map_err(|error| io::Error::new(error.kind(), format!("{name}: {error}")))?;
        }
        Ok(after)
    }

    fn one(name: &str, rest: &mut std::slice::Iter<'_, OsString>, after: &mut After) -> io::Result<()> {
        let mut value = || rest.next().ok_or_else(|| io::Error::other("needs a value"));
        match name {
            "--no-new-privs" => rustix::thread::set_no_new_privs(true)?,
            "--no-new-privs-thread" => on_a_thread(|| Ok(rustix::thread::set_no_new_privs(true)?))?,
            "--seccomp" => Filter::new().install_on_this_thread()?,
            "--seccomp-thread" => on_a_thread(|| Filter::new().install_on_this_thread())?,
            "--chroot" => {
                rustix::process::chroot(value()?)?;
                std::env::set_current_dir("/")?;
            }
            "--drop-bounding" => {
                rustix::thread::remove_capability_from_bounding_set(CapabilitySet::NET_RAW)?;
            }
            "--docker" => {
                // CAP_SYS_ADMIN goes only with the next exec, so the filter needs no no_new_privs, as in Docker.
                confine::limit_bounding_set(confine::DOCKER_CAPABILITIES)?;
                Filter::docker().install_on_this_thread()?;
            }
            // For a set-user-id copy of this program only, which plays sudo.
            "--become-root" => confine::become_root()?,
            "--empty-run" => confine::empty_run()?,
            "--fresh-files" => confine::fresh_files()?,
            "--fresh-proc" => confine::fresh_proc()?,
            "--exec-after" => after.exec = Some(value()?.clone()),
            "--exit-after" => after.exit = true,
            "--fork-after" => after.fork = true,
            "--silent" => after.silent = true,
            "--keep-capabilities" => after.keep_capabilities = true,
            _ => {
                let kind = name.strip_prefix("--").and_then(|name| name.strip_suffix("ns"));
                confine::leave_namespace(kind.ok_or_else(|| io::Error::other("no such option"))?)?;
                after.child |= matches!(kind, Some("pid" | "time"));
            }
        }
        Ok(())
    }

    /// Confines another thread, which stays as long as the process.
    fn on_a_thread(confine: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
        let (done, outcome) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let _ = done.send(confine());
            loop {
                std::thread::park();
            }
        });
        outcome.recv().map_err(io::Error::other)?
    }

    /// A thread that begins the next one and ends: there is always one, and never one for long.
    fn relay() {
        std::thread::spawn(relay);
    }

    fn run_confined(arguments: &[OsString]) -> io::Result<ExitCode> {
        let split = arguments.iter().position(|argument| argument == "--");
        let (options, program) = arguments.split_at(split.ok_or_else(|| io::Error::other("no `--`"))?);
        let [_, program, arguments @ ..] = program else { return Err(io::Error::other("no program")) };
        if options.first().is_some_and(|option| option == "--fresh-files") {
            return in_fresh_files(&options[1..], program, arguments);
        }
        apply(options)?;
        Err(Command::new(program).args(arguments).exec())
    }

    /// As in a container the program is process 1 of a PID namespace, and all ends with it.
    fn in_fresh_files(
        options: &[OsString],
        program: &OsString,
        arguments: &[OsString],
    ) -> io::Result<ExitCode> {
        confine::fresh_files()?;
        confine::leave_namespace("pid")?;
        let mut child = Command::new("/proc/self/exe");
        child.args(["confine", "--fresh-proc"]).args(options).arg("--").arg(program).args(arguments);
        let status = child.status()?;
        Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(70)).unwrap_or(70)))
    }

    fn connect(mut arguments: Vec<OsString>) -> io::Result<ExitCode> {
        let path = arguments.remove(0);
        let after = apply(&arguments)?;
        if after.child {
            return in_child(path, &arguments);
        }
        if !after.keep_capabilities {
            confine::drop_capabilities()?;
        }
        let mut path = std::path::PathBuf::from(path);
        // Below another root directory the same socket has a shorter path.
        let chroot = arguments.iter().position(|argument| argument == "--chroot");
        if let Some(directory) = chroot.and_then(|index| arguments.get(index + 1)) {
            let below = path.strip_prefix(directory).map_err(io::Error::other)?;
            path = std::path::Path::new("/").join(below);
        }
        let mut socket = UnixStream::connect(path)?;
        if !after.silent {
            socket.write_all(b"hello\n")?;
        }
        // The pid as whoever mounted /proc sees it.
        let pid = std::fs::read_link("/proc/self")
            .map_or_else(|_| std::process::id().to_string(), |pid| pid.display().to_string());
        if after.fork {
            // A child with the socket as its standard input lives until the server closes it.
            Command::new("/bin/cat")
                .stdin(std::os::fd::OwnedFd::from(socket))
                .stdout(io::stderr())
                .spawn()?;
            say(&format!("connected {pid}"))?;
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(program) = &after.exec {
            rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::empty())?;
            let _keep = socket.as_raw_fd();
            say(&format!("connected {pid}"))?;
            return Err(Command::new(program).arg("wait").exec());
        }
        say(&format!("connected {pid}"))?;
        if after.exit {
            return Ok(ExitCode::SUCCESS);
        }
        obey(socket)
    }

    /// In a PID or time namespace it is the next child that is inside.
    fn in_child(path: OsString, arguments: &[OsString]) -> io::Result<ExitCode> {
        let rest = arguments.iter().filter(|argument| *argument != "--pidns" && *argument != "--timens");
        let status = Command::new("/proc/self/exe").arg("connect").arg(path).args(rest).status()?;
        Ok(ExitCode::from(u8::try_from(status.code().unwrap_or(70)).unwrap_or(70)))
    }

    fn say(line: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()
    }

    fn obey(socket: UnixStream) -> io::Result<ExitCode> {
        let mut from_server = BufReader::new(socket.try_clone()?);
        let mut to_server = socket;
        for line in io::stdin().lock().lines() {
            let line = line?;
            let (command, rest) = line.split_once(' ').unwrap_or((&line, ""));
            let answer = match command {
                "send" => writeln!(to_server, "{rest}").map(|()| "ok".to_owned()),
                "receive" => {
                    let mut text = String::new();
                    from_server.read_line(&mut text).map(|_| format!("received {}", text.trim_end()))
                }
                "probe" => testbed::Probe::of_self()
                    .and_then(|probe| serde_json::to_string(&probe).map_err(io::Error::other)),
                "confine" => {
                    let options: Vec<OsString> = rest.split_whitespace().map(Into::into).collect();
                    apply(&options).map(|_| "ok".to_owned())
                }
                "exec" => {
                    let mut words = rest.split_whitespace();
                    rustix::io::fcntl_setfd(&to_server, rustix::io::FdFlags::empty())?;
                    say("ok")?;
                    Err(Command::new(words.next().unwrap_or_default()).args(words).exec())
                }
                "stop" => {
                    say("ok")?;
                    let own = rustix::process::getpid();
                    rustix::process::kill_process(own, rustix::process::Signal::STOP)
                        .map(|()| "ok".to_owned())
                        .map_err(Into::into)
                }
                "relay" => {
                    say("ok")?;
                    relay();
                    testbed::end_this_thread()
                }
                "exit" => return Ok(ExitCode::from(rest.parse::<u8>().unwrap_or(0))),
                _ => Err(io::Error::other("no such command")),
            };
            say(&answer.unwrap_or_else(|error| format!("error: {error}")))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

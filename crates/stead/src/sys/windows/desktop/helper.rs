//! The desktop helper: this program once more, in the session and window station where the work is.
//!
//! It becomes the helper where `main` begins with `stead::init()`, and does one thing: it reads what is to be done
//! from its standard input, does it, and writes both lists to its standard output, as lines of words.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use super::object;
use super::work::{Change, Entry, Lists, Names, Object, Refusal, from_hex, to_hex};
use crate::error::{Error, ErrorKind, Result};
use crate::os::windows::CommandExt;
use crate::process::{Command, Stdio};
use crate::sys::dacl::Dacl;
use crate::sys::token::{in_session, own_context};
use crate::token::{ImpersonationLevel, Primary, Token};

/// What the helper is told apart by: its only argument.
const ARGUMENT: &str = "--stead-desktop-helper";

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a request is at most.
const LONGEST: u64 = 1 << 20;

/// Whether this program becomes the helper when it is executed again.
static INITIALISED: AtomicBool = AtomicBool::new(false);

/// Becomes the helper and never returns, if that is what the process was started for.
pub(crate) fn init() {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == ARGUMENT) && arguments.next().is_none() {
        let code = serve(io::stdin().lock(), io::stdout().lock()).is_err();
        std::process::exit(i32::from(code));
    }
    INITIALISED.store(true, Ordering::Relaxed);
}

fn serve(input: impl Read, mut output: impl Write) -> io::Result<()> {
    let mut request = String::new();
    input.take(LONGEST).read_to_string(&mut request)?;
    let answer = match parse_request(&request) {
        None => Err(Refusal { object: Object::Station, source: io::ErrorKind::InvalidData.into() }),
        Some((names, change, entries)) => object::enter_station(&names.station)
            .map_err(|source| Refusal { object: Object::Station, source })
            .and_then(|()| object::work(&names, change, &entries)),
    };
    output.write_all(answer_text(&answer)?.as_bytes())?;
    output.flush()
}

fn request_text(names: &Names, change: Change, entries: &[Entry]) -> io::Result<String> {
    let change = match change {
        Change::Read => "read",
        Change::Add => "add",
        Change::Remove => "remove",
    };
    let mut text = format!("station {}\ndesktop {}\n{change}\n", names.station, names.desktop);
    for entry in entries {
        text.push_str(&entry.to_words()?);
        text.push('\n');
    }
    text.push_str("end\n");
    Ok(text)
}

fn parse_request(text: &str) -> Option<(Names, Change, Vec<Entry>)> {
    let mut lines = text.strip_suffix("end\n")?.lines();
    let station = lines.next()?.strip_prefix("station ")?.to_owned();
    let desktop = lines.next()?.strip_prefix("desktop ")?.to_owned();
    let change = match lines.next()? {
        "read" => Change::Read,
        "add" => Change::Add,
        "remove" => Change::Remove,
        _ => return None,
    };
    let entry = |line: &str| line.split_once(' ').and_then(|(object, ace)| Entry::parse(object, ace));
    let entries = lines.map(entry).collect::<Option<_>>()?;
    Some((Names { session: None, station, desktop }, change, entries))
}

fn answer_text(answer: &Result<Lists, Refusal>) -> io::Result<String> {
    let list = |list: &Option<Dacl>| match list {
        None => Ok("none".to_owned()),
        Some(list) => Ok::<_, io::Error>(to_hex(&list.to_bytes()?)),
    };
    Ok(match answer {
        Ok(lists) => format!("station {}\ndesktop {}\n", list(&lists.station)?, list(&lists.desktop)?),
        Err(Refusal { object, source }) => {
            format!("refused {object} {}\n", source.raw_os_error().unwrap_or_default())
        }
    })
}

fn parse_answer(text: &str) -> Option<Result<Lists, Refusal>> {
    let list = |text: &str| match text {
        "none" => Some(None),
        hex => Dacl::parse(&from_hex(hex)?).ok().map(Some),
    };
    if let Some(words) = text.strip_prefix("refused ") {
        let (object, code) = words.trim_end().split_once(' ')?;
        let source = match code.parse().ok()? {
            0 => io::ErrorKind::InvalidData.into(),
            code => io::Error::from_raw_os_error(code),
        };
        return Some(Err(Refusal { object: Object::parse(object)?, source }));
    }
    let mut lines = text.lines();
    let station = list(lines.next()?.strip_prefix("station ")?)?;
    let desktop = list(lines.next()?.strip_prefix("desktop ")?)?;
    Some(Ok(Lists { station, desktop }))
}

/// Has it done by a helper in that session.
pub(super) fn work(
    session: u32,
    names: &Names,
    change: Change,
    entries: &[Entry],
    doing: &'static str,
) -> Result<Lists> {
    let unreachable = |why: String, mend: Option<&'static str>| {
        let object = format!("{} of session {session}", names.station);
        Error::new(doing, ErrorKind::DesktopAccess { object, why: why.into(), mend: mend.map(Into::into) })
    };
    if !INITIALISED.load(Ordering::Relaxed) {
        return Err(unreachable(
            "it takes a helper process, which this program does not become".into(),
            Some("begin main with stead::init()"),
        ));
    }
    let own = own_context()?;
    let context = if own.session_id == session { own } else { in_session(&own, session, doing)? };
    let token = Token::<Primary>::from_context(context, ImpersonationLevel::Impersonation, None);
    let system = |call| move |source: io::Error| Error::system(doing, call, source);
    let program = std::env::current_exe().map_err(system("GetModuleFileNameW"))?;
    let request = request_text(names, change, entries).map_err(system("InitializeAcl"))?;
    let mut command = Command::new(program);
    command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_close(true);
    if let Some(root) = std::env::var_os("SystemRoot") {
        command.current_dir(root);
    }
    let mut child = command.spawn_as(&token)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(request.as_bytes()).map_err(system("WriteFile"))?;
    }
    let output = child.stdout.take();
    let (sender, answer) = mpsc::channel();
    std::thread::Builder::new()
        .name("stead-desktop".into())
        .spawn(move || {
            let mut text = String::new();
            let read = output.map(|output| output.take(LONGEST).read_to_string(&mut text));
            let _ = sender.send(read.transpose().map(|_| text));
        })
        .map_err(system("CreateThread"))?;
    let Ok(text) = answer.recv_timeout(PATIENCE) else {
        child.kill_tree()?;
        return Err(unreachable("the helper process did not answer".into(), None));
    };
    let text = text.map_err(system("ReadFile"))?;
    child.wait()?;
    match parse_answer(&text) {
        Some(answer) => answer.map_err(|refusal| refusal.error(names, doing)),
        None => Err(unreachable("the helper process ended without an answer".into(), None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::dacl::Ace;
    use crate::sys::sid::Sid;

    #[test]
    fn what_one_side_writes_the_other_reads() {
        let names = Names { session: None, station: "winsta0".into(), desktop: "de fault".into() };
        let entries = [
            Entry { object: Object::Station, ace: Ace::allow(Sid::USERS, 1) },
            Entry { object: Object::Desktop, ace: Ace::deny(Sid::NETWORK, 2) },
        ];
        for change in [Change::Read, Change::Add, Change::Remove] {
            let text = request_text(&names, change, &entries).unwrap();
            let read = parse_request(&text).unwrap();
            assert_eq!((&read.0, read.1, read.2.as_slice()), (&names, change, &entries[..]));
            for end in 0..text.len() {
                assert!(parse_request(&text[..end]).is_none(), "a request that is cut off is none");
            }
        }
        let lists = Lists { station: None, desktop: Some(Dacl::new([Ace::allow(Sid::USERS, 1)])) };
        let text = answer_text(&Ok(lists.clone())).unwrap();
        assert_eq!(parse_answer(&text).unwrap().unwrap(), lists);
        let refusal = Refusal { object: Object::Desktop, source: io::Error::from_raw_os_error(5) };
        let read = parse_answer(&answer_text(&Err(refusal)).unwrap()).unwrap().unwrap_err();
        assert_eq!((read.object, read.source.raw_os_error()), (Object::Desktop, Some(5)));
        assert!(parse_answer("").is_none());
    }
}

//! `stead policy`: whether the policy is well formed, and what it says.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde_json::json;
use stead::os::linux::{Limit, User};
use stead_broker::policy::{
    Accounts, Caller, DEFAULT_FOLDER, DesktopRequest, LogonRequest, Policy, PolicyErrors, Privilege,
    ProgramRequest, Request, Subject,
};
use stead_protocol::{ExplainPolicy, PolicyQuestion, ProcessLimit, Text};

use crate::arguments::{CheckArguments, ExplainArguments, LogonKind};
use crate::ending::{Ending, Failure};
use crate::output;
use crate::run::limit::Setting;
use crate::service::Line;

/// Says what is wrong, each with its line and column.
pub fn check(arguments: &CheckArguments) -> Result<Ending, Failure> {
    let place = arguments.place.clone().unwrap_or_else(|| DEFAULT_FOLDER.into());
    let loaded = load(&place)?;
    if arguments.form.json {
        let wrong = |errors: &PolicyErrors| -> Vec<_> {
            let one = |error: &stead_broker::policy::PolicyError| {
                json!({
                    "file": error.place.file,
                    "line": error.place.line,
                    "column": error.place.column,
                    "message": error.message,
                })
            };
            errors.as_slice().iter().map(one).collect()
        };
        let errors = loaded.as_ref().err().map_or_else(Vec::new, wrong);
        output::json(&errors.into())?;
        return Ok(Ending::Code(u8::from(loaded.is_err())));
    }
    match loaded {
        Ok(policy) => {
            let (allow, deny) = policy.rule_counts();
            let files = policy.files();
            if files.is_empty() {
                let place = place.to_string_lossy();
                return output::page(&format!(
                    "{}: no policy there: everyone may create processes as itself, and nothing else\n",
                    output::printable(&place)
                ));
            }
            let files = files.join(", ");
            output::page(&format!("{}: {}\n", output::printable(&files), rules(allow, deny)))
        }
        // One line for each, and nothing else, as compilers do it: editors can read that.
        Err(errors) => {
            let lines =
                errors.as_slice().iter().map(|error| format!("{}\n", output::printable(&error.to_string())));
            output::page(&lines.collect::<String>())?;
            Ok(Ending::Code(1))
        }
    }
}

/// How many rules there are.
pub fn rules(allow: usize, deny: usize) -> String {
    let allow = output::count(allow as u64, "rule");
    format!("{allow} to allow, {deny} to deny")
}

/// A folder as the service reads it, or one file by itself.
fn load(place: &Path) -> Result<Result<Policy, PolicyErrors>, Failure> {
    if !place.is_file() {
        return Ok(Policy::load(place));
    }
    let text = std::fs::read_to_string(place)
        .map_err(|error| Failure::new(format_args!("reading {}: {error}", place.display())))?;
    Ok(Policy::parse(&place.display().to_string(), &text, &Accounts))
}

/// Says what would happen, and by which line.
pub fn explain(arguments: &ExplainArguments) -> Result<Ending, Failure> {
    // 1 is an answer.
    answer(arguments).map_err(|failure| failure.with_status(2))
}

fn answer(arguments: &ExplainArguments) -> Result<Ending, Failure> {
    let named = arguments.privilege.as_deref().and_then(Privilege::from_name);
    if let Some(privilege) = named {
        all_are_part_of(privilege, arguments)?;
    }
    let privileges = named.map_or_else(|| Privilege::ALL.to_vec(), |one| vec![one]);
    let mut answers = Vec::new();
    if arguments.loaded {
        let mut line = Line::open()?;
        for privilege in privileges {
            let answer = line.call(&question(arguments, privilege))?;
            let rule = answer.rule.unwrap_or_else(|| "no rule".to_owned());
            answers.push(Answer {
                privilege,
                allowed: answer.allowed,
                rule,
                why: answer.why,
                rules: Vec::new(),
            });
        }
    } else {
        let place = arguments.policy.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_FOLDER));
        let policy = load(&place)?.map_err(Failure::new)?;
        let caller = caller(arguments)?;
        let client = subject(arguments, &caller)?;
        for privilege in privileges {
            let explained = policy.explain(&caller, &request(arguments, privilege, &client));
            let decision = explained.decision;
            answers.push(Answer {
                privilege,
                allowed: decision.allowed,
                rule: decision.rule.to_string(),
                why: decision.why,
                rules: explained.rules,
            });
        }
    }
    tell(arguments, &answers)
}

/// An answer to less than was asked would be a wrong one.
fn all_are_part_of(privilege: Privilege, arguments: &ExplainArguments) -> Result<(), Failure> {
    let of_a_process = privilege == Privilege::AssignPrimaryToken;
    for (option, is_given, is_part) in [
        ("--logon", arguments.logon.is_some(), matches!(privilege, Privilege::Logon | Privilege::Tcb)),
        ("--program", arguments.program.is_some(), of_a_process),
        ("--desktop", arguments.desktop.is_some(), of_a_process),
        ("--limit", !arguments.limit.is_empty(), privilege == Privilege::IncreaseQuota),
    ] {
        if is_given && !is_part {
            return Err(Failure::new(format_args!("{option} is no part of what {privilege} is asked for")));
        }
    }
    Ok(())
}

struct Answer {
    privilege: Privilege,
    allowed: bool,
    rule: String,
    why: String,
    rules: Vec<String>,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.allowed { "allowed" } else { "denied" };
        // Where a rule decides, the reason begins with it.
        let word = if self.why.starts_with(word) { String::new() } else { format!("{word}: ") };
        write!(f, "{}: {word}{}", self.privilege, self.why)?;
        self.rules.iter().try_for_each(|rule| write!(f, "\n  {rule}"))
    }
}

/// With one privilege asked about the exit status is the answer, as grep's is.
fn tell(arguments: &ExplainArguments, answers: &[Answer]) -> Result<Ending, Failure> {
    if arguments.form.json {
        let one = |answer: &Answer| {
            json!({
                "privilege": answer.privilege.name(),
                "allowed": answer.allowed,
                "rule": answer.rule,
                "why": answer.why,
                "rules": answer.rules,
            })
        };
        output::json(&answers.iter().map(one).collect())?;
    } else {
        let texts: Vec<String> = answers.iter().map(|answer| format!("{answer}\n")).collect();
        output::page(&output::printable_lines(&texts.concat()))?;
    }
    let denied = matches!(answers, [one] if !one.allowed);
    Ok(Ending::Code(u8::from(denied)))
}

fn caller(arguments: &ExplainArguments) -> Result<Caller, Failure> {
    let Some(name) = &arguments.caller else {
        use stead::os::linux::TokenExt;
        let own = stead::Token::current()?;
        let groups = own.groups().as_slice().iter().copied().chain([own.gid()]);
        return Ok(Caller::new(own.uid(), groups));
    };
    let unknown = || Failure::new(format_args!("there is no account {}", name.display()));
    let user = user(name)?.ok_or_else(unknown)?;
    let groups = user.groups()?;
    let all = groups.as_slice().iter().copied();
    Ok(Caller::new(user.uid(), all.clone()).account_groups(all))
}

/// The client; the caller itself where none is named. One without an account is asked about all the same.
fn subject(arguments: &ExplainArguments, caller: &Caller) -> Result<Subject, Failure> {
    let user = match &arguments.client {
        Some(name) => match user(name)? {
            Some(user) => user,
            None => return Ok(Subject::unknown(name.to_string_lossy())),
        },
        None => match User::by_uid(caller.uid)? {
            Some(user) => user,
            None => return Ok(Subject::new(caller.uid, caller.uid.to_string(), [])),
        },
    };
    let groups = user.groups()?;
    let all = groups.as_slice().iter().copied();
    Ok(Subject::new(user.uid(), user.name().to_string_lossy(), all.clone()).account_groups(all))
}

fn user(name: &OsStr) -> Result<Option<User>, Failure> {
    Ok(User::by_name(name)?)
}

fn request<'a>(arguments: &'a ExplainArguments, privilege: Privilege, client: &'a Subject) -> Request<'a> {
    let mut request = Request::new(privilege, client);
    if matches!(privilege, Privilege::Logon | Privilege::Tcb) {
        let kind = arguments.logon.map_or(stead::LogonType::Interactive, Into::into);
        request = request.logon(LogonRequest::Type(kind));
    }
    if privilege == Privilege::AssignPrimaryToken {
        if let Some(program) = &arguments.program {
            request = request.program(ProgramRequest::Path(program.as_bytes()));
        }
        request = request.desktop(match arguments.desktop.as_deref() {
            None | Some("none") => DesktopRequest::None,
            Some("own") => DesktopRequest::Own,
            Some("interactive") => DesktopRequest::Interactive,
            Some(name) => DesktopRequest::Named(name),
        });
    }
    if privilege == Privilege::IncreaseQuota {
        for setting in &arguments.limit {
            request = request.limit(setting.limit, setting.hard);
        }
    }
    request
}

fn limit(setting: &Setting) -> ProcessLimit {
    let of = |value| (value != Limit::UNLIMITED).then_some(value);
    ProcessLimit { name: setting.limit.name().to_owned(), soft: of(setting.soft), hard: of(setting.hard) }
}

fn question(arguments: &ExplainArguments, privilege: Privilege) -> ExplainPolicy {
    let text = |name: &std::ffi::OsString| Text::from(name.as_os_str());
    ExplainPolicy {
        caller: arguments.caller.as_ref().map(text),
        question: PolicyQuestion {
            privilege: privilege.name().to_owned(),
            client: arguments.client.as_ref().map(text),
            logon_type: matches!(privilege, Privilege::Logon | Privilege::Tcb)
                .then(|| arguments.logon.unwrap_or(LogonKind::Interactive).on_the_wire()),
            program: arguments.program.as_ref().map(text),
            desktop: arguments.desktop.as_deref().map(Text::from),
            limits: match privilege {
                Privilege::IncreaseQuota => arguments.limit.iter().map(limit).collect(),
                _ => Vec::new(),
            },
        },
    }
}

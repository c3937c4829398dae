//! Creating a process for a caller.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::StatxFlags;
use stead::desktop::{Desktop, GrantTo, InteractiveSession};
use stead::os::linux::{CommandExt, Limit};
use stead::process::Containment;
use stead::{Command, PtySize, Stdio};
use stead_protocol::{CreateProcess, CreatedProcess, Failure, Text};

use super::explain::desktop_request;
use super::strings;
use crate::audit::Inode;
use crate::policy::{Privilege, ProgramRequest, Request, RuleRef, Subject};
use crate::serve::failure::{failure, invalid, system};
use crate::serve::folder::{new_id, now, written};
use crate::serve::given::{Given, look_at};
use crate::serve::process::{Held as HeldProcess, Record, Tracked};
use crate::serve::proof::Proof;
use crate::serve::service::Service;
use crate::serve::state::State;
use crate::serve::token::{Held, Origin};
use crate::serve::{groups, limits, watch};
use crate::throttle::Holding;

const DOING: &str = "creating a process";
const WHICH_PROGRAM: &str = "it takes a program, or an open file in its place";
/// The longest that a program may take to be executed.
const LONGEST: Duration = Duration::from_secs(60);

/// Creates the process, if the policy lets the caller; what goes with the reply.
pub(super) fn create(
    service: &Arc<Service>,
    state: &mut State,
    mut call: CreateProcess,
    given: &Given,
) -> Result<(CreatedProcess, Vec<OwnedFd>), Failure> {
    if let Some(index) = call.strings {
        strings::read_into(&mut call, given.get(index)?)?;
    }
    let call = &call;
    let held = state.token(call.token)?;
    // What is wrong with the call itself is nobody's to decide, and nothing to record.
    let raised = limits_of(held, call)?;
    let mut command = command(call, given)?;
    let token = held.to_primary().map_err(|error| failure(&error))?;
    let subject = held.subject()?;
    let rule = decide(service, state, call, &subject, None)?;
    decide_quota(service, state, call, &subject, &raised)?;
    let counted = service.take(&state.caller, Holding::Process).or_else(|_| {
        // The kernel may have told the caller of an end that is not counted off yet.
        service.processes.count_off(&state.caller);
        service.take(&state.caller, Holding::Process)
    })?;

    for (limit, soft, hard) in raised.all {
        command.limit(limit, soft, hard);
    }
    if let Some(name) = &call.desktop {
        let session = match name.as_bytes() {
            b"interactive" => Some(InteractiveSession::OfUser(held.uid())),
            b"active" => Some(InteractiveSession::Active),
            b"console" => Some(InteractiveSession::Console),
            _ => None,
        };
        let by_session = session.is_some();
        let desktop = session.map_or_else(|| Desktop::by_name(name.as_os_str()), Desktop::interactive);
        let desktop = desktop.map_err(|error| failure(&error))?;
        if by_session {
            // Whose it is was decided. It may be denied by its own name.
            decide(service, state, call, &subject, Some(&desktop.to_string()))?;
        }
        let to = if call.desktop_for_user { GrantTo::User } else { GrantTo::LogonSession };
        command.desktop(desktop.grant_to(to));
    }
    let session = match &held.origin {
        Origin::Logon { session, .. } => Some(Arc::clone(session)),
        _ => None,
    };
    let id = new_id();
    let making = service.processes.groups.making(&written(id), session.as_deref());
    if let Some(making) = &making {
        command.cgroup(making.group());
    }
    // Killed before the record is whole, the service leaves a process that nobody knows. The next run finds it in its
    // group, or by its session's worker, and ends it; where there is neither, no program runs before that.
    let gated = making.is_none() && session.is_none() && !call.suspended;
    command.suspended(call.suspended || gated);
    let unfinished = service.processes.begin(id).map_err(|error| system(DOING, "open", error))?;
    let mut child = command.spawn_as(&token).map_err(|error| failure(&error))?;
    let terminal = child.pty.take().map(OwnedFd::from);
    let record = Record {
        id: written(id),
        pid: child.id(),
        proof: Proof::of(child.as_fd(), child.id()),
        uid: held.uid().as_raw(),
        owner: state.caller.uid.as_raw(),
        counted: Some(state.caller.counted.as_raw()),
        session: session.as_ref().map(|session| session.id().to_string()),
        program: call.program.clone().unwrap_or_else(|| Text::from("(an open file)")),
        since: now(),
        containment: match child.containment() {
            Containment::Cgroup => groups::CONTAINMENT,
            Containment::SessionWorker => "session_worker",
            _ => "posix_session",
        }
        .to_owned(),
        own: rule == RuleRef::Itself,
        end: None,
    };
    let copies = child.as_fd().try_clone_to_owned().and_then(|pidfd| Ok((pidfd.try_clone()?, pidfd)));
    let copies = copies.map_err(|error| system(DOING, "fcntl", error));
    let written =
        |both| unfinished.finish(&record).map(|()| both).map_err(|error| system(DOING, "write", error));
    let (theirs, pidfd) = copies.and_then(written).inspect_err(|_| {
        // Nobody would know of it after a restart, and nobody has been told of it yet.
        let _ = child.kill_tree();
    })?;
    if gated {
        let resumed = child.resume().map_err(|error| failure(&error));
        resumed.inspect_err(|_| service.processes.unwrite(id))?;
    }
    let kept = HeldProcess {
        child: Some(child),
        earlier: None,
        session,
        counted: Some(counted),
        ..HeldProcess::default()
    };
    let tracked = service.processes.add(id, Tracked::new(record, Some(pidfd), kept));
    drop(making);
    if tracked.is_suspended() {
        state.suspended.retain(|one| one.upgrade().is_some_and(|one| one.is_suspended()));
        state.suspended.push(Arc::downgrade(&tracked));
    }
    service.note_start(&state.caller, &tracked.record, call, pinned(call, given), &rule);
    watch::until_its_end(service, &tracked);
    let created =
        CreatedProcess { process: tracked.describe(), pidfd: 0, terminal: terminal.is_some().then_some(1) };
    Ok((created, std::iter::once(theirs).chain(terminal).collect()))
}

/// Which file was passed as the program.
fn pinned(call: &CreateProcess, given: &Given) -> Option<Inode> {
    let file = given.get(call.pinned?).ok()?;
    let found = look_at(file, StatxFlags::INO).ok()?;
    Some(Inode { device: (found.stx_dev_major, found.stx_dev_minor), inode: found.stx_ino })
}

/// Whether it may be created, on a desktop that was found to be this one: by which rule.
fn decide(
    service: &Service,
    state: &State,
    call: &CreateProcess,
    subject: &Subject,
    found: Option<&str>,
) -> Result<RuleRef, Failure> {
    let program = match (&call.program, call.pinned) {
        (Some(name), None) => ProgramRequest::Path(name.as_bytes()),
        (None, Some(_)) => ProgramRequest::Descriptor,
        _ => return Err(invalid(DOING, WHICH_PROGRAM)),
    };
    let set = call.environment.set.iter();
    let set = set.map(|variable| (variable.name.as_bytes(), Some(variable.value.as_bytes())));
    let removed = call.environment.remove.iter().map(|name| (name.as_bytes(), None));
    let desktop = call.desktop.as_ref().map(Text::to_string_lossy);
    let mut request = Request::new(Privilege::AssignPrimaryToken, subject)
        .program(program)
        .environment(set.chain(removed))
        .desktop(desktop.as_deref().map_or_else(Default::default, desktop_request));
    if let Some(found) = found {
        request = request.found(found);
    }
    Ok(service.decide(&state.caller, &request)?.rule)
}

/// Limits of a new process.
struct Limits {
    /// What is set, soft and hard.
    all: Vec<(Limit, u64, u64)>,
    /// What of it is above what the caller, or the service, has.
    above: Vec<(Limit, u64)>,
}

fn limits_of(held: &Held, call: &CreateProcess) -> Result<Limits, Failure> {
    let mut limits = Limits { all: Vec::new(), above: Vec::new() };
    for asked in &call.limits {
        let (limit, soft, hard) = limits::asked(asked).map_err(|why| invalid(DOING, why))?;
        if hard > most(held, limit) {
            limits.above.push((limit, hard));
        }
        limits.all.push((limit, soft, hard));
    }
    let others = match &held.origin {
        Origin::Own(own) => own.to_vec(),
        // The token has its client's; PAM's modules set those of a session (pam_limits).
        Origin::Client | Origin::Logon { .. } => Vec::new(),
    };
    for other in others {
        if !limits.all.iter().any(|(set, ..)| *set == other.0) {
            limits.all.push(other);
        }
    }
    Ok(limits)
}

/// The hard limit up to which nobody has to be asked.
fn most(held: &Held, limit: Limit) -> u64 {
    let own = limits::own(limit);
    match &held.origin {
        Origin::Own(limits) => {
            limits.iter().find(|(one, ..)| *one == limit).map_or(own, |(.., hard)| own.min(*hard))
        }
        _ => own,
    }
}

fn decide_quota(
    service: &Service,
    state: &State,
    call: &CreateProcess,
    subject: &Subject,
    limits: &Limits,
) -> Result<(), Failure> {
    let nice = call.nice.unwrap_or(0);
    if limits.above.is_empty() && nice >= 0 && call.oom_score_adj.unwrap_or(0) >= 0 {
        return Ok(());
    }
    let mut request = Request::new(Privilege::IncreaseQuota, subject);
    for (limit, hard) in &limits.above {
        request = request.limit(*limit, *hard);
    }
    if nice < 0 {
        // As RLIMIT_NICE counts it.
        request = request.limit(Limit::Nice, u64::from((20 - i64::from(nice)).unsigned_abs().min(40) as u32));
    }
    service.decide(&state.caller, &request).map(drop)
}

fn command(call: &CreateProcess, given: &Given) -> Result<Command, Failure> {
    let mut command = match (&call.program, call.pinned) {
        (Some(name), None) => Command::new(name.as_os_str()),
        (None, Some(index)) => Command::pinned(given.copy(index)?),
        _ => return Err(invalid(DOING, WHICH_PROGRAM)),
    };
    command.args(call.arguments.iter().map(Text::as_os_str));
    if let Some(name) = &call.argument_zero {
        command.arg0(name.as_os_str());
    }
    if call.environment.clear {
        command.env_clear();
    }
    for name in &call.environment.remove {
        command.env_remove(name.as_os_str());
    }
    for variable in &call.environment.set {
        command.env(variable.name.as_os_str(), variable.value.as_os_str());
    }
    if let Some(directory) = &call.directory {
        command.current_dir(directory.as_os_str());
    }
    if let Some(index) = call.stdin {
        command.stdin(Stdio::from(given.copy(index)?));
    }
    if let Some(index) = call.stdout {
        command.stdout(Stdio::from(given.copy(index)?));
    }
    if let Some(index) = call.stderr {
        command.stderr(Stdio::from(given.copy(index)?));
    }
    for further in &call.descriptors {
        command.fd(given.copy(further.descriptor)?, further.target);
    }
    if let Some(nice) = call.nice {
        command.nice(nice);
    }
    if let Some(score) = call.oom_score_adj {
        command.oom_score_adj(score);
    }
    if let Some(mask) = call.umask {
        command.umask(mask);
    }
    if let Some(size) = call.terminal {
        command.pty(PtySize {
            rows: size.rows,
            columns: size.columns,
            pixel_width: size.pixel_width,
            pixel_height: size.pixel_height,
        });
    }
    if let Some(deadline) = call.deadline {
        command.deadline(Duration::from_millis(deadline).min(LONGEST));
    }
    command.job_control(call.job_control).no_new_privs(call.no_new_privs);
    Ok(command)
}

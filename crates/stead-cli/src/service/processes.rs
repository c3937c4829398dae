//! `stead ps`, `stead kill`.

use stead_protocol::{KillTree, ListProcesses, Process, SignalProcess};

use super::{Line, ago, named};
use crate::arguments::{KillArguments, ProcessesArguments};
use crate::ending::{Ending, Failure};
use crate::output::{self, Table};

/// The processes that the caller may see.
pub fn ps(arguments: &ProcessesArguments) -> Result<Ending, Failure> {
    let mut processes = Line::open()?.call(&ListProcesses { session: arguments.session.clone() })?.processes;
    if !arguments.all {
        processes.retain(|process| process.running);
    }
    if arguments.form.json {
        return output::json(&serde_json::to_value(processes).map_err(Failure::new)?);
    }
    let mut table =
        Table::new("", &["Process", "Pid", "User", "Asked for by", "For", "State", "Session", "Program"]);
    for process in &processes {
        let Process { id, pid, uid, owner, session, program, since, suspended, running, .. } = process;
        let state = match (running, suspended) {
            (false, _) => "ended",
            (true, true) => "suspended",
            (true, false) => "runs",
        };
        table.row([
            id.clone(),
            pid.to_string(),
            named(*uid),
            named(*owner),
            ago(*since),
            state.to_owned(),
            session.clone().unwrap_or_else(|| "none".to_owned()),
            program.to_string_lossy().into_owned(),
        ]);
    }
    let which = if arguments.all { "no processes" } else { "no processes that run" };
    output::list(table, which)
}

/// Signals processes of the service's, or ends them with all that descends from them.
pub fn kill(arguments: &KillArguments) -> Result<Ending, Failure> {
    let signal = number(&arguments.signal)
        .ok_or_else(|| Failure::new(format_args!("there is no signal {:?}", arguments.signal)))?;
    let mut line = Line::open()?;
    Ok(super::each(&arguments.processes, |named| {
        let process = find(&mut line, named)?;
        if arguments.tree {
            line.call(&KillTree { process })?;
        } else {
            line.call(&SignalProcess { process, signal, group: arguments.group })?;
        }
        Ok(())
    }))
}

/// By the service's own name for it; or by a process id, which must be that of one of its processes that runs.
fn find(line: &mut Line, named: &str) -> Result<String, Failure> {
    if named.len() == 16 {
        return Ok(named.to_owned());
    }
    let nothing = || Failure::new("the service has no such process of yours: see `stead ps`");
    let pid: u32 = named.parse().map_err(|_| nothing())?;
    let all = line.call(&ListProcesses::default())?.processes;
    all.into_iter().find(|one| one.running && one.pid == pid).map(|one| one.id).ok_or_else(nothing)
}

/// `TERM`, `SIGTERM` or `15`.
fn number(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    (1..=64).find(|number| {
        let known = signal_hook::low_level::signal_name(*number);
        known.is_some_and(|known| known.strip_prefix("SIG") == Some(name))
    })
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn a_signal_is_named_with_or_without_sig_or_by_its_number() {
        assert_eq!((number("TERM"), number("sigterm"), number("15")), (Some(15), Some(15), Some(15)));
        assert_eq!((number("KILL"), number("HUP"), number("USR2")), (Some(9), Some(1), Some(12)));
        assert_eq!((number("0"), number("65"), number("NONE"), number("")), (None, None, None, None));
    }
}

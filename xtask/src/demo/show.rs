//! What the demo prints: tables for people, or one JSON object a line.

use std::fmt::Display;

use serde_json::{Value, json};
use testbed::Probe;

/// Prints, and remembers whether all was as promised.
pub struct Show {
    pub(super) json: bool,
    pub(super) as_promised: bool,
}

impl Show {
    pub fn new(json: bool) -> Self {
        Self { json, as_promised: true }
    }

    /// Whether every process became its client, and everything that must be refused was.
    pub fn all_as_promised(&self) -> bool {
        self.as_promised
    }

    pub fn title(&self, title: &str) {
        if !self.json {
            println!("\n== {title}\n");
        }
    }

    pub fn say(&self, text: &str) {
        if self.json {
            println!("{}", json!({ "note": text }));
        } else {
            println!("{text}");
        }
    }

    /// Server, client and process side by side.
    pub fn procedure(&mut self, procedure: &str, server: &Probe, client: &Probe, process: &Probe) {
        let same = identity(client) == identity(process);
        self.as_promised &= same && process.session == process.pid;
        if self.json {
            let line = json!({
                "procedure": procedure, "same_as_client": same,
                "server": object(server), "client": object(client), "process": object(process),
            });
            println!("{line}");
            return;
        }
        println!("\n  {:<22} {:<20} {:<20} {:<20}", "as the kernel tells it", "server", "client", "process");
        let row = |name: &str, of: &dyn Fn(&Probe) -> String| {
            println!("  {name:<22} {:<20} {:<20} {:<20}", of(server), of(client), of(process));
        };
        row("process id", &|seen| seen.pid.to_string());
        row("uid", &|seen| seen.uid.effective.to_string());
        row("gid", &|seen| seen.gid.effective.to_string());
        row("groups", &|seen| groups(&seen.groups));
        row("effective capabilities", &|seen| format!("{:#x}", seen.capabilities.effective));
        row("no_new_privs", &|seen| seen.no_new_privs.to_string());
        row("session id", &|seen| seen.session.to_string());
        row("login uid", &|seen| seen.login_uid.map_or("unknown".into(), login_uid));
        row("umask", &|seen| format!("{:03o}", seen.umask));
        row("open descriptors", &|seen| seen.descriptors.len().to_string());
        row("directory", &|seen| last(&seen.directory, 20));
        println!();
        if same {
            println!("  ids, groups and capabilities of the process are those of the client.");
        } else {
            println!("  THE PROCESS IS NOT WHAT THE CLIENT IS.");
        }
    }

    /// Something that must be refused.
    pub fn refused<T>(&mut self, what: &str, result: Result<T, impl Display>) {
        match result {
            Err(error) if self.json => {
                println!("{}", json!({ "refused": what, "error": error.to_string() }));
            }
            Err(error) => println!("  {what}\n      {error}"),
            Ok(_) => {
                self.as_promised = false;
                println!("{what}: WAS NOT REFUSED");
            }
        }
    }
}

/// What a process and its client have in common.
fn identity(seen: &Probe) -> impl PartialEq {
    let ids = [seen.uid, seen.gid].map(|ids| [ids.real, ids.effective, ids.saved, ids.filesystem]);
    (
        ids,
        seen.effective_groups(),
        seen.capabilities.effective,
        seen.capabilities.permitted,
        seen.no_new_privs,
    )
}

fn object(seen: &Probe) -> Value {
    json!({
        "pid": seen.pid,
        "uid": seen.uid.effective,
        "gid": seen.gid.effective,
        "groups": seen.groups,
        "capeff": format!("{:016x}", seen.capabilities.effective),
        "no_new_privs": seen.no_new_privs,
        "session_id": seen.session,
        "login_uid": seen.login_uid,
        "audit_session": seen.audit_session,
        "umask": format!("{:03o}", seen.umask),
        "directory": seen.directory,
    })
}

fn groups(all: &[u32]) -> String {
    match all {
        [] => "none".into(),
        [only] => only.to_string(),
        [first, .., last] => format!("{first}..{last} ({})", all.len()),
    }
}

fn login_uid(uid: u32) -> String {
    if uid == u32::MAX { "unset".into() } else { uid.to_string() }
}

/// The end of a path, where what tells paths apart is.
fn last(path: &str, width: usize) -> String {
    let length = path.chars().count();
    if length <= width {
        return path.to_owned();
    }
    format!("..{}", path.chars().skip(length - width + 2).collect::<String>())
}

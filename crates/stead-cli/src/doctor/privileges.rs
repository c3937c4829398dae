//! What this process may do.

use stead::Privilege;

use super::{Area, Finding, State};

/// `needed`: no service holds the privileges for others.
pub fn area(needed: bool) -> Area {
    let mut findings: Vec<Finding> =
        Privilege::ALL.iter().map(|privilege| finding(*privilege, needed)).collect();
    if !needed && findings.iter().any(|finding| finding.state != State::Good) {
        let found = "the service holds the privileges; this process need not";
        findings = vec![Finding::good("privileges", found)];
    }
    Area { name: "Privileges", findings }
}

fn finding(privilege: Privilege, needed: bool) -> Finding {
    let name = privilege.to_string();
    let status = match privilege.status() {
        Ok(status) => status,
        Err(error) => return Finding::missing(&name, crate::ending::said(&error)),
    };
    if status.enabled {
        return Finding::good(&name, "enabled");
    }
    let lacking = status.missing.join(", ");
    if status.held {
        return Finding::note(&name, format!("held, not enabled ({lacking})"));
    }
    // What a server can do without, and what it cannot then do.
    let without = match privilege {
        Privilege::IncreaseQuota => Some("limits above its own are refused"),
        Privilege::InspectClient => Some("how a client is confined cannot be read: Confinement::Unknown"),
        Privilege::Logon => Some("what PAM modules need it for fails"),
        _ => None,
    };
    if let Some(without) = without {
        return Finding::note(&name, format!("not held ({lacking}): {without}"));
    }
    let state = if needed { State::Missing } else { State::Note };
    Finding::new(&name, state, format!("not held ({lacking})")).mend(remedy(&lacking))
}

#[cfg(unix)]
fn remedy(lacking: &str) -> String {
    format!(
        "run it as root or through the service, or give its unit AmbientCapabilities={}",
        lacking.replace(", ", " ")
    )
}

#[cfg(windows)]
fn remedy(lacking: &str) -> String {
    format!("run it as a LocalSystem service, or give its account {lacking}")
}

//! Calls that only wait: they hold no thread.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use stead::os::linux::Uid;
use stead_protocol as wire;
use stead_protocol::{Failure, FailureKind, WaitProcess, Waited};
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

use super::accounts::User;
use super::answer::Answer;
use super::ended::End;
use super::failure::invalid;
use super::service::Service;
use super::transport::Connection;

/// When it is looked whether the process has ended without its pidfd saying so.
const SOON: Duration = Duration::from_millis(100);
/// How often it is looked whether the caller is still there.
const LOOK: Duration = Duration::from_secs(1);

/// Waits for a process to end.
pub(super) async fn wait(
    service: &Service,
    socket: &UnixStream,
    caller: Uid,
    call: &WaitProcess,
) -> Result<Answer, Failure> {
    const DOING: &str = "waiting for a process";
    let tracked = service.processes.seen(caller, &call.process)?;
    if tracked.is_suspended() && call.timeout.is_none() {
        return Err(invalid(DOING, "the process is suspended and would never end; resume it first"));
    }
    let mut end = tracked.end();
    let ended = async {
        let mut patience = SOON;
        loop {
            match timeout(patience, end.wait_for(Option::is_some)).await {
                Ok(Ok(end)) => return end.map(|(_, end)| end),
                Ok(Err(_)) => return None,
                // Nobody reads the answer: what is held for the caller is given back.
                Err(_) if is_gone(socket) => return None,
                Err(_) => {}
            }
            if patience == SOON {
                patience = LOOK;
                let tracked = Arc::clone(&tracked);
                // It waits for nothing, and takes none of its user's places: all of them may be waiting.
                let _ = tokio::task::spawn_blocking(move || tracked.look()).await;
            }
        }
    };
    let ended = match call.timeout {
        None => ended.await,
        Some(most) => timeout(Duration::from_millis(most), ended).await.unwrap_or(None),
    };
    let status = match ended {
        None => None,
        Some(End::Lost) => return Err(FailureKind::StatusLost {}.while_doing(DOING)),
        Some(End::Status(raw)) => {
            let status = ExitStatus::from_raw(raw);
            Some(wire::ExitStatus { raw, code: status.code(), signal: status.signal() })
        }
    };
    let parameters = serde_json::to_value(Waited { status }).unwrap_or_default();
    Ok(Answer { parameters, descriptors: Vec::new(), of_files: false })
}

/// Whether the caller has closed its end.
pub(super) fn is_gone(socket: &UnixStream) -> bool {
    let mut watched = [PollFd::new(socket, PollFlags::RDHUP)];
    poll(&mut watched, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// Waits for so long, or until the caller has closed its end; whether it is still there.
pub(super) async fn stays(socket: &UnixStream, wait: Duration) -> bool {
    let until = Instant::now() + wait;
    while !is_gone(socket) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        tokio::time::sleep(left.min(LOOK)).await;
    }
    false
}

/// Sends audit records until the caller is gone.
pub(super) async fn monitor(
    service: &Arc<Service>,
    connection: &mut Connection,
    socket: &UnixStream,
    User { uid, counted }: User,
) -> zlink::Result<()> {
    let is_root = uid == Uid::ROOT;
    let mut records = match service.audit.subscribe((!is_root).then_some(uid), counted) {
        Ok(records) => records,
        Err(error) => {
            let limit = error.to_string();
            let failure = FailureKind::LimitReached { limit }.while_doing("watching the audit stream");
            return connection.send_error(&failure, Vec::new()).await;
        }
    };
    loop {
        let seen = match timeout(LOOK, records.next()).await {
            Ok(Some(seen)) => seen,
            Ok(None) => return Ok(()),
            Err(_) if is_gone(socket) => return Ok(()),
            Err(_) => continue,
        };
        let record = serde_json::from_str(&seen.entry.json).unwrap_or_default();
        let record = if is_root { record } else { without_reasons(record) };
        let reply = json!({ "record": record, "missed": seen.lost });
        let reply = zlink::Reply::new(Some(reply)).set_continues(Some(true));
        connection.send_reply(&reply, Vec::new()).await?;
    }
}

/// A refusal as whoever was refused may see it: not by which rule, and not whether there is such a user.
fn without_reasons(mut record: Value) -> Value {
    if record["outcome"] == "denied"
        && let Value::Object(fields) = &mut record
    {
        fields.remove("rule");
        fields.remove("detail");
        if let Some(Value::Object(client)) = fields.get_mut("client") {
            client.remove("uid");
        }
    }
    record
}

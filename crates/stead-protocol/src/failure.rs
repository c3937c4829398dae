//! What a call is answered with when it fails.

use std::fmt;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::Level;

/// What was being done, what stood in the way, and what the system said: the library's error, on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was being done, as a phrase.
    pub doing: String,
    /// What stood in the way.
    pub kind: FailureKind,
    /// What the system said.
    pub system: Option<SystemError>,
}

/// The system's own error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemError {
    /// Its number, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<i32>,
    /// Its text.
    pub text: String,
}

/// What stood in the way. The first ones are the library's kinds, by the same names; where a kind of the
/// library holds another enumeration its variant's name stands here in lower case (`no_new_privileges`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "error", content = "parameters")]
pub enum FailureKind {
    /// The service lacks a privilege.
    #[serde(rename = "io.stead.Service.PrivilegeMissing")]
    PrivilegeMissing {
        /// The privilege.
        privilege: String,
        /// What of it is missing.
        missing: String,
        /// Whether it could be enabled.
        held: bool,
        /// Whether it is enabled.
        enabled: bool,
    },
    /// The client granted less than is needed.
    #[serde(rename = "io.stead.Service.LevelTooLow")]
    LevelTooLow {
        /// What it granted.
        granted: Level,
        /// What is needed.
        needed: Level,
    },
    /// The credentials were not accepted.
    #[serde(rename = "io.stead.Service.LogonFailed")]
    LogonFailed {},
    /// The account may not log on in this way.
    #[serde(rename = "io.stead.Service.LogonTypeDenied")]
    LogonTypeDenied {
        /// The logon type's service.
        logon_type: String,
    },
    /// The account may not log on now.
    #[serde(rename = "io.stead.Service.AccountRestriction")]
    AccountRestriction {
        /// Which restriction.
        restriction: String,
    },
    /// No such account.
    #[serde(rename = "io.stead.Service.AccountUnknown")]
    AccountUnknown {
        /// The name.
        name: String,
    },
    /// An object refused the identity that touched it.
    #[serde(rename = "io.stead.Service.AccessDenied")]
    AccessDenied {
        /// The object.
        object: String,
    },
    /// No such object.
    #[serde(rename = "io.stead.Service.NotFound")]
    NotFound {
        /// The object.
        object: String,
    },
    /// No such program.
    #[serde(rename = "io.stead.Service.ProgramNotFound")]
    ProgramNotFound {
        /// The program as it was named.
        program: String,
    },
    /// The program cannot be executed.
    #[serde(rename = "io.stead.Service.ProgramUnusable")]
    ProgramUnusable {
        /// The program as it was named.
        program: String,
        /// Why.
        why: String,
    },
    /// The directory cannot be entered by the client.
    #[serde(rename = "io.stead.Service.DirectoryUnusable")]
    DirectoryUnusable {
        /// The directory.
        directory: String,
    },
    /// The thread impersonates nobody.
    #[serde(rename = "io.stead.Service.NotImpersonating")]
    NotImpersonating {},
    /// The thread's identity is not the one that was put on it.
    #[serde(rename = "io.stead.Service.ImpersonationChanged")]
    ImpersonationChanged {
        /// What differs.
        what: String,
    },
    /// The client, or the caller, is confined more than the service.
    #[serde(rename = "io.stead.Service.ClientConfined")]
    ClientConfined {
        /// Which confinement.
        part: String,
    },
    /// How the client, or the caller, is confined cannot be read.
    #[serde(rename = "io.stead.Service.ConfinementUnknown")]
    ConfinementUnknown {
        /// What could not be read.
        part: String,
    },
    /// The client, or the caller, is gone, or not any more what it was when it connected.
    #[serde(rename = "io.stead.Service.ClientChanged")]
    ClientChanged {
        /// What differs.
        what: String,
    },
    /// The kernel tells no usable identity.
    #[serde(rename = "io.stead.Service.NoIdentity")]
    NoIdentity {
        /// What was found instead.
        what: String,
    },
    /// The kernel is older than this needs.
    #[serde(rename = "io.stead.Service.KernelTooOld")]
    KernelTooOld {
        /// What is missing.
        needs: String,
    },
    /// The session worker could not be found, started or reached.
    #[serde(rename = "io.stead.Service.WorkerUnavailable")]
    WorkerUnavailable {
        /// What is wrong with it.
        why: String,
    },
    /// There is no trampoline that the system would execute.
    #[serde(rename = "io.stead.Service.TrampolineUnavailable")]
    TrampolineUnavailable {},
    /// No server that could check the credentials can be reached.
    #[serde(rename = "io.stead.Service.LogonServerUnavailable")]
    LogonServerUnavailable {},
    /// The token has no SID of its logon session.
    #[serde(rename = "io.stead.Service.NoLogonSid")]
    NoLogonSid {},
    /// The logon session has ended.
    #[serde(rename = "io.stead.Service.SessionEnded")]
    SessionEnded {},
    /// Nobody can tell the exit status any more.
    #[serde(rename = "io.stead.Service.StatusLost")]
    StatusLost {},
    /// The deadline passed.
    #[serde(rename = "io.stead.Service.DeadlinePassed")]
    DeadlinePassed {
        /// What was waited for.
        waiting_for: String,
    },
    /// A value that cannot be used.
    #[serde(rename = "io.stead.Service.InvalidInput")]
    InvalidInput {
        /// Which, and what is wrong with it.
        what: String,
    },
    /// A limit of the system was reached.
    #[serde(rename = "io.stead.Service.LimitReached")]
    LimitReached {
        /// Which.
        limit: String,
    },
    /// One step on the way to the new process failed.
    #[serde(rename = "io.stead.Service.SpawnFailed")]
    SpawnFailed {
        /// The step.
        stage: String,
    },
    /// A call of the system failed for a reason that no other kind names.
    #[serde(rename = "io.stead.Service.System")]
    System {
        /// The call.
        call: String,
    },
    /// A kind that the library has and this version of the protocol has not.
    #[serde(rename = "io.stead.Service.Other")]
    Other {
        /// The error's own line.
        text: String,
    },

    /// The policy does not entitle the caller. It is the same answer for a user that exists and for one that
    /// does not.
    #[serde(rename = "io.stead.Service.PolicyDenied")]
    PolicyDenied {
        /// The privilege that was needed.
        privilege: String,
        /// The client, as the caller named it; empty for one that it passed a socket of.
        client: String,
    },
    /// The caller has as many as the policy lets it have.
    #[serde(rename = "io.stead.Service.QuotaReached")]
    QuotaReached {
        /// Of what: `sessions`, `processes`, `connections`, `calls`.
        of: String,
        /// How many.
        most: u64,
    },
    /// After failed logons, or more than the audit log has room for, the next is not tried before some time has passed.
    #[serde(rename = "io.stead.Service.TryLater")]
    TryLater {
        /// In how many milliseconds.
        after: u64,
    },
    /// This connection has no such token, or the caller no such session or process.
    #[serde(rename = "io.stead.Service.NoSuchHandle")]
    NoSuchHandle {
        /// Of what: `token`, `session`, `process`.
        of: String,
    },

    /// The service has no such interface.
    #[serde(rename = "org.varlink.service.InterfaceNotFound")]
    InterfaceNotFound {
        /// The interface.
        interface: String,
    },
    /// The service has no such method.
    #[serde(rename = "org.varlink.service.MethodNotFound")]
    MethodNotFound {
        /// The method.
        method: String,
    },
    /// The method has other parameters.
    #[serde(rename = "org.varlink.service.InvalidParameter")]
    InvalidParameter {
        /// What is wrong with them.
        parameter: String,
    },
    /// The method must be called with `more`.
    #[serde(rename = "org.varlink.service.ExpectedMore")]
    ExpectedMore {},
}

impl FailureKind {
    /// A failure of this kind, met while `doing`.
    pub fn while_doing(self, doing: impl Into<String>) -> Failure {
        Failure { doing: doing.into(), kind: self, system: None }
    }

    /// Whether it is an error of Varlink itself, which has no more than its own parameters.
    fn is_varlinks_own(&self) -> bool {
        matches!(
            self,
            Self::InterfaceNotFound { .. }
                | Self::MethodNotFound { .. }
                | Self::InvalidParameter { .. }
                | Self::ExpectedMore {}
        )
    }
}

impl Serialize for Failure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut whole = serde_json::to_value(&self.kind).map_err(S::Error::custom)?;
        if !self.kind.is_varlinks_own()
            && let Some(Value::Object(parameters)) = whole.get_mut("parameters")
        {
            parameters.insert("doing".into(), self.doing.as_str().into());
            if let Some(system) = &self.system {
                parameters.insert("system".into(), serde_json::to_value(system).map_err(S::Error::custom)?);
            }
        }
        whole.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Failure {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut whole = Map::deserialize(deserializer)?;
        let parameters = whole.entry("parameters").or_insert_with(|| Value::Object(Map::new()));
        let (mut doing, mut system) = (String::new(), None);
        if let Value::Object(parameters) = parameters {
            if let Some(Value::String(text)) = parameters.remove("doing") {
                doing = text;
            }
            if let Some(value) = parameters.remove("system") {
                system = Some(serde_json::from_value(value).map_err(D::Error::custom)?);
            }
        }
        let kind = serde_json::from_value(Value::Object(whole)).map_err(D::Error::custom)?;
        Ok(Self { doing, kind, system })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.doing.is_empty() {
            write!(f, "{}: ", self.doing)?;
        }
        match &self.kind {
            FailureKind::PolicyDenied { privilege, client } if client.is_empty() => {
                write!(f, "the service's policy does not give the caller {privilege} over its client")?;
            }
            FailureKind::PolicyDenied { privilege, client } => {
                write!(f, "the service's policy does not give the caller {privilege} over {client:?}")?;
            }
            FailureKind::QuotaReached { of, most } => write!(f, "the caller has {most} {of} already")?,
            FailureKind::TryLater { after } => {
                write!(
                    f,
                    "after so much that failed, or is to be recorded, the next is tried in {after} ms at the earliest"
                )?;
            }
            FailureKind::NoSuchHandle { of } => write!(f, "there is no such {of}")?,
            FailureKind::Other { text } => f.write_str(text)?,
            FailureKind::AccountUnknown { name } => write!(f, "there is no account {name:?}")?,
            FailureKind::AccessDenied { object } => write!(f, "access to {object:?} was denied")?,
            FailureKind::NotFound { object } => write!(f, "there is no {object:?}")?,
            FailureKind::ClientConfined { part } => {
                write!(f, "the client is confined more than the service: {part}")?;
            }
            FailureKind::SessionEnded {} => f.write_str("the logon session has ended")?,
            FailureKind::DeadlinePassed { waiting_for } => {
                write!(f, "the deadline passed while waiting for {waiting_for}")?;
            }
            FailureKind::InvalidInput { what } => f.write_str(what)?,
            FailureKind::LimitReached { limit } => write!(f, "the limit of {limit} is reached")?,
            kind => {
                let value = serde_json::to_value(kind).map_err(|_| fmt::Error)?;
                let name = value.get("error").and_then(Value::as_str).unwrap_or_default();
                f.write_str(name.rsplit('.').next().unwrap_or(name))?;
                if let Some(Value::Object(parameters)) = value.get("parameters")
                    && !parameters.is_empty()
                {
                    write!(f, " {}", Value::Object(parameters.clone()))?;
                }
            }
        }
        match &self.system {
            Some(system) => write!(f, " ({})", system.text),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_the_wire() {
        let system = Some(SystemError { number: Some(13), text: "Permission denied".to_owned() });
        let kinds = [
            FailureKind::LogonFailed {},
            FailureKind::LevelTooLow { granted: Level::Identification, needed: Level::Impersonation },
            FailureKind::PolicyDenied { privilege: "tcb".to_owned(), client: "alice".to_owned() },
        ];
        for kind in kinds {
            let failure = Failure { doing: "logging on alice".to_owned(), kind, system: system.clone() };
            let json = serde_json::to_string(&failure).unwrap();
            assert_eq!(serde_json::from_str::<Failure>(&json).unwrap(), failure, "{json}");
        }
    }

    #[test]
    fn varlinks_own_errors_are_read_from_any_server() {
        let json = r#"{"error":"org.varlink.service.MethodNotFound","parameters":{"method":"a.b.C"}}"#;
        let failure: Failure = serde_json::from_str(json).unwrap();
        assert_eq!(failure.kind, FailureKind::MethodNotFound { method: "a.b.C".to_owned() });
        assert_eq!(serde_json::to_string(&failure).unwrap(), json);
    }
}

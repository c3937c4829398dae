//! The fixed table of methods.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{
    ClientToken, CloseSession, CloseToken, CreateProcess, DescribeToken, DuplicateToken, ExplainPolicy,
    GetProcess, GetStatus, KillTree, ListProcesses, ListSessions, LogOn, Monitor, OpenFile, OpenSession,
    OwnToken, RestrictToken, ResumeProcess, SignalProcess, TerminateSession, WaitProcess,
};

/// A method of the interface: the type is its parameters.
pub trait Method: Serialize + DeserializeOwned {
    /// Its whole name, with the interface's.
    const NAME: &'static str;

    /// What it replies.
    type Reply: Serialize + DeserializeOwned;
}

/// Why a call is none of the interface's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotDecoded {
    /// The interface has no such method.
    NoSuchMethod,
    /// The method has other parameters: what is wrong.
    Parameters(String),
}

macro_rules! methods {
    ($($name:ident => $reply:ty,)*) => {
        $(impl Method for $name {
            const NAME: &'static str = concat!("io.stead.Service.", stringify!($name));
            type Reply = $reply;
        })*

        /// A call of any of the interface's methods.
        #[derive(Debug)]
        pub enum Request {
            $(#[doc = concat!("See [`", stringify!($name), "`].")] $name($name),)*
        }

        impl Request {
            /// The names of all methods.
            pub const METHODS: &[&str] = &[$($name::NAME,)*];

            /// The call of `method` with the JSON object `parameters`.
            ///
            /// # Errors
            /// When there is no such method, or it has no such parameters: one that is not known is never
            /// passed over, for it might be what a caller relies on.
            pub fn decode(method: &str, parameters: Option<&str>) -> Result<Self, NotDecoded> {
                let parameters = parameters.unwrap_or("{}");
                match method {
                    $($name::NAME => decode(parameters).map(Self::$name),)*
                    _ => Err(NotDecoded::NoSuchMethod),
                }
            }

            /// The name of the method that is called.
            pub fn method(&self) -> &'static str {
                match self { $(Self::$name(_) => $name::NAME,)* }
            }
        }
    };
}

methods! {
    LogOn => crate::OpenedSession,
    OwnToken => crate::OpenedToken,
    ClientToken => crate::OpenedToken,
    DescribeToken => crate::OpenedToken,
    DuplicateToken => crate::OpenedToken,
    RestrictToken => crate::OpenedToken,
    CloseToken => crate::Nothing,
    OpenFile => crate::OpenedFile,
    CreateProcess => crate::CreatedProcess,
    ListProcesses => crate::Processes,
    GetProcess => crate::Process,
    WaitProcess => crate::Waited,
    ResumeProcess => crate::Nothing,
    SignalProcess => crate::Nothing,
    KillTree => crate::Nothing,
    ListSessions => crate::Sessions,
    OpenSession => crate::OpenedSession,
    TerminateSession => crate::Nothing,
    CloseSession => crate::Nothing,
    ExplainPolicy => crate::Explanation,
    Monitor => crate::Record,
    GetStatus => crate::Status,
}

fn decode<'json, T: Deserialize<'json>>(parameters: &'json str) -> Result<T, NotDecoded> {
    serde_json::from_str(parameters).map_err(|error| NotDecoded::Parameters(error.to_string()))
}

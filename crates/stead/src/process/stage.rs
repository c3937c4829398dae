//! The steps on the way to a new process.
#![forbid(unsafe_code)]

use std::fmt;

macro_rules! stages {
    ($($(#[doc = $doc:literal])* $name:ident => $text:literal,)*) => {
        /// One step on the way to a new process, in the order in which they happen.
        ///
        /// Everything up to [`NoNewPrivileges`](Self::NoNewPrivileges) is done with the server's
        /// rights; what follows, with the client's alone.
        ///
        /// ```
        /// use stead::process::Stage;
        /// assert_eq!(Stage::Groups.to_string(), "take on the supplementary groups");
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Stage {
            $($(#[doc = $doc])* $name,)*
        }

        impl Stage {
            /// All of them, in order.
            #[cfg(all(feature = "service", unix))]
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];
        }

        impl fmt::Display for Stage {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$name => $text,)*
                })
            }
        }
    };
}

stages! {
    /// Preparing the trampoline's image and the descriptors.
    Prepare => "prepare the new process",
    /// Creating the child.
    Clone => "create the child",
    /// Creating the child inside its cgroup.
    Cgroup => "create the child in its cgroup",
    /// Giving the child its descriptors.
    Place => "give the child its descriptors",
    /// Handing the server's capabilities to the trampoline, where the server is not root.
    Raise => "hand the server's capabilities to the trampoline",
    /// Executing the trampoline.
    Trampoline => "execute the trampoline",
    /// Reading what the server wants done.
    Arguments => "read the trampoline's arguments",
    /// Closing every descriptor that is not meant for the process.
    Descriptors => "close what the process shall not have",
    /// Starting a session of its own.
    Session => "start a session",
    /// Taking the controlling terminal.
    Terminal => "take the controlling terminal",
    /// Setting what no token says to its default.
    Defaults => "set the process defaults",
    /// Setting the nice value.
    Nice => "set the nice value",
    /// Setting the out-of-memory score adjustment.
    OomScore => "set the out-of-memory score adjustment",
    /// Setting a limit.
    Limits => "set the limits",
    /// Joining a new session keyring.
    Keyring => "join a new session keyring",
    /// Setting the login uid.
    LoginUid => "set the login uid",
    /// Keeping the client's other processes out of the new one until it is the client's.
    Shield => "keep the client's processes out",
    /// Dropping capabilities from the bounding set.
    BoundingSet => "drop capabilities from the bounding set",
    /// Setting the securebits.
    SecureBits => "set the securebits",
    /// Taking on the supplementary groups.
    Groups => "take on the supplementary groups",
    /// Taking on the gid.
    GroupId => "take on the gid",
    /// Taking on the uid.
    UserId => "take on the uid",
    /// Taking on the capability sets.
    Capabilities => "take on the capability sets",
    /// Taking on the ambient capabilities.
    Ambient => "take on the ambient capabilities",
    /// Giving up new privileges for good.
    NoNewPrivileges => "set no_new_privs",
    /// Reading the new credentials back.
    ReadBack => "read the credentials back",
    /// Trying to regain what was given up, which must fail.
    Regain => "make sure that the server's credentials are gone",
    /// Setting the label of the program.
    ExecLabel => "set the program's label",
    /// Entering the directory.
    Directory => "enter the directory",
    /// Resetting signals.
    Signals => "reset the signals",
    /// Waiting to be released from a suspended start.
    Gate => "wait to be resumed",
    /// Giving the program a parent in its session, by which it can be stopped from its terminal.
    Supervise => "give the program a parent in its session",
    /// Executing the program.
    Execute => "execute the program",
    /// Hearing from the trampoline: it was ended on the way.
    Ended => "hear from the trampoline",
    /// Hearing from the trampoline before the deadline.
    Deadline => "hear from the trampoline before the deadline",
}

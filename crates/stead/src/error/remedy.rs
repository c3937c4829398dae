//! What would mend what went wrong.

use std::borrow::Cow;
use std::path::is_separator;

use super::{AccountRestriction, ConfinedPart, ErrorKind, ProgramFault};

impl ErrorKind {
    /// What would mend it; on Windows for every error that people are known to meet there.
    pub(super) fn remedy(&self) -> Option<Cow<'static, str>> {
        Some(match self {
            #[cfg(target_os = "linux")]
            Self::PrivilegeMissing { missing, .. }
                if missing.contains(crate::sys::privilege::IN_THE_INITIAL) =>
            {
                "root of a user namespace (a rootless container) only seems to have it: run the server outside, \
                 or do not ask for what takes it"
                    .into()
            }
            Self::PrivilegeMissing { missing, held: true, .. } => format!(
                "{missing} is permitted but not effective: enable it for the call with Privilege::enabled"
            )
            .into(),
            #[cfg(windows)]
            Self::PrivilegeMissing { missing, .. } => {
                format!("run the server as a LocalSystem service, or give its account {missing}").into()
            }
            #[cfg(not(windows))]
            Self::PrivilegeMissing { missing, .. } => {
                format!("run the server as root, or give its unit AmbientCapabilities= with {missing}").into()
            }
            Self::LevelTooLow { .. } => {
                "the client must grant the level when it connects (local::Stream::connect_with)".into()
            }
            Self::LogonFailed => {
                "check the name and the password: which of the two is wrong is told to nobody".into()
            }
            #[cfg(windows)]
            Self::LogonTypeDenied { .. } => {
                "give the account that logon type's right (Local Security Policy, User Rights Assignment), or ask for \
                 another logon type"
                    .into()
            }
            #[cfg(not(windows))]
            Self::LogonTypeDenied { .. } => {
                "allow the account in that logon type's PAM service, or ask for another logon type".into()
            }
            Self::AccountRestriction { restriction } => of_account(*restriction).into(),
            Self::AccessDenied { .. } => {
                "what was touched must grant that to the identity that touched it (Token shows whose it is)".into()
            }
            Self::NotImpersonating => {
                "call it in the closure of impersonate, on the closure's own thread".into()
            }
            Self::SessionEnded => "log on again, and keep the session or a token of it for as long".into(),
            Self::LogonServerUnavailable => {
                "make a server of the account's domain reachable, or log on an account of this machine".into()
            }
            Self::ProgramNotFound { program } if !program.is_empty() && !program.contains(is_separator) => {
                "it was looked for in the PATH of the client's environment, not the server's: name it by its path, \
                 or set PATH with Command::env"
                    .into()
            }
            Self::DirectoryUnusable { .. } => "choose one with Command::current_dir".into(),
            Self::ClientConfined { part: ConfinedPart::NoNewPrivileges } => {
                "serve it as confined as it is with Confinement::carry_no_new_privs, or do not serve it"
                    .into()
            }
            Self::ClientConfined { .. } => {
                "do not serve it, or serve it from inside the same confinement".into()
            }
            Self::ConfinementUnknown { .. } => {
                "run the server as root, or give it CAP_SYS_PTRACE; where it can have neither, Confinement::Unknown \
                 serves such clients, sandboxed ones among them, as if they were free"
                    .into()
            }
            Self::KernelTooOld { .. } => "docs/linux.md lists what each kernel gives".into(),
            Self::PolicyDenied { .. } => {
                "`stead policy explain` says which rule decides for which server and client".into()
            }
            #[cfg(target_os = "linux")]
            Self::WorkerUnavailable { why } if why.starts_with(crate::sys::logon::NO_WORKER) => {
                "install stead-session beside the server or in libexec, or begin main with stead::init()"
                    .into()
            }
            Self::TrampolineUnavailable => {
                "install stead-trampoline in /usr/libexec/stead, owned by root, or set vm.memfd_noexec to 0 or 1"
                    .into()
            }
            Self::StatusLost => {
                "leave children to the library: no waitpid(-1) elsewhere, SIGCHLD not ignored".into()
            }
            Self::DesktopAccess { mend: Some(mend), .. } => mend.clone(),
            #[cfg(not(windows))]
            Self::NoLogonSid => {
                "ask for one when logging on (Logon::logon_sid), or grant to the user (Desktop::grant_to)".into()
            }
            Self::ProgramUnusable { why, .. } => return of_program(*why).map(Into::into),
            _ => return None,
        })
    }
}

/// Of an account that may not log on.
fn of_account(restriction: AccountRestriction) -> &'static str {
    match restriction {
        AccountRestriction::AccountExpired => "have the account's end put off",
        AccountRestriction::AccountDisabled => "have the account enabled",
        AccountRestriction::AccountLocked => "wait until it is unlocked, or have it unlocked",
        AccountRestriction::PasswordExpired => {
            "answer the change of password in a conversation (Logon::conversation)"
        }
        #[cfg(windows)]
        AccountRestriction::PolicyForbids => {
            "see the account's hours, its machines, and whether it has an empty password, which counts at the \
             machine's own keyboard only"
        }
        #[cfg(not(windows))]
        AccountRestriction::PolicyForbids => {
            "see at which times, from where, and in which logon type's PAM service it may"
        }
    }
}

/// Of a program that cannot be executed.
fn of_program(why: ProgramFault) -> Option<&'static str> {
    Some(match why {
        #[cfg(windows)]
        ProgramFault::BadFormat => "name a program for this kind of machine; for a script, its interpreter",
        #[cfg(not(windows))]
        ProgramFault::BadFormat => "give the script a #! line; no shell is ever put in between",
        ProgramFault::BatchFile => "run cmd.exe itself, with a command line that nothing of a client's is in",
        ProgramFault::ElevationRequired => "use the elevated token that is linked to this one",
        ProgramFault::AppAlias => "name the program itself, not its alias in WindowsApps",
        ProgramFault::NotPermitted => {
            "the program, and every directory on the way, must let the token's user execute it"
        }
        ProgramFault::PinnedScript => "name the script by its path, or pin its interpreter",
        _ => return None,
    })
}

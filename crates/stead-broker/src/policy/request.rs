//! What is asked of the policy.

use stead::LogonType;
use stead::os::linux::{Gid, GroupSet, Limit, Uid};

use super::privilege::Privilege;
use super::variable::Variable;

/// Who asks the service, as the kernel says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its effective uid as of connect.
    pub uid: Uid,
    /// Its groups as of connect, the primary one among them.
    pub gids: GroupSet,
    /// The groups that the account database has it in: they count for `[[deny]]` rules only.
    pub account_gids: GroupSet,
}

impl Caller {
    /// A caller with the groups that the kernel tells.
    pub fn new(uid: Uid, gids: impl IntoIterator<Item = Gid>) -> Self {
        Self { uid, gids: gids.into_iter().collect(), account_gids: GroupSet::default() }
    }

    /// With the groups that the account database has it in.
    #[must_use]
    pub fn account_groups(mut self, gids: impl IntoIterator<Item = Gid>) -> Self {
        self.account_gids = gids.into_iter().collect();
        self
    }
}

/// Whom the caller wants to act for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Its uid; `None` for a name that no account has, which is refused like an account that is not allowed.
    pub uid: Option<Uid>,
    /// Its name, for messages.
    pub name: String,
    /// Whether the account database was asked for it.
    pub is_looked_up: bool,
    /// The groups that its process will have: the kernel's of a connected client, the token's of a session, the
    /// account database's before a logon.
    pub gids: GroupSet,
    /// The groups that the account database has it in, and those that were taken from its token: they count for
    /// `[[deny]]` rules only.
    pub account_gids: GroupSet,
}

impl Subject {
    /// A client with the groups that its process will have.
    pub fn new(uid: Uid, name: impl Into<String>, gids: impl IntoIterator<Item = Gid>) -> Self {
        let gids = gids.into_iter().collect();
        Self {
            uid: Some(uid),
            name: name.into(),
            is_looked_up: true,
            gids,
            account_gids: GroupSet::default(),
        }
    }

    /// A name that no account has.
    pub fn unknown(name: impl Into<String>) -> Self {
        let (gids, account_gids) = Default::default();
        Self { uid: None, name: name.into(), is_looked_up: true, gids, account_gids }
    }

    /// A name that the account database was not asked for: for a decision that is the same of everybody.
    pub fn not_looked_up(name: impl Into<String>) -> Self {
        Self { is_looked_up: false, ..Self::unknown(name) }
    }

    /// With the groups that the account database has it in.
    #[must_use]
    pub fn account_groups(mut self, gids: impl IntoIterator<Item = Gid>) -> Self {
        self.account_gids = gids.into_iter().collect();
        self
    }
}

/// The program of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgramRequest<'a> {
    /// As the caller named it. What has no slash is searched by the client, on its PATH.
    Path(&'a [u8]),
    /// An open file that the caller passed: only a rule for any program covers it.
    Descriptor,
}

/// How the client is to be logged on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogonRequest<'a> {
    /// By a logon type.
    Type(LogonType),
    /// By a PAM service that the caller named itself.
    PamService(&'a str),
}

/// The desktop that a process shall be able to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DesktopRequest<'a> {
    /// None.
    #[default]
    None,
    /// One whose interactive session is the client's own, however it was named.
    Own,
    /// The interactive session of somebody else, or of nobody yet.
    Interactive,
    /// A display or terminal by name, where no interactive session is known to own it.
    Named(&'a str),
}

/// One thing that a caller asks for.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Request<'a> {
    /// The privilege that it takes.
    pub privilege: Privilege,
    /// Over whom.
    pub client: &'a Subject,
    /// How the client is logged on: for [`Privilege::Logon`] and [`Privilege::Tcb`].
    pub logon: Option<LogonRequest<'a>>,
    /// The program: for [`Privilege::AssignPrimaryToken`].
    pub program: Option<ProgramRequest<'a>>,
    /// The variables that the caller sets or takes away: for [`Privilege::AssignPrimaryToken`].
    pub environment: Vec<Variable<'a>>,
    /// The hard limits above the service's own: for [`Privilege::IncreaseQuota`].
    pub limits: Vec<(Limit, u64)>,
    /// The desktop: for [`Privilege::AssignPrimaryToken`].
    pub desktop: DesktopRequest<'a>,
    /// What it is called, where it was asked for by an interactive session: a `[[deny]]` rule may name it.
    pub found: Option<&'a str>,
}

impl<'a> Request<'a> {
    /// A request for `privilege` over `client`, and nothing more.
    pub fn new(privilege: Privilege, client: &'a Subject) -> Self {
        let (logon, program, environment, limits, desktop, found) = Default::default();
        Self { privilege, client, logon, program, environment, limits, desktop, found }
    }

    /// To log it on in this way.
    #[must_use]
    pub fn logon(mut self, logon: LogonRequest<'a>) -> Self {
        self.logon = Some(logon);
        self
    }

    /// To run this program.
    #[must_use]
    pub fn program(mut self, program: ProgramRequest<'a>) -> Self {
        self.program = Some(program);
        self
    }

    /// With these variables, or without.
    #[must_use]
    pub fn environment(mut self, variables: impl IntoIterator<Item = Variable<'a>>) -> Self {
        self.environment.extend(variables);
        self
    }

    /// With this hard limit.
    #[must_use]
    pub fn limit(mut self, limit: Limit, hard: u64) -> Self {
        self.limits.push((limit, hard));
        self
    }

    /// On this desktop.
    #[must_use]
    pub fn desktop(mut self, desktop: DesktopRequest<'a>) -> Self {
        self.desktop = desktop;
        self
    }

    /// Which is the one of this name.
    #[must_use]
    pub fn found(mut self, name: &'a str) -> Self {
        self.found = Some(name);
        self
    }
}

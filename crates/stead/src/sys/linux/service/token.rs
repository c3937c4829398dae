//! Tokens that the service holds.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use stead_protocol::{DuplicateToken, Level, OpenFile, OpenedToken, OwnToken, RestrictToken};

use super::connection::{Line, PATIENCE, Service};
use super::error::{protocol, undescribed};
use super::process;
use crate::error::Result;
use crate::impersonate::OpenOptions;
use crate::sys::elsewhere::{Creation, Order, TokenElsewhere};
use crate::sys::logon::SessionHandle;
use crate::sys::token::{
    CapabilitySet, CapabilitySets, Elsewhere, Gid, GroupSet, Label, LoginUid, SecureBits, SecurityContext,
    Taken, Uid,
};
use crate::token::{ConfinementKnowledge, ImpersonationLevel, Primary, Token, TokenData, TokenKind};

/// A token of the service's, by its number.
pub(super) struct Held {
    pub(super) line: Arc<Line>,
    pub(super) number: u64,
}

impl Held {
    pub(super) fn new(line: &Arc<Line>, opened: &OpenedToken) -> Arc<Self> {
        Arc::new(Self { line: Arc::clone(line), number: opened.token })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.line.let_go(self.number);
    }
}

impl TokenElsewhere for Held {
    fn prepare(&self, order: Order<'_>) -> Result<Creation> {
        process::prepare(self, order)
    }

    fn primary(&self) -> Result<Arc<dyn TokenElsewhere>> {
        let call = DuplicateToken { token: self.number, primary: true, level: None };
        let (opened, _) =
            self.line.call("making a primary token through the service", &call, &[], Some(PATIENCE))?;
        Ok(Self::new(&self.line, &opened))
    }

    fn restrict(&self, taken: &Taken) -> Result<Arc<dyn TokenElsewhere>> {
        let call = RestrictToken {
            token: self.number,
            without_privileges: false,
            without_groups: taken.groups.iter().map(|gid| gid.as_raw()).collect(),
            without_capabilities: taken.capabilities.bits(),
            no_new_privs: taken.no_new_privs,
        };
        let (opened, _) =
            self.line.call("restricting a token through the service", &call, &[], Some(PATIENCE))?;
        Ok(Self::new(&self.line, &opened))
    }

    fn open(&self, path: &Path, options: &OpenOptions) -> Result<File> {
        let doing = format!("opening {} through the service", path.display());
        let call = OpenFile {
            token: self.number,
            path: path.as_os_str().into(),
            read: options.read,
            write: options.write,
            append: options.append,
            truncate: options.truncate,
            create: options.create,
            create_new: options.create_new,
            no_follow: options.native.no_follow,
            special_files: options.native.special_files,
            mode: Some(options.native.mode),
            deadline: None,
        };
        let (opened, mut descriptors) = self.line.call(doing.clone(), &call, &[], Some(PATIENCE))?;
        Ok(descriptors.take(opened.file).map_err(|source| protocol(doing, source))?.into())
    }
}

/// The caller's own token, as the service knows it.
pub(crate) fn own_token(service: &Arc<Service>) -> Result<Token<Primary>> {
    const DOING: &str = "reading this server's own token through the service";
    let line = Arc::new(Line::new(service)?);
    let (opened, _) = line.call(DOING, &OwnToken {}, &[], Some(PATIENCE))?;
    // The service creates processes with a token of either kind: a primary one there would be a call more.
    described(&line, &opened, opened.context.level.into(), None, DOING)
}

/// A token as the service describes it.
pub(super) fn described<K: TokenKind>(
    line: &Arc<Line>,
    opened: &OpenedToken,
    level: ImpersonationLevel,
    session: Option<Arc<SessionHandle>>,
    doing: &'static str,
) -> Result<Token<K>> {
    let context = context(&opened.context).ok_or_else(|| undescribed(doing))?;
    let mut data = TokenData::new(context, session, ConfinementKnowledge::Verified);
    data.elsewhere = Elsewhere(Some(Held::new(line, opened)));
    Ok(Token::from_data(data, level))
}

/// The context; none for ids that stand for nobody.
pub(super) fn context(token: &stead_protocol::Token) -> Option<SecurityContext> {
    let set = CapabilitySet::from_bits;
    Some(SecurityContext {
        uid: Uid::new(token.uid)?,
        gid: Gid::new(token.gid)?,
        groups: token.groups.iter().map(|gid| Gid::new(*gid)).collect::<Option<GroupSet>>()?,
        capabilities: CapabilitySets {
            permitted: set(token.capabilities.permitted),
            effective: set(token.capabilities.effective),
            inheritable: set(token.capabilities.inheritable),
            ambient: set(token.capabilities.ambient),
            bounding: set(token.capabilities.bounding),
        },
        securebits: SecureBits(token.securebits),
        no_new_privs: token.no_new_privs,
        label: token.label.as_ref().map(|label| Label(label.as_bytes().into())),
        login_uid: match token.login_uid {
            None => LoginUid::Unsupported,
            Some(raw) => Uid::new(raw).map_or(LoginUid::Unset, LoginUid::Set),
        },
    })
}

impl From<ImpersonationLevel> for Level {
    fn from(level: ImpersonationLevel) -> Self {
        match level {
            ImpersonationLevel::Anonymous => Self::Anonymous,
            ImpersonationLevel::Identification => Self::Identification,
            ImpersonationLevel::Impersonation => Self::Impersonation,
            ImpersonationLevel::Delegation => Self::Delegation,
        }
    }
}

impl From<Level> for ImpersonationLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Anonymous => Self::Anonymous,
            Level::Identification => Self::Identification,
            Level::Impersonation => Self::Impersonation,
            Level::Delegation => Self::Delegation,
        }
    }
}

//! The token of a client.
#![forbid(unsafe_code)]

use std::fmt::DebugStruct;
use std::os::fd::AsFd;

use super::confinement::{Policy, examine};
use super::identity::Peer;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::impersonate::as_server;
use crate::sys::token::{CapabilitySet, CapabilitySets, Gid, GroupSet, SecureBits, SecurityContext};
use crate::token::{ConfinementKnowledge, Impersonation, ImpersonationLevel, Token, TokenData};

impl Peer {
    /// Looks at the client's process now, and makes the token of what it was at connect.
    pub(crate) fn token(
        &self,
        level: ImpersonationLevel,
        policy: Policy,
        doing: &'static str,
    ) -> Result<Token<Impersonation>> {
        if let Some(holder) = &self.elsewhere {
            return as_server(|| holder.token(level));
        }
        let reading = as_server(|| {
            let pidfd = self.pidfd.as_ref().map(AsFd::as_fd);
            examine(pidfd, self.pid, self.label.as_ref(), policy, doing)
        })?;
        if let Some(status) = &reading.status {
            let groups: Option<GroupSet> = status.groups.iter().map(|raw| Gid::new(*raw)).collect();
            if groups.as_ref() != Some(&self.groups) {
                let what = "its supplementary groups are not those of connect".into();
                return Err(Error::new(doing, ErrorKind::ClientChanged { what }));
            }
        }
        self.verify(doing)?;
        if reading.knowledge != ConfinementKnowledge::Verified {
            tracing::warn!(uid = %self.uid, confinement = %reading.knowledge, "a client's confinement is not known");
        }
        let context = SecurityContext {
            uid: self.uid,
            gid: self.gid,
            groups: self.groups.clone(),
            capabilities: CapabilitySets {
                bounding: CapabilitySet::from_bits(reading.own_bounding),
                ..CapabilitySets::default()
            },
            securebits: SecureBits::default(),
            no_new_privs: reading.no_new_privs,
            label: reading.label,
            login_uid: reading.login_uid,
        };
        let data = TokenData { limits: reading.limits, ..TokenData::new(context, None, reading.knowledge) };
        Ok(Token::from_data(data, level))
    }

    /// Who it is, for `Debug`.
    pub(crate) fn show(&self, shown: &mut DebugStruct<'_, '_>) {
        shown.field("uid", &self.uid.as_raw()).field("gid", &self.gid.as_raw());
    }
}

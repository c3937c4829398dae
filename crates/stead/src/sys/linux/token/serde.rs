//! A token for programs: JSON.

use ::serde::Serialize;
use ::serde::ser::{SerializeSeq, SerializeStruct, Serializer};

use super::{Capability, CapabilitySet, CapabilitySets, Label, SecurityContext};
use crate::os::linux::TokenExt;
use crate::token::{Token, TokenKind};

/// `kind`, `level`, the parts of the [context](SecurityContext), and `confinement`.
impl<K: TokenKind> Serialize for Token<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let context = &self.data.context;
        let mut token = serializer.serialize_struct("Token", 13)?;
        token.serialize_field("kind", K::NAME)?;
        token.serialize_field("level", &self.level)?;
        token.serialize_field("uid", &context.uid)?;
        token.serialize_field("gid", &context.gid)?;
        token.serialize_field("groups", &context.groups)?;
        token.serialize_field("capabilities", &context.capabilities)?;
        token.serialize_field("securebits", &context.securebits)?;
        token.serialize_field("no_new_privs", &context.no_new_privs)?;
        token.serialize_field("label", &context.label)?;
        token.serialize_field("login_uid", &context.login_uid)?;
        let session = self.logon_session_id().map(|id| id.to_string());
        token.serialize_field("logon_session", &session)?;
        token.serialize_field("logon_gid", &self.logon_gid())?;
        token.serialize_field("confinement", &self.data.confinement)?;
        token.end()
    }
}

impl Serialize for SecurityContext {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut context = serializer.serialize_struct("SecurityContext", 8)?;
        context.serialize_field("uid", &self.uid)?;
        context.serialize_field("gid", &self.gid)?;
        context.serialize_field("groups", &self.groups)?;
        context.serialize_field("capabilities", &self.capabilities)?;
        context.serialize_field("securebits", &self.securebits)?;
        context.serialize_field("no_new_privs", &self.no_new_privs)?;
        context.serialize_field("label", &self.label)?;
        context.serialize_field("login_uid", &self.login_uid)?;
        context.end()
    }
}

/// The five sets by name.
impl Serialize for CapabilitySets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sets = serializer.serialize_struct("CapabilitySets", 5)?;
        sets.serialize_field("permitted", &self.permitted)?;
        sets.serialize_field("effective", &self.effective)?;
        sets.serialize_field("inheritable", &self.inheritable)?;
        sets.serialize_field("ambient", &self.ambient)?;
        sets.serialize_field("bounding", &self.bounding)?;
        sets.end()
    }
}

/// A list of names; bits without one as a hexadecimal number at the end.
impl Serialize for CapabilitySet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut names = serializer.serialize_seq(None)?;
        let mut rest = *self;
        for capability in Capability::ALL.iter().copied().filter(|one| self.contains(*one)) {
            names.serialize_element(capability.name())?;
            rest = rest.without(capability);
        }
        if !rest.is_empty() {
            names.serialize_element(&format!("{:#x}", rest.bits()))?;
        }
        names.end()
    }
}

/// As text.
impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

//! A token for programs: JSON.

use ::serde::Serialize;
use ::serde::ser::{SerializeStruct, Serializer};

use super::super::sid::Sid;
use super::{Elevation, Group, TokenPrivilege};
use crate::token::{Token, TokenKind};

/// In the usual form.
impl Serialize for Sid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Group {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut group = serializer.serialize_struct("Group", 2)?;
        group.serialize_field("sid", &self.sid)?;
        group.serialize_field("attributes", &self.attributes)?;
        group.end()
    }
}

impl Serialize for TokenPrivilege {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut privilege = serializer.serialize_struct("TokenPrivilege", 2)?;
        privilege.serialize_field("name", &self.name)?;
        privilege.serialize_field("enabled", &self.is_enabled())?;
        privilege.end()
    }
}

/// `kind`, `level`, and the parts of the context.
impl<K: TokenKind> Serialize for Token<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let context = &self.data().context;
        let mut token = serializer.serialize_struct("Token", 11)?;
        token.serialize_field("kind", K::NAME)?;
        token.serialize_field("level", &self.level())?;
        token.serialize_field("user", &context.user)?;
        token.serialize_field("groups", &context.groups)?;
        token.serialize_field("privileges", &context.privileges)?;
        token.serialize_field("integrity", &context.integrity)?;
        token.serialize_field("session_id", &context.session_id)?;
        token.serialize_field("logon_id", &format!("{:016x}", context.logon_id))?;
        token.serialize_field("logon_sid", &context.logon_sid())?;
        token.serialize_field("restricted", &context.restricted)?;
        let elevation = match context.elevation {
            Elevation::Default => "default",
            Elevation::Full => "full",
            Elevation::Limited => "limited",
        };
        token.serialize_field("elevation", elevation)?;
        token.end()
    }
}

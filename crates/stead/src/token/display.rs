//! A token for people (`Display`, `Debug`) and for programs (`serde`).

use std::fmt;

use super::{Token, TokenKind};

impl<K: TokenKind> fmt::Debug for Token<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let context = &self.data.context;
        write!(f, "Token<{}>({}, uid {}, gid {})", K::NAME, self.level, context.uid, context.gid)
    }
}

impl<K: TokenKind> fmt::Display for Token<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

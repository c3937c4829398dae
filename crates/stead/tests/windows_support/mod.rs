//! What the tests of processes on Windows share.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use stead::{Primary, Token};
use testbed::windows::{LOGON, Mint, USER};

/// The server's own token.
pub fn own() -> Token<Primary> {
    Token::current().unwrap()
}

/// The token of another user, from which a server may create a process.
pub fn minted() -> std::io::Result<Token<Primary>> {
    let mint = Mint::new(USER).logon(LOGON).privilege("SeAssignPrimaryTokenPrivilege");
    Ok(Token::<Primary>::try_from(mint.primary()?).unwrap())
}

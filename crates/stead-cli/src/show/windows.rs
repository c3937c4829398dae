//! A token as Windows has it.

use stead::Token;
use stead::os::windows::TokenExt;
use stead::token::TokenKind;

use crate::ending::Failure;
use crate::output::{Cell, Style, Table};

/// The whole token, and its user's name.
pub fn json<K: TokenKind>(token: &Token<K>, _session: Option<String>) -> Result<serde_json::Value, Failure> {
    let mut shown = serde_json::to_value(token).map_err(Failure::new)?;
    shown["names"] = serde_json::json!({ "user": user_name(token) });
    Ok(shown)
}

/// The whole token, for people.
pub fn tables<K: TokenKind>(token: &Token<K>, _session: Option<String>) -> Vec<Table> {
    let mut user = Table::new("User", &["Name", "SID"]);
    let name = user_name(token).unwrap_or_else(|| "no name".to_owned());
    user.row([name, token.user_sid().to_string()]);

    let mut groups = Table::new("Groups", &["SID", "Attributes"]);
    for group in token.groups() {
        groups.row([group.sid.to_string(), format!("{:#010x}", group.attributes)]);
    }

    let mut privileges = Table::new("Privileges of the token", &["Name", "State"]);
    for privilege in token.privileges() {
        let state = if privilege.is_enabled() {
            Cell::styled("enabled", Style::Good)
        } else {
            Cell::from("held, not enabled")
        };
        privileges.row([Cell::from(&privilege.name), state]);
    }

    let mut rest = Table::new("Context", &[]);
    let none = || "none".to_owned();
    rest.row(["Level".to_owned(), token.level().to_string()]);
    rest.row([
        "Integrity".to_owned(),
        token.integrity_level().map_or_else(none, |level| format!("{level:#x}")),
    ]);
    rest.row(["Session".to_owned(), token.session_id().to_string()]);
    rest.row(["Logon SID".to_owned(), token.logon_sid().map_or_else(none, |sid| sid.to_string())]);
    rest.row(["Restricted".to_owned(), if token.is_restricted() { "yes" } else { "no" }.to_owned()]);
    vec![user, groups, privileges, rest]
}

fn user_name<K: TokenKind>(token: &Token<K>) -> Option<String> {
    token.user_name().ok().flatten().map(|name| name.to_string_lossy().into_owned())
}

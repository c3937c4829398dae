//! What else matters on Windows.

use stead::Token;
use stead::os::windows::TokenExt;

use super::{Area, Finding};

/// Whose process this is, and in which session.
pub fn area() -> Area {
    let findings = match Token::current() {
        Ok(token) => {
            let name = token.user_name().ok().flatten();
            let name =
                name.map_or_else(|| token.user_sid().to_string(), |name| name.to_string_lossy().into_owned());
            vec![
                Finding::good("user", name),
                Finding::good("session", token.session_id().to_string()),
                if token.is_restricted() {
                    Finding::note("token", "restricted: what it creates is restricted, too")
                } else {
                    Finding::good("token", "not restricted")
                },
            ]
        }
        Err(error) => vec![Finding::missing("token", error.to_string())],
    };
    Area { name: "Token", findings }
}

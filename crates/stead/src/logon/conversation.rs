//! What a logon asks beyond the password.

use std::fmt;

use super::Secret;

/// A question of the logon: a one-time code, a new password in an expired one's place.
///
/// The text is the authentication module's; it may be in the system's language.
#[derive(Debug, Clone, Copy)]
pub struct Prompt<'a> {
    pub(crate) text: &'a str,
    pub(crate) echo: bool,
}

impl Prompt<'_> {
    /// What is asked.
    pub fn text(&self) -> &str {
        self.text
    }

    /// Whether the answer may be shown while it is typed.
    pub fn echo(&self) -> bool {
        self.echo
    }
}

impl fmt::Display for Prompt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text)
    }
}

/// Answers what a logon asks.
///
/// It is called on the thread that called [`Logon::open`](super::Logon::open), and the time that it takes does
/// not count against the deadline. A closure that takes a [`Prompt`] is a conversation too.
///
/// Reference: [pam_conv(3)](https://man7.org/linux/man-pages/man3/pam_conv.3.html).
///
/// ```
/// use stead::{Prompt, Secret};
/// let mut answers = |prompt: &Prompt<'_>| {
///     prompt.text().starts_with("One-time code").then(|| Secret::from("492039"))
/// };
/// fn is_conversation(_: &mut impl stead::Conversation) {}
/// is_conversation(&mut answers);
/// ```
#[doc(alias = "pam_conv")]
pub trait Conversation: Send {
    /// The answer; `None` refuses, and the logon fails.
    fn answer(&mut self, prompt: &Prompt<'_>) -> Option<Secret>;

    /// A text for whoever logs on: "your password expires in three days".
    fn inform(&mut self, text: &str, is_error: bool) {
        let _ = (text, is_error);
    }
}

impl<F> Conversation for F
where
    F: FnMut(&Prompt<'_>) -> Option<Secret> + Send,
{
    fn answer(&mut self, prompt: &Prompt<'_>) -> Option<Secret> {
        self(prompt)
    }
}

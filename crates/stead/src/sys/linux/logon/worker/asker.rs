//! Who answers what PAM modules ask: the secret once, then whoever logs the account on.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::rc::Rc;

use super::pam::Answers;
use super::send;
use crate::sys::logon::message::{Reply, Request, SecretBytes};
use crate::sys::logon::wire;

pub(super) struct Asker {
    pub(super) socket: Rc<OwnedFd>,
    /// Answers the first prompt without echo.
    pub(super) secret: Option<SecretBytes>,
    /// Whether the server answers.
    pub(super) conversation: bool,
    /// The prompt that nobody could answer.
    pub(super) unanswered: Option<String>,
}

impl Answers for Asker {
    fn prompt(&mut self, text: &[u8], echo: bool) -> Option<SecretBytes> {
        if !echo && let Some(secret) = self.secret.take() {
            return Some(secret);
        }
        if !self.conversation {
            self.unanswered = Some(String::from_utf8_lossy(text).trim_end().to_owned());
            return None;
        }
        send(&self.socket, &Reply::Prompt { echo, text: text.to_vec() }, &[]).ok()?;
        let frame = wire::receive(&*self.socket).ok()??;
        match Request::decode(frame.kind, &frame.body)? {
            Request::Answer(answer) => answer,
            _ => None,
        }
    }

    fn inform(&mut self, text: &[u8], error: bool) {
        if self.conversation {
            let _ = send(&self.socket, &Reply::Inform { error, text: text.to_vec() }, &[]);
        }
    }
}

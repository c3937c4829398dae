//! PAM, as far as a logon speaks to it.
#![expect(
    clippy::unused_self,
    reason = "the methods are those of the real transaction, the state is the model's"
)]

use std::ffi::{CStr, CString};

use super::super::asker::Asker;
use super::super::pam::Answers;
pub(super) use super::super::pam::{Call, Item, PamFault, StartFault};
use super::{Fault, GRANTED, Step, with};
use crate::sys::logon::pam_code;

/// A transaction.
pub(super) struct Pam<A> {
    answers: A,
    empty_passwords: bool,
}

fn fault(code: i32) -> PamFault {
    PamFault { code, text: format!("the model's {code}") }
}

impl Pam<Asker> {
    pub(super) fn start(_service: &CStr, answers: Asker) -> Result<Self, StartFault> {
        with(|system| {
            if system.turn() == Some(Fault::Fails) {
                return Err(StartFault::Pam(fault(pam_code::SYSTEM_ERR)));
            }
            system.started += 1;
            Ok(Self { answers, empty_passwords: true })
        })
    }

    pub(super) fn refuse_empty_passwords(&mut self) {
        self.empty_passwords = false;
    }

    pub(super) fn call(&mut self, call: Call) -> Result<(), PamFault> {
        with(|system| {
            if self.empty_passwords && matches!(call, Call::Authenticate | Call::Account) {
                system.empty_in.push(call);
            }
            if self.answers.secret.is_some() {
                system.secret_in.push(call);
            }
            if self.answers.conversation {
                system.conversation_in.push(call);
            }
            let result = match system.turn() {
                Some(Fault::Fails) => Err(fault(pam_code::SYSTEM_ERR)),
                Some(Fault::Lies) => Ok(()),
                other => {
                    match other {
                        Some(Fault::OtherUser) => system.user = Some(c"mallory".to_owned()),
                        Some(Fault::Nobody) => system.user = None,
                        _ => {}
                    }
                    match call {
                        Call::Authenticate => {
                            let _ = self.answers.prompt(b"Password: ", false);
                            // As modules of directories do with a name in another spelling.
                            if system.user.as_deref() == Some(c"ALICE") {
                                system.user = Some(c"alice".to_owned());
                            }
                            Ok(())
                        }
                        Call::Account if system.expired => Err(fault(pam_code::NEW_AUTHTOK_REQD)),
                        Call::Account | Call::ChangeExpired => Ok(()),
                        Call::Establish => {
                            system.groups.insert(GRANTED);
                            system.established = true;
                            Ok(())
                        }
                        Call::OpenSession => {
                            system.opened = true;
                            Ok(())
                        }
                        Call::CloseSession => {
                            super::world::pam_closes();
                            system.opened = false;
                            Ok(())
                        }
                        Call::Delete => {
                            system.established = false;
                            Ok(())
                        }
                    }
                }
            };
            system.steps.push(Step::Called(call, result.is_ok()));
            result
        })
    }

    pub(super) fn user(&self) -> Option<CString> {
        with(|system| system.user.clone())
    }

    pub(super) fn set(&mut self, item: Item, value: &CStr) -> Result<(), PamFault> {
        with(|system| match system.turn() {
            Some(Fault::Fails) => Err(fault(pam_code::SYSTEM_ERR)),
            Some(Fault::Lies) => Ok(()),
            _ => {
                if item == Item::User {
                    system.user = Some(value.to_owned());
                }
                Ok(())
            }
        })
    }

    pub(super) fn put_environment(&mut self, _variable: &CStr) -> Result<(), PamFault> {
        self.set(Item::Tty, c"")
    }

    pub(super) fn environment(&self) -> Vec<CString> {
        Vec::new()
    }

    pub(super) fn answers(&mut self) -> &mut Asker {
        &mut self.answers
    }
}

impl<A> Drop for Pam<A> {
    fn drop(&mut self) {
        with(|system| system.steps.push(Step::Ended));
    }
}

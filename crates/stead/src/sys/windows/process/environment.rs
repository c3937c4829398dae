//! The environment of a new process: the token's, then what the server adds; never the server's own.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::windows::ffi::{OsStrExt, OsStringExt};
use std::os::windows::io::{AsRawHandle, BorrowedHandle};
use std::ptr::null_mut;

use windows_sys::Win32::System::Environment::{CreateEnvironmentBlock, DestroyEnvironmentBlock};

use crate::process::EnvironmentChanges;

/// A block of variables, each name once whatever its case, in the order that Windows wants: by name, in capitals.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment(BTreeMap<Vec<u16>, (OsString, OsString)>);

/// The name as Windows compares it.
fn key(name: &OsStr) -> Vec<u16> {
    name.encode_wide()
        .map(|unit| {
            let mut capitals = char::from_u32(u32::from(unit)).into_iter().flat_map(char::to_uppercase);
            match (capitals.next().map(|one| u16::try_from(u32::from(one))), capitals.next()) {
                // Unicode has a capital in ASCII for two letters that are none (U+0131, U+017F); Windows has not.
                (Some(Ok(capital)), None) if unit < 0x80 || capital >= 0x80 => capital,
                _ => unit,
            }
        })
        .collect()
}

/// A block of the system's, given back when dropped.
struct Block(*mut core::ffi::c_void);

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: the block came from CreateEnvironmentBlock, and nobody else has it.
        unsafe { DestroyEnvironmentBlock(self.0) };
    }
}

impl Environment {
    /// What Windows gives the token's user: the machine's variables, then the user's. The server's own are not
    /// inherited.
    ///
    /// Reference: [CreateEnvironmentBlock](https://learn.microsoft.com/windows/win32/api/userenv/nf-userenv-createenvironmentblock).
    pub(crate) fn of(token: BorrowedHandle<'_>) -> io::Result<Self> {
        let mut raw = null_mut();
        // SAFETY: `raw` is written only by this call; the handle is borrowed and so open.
        if unsafe { CreateEnvironmentBlock(&raw mut raw, token.as_raw_handle(), 0) } == 0 {
            return Err(io::Error::last_os_error());
        }
        let block = Block(raw);
        let mut environment = Self::default();
        let mut at: *const u16 = block.0.cast();
        loop {
            // SAFETY: the block is a row of strings that end with NUL, after the last of which comes an empty one.
            let entry = unsafe {
                let mut length = 0;
                while *at.add(length) != 0 {
                    length += 1;
                }
                std::slice::from_raw_parts(at, length)
            };
            if entry.is_empty() {
                return Ok(environment);
            }
            // SAFETY: the string and its NUL are inside the block, and something follows them.
            at = unsafe { at.add(entry.len() + 1) };
            // Names may begin with `=` (`=C:`, a drive's directory).
            if let Some(equals) = entry.iter().skip(1).position(|unit| *unit == u16::from(b'=')) {
                let (name, value) = entry.split_at(equals + 1);
                environment.set(OsString::from_wide(name), OsString::from_wide(&value[1..]));
            }
        }
    }

    fn set(&mut self, name: OsString, value: OsString) {
        self.0.insert(key(&name), (name, value));
    }

    /// Applies what the server asked for.
    pub(crate) fn change(&mut self, changes: &EnvironmentChanges) {
        if changes.clear {
            self.0.clear();
        }
        for (name, value) in &changes.variables {
            match value {
                Some(value) => self.set(name.clone(), value.clone()),
                None => drop(self.0.remove(&key(name))),
            }
        }
    }

    /// Adds these, in the place of what has their names.
    pub(crate) fn add(&mut self, variables: &[(OsString, OsString)]) {
        for (name, value) in variables {
            self.set(name.clone(), value.clone());
        }
    }

    /// All of it, by name.
    pub(crate) fn variables(self) -> Vec<(OsString, OsString)> {
        self.0.into_values().collect()
    }

    /// The value of a variable.
    pub(crate) fn get(&self, name: &str) -> Option<&OsStr> {
        self.0.get(&key(OsStr::new(name))).map(|(_, value)| value.as_os_str())
    }

    /// The block as Windows takes it. The caller has checked what the server added for NUL.
    pub(crate) fn block(&self) -> Vec<u16> {
        let mut block = Vec::new();
        for (name, value) in self.0.values() {
            block.extend(name.encode_wide());
            block.push(u16::from(b'='));
            block.extend(value.encode_wide());
            block.push(0);
        }
        if block.is_empty() {
            block.push(0);
        }
        block.push(0);
        block
    }
}

#[cfg(test)]
mod tests {
    use std::os::windows::io::AsHandle;

    use super::*;
    use crate::token::Token;

    #[test]
    fn nothing_of_the_servers_own_environment_is_in_it() {
        // SAFETY of the test: no other test reads or writes this variable.
        let own = Token::current().unwrap();
        let environment = Environment::of(own.as_handle()).unwrap();
        assert!(environment.get("systemroot").is_some());
        // What cargo set for this process.
        assert!(
            std::env::var_os("CARGO_MANIFEST_DIR").is_none()
                || environment.get("CARGO_MANIFEST_DIR").is_none()
        );
    }

    #[test]
    fn a_name_is_there_once_whatever_its_case_and_the_block_is_in_order() {
        let mut changes = EnvironmentChanges::default();
        changes.clear();
        for (name, value) in [("b", "1"), ("A_", "2"), ("a", "3"), ("B", "4")] {
            changes.set(name.into(), value.into());
        }
        let mut environment = Environment::default();
        environment.change(&changes);
        let block = String::from_utf16(&environment.block()).unwrap();
        assert_eq!(block, "a=3\0A_=2\0b=1\0\0");
    }

    #[test]
    fn what_only_unicode_takes_for_a_name_of_the_systems_takes_not_its_place() {
        let mut environment = Environment::default();
        let pairs = [("SystemRoot", "own"), ("\u{17f}ystemRoot", "other"), ("W\u{131}ndir", "other")];
        environment.add(&pairs.map(|(name, value)| (name.into(), value.into())));
        assert_eq!(environment.get("systemroot"), Some(OsStr::new("own")));
        assert_eq!(environment.get("windir"), None);
    }

    #[test]
    fn an_empty_block_still_ends_twice() {
        assert_eq!(Environment::default().block(), [0, 0]);
    }
}

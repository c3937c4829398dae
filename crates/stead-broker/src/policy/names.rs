//! The names in a policy, looked up when it is loaded.

use std::collections::BTreeMap;

use stead::os::linux::{Gid, Uid, User, group_by_name};

/// Where users and groups are looked up.
pub trait Names {
    /// The uid of the user of exactly this name; `None` where there is none.
    ///
    /// # Errors
    ///
    /// Why the account database cannot be asked.
    fn user(&self, name: &str) -> Result<Option<Uid>, String>;

    /// The gid of the group of exactly this name; `None` where there is none.
    ///
    /// # Errors
    ///
    /// Why the account database cannot be asked.
    fn group(&self, name: &str) -> Result<Option<Gid>, String>;
}

/// The machine's account database.
#[derive(Debug, Clone, Copy)]
pub struct Accounts;

impl Names for Accounts {
    fn user(&self, name: &str) -> Result<Option<Uid>, String> {
        let user = User::by_name(name).map_err(|error| error.to_string())?;
        Ok(user.map(|user| user.uid()))
    }

    fn group(&self, name: &str) -> Result<Option<Gid>, String> {
        group_by_name(name).map_err(|error| error.to_string())
    }
}

/// Users and groups as written down by hand: for tests, and for looking at a policy of another machine.
#[derive(Debug, Clone, Default)]
pub struct NameTable {
    users: BTreeMap<String, Uid>,
    groups: BTreeMap<String, Gid>,
}

impl NameTable {
    /// Nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// With this user; -1 is nobody.
    #[must_use]
    pub fn user(mut self, name: &str, uid: u32) -> Self {
        self.users.extend(Uid::new(uid).map(|uid| (name.to_owned(), uid)));
        self
    }

    /// With this group; -1 is none.
    #[must_use]
    pub fn group(mut self, name: &str, gid: u32) -> Self {
        self.groups.extend(Gid::new(gid).map(|gid| (name.to_owned(), gid)));
        self
    }
}

impl Names for NameTable {
    fn user(&self, name: &str) -> Result<Option<Uid>, String> {
        Ok(self.users.get(name).copied())
    }

    fn group(&self, name: &str) -> Result<Option<Gid>, String> {
        Ok(self.groups.get(name).copied())
    }
}

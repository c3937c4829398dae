//! The users of the bed, and the account files that name them.

use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::path::PathBuf;

/// A throw-away user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct User {
    /// Its name, as in the account files.
    pub name: String,
    /// Its user id.
    pub uid: u32,
    /// Its primary group's id.
    pub gid: u32,
    /// Its supplementary groups, without the primary one, in ascending order.
    pub groups: Vec<u32>,
    /// Its home directory.
    pub home: PathBuf,
    /// Its password.
    pub password: String,
}

impl User {
    /// Primary and supplementary groups, in ascending order: what `initgroups` gives a process of this user.
    pub fn all_groups(&self) -> Vec<u32> {
        let mut all = self.groups.clone();
        all.push(self.gid);
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// How an account stands in the shadow file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    Good,
    /// `!` before the hash: pam_unix then refuses every password.
    Locked,
    /// The account's own expiry date has passed.
    Expired,
    /// The last change is day 0: a new password is demanded at the next logon.
    PasswordExpired,
}

struct Recipe {
    name: &'static str,
    uid: u32,
    groups: &'static [&'static str],
    standing: Standing,
    has_home: bool,
    /// `crypt(3)` of "NAME opens the door" with SHA-512. A test password: it opens nothing but the bed.
    hash: &'static str,
}

/// Group name and id. `stead-granted` has no member: `pam_group` gives it to alice for one service.
const GROUPS: &[(&str, u32)] = &[
    ("stead-g01", 47101),
    ("stead-g02", 47102),
    ("stead-g03", 47103),
    ("stead-g04", 47104),
    ("stead-g05", 47105),
    ("stead-g06", 47106),
    ("stead-g07", 47107),
    ("stead-g08", 47108),
    ("stead-g09", 47109),
    ("stead-g10", 47110),
    ("stead-g11", 47111),
    ("stead-g12", 47112),
    ("stead-g13", 47113),
    ("stead-g14", 47114),
    ("stead-g15", 47115),
    ("stead-g16", 47116),
    ("stead-shared", 47117),
    ("stead-granted", GRANTED_GROUP),
];

/// The group that `pam_group` grants to alice in the service `stead-interactive`.
pub(crate) const GRANTED_GROUP: u32 = 47120;

/// Seventeen: more than the 16 that NFS's AUTH_SYS and many fixed-size arrays hold.
const ALICE_GROUPS: &[&str] = &[
    "stead-g01",
    "stead-g02",
    "stead-g03",
    "stead-g04",
    "stead-g05",
    "stead-g06",
    "stead-g07",
    "stead-g08",
    "stead-g09",
    "stead-g10",
    "stead-g11",
    "stead-g12",
    "stead-g13",
    "stead-g14",
    "stead-g15",
    "stead-g16",
    "stead-shared",
];

/// Above `INT_MAX` (CVE-2018-19788), therefore only where the id map reaches so far.
const CAROL: u32 = 4_000_000_000;

#[rustfmt::skip]
const USERS: &[Recipe] = &[
    Recipe { name: "alice", uid: 47001, groups: ALICE_GROUPS, standing: Standing::Good, has_home: true,
        hash: "$6$steadtestbed$sH20jCNo/AUa1I0pu/q6UQZz8pLLpPV2nieaferEsY/9ivXe5eOJfKhH8PTWr2/ZhCCw2n4I..rmuhq6LCyo./" },
    Recipe { name: "bob", uid: 47002, groups: &["stead-shared"], standing: Standing::Good, has_home: true,
        hash: "$6$steadtestbed$1g.vW8uun66KK0fdTbqoj6PnYkgOW1EBNXF0OSmIwNBWDOHFC7e..MsYZTab24EVu155sdtAVggU0OjE4VrSR." },
    Recipe { name: "carol", uid: CAROL, groups: &["stead-shared"], standing: Standing::Good, has_home: true,
        hash: "$6$steadtestbed$Q7ePGtN0yY6ohUNkxXWYDahSK2aSoOfRKlCN2V9cLtBNF2NWqRcBSi2bzNwoH9oLbvWsxX2EBtlv2ceYo2heD0" },
    Recipe { name: "0day", uid: 47004, groups: &[], standing: Standing::Good, has_home: true,
        hash: "$6$steadtestbed$VtQV3DwZboRm0F/UIKjr.RP.UpodoTMVJVsp9LfjSBTMkTOiuDlq2S//rnQbhjH5d2PUDksxyKHlCNars02yH0" },
    Recipe { name: "dave", uid: 47005, groups: &[], standing: Standing::Locked, has_home: true,
        hash: "$6$steadtestbed$fSgHuGIUcQ2YOLGCzptDH4Ur49rmKApevbCG5ZiLAGMjoRGYSe1LzF4DjEdb1.EDX7ZNr7jb8JSvxaQVDr/iX." },
    Recipe { name: "erin", uid: 47006, groups: &[], standing: Standing::Expired, has_home: true,
        hash: "$6$steadtestbed$7ND7d5LdpK4ho7755kicsbflpjLAZMkS4BapsWbCfnGNLA/xcEGOOb7yNRxj3g3XoUooe/oT9RvgRhfCCzuUb." },
    Recipe { name: "frank", uid: 47007, groups: &[], standing: Standing::PasswordExpired, has_home: true,
        hash: "$6$steadtestbed$yWPIHVWERTZscy/A7ROLLq1WJDwrWvO5mAQtdGv3k679ihVeabgOURf5/z18Fm2dDD9B7a9dAT99e561SaYgY." },
    Recipe { name: "grace", uid: 47010, groups: &[], standing: Standing::Good, has_home: false,
        hash: "$6$steadtestbed$YpGmoSwS3IocQ6vRWqZg8HZbiToX4ZAIdFEQDJRWlWiCkEq/TDnzrGq7r/EbG3o8mv5RmK3lYaqOUk0oPZ2x8/" },
    Recipe { name: "mallory", uid: 47008, groups: &[], standing: Standing::Good, has_home: true,
        hash: "$6$steadtestbed$25Jg.YnBM7pRYQ3NPvzMWxU6iGk8Q8QXRh4N4yRNXKzeNpkKUO/P.4dOn1DaUuRqJlPwX5J6QB0XSGpOVwKXq." },
    Recipe { name: "svc", uid: 47009, groups: &[], standing: Standing::Good, has_home: true,
        hash: "$6$steadtestbed$wqi1pBkzSpa/8W/rWn9xw19GHc3J24lIZD65rSrg.fxwdKB4P3.O9miSItDUubFO9PsOSatIbVQ6iL7CvevBg1" },
];

/// The mark in the GECOS field (and the group password field's neighbour, the name) by which what a run left
/// behind in a container's own files is found again.
pub(crate) const MARK: &str = "stead-testbed throw-away user";

/// The salt of our hashes.
pub(crate) const SALT_MARK: &str = "$steadtestbed$";

/// Whether an id means something here: in a user namespace only what the map holds.
pub(crate) fn id_is_mapped(map: &str, id: u32) -> bool {
    map.lines().any(|line| {
        let mut fields = line.split_whitespace().map(str::parse::<u64>);
        match (fields.next(), fields.next(), fields.next()) {
            (Some(Ok(inside)), Some(Ok(_)), Some(Ok(count))) => {
                (inside..inside + count).contains(&u64::from(id))
            }
            _ => false,
        }
    })
}

/// The users whose ids the present user namespace can name, with homes below `homes`.
pub(crate) fn users(homes: &std::path::Path) -> Vec<User> {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    all_users(homes).into_iter().filter(|user| id_is_mapped(&map, user.uid)).collect()
}

/// All users that a bed can have.
pub(crate) fn all_users(homes: &std::path::Path) -> Vec<User> {
    USERS
        .iter()
        .map(|recipe| User {
            name: recipe.name.to_owned(),
            uid: recipe.uid,
            gid: recipe.uid,
            groups: {
                let mut groups: Vec<u32> = recipe.groups.iter().filter_map(|name| group_id(name)).collect();
                groups.sort_unstable();
                groups
            },
            home: homes.join(recipe.name),
            password: format!("{} opens the door", recipe.name),
        })
        .collect()
}

/// Whether this user has a home directory at all.
pub(crate) fn has_home(name: &str) -> bool {
    USERS.iter().any(|recipe| recipe.name == name && recipe.has_home)
}

/// Every uid that a bed may use: what is looked for among the processes that it may have left behind.
pub(crate) fn all_uids() -> Vec<u32> {
    USERS.iter().map(|recipe| recipe.uid).collect()
}

fn group_id(name: &str) -> Option<u32> {
    GROUPS.iter().find(|(ours, _)| *ours == name).map(|(_, id)| *id)
}

/// The lines that our users need in the account files.
pub(crate) struct AccountLines {
    pub(crate) passwd: String,
    pub(crate) shadow: String,
    pub(crate) group: String,
    pub(crate) gshadow: String,
    pub(crate) subordinate: String,
}

/// Writes the lines for `users`.
pub(crate) fn lines(users: &[User]) -> AccountLines {
    let mut out = AccountLines {
        passwd: String::new(),
        shadow: String::new(),
        group: String::new(),
        gshadow: String::new(),
        subordinate: String::new(),
    };
    let mut subordinate = 1_000_000_u32;
    for user in users {
        let Some(recipe) = USERS.iter().find(|recipe| recipe.name == user.name) else { continue };
        let (name, uid, home) = (&user.name, user.uid, user.home.display());
        let (hash, changed, expires) = match recipe.standing {
            Standing::Good => (recipe.hash.to_owned(), "19000", ""),
            Standing::Locked => (format!("!{}", recipe.hash), "19000", ""),
            Standing::Expired => (recipe.hash.to_owned(), "19000", "1"),
            Standing::PasswordExpired => (recipe.hash.to_owned(), "0", ""),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(out.passwd, "{name}:x:{uid}:{uid}:{MARK}:{home}:/bin/sh");
        let _ = writeln!(out.shadow, "{name}:{hash}:{changed}:0:99999:7::{expires}:");
        let _ = writeln!(out.group, "{name}:x:{uid}:");
        let _ = writeln!(out.gshadow, "{name}:!::");
        let _ = writeln!(out.subordinate, "{name}:{subordinate}:65536");
        subordinate += 65536;
    }
    for (name, id) in GROUPS {
        let members: Vec<&str> = USERS
            .iter()
            .filter(|recipe| {
                recipe.groups.contains(name) && users.iter().any(|user| user.name == recipe.name)
            })
            .map(|recipe| recipe.name)
            .collect();
        let members = members.join(",");
        let _ = writeln!(out.group, "{name}:x:{id}:{members}");
        let _ = writeln!(out.gshadow, "{name}:!::{members}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_mapped_only_inside_a_range() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert!(id_is_mapped(map, 0));
        assert!(id_is_mapped(map, 65536));
        assert!(!id_is_mapped(map, 65537));
        assert!(!id_is_mapped(map, CAROL));
        assert!(id_is_mapped("0 0 4294967295", CAROL));
    }

    #[test]
    fn alice_has_seventeen_supplementary_groups() {
        let users = users(std::path::Path::new("/home"));
        assert_eq!(users[0].name, "alice");
        assert_eq!(users[0].groups.len(), 17);
        let lines = lines(&users);
        assert!(lines.group.contains("stead-shared:x:47117:alice,bob"));
        assert!(lines.group.contains("stead-granted:x:47120:\n"));
    }
}

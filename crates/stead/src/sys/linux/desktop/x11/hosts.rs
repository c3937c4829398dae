//! The host list: users and groups, where the server asked for it.
#![forbid(unsafe_code)]

use std::ffi::CString;

use super::GRANTING;
use super::wire::{Host, INTERPRETED};
use crate::desktop::Trustee;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::account::AccountEntry;
use crate::sys::token::{Gid, Uid};

/// The entry for a trustee, by number: the X server would look a name up each time somebody connects.
pub(super) fn of(trustee: &Trustee) -> Result<Host> {
    match trustee {
        Trustee::User(uid) => Ok(Host::interpreted("localuser", &format!("#{uid}"))),
        // The X server sees the primary group alone.
        Trustee::Group(gid) => Ok(Host::interpreted("localgroup", &format!("#{gid}"))),
        other => {
            let what = format!(
                "an X server's host list names users, not the {other}: grant to the user (Desktop::grant_to), or \
                 leave the host list alone"
            );
            Err(Error::new(GRANTING, ErrorKind::InvalidInput { what: what.into() }))
        }
    }
}

/// Whom an entry names.
pub(super) fn trustee(host: &Host) -> Trustee {
    let shown = || Trustee::Other(show(host));
    if host.family != INTERPRETED {
        return shown();
    }
    let mut parts = host.address.splitn(2, |byte| *byte == 0);
    let (Some(kind), Some(value)) = (parts.next(), parts.next()) else { return shown() };
    let number = std::str::from_utf8(value).ok().and_then(|value| value.strip_prefix('#')?.parse().ok());
    match (kind, number) {
        (b"localuser", Some(number)) => Uid::new(number).map_or_else(shown, Trustee::User),
        (b"localgroup", Some(number)) => Gid::new(number).map_or_else(shown, Trustee::Group),
        (b"localuser", None) => {
            let name = CString::new(value).ok();
            let account = name.and_then(|name| AccountEntry::by_any_name(&name).ok().flatten());
            account.map_or_else(shown, |account| Trustee::User(account.uid))
        }
        _ => shown(),
    }
}

/// As xhost(1) writes it.
fn show(host: &Host) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace('\0', ":");
    match (host.family, host.address.as_slice()) {
        (0, [a, b, c, d]) => format!("INET:{a}.{b}.{c}.{d}"),
        (6, address) => match <[u8; 16]>::try_from(address) {
            Ok(address) => format!("INET6:{}", std::net::Ipv6Addr::from(address)),
            Err(_) => format!("INET6:{address:?}"),
        },
        (INTERPRETED, address) => format!("SI:{}", text(address)),
        (252, _) => "LOCAL:".into(),
        (family, address) => format!("family {family}:{}", text(address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_user_or_group_of_the_host_list_is_who_was_put_there(number in 0..u32::MAX) {
            for expected in [Trustee::User(Uid::new(number).unwrap()), Trustee::Group(Gid::new(number).unwrap())] {
                prop_assert_eq!(trustee(&of(&expected).unwrap()), expected);
            }
        }

        #[test]
        fn any_entry_can_be_shown(family in any::<u8>(), address in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = trustee(&Host { family, address });
        }
    }
}

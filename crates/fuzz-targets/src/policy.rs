//! What an administrator writes and the service believes.

use stead::os::linux::{Gid, Uid};
use stead_broker::policy::{Caller, NameTable, Policy, Privilege, Request, Subject};

/// A decoder by its name.
type Named = (&'static str, fn(&[u8]));

/// The decoders, by name.
pub const TARGETS: &[Named] = &[("policy", policy)];

/// Errors have a place within the text; and a text that never says "root" gives nobody root.
fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let names = NameTable::new().user("root", 0).user("alice", 1000).user("svc", 500).group("portal", 600);
    let policy = match Policy::parse("policy.toml", text, &names) {
        Ok(policy) => policy,
        Err(errors) => {
            let lines = text.lines().count() + 1;
            assert!(!errors.as_slice().is_empty(), "refused without a reason");
            for error in errors.as_slice() {
                assert!(error.place.line <= lines, "{error}");
            }
            return;
        }
    };
    let id = |number| (Uid::new(number).expect("an id"), Gid::new(number).expect("an id"));
    let caller = Caller::new(id(500).0, [id(500).1, id(600).1]);
    let root = Subject::new(id(0).0, "root", [id(0).1]);
    for privilege in Privilege::ALL {
        let decision = policy.decide(&caller, &Request::new(*privilege, &root));
        assert!(!decision.allowed || text.contains("root"), "{decision:?}");
    }
}

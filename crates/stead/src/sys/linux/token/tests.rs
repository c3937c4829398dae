use super::*;
use crate::error::{ConfinedPart, ErrorKind};
use crate::os::linux::RestrictionExt;
use crate::token::{ConfinementKnowledge, Impersonation, Primary, Restriction, Token};

const ALL: CapabilitySet = CapabilitySet::from_bits((1 << 41) - 1);

fn gid(raw: u32) -> Gid {
    Gid::new(raw).unwrap()
}

/// Ids that no account database names.
fn context() -> SecurityContext {
    SecurityContext {
        uid: Uid::new(4_000_000_009).unwrap(),
        gid: gid(4_000_000_001),
        groups: [4_000_000_003, 4_000_000_002, 4_000_000_003].into_iter().map(gid).collect(),
        capabilities: CapabilitySets {
            permitted: CapabilitySet::EMPTY.with(Capability::NetAdmin).with(Capability::Chown),
            effective: CapabilitySet::EMPTY.with(Capability::Chown),
            inheritable: CapabilitySet::EMPTY,
            ambient: CapabilitySet::EMPTY,
            bounding: ALL.without(Capability::SysResource),
        },
        securebits: SecureBits(0),
        no_new_privs: false,
        label: None,
        login_uid: LoginUid::Unset,
    }
}

fn token() -> Token<Impersonation> {
    Token::from_context(context(), ImpersonationLevel::Impersonation, None)
}

fn changed(change: impl FnOnce(&mut SecurityContext)) -> Token<Impersonation> {
    let mut context = context();
    change(&mut context);
    Token::from_context(context, ImpersonationLevel::Impersonation, None)
}

#[test]
fn display_is_the_whole_token() {
    assert_eq!(
        token().to_string(),
        "\
impersonation token, level impersonation
  user          4000000009
  group         4000000001
  groups        4000000002, 4000000003
  permitted     CAP_CHOWN, CAP_NET_ADMIN
  effective     CAP_CHOWN
  inheritable   none
  ambient       none
  bounding set  all but CAP_SYS_RESOURCE
  no_new_privs  no
  login uid     not set
  logon session none of this server's
  confinement   no more than the server"
    );
}

#[test]
fn display_says_when_confinement_is_unknown() {
    let mut context = context();
    context.capabilities = CapabilitySets::default();
    context.label = Some(Label((*b"unconfined_u:\x1b[2J").into()));
    context.no_new_privs = true;
    let knowledge = ConfinementKnowledge::Unknown;
    let token = Token::<Impersonation>::from_process(context, ImpersonationLevel::Identification, knowledge);
    let text = token.to_string();
    assert!(text.ends_with("confinement unknown (ids and groups as of connect)"), "{text}");
    assert!(text.contains("  capabilities  none\n"), "{text}");
    assert!(text.contains("  no_new_privs  yes\n"), "{text}");
    assert!(!text.contains('\x1b'), "{text}");
}

#[test]
fn partial_knowledge_names_what_could_not_be_read() {
    let parts = [ConfinedPart::UserNamespace, ConfinedPart::RootDirectory];
    let knowledge = ConfinementKnowledge::Partial(parts.into());
    assert_eq!(
        knowledge.to_string(),
        "confinement partly unknown (user namespace, root directory could not be read)"
    );
}

#[test]
fn debug_is_one_short_line() {
    let text = "Token<impersonation>(impersonation, uid 4000000009, gid 4000000001)";
    assert_eq!(format!("{:?}", token()), text);
}

#[test]
fn tokens_are_equal_when_every_part_is() {
    assert_eq!(token(), token());
    assert_eq!(token(), token().duplicate(ImpersonationLevel::Identification).unwrap());
    let different: [fn(&mut SecurityContext); 8] = [
        |context| context.uid = Uid::ROOT,
        |context| context.gid = Gid::ROOT,
        |context| context.groups = GroupSet::default(),
        |context| context.capabilities.ambient = ALL,
        |context| context.securebits = SecureBits(1),
        |context| context.no_new_privs = true,
        |context| context.label = Some(Label((*b"x").into())),
        |context| context.login_uid = LoginUid::Set(Uid::ROOT),
    ];
    for change in different {
        assert_ne!(token(), changed(change));
    }
}

#[test]
fn no_duplicate_has_a_higher_level() {
    use ImpersonationLevel::{Anonymous, Delegation, Identification, Impersonation};
    for level in [Identification, Impersonation, Delegation] {
        let token = Token::<Primary>::from_context(context(), level, None);
        for wanted in [Identification, Impersonation, Delegation] {
            let made = token.duplicate(wanted);
            if wanted <= level {
                assert_eq!(made.unwrap().level(), wanted);
            } else {
                let too_low = ErrorKind::LevelTooLow { granted: level, needed: wanted };
                assert_eq!(made.unwrap_err().kind(), &too_low);
            }
        }
        assert!(matches!(token.duplicate(Anonymous).unwrap_err().kind(), ErrorKind::InvalidInput { .. }));
        assert_eq!(token.to_primary().is_ok(), level >= Impersonation);
    }
}

#[test]
fn a_restriction_takes_and_never_gives() {
    let restriction = Restriction::new()
        .without_group(gid(4_000_000_002))
        .without_capability(Capability::Chown)
        .no_new_privs();
    let restricted = token().restrict(&restriction).unwrap();
    let left = &restricted.data().context;
    assert_eq!(left.groups.as_slice(), [gid(4_000_000_003)]);
    assert_eq!(left.capabilities.permitted, CapabilitySet::EMPTY.with(Capability::NetAdmin));
    assert!(left.capabilities.effective.is_empty());
    assert!(!left.capabilities.bounding.contains(Capability::Chown));
    assert!(left.no_new_privs);
    assert_eq!(restricted.level(), ImpersonationLevel::Impersonation);
    // What was there before stays taken.
    let again = restricted.restrict(&Restriction::new()).unwrap();
    assert_eq!(again, restricted);
    assert_ne!(again, token());
}

#[test]
fn capabilities_within_a_set_are_no_more_than_it() {
    let kept = CapabilitySet::EMPTY.with(Capability::Chown).with(Capability::SysAdmin);
    let restricted = token().restrict(&Restriction::new().capabilities_within(kept)).unwrap();
    let sets = restricted.data().context.capabilities;
    assert_eq!(sets.permitted, CapabilitySet::EMPTY.with(Capability::Chown));
    assert_eq!(sets.bounding, kept);
}

#[test]
fn no_setuid_program_ever_gets_a_part_of_its_capabilities() {
    let without = |capability| Restriction::new().without_capability(capability);
    let restricted = token().restrict(&without(Capability::Setuid)).unwrap();
    assert!(restricted.data().context.no_new_privs);
    // What could not come back anyway changes nothing.
    let again = Restriction::new().capabilities_within(context().capabilities.bounding);
    assert!(!token().restrict(&again).unwrap().data().context.no_new_privs);
}

#[test]
fn without_privileges_nothing_is_left_to_come_back() {
    let restricted = token().restrict(&Restriction::new().without_privileges()).unwrap();
    assert_eq!(restricted.data().context.capabilities, CapabilitySets::default());
    assert!(restricted.data().context.no_new_privs);
}

#[test]
fn no_group_is_taken_that_is_not_named_nor_named_in_vain() {
    // Dropping a group can let a process into more (CVE-2014-8989).
    let all = token().restrict(&Restriction::new().without_privileges()).unwrap();
    assert_eq!(all.data().context.groups, context().groups);
    // Not among them; the primary group is no supplementary one.
    for raw in [7, 4_000_000_001] {
        let refused = token().restrict(&Restriction::new().without_group(gid(raw))).unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::InvalidInput { .. }));
    }
}

#[test]
fn the_servers_own_token_is_what_the_kernel_says() {
    let own = Token::current().unwrap();
    let context = &own.data().context;
    assert_eq!(context.uid.as_raw(), rustix::process::getuid().as_raw());
    assert_eq!(context.gid.as_raw(), rustix::process::getgid().as_raw());
    let groups = rustix::process::getgroups().unwrap();
    assert_eq!(context.groups, groups.iter().map(|group| gid(group.as_raw())).collect());
    let sets = rustix::thread::capabilities(None).unwrap();
    assert_eq!(context.capabilities.effective.bits(), sets.effective.bits());
    assert_eq!(context.capabilities.permitted.bits(), sets.permitted.bits());
    assert_eq!(own.level(), ImpersonationLevel::Impersonation);
}

#[test]
fn a_token_crosses_threads() {
    fn sent<T: Send + Sync + 'static>(_: &T) {}
    sent(&token());
}

#[cfg(feature = "serde")]
#[test]
fn json_has_every_part() {
    let json = serde_json::to_value(token()).unwrap();
    let bounding = json["capabilities"]["bounding"].as_array().unwrap();
    assert_eq!(bounding.len(), 40);
    let expected = serde_json::json!({
        "kind": "impersonation",
        "level": "impersonation",
        "uid": 4_000_000_009_u32,
        "gid": 4_000_000_001_u32,
        "groups": [4_000_000_002_u32, 4_000_000_003_u32],
        "capabilities": {
            "permitted": ["CAP_CHOWN", "CAP_NET_ADMIN"],
            "effective": ["CAP_CHOWN"],
            "inheritable": [],
            "ambient": [],
            "bounding": bounding,
        },
        "securebits": 0,
        "no_new_privs": false,
        "label": null,
        "login_uid": "unset",
        "logon_session": null,
        "logon_gid": null,
        "confinement": "verified",
    });
    assert_eq!(json, expected);
    let unknown = changed(|context| context.capabilities.permitted = CapabilitySet::from_bits(1 << 63));
    let json = serde_json::to_value(unknown).unwrap();
    assert_eq!(json["capabilities"]["permitted"], serde_json::json!(["0x8000000000000000"]));
}

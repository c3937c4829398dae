//! What holds for every policy and every request.

use proptest::collection::vec;
use proptest::prelude::*;
use stead::LogonType;
use stead::os::linux::{Gid, Limit, Uid};

use crate::policy::{
    Caller, DesktopRequest, LogonRequest, NameTable, Policy, Privilege, ProgramRequest, Request, Subject,
};

const USERS: u32 = 6;
const GROUPS: u32 = 4;

fn names() -> NameTable {
    let users = (0..USERS).fold(NameTable::new(), |names, number| names.user(&format!("u{number}"), number));
    (0..GROUPS).fold(users, |names, number| names.group(&format!("g{number}"), number))
}

fn people(everyone: bool) -> impl Strategy<Value = String> {
    let listed = (vec(0..USERS, 0..3), vec(0..GROUPS, 1..3)).prop_map(|(users, groups)| {
        let users: Vec<_> = users.iter().map(|user| format!("\"u{user}\"")).collect();
        let users =
            if users.is_empty() { String::new() } else { format!("users = [{}], ", users.join(", ")) };
        let groups: Vec<_> = groups.iter().map(|group| format!("\"g{group}\"")).collect();
        format!("{{ {users}groups = [{}] }}", groups.join(", "))
    });
    if everyone {
        prop_oneof![3 => listed, 1 => Just("\"everyone\"".to_owned())].boxed()
    } else {
        listed.boxed()
    }
}

/// The text of one rule with every privilege, whose callers are `callers`.
fn allow(callers: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let programs = prop_oneof![Just("\"any\""), Just("[\"/bin/true\"]"), Just("[\"/opt/jobs/*\"]")];
    let types = prop_oneof![Just("\"any\""), Just("[\"batch\"]")];
    (callers, people(true), programs, types).prop_map(|(callers, clients, programs, types)| {
        format!(
            "[[allow]]\ncallers = {callers}\nclients = {clients}\nprograms = {programs}\nlogon-types = {types}\n\
             privileges = [\"assign-primary-token\", \"impersonate\", \"logon\", \"tcb\", \"increase-quota\"]\n\
             limits = {{ open-files = 100 }}\ndesktops = [\"own\"]\n"
        )
    })
}

fn deny() -> impl Strategy<Value = String> {
    (people(true), people(true))
        .prop_map(|(callers, clients)| format!("[[deny]]\ncallers = {callers}\nclients = {clients}\n"))
}

fn policy(texts: &[String]) -> Policy {
    let texts = texts.iter().enumerate().map(|(number, text)| (format!("{number}.toml"), text.clone()));
    Policy::from_texts(texts, &names()).unwrap_or_else(|errors| panic!("{errors}"))
}

fn gids(gids: Vec<u32>) -> Vec<Gid> {
    gids.into_iter().filter_map(Gid::new).collect()
}

fn caller() -> impl Strategy<Value = Caller> {
    (0..USERS, vec(0..GROUPS, 0..3))
        .prop_map(|(uid, groups)| Caller::new(Uid::new(uid).unwrap(), gids(groups)))
}

fn client() -> impl Strategy<Value = Subject> {
    (0..USERS + 1, vec(0..GROUPS, 0..3)).prop_map(|(uid, groups)| {
        if uid == USERS {
            Subject::unknown("nobody")
        } else {
            Subject::new(Uid::new(uid).unwrap(), format!("u{uid}"), gids(groups))
        }
    })
}

/// Every request over a client that the rules above tell apart.
fn requests(client: &Subject) -> Vec<Request<'_>> {
    let run = |program: &'static [u8]| {
        Request::new(Privilege::AssignPrimaryToken, client).program(ProgramRequest::Path(program))
    };
    let log_on = |privilege, kind| Request::new(privilege, client).logon(LogonRequest::Type(kind));
    vec![
        run(b"/bin/true"),
        run(b"/opt/jobs/one"),
        run(b"sh"),
        run(b"/bin/true").environment([(b"LD_PRELOAD".as_slice(), Some(b"x".as_slice()))]),
        run(b"/bin/true").desktop(DesktopRequest::Own),
        run(b"/bin/true").desktop(DesktopRequest::Interactive),
        Request::new(Privilege::AssignPrimaryToken, client).program(ProgramRequest::Descriptor),
        Request::new(Privilege::Impersonate, client),
        log_on(Privilege::Tcb, LogonType::Batch),
        log_on(Privilege::Logon, LogonType::Interactive),
        Request::new(Privilege::Tcb, client).logon(LogonRequest::PamService("su")),
        Request::new(Privilege::IncreaseQuota, client).limit(Limit::OpenFiles, 100),
        Request::new(Privilege::IncreaseQuota, client).limit(Limit::OpenFiles, 101),
    ]
}

proptest! {
    #[test]
    fn whatever_a_file_holds_reading_it_does_not_panic(bytes in vec(any::<u8>(), 0..400)) {
        let text = String::from_utf8_lossy(&bytes);
        let _ = Policy::parse("x", &text, &names());
    }

    #[test]
    fn whatever_stands_where_a_key_or_value_should_reading_it_does_not_panic(
        lines in vec(
            (
                prop_oneof![
                    Just("callers"), Just("clients"), Just("privileges"), Just("programs"), Just("environment"),
                    Just("logon-types"), Just("pam-services"), Just("limits"), Just("desktops"), Just("quotas"),
                    Just("name"), Just("\"é\""), Just("x"),
                ],
                prop_oneof![
                    Just("1"), Just("-1"), Just("0xffffffffffffffff"), Just("1.5"), Just("nan"), Just("true"), Just("[]"),
                    Just("{}"), Just("\"any\""), Just("\"everyone\""), Just("[[[]]]"), Just("1979-05-27"), Just("[1, \"x\"]"),
                    Just("{ users = [\"u1\", \"ü\"] }"), Just("{ core = 99999999999999999999999 }"), Just("[\"\\u0000\"]"),
                ],
            ),
            0..6,
        ),
        table in prop_oneof![Just("[[allow]]"), Just("[[deny]]"), Just("[quotas]"), Just("[failed-logons]"), Just("")],
    ) {
        let lines: Vec<_> = lines.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        let _ = Policy::parse("x", &format!("{table}\n{}", lines.concat()), &names());
    }

    #[test]
    fn every_request_has_an_answer_that_explain_gives_too(
        texts in vec(prop_oneof![allow(people(true)), deny()], 0..6), who in caller(), client in client(),
    ) {
        let policy = policy(&texts);
        for request in requests(&client) {
            let decision = policy.decide(&who, &request);
            let explanation = policy.explain(&who, &request);
            prop_assert_eq!(&explanation.decision, &decision);
            prop_assert_eq!(explanation.rules.len(), texts.len());
            let first_line = explanation.to_string().lines().next().unwrap().to_owned();
            let word = if decision.allowed { "allowed" } else { "denied" };
            let rest = first_line.strip_prefix(word);
            prop_assert!(rest.is_some_and(|rest| rest.starts_with(": ") || rest.starts_with(" by ")), "{}", first_line);
        }
    }

    #[test]
    fn a_grant_for_one_caller_changes_nothing_for_another(
        texts in vec(prop_oneof![allow(people(true)), deny()], 0..5),
        granted in 0..USERS, rule in allow(Just("CALLERS".to_owned())), who in caller(), client in client(),
    ) {
        prop_assume!(who.uid.as_raw() != granted);
        let before = policy(&texts);
        let grant = rule.replace("CALLERS", &format!("{{ users = [\"u{granted}\"] }}"));
        let after = policy(&[texts, vec![grant]].concat());
        for request in requests(&client) {
            prop_assert_eq!(before.decide(&who, &request).allowed, after.decide(&who, &request).allowed);
        }
        prop_assert_eq!(before.quota(&who), after.quota(&who));
    }

    #[test]
    fn the_order_of_rules_and_files_decides_nothing(
        texts in vec(prop_oneof![allow(people(true)), deny()], 0..5).prop_shuffle(), who in caller(), client in client(),
    ) {
        let mut sorted = texts.clone();
        sorted.sort();
        let (one, other) = (policy(&texts), policy(&sorted));
        let joined = policy(&[sorted.concat()]);
        for request in requests(&client) {
            let allowed = one.decide(&who, &request).allowed;
            prop_assert_eq!(allowed, other.decide(&who, &request).allowed);
            prop_assert_eq!(allowed, joined.decide(&who, &request).allowed);
        }
    }

    #[test]
    fn a_deny_only_ever_takes_away_and_a_grant_only_ever_gives(
        texts in vec(prop_oneof![allow(people(true)), deny()], 0..5),
        denied in deny(), granted in allow(people(true)), who in caller(), client in client(),
    ) {
        let before = policy(&texts);
        let with_deny = policy(&[texts.clone(), vec![denied]].concat());
        let with_grant = policy(&[texts, vec![granted]].concat());
        for request in requests(&client) {
            let allowed = before.decide(&who, &request).allowed;
            prop_assert!(allowed || !with_deny.decide(&who, &request).allowed);
            prop_assert!(!allowed || with_grant.decide(&who, &request).allowed);
        }
    }

    #[test]
    fn no_group_and_no_everyone_ever_makes_root_a_client(
        texts in vec(allow(people(true)), 1..6), who in caller(), groups in vec(0..GROUPS, 0..4),
    ) {
        let unnamed: Vec<_> = texts.iter().map(|text| text.replace("\"u0\"", "\"u1\"")).collect();
        let policy = policy(&unnamed);
        prop_assume!(who.uid != Uid::ROOT);
        let root = Subject::new(Uid::ROOT, "root", gids(groups));
        for request in requests(&root) {
            prop_assert!(!policy.decide(&who, &request).allowed);
        }
    }

    #[test]
    fn who_is_refused_outright_is_refused_for_every_client(
        texts in vec(prop_oneof![allow(people(true)), deny()], 0..5), who in caller(), client in client(),
    ) {
        let policy = policy(&texts);
        for request in requests(&client) {
            let outright = policy.refuses_outright(&who, request.privilege).is_some();
            if outright && client.uid != Some(who.uid) {
                prop_assert!(!policy.decide(&who, &request).allowed);
            }
        }
    }
}

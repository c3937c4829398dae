//! Rules and the decisions that follow from them.

use stead::LogonType;
use stead::os::linux::{Gid, Limit, Uid};

use crate::policy::{
    Caller, DesktopRequest, LogonRequest, NameTable, Policy, Privilege, ProgramRequest, Request, RuleRef,
    Subject,
};

const PORTAL: u32 = 990;
const ALICE: u32 = 1000;
const BOB: u32 = 1001;
const STUDENTS: u32 = 500;
const SUDO: u32 = 27;

fn names() -> NameTable {
    let users = NameTable::new().user("root", 0).user("portal", PORTAL).user("alice", ALICE).user("bob", BOB);
    users.group("root", 0).group("students", STUDENTS).group("sudo", SUDO)
}

fn policy(text: &str) -> Policy {
    Policy::parse("policy.toml", text, &names()).unwrap_or_else(|errors| panic!("{errors}"))
}

fn gid(gid: u32) -> Gid {
    Gid::new(gid).unwrap()
}

fn caller(uid: u32) -> Caller {
    Caller::new(Uid::new(uid).unwrap(), [gid(uid)])
}

fn alice() -> Subject {
    Subject::new(Uid::new(ALICE).unwrap(), "alice", [gid(ALICE), gid(STUDENTS)])
}

fn bob() -> Subject {
    Subject::new(Uid::new(BOB).unwrap(), "bob", [gid(BOB)])
}

fn root() -> Subject {
    Subject::new(Uid::ROOT, "root", [Gid::ROOT, gid(STUDENTS)])
}

fn run<'a>(client: &'a Subject, program: &'a str) -> Request<'a> {
    Request::new(Privilege::AssignPrimaryToken, client).program(ProgramRequest::Path(program.as_bytes()))
}

fn s4u(client: &Subject, kind: LogonType) -> Request<'_> {
    Request::new(Privilege::Tcb, client).logon(LogonRequest::Type(kind))
}

const STUDENTS_RULE: &str = r#"
[[allow]]
callers = { users = ["portal"] }
clients = { groups = ["students"] }
privileges = ["tcb", "assign-primary-token"]
logon-types = ["batch"]
programs = ["/usr/bin/report", "/usr/lib/jobs/*"]
environment = ["JOB_*"]
"#;

#[test]
fn without_a_policy_everyone_creates_processes_as_itself_and_nothing_else() {
    let policy = Policy::without_rules();
    let own = Caller::new(Uid::new(ALICE).unwrap(), [gid(ALICE), gid(STUDENTS)]);
    let decision = policy.decide(&own, &run(&alice(), "report"));
    assert_eq!((decision.allowed, decision.rule), (true, RuleRef::Itself));
    assert!(policy.decide(&own, &Request::new(Privilege::Impersonate, &alice())).allowed);
    for (who, request) in [
        (&own, run(&bob(), "/usr/bin/report")),
        (&own, s4u(&alice(), LogonType::Batch)),
        (&own, Request::new(Privilege::Logon, &alice()).logon(LogonRequest::Type(LogonType::Batch))),
        (&own, Request::new(Privilege::IncreaseQuota, &alice()).limit(Limit::OpenFiles, 1 << 20)),
        (&own, run(&alice(), "x").desktop(DesktopRequest::Interactive)),
        (&caller(0), run(&alice(), "/usr/bin/report")),
    ] {
        assert!(!policy.decide(who, &request).allowed, "{request:?}");
    }
}

#[test]
fn as_itself_is_with_the_callers_groups_no_more_and_no_fewer() {
    let dropped_a_group = caller(ALICE);
    assert!(!Policy::without_rules().decide(&dropped_a_group, &run(&alice(), "x")).allowed);
    let has_one_more = Caller::new(Uid::new(ALICE).unwrap(), [gid(ALICE), gid(STUDENTS), gid(4242)]);
    for privilege in [Privilege::AssignPrimaryToken, Privilege::Impersonate] {
        assert!(!Policy::without_rules().decide(&has_one_more, &Request::new(privilege, &alice())).allowed);
    }
}

#[test]
fn who_may_not_do_what_everyone_may_has_what_a_rule_over_itself_gives() {
    let own = Caller::new(Uid::new(ALICE).unwrap(), [gid(ALICE), gid(STUDENTS)]);
    let alice = alice();
    let request = run(&alice, "/usr/bin/report");
    let by_a_rule = |text: &str| {
        let policy = policy(text);
        assert_eq!(policy.decide(&own, &request).rule == RuleRef::Itself, !text.contains("deny"));
        let decision = policy.decide_by_a_rule(&own, &request);
        (decision.allowed, decision.rule.to_string())
    };
    let over_itself = STUDENTS_RULE.replace("\"portal\"", "\"alice\"");
    assert_eq!(by_a_rule(STUDENTS_RULE), (false, "no rule".to_owned()), "one for somebody else");
    assert_eq!(by_a_rule(&over_itself), (true, "policy.toml:2".to_owned()));
    let deny =
        "[[deny]]\ncallers = \"everyone\"\nclients = \"everyone\"\nprivileges = [\"assign-primary-token\"]\n";
    assert!(!by_a_rule(&(over_itself + deny)).0);
}

#[test]
fn one_rule_must_cover_all_of_a_request() {
    let policy = policy(STUDENTS_RULE);
    let portal = caller(PORTAL);
    assert!(policy.decide(&portal, &s4u(&alice(), LogonType::Batch)).allowed);
    assert!(!policy.decide(&portal, &s4u(&alice(), LogonType::Interactive)).allowed);
    assert!(!policy.decide(&portal, &s4u(&bob(), LogonType::Batch)).allowed);
    assert!(!policy.decide(&caller(BOB), &s4u(&alice(), LogonType::Batch)).allowed);
    assert!(!policy.decide(&portal, &Request::new(Privilege::Tcb, &alice())).allowed);
    assert!(!policy.decide(&portal, &Request::new(Privilege::Impersonate, &alice())).allowed);
    let decision = policy.decide(&portal, &run(&alice(), "/usr/bin/report"));
    assert_eq!(decision.rule.to_string(), "policy.toml:2");
}

#[test]
fn programs_are_plain_absolute_paths() {
    let policy = policy(STUDENTS_RULE);
    let allowed = |path: &str| policy.decide(&caller(PORTAL), &run(&alice(), path)).allowed;
    assert!(allowed("/usr/bin/report"));
    assert!(allowed("/usr/lib/jobs/nightly"));
    for other in [
        "report",
        "/usr/bin/report/",
        "/usr/bin//report",
        "/usr/bin/./report",
        "/usr/lib/jobs/../../bin/sh",
        "/usr/lib/jobs/deeper/one",
        "/usr/lib/jobs/",
        "/usr/lib/jobs",
        "/usr/bin/report\0",
        "",
        "/",
    ] {
        assert!(!allowed(other), "{other:?}");
    }
    let alice = alice();
    let by_descriptor =
        Request::new(Privilege::AssignPrimaryToken, &alice).program(ProgramRequest::Descriptor);
    assert!(!policy.decide(&caller(PORTAL), &by_descriptor).allowed);
}

#[test]
fn a_variable_cannot_make_another_program_of_an_allowed_one() {
    let policy = policy(STUDENTS_RULE);
    let alice = alice();
    let to = |name: &'static str, value: &'static str| {
        let variable = (name.as_bytes(), Some(value.as_bytes()));
        policy.decide(&caller(PORTAL), &run(&alice, "/usr/bin/report").environment([variable])).allowed
    };
    let with = |name| to(name, "x");
    assert!(with("LANG") && with("LC_ALL") && with("TERM") && with("JOB_NUMBER"));
    for name in ["LD_PRELOAD", "PATH", "BASH_ENV", "PYTHONPATH", "HOME", "LANGX", "XJOB_", ""] {
        assert!(!with(name), "{name}");
    }
    // A message catalog of the caller's is format strings; what a rule names may be a path.
    assert!(
        !to("LANGUAGE", "../../../run/home/portal/x")
            && to("LANGUAGE", "de:en")
            && to("JOB_FOLDER", "/srv/%Y")
    );
}

#[test]
fn root_is_a_client_only_where_a_rule_names_it() {
    for clients in ["\"everyone\"", "{ groups = [\"root\", \"students\"] }"] {
        let text = format!(
            "[[allow]]\ncallers = \"everyone\"\nclients = {clients}\nprivileges = [\"impersonate\"]\n"
        );
        let policy = policy(&text);
        assert!(policy.decide(&caller(PORTAL), &Request::new(Privilege::Impersonate, &alice())).allowed);
        let decision = policy.decide(&caller(PORTAL), &Request::new(Privilege::Impersonate, &root()));
        assert!(!decision.allowed);
        assert!(decision.why.ends_with("root must be named"), "{}", decision.why);
    }
    let named = policy(
        "[[allow]]\ncallers = {users=[\"portal\"]}\nclients = {users=[\"root\"]}\nprivileges = [\"impersonate\"]\n",
    );
    assert!(named.decide(&caller(PORTAL), &Request::new(Privilege::Impersonate, &root())).allowed);
}

#[test]
fn a_deny_wins_wherever_it_stands_and_over_ones_own_too() {
    let deny = "[[deny]]\nclients = { groups = [\"sudo\"] }\n";
    for text in [format!("{deny}{STUDENTS_RULE}"), format!("{STUDENTS_RULE}{deny}")] {
        let policy = policy(&text);
        let admin = Subject::new(Uid::new(ALICE).unwrap(), "alice", [gid(STUDENTS), gid(SUDO)]);
        let decision = policy.decide(&caller(PORTAL), &s4u(&admin, LogonType::Batch));
        assert!(!decision.allowed);
        assert!(decision.why.starts_with("denied by policy.toml:"), "{}", decision.why);
        let own = Caller::new(Uid::new(ALICE).unwrap(), [gid(STUDENTS), gid(SUDO)]);
        assert!(!policy.decide(&own, &run(&admin, "/bin/true")).allowed);
    }
}

#[test]
fn nobody_escapes_a_deny_by_dropping_a_group() {
    let policy = policy(&format!("[[deny]]\nclients = {{ groups = [\"sudo\"] }}\n{STUDENTS_RULE}"));
    assert!(policy.decide(&caller(PORTAL), &run(&alice(), "/usr/bin/report")).allowed);
    let dropped = alice().account_groups([gid(SUDO)]);
    assert!(!policy.decide(&caller(PORTAL), &run(&dropped, "/usr/bin/report")).allowed);
}

#[test]
fn a_group_that_only_the_account_has_allows_nothing() {
    let policy = policy(STUDENTS_RULE);
    let not_in_the_token = bob().account_groups([gid(STUDENTS)]);
    assert!(!policy.decide(&caller(PORTAL), &run(&not_in_the_token, "/usr/bin/report")).allowed);
}

#[test]
fn an_unknown_name_is_refused_as_one_that_is_not_allowed() {
    let policy = policy(STUDENTS_RULE);
    let nobody = Subject::unknown("no-such-user");
    assert!(!policy.decide(&caller(PORTAL), &s4u(&nobody, LogonType::Batch)).allowed);
    assert!(policy.refuses_outright(&caller(BOB), Privilege::Tcb).is_some_and(|decision| !decision.allowed));
    assert!(policy.refuses_outright(&caller(PORTAL), Privilege::Tcb).is_none());
    let everyone = policy_for_everyone();
    assert!(
        everyone.decide(&caller(PORTAL), &s4u(&nobody, LogonType::Batch)).allowed,
        "PAM says so itself then"
    );
}

fn policy_for_everyone() -> Policy {
    policy(
        "[[allow]]\ncallers = {users=[\"portal\"]}\nclients = \"everyone\"\nprivileges = [\"tcb\"]\n\
         logon-types = \"any\"\n",
    )
}

#[test]
fn a_pam_service_of_the_callers_choice_must_be_named() {
    let alice = alice();
    let su = Request::new(Privilege::Tcb, &alice).logon(LogonRequest::PamService("su"));
    assert!(!policy_for_everyone().decide(&caller(PORTAL), &su).allowed, "any logon type is no PAM service");
    let named = policy(
        "[[allow]]\ncallers = {users=[\"portal\"]}\nclients = \"everyone\"\nprivileges = [\"tcb\"]\n\
         pam-services = [\"su\"]\n",
    );
    assert!(named.decide(&caller(PORTAL), &su).allowed);
    assert!(!named.decide(&caller(PORTAL), &s4u(&alice, LogonType::Batch)).allowed);
}

#[test]
fn limits_are_raised_as_far_as_a_rule_says() {
    let policy = policy(
        "[[allow]]\ncallers = {users=[\"portal\"]}\nclients = \"everyone\"\nprivileges = [\"increase-quota\"]\n\
         limits = { open-files = 65536, core = \"unlimited\" }\n",
    );
    let alice = alice();
    let raise = |limit, hard| {
        let request = Request::new(Privilege::IncreaseQuota, &alice).limit(Limit::Core, 1).limit(limit, hard);
        policy.decide(&caller(PORTAL), &request).allowed
    };
    assert!(raise(Limit::OpenFiles, 65536) && raise(Limit::Core, Limit::UNLIMITED));
    assert!(!raise(Limit::OpenFiles, 65537) && !raise(Limit::OpenFiles, Limit::UNLIMITED));
    assert!(!raise(Limit::Processes, 1));
}

#[test]
fn desktops_are_given_by_rules_only() {
    let rule = |desktops: &str| {
        policy(&format!(
            "[[allow]]\ncallers = {{users=[\"portal\"]}}\nclients = \"everyone\"\n\
             privileges = [\"assign-primary-token\"]\nprograms = \"any\"\n{desktops}"
        ))
    };
    let alice = alice();
    let asks =
        |policy: &Policy, desktop| policy.decide(&caller(PORTAL), &run(&alice, "x").desktop(desktop)).allowed;
    let (own, interactive, named) =
        (DesktopRequest::Own, DesktopRequest::Interactive, DesktopRequest::Named(":1"));
    let all = |policy: &Policy| [own, interactive, named].map(|desktop| asks(policy, desktop));
    assert_eq!(all(&rule("")), [false, false, false]);
    assert_eq!(all(&rule("desktops = [\"own\"]")), [true, false, false]);
    assert_eq!(all(&rule("desktops = [\"interactive\"]")), [true, true, false]);
    assert_eq!(all(&rule("desktops = [\":1\"]")), [false, false, true]);
    assert_eq!(all(&rule("desktops = \"any\"")), [true, true, true]);
}

#[test]
fn a_desktop_that_is_denied_is_denied_in_every_spelling_and_however_it_was_found() {
    let rules = |denied: &str| {
        policy(&format!(
            "[[allow]]\ncallers = {{users=[\"portal\"]}}\nclients = \"everyone\"\ndesktops = \"any\"\n\
             privileges = [\"assign-primary-token\"]\nprograms = \"any\"\n\
             [[deny]]\ncallers = \"everyone\"\ndesktops = [\"{denied}\"]\n"
        ))
    };
    let alice = alice();
    let asks = |policy: &Policy, desktop: &str| {
        let desktop = DesktopRequest::Named(desktop);
        policy.decide(&caller(PORTAL), &run(&alice, "x").desktop(desktop)).allowed
    };
    for (denied, spellings) in [
        (":0", &[":0", ":0.0", ":0.1"][..]),
        (":0.0", &[":0"]),
        ("/dev/tty3", &["/dev//tty3", "/dev/./tty3", "//dev/tty3", "/dev/tty3/"]),
        ("/run/user/1000/wayland-0", &["/run//user/1000/wayland-0", "/run/user/./1000/wayland-0"]),
    ] {
        let policy = rules(denied);
        for spelling in spellings {
            assert!(!asks(&policy, spelling), "{spelling}");
        }
        assert!(asks(&policy, ":10") && asks(&policy, "/dev/tty33"));
    }
    let policy = rules(":0");
    let asks = |desktop, found| {
        policy.decide(&caller(PORTAL), &run(&alice, "x").desktop(desktop).found(found)).allowed
    };
    assert!(!asks(DesktopRequest::Interactive, ":0") && !asks(DesktopRequest::Own, ":0"));
    assert!(asks(DesktopRequest::Interactive, ":1"));
}

#[test]
fn the_largest_quota_that_a_rule_gives_a_caller_counts() {
    let policy = policy(&format!("[quotas]\nsessions = 5\n{STUDENTS_RULE}quotas = {{ sessions = 500 }}\n"));
    assert_eq!(policy.quota(&caller(PORTAL)).sessions, 500);
    assert_eq!(policy.quota(&caller(ALICE)).sessions, 5);
    assert_eq!(policy.quota(&caller(PORTAL)).processes, policy.quota(&caller(ALICE)).processes);
}

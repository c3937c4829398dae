//! Properties of the throttle, under a clock of the test's own.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use stead::os::linux::Uid;

use super::{About, Becomes, Failures, Holding, Quotas, Records, Wait};
use crate::policy::{FailedLogons, Quota};

fn uid(uid: u32) -> Uid {
    Uid::new(uid).unwrap()
}

fn fail(failures: &mut Failures, now: Instant, caller: u32, user: &str) -> Result<(), Wait> {
    failures.begin(now, uid(caller), user).map(|attempt| failures.failed(attempt))
}

#[test]
fn waits_double_up_to_the_longest_and_are_forgotten_one_by_one() {
    let settings = FailedLogons::default();
    let mut failures = Failures::new(settings);
    let mut now = Instant::now();
    for _ in 0..settings.free_attempts {
        fail(&mut failures, now, 1, "alice").unwrap();
    }
    let mut expected = settings.first_delay;
    for _ in 0..20 {
        assert_eq!(fail(&mut failures, now, 1, "alice"), Err(Wait(expected)));
        now += expected;
        fail(&mut failures, now, 1, "alice").unwrap();
        expected = (expected * 2).min(settings.longest_delay);
    }
    let counted = failures.counted(now, uid(1), "alice");
    now += settings.forget_after;
    assert_eq!(failures.counted(now, uid(1), "alice"), counted - 1);
    now += settings.forget_after * counted;
    assert_eq!(failures.counted(now, uid(1), "alice"), 0);
    fail(&mut failures, now, 1, "alice").unwrap();
}

#[test]
fn attempts_at_the_same_time_gain_nothing() {
    let settings = FailedLogons::default();
    let mut failures = Failures::new(settings);
    let now = Instant::now();
    let begun: Vec<_> = (0..100).filter_map(|_| failures.begin(now, uid(1), "alice").ok()).collect();
    assert_eq!(begun.len(), settings.free_attempts as usize);
}

#[test]
fn one_user_in_many_spellings_is_one_user_whether_or_not_there_is_such_an_account() {
    let settings = FailedLogons::default();
    for name in ["root", "nobody-of-this-name"] {
        let large = name.to_uppercase();
        let spellings =
            [name.to_owned(), large.clone(), format!("{name}@example.com"), format!("EXAMPLE\\{large}")];
        let mut failures = Failures::new(settings);
        let now = Instant::now();
        let begun =
            spellings.iter().cycle().take(100).filter(|user| failures.begin(now, uid(1), user).is_ok());
        assert_eq!(begun.count(), settings.free_attempts as usize, "{name}");
    }
    let mut failures = Failures::new(settings);
    for odd in ["", "@", "\\", "@example.com", "EXAMPLE\\", "\u{130}\u{130}@"] {
        let _ = fail(&mut failures, Instant::now(), 1, odd);
    }
}

#[test]
fn success_forgets_this_callers_failures_and_not_the_others() {
    let mut failures = Failures::new(FailedLogons::default());
    let now = Instant::now();
    for caller in [1, 2] {
        fail(&mut failures, now, caller, "alice").unwrap();
        fail(&mut failures, now, caller, "alice").unwrap();
    }
    let attempt = failures.begin(now, uid(1), "alice").unwrap();
    failures.succeeded(attempt);
    assert_eq!(failures.counted(now, uid(1), "alice"), 0);
    assert_eq!(failures.counted(now, uid(2), "alice"), 2);
}

#[test]
fn many_who_succeed_leave_nothing_behind() {
    let mut failures = Failures::new(FailedLogons::default());
    let now = Instant::now();
    for number in 0..1000 {
        let attempt = failures.begin(now, uid(number % 7), &format!("user{number}")).unwrap();
        failures.succeeded(attempt);
    }
    assert_eq!(failures.remembered(), 0);
}

#[test]
fn one_caller_cannot_keep_a_user_from_another_caller_for_long() {
    let settings = FailedLogons::default();
    let mut failures = Failures::new(settings);
    let start = Instant::now();
    let mut now = start;
    // An attacker that tries as often as it may for a day.
    while now < start + Duration::from_secs(86_400) {
        match fail(&mut failures, now, 1, "alice") {
            Ok(()) => {}
            Err(Wait(wait)) => now += wait,
        }
    }
    let wait = failures.begin(now, uid(2), "alice").map_or_else(|Wait(wait)| wait, |_| Duration::ZERO);
    assert!(wait <= settings.longest_delay / 10, "{wait:?}");
}

#[test]
fn one_bad_user_of_a_portal_only_paces_its_others() {
    let settings = FailedLogons::default();
    let mut failures = Failures::new(settings);
    let mut now = Instant::now();
    for number in 0..5_000_u32 {
        if let Err(Wait(wait)) = fail(&mut failures, now, 1, &format!("guess{number}")) {
            assert!(wait <= settings.first_delay);
            now += wait;
        }
    }
    now += settings.first_delay;
    assert!(failures.begin(now, uid(1), "alice").is_ok());
}

#[test]
fn many_names_do_not_wash_out_the_one_that_is_guessed_at() {
    let settings = FailedLogons::default();
    let mut failures = Failures::new(settings);
    let mut now = Instant::now();
    for _ in 0..6 {
        if let Err(Wait(wait)) = fail(&mut failures, now, 1, "alice") {
            now += wait;
        }
    }
    let before = failures.counted(now, uid(1), "alice");
    for number in 0..3000_u32 {
        let _ = fail(&mut failures, now, 1, &format!("noise{number}"));
        now += Duration::from_millis(10);
    }
    assert_eq!(failures.counted(now, uid(1), "alice"), before);
}

proptest! {
    // Each is some thousand attempts.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_comes_memory_and_waits_are_bounded(
        steps in proptest::collection::vec((0_u32..2000, "[a-z]{0,3}", 0_u64..400_000, any::<bool>()), 1..2000),
        free in 1_u32..5,
    ) {
        let settings = FailedLogons { free_attempts: free, ..FailedLogons::default() };
        let mut failures = Failures::new(settings);
        let mut now = Instant::now();
        for (caller, user, milliseconds, succeeds) in steps {
            now += Duration::from_millis(milliseconds);
            match failures.begin(now, uid(caller), &user) {
                Ok(attempt) if succeeds => failures.succeeded(attempt),
                Ok(attempt) => failures.failed(attempt),
                Err(Wait(wait)) => prop_assert!(!wait.is_zero() && wait <= settings.longest_delay),
            }
        }
        prop_assert!(failures.remembered() <= 256 * 513 + 4096);
        // Whoever waits as long as it is told gets its turn.
        let wait = failures.begin(now, uid(1), "a").map_or_else(|Wait(wait)| wait, |_| Duration::ZERO);
        prop_assert!(failures.begin(now + wait.max(settings.longest_delay), uid(1), "a").is_ok());
    }
}

proptest! {
    #[test]
    fn clocks_that_stand_still_or_jump_do_not_panic(jumps in proptest::collection::vec(any::<u32>(), 1..100)) {
        let mut failures = Failures::new(FailedLogons { forget_after: Duration::ZERO, ..FailedLogons::default() });
        let start = Instant::now();
        for jump in jumps {
            // Back and forth: a caller may have taken its time before another's.
            let now = start + Duration::from_millis(u64::from(jump));
            let _ = fail(&mut failures, now, jump % 3, "alice");
        }
    }

    #[test]
    fn what_is_held_is_never_more_than_the_quota_and_all_of_it_comes_back(
        takes in proptest::collection::vec((0_u32..4, 0_usize..3, any::<bool>()), 1..300),
    ) {
        let quota = Quota { sessions: 2, processes: 5, connections: 3 };
        let quotas = Quotas::default();
        let mut held = Vec::new();
        for (caller, holding, give_back) in takes {
            let holding = [Holding::Session, Holding::Process, Holding::Connection][holding];
            if give_back {
                held.pop();
            } else if let Ok(one) = quotas.take(uid(caller), holding, quota) {
                held.push(one);
            }
            prop_assert!(quotas.held(uid(caller), Holding::Session) <= 2);
            prop_assert!(quotas.held(uid(caller), Holding::Process) <= 5);
            prop_assert!(quotas.held(uid(caller), Holding::Connection) <= 3);
        }
        drop(held);
        prop_assert_eq!(quotas.callers(), 0);
    }
}

/// Records of half a KiB that are made at once until one is folded, or waits; at most this many.
fn until_full(records: &Records, now: Instant, caller: u32, about: About) -> usize {
    let fits = |_: &usize| records.take(now, uid(caller), about, 512) == Becomes::Written(Duration::ZERO);
    (0..100_000).take_while(fits).count()
}

#[test]
fn what_takes_no_rule_is_counted_where_there_is_much_of_it_and_what_is_refused_waits() {
    let (records, mut now) = (Records::default(), Instant::now());
    let at_once = until_full(&records, now, 1, About::Itself);
    assert!((1000..10_000).contains(&at_once), "{at_once}");
    // One was folded already.
    assert_eq!(records.folded_of(now, uid(1)), Some(1));
    for _ in 0..9 {
        assert_eq!(records.take(now, uid(1), About::Itself, 512), Becomes::Folded);
    }
    assert_eq!(records.folded_of(now, uid(1)), None, "it was told just now");
    let Becomes::Written(first) = records.take(now, uid(1), About::Refused, 512) else { panic!("folded") };
    let Becomes::Written(second) = records.take(now, uid(1), About::Refused, 512) else { panic!("folded") };
    assert!(
        Duration::ZERO < first && first < second && second < Duration::from_secs(1),
        "{first:?} {second:?}"
    );
    now += Duration::from_secs(1);
    assert_eq!(records.folded_of(now, uid(1)), Some(9));
    assert_eq!(records.folded_of(now, uid(1)), None);
    // In a day it is what a disk has room for.
    let mut written = 0;
    for _ in 0..24 * 60 {
        now += Duration::from_secs(60);
        written += until_full(&records, now, 1, About::Itself) * 512;
    }
    assert!(written < 2_000_000_000, "{written}");
    // Nobody else has any less for it, and it has what a rule gives it.
    assert_eq!(until_full(&records, now, 2, About::Itself), at_once);
    assert_eq!(records.take(now, uid(1), About::Ruled, 512), Becomes::Written(Duration::ZERO));
}

#[test]
fn a_thousand_processes_a_second_by_a_rule_wait_for_nothing_and_ten_thousand_do() {
    let (records, mut now) = (Records::default(), Instant::now());
    for _ in 0..600 * 1000 {
        now += Duration::from_millis(1);
        for _ in 0..3 {
            assert_eq!(records.take(now, uid(1), About::Ruled, 512), Becomes::Written(Duration::ZERO));
        }
    }
    let waits = |_: &i32| {
        now += Duration::from_micros(100);
        (0..3).all(|_| records.take(now, uid(1), About::Ruled, 512) == Becomes::Written(Duration::ZERO))
    };
    assert!((0..50_000).take_while(waits).count() < 50_000);
    let root = |_| records.take(now, Uid::ROOT, About::Itself, 1 << 20) == Becomes::Written(Duration::ZERO);
    assert!((0..1000).all(root), "root is not bounded");
}

#[test]
fn nobody_waits_for_more_than_half_a_minute_and_what_is_refused_beyond_is_counted() {
    let (records, mut now) = (Records::default(), Instant::now());
    let refused = |now| records.take(now, uid(1), About::Refused, 512);
    let is_written = |_: &usize| matches!(refused(now), Becomes::Written(wait) if wait.as_secs() <= 30);
    let written = (0..100_000).take_while(is_written).count();
    assert!((2000..5000).contains(&written), "{written}");
    assert_eq!(refused(now), Becomes::Folded);
    assert_eq!(records.folded_of(now, uid(1)), Some(2));
    now += Duration::from_secs(1);
    assert!(matches!(refused(now), Becomes::Written(_)), "there is room for some more");

    // By a rule everything is written. Who does not wait for that is to come again.
    let mut wait = Duration::ZERO;
    while records.try_after(now, uid(1)).is_none() {
        let Becomes::Written(next) = records.take(now, uid(1), About::Ruled, 1 << 20) else {
            panic!("folded")
        };
        wait = next;
    }
    assert!((30..32).contains(&wait.as_secs()), "{wait:?}");
    now += records.try_after(now, uid(1)).unwrap();
    assert_eq!(records.try_after(now, uid(1)), None);
    assert_eq!(records.try_after(now, uid(2)), None);
}

#[test]
fn of_callers_that_make_no_records_any_more_nothing_is_kept() {
    let (records, now) = (Records::default(), Instant::now());
    for caller in 1..500 {
        records.take(now, uid(caller), About::Itself, 512);
    }
    until_full(&records, now, 1, About::Itself);
    assert_eq!(records.folded(now), [(uid(1), 1)]);
    assert_eq!(records.callers(), 499);
    assert_eq!(records.folded(now + Duration::from_secs(1)), []);
    assert_eq!(records.callers(), 1);
    records.folded(now + Duration::from_secs(3600));
    assert_eq!(records.callers(), 0);
}

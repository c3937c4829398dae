use super::*;

const STATUS: &[u8] = b"Name:\tcat\nUmask:\t0022\nState:\tR (running)\nTgid:\t5814\nNgid:\t0\nPid:\t5814\n\
PPid:\t5805\nTracerPid:\t0\nUid:\t4000000000\t4000000000\t4000000000\t4000000000\nGid:\t1000\t1001\t1002\t1003\n\
FDSize:\t256\nGroups:\t4 24 4000000001 \nNStgid:\t5814\t1\nThreads:\t1\nCapInh:\t0000000000000000\n\
CapPrm:\t000001fffeffffff\nCapEff:\t000001fffeffffff\nCapBnd:\t000001ffffffffff\nCapAmb:\t0000000000000000\n\
NoNewPrivs:\t0\nSeccomp:\t2\nSeccomp_filters:\t3\nSpeculation_Store_Bypass:\tvulnerable\n";

fn with_name(name: &[u8]) -> Vec<u8> {
    [b"Name:\t".as_slice(), name, &STATUS[b"Name:\tcat".len()..]].concat()
}

#[test]
fn status_is_read_in_the_kernels_own_numbers() {
    let status = parse_status(STATUS).unwrap();
    assert_eq!(status.uids, [4_000_000_000; 4]);
    assert_eq!(status.gids, [1000, 1001, 1002, 1003]);
    assert_eq!(status.groups, [4, 24, 4_000_000_001]);
    assert_eq!(status.permitted, 0x1ff_feff_ffff);
    assert_eq!(status.bounding, 0x1ff_ffff_ffff);
    assert_eq!((status.no_new_privs, status.seccomp, status.seccomp_filters), (false, 2, Some(3)));
    assert_eq!((status.state, status.tgid, status.pid_namespaces), (b'R', 5814, 2));
}

#[test]
fn the_controlling_terminal_is_read_in_two_numbers_whatever_the_name_is() {
    let of = |packed: &str| {
        parse_terminal(format!("814 (X) 7 (org) S 1 814 814 {packed} 814 4194560 0").as_bytes())
    };
    assert_eq!(of("1031"), Some((4, 7)), "/dev/tty7");
    assert_eq!(of("34816"), Some((136, 0)), "/dev/pts/0");
    assert_eq!(of("1083394"), Some((136, 258)), "/dev/pts/258");
    assert_eq!([of("0"), of("-1"), of("x")], [None; 3]);
}

#[test]
fn no_groups_is_an_empty_line() {
    let text = String::from_utf8(STATUS.to_vec()).unwrap().replace("Groups:\t4 24 4000000001 ", "Groups:\t ");
    assert!(parse_status(text.as_bytes()).unwrap().groups.is_empty());
}

#[test]
fn a_name_with_spaces_and_parentheses_changes_nothing() {
    let plain = parse_status(STATUS).unwrap();
    for name in [b"a b) R 1 (c".as_slice(), b"Uid:\t0\t0\t0\t0", b"x\\nUid:\\t0", b"\xff\xfe", b""] {
        assert_eq!(parse_status(&with_name(name)).unwrap(), plain, "{name:?}");
    }
}

#[test]
fn a_name_with_an_unescaped_newline_is_refused() {
    assert_eq!(parse_status(&with_name(b"x\nUid:\t0\t0\t0\t0")), None);
    assert_eq!(parse_status(&with_name(b"x\nNoNewPrivs:\t0")), None);
    assert_eq!(parse_status(&with_name(b"x\nSeccomp_filters:\t0")), None);
}

#[test]
fn a_missing_or_damaged_line_is_refused() {
    let text = String::from_utf8(STATUS.to_vec()).unwrap();
    for (from, to) in [
        ("Uid:\t4000000000\t", "Uid:\t"),
        ("Uid:\t4000000000", "Uid:\t+400000000"),
        ("Uid:\t4000000000", "Uid:\t-1"),
        ("Uid:\t4000000000", "Uid:\t4294967296"),
        ("NoNewPrivs:\t0", "NoNewPrivs:\t2"),
        ("NoNewPrivs:", "Other:"),
        ("CapBnd:\t0", "CapBnd:\t0x"),
        ("CapBnd:\t0", "CapBnd:\t00"),
        ("State:\tR (running)", "State:\t"),
        ("Groups:\t4 ", "Groups:\t4, "),
    ] {
        let damaged = text.replacen(from, to, 1);
        assert_ne!(damaged, text);
        let read = parse_status(damaged.as_bytes());
        // One more leading zero is the same number.
        if to == "CapBnd:\t00" { assert!(read.is_some()) } else { assert_eq!(read, None, "{to}") }
    }
}

#[test]
fn old_kernels_lack_the_number_of_filters() {
    let text = String::from_utf8(STATUS.to_vec()).unwrap().replace("Seccomp_filters:\t3\n", "");
    assert_eq!(parse_status(text.as_bytes()).unwrap().seccomp_filters, None);
}

#[test]
fn login_uid_minus_one_is_the_largest_number() {
    assert_eq!(parse_number(b"4294967295"), Some(u32::MAX));
    assert_eq!(parse_number(b"1000\n"), Some(1000));
    assert_eq!(parse_number(b""), None);
    assert_eq!(parse_number(b"-1"), None);
}

#[test]
fn only_the_initial_namespaces_map_is_every_id_to_itself() {
    assert!(maps_every_id(b"         0          0 4294967295\n"));
    assert!(!maps_every_id(b"         0     100000      65536\n"));
    assert!(!maps_every_id(b"0 0 1000\n1000 1000 4294966295\n"));
    assert!(!maps_every_id(b""));
}

/// A small generator: the parsers must not panic on anything, and one run must be like the next.
fn noise(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

#[test]
fn no_bytes_make_a_parser_panic() {
    let mut next = noise(0x9e37_79b9_7f4a_7c15);
    let words: [&[u8]; 14] = [
        b"Uid:",
        b"Gid:",
        b"Groups:",
        b"\n",
        b"\t",
        b" ",
        b"-1",
        b"4294967295",
        b"CapBnd:",
        b"NoNewPrivs:",
        b"\xff",
        b"\0",
        b"State:",
        b"99999999999999999999",
    ];
    for round in 0..20_000 {
        let mut text = if round % 2 == 0 { STATUS.to_vec() } else { Vec::new() };
        for _ in 0..next() % 20 {
            let word = match next() % 3 {
                0 => vec![next().to_le_bytes()[0]],
                _ => words[usize::try_from(next() % 14).unwrap()].to_vec(),
            };
            let at = usize::try_from(next()).unwrap() % (text.len() + 1);
            let until = if next().is_multiple_of(2) { at } else { (at + word.len()).min(text.len()) };
            text.splice(at..until, word);
        }
        let _ = parse_status(&text);
        let _ = parse_number(&text);
        let _ = maps_every_id(&text);
        let _ = parse_fdinfo(&text, b"Pid");
    }
}

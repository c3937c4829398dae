//! What is written is read, and nothing else is.
#![cfg(target_os = "linux")]
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::ffi::{CStr, CString};

use stead_trampoline::report::{Report, Step};
use stead_trampoline::spec::{Credentials, Keyring, NewSession, On, ProcessDefaults, ProgramSearch, Spec};
use stead_trampoline::wire;

/// Numbers that are the same in every run (xorshift64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 0
    }

    /// Any number, the extreme ones often.
    fn long(&mut self) -> u64 {
        match self.below(6) {
            0 => 0,
            1 => u64::MAX,
            2 => u64::from(u32::MAX),
            3 => 1 << self.below(64),
            _ => self.next(),
        }
    }

    fn short(&mut self) -> u32 {
        let long = self.long();
        u32::try_from(long).unwrap_or_else(|_| u32::try_from(long >> 32).unwrap())
    }

    /// Ascending, each once, as specs are encoded.
    fn set(&mut self, most: usize) -> Vec<u32> {
        let mut set: Vec<u32> = (0..self.below(most + 1)).map(|_| self.short()).collect();
        set.sort_unstable();
        set.dedup();
        set
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| u8::try_from(1 + self.below(255)).unwrap()).collect()
    }

    fn string(&mut self, most: usize) -> CString {
        CString::new(self.bytes(most)).unwrap()
    }

    fn maybe<T>(&mut self, some: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.coin() { Some(some(self)) } else { None }
    }

    fn credentials(&mut self, groups: usize) -> Credentials {
        Credentials {
            uid: self.short(),
            gid: self.short(),
            groups: self.set(groups),
            permitted: self.long(),
            effective: self.long(),
            inheritable: self.long(),
            ambient: self.long(),
            bounding: self.long(),
            last_capability: self.short(),
            securebits: self.short(),
            no_new_privs: self.coin(),
        }
    }

    fn stream(&mut self) -> On {
        match self.below(3) {
            0 => On::Input,
            1 => On::Output,
            _ => On::Error,
        }
    }

    fn spec(&mut self, groups: usize) -> Spec {
        Spec {
            report: self.short(),
            gate: self.maybe(Self::short),
            keep: self.set(40),
            session: match self.below(4) {
                0 => NewSession::None,
                1 => NewSession::Setsid,
                2 => NewSession::SetsidSupervised { terminal: self.stream(), behind: self.coin() },
                _ => NewSession::SetsidWithTerminal(self.stream()),
            },
            defaults: if self.coin() { ProcessDefaults::Fixed } else { ProcessDefaults::Session },
            umask: self.maybe(Self::short),
            nice: self.maybe(|dice| dice.short().cast_signed()),
            oom_score_adj: self.maybe(|dice| dice.short().cast_signed()),
            limits: (0..self.below(17)).map(|_| (self.short(), self.long(), self.long())).collect(),
            keyring: if self.coin() { Keyring::JoinNew } else { Keyring::Inherit },
            login_uid: self.maybe(Self::short),
            credentials: self.maybe(|dice| dice.credentials(groups)),
            exec_label: self.maybe(|dice| dice.bytes(60)),
            directory: self.string(300),
            program: if self.coin() {
                ProgramSearch::Candidates((0..self.below(9)).map(|_| self.string(80)).collect())
            } else {
                ProgramSearch::Descriptor(self.short())
            },
        }
    }
}

/// The encoded spec and a program's arguments behind it.
fn arguments(spec: &Spec) -> Vec<CString> {
    let mut arguments = spec.encode();
    arguments.extend([c"program".to_owned(), c"argument".to_owned()]);
    arguments
}

#[test]
fn what_is_encoded_is_decoded_again() {
    let mut dice = Dice(0x5EAD);
    for round in 0..3_000 {
        let spec = dice.spec(if round % 100 == 0 { 65_536 } else { 40 });
        let arguments = arguments(&spec);
        let (read, program) = Spec::decode(&arguments).expect("it was encoded");
        assert_eq!(read, spec);
        assert_eq!(arguments[program].as_c_str(), c"program");
        assert_eq!(arguments[0].as_c_str(), wire::NAME);
        assert!(arguments.iter().all(|one| one.as_bytes().len() < 131_072), "longer than the kernel takes");
    }
}

#[test]
fn groups_and_kept_descriptors_are_encoded_as_sets() {
    let mut spec = Dice(1).spec(0);
    spec.keep = vec![9, 3, 9, 5];
    spec.credentials = Some(Credentials { groups: vec![7, 7, 1], ..Dice(2).credentials(0) });
    let (read, _) = Spec::decode(&arguments(&spec)).unwrap();
    assert_eq!(read.keep, [3, 5, 9]);
    assert_eq!(read.credentials.unwrap().groups, [1, 7]);
}

#[test]
fn a_spec_without_the_programs_own_name_is_refused() {
    // CVE-2021-4034.
    assert_eq!(Spec::decode(&Dice(3).spec(10).encode()), None);
}

#[test]
fn no_argument_vector_whatever_makes_the_decoder_panic() {
    let mut dice = Dice(0xBAD);
    for _ in 0..if cfg!(miri) { 100 } else { 20_000 } {
        let mut arguments = arguments(&dice.spec(20));
        for _ in 0..=dice.below(4) {
            let at = dice.below(arguments.len());
            match dice.below(5) {
                0 => drop(arguments.remove(at)),
                1 => arguments.insert(at, dice.string(40)),
                2 => arguments.truncate(at),
                3 => arguments[at] = dice.string(200),
                _ => {
                    let mut bytes = arguments[at].as_bytes().to_vec();
                    if !bytes.is_empty() {
                        let place = dice.below(bytes.len());
                        bytes[place] = u8::try_from(1 + dice.below(255)).unwrap();
                    }
                    arguments[at] = CString::new(bytes).unwrap();
                }
            }
            if arguments.is_empty() {
                break;
            }
        }
        // Whatever it makes of it: it is a spec, and encodes as one.
        if let Some((spec, _)) = Spec::decode(&arguments) {
            assert_eq!(Spec::decode(&self::arguments(&spec)).map(|(again, _)| again), Some(normal(spec)));
        }
    }
}

/// As it is encoded.
fn normal(mut spec: Spec) -> Spec {
    spec.keep.sort_unstable();
    spec.keep.dedup();
    if let Some(credentials) = &mut spec.credentials {
        credentials.groups.sort_unstable();
        credentials.groups.dedup();
    }
    spec
}

#[test]
fn a_header_of_another_version_or_with_unknown_flags_is_refused() {
    let mut spec = Dice(4).spec(0);
    spec.keep.clear();
    let good = arguments(&spec);
    assert!(Spec::decode(&good).is_some());
    for (offset, value) in [(0, 9), (5 + 3, 0x7f)] {
        let mut arguments = good.clone();
        let mut header = arguments[1].as_bytes().to_vec();
        header[offset] = 0x80 | value;
        arguments[1] = CString::new(header).unwrap();
        assert_eq!(Spec::decode(&arguments), None);
    }
}

#[test]
fn every_report_is_read_as_it_was_written_and_nothing_else_is_a_report() {
    let mut dice = Dice(7);
    for step in Step::ALL {
        let report = Report { step: *step, errno: dice.short().cast_signed(), detail: dice.short() };
        assert_eq!(Report::decode(report.encode()), Some(report));
        assert_eq!(Step::from_number(*step as u8), Some(*step));
    }
    let mut spoilt = Report { step: Step::Groups, errno: 1, detail: 0 }.encode();
    spoilt[1] = 1;
    assert_eq!(Report::decode(spoilt), None);
    assert_eq!(Report::decode([0; Report::SIZE]), None);
}

#[test]
fn the_program_is_small_and_is_an_executable_of_this_machine() {
    let image = stead_trampoline::IMAGE;
    assert!(image.starts_with(b"\x7fELF"));
    assert!(image.len() < 20_000, "{} bytes", image.len());
    let machine = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
    assert_eq!(u16::from_le_bytes([image[18], image[19]]), machine);
    // One mapping, and none that is writable and executable.
    let headers = u16::from_le_bytes([image[56], image[57]]);
    let loads = (0..usize::from(headers)).map(|index| &image[64 + index * 56..][..8]);
    let flags: Vec<u8> = loads.filter(|header| header[0] == 1).map(|header| header[4]).collect();
    assert_eq!(flags, [5], "readable and executable");
}

#[test]
#[cfg_attr(miri, ignore = "Miri starts no processes")]
fn the_program_does_nothing_for_who_runs_it_by_hand() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let path = std::env::temp_dir().join(format!("stead-trampoline-{}", std::process::id()));
    std::fs::write(&path, stead_trampoline::IMAGE).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut dice = Dice(11);
    for round in 0..200 {
        let spec = dice.spec(5);
        let mut arguments = arguments(&spec);
        arguments.truncate(round % arguments.len());
        arguments.iter_mut().skip(1).take(1).for_each(|header| *header = dice.string(200));
        let mut command = std::process::Command::new(&path);
        command.arg0(CStr::to_str(wire::NAME).unwrap());
        command.args(arguments.iter().skip(1).map(|one| {
            use std::os::unix::ffi::OsStrExt;
            std::ffi::OsStr::from_bytes(one.as_bytes())
        }));
        // Another test's child may hold the file open for writing for a moment.
        let output = loop {
            match command.output() {
                Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {}
                output => break output.unwrap(),
            }
        };
        assert_eq!(output.status.code(), Some(127));
        assert!(output.stdout.is_empty() && output.stderr.is_empty());
    }
    std::fs::remove_file(&path).unwrap();
}

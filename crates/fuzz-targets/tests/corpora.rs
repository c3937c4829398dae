//! What the fuzzers found worth keeping, and what is near it, on every machine.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use fuzz_targets::targets;

fn fuzz_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(fuzz_folder().join("corpus").join(name))
        .unwrap_or_else(|error| panic!("fuzz/corpus/{name}: {error}"))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// The same numbers in every run (xorshift64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }

    /// Something near one of these.
    fn near(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut data = corpus[self.below(corpus.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(data.len() + 1);
            match self.below(5) {
                0 => data.truncate(at),
                1 => data.insert(at, self.byte()),
                2 if at < data.len() => data[at] ^= 1 << self.below(8),
                3 if at < data.len() => drop(data.remove(at)),
                _ => {
                    let other = &corpus[self.below(corpus.len())];
                    data.truncate(at);
                    data.extend_from_slice(&other[self.below(other.len() + 1)..]);
                }
            }
        }
        data
    }
}

#[test]
fn what_the_fuzzers_kept_and_what_is_near_it_breaks_no_decoder() {
    let mut dice = Dice(0x5EAD_F077);
    let rounds = if cfg!(miri) { 20 } else { 5_000 };
    // What speaks over a socket, and what asks the kernel for a name or a limit: Miri has but a part of that.
    let pure = |name: &str| !cfg!(miri) || !matches!(name, "x_replies" | "x_authority" | "proc_limits");
    for target in targets().into_iter().filter(|target| pure(target.name)) {
        let corpus = corpus(target.name);
        assert!(!corpus.is_empty(), "fuzz/corpus/{} is empty", target.name);
        for data in &corpus {
            (target.check)(data);
        }
        for _ in 0..rounds {
            (target.check)(&dice.near(&corpus));
        }
    }
}

#[test]
fn every_decoder_has_a_fuzz_target_of_its_name() {
    let mut programs: Vec<String> = std::fs::read_dir(fuzz_folder().join("fuzz_targets"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    programs.sort();
    let mut names: Vec<&str> = targets().iter().map(|target| target.name).collect();
    names.sort_unstable();
    assert_eq!(programs, names);
}
